//! What a driver does, move by move. Decisions are [`decide`]'s; appending is `writer.rs`'s; this file only acts.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use runtime::clock::Mono;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, warn};

use crate::cx::{Cx, Doing, Progress, Shared, Signal};
use crate::decide::{Move, decide};
use crate::driver::{DriveError, Driver, Ended};
use crate::fact::{Alarm, Fact};
use crate::failure::{Failure, FailureClass, codes};
use crate::ids::{MonitorId, StepId};
use crate::journal::{JournalError, entries};
use crate::monitor::{AnyMonitor, MonitorCx};
use crate::plan::Plan;
use crate::state::{State, Status};
use crate::step::{AnyStep, Domain, Gate, Why};
use crate::writer::{Refused, Writer};

const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
/// A leave that was given is good for so long while the step waits for its own gate.
const LEAVE_FRESH: Duration = Duration::from_secs(30);
/// A check is asked again when asking for leave took longer than this.
const CHECK_FRESH: Duration = Duration::from_secs(1);

/// See [`Driver::run`].
pub(crate) async fn drive<D: Domain>(driver: Driver<D>, stop: CancellationToken) -> Result<Ended, DriveError> {
    let (journal, clock) = (driver.parts.journal.clone(), driver.parts.clock.clone());
    let fail = |source: JournalError| DriveError::Journal { id: driver.id.clone(), source };
    let about = journal.info(&driver.id).await.map_err(fail)?;
    if let Some(outcome) = about.outcome {
        return Ok(Ended::Finished(outcome));
    }
    let asked = clock.mono();
    let ttl = driver.parts.options.lease_ttl;
    let epoch = journal.acquire(&about.subject, &driver.parts.holder, ttl).await.map_err(fail)?;
    let until = asked + ttl;
    driver.lease.send_modify(|lease| (lease.epoch, lease.until) = (epoch, until));
    let subject = about.subject;
    let ended = take_over(driver, subject.clone(), stop).await;
    if !matches!(ended, Ok(Ended::Fenced)) {
        journal.release(&subject, epoch).await.ok();
    }
    ended
}

/// Folds the journal under the new epoch, starts the monitors, and drives.
async fn take_over<D: Domain>(
    driver: Driver<D>,
    subject: crate::ids::Subject,
    stop: CancellationToken,
) -> Result<Ended, DriveError> {
    let Driver { id, parts, mail, mailbox, state, progress, lease } = driver;
    let folded = async {
        let all = entries::<D>(&*parts.journal, &id, crate::journal::Seq(0)).await?;
        let resumed = all.last().is_some_and(|entry| entry.epoch.0 != 0);
        let mut folded = State::<D>::empty();
        for entry in &all {
            let illegal = |source| crate::journal::FoldError::Illegal { id: id.clone(), source };
            folded = folded.apply(entry).map_err(illegal)?;
        }
        Ok((folded, resumed))
    };
    let (folded, resumed) = folded.await.map_err(|source| DriveError::Fold { id: id.clone(), source })?;
    let journaled = folded.order();
    let (true, true) = (folded.spec().is_some(), journaled == parts.plan.shape().ids()) else {
        return Err(DriveError::PlanDiffers { id, journal: journaled, ours: parts.plan.shape().ids() });
    };
    state.send_replace(Arc::new(folded));
    let signal = tokio::sync::watch::Sender::new(Signal::None);
    let options = parts.options;
    let not_before = if resumed { parts.clock.mono() + options.call_timeout } else { Mono::ZERO };
    let shared = Arc::new(Shared {
        run_id: id,
        world: parts.world,
        clock: parts.clock,
        state: state.subscribe(),
        signal: signal.subscribe(),
        lease: lease.subscribe(),
        mailbox,
        progress,
        call_timeout: options.call_timeout,
        not_before,
        faults: options.faults.clone(),
        pivot: parts.plan.shape().pivot(),
    });
    let mut monitors = JoinSet::new();
    for (id, monitor) in &parts.plan.monitors {
        monitors.spawn(supervise(shared.clone(), *id, monitor.clone()));
    }
    let (plan, journal) = (parts.plan, parts.journal);
    let writer = Writer::new(shared.clone(), subject, journal, options, state, signal, lease, mail, stop);
    let actor = Actor { plan, shared, writer, calm: false, checked: None, leave: None, tries: 0 };
    let ended = actor.run().await;
    monitors.shutdown().await;
    ended
}

