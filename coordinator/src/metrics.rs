//! Every metric of the coordinator: name, labels and description. Nothing else in this crate names a metric.
//!
//! Two kinds. What this process has counted (facts, refusals, failures) is set as it happens and goes on from scrape to scrape. What is
//! true of an upgrade is told at each scrape from its status, the fold that `pilot status` prints, so the two cannot differ, and a
//! measurement that is missing is no series. Series of an upgrade go when it has been over for a while (`scrape.rs`).
#![allow(clippy::disallowed_macros)] // this file is the exception that the ban in clippy.toml is about

use engine::{Entry, Fact};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::hooks::Point;
use crate::operator::tally::Tally;
use crate::operator::view::StatusView;
use crate::scrape::{Scrape, Setting, Shown};
use crate::world::Upgrade;

const BUILD_INFO: &str = "pilot_build_info";
const STEP_SECONDS: &str = "pilot_step_duration_seconds";
const FACTS: &str = "pilot_facts_total";
const TASK_DEATHS: &str = "pilot_task_deaths_total";
const FINISHED: &str = "pilot_upgrades_finished_total";
const LEADING: &str = "pilot_leading";
const STORE_FAILURES: &str = "pilot_store_failures_total";
const REFUSED_JOURNALS: &str = "pilot_journals_refused_total";
const REFUSED: &str = "pilot_refused_total";
const HOOKS: &str = "pilot_hooks_total";
const HOOK_SECONDS: &str = "pilot_hook_duration_seconds";

const LINKS: &str = "pilot_agent_links";
const INFO: &str = "pilot_upgrade_info";
const STARTED: &str = "pilot_upgrade_started_timestamp_seconds";
const SECONDS: &str = "pilot_upgrade_seconds";
const HEALTH: &str = "pilot_upgrade_health";
const DIRECTION: &str = "pilot_upgrade_direction";
const OUTCOME: &str = "pilot_upgrade_outcome";
const SWITCHED_OVER: &str = "pilot_upgrade_switched_over";
const WARNINGS: &str = "pilot_upgrade_warnings";
const AGENTS_MISSING: &str = "pilot_upgrade_agents_missing";
const PHASE: &str = "pilot_phase";
const STEP_TIME: &str = "pilot_upgrade_step_seconds";
const STEP_STATE: &str = "pilot_upgrade_step_state";
const STEP_ATTEMPTS: &str = "pilot_upgrade_step_attempts";
const PROGRESS: &str = "pilot_upgrade_progress_ratio";
const SETTING: &str = "pilot_upgrade_setting";
const LIMIT: &str = "pilot_upgrade_limit";
const APPROVALS: &str = "pilot_approvals_waiting";
const ALARMS: &str = "pilot_alarms";
const ALARM: &str = "pilot_alarm";
const LAG_BYTES: &str = "pilot_replication_lag_bytes";
const RETAINED_BYTES: &str = "pilot_slot_retained_bytes";
const CLOUDWATCH_BYTES: &str = "pilot_cloudwatch_lag_bytes";
const MARKER_SECONDS: &str = "pilot_marker_delay_seconds";
const BACKLOG: &str = "pilot_ingestion_backlog";
const RATE: &str = "pilot_ingestion_rate";
const INGESTION: &str = "pilot_ingestion_state";
const PURGED: &str = "pilot_sessions_purged_total";
const ENDED: &str = "pilot_sessions_ended_total";
const RESUBMITTED: &str = "pilot_statements_resubmitted_total";
const NOT_RESUBMITTED: &str = "pilot_statements_not_resubmitted_total";
const SCHEMA_CHANGES: &str = "pilot_schema_changes_total";
const DOWNTIME: &str = "pilot_downtime_seconds";

/// Label values, each a closed set: one series for each, 1 for what is so.
const HEALTHS: [&str; 4] = ["ok", "attention", "person", "trouble"];
const DIRECTIONS: [&str; 4] = ["forward", "restarting", "unwinding", "finished"];
const OUTCOMES: [&str; 4] = ["succeeded", "unwound", "refused", "stopped"];
const STATES: [&str; 8] = ["pending", "running", "failed", "done", "skipped", "undoing", "undone", "stuck"];
const LEVELS: [&str; 3] = ["note", "hold", "unwind"];
const INGESTIONS: [&str; 4] = ["running", "paused", "mixed", "unknown"];

