//! The store of a single coordinator: one SQLite file that an operator can open.
//!
//! What is stored, and why:
//! - `runs` and `facts`: the journals. They are the upgrades; everything else can be lost and made again.
//! - `leases` and the epoch counter in `store`: who may append. With one process per file (a lock file refuses a second
//!   one) the leases found at the start belong to a process that is gone, and are dropped.
//! - `asks`: what people asked for, so that a wish survives the moment in which no driver runs.
//! - `beside.about` and `beside.wish`: who must settle what, and the newest thing they were told, so that a restarted
//!   coordinator can say the same again or take it back. Nothing decides on them.
//! - `samples`: measurements for charts; bounded; nothing decides on them.
//!
//! An append is durable when it returns (`synchronous = FULL`). Nothing else of the program opens this file.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{
    Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Outcome, Record, RunFilter, RunId, RunInfo, Seq,
    Subject,
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use proto::epoch::StoreId;
use runtime::clock::Clock;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, named_params, params};
use serde_json::Value;
use tokio::sync::watch;

use super::worker::{StartError, Worker};

mod migrations {
    refinery::embed_migrations!("src/store/migrations/sqlite");
}

/// The store. Cheap to clone; the file is unlocked when the last clone is dropped.
#[derive(Clone)]
pub struct SqliteStore {
    pub(super) worker: Worker,
    pub(super) clock: Clock,
    id: StoreId,
    watches: Arc<Mutex<HashMap<RunId, watch::Sender<u64>>>>,
    _lock: Arc<FileLock>,
}

/// Held as long as the store is open.
struct FileLock(#[expect(dead_code, reason = "held for its lock, which closing the file gives back")] File);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is in use by another coordinator: stop it, or give this one a store of its own")]
    InUse { path: PathBuf },
    #[error("{path} cannot be locked")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("the store {path} cannot be opened")]
    Open { path: PathBuf, source: StartError },
}

impl SqliteStore {
    /// Opens (or makes) the store, alone.
    ///
    /// # Errors
    /// When another process has it open, or the file cannot be used.
    pub fn open(path: &Path, clock: Clock) -> Result<SqliteStore, OpenError> {
        let lock = lock(path)?;
        let mut id = StoreId(String::new());
        let worker = Worker::start(path, |connection| {
            migrations::migrations::runner().run(connection)?;
            id = identity(connection)?;
            Ok(())
        })
        .map_err(|source| OpenError::Open { path: path.to_owned(), source })?;
        Ok(SqliteStore { worker, clock, id, watches: Arc::default(), _lock: Arc::new(lock) })
    }

    /// The identity of this store; agents obey one only.
    pub fn id(&self) -> &StoreId {
        &self.id
    }

    /// A fresh epoch that belongs to no lease: above every one before it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_epoch(&self) -> Result<Epoch, JournalError> {
        self.tx("taking an epoch", |tx| Ok(next_epoch(tx)?)).await
    }

    /// One transaction on the store's thread.
    pub(super) async fn tx<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, JournalError> {
        let outcome = self
            .worker
            .run(move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let value = work(&tx)?;
                tx.commit()?;
                Ok::<T, Refusal>(value)
            })
            .await
            .map_err(|gone| JournalError::Store { doing: doing.to_owned(), source: Box::new(gone) })?;
        outcome.map_err(|refusal| refusal.into_error(doing))
    }

    fn touch(&self, id: &RunId) {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watches.get(id) {
            sender.send_modify(|n| *n = n.wrapping_add(1));
        }
    }
}

