//! The store that several coordinators share: one schema of a PostgreSQL database of its own (never of a managed cluster).
//!
//! What is stored, and why:
//! - `runs` and `facts`: the journals. They are the upgrades; everything else can be lost and made again.
//! - `leases` and the sequence `epochs`: who may append, until when by the *server's* clock. Coordinators' clocks decide nothing.
//! - `asks`: what people asked for, through whichever coordinator.
//! - `beside.about` and `beside.wish`: who must settle what, and the newest thing they were told.
//! - `samples`: measurements for charts; bounded; nothing decides on them.
//! - `bookmarks`: how far hooks were told, so that whoever drives next goes on there.
//!
//! Every operation is one statement (`postgres/sql.rs`). An append is durable when it returns (`synchronous_commit = on`); a
//! failover of this server must lose no commit, or the journal has lost facts. Nothing else of the program uses this database.

mod connection;
mod sql;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use engine::{
    Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Record, RunFilter, RunId, RunInfo, Seq, Subject,
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use proto::epoch::StoreId;
use proto::ids::UpgradeId;
use runtime::clock::Clock;
use runtime::supervision::chain;
use serde_json::Value;
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

pub use self::connection::{ConnectError, Place, Tls};
use self::connection::{Dialer, Line, OnNotice, OperationError, Session};
use super::rows::{self, FactRow, RunRow, Watches, signed, unsigned};
use super::samples::{About, SAMPLES_MAX, Sample, unreadable};
use super::{Bookmark, Store};
use crate::codes;
use crate::link::{Wish, WishKeeper};
use crate::metrics;

mod migrations {
    refinery::embed_migrations!("src/store/migrations/postgres");
}

/// The longest that a write, a lease or a look at one may take.
const WRITE_WITHIN: Duration = Duration::from_millis(2500);
/// The longest that reading may take.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// For making or bringing up the tables, another coordinator doing so first included.
const MIGRATE_WITHIN: Duration = Duration::from_secs(60);

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct PostgresStore(Arc<Inner>, SamplesMax);

/// Samples kept of one upgrade.
#[derive(Debug, Clone, Copy)]
struct SamplesMax(i64);

struct Inner {
    id: StoreId,
    writing: Line,
    reading: Line,
    watches: Arc<Watches>,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: the store cannot be reached", codes::STORE_UNUSABLE)]
    Connect(#[from] ConnectError),
    #[error("{}: the store at {at} cannot be used", codes::STORE_UNUSABLE)]
    Sql { at: String, source: tokio_postgres::Error },
    #[error("{}: the tables of the store at {at} cannot be brought up to date", codes::STORE_UNUSABLE)]
    Migrate { at: String, source: refinery::Error },
    #[error("{}: the store at {at} is of another version of this program", codes::STORE_VERSION)]
    OtherVersion { at: String, source: refinery::Error },
    #[error("{}: the store at {at} was busy being brought up to date for {} s", codes::STORE_UNUSABLE, MIGRATE_WITHIN.as_secs())]
    Busy { at: String },
}

fn settings(limit: Duration) -> String {
    format!(
        "set search_path = {}; set statement_timeout = {}; set lock_timeout = 1000; \
         set idle_in_transaction_session_timeout = 5000; set synchronous_commit = on; \
         set default_transaction_isolation = 'read committed'",
        sql::SCHEMA,
        limit.as_millis()
    )
}

impl PostgresStore {
    /// Connects, makes the tables or brings them up to date, one coordinator at a time.
    ///
    /// # Errors
    /// When the server cannot be reached or used, or the tables are of a version that this program does not know.
    pub async fn open(place: &Place, clock: Clock) -> Result<PostgresStore, OpenError> {
        let dialer = Arc::new(Dialer::new(place.clone(), clock.clone())?);
        let id = match clock.timeout(MIGRATE_WITHIN, migrate(&dialer)).await {
            Ok(id) => id?,
            Err(_) => return Err(OpenError::Busy { at: dialer.at() }),
        };
        Ok(PostgresStore::over(dialer, id))
    }

