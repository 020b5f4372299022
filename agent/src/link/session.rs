//! One open stream, from its `Hello` to its end. Holds nothing that is worth keeping: a new stream says everything again.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use proto::{
    epoch::{Admission, Epoch, Generation, StoreId, Watermark},
    ids::JobId,
    intent::{Intent, Refusal},
    job::Job,
    protocol::{self, Misfit},
    side::Side,
};
use runtime::{
    clock::Mono,
    shutdown::Stop,
    supervision::{TaskError, chain},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    Options,
    runner::{Answer, Offer, Runner, STALE},
    wire::{self, AgentLinkClient, Down, Hello, Up, WireDown, WireUp},
};
use crate::{
    helm,
    spool::Key,
    state::{Lease, ProbeState, Role, Shared, millis},
};

/// Messages on their way out; beyond half of it reports are left out, everything else waits.
const OUTGOING: usize = 64;
/// Between reports, outside and inside the window.
const REPORT_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(25));
/// Heartbeats are this part of the lease apart.
const BEATS_PER_LEASE: u64 = 5;
const BEAT_AT_LEAST: Duration = Duration::from_millis(50);
const BEAT_AT_MOST: Duration = Duration::from_secs(2);
/// Events sent and not acknowledged yet.
const EVENTS_AT_ONCE: usize = 64;
/// The longest message of the coordinator, which sends none longer: a job over thousands of tables stays well below.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Names of servers have this long before the stream goes on without them.
const RESOLVED_WITHIN: Duration = Duration::from_millis(500);
/// An answer to `Hello` later than this is none.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);

/// How a stream ended.
pub(super) enum End {
    Stopped,
    Closed { welcomed: bool },
    Goodbye { address: String, after: Duration },
}

/// The coordinator is of another store than the one this agent obeyed.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is of store {0:?}, not of {1:?}; start the agent once with --rebind if that is wanted")]
struct ForeignStore(String, String);

