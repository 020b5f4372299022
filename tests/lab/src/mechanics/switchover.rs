//! The switchover: guardrails that look at the servers, then writes stopped, connections dropped, green caught up, sequences
//! copied, the caller's move of the names, connections and writes opened. Before the move any failure puts everything back.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join, try_join_all};
use jiff::Timestamp;
use runtime::clock::{Clock, Mono};
use tokio_util::sync::CancellationToken;

use super::{Sides, catch_up, green, guardrails};
use crate::fleet::{self, Admin, Error, Server};

/// A phase of [`run`], in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The guardrails are being read. Everything serves.
    Guardrails,
    /// Writes are being stopped on both sides.
    WritesStopped,
    /// Connections are being dropped and new ones refused.
    ConnectionsDropped,
    /// Green catches up; sequences are copied.
    CatchUp,
    /// Green has everything; the caller moves the names.
    Move,
    /// Green accepts connections and writes: there is no way back.
    Open,
    /// Subscriptions, slots and publications are being removed.
    CleanUp,
}

/// Told when a phase begins.
pub type Progress = Arc<dyn Fn(Phase) + Send + Sync>;

/// Limits of a switchover.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For everything before the move. When it is over, everything is put back.
    pub timeout: Duration,
    /// Most lag in bytes that a slot may have when it begins.
    pub lag_bytes_max: u64,
    /// Longest that a writing transaction on blue may have run when it begins.
    pub write_age_max: Duration,
    /// From writes being stopped to connections being dropped and refused.
    pub drop_delay: Duration,
}

impl Limits {
    /// Limits for a time-out: one mebibyte of lag for each second, writing transactions of up to a minute.
    #[must_use]
    pub fn for_timeout(timeout: Duration) -> Self {
        Self {
            timeout,
            lag_bytes_max: timeout.as_secs().max(1) << 20,
            write_age_max: Duration::from_secs(60),
            drop_delay: Duration::ZERO,
        }
    }
}

/// Why the guardrails refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Replication does not run in a database.
    #[error("replication is not running for database {database}")]
    NotReplicating {
        /// Which.
        database: String,
    },
    /// Too far behind.
    #[error("replication lag of {lag_bytes} bytes on {database} is above the limit of {limit_bytes}")]
    Lag {
        /// Which database.
        database: String,
        /// What it has.
        lag_bytes: u64,
        /// What it may have.
        limit_bytes: u64,
    },
    /// A client writes on green.
    #[error("active writes on the green environment: process {pid}")]
    GreenWrites {
        /// Its backend.
        pid: i32,
    },
    /// A slot on blue that is not the deployment's.
    #[error("the blue environment has the external replication slot {slot}")]
    ForeignSlot {
        /// Which.
        slot: String,
    },
    /// Blue subscribes somewhere.
    #[error("the blue environment has the subscription {subscription} in database {database}")]
    ForeignSubscription {
        /// Where.
        database: String,
        /// Which.
        subscription: String,
    },
    /// A long writing transaction.
    #[error("a long-running write on the blue environment: process {pid}, {seconds} s")]
    LongWrite {
        /// Its backend.
        pid: i32,
        /// Its age.
        seconds: u64,
    },
    /// DDL that is running.
    #[error("a running schema change on the blue environment: process {pid}")]
    Ddl {
        /// Its backend.
        pid: i32,
    },
}