/// The lock is a file beside the database: SQLite has locks of its own on the database file.
fn lock(path: &Path) -> Result<FileLock, OpenError> {
    let beside = path.with_added_extension("lock");
    let failed = |source| OpenError::Lock { path: beside.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&beside).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(FileLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes the store's identity at the first start; drops the leases of a process that is gone.
fn identity(connection: &mut Connection) -> Result<StoreId, rusqlite::Error> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let fresh = uuid::Uuid::now_v7().to_string();
    tx.execute("insert into store (only_row, id, epoch) values (1, ?1, 0) on conflict do nothing", [&fresh])?;
    tx.execute("delete from leases", [])?;
    let id = tx.query_row("select id from store", [], |row| row.get(0))?;
    tx.commit()?;
    Ok(StoreId(id))
}

/// A refusal of the journal, or SQLite's own failure.
pub(super) enum Refusal {
    Journal(JournalError),
    Sqlite(rusqlite::Error),
    Corrupt(String),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Refusal {
        Refusal::Sqlite(error)
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Refusal {
        Refusal::Journal(error)
    }
}

impl Refusal {
    fn into_error(self, doing: &str) -> JournalError {
        let store = |source| JournalError::Store { doing: doing.to_owned(), source };
        match self {
            Refusal::Journal(error) => error,
            Refusal::Sqlite(error) => store(Box::new(error)),
            Refusal::Corrupt(what) => store(what.into()),
        }
    }
}

// --- rows ---

fn number(value: u64) -> Result<i64, Refusal> {
    i64::try_from(value).map_err(|_| Refusal::Corrupt(format!("{value} is too large for the store")))
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn timestamp(text: &str) -> Result<Timestamp, Refusal> {
    text.parse().map_err(|error| Refusal::Corrupt(format!("the time {text:?} cannot be read: {error}")))
}

fn json(text: &str) -> Result<Value, Refusal> {
    serde_json::from_str(text).map_err(|error| Refusal::Corrupt(format!("a stored document cannot be read: {error}")))
}

fn outcome(text: Option<String>) -> Result<Option<Outcome>, Refusal> {
    let known = [Outcome::Succeeded, Outcome::Unwound, Outcome::Refused, Outcome::Stopped];
    let find = |text: String| {
        let found = known.into_iter().find(|outcome| outcome.as_str() == text);
        found.ok_or_else(|| Refusal::Corrupt(format!("the outcome {text:?} is not known")))
    };
    text.map(find).transpose()
}

struct RunRow {
    id: String,
    subject: String,
    created_at: String,
    outcome: Option<String>,
}

impl RunRow {
    const COLUMNS: &str = "id, subject, created_at, outcome";

    fn read(row: &Row<'_>) -> Result<RunRow, rusqlite::Error> {
        Ok(RunRow { id: row.get(0)?, subject: row.get(1)?, created_at: row.get(2)?, outcome: row.get(3)? })
    }

    fn info(self) -> Result<RunInfo, Refusal> {
        Ok(RunInfo {
            id: RunId(self.id),
            subject: Subject(self.subject),
            created_at: timestamp(&self.created_at)?,
            outcome: outcome(self.outcome)?,
        })
    }
}

fn run_row(tx: &Transaction<'_>, id: &RunId) -> Result<RunRow, Refusal> {
    let sql = format!("select {} from runs where id = ?1", RunRow::COLUMNS);
    let row = tx.query_row(&sql, [id.as_str()], RunRow::read).optional()?;
    row.ok_or_else(|| JournalError::NoSuchRun(id.clone()).into())
}

fn next_epoch(tx: &Transaction<'_>) -> Result<Epoch, rusqlite::Error> {
    let epoch: i64 = tx.query_row("update store set epoch = epoch + 1 returning epoch", [], |row| row.get(0))?;
    Ok(Epoch(unsigned(epoch)))
}

struct LeaseRow {
    epoch: Epoch,
    holder: Holder,
    expires_ms: i64,
}

fn lease_of(tx: &Transaction<'_>, subject: &str) -> Result<Option<LeaseRow>, rusqlite::Error> {
    tx.query_row("select epoch, holder, address, expires_ms from leases where subject = ?1", [subject], |row| {
        let epoch = Epoch(unsigned(row.get(0)?));
        Ok(LeaseRow { epoch, holder: Holder { id: row.get(1)?, address: row.get(2)? }, expires_ms: row.get(3)? })
    })
    .optional()
}

fn holds(tx: &Transaction<'_>, subject: &str, epoch: Epoch, now_ms: i64) -> Result<bool, rusqlite::Error> {
    Ok(lease_of(tx, subject)?.is_some_and(|lease| lease.epoch == epoch && now_ms < lease.expires_ms))
}

fn expiry(now_ms: i64, ttl: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}

// --- the journal ---

impl JournalRead for SqliteStore {
    fn list<'a>(&'a self, filter: &'a RunFilter) -> BoxFuture<'a, Result<Vec<RunInfo>, JournalError>> {
        let (active, subject) = (filter.active_only, filter.subject.clone());
        let limit = filter.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        Box::pin(self.tx("listing runs", move |tx| {
            let sql = format!(
                "select {} from runs where (outcome is null or not :active) and (:subject is null or subject = :subject) \
                 order by number desc limit :limit",
                RunRow::COLUMNS
            );
            let subject = subject.map(|subject| subject.0);
            let mut statement = tx.prepare_cached(&sql)?;
            let named = named_params! { ":active": active, ":subject": subject, ":limit": limit };
            let rows = statement.query_map(named, RunRow::read)?.collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(RunRow::info).collect()
        }))
    }

    fn info<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<RunInfo, JournalError>> {
        let id = id.clone();
        Box::pin(self.tx("reading a run", move |tx| run_row(tx, &id)?.info()))
    }

    fn read_from<'a>(
        &'a self,
        id: &'a RunId,
        from: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        let id = id.clone();
        Box::pin(self.tx("reading a journal", move |tx| {
            run_row(tx, &id)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut statement = tx.prepare_cached(
                "select seq, epoch, at, fact from facts where run = ?1 and seq >= ?2 order by seq limit ?3",
            )?;
            let rows = statement
                .query_map(params![id.as_str(), number(from.0)?, limit], |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, i64>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, String>(3)?,
                    ))
                })?
                .collect::<Result<Vec<_>, _>>()?;
            let record = |(seq, epoch, at, fact): (i64, i64, String, String)| {
                let (seq, epoch) = (Seq(unsigned(seq)), Epoch(unsigned(epoch)));
                Ok(Record { seq, epoch, at: timestamp(&at)?, fact: json(&fact)? })
            };
            rows.into_iter().map(record).collect()
        }))
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.entry(id.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    fn holder<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<(Holder, Epoch)>, JournalError>> {
        let (subject, now_ms) = (subject.0.clone(), self.clock.now().as_millisecond());
        Box::pin(self.tx("reading a lease", move |tx| {
            let lease = lease_of(tx, &subject)?.filter(|lease| now_ms < lease.expires_ms);
            Ok(lease.map(|lease| (lease.holder, lease.epoch)))
        }))
    }
}

impl Journal for SqliteStore {
    fn create<'a>(
        &'a self,
        subject: &'a Subject,
        id: &'a RunId,
        at: Timestamp,
        created: &'a Value,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        let (subject, key) = (subject.clone(), id.clone());
        let (at, created) = (at.to_string(), created.to_string());
        Box::pin(async move {
            self.tx("creating a run", move |tx| insert_run(tx, subject, key, &at, &created)).await?;
            self.touch(id);
            Ok(())
        })
    }

    fn append<'a>(&'a self, append: Append<'a>) -> BoxFuture<'a, Result<(), JournalError>> {
        let Append { id, epoch, seq, at, fact, outcome } = append;
        let (key, fact, now_ms) = (id.clone(), fact.to_string(), self.clock.now().as_millisecond());
        Box::pin(async move {
            let insert = move |tx: &Transaction<'_>| {
                let run = run_row(tx, &key)?;
                if !holds(tx, &run.subject, epoch, now_ms)? {
                    return Err(JournalError::Fenced(epoch).into());
                }
                let next: i64 = tx.query_row(
                    "select coalesce(max(seq) + 1, 0) from facts where run = ?1",
                    [key.as_str()],
                    |row| row.get(0),
                )?;
                if unsigned(next) != seq.0 || run.outcome.is_some() {
                    return Err(JournalError::Taken(seq).into());
                }
                tx.prepare_cached("insert into facts (run, seq, epoch, at, fact) values (?1, ?2, ?3, ?4, ?5)")?
                    .execute(params![key.as_str(), next, number(epoch.0)?, at.to_string(), fact])?;
                if let Some(outcome) = outcome {
                    tx.execute("update runs set outcome = ?2 where id = ?1", params![key.as_str(), outcome.as_str()])?;
                }
                Ok(())
            };
            self.tx("appending a fact", insert).await?;
            self.touch(id);
            Ok(())
        })
    }

    fn acquire<'a>(
        &'a self,
        subject: &'a Subject,
        holder: &'a Holder,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, JournalError>> {
        let (subject, holder, now_ms) = (subject.0.clone(), holder.clone(), self.clock.now().as_millisecond());
        Box::pin(self.tx("taking a lease", move |tx| {
            if let Some(lease) = lease_of(tx, &subject)?
                && lease.holder.id != holder.id
                && now_ms < lease.expires_ms
            {
                let remaining = Duration::from_millis(unsigned(lease.expires_ms - now_ms));
                return Err(JournalError::Held { holder: lease.holder.address, remaining }.into());
            }
            let epoch = next_epoch(tx)?;
            tx.execute(
                "insert or replace into leases (subject, epoch, holder, address, expires_ms) values (?1, ?2, ?3, ?4, ?5)",
                params![subject, number(epoch.0)?, holder.id, holder.address, expiry(now_ms, ttl)],
            )?;
            Ok(epoch)
        }))
    }

    fn renew<'a>(
        &'a self,
        subject: &'a Subject,
        epoch: Epoch,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        let (subject, now_ms) = (subject.0.clone(), self.clock.now().as_millisecond());
        Box::pin(self.tx("renewing a lease", move |tx| {
            if !holds(tx, &subject, epoch, now_ms)? {
                return Err(JournalError::Fenced(epoch).into());
            }
            tx.execute("update leases set expires_ms = ?2 where subject = ?1", params![subject, expiry(now_ms, ttl)])?;
            Ok(())
        }))
    }

    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> BoxFuture<'a, Result<(), JournalError>> {
        let subject = subject.0.clone();
        Box::pin(self.tx("giving a lease back", move |tx| {
            tx.execute("delete from leases where subject = ?1 and epoch = ?2", params![subject, number(epoch.0)?])?;
            Ok(())
        }))
    }

    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> BoxFuture<'a, Result<(), JournalError>> {
        let (key, row) = (id.clone(), row.clone());
        Box::pin(async move {
            let insert = move |tx: &Transaction<'_>| {
                run_row(tx, &key)?;
                tx.execute(
                    "insert into asks (run, ask, by, at, request) values (?1, ?2, ?3, ?4, ?5) on conflict do nothing",
                    params![
                        key.as_str(),
                        row.ask.as_str(),
                        row.by.as_str(),
                        row.at.to_string(),
                        row.request.to_string()
                    ],
                )?;
                Ok(())
            };
            self.tx("keeping a request", insert).await?;
            self.touch(id);
            Ok(())
        })
    }

    fn asks<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Vec<AskRow>, JournalError>> {
        let id = id.clone();
        Box::pin(self.tx("reading the inbox", move |tx| {
            run_row(tx, &id)?;
            let mut statement = tx.prepare_cached("select ask, by, at, request from asks where run = ?1 order by n")?;
            let rows = statement
                .query_map([id.as_str()], |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, String>(3)?,
                    ))
                })?
                .collect::<Result<Vec<_>, _>>()?;
            let ask = |(ask, by, at, request): (String, String, String, String)| {
                Ok(AskRow { ask: ask.into(), by: by.into(), at: timestamp(&at)?, request: json(&request)? })
            };
            rows.into_iter().map(ask).collect()
        }))
    }
}

fn insert_run(tx: &Transaction<'_>, subject: Subject, id: RunId, at: &str, created: &str) -> Result<(), Refusal> {
    let busy = "select id from runs where subject = ?1 and outcome is null";
    if let Some(by) = tx.query_row(busy, [subject.as_str()], |row| row.get(0)).optional()? {
        return Err(JournalError::SubjectBusy { subject, by: RunId(by) }.into());
    }
    if tx.query_row("select 1 from runs where id = ?1", [id.as_str()], |_| Ok(())).optional()?.is_some() {
        return Err(JournalError::Exists(id).into());
    }
    tx.execute(
        "insert into runs (id, subject, created_at, number) \
         values (?1, ?2, ?3, (select coalesce(max(number), 0) + 1 from runs))",
        params![id.as_str(), subject.as_str(), at],
    )?;
    tx.execute(
        "insert into facts (run, seq, epoch, at, fact) values (?1, 0, 0, ?2, ?3)",
        params![id.as_str(), at, created],
    )?;
    Ok(())
}
