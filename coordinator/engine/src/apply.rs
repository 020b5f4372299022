//! How each fact changes the fold, and which facts are illegal where. The other half of `state.rs`.

use jiff::Timestamp;

use crate::fact::{Alarm, Entry, Fact, Outcome, Request};
use crate::failure::{Failure, FailureClass, codes};
use crate::ids::{AskId, MonitorId, StepId};
use crate::journal::Seq;
use crate::state::{Cause, Effect, IllegalFact, Mode, Pivot, State, Status, StepState, Warning};
use crate::step::{Domain, Why};

const WARNINGS_MAX: usize = 200;

impl<D: Domain> State<D> {
    /// The state after one more fact.
    ///
    /// # Errors
    /// If the fact cannot follow: a mistake of the writer, or a damaged journal.
    pub fn apply(mut self, entry: &Entry<D>) -> Result<State<D>, IllegalFact> {
        let outcome = if entry.seq == self.next {
            self.change(entry.at, &entry.fact)
        } else {
            Err(format!("its place should be {}", self.next))
        };
        outcome.map_err(|reason| IllegalFact { seq: entry.seq.0, kind: entry.fact.kind(), reason })?;
        self.next = Seq(entry.seq.0 + 1);
        self.updated_at = entry.at;
        Ok(self)
    }

    fn change(&mut self, at: Timestamp, fact: &Fact<D>) -> Result<(), String> {
        if let Fact::Created { spec, plan } = fact {
            need(self.spec.is_none(), "the run is created already")?;
            self.spec = Some(spec.clone().into());
            self.in_force = self.spec.clone();
            self.steps = plan.iter().copied().map(StepState::new).collect();
            need(plan.pivot.is_none_or(|pivot| plan.contains(&pivot)), "the pivot is not in the plan")?;
            self.pivot_step = plan.pivot;
            self.created_at = at;
            return Ok(());
        }
        need(self.spec.is_some(), "the run is not created")?;
        need(self.outcome().is_none(), "the run has ended")?;
        match fact {
            Fact::Created { .. } => Ok(()),
            Fact::StepStarted { step, attempt } => self.started(at, *step, *attempt),
            Fact::EffectPlanned { step, attempt, key, before } => {
                let effects = &mut self.working(*step, *attempt, key)?.effects;
                let earlier = effects.get(key);
                need(earlier.is_none_or(|earlier| earlier.attempt < *attempt), "this attempt has planned it already")?;
                let first_before = earlier.map_or_else(|| before.clone(), |earlier| earlier.first_before.clone());
                let effect = Effect { first_before, before: before.clone(), attempt: *attempt, output: None };
                effects.insert(key.clone(), effect);
                Ok(())
            }
            Fact::EffectDone { step, attempt, key, output } => {
                let effect = self.working(*step, *attempt, key)?.effects.get_mut(key);
                let effect = effect.filter(|effect| effect.attempt == *attempt && effect.output.is_none());
                effect.ok_or("it is not planned, or done already")?.output = Some(output.clone());
                Ok(())
            }
            Fact::StepDone { step, output } => {
                let settled = self.pivot_step != Some(*step) || self.committed();
                need(settled && !self.armed(), "the pivot is not settled")?;
                let step = self.in_status(*step, &[Status::Running])?;
                step.output = Some(output.clone());
                step.pass(at, Status::Done);
                Ok(())
            }
            Fact::StepSkipped { step, reason } => {
                self.need_turn(*step)?;
                need(self.pivot_step != Some(*step), "the pivot cannot be skipped")?;
                let step = self.in_status(*step, &[Status::Pending, Status::Failed])?;
                step.skipped = Some(reason.clone());
                step.pass(at, Status::Skipped);
                Ok(())
            }
            Fact::StepFailed { step, attempt, failure } => self.failed(at, *step, *attempt, failure),
            Fact::ApprovalAsked { step, name, why } => {
                need(!self.armed(), "the pivot is armed")?;
                self.named(*step)?.approval = Some((name.clone(), why.clone()));
                Ok(())
            }
            Fact::Warned { step, code, detail } => {
                if self.warnings.len() == WARNINGS_MAX {
                    self.warnings.remove(0);
                }
                self.warnings.push(Warning { at, step: *step, code: *code, detail: detail.clone() });
                Ok(())
            }
            Fact::AlarmRaised { monitor, alarm } => self.alarmed(*monitor, alarm),
            Fact::AlarmCleared { monitor } => {
                self.acknowledged.remove(monitor);
                self.alarms.0.remove(monitor).map(drop).ok_or_else(|| "there is no such alarm".into())
            }
            Fact::Observed { source, n, .. } => {
                need(*n > self.observed(source), "it is observed already")?;
                self.observed.insert(source.clone(), *n);
                Ok(())
            }
            Fact::Asked { ask, request, .. } => self.asked(ask, request),
            Fact::PivotArmed { attempt } => self.arm(*attempt),
            Fact::PivotDisarmed { .. } => {
                need(self.armed(), "the pivot is not armed")?;
                self.pivot = Pivot::Untouched;
                self.looked();
                self.go_back_now();
                Ok(())
            }
            Fact::PointOfNoReturn { witness } => {
                need(self.armed(), "the pivot is not armed")?;
                self.pivot = Pivot::Happened(witness.clone());
                self.looked();
                self.cause = None;
                Ok(())
            }
            Fact::RestartBegun { from, round, why } => self.restart(*from, *round, why),
            Fact::UndoStarted { step } => self.undo_started(*step),
            Fact::UndoDone { step } => self.undone(at, *step),
            Fact::Stuck { step, failure } => {
                let step = self.in_status(*step, &[Status::Undoing])?;
                step.status = Status::Stuck;
                step.failed_at = Some(at);
                step.failure = Some(failure.clone());
                Ok(())
            }
            Fact::Finished { outcome } => self.finish(*outcome),
        }
    }