/// How a switchover did not happen. Everything is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum NotSwitched {
    /// A guardrail refused; nothing was touched.
    #[error("a guardrail refused: {0}")]
    Refused(Refusal),
    /// The time-out came before green had everything.
    #[error("the time-out of {seconds} s came in phase {phase:?}: {last}")]
    TimedOut {
        /// How long was allowed.
        seconds: u64,
        /// Where it came.
        phase: Phase,
        /// What was last seen.
        last: String,
    },
    /// Sequences could not be copied.
    #[error("sequences could not be synchronised")]
    Sequences(#[source] fleet::Error),
    /// The caller cancelled it or its move of the names failed.
    #[error("cancelled: {0}")]
    Cancelled(String),
    /// A server failed.
    #[error("a server failed in phase {phase:?}")]
    Failed {
        /// Where.
        phase: Phase,
        /// How.
        #[source]
        source: fleet::Error,
    },
    /// A server failed and blue could not be opened again either.
    #[error("not switched, and blue could not be opened again")]
    Stuck(#[source] fleet::Error),
}

/// What a switchover did.
#[derive(Debug, Clone)]
pub struct Report {
    /// When each phase began.
    pub phases: Vec<(Phase, Timestamp)>,
    /// From the first refused write to the first accepted one, as the servers see it.
    pub writes_stopped: Duration,
    /// Client sessions that were ended on each side.
    pub ended: (u64, u64),
    /// Sequences copied.
    pub sequences: u64,
    /// What could not be removed after the cut; empty as a rule.
    pub left_behind: Vec<String>,
}

/// Reads the guardrails without touching anything.
///
/// # Errors
/// [`NotSwitched::Refused`] by the first that trips.
pub async fn guardrails(sides: &Sides, limits: &Limits) -> Result<(), NotSwitched> {
    match guardrails::check(sides, limits).await {
        Ok(None) => Ok(()),
        Ok(Some(refusal)) => Err(NotSwitched::Refused(refusal)),
        Err(source) => Err(NotSwitched::Failed { phase: Phase::Guardrails, source }),
    }
}

/// Switches over. Meanwhile the servers themselves refuse clients. `moved` is called once green has everything; when it answers,
/// green is opened.
///
/// # Errors
/// When it did not happen; then blue serves as before, and replication goes on.
pub async fn run<M, F>(
    sides: &Sides,
    limits: &Limits,
    progress: Progress,
    cancel: &CancellationToken,
    moved: M,
) -> Result<Report, NotSwitched>
where
    M: FnOnce() -> F + Send,
    F: Future<Output = Result<(), String>> + Send,
{
    let clock = Clock::system();
    let log = PhaseLog { progress, clock: clock.clone(), entered: Mutex::new(Vec::new()) };
    log.enter(Phase::Guardrails);
    let failed = |source| NotSwitched::Failed { phase: log.now(), source };
    let opened = async { Cut::open(sides, clock).await.map_err(failed) };
    let cut = tokio::select! {
        ready = try_join(guardrails(sides, limits), opened) => ready?.1,
        () = cancel.cancelled() => return Err(NotSwitched::Cancelled("by the caller".into())),
    };
    let sequences = match cut.close_and_move(limits, &log, cancel, moved).await {
        Ok(sequences) => sequences,
        Err(reason) => {
            cut.put_back().await.map_err(NotSwitched::Stuck)?;
            return Err(reason);
        }
    };
    // From here on there is no way back: what fails is reported, not undone.
    let mut left_behind = cut.open_green().await;
    let writes_stopped = cut.clock.mono().since(cut.stopped());
    log.enter(Phase::Open);
    log.enter(Phase::CleanUp);
    left_behind.extend(cut.clean_up().await);
    let ended = *cut.ended.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report { phases: log.into_phases(), writes_stopped, ended, sequences, left_behind })
}

/// Which phases were entered, and when.
struct PhaseLog {
    progress: Progress,
    clock: Clock,
    entered: Mutex<Vec<(Phase, Timestamp)>>,
}

impl PhaseLog {
    fn enter(&self, phase: Phase) {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner).push((phase, self.clock.now()));
        (self.progress)(phase);
    }

    fn now(&self) -> Phase {
        self.entered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .map_or(Phase::Guardrails, |(phase, _)| *phase)
    }

    fn into_phases(self) -> Vec<(Phase, Timestamp)> {
        self.entered.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The servers of a switchover with the sessions that carry it, opened before anything is stopped.
struct Cut<'a> {
    sides: &'a Sides,
    clock: Clock,
    blue: Vec<Member>,
    green: Vec<Member>,
    databases: Vec<catch_up::Pair>,
    stopped: Mutex<Mono>,
    ended: Mutex<(u64, u64)>,
}

/// A server and the provider's session on it.
struct Member {
    server: Arc<Server>,
    session: Admin,
}

const READ_ONLY: &str = "default_transaction_read_only";
const POLL: Duration = Duration::from_millis(5);

impl<'a> Cut<'a> {
    async fn open(sides: &'a Sides, clock: Clock) -> Result<Self, Error> {
        let member = async |server: Arc<Server>| {
            let session = server.admin("postgres").await?;
            Ok::<_, Error>(Member { server, session })
        };
        let blue = try_join_all(sides.blue.members().into_iter().map(member)).await?;
        let green = try_join_all(sides.green.members().into_iter().map(member)).await?;
        let databases = try_join_all(sides.links.iter().map(|link| catch_up::Pair::open(sides, link))).await?;
        let (stopped, ended) = (Mutex::new(clock.mono()), Mutex::new((0, 0)));
        Ok(Self { sides, clock, blue, green, databases, stopped, ended })
    }

