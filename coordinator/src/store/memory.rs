//! A store in memory, for tests whose time is played: it answers at once, and counts how often it is asked who holds a lease. What is
//! kept beside the journals it forgets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::testing::MemoryJournal;
use engine::{
    Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Record, RunFilter, RunId, RunInfo, Seq, Subject,
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use proto::epoch::StoreId;
use proto::ids::UpgradeId;
use runtime::clock::Clock;
use serde_json::Value;
use tokio::sync::watch;

use super::{About, Bookmark, Sample, Store};
use crate::link::{Wish, WishKeeper};

type Answer<'a, T> = BoxFuture<'a, Result<T, JournalError>>;

/// See the module. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct MemoryStore {
    journal: MemoryJournal,
    id: StoreId,
    looks: Arc<Mutex<BTreeMap<Subject, u32>>>,
    marks: Arc<Mutex<BTreeMap<(RunId, String), Seq>>>,
}

impl MemoryStore {
    pub(crate) fn new(clock: &Clock) -> MemoryStore {
        let (journal, id) = (MemoryJournal::new(clock.clone()), StoreId("memory".into()));
        MemoryStore { journal, id, looks: Arc::default(), marks: Arc::default() }
    }

    /// How often it was asked who holds this.
    pub(crate) fn looks(&self, subject: &Subject) -> u32 {
        self.looks.lock().unwrap().get(subject).copied().unwrap_or(0)
    }
}

impl JournalRead for MemoryStore {
    fn list<'a>(&'a self, filter: &'a RunFilter) -> Answer<'a, Vec<RunInfo>> {
        self.journal.list(filter)
    }

    fn info<'a>(&'a self, id: &'a RunId) -> Answer<'a, RunInfo> {
        self.journal.info(id)
    }

    fn read_from<'a>(&'a self, id: &'a RunId, from: Seq, limit: usize) -> Answer<'a, Vec<Record>> {
        self.journal.read_from(id, from, limit)
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        self.journal.watch(id)
    }

    fn holder<'a>(&'a self, subject: &'a Subject) -> Answer<'a, Option<(Holder, Epoch)>> {
        *self.looks.lock().unwrap().entry(subject.clone()).or_default() += 1;
        self.journal.holder(subject)
    }
}

impl Journal for MemoryStore {
    fn create<'a>(&'a self, subject: &'a Subject, id: &'a RunId, at: Timestamp, created: &'a Value) -> Answer<'a, ()> {
        self.journal.create(subject, id, at, created)
    }

    fn append<'a>(&'a self, append: Append<'a>) -> Answer<'a, ()> {
        self.journal.append(append)
    }

    fn acquire<'a>(&'a self, subject: &'a Subject, holder: &'a Holder, ttl: Duration) -> Answer<'a, Epoch> {
        self.journal.acquire(subject, holder, ttl)
    }

    fn renew<'a>(&'a self, subject: &'a Subject, epoch: Epoch, ttl: Duration) -> Answer<'a, ()> {
        self.journal.renew(subject, epoch, ttl)
    }

    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> Answer<'a, ()> {
        self.journal.release(subject, epoch)
    }

    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> Answer<'a, ()> {
        self.journal.ask(id, row)
    }

    fn asks<'a>(&'a self, id: &'a RunId) -> Answer<'a, Vec<AskRow>> {
        self.journal.asks(id)
    }
}

impl WishKeeper for MemoryStore {
    fn keep<'a>(&'a self, _: &'a UpgradeId, _: proto::epoch::Epoch, _: &'a Wish) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

impl Store for MemoryStore {
    fn id(&self) -> &StoreId {
        &self.id
    }

    fn prepare<'a>(&'a self, _: &'a RunId, _: &'a About) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn about<'a>(&'a self, _: &'a RunId) -> Answer<'a, (About, Option<Wish>)> {
        Box::pin(async { Ok((About::default(), None)) })
    }

    fn add_samples<'a>(&'a self, _: &'a RunId, _: Vec<Sample>) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn samples<'a>(&'a self, _: &'a RunId, _: u32) -> Answer<'a, Vec<Sample>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn bookmarks(&self) -> Answer<'_, Vec<Bookmark>> {
        let mark = |((run, hook), next): (&(RunId, String), &Seq)| Bookmark {
            run: run.clone(),
            hook: hook.clone(),
            next: *next,
        };
        Box::pin(async move { Ok(self.marks.lock().unwrap().iter().map(mark).collect()) })
    }

    fn keep_bookmark<'a>(&'a self, mark: &'a Bookmark) -> Answer<'a, ()> {
        let mut marks = self.marks.lock().unwrap();
        let kept = marks.entry((mark.run.clone(), mark.hook.clone())).or_default();
        *kept = (*kept).max(mark.next);
        Box::pin(async { Ok(()) })
    }

    fn drop_bookmark<'a>(&'a self, run: &'a RunId, hook: &'a str) -> Answer<'a, ()> {
        self.marks.lock().unwrap().remove(&(run.clone(), hook.to_owned()));
        Box::pin(async { Ok(()) })
    }
}
