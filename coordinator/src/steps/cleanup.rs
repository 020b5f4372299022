//! Step 7, forward only: retires the old side after the retention that the spec asks for. Nothing is deleted whose recorded
//! resource id, name and place in the deployment do not all say that it is old blue (field rules 1.3, 10).

use std::time::Duration;

use engine::{Failure, FailureClass, Gate, Look, Reversal, Step, StepId, Wait};
use proto::{
    jobs::{LedgerStatus, RemoveSchema, SchemaRemoved},
    side::Side,
};
use serde::{Deserialize, Serialize};

use super::{
    codes,
    post_switchover::PostSwitchover,
    prerequisites::{
        Prepared, Prerequisites, SHORT_JOB, delete_group, look_for_snapshot, take_snapshot, until_snapshot_available,
    },
    provisioning::Provisioned,
    shared::{Context, SETTLE, asked_to_delete, fresh_job, ids, job, out_of_time, poll, publish},
    sides::Sides,
};
use crate::{
    link::Wish,
    preflight::failed,
    rds::{self, Cluster, ClusterChange, FinalSnapshot, GroupScope, InstanceId, Names, Rds, SnapshotId},
    spec::{CleanupPolicy, UpgradeSpec},
    world::Upgrade,
};

pub struct Cleanup;

/// What was retired and what stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Retired {
    pub old_cluster: Option<String>,
    pub new_snapshot: SnapshotId,
    pub final_snapshot: Option<SnapshotId>,
    /// Databases whose ledger stays, with the reason.
    pub ledger_kept: Vec<(String, String)>,
    /// Databases whose schema `upgrade_pilot` was removed.
    #[serde(default)]
    pub schema_removed: Vec<String>,
}

impl Step<Upgrade> for Cleanup {
    const ID: StepId = ids::CLEANUP;
    const TITLE: &'static str = "Cleanup";
    const REVERSAL: Reversal = Reversal::ForwardOnly;
    type Output = Retired;

    async fn check(&self, cx: &Context<'_>) -> Result<Gate, Failure> {
        let spec = &cx.spec().cleanup;
        if cx.approved("cleanup") {
            return Ok(Gate::Open);
        }
        if spec.policy == CleanupPolicy::Approve {
            let why = "the old cluster is deleted for good; snapshots stay".to_owned();
            return Ok(Gate::Approval { name: "cleanup", why });
        }
        let moved = cx.output::<PostSwitchover>()?;
        let kept = cx.clock().now().duration_since(moved.at).unsigned_abs();
        let left = Duration::from_secs(spec.retention_seconds).saturating_sub(kept);
        if left.is_zero() {
            return Ok(Gate::Open);
        }
        let reason = format!("the old side is kept for another {} s", left.as_secs());
        Ok(Gate::Wait { reason, retry_after: left.min(Duration::from_secs(60)) })
    }

    async fn run(&self, cx: &Context<'_>) -> Result<Retired, Failure> {
        let sides = Sides::of(cx)?;
        let new_snapshot = backed_up(cx, &sides.prepared).await?;
        let (ledger_kept, schema_removed) = (Vec::new(), Vec::new());
        let mut retired =
            Retired { old_cluster: None, new_snapshot, final_snapshot: None, ledger_kept, schema_removed };
        if let Some(old) = old_blue(cx, &sides).await? {
            until_quiet(cx).await?;
            stop_watching(cx, &sides).await?;
            retired.old_cluster = Some(old.id.to_string());
            unprotected(cx, &sides).await?;
            delete_deployment(cx, &sides.provisioned, &old).await?;
            retired.final_snapshot = retire(cx, &sides).await?;
        } else {
            stop_watching(cx, &sides).await?;
        }
        delete_group(cx, GroupScope::Cluster, sides.prepared.groups.blue_cluster.clone()).await?;
        let removed = remove_schema(cx).await?;
        (retired.ledger_kept, retired.schema_removed) = (removed.kept, removed.databases);
        cx.world().agents.farewell(SETTLE).await?;
        Ok(retired)
    }

