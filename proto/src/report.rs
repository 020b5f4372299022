//! What an agent sees: reports (the newest picture, an older one may be lost) and events (numbered, never lost).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    lsn::Lsn,
    phase::{SwitchoverPhase, SwitchoverStatus},
    side::{ServerSaid, Side},
};

/// The newest picture of one agent. A `None` is a measurement that is missing; it never passes a gate.
/// Ages are milliseconds before the report was made, on the agent's monotonic clock.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Slots on the serving side's writer (lead only).
    pub slots: Option<Slots>,
    pub sessions: Option<Sessions>,
    pub ingestion: Vec<Controller>,
    pub probe: Probe,
    /// What the servers say of the switchover themselves; `None` while none is announced.
    #[serde(default)]
    pub switchover: Option<SwitchoverStatus>,
    pub marker: Option<MarkerDelay>,
    pub schema: Option<SchemaWatch>,
    pub old_side: Option<OldSide>,
    pub partitions: Option<Partitions>,
    /// What the agent does by itself when it has lost its coordinator; `obey` otherwise.
    pub stance: String,
    pub held_ms: Option<u64>,
    pub ingestion_paused_ms: Option<u64>,
    pub resident_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slots {
    pub age_ms: u64,
    pub current: Lsn,
    pub slots: Vec<Slot>,
    /// Oldest `catalog_xmin`/`xmin` age over all slots, in transactions.
    pub xmin_age: Option<u64>,
    /// Free storage where the server can tell.
    pub free_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    pub database: Option<String>,
    pub logical: bool,
    pub active: bool,
    /// One of the deployment's own (name starts with `rds`).
    pub of_deployment: bool,
    pub confirmed_flush: Option<Lsn>,
    /// `lsn_distance`: bytes not yet confirmed by the subscriber.
    pub lag_bytes: Option<u64>,
    pub retained_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sessions {
    pub clients: u64,
    pub active: u64,
    pub idle_in_transaction: u64,
    /// Slots that are being made and wait for a transaction to end.
    pub waiting_slots: u64,
    /// Sessions that hold those up right now.
    pub blockers: u64,
    pub purged_total: u64,
    pub ended_total: u64,
    pub resubmitted_total: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Controller {
    pub name: String,
    pub kind: String,
    pub state: IngestionState,
    pub backlog: Option<u64>,
    /// Rows, messages or statements a second, as the system itself counts.
    pub rate: Option<f64>,
    /// It holds clients through the cut.
    pub holds: bool,
    pub age_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngestionState {
    Running,
    Paused,
    Mixed,
    /// The controller could not be asked; the reason.
    Unknown(String),
}

/// What the probe last saw through the production endpoint, and on green by address.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Probe {
    pub production: Option<Seen>,
    pub green: Option<Seen>,
    /// A write of this agent was accepted by green since the window opened: evidence enough for the point of no return.
    pub green_took_write: bool,
    /// Blue's recorded identity accepted a plain write through the endpoint, this many times in a row just now.
    pub blue_writes_in_a_row: u32,
    /// Totals since the agent started, by this agent's own probe.
    pub write_unavailable_ms: u64,
    pub read_unavailable_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub age_ms: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It answered. `side` is `None` when it is neither recorded side; `wrote` when a plain write was accepted.
    Answered { side: Option<Side>, said: ServerSaid, wrote: bool },
    /// Nothing answered, or it refused; the SQLSTATE where there is one, and a kind (`refused`, `timeout`, `shutdown` …).
    Unreachable { kind: String, sqlstate: Option<String> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkerDelay {
    pub age_ms: u64,
    /// Slowest database, from the commit on blue to its sight on green. `None` until one made it.
    pub max_ms: Option<u64>,
    /// Set while a marker has not arrived yet: how long it has been on its way.
    pub pending_ms: Option<u64>,
    pub databases: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaWatch {
    pub age_ms: u64,
    /// Objects that differ between blue and green, as `database: kind schema.name (what)`; empty when equal.
    pub differences: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OldSide {
    pub age_ms: u64,
    pub read_only: bool,
    pub clients: Vec<ClientSeen>,
    /// Milliseconds since a client was last seen there; `None` when none has been since the watch began.
    pub last_client_ms: Option<u64>,
    pub watched_ms: u64,
    /// Transactions that wrote, committed there since the watch began.
    pub write_commits: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSeen {
    pub database: Option<String>,
    pub user: Option<String>,
    pub application: String,
    pub client: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partitions {
    pub age_ms: u64,
    /// The earliest end of premade partitions over all sets; `None` when there is no set.
    pub covered_until: Option<Timestamp>,
    pub rows_in_default: u64,
}

/// What an agent must not lose. Numbered by it, kept in its spool until the fact `Observed` is in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The purger ended a session that held slot creation up.
    SessionPurged { at: Timestamp, session: Session, waited_on: Option<String> },
    /// The purger met something it may not end: a prepared transaction, an active transaction past its limit, a refusal.
    PurgeBlocked { at: Timestamp, what: String, reason: String },
    /// A session was ended because it would have delayed the cut.
    SessionEnded { at: Timestamp, session: Session, recorded: Option<String>, not_resubmittable: Option<String> },
    /// The fate of a recorded statement.
    Resubmission { at: Timestamp, key: String, database: String, role: String, verdict: Verdict },
    /// Writes or reads through the production endpoint failed for this long, by the probe.
    Outage { from: Timestamp, to: Timestamp, ms: u64, kind: OutageKind, before: Option<Side>, after: Option<Side> },
    /// The catalogue fingerprint of the sides began to differ.
    SchemaChanged { at: Timestamp, differences: Vec<String> },
    /// A client was seen on the side that does not serve any more.
    OldSideClient { at: Timestamp, client: ClientSeen, ended: bool },
    /// Data was written to the old side.
    OldSideWritten { at: Timestamp, commits: u64 },
    /// A pause or hold reached 80 % or 100 % of its cap.
    PauseCap { at: Timestamp, percent: u8, resumed: bool },
    /// The agent acted on its own: it had lost the coordinator.
    Stance { at: Timestamp, stance: String },
    /// Clients were held, or ingestion was paused, from the first refusal to the release.
    Held { at: Timestamp, ms: u64, kind: HoldKind },
    /// The writer of a side began to say another phase of the switchover (`None`: its rows went). The offset is from the first
    /// sight of `SWITCHOVER_IN_PROGRESS`, in milliseconds; `None` before it.
    SwitchoverPhase { at: Timestamp, side: Side, phase: Option<SwitchoverPhase>, offset_ms: Option<i64> },
    /// Green accepted a write of this agent, by address: there is no way back.
    GreenAcceptedWrite { at: Timestamp, offset_ms: Option<i64> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageKind {
    Write,
    Read,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    Gate,
    Ingestion,
}

/// A session as it is recorded: never its statement's text, which may hold data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub pid: i32,
    pub database: Option<String>,
    pub user: Option<String>,
    pub application: String,
    pub client: Option<String>,
    pub state: String,
    pub backend_start: Option<Timestamp>,
    pub xact_start: Option<Timestamp>,
    pub age_ms: u64,
    /// The first keyword of the running or last statement (`UPDATE`, `CALL` …).
    pub command: Option<String>,
}

/// What became of a statement that was interrupted (field rule 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    Resubmitted,
    /// The ledger says that it was resubmitted before.
    AlreadyDone,
    /// It had committed on blue before it was ended.
    CommittedOnBlue,
    Refused {
        reason: String,
    },
    /// Its abort could not be proven; it is never resubmitted.
    Unknown {
        reason: String,
    },
}