    fn stopped(&self) -> Mono {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything before the point of no return, within the time-out. Returns how many sequences were copied.
    async fn close_and_move<M, F>(
        &self,
        limits: &Limits,
        log: &PhaseLog,
        cancel: &CancellationToken,
        moved: M,
    ) -> Result<u64, NotSwitched>
    where
        M: FnOnce() -> F + Send,
        F: Future<Output = Result<(), String>> + Send,
    {
        let last = Mutex::new(String::from("stopping writes"));
        let seen = || last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let closing = async {
            self.stop(limits.drop_delay, log)
                .await
                .map_err(|source| NotSwitched::Failed { phase: log.now(), source })?;
            log.enter(Phase::CatchUp);
            let sequences = catch_up::all(&self.databases, &last).await?;
            catch_up::readers(&self.green_sessions(), &last)
                .await
                .map_err(|source| NotSwitched::Failed { phase: log.now(), source })?;
            Ok(sequences)
        };
        let sequences = tokio::select! {
            closed = tokio::time::timeout(limits.timeout, closing) => match closed {
                Ok(closed) => closed?,
                Err(_) => return Err(NotSwitched::TimedOut { seconds: limits.timeout.as_secs(), phase: log.now(), last: seen() }),
            },
            () = cancel.cancelled() => return Err(NotSwitched::Cancelled("by the caller".into())),
        };
        log.enter(Phase::Move);
        moved().await.map_err(NotSwitched::Cancelled)?;
        Ok(sequences)
    }

    fn green_sessions(&self) -> Vec<&Admin> {
        self.green.iter().map(|member| &member.session).collect()
    }

    /// Stops writes, refuses connections, drops those there are.
    async fn stop(&self, drop_delay: Duration, log: &PhaseLog) -> Result<(), Error> {
        log.enter(Phase::WritesStopped);
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.mono();
        for member in &self.blue {
            member.server.set_override(READ_ONLY, Some("on"))?;
        }
        try_join_all(self.blue.iter().map(|member| fleet::reload(&member.session))).await?;
        log.enter(Phase::ConnectionsDropped);
        tokio::time::sleep(drop_delay).await;
        for member in self.blue.iter().chain(&self.green) {
            member.server.configure(|conf| conf.closed = true)?;
        }
        self.reload_all().await?;
        let (blue, green) = futures_util::future::join(end_clients(&self.blue), end_clients(&self.green)).await;
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = (blue?, green?);
        Ok(())
    }

    async fn reload_all(&self) -> Result<(), Error> {
        let all = self.blue.iter().chain(&self.green);
        try_join_all(all.map(|member| fleet::reload(&member.session))).await.map(drop)
    }

    /// Everything as it was before [`Cut::stop`].
    async fn put_back(&self) -> Result<(), Error> {
        let mut first = Ok(());
        for (members, read_only) in [(&self.blue, true), (&self.green, false)] {
            for member in members {
                let configured = member.server.configure(|conf| {
                    conf.closed = false;
                    if read_only {
                        conf.overrides.remove(READ_ONLY);
                    }
                });
                first = first.and(configured);
            }
        }
        for outcome in join_all(self.blue.iter().chain(&self.green).map(refresh)).await {
            first = first.and(outcome);
        }
        first
    }

    /// Opens green for connections and writes, and blue for connections. Returns what failed.
    async fn open_green(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (members, read_only) in [(&self.green, false), (&self.blue, true)] {
            for member in members {
                let configured = member.server.configure(|conf| {
                    conf.closed = false;
                    if !read_only {
                        conf.overrides.remove(READ_ONLY);
                    }
                });
                failures.extend(configured.err().map(|error| error.chain()));
            }
        }
        let outcomes = join_all(self.green.iter().chain(&self.blue).map(refresh)).await;
        failures.extend(outcomes.into_iter().filter_map(Result::err).map(|error| error.chain()));
        failures
    }

    /// Ends replication: green's subscriptions first, then blue's slots and publications. Returns what failed.
    async fn clean_up(&self) -> Vec<String> {
        let detached = green::detach(self.sides).await;
        let tag =
            self.sides.links.first().and_then(|link| link.publication.strip_prefix("rds_pub_")).unwrap_or_default();
        let cleaned = green::clean_up(&self.sides.blue.writer, tag).await.map(drop);
        [detached, cleaned].into_iter().filter_map(Result::err).map(|error| error.chain()).collect()
    }
}

/// Reloads a member: by its open session, or by a fresh one if that is gone.
async fn refresh(member: &Member) -> Result<(), Error> {
    match fleet::reload(&member.session).await {
        Ok(()) => Ok(()),
        Err(_) => member.server.reload().await,
    }
}

/// Ends every session of clients on these servers, and jobs that write for them, and returns when none is left.
async fn end_clients(members: &[Member]) -> Result<u64, Error> {
    let ended = members.iter().map(|member| async {
        const END: &str = "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity \
            where pid <> pg_backend_pid() and usename not like 'rds%' and (backend_type = 'client backend' or backend_xid is not null)";
        let mut most = 0;
        loop {
            let row = member.session.query_one(END, &[]).await.map_err(Error::sql("ending client sessions"))?;
            match u64::try_from(row.get::<_, i64>(0)).unwrap_or(0) {
                0 => return Ok::<_, Error>(most),
                found => most = most.max(found),
            }
            tokio::time::sleep(POLL).await;
        }
    });
    try_join_all(ended).await.map(|ended| ended.into_iter().sum())
}
