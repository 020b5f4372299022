//! The agent's own memory: one SQLite file, every change on disk before it counts (`synchronous=FULL`).
//!
//! Stored, and why:
//! - `facts`: the watermark `(store, epoch, generation)`, so that a deposed coordinator is refused across restarts; the last
//!   intent with the moment its window was first held, the moments since which the gate is held and ingestion is paused, and
//!   whether green took a write, so that a restarted agent knows its stance before it dials and caps count from the first
//!   moment; the addresses at which recorded servers were first found, because names move at a switchover.
//! - `results`: what finished jobs answered, until the coordinator acknowledged it and then for a while, because a job id is an
//!   idempotency key.
//! - `events`: what must not be lost, numbered, until acknowledged. Beyond a number of them that nobody acknowledges the oldest go
//!   that only tell what was seen and is seen again, or stands in the newest report ([`fate`]); what was *done*, and what the new
//!   production took, stays. What goes is counted.
//!
//! Pause marks are files of their own beside it (`ingestion`). Secrets and statements are never stored here.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use jiff::Timestamp;
use proto::{epoch::Watermark, intent::Intent, report::Event};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{oneshot, watch};

use crate::{config::Limits, metrics};

/// Why the spool could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the state file {path} cannot be opened")]
    Open { path: String, source: rusqlite::Error },
    #[error("the state file cannot be {doing}")]
    Sql { doing: &'static str, source: rusqlite::Error },
    #[error("what is stored as {key:?} cannot be read; move the state file away to start anew")]
    Content { key: &'static str, source: serde_json::Error },
    #[error("the spool's thread has ended")]
    Gone,
}

/// What an agent is woken with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    pub watermark: Option<Watermark>,
    pub intent: Option<Intent>,
    pub window_held_since: Option<Timestamp>,
    pub held_since: Option<Timestamp>,
    pub paused_since: Option<Timestamp>,
    /// The upgrade during whose window green took a write of this agent.
    pub green_took_write: Option<String>,
    pub addresses: BTreeMap<String, std::net::IpAddr>,
}

/// Names of single facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Watermark,
    Intent,
    WindowHeldSince,
    HeldSince,
    PausedSince,
    GreenTookWrite,
    Addresses,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::Watermark => "watermark",
            Key::Intent => "intent",
            Key::WindowHeldSince => "window_held_since",
            Key::HeldSince => "held_since",
            Key::PausedSince => "paused_since",
            Key::GreenTookWrite => "green_took_write",
            Key::Addresses => "addresses",
        }
    }
}

/// One piece of work on the file.
pub type Work = Box<dyn FnOnce() + Send>;
/// Does the work it is given, in order, one after another; `false` when it does none any more.
pub type Disk = Arc<dyn Fn(Work) -> bool + Send + Sync>;

/// The open spool. Cheap to clone; one thread of its own does the work, in order.
#[derive(Clone)]
pub struct Spool {
    connection: Arc<Mutex<Connection>>,
    disk: Disk,
    next_event: Arc<AtomicU64>,
    /// Events that are on disk and not acknowledged, by number.
    unacknowledged: Arc<Mutex<BTreeMap<u64, String>>>,
    stored: watch::Sender<u64>,
    events_max: usize,
}

/// Works that may wait for the disk at once; more make the caller wait.
const QUEUE: usize = 256;
/// Acknowledged results that are kept.
const RESULTS_KEPT: u32 = 500;

const SCHEMA: &str = "
    create table if not exists facts (key text primary key, value text not null) strict;
    create table if not exists results (job text primary key, answer text not null, acknowledged integer not null) strict;
    create table if not exists events (n integer primary key autoincrement, body text not null) strict;";

impl Spool {
    /// Opens or makes the file and starts its thread, which ends when the last clone is dropped.
    pub fn open(path: &Path) -> Result<Spool, SpoolError> {
        let (work, queue) = mpsc::sync_channel::<Work>(QUEUE);
        let spool = Spool::open_on(path, Arc::new(move |one| work.send(one).is_ok()))?;
        let thread =
            std::thread::Builder::new().name("spool".into()).spawn(move || queue.into_iter().for_each(|one| one()));
        let path = path.display().to_string();
        thread.map(|_| spool).map_err(|error| SpoolError::Open {
            path,
            source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
        })
    }

