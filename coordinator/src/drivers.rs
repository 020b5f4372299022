//! One driver per active upgrade while this coordinator leads (`leading.rs`): started for every run that the store calls active,
//! started again when it dies, and given what it needs from outside (the agents' events, the lease that agents' leases depend on).
//!
//! No decision about an upgrade is made here; that is the engine's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::driver::{DriveError as Error, OnFact};
use engine::failure::Failure;
use engine::journal::{FoldError, entries};
use engine::{
    Driver, Ended, Entry, Fact, Handle, Holder, JournalError, Options, Parts, Plan, PlanShape, RunId, Seq, Source,
    State, StepId, Subject,
};
use proto::ids::{AgentId, ClusterArn};
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::shutdown::Stop;
use runtime::supervision::chain;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span};

use crate::cloudwatch::CloudWatch;
use crate::codes;
use crate::hooks::Hooks;
use crate::link::{Agents, Hub};
use crate::metrics;
use crate::operator::tally::Tally;
use crate::rds::Rds;
use crate::sampling;
use crate::spec::UpgradeSpec;
use crate::store::{About, Store};
use crate::world::{Upgrade, World, upgrade_id};

mod leading;
mod telling;
#[cfg(test)]
pub(crate) mod tests;

/// Makes the plan of an upgrade from its spec.
pub type Plans = Arc<dyn Fn(&UpgradeSpec) -> Plan<Upgrade> + Send + Sync>;

/// Shortest and longest pause before a driver that died is started again.
const RESTART_WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Between two looks at a lease that another holder has.
const FREE_EVERY: Duration = Duration::from_millis(250);
/// How long agents have to settle the last word of an upgrade; they need nothing from it, so it is not retried.
const FAREWELL: Duration = Duration::from_secs(10);
/// Finished upgrades whose counts stay in memory.
const FINISHED_MAX: usize = 50;

/// What drivers are made of.
pub struct DriversOptions {
    pub store: Arc<dyn Store>,
    pub hub: Hub,
    pub rds: Arc<dyn Rds>,
    pub cloudwatch: Arc<dyn CloudWatch>,
    pub plans: Plans,
    pub clock: Clock,
    pub holder: Holder,
    /// How long a driver's lease holds without renewal.
    pub lease: Duration,
    /// The longest a changing call to AWS may take.
    pub call_timeout: Duration,
    /// Who is asked and told.
    pub hooks: Hooks,
    pub stop: Stop,
}

/// All drivers of this process. Cheap to clone.
#[derive(Clone)]
pub struct Drivers(Arc<Inner>);

struct Inner {
    options: DriversOptions,
    running: Mutex<BTreeMap<RunId, Running>>,
    tasks: TaskTracker,
    term: Mutex<Option<Term>>,
}

/// From taking the lead to losing it: its drivers, and what stops them.
#[derive(Clone)]
struct Term {
    /// The lead's epoch: no two terms of a store have the same.
    number: u64,
    tasks: TaskTracker,
    token: CancellationToken,
}

/// One upgrade as this process knows it.
#[derive(Clone)]
pub struct Running {
    pub agents: Agents,
    pub about: Arc<About>,
    pub shape: Arc<PlanShape>,
    pub tally: Arc<Mutex<Tally>>,
    /// CloudWatch's newest `OldestReplicationSlotLag`, in bytes, for people only.
    pub cloudwatch_lag: Arc<Mutex<Option<u64>>>,
    /// How far slots are behind in time, for people only.
    pub(crate) ages: Arc<Mutex<sampling::Ages>>,
    /// `None` between two drivers, and once the run has ended.
    pub handle: Option<Handle<Upgrade>>,
    /// The fold as the last driver left it, while there is no handle.
    pub last: Option<Arc<State<Upgrade>>>,
    /// Why no driver can drive it, when none can.
    pub trouble: Option<String>,
    pub ended: bool,
    term: u64,
}

impl Running {
    /// The counts so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No driver drives it now: what the last one knew stays.
    fn rest(&mut self) {
        let state = self.handle.take().map(|handle| handle.state());
        self.last = state.filter(|state| state.spec().is_some()).or_else(|| self.last.take());
    }
}

