//! What one upgrade has counted: durations per step, downtime, sessions, statements. A fold of the same facts that the
//! engine folds, for people and metrics only; nothing decides on it.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Alarm, Entry, Fact, MonitorId, Request, StepId};
use jiff::Timestamp;
use proto::report::{Event, HoldKind, OutageKind, Session, Verdict};
use proto::side::Side;
use serde::{Deserialize, Serialize};

use super::course::Course;
use crate::monitors::ddl::statement::Ddl;
use crate::steps::codes::SCHEMA_CHANGED;
use crate::world::Upgrade;

/// Statements, sessions, outages and schema changes named in full; beyond it they are only counted.
const NAMED_MAX: usize = 200;
/// Outages before the end of this step are the reboot's.
const REBOOTS_IN: StepId = StepId("prerequisites");

/// The counters of field rule 12, by the agents' word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downtime {
    pub write_unavailable_ms: u64,
    pub read_unavailable_ms: u64,
    /// The longest hold.
    pub held_ms: u64,
    pub ingestion_paused_ms: u64,
    pub reboot_unavailable_ms: u64,
}

/// How often things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sessions that held slot creation up and were ended.
    pub purged: u64,
    /// Sessions that would have delayed the cut and were ended.
    pub ended: u64,
    pub resubmitted: u64,
    /// Statements that were recorded and not resubmitted: refused by name, or unknown.
    pub not_resubmitted: u64,
    pub schema_changes: u64,
}

/// What became of one recorded statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub key: String,
    pub database: String,
    pub role: String,
    pub verdict: Verdict,
}

/// A session that was ended, and why. Never its statement, which may hold data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnd {
    pub at: Timestamp,
    /// `purged` (it held slot creation up), `ended` (it would have delayed the cut), `kept` (it may not be ended).
    pub what: String,
    pub agent: String,
    pub pid: Option<i32>,
    pub user: Option<String>,
    pub database: Option<String>,
    pub application: String,
    /// Its state, or what a kept one is.
    pub state: String,
    pub command: Option<String>,
    pub age_ms: u64,
    /// What it held up, under which key its statement is recorded, or why that will not run again.
    pub why: Option<String>,
    /// The key of its recorded statement, whose verdict is among the statements.
    pub key: Option<String>,
}

/// A time in which the probe was refused, or clients were held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// `write`, `read`, `held`, `ingestion`.
    pub kind: String,
    pub from: Timestamp,
    pub ms: u64,
    pub agent: String,
    pub before: Option<Side>,
    pub after: Option<Side>,
    /// In the reboot before the switchover.
    pub reboot: bool,
}

/// What a schema change on blue does to the replication to green.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// The first row that green cannot take stops it.
    Breaks,
    /// Aurora's replication cannot follow it; AWS calls the deployment degraded.
    Degrades,
    /// It goes on, and green lacks the change.
    Lacks,
}

/// A schema change on blue while green exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaChange {
    /// When it was made, or seen.
    pub at: Timestamp,
    /// The statement without literals, or an object that differs.
    pub what: String,
    /// Who made it, where the server's log says so.
    pub user: Option<String>,
    pub database: Option<String>,
    pub client: Option<String>,
    /// Null of a difference of the catalogues, whose cause is not known.
    pub harm: Option<Harm>,
}

/// The times of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepTimes {
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Seconds spent in named waits, by what was waited for.
    pub waits: BTreeMap<String, f64>,
    /// Seconds in which it waited for a person's approval.
    pub person_seconds: f64,
    asked_at: Option<Timestamp>,
}

impl StepTimes {
    /// Seconds without those in which a person was waited for.
    pub fn worked(&self, now: Timestamp) -> Option<f64> {
        let open = self.asked_at.map_or(0.0, |asked| now.duration_since(asked).as_secs_f64().max(0.0));
        Some((self.seconds(now)? - self.person_seconds - open).max(0.0))
    }

