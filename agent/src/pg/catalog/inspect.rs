//! SQL of the preflight: read-only, on the side that serves, some per server and some per database.

// ---- per server ------------------------------------------------------------------------------------------------

/// The settings that the upgrade depends on.
pub const SETTINGS: &str = "select name, setting from pg_settings where name = any(array['server_version', 'wal_level', 'max_replication_slots',
      'max_wal_senders', 'max_logical_replication_workers', 'max_sync_workers_per_subscription', 'max_worker_processes', 'max_connections',
      'rds.logical_replication', 'rds.logically_replicate_unlogged_tables', 'shared_preload_libraries', 'default_transaction_read_only', 'log_statement', 'track_activity_query_size',
      'wal_sender_timeout', 'wal_receiver_timeout', 'logical_decoding_work_mem', 'max_slot_wal_keep_size', 'idle_in_transaction_session_timeout',
      'cron.database_name', 'cron.use_background_workers', 'session_replication_role', 'max_prepared_transactions'])";

/// Slots that are not a deployment's.
pub const FOREIGN_SLOTS: &str = "select format('%s (%s, %s)', slot_name, coalesce(plugin::text, 'physical'), case when active then 'active' else 'inactive' end)
      from pg_replication_slots where slot_name !~ '^rds' order by 1";

/// Subscriptions that are not a deployment's.
pub const FOREIGN_SUBSCRIPTIONS: &str = "select format('%s: %s', d.datname, s.subname) from pg_subscription s
      join pg_database d on d.oid = s.subdbid where s.subname !~ '^rds' order by 1";

/// Prepared transactions.
pub const PREPARED: &str =
    "select format('%s (%s, %s, %s s)', gid, database, owner, extract(epoch from clock_timestamp() - prepared)::bigint)
      from pg_prepared_xacts order by prepared";

/// Roles and databases that set `default_transaction_read_only` themselves.
pub const READ_ONLY_OVERRIDES: &str =
    "select concat_ws(' in ', nullif('role ' || r.rolname, ''), 'database ' || d.datname) || ': ' || c.setting
      from pg_db_role_setting s cross join lateral unnest(s.setconfig) as c(setting)
      left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase
      where c.setting ~* '^(default_transaction_read_only|transaction_read_only)=' order by 1";

/// Transactions with an id that are older than a minute.
pub const OLD_TRANSACTIONS: &str = "select pid, datname::text, usename::text, coalesce(application_name, ''), host(client_addr), coalesce(state, ''),
      backend_start, xact_start, coalesce(query, ''), (extract(epoch from clock_timestamp() - xact_start) * 1000)::bigint
      from pg_stat_activity where backend_type = 'client backend' and backend_xid is not null and pid <> pg_backend_pid()
        and usename !~ '^rds' and xact_start < clock_timestamp() - interval '1 minute' order by xact_start";

/// Running statements that refresh a materialized view: who, never what.
pub const REFRESHING_NOW: &str = "select format('session of %s in %s (%s)', usename, datname, application_name) from pg_stat_activity
      where backend_type = 'client backend' and pid <> pg_backend_pid() and query ~* 'refresh\\s+materialized\\s+view' order by 1";

/// Rights that hold for the whole server: what is missing, as a sentence.
pub const MISSING_SERVER_RIGHTS: &str = "select format('role %I is not a member of %s: grant it', current_user, wanted.role)
      from (values ('pg_monitor'), ('pg_signal_backend')) as wanted(role) where not pg_has_role(wanted.role, 'USAGE')
      union all select format('role %I is a superuser: give the agent a plain role', current_user) where current_setting('is_superuser') = 'on'";

// ---- per database ----------------------------------------------------------------------------------------------

/// Size and number of tables.
pub const DATABASE_SIZE: &str = "select pg_database_size(current_database()), (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema')";

/// Extensions with their version and the one that this server would install.
pub const EXTENSIONS: &str = "select e.extname::text, e.extversion, a.default_version from pg_extension e
      left join pg_available_extensions a on a.name = e.extname order by 1";

/// Tables whose updates and deletes cannot be replicated.
pub const WITHOUT_IDENTITY: &str = "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_'
        and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools')
        and case c.relreplident when 'f' then false when 'n' then true
              when 'i' then not exists (select 1 from pg_index i where i.indrelid = c.oid and i.indisreplident and i.indisvalid)
              else not exists (select 1 from pg_index i where i.indrelid = c.oid and i.indisprimary and i.indisvalid) end
      order by 1, 2";

/// Unlogged tables.
pub const UNLOGGED: &str =
    "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and c.relpersistence = 'u' order by 1, 2";

/// Large objects.
pub const LARGE_OBJECTS: &str = "select count(*) from pg_largeobject_metadata";