impl Drivers {
    /// Leads if nobody does: opens every active run's table, starts its driver, lets agents in. Else it stands by, and takes over
    /// when the one that leads is gone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(options: DriversOptions) -> Result<Drivers, JournalError> {
        let drivers = Drivers(Arc::new(Inner {
            options,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            term: Mutex::default(),
        }));
        drivers.0.options.hub.follow(None);
        let lead = drivers.stand().await?;
        drivers.0.tasks.spawn(drivers.clone().take_turns(lead));
        Ok(drivers)
    }

    /// Creates a run and drives it. The cluster's ARN is the subject: one active upgrade each.
    ///
    /// # Errors
    /// `SubjectBusy`, `Held` while another coordinator leads, or the store's own.
    pub async fn start(&self, cluster: &ClusterArn, spec: UpgradeSpec, about: &About) -> Result<RunId, JournalError> {
        let options = &self.0.options;
        let term = self.term().clone();
        let term = term.ok_or(JournalError::Held { holder: String::new(), remaining: Duration::ZERO })?;
        let (id, subject) = (fresh_id(), Subject(cluster.to_string()));
        let plan = (options.plans)(&spec);
        options.store.prepare(&id, about).await?;
        self.open_bookmarks(&id).await?;
        engine::journal::start::<Upgrade>(&*options.store, &subject, &id, spec, plan.shape(), options.clock.now())
            .await?;
        self.drive(&term, id.clone(), &subject).await?;
        Ok(id)
    }

    /// One upgrade, if this process has driven it.
    pub fn running(&self, id: &RunId) -> Option<Running> {
        self.lock().get(id).cloned()
    }

    /// Every upgrade under way that this process drives, and those that it has seen end.
    pub fn all(&self) -> Vec<(RunId, Running)> {
        self.lock().iter().map(|(id, running)| (id.clone(), running.clone())).collect()
    }

    /// Waits until every driver has come back after the stop; a driver stops at its next look.
    pub async fn join(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// What the drivers were made of.
    pub fn options(&self) -> &DriversOptions {
        &self.0.options
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn term(&self) -> MutexGuard<'_, Option<Term>> {
        self.0.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This coordinator leads from now on, under this epoch at least.
    fn begin(&self, epoch: engine::Epoch) -> Term {
        self.0.options.hub.lead(proto::epoch::Epoch(epoch.0));
        let term = Term { number: epoch.0, tasks: TaskTracker::new(), token: CancellationToken::new() };
        *self.term() = Some(term.clone());
        term
    }

    /// It does not lead any more: drivers stop at their next look, and what is known of them is forgotten.
    fn end(&self, term: &Term) {
        *self.term() = None;
        self.lock().clear();
        term.token.cancel();
        term.tasks.close();
    }

    /// Nothing when a later term has the run.
    fn change(&self, term: u64, id: &RunId, change: impl FnOnce(&mut Running)) {
        if let Some(running) = self.lock().get_mut(id).filter(|running| running.term == term) {
            change(running);
        }
    }

    /// Opens the run's table and spawns what keeps its driver alive.
    async fn drive(&self, term: &Term, id: RunId, subject: &Subject) -> Result<(), JournalError> {
        let options = &self.0.options;
        let doing = |what: String| JournalError::Store { doing: format!("resuming {id}"), source: what.into() };
        let cluster: ClusterArn = subject.as_str().parse().map_err(|error| doing(format!("{error}")))?;
        let upgrade = upgrade_id(&id).map_err(|failure| doing(failure.to_string()))?;
        let (about, wish) = options.store.about(&id).await?;
        let agents = options.hub.open(&cluster, &upgrade, about.roster.clone(), wish);
        let (spec, tally, trouble) = match entries::<Upgrade>(&*options.store, &id, Seq(0)).await {
            Ok(entries) => (spec_of(&entries), tallied(&entries), None),
            Err(FoldError::Journal { source: failed @ JournalError::Store { .. }, .. }) => return Err(failed),
            Err(error) => (None, Tally::default(), Some(refused(&error, damages(&error)))),
        };
        let shape = spec.as_ref().map(|spec| (options.plans)(spec).shape().clone()).unwrap_or_default();
        let running = Running {
            agents,
            about: Arc::new(about),
            shape: Arc::new(shape),
            tally: Arc::new(Mutex::new(tally)),
            cloudwatch_lag: Arc::default(),
            ages: Arc::default(),
            handle: None,
            last: None,
            trouble,
            ended: false,
            term: term.number,
        };
        {
            let mut all = self.lock();
            // Of two who found it undriven the first drives it, and only within the term.
            if all.contains_key(&id) || term.token.is_cancelled() {
                return Ok(());
            }
            all.insert(id.clone(), running.clone());
        }
        self.tell(term, &id, subject, &running.about, &running.shape);
        if let Some(spec) = spec {
            term.tasks.spawn(self.clone().keep_alive(term.clone(), id, subject.clone(), spec, running));
        } else {
            tracing::error!(upgrade = %id, trouble = running.trouble, "an upgrade cannot be driven");
        }
        Ok(())
    }

    /// Drives until the run ends, the process stops, or driving is hopeless.
    async fn keep_alive(self, term: Term, id: RunId, subject: Subject, spec: UpgradeSpec, running: Running) {
        let mut first = true;
        let mut backoff = Backoff::new(RESTART_WAITS.0, RESTART_WAITS.1);
        loop {
            let free = self.until_free(&term, &id, &subject, &running, first).await;
            let ended = match free {
                Ok(false) => return,
                Ok(true) => {
                    let span = info_span!("upgrade", upgrade = %id);
                    self.drive_once(&term, &id, &subject, &spec, &running).instrument(span).await
                }
                Err(source) => Err(Error::Journal { id: id.clone(), source }),
            };
            first &= matches!(ended, Err(Error::Journal { .. }));
            self.change(term.number, &id, Running::rest);
            match ended {
                Ok(Ended::Finished(outcome)) => {
                    tracing::info!(upgrade = %id, outcome = outcome.as_str(), "upgrade ended");
                    return self.finish(&term, &id, &running).await;
                }
                Ok(Ended::Stopped) => return,
                Ok(Ended::Fenced) => tracing::warn!(upgrade = %id, "driver lost its lease"),
                Err(Error::Journal { source: JournalError::Held { .. }, .. }) => {
                    tracing::info!(upgrade = %id, "another holder drives this upgrade");
                }
                Err(Error::Fold {
                    source: FoldError::Journal { source: error @ JournalError::Store { .. }, .. },
                    ..
                }) => {
                    tracing::warn!(upgrade = %id, error = chain(&error), "driver failed, starting it again");
                }
                Err(error @ (Error::PlanDiffers { .. } | Error::Fold { .. } | Error::Illegal { .. })) => {
                    let damaged = matches!(&error, Error::Fold { source, .. } if damages(source));
                    let error = refused(&error, damaged);
                    tracing::error!(upgrade = %id, error, "an upgrade cannot be driven");
                    return self.change(term.number, &id, |running| running.trouble = Some(error));
                }
                Err(error) => tracing::warn!(upgrade = %id, error = chain(&error), "driver failed, starting it again"),
            }
            running.agents.unfollow();
            tokio::select! {
                () = term.token.cancelled() => return,
                () = self.0.options.clock.sleep(backoff.next_wait()) => {}
            }
        }
    }

    /// Waits until the lease of a former coordinator's driver has run out; `false` when the term ends before. Before the first drive
    /// of a term the newest wish is read again then: the former driver may have told the agents something until that moment.
    async fn until_free(
        &self,
        term: &Term,
        id: &RunId,
        subject: &Subject,
        running: &Running,
        first: bool,
    ) -> Result<bool, JournalError> {
        let options = &self.0.options;
        let mut said = false;
        while let Some((holder, _)) = options.store.holder(subject).await?.filter(|(it, _)| it.id != options.holder.id)
        {
            if !said {
                tracing::info!(upgrade = %id, holder = holder.address, "waiting for a former driver's lease to run out");
                said = true;
            }
            tokio::select! {
                () = term.token.cancelled() => return Ok(false),
                () = options.clock.sleep(FREE_EVERY) => {}
            }
        }
        if first {
            running.agents.recall(options.store.about(id).await?.1);
        }
        Ok(true)
    }

    async fn drive_once(
        &self,
        term: &Term,
        id: &RunId,
        subject: &Subject,
        spec: &UpgradeSpec,
        running: &Running,
    ) -> Result<Ended, Error> {
        let options = &self.0.options;
        let world = World {
            rds: Arc::clone(&options.rds),
            cloudwatch: Arc::clone(&options.cloudwatch),
            agents: running.agents.clone(),
            leave: self.leave(id, subject, &running.about),
            clock: options.clock.clone(),
        };
        let parts = Parts {
            plan: Arc::new((options.plans)(spec)),
            world: Arc::new(world),
            journal: options.store.clone(),
            clock: options.clock.clone(),
            holder: options.holder.clone(),
            options: Options {
                lease_ttl: options.lease,
                call_timeout: options.call_timeout,
                on_fact: Some(on_fact(id, running)),
                ..Options::default()
            },
        };
        let (driver, handle) = Driver::new(id.clone(), parts);
        running.agents.follow(handle.lease());
        self.change(term.number, id, |running| running.handle = Some(handle.clone()));
        let sampler = sampling::run(options, running, &handle);
        tokio::select! {
            ended = driver.run(term.token.clone()) => ended,
            never = deliver_events(&running.agents, &handle, &options.clock) => match never {},
            never = ring_at_lease_changes(&running.agents, &handle) => match never {},
            never = sampler => match never {},
        }
    }

    /// The last word to the agents, then the table is free for the next upgrade.
    async fn finish(&self, term: &Term, id: &RunId, running: &Running) {
        if let Err(failure) = running.agents.farewell(FAREWELL).await {
            tracing::warn!(upgrade = %id, error = %failure, "agents did not settle the last word of an upgrade");
        }
        if let Ok(upgrade) = upgrade_id(id) {
            running.agents.close(&upgrade);
        }
        self.change(term.number, id, |running| running.ended = true);
        let mut all = self.lock();
        let ended: Vec<RunId> = all.iter().filter(|(_, running)| running.ended).map(|(id, _)| id.clone()).collect();
        for old in ended.iter().take(ended.len().saturating_sub(FINISHED_MAX)) {
            all.remove(old);
        }
    }
}

/// Ids made later sort later, and are short enough for the names AWS takes.
fn fresh_id() -> RunId {
    let uuid = uuid::Uuid::now_v7().simple().to_string();
    // 48 bits of milliseconds and 24 random bits.
    RunId(format!("up-{}{}", &uuid[..12], &uuid[26..]))
}

/// Is it the store's fault, and not another version's?
fn damages(error: &FoldError) -> bool {
    matches!(error, FoldError::Journal { source: JournalError::Damaged(_), .. })
}

/// Why an upgrade is not driven, by its code; counted once.
fn refused(error: &dyn std::error::Error, damaged: bool) -> String {
    metrics::journal_refused();
    format!("{}: {}", if damaged { codes::STORE_DAMAGED } else { codes::OTHER_VERSION }, chain(error))
}

fn spec_of(entries: &[Entry<Upgrade>]) -> Option<UpgradeSpec> {
    entries.iter().find_map(|entry| match &entry.fact {
        Fact::Created { spec, .. } => Some(spec.clone()),
        _ => None,
    })
}

/// The counts of a whole journal.
pub fn tallied(entries: &[Entry<Upgrade>]) -> Tally {
    let mut tally = Tally::default();
    entries.iter().for_each(|entry| tally.apply(entry));
    tally
}

/// Every fact goes to the counts, the metrics and the log; a step that is over lets its agents forget its jobs.
fn on_fact(id: &RunId, running: &Running) -> OnFact<Upgrade> {
    let (id, agents, counts) = (id.clone(), running.agents.clone(), Arc::clone(&running.tally));
    Arc::new(move |entry| {
        let mut tally = counts.lock().unwrap_or_else(PoisonError::into_inner);
        tally.apply(entry);
        metrics::fact(entry, &tally);
        drop(tally);
        let request = match &entry.fact {
            Fact::Asked { ask, .. } => Some(ask.as_str()),
            _ => None,
        };
        tracing::info!(upgrade = %id, request, seq = entry.seq.0, fact = entry.fact.kind(), "{}", crate::operator::facts::describe(&entry.fact));
        match &entry.fact {
            Fact::StepDone { step, .. } | Fact::StepSkipped { step, .. } | Fact::UndoDone { step } => {
                forget(&agents, &id, *step)
            }
            _ => {}
        }
    })
}

fn forget(agents: &Agents, id: &RunId, step: StepId) {
    agents.acknowledge_jobs(&format!("{id}/{step}/"));
}

/// Agents' events become facts, in order; only then may the agent forget them.
async fn deliver_events(agents: &Agents, handle: &Handle<Upgrade>, clock: &Clock) -> std::convert::Infallible {
    let mut heard = agents.heard();
    loop {
        let Some((agent, n, event)) = agents.next_event() else {
            heard.changed().await;
            continue;
        };
        match observe(handle, &agent, n, event).await {
            Ok(()) => agents.acknowledge_event(&agent, n),
            Err(failure) => {
                tracing::debug!(%agent, n, error = %failure, "an event waits for its fact");
                clock.sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn observe(
    handle: &Handle<Upgrade>,
    agent: &AgentId,
    n: u64,
    event: proto::report::Event,
) -> Result<(), Failure> {
    handle.observe(Source(agent.to_string()), n, event).await
}

/// A new epoch makes the newest intent new, and sessions must look.
async fn ring_at_lease_changes(agents: &Agents, handle: &Handle<Upgrade>) -> std::convert::Infallible {
    let mut lease = handle.lease();
    let mut said = engine::Epoch(0);
    loop {
        agents.lease_changed();
        let epoch = lease.borrow_and_update().epoch;
        if epoch != said {
            said = epoch;
            tracing::info!(upgrade = %handle.run_id(), epoch = epoch.0, "driving");
        }
        if lease.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
