//! Switching over: guardrails, the cut by the real machinery, names and endpoints moved, and what the API says meanwhile
//! and afterwards. On any failure before the names move everything is as it was.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;

use crate::cloud::provision::{self, Live};
use crate::cloud::state::{Endpoints, Replication, State, cluster_arn};
use crate::cloud::trouble::{self, Planned};
use crate::cloud::{Cloud, naming};
use crate::faults::{Fault, Moment};
use crate::mechanics::switchover::{self, Limits, Phase};
use crate::status::{Status, life};

/// Begins the switchover of a deployment.
pub(crate) fn start(cloud: &Cloud, identifier: String, timeout: Duration) {
    let task = cloud.clone();
    cloud.spawn(async move {
        begun(&task, &identifier);
        match cut(&task, &identifier, timeout).await {
            Ok(()) => {}
            Err(miss) => missed(&task, &identifier, &miss),
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why it did not happen.
struct Miss {
    reason: String,
    /// Whether the deployment says SWITCHOVER_FAILED rather than AVAILABLE.
    failed: bool,
}

impl Miss {
    fn cancelled(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), failed: false }
    }
}

fn names(state: &State, identifier: &str) -> Option<(String, String)> {
    let deployment = state.deployment(identifier).ok()?;
    let name = |id: &str| state.clusters.get(id).map(|c| c.identifier.clone());
    Some((name(&deployment.blue)?, name(deployment.green.as_deref()?)?))
}

fn begun(cloud: &Cloud, identifier: &str) {
    let now = cloud.clock().now();
    let mut state = cloud.state();
    let Some((blue, green)) = names(&state, identifier) else { return };
    state.deployment_event(now, identifier, "notification", format!("Switchover from {blue} to {green} started."));
    state.cluster_event(now, &blue, "notification", format!("Switchover from DB cluster {blue} to {green} started."));
    drop(state);
    cloud.faults().reached(Moment::Called);
    let (task, identifier) = (cloud.clone(), identifier.to_owned());
    cloud.spawn(async move {
        task.clock().sleep(task.settings().timings.member_lag).await;
        let mut state = task.state();
        if let Ok(deployment) = state.deployment_mut(&identifier)
            && deployment.status == "SWITCHOVER_IN_PROGRESS"
        {
            deployment.members.iter_mut().for_each(|m| m.status = "SWITCHOVER_IN_PROGRESS");
        }
    });
}

/// RDS's events about sequences, which are copied while green catches up.
fn sequences(cloud: &Cloud, identifier: &str, what: &str) {
    let now = cloud.clock().now();
    let mut state = cloud.state();
    let Some((blue, green)) = names(&state, identifier) else { return };
    let text = format!("Sequence synchronization for switchover of DB cluster {blue} to {green} {what}.");
    state.cluster_event(now, &blue, "notification", text);
}

/// Everything from the guardrails to the end. An error means that blue serves as before.
async fn cut(cloud: &Cloud, identifier: &str, timeout: Duration) -> Result<(), Miss> {
    let live = {
        let state = cloud.state();
        let deployment = state.deployment(identifier).map_err(|e| Miss::cancelled(e.message))?;
        deployment.live.clone().ok_or_else(|| Miss::cancelled("the green environment does not replicate"))?
    };
    check(cloud, identifier, &live).await?;
    let sides = live.sides();
    let mut limits = Limits { drop_delay: cloud.settings().timings.drop_delay, ..Limits::for_timeout(timeout) };
    let tripped = trouble::trip(cloud, &sides, &mut limits).await;
    // What a guardrail refuses gets no further.
    let planned = if tripped.is_some() { Planned::none() } else { Planned::take(cloud) };
    let timings = &cloud.settings().timings;
    let (opened, is_open) = watch::channel(false);
    let stopped = Arc::new(Mutex::new(None));
    let progress = {
        let (cloud, identifier, stopped) = (cloud.clone(), identifier.to_owned(), Arc::clone(&stopped));
        Arc::new(move |phase: Phase| match phase {
            Phase::WritesStopped => {
                *lock(&stopped) = Some(cloud.clock().now());
                cloud.faults().reached(Moment::Stopped);
            }
            Phase::ConnectionsDropped => life::enter(&cloud, &identifier, Some(Status::SwitchoverInProgress)),
            Phase::CatchUp => sequences(&cloud, &identifier, "has been initiated. Sequences may lengthen the downtime"),
            Phase::Move => sequences(&cloud, &identifier, "has been completed"),
            Phase::Open => {
                life::enter(&cloud, &identifier, Some(Status::SwitchoverInPostProcessing));
                opened.send_replace(true);
                cloud.faults().reached(Moment::Switched);
            }
            _ => {}
        })
    };
    life::enter(cloud, identifier, Some(Status::SwitchoverInitiated));
    cloud.clock().sleep(timings.initiated).await;
    after_open(cloud, identifier, is_open);
    let immediate = cloud.settings().timings.names_delay.is_zero();
    let moved = || async {
        planned.play(cloud, timeout).await?;
        let gone = lock(&stopped).map(|at| cloud.clock().now().duration_since(at)).unwrap_or_default();
        cloud.clock().sleep(timings.window.min(timeout).saturating_sub(gone.try_into().unwrap_or_default())).await;
        if timings.window > timeout {
            return Err(trouble::timed_out(timeout));
        }
        rename(cloud, identifier).map_err(|error| format!("{error:#}"))?;
        if immediate {
            publish(cloud, identifier);
        }
        Ok(())
    };
    let outcome = switchover::run(&sides, &limits, progress, cloud.stopping(), moved).await;
    if let Some(tripped) = tripped {
        trouble::lift(tripped).await;
    }
    match outcome {
        Ok(report) => {
            let millis = report.writes_stopped.as_millis();
            tracing::info!(deployment = identifier, millis, sequences = report.sequences, left = ?report.left_behind, "switched over");
            Ok(())
        }
        Err(why) => {
            let (reason, failed) = planned.outcome(&why);
            Err(Miss { reason, failed })
        }
    }
}

/// The guardrails that are the service's own, and those that a test wants to trip.
async fn check(cloud: &Cloud, identifier: &str, live: &Live) -> Result<(), Miss> {
    if let Some(Fault::SwitchoverCancelled { reason }) =
        cloud.faults().take(|f| matches!(f, Fault::SwitchoverCancelled { .. }))
    {
        return Err(Miss::cancelled(reason));
    }
    let known = cloud.state().deployment(identifier).ok().and_then(|d| d.degraded.clone());
    let degraded = match known {
        Some(why) => Some(why),
        None => {
            let seen = live
                .degraded()
                .await
                .map_err(|error| Miss::cancelled(format!("the blue environment did not answer: {error:#}")))?;
            if let Some(why) = &seen {
                provision::degrade(cloud, identifier, why);
            }
            seen
        }
    };
    match degraded {
        None => Ok(()),
        Some(why) => Err(Miss::cancelled(format!(
            "there are DDL or Large Object changes on the source databases ({why}). The green databases have a status of \
             REPLICATION_DEGRADED. Delete the deployment with its green databases and recreate it"
        ))),
    }
}

/// Blue's names go to green and blue becomes `-old<N>`. ARNs in the deployment stay until it is completed.
fn rename(cloud: &Cloud, identifier: &str) -> anyhow::Result<()> {
    let mut state = cloud.state();
    life::keep_names(cloud.zone(), &mut state, identifier);
    let deployment = state.deployment(identifier)?;
    let (blue, green) = (deployment.blue.clone(), deployment.green.clone().context("there is no green")?);
    let leaving = state.clusters.get(&green).map(|c| naming::names(cloud.zone(), &state, c)).unwrap_or_default();
    let members =
        |id: &str| state.clusters.get(id).map(|c| c.members().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let (of_blue, of_green) = (members(&blue), members(&green));
    let old = (1..).find(|n| names_free(&state, &blue, &of_blue, *n)).unwrap_or(1);
    let endpoints: Vec<_> = deployment_endpoints(&state, identifier)?;
    for (id, twin) in &endpoints {
        let Some(name) = state.custom_endpoints.get(id).map(|e| e.identifier.clone()) else { continue };
        for (id, name) in [(id, format!("{name}-old{old}")), (twin, name)] {
            if let Some(endpoint) = state.custom_endpoints.get_mut(id) {
                endpoint.identifier = name;
            }
        }
    }
    for (id, twin) in of_blue.iter().zip(&of_green) {
        let name = state.instances.get(id).map(|i| i.identifier.clone()).context("a member is gone")?;
        if let Some(instance) = state.instances.get_mut(id) {
            instance.identifier = format!("{name}-old{old}");
        }
        if let Some(instance) = state.instances.get_mut(twin) {
            instance.identifier = name;
        }
    }
    let (name, tags) =
        state.clusters.get(&blue).map(|c| (c.identifier.clone(), c.tags.clone())).context("blue is gone")?;
    if let Some(cluster) = state.clusters.get_mut(&blue) {
        cluster.identifier = format!("{name}-old{old}");
        cluster.endpoints = Endpoints::Lagging;
    }
    if let Some(cluster) = state.clusters.get_mut(&green) {
        cluster.identifier = name;
        cluster.tags = tags;
        cluster.source = None;
        cluster.endpoints = Endpoints::Lagging;
    }
    let timings = &cloud.settings().timings;
    if timings.green_names_delay > timings.names_delay {
        state.deployment_mut(identifier)?.leaving = leaving;
    }
    Ok(())
}

/// Blue's custom endpoints with green's copies.
fn deployment_endpoints(state: &State, identifier: &str) -> anyhow::Result<Vec<(String, String)>> {
    let members = &state.deployment(identifier)?.members;
    Ok(members.iter().filter_map(|m| m.endpoints.clone()).filter_map(|(id, twin)| Some((id, twin?))).collect())
}

fn names_free(state: &State, blue: &str, members: &[String], n: u32) -> bool {
    let taken_cluster = |name: &str| state.clusters.values().any(|c| c.identifier == name);
    let taken = |name: &str| state.instances.values().any(|i| i.identifier == name);
    let of = state.clusters.get(blue).map(|c| c.identifier.clone()).unwrap_or_default();
    let instances = members.iter().filter_map(|id| state.instances.get(id)).map(|i| i.identifier.clone());
    !taken_cluster(&format!("{of}-old{n}")) && instances.into_iter().all(|name| !taken(&format!("{name}-old{n}")))
}

/// The zone learns what the account says of both sides: production's names lead to green, and green's own are gone unless they
/// stay for a while.
fn publish(cloud: &Cloud, identifier: &str) {
    let sides = cloud.state().deployment(identifier).map(|d| (d.blue.clone(), d.green.clone().unwrap_or_default()));
    if let Ok((blue, green)) = sides {
        cloud.publish_lagging(&[&blue, &green]);
    }
}

/// What follows from green taking writes, each after its own delay: the names lead there, the deployment is completed.
fn after_open(cloud: &Cloud, identifier: &str, mut is_open: watch::Receiver<bool>) {
    let (task, identifier) = (cloud.clone(), identifier.to_owned());
    cloud.spawn(async move {
        // The sender goes when the switchover has ended without green taking writes.
        if is_open.wait_for(|open| *open).await.is_err() {
            return;
        }
        let timings = task.settings().timings.clone();
        let names = async {
            task.clock().sleep(timings.names_delay).await;
            publish(&task, &identifier);
            life::enter(&task, &identifier, Some(Status::SwitchoverCompleted));
            task.clock().sleep(timings.rows_stay).await;
            life::enter(&task, &identifier, None);
        };
        let gone = async {
            task.clock().sleep(timings.green_names_delay).await;
            if let Ok(deployment) = task.state().deployment_mut(&identifier) {
                deployment.leaving.clear();
            }
            task.publish();
        };
        let told = async {
            task.clock().sleep(timings.topology_delay).await;
            life::new_names(&task, &identifier);
        };
        let completed = async {
            task.clock().sleep(timings.completed_delay.max(timings.names_delay)).await;
            if let Err(error) = complete(&task, &identifier) {
                tracing::error!(deployment = %identifier, error = format!("{error:#}"), "a switchover was not completed");
            }
        };
        tokio::join!(names, gone, told, completed);
    });
}

/// The API says so too: ARNs swapped, members completed.
fn complete(cloud: &Cloud, identifier: &str) -> anyhow::Result<()> {
    let (blue, green) = {
        let now = cloud.clock().now();
        let mut state = cloud.state();
        let deployment = state.deployment(identifier)?;
        let (blue, green) = (deployment.blue.clone(), deployment.green.clone().context("there is no green")?);
        let arns = |state: &State, id: &str| -> Vec<String> {
            let Some(cluster) = state.clusters.get(id) else { return Vec::new() };
            let members =
                cluster.members().filter_map(|id| state.instances.get(id)).map(crate::cloud::state::Instance::arn);
            std::iter::once(cluster.arn()).chain(members).collect()
        };
        let endpoints = deployment_endpoints(&state, identifier)?;
        let arn_of = |id: &String| state.custom_endpoints.get(id).map(|endpoint| endpoint.arn());
        let endpoints: Vec<_> = endpoints.iter().map(|(id, twin)| (arn_of(id), arn_of(twin))).collect();
        let (old, new) = (arns(&state, &blue), arns(&state, &green));
        let writer = state.clusters.get(&green).map(|c| c.writer.clone()).unwrap_or_default();
        if let Some(instance) = state.instances.get_mut(&writer) {
            instance.replication = Replication::None;
        }
        let (name, old_name) = names(&state, identifier).map(|(b, g)| (g, b)).unwrap_or_default();
        let deployment = state.deployment_mut(identifier)?;
        let before = deployment.target.replace(cluster_arn(&name)).unwrap_or_default();
        deployment.source = cluster_arn(&old_name);
        deployment.status = "SWITCHOVER_COMPLETED".to_owned();
        deployment.live = None;
        let machines = deployment.members.iter_mut().filter(|m| m.endpoints.is_none());
        for (member, (source, target)) in machines.zip(old.into_iter().zip(new)) {
            member.source = source;
            member.target = Some(target);
            member.status = "SWITCHOVER_COMPLETED";
        }
        let copies = deployment.members.iter_mut().filter(|m| matches!(&m.endpoints, Some((_, Some(_)))));
        for (member, (source, target)) in copies.zip(endpoints) {
            member.source = source.unwrap_or_default();
            member.target = target;
            member.status = "SWITCHOVER_COMPLETED";
        }
        let was = before.rsplit(':').next().unwrap_or_default();
        let text = format!(
            "Switchover from DB cluster {name} to {was} was completed. DB cluster {name} was renamed to {old_name} and DB cluster {was} was renamed to {name}."
        );
        state.cluster_event(now, &name, "notification", text);
        state.deployment_event(now, identifier, "notification", "Switchover completed.");
        (blue, green)
    };
    life::tell(cloud, &[&blue, &green]);
    Ok(())
}

/// Blue serves as before; the API says why.
fn missed(cloud: &Cloud, identifier: &str, miss: &Miss) {
    let now = cloud.clock().now();
    {
        let mut state = cloud.state();
        let (blue, green) = names(&state, identifier).unwrap_or_default();
        let text = format!(
            "Switchover from DB cluster {blue} to {green} was cancelled because {}.",
            miss.reason.trim_end_matches('.')
        );
        tracing::info!(deployment = identifier, reason = %miss.reason, failed = miss.failed, "not switched over");
        let Ok(deployment) = state.deployment_mut(identifier) else { return };
        let (status, member) =
            if miss.failed { ("SWITCHOVER_FAILED", "SWITCHOVER_FAILED") } else { ("AVAILABLE", "AVAILABLE") };
        deployment.status = status.to_owned();
        deployment.details = Some(text.clone());
        deployment.members.iter_mut().for_each(|m| m.status = member);
        state.deployment_event(now, identifier, "notification", format!("Switchover canceled. {text}"));
        state.cluster_event(now, &blue, "failure", text);
    }
    life::enter(cloud, identifier, Some(Status::Available));
}
