//! Between the generated wire types and the domain's: the only file of the agent that names the generated ones.
//!
//! What the coordinator sends is outside input: what cannot be read is an error that names the message, never a panic.

use std::fmt::Display;

use proto::{
    epoch::{Epoch, Generation, StoreId, Watermark},
    ids::{AgentId, ClusterArn, JobId},
    intent::Intent,
    job::{Job, JobFailure, JobFailureClass, JobProgress},
    protocol,
    report::Report,
    wire::{self, ack, from_agent, to_agent},
};
use serde::de::DeserializeOwned;

pub(crate) use proto::wire::{FromAgent as WireUp, ToAgent as WireDown, agent_link_client::AgentLinkClient};

/// The coordinator's end, for tests.
#[cfg(test)]
pub(crate) use proto::wire as generated;

/// A message that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} cannot be read: {reason}")]
pub(crate) struct WireError {
    message: &'static str,
    reason: String,
}

fn bad(message: &'static str, reason: impl Display) -> WireError {
    WireError { message, reason: reason.to_string() }
}

/// What the coordinator says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Down {
    Welcome { store: StoreId, epoch: Epoch, lease_ms: u64, lead: bool, protocol: u32 },
    LeaseRenewed { sequence: u64, epoch: Epoch },
    Intent(Box<Intent>),
    Job(Box<Job>),
    CancelJob { id: JobId, epoch: Epoch },
    AckJob(JobId),
    AckEvent(u64),
    Goodbye { address: String, after_ms: u64 },
}

/// What an agent says of itself first.
pub(crate) struct Hello<'a> {
    pub(crate) agent: &'a AgentId,
    pub(crate) cluster: &'a ClusterArn,
    pub(crate) capabilities: Vec<String>,
    pub(crate) seen: Option<Watermark>,
    pub(crate) jobs_in_flight: Vec<JobId>,
    pub(crate) controllers: Vec<String>,
    pub(crate) queries: Vec<String>,
}

