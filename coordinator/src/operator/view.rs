//! The stable JSON of `--output json`: fields may be added, never renamed or dropped.

use engine::Record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::course::Moment;
use super::facts;
use super::tally::{Counts, Downtime, Gap, SchemaChange, SessionEnd, Statement};
use crate::link::AgentSeen;
use crate::world::Upgrade;

/// A coordinator that does not drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StandsBy {
    /// Where the one that drives is reached by agents and people; `None` while nobody is known to.
    pub leader: Option<String>,
}

impl StandsBy {
    /// The host of the one that drives, where its page is.
    pub fn host(&self) -> Option<&str> {
        let leader = self.leader.as_deref()?;
        let authority = leader.rsplit("://").next().unwrap_or(leader);
        authority.rsplit_once(':').map(|(host, _)| host).filter(|host| !host.is_empty())
    }
}

/// One upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    pub cluster_arn: String,
    pub from_version: String,
    pub to_version: String,
    pub asked_by: String,
    /// The step at work (or the last one that was); see `steps` for the ids.
    pub phase: String,
    /// `forward`, `restarting`, `unwinding`, `finished`.
    pub direction: String,
    /// `ok`, `attention` (an alarm, a failure being retried, a warning), `person` (it waits for one), `trouble` (no driver
    /// can drive it).
    pub health: String,
    /// `succeeded`, `unwound`, `refused`, `stopped`; null while it is under way.
    pub outcome: Option<String>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    /// Whole run so far.
    pub seconds: f64,
    /// Highest fact number plus one: `watch` goes on from here.
    pub next_seq: u64,
    /// The point of no return is behind.
    pub switched_over: bool,
    /// A person has paused it.
    #[serde(default)]
    pub paused: bool,
    /// A person holds it before the switchover until then; the end of time (9999) is until told.
    #[serde(default)]
    pub postponed_until: Option<Timestamp>,
    pub steps: Vec<StepView>,
    pub current: Option<CurrentView>,
    pub lag: LagView,
    pub ingestion: IngestionView,
    pub counts: Counts,
    pub downtime: Downtime,
    pub statements: Vec<Statement>,
    /// The switchover moment by moment, as the agents saw it.
    #[serde(default)]
    pub switchover: Vec<Moment>,
    pub schema_changes: Vec<String>,
    /// Sessions that were purged or ended, the first 200.
    #[serde(default)]
    pub sessions: Vec<SessionEnd>,
    /// Outages by the probes, holds and pauses, the first 200.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Schema changes with who made them and what they do to replication, the first 200.
    #[serde(default)]
    pub ddl: Vec<SchemaChange>,
    pub approvals: Vec<ApprovalView>,
    pub alarms: Vec<AlarmView>,
    pub warnings: Vec<WarningView>,
    /// Why it failed, goes back, or waits for a person.
    pub reason: Option<String>,
    /// What a person can do now, as a command or a sentence.
    pub next_action: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    pub id: String,
    pub title: String,
    /// `pending running failed done skipped undoing undone stuck`.
    pub state: String,
    pub seconds: Option<f64>,
    /// The same without those in which a person's approval was waited for.
    #[serde(default)]
    pub worked_seconds: Option<f64>,
    pub attempt: u32,
    /// What such a step took in the median of the earlier upgrades of this store that succeeded; null without one, and once
    /// the upgrade has ended.
    #[serde(default)]
    pub expected_seconds: Option<f64>,
    /// Seconds spent in named waits, longest first.
    pub waits: Vec<WaitView>,
    pub failure: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitView {
    pub what: String,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurrentView {
    pub step: String,
    /// `idle check run verify undo calm`.
    pub doing: String,
    pub progress: Option<ProgressView>,
    /// What the step may still take, by what such steps took and by the share of its work that is done.
    #[serde(default)]
    pub left_seconds: Option<f64>,
    /// What is waited for and the last status seen.
    pub waiting_for: Option<String>,
    /// It waits for a person.
    pub asks_person: bool,
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    pub done: u64,
    pub total: u64,
    pub unit: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LagView {
    pub slots: Vec<SlotView>,
    /// Slots that are not the deployment's: a source's that is paused goes on holding WAL.
    #[serde(default)]
    pub other_slots: Vec<OtherSlotView>,
    pub cloudwatch_bytes: Option<u64>,
    pub marker_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    pub name: String,
    pub database: Option<String>,
    pub bytes: Option<u64>,
    pub retained_bytes: Option<u64>,
    /// Milliseconds since the oldest WAL that the subscriber has not confirmed was first seen; 0 when it has confirmed all.
    #[serde(default)]
    pub behind_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherSlotView {
    pub name: String,
    pub database: Option<String>,
    pub active: bool,
    pub retained_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IngestionView {
    pub rate: Option<f64>,
    pub backlog: Option<u64>,
    /// `running`, `paused`, `mixed`, `unknown`; null without controllers.
    pub state: Option<String>,
    pub controllers: Vec<ControllerView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControllerView {
    pub name: String,
    pub kind: String,
    pub state: String,
    pub rate: Option<f64>,
    pub backlog: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    pub name: String,
    pub step: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmView {
    pub monitor: String,
    /// `note`, `hold`, `unwind`.
    pub level: String,
    pub code: String,
    pub text: String,
    /// The approval that settles it, where its text names one.
    #[serde(default)]
    pub approval: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarningView {
    pub at: Timestamp,
    pub step: Option<String>,
    pub code: String,
    pub detail: String,
}

/// One line of `pilot status` without an id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    pub id: String,
    pub cluster: String,
    pub from_version: String,
    pub to_version: String,
    pub phase: String,
    pub health: String,
    pub outcome: Option<String>,
    pub started_at: Timestamp,
    pub seconds: f64,
    /// Of the slot that is furthest behind.
    #[serde(default)]
    pub lag_bytes: Option<u64>,
    #[serde(default)]
    pub next_action: Option<String>,
    /// Names of approvals that are waited for.
    #[serde(default)]
    pub approvals: Vec<String>,
}

impl Brief {
    pub fn of(status: &StatusView) -> Brief {
        Brief {
            id: status.id.clone(),
            cluster: status.cluster.clone(),
            from_version: status.from_version.clone(),
            to_version: status.to_version.clone(),
            phase: status.phase.clone(),
            health: status.health.clone(),
            outcome: status.outcome.clone(),
            started_at: status.started_at,
            seconds: status.seconds,
            lag_bytes: status.lag.slots.iter().filter_map(|slot| slot.bytes).max(),
            next_action: status.next_action.clone(),
            approvals: status.approvals.iter().map(|approval| approval.name.clone()).collect(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryView {
    pub id: String,
    pub facts: Vec<FactView>,
}

/// One fact of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FactView {
    pub seq: u64,
    pub at: Timestamp,
    pub epoch: u64,
    pub kind: String,
    /// One sentence.
    pub text: String,
    pub fact: Value,
}

impl FactView {
    /// A record that this version cannot read is shown as it is.
    pub fn of(record: Record) -> FactView {
        let decoded = engine::Entry::<Upgrade>::decode(&record);
        let text = decoded.as_ref().map_or_else(ToString::to_string, |entry| facts::describe(&entry.fact));
        let kind = record.fact.get("kind").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        FactView { seq: record.seq.0, at: record.at, epoch: record.epoch.0, kind, text, fact: record.fact }
    }
}

/// What of an upgrade can be tuned while it runs, as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsView {
    pub id: String,
    pub settings: Vec<SettingView>,
}

/// One setting of [`crate::spec::tune`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingView {
    /// As in the spec: `replication.lag_bytes_max`.
    pub key: String,
    /// In force now.
    pub value: Value,
    /// As the upgrade was started.
    pub started_with: Value,
    pub default: Value,
    /// `bytes`, `seconds`, `milliseconds`, `transactions`, `times`.
    pub unit: String,
    pub min: f64,
    pub max: f64,
    /// From when on a new value holds: `now`, or `next_attempt` of the step that uses it.
    pub applies: String,
    pub what: String,
}

/// What `watch` streams: the facts since the last one, and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchView {
    pub status: StatusView,
    pub facts: Vec<FactView>,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub upgrade: String,
    pub ask: String,
    /// It is a fact already; else it is in the inbox and will be one as soon as a driver reads it.
    pub taken: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterAgents {
    pub cluster: String,
    pub agents: Vec<AgentSeen>,
}