/// Describes what this process counts and sets what is known at the start; once.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "1; the version is a label");
    describe_histogram!(STEP_SECONDS, Unit::Seconds, "how long a step took, from its first start to its end");
    describe_counter!(FACTS, "facts appended to journals, by kind");
    describe_counter!(TASK_DEATHS, "supervised tasks that died and were started again");
    describe_counter!(FINISHED, "upgrades that ended, by outcome");
    describe_gauge!(LEADING, "1 while this coordinator drives the upgrades, 0 while it stands by");
    describe_counter!(STORE_FAILURES, "operations that the store failed or did not answer in time");
    describe_counter!(
        REFUSED_JOURNALS,
        "upgrades that are not driven because their journal is damaged or of another version"
    );
    describe_counter!(REFUSED, "callers that were not let in, or may not do what they asked for, by reason");
    describe_counter!(HOOKS, "tries of hooks by point, and what came of them");
    describe_histogram!(HOOK_SECONDS, Unit::Seconds, "how long one try of a hook took, answer included");
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(LEADING).set(0.0);
    for counter in [STORE_FAILURES, REFUSED_JOURNALS] {
        counter!(counter).absolute(0);
    }
}

/// Describes what is told of upgrades; at every scrape, because each has a recorder of its own.
fn describe_upgrades() {
    describe_gauge!(LINKS, "agents of a cluster with a stream to this coordinator");
    describe_gauge!(INFO, "1; an upgrade under way or just over, with its cluster and versions");
    describe_gauge!(STARTED, Unit::Seconds, "when an upgrade was started, in seconds since 1970");
    describe_gauge!(SECONDS, Unit::Seconds, "the whole upgrade so far, or to its end");
    describe_gauge!(HEALTH, "1 for how an upgrade is: ok, attention, person (it waits for one), trouble (not driven)");
    describe_gauge!(DIRECTION, "1 for where an upgrade goes");
    describe_gauge!(OUTCOME, "1 for how an upgrade ended; all 0 while it is under way");
    describe_gauge!(SWITCHED_OVER, "1 when the point of no return is behind");
    describe_gauge!(WARNINGS, "warnings in the journal of an upgrade");
    describe_gauge!(AGENTS_MISSING, "agents that the upgrade counts on and that have no stream");
    describe_gauge!(PHASE, "1 for the step at work or waiting, 0 for the others; all 0 when the upgrade is over");
    describe_gauge!(STEP_TIME, Unit::Seconds, "a step from its first start to its end, or until now");
    describe_gauge!(STEP_STATE, "1 for the state of a step");
    describe_gauge!(STEP_ATTEMPTS, "attempts of a step so far");
    describe_gauge!(PROGRESS, "how much of what the step at work can count is done, 0 to 1");
    describe_gauge!(SETTING, "1; what an upgrade was started with, every field of its spec");
    describe_gauge!(LIMIT, "limits of the spec that alerts compare with, in the unit that their name says");
    describe_gauge!(APPROVALS, "approvals that an upgrade waits for");
    describe_gauge!(ALARMS, "alarms that stand, by what they do");
    describe_gauge!(ALARM, "1; an alarm that stands");
    describe_gauge!(LAG_BYTES, Unit::Bytes, "bytes of WAL that the subscriber of a slot has not confirmed");
    describe_gauge!(RETAINED_BYTES, Unit::Bytes, "WAL that a slot of the deployment keeps on the disk");
    describe_gauge!(CLOUDWATCH_BYTES, Unit::Bytes, "CloudWatch's OldestReplicationSlotLag of the writer");
    describe_gauge!(
        MARKER_SECONDS,
        Unit::Seconds,
        "from a marker's commit on blue to its sight on green, slowest database"
    );
    describe_gauge!(BACKLOG, "what ingestion has not taken in yet, over all controllers that know it");
    describe_gauge!(RATE, "rows, messages or statements a second, over all controllers that know it");
    describe_gauge!(INGESTION, "1 for the state of all ingestion systems together");
    describe_counter!(PURGED, "sessions ended because they held slot creation up");
    describe_counter!(ENDED, "sessions ended because they would have delayed the switchover");
    describe_counter!(RESUBMITTED, "interrupted statements run again on green, exactly once");
    describe_counter!(NOT_RESUBMITTED, "recorded statements that were not run again: refused by name, or unknown");
    describe_counter!(SCHEMA_CHANGES, "schema changes seen while green exists");
    describe_gauge!(DOWNTIME, Unit::Seconds, "unavailability, by the agents' probes and holds");
}