    async fn verify(&self, cx: &Context<'_>, _: &Retired) -> Result<(), Failure> {
        let prepared = cx.output::<Prerequisites>()?;
        let left = cx.world().rds.cluster_by_resource(&prepared.blue.resource_id).await;
        match left.map_err(|error| failed("looking for the old cluster", error))? {
            None => Ok(()),
            Some(cluster) => Err(Failure::transient(codes::OLD_BLUE_WRONG, "verifying that the old cluster is gone")
                .because(format!("{} is {}", cluster.id, cluster.status))),
        }
    }

    async fn undo(&self, _: &Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// First a snapshot of the new production, and its own point-in-time history beyond the cut.
async fn backed_up(cx: &Context<'_>, prepared: &Prepared) -> Result<SnapshotId, Failure> {
    let rds = &*cx.world().rds;
    let name = &prepared.blue.cluster;
    let id = Names::of(cx.run_id().as_str()).after_snapshot();
    cx.effect(
        "after-snapshot",
        async { Ok(id.clone()) },
        |id: &SnapshotId| look_for_snapshot(cx, rds, id.clone()),
        |id| take_snapshot(cx, id.clone(), name),
    )
    .await?;
    let deadline = Duration::from_secs(cx.spec().provisioning.snapshot_seconds_max);
    until_snapshot_available(cx, &id, deadline).await?;
    let cut = cx.state().step(ids::SWITCHOVER).and_then(|step| step.ended_at);
    let wait = Wait { every: poll(cx.spec()), deadline, what: "the new production to be restorable beyond the cut" };
    cx.until(wait, || async {
        let cluster = rds.cluster(name).await.map_err(|error| failed(format!("reading {name}"), error))?;
        Ok(match (cluster.latest_restorable_time, cut) {
            (Some(restorable), Some(cut)) if restorable > cut => Look::There(()),
            (Some(restorable), _) => Look::NotYet(format!("restorable up to {restorable}")),
            (None, _) => Look::NotYet("AWS names no restorable time yet".into()),
        })
    })
    .await
    .map_err(out_of_time(codes::NO_NEW_BACKUP, FailureClass::Permanent, None))?;
    Ok(id)
}

/// Old blue by its recorded resource id; refused unless everything says that it is the old side. `None` when it is gone.
async fn old_blue(cx: &Context<'_>, Sides { prepared, provisioned }: &Sides) -> Result<Option<Cluster>, Failure> {
    let rds = &*cx.world().rds;
    let doing = || format!("finding the old side of {}", prepared.blue.cluster);
    let found = rds.cluster_by_resource(&prepared.blue.resource_id).await.map_err(|error| failed(doing(), error))?;
    let Some(old) = found else { return Ok(None) };
    let production = rds.cluster(&prepared.blue.cluster).await.map_err(|error| failed(doing(), error))?;
    let deployment =
        rds::found(rds.deployment(&provisioned.deployment).await).map_err(|error| failed(doing(), error))?;
    let wrong = if production.resource_id == old.resource_id {
        Some("it is what answers behind the production name".to_owned())
    } else if production.resource_id != provisioned.green.resource_id {
        Some(format!("production is {}, not green", production.resource_id))
    } else if !is_old_name(old.id.as_str(), prepared.blue.cluster.as_str()) {
        Some(format!("its name {} does not end in -old and a number", old.id))
    } else {
        let source = deployment.map(|deployment| deployment.source);
        source
            .filter(|source| source != old.arn.resource())
            .map(|source| format!("the deployment names {source} as its source"))
    };
    match wrong {
        None => Ok(Some(old)),
        Some(why) => Err(Failure::needs_operator(codes::OLD_BLUE_WRONG, doing()).because(why)),
    }
}

/// `orders-old1` for `orders`.
fn is_old_name(name: &str, production: &str) -> bool {
    let number = name.strip_prefix(production).and_then(|rest| rest.strip_prefix("-old"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// No client was seen on the old side for as long as the spec asks.
async fn until_quiet(cx: &Context<'_>) -> Result<(), Failure> {
    let limit = |spec: &UpgradeSpec| Duration::from_secs(spec.cleanup.quiet_seconds) + Duration::from_secs(120);
    let (every, what) = (Duration::from_millis(500), "the old side to be without clients");
    let quiet = cx.until_in_force(every, what, limit, || async {
        let quiet_ms = cx.spec_now().cleanup.quiet_seconds * 1000;
        let report = cx.world().agents.lead_report();
        let Some(old) = report.as_ref().and_then(|report| report.value.old_side.as_ref()) else {
            return Ok(Look::NotYet("the old side is not measured yet".into()));
        };
        Ok(match old.last_client_ms {
            Some(ago) if ago < quiet_ms => Look::NotYet(format!("a client was seen there {} s ago", ago / 1000)),
            _ if old.watched_ms < quiet_ms => Look::NotYet(format!("watched for {} s", old.watched_ms / 1000)),
            _ => Look::There(()),
        })
    });
    let cure = "see who it is (`pilot status`), move them, then `pilot resume`";
    quiet.await.map_err(out_of_time(codes::OLD_SIDE_IN_USE, FailureClass::NeedsOperator, Some(cure)))
}

/// What is about to be deleted is not watched any more.
async fn stop_watching(cx: &Context<'_>, sides: &Sides) -> Result<(), Failure> {
    publish(cx, Wish::calm(sides.targets_after(cx).await), SETTLE).await
}

/// Only the object: AWS refuses `DeleteTarget` once switched over.
async fn delete_deployment(cx: &Context<'_>, provisioned: &Provisioned, old: &Cluster) -> Result<(), Failure> {
    let rds = &*cx.world().rds;
    let id = &provisioned.deployment;
    let wait = Wait { every: poll(cx.spec()), deadline: GONE_MAX, what: "the deployment object to be deleted" };
    cx.until(wait, || async {
        let found = rds::found(rds.deployment(id).await);
        let Some(deployment) = found.map_err(|error| failed(format!("reading deployment {id}"), error))? else {
            return Ok(Look::There(()));
        };
        if deployment.status != rds::DeploymentStatus::Deleting {
            let deleting = rds.delete_deployment(id, false).await;
            asked_to_delete(deleting, format!("deleting deployment {id} beside {}", old.id))?;
        }
        Ok(Look::NotYet(format!("it is {}", deployment.status)))
    })
    .await
}

/// How long AWS may take to delete one thing.
const GONE_MAX: Duration = Duration::from_secs(3600);

/// Readers, then writer, then cluster; each looked at again right before.
async fn retire(cx: &Context<'_>, sides: &Sides) -> Result<Option<SnapshotId>, Failure> {
    let rds = &*cx.world().rds;
    let last = match cx.spec().cleanup.final_snapshot {
        true => FinalSnapshot::Take(Names::of(cx.run_id().as_str()).final_snapshot()),
        false => FinalSnapshot::Skip,
    };
    let wait = Wait { every: poll(cx.spec()), deadline: GONE_MAX, what: "the old cluster to be deleted" };
    cx.until(wait, || async {
        let Some(old) = old_blue(cx, sides).await? else { return Ok(Look::There(())) };
        if old.status.0 == "deleting" {
            return Ok(Look::NotYet(format!("{} is {}", old.id, old.status)));
        }
        if old.deletion_protection {
            protection_off(rds, &old).await?;
            return Ok(Look::NotYet("its deletion protection was on".into()));
        }
        if let Some(instance) = next_member(&old) {
            return delete_member(cx, rds, &instance).await;
        }
        let deleting = rds.delete_cluster(&old.id, &last, cx.spec().cleanup.delete_automated_backups).await;
        asked_to_delete(deleting, format!("deleting {}", old.id))?;
        Ok(Look::NotYet(format!("{} is being deleted", old.id)))
    })
    .await?;
    Ok(match last {
        FinalSnapshot::Take(id) => Some(id),
        FinalSnapshot::Skip => None,
    })
}

/// Whether the old side was protected is kept: it is what was there before.
async fn unprotected(cx: &Context<'_>, sides: &Sides) -> Result<(), Failure> {
    let rds = &*cx.world().rds;
    let old = || old_blue(cx, sides);
    let there = async { Ok(old().await?.is_some_and(|old| old.deletion_protection)) };
    let look = |_: &bool| async {
        Ok(match old().await? {
            Some(old) if old.deletion_protection => Look::NotYet(format!("{} is protected", old.id)),
            _ => Look::There(()),
        })
    };
    let act = |_: &bool| async {
        match old().await?.filter(|old| old.deletion_protection) {
            Some(old) => protection_off(rds, &old).await,
            None => Ok(()),
        }
    };
    cx.effect("old-protection", there, look, act).await
}

async fn protection_off(rds: &dyn Rds, old: &Cluster) -> Result<(), Failure> {
    let off = ClusterChange { deletion_protection: Some(false), apply_immediately: true, ..ClusterChange::default() };
    let answer = rds.modify_cluster(&old.id, &off).await;
    answer.map(drop).map_err(|error| failed(format!("turning deletion protection of {} off", old.id), error))
}

/// A reader while there is one, then the writer.
fn next_member(old: &Cluster) -> Option<InstanceId> {
    let reader = old.readers().next().map(|member| member.instance.clone());
    reader.or_else(|| old.writer().map(|member| member.instance.clone()))
}

async fn delete_member(cx: &Context<'_>, rds: &dyn Rds, id: &InstanceId) -> Result<Look<()>, Failure> {
    let prepared = cx.output::<Prerequisites>()?;
    let doing = || format!("deleting {id}");
    let Some(instance) = rds::found(rds.instance(id).await).map_err(|error| failed(doing(), error))? else {
        return Ok(Look::NotYet(format!("{id} is gone")));
    };
    let ours = prepared.blue.instances.iter().any(|recorded| recorded.resource_id == instance.resource_id);
    if !ours {
        let failure = Failure::needs_operator(codes::OLD_BLUE_WRONG, doing());
        return Err(
            failure.because("this instance was not of blue when it was recorded; delete it by hand if it may go")
        );
    }
    if instance.status.0 != "deleting" {
        asked_to_delete(rds.delete_instance(id).await, doing())?;
    }
    Ok(Look::NotYet(format!("{id} is being deleted")))
}

/// The ledger goes last, and only where no verdict is open.
async fn remove_schema(cx: &Context<'_>) -> Result<SchemaRemoved, Failure> {
    let ledger = fresh_job(cx, "ledger", Side::Green, &LedgerStatus {}, SHORT_JOB).await?;
    if ledger.open_verdicts > 0 {
        cx.warn(codes::LEDGER_KEPT, format!("{} verdicts are open", ledger.open_verdicts));
    }
    let removed = job(cx, "remove-schema", Side::Green, &RemoveSchema {}, SHORT_JOB).await?;
    for (database, why) in &removed.kept {
        cx.warn(codes::LEDGER_KEPT, format!("the ledger stays in {database}: {why}"));
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_renamed_cluster_is_the_old_one() {
        assert!(is_old_name("orders-old1", "orders"));
        assert!(is_old_name("orders-old12", "orders"));
        for name in ["orders", "orders-old", "orders-olds1", "orders-old1x", "billing-old1", "orders-2-old1"] {
            assert!(!is_old_name(name, "orders"), "{name}");
        }
    }
}
