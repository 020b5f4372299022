//! Step 5, the pivot: checks everything AWS could refuse, holds, ends what blocks, proves the last marker, arms, makes the one
//! call and looks until the outcome is read. One attempt is one run; a miss before the call releases and is tried again.

mod gate;
mod hold;
mod outcome;
#[cfg(test)]
mod tests;

use std::time::Duration;

use engine::{Failure, FailureClass, Gate, Pivot, Reversal, Step, StepId};
use proto::{
    intent::{GateWish, IngestionWish, Targets, WatchWish},
    jobs::{Resubmit, StatementVerdict},
    report::Verdict,
    side::Side,
};
use serde::{Deserialize, Serialize};

use super::{
    codes,
    lag::Lag,
    prerequisites::SHORT_JOB,
    provisioning::replicating_wish,
    shared::{Context, SETTLE, fresh_job, ids, publish, recorded_cluster},
    sides::Sides,
};
use crate::{
    link::Wish,
    rds::Class,
    spec::{PauseFor, UpgradeSpec},
    world::{Upgrade, Witness},
};

pub use hold::Held;

pub struct Switchover;

/// The cut, as it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Switched {
    pub witness: Witness,
    pub held: Option<Held>,
    pub lag: Option<Lag>,
}

impl Step<Upgrade> for Switchover {
    const ID: StepId = ids::SWITCHOVER;
    const TITLE: &'static str = "Switchover";
    const REVERSAL: Reversal = Reversal::Pivot;
    type Output = Switched;

    async fn check(&self, cx: &Context<'_>) -> Result<Gate, Failure> {
        let sides = Sides::of(cx)?;
        recorded_cluster(cx, &sides.prepared.blue).await?;
        recorded_cluster(cx, &sides.provisioned.green).await?;
        if cx.spec().switchover.approve && !cx.approved("switchover") {
            let why = "production moves to green; writes stop for a moment and nothing is undone after it".to_owned();
            return Ok(Gate::Approval { name: "switchover", why });
        }
        if let Some(why) = cx.alarms().holding() {
            return Ok(Gate::Wait { reason: why.to_string(), retry_after: Duration::from_secs(1) });
        }
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Context<'_>) -> Result<Switched, Failure> {
        let sides = Sides::of(cx)?;
        let mut done = Switched { witness: Witness::default(), held: None, lag: None };
        let call = match cx.pivot() {
            Pivot::Happened(witness) => {
                release(cx, &sides).await?;
                return Ok(Switched { witness, ..done });
            }
            // The process was lost while armed: whether the call was made is not known.
            Pivot::Armed => outcome::Call::NotKnown,
            Pivot::Untouched => {
                let lag = gate::before_the_hold(cx, &sides).await?;
                let held = match prepare(cx, &sides).await {
                    Ok(held) => held,
                    Err(failure) => return Err(let_go(cx, &sides, failure).await),
                };
                (done.held, done.lag) = (Some(held), Some(lag));
                make_the_call(cx, &sides).await
            }
        };
        match outcome::read(cx, &sides, call).await? {
            outcome::Read::Switched(witness) => {
                release(cx, &sides).await?;
                Ok(Switched { witness, ..done })
            }
            outcome::Read::NotSwitched(failure) => Err(let_go(cx, &sides, failure).await),
        }
    }

    async fn verify(&self, cx: &Context<'_>, _: &Switched) -> Result<(), Failure> {
        match cx.pivot() {
            Pivot::Happened(_) => Ok(()),
            Pivot::Armed | Pivot::Untouched => {
                Err(Failure::unknown(codes::OUTCOME_UNREADABLE, "verifying that the outcome was read"))
            }
        }
    }

    async fn undo(&self, cx: &Context<'_>) -> Result<(), Failure> {
        let sides = Sides::of(cx)?;
        // Ingestion runs from here on: a pause that has reached its cap would be refused, however often it were wished again.
        publish(cx, Wish::calm(sides.targets(Side::Blue)), SETTLE).await?;
        // An abort interrupts the attempt before what it ended has run again.
        match resubmit(cx, Side::Blue).await {
            Err(failure) if matches!(failure.class, FailureClass::Permanent | FailureClass::NeedsOperator) => {
                cx.warn(
                    codes::NOT_RESUBMITTED,
                    format!("what was ended for the cut could not be resubmitted: {failure}"),
                );
                Ok(())
            }
            done => done.map(drop),
        }
    }
}

