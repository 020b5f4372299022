//! What a report says: the stable JSON of `pilot report ID --format json`. Fields may be added, never renamed or dropped. Texts
//! are plain; whoever renders them escapes them.

use jiff::Timestamp;
use proto::jobs::TableCompared;
use serde::{Deserialize, Serialize};

use super::terraform::FollowUp;
use crate::operator::PlanView;
use crate::operator::course::Moment;
use crate::operator::tally::{Counts, Downtime, Statement};
use crate::operator::view::WaitView;
use crate::preflight::Finding;
use crate::store::AgentVersion;

/// Rows of one list that are named; beyond it they are counted.
pub const LISTED_MAX: usize = 1000;

/// Everything about one upgrade, for a change record and an auditor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub id: String,
    pub made_at: Timestamp,
    pub verdict: Verdict,
    pub cluster: Cluster,
    pub versions: Versions,
    pub asked_by: String,
    pub started_at: Timestamp,
    /// `None` while it has not ended.
    pub ended_at: Option<Timestamp>,
    pub seconds: f64,
    pub steps: Vec<Step>,
    pub cut: Cut,
    /// The same figures as in `pilot status`.
    pub downtime: Downtime,
    /// What the figures are made of.
    pub outages: Listed<Outage>,
    pub verification: Verification,
    pub statistics: Statistics,
    pub changes: Vec<Change>,
    pub ddl: Listed<Ddl>,
    pub counts: Counts,
    pub purged: Listed<Purged>,
    pub ended: Listed<Ended>,
    /// Verdicts of statements whose session is not in `ended`.
    pub statements: Listed<Statement>,
    pub people: Listed<Wish>,
    pub alarms: Listed<Note>,
    pub warnings: Listed<Note>,
    /// What agents did or saw beside the plan: stances of their own, clients of the old side, blocked purges, caps.
    pub notes: Listed<Note>,
    pub plan: Option<PlanView>,
    pub plan_digest: String,
    /// The digest computed again from plan and spec is the one that was kept; `None` where no plan was kept.
    pub plan_as_named: Option<bool>,
    pub findings_accepted: Vec<Finding>,
    pub snapshots: Vec<Snapshot>,
    pub journal: Journal,
    pub terraform: FollowUp,
}

impl Report {
    pub fn plan_as_named_in_words(&self) -> &'static str {
        match self.plan_as_named {
            Some(true) => "Computed again from the plan below and the spec in the journal it is the same.",
            Some(false) => "COMPUTED AGAIN IT IS ANOTHER ONE: plan or spec are not those that were shown.",
            None => "The plan itself was not kept.",
        }
    }
}

impl Outage {
    pub fn kind_in_words(&self) -> &str {
        match self.kind.as_str() {
            "write" => "writes unavailable",
            "read" => "reads unavailable",
            "held" => "clients held",
            "ingestion_paused" => "ingestion paused",
            other => other,
        }
    }
}

impl Ddl {
    /// `yes`, `no`, `unknown`.
    pub fn breaks(&self) -> &'static str {
        match self.breaks_replication {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        }
    }
}

impl Verification {
    pub fn how(&self) -> &'static str {
        if self.hashes == Some(true) { "counts and keyed hashes of rows" } else { "counts of rows" }
    }
}

/// A list that has an end: what does not fit is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed<T> {
    pub rows: Vec<T>,
    pub left_out: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Listed<T> {
        Listed { rows: Vec::new(), left_out: 0 }
    }
}

