//! Where runs are kept. `sqlite.rs` is the store of a single coordinator, `postgres.rs` the one that several share; what is in
//! them, and why, is said at their tops. Nobody else knows which one it is.

#[cfg(test)]
pub(crate) mod memory;
mod postgres;
mod rows;
mod samples;
mod sqlite;
#[cfg(test)]
mod tests;
mod worker;

use engine::{Journal, JournalError, RunId, Seq};
use futures_util::future::BoxFuture;
use proto::epoch::StoreId;

use crate::link::{Wish, WishKeeper};

pub use postgres::{ConnectError, OpenError as PostgresOpenError, Place, PostgresStore, Tls};
pub use samples::{About, AgentVersion, SAMPLES_MAX, Sample};
pub use sqlite::{OpenError, SqliteStore};

/// A journal, and what is kept beside it.
pub trait Store: Journal + WishKeeper {
    /// The identity of this store; agents obey one only.
    fn id(&self) -> &StoreId;

    /// Keeps what is fixed about a run. To be called before the run is created, so that no run is ever without it. Fails when
    /// the run has something already.
    fn prepare<'a>(&'a self, id: &'a RunId, about: &'a About) -> BoxFuture<'a, Result<(), JournalError>>;

    /// What was kept about a run, and the newest wish told to its agents.
    fn about<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<(About, Option<Wish>), JournalError>>;

    /// Adds samples; the oldest of the run go when there are too many.
    fn add_samples<'a>(&'a self, id: &'a RunId, samples: Vec<Sample>) -> BoxFuture<'a, Result<(), JournalError>>;

    /// The newest samples of a run, oldest first.
    fn samples<'a>(&'a self, id: &'a RunId, limit: u32) -> BoxFuture<'a, Result<Vec<Sample>, JournalError>>;

    /// All bookmarks, of every run.
    fn bookmarks(&self) -> BoxFuture<'_, Result<Vec<Bookmark>, JournalError>>;

    /// Keeps a bookmark, in place of one that is not further.
    fn keep_bookmark<'a>(&'a self, mark: &'a Bookmark) -> BoxFuture<'a, Result<(), JournalError>>;

    /// Forgets a bookmark; nothing happens when there is none.
    fn drop_bookmark<'a>(&'a self, run: &'a RunId, hook: &'a str) -> BoxFuture<'a, Result<(), JournalError>>;
}

/// How far a hook was told the news of a run. It is there from before the run is created until the last news are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    pub run: RunId,
    pub hook: String,
    /// The first fact that it was not told of.
    pub next: Seq,
}
