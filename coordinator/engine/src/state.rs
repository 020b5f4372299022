//! The fold: what is so after a list of facts. Pure; it refuses a fact that cannot follow what came before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::fact::{Alarm, Outcome};
use crate::failure::{Failure, codes};
use crate::ids::{AskId, Code, MonitorId, Source, StepId};
use crate::journal::Seq;
use crate::plan::StepOrder;
use crate::step::{Domain, Why};

/// A run as its facts tell it.
#[derive(Clone, Debug)]
pub struct State<D: Domain> {
    pub(crate) next: Seq,
    pub(crate) spec: Option<Arc<D::Spec>>,
    /// The spec with every wish of a person since.
    pub(crate) in_force: Option<Arc<D::Spec>>,
    /// What was in force when the newest attempt of a step began.
    pub(crate) of_attempt: Option<Arc<D::Spec>>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) steps: Vec<StepState>,
    pub(crate) mode: Mode,
    pub(crate) round: u32,
    pub(crate) pivot: Pivot<D::Witness>,
    pub(crate) pivot_step: Option<StepId>,
    /// A cause to go back that has not been acted on yet.
    pub(crate) cause: Option<Cause>,
    pub(crate) paused: bool,
    pub(crate) postponed_until: Option<Timestamp>,
    pub(crate) gave_up: bool,
    pub(crate) approved: BTreeSet<String>,
    pub(crate) tuned: BTreeMap<String, Value>,
    pub(crate) alarms: Alarms,
    pub(crate) acknowledged: BTreeSet<MonitorId>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) observed: BTreeMap<Source, u64>,
    pub(crate) asks: BTreeSet<AskId>,
}

/// Where the run is going.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Mode {
    /// On.
    Forward,
    /// Back, back to and including `from`; then on again.
    Restarting { from: StepId, why: Why },
    /// Back to where it began.
    Unwinding { why: Why },
    /// Nowhere: it has ended.
    Finished { outcome: Outcome },
}

/// Why to go back, and whether a restart would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) why: Why,
    pub(crate) restartable: bool,
}

/// Where the pivot stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pivot<W> {
    /// Not armed now.
    Untouched,
    /// It may be happening: only looking is allowed.
    Armed,
    /// It happened; nothing is ever undone.
    Happened(W),
}

/// A step as the facts tell it.
#[derive(Clone, Debug, Serialize)]
pub struct StepState {
    /// Which.
    pub id: StepId,
    /// How it stands.
    pub status: Status,
    /// The attempt last started; 0 for none.
    pub attempt: u32,
    /// Failures in a row that count against the retry budget.
    pub failures: u32,
    /// Looks at the armed pivot that failed in a row; they count against no budget.
    pub look_failures: u32,
    /// When it was first started since it was last undone.
    pub started_at: Option<Timestamp>,
    /// When it was done, skipped, or undone.
    pub ended_at: Option<Timestamp>,
    /// When it last failed.
    pub failed_at: Option<Timestamp>,
    /// The failure that has not been got over yet.
    pub failure: Option<Failure>,
    /// What it handed over.
    pub output: Option<Value>,
    /// Why it was skipped.
    pub skipped: Option<String>,
    /// What a person is asked to approve (name, why), answered or not.
    pub approval: Option<(String, String)>,
    /// Whether it was started and not undone since.
    pub touched: bool,
    pub(crate) effects: BTreeMap<String, Effect>,
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not started, or to be tried again.
    Pending,
    /// Started and not ended; also after a crash.
    Running,
    /// The attempt has failed; see the failure's class for what follows.
    Failed,
    /// Done and verified.
    Done,
    /// There was nothing to do.
    Skipped,
    /// Its undo has begun.
    Undoing,
    /// Its undo is done.
    Undone,
    /// Its undo needs a person.
    Stuck,
}

/// An effect as the facts tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// What was there before the first attempt's change: what undo restores.
    pub first_before: Value,
    /// What was there before the last attempt's change.
    pub before: Value,
    /// The attempt that planned it last.
    pub attempt: u32,
    /// What the last attempt's change returned, once known.
    pub output: Option<Value>,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// When.
    pub at: Timestamp,
    /// Where, if it came from a step.
    pub step: Option<StepId>,
    /// Names the runbook page.
    pub code: Code,
    /// One sentence.
    pub detail: String,
}

