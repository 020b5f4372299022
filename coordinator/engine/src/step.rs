//! What the engine asks of its user: a [`Domain`] and its [`Step`]s. No behaviour here but the erasure of types.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cx::Cx;
use crate::failure::{Failure, codes};
use crate::ids::{Code, StepId};
use crate::plan::Retry;

/// Everything the engine needs to know about what it is used for. Implemented by an empty type.
pub trait Domain: Clone + Debug + Send + Sync + 'static {
    /// What steps and monitors may touch.
    type World: Send + Sync + 'static;
    /// What a person asked for. In the journal; later wishes of a person change what is in force ([`Domain::tune`]).
    type Spec: Payload;
    /// The proof that settled the pivot. In the journal.
    type Witness: Payload;
    /// What a source reports and must not be lost. In the journal.
    type Event: Payload;
    /// Requests of a person beyond the engine's own ([`crate::fact::Request`]). In the journal.
    type Ask: Payload;

    /// Makes waiting harmless, and says so only when it is acknowledged: called before the run waits for a person
    /// and as the first act of unwinding, never while the pivot is armed. Idempotent; may be called often.
    fn calm(cx: &Cx<'_, Self>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Whether others give leave for a step that could begin now: asked after its check has opened, before its attempt is
    /// journaled, and never for an attempt that was started, so that nothing of the step is at work while it takes its time.
    /// Waits by `cx` only, which comes back at once when the run is paused or aborted; asks a person by [`Cx::approval`]; a
    /// permanent failure keeps the step from beginning as a closed gate does. May be asked again for the same attempt, after a
    /// crash or when its answer has grown old.
    fn leave(cx: &Cx<'_, Self>) -> impl Future<Output = Result<(), Failure>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// The spec with named settings changed together; `None` if they cannot be, then nothing changes. Pure: it is part of
    /// the fold.
    fn tune(_spec: &Self::Spec, _settings: &BTreeMap<String, Value>) -> Option<Self::Spec> {
        None
    }

    /// What a step may spend on transient failures, where the spec in force says other than the plan.
    fn retry(_spec: &Self::Spec, _step: StepId, planned: Retry) -> Retry {
        planned
    }
}

/// What can be kept in the journal.
pub trait Payload: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Payload for T {}

/// One step of a run: one file, one line in the plan.
pub trait Step<D: Domain>: Send + Sync + 'static {
    /// Part of the journal; never renamed.
    const ID: StepId;
    /// For people.
    const TITLE: &'static str;
    /// Whether it can be undone.
    const REVERSAL: Reversal;
    /// What it hands over to later steps. In the journal.
    type Output: Serialize + DeserializeOwned + Send + Sync;

    /// May the step begin? Reads only. Called right before `run`, and again after a resume (but
    /// not for a pivot that is armed or has happened).
    fn check(&self, cx: &Cx<'_, D>) -> impl Future<Output = Result<Gate, Failure>> + Send;
    /// Makes it so. May be run again after a crash at any await.
    fn run(&self, cx: &Cx<'_, D>) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
    /// Looks at the world, not at `run`'s word. Fails the step if the world disagrees.
    fn verify(&self, cx: &Cx<'_, D>, out: &Self::Output) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Called for every step that was started; tolerates that nothing, or only part, ever happened.
    fn undo(&self, cx: &Cx<'_, D>) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Whether and how a step can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reversal {
    /// `undo` brings back the world as it was.
    Reversible,
    /// Undone like the rest until [`Cx::settle`] proves the point of no return; the one step that may arm.
    Pivot,
    /// Never undone: retried, then a person is asked.
    ForwardOnly,
}

/// The answer of [`Step::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Go.
    Open,
    /// Ask again after a while.
    Wait {
        /// What is waited for.
        reason: String,
        /// When to check again.
        retry_after: Duration,
    },
    /// A person must approve `name` first; once they have, this gate counts as open.
    Approval {
        /// What `approve` is given.
        name: &'static str,
        /// What the person is asked to accept.
        why: String,
    },
    /// There is nothing to do here; recorded as skipped. Not for the pivot.
    Skip {
        /// Why not.
        reason: String,
    },
    /// It must not begin: before anything was started the run is refused, else it unwinds (or stops for a person).
    Closed {
        /// Why, and what to do.
        reason: String,
    },
}

/// A bounded wait: looks every `every` until `deadline` has passed since the wait began.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Pause between two looks.
    pub every: Duration,
    /// How long in all.
    pub deadline: Duration,
    /// What is waited for; part of the failure when it does not come.
    pub what: &'static str,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// It is there.
    There(T),
    /// Not there; the text is the last status, which a time-out will quote.
    NotYet(String),
}

/// What was read about the armed pivot.
#[derive(Clone, Debug)]
pub enum Settled<W> {
    /// Proven that it did not happen: it unwinds like the rest.
    NotHappened(W),
    /// It happened: nothing before it is ever undone.
    Happened(W),
}

/// A reason with a code, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Names the runbook page.
    pub code: Code,
    /// One sentence.
    pub text: String,
}

impl Why {
    /// A reason.
    pub fn new(code: Code, text: impl std::fmt::Display) -> Why {
        Why { code, text: text.to_string() }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.code)
    }
}

/// What a progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unit(pub &'static str);

impl Unit {
    /// Bytes.
    pub const BYTES: Unit = Unit("bytes");
    /// Whole percents.
    pub const PERCENT: Unit = Unit("percent");
    /// Seconds.
    pub const SECONDS: Unit = Unit("seconds");
    /// Pieces of anything.
    pub const ITEMS: Unit = Unit("items");
}

/// A step whose types are erased, as the plan keeps it.
pub(crate) trait AnyStep<D: Domain>: Send + Sync {
    fn check<'a>(&'a self, cx: &'a Cx<'a, D>) -> BoxFuture<'a, Result<Gate, Failure>>;
    /// `run`, then `verify` of what it returned.
    fn run<'a>(&'a self, cx: &'a Cx<'a, D>) -> BoxFuture<'a, Result<Value, Failure>>;
    fn undo<'a>(&'a self, cx: &'a Cx<'a, D>) -> BoxFuture<'a, Result<(), Failure>>;
}

impl<D: Domain, S: Step<D>> AnyStep<D> for S {
    fn check<'a>(&'a self, cx: &'a Cx<'a, D>) -> BoxFuture<'a, Result<Gate, Failure>> {
        Box::pin(Step::check(self, cx))
    }

    fn run<'a>(&'a self, cx: &'a Cx<'a, D>) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            let output = Step::run(self, cx).await?;
            cx.verifying();
            self.verify(cx, &output).await?;
            serde_json::to_value(&output).map_err(|error| {
                Failure::permanent(codes::JOURNAL_SHAPE, format!("recording the output of {}", S::ID)).caused_by(&error)
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a Cx<'a, D>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(Step::undo(self, cx))
    }
}
