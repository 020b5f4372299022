//! Between the generated wire types and the domain's: the only file of the link that names the generated ones.
//!
//! Everything an agent sends is outside input: what cannot be read is an error that names the message, never a panic.

use std::fmt::Display;

use proto::{
    epoch::{Epoch, Generation, StoreId, Watermark},
    job::{JobFailure, JobFailureClass, JobProgress},
    wire::{self, ack, from_agent, to_agent},
};
use serde::de::DeserializeOwned;

use super::message::{FromAgent, Hello, ToAgent};

pub(crate) use proto::wire::agent_link_server::{AgentLink, AgentLinkServer};
pub(crate) use proto::wire::{FromAgent as WireFrom, ToAgent as WireTo};

/// For tests that play an agent over the wire.
#[cfg(test)]
pub(crate) mod played {
    pub(crate) use proto::wire::agent_link_client::AgentLinkClient;
    pub(crate) use proto::wire::{
        Event, Heartbeat, Hello, IntentApplied, JobDone, JobFailed, Report, ack::What, from_agent::Message as Said,
        to_agent::Message as Told,
    };
}

/// A message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} cannot be read: {reason}")]
pub(crate) struct WireError {
    message: &'static str,
    reason: String,
}

fn bad(message: &'static str) -> impl Fn(&dyn Display) -> WireError {
    move |reason| WireError { message, reason: reason.to_string() }
}

fn parse<T: std::str::FromStr<Err: Display>>(message: &'static str, text: &str) -> Result<T, WireError> {
    text.parse().map_err(|error: T::Err| bad(message)(&error))
}

fn json<T: DeserializeOwned>(message: &'static str, text: &str) -> Result<T, WireError> {
    serde_json::from_str(text).map_err(|error| bad(message)(&error))
}

/// Reads a `Hello`.
pub(crate) fn hello(message: WireFrom) -> Result<Hello, WireError> {
    let Some(from_agent::Message::Hello(hello)) = message.message else {
        return Err(bad("the first message")(&"it is not a Hello"));
    };
    let watermark = |seen: wire::Watermark| Watermark {
        store: StoreId(seen.store_id),
        epoch: Epoch(seen.epoch),
        generation: Generation(seen.generation),
    };
    Ok(Hello {
        agent: parse("the agent id of a Hello", &hello.agent_id)?,
        cluster: parse("the cluster of a Hello", &hello.cluster_arn)?,
        version: hello.version,
        capabilities: hello.capabilities,
        seen: hello.seen.map(watermark),
        jobs_in_flight: hello
            .jobs_in_flight
            .iter()
            .map(|id| parse("the jobs of a Hello", id))
            .collect::<Result<_, _>>()?,
        controllers: hello.controllers,
        queries: hello.queries,
        protocol: hello.protocol,
    })
}

/// Reads anything after the `Hello`.
pub(crate) fn from_agent(message: WireFrom) -> Result<FromAgent, WireError> {
    use from_agent::Message as M;
    let message = message.message.ok_or_else(|| bad("a message")(&"it is empty, or of a newer version"))?;
    Ok(match message {
        M::Hello(_) => return Err(bad("a Hello")(&"it was said already")),
        M::Heartbeat(beat) => FromAgent::Heartbeat { sequence: beat.sequence, intent_age_ms: beat.intent_age_ms },
        M::IntentApplied(it) => {
            FromAgent::IntentApplied { epoch: Epoch(it.epoch), generation: Generation(it.generation) }
        }
        M::IntentRefused(it) => FromAgent::IntentRefused {
            epoch: Epoch(it.epoch),
            generation: Generation(it.generation),
            refusal: proto::intent::Refusal { reason: it.reason, pause_over: it.pause_over },
        },
        M::JobAccepted(job) => FromAgent::JobAccepted(parse("JobAccepted", &job.id)?),
        M::JobRefused(job) => {
            FromAgent::JobRefused { id: parse("JobRefused", &job.id)?, code: job.code, reason: job.reason }
        }
        M::JobProgress(job) => FromAgent::JobProgress(JobProgress {
            id: parse("JobProgress", &job.id)?,
            done: job.done,
            total: job.total,
            unit: job.unit,
            detail: job.detail,
        }),
        M::JobDone(job) => {
            FromAgent::JobDone { id: parse("JobDone", &job.id)?, output: json("JobDone", &job.output_json)? }
        }
        M::JobFailed(job) => FromAgent::JobFailed {
            id: parse("JobFailed", &job.id)?,
            failure: JobFailure { class: class(&job.class), code: job.code, doing: job.doing, chain: job.chain },
        },
        M::Report(report) => FromAgent::Report(Box::new(json("a report", &report.body_json)?)),
        M::Event(event) => FromAgent::Event { n: event.n, event: json("an event", &event.body_json)? },
    })
}

/// A class this version does not know is taken as the one that makes a person look.
fn class(text: &str) -> JobFailureClass {
    match text {
        "transient" => JobFailureClass::Transient,
        "unknown" => JobFailureClass::Unknown,
        "permanent" => JobFailureClass::Permanent,
        "cancelled" => JobFailureClass::Cancelled,
        _ => JobFailureClass::NeedsOperator,
    }
}