/// A fact was appended; `tally` has it already.
pub fn fact(entry: &Entry<Upgrade>, tally: &Tally) {
    counter!(FACTS, "kind" => entry.fact.kind()).increment(1);
    match &entry.fact {
        Fact::StepDone { step, .. } => {
            if let Some(seconds) = tally.steps.get(step).and_then(|times| times.seconds(entry.at)) {
                histogram!(STEP_SECONDS, "step" => step.as_str()).record(seconds);
            }
        }
        Fact::Finished { outcome } => counter!(FINISHED, "outcome" => outcome.as_str()).increment(1),
        _ => {}
    }
}

/// Somebody was not let in, or may not do what it asked for; `reason` is of a closed set.
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A supervised task died.
pub fn task_died(task: &'static str) {
    counter!(TASK_DEATHS, "task" => task).increment(1);
}

/// A try of a hook; `outcome` is `go`, `wait`, `veto`, `told`, `failed`, or `given_up` after the last try.
pub fn hook(point: Point, outcome: &'static str, took: std::time::Duration) {
    counter!(HOOKS, "point" => point.as_str(), "outcome" => outcome).increment(1);
    if outcome != "given_up" {
        histogram!(HOOK_SECONDS, "point" => point.as_str()).record(took.as_secs_f64());
    }
}

/// Whether this process drives the upgrades.
pub fn leading(leads: bool) {
    gauge!(LEADING).set(if leads { 1.0 } else { 0.0 });
}

/// The store failed, or did not answer in time.
pub fn store_failed() {
    counter!(STORE_FAILURES).increment(1);
}

/// The journal of an upgrade is damaged or of another version.
pub fn journal_refused() {
    counter!(REFUSED_JOURNALS).increment(1);
}

/// Tells one scrape of all upgrades; into the recorder of this scrape.
pub(crate) fn scraped(scrape: &Scrape) {
    describe_upgrades();
    for (cluster, links) in &scrape.links {
        gauge!(LINKS, "cluster" => cluster.clone()).set(*links as f64);
    }
    for shown in &scrape.upgrades {
        let of = Of { upgrade: &shown.status.id, cluster: &shown.status.cluster };
        stands(&of, shown);
        steps(&of, &shown.status);
        asked_for(&of, &shown.settings);
        replicates(&of, &shown.status);
        counted(&of, &shown.status);
    }
}

/// The upgrade that series are of.
struct Of<'a> {
    upgrade: &'a str,
    cluster: &'a str,
}

impl Of<'_> {
    fn labels(&self, more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let own = [("upgrade", self.upgrade), ("cluster", self.cluster)];
        own.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    fn set(&self, name: &'static str, more: &[(&'static str, &str)], value: f64) {
        gauge!(name, &self.labels(more)).set(value);
    }

    /// Nothing where nothing was measured.
    fn measured(&self, name: &'static str, more: &[(&'static str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.set(name, more, value);
        }
    }

    /// One series for each of a closed set: 1 for the one that is so.
    fn one_of(&self, name: &'static str, label: &'static str, all: &[&str], now: Option<&str>) {
        for value in all {
            self.set(name, &[(label, value)], f64::from(now == Some(*value)));
        }
    }

    fn count(&self, name: &'static str, value: u64) {
        counter!(name, &self.labels(&[])).absolute(value);
    }
}

