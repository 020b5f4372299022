//! One cluster's table: its agents, the newest intent, the jobs, the events not yet in the journal.
//!
//! Level-triggered: nothing is queued that a reconnecting agent could miss. Everything here is in memory; what must
//! survive a restart is the journal's, the wish keeper's or the agents' own. No `.await` happens under the lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::{
    epoch::{Epoch, Generation},
    ids::{AgentId, ClusterArn, JobId, UpgradeId},
    intent::{Intent, Refusal, Targets},
    job::{Job, JobFailure, JobProgress},
    report::{Event, Report},
};
use runtime::clock::{Clock, Mono};
use tokio::sync::watch;

use super::agents::Wish;
use super::message::{FromAgent, Hello, ToAgent};

/// Events waiting for their fact, over all agents; past it the stream stops reading them and the agent keeps them.
const EVENTS_MAX: usize = 4096;
/// Jobs remembered at once.
const JOBS_MAX: usize = 512;
/// Acknowledgements and lease answers waiting for one agent; past it the session is cut.
const OUTBOX_MAX: usize = 1024;

/// The table of one cluster and the two bells: `down` rings when there is something to send, `up` when something was heard.
pub(crate) struct Table {
    inner: Mutex<Inner>,
    down: watch::Sender<u64>,
    up: watch::Sender<u64>,
    pub(crate) clock: Clock,
    pub(crate) lease: Duration,
}

pub(crate) struct Inner {
    pub(crate) cluster: ClusterArn,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
    pub(crate) upgrade: Option<UpgradeId>,
    /// The driver's own lease: its epoch fences everything said, and agents' leases are renewed only while it holds.
    pub(crate) driver: Option<watch::Receiver<engine::Lease>>,
    /// Fixed at the start of an upgrade; empty while there is none.
    pub(crate) roster: Vec<AgentId>,
    lead: Option<AgentId>,
    /// The newest wish, also before it has an epoch to be said under.
    pub(crate) wish: Option<Wish>,
    pub(crate) intent: Option<Arc<Intent>>,
    pub(crate) targets: Option<Targets>,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) jobs: BTreeMap<JobId, JobEntry>,
    pub(crate) events: VecDeque<(AgentId, u64, Event)>,
    /// Set once the coordinator stops.
    pub(crate) closing: Option<String>,
}

/// What is known of one agent.
pub(crate) struct Agent {
    pub(crate) hello: Hello,
    /// The number of the session that speaks for it now.
    pub(crate) session: Option<u64>,
    pub(crate) last_session: u64,
    pub(crate) heard_at: Mono,
    pub(crate) report: Option<(Mono, Arc<Report>)>,
    pub(crate) applied: Option<(Epoch, Generation)>,
    pub(crate) refused: Option<(Epoch, Generation, Refusal)>,
    /// Highest event number taken from it in this process.
    pub(crate) taken: u64,
    pub(crate) outbox: VecDeque<ToAgent>,
}

pub(crate) struct JobEntry {
    pub(crate) agent: AgentId,
    pub(crate) state: JobState,
    pub(crate) progress: Option<JobProgress>,
    /// When the coordinator stops waiting for an answer.
    pub(crate) until: Mono,
    /// The session that has said it last, and whether it took it back. Not told by that session: it is said (again).
    pub(crate) told: Option<(u64, bool)>,
}

impl JobEntry {
    pub(crate) fn new(agent: AgentId, state: JobState, until: Mono) -> JobEntry {
        JobEntry { agent, state, progress: None, until, told: None }
    }
}

pub(crate) enum JobState {
    Wanted(Box<Job>),
    Cancelled(Epoch),
    Done(serde_json::Value),
    Refused { code: String, reason: String },
    Failed(JobFailure),
}

impl JobState {
    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self, JobState::Wanted(_) | JobState::Cancelled(_))
    }
}

/// Is it a job of this upgrade? Its id begins with the upgrade's.
fn belongs(id: &JobId, upgrade: Option<&UpgradeId>) -> bool {
    upgrade.is_some_and(|upgrade| id.as_str().starts_with(&format!("{upgrade}/")))
}

