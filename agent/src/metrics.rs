//! Every metric of the agent: its name, its labels (closed sets) and its description. Nowhere else is one named.
#![allow(clippy::disallowed_macros)] // this file is the exception that the ban in clippy.toml is about

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use proto::{
    report::{Event, HoldKind, OutageKind, Outcome, Report, Verdict},
    side::Side,
};

const BUILD: &str = "pilot_agent_build_info";
const LINK_UP: &str = "pilot_agent_link_up";
const LINK_DIALS: &str = "pilot_agent_link_dials_total";
const DEATHS: &str = "pilot_agent_task_deaths_total";
const PURGED: &str = "pilot_agent_sessions_purged_total";
const BLOCKED: &str = "pilot_agent_purge_blocked_total";
const ENDED: &str = "pilot_agent_sessions_ended_total";
const RESUBMITTED: &str = "pilot_agent_resubmissions_total";
const OUTAGE: &str = "pilot_agent_outage_seconds";
const HELD: &str = "pilot_agent_held_seconds";
const SCHEMA_CHANGES: &str = "pilot_agent_schema_changes_total";
const OLD_SIDE_CLIENTS: &str = "pilot_agent_old_side_clients_total";
const OLD_SIDE_COMMITS: &str = "pilot_agent_old_side_write_commits_total";
const STANCE: &str = "pilot_agent_stance";
const HOLDING: &str = "pilot_agent_holding_seconds";
const SLOT_LAG: &str = "pilot_agent_replication_lag_bytes";
const SLOT_RETAINED: &str = "pilot_agent_slot_retained_bytes";
const BACKLOG: &str = "pilot_agent_ingestion_backlog";
const RATE: &str = "pilot_agent_ingestion_rate";
const MARKER: &str = "pilot_agent_marker_delay_seconds";
const WRITABLE: &str = "pilot_agent_probe_writable";
const RESIDENT: &str = "pilot_agent_resident_bytes";
const SWITCHOVER_STATUS: &str = "pilot_agent_switchover_status";
const JOBS: &str = "pilot_agent_jobs_total";
const REFUSED: &str = "pilot_agent_commands_refused_total";
const EVENTS_DROPPED: &str = "pilot_agent_events_dropped_total";

/// The stances, as labels.
const STANCES: [&str; 6] =
    ["obey", "keep_holding", "release_to_blue", "release_to_green", "follow_to_green", "fail_open"];
/// The phases of a switchover, as labels.
const PHASES: [&str; 6] = ["available", "initiated", "in_progress", "post_processing", "completed", "unknown"];

/// Why a command is not obeyed, as labels.
const REFUSALS: [&str; 3] = ["stale", "foreign_store", "altered"];
/// An older picture is none: its watcher stands still, or what it watched is gone.
const PICTURE_AGE_MAX_MS: u64 = 15_000;

/// Describes what this process counts, and sets what is known at the start; once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(BUILD, "1, with the version of this agent");
    describe_gauge!(LINK_UP, "1 while the stream to the coordinator is open");
    describe_counter!(LINK_DIALS, "Times the coordinator was dialled");
    describe_counter!(DEATHS, "Deaths of supervised tasks");
    describe_counter!(PURGED, "Sessions ended because they held slot creation up");
    describe_counter!(BLOCKED, "Sessions and transactions that the purger met and may not end");
    describe_counter!(ENDED, "Sessions ended because they would have delayed the cut");
    describe_counter!(RESUBMITTED, "Verdicts on recorded statements");
    describe_histogram!(OUTAGE, Unit::Seconds, "Lengths of outages as the probe saw them");
    describe_histogram!(HELD, Unit::Seconds, "Lengths of holds and ingestion pauses");
    describe_counter!(SCHEMA_CHANGES, "Times the catalogues of blue and green began to differ");
    describe_counter!(OLD_SIDE_CLIENTS, "Clients seen on the side that does not serve any more");
    describe_counter!(OLD_SIDE_COMMITS, "Transactions that wrote to the old side");
    describe_counter!(JOBS, "Jobs finished, by outcome");
    describe_counter!(REFUSED, "Commands that were not obeyed, by reason");
    describe_counter!(EVENTS_DROPPED, "Events left out or added up because nobody acknowledged as many as are kept");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    link(false);
    // A counter that begins at more than 0 has no increase that an alert could see.
    for counter in [PURGED, BLOCKED, ENDED, SCHEMA_CHANGES, OLD_SIDE_CLIENTS, OLD_SIDE_COMMITS, EVENTS_DROPPED] {
        counter!(counter).absolute(0);
    }
    for reason in REFUSALS {
        counter!(REFUSED, "reason" => reason).absolute(0);
    }
}