/// Who it is and how it stands.
fn stands(of: &Of<'_>, shown: &Shown) {
    let status = &shown.status;
    of.set(INFO, &[("from", &status.from_version), ("to", &status.to_version)], 1.0);
    of.set(STARTED, &[], status.started_at.as_millisecond() as f64 / 1000.0);
    of.set(SECONDS, &[], status.seconds);
    of.one_of(HEALTH, "health", &HEALTHS, Some(&status.health));
    of.one_of(DIRECTION, "direction", &DIRECTIONS, Some(&status.direction));
    of.one_of(OUTCOME, "outcome", &OUTCOMES, status.outcome.as_deref());
    of.set(SWITCHED_OVER, &[], f64::from(status.switched_over));
    of.set(WARNINGS, &[], status.warnings.len() as f64);
    of.set(AGENTS_MISSING, &[], shown.agents_missing as f64);
    for approval in &status.approvals {
        of.set(APPROVALS, &[("step", &approval.step), ("approval", kind_of(&approval.name))], 1.0);
    }
    // What stands as an upgrade ends calls nobody any more.
    let alarms = || status.alarms.iter().filter(|_| status.outcome.is_none());
    for level in LEVELS {
        of.set(ALARMS, &[("level", level)], alarms().filter(|alarm| alarm.level == level).count() as f64);
    }
    for alarm in alarms() {
        of.set(ALARM, &[("monitor", &alarm.monitor), ("level", &alarm.level), ("code", &alarm.code)], 1.0);
    }
}

/// Names of approvals are a closed set but for those that name a schema change.
fn kind_of(approval: &str) -> &str {
    match approval {
        "reboot" | "purge-active" | "switchover" | "cleanup" => approval,
        name if name.starts_with("schema-") => "schema",
        _ => "other",
    }
}

fn steps(of: &Of<'_>, status: &StatusView) {
    let at_work = status.outcome.is_none().then_some(status.phase.as_str());
    for step in &status.steps {
        of.set(PHASE, &[("step", &step.id)], f64::from(at_work == Some(&step.id)));
        of.measured(STEP_TIME, &[("step", &step.id)], step.seconds);
        of.set(STEP_ATTEMPTS, &[("step", &step.id)], f64::from(step.attempt));
        for state in STATES {
            of.set(STEP_STATE, &[("step", &step.id), ("state", state)], f64::from(step.state == state));
        }
    }
    let Some(current) = status.current.as_ref().filter(|_| at_work.is_some()) else { return };
    if let Some(progress) = current.progress.as_ref().filter(|progress| progress.total > 0) {
        of.set(PROGRESS, &[("step", &current.step)], progress.done as f64 / progress.total as f64);
    }
}

fn asked_for(of: &Of<'_>, settings: &[Setting]) {
    for setting in settings {
        of.set(SETTING, &[("key", &setting.key), ("value", &setting.value)], 1.0);
        of.measured(LIMIT, &[("key", &setting.key)], setting.limit);
    }
}

fn replicates(of: &Of<'_>, status: &StatusView) {
    for slot in &status.lag.slots {
        of.measured(LAG_BYTES, &[("slot", &slot.name)], slot.bytes.map(|bytes| bytes as f64));
        of.measured(RETAINED_BYTES, &[("slot", &slot.name)], slot.retained_bytes.map(|bytes| bytes as f64));
    }
    of.measured(CLOUDWATCH_BYTES, &[], status.lag.cloudwatch_bytes.map(|bytes| bytes as f64));
    of.measured(MARKER_SECONDS, &[], status.lag.marker_ms.map(|ms| ms as f64 / 1000.0));
    of.measured(BACKLOG, &[], status.ingestion.backlog.map(|backlog| backlog as f64));
    of.measured(RATE, &[], status.ingestion.rate);
    if let Some(state) = &status.ingestion.state {
        of.one_of(INGESTION, "state", &INGESTIONS, Some(state));
    }
}

/// What an upgrade has counted so far, whoever drove it.
fn counted(of: &Of<'_>, status: &StatusView) {
    let (counts, downtime) = (&status.counts, &status.downtime);
    of.count(PURGED, counts.purged);
    of.count(ENDED, counts.ended);
    of.count(RESUBMITTED, counts.resubmitted);
    of.count(NOT_RESUBMITTED, counts.not_resubmitted);
    of.count(SCHEMA_CHANGES, counts.schema_changes);
    for (kind, ms) in [
        ("write", downtime.write_unavailable_ms),
        ("read", downtime.read_unavailable_ms),
        ("held", downtime.held_ms),
        ("ingestion_paused", downtime.ingestion_paused_ms),
        ("reboot", downtime.reboot_unavailable_ms),
    ] {
        of.set(DOWNTIME, &[("kind", kind)], ms as f64 / 1000.0);
    }
}
