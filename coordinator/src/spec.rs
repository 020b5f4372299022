//! What one upgrade was asked for: the whole of it, with every limit and its unit. Read from a TOML file and flags,
//! validated once, then part of the journal.

use std::time::Duration;

use proto::jobs::{ResubmitPolicy, Table, VACUUM_CONNECTIONS_MAX};
use serde::{Deserialize, Serialize};

pub use window::Window;

pub mod tune;
mod window;

/// The spec of one upgrade. Every field has a default but the cluster and the target version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeSpec {
    /// Identifier or ARN of the cluster. Also `--cluster`.
    pub cluster: String,
    /// Target version: a major (`16`) or a full version (`16.9`). Also `--to`.
    pub to: String,
    /// The one reboot that static parameters need.
    #[serde(default)]
    pub reboot: Reboot,
    /// When ingestion is paused.
    #[serde(default)]
    pub ingestion: Ingestion,
    /// The transactions that block green's slots.
    #[serde(default)]
    pub purge: Purge,
    /// How green is built.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// What is vacuumed and rewritten on green.
    #[serde(default)]
    pub vacuum: Vacuum,
    /// Gates of the switchover that are measured before the hold, and when a slot is too much for blue.
    #[serde(default)]
    pub replication: Replication,
    /// How both sides are compared.
    #[serde(default)]
    pub verify: Verify,
    /// The cut.
    #[serde(default)]
    pub switchover: Switchover,
    /// What is done on the new production.
    #[serde(default)]
    pub after: After,
    /// When and how the old side is deleted.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// Tables without a key that the operator approves to give `REPLICA IDENTITY FULL` (`database.schema.table`).
    #[serde(default)]
    pub replica_identity_full: Vec<String>,
    /// Findings of preflight that the operator accepts, by code.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Begin by deleting deployments, with their green, that an earlier upgrade of ours left on the cluster. Also
    /// `--clean-leftovers`.
    #[serde(default)]
    pub clean_leftovers: bool,
    /// How often the upgrade may start again from provisioning after the deployment was degraded or failed. Also
    /// `--retries`.
    #[serde(default)]
    pub retries: u32,
}

/// The one reboot that static parameters need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reboot {
    /// `approve` waits for `pilot approve ID reboot`; `allow` goes on by itself.
    pub policy: RebootPolicy,
    /// The reboot begins in this window only (UTC; `sun:03:00-sun:05:00`, or `03:00-05:00` for every day), whatever the policy,
    /// or as soon as `pilot approve ID reboot` says so.
    pub window: Option<String>,
    /// How long a reboot may take until the rebooted members are in sync.
    pub seconds_max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebootPolicy {
    Approve,
    Allow,
}

/// When ingestion is paused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingestion {
    /// `moments`: only around the reboot and in the hold; `replication`: from the end of provisioning to the switchover as well.
    pub pause: PauseFor,
    /// No pause is longer than this.
    pub max_pause_seconds: u64,
    /// How long the source keeps what is not ingested; `max_pause_seconds` may not be above it.
    pub source_retention_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseFor {
    Moments,
    Replication,
}

