//! SQL of connections, probe and watchers. Reads, except the probe's row, the markers and ending a session; never DDL.

/// Who answers: address, version number, recovery, read-only, and whether it can say its instance's name.
pub const IDENTIFY: &str = "select host(pg_catalog.inet_server_addr()), \
     pg_catalog.current_setting('server_version_num'), \
     pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('transaction_read_only'), \
     pg_catalog.to_regprocedure('pg_catalog.aurora_db_instance_identifier()') is not null";

/// The instance's current name, where the server has the function.
pub const INSTANCE: &str = "select pg_catalog.aurora_db_instance_identifier()";

/// Databases that may be connected to. `rdsadmin` belongs to RDS and refuses.
pub const CONNECTABLE_DATABASES: &str = "select datname::text from pg_catalog.pg_database \
     where datallowconn and not datistemplate and datname <> 'rdsadmin' order by 1";

// ---- probe -----------------------------------------------------------------------------------------------------

/// Is our table there?
pub const PROBE_IS_THERE: &str = "select pg_catalog.to_regclass('upgrade_pilot.probe') is not null";

/// A plain write: one row, keyed by the agent and the server's own address, so that apply never collides with it.
pub const PROBE_WRITE: &str = "insert into upgrade_pilot.probe (agent, server, n, at) \
     values ($1, pg_catalog.inet_server_addr(), 1, pg_catalog.clock_timestamp()) \
     on conflict (agent, server) do update set n = upgrade_pilot.probe.n + 1, at = excluded.at";

// ---- the switchover's status -------------------------------------------------------------------------------------

/// Does the server tell where the switchover stands, as Aurora does?
pub const HAS_FAST_SWITCHOVER_METADATA: &str =
    "select pg_catalog.to_regproc('pg_catalog.get_blue_green_fast_switchover_metadata') is not null";

/// Does it, as RDS for PostgreSQL does?
pub const HAS_SHOW_TOPOLOGY: &str = "select pg_catalog.to_regproc('rds_tools.show_topology') is not null";

/// The status of each row; the argument only names who asks.
pub const FAST_SWITCHOVER_METADATA: &str =
    "select status from pg_catalog.get_blue_green_fast_switchover_metadata('upgrade_pilot')";

/// The same, on RDS for PostgreSQL.
pub const SHOW_TOPOLOGY: &str = "select status from rds_tools.show_topology('upgrade_pilot')";

// ---- slots and sessions ----------------------------------------------------------------------------------------

/// The end of the log, and every slot with its distance to it. One row with a null name when there is no slot.
pub const SLOTS: &str = "select e.lsn::text, s.slot_name::text, s.database::text, coalesce(s.slot_type = 'logical', false), \
     coalesce(s.active, false), s.confirmed_flush_lsn::text, \
     pg_catalog.pg_wal_lsn_diff(e.lsn, s.confirmed_flush_lsn)::bigint, \
     pg_catalog.pg_wal_lsn_diff(e.lsn, s.restart_lsn)::bigint, s.wal_status, \
     greatest(pg_catalog.age(s.catalog_xmin), pg_catalog.age(s.xmin))::bigint \
     from (select pg_catalog.pg_current_wal_lsn() as lsn) e left join pg_catalog.pg_replication_slots s on true";

/// Sessions of clients by state, slots that wait for a transaction to end, and the transactions they wait for.
pub const SESSIONS: &str = "with waits as (select l.transactionid as xid from pg_catalog.pg_replication_slots s \
       join pg_catalog.pg_locks l on l.pid = s.active_pid and l.locktype = 'transactionid' and not l.granted \
      where s.slot_type = 'logical' and s.confirmed_flush_lsn is null) \
     select count(*) filter (where a.backend_type = 'client backend'), \
       count(*) filter (where a.backend_type = 'client backend' and a.state = 'active'), \
       count(*) filter (where a.backend_type = 'client backend' and a.state like 'idle in transaction%'), \
       (select count(*) from pg_catalog.pg_replication_slots s where s.slot_type = 'logical' \
           and s.active_pid is not null and s.confirmed_flush_lsn is null), \
       count(*) filter (where a.backend_xid in (select xid from waits)) \
     from pg_catalog.pg_stat_activity a where a.pid <> pg_catalog.pg_backend_pid() and coalesce(a.usename, '') !~ '^rds'";

// ---- purger ----------------------------------------------------------------------------------------------------

/// Sessions that hold a transaction id, with the slot that waits for them just now. Never RDS's own, never ours.
pub const PURGE_CANDIDATES: &str = "with waits as (select s.slot_name::text as slot, l.transactionid as xid \
       from pg_catalog.pg_replication_slots s \
       join pg_catalog.pg_locks l on l.pid = s.active_pid and l.locktype = 'transactionid' and not l.granted \
      where s.slot_type = 'logical' and s.confirmed_flush_lsn is null) \
     select a.pid, a.datname::text, a.usename::text, a.application_name, host(a.client_addr), coalesce(a.state, ''), \
       a.backend_start, a.xact_start, \
       greatest(0, extract(epoch from pg_catalog.clock_timestamp() - a.state_change) * 1000)::bigint, \
       greatest(0, extract(epoch from pg_catalog.clock_timestamp() - a.xact_start) * 1000)::bigint, \
       upper(substring(a.query from '^\\s*([A-Za-z]+)')), w.slot \
     from pg_catalog.pg_stat_activity a left join waits w on w.xid = a.backend_xid \
     where a.backend_type = 'client backend' and a.backend_xid is not null and a.xact_start is not null \
       and a.pid <> pg_catalog.pg_backend_pid() and a.usename !~ '^rds' and a.usename <> current_user";

/// How many slots are being made and have no position yet.
pub const WAITING_SLOTS: &str = "select count(*) from pg_catalog.pg_replication_slots \
     where slot_type = 'logical' and active_pid is not null and confirmed_flush_lsn is null";

/// Prepared transactions: they are named, never rolled back.
pub const PREPARED: &str = "select gid, owner::text, database::text, \
     greatest(0, extract(epoch from pg_catalog.clock_timestamp() - prepared) * 1000)::bigint from pg_catalog.pg_prepared_xacts";

/// Ends a session if it is still the one that was seen, in the state in which it may be ended.
pub const END_SEEN_SESSION: &str = "select pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a \
     where a.pid = $1 and a.backend_start = $2 and a.xact_start = $3 and a.state = any($4) and a.backend_xid is not null";

// ---- the old side ----------------------------------------------------------------------------------------------

/// Clients of the side that does not serve any more. Never RDS's own, never ours.
pub const OLD_SIDE_CLIENTS: &str = "select pid, backend_start, datname::text, usename::text, application_name, host(client_addr) \
     from pg_catalog.pg_stat_activity where backend_type = 'client backend' and pid <> pg_catalog.pg_backend_pid() \
       and usename !~ '^rds' and usename <> current_user";

/// Ends a client if it is still the one that was seen.
pub const END_OLD_SIDE_CLIENT: &str = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity \
     where pid = $1 and backend_start = $2";

/// The next transaction id: it grows with every transaction that writes.
pub const NEXT_XID: &str = "select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint";

/// Rows that were written to tables of users in this database since its counters began.
pub const ROWS_WRITTEN: &str = "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint \
     from pg_catalog.pg_stat_user_tables where schemaname !~ '^(upgrade_pilot|rds)'";

/// Is a new session read-only by default?
pub const DEFAULT_READ_ONLY: &str = "select pg_catalog.current_setting('default_transaction_read_only') = 'on'";
