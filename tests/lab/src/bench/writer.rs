//! A client that writes one row again and again and keeps the moment at which the server accepted each, by the server's clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::demo::session::{Login, Session};
use crate::demo::tempo::Tempo;

/// What it needs in its database.
pub const TABLE: &str =
    "create table public.bench_writes (id uuid primary key default gen_random_uuid(), client text not null)";

const CONNECT: Duration = Duration::from_secs(2);
const STATEMENT: Duration = Duration::from_secs(60);

/// Where a client finds its server just now: a name may lead elsewhere by now, or nowhere.
pub type Find = Arc<dyn Fn() -> Option<Login> + Send + Sync>;

/// How a client goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Connects anew after every failure, and writes on and on.
    Follows,
    /// Keeps a connection on which it was only refused, and is done with its first accepted write.
    WaitsForOne,
}

/// A running client.
#[derive(Debug)]
pub struct Writer {
    stop: CancellationToken,
    task: JoinHandle<()>,
    accepted: Arc<Mutex<Vec<Timestamp>>>,
}

impl Writer {
    /// Starts it; `every` is the pause after an answer and after a failure.
    #[must_use]
    pub fn start(name: &str, find: Find, every: Duration, manner: Manner, tempo: Tempo) -> Self {
        let (stop, accepted) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let client = Client { name: name.to_owned(), find, every, manner, tempo, accepted: Arc::clone(&accepted) };
        let until = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = client.run() => {}
                () = until.cancelled() => {}
            }
        });
        Self { stop, task, accepted }
    }

    /// The first write that a server accepted at or after a moment.
    #[must_use]
    pub fn first_since(&self, moment: Timestamp) -> Option<Timestamp> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.iter().copied().find(|at| *at >= moment)
    }

    /// Ends it.
    pub async fn stop(self) {
        self.stop.cancel();
        // One that panicked has left what it measured behind.
        let _ = self.task.await;
    }
}

struct Client {
    name: String,
    find: Find,
    every: Duration,
    manner: Manner,
    tempo: Tempo,
    accepted: Arc<Mutex<Vec<Timestamp>>>,
}

impl Client {
    async fn run(&self) {
        let sql = format!(
            "insert into public.bench_writes (client) values ('{}') \
             returning (extract(epoch from clock_timestamp()) * 1000000)::bigint",
            self.name
        );
        let mut session: Option<Session> = None;
        loop {
            let open = match session.take().filter(|session| !session.is_closed()) {
                Some(open) => Some(open),
                None => self.open().await,
            };
            if let Some(open) = open {
                match open.run(&self.tempo, STATEMENT, &sql).await {
                    Ok(answer) => {
                        let at = answer.first(0).and_then(|text| Timestamp::from_microsecond(text.parse().ok()?).ok());
                        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).extend(at);
                        if self.manner == Manner::WaitsForOne {
                            return;
                        }
                        session = Some(open);
                    }
                    Err(_) if self.manner == Manner::WaitsForOne => session = Some(open),
                    Err(_) => {}
                }
            }
            self.tempo.sleep(self.every).await;
        }
    }

    async fn open(&self) -> Option<Session> {
        (self.find)()?.open(&self.tempo, CONNECT).await.ok()
    }
}