/// The monitors' alarms that stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Alarms(pub(crate) BTreeMap<MonitorId, Alarm>);

/// A fact that cannot follow what came before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fact {seq} ({kind}) cannot follow: {reason}")]
pub struct IllegalFact {
    /// Its place.
    pub seq: u64,
    /// Its kind.
    pub kind: &'static str,
    /// Why not.
    pub reason: String,
}

impl Alarms {
    /// All that stand.
    pub fn iter(&self) -> impl Iterator<Item = (MonitorId, &Alarm)> {
        self.0.iter().map(|(id, alarm)| (*id, alarm))
    }

    /// The alarm of one monitor.
    pub fn of(&self, monitor: MonitorId) -> Option<&Alarm> {
        self.0.get(&monitor)
    }

    /// The first reason not to arm the pivot.
    pub fn holding(&self) -> Option<&Why> {
        self.0.values().find(|alarm| !matches!(alarm, Alarm::Note(_))).map(Alarm::why)
    }
}

impl StepState {
    pub(crate) fn new(id: StepId) -> StepState {
        StepState {
            id,
            status: Status::Pending,
            attempt: 0,
            failures: 0,
            look_failures: 0,
            started_at: None,
            ended_at: None,
            failed_at: None,
            failure: None,
            output: None,
            skipped: None,
            approval: None,
            touched: false,
            effects: BTreeMap::new(),
        }
    }

    /// One effect by key.
    pub fn effect(&self, key: &str) -> Option<&Effect> {
        self.effects.get(key)
    }

    /// All effects since the step was last undone.
    pub fn effects(&self) -> impl Iterator<Item = (&str, &Effect)> {
        self.effects.iter().map(|(key, effect)| (key.as_str(), effect))
    }

    /// Whether the run may pass it.
    pub fn passed(&self) -> bool {
        matches!(self.status, Status::Done | Status::Skipped)
    }
}

impl<D: Domain> State<D> {
    /// Before the first fact.
    pub fn empty() -> State<D> {
        State {
            next: Seq(0),
            spec: None,
            in_force: None,
            of_attempt: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            steps: Vec::new(),
            mode: Mode::Forward,
            round: 1,
            pivot: Pivot::Untouched,
            pivot_step: None,
            cause: None,
            paused: false,
            postponed_until: None,
            gave_up: false,
            approved: BTreeSet::new(),
            tuned: BTreeMap::new(),
            alarms: Alarms::default(),
            acknowledged: BTreeSet::new(),
            warnings: Vec::new(),
            observed: BTreeMap::new(),
            asks: BTreeSet::new(),
        }
    }

    /// The place of the next fact.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// What was asked for; `None` only before the first fact.
    pub fn spec(&self) -> Option<&Arc<D::Spec>> {
        self.spec.as_ref()
    }

    /// What was asked for, with every setting that a person has changed since.
    pub fn in_force(&self) -> Option<&Arc<D::Spec>> {
        self.in_force.as_ref()
    }

    /// What was in force when the newest attempt of a step began: the same for the whole attempt, also after a resume.
    pub fn of_attempt(&self) -> Option<&Arc<D::Spec>> {
        self.of_attempt.as_ref().or(self.in_force.as_ref())
    }

    /// When the run was created.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When the last fact was appended.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// The steps in the plan's order.
    pub fn steps(&self) -> &[StepState] {
        &self.steps
    }

    /// The order of steps that the run was created with.
    pub fn order(&self) -> StepOrder {
        StepOrder { steps: self.steps.iter().map(|step| step.id).collect(), pivot: self.pivot_step }
    }

    /// One step.
    pub fn step(&self, id: StepId) -> Option<&StepState> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The first step that is not passed: where a run that goes forward is.
    pub fn current(&self) -> Option<&StepState> {
        self.steps.iter().find(|step| !step.passed())
    }

    /// What a step handed over, if it is done.
    pub fn output(&self, id: StepId) -> Option<&Value> {
        self.step(id)?.output.as_ref()
    }