    /// Opens or makes the file; whoever is given the work does it.
    pub fn open_on(path: &Path, disk: Disk) -> Result<Spool, SpoolError> {
        let failed = |source| SpoolError::Open { path: path.display().to_string(), source };
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(failed)?;
        let setup = "pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -256;";
        connection.execute_batch(setup).map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        let last: Option<i64> = connection
            .query_row("select seq from sqlite_sequence where name = 'events'", [], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        let events = read_events(&connection).map_err(failed)?;
        Ok(Spool {
            connection: Arc::new(Mutex::new(connection)),
            disk,
            next_event: Arc::new(AtomicU64::new(last.map_or(0, number) + 1)),
            unacknowledged: Arc::new(Mutex::new(events)),
            stored: watch::Sender::new(0),
            events_max: Limits::default().events_max,
        })
    }

    /// Keeps so many events that nobody acknowledged.
    #[must_use]
    pub fn keeping(self, events_max: usize) -> Spool {
        Spool { events_max, ..self }
    }

    /// Hands work over; `false` when nobody does it any more.
    fn submit(&self, work: impl FnOnce(&mut Connection) + Send + 'static) -> bool {
        let connection = Arc::clone(&self.connection);
        (self.disk)(Box::new(move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))))
    }

    async fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let (answer, done) = oneshot::channel();
        let taken = self.submit(move |connection| {
            // The asker may have gone; the work is done all the same.
            let _nobody_waits = answer.send(work(connection));
        });
        if !taken {
            return Err(SpoolError::Gone);
        }
        done.await.map_err(|_| SpoolError::Gone)?.map_err(|source| SpoolError::Sql { doing, source })
    }

    /// Everything single that was stored.
    pub async fn wake(&self) -> Result<Memory, SpoolError> {
        let facts: BTreeMap<String, String> = self
            .call("read", |connection| {
                let mut rows = connection.prepare("select key, value from facts")?;
                rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .await?;
        Ok(Memory {
            watermark: parse(&facts, Key::Watermark)?,
            intent: parse(&facts, Key::Intent)?,
            window_held_since: parse(&facts, Key::WindowHeldSince)?,
            held_since: parse(&facts, Key::HeldSince)?,
            paused_since: parse(&facts, Key::PausedSince)?,
            green_took_write: parse(&facts, Key::GreenTookWrite)?,
            addresses: parse(&facts, Key::Addresses)?.unwrap_or_default(),
        })
    }

    /// Stores one fact; on disk when this returns.
    pub async fn put<T: Serialize>(&self, key: Key, value: &T) -> Result<(), SpoolError> {
        let text = to_text(key.name(), value)?;
        self.call("written", move |connection| store(connection, key, &text)).await
    }

    /// Stores one fact without waiting for the disk: for what is true whether it is written or not.
    pub fn put_soon<T: Serialize>(&self, key: Key, value: &T) {
        let text = match to_text(key.name(), value) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(error = %runtime::supervision::chain(&error), "a fact has no JSON form");
                return;
            }
        };
        let sent = self.submit(move |connection| {
            if let Err(error) = store(connection, key, &text) {
                tracing::error!(%error, key = key.name(), "a fact cannot be written to the state file");
            }
        });
        if !sent {
            tracing::error!(key = key.name(), "the spool's thread has ended");
        }
    }

    /// Removes one fact, without waiting for the disk: for what may be forgotten late.
    pub fn forget_soon(&self, key: Key) {
        let sent = self.submit(move |connection| {
            let gone = connection.execute("delete from facts where key = ?1", params![key.name()]);
            if let Err(error) = gone {
                tracing::error!(%error, key = key.name(), "a fact cannot be removed from the state file");
            }
        });
        if !sent {
            tracing::error!(key = key.name(), "the spool's thread has ended");
        }
    }

    /// Stores an intent with the watermark it raises, in one transaction.
    pub async fn put_intent(&self, watermark: &Watermark, intent: &Intent) -> Result<(), SpoolError> {
        let mark = to_text("watermark", watermark)?;
        let body = to_text("intent", intent)?;
        self.call("written", move |connection| {
            let transaction = connection.transaction()?;
            store(&transaction, Key::Watermark, &mark)?;
            store(&transaction, Key::Intent, &body)?;
            transaction.commit()
        })
        .await
    }

    /// Forgets whom this agent obeyed: the next coordinator may be of another store. An operator's act.
    pub async fn rebind(&self) -> Result<(), SpoolError> {
        self.call("written", |connection| {
            connection.execute("delete from facts where key in ('watermark', 'intent')", []).map(drop)
        })
        .await
    }

    /// Keeps what a job answered.
    pub async fn put_result<T: Serialize>(&self, job: &str, answer: &T) -> Result<(), SpoolError> {
        let (job, answer) = (job.to_owned(), to_text("result", answer)?);
        self.call("written", move |connection| {
            let sql = "insert into results (job, answer, acknowledged) values (?1, ?2, 0)
                       on conflict (job) do update set answer = excluded.answer, acknowledged = 0";
            connection.execute(sql, params![job, answer]).map(drop)
        })
        .await
    }

    /// What a job answered before, acknowledged or not.
    pub async fn result<T: DeserializeOwned>(&self, job: &str) -> Result<Option<T>, SpoolError> {
        let job = job.to_owned();
        let text: Option<String> = self
            .call("read", move |connection| {
                connection
                    .query_row("select answer from results where job = ?1", params![job], |row| row.get(0))
                    .optional()
            })
            .await?;
        text.map(|text| from_text("result", &text)).transpose()
    }

    /// Results that nobody acknowledged, oldest first.
    pub async fn unacknowledged_results<T: DeserializeOwned>(&self) -> Result<Vec<T>, SpoolError> {
        let texts: Vec<String> = self
            .call("read", |connection| {
                let mut rows = connection
                    .prepare("select answer from results where acknowledged = 0 order by rowid limit 1000")?;
                rows.query_map([], |row| row.get(0))?.collect()
            })
            .await?;
        texts.iter().map(|text| from_text("result", text)).collect()
    }

    /// The coordinator has the result.
    pub async fn acknowledge_result(&self, job: &str) -> Result<(), SpoolError> {
        let job = job.to_owned();
        self.call("written", move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute("update results set acknowledged = 1 where job = ?1", params![job])?;
            let prune = "delete from results where acknowledged = 1 and rowid <=
                         (select max(rowid) from results) - ?1";
            transaction.execute(prune, params![RESULTS_KEPT])?;
            transaction.commit()
        })
        .await
    }

    /// Takes an event over. It gets its number now and is sent once it is on disk.
    pub fn append(&self, event: &Event) {
        let n = self.next_event.fetch_add(1, Ordering::SeqCst);
        let (unacknowledged, stored, max) = (self.unacknowledged.clone(), self.stored.clone(), self.events_max);
        let mut event = event.clone();
        let sent = self.submit(move |connection| {
            let kept = || unacknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            let goes = if kept().len() < max { None } else { Some(make_room(&kept(), &mut event)) };
            if goes == Some(Room::None) {
                return metrics::event_dropped();
            }
            let Ok(body) = serde_json::to_string(&event) else {
                tracing::error!("an event has no JSON form and is lost");
                return;
            };
            let gone = if let Some(Room::Of(gone)) = goes { Some(gone) } else { None };
            if let Err(error) = write_event(connection, (n, &body), gone) {
                tracing::error!(%error, n, "an event could not be stored; it is sent all the same");
            }
            if let Some(gone) = gone {
                metrics::event_dropped();
                kept().remove(&gone);
            }
            kept().insert(n, body);
            stored.send_replace(n);
        });
        if !sent {
            tracing::error!(n, "the spool's thread has ended and an event is lost");
        }
    }

    /// Events not acknowledged, above `after`, oldest first, at most `limit`.
    pub fn events_after(&self, after: u64, limit: usize) -> Vec<(u64, String)> {
        let events = self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        events.range(after + 1..).take(limit).map(|(n, body)| (*n, body.clone())).collect()
    }

    /// Changes whenever an event was stored.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// The coordinator has the event.
    pub async fn acknowledge_event(&self, n: u64) -> Result<(), SpoolError> {
        self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner).remove(&n);
        self.call("written", move |connection| {
            connection.execute("delete from events where n = ?1", params![column(n)]).map(drop)
        })
        .await
    }
}

