//! What a step can see and do. It asks the driver to append; it never appends itself.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runtime::clock::{Clock, Mono};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::fact::Fact;
use crate::failure::{Failure, FailureClass, codes};
use crate::ids::{Code, RunId, Source, StepId};
use crate::journal::Epoch;
use crate::state::{Alarms, Pivot, State};
use crate::step::{Domain, Look, Settled, Step, Unit, Wait, Why};

/// What a driver shows besides the fold: transient, never journaled, nobody decides on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// The step at work.
    pub step: Option<StepId>,
    /// What is being done with it.
    pub doing: Doing,
    /// The last [`Cx::progress`].
    pub count: Option<Count>,
    /// The wait inside the step, with the last status seen.
    pub wait: Option<WaitStatus>,
    /// What the run itself waits for: a gate, a backoff, a person.
    pub waiting: Option<Why>,
    /// Whether that is a person.
    pub asks_operator: bool,
    /// When it will go on by itself, if it will.
    pub until: Option<Timestamp>,
}

/// What is being done with a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// Nothing: between moves, or waiting.
    #[default]
    Idle,
    /// Its gate is asked.
    Check,
    /// It runs.
    Run,
    /// Its work is verified.
    Verify,
    /// It is undone.
    Undo,
    /// Waiting is made harmless.
    Calm,
}

/// A counted progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// So much.
    pub done: u64,
    /// Of so much.
    pub total: u64,
    /// Of what.
    pub unit: Unit,
}

/// A wait inside a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitStatus {
    /// What is waited for.
    pub what: &'static str,
    /// The last status seen.
    pub last: String,
    /// When the wait fails.
    pub deadline: Timestamp,
}

/// Ends a wait that is shown, also where it is dropped.
struct Over<'a>(&'a watch::Sender<Progress>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|progress| progress.wait = None);
    }
}

/// The lease as the driver knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The epoch of every append.
    pub epoch: Epoch,
    /// Until when it surely holds, on the driver's clock: counted from before the last successful renewal was asked.
    pub until: Mono,
    /// Set once it is lost; never cleared.
    pub lost: bool,
}

/// Why the process side wants the work to come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Signal {
    #[default]
    None,
    Stop,
    Fenced,
}

/// A point at which a test may make an effect fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before `act` is called: nothing happens.
    BeforeAct,
    /// After `act` has returned well: it happened, and the answer is lost.
    AfterAct,
}

/// A test's way to make effects fail; `None` lets them be.
pub type Faults = Arc<dyn Fn(Point, StepId, &str) -> Option<Failure> + Send + Sync>;

pub(crate) enum Mail<D: Domain> {
    Append { fact: Fact<D>, reply: Option<oneshot::Sender<Result<(), Failure>>> },
    Observe { source: Source, n: u64, event: D::Event, reply: oneshot::Sender<Result<(), Failure>> },
}

/// What the driver shares with steps and monitors.
pub(crate) struct Shared<D: Domain> {
    pub(crate) run_id: RunId,
    pub(crate) world: Arc<D::World>,
    pub(crate) clock: Clock,
    pub(crate) state: watch::Receiver<Arc<State<D>>>,
    pub(crate) signal: watch::Receiver<Signal>,
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) mailbox: mpsc::Sender<Mail<D>>,
    pub(crate) progress: watch::Sender<Progress>,
    /// The longest a changing call may take.
    pub(crate) call_timeout: Duration,
    /// No changing call before this: one of the former holder may still be under way.
    pub(crate) not_before: Mono,
    pub(crate) faults: Option<Faults>,
    /// Which step may arm.
    pub(crate) pivot: Option<StepId>,
}

impl<D: Domain> Shared<D> {
    pub(crate) async fn append(&self, fact: Fact<D>) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        let gone = || Failure::interrupted("the driver is gone");
        self.mailbox.send(Mail::Append { fact, reply: Some(reply) }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The whole of what a step can see and do.
pub struct Cx<'a, D: Domain> {
    pub(crate) shared: &'a Shared<D>,
    pub(crate) spec: Arc<D::Spec>,
    pub(crate) step: StepId,
    pub(crate) attempt: u32,
    pub(crate) doing: Doing,
    /// Whether this very call began with the pivot armed: then only looking is allowed.
    pub(crate) look_only: bool,
}

impl<D: Domain> Cx<'_, D> {
    /// The run; external names derive from it.
    pub fn run_id(&self) -> &RunId {
        &self.shared.run_id
    }