    /// Seconds from the first start to the end, or to `now`.
    pub fn seconds(&self, now: Timestamp) -> Option<f64> {
        let began = self.started_at?;
        Some(self.ended_at.unwrap_or(now).duration_since(began).as_secs_f64().max(0.0))
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct BySource {
    write_ms: u64,
    read_ms: u64,
    reboot_ms: u64,
    paused_ms: u64,
}

/// See the top of the file.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub counts: Counts,
    pub held_ms: u64,
    pub statements: Vec<Statement>,
    pub schema_changes: Vec<String>,
    pub steps: BTreeMap<StepId, StepTimes>,
    /// Monitors whose alarm stands.
    pub alarms: BTreeSet<MonitorId>,
    /// What the run goes (or went) back for: the newest failure, alarm or wish of a person that was not got over.
    pub cause: Option<String>,
    /// How the switchover went, moment by moment.
    pub course: Course,
    pub sessions: Vec<SessionEnd>,
    pub gaps: Vec<Gap>,
    pub ddl: Vec<SchemaChange>,
    by_source: BTreeMap<String, BySource>,
}

impl Tally {
    /// Takes in the next fact.
    pub fn apply(&mut self, entry: &Entry<Upgrade>) {
        match &entry.fact {
            Fact::StepStarted { step, .. } => {
                let times = self.steps.entry(*step).or_default();
                times.started_at.get_or_insert(entry.at);
                times.ended_at = None;
            }
            Fact::StepDone { step, .. } | Fact::StepSkipped { step, .. } => {
                self.cause = None;
                let times = self.steps.entry(*step).or_default();
                times.started_at.get_or_insert(entry.at);
                times.ended_at = Some(entry.at);
            }
            Fact::ApprovalAsked { step, .. } => {
                let times = self.steps.entry(*step).or_default();
                // Before its start it takes no time of the step.
                times.asked_at = times.started_at.and(Some(entry.at));
            }
            Fact::Asked { request: Request::Approve { .. }, .. } => self.answered(entry.at),
            Fact::Warned { step: None, code, detail } if *code == SCHEMA_CHANGED => self.ddl(entry.at, detail),
            Fact::UndoDone { step } => self.steps.entry(*step).or_default().ended_at = Some(entry.at),
            Fact::StepFailed { failure, .. } => {
                self.cause = Some(format!("{failure} ({})", failure.code));
            }
            Fact::Asked { by, request: Request::Abort, .. } => self.cause = Some(format!("{by} asked to abort")),
            Fact::AlarmRaised { monitor, alarm } => {
                self.alarms.insert(*monitor);
                if let Alarm::Unwind(why) = alarm {
                    self.cause = Some(why.to_string());
                }
            }
            Fact::AlarmCleared { monitor } => {
                self.alarms.remove(monitor);
            }
            Fact::Observed { source, event, .. } => self.observe(source.as_str(), event),
            _ => {}
        }
    }

    fn answered(&mut self, at: Timestamp) {
        for times in self.steps.values_mut() {
            let waited = times.asked_at.take().map(|asked| at.duration_since(asked).as_secs_f64());
            times.person_seconds += waited.unwrap_or_default().max(0.0);
        }
    }

    /// As the monitor warns of it: a statement of the server's log.
    fn ddl(&mut self, seen_at: Timestamp, detail: &str) {
        let change = match Ddl::of_warning(detail) {
            Some(ddl) => SchemaChange {
                at: ddl.at.unwrap_or(seen_at),
                harm: Some(ddl.harm()),
                what: ddl.statement,
                user: Some(ddl.user),
                database: Some(ddl.database),
                client: Some(ddl.client),
            },
            None => SchemaChange::of_difference(seen_at, detail),
        };
        named(&mut self.ddl, change);
    }

    fn gap(&mut self, source: &str, from: Timestamp, ms: u64, kind: &str, sides: (Option<Side>, Option<Side>)) {
        let reboot = self.rebooting(from);
        let (kind, agent, (before, after)) = (kind.to_owned(), source.to_owned(), sides);
        named(&mut self.gaps, Gap { kind, from, ms, agent, before, after, reboot });
    }

