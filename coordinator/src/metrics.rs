//! Every metric of the coordinator: name, label and description. Nothing else in this crate names a metric.
#![allow(clippy::disallowed_macros)] // this file is the exception that the ban in clippy.toml is about

use engine::{Entry, Fact};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use proto::report::{Event, Report, Verdict};

use crate::hooks::Point;
use crate::operator::tally::Tally;
use crate::sampling::total;
use crate::world::Upgrade;

const BUILD_INFO: &str = "pilot_build_info";
const PHASE: &str = "pilot_phase";
const STEP_SECONDS: &str = "pilot_step_duration_seconds";
const LAG_BYTES: &str = "pilot_replication_lag_bytes";
const MARKER_SECONDS: &str = "pilot_marker_delay_seconds";
const BACKLOG: &str = "pilot_ingestion_backlog";
const RATE: &str = "pilot_ingestion_rate";
const PURGED: &str = "pilot_sessions_purged_total";
const ENDED: &str = "pilot_sessions_ended_total";
const RESUBMITTED: &str = "pilot_statements_resubmitted_total";
const DOWNTIME: &str = "pilot_downtime_seconds";
const SCHEMA_CHANGES: &str = "pilot_schema_changes_total";
const LINKS: &str = "pilot_agent_links";
const ALARMS: &str = "pilot_alarms";
const FACTS: &str = "pilot_facts_total";
const TASK_DEATHS: &str = "pilot_task_deaths_total";
const FINISHED: &str = "pilot_upgrades_finished_total";
const LEADING: &str = "pilot_leading";
const STORE_FAILURES: &str = "pilot_store_failures_total";
const REFUSED_JOURNALS: &str = "pilot_journals_refused_total";
const REFUSED: &str = "pilot_refused_total";
const HOOKS: &str = "pilot_hooks_total";
const HOOK_SECONDS: &str = "pilot_hook_duration_seconds";

/// The steps, as label values of `pilot_phase`: a closed set.
const PHASES: [&str; 7] = [
    "prerequisites",
    "provisioning",
    "post_provisioning",
    "replicating_data",
    "switchover",
    "post_switchover",
    "cleanup",
];

/// Describes every metric and sets those that are known at the start.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "1; the version is a label");
    describe_gauge!(PHASE, "1 for the step at work or waiting, 0 for the others; all 0 when no upgrade runs");
    describe_histogram!(STEP_SECONDS, Unit::Seconds, "how long a step took, from its first start to its end");
    describe_gauge!(LAG_BYTES, Unit::Bytes, "bytes of WAL that the subscriber of a slot has not confirmed");
    describe_gauge!(
        MARKER_SECONDS,
        Unit::Seconds,
        "from a marker's commit on blue to its sight on green, slowest database"
    );
    describe_gauge!(BACKLOG, "what ingestion has not taken in yet, over all controllers that know it");
    describe_gauge!(RATE, "rows, messages or statements a second, over all controllers that know it");
    describe_counter!(PURGED, "sessions ended because they held slot creation up");
    describe_counter!(ENDED, "sessions ended because they would have delayed the switchover");
    describe_counter!(RESUBMITTED, "interrupted statements run again on green, exactly once");
    describe_gauge!(DOWNTIME, Unit::Seconds, "unavailability of the upgrade at hand, by the agents' probes and holds");
    describe_counter!(SCHEMA_CHANGES, "schema changes seen while green exists");
    describe_gauge!(LINKS, "agents with a stream to this coordinator");
    describe_gauge!(ALARMS, "alarms that stand");
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
    gauge!(LINKS).set(0.0);
    gauge!(ALARMS).set(0.0);
    gauge!(LEADING).set(0.0);
    for counter in [PURGED, ENDED, RESUBMITTED, SCHEMA_CHANGES, STORE_FAILURES, REFUSED_JOURNALS] {
        counter!(counter).absolute(0);
    }
    phase(None);
}

/// Shows the step at work, or that waits for a person or for its time.
pub fn phase(now: Option<&str>) {
    for step in PHASES {
        gauge!(PHASE, "step" => step).set(if now == Some(step) { 1.0 } else { 0.0 });
    }
}

/// A fact was appended; `tally` has it already.
pub fn fact(entry: &Entry<Upgrade>, tally: &Tally) {
    counter!(FACTS, "kind" => entry.fact.kind()).increment(1);
    match &entry.fact {
        Fact::StepStarted { step, .. } | Fact::UndoStarted { step } => phase(Some(step.as_str())),
        Fact::StepDone { step, .. } => {
            if let Some(seconds) = tally.steps.get(step).and_then(|times| times.seconds(entry.at)) {
                histogram!(STEP_SECONDS, "step" => step.as_str()).record(seconds);
            }
        }
        Fact::Finished { outcome } => {
            phase(None);
            counter!(FINISHED, "outcome" => outcome.as_str()).increment(1);
            gauge!(ALARMS).set(0.0);
        }
        Fact::AlarmRaised { .. } | Fact::AlarmCleared { .. } => gauge!(ALARMS).set(tally.alarms.len() as f64),
        Fact::Observed { event, .. } => observed(event, tally),
        _ => {}
    }
}

fn observed(event: &Event, tally: &Tally) {
    match event {
        Event::SessionPurged { .. } => counter!(PURGED).increment(1),
        Event::SessionEnded { .. } => counter!(ENDED).increment(1),
        Event::Resubmission { verdict: Verdict::Resubmitted, .. } => counter!(RESUBMITTED).increment(1),
        Event::SchemaChanged { .. } => counter!(SCHEMA_CHANGES).increment(1),
        Event::Outage { .. } | Event::Held { .. } => {
            let downtime = tally.downtime();
            for (kind, ms) in [
                ("write", downtime.write_unavailable_ms),
                ("read", downtime.read_unavailable_ms),
                ("held", downtime.held_ms),
                ("ingestion_paused", downtime.ingestion_paused_ms),
                ("reboot", downtime.reboot_unavailable_ms),
            ] {
                gauge!(DOWNTIME, "kind" => kind).set(ms as f64 / 1000.0);
            }
        }
        _ => {}
    }
}

/// The lead's newest report.
pub fn report(report: &Report) {
    for slot in report.slots.iter().flat_map(|slots| &slots.slots).filter(|slot| slot.of_deployment) {
        if let Some(bytes) = slot.lag_bytes {
            gauge!(LAG_BYTES, "slot" => slot.name.clone()).set(bytes as f64);
        }
    }
    if let Some(ms) = report.marker.as_ref().and_then(|marker| marker.max_ms) {
        gauge!(MARKER_SECONDS).set(ms as f64 / 1000.0);
    }
    if let Some(backlog) = total(report, |controller| controller.backlog.map(|backlog| backlog as f64)) {
        gauge!(BACKLOG).set(backlog);
    }
    if let Some(rate) = total(report, |controller| controller.rate) {
        gauge!(RATE).set(rate);
    }
}

/// How many agents are attached.
pub fn links(count: usize) {
    gauge!(LINKS).set(count as f64);
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
