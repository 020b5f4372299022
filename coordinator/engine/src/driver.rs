//! The one writer: a driver per run that owns its journal and its fold, and does what [`decide`] says.
//!
//! It does three things at once, in one task: the work of the move at hand, the requests of steps, monitors and
//! [`Handle`]s to append, and the tick that renews the lease and reads the inbox. Nothing else appends.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::cx::{Faults, Lease, Mail, Progress};
use crate::fact::{Entry, Fact, Outcome};
use crate::failure::Failure;
use crate::ids::{Code, RunId, Source};
use crate::journal::{FoldError, Holder, Journal, JournalError};
use crate::plan::{Plan, StepOrder};
use crate::state::{IllegalFact, State};
use crate::step::Domain;

const MAILBOX: usize = 1024;

/// Limits and hooks of a driver.
#[derive(Clone)]
pub struct Options<D: Domain> {
    /// How long the lease holds without a renewal; renewed every third of it.
    pub lease_ttl: Duration,
    /// The longest a changing call may take; at most a third of the lease.
    pub call_timeout: Duration,
    /// How often the inbox is read even if nobody said that it has changed.
    pub inbox_every: Duration,
    /// How long work that was asked to come back may take before it is dropped. Never applied while armed.
    pub interrupt_grace: Duration,
    /// Delays between tries of an undo, a calm, or a look that failed to help.
    pub retry_delay_max: Duration,
    /// Called with every fact that this driver has appended: metrics, logs, watchers. Must not block.
    pub on_fact: Option<OnFact<D>>,
    /// Tests only: makes effects fail.
    pub faults: Option<Faults>,
}

/// See [`Options::on_fact`].
pub type OnFact<D> = Arc<dyn Fn(&Entry<D>) + Send + Sync>;

impl<D: Domain> Default for Options<D> {
    /// 30 s lease, 10 s calls, inbox every 500 ms, 60 s grace, retries at most 30 s apart, no hooks.
    fn default() -> Options<D> {
        Options {
            lease_ttl: Duration::from_secs(30),
            call_timeout: Duration::from_secs(10),
            inbox_every: Duration::from_millis(500),
            interrupt_grace: Duration::from_secs(60),
            retry_delay_max: Duration::from_secs(30),
            on_fact: None,
            faults: None,
        }
    }
}

/// What a driver is made of.
pub struct Parts<D: Domain> {
    /// The plan; its steps must be those of the run's `Created`.
    pub plan: Arc<Plan<D>>,
    /// What steps and monitors may touch.
    pub world: Arc<D::World>,
    /// The store.
    pub journal: Arc<dyn Journal>,
    /// Time.
    pub clock: Clock,
    /// Who takes the lease.
    pub holder: Holder,
    /// Limits and hooks.
    pub options: Options<D>,
}

/// How driving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The run has ended; it needs no driver any more.
    Finished(Outcome),
    /// Somebody else drives it now, or the lease could not be renewed.
    Fenced,
    /// `stop` was cancelled; the run goes on when it is driven again.
    Stopped,
}

/// Why a run cannot be driven.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The store, or somebody else's lease (`Held`).
    #[error("run {id} cannot be driven")]
    Journal { id: RunId, source: JournalError },
    /// The journal cannot be folded.
    #[error("run {id} cannot be driven")]
    Fold { id: RunId, source: FoldError },
    /// This program has another plan: nothing is touched.
    #[error(
        "run {id} was created by a version with the steps {:?}; this version has {:?}: run the version that \
         created it",
        journal.steps,
        ours.steps
    )]
    PlanDiffers { id: RunId, journal: StepOrder, ours: StepOrder },
    /// The engine wanted to append what its own fold refuses: a mistake in the engine.
    #[error("run {id}: the engine contradicts itself")]
    Illegal { id: RunId, source: IllegalFact },
}

/// Drives one run. Made with [`Driver::new`], consumed by [`Driver::run`].
pub struct Driver<D: Domain> {
    pub(crate) id: RunId,
    pub(crate) parts: Parts<D>,
    pub(crate) mail: mpsc::Receiver<Mail<D>>,
    pub(crate) mailbox: mpsc::Sender<Mail<D>>,
    pub(crate) state: watch::Sender<Arc<State<D>>>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) lease: watch::Sender<Lease>,
}

/// A cheap view of a driver, and the way to hand it observations.
#[derive(Clone)]
pub struct Handle<D: Domain> {
    id: RunId,
    mailbox: mpsc::Sender<Mail<D>>,
    state: watch::Receiver<Arc<State<D>>>,
    progress: watch::Receiver<Progress>,
    lease: watch::Receiver<Lease>,
}

impl<D: Domain> Driver<D> {
    /// A driver of run `id`, and its handle. Nothing happens before [`Driver::run`].
    pub fn new(id: RunId, parts: Parts<D>) -> (Driver<D>, Handle<D>) {
        let (mailbox, mail) = mpsc::channel(MAILBOX);
        let state = watch::Sender::new(Arc::new(State::empty()));
        let (progress, lease) = (watch::Sender::new(Progress::default()), watch::Sender::new(Lease::default()));
        let handle = Handle {
            id: id.clone(),
            mailbox: mailbox.clone(),
            state: state.subscribe(),
            progress: progress.subscribe(),
            lease: lease.subscribe(),
        };
        (Driver { id, parts, mail, mailbox, state, progress, lease }, handle)
    }

    /// Takes the lease, folds the journal, and drives until the run ends, the lease is lost, or `stop` is cancelled.
    /// May be dropped at any time, as a crash would: another driver resumes.
    ///
    /// # Errors
    /// See [`DriveError`]; nothing was touched then, except for [`DriveError::Illegal`] and a store that failed for too long.
    pub async fn run(self, stop: CancellationToken) -> Result<Ended, DriveError> {
        crate::actor::drive(self, stop).await
    }
}

impl<D: Domain> Handle<D> {
    /// The run.
    pub fn run_id(&self) -> &RunId {
        &self.id
    }

    /// The fold as the driver has it. Empty until the driver has read the journal.
    pub fn state(&self) -> Arc<State<D>> {
        self.state.borrow().clone()
    }

    /// The fold, to wait on.
    pub fn states(&self) -> watch::Receiver<Arc<State<D>>> {
        self.state.clone()
    }

    /// The transient progress, to read or wait on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The lease: others' leases may be renewed only while this one holds.
    pub fn lease(&self) -> watch::Receiver<Lease> {
        self.lease.clone()
    }

    /// Journals what a source must not lose. Returns once it is in the journal, also if it was before: then it may be
    /// acknowledged to the source.
    ///
    /// # Errors
    /// Interrupted, if the driver is gone or fenced: keep it and hand it to the next driver.
    pub async fn observe(&self, source: Source, n: u64, event: D::Event) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        let gone = || Failure::interrupted("the driver is gone");
        self.mailbox.send(Mail::Observe { source, n, event, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Journals something worth telling that came from outside any step.
    ///
    /// # Errors
    /// Interrupted, if the driver is gone or fenced.
    pub async fn warn(&self, code: Code, detail: impl std::fmt::Display) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        let fact = Fact::Warned { step: None, code, detail: detail.to_string() };
        let gone = || Failure::interrupted("the driver is gone");
        self.mailbox.send(Mail::Append { fact, reply: Some(reply) }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