    /// Sessions and gaps by name.
    fn name(&mut self, source: &str, event: &Event) {
        match event {
            Event::SessionPurged { at, session, waited_on } => {
                let why = waited_on.as_ref().map(|slot| format!("it held up {slot}"));
                named(&mut self.sessions, SessionEnd::of("purged", source, *at, session, why, None));
            }
            Event::SessionEnded { at, session, recorded, not_resubmittable } => {
                let why = not_resubmittable.clone();
                named(&mut self.sessions, SessionEnd::of("ended", source, *at, session, why, recorded.clone()));
            }
            Event::PurgeBlocked { at, what, reason } => {
                named(&mut self.sessions, SessionEnd::kept(source, *at, what, reason))
            }
            Event::Outage { from, ms, kind, before, after, .. } => {
                let kind = if *kind == OutageKind::Write { "write" } else { "read" };
                self.gap(source, *from, *ms, kind, (*before, *after));
            }
            Event::Held { at, ms, kind } => {
                let from = at.saturating_sub(std::time::Duration::from_millis(*ms)).unwrap_or(*at);
                let kind = if *kind == HoldKind::Gate { "held" } else { "ingestion" };
                self.gap(source, from, *ms, kind, (None, None));
            }
            Event::SchemaChanged { at, differences } => {
                differences.iter().for_each(|what| named(&mut self.ddl, SchemaChange::of_difference(*at, what)));
            }
            _ => {}
        }
    }

    fn observe(&mut self, source: &str, event: &Event) {
        self.course.observe(source, event);
        self.name(source, event);
        match event {
            Event::SessionPurged { .. } => self.counts.purged += 1,
            Event::SessionEnded { .. } => self.counts.ended += 1,
            Event::Resubmission { key, database, role, verdict, .. } => {
                match verdict {
                    Verdict::Resubmitted => self.counts.resubmitted += 1,
                    Verdict::AlreadyDone | Verdict::CommittedOnBlue => {}
                    Verdict::Refused { .. } | Verdict::Unknown { .. } => self.counts.not_resubmitted += 1,
                }
                if self.statements.len() < NAMED_MAX {
                    let (key, database, role) = (key.clone(), database.clone(), role.clone());
                    self.statements.push(Statement { key, database, role, verdict: verdict.clone() });
                }
            }
            Event::Outage { from, ms, kind, .. } => self.outage(source, *from, *ms, *kind),
            Event::SchemaChanged { differences, .. } => {
                self.counts.schema_changes += 1;
                let room = NAMED_MAX.saturating_sub(self.schema_changes.len());
                self.schema_changes.extend(differences.iter().take(room).cloned());
            }
            Event::Held { ms, kind: HoldKind::Gate, .. } => self.held_ms = self.held_ms.max(*ms),
            Event::Held { ms, kind: HoldKind::Ingestion, .. } => self.source(source).paused_ms += ms,
            Event::PurgeBlocked { .. }
            | Event::OldSideClient { .. }
            | Event::OldSideWritten { .. }
            | Event::PauseCap { .. }
            | Event::Stance { .. }
            | Event::SwitchoverPhase { .. }
            | Event::GreenAcceptedWrite { .. } => {}
        }
    }

    fn outage(&mut self, source: &str, from: Timestamp, ms: u64, kind: OutageKind) {
        let rebooting = self.rebooting(from);
        let seen = self.source(source);
        match kind {
            OutageKind::Write if rebooting => seen.reboot_ms += ms,
            OutageKind::Write => seen.write_ms += ms,
            OutageKind::Read if rebooting => {}
            OutageKind::Read => seen.read_ms += ms,
        }
    }

    fn rebooting(&self, at: Timestamp) -> bool {
        self.steps.get(&REBOOTS_IN).is_none_or(|step| step.ended_at.is_none_or(|ended| at < ended))
    }

    fn source(&mut self, source: &str) -> &mut BySource {
        self.by_source.entry(source.to_owned()).or_default()
    }

    /// Every agent sees the same outage: the one who saw most of it counts.
    pub fn downtime(&self) -> Downtime {
        let most = |of: fn(&BySource) -> u64| self.by_source.values().map(of).max().unwrap_or_default();
        Downtime {
            write_unavailable_ms: most(|seen| seen.write_ms),
            read_unavailable_ms: most(|seen| seen.read_ms),
            held_ms: self.held_ms,
            ingestion_paused_ms: most(|seen| seen.paused_ms),
            reboot_unavailable_ms: most(|seen| seen.reboot_ms),
        }
    }

