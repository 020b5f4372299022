//! Where facts are kept: the traits a store implements. A store knows no fact, only JSON, order, leases and the inbox.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::fact::{DecodeError, Entry, Fact, Outcome};
use crate::ids::{AskId, Operator, RunId, Subject};
use crate::plan::PlanShape;
use crate::state::{IllegalFact, State};
use crate::step::Domain;

/// The place of a fact in its run, from 0 without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// Who may append: rises with every lease taken, over the whole store. 0 is the creator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who drives: a process, and the address where others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Unique to one life of a process.
    pub id: String,
    /// Where it is reached.
    pub address: String,
}

/// One stored fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place.
    pub seq: Seq,
    /// Whose it is.
    pub epoch: Epoch,
    /// When, by the driver's clock.
    pub at: Timestamp,
    /// [`Fact::encode`]d.
    pub fact: Value,
}

/// What the store says of a run without reading its facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The run.
    pub id: RunId,
    /// What it is about.
    pub subject: Subject,
    /// When it was created, by the creator's clock.
    pub created_at: Timestamp,
    /// How it ended; `None` while it is active.
    pub outcome: Option<Outcome>,
}

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only those without an outcome.
    pub active_only: bool,
    /// Only those of this subject.
    pub subject: Option<Subject>,
    /// At most so many, newest first; `None` for all.
    pub limit: Option<usize>,
}

/// A row of the inbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskRow {
    /// The row's key.
    pub ask: AskId,
    /// Who asks.
    pub by: Operator,
    /// When, by the clock of whoever took it.
    pub at: Timestamp,
    /// An encoded [`crate::fact::Request`].
    pub request: Value,
}

/// A fact to be appended.
#[derive(Clone, Debug)]
pub struct Append<'a> {
    /// The run.
    pub id: &'a RunId,
    /// The appender's epoch.
    pub epoch: Epoch,
    /// The next free place, as the appender believes.
    pub seq: Seq,
    /// When, by the driver's clock.
    pub at: Timestamp,
    /// [`Fact::encode`]d.
    pub fact: &'a Value,
    /// Set with the last fact: the run is no longer active from this append on.
    pub outcome: Option<Outcome>,
}

/// What a store can refuse.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another run of the same subject is active.
    #[error("{subject} is busy with run {by}")]
    SubjectBusy { subject: Subject, by: RunId },
    /// The epoch no longer holds the subject's lease.
    #[error("epoch {0} no longer holds the lease")]
    Fenced(Epoch),
    /// There is a fact at this place already, or one before it is missing.
    #[error("place {0} of the journal is not the next free one")]
    Taken(Seq),
    /// Somebody else holds the lease.
    #[error("{holder} holds the lease for another {} ms", .remaining.as_millis())]
    Held { holder: String, remaining: Duration },
    /// There is no such run.
    #[error("there is no run {0}")]
    NoSuchRun(RunId),
    /// There is a run of this id already.
    #[error("there is a run {0} already")]
    Exists(RunId),
    /// The store holds what nobody wrote there: trying again does not help.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store itself failed; whether the change was made is not known.
    #[error("the store failed while {doing}")]
    Store { doing: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Reading, for everyone.
pub trait JournalRead: Send + Sync {
    /// The runs, newest first.
    fn list<'a>(&'a self, filter: &'a RunFilter) -> BoxFuture<'a, Result<Vec<RunInfo>, JournalError>>;
    /// One run.
    fn info<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<RunInfo, JournalError>>;
    /// The records at and after `from`, in order, at most `limit`.
    fn read_from<'a>(
        &'a self,
        id: &'a RunId,
        from: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>>;
    /// Changes (to any value) after every append to and every ask of the run made through this store object.
    fn watch(&self, id: &RunId) -> watch::Receiver<u64>;
    /// Who holds the subject's lease now, if anyone.
    fn holder<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<(Holder, Epoch)>, JournalError>>;
}

/// Writing, for drivers and the front door.
pub trait Journal: JournalRead {
    /// Creates a run with its first fact (place 0, epoch 0). `SubjectBusy` if an active run has the same subject,
    /// `Exists` if the id is taken.
    fn create<'a>(
        &'a self,
        subject: &'a Subject,
        id: &'a RunId,
        at: Timestamp,
        created: &'a Value,
    ) -> BoxFuture<'a, Result<(), JournalError>>;

    /// `Fenced` unless `epoch` still holds the lease of the run's subject, `Taken` unless `seq` is the next place. In
    /// one statement.
    fn append<'a>(&'a self, append: Append<'a>) -> BoxFuture<'a, Result<(), JournalError>>;

    /// Takes the subject's lease if it is free, expired or this holder's own; always a new epoch from one counter of
    /// the store that only rises. Time is the store's clock. `Held` if another's lease still runs.
    fn acquire<'a>(
        &'a self,
        subject: &'a Subject,
        holder: &'a Holder,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, JournalError>>;
    /// Extends the lease to `ttl` from now. `Fenced` unless `epoch` holds it and it has not expired.
    fn renew<'a>(
        &'a self,
        subject: &'a Subject,
        epoch: Epoch,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), JournalError>>;
    /// Gives the lease back; nothing happens if `epoch` does not hold it.
    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> BoxFuture<'a, Result<(), JournalError>>;

    /// Puts a request into the run's inbox; nothing happens if the ask id is there already.
    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> BoxFuture<'a, Result<(), JournalError>>;
    /// The inbox, oldest first. Rows stay; the driver knows by their ids which it has taken.
    fn asks<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Vec<AskRow>, JournalError>>;
}

