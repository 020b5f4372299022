//! The log of every AWS call received: what tests and the by-hand user look at. It keeps a bounded number of calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use jiff::Timestamp;
use serde::Serialize;

use crate::iam::Need;

const KEPT: usize = 50_000;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered with a result.
    Done,
    /// Answered with an error.
    Refused {
        /// AWS's code.
        code: String,
        /// The text sent with it.
        message: String,
    },
    /// Done, and the connection closed without an answer (a fault).
    Dropped,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// Provider time of its arrival.
    pub at: Timestamp,
    /// Machine time until the answer was ready, in microseconds.
    pub micros: u64,
    /// `rds` or `monitoring`.
    pub service: &'static str,
    /// `DescribeDBClusters`.
    pub action: String,
    /// Name of the caller that signed it; empty when nobody could be proven.
    pub caller: String,
    /// What the caller had to be allowed.
    pub needs: Vec<Need>,
    /// The parameters as sent, without `Action` and `Version`; passwords are left out.
    pub parameters: BTreeMap<String, String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// All calls.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<VecDeque<RequestRecord>>);

impl Requests {
    pub(crate) fn push(&self, mut record: RequestRecord) {
        record.parameters.retain(|name, _| !name.contains("Password"));
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(record);
    }

    pub(crate) fn all(&self) -> Vec<RequestRecord> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().cloned().collect()
    }
}