/// Writes what the coordinator says.
pub(crate) fn to_agent(message: ToAgent) -> Result<WireTo, serde_json::Error> {
    use to_agent::Message as M;
    let message = match message {
        ToAgent::Welcome(it) => M::Welcome(wire::Welcome {
            store_id: it.store.0,
            epoch: it.epoch.0,
            lease_ms: it.lease_ms,
            role: if it.lead { "lead" } else { "helper" }.to_owned(),
            protocol: proto::protocol::SPOKEN,
        }),
        ToAgent::LeaseRenewed { sequence, epoch } => M::LeaseRenewed(wire::LeaseRenewed { sequence, epoch: epoch.0 }),
        ToAgent::Intent(intent) => M::Intent(wire::Intent {
            epoch: intent.epoch.0,
            generation: intent.generation.0,
            body_json: serde_json::to_string(&intent)?,
        }),
        ToAgent::Job(job) => M::Job(wire::Job {
            id: job.id.to_string(),
            epoch: job.epoch.0,
            deadline_ms: job.deadline_ms,
            kind: job.kind,
            expected_json: serde_json::to_string(&job.on)?,
            body_json: job.body.to_string(),
        }),
        ToAgent::CancelJob { id, epoch } => M::CancelJob(wire::CancelJob { id: id.to_string(), epoch: epoch.0 }),
        ToAgent::AckJob(id) => M::Ack(wire::Ack { what: Some(ack::What::JobId(id.to_string())) }),
        ToAgent::AckEvent(n) => M::Ack(wire::Ack { what: Some(ack::What::EventN(n)) }),
        ToAgent::Goodbye { address, after_ms } => M::Goodbye(wire::Goodbye { address, after_ms }),
    };
    Ok(WireTo { message: Some(message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        let message = |message| WireFrom { message: Some(message) };
        let report = message(from_agent::Message::Report(wire::Report { body_json: "{".into() }));
        assert!(from_agent(report).unwrap_err().to_string().starts_with("a report cannot be read"));
        assert!(from_agent(WireFrom { message: None }).is_err());
        let beat = message(from_agent::Message::Heartbeat(wire::Heartbeat { sequence: 3, intent_age_ms: 9 }));
        assert!(hello(beat.clone()).is_err());
        assert_eq!(from_agent(beat).unwrap(), FromAgent::Heartbeat { sequence: 3, intent_age_ms: 9 });
    }

    #[test]
    fn a_failure_class_of_a_newer_agent_stops_for_a_person() {
        assert_eq!(class("transient"), JobFailureClass::Transient);
        assert_eq!(class("something new"), JobFailureClass::NeedsOperator);
    }

    /// As protobuf, and as the JSON inside of it.
    #[test]
    fn any_bytes_of_an_agent_are_read_or_refused_by_name() {
        use prost::Message as _;
        let message = |message| WireFrom { message: Some(message) };
        let hello = wire::Hello {
            agent_id: "agent-1".into(),
            cluster_arn: "arn:aws:rds:us-east-1:123456789012:cluster:orders".into(),
            version: "0".into(),
            capabilities: vec!["inspect".into()],
            seen: Some(wire::Watermark { store_id: "s".into(), epoch: 1, generation: 2 }),
            jobs_in_flight: vec!["up-1/vacuum/1/vacuum".into()],
            ..wire::Hello::default()
        };
        let failed = wire::JobFailed { id: "a/b/1/c".into(), class: "transient".into(), ..wire::JobFailed::default() };
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "agent-messages")
            .words(&["\"age_ms\":", "\"side\":\"green\"", "\"kind\":", "127.0.0.1", "0/16B6C50", "::1"])
            .seed(message(from_agent::Message::Hello(hello)).encode_to_vec())
            .seed(message(from_agent::Message::JobFailed(failed)).encode_to_vec())
            .seed(serde_json::to_vec(&proto::report::Report::default()).expect("JSON"));
        target.run(|bytes| {
            let said = |read: Result<String, WireError>| {
                read.unwrap_or_else(|refused| refused.to_string().chars().take(60).collect())
            };
            if let Ok(message) = WireFrom::decode(bytes) {
                let first = said(super::hello(message.clone()).map(|hello| format!("hello {}", hello.seen.is_some())));
                return first + &said(from_agent(message).map(|read| format!("{read:?}").chars().take(20).collect()));
            }
            let text = String::from_utf8_lossy(bytes).into_owned();
            let report = message(from_agent::Message::Report(wire::Report { body_json: text.clone() }));
            let event = message(from_agent::Message::Event(wire::Event { n: 1, body_json: text }));
            let report = from_agent(report).map(|read| match read {
                FromAgent::Report(report) => {
                    format!("report {:?}", crate::sampling::lag_bytes(&report).is_some())
                }
                _ => "another".to_owned(),
            });
            said(report) + &said(from_agent(event).map(|read| format!("{read:?}").chars().take(40).collect()))
        });
    }
}