    /// Over one connection to write with and one to read and listen with, each made when it is first needed.
    fn over(dialer: Arc<Dialer>, id: StoreId) -> PostgresStore {
        let watches = Arc::<Watches>::default();
        let heard = Arc::clone(&watches);
        let on_notice: OnNotice = Arc::new(move |run| run.map_or_else(|| heard.touch_all(), |run| heard.touch(run)));
        let listen = format!("{}; listen {}", settings(READ_WITHIN), sql::CHANNEL);
        let writing = Line::new(Arc::clone(&dialer), settings(WRITE_WITHIN), WRITE_WITHIN, None);
        let reading = Line::new(dialer, listen, READ_WITHIN, Some(on_notice));
        PostgresStore(Arc::new(Inner { id, writing, reading, watches }), SamplesMax(SAMPLES_MAX.into()))
    }

    /// So many samples are kept of one upgrade.
    pub fn keeping(self, samples_max: u32) -> PostgresStore {
        PostgresStore(self.0, SamplesMax(samples_max.into()))
    }

    /// One statement that changes something; its rows.
    async fn write(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Refusal> {
        let work = |session: Arc<Session>| async move { session.client.query_typed(sql, parameters).await };
        let answer = self.0.writing.run(work).await;
        answer.map_err(|error| Refusal::of(doing, error))
    }

    async fn read(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, JournalError> {
        let work = |session: Arc<Session>| async move { session.client.query_typed(sql, parameters).await };
        let answer = self.0.reading.run(work).await;
        answer.map_err(|error| Refusal::of(doing, error).into())
    }

    async fn run(&self, id: &RunId) -> Result<RunInfo, JournalError> {
        let rows = self.read("reading a run", sql::RUN, &[(&id.as_str(), Type::TEXT)]).await?;
        let row = rows.first().ok_or_else(|| JournalError::NoSuchRun(id.clone()))?;
        run_row(row)?.info()
    }

    async fn lease(&self, subject: &str) -> Result<Option<(Holder, Epoch, Duration)>, Refusal> {
        let doing = "reading a lease";
        let rows = self.write(doing, sql::HOLDER, &[(&subject, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let holder = Holder { id: column(row, 1)?, address: column(row, 2)? };
        let left = Duration::from_millis(unsigned(column(row, 3)?));
        Ok(Some((holder, Epoch(unsigned(column(row, 0)?)), left)))
    }

    /// Why an append changed nothing. Looked at a moment later, which makes none of the answers wrong.
    async fn refused(&self, id: &RunId, epoch: Epoch, seq: Seq) -> JournalError {
        let why = async {
            let info = self.run(id).await?;
            let lease = self.lease(info.subject.as_str()).await?;
            let holds = lease.is_some_and(|(_, held, _)| held == epoch);
            Ok::<_, JournalError>(if holds { JournalError::Taken(seq) } else { JournalError::Fenced(epoch) })
        };
        why.await.unwrap_or_else(|error| error)
    }
}

/// Makes the tables or brings them up to date, under a lock that a second coordinator waits for; the store's identity.
async fn migrate(dialer: &Dialer) -> Result<StoreId, OpenError> {
    let failed = |source| OpenError::Sql { at: dialer.at(), source };
    let mut session = dialer.open("set synchronous_commit = on", None).await?;
    let client = &mut session.client;
    client.batch_execute(sql::LOCK_FOR_MIGRATION).await.map_err(failed)?;
    let there: bool = client.query_one(sql::HAS_SCHEMA, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if !there {
        client.batch_execute(sql::MAKE_SCHEMA).await.map_err(failed)?;
    }
    client.batch_execute(&format!("set search_path = {}", sql::SCHEMA)).await.map_err(failed)?;
    migrations::migrations::runner().run_async(client).await.map_err(|source| {
        use refinery::error::Kind;
        let at = dialer.at();
        match source.kind() {
            Kind::MissingVersion(_) | Kind::DivergentVersion(..) | Kind::RepeatedVersion(_) => {
                OpenError::OtherVersion { at, source }
            }
            _ => OpenError::Migrate { at, source },
        }
    })?;
    let id = client.query_one(sql::IDENTITY, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    Ok(StoreId(id))
}

/// What became of a statement that failed.
enum Refusal {
    /// A rule of the schema said no; its name.
    Rule(String, JournalError),
    Failed(JournalError),
}

impl Refusal {
    fn of(doing: &str, error: OperationError) -> Refusal {
        let rule = match &error {
            OperationError::Sql(sql) if sql.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                sql.as_db_error().and_then(|error| error.constraint()).map(str::to_owned)
            }
            _ => None,
        };
        let failed = JournalError::Store { doing: doing.to_owned(), source: Box::new(error) };
        match rule {
            Some(rule) => Refusal::Rule(rule, failed),
            None => {
                metrics::store_failed();
                Refusal::Failed(failed)
            }
        }
    }
}

impl From<Refusal> for JournalError {
    fn from(refusal: Refusal) -> JournalError {
        match refusal {
            Refusal::Rule(_, error) | Refusal::Failed(error) => error,
        }
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Refusal {
        Refusal::Failed(error)
    }
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, JournalError> {
    row.try_get(at).map_err(|error| JournalError::Damaged(format!("a row cannot be read: {}", chain(&error))))
}

fn run_row(row: &Row) -> Result<RunRow, JournalError> {
    Ok(RunRow { id: column(row, 0)?, subject: column(row, 1)?, created_at: column(row, 2)?, outcome: column(row, 3)? })
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

fn limited(limit: Option<usize>) -> i64 {
    limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

// --- the journal ---

impl JournalRead for PostgresStore {
    fn list<'a>(&'a self, filter: &'a RunFilter) -> BoxFuture<'a, Result<Vec<RunInfo>, JournalError>> {
        Box::pin(async move {
            let subject = filter.subject.as_ref().map(Subject::as_str);
            let limit = limited(filter.limit);
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&filter.active_only, Type::BOOL), (&subject, Type::TEXT), (&limit, Type::INT8)];
            let rows = self.read("listing runs", sql::LIST, &parameters).await?;
            rows.iter().map(|row| run_row(row)?.info()).collect()
        })
    }

    fn info<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<RunInfo, JournalError>> {
        Box::pin(self.run(id))
    }

    fn read_from<'a>(
        &'a self,
        id: &'a RunId,
        from: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        Box::pin(async move {
            let (run, from, limit) = (id.as_str(), signed(from.0)?, limited(Some(limit)));
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&run, Type::TEXT), (&from, Type::INT8), (&limit, Type::INT8)];
            let rows = self.read("reading a journal", sql::FACTS, &parameters).await?;
            if rows.is_empty() {
                self.run(id).await?;
            }
            let record = |row: &Row| {
                let (seq, epoch, sum) = (column(row, 0)?, column(row, 1)?, column(row, 4)?);
                FactRow { seq, epoch, at: column(row, 2)?, fact: column(row, 3)?, sum: Some(sum) }.record(run)
            };
            rows.iter().map(record).collect()
        })
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        self.0.watches.watch(id)
    }

    fn holder<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<(Holder, Epoch)>, JournalError>> {
        Box::pin(async move {
            let lease = self.lease(subject.as_str()).await?;
            Ok(lease.map(|(holder, epoch, _)| (holder, epoch)))
        })
    }
}

impl Journal for PostgresStore {
    fn create<'a>(
        &'a self,
        subject: &'a Subject,
        id: &'a RunId,
        at: Timestamp,
        created: &'a Value,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let (at, fact) = (at.to_string(), created.to_string());
            let sum = rows::sum(id.as_str(), 0, 0, &at, &fact);
            let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
                (&id.as_str(), Type::TEXT),
                (&subject.as_str(), Type::TEXT),
                (&at, Type::TEXT),
                (&fact, Type::TEXT),
                (&sum, Type::TEXT),
            ];
            match self.write("creating a run", sql::CREATE, &parameters).await {
                Ok(_) => {
                    self.0.watches.touch(id.as_str());
                    Ok(())
                }
                Err(Refusal::Rule(rule, _)) if rule == "runs_pkey" => Err(JournalError::Exists(id.clone())),
                Err(Refusal::Rule(rule, _)) if rule == "one_active_run_a_subject" => {
                    let busy = [(&subject.as_str() as &(dyn ToSql + Sync), Type::TEXT)];
                    let rows = self.read("reading a run", sql::BUSY_WITH, &busy).await?;
                    let by: Option<String> = rows.first().map(|row| column(row, 0)).transpose()?;
                    Err(JournalError::SubjectBusy { subject: subject.clone(), by: RunId(by.unwrap_or_default()) })
                }
                Err(refusal) => Err(refusal.into()),
            }
        })
    }

    fn append<'a>(&'a self, append: Append<'a>) -> BoxFuture<'a, Result<(), JournalError>> {
        let Append { id, epoch, seq, at, fact, outcome } = append;
        let (at, fact) = (at.to_string(), fact.to_string());
        let sum = rows::sum(id.as_str(), seq.0, epoch.0, &at, &fact);
        Box::pin(async move {
            let (run, epoch_number, seq_number) = (id.as_str(), signed(epoch.0)?, signed(seq.0)?);
            let outcome = outcome.map(|outcome| outcome.as_str());
            let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
                (&run, Type::TEXT),
                (&epoch_number, Type::INT8),
                (&seq_number, Type::INT8),
                (&at, Type::TEXT),
                (&fact, Type::TEXT),
                (&sum, Type::TEXT),
                (&outcome, Type::TEXT),
            ];
            match self.write("appending a fact", sql::APPEND, &parameters).await {
                Ok(rows) if rows.is_empty() => Err(self.refused(id, epoch, seq).await),
                Ok(_) => {
                    self.0.watches.touch(run);
                    Ok(())
                }
                Err(Refusal::Rule(rule, _)) if rule == "facts_pkey" => Err(JournalError::Taken(seq)),
                Err(refusal) => Err(refusal.into()),
            }
        })
    }

