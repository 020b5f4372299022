//! The demo's ingestion services: each takes numbered work at a steady rate, writes it, and keeps the ledger. Each offers
//! the HTTP hook that a real service would offer (`/state`, `/pause`, `/resume`); while it is paused its work piles up.
//!
//! A service is idempotent in the application's own way (see `operation`), and it never gives up a number: a lost answer
//! is repeated until it is acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, TableId};
use super::operation::{Items, Operation};
use super::session::{Login, Miss, Session, Sure};
use super::tally::Tally;
use super::tempo::Tempo;

/// How long a statement may take before its outcome counts as unknown: longer than any test lets clients be held, so that a client
/// that is held does not give up by itself.
const STATEMENT: Duration = Duration::from_secs(90);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(10);

/// What a service is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, as the agent's configuration has it.
    pub name: String,
    /// One worker per entry: where it writes.
    pub logins: Vec<Login>,
    /// Operations a second, per worker.
    pub rate: f64,
    /// Whether its statements go through the pooler.
    pub held: bool,
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    address: std::net::SocketAddr,
    tasks: JoinSet<()>,
    server_stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    name: String,
    rate: f64,
    paused: AtomicBool,
    draining: AtomicBool,
    busy: AtomicU64,
    workers: Vec<Arc<Progress>>,
    tally: Arc<Tally>,
    tempo: Tempo,
    pauses: Mutex<Pauses>,
}

#[derive(Debug, Default)]
struct Progress {
    produced: AtomicU64,
    done: AtomicU64,
    /// Acknowledged in the last whole second, and the second.
    pace: Mutex<(u64, u64, u64)>,
}

#[derive(Debug, Default)]
struct Pauses {
    since: Option<Duration>,
    total: Duration,
    backlog_peak: u64,
}

#[derive(Serialize)]
struct StateBody {
    state: &'static str,
    backlog: u64,
    rate: f64,
}

impl Service {
    /// Starts its workers and its hook; the hook's port is chosen by the system.
    pub async fn start(options: Options, ledger: Arc<Ledger>, tempo: Tempo) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            name: options.name.clone(),
            rate: options.rate,
            paused: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            busy: AtomicU64::new(0),
            workers: options.logins.iter().map(|_| Arc::default()).collect(),
            tally: Arc::new(Tally::new(&options.name, options.held, true)),
            tempo,
            pauses: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (n, login) in options.logins.into_iter().enumerate() {
            let worker = Worker {
                who: format!("{}-{n}", options.name),
                progress: Arc::clone(&shared.workers[n]),
                shared: Arc::clone(&shared),
                ledger: Arc::clone(&ledger),
                login,
            };
            tasks.spawn(worker.run());
        }
        let server_stop = CancellationToken::new();
        tasks.spawn(serve(listener, Arc::clone(&shared), server_stop.clone()));
        Ok(Self { shared, address, tasks, server_stop })
    }

    /// Where the hook listens, without a trailing slash.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What its writes felt.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.shared.tally)
    }

    /// How long it was paused in all.
    pub fn paused_for(&self) -> Duration {
        let pauses = self.shared.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.total + pauses.since.map(|since| self.shared.tempo.at().saturating_sub(since)).unwrap_or_default()
    }

    /// The largest backlog seen.
    pub fn backlog_peak(&self) -> u64 {
        self.shared.pauses.lock().unwrap_or_else(PoisonError::into_inner).backlog_peak
    }

    /// Operations not yet acknowledged.
    pub fn backlog(&self) -> u64 {
        self.shared.backlog()
    }

    /// Pauses it as the hook would.
    pub async fn pause(&self) {
        self.shared.pause().await;
    }

    /// Resumes it as the hook would.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Takes no more work, finishes what there is (at most for `limit`) and stops. The number of operations left over.
    pub async fn drain(mut self, limit: Duration) -> u64 {
        self.shared.resume();
        self.shared.draining.store(true, Ordering::SeqCst);
        self.server_stop.cancel();
        let tempo = self.shared.tempo.clone();
        let tasks = &mut self.tasks;
        let _ = tempo.within(limit, async { while tasks.join_next().await.is_some() {} }).await;
        self.tasks.abort_all();
        self.shared.backlog()
    }
}

impl Shared {
    fn backlog(&self) -> u64 {
        let count = |n: &AtomicU64| n.load(Ordering::SeqCst);
        self.workers.iter().map(|worker| count(&worker.produced).saturating_sub(count(&worker.done))).sum()
    }

    fn pace(&self) -> f64 {
        let now = self.tempo.at().as_secs();
        self.workers.iter().map(|worker| worker.pace_at(now)).sum()
    }

    /// Settles when no worker has a statement under way.
    async fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        {
            let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
            pauses.since.get_or_insert_with(|| self.tempo.at());
        }
        let deadline = self.tempo.at() + Duration::from_secs(5);
        while self.busy.load(Ordering::SeqCst) > 0 && self.tempo.at() < deadline {
            self.tempo.sleep(Duration::from_millis(2)).await;
        }
    }

    fn resume(&self) {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = pauses.since.take() {
            pauses.total += self.tempo.at().saturating_sub(since);
        }
        drop(pauses);
        self.paused.store(false, Ordering::SeqCst);
    }

    fn body(&self) -> StateBody {
        let quiet = self.paused.load(Ordering::SeqCst) && self.busy.load(Ordering::SeqCst) == 0;
        StateBody { state: if quiet { "paused" } else { "running" }, backlog: self.backlog(), rate: self.pace() }
    }
}

