//! How green is made: publications and a base copy of blue, one logical slot for each database, the copy recovered to
//! exactly the last slot's position, `pg_upgrade --link`, subscriptions that go on from there. Also how all of it is removed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Side, Sides};
use crate::fleet::{self, Fleet, Server};

/// A stage of [`build`], in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// `CREATE PUBLICATION … FOR ALL TABLES` in each database.
    Publications,
    /// The base copy of blue.
    Copy,
    /// One logical slot for each database: waits for every transaction that has an id.
    Slots,
    /// The copy recovers to the last slot's position and is promoted.
    Recover,
    /// `pg_upgrade --link`.
    Upgrade,
    /// Green starts, read-only, with its own parameters; the subscriptions go on from the slots' position.
    Subscribe,
    /// Green's readers are copied and follow.
    Readers,
}

/// Told what [`build`] is at: the stage and whether it has ended.
pub type Progress = Arc<dyn Fn(Stage, bool) + Send + Sync>;

/// A server that is to be made.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in the fleet: a folder name, unique and never changed.
    pub name: String,
    /// The address it listens on.
    pub address: IpAddr,
    /// Parameters of its groups.
    pub parameters: BTreeMap<String, String>,
    /// What it answers about itself.
    pub identity: crate::roles::Identity,
}

/// What green is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The 26 lower-case characters that mark this deployment in the names of slots, publications and subscriptions.
    pub tag: String,
    /// The region as it stands in the names: `us-east-1`.
    pub region: String,
    /// Major version after the upgrade; may equal blue's.
    pub major: u32,
    /// The writer.
    pub writer: Node,
    /// The readers.
    pub readers: Vec<Node>,
    /// Wait for transactions *before* making each slot, so that no waiting slot can be seen (a fault that can be played).
    pub hide_slot_wait: bool,
}

/// Why green could not be made. Everything that was begun has been removed again.
#[derive(Debug, thiserror::Error)]
#[error("green could not be made: {reason}")]
pub struct BuildFailed {
    /// Where it ended.
    pub stage: Stage,
    /// One sentence for a person.
    pub reason: String,
    /// Parameters that make it impossible, if it is that.
    pub parameters: Vec<String>,
    /// What the upgrade wrote, if it was the upgrade.
    pub log: Option<String>,
    /// Whether the caller cancelled it.
    pub cancelled: bool,
}

/// Makes green from the running writer `blue`. On failure or cancellation nothing is left on blue and no process runs.
///
/// # Errors
/// With the stage, the reason and the upgrade's own text.
pub async fn build(fleet: &Fleet, blue: &Side, plan: Plan, progress: Progress, cancel: &CancellationToken) -> Result<Sides, BuildFailed> {
    let _ = (fleet, blue, plan, progress, cancel);
    Err(BuildFailed { stage: Stage::Publications, reason: "not built yet".into(), parameters: vec![], log: None, cancelled: false })
}

/// What [`clean_up`] removed from blue, and what it could not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanedUp {
    /// Slots dropped.
    pub slots: Vec<String>,
    /// Publications dropped, as `database.publication`.
    pub publications: Vec<String>,
}

/// Removes every slot and publication of the deployment `tag` from blue. Stop or delete green first, or its walsenders are
/// ended here. Idempotent.
///
/// # Errors
/// When blue does not answer or something is still there afterwards.
pub async fn clean_up(blue: &Server, tag: &str) -> Result<CleanedUp, fleet::Error> {
    let _ = (blue, tag);
    Err(fleet::Error::other("not built yet"))
}

/// Ends replication on green's side: drops its subscriptions without touching blue (`PromoteReadReplicaDBCluster`, and
/// before green is deleted).
///
/// # Errors
/// When green does not answer.
pub async fn detach(sides: &Sides) -> Result<(), fleet::Error> {
    let _ = sides;
    Err(fleet::Error::other("not built yet"))
}

/// Points green's subscriptions at blue's present writer, after a failover of blue.
///
/// # Errors
/// When green does not answer.
pub async fn repoint(sides: &Sides) -> Result<(), fleet::Error> {
    let _ = sides;
    Err(fleet::Error::other("not built yet"))
}
