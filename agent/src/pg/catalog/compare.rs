//! SQL of markers and of comparing the sides (field rules 6 and 7.2). All of it runs on blue too, so all of it only reads, but for
//! one upsert into our own marker table.

use super::qualified;

/// Writes a marker on the server that is meant, and on no other: the row is made only if address and major match ($5, $6).
pub const WRITE_MARKER: &str =
    "insert into upgrade_pilot.marker (key, mark, at, agent) select $1, $2, clock_timestamp(), $3
      where host(inet_server_addr()) = any($4::text[]) and current_setting('server_version_num')::int / 10000 = $5
      on conflict (key) do update set mark = excluded.mark, at = excluded.at, agent = excluded.agent";

/// The mark that a key carries now.
pub const READ_MARKER: &str = "select mark from upgrade_pilot.marker where key = $1";

/// Tables whose rows must agree: ordinary ones, partitions included, with their size and whether all of their rows can be seen. Unlogged and temporary tables are not replicated.
pub const TABLES_TO_COMPARE: &str = "select n.nspname::text, c.relname::text, pg_relation_size(c.oid), (not row_security_active(c.oid) or (
          exists (select 1 from pg_policy p where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('*', 'r') and pg_get_expr(p.polqual, p.polrelid) = 'true'
            and exists (select 1 from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'USAGE')))
          and not exists (select 1 from pg_policy p where p.polrelid = c.oid and not p.polpermissive)))
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_'
        and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') order by 3 desc, 1, 2";

/// How often each table's rows were changed since the server began to count.
pub const WRITE_COUNTERS: &str =
    "select schemaname::text, relname::text, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables";

/// A transaction that can only read.
pub const BEGIN_READ_ONLY: &str = "begin transaction isolation level repeatable read read only";

/// Business queries resolve names as a usual session does.
pub const USUAL_SEARCH_PATH: &str = "reset search_path";

/// Count and order-independent hash of a table's rows. `only`: partitions and children are compared by themselves.
pub fn table_hash(schema: &str, table: &str) -> String {
    format!(
        "select count(*), coalesce(sum(hashtextextended((upgrade_pilot_row.*)::text, 0)), 0)::text from only {} as upgrade_pilot_row",
        qualified(schema, table)
    )
}

/// Count of a table's rows.
pub fn table_count(schema: &str, table: &str) -> String {
    format!("select count(*), ''::text from only {}", qualified(schema, table))
}
