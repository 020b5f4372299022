//! SQL for after the cut: sequences, materialized views, what the deployment left behind.

use super::qualified;

/// Slots of a deployment, with the log they hold back.
pub const LEFTOVER_SLOTS: &str = "select slot_name::text, database::text,
      case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint end
      from pg_replication_slots where slot_name ~ '^rds' order by 1";

/// Publications of a deployment in this database.
pub const LEFTOVER_PUBLICATIONS: &str = "select pubname::text from pg_publication where pubname ~ '^rds' order by 1";

/// Subscriptions of a deployment, all databases.
pub const LEFTOVER_SUBSCRIPTIONS: &str = "select s.subname::text, d.datname::text from pg_subscription s
      join pg_database d on d.oid = s.subdbid where s.subname ~ '^rds' order by 1";

/// Sequences: schema, name, last value (none: never used), increment, smallest, largest, cycles, and the column it feeds, if it is owned.
pub const SEQUENCES: &str = "select n.nspname::text, c.relname::text, pg_sequence_last_value(c.oid), s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
      tn.nspname::text, t.relname::text, a.attname::text
      from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
      left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refclassid = 'pg_class'::regclass
        and d.deptype in ('a', 'i') and d.refobjsubid > 0
      left join pg_class t on t.oid = d.refobjid left join pg_namespace tn on tn.oid = t.relnamespace
      left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      where c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'rdsadmin', 'rdslab', 'rds_tools')
      order by 1, 2";

/// The furthest value in the column that a sequence feeds, in the sequence's own direction and within its bounds ($1, $2).
pub fn furthest_value(schema: &str, table: &str, column: &str, rising: bool) -> String {
    let column = super::ident(column);
    let furthest = if rising { "max" } else { "min" };
    format!(
        "select {furthest}({column})::bigint from {} where {column} between $1::bigint and $2::bigint",
        qualified(schema, table)
    )
}

/// Moves a sequence to a value that counts as used; does nothing if it has got further meanwhile.
pub const RAISE_SEQUENCE: &str = "select setval(c.oid, $3, true) from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = $2
        and (pg_sequence_last_value(c.oid) is null or ($4 and pg_sequence_last_value(c.oid) < $3) or (not $4 and pg_sequence_last_value(c.oid) > $3))";

/// Materialized views: schema, name, may it be refreshed while it is read (a whole unique index, and it is filled).
pub const MATERIALIZED_VIEWS: &str = "select n.nspname::text, c.relname::text, c.relispopulated and exists (select 1 from pg_index i
        where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'm' and n.nspname !~ '^pg_' order by 1, 2";

/// Which materialized view reads which other, directly or through views: reader and read.
pub const VIEW_DEPENDENCIES: &str = "with recursive reads as (
        select distinct r.ev_class as reader, d.refobjid as read from pg_rewrite r
          join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
         where d.refobjid <> r.ev_class),
      paths as (
        select reader, read from reads
        union select p.reader, r.read from paths p join reads r on r.reader = p.read)
      select rn.nspname::text, rc.relname::text, tn.nspname::text, tc.relname::text from paths p
        join pg_class rc on rc.oid = p.reader and rc.relkind = 'm' join pg_namespace rn on rn.oid = rc.relnamespace
        join pg_class tc on tc.oid = p.read and tc.relkind = 'm' join pg_namespace tn on tn.oid = tc.relnamespace";

/// Refreshes a materialized view; its owner's search path does not matter, the view's text is stored resolved.
pub fn refresh_view(schema: &str, name: &str, while_read: bool) -> String {
    let how = if while_read { "concurrently " } else { "" };
    format!("refresh materialized view {how}{}", qualified(schema, name))
}
