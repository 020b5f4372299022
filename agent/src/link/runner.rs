//! Runs jobs: once per id, however often it is sent and across reconnects; the urgent ones never behind the long ones; each
//! under its deadline. What a job answered is kept until the coordinator has it. What was done is never done again under its id;
//! a failure that was acknowledged is over, and asked for again it is new work.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::{
    ids::JobId,
    job::{Job, JobFailure, JobProgress},
};
use runtime::supervision::chain;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    jobs::{JobCx, Memory, NamedQuery, Registry, codes},
    spool::SpoolError,
    state::Shared,
};

/// The agent has as many jobs as it takes.
pub const FULL: &str = "PU0790";
/// A command of a deposed coordinator, or of another store.
pub const STALE: &str = "PU0791";

/// How many jobs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtOnce {
    /// That run or wait; more are refused.
    pub jobs_max: usize,
    /// Of the long ones that run; more wait for their turn, within their deadline.
    pub long_jobs_max: usize,
}

impl Default for AtOnce {
    fn default() -> AtOnce {
        AtOnce { jobs_max: 64, long_jobs_max: 3 }
    }
}

/// What a finished job answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done { id: JobId, output: serde_json::Value },
    Failed { id: JobId, failure: JobFailure },
}

impl Answer {
    pub fn id(&self) -> &JobId {
        match self {
            Answer::Done { id, .. } | Answer::Failed { id, .. } => id,
        }
    }
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// It runs, or will.
    Accepted,
    /// It was done before; its answer is among [`Runner::answers`] again.
    Answered,
    Refused {
        code: &'static str,
        reason: String,
    },
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    shared: Shared,
    registry: Registry,
    memory: Arc<Memory>,
    queries: Arc<[NamedQuery]>,
    agent: String,
    running: Mutex<HashMap<JobId, CancellationToken>>,
    /// Not acknowledged yet.
    answers: Mutex<BTreeMap<JobId, Answer>>,
    progress: Mutex<BTreeMap<JobId, JobProgress>>,
    changed: watch::Sender<u64>,
    jobs_max: usize,
    long: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// Takes over the answers that an earlier process could not deliver.
    pub async fn new(
        shared: Shared,
        registry: Registry,
        agent: String,
        queries: Vec<NamedQuery>,
        at_once: AtOnce,
    ) -> Result<Runner, SpoolError> {
        let undelivered: Vec<Answer> = shared.spool.unacknowledged_results().await?;
        let answers = undelivered.into_iter().map(|answer| (answer.id().clone(), answer)).collect();
        Ok(Runner(Arc::new(Inner {
            shared,
            registry,
            memory: Arc::default(),
            queries: queries.into(),
            agent,
            running: Mutex::default(),
            answers: Mutex::new(answers),
            progress: Mutex::default(),
            changed: watch::Sender::new(0),
            jobs_max: at_once.jobs_max,
            long: Arc::new(Semaphore::new(at_once.long_jobs_max)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })))
    }

    /// The kinds of jobs, for `Hello`.
    pub fn kinds(&self) -> Vec<String> {
        self.0.registry.kinds().map(str::to_owned).collect()
    }

    /// Business queries by name, for `Hello`.
    pub fn queries(&self) -> Vec<String> {
        self.0.queries.iter().map(|query| query.name.clone()).collect()
    }

    pub fn in_flight(&self) -> Vec<JobId> {
        locked(&self.0.running).keys().cloned().collect()
    }

    /// Changes whenever there is a new answer.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Answers that the coordinator has not acknowledged.
    pub fn answers(&self) -> Vec<Answer> {
        locked(&self.0.answers).values().cloned().collect()
    }

    /// How far each job has come that advanced since the last call.
    pub fn take_progress(&self) -> Vec<JobProgress> {
        std::mem::take(&mut *locked(&self.0.progress)).into_values().collect()
    }

    /// Takes a job in. Its deadline counts from now.
    pub async fn offer(&self, job: Job) -> Offer {
        if locked(&self.0.running).contains_key(&job.id) {
            return Offer::Accepted;
        }
        if locked(&self.0.answers).contains_key(&job.id) {
            return Offer::Answered;
        }
        match self.0.shared.spool.result::<Answer>(job.id.as_str()).await {
            Ok(Some(done @ Answer::Done { .. })) => {
                locked(&self.0.answers).insert(job.id.clone(), done);
                return Offer::Answered;
            }
            Ok(Some(Answer::Failed { .. }) | None) => {}
            Err(error) => tracing::error!(error = %chain(&error), "the results cannot be read, running the job again"),
        }
        let Some(urgent) = self.0.registry.urgent(&job.kind) else {
            let reason = format!("this agent has no jobs of kind {:?}", job.kind);
            return Offer::Refused { code: codes::UNKNOWN_KIND, reason };
        };
        let cancel = self.0.stop.child_token();
        {
            let mut running = locked(&self.0.running);
            if running.len() >= self.0.jobs_max {
                let reason = format!("{} jobs are running or waiting (limits.jobs_max)", self.0.jobs_max);
                return Offer::Refused { code: FULL, reason };
            }
            running.insert(job.id.clone(), cancel.clone());
        }
        self.0.tasks.spawn(Arc::clone(&self.0).run(job, urgent, cancel));
        Offer::Accepted
    }

    /// Asks a job to stop; it answers `cancelled`.
    pub fn cancel(&self, id: &JobId) {
        if let Some(job) = locked(&self.0.running).get(id) {
            job.cancel();
        }
    }

    /// The coordinator has the answer.
    pub async fn acknowledge(&self, id: &JobId) -> Result<(), SpoolError> {
        locked(&self.0.answers).remove(id);
        self.0.shared.spool.acknowledge_result(id.as_str()).await
    }

    /// The surroundings of a job for a watcher of this agent, which does its own work outside the coordinator's jobs.
    pub fn own(&self, id: JobId, on: proto::job::Expected, within: Duration) -> JobCx {
        self.0.cx(id, on, within, self.0.stop.child_token(), false)
    }

    /// Cancels everything and waits at most `limit`.
    pub async fn close(&self, limit: Duration) {
        self.0.stop.cancel();
        self.0.tasks.close();
        if self.0.shared.clock.timeout(limit, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.0.tasks.len(), "jobs did not stop in time");
        }
    }
}