/// Keeps a monitor running; one that dies holds the pivot until it has looked again.
async fn supervise<D: Domain>(shared: Arc<Shared<D>>, id: MonitorId, monitor: Arc<dyn AnyMonitor<D>>) {
    let mut delay = RETRY_DELAY_MIN;
    loop {
        let watching = monitor.watch(MonitorCx { shared: &shared, id });
        let Err(_panic) = AssertUnwindSafe(watching).catch_unwind().await;
        warn!(run = %shared.run_id, monitor = %id, "monitor died, starting it again");
        let why = Why::new(codes::MONITOR_DIED, format!("monitor {id} died and is started again"));
        MonitorCx { shared: &shared, id }.raise(Alarm::Hold(why)).await;
        shared.clock.sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(60));
    }
}

struct Actor<D: Domain> {
    plan: Arc<Plan<D>>,
    shared: Arc<Shared<D>>,
    writer: Writer<D>,
    /// Whether waiting is harmless: the world was calmed and no step has run since.
    calm: bool,
    /// The attempt whose gate was seen open and that has not run since.
    checked: Option<(StepId, u32)>,
    /// The attempt that was given leave last, and when.
    leave: Option<(StepId, u32, Mono)>,
    /// How often in a row an undo or a calm has failed to help.
    tries: u32,
}

