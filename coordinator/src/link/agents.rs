//! The handle by which an upgrade reaches its agents: one whole wish for all of them, one-off jobs for the lead, their
//! newest reports. It talks to the cluster's table only, so it works the same over the wire and with scripted agents.

use std::sync::Arc;
use std::time::Duration;

use engine::{Code, Failure, FailureClass};
use proto::{
    epoch::{Epoch, Generation},
    ids::{AgentId, ClusterArn, JobId, UpgradeId},
    intent::{GateWish, IngestionWish, Intent, PurgePolicy, Refusal, SwitchoverWindow, Targets, WatchWish},
    job::{Expected, Job, JobFailure, JobFailureClass, JobKind, JobProgress},
    report::{Event, Report},
    side::Side,
};
use runtime::clock::Mono;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::hub::WishKeeper;
use super::table::{Inner, JobEntry, JobState, Table};
use crate::codes;

/// An intent without the numbers that the hub fills in: upgrade, epoch, generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub ingestion: IngestionWish,
    pub purger: Option<PurgePolicy>,
    pub gate: GateWish,
    pub targets: Targets,
    pub window: Option<SwitchoverWindow>,
    pub watch: WatchWish,
}

impl Wish {
    /// The harmless wish: ingestion running, gate open, purger off, no window, nothing extra measured.
    pub fn calm(targets: Targets) -> Wish {
        Wish {
            ingestion: IngestionWish::Running,
            purger: None,
            gate: GateWish::Open,
            targets,
            window: None,
            watch: WatchWish::default(),
        }
    }

    /// The same wish with everything that could hurt the application taken out.
    pub fn calmed(mut self) -> Wish {
        self.ingestion = IngestionWish::Running;
        self.gate = GateWish::Open;
        self.purger = None;
        if let Some(window) = &mut self.window {
            window.open = false;
        }
        self
    }

    /// Does it hurt the application if it stays too long?
    pub fn is_harmful(&self) -> bool {
        proto::intent::hurts(self.ingestion, self.purger.as_ref(), self.gate)
    }

    pub(crate) fn into_intent(self, upgrade: UpgradeId, epoch: Epoch, generation: Generation) -> Intent {
        let Wish { ingestion, purger, gate, targets, window, watch } = self;
        Intent { upgrade, epoch, generation, ingestion, purger, gate, targets, window, watch }
    }
}

/// A value with its age, by the coordinator's clock, since it was received.
#[derive(Debug, Clone)]
pub struct Fresh<T> {
    pub value: Arc<T>,
    pub age: Duration,
}

/// How far a generation has been applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// By every agent of the roster.
    All,
    /// Not yet by these.
    Waiting(Vec<AgentId>),
    /// This agent said no, or opened all again, because:
    Refused { agent: AgentId, refusal: Refusal },
}

/// Agents dial again when a coordinator comes back; a job waits this long for one of them.
const LEAD_WITHIN: Duration = Duration::from_secs(15);

/// When the agent may forget a job's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// When the step that asked is done (its facts are in the journal): a resumed step gets the same result again.
    UntilStepDone,
    /// As soon as it is read: for looking, monitors, preflight.
    Once,
}

/// One agent as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSeen {
    pub agent: AgentId,
    pub connected: bool,
    pub lead: bool,
    pub in_roster: bool,
    pub version: String,
    pub capabilities: Vec<String>,
    pub controllers: Vec<String>,
    pub queries: Vec<String>,
    /// Milliseconds since anything was heard from it.
    pub silent_ms: u64,
    /// Milliseconds since its newest report; none yet is `None`.
    pub report_age_ms: Option<u64>,
    /// Has it applied the newest intent? `None` when there is none.
    pub settled: Option<bool>,
    pub stance: Option<String>,
}

/// One cluster's agents, as one upgrade sees them. Cheap to clone.
#[derive(Clone)]
pub struct Agents {
    table: Arc<Table>,
    keeper: Arc<dyn WishKeeper>,
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").field("cluster", &self.cluster()).finish_non_exhaustive()
    }
}

/// Wakes whoever waits for news from the agents.
pub struct Heard(watch::Receiver<u64>);

impl Heard {
    /// Returns once anything was heard (a report, an answer, an event, an agent come or gone) since the last call.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

// --- who is there ---

impl Agents {
    pub(crate) fn new(table: Arc<Table>, keeper: Arc<dyn WishKeeper>) -> Agents {
        Agents { table, keeper }
    }

    pub fn cluster(&self) -> ClusterArn {
        self.table.lock().cluster.clone()
    }

