//! What happened. The journal is a list of these and nothing else.
//!
//! Facts are never changed once released: a field may be added with a default, a kind may be added (and [`FORMAT`]
//! raised), nothing may be renamed or dropped.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::ids::{AskId, Code, MonitorId, Operator, Source, StepId};
use crate::journal::{Epoch, Record, Seq};
use crate::plan::StepOrder;
use crate::step::{Domain, Why};

/// The version of the fact kinds written by this program; raised whenever a kind is added.
pub const FORMAT: u32 = 1;

/// One fact of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", bound = "")]
pub enum Fact<D: Domain> {
    /// Always the first.
    Created { spec: D::Spec, plan: StepOrder },
    /// An attempt begins. Attempts of a step count from 1 and never repeat, also across restarts.
    StepStarted { step: StepId, attempt: u32 },
    /// A change to the world is about to be made; `before` is what undo restores.
    EffectPlanned { step: StepId, attempt: u32, key: String, before: Value },
    /// The change has been made, or was found made.
    EffectDone { step: StepId, attempt: u32, key: String, output: Value },
    /// The step is done and verified.
    StepDone { step: StepId, output: Value },
    /// The step had nothing to do.
    StepSkipped { step: StepId, reason: String },
    /// A check (then `attempt` is that of the last start, 0 for none) or a run has failed.
    StepFailed { step: StepId, attempt: u32, failure: Failure },
    /// A person's approval is needed before the step goes on.
    ApprovalAsked { step: StepId, name: String, why: String },
    /// Worth telling; changes nothing.
    Warned { step: Option<StepId>, code: Code, detail: String },
    /// A monitor's alarm, in place of its earlier one.
    AlarmRaised { monitor: MonitorId, alarm: Alarm },
    /// The monitor's alarm is over.
    AlarmCleared { monitor: MonitorId },
    /// What a source must not lose; `n` rises per source.
    Observed { source: Source, n: u64, event: D::Event },
    /// A person's wish is a fact too.
    Asked { by: Operator, ask: AskId, request: Request<D> },
    /// The pivot may happen from now on; only looking is allowed until it is settled.
    PivotArmed { attempt: u32 },
    /// Proven not to have happened.
    PivotDisarmed { witness: D::Witness },
    /// It happened.
    PointOfNoReturn { witness: D::Witness },
    /// The steps from the last started one back to `from` are undone, then the run starts again there.
    RestartBegun { from: StepId, round: u32, why: Why },
    /// The undo of a step begins.
    UndoStarted { step: StepId },
    /// The undo of a step is done.
    UndoDone { step: StepId },
    /// The undo of a step cannot go on; a person must look.
    Stuck { step: StepId, failure: Failure },
    /// Always the last.
    Finished { outcome: Outcome },
}

/// A person's request, as it stands in the journal's inbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", bound = "")]
pub enum Request<D: Domain> {
    /// Approves what was asked for under `name`; `None` approves all that is open now.
    Approve { name: Option<String> },
    /// No new work at the next look. Not while armed, and not while unwinding.
    Pause,
    /// Ends a pause; tries again what stopped for a person; acknowledges alarms after the point of no return.
    Resume,
    /// Unwinds. After the point of no return, or when an undo is stuck: gives up, if the run waits for a person.
    Abort,
    /// The pivot does not begin before `until`; the end of time is until told, the past ends a postponement.
    Postpone { until: Timestamp },
    /// Changes named settings of the spec together ([`Domain::tune`]).
    Tune { settings: BTreeMap<String, Value> },
    /// The domain's own.
    Other { ask: D::Ask },
}

/// What a monitor found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "level", content = "why", rename_all = "snake_case")]
pub enum Alarm {
    /// To be seen; changes nothing.
    Note(Why),
    /// The pivot cannot be armed while it stands.
    Hold(Why),
    /// Unwind. While armed it waits for the outcome; after the point of no return it asks a person.
    Unwind(Why),
}