/// Publications that are not a deployment's.
pub const FOREIGN_PUBLICATIONS: &str = "select pubname::text from pg_publication where pubname !~ '^rds' order by 1";

/// Functions that refresh a materialized view: their names.
pub const REFRESHING_FUNCTIONS: &str = "select format('function %I.%I', n.nspname, p.proname) from pg_proc p join pg_namespace n on n.oid = p.pronamespace
      where p.prosrc ~* 'refresh\\s+materialized\\s+view' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1";

/// Triggers that fire while changes are applied.
pub const REPLICA_TRIGGERS: &str = "select format('%I.%I: %I', n.nspname, c.relname, t.tgname) from pg_trigger t join pg_class c on c.oid = t.tgrelid
      join pg_namespace n on n.oid = c.relnamespace where not t.tgisinternal and t.tgenabled in ('R', 'A') and n.nspname !~ '^pg_' order by 1";

/// Event triggers, RDS's own left out.
pub const EVENT_TRIGGERS: &str = "select evtname::text from pg_event_trigger e join pg_roles r on r.oid = e.evtowner
      where evtenabled <> 'D' and r.rolname !~ '^rds' order by 1";

/// Sequences.
pub const SEQUENCE_COUNT: &str = "select count(*) from pg_class where relkind = 'S' and relpersistence <> 't'";

/// Foreign servers that name a host: `name`, `host`.
pub const FOREIGN_SERVERS: &str = "select s.srvname::text, o.option_value from pg_foreign_server s
      cross join lateral pg_options_to_table(s.srvoptions) o where o.option_name in ('host', 'hostaddr') order by 1, 2";

/// Rights that are missing in this database, as sentences with the cure. Who may vacuum: a table's owner, the database's owner, and from 17
/// on `pg_maintain`; `rds_superuser` is none of them. From 16 on nobody can give away the master user's own role: there the database is
/// given to a role that both are members of, and an extension that the master owns is left to what RDS lets `rds_superuser` do.
pub const MISSING_RIGHTS: &str = "with me as (select pg_has_role((select datdba from pg_database where datname = current_database()), 'USAGE') as runs_database,
        exists (select 1 from pg_roles m where m.rolname = 'pg_maintain' and pg_has_role(m.oid, 'USAGE')) as maintains),
      things as (select c.oid, c.relkind, c.relrowsecurity, r.rolname, pg_has_role(c.relowner, 'USAGE') as owns
        from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
        where c.relkind in ('r', 'p', 'm', 'S') and c.relpersistence <> 't' and n.nspname !~ '^pg_'
          and n.nspname not in ('information_schema', 'rdsadmin', 'rdslab', 'rds_tools') and r.rolname !~ '^rds')
      select distinct format('database %I: role %I may not vacuum tables of %I: grant it %3$I, or the role that owns the database', current_database(), current_user, rolname)
      from things, me where relkind in ('r', 'p', 'm') and not owns and not maintains and not runs_database
      union all select distinct format('database %I: role %I may not refresh materialized views of %I: grant it %3$I', current_database(), current_user, rolname)
      from things, me where relkind = 'm' and not owns and not maintains
      union all select distinct format('database %I: role %I may not read tables of %I: grant it pg_read_all_data', current_database(), current_user, rolname)
      from things where relkind in ('r', 'p', 'm') and not has_table_privilege(oid, 'SELECT')
      union all select distinct format('database %I: policies hide rows of tables of %I from role %I: grant it %2$I', current_database(), rolname, current_user)
      from things where relrowsecurity and not owns
      union all select distinct format('database %I: role %I may not set sequences of %I: grant update on them', current_database(), current_user, rolname)
      from things where case relkind when 'S' then not has_sequence_privilege(oid, 'UPDATE') end
      union all select format('database %I: role %I is not a member of %I, who owns extension %I: grant it', current_database(), current_user, r.rolname, e.extname)
      from pg_extension e join pg_roles r on r.oid = e.extowner where r.rolname !~ '^rds' and not r.rolsuper and not pg_has_role(e.extowner, 'MEMBER')
        and (current_setting('server_version_num')::int < 160000
          or not exists (select 1 from pg_roles s where s.rolname = 'rds_superuser' and pg_has_role(s.oid, 'MEMBER')))
      union all select format('database %I: role %I may not make a schema: grant create on the database', current_database(), current_user)
      where not has_database_privilege(current_database(), 'CREATE') and to_regnamespace('upgrade_pilot') is null
      union all select format('database %I: role %I may not use schema upgrade_pilot, which exists', current_database(), current_user)
      where to_regnamespace('upgrade_pilot') is not null and not has_schema_privilege('upgrade_pilot', 'CREATE')";

/// Does our schema exist here already?
pub const SCHEMA_EXISTS: &str = "select to_regnamespace('upgrade_pilot') is not null";