    fn named(&mut self, id: StepId) -> Result<&mut StepState, String> {
        self.steps.iter_mut().find(|step| step.id == id).ok_or_else(|| format!("there is no step {id} in the plan"))
    }

    fn in_status(&mut self, id: StepId, wanted: &[Status]) -> Result<&mut StepState, String> {
        let step = self.named(id)?;
        need(wanted.contains(&step.status), format!("step {id} is {:?}", step.status))?;
        Ok(step)
    }

    fn working(&mut self, id: StepId, attempt: u32, key: &str) -> Result<&mut StepState, String> {
        let status = if key.starts_with("undo/") { Status::Undoing } else { Status::Running };
        let step = self.in_status(id, &[status])?;
        need(step.attempt == attempt, format!("attempt {attempt} is not at work, {} is", step.attempt))?;
        Ok(step)
    }

    /// The run goes forward, and this is the step it is at.
    fn need_turn(&self, id: StepId) -> Result<(), String> {
        need(self.mode == Mode::Forward && self.cause.is_none(), "the run goes back")?;
        need(!self.armed(), "the pivot is armed")?;
        need(self.current().is_some_and(|step| step.id == id), format!("it is not the turn of step {id}"))
    }

    fn started(&mut self, at: Timestamp, id: StepId, attempt: u32) -> Result<(), String> {
        self.need_turn(id)?;
        need(!(self.committed() && self.pivot_step == Some(id)), "the pivot has happened")?;
        let step = self.in_status(id, &[Status::Pending, Status::Failed])?;
        need(attempt == step.attempt + 1, format!("attempt {} should follow", step.attempt + 1))?;
        step.attempt = attempt;
        step.status = Status::Running;
        step.failure = None;
        step.started_at = step.started_at.or(Some(at));
        step.ended_at = None;
        step.touched = true;
        self.of_attempt = self.in_force.clone();
        Ok(())
    }