    /// Where the run is going.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.mode {
            Mode::Finished { outcome } => Some(outcome),
            _ => None,
        }
    }

    /// How often the run has begun at the plan's restart step, from 1.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Where the pivot stands.
    pub fn pivot(&self) -> &Pivot<D::Witness> {
        &self.pivot
    }

    /// Whether the pivot may be happening now.
    pub fn armed(&self) -> bool {
        matches!(self.pivot, Pivot::Armed)
    }

    /// Would an abort have an effect? Not while a run is at work that has passed the point of no return.
    pub fn may_abort(&self) -> bool {
        // Between two steps it is at work as well.
        let goes_on = |step: &StepState| matches!(step.status, Status::Running | Status::Pending);
        let at_work = self.current().is_some_and(|step| goes_on(step) && step.failure.is_none());
        !self.committed() || !at_work || self.paused || self.open_approvals().next().is_some()
    }

    /// Whether the point of no return is behind.
    pub fn committed(&self) -> bool {
        matches!(self.pivot, Pivot::Happened(_))
    }

    /// Whether undo may act: neither armed nor past the point of no return.
    pub fn reversible(&self) -> bool {
        matches!(self.pivot, Pivot::Untouched)
    }

    /// Whether a person has paused the run.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// Whether a person has approved `name`.
    pub fn approved(&self, name: &str) -> bool {
        self.approved.contains(name)
    }

    /// The approvals asked for and not given (step, name, why).
    pub fn open_approvals(&self) -> impl Iterator<Item = (StepId, &str, &str)> {
        let asked = self.steps.iter().filter_map(|step| step.approval.as_ref().map(|(name, why)| (step.id, name, why)));
        asked.filter(|(_, name, _)| !self.approved(name)).map(|(step, name, why)| (step, name.as_str(), why.as_str()))
    }

    /// The value a person gave to a named setting.
    pub fn tuned(&self, key: &str) -> Option<&Value> {
        self.tuned.get(key)
    }

    /// Every named setting that a person has given a value.
    pub fn all_tuned(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.tuned.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The alarms that stand.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// The last warnings, at most 200, oldest first.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.warnings.iter()
    }

    /// The highest number observed of a source; 0 for none.
    pub fn observed(&self, source: &Source) -> u64 {
        self.observed.get(source).copied().unwrap_or_default()
    }

    /// Whether this request is in the journal already.
    pub fn has_asked(&self, ask: &AskId) -> bool {
        self.asks.contains(ask)
    }

    /// Why a step that is at work should come back, if it should. Nothing interrupts an armed pivot, nor the pivot's
    /// own work after it has happened.
    pub fn interruption(&self, step: StepId) -> Option<Why> {
        if self.armed() || (self.committed() && self.pivot_step == Some(step)) {
            return None;
        }
        match &self.mode {
            Mode::Unwinding { why } | Mode::Restarting { why, .. } => return Some(why.clone()),
            Mode::Finished { outcome } => return Some(Why::new(codes::INTERRUPTED, outcome.as_str())),
            Mode::Forward => {}
        }
        if let Some(cause) = &self.cause {
            return Some(cause.why.clone());
        }
        self.paused.then(|| Why::new(codes::PAUSED, "paused by a person"))
    }

    /// Why the pivot may not begin yet, if a person has postponed it.
    pub fn postponed(&self, now: Timestamp) -> Option<Why> {
        let until = self.postponed_until.filter(|until| now < *until)?;
        let until = if until == Timestamp::MAX { "told otherwise".to_owned() } else { until.to_string() };
        Some(Why::new(codes::POSTPONED, format!("postponed by a person until {until}")))
    }

    /// When the pivot may begin at the earliest, if a person has postponed it.
    pub fn postponed_until(&self) -> Option<Timestamp> {
        self.postponed_until
    }

    /// The last touched step at or after `from`: the next to be undone.
    pub(crate) fn last_touched(&self, from: Option<StepId>) -> Option<&StepState> {
        let first = from.and_then(|from| self.steps.iter().position(|step| step.id == from)).unwrap_or(0);
        self.steps[first.min(self.steps.len())..].iter().rev().find(|step| step.touched)
    }

    /// An alarm to unwind that came after (or survived) the point of no return and was not acknowledged.
    pub(crate) fn unanswered_alarm(&self) -> Option<&Why> {
        let standing = self.alarms.iter().filter(|(id, _)| !self.acknowledged.contains(id));
        standing.map(|(_, alarm)| alarm).find(|alarm| matches!(alarm, Alarm::Unwind(_))).map(Alarm::why)
    }
}