    /// Adds time that a step spent in a named wait.
    pub fn add_wait(&mut self, step: StepId, what: &str, seconds: f64) {
        *self.steps.entry(step).or_default().waits.entry(what.to_owned()).or_default() += seconds;
    }
}

/// Bounded: the first of them are kept.
fn named<T>(list: &mut Vec<T>, one: T) {
    if list.len() < NAMED_MAX {
        list.push(one);
    }
}

impl SessionEnd {
    fn of(
        what: &str,
        agent: &str,
        at: Timestamp,
        session: &Session,
        why: Option<String>,
        key: Option<String>,
    ) -> SessionEnd {
        SessionEnd {
            at,
            what: what.to_owned(),
            agent: agent.to_owned(),
            pid: Some(session.pid),
            user: session.user.clone(),
            database: session.database.clone(),
            application: session.application.clone(),
            state: session.state.clone(),
            command: session.command.clone(),
            age_ms: session.age_ms,
            why,
            key,
        }
    }

    fn kept(agent: &str, at: Timestamp, what: &str, reason: &str) -> SessionEnd {
        SessionEnd {
            at,
            what: "kept".to_owned(),
            agent: agent.to_owned(),
            pid: None,
            user: None,
            database: None,
            application: String::new(),
            state: what.to_owned(),
            command: None,
            age_ms: 0,
            why: Some(reason.to_owned()),
            key: None,
        }
    }
}

impl SchemaChange {
    fn of_difference(at: Timestamp, what: &str) -> SchemaChange {
        SchemaChange { at, what: what.to_owned(), user: None, database: None, client: None, harm: None }
    }
}

#[cfg(test)]
mod tests {
    use engine::{Code, Epoch, Failure, Seq, Source};

    use super::*;

    fn tally(facts: Vec<(i64, Fact<Upgrade>)>) -> Tally {
        let mut tally = Tally::default();
        for (n, (second, fact)) in facts.into_iter().enumerate() {
            let at = Timestamp::from_second(second).unwrap();
            tally.apply(&Entry { seq: Seq(n as u64), epoch: Epoch(1), at, fact });
        }
        tally
    }

    fn outage(agent: &str, n: u64, from: i64, ms: u64) -> Fact<Upgrade> {
        let (from, to) = (Timestamp::from_second(from).unwrap(), Timestamp::from_second(from + 1).unwrap());
        let event = Event::Outage { from, to, ms, kind: OutageKind::Write, before: None, after: None };
        Fact::Observed { source: Source::from(agent), n, event }
    }

    #[test]
    fn the_cause_of_an_unwinding_outlives_it_and_a_failure_that_was_got_over_does_not() {
        let step = REBOOTS_IN;
        let failed =
            |what: &str| Fact::StepFailed { step, attempt: 1, failure: Failure::transient(Code("PU0302"), what) };
        let got_over = tally(vec![(0, failed("once")), (1, Fact::StepDone { step, output: serde_json::Value::Null })]);
        assert_eq!(got_over.cause, None);
        let stuck = Fact::Stuck { step, failure: Failure::permanent(Code("PU0323"), "a slot is left") };
        let undoing = Fact::UndoStarted { step };
        let back = vec![(0, failed("for good")), (1, undoing), (2, stuck), (3, Fact::UndoDone { step })];
        assert_eq!(tally(back).cause.as_deref(), Some("for good (PU0302)"));
    }

    #[test]
    fn one_outage_seen_by_two_agents_counts_once_and_the_reboots_is_told_apart() {
        let step = REBOOTS_IN;
        let tally = tally(vec![
            (0, Fact::StepStarted { step, attempt: 1 }),
            (6, outage("a", 1, 5, 900)),
            (10, Fact::StepDone { step, output: serde_json::Value::Null }),
            (20, outage("a", 2, 19, 80)),
            (20, outage("b", 1, 19, 60)),
        ]);
        let downtime = tally.downtime();
        assert_eq!((downtime.reboot_unavailable_ms, downtime.write_unavailable_ms), (900, 80));
        assert_eq!(tally.steps[&step].seconds(Timestamp::from_second(99).unwrap()), Some(10.0));
    }
}
