//! The parameters of each family aurora-postgresql14 to 18. The server's own come from `pg_settings` of the real majors
//! (kept as tables beside this file: name, context, type, unit, least, most, choices, built-in value, description); those
//! that only RDS knows are added here. Nothing here knows of groups or servers.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::cloud::state::major_of;

const TABLES: [(u32, &str); 5] = [
    (14, include_str!("catalogue/aurora-postgresql14.tsv")),
    (15, include_str!("catalogue/aurora-postgresql15.tsv")),
    (16, include_str!("catalogue/aurora-postgresql16.tsv")),
    (17, include_str!("catalogue/aurora-postgresql17.tsv")),
    (18, include_str!("catalogue/aurora-postgresql18.tsv")),
];

/// One parameter of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    /// As RDS writes it: lower case.
    pub(crate) name: String,
    /// Whether only a restart brings a change into force.
    pub(crate) is_static: bool,
    /// `integer`, `float`, `boolean`, `string`, `list`.
    pub(crate) data_type: &'static str,
    pub(crate) allowed: Option<String>,
    pub(crate) default: Option<String>,
    pub(crate) modifiable: bool,
    /// Whether an instance group has it too; the others are for the whole cluster.
    pub(crate) per_instance: bool,
    pub(crate) description: String,
}

impl Definition {
    /// Why `value` is not taken, if it is not.
    pub(crate) fn refuses(&self, value: &str) -> Option<String> {
        let allowed = self.allowed.as_deref()?;
        let fine = match self.data_type {
            "integer" => value.parse::<i64>().is_ok_and(|v| in_range(v as f64, allowed)),
            "float" => value.parse::<f64>().is_ok_and(|v| in_range(v, allowed)),
            "boolean" => ["0", "1", "on", "off", "true", "false"].contains(&value.to_lowercase().as_str()),
            "list" => value.split(',').map(str::trim).all(|v| v.is_empty() || allowed.split(',').any(|a| a == v)),
            _ => allowed.split(',').any(|a| a.eq_ignore_ascii_case(value)),
        };
        (!fine).then(|| format!("Invalid parameter value: {value} for: {} allowed values are: {allowed}", self.name))
    }
}

/// Everything a family has, by name. `None` for a family that is not one of the five.
pub(crate) fn family(name: &str) -> Option<&'static BTreeMap<String, Definition>> {
    static FAMILIES: OnceLock<BTreeMap<u32, BTreeMap<String, Definition>>> = OnceLock::new();
    let families = FAMILIES.get_or_init(|| TABLES.iter().map(|(major, table)| (*major, read(table))).collect());
    families.get(&major_of(name.strip_prefix("aurora-postgresql")?))
}

/// The full version that a major has in this lab, as its own table says.
pub(crate) fn version(major: u32) -> Option<&'static str> {
    let (_, table) = TABLES.iter().find(|(m, _)| *m == major)?;
    let row = table.lines().find(|line| line.starts_with("server_version\t"))?;
    row.split('\t').nth(7)
}

/// The majors there are.
pub(crate) fn majors() -> impl Iterator<Item = u32> {
    TABLES.iter().map(|(major, _)| *major)
}

fn read(table: &str) -> BTreeMap<String, Definition> {
    let of_server = table.lines().filter_map(server_parameter);
    of_server.chain(rds_parameters()).map(|definition| (definition.name.clone(), definition)).collect()
}

fn server_parameter(line: &str) -> Option<Definition> {
    let [name, context, kind, _unit, least, most, choices, default, description] =
        line.split('\t').collect::<Vec<_>>().try_into().ok()?;
    let name = name.to_lowercase();
    let (data_type, allowed) = match kind {
        "bool" => ("boolean", Some("0,1".to_owned())),
        "integer" => ("integer", Some(format!("{least}-{most}"))),
        "real" => ("float", Some(format!("{least}-{most}"))),
        "enum" => ("string", Some(choices.to_owned())),
        _ if name == "shared_preload_libraries" => ("list", Some(PRELOADS.to_owned())),
        _ => ("string", None),
    };
    let default = SYSTEM_VALUES.iter().find(|(known, _)| *known == name).map_or(default, |(_, value)| value);
    let default = match (kind, default) {
        ("bool", value) => Some(if value == "on" { "1" } else { "0" }.to_owned()),
        (_, "" | "\\N") => None,
        (_, value) => Some(value.to_owned()),
    };
    let modifiable = context != "internal" && !is_kept_back(&name);
    let per_instance = !CLUSTER_ONLY.contains(&name.as_str());
    let is_static = matches!(context, "postmaster" | "internal");
    Some(Definition {
        name,
        is_static,
        data_type,
        allowed,
        default,
        modifiable,
        per_instance,
        description: description.to_owned(),
    })
}

