//! The next move: a pure function of the plan, the fold and the time.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;

use crate::fact::Outcome;
use crate::failure::{FailureClass, codes};
use crate::ids::StepId;
use crate::plan::{PlanShape, Retry, StepShape};
use crate::state::{Mode, Pivot, State, Status, StepState};
use crate::step::{Domain, Reversal, Why};

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Ask the step's gate; if it opens, start a new attempt.
    Check(StepId),
    /// Continue the attempt that was started (after a resume the gate is asked again first).
    Run(StepId),
    /// The pivot is armed: run it to look, and for nothing else.
    Look,
    /// Begin or continue the undo of the step.
    Undo(StepId),
    /// Undo back to and including `from`, then start again there.
    Restart { from: StepId, why: Why },
    /// Nothing before `until`, unless the fold changes.
    Wait { until: Timestamp, why: Why },
    /// Nothing until a person has answered.
    AskOperator(Why),
    /// End.
    Finish(Outcome),
}

/// The next move. Never proposes what the fold would refuse.
pub fn decide<D: Domain>(plan: &PlanShape, state: &State<D>, now: Timestamp) -> Move {
    if let Some(outcome) = state.outcome() {
        return Move::Finish(outcome);
    }
    if state.armed() {
        return armed(plan, state, now);
    }
    if state.gave_up {
        return Move::Finish(Outcome::Stopped);
    }
    match &state.mode {
        Mode::Restarting { from, .. } => back(state, Some(*from)),
        Mode::Unwinding { .. } => back(state, None),
        Mode::Forward | Mode::Finished { .. } => forward(plan, state, now),
    }
}

fn armed<D: Domain>(plan: &PlanShape, state: &State<D>, now: Timestamp) -> Move {
    let step = state.pivot_step.and_then(|id| Some((state.step(id)?, shape(plan, id)?)));
    let Some((step, shape)) = step else { return Move::Look };
    match after_failure(state, step, shape.retry, now) {
        After::Wait(until, why) => Move::Wait { until, why },
        After::Person(why) => Move::AskOperator(why),
        // Looking has no budget: it goes on until the outcome is read.
        After::Now | After::Spent(_) => Move::Look,
    }
}

fn back<D: Domain>(state: &State<D>, from: Option<StepId>) -> Move {
    match state.last_touched(from) {
        None => Move::Finish(Outcome::Unwound),
        Some(step) if step.status == Status::Stuck => Move::AskOperator(why_of(step)),
        Some(step) => Move::Undo(step.id),
    }
}

fn forward<D: Domain>(plan: &PlanShape, state: &State<D>, now: Timestamp) -> Move {
    if let Some(cause) = state.cause.as_ref().filter(|_| state.reversible()) {
        return turn_round(plan, state, &cause.why, cause.restartable);
    }
    let Some(step) = state.current() else { return Move::Finish(Outcome::Succeeded) };
    let Some(shape) = shape(plan, step.id) else {
        return Move::AskOperator(Why::new(codes::JOURNAL_SHAPE, format!("step {} is not in this plan", step.id)));
    };
    let past_pivot_work = matches!(state.pivot, Pivot::Happened(_)) && state.pivot_step == Some(step.id);
    if state.paused && !past_pivot_work {
        return Move::AskOperator(Why::new(codes::PAUSED, "paused by a person"));
    }
    if let Some((name, why)) = step.approval.as_ref().filter(|(name, _)| !state.approved(name)) {
        return Move::AskOperator(Why::new(codes::APPROVAL, format!("approval {name} is needed: {why}")));
    }
    if let Some(alarm) = state.unanswered_alarm().filter(|_| state.committed() && step.status != Status::Running) {
        return Move::AskOperator(alarm.clone());
    }
    if shape.reversal == Reversal::Pivot
        && state.reversible()
        && let (Some(why), Some(until)) = (state.postponed(now), state.postponed_until())
    {
        return Move::Wait { until, why };
    }
    let go = if step.status == Status::Running { Move::Run(step.id) } else { Move::Check(step.id) };
    match after_failure(state, step, shape.retry, now) {
        After::Now => go,
        After::Wait(until, why) => Move::Wait { until, why },
        After::Person(why) => Move::AskOperator(why),
        After::Spent(why) if state.committed() => Move::AskOperator(why),
        After::Spent(why) => turn_round(plan, state, &why, true),
    }
}

/// Back: to the restart step if that is behind and the budget lasts, else all the way.
fn turn_round<D: Domain>(plan: &PlanShape, state: &State<D>, why: &Why, restartable: bool) -> Move {
    let refused = state.steps().iter().all(|step| step.attempt == 0);
    if refused && state.current().is_some_and(|step| step.failure.is_some()) {
        return Move::Finish(Outcome::Refused);
    }
    if let Some(restart) = plan.restart.filter(|restart| restartable && state.round() <= restart.restarts_max) {
        let reached = state.current().and_then(|step| plan.index(step.id));
        if reached >= plan.index(restart.from) {
            return Move::Restart { from: restart.from, why: why.clone() };
        }
    }
    back(state, None)
}

enum After {
    Now,
    Wait(Timestamp, Why),
    Person(Why),
    Spent(Why),
}

/// What the step's failure, if it has one, asks for.
fn after_failure<D: Domain>(state: &State<D>, step: &StepState, planned: Retry, now: Timestamp) -> After {
    let Some(failure) = &step.failure else { return After::Now };
    let retry = state.in_force().map_or(planned, |spec| D::retry(spec, step.id, planned));
    match failure.class {
        FailureClass::NeedsOperator => After::Person(why_of(step)),
        FailureClass::Permanent if state.reversible() => After::Spent(why_of(step)),
        FailureClass::Permanent => After::Person(why_of(step)),
        FailureClass::Interrupted => After::Now,
        FailureClass::Transient | FailureClass::Unknown => {
            if step.failures > retry.retries_max && !state.armed() {
                let spent = format!("gave up after {} attempts: {failure}", step.failures);
                return After::Spent(Why::new(failure.code, spent));
            }
            let failed_at = step.failed_at.unwrap_or(now);
            let due = failed_at.saturating_add(backoff(retry, state, step)).unwrap_or(Timestamp::MAX);
            if now < due {
                After::Wait(due, Why::new(codes::BACKOFF, format!("tries again: {failure}")))
            } else {
                After::Now
            }
        }
    }
}

/// Doubles with every failure up to the longest; up to a fifth is taken off, by a hash, so that runs spread.
fn backoff<D: Domain>(retry: Retry, state: &State<D>, step: &StepState) -> Duration {
    let failures = if state.armed() { step.look_failures } else { step.failures };
    let doubled = retry.delay_min.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let full = doubled.min(retry.delay_max);
    let mut hasher = DefaultHasher::new();
    (state.created_at().as_nanosecond(), step.id, failures).hash(&mut hasher);
    full - full / 5 * u32::try_from(hasher.finish() % 1000).unwrap_or(0) / 1000
}

fn why_of(step: &StepState) -> Why {
    match &step.failure {
        Some(failure) => Why::new(failure.code, failure),
        None => Why::new(codes::INTERRUPTED, format!("step {} waits", step.id)),
    }
}

fn shape(plan: &PlanShape, id: StepId) -> Option<&StepShape> {
    plan.steps.iter().find(|step| step.id == id)
}
