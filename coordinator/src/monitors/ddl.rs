//! Schema changes while green exists: by the catalogue fingerprint that the lead compares, and by blue's server log through
//! the RDS API. Either holds the switchover; AWS would refuse it anyway. Statements are shown without literals.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use engine::{Alarm, Monitor, MonitorId};
use jiff::Timestamp;

use super::{Context, hold, replication_lag::replicating, tell, writer_of_blue};
use crate::{
    rds::{InstanceId, LogFrom},
    steps::codes,
    world::Upgrade,
};

mod statement;

pub(super) struct SchemaChanges;

/// Reading a log costs the instance: not more often.
const LOG_EVERY: Duration = Duration::from_secs(5);

impl Monitor<Upgrade> for SchemaChanges {
    const ID: MonitorId = MonitorId("schema_changes");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut log = Log::default();
        let mut said = BTreeSet::new();
        loop {
            if replicating(&cx) {
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

fn judge(cx: &Context<'_>, in_log: &BTreeSet<String>) -> Option<Alarm> {
    let report = cx.world().agents.lead_report();
    let differences = report.as_ref().and_then(|report| report.value.schema.as_ref()).map(|schema| &schema.differences);
    if let Some(first) = differences.and_then(|differences| differences.first()) {
        let n = differences.map_or(0, Vec::len);
        return Some(hold(codes::SCHEMA_CHANGED, format!("blue and green differ in {n} objects, first {first}")));
    }
    let last = in_log.last()?;
    Some(hold(
        codes::SCHEMA_CHANGED,
        format!("{} schema changes on blue since green was made, one: {last}", in_log.len()),
    ))
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
        let since = state.step(engine::StepId("provisioning")).and_then(|step| step.started_at);
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