    /// The step this call belongs to.
    pub fn step(&self) -> StepId {
        self.step
    }

    /// What is asked for. The same for the whole of an attempt (`run`, `verify`), whatever a person changes meanwhile: what
    /// fits together stays together. See [`Cx::spec_now`].
    pub fn spec(&self) -> &D::Spec {
        &self.spec
    }

    /// What is asked for at this moment, for what is judged anew at every look.
    pub fn spec_now(&self) -> Arc<D::Spec> {
        self.state().in_force().cloned().unwrap_or_else(|| self.spec.clone())
    }

    /// What a step may touch.
    pub fn world(&self) -> &D::World {
        &self.shared.world
    }

    /// The clock to measure with. To wait, use [`Cx::until`].
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The fold as it stands now.
    pub fn state(&self) -> Arc<State<D>> {
        self.shared.state.borrow().clone()
    }

    /// The attempt of this step, from 1; rises with every retry and every restart. In a `check` before the step was
    /// started, the attempt that would begin.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How often the run has begun at the plan's restart step, from 1. Names that must differ after a restart, and
    /// must not differ between retries, derive from this.
    pub fn round(&self) -> u32 {
        self.state().round()
    }

    /// What an earlier step handed over.
    ///
    /// # Errors
    /// Permanent, if it has no output or one of another shape.
    pub fn output<S: Step<D>>(&self) -> Result<S::Output, Failure> {
        let state = self.state();
        let value = state
            .output(S::ID)
            .ok_or_else(|| Failure::permanent(codes::NO_OUTPUT, format!("reading the output of step {}", S::ID)))?;
        read(value, &format!("the output of step {}", S::ID))
    }

    /// As [`Cx::output`], for a place that must work whether the step was done or not (an undo, a calm).
    pub fn output_if_any<S: Step<D>>(&self) -> Option<S::Output> {
        serde_json::from_value(self.state().output(S::ID)?.clone()).ok()
    }

    /// Whether a person has approved `name`.
    pub fn approved(&self, name: &str) -> bool {
        self.state().approved(name)
    }

    /// Goes on only when a person has approved `name`. If they have not, the question is journaled and the step comes
    /// back `Interrupted`: return it; the engine calms the world, waits, and continues this attempt after the answer
    /// (with what its effects have already done remembered).
    ///
    /// # Errors
    /// Interrupted.
    pub async fn approval(&self, name: &str, why: impl Display) -> Result<(), Failure> {
        if self.approved(name) {
            return Ok(());
        }
        let fact = Fact::ApprovalAsked { step: self.step, name: name.to_owned(), why: why.to_string() };
        self.shared.append(fact).await?;
        Err(Failure::interrupted(format!("approval {name} is needed")))
    }

