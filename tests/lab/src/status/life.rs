//! The life of what servers tell about a deployment: when each status is told, which rows there are, and under which names
//! members answer. The truth is the account's; faults bend only what is told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Flavour, Identity, MetadataRow, Role, Status};
use crate::cloud::Cloud;
use crate::cloud::state::{Cluster, ClusterId, Deployment, InstanceId, State};
use crate::faults::Fault;
use crate::names::Zone;

/// What is told about one deployment.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// How far it is; `None` before it is available and after its rows have gone.
    status: Option<Status>,
    /// What the rows say.
    told: Option<Status>,
    stamp: String,
    /// What members and endpoints are called in what is told, while that is not yet what they are called.
    known_as: Option<Names>,
    /// What blue goes on telling by itself after it was detached.
    frozen: Option<Vec<MetadataRow>>,
}

#[derive(Debug)]
struct Names {
    members: BTreeMap<InstanceId, String>,
    endpoints: BTreeMap<ClusterId, String>,
}

/// The deployment is at `status` from now on, or has no rows any more. Told on return, unless a fault says otherwise.
pub(crate) fn enter(cloud: &Cloud, deployment: &str, status: Option<Status>) {
    {
        let mut state = cloud.state();
        let flavour = flavour(&state, deployment);
        let frozen = match (status, state.deployment(deployment)) {
            (Some(Status::SwitchoverCompleted), Ok(found)) if flavour == Flavour::Rds => {
                Some(rows(cloud.zone(), &state, found))
            }
            _ => None,
        };
        let Ok(found) = state.deployment_mut(deployment) else { return };
        if found.story.status == status {
            return;
        }
        found.story.status = status;
        found.story.frozen = found.story.frozen.take().or(frozen);
    }
    let seen = bent(cloud, status);
    let late = cloud.faults().standing(|fault| match fault {
        Fault::StatusLate { millis } => Some(Duration::from_millis(*millis)),
        _ => None,
    });
    match late {
        None => show(cloud, deployment, seen),
        Some(late) => {
            let (task, deployment) = (cloud.clone(), deployment.to_owned());
            cloud.spawn(async move {
                task.clock().sleep(late).await;
                show(&task, &deployment, seen);
            });
        }
    }
}

/// What is to be told of a status.
fn bent(cloud: &Cloud, status: Option<Status>) -> Option<Status> {
    cloud
        .faults()
        .standing(|fault| match fault {
            Fault::StatusAbsent => Some(None),
            Fault::StatusStuck { status: stuck } => Some(status.map(|status| status.min(*stuck))),
            _ => None,
        })
        .unwrap_or(status)
}

fn show(cloud: &Cloud, deployment: &str, seen: Option<Status>) {
    let stamp = cloud.clock().now().to_string();
    let sides = {
        let mut state = cloud.state();
        let Ok(found) = state.deployment_mut(deployment) else { return };
        (found.story.told, found.story.stamp) = (seen, stamp);
        [found.blue.clone(), found.green.clone().unwrap_or_default()]
    };
    tell(cloud, &[&sides[0], &sides[1]]);
}

/// Members and endpoints go on being told under the names that they have now, until [`new_names`].
pub(crate) fn keep_names(zone: &Zone, state: &mut State, deployment: &str) {
    let Ok(found) = state.deployment(deployment) else { return };
    let sides = [Some(&found.blue), found.green.as_ref()].into_iter().flatten();
    let clusters: Vec<&Cluster> = sides.filter_map(|id| state.clusters.get(id)).collect();
    let members = (clusters.iter().flat_map(|cluster| cluster.members()))
        .filter_map(|id| Some((id.clone(), state.instances.get(id)?.identifier.clone())))
        .collect();
    let endpoints =
        clusters.iter().filter_map(|cluster| Some((cluster.id.clone(), endpoint(zone, state, cluster)?))).collect();
    if let Ok(found) = state.deployment_mut(deployment) {
        found.story.known_as = Some(Names { members, endpoints });
    }
}