/// What may become of an event that waits for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It stays: something was done, or must be known.
    Stays,
    /// It goes into the next of its kind, which says the sum.
    Adds,
    /// It goes: the newest report says how things stand, and what goes on is seen again.
    Goes,
}

fn fate(event: &Event) -> Fate {
    match event {
        Event::SessionEnded { .. }
        | Event::Resubmission { .. }
        | Event::PauseCap { .. }
        | Event::Held { .. }
        | Event::GreenAcceptedWrite { .. } => Fate::Stays,
        Event::OldSideWritten { .. } => Fate::Adds,
        Event::SessionPurged { .. }
        | Event::PurgeBlocked { .. }
        | Event::Outage { .. }
        | Event::SchemaChanged { .. }
        | Event::OldSideClient { .. }
        | Event::Stance { .. }
        | Event::SwitchoverPhase { .. } => Fate::Goes,
    }
}

/// Where one event more has its room from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// The event of this number goes.
    Of(u64),
    /// Nothing may go: the new one is kept all the same. Only jobs make such, and those need a coordinator.
    Beyond,
    /// Nothing older may go, and the new one may: it does.
    None,
}

fn make_room(kept: &BTreeMap<u64, String>, new: &mut Event) -> Room {
    let read = |body: &String| serde_json::from_str::<Event>(body).ok();
    if let Event::OldSideWritten { commits, .. } = new {
        let older = kept.iter().find_map(|(n, body)| match read(body)? {
            Event::OldSideWritten { commits, .. } => Some((*n, commits)),
            _ => None,
        });
        if let Some((n, before)) = older {
            *commits = commits.saturating_add(before);
            return Room::Of(n);
        }
    }
    let goes = kept.iter().find(|(_, body)| read(body).is_some_and(|event| fate(&event) == Fate::Goes));
    match goes {
        Some((n, _)) => Room::Of(*n),
        None if fate(new) == Fate::Goes => Room::None,
        None => Room::Beyond,
    }
}