    fn acquire<'a>(
        &'a self,
        subject: &'a Subject,
        holder: &'a Holder,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, JournalError>> {
        Box::pin(async move {
            let ttl = milliseconds(ttl);
            let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
                (&subject.as_str(), Type::TEXT),
                (&holder.id, Type::TEXT),
                (&holder.address, Type::TEXT),
                (&ttl, Type::INT8),
            ];
            let rows = self.write("taking a lease", sql::ACQUIRE, &parameters).await?;
            if let Some(row) = rows.first() {
                return Ok(Epoch(unsigned(column(row, 0)?)));
            }
            let held = self.lease(subject.as_str()).await?;
            // Ended since: the next try takes it.
            let (holder, remaining) = held.map_or_else(Default::default, |(by, _, left)| (by.address, left));
            Err(JournalError::Held { holder, remaining })
        })
    }

    fn renew<'a>(
        &'a self,
        subject: &'a Subject,
        epoch: Epoch,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&subject.as_str(), Type::TEXT), (&signed(epoch.0)?, Type::INT8), (&milliseconds(ttl), Type::INT8)];
            let renewed = self.write("renewing a lease", sql::RENEW, &parameters).await?;
            if renewed.is_empty() { Err(JournalError::Fenced(epoch)) } else { Ok(()) }
        })
    }

    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                [(&subject.as_str(), Type::TEXT), (&signed(epoch.0)?, Type::INT8)];
            self.write("giving a lease back", sql::RELEASE, &parameters).await?;
            Ok(())
        })
    }

    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
                (&id.as_str(), Type::TEXT),
                (&row.ask.as_str(), Type::TEXT),
                (&row.by.as_str(), Type::TEXT),
                (&row.at.to_string(), Type::TEXT),
                (&row.request.to_string(), Type::TEXT),
            ];
            let put = self.write("keeping a request", sql::ASK, &parameters).await?;
            if put.is_empty() {
                self.run(id).await?;
            } else {
                self.0.watches.touch(id.as_str());
            }
            Ok(())
        })
    }

    fn asks<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Vec<AskRow>, JournalError>> {
        Box::pin(async move {
            let rows = self.read("reading the inbox", sql::ASKS, &[(&id.as_str(), Type::TEXT)]).await?;
            if rows.is_empty() {
                self.run(id).await?;
            }
            let ask = |row: &Row| {
                let (ask, by, at): (String, String, String) = (column(row, 0)?, column(row, 1)?, column(row, 2)?);
                let (at, request) = (rows::timestamp(&at)?, rows::json(column(row, 3)?)?);
                Ok(AskRow { ask: ask.into(), by: by.into(), at, request })
            };
            rows.iter().map(ask).collect()
        })
    }
}