/// The idle-transaction purger (field rule 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Purge {
    /// Idle in transaction for longer than this it is ended while green's slots are made.
    pub idle_grace_seconds: f64,
    /// Active for longer than this it is reported; active ones are ended only when approved.
    pub active_wait_seconds: f64,
    /// After this long age alone decides, when no waiting slot can be recognised.
    pub age_fallback_after_seconds: f64,
    /// `application_name`s that are never touched, here and at the cut.
    pub allow_applications: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provisioning {
    /// How long AWS may take to build green.
    pub seconds_max: u64,
    /// AVAILABLE must be read this often in a row, with every member available.
    pub stable_reads: u32,
    /// Between two looks at AWS.
    pub poll_seconds: f64,
    /// How long a snapshot may take.
    pub snapshot_seconds_max: u64,
    /// Partitions are made ahead to cover this many hours beyond now.
    pub premake_hours: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vacuum {
    /// Connections at once, 32 at most.
    pub parallel: u32,
    /// Tables to `VACUUM FULL` on green (`database.schema.table`).
    pub full: Vec<String>,
    /// Tables to `REINDEX` on green (`database.schema.table`).
    pub reindex: Vec<String>,
    /// How long vacuum and rewriting may take together.
    pub seconds_max: u64,
}

/// Gates of the switchover that are measured before the hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replication {
    /// WAL that the slot furthest behind has not confirmed.
    pub lag_bytes_max: u64,
    /// From a commit on blue to its sight on green, in the slowest database.
    pub marker_delay_ms_max: u64,
    /// The gates must hold this long without a break.
    pub sustained_seconds: f64,
    /// CloudWatch's `OldestReplicationSlotLag` must be below this.
    pub cloudwatch_lag_bytes_max: u64,
    /// A CloudWatch point older than this is no point.
    pub cloudwatch_age_seconds_max: u64,
    /// How long lag may take to drain; then the upgrade unwinds.
    pub drain_seconds_max: u64,
    /// A slot that has not moved for this long while there is lag is stalled; then the upgrade unwinds.
    pub stalled_seconds_max: u64,
    /// WAL that a slot keeps on blue: above this there is a warning.
    pub retained_bytes_warn: u64,
    /// Above this the switchover is held.
    pub retained_bytes_hold: u64,
    /// Above this the upgrade unwinds.
    pub retained_bytes_unwind: u64,
    /// Transactions since the oldest `catalog_xmin` or `xmin` of a slot, so long dead rows stay: above this there is a
    /// warning.
    pub xmin_age_warn: u64,
    /// Above this the switchover is held.
    pub xmin_age_hold: u64,
    /// Above this the upgrade unwinds.
    pub xmin_age_unwind: u64,
    /// The writer's free local storage (CloudWatch's `FreeLocalStorage`): below this there is a warning. 0 asks for nothing.
    pub free_bytes_warn: u64,
    /// Below this the switchover is held. 0 asks for nothing.
    pub free_bytes_hold: u64,
    /// Below this the upgrade unwinds. 0 asks for nothing.
    pub free_bytes_unwind: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// Names of business queries that the agents' configuration defines.
    pub queries: Vec<String>,
    /// Compare row hashes, not only counts.
    pub hashes: bool,
    /// Rounds of comparing before a difference counts.
    pub rounds: u32,
    /// Comparing inside the hold; 0 for none.
    pub hold_budget_ms: u64,
    /// How long comparing may take in all.
    pub seconds_max: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switchover {
    /// `SwitchoverTimeout` of the RDS call, 30 to 3600.
    pub timeout_seconds: u32,
    /// AWS's revert may take this much longer.
    pub revert_allowance_seconds: u32,
    /// Clients are never held longer than this; at least the two above together.
    pub hold_seconds_max: u32,
    /// Every agent must have settled the hold within this.
    pub hold_ack_ms_max: u64,
    /// Wait for `pilot approve ID switchover`.
    pub approve: bool,
    /// All gates of one attempt together must have opened within this; then the attempt is given up.
    pub gates_seconds_max: u64,
    /// Attempts before the upgrade unwinds.
    pub attempts: u32,
    /// Pause between two attempts.
    pub retry_after_seconds: f64,
    /// Open transactions may finish by themselves this long before they are ended.
    pub drain_ms: u64,
    /// Transactions older than this are ended at once.
    pub long_transaction_ms: u64,
    /// A marker must pass every database within this, in the hold.
    pub marker_ms_max: u64,
    /// Whose interrupted statements may be run again after the cut. Empty: nobody's.
    pub resubmit: Vec<ResubmitPolicy>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct After {
    /// Refresh materialized views on the new production.
    pub refresh_views: bool,
    /// How long an extension test may take.
    pub extension_test_seconds_max: u64,
    /// How long the backlog may take to begin to fall.
    pub backlog_seconds_max: u64,
    /// How long AWS may take to say SWITCHOVER_COMPLETED after green took writes.
    pub completed_seconds_max: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cleanup {
    /// `approve` waits for `pilot approve ID cleanup`; `after_retention` goes on by itself when the retention is over.
    pub policy: CleanupPolicy,
    /// The old side is kept this long after the switchover.
    pub retention_seconds: u64,
    /// No client may have been seen on the old side for this long.
    pub quiet_seconds: u64,
    /// Take a snapshot of the old side as it is deleted.
    pub final_snapshot: bool,
    /// Delete the old side's automated backups with it.
    pub delete_automated_backups: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanupPolicy {
    Approve,
    AfterRetention,
}

impl Default for Reboot {
    fn default() -> Reboot {
        Reboot { policy: RebootPolicy::Approve, window: None, seconds_max: 900 }
    }
}

impl Reboot {
    /// The window, where there is one.
    ///
    /// # Errors
    /// What is wrong with its text; never after `validate`.
    pub fn window(&self) -> Result<Option<Window>, String> {
        self.window.as_deref().map(str::parse).transpose()
    }
}

impl Default for Ingestion {
    fn default() -> Ingestion {
        Ingestion { pause: PauseFor::Moments, max_pause_seconds: 1800, source_retention_seconds: None }
    }
}

impl Default for Purge {
    fn default() -> Purge {
        Purge {
            idle_grace_seconds: 30.0,
            active_wait_seconds: 600.0,
            age_fallback_after_seconds: 300.0,
            allow_applications: Vec::new(),
        }
    }
}

impl Default for Provisioning {
    fn default() -> Provisioning {
        Provisioning {
            seconds_max: 4 * 3600,
            stable_reads: 3,
            poll_seconds: 15.0,
            snapshot_seconds_max: 2 * 3600,
            premake_hours: 72,
        }
    }
}

impl Default for Vacuum {
    fn default() -> Vacuum {
        Vacuum { parallel: 4, full: Vec::new(), reindex: Vec::new(), seconds_max: 6 * 3600 }
    }
}

impl Default for Replication {
    fn default() -> Replication {
        Replication {
            lag_bytes_max: 4 << 20,
            marker_delay_ms_max: 1000,
            sustained_seconds: 30.0,
            cloudwatch_lag_bytes_max: 256 << 20,
            cloudwatch_age_seconds_max: 300,
            drain_seconds_max: 6 * 3600,
            stalled_seconds_max: 900,
            retained_bytes_warn: 20 << 30,
            retained_bytes_hold: 50 << 30,
            retained_bytes_unwind: 200 << 30,
            xmin_age_warn: 50_000_000,
            xmin_age_hold: 200_000_000,
            xmin_age_unwind: 500_000_000,
            free_bytes_warn: 4 << 30,
            free_bytes_hold: 2 << 30,
            free_bytes_unwind: 1 << 30,
        }
    }
}

impl Default for Verify {
    fn default() -> Verify {
        Verify { queries: Vec::new(), hashes: true, rounds: 5, hold_budget_ms: 2000, seconds_max: 6 * 3600 }
    }
}

impl Default for Switchover {
    fn default() -> Switchover {
        Switchover {
            timeout_seconds: 300,
            revert_allowance_seconds: 60,
            hold_seconds_max: 420,
            hold_ack_ms_max: 10_000,
            approve: false,
            gates_seconds_max: 1800,
            attempts: 3,
            retry_after_seconds: 60.0,
            drain_ms: 2000,
            long_transaction_ms: 5000,
            marker_ms_max: 5000,
            resubmit: Vec::new(),
        }
    }
}

impl Default for After {
    fn default() -> After {
        After {
            refresh_views: false,
            extension_test_seconds_max: 180,
            backlog_seconds_max: 600,
            completed_seconds_max: 900,
        }
    }
}

impl Default for Cleanup {
    fn default() -> Cleanup {
        Cleanup {
            policy: CleanupPolicy::Approve,
            retention_seconds: 24 * 3600,
            quiet_seconds: 3600,
            final_snapshot: true,
            delete_automated_backups: false,
        }
    }
}

/// A spec that asks for something that cannot be: which field, what is wrong, what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}; {cure}")]
pub struct SpecError {
    pub field: &'static str,
    pub wrong: String,
    pub cure: String,
}

impl UpgradeSpec {
    /// A spec with every default.
    pub fn new(cluster: impl Into<String>, to: impl Into<String>) -> UpgradeSpec {
        UpgradeSpec {
            cluster: cluster.into(),
            to: to.into(),
            reboot: Reboot::default(),
            ingestion: Ingestion::default(),
            purge: Purge::default(),
            provisioning: Provisioning::default(),
            vacuum: Vacuum::default(),
            replication: Replication::default(),
            verify: Verify::default(),
            switchover: Switchover::default(),
            after: After::default(),
            cleanup: Cleanup::default(),
            replica_identity_full: Vec::new(),
            accept: Vec::new(),
            clean_leftovers: false,
            retries: 0,
        }
    }

    /// The target's major version.
    pub fn to_major(&self) -> Result<u32, SpecError> {
        let major = self.to.split('.').next().unwrap_or_default();
        major.parse().map_err(|_| SpecError {
            field: "to",
            wrong: format!("{:?} is not a version", self.to),
            cure: "write a major version as 16, or a full one as 16.9".into(),
        })
    }

    /// Checks everything that can be checked without asking AWS or an agent.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.to_major()?;
        let refuse = |field, wrong: String, cure: &str| Err(SpecError { field, wrong, cure: cure.into() });
        let cut = &self.switchover;
        if !(30..=3600).contains(&cut.timeout_seconds) {
            return refuse(
                "switchover.timeout_seconds",
                format!("{} is outside what AWS takes", cut.timeout_seconds),
                "use 30 to 3600",
            );
        }
        let needed = cut.timeout_seconds + cut.revert_allowance_seconds;
        if cut.hold_seconds_max < needed {
            return refuse(
                "switchover.hold_seconds_max",
                format!("{} is below the switchover's time-out plus its revert allowance", cut.hold_seconds_max),
                &format!("use at least {needed}"),
            );
        }
        if cut.attempts == 0 {
            return refuse("switchover.attempts", "0 attempts can never switch over".into(), "use at least 1");
        }
        if !(60..=86_400).contains(&cut.gates_seconds_max) {
            return refuse(
                "switchover.gates_seconds_max",
                format!("{} s is too short for lag to settle, or longer than a day", cut.gates_seconds_max),
                "use 60 to 86400",
            );
        }
        if self.replication.sustained_seconds >= Duration::from_secs(cut.gates_seconds_max).as_secs_f64() {
            return refuse(
                "switchover.gates_seconds_max",
                format!("no gate can hold for replication.sustained_seconds within {} s", cut.gates_seconds_max),
                "use more than replication.sustained_seconds",
            );
        }
        if let Some(retention) = self.ingestion.source_retention_seconds
            && self.ingestion.max_pause_seconds > retention
        {
            return refuse(
                "ingestion.max_pause_seconds",
                format!("{} is above the source's retention of {retention}", self.ingestion.max_pause_seconds),
                "pause for less than the source keeps",
            );
        }
        if self.provisioning.stable_reads == 0 || self.verify.rounds == 0 || self.vacuum.parallel == 0 {
            return refuse(
                "provisioning.stable_reads, verify.rounds, vacuum.parallel",
                "none of them may be 0".into(),
                "use at least 1",
            );
        }
        if self.vacuum.parallel > VACUUM_CONNECTIONS_MAX {
            return refuse(
                "vacuum.parallel",
                format!("{} connections are more than an agent opens", self.vacuum.parallel),
                &format!("use 1 to {VACUUM_CONNECTIONS_MAX}"),
            );
        }
        if cut.resubmit.iter().any(|policy| !policy.client_does_not_retry) {
            return refuse(
                "switchover.resubmit",
                "an entry does not say client_does_not_retry = true".into(),
                "resubmit only for clients that do not retry by themselves, and say so in the entry",
            );
        }
        self.replication.validate()?;
        if let Err(wrong) = self.reboot.window() {
            return refuse("reboot.window", wrong, "write sun:03:00-sun:05:00, or 03:00-05:00 for every day, in UTC");
        }
        for (field, seconds) in [
            ("purge.idle_grace_seconds", self.purge.idle_grace_seconds),
            ("purge.active_wait_seconds", self.purge.active_wait_seconds),
            ("purge.age_fallback_after_seconds", self.purge.age_fallback_after_seconds),
            ("provisioning.poll_seconds", self.provisioning.poll_seconds),
            ("replication.sustained_seconds", self.replication.sustained_seconds),
            ("switchover.retry_after_seconds", cut.retry_after_seconds),
        ] {
            if !(0.0..=86_400.0).contains(&seconds) {
                return refuse(field, format!("{seconds} is not a time"), "use 0 to 86400 seconds");
            }
        }
        for (field, names) in [
            ("replica_identity_full", &self.replica_identity_full),
            ("vacuum.full", &self.vacuum.full),
            ("vacuum.reindex", &self.vacuum.reindex),
        ] {
            if let Err(wrong) = tables(names) {
                return refuse(field, wrong, "write database.schema.table");
            }
        }
        Ok(())
    }
}

impl Replication {
    /// Thresholds are crossed in the order warn, hold, unwind.
    fn validate(&self) -> Result<(), SpecError> {
        let cure = "warn first, then hold, then unwind";
        let rising = [
            (
                "replication.retained_bytes",
                self.retained_bytes_warn,
                self.retained_bytes_hold,
                self.retained_bytes_unwind,
            ),
            ("replication.xmin_age", self.xmin_age_warn, self.xmin_age_hold, self.xmin_age_unwind),
            ("replication.free_bytes", self.free_bytes_unwind, self.free_bytes_hold, self.free_bytes_warn),
        ];
        for (field, first, second, third) in rising {
            if !(first <= second && second <= third) {
                let wrong = format!("{first}, {second} and {third} are not in order");
                return Err(SpecError { field, wrong, cure: cure.into() });
            }
        }
        Ok(())
    }
}

/// Parses names of tables as a spec writes them.
pub fn tables(names: &[String]) -> Result<Vec<Table>, String> {
    names.iter().map(|name| name.parse()).collect()
}

/// A duration from seconds that `validate` has accepted.
pub fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, 86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        UpgradeSpec::new("orders", "16").validate().unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error =
            toml::from_str::<UpgradeSpec>("cluster = 'orders'\nto = '16'\n[switchover]\ntimeout = 30").unwrap_err();
        assert!(error.to_string().contains("timeout"), "{error}");
    }

    #[test]
    fn what_can_never_work_is_refused_with_a_cure() {
        let check = |field: &str, change: fn(&mut UpgradeSpec)| {
            let mut spec = UpgradeSpec::new("orders", "16");
            change(&mut spec);
            let error = spec.validate().unwrap_err();
            assert!(error.field.contains(field), "{error}");
        };
        check("to", |spec| spec.to = "sixteen".into());
        check("switchover.timeout_seconds", |spec| spec.switchover.timeout_seconds = 10);
        check("switchover.hold_seconds_max", |spec| spec.switchover.hold_seconds_max = 300);
        check("switchover.attempts", |spec| spec.switchover.attempts = 0);
        check("switchover.gates_seconds_max", |spec| spec.switchover.gates_seconds_max = 59);
        check("switchover.gates_seconds_max", |spec| spec.switchover.gates_seconds_max = 86_401);
        check("switchover.gates_seconds_max", |spec| spec.replication.sustained_seconds = 1800.0);
        check("vacuum.parallel", |spec| spec.vacuum.parallel = 33);
        check("ingestion.max_pause_seconds", |spec| spec.ingestion.source_retention_seconds = Some(60));
        check("replication.retained_bytes", |spec| spec.replication.retained_bytes_hold = 1);
        check("reboot.window", |spec| spec.reboot.window = Some("Sun 3am".into()));
        check("replication.xmin_age", |spec| spec.replication.xmin_age_unwind = 1);
        check("replication.free_bytes", |spec| spec.replication.free_bytes_unwind = u64::MAX);
        check("vacuum.full", |spec| spec.vacuum.full = vec!["lines".into()]);
        check("purge.idle_grace_seconds", |spec| spec.purge.idle_grace_seconds = f64::NAN);
        check("switchover.resubmit", |spec| {
            spec.switchover.resubmit = vec![ResubmitPolicy {
                database: "orders".into(),
                role: "batch".into(),
                search_path: "public".into(),
                client_does_not_retry: false,
            }]
        });
    }

    /// A file, a JSON that came over the wire, or a fact of the journal: what validates can be planned with and lasts.
    #[test]
    fn any_bytes_in_a_spec_are_refused_or_make_a_plan() {
        let whole = toml::to_string(&UpgradeSpec::new("orders", "16")).expect("TOML");
        let window = "cluster = 'orders'\nto = '16.9'\n[reboot]\nwindow = 'sun:02:00-sun:03:00'\npolicy = 'allow'\n";
        let json = serde_json::to_string(&UpgradeSpec::new("orders", "17")).expect("JSON");
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "spec").words(&[
            "nan",
            "inf",
            "-inf",
            "1e300",
            "mon:24:00-",
            "-mon:00:00",
            "[[switchover.resubmit]]\n",
            "'é.é'",
        ]);
        target.seed(whole).seed(window).seed(json).run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let read = match text.starts_with('{') {
                true => serde_json::from_str::<UpgradeSpec>(&text).map_err(|error| error.to_string()),
                false => toml::from_str::<UpgradeSpec>(&text).map_err(|error| error.message().to_owned()),
            };
            let spec = match read {
                Ok(spec) => spec,
                Err(refused) => return refused.split('`').next().unwrap_or_default().to_owned(),
            };
            if let Err(refused) = spec.validate() {
                assert!(!refused.cure.is_empty(), "{refused}");
                return refused.field.to_owned();
            }
            assert!(!crate::steps::plan(&spec).shape().steps.is_empty());
            if let Ok(Some(window)) = spec.reboot.window() {
                let now = "2026-11-23T05:06:07Z".parse().expect("a time");
                assert!(window.opens_in(now) <= jiff::SignedDuration::from_hours(24 * 7), "{:?}", spec.reboot.window);
            }
            "valid".into()
        });
    }
}
