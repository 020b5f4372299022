//! A load like pgbench's, but one that reconnects: clients that move amounts between accounts in explicit transactions,
//! at a limited rate, and note each in `history`. A transaction is sent once and never repeated, so that the books
//! (`accounts.balance` against the sum of `history.delta`) must balance on whatever server is production.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::{Image, Ledger, TableId};
use super::session::{Login, Miss, Session, Sure};
use super::tally::Tally;
use super::tempo::Tempo;

const STATEMENT: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(20);

/// What the load is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its clients connect, one after another in turn.
    pub logins: Vec<Login>,
    /// How many clients.
    pub clients: usize,
    /// Transactions a second, all clients together.
    pub rate: f64,
    /// Rows of `accounts` in each database.
    pub accounts: u64,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    tally: Arc<Tally>,
}

impl Load {
    /// Starts the clients.
    pub fn start(options: &Options, ledger: &Arc<Ledger>, tempo: &Tempo) -> Self {
        let stop = CancellationToken::new();
        let tally = Arc::new(Tally::new("load", false, true));
        let mut tasks = JoinSet::new();
        for (n, login) in options.logins.iter().cycle().take(options.clients).enumerate() {
            let client = LoadClient {
                number: n,
                login: login.clone(),
                every: Duration::from_secs_f64(options.clients as f64 / options.rate.max(0.1)),
                accounts: options.accounts.max(1),
                ledger: Arc::clone(ledger),
                tally: Arc::clone(&tally),
                tempo: tempo.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(client.run());
        }
        Self { stop, tasks, tally }
    }

    /// What its clients felt, all together.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Ends after the transactions under way.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct LoadClient {
    number: usize,
    login: Login,
    every: Duration,
    accounts: u64,
    ledger: Arc<Ledger>,
    tally: Arc<Tally>,
    tempo: Tempo,
    stop: CancellationToken,
}

impl LoadClient {
    async fn run(self) {
        let history = TableId::new(self.login.database.as_str(), "history");
        let accounts = TableId::new(self.login.database.as_str(), "accounts");
        let mut session: Option<Session> = None;
        let mut n = 0_u64;
        while !self.stop.is_cancelled() {
            let began = self.tempo.at();
            let open = match self.login.kept_or_open(session.take(), &self.tempo, CONNECT).await {
                Ok(open) => open,
                Err(miss) => {
                    self.tally.unconnected(&miss.code);
                    self.tempo.sleep(RETRY).await;
                    continue;
                }
            };
            n += 1;
            let account = rand::rng().random_range(1..=self.accounts);
            let key = format!("{}/{n}", self.number);
            let delta = (n % 199) as i64 - 99;
            self.ledger.attempt(&history, &key, Image::Is(format!("{account}:{delta}")), began);
            self.ledger.touched(&accounts, &account.to_string(), began);
            let sent = self.transact(&open, account, delta, n).await;
            let at = self.tempo.at();
            self.ledger.touched(&accounts, &account.to_string(), at);
            match sent {
                Ok(()) => {
                    self.ledger.acknowledged(&history, &key, at);
                    self.tally.done(at);
                    session = Some(open);
                    let rest = self.every.saturating_sub(at.saturating_sub(began));
                    self.tempo.sleep(rest).await;
                }
                Err(miss) => {
                    self.tally.failed(&miss.code);
                    match miss.sure {
                        Sure::NotDone => self.ledger.refused(&history, &key, at),
                        Sure::Unknown => self.ledger.unknown(&history, &key, at),
                    }
                    self.tempo.sleep(RETRY).await;
                }
            }
        }
    }

    async fn transact(&self, session: &Session, account: u64, delta: i64, n: u64) -> Result<(), Miss> {
        let client = self.number;
        let work = [
            "begin".to_owned(),
            format!("update accounts set balance = balance + ({delta}), changes = changes + 1 where id = {account}"),
            format!("select balance from accounts where id = {account}"),
            format!("insert into history (client, n, account, delta) values ({client}, {n}, {account}, {delta})"),
        ];
        for sql in &work {
            let answer = session.run(&self.tempo, STATEMENT, sql).await;
            // Before COMMIT was sent nothing can be committed, whatever happened to the answer.
            answer.map_err(|miss| Miss { sure: Sure::NotDone, ..miss })?;
        }
        session.run(&self.tempo, STATEMENT, "commit").await.map(drop)
    }
}