    /// The agents that must settle every intent: fixed at the start of the upgrade; those attached when there is none.
    pub fn roster(&self) -> Vec<AgentId> {
        self.table.lock().roster()
    }

    /// The agent that gets the jobs; it may be away for a moment. `None` while none was ever there.
    pub fn lead(&self) -> Option<AgentId> {
        self.table.lock().lead(self.table.clock.mono(), self.table.lease)
    }

    /// Agents with a stream right now.
    pub fn connected(&self) -> Vec<AgentId> {
        self.table.lock().connected().into_iter().collect()
    }

    /// Every agent that ever attached, as people see it.
    pub fn seen(&self) -> Vec<AgentSeen> {
        let now = self.table.clock.mono();
        let mut inner = self.table.lock();
        inner.elect(now, self.table.lease);
        let roster = inner.roster();
        let newest = inner.intent.as_ref().map(|intent| (intent.epoch, intent.generation));
        let seen = |(id, agent): (&AgentId, &super::table::Agent)| AgentSeen {
            agent: id.clone(),
            connected: agent.session.is_some(),
            lead: inner.is_lead(id),
            in_roster: roster.contains(id),
            version: agent.hello.version.clone(),
            capabilities: agent.hello.capabilities.clone(),
            controllers: agent.hello.controllers.clone(),
            queries: agent.hello.queries.clone(),
            silent_ms: millis(now.since(agent.heard_at)),
            report_age_ms: agent.report.as_ref().map(|(at, _)| millis(now.since(*at))),
            settled: newest.map(|newest| agent.applied >= Some(newest)),
            stance: agent.report.as_ref().map(|(_, report)| report.stance.clone()),
        };
        inner.agents.iter().map(seen).collect()
    }

    /// Wakes at anything heard from the agents.
    pub fn heard(&self) -> Heard {
        Heard(self.table.up())
    }

    /// The newest report of an agent; `None` before its first.
    pub fn report(&self, agent: &AgentId) -> Option<Fresh<Report>> {
        let now = self.table.clock.mono();
        fresh(&self.table.lock(), agent, now)
    }

    /// The newest report of the lead.
    pub fn lead_report(&self) -> Option<Fresh<Report>> {
        self.report(&self.lead()?)
    }

