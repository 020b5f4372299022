//! An in-memory [`Journal`] with real leases and epochs, and a wrapper that loses the process at a chosen append.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use runtime::clock::{Clock, Mono};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::ids::{RunId, Subject};
use crate::journal::{
    Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Record, RunFilter, RunInfo, Seq,
};

/// A journal in memory. Clones share it. Its leases run on the clock it is given.
#[derive(Clone)]
pub struct MemoryJournal {
    clock: Clock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    epoch: u64,
    runs: BTreeMap<RunId, Run>,
    leases: BTreeMap<Subject, LeaseRow>,
}

struct Run {
    info: RunInfo,
    records: Vec<Record>,
    asks: Vec<AskRow>,
    changed: watch::Sender<u64>,
}

struct LeaseRow {
    holder: Holder,
    epoch: Epoch,
    until: Mono,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new(clock: Clock) -> MemoryJournal {
        MemoryJournal { clock, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, inner: &Inner, subject: &Subject, epoch: Epoch) -> Result<(), JournalError> {
        let row = inner.leases.get(subject).filter(|row| row.epoch == epoch && self.clock.mono() < row.until);
        row.map(drop).ok_or(JournalError::Fenced(epoch))
    }
}

fn run<'a>(inner: &'a mut Inner, id: &RunId) -> Result<&'a mut Run, JournalError> {
    inner.runs.get_mut(id).ok_or_else(|| JournalError::NoSuchRun(id.clone()))
}

fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl JournalRead for MemoryJournal {
    fn list<'a>(&'a self, filter: &'a RunFilter) -> BoxFuture<'a, Result<Vec<RunInfo>, JournalError>> {
        let inner = self.lock();
        let mut infos: Vec<RunInfo> = inner.runs.values().map(|run| run.info.clone()).collect();
        infos.retain(|info| !filter.active_only || info.outcome.is_none());
        infos.retain(|info| filter.subject.as_ref().is_none_or(|subject| *subject == info.subject));
        infos.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        infos.truncate(filter.limit.unwrap_or(usize::MAX));
        ready(Ok(infos))
    }

    fn info<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<RunInfo, JournalError>> {
        ready(run(&mut self.lock(), id).map(|run| run.info.clone()))
    }

    fn read_from<'a>(
        &'a self,
        id: &'a RunId,
        from: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        let mut inner = self.lock();
        let records = run(&mut inner, id).map(|run| run.records.iter().filter(|record| record.seq >= from).take(limit));
        ready(records.map(|records| records.cloned().collect()))
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        match run(&mut self.lock(), id) {
            Ok(run) => run.changed.subscribe(),
            Err(_) => watch::channel(0).1,
        }
    }

    fn holder<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<(Holder, Epoch)>, JournalError>> {
        let inner = self.lock();
        let row = inner.leases.get(subject).filter(|row| self.clock.mono() < row.until);
        ready(Ok(row.map(|row| (row.holder.clone(), row.epoch))))
    }
}