impl Progress {
    fn acknowledged(&self, at: Duration) {
        self.done.fetch_add(1, Ordering::SeqCst);
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let second = at.as_secs();
        *pace = match *pace {
            (s, now, before) if s == second => (s, now + 1, before),
            (s, now, _) if s + 1 == second => (second, 1, now),
            _ => (second, 1, 0),
        };
    }

    fn pace_at(&self, second: u64) -> f64 {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match *pace {
            (s, now, before) if s == second => before.max(now) as f64,
            (s, now, _) if s + 1 == second => now as f64,
            _ => 0.0,
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let app = Router::new()
        .route("/state", get(async |State(shared): State<Arc<Shared>>| Json(shared.body())))
        .route(
            "/pause",
            post(async |State(shared): State<Arc<Shared>>| {
                shared.pause().await;
                Json(shared.body())
            }),
        )
        .route(
            "/resume",
            post(async |State(shared): State<Arc<Shared>>| {
                shared.resume();
                Json(shared.body())
            }),
        )
        .with_state(Arc::clone(&shared));
    let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::warn!(service = shared.name, %error, "ingestion hook ended");
    }
}

struct Worker {
    who: String,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    login: Login,
}

impl Worker {
    async fn run(self) {
        let started = self.shared.tempo.at();
        let mut items = Items::new();
        let mut session = None;
        loop {
            let draining = self.shared.draining.load(Ordering::SeqCst);
            if !draining {
                self.produce(started);
            }
            let next = self.progress.done.load(Ordering::SeqCst) + 1;
            if self.shared.paused.load(Ordering::SeqCst) || next > self.progress.produced.load(Ordering::SeqCst) {
                if draining && !self.shared.paused.load(Ordering::SeqCst) {
                    return;
                }
                self.shared.tempo.sleep(Duration::from_millis(5)).await;
                continue;
            }
            let operation = Operation::number(next, &self.who, &self.login.database, &items);
            self.work(&operation, &mut session, started).await;
            operation.remember(&mut items);
        }
    }

    fn produce(&self, started: Duration) {
        let produced = self.shared.tempo.at().saturating_sub(started).as_secs_f64() * self.shared.rate;
        self.progress.produced.store(produced as u64, Ordering::SeqCst);
        let backlog = self.shared.backlog();
        let mut pauses = self.shared.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.backlog_peak = pauses.backlog_peak.max(backlog);
    }

    /// Sends one operation until it is acknowledged; between two attempts it lets itself be paused.
    async fn work(&self, operation: &Operation, session: &mut Option<Session>, started: Duration) {
        let mut maybe_done = false;
        loop {
            while self.shared.paused.load(Ordering::SeqCst) {
                self.produce(started);
                self.shared.tempo.sleep(Duration::from_millis(5)).await;
            }
            self.shared.busy.fetch_add(1, Ordering::SeqCst);
            let sent = self.send(operation, session, maybe_done).await;
            self.shared.busy.fetch_sub(1, Ordering::SeqCst);
            match sent {
                Ok(()) => return,
                Err(miss) => {
                    maybe_done |= miss.sure == Sure::Unknown;
                    *session = None;
                    self.shared.tempo.sleep(RETRY).await;
                }
            }
        }
    }

    async fn send(&self, operation: &Operation, session: &mut Option<Session>, again: bool) -> Result<(), Miss> {
        let tempo = &self.shared.tempo;
        let session = match session {
            Some(open) if !open.is_closed() => open,
            slot => {
                let opened = self.login.open(tempo, CONNECT).await;
                slot.insert(opened.inspect_err(|miss| self.shared.tally.unconnected(&miss.code))?)
            }
        };
        for effect in &operation.effects {
            self.ledger.attempt(&effect.table, &effect.key, effect.image.clone(), tempo.at());
        }
        let sql = if again { &operation.again } else { &operation.first };
        let answer = session.run(tempo, STATEMENT, sql).await;
        let at = tempo.at();
        match answer {
            Ok(answer) => {
                for effect in &operation.effects {
                    self.ledger.acknowledged(&effect.table, &effect.key, at);
                }
                if operation.numbered {
                    for (column, sequence) in ["events_id_seq", "tickets", "countdown"].into_iter().enumerate() {
                        if let Some(value) = answer.first(column).and_then(|text| text.parse().ok()) {
                            self.ledger.number(&TableId::new(self.login.database.as_str(), sequence), value);
                        }
                    }
                }
                self.shared.tally.done(at);
                self.progress.acknowledged(at);
                Ok(())
            }
            Err(miss) => {
                self.shared.tally.failed(&miss.code);
                for effect in &operation.effects {
                    match miss.sure {
                        Sure::NotDone if !again => self.ledger.refused(&effect.table, &effect.key, at),
                        _ => self.ledger.unknown(&effect.table, &effect.key, at),
                    }
                }
                Err(miss)
            }
        }
    }
}