/// The coordinator is of a version that this agent does not understand.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is of a version that does not work with this agent's")]
struct OtherProtocol(#[source] Misfit);

pub(super) struct Session {
    shared: Shared,
    options: Arc<Options>,
    runner: Runner,
    up: mpsc::Sender<WireUp>,
    down: Streaming<WireDown>,
    store: Option<StoreId>,
    lease: Duration,
    beats: VecDeque<(u64, Mono)>,
    next_beat: u64,
    applied_at: Option<Mono>,
    /// Answered for on this stream.
    settled: Option<(Epoch, Generation, bool)>,
    /// Answers said on this stream and not acknowledged yet.
    answered: BTreeSet<JobId>,
    last_event: u64,
    reported: ProbeState,
    /// What the spool has of addresses.
    kept: HashMap<String, IpAddr>,
}

impl Session {
    /// Opens the stream and says `Hello`.
    pub(super) async fn open(
        shared: Shared,
        options: Arc<Options>,
        runner: Runner,
        channel: Channel,
    ) -> Result<Session, TaskError> {
        let (up, outgoing) = mpsc::channel(OUTGOING);
        let hello = wire::hello(Hello {
            agent: &options.agent,
            cluster: &options.cluster,
            capabilities: runner.kinds(),
            seen: shared.watermark.borrow().clone(),
            jobs_in_flight: runner.in_flight(),
            controllers: options.controllers.clone(),
            queries: runner.queries(),
        });
        up.send(hello).await?;
        let said = shared.clock.mono();
        let mut client = AgentLinkClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let attached = client.attach(ReceiverStream::new(outgoing));
        let down = shared.clock.timeout(WELCOME_WITHIN, attached).await??.into_inner();
        Ok(Session {
            shared,
            options,
            runner,
            up,
            down,
            store: None,
            lease: Duration::ZERO,
            beats: VecDeque::from([(0, said)]),
            next_beat: 1,
            applied_at: None,
            settled: None,
            answered: BTreeSet::new(),
            last_event: 0,
            reported: ProbeState::default(),
            kept: HashMap::new(),
        })
    }

    /// Hears and speaks until the stream or the process ends.
    pub(super) async fn run(&mut self, stop: &Stop) -> Result<End, TaskError> {
        let clock = self.shared.clock.clone();
        let welcome = clock.timeout(WELCOME_WITHIN, self.down.message()).await??;
        let Some(message) = welcome else { return Ok(End::Closed { welcomed: false }) };
        if let Some(end) = self.hear(wire::read(message)?).await? {
            return Ok(end);
        }
        if self.store.is_none() {
            return Err("the coordinator did not begin with a Welcome".into());
        }
        tracing::info!(coordinator = self.options.coordinator, "attached to the coordinator");
        let mut settled = self.shared.settled.subscribe();
        let mut answers = self.runner.changed();
        let mut events = self.shared.spool.stored();
        let mut probe = self.shared.probe.subscribe();
        let mut stance = self.shared.stance.subscribe();
        let (mut next_report, mut next_beat) = (clock.mono(), clock.mono());
        self.say_answers().await?;
        self.say_events().await?;
        loop {
            tokio::select! {
                biased;
                () = stop.triggered() => return Ok(End::Stopped),
                message = self.down.message() => {
                    let Some(message) = message? else { return Ok(End::Closed { welcomed: true }) };
                    if let Some(end) = self.hear(wire::read(message)?).await? {
                        return Ok(end);
                    }
                }
                changed = settled.changed() => { changed?; self.say_settled().await?; }
                changed = answers.changed() => { changed?; self.say_answers().await?; }
                () = clock.sleep_until(next_beat) => next_beat = self.beat().await?,
                changed = probe.changed() => {
                    changed?;
                    let now = probe.borrow_and_update().clone();
                    if !now.says_the_same(&self.reported) {
                        next_report = self.say_report().await?;
                    }
                }
                changed = stance.changed() => { changed?; next_report = self.say_report().await?; }
                changed = events.changed() => { changed?; self.say_events().await?; }
                () = clock.sleep_until(next_report) => next_report = self.say_report().await?,
            }
        }
    }

    async fn hear(&mut self, message: Down) -> Result<Option<End>, TaskError> {
        match message {
            Down::Welcome { store, epoch, lease_ms, lead, protocol } => {
                if let Err(misfit) = protocol::understood(protocol) {
                    self.shared.refused("protocol", "welcome", epoch);
                    return Err(Box::new(OtherProtocol(misfit)));
                }
                self.welcomed(store, epoch, lease_ms, lead).await?;
            }
            Down::LeaseRenewed { sequence, epoch } => self.renewed(sequence, epoch),
            Down::Intent(intent) => self.intent(*intent).await?,
            Down::Job(job) => self.job(*job).await?,
            Down::CancelJob { id, epoch } => {
                if self.refusal("cancel_job", epoch, None).is_none() {
                    self.runner.cancel(&id);
                }
            }
            Down::AckJob(id) => {
                self.answered.remove(&id);
                self.runner.acknowledge(&id).await?;
            }
            Down::AckEvent(n) => {
                self.shared.spool.acknowledge_event(n).await?;
                self.say_events().await?;
            }
            Down::Goodbye { address, after_ms } => {
                return Ok(Some(End::Goodbye { address, after: Duration::from_millis(after_ms) }));
            }
        }
        Ok(None)
    }

    async fn welcomed(&mut self, store: StoreId, epoch: Epoch, lease_ms: u64, lead: bool) -> Result<(), TaskError> {
        let known = self.shared.watermark.borrow().as_ref().map(|mark| mark.store.clone());
        if let Some(known) = known
            && known != store
        {
            self.shared.refused("foreign_store", "welcome", epoch);
            return Err(Box::new(ForeignStore(store.0, known.0)));
        }
        self.store = Some(store);
        self.lease = Duration::from_millis(lease_ms);
        let role = if lead { Role::Lead } else { Role::Helper };
        self.shared.role.send_replace(role);
        tracing::info!(?role, epoch = epoch.0, lease_ms, "welcomed");
        self.renewed(0, epoch);
        Ok(())
    }

    /// The lease counts from when the heartbeat was *said*. A lower epoch than was seen grants none.
    fn renewed(&mut self, sequence: u64, epoch: Epoch) {
        if self.shared.watermark.borrow().as_ref().is_some_and(|mark| epoch < mark.epoch) {
            self.shared.refused("stale", "lease", epoch);
            return;
        }
        let Some((_, said)) = self.beats.iter().find(|(n, _)| *n == sequence) else { return };
        let until = *said + self.lease;
        self.beats.retain(|(n, _)| *n >= sequence);
        self.shared.lease.send_modify(|lease| *lease = Lease { until: lease.until.max(Some(until)) });
        helm::steer(&self.shared);
    }

    /// Why a command is not obeyed, if it is not; counted, and logged once.
    fn refusal(&self, what: &'static str, epoch: Epoch, generation: Option<Generation>) -> Option<Admission> {
        let admission = self.admits(epoch, generation);
        let reason = match admission {
            Admission::Admitted => return None,
            Admission::Stale => "stale",
            Admission::ForeignStore => "foreign_store",
        };
        self.shared.refused(reason, what, epoch);
        Some(admission)
    }

    fn admits(&self, epoch: Epoch, generation: Option<Generation>) -> Admission {
        let Some(store) = &self.store else { return Admission::ForeignStore };
        match &*self.shared.watermark.borrow() {
            None => Admission::Admitted,
            Some(mark) => mark.admits(store, epoch, generation.unwrap_or(Generation(u64::MAX))),
        }
    }

    async fn intent(&mut self, intent: Intent) -> Result<(), TaskError> {
        let (epoch, generation) = (intent.epoch, intent.generation);
        let refused = self.refusal("intent", epoch, Some(generation)).map(|why| match why {
            Admission::ForeignStore => "this agent is bound to another store",
            _ => "a newer intent was seen",
        });
        if let Some(reason) = refused {
            return self.say(Up::IntentRefused { epoch, generation, reason, pause_over: false }).await;
        }
        self.settled = None;
        let before = self.shared.intent.borrow().clone();
        if before.as_deref() == Some(&intent) {
            return self.say_settled().await;
        }
        if before.as_deref().is_some_and(|old| (old.epoch, old.generation) == (epoch, generation)) {
            let reason = "an intent of the same number said something else";
            self.shared.refused("altered", "intent", epoch);
            return self.say(Up::IntentRefused { epoch, generation, reason, pause_over: false }).await;
        }
        tracing::info!(upgrade = %intent.upgrade, epoch = epoch.0, generation = generation.0, gate = ?intent.gate, ingestion = ?intent.ingestion,
            purger = intent.purger.is_some(), serving = ?intent.targets.serving, "intent");
        let store = self.store.clone().unwrap_or_else(|| StoreId(String::new()));
        let mark = Watermark { store, epoch, generation };
        let intent = Arc::new(intent);
        self.forget_evidence(before.as_deref(), &intent);
        // What hurts is on the disk before it is done; what releases does not wait for the disk.
        if intent.is_harmful() {
            self.shared.spool.put_intent(&mark, &intent).await?;
            self.adopt(mark, intent.clone());
        } else {
            self.adopt(mark.clone(), intent.clone());
            self.shared.spool.put_intent(&mark, &intent).await?;
        }
        self.remember(&intent).await
    }

    fn adopt(&mut self, mark: Watermark, intent: Arc<Intent>) {
        self.shared.watermark.send_replace(Some(mark));
        self.applied_at = Some(self.shared.clock.mono());
        self.shared.intent.send_replace(Some(intent));
        helm::steer(&self.shared);
    }

    /// What green took counts from the opening of *this* window on.
    fn forget_evidence(&self, before: Option<&Intent>, intent: &Intent) {
        let other = before.is_some_and(|before| before.upgrade != intent.upgrade);
        if other || (intent.window.is_none() && intent.targets.serving == Side::Blue) {
            let forgot = self.shared.probe.send_if_modified(|probe| {
                probe.green_writer = None;
                std::mem::take(&mut probe.green_took_write)
            });
            if forgot {
                self.shared.spool.forget_soon(Key::GreenTookWrite);
            }
        }
    }

    /// Resolves the recorded servers once, early, and keeps where they were found. A name that nobody answers for is left to who
    /// needs it: meanwhile the stream would stand still, and the lease lapse.
    async fn remember(&mut self, intent: &Intent) -> Result<(), TaskError> {
        // Names that have moved are not believed any more: see `crate::meeting`.
        if intent.targets.serving == Side::Green {
            return self.keep_addresses().await;
        }
        let dialer = &self.shared.dialer;
        let each = intent.targets.sides().map(|side| async move { (side.side, dialer.remember(side).await) });
        let resolved = futures_util::future::join_all(each);
        match self.shared.clock.timeout(RESOLVED_WITHIN, resolved).await {
            Ok(sides) => {
                for (side, answer) in sides {
                    if let Err(error) = answer {
                        tracing::warn!(?side, error = %chain(&error), "a recorded server cannot be resolved yet");
                    }
                }
            }
            Err(_) => tracing::warn!("the recorded servers' names are not answered for yet"),
        }
        self.keep_addresses().await
    }

    /// Others resolve too: whatever is known is on the disk, for the next process, which may find the names moved or gone.
    async fn keep_addresses(&mut self) -> Result<(), TaskError> {
        let now = self.shared.dialer.addresses();
        if now != self.kept {
            self.shared.spool.put(Key::Addresses, &now).await?;
            self.kept = now;
        }
        Ok(())
    }

    async fn job(&mut self, job: Job) -> Result<(), TaskError> {
        let id = job.id.clone();
        if self.refusal("job", job.epoch, None).is_some() {
            let reason = "a newer coordinator was seen";
            return self.say(Up::JobRefused { id: &id, code: STALE, reason }).await;
        }
        match self.runner.offer(job).await {
            Offer::Accepted => self.say(Up::JobAccepted(&id)).await,
            Offer::Answered => {
                self.answered.remove(&id);
                self.say_answers().await
            }
            Offer::Refused { code, reason } => self.say(Up::JobRefused { id: &id, code, reason: &reason }).await,
        }
    }

    async fn say(&self, message: Up<'_>) -> Result<(), TaskError> {
        Ok(self.up.send(wire::write(message)?).await?)
    }

    async fn beat(&mut self) -> Result<Mono, TaskError> {
        let now = self.shared.clock.mono();
        let sequence = self.next_beat;
        self.next_beat += 1;
        self.beats.push_back((sequence, now));
        while self.beats.len() > 32 {
            self.beats.pop_front();
        }
        let intent_age_ms = self.applied_at.map_or(u64::MAX, |at| millis(now.since(at)));
        self.say(Up::Heartbeat { sequence, intent_age_ms }).await?;
        self.keep_addresses().await?;
        let every = self.lease / u32::try_from(BEATS_PER_LEASE).unwrap_or(1);
        Ok(now + every.clamp(BEAT_AT_LEAST, BEAT_AT_MOST))
    }

    async fn say_settled(&mut self) -> Result<(), TaskError> {
        let settled = self.shared.settled.borrow().clone();
        let Some(settled) = settled else { return Ok(()) };
        let (epoch, generation) = (settled.epoch, settled.generation);
        // What was applied may have to be refused later: a cap was reached, or the agent acts alone.
        let answer = (epoch, generation, settled.result.is_ok());
        let current = self.shared.intent.borrow().as_ref().map(|intent| (intent.epoch, intent.generation));
        if current != Some((epoch, generation)) || self.settled == Some(answer) {
            return Ok(());
        }
        self.settled = Some(answer);
        match &settled.result {
            Ok(observed) => self.say(Up::IntentApplied { epoch, generation, observed }).await,
            Err(Refusal { reason, pause_over }) => {
                self.say(Up::IntentRefused { epoch, generation, reason, pause_over: *pause_over }).await
            }
        }
    }

    async fn say_answers(&mut self) -> Result<(), TaskError> {
        for answer in self.runner.answers() {
            if !self.answered.insert(answer.id().clone()) {
                continue;
            }
            match &answer {
                Answer::Done { id, output } => self.say(Up::JobDone { id, output }).await?,
                Answer::Failed { id, failure } => self.say(Up::JobFailed { id, failure }).await?,
            }
        }
        Ok(())
    }

    async fn say_events(&mut self) -> Result<(), TaskError> {
        for (n, body) in self.shared.spool.events_after(self.last_event, EVENTS_AT_ONCE) {
            self.say(Up::Event { n, body }).await?;
            self.last_event = n;
        }
        Ok(())
    }

    /// The newest picture, unless the stream is slow; and how far jobs have come. Returns when the next is due.
    async fn say_report(&mut self) -> Result<Mono, TaskError> {
        let every = if self.shared.in_window() { REPORT_EVERY.1 } else { REPORT_EVERY.0 };
        let next = self.shared.clock.mono() + every;
        if self.up.capacity() < OUTGOING / 2 {
            return Ok(next);
        }
        self.reported = self.shared.probe.borrow().clone();
        let report = self.shared.report();
        self.say(Up::Report(&report)).await?;
        for progress in self.runner.take_progress() {
            self.say(Up::JobProgress(&progress)).await?;
        }
        Ok(next)
    }
}
