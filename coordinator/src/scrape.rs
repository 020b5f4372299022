//! What one scrape of `/metrics` is told of upgrades: the status of each that this process drives, and of those that have just ended.
//! Gathered from memory; no store, agent or cloud is asked.
//!
//! Bounded: a step, state or setting is of a closed set, so an upgrade has some 200 series and one or two a database; upgrades are
//! those under way, one a cluster, and the newest that ended within the last hour. A coordinator that stands by tells of none.

use std::sync::PoisonError;

use engine::{RunId, RunInfo, Subject};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::drivers::{Drivers, Running};
use crate::operator::standing::{self, Live};
use crate::operator::view::StatusView;
use crate::sampling::REPORT_AGE_MAX;
use crate::spec::UpgradeSpec;

/// How long the series of an upgrade that ended stay: every Prometheus has read them many times by then.
const ENDED_SHOWN: SignedDuration = SignedDuration::from_hours(1);
/// A longer value of a setting is cut.
const VALUE_CHARS_MAX: usize = 120;
/// The parts of a spec that are shown. None of these can hold a secret; a new part is not shown until it is written here.
const PARTS: [&str; 16] = [
    "cluster",
    "to",
    "retries",
    "clean_leftovers",
    "accept",
    "replica_identity_full",
    "reboot",
    "ingestion",
    "purge",
    "provisioning",
    "vacuum",
    "replication",
    "verify",
    "switchover",
    "after",
    "cleanup",
];
/// Those that alerts compare with, as numbers.
const LIMITS: [&str; 7] = [
    "ingestion.max_pause_seconds",
    "replication.drain_seconds_max",
    "replication.lag_bytes_max",
    "replication.marker_delay_ms_max",
    "replication.retained_bytes_warn",
    "replication.retained_bytes_hold",
    "switchover.hold_seconds_max",
];

/// All that a scrape is told.
pub(crate) struct Scrape {
    pub upgrades: Vec<Shown>,
    /// Attached agents of every cluster that has or had one.
    pub links: Vec<(String, usize)>,
}

/// One upgrade.
pub(crate) struct Shown {
    pub status: StatusView,
    pub settings: Vec<Setting>,
    /// Agents of the roster without a stream.
    pub agents_missing: usize,
}

/// One field of a spec.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// As `switchover.approve`.
    pub key: String,
    pub value: String,
    /// The value as a number, where alerts compare with it.
    pub limit: Option<f64>,
}

/// Looks at everything that this process drives, as of now.
pub(crate) fn scrape(drivers: &Drivers, now: Timestamp) -> Scrape {
    let upgrades = drivers.all().into_iter().filter_map(|(id, running)| shown(id, &running, now)).collect();
    let links = drivers.options().hub.seen().into_iter().map(|(cluster, agents)| {
        let arn = cluster.to_string();
        (name_of(&arn).to_owned(), agents.iter().filter(|agent| agent.connected).count())
    });
    Scrape { upgrades, links: links.collect() }
}

/// `None` before its journal was read, and when it has been over for a while.
fn shown(id: RunId, running: &Running, now: Timestamp) -> Option<Shown> {
    let progress = running.handle.as_ref().map(|handle| handle.progress().borrow().clone()).unwrap_or_default();
    let driven = running.handle.as_ref().map(|handle| handle.state()).filter(|state| state.spec().is_some());
    let state = driven.or_else(|| running.last.clone());
    let live = Live {
        progress,
        report: running.agents.lead_report().filter(|report| !running.ended && report.age < REPORT_AGE_MAX),
        cloudwatch_lag: *running.cloudwatch_lag.lock().unwrap_or_else(PoisonError::into_inner),
        trouble: running.trouble.clone(),
        ..Live::default()
    };
    let subject = Subject(running.agents.cluster().to_string());
    let Some(state) = state else {
        let trouble = running.trouble.as_ref()?;
        let info = RunInfo { id, subject, created_at: now, outcome: None };
        let status = standing::unreadable(&info, &running.about, trouble, now);
        return Some(Shown { status, settings: Vec::new(), agents_missing: 0 });
    };
    if state.outcome().is_some() && now.duration_since(state.updated_at()) > ENDED_SHOWN {
        return None;
    }
    let info = RunInfo { id, subject, created_at: state.created_at(), outcome: state.outcome() };
    let live = Some(&live).filter(|_| state.outcome().is_none());
    let status = standing::status(&info, &running.about, &running.shape, &state, &running.tally(), live, now);
    let connected = running.agents.connected();
    let missing = running.about.roster.iter().filter(|agent| !connected.contains(agent)).count();
    let settings = state.spec().map(|spec| settings(spec)).unwrap_or_default();
    Some(Shown { status, settings, agents_missing: if state.outcome().is_none() { missing } else { 0 } })
}

fn name_of(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}

/// Every field of the parts of a spec, defaults too, as `part.field`.
fn settings(spec: &UpgradeSpec) -> Vec<Setting> {
    let Ok(Value::Object(parts)) = serde_json::to_value(spec) else { return Vec::new() };
    let mut all = Vec::new();
    for (part, value) in parts.into_iter().filter(|(part, _)| PARTS.contains(&part.as_str())) {
        match value {
            Value::Object(fields) => {
                all.extend(fields.iter().map(|(field, value)| (format!("{part}.{field}"), value.clone())))
            }
            value => all.push((part, value)),
        }
    }
    let setting = |(key, value): (String, Value)| {
        let limit = value.as_f64().filter(|_| LIMITS.contains(&key.as_str()));
        Setting { value: text(&value).chars().take(VALUE_CHARS_MAX).collect(), limit, key }
    };
    all.into_iter().map(setting).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".to_owned(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
