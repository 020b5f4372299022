//! Whether green still follows blue, how far behind it is, and what was done on blue that it cannot follow.

use super::{Link, Sides};
use crate::fleet::{self, Server};

/// How one database's replication does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHealth {
    /// Which database.
    pub database: String,
    /// Its slot.
    pub slot: String,
    /// Whether the slot is there and a walsender uses it.
    pub slot_active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`; `None` when the slot is gone.
    pub wal_status: Option<String>,
    /// Bytes of WAL that green has not confirmed; `None` when the slot is gone.
    pub lag_bytes: Option<u64>,
    /// Whether green's apply worker runs.
    pub worker: bool,
    /// Errors of apply since the subscription was made; `None` before version 15, where nothing counts them.
    pub apply_errors: Option<u64>,
}

/// How every link does, in the order of `sides.links`.
///
/// # Errors
/// When a writer does not answer.
pub async fn links(sides: &Sides) -> Result<Vec<LinkHealth>, fleet::Error> {
    let _ = sides;
    Err(fleet::Error::other("not built yet"))
}

/// Bytes of WAL that the slot furthest behind has not confirmed, over every slot of the server. `None` without slots.
///
/// # Errors
/// When the server does not answer.
pub async fn oldest_slot_lag(server: &Server) -> Result<Option<u64>, fleet::Error> {
    let _ = server;
    Err(fleet::Error::other("not built yet"))
}

/// What blue looked like when replication began; compared later by [`changes_since`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    pub(crate) log: crate::fleet::LogPosition,
    pub(crate) databases: std::collections::BTreeMap<String, Fingerprint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint {
    pub(crate) catalog: String,
    pub(crate) views: String,
    pub(crate) large_objects: String,
}

/// A change on blue that logical replication does not carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where; `None` when the log did not say.
    pub database: Option<String>,
    /// What kind.
    pub kind: ChangeKind,
    /// The statement as the log has it, or what the catalogue shows.
    pub what: String,
}

/// Kinds of [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A schema change.
    Ddl,
    /// A materialized view was refreshed.
    Refresh,
    /// A large object was written.
    LargeObject,
}

/// Takes the baseline of the databases in `links`. Call it when green is complete.
///
/// # Errors
/// When the server does not answer.
pub async fn baseline(blue: &Server, links: &[Link]) -> Result<Baseline, fleet::Error> {
    let _ = (blue, links);
    Err(fleet::Error::other("not built yet"))
}

/// What happened on blue since the baseline: from its own log (`log_statement = ddl`) and from its catalogues.
///
/// # Errors
/// When the server does not answer.
pub async fn changes_since(blue: &Server, baseline: &Baseline) -> Result<Vec<Change>, fleet::Error> {
    let _ = (blue, baseline);
    Err(fleet::Error::other("not built yet"))
}
