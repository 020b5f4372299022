//! Step 2: creates or adopts the deployment and waits for a stable AVAILABLE of every member, while the purger keeps slot
//! creation free. Undone by deleting deployment and green, and only when nothing of it is left on blue.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::{Failure, Gate, Look, Reversal, Step, StepId, Unit, Wait};
use jiff::Timestamp;
use proto::{
    intent::{PurgePolicy, Targets, WatchWish},
    side::Side,
};
use serde::{Deserialize, Serialize};

use super::{
    codes, deletion,
    deletion::Doomed,
    lag::Steady,
    prerequisites::{Prepared, Prerequisites, examine, gate},
    shared::{Context, Recorded, SETTLE, ids, instances, our_tag, poll, publish, recorded_cluster, targets, wish},
};
use crate::{
    link::Wish,
    preflight::{self, failed},
    rds::{
        self, Deployment, DeploymentId, DeploymentName, DeploymentStatus, EventQuery, Instance, LogFrom, Names,
        NewDeployment, SourceType,
    },
    spec::UpgradeSpec,
    world::Upgrade,
};

pub struct Provisioning;

/// The deployment and what it made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Provisioned {
    pub deployment: DeploymentId,
    pub green: Recorded,
    pub adopted: bool,
    /// When green was seen available: statistics must be newer.
    pub at: Timestamp,
}

/// What is known once the deployment exists; enough to undo it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Created {
    deployment: DeploymentId,
    adopted: bool,
}

impl Step<Upgrade> for Provisioning {
    const ID: StepId = ids::PROVISIONING;
    const TITLE: &'static str = "Provisioning and upgrade";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = Provisioned;

    async fn check(&self, cx: &Context<'_>) -> Result<Gate, Failure> {
        let prepared = cx.output::<Prerequisites>()?;
        let blue = &prepared.blue;
        cx.world().agents.aim(targets(prepared.production.clone(), blue, None));
        recorded_cluster(cx, blue).await?;
        let (facts, inspection) = examine(cx).await?;
        let preflight = preflight::preflight(&facts, Some(&inspection), cx.spec());
        Ok(gate(&preflight, cx.spec(), true))
    }

    async fn run(&self, cx: &Context<'_>) -> Result<Provisioned, Failure> {
        let prepared = cx.output::<Prerequisites>()?;
        publish(cx, purging(cx, &prepared), SETTLE).await?;
        let created = create(cx, &prepared).await?;
        let deployment = until_available(cx, &prepared, &created).await?;
        let green = green_of(cx, &prepared, &deployment).await?;
        let seeing = targets(prepared.production.clone(), &prepared.blue, Some(&green));
        publish(cx, replicating_wish(cx.spec(), seeing), SETTLE).await?;
        Ok(Provisioned { deployment: deployment.id, green, adopted: created.adopted, at: cx.clock().now() })
    }

    async fn verify(&self, cx: &Context<'_>, provisioned: &Provisioned) -> Result<(), Failure> {
        let prepared = cx.output::<Prerequisites>()?;
        let wait =
            Wait { every: Duration::from_millis(250), deadline: SETTLE, what: "a slot for every database on blue" };
        cx.until(wait, || async {
            let report = cx.world().agents.lead_report();
            let slots = report.as_ref().and_then(|report| report.value.slots.as_ref());
            let Some(slots) = slots else { return Ok(Look::NotYet("no report of the slots yet".into())) };
            let confirmed =
                slots.slots.iter().filter(|slot| slot.of_deployment && slot.confirmed_flush.is_some()).count();
            Ok(match confirmed as u64 >= prepared.databases {
                true => Look::There(()),
                false => Look::NotYet(format!("{confirmed} of {} slots", prepared.databases)),
            })
        })
        .await?;
        let green = recorded_cluster(cx, &provisioned.green).await?;
        let version = &prepared.target.version;
        if green.engine_version != *version || green.parameter_group != prepared.groups.green_cluster {
            return Err(Failure::permanent(codes::GREEN_WRONG, format!("verifying {}", green.id)).because(format!(
                "it runs {} with {} instead of {version} with {}",
                green.engine_version, green.parameter_group, prepared.groups.green_cluster
            )));
        }
        Ok(())
    }