impl Inner {
    fn cx(
        self: &Arc<Inner>,
        id: JobId,
        on: proto::job::Expected,
        within: Duration,
        stop: CancellationToken,
        shown: bool,
    ) -> JobCx {
        let (here, shared) = (Arc::clone(self), self.shared.clone());
        JobCx {
            id,
            agent: self.agent.clone(),
            on,
            dial: shared.dialer.clone(),
            queries: self.queries.clone(),
            memory: self.memory.clone(),
            clock: shared.clock.clone(),
            deadline: shared.clock.mono() + within,
            stop,
            progress: Arc::new(move |progress| {
                if shown {
                    locked(&here.progress).insert(progress.id.clone(), progress);
                }
            }),
            events: Arc::new(move |event| shared.event(event)),
        }
    }

    async fn run(self: Arc<Inner>, job: Job, urgent: bool, cancel: CancellationToken) {
        let cx = self.cx(job.id.clone(), job.on.clone(), Duration::from_millis(job.deadline_ms), cancel.clone(), true);
        let began = self.shared.clock.mono();
        // Waiting for its turn ends with the cancellation or the deadline; the registry then answers for both.
        let turn = async { if urgent { None } else { self.long.clone().acquire_owned().await.ok() } };
        let turn = tokio::select! {
            turn = turn => turn,
            () = cancel.cancelled() => None,
            () = self.shared.clock.sleep_until(cx.deadline) => None,
        };
        let span = tracing::info_span!("job", job = %job.id, kind = job.kind);
        let end = self.registry.run(&job.kind, cx, job.body.clone()).instrument(span).await;
        drop(turn);
        let ms = crate::state::millis(self.shared.clock.mono().since(began));
        crate::metrics::job_ended(end.is_ok());
        match &end {
            Ok(_) => tracing::info!(job = %job.id, kind = job.kind, ms, "job done"),
            Err(failure) if cancel.is_cancelled() => {
                tracing::info!(job = %job.id, kind = job.kind, ms, code = failure.code, "job taken back");
            }
            Err(failure) => {
                tracing::warn!(job = %job.id, kind = job.kind, ms, code = failure.code, doing = failure.doing,
                    chain = ?failure.chain, "job failed");
            }
        }
        let answer = match end {
            Ok(output) => Answer::Done { id: job.id.clone(), output },
            Err(failure) => Answer::Failed { id: job.id.clone(), failure },
        };
        // Stopping the agent is no answer: the job is sent again to the next process. An urgent answer does not wait
        // for the disk: should it be lost with this process, the job is sent and run again.
        if self.stop.is_cancelled() {
            return;
        }
        if urgent {
            self.publish(&job.id, &answer);
            self.store(&answer).await;
        } else {
            self.store(&answer).await;
            self.publish(&job.id, &answer);
        }
    }

    fn publish(&self, id: &JobId, answer: &Answer) {
        locked(&self.answers).insert(id.clone(), answer.clone());
        locked(&self.running).remove(id);
        locked(&self.progress).remove(id);
        self.changed.send_modify(|version| *version += 1);
    }

    async fn store(&self, answer: &Answer) {
        if let Err(error) = self.shared.spool.put_result(answer.id().as_str(), answer).await {
            tracing::error!(error = %chain(&error), job = %answer.id(), "an answer cannot be stored");
        }
    }
}