impl Alarm {
    /// The reason.
    pub fn why(&self) -> &Why {
        match self {
            Alarm::Note(why) | Alarm::Hold(why) | Alarm::Unwind(why) => why,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step is done.
    Succeeded,
    /// Every step that was started is undone.
    Unwound,
    /// Nothing was touched.
    Refused,
    /// A person gave up where the engine could go neither on nor back.
    Stopped,
}

impl Outcome {
    /// As in the journal and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Succeeded => "succeeded",
            Outcome::Unwound => "unwound",
            Outcome::Refused => "refused",
            Outcome::Stopped => "stopped",
        }
    }
}

/// A fact with its place in the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Entry<D: Domain> {
    /// Counts from 0, without gaps.
    pub seq: Seq,
    /// Whose it is.
    pub epoch: Epoch,
    /// When it was appended, by the driver's clock.
    pub at: Timestamp,
    /// What happened.
    pub fact: Fact<D>,
}

/// A record that is not a fact for this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer program.
    #[error(
        "fact {seq} is of kind {kind:?}, which this program does not know: it was written in journal format {written}, \
         this program reads up to {FORMAT}; run a version that reads format {written}"
    )]
    UnknownKind { seq: u64, kind: String, written: u32 },
    /// Known kind, wrong shape.
    #[error("fact {seq} of kind {kind:?} cannot be read")]
    Malformed { seq: u64, kind: String, reason: String },
}

const KINDS: &[&str] = &[
    "created",
    "step_started",
    "effect_planned",
    "effect_done",
    "step_done",
    "step_skipped",
    "step_failed",
    "approval_asked",
    "warned",
    "alarm_raised",
    "alarm_cleared",
    "observed",
    "asked",
    "pivot_armed",
    "pivot_disarmed",
    "point_of_no_return",
    "restart_begun",
    "undo_started",
    "undo_done",
    "stuck",
    "finished",
];

impl<D: Domain> Fact<D> {
    /// As it is stored: a JSON object with `kind` and `format`.
    ///
    /// # Errors
    /// Only if a payload of the domain cannot be written as JSON.
    pub fn encode(&self) -> Result<Value, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        if let Value::Object(fields) = &mut value {
            fields.insert("format".to_owned(), FORMAT.into());
        }
        Ok(value)
    }

    /// The kind as stored, for logs, metrics and watchers.
    pub fn kind(&self) -> &'static str {
        match self {
            Fact::Created { .. } => "created",
            Fact::StepStarted { .. } => "step_started",
            Fact::EffectPlanned { .. } => "effect_planned",
            Fact::EffectDone { .. } => "effect_done",
            Fact::StepDone { .. } => "step_done",
            Fact::StepSkipped { .. } => "step_skipped",
            Fact::StepFailed { .. } => "step_failed",
            Fact::ApprovalAsked { .. } => "approval_asked",
            Fact::Warned { .. } => "warned",
            Fact::AlarmRaised { .. } => "alarm_raised",
            Fact::AlarmCleared { .. } => "alarm_cleared",
            Fact::Observed { .. } => "observed",
            Fact::Asked { .. } => "asked",
            Fact::PivotArmed { .. } => "pivot_armed",
            Fact::PivotDisarmed { .. } => "pivot_disarmed",
            Fact::PointOfNoReturn { .. } => "point_of_no_return",
            Fact::RestartBegun { .. } => "restart_begun",
            Fact::UndoStarted { .. } => "undo_started",
            Fact::UndoDone { .. } => "undo_done",
            Fact::Stuck { .. } => "stuck",
            Fact::Finished { .. } => "finished",
        }
    }
}

impl<D: Domain> Entry<D> {
    /// Reads a stored record.
    ///
    /// # Errors
    /// A kind this program does not know, or a known one in a shape it cannot read.
    pub fn decode(record: &Record) -> Result<Entry<D>, DecodeError> {
        let kind = record.fact.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !KINDS.contains(&kind) {
            let written = record.fact.get("format").and_then(Value::as_u64).unwrap_or_default();
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            return Err(DecodeError::UnknownKind { seq: record.seq.0, kind: kind.to_owned(), written });
        }
        let fact = Fact::deserialize(&record.fact).map_err(|error| DecodeError::Malformed {
            seq: record.seq.0,
            kind: kind.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Entry { seq: record.seq, epoch: record.epoch, at: record.at, fact })
    }
}