/// Hold, end what blocks, compare what was written, prove the marker, arm: everything up to the one call.
async fn prepare(cx: &Context<'_>, sides: &Sides) -> Result<Held, Failure> {
    let held = hold::everything(cx, sides).await?;
    cx.arm().await?;
    Ok(held)
}

/// The one call. A refusal is an answer; anything else must be looked for.
async fn make_the_call(cx: &Context<'_>, sides: &Sides) -> outcome::Call {
    let timeout = Duration::from_secs(cx.spec().switchover.timeout_seconds.into());
    let at = cx.clock().mono();
    match cx.world().rds.switchover(&sides.provisioned.deployment, timeout).await {
        Ok(_) => outcome::Call::Taken { at },
        Err(error) => match &error.class {
            Class::InvalidState
            | Class::Permanent
            | Class::NotFound
            | Class::AccessDenied { .. }
            | Class::Throttled => outcome::Call::Refused { error },
            Class::Transient | Class::Unknown | Class::AlreadyExists => outcome::Call::NotKnown,
        },
    }
}

/// Green takes writes: the gate opens towards it, by address. Ingestion that the spec pauses for longer stays paused
/// until its extensions are tested.
async fn release(cx: &Context<'_>, sides: &Sides) -> Result<(), Failure> {
    publish(cx, serving_green(cx.spec(), sides.targets(Side::Green)), SETTLE).await
}

/// What holds from the cut until post-switchover is done.
pub(super) fn serving_green(spec: &UpgradeSpec, targets: Targets) -> Wish {
    let ingestion = match spec.ingestion.pause {
        PauseFor::Moments => IngestionWish::Running,
        PauseFor::Replication => IngestionWish::Paused { max_pause_ms: spec.ingestion.max_pause_seconds * 1000 },
    };
    let watch = WatchWish { old_side: true, partitions: true, ..WatchWish::default() };
    Wish { ingestion, purger: None, gate: GateWish::Open, targets, window: Some(hold::window(spec, false)), watch }
}

/// Everything resumes on blue; the failure that led here is what the engine decides on.
async fn let_go(cx: &Context<'_>, sides: &Sides, failure: Failure) -> Failure {
    if matches!(cx.pivot(), Pivot::Armed) {
        return failure;
    }
    let wish = replicating_wish(cx.spec(), sides.targets(Side::Blue));
    let agents = &cx.world().agents;
    let released = match agents.publish(wish).await {
        Ok(generation) => agents.await_settled(generation, SETTLE).await,
        Err(failure) => Err(failure),
    };
    let failure = match released {
        Ok(()) => failure,
        Err(also) => failure.because(format!("and the hold could not be released everywhere: {also}")),
    };
    match resubmit(cx, Side::Blue).await {
        Ok(_) => failure,
        Err(also) => {
            failure.because(format!("and what was ended for the cut could not be resubmitted on blue: {also}"))
        }
    }
}

/// Runs what was ended and recorded for the cut, once each, on the side that serves: green after it, blue when there was none.
pub(super) async fn resubmit(cx: &Context<'_>, side: Side) -> Result<Vec<StatementVerdict>, Failure> {
    let body = Resubmit { proof_wait_ms: 10_000, statement_timeout_ms: 60_000 };
    let done = fresh_job(cx, "resubmit", side, &body, SHORT_JOB).await?;
    for verdict in &done.verdicts {
        let why = match &verdict.verdict {
            Verdict::Resubmitted | Verdict::AlreadyDone | Verdict::CommittedOnBlue => continue,
            Verdict::Refused { reason } => format!("was refused: {reason}"),
            Verdict::Unknown { reason } => format!("is unknown and was not resubmitted: {reason}"),
        };
        let StatementVerdict { key, database, role, .. } = verdict;
        cx.warn(codes::NOT_RESUBMITTED, format!("statement {key} of {role} in {database} {why}"));
    }
    Ok(done.verdicts)
}