/// Describes what is told of the newest picture; at every scrape, because each has a recorder of its own.
fn describe_seen() {
    describe_gauge!(STANCE, "1 for what the agent does now");
    describe_gauge!(HOLDING, Unit::Seconds, "How long clients are held, or ingestion is paused, by now; 0 while not");
    describe_gauge!(SLOT_LAG, Unit::Bytes, "Bytes that a slot's subscriber has not confirmed");
    describe_gauge!(SLOT_RETAINED, Unit::Bytes, "WAL that a slot keeps on the disk");
    describe_gauge!(BACKLOG, "What waits in an ingestion system");
    describe_gauge!(RATE, "What an ingestion system moves a second");
    describe_gauge!(MARKER, Unit::Seconds, "From a commit on blue to its sight on green, slowest database");
    describe_gauge!(WRITABLE, "1 when production accepted the probe's last write, by side");
    describe_gauge!(RESIDENT, Unit::Bytes, "Resident memory of the agent");
    describe_gauge!(SWITCHOVER_STATUS, "1 for the phase that a side's writer says while a switchover is announced");
}

/// The stream to the coordinator opened or closed.
pub fn link(up: bool) {
    gauge!(LINK_UP).set(if up { 1.0 } else { 0.0 });
}

/// The coordinator was dialled.
pub fn dialled() {
    counter!(LINK_DIALS).increment(1);
}

/// A supervised task died.
pub fn task_died(task: &'static str) {
    counter!(DEATHS, "task" => task).increment(1);
}

/// A job ended.
pub fn job_ended(done: bool) {
    counter!(JOBS, "outcome" => if done { "done" } else { "failed" }).increment(1);
}

/// A command was not obeyed; `reason` is of a closed set.
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// An event was left out, or added to a newer one.
pub fn event_dropped() {
    counter!(EVENTS_DROPPED).increment(1);
}

/// Counts an event.
pub fn event(event: &Event) {
    match event {
        Event::SessionPurged { .. } => counter!(PURGED).increment(1),
        Event::PurgeBlocked { .. } => counter!(BLOCKED).increment(1),
        Event::SessionEnded { .. } => counter!(ENDED).increment(1),
        Event::Resubmission { verdict, .. } => counter!(RESUBMITTED, "verdict" => verdict_name(verdict)).increment(1),
        Event::Outage { ms, kind, .. } => {
            let kind = match kind {
                OutageKind::Write => "write",
                OutageKind::Read => "read",
            };
            histogram!(OUTAGE, "kind" => kind).record(seconds(*ms));
        }
        Event::SchemaChanged { .. } => counter!(SCHEMA_CHANGES).increment(1),
        Event::OldSideClient { .. } => counter!(OLD_SIDE_CLIENTS).increment(1),
        Event::OldSideWritten { commits, .. } => counter!(OLD_SIDE_COMMITS).increment(*commits),
        Event::Held { ms, kind, .. } => {
            let kind = match kind {
                HoldKind::Gate => "gate",
                HoldKind::Ingestion => "ingestion",
            };
            histogram!(HELD, "kind" => kind).record(seconds(*ms));
        }
        Event::PauseCap { .. }
        | Event::Stance { .. }
        | Event::SwitchoverPhase { .. }
        | Event::GreenAcceptedWrite { .. } => {}
    }
}