impl Journal for MemoryJournal {
    fn create<'a>(
        &'a self,
        subject: &'a Subject,
        id: &'a RunId,
        at: Timestamp,
        created: &'a Value,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        let mut inner = self.lock();
        if inner.runs.contains_key(id) {
            return ready(Err(JournalError::Exists(id.clone())));
        }
        let busy = inner.runs.values().find(|run| run.info.subject == *subject && run.info.outcome.is_none());
        if let Some(by) = busy.map(|run| run.info.id.clone()) {
            return ready(Err(JournalError::SubjectBusy { subject: subject.clone(), by }));
        }
        let info = RunInfo { id: id.clone(), subject: subject.clone(), created_at: at, outcome: None };
        let records = vec![Record { seq: Seq(0), epoch: Epoch(0), at, fact: created.clone() }];
        inner.runs.insert(id.clone(), Run { info, records, asks: Vec::new(), changed: watch::Sender::new(0) });
        ready(Ok(()))
    }

    fn append<'a>(&'a self, append: Append<'a>) -> BoxFuture<'a, Result<(), JournalError>> {
        let mut inner = self.lock();
        let appended = (|| {
            let subject = run(&mut inner, append.id)?.info.subject.clone();
            self.holds(&inner, &subject, append.epoch)?;
            let run = run(&mut inner, append.id)?;
            if append.seq.0 != run.records.len() as u64 || run.info.outcome.is_some() {
                return Err(JournalError::Taken(append.seq));
            }
            let Append { epoch, seq, at, fact, outcome, .. } = append;
            run.records.push(Record { seq, epoch, at, fact: fact.clone() });
            run.info.outcome = outcome;
            run.changed.send_modify(|changes| *changes += 1);
            Ok(())
        })();
        ready(appended)
    }

    fn acquire<'a>(
        &'a self,
        subject: &'a Subject,
        holder: &'a Holder,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, JournalError>> {
        let mut inner = self.lock();
        let now = self.clock.mono();
        if let Some(row) = inner.leases.get(subject).filter(|row| now < row.until && row.holder.id != holder.id) {
            let held = JournalError::Held { holder: row.holder.id.clone(), remaining: row.until - now };
            return ready(Err(held));
        }
        inner.epoch += 1;
        let epoch = Epoch(inner.epoch);
        inner.leases.insert(subject.clone(), LeaseRow { holder: holder.clone(), epoch, until: now + ttl });
        ready(Ok(epoch))
    }

    fn renew<'a>(
        &'a self,
        subject: &'a Subject,
        epoch: Epoch,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        let mut inner = self.lock();
        let until = self.clock.mono() + ttl;
        let held = self.holds(&inner, subject, epoch);
        if let (Ok(()), Some(row)) = (&held, inner.leases.get_mut(subject)) {
            row.until = until;
        }
        ready(held)
    }

    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> BoxFuture<'a, Result<(), JournalError>> {
        let mut inner = self.lock();
        if inner.leases.get(subject).is_some_and(|row| row.epoch == epoch) {
            inner.leases.remove(subject);
        }
        ready(Ok(()))
    }

    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> BoxFuture<'a, Result<(), JournalError>> {
        let mut inner = self.lock();
        let asked = run(&mut inner, id).map(|run| {
            if run.asks.iter().all(|known| known.ask != row.ask) {
                run.asks.push(row.clone());
                run.changed.send_modify(|changes| *changes += 1);
            }
        });
        ready(asked)
    }

    fn asks<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Vec<AskRow>, JournalError>> {
        ready(run(&mut self.lock(), id).map(|run| run.asks.clone()))
    }
}

/// On which side of an append the process is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The fact is not in the journal.
    Before,
    /// It is, and the driver never learns it.
    After,
}

/// A journal that loses its process at the `n`th append (from 0): that append never answers, and [`LossyJournal::lost`]
/// returns, upon which the driver is to be dropped.
#[derive(Clone)]
pub struct LossyJournal {
    inner: MemoryJournal,
    left: Arc<Mutex<Option<(usize, When)>>>,
    lost: Arc<Notify>,
}

impl LossyJournal {
    /// Loses the process once, at append `n`; `None` for never.
    pub fn new(inner: MemoryJournal, loss: Option<(usize, When)>) -> LossyJournal {
        LossyJournal { inner, left: Arc::new(Mutex::new(loss)), lost: Arc::default() }
    }

    /// Returns when the process is to be lost.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Counts one append; says on which side of it the process is lost, if it is.
    fn count(&self) -> Option<When> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.take() {
            Some((0, when)) => Some(when),
            Some((n, when)) => {
                *left = Some((n - 1, when));
                None
            }
            None => None,
        }
    }
}

impl JournalRead for LossyJournal {
    fn list<'a>(&'a self, filter: &'a RunFilter) -> BoxFuture<'a, Result<Vec<RunInfo>, JournalError>> {
        self.inner.list(filter)
    }

    fn info<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<RunInfo, JournalError>> {
        self.inner.info(id)
    }

    fn read_from<'a>(
        &'a self,
        id: &'a RunId,
        from: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        self.inner.read_from(id, from, limit)
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        self.inner.watch(id)
    }

    fn holder<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<(Holder, Epoch)>, JournalError>> {
        self.inner.holder(subject)
    }
}

impl Journal for LossyJournal {
    fn create<'a>(
        &'a self,
        subject: &'a Subject,
        id: &'a RunId,
        at: Timestamp,
        created: &'a Value,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        self.inner.create(subject, id, at, created)
    }

    fn append<'a>(&'a self, append: Append<'a>) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let loss = self.count();
            if loss != Some(When::Before) {
                self.inner.append(append).await?;
            }
            if loss.is_some() {
                self.lost.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }

    fn acquire<'a>(
        &'a self,
        subject: &'a Subject,
        holder: &'a Holder,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, JournalError>> {
        self.inner.acquire(subject, holder, ttl)
    }

    fn renew<'a>(
        &'a self,
        subject: &'a Subject,
        epoch: Epoch,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        self.inner.renew(subject, epoch, ttl)
    }

    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> BoxFuture<'a, Result<(), JournalError>> {
        self.inner.release(subject, epoch)
    }

    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> BoxFuture<'a, Result<(), JournalError>> {
        self.inner.ask(id, row)
    }

    fn asks<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Vec<AskRow>, JournalError>> {
        self.inner.asks(id)
    }
}
