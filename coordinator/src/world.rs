//! What a step may touch: three ports (RDS, CloudWatch, the cluster's agents) and the clock. And [`Upgrade`], which tells
//! the engine what it is used for.
//!
//! A step reaches nothing else: no store, no socket, no file. `fake.rs` beside this gives steps' tests scripted agents, `healthy.rs`
//! what they say where all is well.

pub mod fake;
pub mod healthy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::{Cx, Domain, Failure, Retry, StepId, Unit};
use jiff::Timestamp;
use proto::{
    ids::{JobId, UpgradeId},
    job::{JobKind, JobProgress},
    jobs,
    report::Event,
    side::{ServerSaid, Side},
};
use runtime::clock::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cloudwatch::CloudWatch;
use crate::codes;
use crate::hooks::Leave;
pub use crate::link::{AgentSeen, Agents, Fresh, Heard, Keep, Settled, Wish};
use crate::rds::Rds;
use crate::spec::{UpgradeSpec, tune};
use crate::steps;

/// What steps and monitors of one upgrade may touch.
#[derive(Clone)]
pub struct World {
    pub rds: Arc<dyn Rds>,
    pub cloudwatch: Arc<dyn CloudWatch>,
    /// The agents of the cluster under upgrade.
    pub agents: Agents,
    /// Who is asked before a step begins. Not for steps.
    pub leave: Leave,
    pub clock: Clock,
}

/// The engine's user: an upgrade of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade;

/// The proof that settled the switchover, in words and in what was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// One sentence: what was seen, and by whom.
    pub evidence: String,
    /// The deployment's status when it was read last, verbatim.
    pub deployment_status: Option<String>,
    /// What answered behind the production endpoint, or on green by address.
    pub server: Option<ServerSaid>,
    pub at: Option<Timestamp>,
}

/// There is nothing to ask of an upgrade beyond the engine's own requests yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {}

impl Domain for Upgrade {
    type World = World;
    type Spec = UpgradeSpec;
    type Witness = Witness;
    type Event = Event;
    type Ask = Ask;

    /// Ingestion running, gate open, purger off: said to every agent of the roster and acknowledged by each.
    async fn calm(cx: &Cx<'_, Upgrade>) -> Result<(), Failure> {
        cx.world().agents.calm(hold_ack_max(cx.spec())).await
    }

    /// The hooks of the point before the step.
    async fn leave(cx: &Cx<'_, Upgrade>) -> Result<(), Failure> {
        cx.world().leave.ask(cx).await
    }

    fn tune(spec: &UpgradeSpec, settings: &BTreeMap<String, Value>) -> Option<UpgradeSpec> {
        tune::tuned(spec, settings).ok()
    }

    fn retry(spec: &UpgradeSpec, step: StepId, planned: Retry) -> Retry {
        steps::retry(spec, step).unwrap_or(planned)
    }
}

/// How long every agent has to settle what it is told.
pub fn hold_ack_max(spec: &UpgradeSpec) -> Duration {
    Duration::from_millis(spec.switchover.hold_ack_ms_max)
}

/// Gives the lead agent a job under the id `<upgrade>/<step>/<attempt>/<key>` and waits for its result: the same key within
/// an attempt is the same work, also after a restart of the coordinator or of the agent. Progress is shown as the step's.
/// An interrupted step takes the job back.
///
/// # Errors
/// As [`Agents::job`]; interrupted.
pub async fn run_job<J: JobKind>(
    cx: &Cx<'_, Upgrade>,
    key: &str,
    side: Side,
    body: &J,
    deadline: Duration,
) -> Result<J::Output, Failure> {
    let id = job_id(cx.run_id().as_str(), cx.step().as_str(), cx.attempt(), key)?;
    let agents = &cx.world().agents;
    let show = |progress: &JobProgress| cx.progress(progress.done, progress.total, unit(&progress.unit));
    let work = cx.unless_interrupted(agents.job(&id, Keep::UntilStepDone, side, body, deadline, show));
    match named::<J, _>(cx, deadline, work).await {
        Ok(result) => result,
        Err(interrupted) => {
            agents.cancel(&id);
            Err(interrupted)
        }
    }
}

/// What the databases themselves work at for long is a wait with a name, told apart from what orchestration takes.
pub async fn named<J: JobKind, T>(cx: &Cx<'_, Upgrade>, within: Duration, work: impl Future<Output = T> + Send) -> T {
    match long_work(J::KIND) {
        Some(what) => cx.waiting_for(what, within, work).await,
        None => work.await,
    }
}

fn long_work(kind: &str) -> Option<&'static str> {
    Some(match kind {
        jobs::Vacuum::KIND => "tables to be vacuumed and analyzed",
        jobs::Compare::KIND => "both sides to be compared",
        jobs::Resubmit::KIND => "interrupted statements to run again",
        jobs::UpdateExtensions::KIND => "extensions to be raised",
        jobs::RefreshViews::KIND => "materialized views to be refreshed",
        _ => return None,
    })
}

/// The id of a job: its idempotency key.
///
/// # Errors
/// Permanent, when `key` holds blanks or is too long: a mistake in the program.
pub fn job_id(run: &str, step: &str, attempt: u32, key: &str) -> Result<JobId, Failure> {
    let text = format!("{run}/{step}/{attempt}/{key}");
    text.parse().map_err(|error| Failure::permanent(codes::JOB_ANSWER, "naming a job").caused_by(&error))
}

/// The upgrade that a run is; the same text.
///
/// # Errors
/// Permanent, when the run was not made by this program.
pub fn upgrade_id(run: &engine::RunId) -> Result<UpgradeId, Failure> {
    run.as_str()
        .parse()
        .map_err(|error| Failure::permanent(codes::NO_UPGRADE, "reading the upgrade's id").caused_by(&error))
}

/// A unit as the engine shows it; one that is not known here counts items.
fn unit(name: &str) -> Unit {
    match name {
        "bytes" => Unit::BYTES,
        "percent" => Unit::PERCENT,
        "seconds" => Unit::SECONDS,
        "tables" => Unit("tables"),
        "databases" => Unit("databases"),
        "sequences" => Unit("sequences"),
        "rows" => Unit("rows"),
        "statements" => Unit("statements"),
        "sessions" => Unit("sessions"),
        "extensions" => Unit("extensions"),
        "views" => Unit("views"),
        _ => Unit::ITEMS,
    }
}
