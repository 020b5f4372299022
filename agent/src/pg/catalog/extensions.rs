//! SQL of pg_cron and pg_partman: quieting them, waking them, testing them, and raising extensions.
//!
//! pg_partman may live in any schema and its functions changed between 4 and 5; what depends on that is built here.

use super::{ident, qualified};

/// Schema and version of an extension, where it is installed.
pub const EXTENSION_HOME: &str = "select n.nspname::text, e.extversion from pg_extension e
      join pg_namespace n on n.oid = e.extnamespace where e.extname = $1";

/// Installed extensions that this server offers another version of, with their owner where we may act as it.
pub const EXTENSION_UPDATES: &str = "select e.extname::text, e.extversion, a.default_version,
      (select rolname::text from pg_roles r where r.oid = e.extowner and pg_has_role(r.oid, 'MEMBER')) from pg_extension e
      join pg_available_extensions a on a.name = e.extname where a.default_version <> e.extversion order by 1";

/// Raises an extension to what the server offers, as its owner where that is known, so that what it makes anew stays the owner's.
pub fn update_extension(name: &str, owner: Option<&str>) -> String {
    let role = owner.map(|owner| format!("set local role {}; ", ident(owner))).unwrap_or_default();
    format!("{role}alter extension {} update", ident(name))
}

// ---- pg_cron ---------------------------------------------------------------------------------------------------

/// May we see and change everybody's jobs? A row policy that applies to us would hide them, unless one shows all.
pub const CRON_RIGHTS: &str = "select has_table_privilege('cron.job', 'SELECT') and (not row_security_active('cron.job'::regclass) or (
          exists (select 1 from pg_policy p where p.polrelid = 'cron.job'::regclass and p.polpermissive and p.polcmd in ('*', 'r') and pg_get_expr(p.polqual, p.polrelid) = 'true'
            and exists (select 1 from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'USAGE')))
          and not exists (select 1 from pg_policy p where p.polrelid = 'cron.job'::regclass and not p.polpermissive))),
      has_column_privilege('cron.job', 'active', 'UPDATE'), has_table_privilege('cron.job_run_details', 'SELECT')";

/// Jobs that refresh materialized views: their names, never their text.
pub const CRON_REFRESHERS: &str = "select format('cron job %s of %s in %s', jobid, username, database) from cron.job
      where active and command ~* 'refresh\\s+materialized\\s+view' order by jobid";

/// Every job: id, owner, active, and a digest of the rest.
pub const CRON_JOBS: &str = "select jobid, username, active, schedule, md5(concat_ws('|', schedule, command, database, username)) from cron.job order by jobid";

/// Remembers the jobs before they are quieted; what was remembered first stays.
pub const SAVE_CRON: &str = "insert into upgrade_pilot.saved_cron (jobid, username, active, saved_at)
      select jobid, username, active, clock_timestamp() from cron.job on conflict (jobid) do nothing";

/// Quiets every job that is active.
pub const STOP_CRON: &str = "update cron.job set active = false where active";

/// Jobs that are running now. One that is only starting has no time yet; pg_cron closes what a crash left open when it starts again.
pub const CRON_RUNNING: &str =
    "select count(*) from cron.job_run_details where status in ('running', 'starting', 'sending', 'connecting')
      and (start_time is null or start_time > clock_timestamp() - interval '1 day')";

/// How many were active when they were saved.
pub const SAVED_CRON_ACTIVE: &str = "select count(*) from upgrade_pilot.saved_cron where active";

/// Wakes the jobs that were active.
pub const WAKE_CRON: &str = "update cron.job j set active = true from upgrade_pilot.saved_cron s where s.jobid = j.jobid and s.active and not j.active";

/// They are back.
pub const FORGET_CRON: &str = "delete from upgrade_pilot.saved_cron";

/// Schedules the test job; it leaves a mark.
pub const SCHEDULE_TEST: &str = "select cron.schedule('upgrade-pilot-test', $1, $2)";

/// What the test job runs.
pub fn cron_test_command(mark: &str) -> String {
    format!(
        "insert into upgrade_pilot.marker (key, mark, at, agent) values ('cron-test', '{}', clock_timestamp(), 'pg_cron') \
         on conflict (key) do update set mark = excluded.mark, at = excluded.at",
        mark.replace('\'', "''")
    )
}

/// How the newest runs of a job ended.
pub const TEST_RUNS: &str = "select status, coalesce(return_message, '') from cron.job_run_details where jobid = $1 order by runid desc limit 5";

/// Takes the test job away again.
pub const UNSCHEDULE_TEST: &str =
    "select cron.unschedule(jobid) from cron.job where jobname = 'upgrade-pilot-test' and username = current_user";

/// Takes the test's mark away.
pub const FORGET_CRON_MARK: &str = "delete from upgrade_pilot.marker where key = 'cron-test'";

// ---- pg_partman ------------------------------------------------------------------------------------------------