impl Table {
    pub(crate) fn new(cluster: ClusterArn, epoch: Epoch, clock: Clock, lease: Duration) -> Table {
        let inner = Inner {
            cluster,
            epoch,
            generation: Generation(0),
            upgrade: None,
            driver: None,
            roster: Vec::new(),
            lead: None,
            wish: None,
            intent: None,
            targets: None,
            agents: BTreeMap::new(),
            jobs: BTreeMap::new(),
            events: VecDeque::new(),
            closing: None,
        };
        Table { inner: Mutex::new(inner), down: watch::Sender::new(0), up: watch::Sender::new(0), clock, lease }
    }

    /// The table, under the driver's present epoch.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.follow_epoch();
        inner
    }

    /// Something to send.
    pub(crate) fn ring_down(&self) {
        self.down.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Something was heard.
    pub(crate) fn ring_up(&self) {
        self.up.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn down(&self) -> watch::Receiver<u64> {
        self.down.subscribe()
    }

    pub(crate) fn up(&self) -> watch::Receiver<u64> {
        self.up.subscribe()
    }

    /// A new session speaks for this agent; an older one ends. Returns the session's number.
    pub(crate) fn attach(&self, hello: Hello) -> u64 {
        let now = self.clock.mono();
        let mut inner = self.lock();
        let fresh = Agent {
            hello: hello.clone(),
            session: None,
            last_session: 0,
            heard_at: now,
            report: None,
            applied: None,
            refused: None,
            taken: 0,
            outbox: VecDeque::new(),
        };
        let agent = inner.agents.entry(hello.agent.clone()).or_insert(fresh);
        agent.hello = hello;
        agent.last_session += 1;
        agent.session = Some(agent.last_session);
        agent.heard_at = now;
        // What it had acknowledged is said again by itself; an agent that lost its memory must not count as settled.
        agent.applied = None;
        agent.refused = None;
        agent.outbox.clear();
        let number = agent.last_session;
        inner.elect(now, self.lease);
        drop(inner);
        self.ring_down();
        self.ring_up();
        number
    }

    /// The session ended; a newer one is left alone.
    pub(crate) fn detach(&self, agent: &AgentId, session: u64) {
        if let Some(agent) = self.lock().agents.get_mut(agent)
            && agent.session == Some(session)
        {
            agent.session = None;
            agent.heard_at = self.clock.mono();
            agent.applied = None;
        }
        self.ring_down();
        self.ring_up();
    }

    /// Takes in what an agent said. `false`: the session is not the agent's newest any more, or it cannot keep up.
    pub(crate) fn hear(&self, from: &AgentId, session: u64, message: FromAgent) -> bool {
        let now = self.clock.mono();
        let mut inner = self.lock();
        let kept = inner.hear(now, from, session, message);
        drop(inner);
        self.ring_up();
        self.ring_down();
        kept
    }
}

impl Inner {
    fn hear(&mut self, now: Mono, from: &AgentId, session: u64, message: FromAgent) -> bool {
        let epoch = self.epoch;
        let renewable = self.lease_renewable(now);
        let Some(agent) = self.agents.get_mut(from).filter(|agent| agent.session == Some(session)) else {
            return false;
        };
        agent.heard_at = now;
        match message {
            FromAgent::Heartbeat { sequence, .. } => {
                if renewable {
                    agent.outbox.push_back(ToAgent::LeaseRenewed { sequence, epoch });
                }
            }
            FromAgent::IntentApplied { epoch, generation } => {
                agent.applied = agent.applied.max(Some((epoch, generation)))
            }
            FromAgent::IntentRefused { epoch, generation, refusal } => {
                agent.refused = Some((epoch, generation, refusal))
            }
            FromAgent::Report(report) => agent.report = Some((now, Arc::from(report))),
            FromAgent::Event { n, event } => return self.hear_event(from, n, event),
            FromAgent::JobAccepted(_) => {}
            FromAgent::JobProgress(progress) => {
                if let Some(job) = self.jobs.get_mut(&progress.id) {
                    job.progress = Some(progress);
                }
            }
            FromAgent::JobRefused { id, code, reason } => {
                self.job_ended(now, from, id, JobState::Refused { code, reason })
            }
            FromAgent::JobDone { id, output } => self.job_ended(now, from, id, JobState::Done(output)),
            FromAgent::JobFailed { id, failure } => self.job_ended(now, from, id, JobState::Failed(failure)),
        }
        self.agents.get(from).is_some_and(|agent| agent.outbox.len() <= OUTBOX_MAX)
    }

    /// An event of no upgrade has no journal to go to; one of an upgrade waits for its fact.
    fn hear_event(&mut self, from: &AgentId, n: u64, event: Event) -> bool {
        let idle = self.upgrade.is_none();
        let full = self.events.len() >= EVENTS_MAX;
        let waits = self.events.iter().any(|(agent, number, _)| agent == from && *number == n);
        let Some(agent) = self.agents.get_mut(from) else { return false };
        if idle {
            tracing::info!(agent = %from, n, ?event, "an event outside any upgrade");
            agent.outbox.push_back(ToAgent::AckEvent(n));
        } else if n > agent.taken {
            // Cut, so that the agent says everything again, in order, once there is room.
            if full {
                return false;
            }
            agent.taken = n;
            self.events.push_back((from.clone(), n, event));
        } else if !waits {
            // Its fact is in the journal; the acknowledgement was lost.
            agent.outbox.push_back(ToAgent::AckEvent(n));
        }
        true
    }

    /// An answer that nobody waits for is kept when it belongs to the upgrade under way (a resumed step will ask for it),
    /// and acknowledged at once when not.
    fn job_ended(&mut self, now: Mono, from: &AgentId, id: JobId, state: JobState) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            // The end of a job that was taken back is nobody's result, unless it was done all the same.
            if matches!(
                (&entry.state, &state),
                (JobState::Cancelled(_), JobState::Failed(_) | JobState::Refused { .. })
            ) {
                self.jobs.remove(&id);
                return self.ack_job(from, id);
            }
            entry.state = state;
            return;
        }
        if belongs(&id, self.upgrade.as_ref()) && self.jobs.len() < JOBS_MAX {
            self.jobs.insert(id, JobEntry::new(from.clone(), state, now));
        } else {
            self.ack_job(from, id);
        }
    }

    pub(crate) fn ack_job(&mut self, agent: &AgentId, id: JobId) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.outbox.push_back(ToAgent::AckJob(id));
        }
    }

    /// With a driver, only while its own lease holds; without an upgrade there is nothing to fence.
    pub(crate) fn lease_renewable(&self, now: Mono) -> bool {
        if self.upgrade.is_none() {
            return true;
        }
        self.driver.as_ref().is_some_and(|driver| {
            let lease = *driver.borrow();
            !lease.lost && now < lease.until
        })
    }

    pub(crate) fn connected(&self) -> BTreeSet<AgentId> {
        self.agents.iter().filter(|(_, agent)| agent.session.is_some()).map(|(id, _)| id.clone()).collect()
    }

    /// The roster: as fixed at the start, or whoever is attached while no upgrade runs.
    pub(crate) fn roster(&self) -> Vec<AgentId> {
        if self.upgrade.is_some() { self.roster.clone() } else { self.connected().into_iter().collect() }
    }

    /// The lead, elected again when it is gone for good.
    pub(crate) fn lead(&mut self, now: Mono, lease: Duration) -> Option<AgentId> {
        self.elect(now, lease);
        self.lead.clone()
    }

    /// A new lead is chosen only when the old one has been silent for a lease and every job it was given is past its
    /// deadline plus a lease: the old one may still be at work.
    pub(crate) fn elect(&mut self, now: Mono, lease: Duration) {
        let roster = self.roster();
        if let Some(lead) = &self.lead
            && roster.contains(lead)
            && let Some(agent) = self.agents.get(lead)
        {
            let silent = agent.session.is_none() && now.since(agent.heard_at) > lease;
            let busy =
                self.jobs.values().any(|job| job.agent == *lead && !job.state.is_finished() && now < job.until + lease);
            if !silent || busy {
                return;
            }
        }
        let connected = self.connected();
        let Some(next) = roster.into_iter().find(|agent| connected.contains(agent)) else { return };
        if self.lead.as_ref() == Some(&next) {
            return;
        }
        // The role is said in `Welcome` only, so an agent that becomes the lead while attached is asked to dial again.
        if self.lead.is_some()
            && let Some(agent) = self.agents.get_mut(&next)
        {
            agent.outbox.push_back(ToAgent::Goodbye { address: String::new(), after_ms: 0 });
        }
        tracing::info!(lead = %next, cluster = %self.cluster, "agent leads");
        self.lead = Some(next);
    }

    pub(crate) fn is_lead(&self, agent: &AgentId) -> bool {
        self.lead.as_ref() == Some(agent)
    }

    /// Takes over the epoch of the driver's lease; what was said last is said again under it.
    fn follow_epoch(&mut self) {
        let Some(epoch) = self.driver.as_ref().map(|driver| Epoch(driver.borrow().epoch.0)) else { return };
        if epoch == self.epoch || epoch == Epoch(0) {
            return;
        }
        self.epoch = epoch;
        self.generation = Generation(0);
        self.stamp();
        for entry in self.jobs.values_mut() {
            if let JobState::Wanted(job) = &mut entry.state {
                job.epoch = epoch;
            }
        }
    }

    /// Makes the newest wish an intent: the next generation under the present epoch. Nothing without a wish or an upgrade.
    pub(crate) fn stamp(&mut self) -> Option<Generation> {
        let (wish, upgrade) = (self.wish.clone()?, self.upgrade.clone()?);
        self.generation = self.generation.next();
        self.targets = Some(wish.targets.clone());
        self.intent = Some(Arc::new(wish.into_intent(upgrade, self.epoch, self.generation)));
        Some(self.generation)
    }

    /// Forgets what belonged to an upgrade that is over; its jobs are acknowledged. Others, as of a preflight for the next one, stay for
    /// as long as somebody may wait for them, and so does where they are aimed at.
    pub(crate) fn close_upgrade(&mut self, now: Mono, lease: Duration) {
        let upgrade = self.upgrade.take();
        let over = |id: &JobId, entry: &mut JobEntry| belongs(id, upgrade.as_ref()) || now >= entry.until + lease;
        let jobs: Vec<(JobId, JobEntry)> = self.jobs.extract_if(.., over).collect();
        for (id, entry) in jobs {
            self.ack_job(&entry.agent, id);
        }
        for (agent, n, _) in std::mem::take(&mut self.events) {
            if let Some(agent) = self.agents.get_mut(&agent) {
                agent.outbox.push_back(ToAgent::AckEvent(n));
            }
        }
        self.driver = None;
        self.roster.clear();
        self.wish = None;
        self.intent = None;
    }

    /// The next thing that a session says to its agent, which was told this intent on it. An acknowledgement comes before the jobs,
    /// so that a job that is asked for again is not taken for the one whose answer is still being acknowledged.
    pub(crate) fn next_for(
        &mut self,
        id: &AgentId,
        session: u64,
        told: Option<(Epoch, Generation)>,
    ) -> Option<ToAgent> {
        let in_roster = self.roster.contains(id);
        if let Some(intent) = self.intent.as_ref().filter(|_| in_roster)
            && told < Some((intent.epoch, intent.generation))
        {
            return Some(ToAgent::Intent(Box::new(Intent::clone(intent))));
        }
        if let Some(message) = self.agents.get_mut(id)?.outbox.pop_front() {
            return Some(message);
        }
        self.jobs.iter_mut().filter(|(_, entry)| entry.agent == *id).find_map(|(job, entry)| {
            let (taken_back, message) = match &entry.state {
                JobState::Wanted(body) => (false, ToAgent::Job(body.clone())),
                JobState::Cancelled(epoch) => (true, ToAgent::CancelJob { id: job.clone(), epoch: *epoch }),
                JobState::Done(_) | JobState::Refused { .. } | JobState::Failed(_) => return None,
            };
            let now = Some((session, taken_back));
            (std::mem::replace(&mut entry.told, now) != now).then_some(message)
        })
    }
}