    fn failed(&mut self, at: Timestamp, id: StepId, attempt: u32, failure: &Failure) -> Result<(), String> {
        let stays = !self.reversible() && self.pivot_step == Some(id);
        let (reversible, armed) = (self.reversible(), self.armed());
        need(failure.class != FailureClass::Interrupted, "an interruption is not a failure")?;
        let step = self.in_status(id, &[Status::Pending, Status::Failed, Status::Running])?;
        need(attempt == step.attempt, format!("attempt {attempt} is not the last, {} is", step.attempt))?;
        step.failure = Some(failure.clone());
        step.failed_at = Some(at);
        *if armed { &mut step.look_failures } else { &mut step.failures } += 1;
        if !stays {
            step.status = Status::Failed;
        }
        if failure.class == FailureClass::Permanent && reversible && self.cause.is_none() && self.mode == Mode::Forward
        {
            self.cause = Some(Cause { why: Why::new(failure.code, failure), restartable: true });
        }
        Ok(())
    }

    fn alarmed(&mut self, monitor: MonitorId, alarm: &Alarm) -> Result<(), String> {
        self.alarms.0.insert(monitor, alarm.clone());
        self.acknowledged.remove(&monitor);
        if let Alarm::Unwind(why) = alarm
            && !self.committed()
            && self.mode == Mode::Forward
            && self.cause.is_none()
        {
            self.cause = Some(Cause { why: why.clone(), restartable: true });
        }
        Ok(())
    }

    fn asked(&mut self, ask: &AskId, request: &Request<D>) -> Result<(), String> {
        need(self.asks.insert(ask.clone()), "it is asked already")?;
        match request {
            Request::Approve { name: Some(name) } => {
                self.approved.insert(name.clone());
            }
            Request::Approve { name: None } => {
                let open: Vec<String> = self.open_approvals().map(|(_, name, _)| name.to_owned()).collect();
                self.approved.extend(open);
            }
            Request::Pause => self.paused = true,
            Request::Resume => self.resumed(),
            Request::Abort => self.aborted(),
            Request::Postpone { until } => self.postponed_until = Some(*until),
            Request::Tune { settings } => {
                self.tuned.extend(settings.clone());
                let tuned = self.in_force.as_ref().and_then(|spec| D::tune(spec, settings));
                self.in_force = tuned.map(Into::into).or(self.in_force.take());
            }
            Request::Other { .. } => {}
        }
        Ok(())
    }

    /// A person says: go on. What needed them continues its attempt; what had failed for good is tried again.
    fn resumed(&mut self) {
        self.paused = false;
        if self.committed() {
            self.acknowledged = self.alarms.0.keys().copied().collect();
        }
        for step in &mut self.steps {
            match step.status {
                Status::Stuck => step.status = Status::Undoing,
                Status::Failed => {
                    let needed_person = step.failure.as_ref().is_some_and(|f| f.class == FailureClass::NeedsOperator);
                    step.status = if needed_person && step.touched { Status::Running } else { Status::Pending };
                }
                Status::Running => {}
                _ => continue,
            }
            step.failure = None;
            (step.failures, step.look_failures) = (0, 0);
        }
    }

    fn aborted(&mut self) {
        let stuck = self.steps.iter().any(|step| step.status == Status::Stuck);
        if self.committed() {
            self.gave_up |= self.may_abort();
        } else if stuck {
            self.gave_up = true;
        } else {
            self.cause = Some(Cause { why: Why::new(codes::ABORTED, "aborted by a person"), restartable: false });
            self.go_back_now();
        }
    }

    /// A cause that no restart can answer turns the run round at once, unless the pivot is armed.
    fn go_back_now(&mut self) {
        if self.reversible() && self.cause.as_ref().is_some_and(|cause| !cause.restartable) {
            self.mode = Mode::Unwinding { why: self.cause.take().expect("checked above").why };
        }
    }

    fn arm(&mut self, attempt: u32) -> Result<(), String> {
        need(self.reversible(), "the pivot is armed or has happened")?;
        need(self.mode == Mode::Forward && self.cause.is_none(), "the run goes back")?;
        need(!self.paused, "the run is paused")?;
        need(self.alarms.holding().is_none(), "an alarm holds")?;
        let step = self.current().filter(|step| Some(step.id) == self.pivot_step && step.attempt == attempt);
        need(step.is_some_and(|step| step.status == Status::Running), "this attempt of the pivot is not at work")?;
        self.pivot = Pivot::Armed;
        Ok(())
    }

