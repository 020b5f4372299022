//! What both stores have in common: how a row is read, and proven to be the one that was written.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use engine::{Epoch, JournalError, Outcome, Record, RunId, RunInfo, Seq, Subject};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

fn damaged(what: String) -> JournalError {
    JournalError::Damaged(what)
}

/// Over everything that a fact's row says.
pub(super) fn sum(run: &str, seq: u64, epoch: u64, at: &str, fact: &str) -> String {
    let mut sha = Sha256::new();
    for part in [run, &seq.to_string(), &epoch.to_string(), at, fact] {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part.as_bytes());
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A row of `facts`. `sum` is `None` for rows of a store that was made before there were sums.
pub(super) struct FactRow {
    pub(super) seq: i64,
    pub(super) epoch: i64,
    pub(super) at: String,
    pub(super) fact: String,
    pub(super) sum: Option<String>,
}

impl FactRow {
    pub(super) fn record(self, run: &str) -> Result<Record, JournalError> {
        let (seq, epoch) = (unsigned(self.seq), unsigned(self.epoch));
        if self.sum.is_some_and(|kept| kept != sum(run, seq, epoch, &self.at, &self.fact)) {
            return Err(damaged(format!("place {seq} of the journal of {run} does not agree with its sum")));
        }
        let (at, fact) = (timestamp(&self.at)?, json(&self.fact)?);
        Ok(Record { seq: Seq(seq), epoch: Epoch(epoch), at, fact })
    }
}

/// A row of `runs`.
pub(super) struct RunRow {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) created_at: String,
    pub(super) outcome: Option<String>,
}

impl RunRow {
    pub(super) fn info(self) -> Result<RunInfo, JournalError> {
        Ok(RunInfo {
            id: RunId(self.id),
            subject: Subject(self.subject),
            created_at: timestamp(&self.created_at)?,
            outcome: outcome(self.outcome)?,
        })
    }
}

/// Numbers that a store keeps with a sign are never negative.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

pub(super) fn signed(value: u64) -> Result<i64, JournalError> {
    i64::try_from(value).map_err(|_| damaged(format!("{value} is too large for the store")))
}

pub(super) fn timestamp(text: &str) -> Result<Timestamp, JournalError> {
    text.parse().map_err(|error| damaged(format!("the time {text:?} cannot be read: {error}")))
}

pub(super) fn json(text: &str) -> Result<Value, JournalError> {
    serde_json::from_str(text).map_err(|error| damaged(format!("a stored document cannot be read: {error}")))
}

fn outcome(text: Option<String>) -> Result<Option<Outcome>, JournalError> {
    let known = [Outcome::Succeeded, Outcome::Unwound, Outcome::Refused, Outcome::Stopped];
    let find = |text: String| {
        let found = known.into_iter().find(|outcome| outcome.as_str() == text);
        found.ok_or_else(|| damaged(format!("the outcome {text:?} is not known")))
    };
    text.map(find).transpose()
}

/// Who waits for news of a run.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<RunId, watch::Sender<u64>>>);

impl Watches {
    pub(super) fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever watched a run that is over has gone.
        watches.retain(|known, sender| known == id || sender.receiver_count() > 0);
        watches.entry(id.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    pub(super) fn touch(&self, id: &str) {
        self.change(|known| known.as_str() == id);
    }

    pub(super) fn touch_all(&self) {
        self.change(|_| true);
    }

    fn change(&self, which: impl Fn(&RunId) -> bool) {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, sender) in watches.iter().filter(|(id, _)| which(id)) {
            sender.send_modify(|n| *n = n.wrapping_add(1));
        }
    }
}