    async fn undo(&self, cx: &Context<'_>) -> Result<(), Failure> {
        let prepared = cx.output::<Prerequisites>()?;
        cx.world().agents.aim(targets(prepared.production.clone(), &prepared.blue, None));
        let calm =
            wish(cx.spec(), targets(prepared.production.clone(), &prepared.blue, None), WatchWish::default(), false);
        publish(cx, calm, SETTLE).await?;
        let doomed = Doomed {
            name: &name(cx),
            deployment: None,
            owner: our_tag(cx),
            blue: &prepared.blue,
            object_only_once_switched: false,
            green: cx.output_if_any::<Provisioning>().map(|provisioned| provisioned.green.resource_id),
        };
        deletion::delete_with_green(cx, &doomed).await?;
        deletion::nothing_left_on_blue(cx).await
    }
}

/// What holds from the moment green exists until the cut.
pub(crate) fn replicating_wish(spec: &UpgradeSpec, targets: Targets) -> Wish {
    let watch = WatchWish { marker: true, schema: true, partitions: true, old_side: false };
    wish(spec, targets, watch, true)
}

/// What holds while green is being made: the purger runs.
fn purging(cx: &Context<'_>, prepared: &Prepared) -> Wish {
    let blind = targets(prepared.production.clone(), &prepared.blue, None);
    let mut purging = wish(cx.spec(), blind, WatchWish { partitions: true, ..WatchWish::default() }, true);
    purging.purger = Some(purge_policy(cx));
    purging
}

/// The agents are told again when a person has changed what the purger goes by.
async fn purge_as_in_force(cx: &Context<'_>, prepared: &Prepared, told: &Mutex<PurgePolicy>) -> Result<(), Failure> {
    let policy = purge_policy(cx);
    if *told.lock().unwrap_or_else(PoisonError::into_inner) == policy {
        return Ok(());
    }
    publish(cx, purging(cx, prepared), SETTLE).await?;
    *told.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    Ok(())
}

fn purge_policy(cx: &Context<'_>) -> PurgePolicy {
    let spec = &cx.spec_now().purge;
    let millis = |seconds: f64| (seconds * 1000.0) as u64;
    PurgePolicy {
        idle_grace_ms: millis(spec.idle_grace_seconds),
        active_wait_ms: millis(spec.active_wait_seconds),
        age_fallback_after_ms: millis(spec.age_fallback_after_seconds),
        allow_applications: spec.allow_applications.clone(),
        end_active: cx.approved("purge-active"),
    }
}

/// The name of the deployment: its own for every time the upgrade begins again from here.
fn name(cx: &Context<'_>) -> DeploymentName {
    Names::of(cx.run_id().as_str()).deployment(cx.round())
}

async fn create(cx: &Context<'_>, prepared: &Prepared) -> Result<Created, Failure> {
    let rds = &*cx.world().rds;
    let name = name(cx);
    let there = match look(cx, &name).await? {
        Look::There(created) if cx.recall::<DeploymentName>("create").is_none() => {
            return Ok(Created { adopted: true, ..created });
        }
        Look::There(created) => Some(created),
        Look::NotYet(_) => None,
    };
    let new = NewDeployment {
        name: name.clone(),
        source: prepared.blue.arn.clone(),
        target_version: prepared.target.version.clone(),
        target_cluster_group: prepared.groups.green_cluster.clone(),
        target_instance_group: prepared.groups.green_instance.clone(),
        tags: vec![our_tag(cx)],
    };
    cx.effect(
        "create",
        async { Ok(name.clone()) },
        |name: &DeploymentName| {
            let name = name.clone();
            async move { look(cx, &name).await }
        },
        |_| {
            let (new, there) = (new.clone(), there.clone());
            async move {
                // An earlier attempt has made it; nothing is asked for twice.
                if let Some(created) = there {
                    return Ok(created);
                }
                recorded_cluster(cx, &prepared.blue).await?;
                match rds.create_deployment(&new).await {
                    Ok(made) => Ok(Created { deployment: made.id, adopted: false }),
                    // A lost answer to an earlier call: it is there, and whose it is decides.
                    Err(error) if error.already_exists() => match look(cx, &new.name).await? {
                        Look::There(created) => Ok(created),
                        Look::NotYet(_) => Err(failed(format!("creating deployment {}", new.name), error)),
                    },
                    Err(error) => Err(failed(format!("creating deployment {}", new.name), error)),
                }
            }
        },
    )
    .await
}