    /// The newest report of every agent of the roster; `None` for one that has made none.
    pub fn reports(&self) -> Vec<(AgentId, Option<Fresh<Report>>)> {
        let now = self.table.clock.mono();
        let inner = self.table.lock();
        inner.roster().into_iter().map(|agent| (agent.clone(), fresh(&inner, &agent, now))).collect()
    }
}

fn fresh(inner: &Inner, agent: &AgentId, now: Mono) -> Option<Fresh<Report>> {
    let (at, report) = inner.agents.get(agent)?.report.as_ref()?;
    Some(Fresh { value: Arc::clone(report), age: now.since(*at) })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// --- what should be true ---

impl Agents {
    /// Where the servers are, for jobs that are asked for before anything is published. `publish` sets it too.
    pub fn aim(&self, targets: Targets) {
        self.table.lock().targets = Some(targets);
    }

    /// As last aimed or published.
    pub fn targets(&self) -> Option<Targets> {
        self.table.lock().targets.clone()
    }

    /// The newest wish, also one of before a restart.
    pub fn wish(&self) -> Option<Wish> {
        self.table.lock().wish.clone()
    }

    /// Tells every agent of the roster the whole wish, under the next generation. The same wish again keeps its generation,
    /// unless an agent refused it. A harmful wish is durable before it is said, a harmless one is said first.
    ///
    /// # Errors
    /// Transient, when the wish could not be kept; Permanent, outside an upgrade.
    pub async fn publish(&self, wish: Wish) -> Result<Generation, Failure> {
        let (upgrade, same) = {
            let inner = self.table.lock();
            let upgrade = inner.upgrade.clone().ok_or_else(|| {
                Failure::permanent(codes::NO_UPGRADE, format!("telling the agents of {} what to do", inner.cluster))
            })?;
            (upgrade, inner.same_wish(&wish))
        };
        if let Some(generation) = same {
            return Ok(generation);
        }
        if wish.is_harmful() {
            self.keep(&upgrade, &wish).await?;
            return self.say(wish);
        }
        let generation = self.say(wish.clone())?;
        self.keep(&upgrade, &wish).await?;
        Ok(generation)
    }

    async fn keep(&self, upgrade: &UpgradeId, wish: &Wish) -> Result<(), Failure> {
        let epoch = self.table.lock().epoch;
        self.keeper.keep(upgrade, epoch, wish).await.map_err(|error| {
            Failure::transient(codes::WISH_NOT_KEPT, "keeping the newest wish for the agents").because(error)
        })
    }

    fn say(&self, wish: Wish) -> Result<Generation, Failure> {
        let mut inner = self.table.lock();
        inner.wish = Some(wish);
        let generation = inner.stamp();
        drop(inner);
        self.table.ring_down();
        generation.ok_or_else(|| Failure::permanent(codes::NO_UPGRADE, "telling the agents what to do"))
    }

    /// Changes the newest wish and publishes the result.
    ///
    /// # Errors
    /// As [`Agents::publish`]; Permanent, when there is no wish to change.
    pub async fn amend(&self, change: impl FnOnce(&mut Wish) + Send) -> Result<Generation, Failure> {
        let mut wish = self.wish().ok_or_else(|| {
            Failure::permanent(codes::NO_UPGRADE, "changing what the agents are told: nothing was said yet")
        })?;
        change(&mut wish);
        self.publish(wish).await
    }

    /// How far this generation (or a newer one) has been applied.
    pub fn settled(&self, generation: Generation) -> Settled {
        let inner = self.table.lock();
        let wanted = (inner.epoch, generation);
        let on_green = inner.wish.as_ref().is_some_and(|wish| wish.targets.serving == Side::Green);
        let mut waiting = Vec::new();
        for id in inner.roster() {
            let agent = inner.agents.get(&id);
            if let Some((epoch, refused, refusal)) = agent.and_then(|agent| agent.refused.as_ref())
                && (*epoch, *refused) == wanted
            {
                // After the cut ingestion runs where it belongs, only earlier than was wished.
                if refusal.pause_over && on_green {
                    continue;
                }
                return Settled::Refused { agent: id, refusal: refusal.clone() };
            }
            if agent.is_none_or(|agent| agent.applied < Some(wanted)) {
                waiting.push(id);
            }
        }
        if waiting.is_empty() { Settled::All } else { Settled::Waiting(waiting) }
    }

    /// Waits until every agent of the roster has applied this generation.
    ///
    /// # Errors
    /// Transient, naming the agent that refused or the agents that were silent for `within`; permanent when ingestion was paused
    /// for as long as it may be.
    pub async fn await_settled(&self, generation: Generation, within: Duration) -> Result<(), Failure> {
        let mut heard = self.heard();
        let wait = async {
            loop {
                match self.settled(generation) {
                    Settled::Waiting(_) => heard.changed().await,
                    Settled::All => return Ok(()),
                    Settled::Refused { agent, refusal } => {
                        let doing = format!("agent {agent} refused");
                        let failure = match refusal.pause_over {
                            true => Failure::permanent(codes::INGESTION_OFF, doing),
                            false => Failure::transient(codes::INTENT_REFUSED, doing),
                        };
                        return Err(failure.because(refusal.reason));
                    }
                }
            }
        };
        let result = self.table.clock.timeout(within, wait).await;
        result.unwrap_or_else(|elapsed| Err(silent(&self.settled(generation), elapsed.0)))
    }

    /// Publishes the safe intent (ingestion running, gate open, purger off) and waits until every agent has settled it.
    /// Nothing to do when nothing was ever said.
    ///
    /// # Errors
    /// As [`Agents::publish`] and [`Agents::await_settled`].
    pub async fn calm(&self, within: Duration) -> Result<(), Failure> {
        let Some(wish) = self.wish() else { return Ok(()) };
        let generation = self.publish(wish.calmed()).await?;
        self.await_settled(generation, within).await
    }

    /// The last word of an upgrade: harmless, without a window and with nothing measured any more.
    ///
    /// # Errors
    /// As [`Agents::calm`].
    pub async fn farewell(&self, within: Duration) -> Result<(), Failure> {
        let Some(wish) = self.wish() else { return Ok(()) };
        let generation = self.publish(Wish::calm(wish.targets)).await?;
        self.await_settled(generation, within).await
    }
}

fn silent(settled: &Settled, within: Duration) -> Failure {
    let names = match settled {
        Settled::Waiting(agents) => agents.iter().map(AgentId::as_str).collect::<Vec<_>>().join(", "),
        Settled::All | Settled::Refused { .. } => "an agent".to_owned(),
    };
    Failure::transient(codes::AGENT_SILENT, format!("{names} did not settle within {} ms", within.as_millis()))
}

impl Inner {
    fn same_wish(&self, wish: &Wish) -> Option<Generation> {
        let intent = self.intent.as_ref()?;
        let said = (intent.epoch, intent.generation);
        let refused =
            self.agents.values().any(|agent| agent.refused.as_ref().is_some_and(|(e, g, _)| (*e, *g) == said));
        (self.wish.as_ref() == Some(wish) && intent.epoch == self.epoch && !refused).then_some(intent.generation)
    }
}

// --- one-off work ---

impl Agents {
    /// Gives the lead a job and waits for its result. The same id is the same work: asking again after a restart or a
    /// broken stream gives the same result without doing it again. `progress` is called with each newer progress.
    ///
    /// # Errors
    /// What the agent says, with its code and class; Transient when no agent leads or it refused; Unknown when no answer
    /// came within `deadline` and the lease.
    pub async fn job<J: JobKind>(
        &self,
        id: &JobId,
        keep: Keep,
        side: Side,
        body: &J,
        deadline: Duration,
        mut progress: impl FnMut(&JobProgress) + Send,
    ) -> Result<J::Output, Failure> {
        let mut heard = self.heard();
        let led = async {
            while self.lead().is_none() {
                heard.changed().await;
            }
        };
        // Without one in that time, `post` says so.
        self.table.clock.timeout(LEAD_WITHIN.min(deadline), led).await.ok();
        self.post(id, side, body, deadline)?;
        let limit = deadline + self.table.lease;
        let mut seen = None;
        let wait = async {
            loop {
                if let Some(state) = self.take_finished(id, keep) {
                    return state;
                }
                let newest = self.table.lock().jobs.get(id).and_then(|job| job.progress.clone());
                if newest != seen {
                    newest.iter().for_each(&mut progress);
                    seen = newest;
                }
                heard.changed().await;
            }
        };
        let state = self.table.clock.timeout(limit, wait).await.map_err(|elapsed| {
            let doing = format!("waiting for job {} ({id}) on {side:?}", J::KIND);
            Failure::unknown(codes::JOB_SILENT, doing).because(elapsed)
        })?;
        answer::<J>(id, side, state)
    }

    /// Puts the job on the table, for the lead; nothing when it is there already.
    fn post<J: JobKind>(&self, id: &JobId, side: Side, body: &J, deadline: Duration) -> Result<(), Failure> {
        let doing = || format!("giving job {} ({id}) to an agent", J::KIND);
        let now = self.table.clock.mono();
        let mut inner = self.table.lock();
        if inner.jobs.get(id).is_some_and(|entry| !matches!(entry.state, JobState::Cancelled(_))) {
            return Ok(());
        }
        let lead = inner.lead(now, self.table.lease).ok_or_else(|| {
            Failure::transient(codes::NO_LEAD, doing()).because("no agent of this cluster is connected")
        })?;
        let targets = inner
            .targets
            .clone()
            .ok_or_else(|| Failure::permanent(codes::NO_TARGETS, doing()).because("the servers are not known yet"))?;
        let body = serde_json::to_value(body)
            .map_err(|error| Failure::permanent(codes::JOB_ANSWER, doing()).caused_by(&error))?;
        let on = Expected { side, production: targets.production, blue: targets.blue, green: targets.green };
        let (kind, epoch) = (J::KIND.to_owned(), inner.epoch);
        let job = Job { id: id.clone(), epoch, deadline_ms: millis(deadline), kind, on, body };
        let state = JobState::Wanted(Box::new(job));
        inner.jobs.insert(id.clone(), JobEntry::new(lead, state, now + deadline));
        drop(inner);
        self.table.ring_down();
        Ok(())
    }

    /// A finished result; a failure or refusal is acknowledged at once, so that asking again is new work.
    fn take_finished(&self, id: &JobId, keep: Keep) -> Option<JobState> {
        let mut inner = self.table.lock();
        let entry = inner.jobs.get(id).filter(|entry| entry.state.is_finished())?;
        if let (JobState::Done(output), Keep::UntilStepDone) = (&entry.state, keep) {
            return Some(JobState::Done(output.clone()));
        }
        let entry = inner.jobs.remove(id)?;
        inner.ack_job(&entry.agent, id.clone());
        drop(inner);
        self.table.ring_down();
        Some(entry.state)
    }

    /// Takes a job back: the agent is told to stop, and nobody waits for it any more.
    pub fn cancel(&self, id: &JobId) {
        let mut inner = self.table.lock();
        let epoch = inner.epoch;
        if let Some(entry) = inner.jobs.get_mut(id)
            && !entry.state.is_finished()
        {
            entry.state = JobState::Cancelled(epoch);
        }
        drop(inner);
        self.table.ring_down();
    }

    /// The step that asked is done: the agent may forget the results of all jobs whose ids start with this.
    pub(crate) fn acknowledge_jobs(&self, prefix: &str) {
        let mut inner = self.table.lock();
        let done: Vec<JobId> = inner.jobs.keys().filter(|id| id.as_str().starts_with(prefix)).cloned().collect();
        for id in done {
            if let Some(entry) = inner.jobs.remove(&id) {
                inner.ack_job(&entry.agent, id);
            }
        }
        drop(inner);
        self.table.ring_down();
    }
}

fn answer<J: JobKind>(id: &JobId, side: Side, state: JobState) -> Result<J::Output, Failure> {
    let doing = format!("job {} ({id}) on {side:?}", J::KIND);
    match state {
        JobState::Done(output) => serde_json::from_value(output).map_err(|error| {
            Failure::permanent(codes::JOB_ANSWER, format!("reading the answer of {doing}")).caused_by(&error)
        }),
        JobState::Refused { code, reason } => {
            let code = Code::parse(&code).unwrap_or(codes::JOB_REFUSED);
            Err(Failure::transient(code, format!("{doing} was refused")).because(reason))
        }
        JobState::Failed(failure) => Err(failed(&doing, failure)),
        JobState::Wanted(_) | JobState::Cancelled(_) => {
            Err(Failure::transient(codes::JOB_REFUSED, format!("{doing} was taken back")))
        }
    }
}

fn failed(doing: &str, failure: JobFailure) -> Failure {
    let class = match failure.class {
        JobFailureClass::Transient | JobFailureClass::Cancelled => FailureClass::Transient,
        JobFailureClass::Unknown => FailureClass::Unknown,
        JobFailureClass::Permanent => FailureClass::Permanent,
        JobFailureClass::NeedsOperator => FailureClass::NeedsOperator,
    };
    let code = Code::parse(&failure.code).unwrap_or(codes::JOB_REFUSED);
    let made = Failure::new(class, code, format!("{doing}: {}", failure.doing));
    failure.chain.into_iter().fold(made, Failure::because)
}

// --- for the driver's surroundings only ---

impl Agents {
    pub(crate) fn open(&self, upgrade: &UpgradeId, roster: Vec<AgentId>, last: Option<Wish>) {
        let now = self.table.clock.mono();
        let mut inner = self.table.lock();
        inner.close_upgrade(now, self.table.lease);
        inner.upgrade = Some(upgrade.clone());
        inner.roster = roster;
        inner.targets = last.as_ref().map(|wish| wish.targets.clone());
        inner.wish = last;
        inner.elect(now, self.table.lease);
    }

    /// The upgrade is over: events and jobs of it are acknowledged, agents are idle again.
    /// Nothing when another upgrade of the cluster has been opened meanwhile.
    pub(crate) fn close(&self, upgrade: &UpgradeId) {
        let now = self.table.clock.mono();
        let mut inner = self.table.lock();
        if inner.upgrade.as_ref() == Some(upgrade) {
            inner.close_upgrade(now, self.table.lease);
        }
        drop(inner);
        self.table.ring_down();
    }

    /// From now on everything is said under this lease's epoch, and agents' leases depend on it.
    pub(crate) fn follow(&self, lease: watch::Receiver<engine::Lease>) {
        self.table.lock().driver = Some(lease);
        self.table.ring_down();
    }

    /// The driver's lease has changed: sessions look again.
    pub(crate) fn lease_changed(&self) {
        drop(self.table.lock());
        self.table.ring_down();
    }

    /// The newest wish, as a former driver kept it. Nothing while a driver has the word.
    pub(crate) fn recall(&self, last: Option<Wish>) {
        let mut inner = self.table.lock();
        if inner.driver.is_none() && inner.upgrade.is_some() {
            inner.targets = last.as_ref().map(|wish| wish.targets.clone());
            inner.wish = last;
        }
    }

    /// No driver drives the upgrade at the moment: agents' leases are not renewed.
    pub(crate) fn unfollow(&self) {
        self.table.lock().driver = None;
    }

    /// The oldest event that no fact holds yet.
    pub(crate) fn next_event(&self) -> Option<(AgentId, u64, Event)> {
        self.table.lock().events.front().cloned()
    }

    /// The fact is in the journal: the agent may forget this event.
    pub(crate) fn acknowledge_event(&self, agent: &AgentId, n: u64) {
        let mut inner = self.table.lock();
        inner.events.retain(|(from, number, _)| from != agent || *number != n);
        if let Some(agent) = inner.agents.get_mut(agent) {
            agent.outbox.push_back(super::message::ToAgent::AckEvent(n));
        }
        drop(inner);
        self.table.ring_down();
    }
}
