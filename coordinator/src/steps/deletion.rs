//! Deletes a deployment with green, under the checks of field rule 9.2: whose it is by tag and name, deletion protection off on
//! the exact green only and never on what is recorded as blue, PROVISIONING waited out, and nothing of it left on blue. Serves
//! the undo of provisioning and the leftovers of earlier upgrades.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::{Failure, Look, Wait};
use proto::{jobs::FindLeftovers, side::Side};

use super::{
    codes,
    prerequisites::SHORT_JOB,
    shared::{Context, Recorded, asked_to_delete, fresh_job, poll},
};
use crate::{
    preflight::failed,
    rds::{self, ClusterChange, ClusterResourceId, Deployment, DeploymentId, DeploymentName, DeploymentStatus, Tag},
};

/// A deployment that may be deleted.
pub(super) struct Doomed<'a> {
    pub(super) name: &'a DeploymentName,
    /// Its identity, where it was seen before: another one under the same name is refused.
    pub(super) deployment: Option<&'a DeploymentId>,
    /// It must carry this tag.
    pub(super) owner: Tag,
    /// What must never be deleted.
    pub(super) blue: &'a Recorded,
    /// One that has switched over loses only its object. Else it is refused: an undo must not meet it.
    pub(super) object_only_once_switched: bool,
    /// Green, where it was recorded.
    pub(super) green: Option<ClusterResourceId>,
}

/// Deletes it until AWS shows neither the deployment nor its green.
pub(super) async fn delete_with_green(cx: &Context<'_>, doomed: &Doomed<'_>) -> Result<(), Failure> {
    let deadline = Duration::from_secs(cx.spec().provisioning.seconds_max);
    let wait = Wait { every: poll(cx.spec()), deadline, what: "the deployment and green to be deleted" };
    let green = Mutex::new(doomed.green.clone());
    cx.until(wait, || async {
        if let Some(deployment) = find(cx, doomed).await? {
            if let Some(id) = delete_once(cx, doomed, &deployment).await? {
                *green.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
            }
            return Ok(Look::NotYet(format!("the deployment is {}", deployment.status)));
        }
        let green = green.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(green) = green else { return Ok(Look::There(())) };
        let left = cx.world().rds.cluster_by_resource(&green).await;
        Ok(match left.map_err(|error| failed("looking for green", error))? {
            Some(cluster) => Look::NotYet(format!("{} is {}", cluster.id, cluster.status)),
            None => Look::There(()),
        })
    })
    .await
}

/// Is the deployment gone already?
pub(super) async fn is_gone(cx: &Context<'_>, doomed: &Doomed<'_>) -> Result<Look<()>, Failure> {
    Ok(match find(cx, doomed).await? {
        Some(deployment) => Look::NotYet(format!("the deployment is {}", deployment.status)),
        None => Look::There(()),
    })
}

/// The deployment, refused unless it is the one that is meant.
async fn find(cx: &Context<'_>, doomed: &Doomed<'_>) -> Result<Option<Deployment>, Failure> {
    let Doomed { name, deployment: expected, owner, .. } = doomed;
    let found = cx.world().rds.deployment_by_name(name).await;
    let Some(deployment) = found.map_err(|error| failed(format!("looking for deployment {name}"), error))? else {
        return Ok(None);
    };
    let same = expected.is_none_or(|expected| *expected == deployment.id);
    if same && deployment.tag(&owner.key) == Some(owner.value.as_str()) {
        return Ok(Some(deployment));
    }
    let said = format!("deployment {name} ({}) is not of upgrade {}", deployment.id, owner.value);
    Err(Failure::permanent(codes::NOT_OURS, said))
}

/// One try at deleting; gives green's identity where it could be read.
async fn delete_once(
    cx: &Context<'_>,
    doomed: &Doomed<'_>,
    deployment: &Deployment,
) -> Result<Option<ClusterResourceId>, Failure> {
    use DeploymentStatus as S;
    let rds = &*cx.world().rds;
    if matches!(deployment.status, S::Provisioning | S::Deleting | S::SwitchoverInProgress) {
        return Ok(None);
    }
    // Once switched over the target has the production name: AWS refuses to delete it, and so do we.
    let switched = doomed.object_only_once_switched && deployment.status == S::SwitchoverCompleted;
    let mut green = None;
    if let Some(arn) = deployment.target_cluster().filter(|_| !switched) {
        let doing = || format!("reading green {arn}");
        if let Some(cluster) = rds::found(rds.cluster_by_arn(&arn).await).map_err(|error| failed(doing(), error))? {
            if cluster.resource_id == doomed.blue.resource_id || arn == doomed.blue.arn {
                return Err(Failure::permanent(codes::IDENTITY_CHANGED, doing()).because("it is recorded as blue"));
            }
            if cluster.deletion_protection {
                let off = ClusterChange {
                    deletion_protection: Some(false),
                    apply_immediately: true,
                    ..ClusterChange::default()
                };
                let answer = rds.modify_cluster(&cluster.id, &off).await;
                answer.map_err(|error| failed(format!("turning deletion protection of {arn} off"), error))?;
            }
            green = Some(cluster.resource_id);
        }
    }
    let deleting = rds.delete_deployment(&deployment.id, !switched).await;
    asked_to_delete(deleting, format!("deleting deployment {}", deployment.id))?;
    Ok(green)
}

/// No slot, publication or subscription of the deployment may be left on blue: a slot that is left fills its disk.
pub(super) async fn nothing_left_on_blue(cx: &Context<'_>) -> Result<(), Failure> {
    let left = fresh_job(cx, "leftovers", Side::Blue, &FindLeftovers {}, SHORT_JOB).await?;
    if left.is_empty() {
        return Ok(());
    }
    let failure = Failure::permanent(codes::SLOT_LEFT, "looking for what the deployment left on blue");
    Err(left.into_iter().fold(failure, |failure, leftover| {
        let retained =
            leftover.retained_bytes.map(|bytes| format!(", holding {bytes} bytes of WAL")).unwrap_or_default();
        failure.because(format!("{} {}{retained}", leftover.kind, leftover.name))
    }))
}
