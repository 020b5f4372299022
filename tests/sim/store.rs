//! The store that both coordinators share, and the line on which each reaches it: late, and now and then not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::link::{Wish, WishKeeper};
use coordinator::store::{About, Bookmark, Sample, Store};
use engine::testing::MemoryJournal;
use engine::{
    Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Record, RunFilter, RunId, RunInfo, Seq, Subject,
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use proto::{epoch::StoreId, ids::UpgradeId};
use runtime::clock::Clock;
use serde_json::Value;
use tokio::sync::watch;

use super::world::{COORDINATORS, Lost, World, locked};

/// What is in the store.
#[derive(Clone)]
pub(super) struct Shelf {
    pub(super) journal: MemoryJournal,
    beside: Arc<Mutex<BTreeMap<String, Beside>>>,
}

#[derive(Default)]
struct Beside {
    about: About,
    wish: Option<(u64, Wish)>,
}

impl Shelf {
    pub(super) fn new(clock: Clock) -> Shelf {
        Shelf { journal: MemoryJournal::new(clock), beside: Arc::default() }
    }
}

/// One coordinator's line to the store.
pub(super) struct Line {
    world: Arc<World>,
    coordinator: usize,
    id: StoreId,
}

impl Line {
    pub(super) fn new(world: Arc<World>, coordinator: usize) -> Line {
        Line { world, coordinator, id: StoreId("simulated".into()) }
    }

    fn failed(&self, doing: &str) -> JournalError {
        JournalError::Store { doing: doing.into(), source: "the line is cut".into() }
    }

    /// One way: takes its time; lost when the line is cut.
    async fn way(&self, doing: &str) -> Result<(), JournalError> {
        let dice = &self.world.dice;
        let latency = if dice.percent(2) { 1..900 } else { 0..6 };
        tokio::time::sleep(dice.millis(latency)).await;
        if !self.world.is_lost(&Lost::Store(self.coordinator)) {
            return Ok(());
        }
        tokio::time::sleep(dice.millis(1..2500)).await;
        Err(self.failed(doing))
    }

    /// There and back. What was done stays done when the way back is lost.
    async fn trip<T>(
        &self,
        doing: &str,
        act: impl AsyncFnOnce(&Shelf) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.way(doing).await?;
        let done = act(&self.world.shelf).await;
        self.way(doing).await?;
        done
    }
}

impl JournalRead for Line {
    fn list<'a>(&'a self, filter: &'a RunFilter) -> BoxFuture<'a, Result<Vec<RunInfo>, JournalError>> {
        Box::pin(self.trip("listing", async |shelf| shelf.journal.list(filter).await))
    }

    fn info<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<RunInfo, JournalError>> {
        Box::pin(self.trip("reading a run", async |shelf| shelf.journal.info(id).await))
    }

    fn read_from<'a>(
        &'a self,
        id: &'a RunId,
        from: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        Box::pin(self.trip("reading", async move |shelf| shelf.journal.read_from(id, from, limit).await))
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        self.world.shelf.journal.watch(id)
    }

    fn holder<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<(Holder, Epoch)>, JournalError>> {
        Box::pin(self.trip("asking who drives", async |shelf| shelf.journal.holder(subject).await))
    }
}

impl Journal for Line {
    fn create<'a>(
        &'a self,
        subject: &'a Subject,
        id: &'a RunId,
        at: Timestamp,
        created: &'a Value,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(self.trip("creating", async move |shelf| shelf.journal.create(subject, id, at, created).await))
    }

    fn append<'a>(&'a self, append: Append<'a>) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(self.trip("appending", async |shelf| {
            let (seq, epoch) = (append.seq, append.epoch);
            let text = append.fact.to_string();
            let done = shelf.journal.append(append).await;
            let shown: String = text.chars().take(160).collect();
            let end = if let Err(error) = &done { format!(" REFUSED {error}") } else { String::new() };
            let by = COORDINATORS[self.coordinator];
            self.world.tell(format!("{by} e{epoch} #{seq} {shown}{end}"));
            done
        }))
    }

    fn acquire<'a>(
        &'a self,
        subject: &'a Subject,
        holder: &'a Holder,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, JournalError>> {
        Box::pin(self.trip("acquiring", async move |shelf| {
            let got = shelf.journal.acquire(subject, holder, ttl).await;
            if let Ok(epoch) = &got {
                let by = COORDINATORS[self.coordinator];
                self.world.tell(format!("{by} has the lease of {} as epoch {epoch}", subject.as_str()));
            }
            got
        }))
    }

    fn renew<'a>(
        &'a self,
        subject: &'a Subject,
        epoch: Epoch,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(self.trip("renewing", async move |shelf| shelf.journal.renew(subject, epoch, ttl).await))
    }

    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(self.trip("giving back", async move |shelf| shelf.journal.release(subject, epoch).await))
    }

    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(self.trip("asking", async move |shelf| shelf.journal.ask(id, row).await))
    }

    fn asks<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Vec<AskRow>, JournalError>> {
        Box::pin(self.trip("reading the inbox", async |shelf| shelf.journal.asks(id).await))
    }
}

impl WishKeeper for Line {
    fn keep<'a>(
        &'a self,
        upgrade: &'a UpgradeId,
        epoch: proto::epoch::Epoch,
        wish: &'a Wish,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let kept = self.trip("keeping a wish", async |shelf| {
                let mut beside = locked(&shelf.beside);
                let row = beside.entry(upgrade.to_string()).or_default();
                if row.wish.as_ref().is_some_and(|(kept, _)| *kept > epoch.0) {
                    return Ok(Err("there is one of a newer epoch".to_owned()));
                }
                row.wish = Some((epoch.0, wish.clone()));
                Ok(Ok(()))
            });
            kept.await.unwrap_or_else(|error| Err(error.to_string()))
        })
    }
}

impl Store for Line {
    fn id(&self) -> &StoreId {
        &self.id
    }

    fn prepare<'a>(&'a self, id: &'a RunId, about: &'a About) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(self.trip("preparing", async |shelf| {
            locked(&shelf.beside).entry(id.to_string()).or_default().about = about.clone();
            Ok(())
        }))
    }

    fn about<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<(About, Option<Wish>), JournalError>> {
        Box::pin(self.trip("reading what is kept", async |shelf| {
            let beside = locked(&shelf.beside);
            let row = beside.get(id.as_str()).ok_or_else(|| JournalError::NoSuchRun(id.clone()))?;
            Ok((row.about.clone(), row.wish.as_ref().map(|(_, wish)| wish.clone())))
        }))
    }

    fn add_samples<'a>(&'a self, _: &'a RunId, _: Vec<Sample>) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async { Ok(()) })
    }

    fn samples<'a>(&'a self, _: &'a RunId, _: u32) -> BoxFuture<'a, Result<Vec<Sample>, JournalError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn bookmarks(&self) -> BoxFuture<'_, Result<Vec<Bookmark>, JournalError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn keep_bookmark<'a>(&'a self, _: &'a Bookmark) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async { Ok(()) })
    }

    fn drop_bookmark<'a>(&'a self, _: &'a RunId, _: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async { Ok(()) })
    }
}