impl<D: Domain> Actor<D> {
    async fn run(mut self) -> Result<Ended, DriveError> {
        loop {
            match self.writer.signal() {
                Signal::None => {}
                Signal::Stop => return Ok(Ended::Stopped),
                Signal::Fenced => return Ok(Ended::Fenced),
            }
            let next = self.next();
            let done = match next.clone() {
                Move::Finish(outcome) => {
                    self.writer.append(Fact::Finished { outcome }).await.map(|()| Some(Ended::Finished(outcome)))
                }
                Move::Check(step) => self.check(step, &next).await.map(|_| None),
                Move::Run(step) => self.run_step(step, &next).await.map(|()| None),
                Move::Look => self.look(&next).await.map(|()| None),
                Move::Undo(step) => self.undo(step, &next).await.map(|()| None),
                Move::Restart { from, why } => {
                    let round = self.writer.state().round() + 1;
                    self.writer.append(Fact::RestartBegun { from, round, why }).await.map(|()| None)
                }
                Move::Wait { until, why } => {
                    self.leave = None;
                    self.show_waiting(&why, false, Some(until));
                    self.rest(Some(until), &next).await;
                    Ok(None)
                }
                Move::AskOperator(why) => {
                    self.ask_operator(&why, &next).await;
                    Ok(None)
                }
            };
            match done {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) | Err(Refused::Lost) => {}
                Err(Refused::Illegal(source)) => {
                    return Err(DriveError::Illegal { id: self.shared.run_id.clone(), source });
                }
            }
        }
    }

    fn next(&self) -> Move {
        decide(self.plan.shape(), &self.writer.state(), self.shared.clock.now())
    }

    fn code(&self, id: StepId) -> Arc<dyn AnyStep<D>> {
        let index = self.plan.shape().index(id).expect("the plan was compared with the journal");
        self.plan.steps[index].clone()
    }

    fn attempt(&self, id: StepId) -> u32 {
        self.writer.state().step(id).map_or(0, |step| step.attempt)
    }

    /// Asks the gate; starts a new attempt if it opens and this is not a resume. Says whether it is open.
    async fn check(&mut self, id: StepId, this: &Move) -> Result<bool, Refused> {
        let resumed = matches!(this, Move::Run(_));
        let started = self.attempt(id);
        let attempt = if resumed { started } else { started + 1 };
        let (shared, code) = (self.shared.clone(), self.code(id));
        let cx = context(&shared, id, attempt, Doing::Check);
        self.show(Some(id), Doing::Check);
        let gate = self
            .writer
            .attend(Some(id), caught(id, code.check(&cx)).instrument(cx.span()))
            .await
            .unwrap_or_else(|| Err(dropped()));
        if self.next() != *this {
            return Ok(false); // the fold has changed meanwhile: decide again
        }
        let gate = match gate {
            Ok(Gate::Approval { name, .. }) if self.writer.state().approved(name) => Gate::Open,
            Ok(Gate::Skip { .. }) if resumed => Gate::Open,
            Ok(gate) => gate,
            Err(failure) => {
                self.failed(id, started, failure, this).await?;
                return Ok(false);
            }
        };
        match gate {
            Gate::Open if resumed => {}
            Gate::Open => {
                if !self.has_leave(id, attempt, this).await? {
                    return Ok(false);
                }
                self.writer.append(Fact::StepStarted { step: id, attempt }).await?;
            }
            Gate::Wait { reason, retry_after } => {
                let until = self.after(retry_after);
                self.show_waiting(&Why::new(codes::GATE_CLOSED, reason), false, Some(until));
                self.rest(Some(until), this).await;
                let now = self.shared.clock.mono();
                self.leave.take_if(|(.., given)| now - *given > LEAVE_FRESH);
                return Ok(false);
            }
            Gate::Approval { name, why } => {
                self.writer.append(Fact::ApprovalAsked { step: id, name: name.to_owned(), why }).await?;
                return Ok(false);
            }
            Gate::Skip { .. } if self.shared.pivot == Some(id) => {
                let failure = Failure::permanent(codes::GATE_CLOSED, format!("skipping {id}, which is the pivot"));
                self.failed(id, started, failure, this).await?;
                return Ok(false);
            }
            Gate::Skip { reason } => {
                self.writer.append(Fact::StepSkipped { step: id, reason }).await?;
                return Ok(false);
            }
            Gate::Closed { reason } => {
                let failure = Failure::permanent(codes::GATE_CLOSED, reason);
                self.failed(id, started, failure, this).await?;
                return Ok(false);
            }
        }
        self.checked = Some((id, attempt));
        Ok(true)
    }

    /// Asks others before an attempt begins. `false`: not now, decide again.
    async fn has_leave(&mut self, id: StepId, attempt: u32, this: &Move) -> Result<bool, Refused> {
        if self.leave.is_some_and(|(step, of, _)| (step, of) == (id, attempt)) {
            return Ok(true);
        }
        let asked = self.shared.clock.mono();
        let shared = self.shared.clone();
        let cx = context(&shared, id, attempt, Doing::Check);
        // On the heap, as the work of steps is: all that drives would carry its size.
        let asking: BoxFuture<'_, _> = Box::pin(caught(id, D::leave(&cx)));
        let leave = self.writer.attend(Some(id), asking).await.unwrap_or_else(|| Err(dropped()));
        let now = self.shared.clock.mono();
        if let Err(failure) = leave {
            if self.next() == *this {
                self.failed(id, self.attempt(id), failure, this).await?;
            }
            return Ok(false);
        }
        self.leave = Some((id, attempt, now));
        Ok(self.next() == *this && now - asked < CHECK_FRESH)
    }

    async fn run_step(&mut self, id: StepId, this: &Move) -> Result<(), Refused> {
        // What the gate of a pivot asks is no longer so once it has happened.
        let behind_gate = self.shared.pivot == Some(id) && self.writer.state().committed();
        if !behind_gate && self.checked != Some((id, self.attempt(id))) && !self.check(id, this).await? {
            return Ok(());
        }
        self.work(id, false, this).await
    }

    async fn look(&mut self, this: &Move) -> Result<(), Refused> {
        let pivot = self.shared.pivot.expect("only a pivot can be armed");
        self.work(pivot, true, this).await
    }

    async fn work(&mut self, id: StepId, look_only: bool, this: &Move) -> Result<(), Refused> {
        (self.calm, self.checked) = (false, None);
        let (shared, code, attempt) = (self.shared.clone(), self.code(id), self.attempt(id));
        let mut cx = context(&shared, id, attempt, Doing::Run);
        cx.look_only = look_only;
        self.show(Some(id), Doing::Run);
        let done = self
            .writer
            .attend(Some(id), caught(id, code.run(&cx)).instrument(cx.span()))
            .await
            .unwrap_or_else(|| Err(dropped()));
        let state = self.writer.state();
        let unsettled = self.shared.pivot == Some(id) && !state.committed();
        match done {
            Ok(_) if unsettled => {
                let doing = format!("step {id} returned without proof that the pivot has happened");
                self.failed(id, attempt, Failure::permanent(codes::CANNOT_ARM, doing), this).await
            }
            Ok(output) => self.writer.append(Fact::StepDone { step: id, output }).await,
            Err(failure) => self.failed(id, attempt, failure, this).await,
        }
    }

    /// Journals a failure; an interruption is none, and the fold says what follows from it.
    async fn failed(&mut self, id: StepId, attempt: u32, failure: Failure, this: &Move) -> Result<(), Refused> {
        if failure.is_interrupted() {
            if self.next() == *this && self.writer.signal() == Signal::None {
                // It came back without a cause that the fold knows. Not at once again.
                self.rest(Some(self.after(Duration::from_secs(1))), this).await;
            }
            return Ok(());
        }
        info!(run = %self.shared.run_id, step = %id, attempt, class = ?failure.class, error = %failure, "step failed");
        self.writer.append(Fact::StepFailed { step: id, attempt, failure }).await
    }

    async fn undo(&mut self, id: StepId, this: &Move) -> Result<(), Refused> {
        if !self.calm && !self.make_calm(this).await {
            return Ok(()); // nothing is undone before waiting is harmless
        }
        if self.writer.state().step(id).is_some_and(|step| step.status != Status::Undoing) {
            self.writer.append(Fact::UndoStarted { step: id }).await?;
        }
        let (shared, code, attempt) = (self.shared.clone(), self.code(id), self.attempt(id));
        let cx = context(&shared, id, attempt, Doing::Undo);
        self.show(Some(id), Doing::Undo);
        match self
            .writer
            .attend(None, caught(id, code.undo(&cx)).instrument(cx.span()))
            .await
            .unwrap_or_else(|| Err(dropped()))
        {
            Ok(()) => {
                self.tries = 0;
                self.writer.append(Fact::UndoDone { step: id }).await
            }
            Err(failure) => match failure.class {
                FailureClass::Permanent | FailureClass::NeedsOperator => {
                    self.tries = 0;
                    self.writer.append(Fact::Stuck { step: id, failure }).await
                }
                FailureClass::Transient | FailureClass::Unknown => {
                    self.try_later(Some(id), &failure, this).await;
                    Ok(())
                }
                FailureClass::Interrupted => self.failed(id, attempt, failure, this).await,
            },
        }
    }

    /// Publishes the safe intent. If that fails it says so, waits a while, and answers `false`: try again.
    async fn make_calm(&mut self, this: &Move) -> bool {
        let shared = self.shared.clone();
        let at = self.writer.state().current().map_or(StepId("calm"), |step| step.id);
        let cx = context(&shared, at, self.attempt(at), Doing::Calm);
        self.show(Some(at), Doing::Calm);
        match self
            .writer
            .attend(None, caught(at, D::calm(&cx)).instrument(cx.span()))
            .await
            .unwrap_or_else(|| Err(dropped()))
        {
            Ok(()) => (self.calm, self.tries) = (true, 0),
            Err(failure) if failure.is_interrupted() => {}
            Err(failure) => {
                let failure = failure.with_code(codes::NOT_CALM);
                self.try_later(None, &failure, this).await;
            }
        }
        self.calm
    }

    async fn ask_operator(&mut self, why: &Why, this: &Move) {
        self.leave = None; // a person takes a while
        if !self.calm && !self.writer.state().armed() && !self.make_calm(this).await {
            return;
        }
        self.show_waiting(why, true, None);
        self.rest(None, this).await;
    }

    async fn try_later(&mut self, step: Option<StepId>, failure: &Failure, this: &Move) {
        let (code, detail) = (failure.code, failure.to_string());
        if !self.writer.state().warnings().any(|warning| warning.code == code && warning.detail == detail) {
            self.writer.append(Fact::Warned { step, code, detail }).await.ok();
        }
        let delay = RETRY_DELAY_MIN.saturating_mul(1 << self.tries.min(10)).min(self.writer.options.retry_delay_max);
        self.tries += 1;
        let until = self.after(delay);
        self.show_waiting(&Why::new(code, failure), false, Some(until));
        self.rest(Some(until), this).await;
    }

    fn after(&self, delay: Duration) -> Timestamp {
        self.shared.clock.now().saturating_add(delay).unwrap_or(Timestamp::MAX)
    }

    /// Serves until `until`, or until there is another move than `this`, or the process wants to leave.
    async fn rest(&mut self, until: Option<Timestamp>, this: &Move) {
        let (mut states, mut signal) = (self.shared.state.clone(), self.shared.signal.clone());
        let (plan, clock) = (self.plan.clone(), self.shared.clock.clone());
        let sleep = async {
            match until {
                Some(until) => clock.sleep(until_then(until, clock.now())).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            while decide(plan.shape(), &states.borrow_and_update(), clock.now()) == *this {
                if states.changed().await.is_err() {
                    return;
                }
            }
        };
        let (sleep, changed, called) = (pin!(sleep), pin!(changed), pin!(signal.wait_for(|s| *s != Signal::None)));
        let work = async {
            tokio::select! {
                () = sleep => {}
                () = changed => {}
                _ = called => {}
            }
        };
        self.writer.attend(None, work).await;
    }

    fn show(&self, step: Option<StepId>, doing: Doing) {
        self.shared.progress.send_replace(Progress { step, doing, ..Progress::default() });
    }

    fn show_waiting(&self, why: &Why, asks_operator: bool, until: Option<Timestamp>) {
        let step = self.writer.state().current().map(|step| step.id);
        let waiting = Some(why.clone());
        self.shared.progress.send_replace(Progress { step, waiting, asks_operator, until, ..Progress::default() });
    }
}

fn until_then(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO)
}

fn context<D: Domain>(shared: &Shared<D>, step: StepId, attempt: u32, doing: Doing) -> Cx<'_, D> {
    let state = shared.state.borrow();
    // What an attempt began with holds for all of it; everything else goes by what is in force.
    let at_work = matches!(doing, Doing::Run | Doing::Verify);
    let spec = if at_work { state.of_attempt() } else { state.in_force() };
    let spec = spec.cloned().expect("nothing is driven before its first fact");
    Cx { shared, spec, step, attempt, doing, look_only: false }
}

fn dropped() -> Failure {
    Failure::interrupted("it did not come back in time and was dropped")
}

/// A panic of a step is a failure of the step, not of the driver.
async fn caught<T>(id: StepId, work: impl Future<Output = Result<T, Failure>> + Send) -> Result<T, Failure> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure::permanent(codes::PANICKED, format!("step {id} panicked")).because(text))
    })
}
