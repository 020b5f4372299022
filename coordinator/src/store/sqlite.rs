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
//! - `bookmarks`: how far hooks were told, so that a restarted coordinator goes on there.
//!
//! An append is durable when it returns (`synchronous = FULL`). Nothing else of the program opens this file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::{
    Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Record, RunFilter, RunId, RunInfo, Seq, Subject,
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use proto::epoch::StoreId;
use runtime::clock::Clock;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, named_params, params};
use serde_json::Value;
use tokio::sync::watch;

use super::rows::{self, FactRow, RunRow, Watches, json, signed, timestamp, unsigned};
use super::samples::SAMPLES_MAX;
use super::worker::{StartError, Worker};
use crate::codes;
use crate::metrics;

mod migrations {
    refinery::embed_migrations!("src/store/migrations/sqlite");
}

/// The store. Cheap to clone; the file is unlocked when the last clone is dropped.
#[derive(Clone)]
pub struct SqliteStore {
    pub(super) worker: Worker,
    pub(super) clock: Clock,
    pub(super) id: StoreId,
    pub(super) samples_max: u32,
    watches: Arc<Watches>,
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
    #[error("{}: the store {path} cannot be opened", codes::STORE_UNUSABLE)]
    Open { path: PathBuf, source: StartError },
    #[error("{}: the store {path} is damaged", codes::STORE_DAMAGED)]
    Damaged { path: PathBuf, source: StartError },
    #[error("{}: the store {path} is of another version of this program", codes::STORE_VERSION)]
    OtherVersion { path: PathBuf, source: StartError },
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
        .map_err(|source| refused(path, source))?;
        Ok(SqliteStore { worker, clock, id, samples_max: SAMPLES_MAX, watches: Arc::default(), _lock: Arc::new(lock) })
    }

    /// So many samples are kept of one upgrade.
    pub fn keeping(self, samples_max: u32) -> SqliteStore {
        SqliteStore { samples_max, ..self }
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
}

/// Which kind of refusal a failed start is.
fn refused(path: &Path, source: StartError) -> OpenError {
    let path = path.to_owned();
    match &source {
        StartError::Damaged(_) => OpenError::Damaged { path, source },
        StartError::Sqlite(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) =>
        {
            OpenError::Damaged { path, source }
        }
        StartError::Migrate(error) => match error.kind() {
            refinery::error::Kind::MissingVersion(_) | refinery::error::Kind::DivergentVersion(..) => {
                OpenError::OtherVersion { path, source }
            }
            _ => OpenError::Open { path, source },
        },
        _ => OpenError::Open { path, source },
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
        let error = match self {
            Refusal::Journal(error) => return error,
            Refusal::Sqlite(error) => error,
        };
        metrics::store_failed();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                JournalError::Damaged(format!("{doing}: {error}"))
            }
            Some(ErrorCode::DiskFull) => JournalError::Store { doing: doing.to_owned(), source: Box::new(Full(error)) },
            _ => JournalError::Store { doing: doing.to_owned(), source: Box::new(error) },
        }
    }
}

/// Nothing of the change was written; it is tried again while the lease holds, and by the next driver after it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the disk of the store is full: make room there; nothing was half written, and upgrades go on by themselves",
    codes::STORE_UNUSABLE
)]
struct Full(#[source] rusqlite::Error);

// --- rows ---

const RUN_COLUMNS: &str = "id, subject, created_at, outcome";

fn read_run(row: &Row<'_>) -> Result<RunRow, rusqlite::Error> {
    Ok(RunRow { id: row.get(0)?, subject: row.get(1)?, created_at: row.get(2)?, outcome: row.get(3)? })
}

fn read_fact(row: &Row<'_>) -> Result<FactRow, rusqlite::Error> {
    Ok(FactRow { seq: row.get(0)?, epoch: row.get(1)?, at: row.get(2)?, fact: row.get(3)?, sum: row.get(4)? })
}

fn run_row(tx: &Transaction<'_>, id: &RunId) -> Result<RunRow, Refusal> {
    let sql = format!("select {} from runs where id = ?1", RUN_COLUMNS);
    let row = tx.query_row(&sql, [id.as_str()], read_run).optional()?;
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
                RUN_COLUMNS
            );
            let subject = subject.map(|subject| subject.0);
            let mut statement = tx.prepare_cached(&sql)?;
            let named = named_params! { ":active": active, ":subject": subject, ":limit": limit };
            let rows = statement.query_map(named, read_run)?.collect::<Result<Vec<_>, _>>()?;
            Ok(rows.into_iter().map(RunRow::info).collect::<Result<_, _>>()?)
        }))
    }

    fn info<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<RunInfo, JournalError>> {
        let id = id.clone();
        Box::pin(self.tx("reading a run", move |tx| Ok(run_row(tx, &id)?.info()?)))
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
                "select seq, epoch, at, fact, sum from facts where run = ?1 and seq >= ?2 order by seq limit ?3",
            )?;
            let rows = statement
                .query_map(params![id.as_str(), signed(from.0)?, limit], read_fact)?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(rows.into_iter().map(|row| row.record(id.as_str())).collect::<Result<_, _>>()?)
        }))
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        self.watches.watch(id)
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
            self.watches.touch(id.as_str());
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
                let at = at.to_string();
                let sum = rows::sum(key.as_str(), seq.0, epoch.0, &at, &fact);
                tx.prepare_cached(
                    "insert into facts (run, seq, epoch, at, fact, sum) values (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![key.as_str(), next, signed(epoch.0)?, at, fact, sum])?;
                if let Some(outcome) = outcome {
                    tx.execute("update runs set outcome = ?2 where id = ?1", params![key.as_str(), outcome.as_str()])?;
                }
                Ok(())
            };
            self.tx("appending a fact", insert).await?;
            self.watches.touch(id.as_str());
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
                params![subject, signed(epoch.0)?, holder.id, holder.address, expiry(now_ms, ttl)],
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
            tx.execute("delete from leases where subject = ?1 and epoch = ?2", params![subject, signed(epoch.0)?])?;
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
            self.watches.touch(id.as_str());
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
            Ok(rows.into_iter().map(ask).collect::<Result<_, JournalError>>()?)
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
        "insert into facts (run, seq, epoch, at, fact, sum) values (?1, 0, 0, ?2, ?3, ?4)",
        params![id.as_str(), at, created, rows::sum(id.as_str(), 0, 0, at, created)],
    )?;
    Ok(())
}
