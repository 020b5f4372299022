//! What AWS offers in the fake: versions, upgrade targets, instance classes and the parameters of each family. A small part of
//! the real lists, with the things that make an upgrade hard: parameters that a newer family no longer has.

use crate::rds::*;

/// The only engine.
pub(super) const ENGINE: &str = "aurora-postgresql";
const VERSIONS: [&str; 8] = ["14.12", "14.15", "15.7", "15.10", "16.4", "16.6", "17.4", "18.1"];
/// Instance classes that every version offers.
const CLASSES: [&str; 3] = ["db.r6g.large", "db.r6g.xlarge", "db.t4g.medium"];

pub(super) fn family(version: &Version) -> Family {
    Family::new(format!("{ENGINE}{}", version.major().unwrap_or_default()))
}

pub(super) fn versions() -> Vec<EngineVersion> {
    let all = VERSIONS.map(Version::from);
    let targets = |from: &Version| {
        let above = all.iter().filter(|to| to.numbers() > from.numbers());
        let target = |to: &Version| UpgradeTarget {
            engine: ENGINE.into(),
            version: to.clone(),
            is_major: to.major() != from.major(),
        };
        above.map(target).collect()
    };
    let offered = |version: &Version| EngineVersion {
        engine: ENGINE.into(),
        version: version.clone(),
        family: family(version),
        status: Some("available".into()),
        upgrade_targets: targets(version),
    };
    all.iter().map(offered).collect()
}

pub(super) fn orderable(version: &Version) -> Vec<OrderableOption> {
    if !VERSIONS.contains(&version.as_str()) {
        return Vec::new();
    }
    let option =
        |class: &&str| OrderableOption { engine: ENGINE.into(), version: version.clone(), class: (*class).to_owned() };
    CLASSES.iter().map(option).collect()
}

/// Name, default, static, allowed values, scope, last major that has it.
type Row = (&'static str, Option<&'static str>, bool, Option<&'static str>, Where, u32);

#[derive(Clone, Copy, PartialEq)]
enum Where {
    Cluster,
    Both,
}

const FOREVER: u32 = u32::MAX;
const ROWS: [Row; 24] = [
    ("rds.logical_replication", Some("0"), true, Some("0,1"), Where::Cluster, FOREVER),
    ("rds.logically_replicate_unlogged_tables", Some("0"), true, Some("0,1"), Where::Cluster, FOREVER),
    ("rds.logical_wal_cache", None, true, Some("8-1048576"), Where::Cluster, FOREVER),
    ("max_replication_slots", Some("20"), true, Some("5-8192"), Where::Cluster, FOREVER),
    ("max_wal_senders", Some("20"), true, Some("0-8192"), Where::Cluster, FOREVER),
    ("max_logical_replication_workers", Some("4"), true, Some("0-262143"), Where::Cluster, FOREVER),
    ("max_sync_workers_per_subscription", Some("2"), false, Some("0-262143"), Where::Cluster, FOREVER),
    ("max_worker_processes", Some("8"), true, Some("0-262143"), Where::Cluster, FOREVER),
    ("synchronous_commit", Some("on"), false, Some("local,on,off"), Where::Cluster, FOREVER),
    ("default_transaction_read_only", Some("off"), false, Some("on,off"), Where::Cluster, FOREVER),
    ("wal_sender_timeout", Some("30000"), false, Some("0-3600000"), Where::Cluster, FOREVER),
    ("wal_receiver_timeout", Some("30000"), false, Some("0-3600000"), Where::Cluster, FOREVER),
    ("vacuum_defer_cleanup_age", Some("0"), false, Some("0-1000000"), Where::Cluster, 15),
    ("old_snapshot_threshold", Some("-1"), true, Some("-1-86400"), Where::Cluster, 16),
    ("log_statement", Some("none"), false, Some("none,ddl,mod,all"), Where::Both, FOREVER),
    ("shared_preload_libraries", Some("pg_stat_statements"), true, None, Where::Both, FOREVER),
    ("cron.database_name", Some("postgres"), true, None, Where::Both, FOREVER),
    ("cron.max_running_jobs", Some("5"), true, Some("0-10"), Where::Both, FOREVER),
    ("max_connections", None, true, Some("6-262143"), Where::Both, FOREVER),
    ("track_activity_query_size", Some("4096"), true, Some("100-1048576"), Where::Both, FOREVER),
    ("work_mem", None, false, Some("64-2147483647"), Where::Both, FOREVER),
    ("statement_timeout", Some("0"), false, Some("0-2147483647"), Where::Both, FOREVER),
    ("log_min_duration_statement", Some("-1"), false, Some("-1-2147483647"), Where::Both, FOREVER),
    ("autovacuum_naptime", Some("15"), false, Some("1-2147483"), Where::Both, FOREVER),
];

/// The parameters of a family, with their defaults. Empty when the family is unknown.
pub(super) fn parameters(scope: GroupScope, family: &Family) -> Vec<Parameter> {
    let major = family.as_str().strip_prefix(ENGINE).and_then(|m| m.parse::<u32>().ok());
    let Some(major) = major.filter(|m| VERSIONS.iter().any(|v| Version::from(*v).major() == Some(*m))) else {
        return Vec::new();
    };
    let here = |row: &&Row| row.5 >= major && (row.4 == Where::Both || scope == GroupScope::Cluster);
    ROWS.iter().filter(here).map(default).collect()
}

fn default((name, value, is_static, allowed, _, _): &Row) -> Parameter {
    let method = if *is_static { ApplyMethod::PendingReboot } else { ApplyMethod::Immediate };
    Parameter {
        name: (*name).to_owned(),
        value: value.map(str::to_owned),
        source: if value.is_some() { ParameterSource::System } else { ParameterSource::EngineDefault },
        is_static: *is_static,
        data_type: Some("string".into()),
        allowed_values: allowed.map(str::to_owned),
        is_modifiable: true,
        apply_method: Some(method),
    }
}