    /// A change to the world. `before` reads what undo will restore; `look` sees whether the change is there already;
    /// `act` makes it. The intent is journaled before `act` and the output after it:
    /// - done in this attempt before: the journaled output is returned and nothing is called;
    /// - planned before but not known to be done, in this attempt or an earlier one: it looks first, and acts only if
    ///   it is not there;
    /// - `act` answers [`FailureClass::Unknown`]: it looks, and fails as unknown only if it is not there;
    /// - the pivot was armed when this call of the step began: it never acts.
    ///
    /// In `undo` keys have a space of their own.
    ///
    /// # Errors
    /// What `before`, `look` and `act` fail with; interrupted; `LOOK_ONLY` (unknown) where acting is not allowed.
    pub async fn effect<B, T, L, A>(
        &self,
        key: &str,
        before: impl Future<Output = Result<B, Failure>> + Send,
        mut look: impl FnMut(&B) -> L + Send,
        act: impl FnOnce(&B) -> A + Send,
    ) -> Result<T, Failure>
    where
        B: Serialize + DeserializeOwned + Send + Sync,
        T: Serialize + DeserializeOwned + Send + Sync,
        L: Future<Output = Result<Look<T>, Failure>> + Send,
        A: Future<Output = Result<T, Failure>> + Send,
    {
        self.interrupted()?;
        let key = self.key(key);
        let planned = self.state().step(self.step).and_then(|step| step.effect(&key).cloned());
        let mut known: Option<B> = None;
        if let Some(planned) = planned {
            let same = planned.attempt == self.attempt;
            match &planned.output {
                Some(output) if same => return read(output, &key),
                Some(_) => {}
                None => {
                    let earlier: B = read(&planned.before, &key)?;
                    if let Look::There(output) = look(&earlier).await? {
                        if !same {
                            self.plan(&key, &earlier).await?;
                        }
                        return self.done(&key, output).await;
                    }
                    known = same.then_some(earlier);
                }
            }
        }
        if self.look_only {
            let doing = format!("{key}: the pivot is armed and this was not seen done; settle it first");
            return Err(Failure::unknown(codes::LOOK_ONLY, doing));
        }
        let known = match known {
            Some(known) => known,
            None => {
                let fresh = before.await?;
                self.interrupted()?;
                self.plan(&key, &fresh).await?;
                fresh
            }
        };
        self.may_call().await?;
        match self.act(&key, act(&known)).await {
            Ok(output) => self.done(&key, output).await,
            Err(failure) if failure.class == FailureClass::Unknown => match look(&known).await {
                Ok(Look::There(output)) => self.done(&key, output).await,
                Ok(Look::NotYet(last)) => Err(failure.because(format!("last seen: {last}"))),
                Err(blind) => Err(failure.because(format!("looking for it: {blind}"))),
            },
            Err(failure) => Err(failure),
        }
    }

    async fn act<T>(&self, key: &str, act: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let fault = |point| self.shared.faults.as_ref().and_then(|faults| faults(point, self.step, key));
        if let Some(failure) = fault(Point::BeforeAct) {
            return Err(failure);
        }
        let output = act.await?;
        match fault(Point::AfterAct) {
            Some(failure) => Err(failure),
            None => Ok(output),
        }
    }

    async fn plan<B: Serialize>(&self, key: &str, before: &B) -> Result<(), Failure> {
        let before = write(before, key)?;
        let (step, attempt, key) = (self.step, self.attempt, key.to_owned());
        self.shared.append(Fact::EffectPlanned { step, attempt, key, before }).await
    }

    async fn done<T: Serialize>(&self, key: &str, output: T) -> Result<T, Failure> {
        let value = write(&output, key)?;
        let (step, attempt, key) = (self.step, self.attempt, key.to_owned());
        self.shared.append(Fact::EffectDone { step, attempt, key, output: value }).await?;
        Ok(output)
    }

    fn key(&self, key: &str) -> String {
        if self.doing == Doing::Undo { format!("undo/{key}") } else { key.to_owned() }
    }

    /// Waits until a changing call is allowed: a former holder's last one has timed out, and enough lease is left.
    async fn may_call(&self) -> Result<(), Failure> {
        if self.shared.clock.mono() < self.shared.not_before {
            let rest = self.shared.not_before - self.shared.clock.mono();
            self.pause(rest).await?;
        }
        if self.still_mine(self.shared.call_timeout).is_err() {
            let mut lease = self.shared.lease.clone();
            let renewed = lease.wait_for(|lease| lease.lost || self.left(lease) >= self.shared.call_timeout);
            self.unless_interrupted(renewed).await?.ok();
            self.interrupted()?;
        }
        Ok(())
    }

    /// What `effect` saved as `before`, the first time since the step was last undone: what `undo` restores. `None`
    /// if it was never planned.
    pub fn recall<B: DeserializeOwned>(&self, key: &str) -> Option<B> {
        let state = self.state();
        serde_json::from_value(state.step(self.step)?.effect(key)?.first_before.clone()).ok()
    }