    /// The outcome is read: what went wrong while it was not is over.
    fn looked(&mut self) {
        for step in self.steps.iter_mut().filter(|step| Some(step.id) == self.pivot_step) {
            (step.failure, step.look_failures) = (None, 0);
        }
    }

    fn restart(&mut self, from: StepId, round: u32, why: &Why) -> Result<(), String> {
        self.named(from)?;
        need(self.reversible(), "the pivot is armed or has happened")?;
        need(self.mode == Mode::Forward, "the run goes back already")?;
        need(self.cause.as_ref().is_none_or(|cause| cause.restartable), "no restart answers an abort")?;
        need(round == self.round + 1, format!("round {} should follow", self.round + 1))?;
        self.cause = None;
        self.mode = Mode::Restarting { from, why: why.clone() };
        self.restart_if_undone();
        Ok(())
    }

    /// Ends a restart's way back once all is undone; only then the round rises, so that undo derives the old names. Alarms to unwind have been answered by it; monitors raise what
    /// still stands again.
    fn restart_if_undone(&mut self) {
        let Mode::Restarting { from, .. } = self.mode else { return };
        if self.last_touched(Some(from)).is_some() {
            return;
        }
        let first = self.steps.iter().position(|step| step.id == from).unwrap_or(0);
        for step in &mut self.steps[first..] {
            let attempt = step.attempt;
            *step = StepState { attempt, ..StepState::new(step.id) };
        }
        self.alarms.0.retain(|_, alarm| !matches!(alarm, Alarm::Unwind(_)));
        self.round += 1;
        self.mode = Mode::Forward;
    }

    fn undo_started(&mut self, id: StepId) -> Result<(), String> {
        need(self.reversible(), "the pivot is armed or has happened")?;
        let from = if let Mode::Restarting { from, .. } = self.mode { Some(from) } else { None };
        need(self.last_touched(from).is_some_and(|step| step.id == id), "another step is to be undone first")?;
        if self.mode == Mode::Forward {
            let cause = self.cause.take().map(|cause| cause.why);
            let failed = self.current().and_then(|step| step.failure.as_ref());
            let why = cause.or_else(|| failed.map(|failure| Why::new(failure.code, failure)));
            self.mode = Mode::Unwinding { why: why.ok_or("there is no cause to go back")? };
        }
        let usual = [Status::Pending, Status::Running, Status::Failed, Status::Done, Status::Skipped];
        self.in_status(id, &usual)?.status = Status::Undoing;
        Ok(())
    }

    fn undone(&mut self, at: Timestamp, id: StepId) -> Result<(), String> {
        let step = self.in_status(id, &[Status::Undoing])?;
        let attempt = step.attempt;
        *step = StepState { attempt, status: Status::Undone, started_at: step.started_at, ..StepState::new(id) };
        step.ended_at = Some(at);
        self.restart_if_undone();
        Ok(())
    }

    fn finish(&mut self, outcome: Outcome) -> Result<(), String> {
        need(!self.armed(), "the pivot is armed")?;
        let touched = self.steps.iter().any(|step| step.touched);
        match outcome {
            Outcome::Succeeded => need(self.current().is_none(), "a step is not done")?,
            Outcome::Unwound => {
                need(self.mode != Mode::Forward || self.cause.is_some(), "the run goes forward")?;
                need(!touched && self.reversible(), "a step is not undone")?;
            }
            Outcome::Refused => {
                need(!touched && self.steps.iter().all(|step| step.attempt == 0), "a step was started")?;
                need(self.current().is_some_and(|step| step.failure.is_some()), "nothing was refused")?;
            }
            Outcome::Stopped => need(self.gave_up, "no person gave up")?,
        }
        self.mode = Mode::Finished { outcome };
        Ok(())
    }
}

impl StepState {
    fn pass(&mut self, at: Timestamp, status: Status) {
        self.status = status;
        self.ended_at = Some(at);
        self.failure = None;
        self.failures = 0;
        self.approval = None;
    }
}

fn need(holds: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
