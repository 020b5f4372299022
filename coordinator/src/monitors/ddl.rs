//! Schema changes while green exists: by the catalogue fingerprint that the lead compares, and by blue's server log through
//! the RDS API. Either holds the switchover; AWS would refuse it anyway. Statements are shown without literals.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use engine::state::Warning;
use engine::{Alarm, Monitor, MonitorId, StepId};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Context, hold, replication_lag::replicating, tell, writer_of_blue};
use crate::{
    rds::{InstanceId, LogFrom},
    steps::codes,
    world::Upgrade,
};

pub(crate) mod statement;

pub(super) struct SchemaChanges;

/// The lead compares every 30 s; an older word that both sides are equal is none.
const FINGERPRINT_FRESH: Duration = Duration::from_secs(120);

/// Reading a log costs the instance: not more often.
const LOG_EVERY: Duration = Duration::from_secs(5);

impl Monitor<Upgrade> for SchemaChanges {
    const ID: MonitorId = MonitorId("schema_changes");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut log = Log::default();
        let mut said = BTreeSet::new();
        loop {
            if replicating(&cx) {
                said.extend(in_journal(&cx));
                for seen in log.read(&cx).await {
                    if said.insert(seen.clone()) {
                        cx.warn(codes::SCHEMA_CHANGED, &seen).await;
                    }
                }
                tell(&cx, judge(&cx, &said)).await;
            } else {
                said.clear();
                cx.clear().await;
            }
            cx.clock().sleep(LOG_EVERY).await;
        }
    }
}

/// What the log has shown since this green was begun, also to a coordinator that is gone.
fn in_journal(cx: &Context<'_>) -> Vec<String> {
    let state = cx.state();
    let Some(since) = state.step(StepId("provisioning")).and_then(|step| step.started_at) else { return Vec::new() };
    let ours =
        |warning: &&Warning| warning.code == codes::SCHEMA_CHANGED && warning.step.is_none() && warning.at >= since;
    state.warnings().filter(ours).map(|warning| warning.detail.clone()).collect()
}

fn judge(cx: &Context<'_>, in_log: &BTreeSet<String>) -> Option<Alarm> {
    let report = cx.world().agents.lead_report();
    let schema = report.as_ref().and_then(|report| Some((report.age, report.value.schema.as_ref()?)));
    if let Some((_, schema)) = schema
        && let Some(first) = schema.differences.first()
    {
        let n = schema.differences.len();
        return Some(hold(codes::SCHEMA_CHANGED, format!("blue and green differ in {n} objects, first {first}")));
    }
    let last = in_log.last()?;
    let name = acknowledgement(in_log);
    let equal = schema.is_some_and(|(age, schema)| age + Duration::from_millis(schema.age_ms) <= FINGERPRINT_FRESH);
    if equal && cx.state().approved(&name) {
        return None;
    }
    let n = in_log.len();
    let cure = format!("when both sides are equal again: pilot approve {} {name}", cx.run_id());
    Some(hold(codes::SCHEMA_CHANGED, format!("{n} schema changes on blue since green was made, one: {last}; {cure}")))
}

/// The name of the approval by which a person says that exactly these changes are settled. One more gives another name.
pub(crate) fn acknowledgement(in_log: &BTreeSet<String>) -> String {
    let mut hasher = Sha256::new();
    for change in in_log {
        hasher.update(change.as_bytes());
        hasher.update([0]);
    }
    let digest: String = hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("schema-{digest}")
}

/// Where reading of the writer's log stands.
#[derive(Default)]
struct Log {
    instance: Option<InstanceId>,
    file: Option<String>,
    marker: Option<String>,
}

impl Log {
    /// Schema changes since the last read. A log that cannot be read is no proof of anything: the fingerprint still stands.
    async fn read(&mut self, cx: &Context<'_>) -> Vec<String> {
        match self.try_read(cx).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::info!(run = %cx.run_id(), %error, "the server log could not be read");
                Vec::new()
            }
        }
    }

    async fn try_read(&mut self, cx: &Context<'_>) -> Result<Vec<String>, crate::rds::Error> {
        let state = cx.state();
        let since = state.step(StepId("provisioning")).and_then(|step| step.started_at);
        let rds = &*cx.world().rds;
        let Some(writer) = writer_of_blue(cx).await? else { return Ok(Vec::new()) };
        if self.instance.as_ref() != Some(&writer) {
            *self = Log { instance: Some(writer.clone()), ..Log::default() };
        }
        let files = rds.log_files(&writer, "postgresql").await?;
        let Some(newest) = files.last() else { return Ok(Vec::new()) };
        if self.file.as_ref() != Some(&newest.name) {
            self.file = Some(newest.name.clone());
            self.marker = None;
        }
        let mut seen = Vec::new();
        // A portion is at most a megabyte; a busy log is caught up with over several rounds.
        for _ in 0..8 {
            let from = self.marker.clone().map_or(LogFrom::Start, LogFrom::Marker);
            let portion = rds.log_portion(&writer, &newest.name, &from).await?;
            seen.extend(portion.text.lines().filter_map(|line| changed(line, since)));
            self.marker = portion.marker.or(self.marker.take());
            if !portion.more {
                break;
            }
        }
        Ok(seen)
    }
}

/// A schema change in a log line, made after `since`, as people are shown it.
fn changed(line: &str, since: Option<Timestamp>) -> Option<String> {
    let ddl = statement::in_line(line)?;
    if ddl.user.starts_with("rds") || ddl.statement.contains("upgrade_pilot") {
        return None;
    }
    match (ddl.at, since) {
        (Some(at), Some(since)) if at < since => None,
        _ => Some(ddl.to_string()),
    }
}
