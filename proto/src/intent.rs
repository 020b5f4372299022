//! What an agent is told should be true: one whole, numbered wish. Resending it is how a link is mended.

use serde::{Deserialize, Serialize};

use crate::{
    epoch::{Epoch, Generation},
    ids::UpgradeId,
    side::{Endpoint, Side, SideIdentity},
};

/// The whole wished state of one agent. Applying the same one twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    pub upgrade: UpgradeId,
    pub epoch: Epoch,
    pub generation: Generation,
    /// Ingestion controllers that do not hold clients (HTTP, command).
    pub ingestion: IngestionWish,
    /// Ends idle transactions while set; obeyed by the lead only.
    pub purger: Option<PurgePolicy>,
    /// `Hold` stops everything: every controller pauses, and those that can hold clients (PgBouncer) hold them.
    pub gate: GateWish,
    pub targets: Targets,
    /// Announced before the hold, kept until the upgrade is finished.
    pub window: Option<SwitchoverWindow>,
    /// What the lead measures and reports besides slots and probe.
    pub watch: WatchWish,
}

/// Why an agent did not do what it was told, or undid it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    /// The ingestion pause reached its cap. Asking again is in vain until a wish to run was settled.
    pub pause_over: bool,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Refusal {
        Refusal { reason, pause_over: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum IngestionWish {
    Running,
    /// Resumes by itself `max_pause_ms` after the first moment it was paused, whatever else happens.
    Paused {
        max_pause_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateWish {
    Open,
    Hold,
}

/// How the idle-transaction purger works (field rule 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgePolicy {
    /// A session idle in transaction, holding a transaction id, is ended after this long.
    pub idle_grace_ms: u64,
    /// An active transaction is waited for this long, then reported for approval; never ended by the purger alone.
    pub active_wait_ms: u64,
    /// When no waiting slot can be recognised this long after the purger was switched on, age alone decides.
    pub age_fallback_after_ms: u64,
    /// `application_name`s that are never touched.
    pub allow_applications: Vec<String>,
    /// Set once an operator approved ending active transactions too.
    pub end_active: bool,
}

/// Where the servers are. Dialled by address (resolved once, early), verified by identity at every use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// The name that applications use.
    pub production: Endpoint,
    /// Which side production is expected to be: blue before the cut, green after it.
    pub serving: Side,
    pub blue: SideIdentity,
    pub green: Option<SideIdentity>,
}

impl Targets {
    /// The identity of a side, when it is known.
    pub fn side(&self, side: Side) -> Option<&SideIdentity> {
        match side {
            Side::Blue => Some(&self.blue),
            Side::Green => self.green.as_ref(),
        }
    }

    /// Those that are known, blue first.
    pub fn sides(&self) -> impl Iterator<Item = &SideIdentity> {
        [Some(&self.blue), self.green.as_ref()].into_iter().flatten()
    }
}

/// The time in which the cut may happen, so that an agent that loses the coordinator knows what to ask the database.
/// Durations count from the first moment this window was applied with the gate held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverWindow {
    /// False while it is only announced; true from the hold on.
    pub open: bool,
    /// The switchover's own time-out plus revert allowance.
    pub deadline_ms: u64,
    /// Extra time before an agent on its own fails open.
    pub grace_ms: u64,
    /// Nothing is held longer than this under any stance.
    pub hold_max_ms: u64,
}

/// What the lead keeps measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WatchWish {
    /// Write a marker on blue and time its arrival on green, every second.
    pub marker: bool,
    /// Compare the catalogue fingerprint of blue and green every 30 s.
    pub schema: bool,
    /// Watch (and end) client sessions on the side that does not serve any more.
    pub old_side: bool,
    /// Report how far the premade partitions reach.
    pub partitions: bool,
}

impl Intent {
    /// Does this wish hurt the application if it stays too long?
    pub fn is_harmful(&self) -> bool {
        hurts(self.ingestion, self.purger.as_ref(), self.gate)
    }
}

/// Does it hurt the application to be told so for too long?
pub fn hurts(ingestion: IngestionWish, purger: Option<&PurgePolicy>, gate: GateWish) -> bool {
    gate == GateWish::Hold || purger.is_some() || matches!(ingestion, IngestionWish::Paused { .. })
}