/// Tells one scrape of the newest picture, into the recorder of this scrape.
pub fn seen(report: &Report) {
    describe_seen();
    let fresh = |age_ms: u64| age_ms < PICTURE_AGE_MAX_MS;
    for slot in report.slots.iter().filter(|slots| fresh(slots.age_ms)).flat_map(|slots| &slots.slots) {
        let gauges = [(SLOT_LAG, slot.lag_bytes), (SLOT_RETAINED, slot.retained_bytes)];
        for (name, value) in gauges {
            if let Some(bytes) = value {
                gauge!(name, "slot" => slot.name.clone()).set(bytes as f64);
            }
        }
    }
    for controller in report.ingestion.iter().filter(|controller| fresh(controller.age_ms)) {
        if let Some(backlog) = controller.backlog {
            gauge!(BACKLOG, "system" => controller.name.clone()).set(backlog as f64);
        }
        if let Some(rate) = controller.rate {
            gauge!(RATE, "system" => controller.name.clone()).set(rate);
        }
    }
    let marker = report.marker.as_ref().filter(|marker| fresh(marker.age_ms));
    if let Some(ms) = marker.and_then(|marker| marker.max_ms) {
        gauge!(MARKER).set(seconds(ms));
    }
    for stance in STANCES {
        gauge!(STANCE, "stance" => stance).set(if report.stance == stance { 1.0 } else { 0.0 });
    }
    for (kind, ms) in [("gate", report.held_ms), ("ingestion", report.ingestion_paused_ms)] {
        gauge!(HOLDING, "kind" => kind).set(seconds(ms.unwrap_or_default()));
    }
    if let Some(look) = report.probe.production.as_ref().filter(|look| fresh(look.age_ms)) {
        for (side, name) in [(Side::Blue, "blue"), (Side::Green, "green")] {
            let writes = matches!(&look.outcome, Outcome::Answered { side: Some(s), wrote: true, .. } if *s == side);
            gauge!(WRITABLE, "side" => name).set(if writes { 1.0 } else { 0.0 });
        }
    }
    let status = report.switchover.as_ref();
    for (side, told) in
        [("blue", status.and_then(|it| it.blue.as_ref())), ("green", status.and_then(|it| it.green.as_ref()))]
    {
        let said = told.and_then(|told| told.phase.as_ref()).map(proto::phase::SwitchoverPhase::label);
        for phase in PHASES {
            gauge!(SWITCHOVER_STATUS, "side" => side, "phase" => phase).set(if said == Some(phase) {
                1.0
            } else {
                0.0
            });
        }
    }
    if let Some(bytes) = report.resident_bytes {
        gauge!(RESIDENT).set(bytes as f64);
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Resubmitted => "resubmitted",
        Verdict::AlreadyDone => "already_done",
        Verdict::CommittedOnBlue => "committed_on_blue",
        Verdict::Refused { .. } => "refused",
        Verdict::Unknown { .. } => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use proto::lsn::Lsn;
    use proto::report::{Controller, IngestionState, Seen, Slot, Slots};
    use runtime::recorder::Recorder;

    use super::*;

    fn report(age_ms: u64) -> Report {
        let slot = Slot {
            name: "debezium".into(),
            database: None,
            logical: true,
            active: false,
            of_deployment: false,
            confirmed_flush: None,
            lag_bytes: Some(7),
            retained_bytes: Some(70),
            wal_status: None,
        };
        let outcome = Outcome::Unreachable { kind: "refused".into(), sqlstate: None };
        let mut report = Report { held_ms: Some(1500), stance: "fail_open".into(), ..Report::default() };
        report.slots =
            Some(Slots { age_ms, current: Lsn::new(0), slots: vec![slot], xmin_age: None, free_bytes: None });
        report.probe.production = Some(Seen { age_ms, outcome });
        report.ingestion = vec![Controller {
            name: "intake".into(),
            kind: "http".into(),
            state: IngestionState::Running,
            backlog: Some(3),
            rate: None,
            holds: false,
            age_ms,
        }];
        report
    }

    #[test]
    fn a_scrape_tells_the_newest_picture_and_nothing_of_what_is_not_watched_any_more() {
        let text = Recorder::detached().showing(|| seen(&report(900))).render();
        for line in [
            "pilot_agent_replication_lag_bytes{slot=\"debezium\"} 7",
            "pilot_agent_slot_retained_bytes{slot=\"debezium\"} 70",
            "pilot_agent_ingestion_backlog{system=\"intake\"} 3",
            "pilot_agent_stance{stance=\"fail_open\"} 1",
            "pilot_agent_stance{stance=\"obey\"} 0",
            "pilot_agent_holding_seconds{kind=\"gate\"} 1.5",
            "pilot_agent_holding_seconds{kind=\"ingestion\"} 0",
            "pilot_agent_probe_writable{side=\"blue\"} 0",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is not said:\n{text}");
        }
        let old = Recorder::detached().showing(|| seen(&report(PICTURE_AGE_MAX_MS))).render();
        for absent in ["slot=", "system=", "pilot_agent_probe_writable{"] {
            assert!(!old.contains(absent), "{absent} is said:\n{old}");
        }
        assert!(old.contains("pilot_agent_holding_seconds"), "{old}");
    }
}