/// Why a journal could not be folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The store failed.
    #[error("the journal of {id} cannot be read")]
    Journal { id: RunId, source: JournalError },
    /// A record cannot be read by this program.
    #[error("the journal of {id} cannot be understood")]
    Decode { id: RunId, source: DecodeError },
    /// The records contradict each other.
    #[error("the journal of {id} contradicts itself")]
    Illegal { id: RunId, source: IllegalFact },
}

const PAGE: usize = 1000;

/// Reads a run's facts from `from` on.
///
/// # Errors
/// The store's, or a record this program cannot read.
pub async fn entries<D: Domain>(
    journal: &(impl JournalRead + ?Sized),
    id: &RunId,
    from: Seq,
) -> Result<Vec<Entry<D>>, FoldError> {
    let mut all = Vec::new();
    let mut next = from;
    loop {
        let page =
            journal.read_from(id, next, PAGE).await.map_err(|source| FoldError::Journal { id: id.clone(), source })?;
        let full = page.len() == PAGE;
        for record in &page {
            all.push(Entry::decode(record).map_err(|source| FoldError::Decode { id: id.clone(), source })?);
            next = Seq(record.seq.0 + 1);
        }
        if !full {
            return Ok(all);
        }
    }
}

/// Folds a run as it stands now.
///
/// # Errors
/// As [`entries`], and facts that contradict each other.
pub async fn fold<D: Domain>(journal: &(impl JournalRead + ?Sized), id: &RunId) -> Result<State<D>, FoldError> {
    let mut state = State::empty();
    for entry in entries(journal, id, Seq(0)).await? {
        state = state.apply(&entry).map_err(|source| FoldError::Illegal { id: id.clone(), source })?;
    }
    Ok(state)
}

/// Creates a run: its journal with `Created`. Somebody must drive it then.
///
/// # Errors
/// `SubjectBusy`, `Exists`, or the store's own.
pub async fn start<D: Domain>(
    journal: &(impl Journal + ?Sized),
    subject: &Subject,
    id: &RunId,
    spec: D::Spec,
    plan: &PlanShape,
    at: Timestamp,
) -> Result<(), JournalError> {
    let created = Fact::<D>::Created { spec, plan: plan.ids() };
    let created = created
        .encode()
        .map_err(|error| JournalError::Store { doing: "writing the spec".into(), source: error.into() })?;
    journal.create(subject, id, at, &created).await
}

/// Puts a request into a run's inbox.
///
/// # Errors
/// `NoSuchRun`, or the store's own.
pub async fn ask<D: Domain>(
    journal: &(impl Journal + ?Sized),
    id: &RunId,
    ask: AskId,
    by: Operator,
    request: &crate::fact::Request<D>,
    at: Timestamp,
) -> Result<(), JournalError> {
    let request = serde_json::to_value(request)
        .map_err(|error| JournalError::Store { doing: "writing a request".into(), source: error.into() })?;
    journal.ask(id, &AskRow { ask, by, at, request }).await
}