/// May we use pg_partman's functions, and read and change its configuration?
pub const PARTMAN_RIGHTS: &str = "select has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT') and has_table_privilege(c.oid, 'INSERT')
        and has_table_privilege(c.oid, 'UPDATE') and has_table_privilege(c.oid, 'DELETE')
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'part_config'";

/// Partition sets: parent, automatic maintenance, premake, interval, and whether it is by time.
pub fn partman_sets(home: &str) -> String {
    format!(
        "select parent_table, automatic_maintenance, premake, partition_interval, md5(to_jsonb(c)::text) from {} c order by 1",
        qualified(home, "part_config")
    )
}

/// The template tables of the sets: schema and name. New partitions are made like them; nothing ever writes to them.
pub fn partman_templates(home: &str) -> String {
    format!(
        "select n.nspname::text, c.relname::text from {} p, pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname || '.' || c.relname = p.template_table order by 1, 2",
        qualified(home, "part_config")
    )
}

/// Remembers the sets before they are quieted; what was remembered first stays.
pub fn save_partman(home: &str) -> String {
    format!(
        "insert into upgrade_pilot.saved_partman (parent, automatic_maintenance, premake, saved_at)
         select parent_table, automatic_maintenance, premake, clock_timestamp() from {} on conflict (parent) do nothing",
        qualified(home, "part_config")
    )
}

/// The end of the last time partition of a set, and how many partitions it has. No end: it is not partitioned by time.
pub fn partman_cover(home: &str) -> String {
    format!(
        "select max(i.child_end_time), count(*) from {} p
         cross join lateral {}(format('%I.%I', p.partition_schemaname, p.partition_tablename), null, $1) i",
        super::call(home, "show_partitions", "$1"),
        qualified(home, "show_partition_info")
    )
}

/// Seconds of a set's interval; nothing when it is partitioned by number.
pub const INTERVAL_SECONDS: &str = "select case when $1 ~ '^[0-9]+$' then null else extract(epoch from case $1
      when 'yearly' then interval '1 year' when 'quarterly' then interval '3 months' when 'monthly' then interval '1 month'
      when 'weekly' then interval '1 week' when 'daily' then interval '1 day' when 'hourly' then interval '1 hour'
      when 'half-hour' then interval '30 minutes' when 'quarter-hour' then interval '15 minutes' else $1::text::interval end)::bigint end";

/// Makes more partitions ahead.
pub fn raise_premake(home: &str) -> String {
    format!("update {} set premake = greatest(premake, $2) where parent_table = $1", qualified(home, "part_config"))
}

/// Makes the partitions of one set.
pub fn run_maintenance(home: &str) -> String {
    format!("select {}", super::call(home, "run_maintenance", "$1"))
}

/// Switches the maintenance of every set off.
pub fn stop_partman(home: &str) -> String {
    format!(
        "update {} set automatic_maintenance = 'off' where automatic_maintenance <> 'off'",
        qualified(home, "part_config")
    )
}

/// Puts maintenance and premake back.
pub fn wake_partman(home: &str) -> String {
    format!(
        "update {} c set automatic_maintenance = s.automatic_maintenance, premake = s.premake
         from upgrade_pilot.saved_partman s where s.parent = c.parent_table",
        qualified(home, "part_config")
    )
}

/// They are back.
pub const FORGET_PARTMAN: &str = "delete from upgrade_pilot.saved_partman";

/// Rows in default partitions, by set.
pub fn rows_in_default(home: &str) -> String {
    format!("select default_table, count from {}", super::call(home, "check_default", "true"))
}

/// A small partitioned table of our own to test maintenance on, and its template: so the test needs no right to make tables in
/// pg_partman's schema.
pub const MAKE_TEST_PARENT: &str = "create table upgrade_pilot.partition_test (at timestamptz not null) partition by range (at); \
     create table upgrade_pilot.partition_test_template (like upgrade_pilot.partition_test)";

/// Registers it; the arguments differ between pg_partman 4 and 5.
pub fn register_test_parent(home: &str, version: u32) -> String {
    let kind = if version >= 5 { "range" } else { "native" };
    let create = qualified(home, "create_parent");
    format!(
        "select {create}(p_parent_table := 'upgrade_pilot.partition_test', p_control := 'at', p_type := '{kind}',
         p_interval := '1 day', p_premake := 1, p_template_table := 'upgrade_pilot.partition_test_template')"
    )
}

/// A row for today, without which maintenance makes nothing.
pub const FILL_TEST_PARENT: &str = "insert into upgrade_pilot.partition_test (at) values (clock_timestamp())";

/// Partitions of the test table.
pub const TEST_PARTITIONS: &str =
    "select count(*) from pg_inherits where inhparent = to_regclass('upgrade_pilot.partition_test')";

/// The test table, its template and what pg_partman made for it.
pub fn drop_test_parent(home: &str) -> String {
    format!(
        "delete from {} where parent_table = 'upgrade_pilot.partition_test'; drop table if exists upgrade_pilot.partition_test cascade; \
         drop table if exists upgrade_pilot.partition_test_template",
        qualified(home, "part_config"),
    )
}
