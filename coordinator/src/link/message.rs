//! What crosses the stream, in domain types. `wire.rs` translates; nothing else knows the generated ones.

use proto::{
    epoch::{Epoch, Generation, StoreId, Watermark},
    ids::{AgentId, ClusterArn, JobId},
    intent::{Intent, Refusal},
    job::{Job, JobFailure, JobProgress},
    report::{Event, Report},
};

/// First message of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    pub agent: AgentId,
    pub cluster: ClusterArn,
    pub version: String,
    pub capabilities: Vec<String>,
    /// The highest command it has ever obeyed.
    pub seen: Option<Watermark>,
    pub jobs_in_flight: Vec<JobId>,
    /// Names of its ingestion controllers.
    pub controllers: Vec<String>,
    /// Names of the business queries that its configuration defines.
    pub queries: Vec<String>,
    /// What it speaks, see [`proto::protocol`].
    pub protocol: u32,
}

impl Hello {
    /// Of an agent that is played and has nothing to tell of itself.
    pub fn plain(agent: AgentId, cluster: ClusterArn) -> Hello {
        Hello {
            protocol: proto::protocol::SPOKEN,
            agent,
            cluster,
            version: "0.0.0".into(),
            capabilities: Vec::new(),
            seen: None,
            jobs_in_flight: Vec::new(),
            controllers: Vec::new(),
            queries: Vec::new(),
        }
    }
}

/// What an agent says after its `Hello`.
#[derive(Debug, Clone, PartialEq)]
pub enum FromAgent {
    Heartbeat { sequence: u64, intent_age_ms: u64 },
    IntentApplied { epoch: Epoch, generation: Generation },
    IntentRefused { epoch: Epoch, generation: Generation, refusal: Refusal },
    JobAccepted(JobId),
    JobRefused { id: JobId, code: String, reason: String },
    JobProgress(JobProgress),
    JobDone { id: JobId, output: serde_json::Value },
    JobFailed { id: JobId, failure: JobFailure },
    Report(Box<Report>),
    Event { n: u64, event: Event },
}

/// First answer to an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    pub store: StoreId,
    pub epoch: Epoch,
    pub lease_ms: u64,
    pub lead: bool,
}

/// What the coordinator says.
#[derive(Debug, Clone, PartialEq)]
pub enum ToAgent {
    Welcome(Welcome),
    LeaseRenewed {
        sequence: u64,
        epoch: Epoch,
    },
    Intent(Box<Intent>),
    Job(Box<Job>),
    CancelJob {
        id: JobId,
        epoch: Epoch,
    },
    AckJob(JobId),
    AckEvent(u64),
    /// The stream ends; dial again after this long, at `address` when one is given.
    Goodbye {
        address: String,
        after_ms: u64,
    },
}
