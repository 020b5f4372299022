//! Step 6, forward only: resubmits what may be, waits for AWS to say completed, confirms who answers behind the production
//! endpoint, then sequences, extensions (raised, brought back, each one tested), views, ingestion.

use std::time::Duration;

use engine::{Failure, FailureClass, Gate, Look, Reversal, Step, StepId, Wait};
use jiff::Timestamp;
use proto::{
    intent::IngestionWish,
    jobs::{
        CheckSequences, ExtensionTest, ExtensionUpdate, Identified, Identify, RefreshViews, StatementVerdict,
        TestExtensions, Unquiesce, Unquiesced, UpdateExtensions,
    },
    report::IngestionState,
    side::Side,
};
use serde::{Deserialize, Serialize};

use super::{
    codes,
    prerequisites::{Prepared, SHORT_JOB},
    shared::{Context, SETTLE, fresh_job, ids, job, out_of_time, poll, publish},
    sides::Sides,
    switchover::{resubmit, serving_green},
};
use crate::{
    preflight::failed,
    rds::{self, DeploymentStatus},
    spec::UpgradeSpec,
    world::Upgrade,
};

pub struct PostSwitchover;

/// What was done and proven on the new production.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Moved {
    pub production: Identified,
    pub verdicts: Vec<StatementVerdict>,
    pub sequences: u64,
    pub sequences_raised: Vec<String>,
    pub extensions: Vec<ExtensionUpdate>,
    pub tests: Vec<ExtensionTest>,
    pub unquiesced: Unquiesced,
    pub views: u64,
    /// When ingestion ran again: the retention counts from here.
    pub at: Timestamp,
}

impl Step<Upgrade> for PostSwitchover {
    const ID: StepId = ids::POST_SWITCHOVER;
    const TITLE: &'static str = "Post-switchover";
    const REVERSAL: Reversal = Reversal::ForwardOnly;
    type Output = Moved;

    async fn check(&self, _: &Context<'_>) -> Result<Gate, Failure> {
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Context<'_>) -> Result<Moved, Failure> {
        let sides = Sides::of(cx)?;
        // At first agents know where green is, and what was interrupted does not wait for AWS to describe it again.
        let to_green = match cx.attempt() {
            1 => sides.targets(Side::Green),
            _ => sides.targets_after(cx).await,
        };
        publish(cx, serving_green(cx.spec(), to_green), SETTLE).await?;
        let verdicts = resubmit(cx, Side::Green).await?;
        until_completed(cx, &sides).await?;
        let to_green = sides.targets_after(cx).await;
        publish(cx, serving_green(cx.spec(), to_green.clone()), SETTLE).await?;
        let production = confirm_production(cx, &sides.prepared).await?;
        let sequences = job(cx, "sequences", Side::Green, &CheckSequences {}, SHORT_JOB).await?;
        if !sequences.raised.is_empty() {
            cx.warn(codes::SEQUENCES_RAISED, format!("sequences were behind: {}", sequences.raised.join(", ")));
        }
        let extensions = job(cx, "update-extensions", Side::Green, &UpdateExtensions {}, SHORT_JOB).await?;
        let unquiesced = job(cx, "unquiesce", Side::Green, &Unquiesce {}, SHORT_JOB).await?;
        for (set, rows) in &unquiesced.rows_in_default {
            cx.warn(codes::EXTENSION_FAILED, format!("the default partition of {set} holds {rows} rows"));
        }
        let tests = test_extensions(cx).await?;
        let views = refresh_views(cx).await?;
        let mut running = serving_green(cx.spec(), to_green);
        running.ingestion = IngestionWish::Running;
        publish(cx, running, SETTLE).await?;
        until_ingesting(cx).await?;
        Ok(Moved {
            production,
            verdicts,
            sequences: sequences.sequences,
            sequences_raised: sequences.raised,
            extensions,
            tests,
            unquiesced,
            views,
            at: cx.clock().now(),
        })
    }

    async fn verify(&self, cx: &Context<'_>, _: &Moved) -> Result<(), Failure> {
        let Sides { prepared, provisioned } = Sides::of(cx)?;
        confirm_production(cx, &prepared).await?;
        let name = &prepared.blue.cluster;
        let now = cx.world().rds.cluster(name).await.map_err(|error| failed(format!("reading {name}"), error))?;
        if now.resource_id == provisioned.green.resource_id {
            return Ok(());
        }
        let failure = Failure::needs_operator(codes::PRODUCTION_WRONG, format!("verifying {name}"));
        Err(failure.because(format!("the name belongs to {}, not to green", now.resource_id)))
    }

