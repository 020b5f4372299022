//! One connection of one of the demo's clients, and what a failed statement means to it.
//!
//! Everything goes by the simple protocol, so that a pooler in transaction mode is served too. A statement whose answer
//! was lost is *unknown*, never failed: only the server's own ERROR says that nothing was done.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::tempo::Tempo;
use crate::names::Resolver;

/// Where and as whom a client connects.
#[derive(Clone, Debug)]
pub struct Login {
    /// An IP literal or a host name.
    pub host: String,
    /// Through which view of the lab's names the host is resolved; `None`: an IP literal.
    pub names: Option<Resolver>,
    /// TCP port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Database (or the pooler's name for one).
    pub database: String,
    /// What the client calls itself in `pg_stat_activity`.
    pub application: String,
}

impl Login {
    /// The same place and role, another database.
    pub fn database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The same place, another role and name.
    pub fn role(&self, user: &str, password: &str, application: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            application: application.to_owned(),
            ..self.clone()
        }
    }

    /// The session that was kept while it lives, else a new one.
    pub async fn kept_or_open(&self, kept: Option<Session>, tempo: &Tempo, limit: Duration) -> Result<Session, Miss> {
        match kept.filter(|session| !session.is_closed()) {
            Some(session) => Ok(session),
            None => self.open(tempo, limit).await,
        }
    }

    /// Connects, waiting at most `limit`.
    pub async fn open(&self, tempo: &Tempo, limit: Duration) -> Result<Session, Miss> {
        let found = match &self.names {
            Some(names) => names.lookup(&self.host),
            None => self.host.parse().ok(),
        };
        let Some(address) = found else {
            return Err(Miss::new(Sure::NotDone, "unresolved", format!("{} is not known", self.host)));
        };
        let mut config = Config::new();
        config
            .host(&self.host)
            .hostaddr(address)
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .dbname(&self.database)
            .application_name(&self.application);
        match tempo.within(limit, config.connect(NoTls)).await {
            None => Err(Miss::new(Sure::NotDone, "timeout", format!("no connection within {limit:?}"))),
            Some(Err(error)) => Err(Miss { sure: Sure::NotDone, ..Miss::of(&error) }),
            Some(Ok((client, connection))) => {
                let driver = tokio::spawn(async move {
                    // The client sees the error at its next statement; there is nobody else to tell.
                    let _ = connection.await;
                });
                Ok(Session { client, driver })
            }
        }
    }
}

/// What is certain about a statement that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// The server said that nothing was done.
    NotDone,
    /// The answer was lost: it may be done.
    Unknown,
}

/// A statement, or a connection, that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Miss {
    /// Whether it may have happened.
    pub sure: Sure,
    /// SQLSTATE, or a word of ours where the server said nothing.
    pub code: String,
    /// The server's words.
    pub message: String,
}

impl Miss {
    fn new(sure: Sure, code: &str, message: String) -> Self {
        Self { sure, code: code.to_owned(), message }
    }

    fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self::new(sureness(db), db.code().code(), db.message().to_owned()),
            None => Self::new(Sure::Unknown, "lost", error.to_string()),
        }
    }
}

fn sureness(error: &DbError) -> Sure {
    let fatal = !matches!(error.parsed_severity(), Some(Severity::Error));
    let code = error.code().code();
    if fatal || code.starts_with("08") || code.starts_with("57P") || code.starts_with("58") {
        Sure::Unknown
    } else {
        Sure::NotDone
    }
}

/// What a statement answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// All rows of all statements, as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows affected, summed over the statements.
    pub affected: u64,
}

impl Answer {
    /// The text in the first row's column `n`.
    pub fn first(&self, n: usize) -> Option<&str> {
        self.rows.first()?.get(n)?.as_deref()
    }
}

/// An open connection; it closes when dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    /// Runs one string of SQL; several statements in it are one transaction.
    pub async fn run(&self, tempo: &Tempo, limit: Duration, sql: &str) -> Result<Answer, Miss> {
        match tempo.within(limit, self.client.simple_query(sql)).await {
            None => Err(Miss::new(Sure::Unknown, "timeout", format!("no answer within {limit:?}"))),
            Some(Err(error)) => Err(Miss::of(&error)),
            Some(Ok(messages)) => Ok(collect(&messages)),
        }
    }

    /// Whether the server has closed it.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn collect(messages: &[SimpleQueryMessage]) -> Answer {
    let mut answer = Answer::default();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                answer.rows.push((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::CommandComplete(n) => answer.affected += n,
            _ => {}
        }
    }
    answer
}

/// A text literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