/// Adopt is a decision with three answers: ours, not there, or somebody else's, which is refused.
async fn look(cx: &Context<'_>, name: &DeploymentName) -> Result<Look<Created>, Failure> {
    let found = cx.world().rds.deployment_by_name(name).await;
    let Some(deployment) = found.map_err(|error| failed(format!("looking for deployment {name}"), error))? else {
        return Ok(Look::NotYet(format!("there is no deployment {name}")));
    };
    let ours = our_tag(cx);
    if deployment.tag(&ours.key) == Some(ours.value.as_str()) {
        return Ok(Look::There(Created { deployment: deployment.id, adopted: false }));
    }
    Err(Failure::permanent(codes::NOT_OURS, format!("deployment {name} ({}) is not of this upgrade", deployment.id)))
}

async fn until_available(cx: &Context<'_>, prepared: &Prepared, created: &Created) -> Result<Deployment, Failure> {
    let spec = &cx.spec().provisioning;
    let good = AtomicU32::new(0);
    let blocked = Steady::new();
    let told = Mutex::new(purge_policy(cx));
    let limit = |spec: &UpgradeSpec| Duration::from_secs(spec.provisioning.seconds_max);
    cx.until_in_force(poll(cx.spec()), "green to be built, upgraded and available", limit, || async {
        purge_as_in_force(cx, prepared, &told).await?;
        let rds = &*cx.world().rds;
        let answer = rds::found(rds.deployment(&created.deployment).await);
        let deployment = answer.map_err(|error| failed(format!("reading deployment {}", created.deployment), error))?;
        let Some(deployment) = deployment else {
            let doing = format!("waiting for deployment {}", created.deployment);
            return Err(Failure::permanent(codes::DEPLOYMENT_GONE, doing).because("somebody has deleted it"));
        };
        let (done, total) = deployment.tasks_done();
        cx.progress(done, total, Unit("tasks"));
        let purge = &cx.spec_now().purge;
        let long = crate::spec::seconds(purge.active_wait_seconds + purge.idle_grace_seconds);
        if blocked.held(cx.clock().mono(), long, slots_are_blocked(cx)) {
            let why = "transactions that are still active hold up the slots of the deployment; approving ends them";
            cx.approval("purge-active", why).await?;
        }
        if deployment.status == DeploymentStatus::InvalidConfiguration {
            return Err(why_invalid(cx, &deployment).await);
        }
        match not_ready(cx, prepared, &deployment).await? {
            Some(why) => {
                good.store(0, Ordering::Relaxed);
                Ok(Look::NotYet(why))
            }
            None => {
                let seen = good.fetch_add(1, Ordering::Relaxed) + 1;
                let enough = seen >= spec.stable_reads;
                Ok(if enough { Look::There(deployment) } else { Look::NotYet(format!("available, read {seen}")) })
            }
        }
    })
    .await
}

/// Does a transaction hold up a slot that is being made? The purger ends those that are idle by itself.
fn slots_are_blocked(cx: &Context<'_>) -> bool {
    let report = cx.world().agents.lead_report();
    let sessions = report.as_ref().and_then(|report| report.value.sessions);
    sessions.is_some_and(|sessions| sessions.waiting_slots > 0 && sessions.blockers > 0)
}