    /// What `effect` returned last, if it is known to be done. For `undo`.
    pub fn recall_output<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let state = self.state();
        serde_json::from_value(state.step(self.step)?.effect(key)?.output.clone()?).ok()
    }

    /// Looks every `wait.every` until it is there. Transient and unknown failures of a look count as "not yet".
    ///
    /// # Errors
    /// `DEADLINE` (permanent) with the last status; interrupted; other failures of `look`.
    pub async fn until<T, L>(&self, wait: Wait, look: impl FnMut() -> L + Send) -> Result<T, Failure>
    where
        L: Future<Output = Result<Look<T>, Failure>> + Send,
    {
        let Wait { every, deadline, what } = wait;
        self.until_in_force(every, what, move |_| deadline, look).await
    }

    /// As [`Cx::until`], with a deadline that a person may change while it is waited.
    ///
    /// # Errors
    /// As [`Cx::until`].
    pub async fn until_in_force<T, L>(
        &self,
        every: Duration,
        what: &'static str,
        limit: impl Fn(&D::Spec) -> Duration + Send + Sync,
        mut look: impl FnMut() -> L + Send,
    ) -> Result<T, Failure>
    where
        L: Future<Output = Result<Look<T>, Failure>> + Send,
    {
        let began = self.shared.clock.mono();
        let began_at = self.shared.clock.now();
        loop {
            self.interrupted()?;
            let limit = limit(&self.spec_now());
            let last = match look().await {
                Ok(Look::There(found)) => {
                    self.shared.progress.send_modify(|progress| progress.wait = None);
                    return Ok(found);
                }
                Ok(Look::NotYet(last)) => last,
                Err(failure) if matches!(failure.class, FailureClass::Transient | FailureClass::Unknown) => {
                    format!("could not look: {failure}")
                }
                Err(failure) => return Err(failure),
            };
            let left = limit.saturating_sub(self.shared.clock.mono() - began);
            if left.is_zero() {
                let doing = format!("waiting {} s for {what}", limit.as_secs());
                return Err(Failure::permanent(codes::DEADLINE, doing).because(format!("last seen: {last}")));
            }
            let deadline = began_at.saturating_add(limit).unwrap_or(Timestamp::MAX);
            let status = WaitStatus { what, last, deadline };
            self.shared.progress.send_modify(|progress| progress.wait = Some(status));
            self.pause(every.min(left)).await?;
        }
    }

    /// Shows `work` as a wait for `what`, and counts its time as one, for as long as it takes or is wanted.
    pub async fn waiting_for<T>(
        &self,
        what: &'static str,
        within: Duration,
        work: impl Future<Output = T> + Send,
    ) -> T {
        let deadline = self.shared.clock.now().saturating_add(within).unwrap_or(Timestamp::MAX);
        let status = WaitStatus { what, last: String::new(), deadline };
        self.shared.progress.send_modify(|progress| progress.wait = Some(status));
        let _over = Over(&self.shared.progress);
        work.await
    }

    /// Sleeps, unless interrupted.
    ///
    /// # Errors
    /// Interrupted.
    pub async fn pause(&self, duration: Duration) -> Result<(), Failure> {
        self.unless_interrupted(self.shared.clock.sleep(duration)).await
    }

    /// Drops `work` as soon as the fold says pause, abort, unwind or fenced: only for what may be dropped at any time.
    ///
    /// # Errors
    /// Interrupted.
    pub async fn unless_interrupted<T>(&self, work: impl Future<Output = T> + Send) -> Result<T, Failure> {
        let (mut state, mut signal) = (self.shared.state.clone(), self.shared.signal.clone());
        tokio::pin!(work);
        loop {
            self.interrupted()?;
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                changed = state.changed() => changed.map_err(|_| Failure::interrupted("the driver is gone"))?,
                changed = signal.changed() => changed.map_err(|_| Failure::interrupted("the driver is gone"))?,
            }
        }
    }

    /// Fails as interrupted if the fold (or the process) wants this step to come back. Between long pieces of work.
    ///
    /// # Errors
    /// Interrupted.
    pub fn interrupted(&self) -> Result<(), Failure> {
        match *self.shared.signal.borrow() {
            Signal::None => {}
            Signal::Stop => return Err(Failure::interrupted("the process is stopping")),
            Signal::Fenced => return Err(Failure::interrupted("the lease is lost")),
        }
        if matches!(self.doing, Doing::Undo | Doing::Calm) {
            return Ok(());
        }
        let state = self.shared.state.borrow();
        let postponed = || {
            state
                .postponed(self.shared.clock.now())
                .filter(|_| self.shared.pivot == Some(self.step) && state.reversible())
        };
        match state.interruption(self.step).or_else(postponed) {
            Some(why) => Err(Failure::interrupted(why)),
            None => Ok(()),
        }
    }

    /// Shows how far the step is. Transient: not journaled.
    pub fn progress(&self, done: u64, total: u64, unit: Unit) {
        let count = Count { done, total, unit };
        self.shared.progress.send_modify(|progress| progress.count = Some(count));
    }

    /// Records an outcome worth telling, not a log line; nothing is journaled if this step has said exactly this.
    pub fn warn(&self, code: Code, detail: impl Display) {
        let detail = detail.to_string();
        if self.state().warnings().any(|warning| warning.code == code && warning.detail == detail) {
            return;
        }
        let fact = Fact::Warned { step: Some(self.step), code, detail };
        if self.shared.mailbox.try_send(Mail::Append { fact, reply: None }).is_err() {
            tracing::warn!(run = %self.run_id(), step = %self.step, %code, "a warning was lost: too many at once");
        }
    }

    /// The monitors' alarms as they stand now; read by the pivot's gate, at the place of use.
    pub fn alarms(&self) -> Alarms {
        self.state().alarms().clone()
    }

    /// Whether enough lease is left for the call that follows.
    ///
    /// # Errors
    /// Transient, if not.
    pub fn still_mine(&self, at_least: Duration) -> Result<(), Failure> {
        let left = self.left(&self.shared.lease.borrow());
        if left >= at_least {
            return Ok(());
        }
        let doing = format!("keeping {} ms of the lease, {} ms are left", at_least.as_millis(), left.as_millis());
        Err(Failure::transient(codes::LEASE_SHORT, doing))
    }

    fn left(&self, lease: &Lease) -> Duration {
        if lease.lost { Duration::ZERO } else { lease.until - self.shared.clock.mono() }
    }

    /// The epoch of this driver's lease, which fences what is told to others.
    pub fn epoch(&self) -> Epoch {
        self.shared.lease.borrow().epoch
    }

    /// Where the pivot stands: whether to prepare, to look, or to go on after it.
    pub fn pivot(&self) -> Pivot<D::Witness> {
        self.state().pivot().clone()
    }

    /// The pivot only: journals `PivotArmed`, to be called right before the one call. Until [`Cx::settle`] nothing is
    /// undone or aborted and no alarm acts. Does nothing if it is armed already.
    ///
    /// # Errors
    /// Interrupted; transient `CANNOT_ARM` while an alarm holds; permanent if this is not the pivot, or it is settled.
    pub async fn arm(&self) -> Result<(), Failure> {
        if self.shared.pivot != Some(self.step) || matches!(self.pivot(), Pivot::Happened(_)) {
            let doing = format!("arming in step {}: it is not the pivot, or the pivot has happened", self.step);
            return Err(Failure::permanent(codes::CANNOT_ARM, doing));
        }
        if matches!(self.pivot(), Pivot::Armed) {
            return Ok(());
        }
        self.interrupted()?;
        if let Some(why) = self.alarms().holding() {
            return Err(Failure::transient(codes::CANNOT_ARM, format!("arming while an alarm holds: {why}")));
        }
        self.still_mine(self.shared.call_timeout)?;
        self.shared.append(Fact::PivotArmed { attempt: self.attempt }).await
    }

    /// The pivot only: journals what was read about the armed call.
    ///
    /// # Errors
    /// Permanent if it is not armed; interrupted.
    pub async fn settle(&self, seen: Settled<D::Witness>) -> Result<(), Failure> {
        self.shared
            .append(match seen {
                Settled::NotHappened(witness) => Fact::PivotDisarmed { witness },
                Settled::Happened(witness) => Fact::PointOfNoReturn { witness },
            })
            .await
    }

    /// What is logged on behalf of this call carries the run and the step.
    pub(crate) fn span(&self) -> tracing::Span {
        let (run, step, attempt) = (&self.shared.run_id, self.step, self.attempt);
        tracing::info_span!("step", %run, %step, attempt, doing = ?self.doing)
    }

    pub(crate) fn verifying(&self) {
        self.shared.progress.send_modify(|progress| {
            progress.doing = Doing::Verify;
            progress.wait = None;
        });
    }
}

fn read<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, Failure> {
    T::deserialize(value)
        .map_err(|error| Failure::permanent(codes::JOURNAL_SHAPE, format!("reading {what}")).caused_by(&error))
}

fn write<T: Serialize>(value: &T, what: &str) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|error| Failure::permanent(codes::JOURNAL_SHAPE, format!("writing {what}")).caused_by(&error))
}