// --- beside it ---

impl Store for PostgresStore {
    fn id(&self) -> &StoreId {
        &self.0.id
    }

    fn prepare<'a>(&'a self, id: &'a RunId, about: &'a About) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let about = serde_json::to_string(about).map_err(unreadable)?;
            let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&id.as_str(), Type::TEXT), (&about, Type::TEXT)];
            self.write("keeping what is fixed about a run", sql::PREPARE, &parameters).await?;
            Ok(())
        })
    }

    fn about<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<(About, Option<Wish>), JournalError>> {
        Box::pin(async move {
            let rows = self.read("reading about a run", sql::ABOUT, &[(&id.as_str(), Type::TEXT)]).await?;
            let row = rows.first().ok_or_else(|| JournalError::NoSuchRun(id.clone()))?;
            let about = serde_json::from_str(column(row, 0)?).map_err(unreadable)?;
            let wish = column::<Option<&str>>(row, 1)?.map(serde_json::from_str).transpose().map_err(unreadable)?;
            Ok((about, wish))
        })
    }

    fn add_samples<'a>(&'a self, id: &'a RunId, samples: Vec<Sample>) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let run = id.as_str();
            let times: Vec<i64> = samples.iter().map(|sample| sample.at_ms).collect();
            let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
            let names: Vec<String> = samples.into_iter().map(|sample| sample.name).collect();
            let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
                (&run, Type::TEXT),
                (&times, Type::INT8_ARRAY),
                (&names, Type::TEXT_ARRAY),
                (&values, Type::FLOAT8_ARRAY),
            ];
            self.read("keeping samples", sql::ADD_SAMPLES, &parameters).await?;
            self.read("keeping samples", sql::TRIM_SAMPLES, &[(&run, Type::TEXT), (&self.1.0, Type::INT8)]).await?;
            Ok(())
        })
    }

    fn samples<'a>(&'a self, id: &'a RunId, limit: u32) -> BoxFuture<'a, Result<Vec<Sample>, JournalError>> {
        Box::pin(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                [(&id.as_str(), Type::TEXT), (&i64::from(limit), Type::INT8)];
            let rows = self.read("reading samples", sql::SAMPLES, &parameters).await?;
            let sample =
                |row: &Row| Ok(Sample { at_ms: column(row, 0)?, name: column(row, 1)?, value: column(row, 2)? });
            rows.iter().map(sample).collect()
        })
    }

    fn bookmarks(&self) -> BoxFuture<'_, Result<Vec<Bookmark>, JournalError>> {
        Box::pin(async move {
            let rows = self.read("reading bookmarks", sql::BOOKMARKS, &[]).await?;
            let mark = |row: &Row| {
                let (run, hook) = (RunId(column(row, 0)?), column(row, 1)?);
                Ok(Bookmark { run, hook, next: Seq(unsigned(column(row, 2)?)) })
            };
            rows.iter().map(mark).collect()
        })
    }

    fn keep_bookmark<'a>(&'a self, mark: &'a Bookmark) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&mark.run.as_str(), Type::TEXT), (&mark.hook, Type::TEXT), (&signed(mark.next.0)?, Type::INT8)];
            self.read("keeping a bookmark", sql::KEEP_BOOKMARK, &parameters).await?;
            Ok(())
        })
    }

    fn drop_bookmark<'a>(&'a self, run: &'a RunId, hook: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&run.as_str(), Type::TEXT), (&hook, Type::TEXT)];
            self.read("dropping a bookmark", sql::DROP_BOOKMARK, &parameters).await?;
            Ok(())
        })
    }
}

impl WishKeeper for PostgresStore {
    fn keep<'a>(
        &'a self,
        upgrade: &'a UpgradeId,
        epoch: proto::epoch::Epoch,
        wish: &'a Wish,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let text = serde_json::to_string(wish).map_err(|error| error.to_string())?;
            let (run, epoch) = (upgrade.to_string(), signed(epoch.0).map_err(|error| error.to_string())?);
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&run, Type::TEXT), (&text, Type::TEXT), (&epoch, Type::INT8)];
            match self.write("keeping a wish", sql::KEEP_WISH, &parameters).await {
                Ok(rows) if rows.is_empty() => {
                    Err(format!("there is no run {upgrade}, or a newer coordinator has told its agents something"))
                }
                Ok(_) => Ok(()),
                Err(refusal) => Err(chain(&JournalError::from(refusal))),
            }
        })
    }
}