/// What is not ready for a switchover yet: the deployment, a member of it, or an instance of either side.
pub(crate) async fn not_ready(
    cx: &Context<'_>,
    prepared: &Prepared,
    deployment: &Deployment,
) -> Result<Option<String>, Failure> {
    if !deployment.may_switch_over() {
        let running = deployment.tasks.iter().find(|task| task.state == rds::TaskState::InProgress);
        let task = running.map(|task| format!(", {}", task.name)).unwrap_or_default();
        return Ok(Some(format!("{}{task}", deployment.status)));
    }
    let Some(green) = deployment.target_cluster() else { return Ok(Some("AWS names no target yet".into())) };
    for cluster in [prepared.blue.cluster.clone(), green.cluster_id()] {
        let busy: Option<Instance> =
            instances(cx, &cluster).await?.into_iter().find(|instance| !instance.status.is_available());
        if let Some(instance) = busy {
            return Ok(Some(format!("{} is {}", instance.id, instance.status)));
        }
    }
    Ok(None)
}

/// Quotes the event and green's own upgrade log before anything is deleted (field rule 4.3).
async fn why_invalid(cx: &Context<'_>, deployment: &Deployment) -> Failure {
    let rds = &*cx.world().rds;
    let doing = format!("building green in deployment {}", deployment.id);
    let mut failure = Failure::permanent(codes::DEPLOYMENT_INVALID, doing).because(&deployment.status);
    if let Some(details) = &deployment.status_details {
        failure = failure.because(details);
    }
    let since = deployment.created.unwrap_or(Timestamp::UNIX_EPOCH);
    let query = EventQuery {
        source_type: Some(SourceType::BlueGreenDeployment),
        source: Some(deployment.id.to_string()),
        since,
    };
    match rds.events(&query).await {
        Ok(events) => failure = events.into_iter().fold(failure, |failure, event| failure.because(event.message)),
        Err(error) => failure = failure.because(format!("its events could not be read: {error}")),
    }
    match upgrade_log(cx, deployment).await {
        Ok(Some(text)) => failure.because(format!("green's upgrade log ends: {text}")),
        Ok(None) => failure,
        Err(error) => failure.because(format!("green's upgrade log could not be read: {error}")),
    }
}

async fn upgrade_log(cx: &Context<'_>, deployment: &Deployment) -> Result<Option<String>, rds::Error> {
    const LINES: u32 = 40;
    const CHARS_MAX: usize = 2000;
    let rds = &*cx.world().rds;
    let target =
        deployment.members.iter().filter_map(|member| member.target.as_ref()).find_map(|arn| arn.as_instance());
    let Some(instance) = target else { return Ok(None) };
    let files = rds.log_files(&instance, "upgrade").await?;
    let Some(file) = files.last() else { return Ok(None) };
    let portion = rds.log_portion(&instance, &file.name, &LogFrom::Tail { lines: LINES }).await?;
    let text = portion.text.trim();
    // Redacted before it is cut, for a cut may stand inside a constant.
    let text = crate::redact::log(text);
    let start = text.char_indices().rev().nth(CHARS_MAX).map_or(0, |(at, _)| at);
    Ok(Some(text[start..].to_owned()))
}

/// Green as AWS describes it, with the groups and version that were asked for.
async fn green_of(cx: &Context<'_>, prepared: &Prepared, deployment: &Deployment) -> Result<Recorded, Failure> {
    let rds = &*cx.world().rds;
    let incomplete = |what: &str| {
        Failure::transient(codes::AWS_INCOMPLETE, format!("reading green of {}", deployment.id)).because(what)
    };
    let arn = deployment.target_cluster().ok_or_else(|| incomplete("AWS names no target"))?;
    let cluster = rds.cluster_by_arn(&arn).await.map_err(|error| failed(format!("reading green {arn}"), error))?;
    if cluster.resource_id == prepared.blue.resource_id {
        return Err(Failure::permanent(codes::GREEN_WRONG, format!("reading green {arn}")).because("it is blue itself"));
    }
    let all = instances(cx, &cluster.id).await?;
    Recorded::of(Side::Green, &cluster, &all)
}
