//! A client that writes one row again and again and keeps the moment at which the server accepted each, by the server's clock,
//! and since when the server's settings are what they are.

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
    accepted: Arc<Mutex<Vec<Accepted>>>,
}

/// A write that a server took.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// While the server worked on the statement.
    pub at: Timestamp,
    /// When the server last read its configuration, before this client's session began: what let the client in.
    pub configured: Timestamp,
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
    pub fn first_since(&self, moment: Timestamp) -> Option<Accepted> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.iter().copied().find(|write| write.at >= moment)
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
    accepted: Arc<Mutex<Vec<Accepted>>>,
}

impl Client {
    async fn run(&self) {
        let sql = format!(
            "insert into public.bench_writes (client) values ('{}') \
             returning (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
             (extract(epoch from pg_conf_load_time()) * 1000000)::bigint",
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
                        let moment = |column| Timestamp::from_microsecond(answer.first(column)?.parse().ok()?).ok();
                        let write = moment(0).zip(moment(1)).map(|(at, configured)| Accepted { at, configured });
                        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).extend(write);
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
