//! The demo's own stopwatch: clients that do nothing but one small statement every few milliseconds, so that the gap
//! between two answers *is* the downtime a client felt. One writes and one reads, directly and through the pooler.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ledger::{Image, Ledger, TableId};
use super::session::{Login, Session, Sure};
use super::tally::Tally;
use super::tempo::Tempo;

/// How long a statement may take: of a client that nobody holds, and of one behind the pooler, which waits for longer than any test lets
/// clients be held.
const STATEMENT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(90));
const CONNECT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(3);

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Inserts a numbered row; each is an entry of the ledger.
    Writes,
    /// Reads one row.
    Reads,
}

/// A running probe.
#[derive(Debug)]
pub struct Probe {
    stop: CancellationToken,
    task: JoinHandle<()>,
    tally: Arc<Tally>,
}

impl Probe {
    /// Starts it; `every` is the pause after an answer.
    pub fn start(
        name: &str,
        kind: Kind,
        held: bool,
        login: Login,
        every: Duration,
        ledger: Arc<Ledger>,
        tempo: Tempo,
    ) -> Self {
        let stop = CancellationToken::new();
        let tally = Arc::new(Tally::new(name, held, kind == Kind::Writes));
        let limit = if held { STATEMENT.1 } else { STATEMENT.0 };
        let client =
            ProbeClient { name: name.to_owned(), kind, login, every, limit, ledger, tally: Arc::clone(&tally), tempo };
        let task = tokio::spawn(client.run(stop.clone()));
        Self { stop, task, tally }
    }

    /// What it felt.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Ends after the statement under way.
    pub async fn stop(self) {
        self.stop.cancel();
        // A probe that panicked has left its tally behind, and the judge finds the rest.
        let _ = self.task.await;
    }
}

struct ProbeClient {
    name: String,
    kind: Kind,
    login: Login,
    every: Duration,
    /// Of one statement.
    limit: Duration,
    ledger: Arc<Ledger>,
    tally: Arc<Tally>,
    tempo: Tempo,
}

impl ProbeClient {
    async fn run(self, stop: CancellationToken) {
        let table = TableId::new(self.login.database.as_str(), "probe_writes");
        let mut session: Option<Session> = None;
        let mut n = 0_u64;
        while !stop.is_cancelled() {
            let open = match self.login.kept_or_open(session.take(), &self.tempo, CONNECT).await {
                Ok(open) => open,
                Err(miss) => {
                    self.tally.unconnected(&miss.code);
                    self.tempo.sleep(RETRY).await;
                    continue;
                }
            };
            n += 1;
            let answered = match self.kind {
                Kind::Writes => self.write(&open, &table, n).await,
                Kind::Reads => self.read(&open).await,
            };
            if answered {
                session = Some(open);
                self.tempo.sleep(self.every).await;
            } else {
                self.tempo.sleep(RETRY).await;
            }
        }
    }

    async fn write(&self, session: &Session, table: &TableId, n: u64) -> bool {
        let key = format!("{}/{n}", self.name);
        self.ledger.attempt(table, &key, Image::Is(n.to_string()), self.tempo.at());
        let sql = format!("insert into probe_writes (client, n) values ('{}', {n})", self.name);
        let answer = session.run(&self.tempo, self.limit, &sql).await;
        let at = self.tempo.at();
        match answer {
            Ok(_) => {
                self.ledger.acknowledged(table, &key, at);
                self.tally.done(at);
                true
            }
            Err(miss) => {
                match miss.sure {
                    Sure::NotDone => self.ledger.refused(table, &key, at),
                    Sure::Unknown => self.ledger.unknown(table, &key, at),
                }
                self.tally.failed(&miss.code);
                false
            }
        }
    }

    async fn read(&self, session: &Session) -> bool {
        match session.run(&self.tempo, self.limit, "select id, balance from accounts where id = 1").await {
            Ok(_) => {
                self.tally.done(self.tempo.at());
                true
            }
            Err(miss) => {
                self.tally.failed(&miss.code);
                false
            }
        }
    }
}
