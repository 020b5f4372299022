//! SQL that prepares green: vacuum, analyze, and the proof that statistics are there. Vacuum, analyze and reindex are allowed in a
//! read-only transaction, so green's `default_transaction_read_only` is never overridden.

/// Tables, materialized views and partitioned tables to be vacuumed, biggest first: schema, name, is it partitioned, may we, its owner, bytes.
/// Tables of RDS's own roles that are not ours to maintain are left out.
pub const TABLES_TO_VACUUM: &str = "select n.nspname::text, c.relname::text, c.relkind = 'p', pg_has_role(c.relowner, 'USAGE')
      or pg_has_role((select datdba from pg_database where datname = current_database()), 'USAGE') or exists (select 1 from pg_roles m where m.rolname = 'pg_maintain' and pg_has_role(m.oid, 'USAGE')), r.rolname::text, pg_total_relation_size(c.oid)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
      where (c.relkind in ('r', 'm') or (c.relkind = 'p' and not c.relispartition)) and c.relpersistence <> 't' and n.nspname !~ '^pg_'
        and n.nspname not in ('information_schema', 'rdsadmin', 'rdslab', 'rds_tools')
        and (r.rolname !~ '^rds' or pg_has_role(c.relowner, 'USAGE')
          or exists (select 1 from pg_roles m where m.rolname = 'pg_maintain' and pg_has_role(m.oid, 'USAGE')))
      order by 6 desc, 1, 2";

/// Vacuum and statistics of one table; the step per database that only one session can make is left to the server where it can be.
pub fn vacuum_analyze(table: &str, major: u32) -> String {
    match major {
        16.. => format!("vacuum (analyze, skip_database_stats) {table}"),
        _ => format!("vacuum (analyze) {table}"),
    }
}

/// Statistics of a partitioned table as a whole; its partitions come along.
pub fn analyze(table: &str) -> String {
    format!("analyze {table}")
}

/// Rewrites a table.
pub fn vacuum_full(table: &str) -> String {
    format!("vacuum (full, analyze) {table}")
}

/// Rebuilds a table's indexes.
pub fn reindex(table: &str) -> String {
    format!("reindex table {table}")
}

/// Maintenance may wait for locks as long as its job may last.
pub const WAIT_FOR_LOCKS: &str = "set lock_timeout = 0";

/// Tables with the time of their last statistics: schema, name, last analyze, rows as estimated. A partitioned table is counted by itself.
pub const STATISTICS_TIMES: &str = "select n.nspname::text, c.relname::text,
      greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)), c.reltuples::float8
      from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
      where c.relkind in ('r', 'm', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_'
        and n.nspname not in ('information_schema', 'rdsadmin', 'rdslab', 'rds_tools')
        and (r.rolname !~ '^rds' or pg_has_role(c.relowner, 'USAGE')
          or exists (select 1 from pg_roles m where m.rolname = 'pg_maintain' and pg_has_role(m.oid, 'USAGE'))) order by 1, 2";

/// Extended statistics without data although their table has rows.
pub const EXTENDED_WITHOUT_DATA: &str = "select format('%I.%I', n.nspname, s.stxname) from pg_statistic_ext s
      join pg_namespace n on n.oid = s.stxnamespace join pg_class c on c.oid = s.stxrelid
      where c.reltuples <> 0 and pg_has_role(c.relowner, 'USAGE')
        and not exists (select 1 from pg_stats_ext x where x.statistics_schemaname = n.nspname and x.statistics_name = s.stxname)
        and not exists (select 1 from pg_stats_ext_exprs x where x.statistics_schemaname = n.nspname and x.statistics_name = s.stxname)
      order by 1";