/// Everything is told under the name that it has.
pub(crate) fn new_names(cloud: &Cloud, deployment: &str) {
    let sides = {
        let mut state = cloud.state();
        let Ok(found) = state.deployment_mut(deployment) else { return };
        found.story.known_as = None;
        [found.blue.clone(), found.green.clone().unwrap_or_default()]
    };
    tell(cloud, &[&sides[0], &sides[1]]);
}

/// Has the servers of these clusters tell what is so now.
pub(crate) fn tell(cloud: &Cloud, clusters: &[&str]) {
    // Written under the account's lock, so that what is newer is written later.
    let state = cloud.state();
    for cluster in clusters.iter().filter_map(|id| state.clusters.get(*id)) {
        let deployment = state.deployments.values().find(|d| is_side(d, &cluster.id));
        let blue_green = match deployment {
            Some(found) if found.blue == cluster.id && found.story.frozen.is_some() => {
                found.story.frozen.clone().unwrap_or_default()
            }
            Some(found) => rows(cloud.zone(), &state, found),
            None => Vec::new(),
        };
        let known_as = deployment.and_then(|found| found.story.known_as.as_ref());
        let name = |id: &InstanceId, identifier: &str| {
            known_as.and_then(|names| names.members.get(id)).map_or_else(|| identifier.to_owned(), String::clone)
        };
        let members: Vec<_> = cluster.members().filter_map(|id| state.instances.get(id)).collect();
        let topology: Vec<(String, bool)> =
            members.iter().map(|member| (name(&member.id, &member.identifier), member.id == cluster.writer)).collect();
        for member in members {
            let Some(server) = &member.server else { continue };
            let identity = Identity {
                instance: name(&member.id, &member.identifier),
                resource: member.id.clone(),
                topology: topology.clone(),
                blue_green: blue_green.clone(),
                flavour: cluster.flavour,
            };
            if let Err(error) = server.set_identity(identity) {
                tracing::warn!(server = server.name(), error = error.chain(), "a server was not told who it is");
            }
        }
    }
}

fn is_side(deployment: &Deployment, cluster: &str) -> bool {
    deployment.blue == cluster || deployment.green.as_deref() == Some(cluster)
}

fn flavour(state: &State, deployment: &str) -> Flavour {
    let blue = state.deployment(deployment).ok().and_then(|found| state.clusters.get(&found.blue));
    blue.map(|cluster| cluster.flavour).unwrap_or_default()
}

/// One row for each side's writer; at the end only the target's.
fn rows(zone: &Zone, state: &State, deployment: &Deployment) -> Vec<MetadataRow> {
    let Some(status) = deployment.story.told else { return Vec::new() };
    let row = |id: &str, role: Role| {
        let cluster = state.clusters.get(id)?;
        let known_as = deployment.story.known_as.as_ref().and_then(|names| names.endpoints.get(id));
        Some(MetadataRow {
            id: cluster.writer.clone(),
            endpoint: known_as.cloned().or_else(|| endpoint(zone, state, cluster))?,
            port: cluster.network.port,
            role,
            status,
            update_stamp: deployment.story.stamp.clone(),
        })
    };
    let source = row(&deployment.blue, Role::Source).filter(|_| status != Status::SwitchoverCompleted);
    let target = deployment.green.as_deref().and_then(|green| row(green, Role::Target));
    source.into_iter().chain(target).collect()
}

/// What a row calls a side: the writer's cluster endpoint, or the writer itself where there are no clusters.
fn endpoint(zone: &Zone, state: &State, cluster: &Cluster) -> Option<String> {
    match cluster.flavour {
        Flavour::Aurora => Some(zone.cluster(&cluster.identifier)),
        Flavour::Rds => state.instances.get(&cluster.writer).map(|writer| zone.instance(&writer.identifier)),
    }
}
