//! SQL that ends sessions before the cut, records what may be resubmitted, proves aborts, and runs what was recorded (field rule 8).

/// Client sessions inside a transaction, ours, RDS's and the allow-listed ($1) left out. The age is in milliseconds.
pub const CANDIDATE_SESSIONS: &str = "select a.pid, a.datname::text, a.usename::text, coalesce(a.application_name, ''), host(a.client_addr),
      coalesce(a.state, ''), a.backend_start, a.xact_start, coalesce(a.query, ''),
      (extract(epoch from clock_timestamp() - a.xact_start) * 1000)::bigint, a.query_start, a.backend_xid::text
      from pg_stat_activity a where a.backend_type = 'client backend' and a.xact_start is not null and a.pid <> pg_backend_pid()
        and a.usename <> current_user and a.usename !~ '^rds' and coalesce(a.application_name, '') <> all($1::text[])";

/// The longest statement text that the server keeps, in bytes.
pub const ACTIVITY_QUERY_SIZE: &str = "select setting::bigint * case unit when 'kB' then 1024 else 1 end from pg_settings where name = 'track_activity_query_size'";

/// The next transaction id, with its epoch.
pub const NEXT_XID: &str = "select pg_snapshot_xmax(pg_current_snapshot())::text";

/// Settings that a role ($1) carries in a database ($2): setting, as `name=value`; the strongest first.
pub const ROLE_SETTINGS: &str = "select unnest(s.setconfig) from pg_db_role_setting s
      where (s.setrole = (select oid from pg_roles where rolname = $1) or s.setrole = 0)
        and (s.setdatabase = (select oid from pg_database where datname = $2) or s.setdatabase = 0)
        and ($3 = (s.setrole <> 0))
      order by (s.setrole <> 0) desc, (s.setdatabase <> 0) desc";

/// Names of temporary tables of anybody in this database.
pub const TEMPORARY_RELATIONS: &str = "select distinct lower(relname::text) from pg_class where relpersistence = 't'";

/// Writes a statement down before its session is ended, on the server that is meant and on no other.
pub const RECORD_STATEMENT: &str = "insert into upgrade_pilot.ended_statements
      (key, database, role, search_path, statement, xid, pid, server, recorded_at)
      select $1, $2, $3, $4, $5, $6, $7, inet_server_addr(), clock_timestamp()
      where host(inet_server_addr()) = any($8::text[]) and current_setting('server_version_num')::int / 10000 = $9
      on conflict (key) do nothing";

/// Ends a session if it still is what it was: process, start, transaction, statement. No row: it is not. The server is checked in the same
/// statement.
pub const END_SESSION: &str = "select pg_terminate_backend(a.pid) from pg_stat_activity a
      where a.pid = $1 and a.backend_start = $2 and a.xact_start is not distinct from $3
        and a.backend_xid::text is not distinct from $4
        and host(inet_server_addr()) = any($5::text[]) and current_setting('server_version_num')::int / 10000 = $6";

/// Is the session still there?
pub const STILL_THERE: &str = "select exists (select 1 from pg_stat_activity where pid = $1 and backend_start = $2)";

/// What became of a transaction: `in progress`, `committed`, `aborted`, or nothing when it is too old to know.
pub const XACT_STATUS: &str = "select pg_xact_status($1::text::xid8)";

/// What became of the transaction of a recorded statement.
pub const RECORDED_STATUS: &str = "select pg_xact_status(xid::xid8) from upgrade_pilot.ended_statements where key = $1";

/// Is the statement written down?
pub const STATEMENT_THERE: &str = "select 1 from upgrade_pilot.ended_statements where key = $1";

/// The session was ended, and its abort is proven or not yet ($2 null); the proof travels to green with the row.
pub const PROVE_ABORT: &str =
    "update upgrade_pilot.ended_statements set ended = true, proof = coalesce($2, proof) where key = $1";

/// The session was not ended, or its transaction had committed: there is nothing to resubmit.
pub const FORGET_STATEMENT: &str = "delete from upgrade_pilot.ended_statements where key = $1 and verdict is null";

/// Statements without a verdict.
pub const LIST_STATEMENTS: &str =
    "select key, database, role, search_path, statement, xid, ended, proof from upgrade_pilot.ended_statements
      where verdict is null order by recorded_at, key";

/// Writes the verdict down.
pub const SETTLE_STATEMENT: &str = "update upgrade_pilot.ended_statements set verdict = $2, reason = $3, settled_at = clock_timestamp() where key = $1";

/// Claims a key. No row: somebody has done it already.
pub const CLAIM_LEDGER: &str =
    "insert into upgrade_pilot.ledger (key, at, agent) values ($1, clock_timestamp(), $2) on conflict (key) do nothing";

/// Is the key in the ledger?
pub const IN_LEDGER: &str = "select exists (select 1 from upgrade_pilot.ledger where key = $1)";

/// The rest of the transaction runs as the statement's own role, with the policy's search path and a time limit, and with the settings
/// of the server that ours replaced.
pub fn become_role(role: &str, search_path: &[String], statement_timeout_ms: u64) -> String {
    let path = search_path.iter().map(|part| super::ident(part)).collect::<Vec<_>>().join(", ");
    format!(
        "set local timezone to default; set local datestyle to default; set local intervalstyle to default; set local row_security to default; \
         set local extra_float_digits to default; set local bytea_output to default; set local lc_monetary to default; \
         set local xmlbinary to default; set local statement_timeout = {statement_timeout_ms}; set local search_path = {}; \
         set local role {}",
        if path.is_empty() { "''".to_owned() } else { path },
        super::ident(role)
    )
}