impl<T> Listed<T> {
    pub(super) fn push(&mut self, row: T) {
        if self.rows.len() < LISTED_MAX {
            self.rows.push(row);
        } else {
            self.left_out += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is said below the list; empty when all is in it.
    pub fn rest(&self) -> String {
        match self.left_out {
            0 => String::new(),
            n => format!("{n} more are counted and not listed; the journal has them."),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// `succeeded`, `unwound`, `refused`, `stopped`; null while it has not ended.
    pub outcome: Option<String>,
    /// One sentence.
    pub sentence: String,
    pub reason: Option<String>,
    /// The point of no return is behind.
    pub switched_over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    pub arn: String,
    pub region: String,
    pub account: String,
    pub blue: Option<Side>,
    pub green: Option<Side>,
    /// Blue/green deployments of this upgrade, in order.
    pub deployments: Vec<String>,
}

/// One side as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub cluster: String,
    pub resource_id: String,
    pub instances: Vec<Instance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: String,
    pub resource_id: String,
    pub writer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub from: String,
    pub to: String,
    /// What answered behind the production endpoint after the cut.
    pub production_said: Option<String>,
    /// The coordinator that began the upgrade; empty where it was not kept.
    pub program_began: String,
    /// The coordinator that made this report.
    pub program_reports: String,
    /// When it began.
    pub agents: Vec<AgentVersion>,
    /// Agents that must settle every instruction.
    pub roster: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub id: String,
    pub title: String,
    pub state: String,
    pub seconds: Option<f64>,
    /// Seconds spent in named waits, longest first.
    pub waits: Vec<WaitView>,
    pub spans: Vec<Span>,
}

/// One attempt of a step, or its undoing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// 0 for an undoing.
    pub attempt: u32,
    pub from: Timestamp,
    pub to: Option<Timestamp>,
    /// `running`, `done`, `skipped`, `failed`, `interrupted`, `undoing`, `undone`, `stuck`.
    pub end: String,
    pub failure: Option<String>,
}

/// The switchover moment by moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    pub attempts: Vec<Attempt>,
    /// What the agents saw; the same as in `pilot status`.
    pub moments: Vec<Moment>,
    /// From the first word of the hold to the call.
    pub prepared_ms: Option<u64>,
    /// Sessions ended for the cut whose statement may not run again, with the reason.
    pub refused: Vec<String>,
}

/// One time that the call was allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub attempt: u32,
    pub armed_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    /// `switched`, `not_switched`; null while it is not read.
    pub outcome: Option<String>,
    pub evidence: Option<String>,
    /// The deployment's status when it was read last, verbatim.
    pub deployment_status: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// `write`, `read`, `held`, `ingestion_paused`.
    pub kind: String,
    /// `reboot`, `cut`.
    pub during: String,
    pub agent: String,
    pub from: Timestamp,
    pub to: Timestamp,
    pub ms: u64,
    /// It is part of the figure: of agents that saw the same, the one who saw most of it counts.
    pub counts: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// In words: `compared and equal`, `not compared`, …
    pub says: String,
    /// Objects of both catalogues that were compared.
    pub objects: Option<u64>,
    pub tables: Option<u64>,
    pub rows: Option<u64>,
    pub hashes: Option<bool>,
    pub rounds: Option<u32>,
    pub databases: Vec<Compared>,
    pub largest: Vec<TableCompared>,
    pub queries: Vec<Query>,
    /// What was not proven exactly, with the reason; before the hold, and in it.
    pub unproven: Vec<String>,
    pub unproven_in_hold: Vec<String>,
    /// Written since their last clean comparison and compared again in the hold.
    pub in_hold: Vec<Compared>,
    /// The last marker before the call, by database: milliseconds from blue to green.
    pub markers: Vec<(String, u64)>,
    pub marker_ms: Option<u64>,
    /// What was measured when the gates of the switchover had held.
    pub lag_bytes: Option<u64>,
    pub lag_cloudwatch_bytes: Option<u64>,
    pub sequences: Option<u64>,
    pub sequences_raised: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    pub database: String,
    pub tables: u64,
    pub rows: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    pub name: String,
    /// `equal`, or why it was not compared.
    pub result: String,
}

/// Vacuum and statistics of green.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    pub says: String,
    pub vacuumed: Option<u64>,
    pub full: Option<u64>,
    pub reindexed: Option<u64>,
    /// Every table was analysed after this.
    pub newer_than: Option<Timestamp>,
    /// Slowest tables, with milliseconds.
    pub slowest: Vec<(String, u64)>,
    pub views_refreshed: Option<u64>,
}

/// One thing that was changed, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub what: String,
    pub before: String,
    pub during: String,
    pub after: String,
    pub at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ddl {
    pub at: Timestamp,
    /// What was changed, by whom and when, as far as its source tells.
    pub what: String,
    /// `server log`, `catalogues`.
    pub source: String,
    /// The agent that saw it, for a difference of catalogues.
    pub seen_by: Option<String>,
    /// `None` where it is not documented.
    pub breaks_replication: Option<bool>,
    /// Why, or why not.
    pub because: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    pub at: Timestamp,
    pub session: String,
    pub application: String,
    /// The slot that it held up.
    pub waited_on: Option<String>,
    pub age_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Timestamp,
    pub session: String,
    pub application: String,
    pub command: Option<String>,
    pub age_ms: u64,
    /// The ledger key of its statement.
    pub key: Option<String>,
    /// What became of its statement, in words.
    pub verdict: String,
}

/// What a person asked for, or was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub at: Timestamp,
    /// Nobody where the program asks.
    pub by: Option<String>,
    pub what: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub at: Timestamp,
    /// A monitor, a step, or an agent.
    pub of: String,
    pub code: Option<String>,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: String,
    pub of: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub facts: u64,
    pub first_at: Option<Timestamp>,
    pub last_at: Option<Timestamp>,
    /// Over all facts; see `how`.
    pub sha256: String,
    /// How to compute it again.
    pub how: String,
}
