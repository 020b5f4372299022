//! One-off work for an agent: typed, with an identity to check and a deadline. No SQL crosses the wire.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    epoch::Epoch,
    ids::JobId,
    side::{Endpoint, Side, SideIdentity},
};

/// One kind of work. The body travels as JSON under `KIND`; an agent refuses any other.
pub trait JobKind: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Part of the wire; never renamed.
    const KIND: &'static str;
    /// Runs inside the hold or must finish at once: never queued behind long work.
    const URGENT: bool = false;
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// A job as the coordinator sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub epoch: Epoch,
    /// Milliseconds from receipt; a job that is not done by then is cancelled and failed.
    pub deadline_ms: u64,
    pub kind: String,
    pub on: Expected,
    pub body: serde_json::Value,
}

/// The server that the work is meant for. Checked in SQL on every connection the job opens, before it acts (field rule 1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The side the job acts on.
    pub side: Side,
    /// How production is reached by name.
    pub production: Endpoint,
    pub blue: SideIdentity,
    /// Needed by jobs that compare the sides or act on green.
    pub green: Option<SideIdentity>,
}

/// How an agent answers for a job that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    pub class: JobFailureClass,
    /// `PU…` code with a runbook page.
    pub code: String,
    pub doing: String,
    pub chain: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobFailureClass {
    /// Worth another try as it is.
    Transient,
    /// It may have happened.
    Unknown,
    Permanent,
    NeedsOperator,
    Cancelled,
}

/// How far a job has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    pub id: JobId,
    pub done: u64,
    pub total: u64,
    /// `tables`, `bytes`, `databases` …
    pub unit: String,
    pub detail: String,
}