/// What every server of the lab has before a group says anything, where it differs from the built-in value.
const SYSTEM_VALUES: [(&str, &str); 8] = [
    ("max_connections", "200"),
    ("shared_buffers", "8192"),
    ("max_wal_size", "2048"),
    ("wal_keep_size", "256"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("max_worker_processes", "16"),
    ("log_line_prefix", "%t:%r:%u@%d:[%p]:"),
];

/// Libraries that a custom group may preload.
const PRELOADS: &str = "auto_explain,pg_cron,pg_prewarm,pg_stat_statements";

/// Parameters that exist once for a cluster.
const CLUSTER_ONLY: [&str; 12] = [
    "max_replication_slots",
    "max_wal_senders",
    "max_logical_replication_workers",
    "max_sync_workers_per_subscription",
    "synchronous_commit",
    "wal_sender_timeout",
    "wal_receiver_timeout",
    "logical_decoding_work_mem",
    "timezone",
    "max_slot_wal_keep_size",
    "default_tablespace",
    "password_encryption",
];

/// What RDS keeps for itself.
fn is_kept_back(name: &str) -> bool {
    const NAMES: [&str; 34] = [
        "wal_level",
        "fsync",
        "full_page_writes",
        "listen_addresses",
        "port",
        "hba_file",
        "ident_file",
        "config_file",
        "external_pid_file",
        "cluster_name",
        "logging_collector",
        "log_directory",
        "log_filename",
        "log_file_mode",
        "log_line_prefix",
        "log_destination",
        "hot_standby",
        "allow_system_table_mods",
        "allow_in_place_tablespaces",
        "zero_damaged_pages",
        "ignore_checksum_failure",
        "ignore_system_indexes",
        "dynamic_library_path",
        "event_source",
        "synchronous_standby_names",
        "primary_conninfo",
        "primary_slot_name",
        "restore_command",
        "max_files_per_process",
        "promote_trigger_file",
        "wal_log_hints",
        "data_sync_retry",
        "jit_provider",
        "stats_temp_directory",
    ];
    const PREFIXES: [&str; 14] = [
        "data_directory",
        "unix_socket",
        "ssl",
        "archive_",
        "recovery_",
        "bonjour",
        "krb_",
        "gss_",
        "debug_",
        "trace_",
        "transaction_",
        "wal_consistency",
        "shared_memory",
        "dynamic_shared_memory",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Name, static, type, allowed values, default, modifiable, for instances too.
type Row = (&'static str, bool, &'static str, &'static str, &'static str, bool, bool);

const OF_RDS: [Row; 29] = [
    ("rds.logical_replication", true, "boolean", "0,1", "0", true, false),
    ("rds.logically_replicate_unlogged_tables", true, "boolean", "0,1", "0", true, false),
    ("rds.logical_wal_cache", true, "integer", "-1-1048576", "-1", true, false),
    ("rds.babelfish_status", true, "string", "on,off,datadriven", "off", true, false),
    ("rds.force_ssl", false, "boolean", "0,1", "0", true, false),
    ("rds.log_retention_period", false, "integer", "1440-10080", "4320", true, true),
    ("rds.restrict_password_commands", true, "boolean", "0,1", "0", true, true),
    (
        "rds.force_autovacuum_logging_level",
        false,
        "string",
        "disabled,debug5,debug4,debug3,debug2,debug1,info,notice,warning,error,log",
        "warning",
        true,
        true,
    ),
    ("rds.adaptive_autovacuum", false, "boolean", "0,1", "1", true, true),
    (
        "rds.extensions",
        true,
        "string",
        "",
        "aurora_stat_utils,aws_commons,pg_cron,pg_partman,pg_stat_statements",
        false,
        true,
    ),
    ("cron.database_name", true, "string", "", "postgres", true, true),
    ("cron.log_run", true, "boolean", "0,1", "1", true, true),
    ("cron.log_statement", true, "boolean", "0,1", "1", true, true),
    ("cron.max_running_jobs", true, "integer", "0-1000", "5", true, true),
    ("cron.use_background_workers", true, "boolean", "0,1", "1", true, true),
    ("cron.launch_active_jobs", false, "boolean", "0,1", "1", true, true),
    ("cron.timezone", true, "string", "", "GMT", true, true),
    (
        "cron.log_min_messages",
        false,
        "string",
        "debug5,debug4,debug3,debug2,debug1,info,notice,warning,error,log,fatal,panic",
        "warning",
        true,
        true,
    ),
    ("pg_stat_statements.max", true, "integer", "100-2147483647", "5000", true, true),
    ("pg_stat_statements.track", false, "string", "none,top,all", "top", true, true),
    ("pg_stat_statements.track_utility", false, "boolean", "0,1", "1", true, true),
    ("auto_explain.log_min_duration", false, "integer", "-1-2147483647", "-1", true, true),
    ("auto_explain.log_analyze", false, "boolean", "0,1", "0", true, true),
    ("auto_explain.log_nested_statements", false, "boolean", "0,1", "0", true, true),
    ("pgaudit.log", false, "string", "", "none", true, true),
    ("pgaudit.role", false, "string", "", "", true, true),
    ("apg_plan_mgmt.capture_plan_baselines", false, "string", "off,automatic,manual", "off", true, true),
    ("apg_plan_mgmt.use_plan_baselines", false, "boolean", "0,1", "0", true, true),
    ("aurora_parallel_query", false, "boolean", "0,1", "0", false, false),
];

fn rds_parameters() -> impl Iterator<Item = Definition> {
    OF_RDS.iter().map(|&(name, is_static, data_type, allowed, default, modifiable, per_instance)| Definition {
        name: name.to_owned(),
        is_static,
        data_type,
        allowed: (!allowed.is_empty()).then(|| allowed.to_owned()),
        default: (!default.is_empty()).then(|| default.to_owned()),
        modifiable,
        per_instance,
        description: format!("Amazon RDS: {name}"),
    })
}

fn in_range(value: f64, allowed: &str) -> bool {
    // `-1-262143`: the first sign belongs to the number.
    let (sign, rest) = allowed.strip_prefix('-').map_or(("", allowed), |rest| ("-", rest));
    let Some((least, most)) = rest.split_once('-') else { return true };
    let bound = |text: &str| text.parse::<f64>().ok();
    match (bound(&format!("{sign}{least}")), bound(most)) {
        (Some(least), Some(most)) => value >= least && value <= most,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_what_an_upgrade_sets() {
        for major in majors() {
            let family = family(&format!("aurora-postgresql{major}")).expect("known");
            for (name, is_static) in [
                ("rds.logical_replication", true),
                ("max_replication_slots", true),
                ("max_logical_replication_workers", true),
                ("max_worker_processes", true),
                ("shared_preload_libraries", true),
                ("log_statement", false),
                ("work_mem", false),
                ("timezone", false),
            ] {
                let found = family.get(name).unwrap_or_else(|| panic!("{name} in {major}"));
                assert_eq!((found.is_static, found.modifiable), (is_static, true), "{name} in {major}");
            }
            assert!(!family["wal_level"].modifiable);
            assert!(version(major).is_some_and(|v| major_of(v) == major));
        }
        assert!(super::family("aurora-postgresql13").is_none());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let family = family("aurora-postgresql16").expect("known");
        let refuses = |name: &str, value: &str| family[name].refuses(value).is_some();
        assert!(
            !refuses("max_connections", "500") && refuses("max_connections", "0") && refuses("max_connections", "many")
        );
        assert!(!refuses("autovacuum_work_mem", "-1") && refuses("autovacuum_work_mem", "-2"));
        assert!(!refuses("log_statement", "ddl") && refuses("log_statement", "everything"));
        assert!(
            !refuses("shared_preload_libraries", "pg_cron,pg_stat_statements")
                && refuses("shared_preload_libraries", "evil")
        );
        assert!(!refuses("rds.logical_replication", "1") && refuses("rds.logical_replication", "2"));
    }
}