    async fn undo(&self, _: &Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

async fn until_completed(cx: &Context<'_>, sides: &Sides) -> Result<(), Failure> {
    let Sides { prepared, provisioned } = sides;
    let rds = &*cx.world().rds;
    let limit = |spec: &UpgradeSpec| Duration::from_secs(spec.after.completed_seconds_max);
    let (every, what) = (poll(cx.spec()).min(Duration::from_secs(2)), "AWS to say SWITCHOVER_COMPLETED");
    let id = &provisioned.deployment;
    let completed = cx.until_in_force(every, what, limit, || async {
        let answer = rds::found(rds.deployment(id).await);
        let deployment = answer.map_err(|error| failed(format!("reading deployment {id}"), error))?;
        let name = &prepared.blue.cluster;
        let cluster = rds.cluster(name).await.map_err(|error| failed(format!("reading {name}"), error))?;
        let moved = cluster.resource_id == provisioned.green.resource_id;
        Ok(match deployment.map(|deployment| deployment.status) {
            Some(DeploymentStatus::SwitchoverCompleted) if moved => Look::There(()),
            // An operator deleted the object; the name says the same.
            None if moved => Look::There(()),
            Some(status) => Look::NotYet(format!("the deployment is {status}")),
            None => Look::NotYet("the deployment is gone and the name is not green's".into()),
        })
    });
    completed.await.map_err(out_of_time(codes::NEVER_COMPLETED, FailureClass::NeedsOperator, None))
}

/// Who answers behind the production endpoint: green's servers, the target version, no subscription left.
async fn confirm_production(cx: &Context<'_>, prepared: &Prepared) -> Result<Identified, Failure> {
    let deadline = Duration::from_secs(cx.spec().after.completed_seconds_max);
    let wait = Wait { every: Duration::from_millis(500), deadline, what: "production to answer from green" };
    let major = prepared.target.version.major();
    cx.until(wait, || async {
        // An endpoint whose name has not moved yet answers from blue, and the job refuses that server: not yet.
        let seen = match fresh_job(cx, "identify", Side::Green, &Identify {}, Duration::from_secs(20)).await {
            Ok(seen) => seen,
            Err(failure) if failure.is_interrupted() => return Err(failure),
            Err(failure) => return Ok(Look::NotYet(failure.to_string())),
        };
        if Some(seen.said.major) != major {
            return Ok(Look::NotYet(format!("it answers as version {}", seen.version)));
        }
        if seen.subscriptions_left > 0 {
            return Ok(Look::NotYet(format!("{} subscriptions are left", seen.subscriptions_left)));
        }
        Ok(Look::There(seen))
    })
    .await
}

async fn test_extensions(cx: &Context<'_>) -> Result<Vec<ExtensionTest>, Failure> {
    let limit = Duration::from_secs(cx.spec().after.extension_test_seconds_max);
    let body = TestExtensions { deadline_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) };
    let tests = job(cx, "test-extensions", Side::Green, &body, limit + Duration::from_secs(30)).await?;
    let broken: Vec<String> = tests
        .iter()
        .filter(|test| !test.passed)
        .map(|test| format!("{} {} in {}: {}", test.name, test.version, test.database, test.evidence))
        .collect();
    if broken.is_empty() {
        return Ok(tests);
    }
    let doing = "testing the extensions on the new production; mend them, then `pilot resume`";
    Err(broken.into_iter().fold(Failure::needs_operator(codes::EXTENSION_FAILED, doing), Failure::because))
}

async fn refresh_views(cx: &Context<'_>) -> Result<u64, Failure> {
    if !cx.spec().after.refresh_views {
        return Ok(0);
    }
    let deadline = Duration::from_secs(3600);
    let refreshed = job(cx, "refresh-views", Side::Green, &RefreshViews { views: Vec::new() }, deadline).await?;
    Ok(refreshed.len() as u64)
}

/// Every controller runs, and no backlog is larger than when it was first seen.
async fn until_ingesting(cx: &Context<'_>) -> Result<(), Failure> {
    let limit = |spec: &UpgradeSpec| Duration::from_secs(spec.after.backlog_seconds_max);
    let (every, what) = (Duration::from_millis(250), "ingestion to run and its backlog to fall");
    let first = std::sync::Mutex::new(None);
    let seen = cx.until_in_force(every, what, limit, || async {
        let mut backlog = 0;
        for (agent, report) in cx.world().agents.reports() {
            let Some(report) = report.filter(|report| report.age < Duration::from_secs(5)) else {
                return Ok(Look::NotYet(format!("no fresh report of {agent}")));
            };
            for controller in &report.value.ingestion {
                match &controller.state {
                    IngestionState::Running => backlog += controller.backlog.unwrap_or(0),
                    IngestionState::Paused => return Ok(Look::NotYet(format!("{} is paused", controller.name))),
                    IngestionState::Mixed => return Ok(Look::NotYet(format!("{} is half paused", controller.name))),
                    IngestionState::Unknown(why) => return Ok(Look::NotYet(format!("{}: {why}", controller.name))),
                }
            }
        }
        let mut first = first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at_first = *first.get_or_insert(backlog);
        Ok(match backlog == 0 || backlog < at_first {
            true => Look::There(()),
            false => Look::NotYet(format!("the backlog is {backlog}, at first {at_first}")),
        })
    });
    seen.await.map_err(out_of_time(codes::INGESTION_NOT_RUNNING, FailureClass::NeedsOperator, None))
}