/// One event on the disk, in the room of another where there is one.
fn write_event(connection: &mut Connection, (n, body): (u64, &str), gone: Option<u64>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    if let Some(gone) = gone {
        transaction.execute("delete from events where n = ?1", params![column(gone)])?;
    }
    transaction.execute("insert into events (n, body) values (?1, ?2)", params![column(n), body])?;
    transaction.commit()
}

fn read_events(connection: &Connection) -> rusqlite::Result<BTreeMap<u64, String>> {
    let mut rows = connection.prepare("select n, body from events")?;
    rows.query_map([], |row| Ok((number(row.get(0)?), row.get(1)?)))?.collect()
}

/// SQLite's integers are signed; our numbers start at 1 and never come near the end.
fn column(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn number(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn store(connection: &Connection, key: Key, value: &str) -> rusqlite::Result<()> {
    let sql = "insert into facts (key, value) values (?1, ?2) on conflict (key) do update set value = excluded.value";
    connection.execute(sql, params![key.name(), value]).map(drop)
}

fn to_text<T: Serialize>(key: &'static str, value: &T) -> Result<String, SpoolError> {
    serde_json::to_string(value).map_err(|source| SpoolError::Content { key, source })
}

fn from_text<T: DeserializeOwned>(key: &'static str, text: &str) -> Result<T, SpoolError> {
    serde_json::from_str(text).map_err(|source| SpoolError::Content { key, source })
}

fn parse<T: DeserializeOwned>(facts: &BTreeMap<String, String>, key: Key) -> Result<Option<T>, SpoolError> {
    facts.get(key.name()).map(|text| from_text(key.name(), text)).transpose()
}

#[cfg(test)]
mod tests {
    use proto::epoch::{Epoch, Generation, StoreId};

    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("spool-{name}-{}.sqlite", std::process::id()));
        for end in ["", "-wal", "-shm"] {
            let _not_there = std::fs::remove_file(format!("{}{end}", path.display()));
        }
        path
    }

    fn event(commits: u64) -> Event {
        Event::OldSideWritten { at: Timestamp::UNIX_EPOCH, commits }
    }

    async fn stored(spool: &Spool, n: u64) {
        let mut stored = spool.stored();
        let reached = stored.wait_for(|last| *last >= n);
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("stored in time").expect("open");
    }

    #[tokio::test]
    async fn what_was_stored_is_there_after_the_process_ended() {
        let path = file("facts");
        let mark = Watermark { store: StoreId("s".into()), epoch: Epoch(3), generation: Generation(9) };
        let spool = Spool::open(&path).unwrap();
        assert_eq!(spool.wake().await.unwrap(), Memory::default());
        spool.put(Key::Watermark, &mark).await.unwrap();
        spool.put(Key::HeldSince, &Timestamp::UNIX_EPOCH).await.unwrap();
        spool.put_soon(Key::GreenTookWrite, &"up-1");
        spool.forget_soon(Key::HeldSince);
        // Works are done in order: when this one is, those before it are on the disk.
        spool.wake().await.unwrap();
        drop(spool);
        let woken = Spool::open(&path).unwrap().wake().await.unwrap();
        let green_took_write = Some("up-1".to_owned());
        assert_eq!(woken, Memory { watermark: Some(mark), green_took_write, ..Memory::default() });
    }

    #[tokio::test]
    async fn events_keep_their_numbers_and_are_never_numbered_twice() {
        let path = file("events");
        let spool = Spool::open(&path).unwrap();
        spool.append(&event(1));
        spool.append(&event(2));
        stored(&spool, 2).await;
        for n in [1, 2] {
            spool.acknowledge_event(n).await.unwrap();
        }
        spool.append(&event(3));
        stored(&spool, 3).await;
        drop(spool);
        let spool = Spool::open(&path).unwrap();
        let left = spool.events_after(0, 10);
        assert_eq!(left.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3]);
        assert_eq!(serde_json::from_str::<Event>(&left[0].1).unwrap(), event(3));
        spool.append(&event(4));
        stored(&spool, 4).await;
        assert_eq!(spool.events_after(3, 10).len(), 1);
    }

    #[tokio::test]
    async fn a_result_is_found_again_after_it_was_acknowledged() {
        let spool = Spool::open(&file("results")).unwrap();
        spool.put_result("a", &"answer").await.unwrap();
        assert_eq!(spool.unacknowledged_results::<String>().await.unwrap(), ["answer"]);
        spool.acknowledge_result("a").await.unwrap();
        assert!(spool.unacknowledged_results::<String>().await.unwrap().is_empty());
        assert_eq!(spool.result::<String>("a").await.unwrap().as_deref(), Some("answer"));
        assert_eq!(spool.result::<String>("b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_rebound_agent_has_forgotten_whom_it_obeyed() {
        let spool = Spool::open(&file("rebind")).unwrap();
        let mark = Watermark { store: StoreId("s".into()), epoch: Epoch(3), generation: Generation(9) };
        spool.put(Key::Watermark, &mark).await.unwrap();
        spool.rebind().await.unwrap();
        assert_eq!(spool.wake().await.unwrap().watermark, None);
    }

    #[tokio::test]
    async fn beyond_its_limit_what_is_seen_again_goes_first_and_what_was_done_stays() {
        let path = file("limit");
        let spool = Spool::open(&path).unwrap().keeping(3);
        let at = Timestamp::UNIX_EPOCH;
        let done = |key: &str| Event::Resubmission {
            at,
            key: key.into(),
            database: "orders".into(),
            role: "service".into(),
            verdict: proto::report::Verdict::Resubmitted,
        };
        let seen = |stance: &str| Event::Stance { at, stance: stance.into() };
        // 1 is done, 2 seen, 3 written; 4 takes the room of 2, and 5 adds 3 to itself.
        for event in [done("a"), seen("obey"), event(5), seen("fail_open"), event(7)] {
            spool.append(&event);
        }
        stored(&spool, 5).await;
        let left = |spool: &Spool| -> Vec<(u64, Event)> {
            let all = spool.events_after(0, 100).into_iter();
            all.map(|(n, body)| (n, serde_json::from_str(&body).unwrap())).collect()
        };
        assert_eq!(left(&spool), [(1, done("a")), (4, seen("fail_open")), (5, event(12))]);
        // What was done is kept also where nothing else can go; what is only seen is not, then.
        spool.append(&done("b"));
        spool.append(&done("c"));
        spool.append(&seen("obey"));
        spool.append(&done("d"));
        stored(&spool, 9).await;
        let expected = [(1, done("a")), (5, event(12)), (6, done("b")), (7, done("c")), (9, done("d"))];
        assert_eq!(left(&spool), expected);
        drop(spool);
        assert_eq!(left(&Spool::open(&path).unwrap()), expected);
    }

    #[test]
    fn any_bytes_in_the_state_file_are_refused_or_woken_with() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = file("bytes");
        let intent = r#"{"epoch":3,"generation":9}"#;
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "state-file")
            .seed(r#"watermark={"store":"s","epoch":3,"generation":9}"#)
            .seed(format!("intent={intent}"))
            .seed(r#"held_since="1970-01-01T00:00:00Z""#)
            .seed(r#"addresses={"a.b":"127.0.0.1"}"#)
            .seed(r#"event={"event":"old_side_written","at":"1970-01-01T00:00:00Z","commits":5}"#)
            .seed(r#"result={"done":{"id":"a","output":{}}}"#)
            .words(&["window_held_since=", "paused_since=", "green_took_write=", "event=", "\\u0000"]);
        Spool::open(&path).unwrap();
        // One connection that lays what was tried into the tables; each try opens the file anew, as a start does.
        target.run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (key, value) = text.split_once('=').unwrap_or(("intent", &text));
            let planted = Connection::open(&path).unwrap();
            planted
                .execute_batch("pragma synchronous = off; delete from facts; delete from events; delete from results")
                .unwrap();
            let put = match key {
                "event" => "insert into events (body) values (?2 || ?1)",
                "result" => "insert into results (job, answer, acknowledged) values (?1, ?2, 0)",
                _ => "insert or replace into facts (key, value) values (?1, ?2)",
            };
            let value = if key == "event" { (String::new(), value) } else { (key.to_owned(), value) };
            planted.execute(put, params![value.0, value.1]).unwrap();
            let spool = Spool::open(&path).unwrap().keeping(1);
            let mut new = event(1);
            let events: BTreeMap<u64, String> = spool.events_after(0, 10).into_iter().collect();
            let room = make_room(&events, &mut new);
            let results = runtime.block_on(spool.unacknowledged_results::<serde_json::Value>()).is_ok();
            match runtime.block_on(spool.wake()) {
                Ok(_) => format!("woken {room:?} {results}"),
                Err(error) => runtime::supervision::chain(&error).split('`').next().unwrap_or_default().to_owned(),
            }
        });
    }

    #[test]
    fn any_bytes_of_a_state_file_open_or_are_refused_by_name() {
        let path = file("torn");
        drop(Spool::open(&path).unwrap());
        let whole = std::fs::read(&path).unwrap();
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "state-file-torn").seed(whole);
        target.run(|bytes| {
            for end in ["-wal", "-shm"] {
                let _not_there = std::fs::remove_file(format!("{}{end}", path.display()));
            }
            std::fs::write(&path, bytes).unwrap();
            match Spool::open(&path) {
                Ok(_) => "opened".into(),
                Err(error) => {
                    let said = runtime::supervision::chain(&error);
                    assert!(said.contains("state file"), "{said}");
                    said.rsplit(':').next().unwrap_or_default().to_owned()
                }
            }
        });
    }
}