/// What the agent says after that.
pub(crate) enum Up<'a> {
    Heartbeat { sequence: u64, intent_age_ms: u64 },
    IntentApplied { epoch: Epoch, generation: Generation, observed: &'a serde_json::Value },
    IntentRefused { epoch: Epoch, generation: Generation, reason: &'a str, pause_over: bool },
    JobAccepted(&'a JobId),
    JobRefused { id: &'a JobId, code: &'a str, reason: &'a str },
    JobProgress(&'a JobProgress),
    JobDone { id: &'a JobId, output: &'a serde_json::Value },
    JobFailed { id: &'a JobId, failure: &'a JobFailure },
    Report(&'a Report),
    Event { n: u64, body: String },
}

fn json<T: DeserializeOwned>(message: &'static str, text: &str) -> Result<T, WireError> {
    serde_json::from_str(text).map_err(|error| bad(message, error))
}

fn job_id(message: &'static str, text: &str) -> Result<JobId, WireError> {
    text.parse().map_err(|error| bad(message, error))
}

/// Reads one message.
pub(crate) fn read(message: WireDown) -> Result<Down, WireError> {
    use to_agent::Message as M;
    let message = message.message.ok_or_else(|| bad("a message", "it is empty, or of a newer version"))?;
    Ok(match message {
        M::Welcome(it) => Down::Welcome {
            store: StoreId(it.store_id),
            epoch: Epoch(it.epoch),
            lease_ms: it.lease_ms,
            lead: it.role == "lead",
            protocol: it.protocol,
        },
        M::LeaseRenewed(it) => Down::LeaseRenewed { sequence: it.sequence, epoch: Epoch(it.epoch) },
        M::Intent(it) => {
            let intent: Box<Intent> = json("an intent", &it.body_json)?;
            if (intent.epoch.0, intent.generation.0) != (it.epoch, it.generation) {
                return Err(bad("an intent", "its envelope and its body have different numbers"));
            }
            Down::Intent(intent)
        }
        M::Job(it) => Down::Job(Box::new(Job {
            id: job_id("a job", &it.id)?,
            epoch: Epoch(it.epoch),
            deadline_ms: it.deadline_ms,
            kind: it.kind,
            on: json("a job's expected server", &it.expected_json)?,
            body: json("a job's body", &it.body_json)?,
        })),
        M::CancelJob(it) => Down::CancelJob { id: job_id("CancelJob", &it.id)?, epoch: Epoch(it.epoch) },
        M::Ack(it) => match it.what.ok_or_else(|| bad("an Ack", "it is empty"))? {
            ack::What::JobId(id) => Down::AckJob(job_id("an Ack", &id)?),
            ack::What::EventN(n) => Down::AckEvent(n),
        },
        M::Goodbye(it) => Down::Goodbye { address: it.address, after_ms: it.after_ms },
    })
}

/// Writes the first message.
pub(crate) fn hello(hello: Hello<'_>) -> WireUp {
    let seen = hello.seen.map(|mark| wire::Watermark {
        store_id: mark.store.0,
        epoch: mark.epoch.0,
        generation: mark.generation.0,
    });
    wrap(from_agent::Message::Hello(wire::Hello {
        agent_id: hello.agent.to_string(),
        cluster_arn: hello.cluster.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: hello.capabilities,
        seen,
        jobs_in_flight: hello.jobs_in_flight.iter().map(JobId::to_string).collect(),
        controllers: hello.controllers,
        queries: hello.queries,
        protocol: protocol::SPOKEN,
    }))
}

fn wrap(message: from_agent::Message) -> WireUp {
    WireUp { message: Some(message) }
}

/// Writes one message.
pub(crate) fn write(message: Up<'_>) -> Result<WireUp, WireError> {
    use from_agent::Message as M;
    Ok(wrap(match message {
        Up::Heartbeat { sequence, intent_age_ms } => M::Heartbeat(wire::Heartbeat { sequence, intent_age_ms }),
        Up::IntentApplied { epoch, generation, observed } => M::IntentApplied(wire::IntentApplied {
            epoch: epoch.0,
            generation: generation.0,
            observed_json: observed.to_string(),
        }),
        Up::IntentRefused { epoch, generation, reason, pause_over } => M::IntentRefused(wire::IntentRefused {
            epoch: epoch.0,
            generation: generation.0,
            reason: reason.to_owned(),
            pause_over,
        }),
        Up::JobAccepted(id) => M::JobAccepted(wire::JobAccepted { id: id.to_string() }),
        Up::JobRefused { id, code, reason } => {
            M::JobRefused(wire::JobRefused { id: id.to_string(), code: code.to_owned(), reason: reason.to_owned() })
        }
        Up::JobProgress(it) => M::JobProgress(wire::JobProgress {
            id: it.id.to_string(),
            done: it.done,
            total: it.total,
            unit: it.unit.clone(),
            detail: it.detail.clone(),
        }),
        Up::JobDone { id, output } => M::JobDone(wire::JobDone { id: id.to_string(), output_json: output.to_string() }),
        Up::JobFailed { id, failure } => M::JobFailed(wire::JobFailed {
            id: id.to_string(),
            class: class(failure.class).to_owned(),
            code: failure.code.clone(),
            doing: failure.doing.clone(),
            chain: failure.chain.clone(),
        }),
        Up::Report(report) => {
            let body_json = serde_json::to_string(report).map_err(|error| bad("a report", error))?;
            M::Report(wire::Report { body_json })
        }
        Up::Event { n, body } => M::Event(wire::Event { n, body_json: body }),
    }))
}

/// As `JobFailureClass` is written in JSON.
fn class(class: JobFailureClass) -> &'static str {
    match class {
        JobFailureClass::Transient => "transient",
        JobFailureClass::Unknown => "unknown",
        JobFailureClass::Permanent => "permanent",
        JobFailureClass::NeedsOperator => "needs_operator",
        JobFailureClass::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        let read_one = |message| read(WireDown { message });
        assert!(read_one(None).is_err());
        let intent = wire::Intent { epoch: 1, generation: 2, body_json: "{".into() };
        let error = read_one(Some(to_agent::Message::Intent(intent))).unwrap_err();
        assert!(error.to_string().starts_with("an intent cannot be read"), "{error}");
        let bye = wire::Goodbye { address: "127.0.0.1:1".into(), after_ms: 5 };
        assert_eq!(
            read_one(Some(to_agent::Message::Goodbye(bye))).unwrap(),
            Down::Goodbye { address: "127.0.0.1:1".into(), after_ms: 5 }
        );
    }

    #[test]
    fn classes_are_written_as_their_json() {
        for it in [
            JobFailureClass::Transient,
            JobFailureClass::Unknown,
            JobFailureClass::Permanent,
            JobFailureClass::NeedsOperator,
            JobFailureClass::Cancelled,
        ] {
            assert_eq!(serde_json::json!(it), class(it));
        }
    }

    /// As protobuf, and as the JSON inside of it: intents and the bodies of jobs.
    #[test]
    fn any_bytes_of_a_coordinator_are_read_or_refused_by_name() {
        use prost::Message as _;
        let down = |message| WireDown { message: Some(message) };
        let welcome =
            wire::Welcome { store_id: "s".into(), epoch: 3, lease_ms: 15_000, role: "lead".into(), protocol: 1 };
        let job = wire::Job {
            id: "up-1/vacuum/1/vacuum".into(),
            kind: "vacuum".into(),
            expected_json: "{}".into(),
            body_json: "{}".into(),
            ..wire::Job::default()
        };
        let intent = serde_json::to_vec(&super::super::tests::hold(1, 60_000)).expect("JSON");
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "coordinator-messages")
            .words(&["\"epoch\":1", "\"generation\":2", "\"gate\":\"hold\"", "\"serving\":\"green\"", "127.0.0.1"])
            .seed(down(to_agent::Message::Welcome(welcome)).encode_to_vec())
            .seed(down(to_agent::Message::Job(job)).encode_to_vec())
            .seed(intent);
        target.run(|bytes| {
            let said = |read: Result<Down, WireError>| match read {
                Ok(read) => format!("{read:?}").chars().take(30).collect(),
                Err(refused) => refused.to_string().chars().take(60).collect::<String>(),
            };
            if let Ok(message) = WireDown::decode(bytes) {
                return said(read(message));
            }
            let text = String::from_utf8_lossy(bytes).into_owned();
            let number = |name: &str| {
                let value = serde_json::from_str::<serde_json::Value>(&text).ok();
                value.and_then(|value| value[name].as_u64()).unwrap_or_default()
            };
            let (epoch, generation) = (number("epoch"), number("generation"));
            said(read(down(to_agent::Message::Intent(wire::Intent { epoch, generation, body_json: text.clone() }))))
        });
    }
}
