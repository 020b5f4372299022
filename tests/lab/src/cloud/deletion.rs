//! `DeleteDBInstance` and `DeleteDBCluster`: what the service insists on, and the servers really gone.

use std::sync::Arc;

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{ClusterId, Endpoints, InstanceId, Tags};
use crate::cloud::{Cloud, account, clusters, describe, snapshots};
use crate::faults::Quota;
use crate::fleet::Server;
use crate::wire::xml::Element;

pub(crate) fn instance(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBInstanceIdentifier")?;
    if params.get("FinalDBSnapshotIdentifier").is_some() {
        return Err(Refusal::combination(
            "FinalDBSnapshotIdentifier cannot be specified when deleting a cluster instance",
        ));
    }
    let mut state = cloud.state();
    let instance = state.instance(&identifier)?;
    let (id, cluster) = (instance.id.clone(), instance.cluster.clone());
    if instance.status == "deleting" {
        return Err(Refusal::instance_state(format!("Instance {identifier} is already being deleted.")));
    }
    if let Some(deployment) = state.deployment_of(&cluster)
        && matches!(deployment.status.as_str(), "PROVISIONING" | "SWITCHOVER_IN_PROGRESS")
    {
        return Err(Refusal::instance_state(format!(
            "Instance {identifier} is part of blue/green deployment {}",
            deployment.identifier
        )));
    }
    let of = state.clusters.get(&cluster);
    if of.is_some_and(|c| c.writer == id && c.source.is_some() && c.readers.is_empty()) {
        return Err(Refusal::cluster_state("Cannot delete the last instance of the read replica DB cluster."));
    }
    let of_writer = of.is_some_and(|c| c.writer == id && !c.readers.is_empty());
    let instance = state.instance_mut(&identifier)?;
    instance.status = "deleting".to_owned();
    let answer = describe::instance(cloud, &state, state.instance(&identifier)?);
    drop(state);
    let task = cloud.clone();
    cloud.spawn(async move { remove_instance(&task, &id, of_writer).await });
    Ok(Some(Element::new("").child(answer)))
}

/// Ends an instance. `of_writer`: it is the writer and readers are left, which then need a new one.
async fn remove_instance(cloud: &Cloud, id: &InstanceId, of_writer: bool) {
    cloud.clock().sleep(cloud.settings().timings.delete).await;
    if of_writer {
        // The storage is the cluster's: a reader takes over, the old writer becomes a reader and goes.
        let cluster = cloud.state().instances.get(id).map(|i| i.cluster.clone()).unwrap_or_default();
        if let Err(error) = clusters::fail_over(cloud, &cluster, 0).await {
            tracing::warn!(instance = %id, error = format!("{error:#}"), "no reader took over from a deleted writer");
        }
    }
    let (server, cluster) = {
        let mut state = cloud.state();
        let Some(instance) = state.instances.get_mut(id) else { return };
        (instance.server.take(), instance.cluster.clone())
    };
    cloud.publish();
    // The last member's data is the cluster's storage: it stays for the final snapshot and goes with the cluster.
    let last = {
        let mut state = cloud.state();
        let members = state.clusters.get(&cluster).map_or(0, |c| c.members().count());
        if members == 1
            && let (Some(c), Some(server)) = (state.clusters.get_mut(&cluster), server.as_ref())
        {
            c.storage = Some(Arc::clone(server));
        }
        members == 1
    };
    if let Some(server) = server {
        let gone = if last { server.stop(crate::fleet::Stop::Fast).await } else { server.remove().await };
        if let Err(error) = gone {
            tracing::warn!(instance = %id, error = error.chain(), "a deleted server did not go");
        }
    }
    let mut state = cloud.state();
    let gone = state.instances.remove(id).map(|i| i.identifier);
    if let Some(cluster) = state.clusters.get_mut(&cluster) {
        cluster.readers.retain(|reader| reader != id);
        if cluster.writer == *id {
            cluster.writer.clear();
        }
    }
    if let Some(gone) = gone {
        let now = cloud.clock().now();
        state.instance_event(now, &gone, "deletion", "DB instance deleted");
    }
}

pub(crate) fn cluster(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBClusterIdentifier")?;
    let skip = params.flag("SkipFinalSnapshot")?.unwrap_or(false);
    let last = params.get("FinalDBSnapshotIdentifier");
    let last = last.map(|_| params.new_identifier("FinalDBSnapshotIdentifier", 255)).transpose()?;
    if !skip && last.is_none() {
        return Err(Refusal::combination(
            "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.",
        ));
    }
    if skip && last.is_some() {
        return Err(Refusal::combination(
            "FinalDBSnapshotIdentifier cannot be specified when SkipFinalSnapshot is true.",
        ));
    }
    let mut state = cloud.state();
    let cluster = state.cluster(&identifier)?;
    if cluster.deletion_protection {
        let text = "Cannot delete protected Cluster, please disable deletion protection and try again.";
        return Err(Refusal::combination(text));
    }
    if cluster.members().next().is_some() {
        return Err(Refusal::cluster_state(
            "Cluster cannot be deleted, it still contains DB instances in non-deleting state.",
        ));
    }
    if cluster.status != "available" {
        return Err(Refusal::cluster_state(format!("DB cluster {identifier} is not in available state")));
    }
    if let Some(name) = &last
        && state.snapshots.contains_key(name)
    {
        let text = format!("Cannot create the snapshot because a snapshot with the identifier {name} already exists.");
        return Err(Refusal::new("DBClusterSnapshotAlreadyExistsFault", 400, text));
    }
    if last.is_some() {
        account::has_room(&state, cloud.faults(), Quota::ClusterSnapshots, 1)?;
    }
    let id = cluster.id.clone();
    if let Some(cluster) = state.clusters.get_mut(&id) {
        cluster.status = "deleting".to_owned();
        cluster.endpoints = Endpoints::None;
    }
    let answer = describe::cluster(cloud, &state, state.cluster(&identifier)?);
    drop(state);
    cloud.publish();
    let task = cloud.clone();
    cloud.spawn(async move { remove_cluster(&task, &id, last).await });
    Ok(Some(Element::new("").child(answer)))
}

/// Takes the final snapshot if one is wanted, and ends what is left of a cluster without members.
async fn remove_cluster(cloud: &Cloud, id: &ClusterId, last: Option<String>) {
    let storage = cloud.state().clusters.get_mut(id).and_then(|c| c.storage.take());
    if let Some(name) = last {
        final_snapshot(cloud, id, &name, storage.as_deref()).await;
    }
    if let Some(storage) = storage
        && let Err(error) = storage.remove().await
    {
        tracing::warn!(cluster = %id, error = error.chain(), "a deleted cluster's storage did not go");
    }
    cloud.clock().sleep(cloud.settings().timings.delete).await;
    let mut state = cloud.state();
    state.custom_endpoints.retain(|_, endpoint| endpoint.cluster != *id);
    if let Some(gone) = state.clusters.remove(id) {
        let now = cloud.clock().now();
        state.cluster_event(now, &gone.identifier, "deletion", "DB cluster deleted");
    }
}

/// The storage outlives its last member: its server is started once more for a real base copy.
async fn final_snapshot(cloud: &Cloud, id: &ClusterId, name: &str, storage: Option<&Server>) {
    let Some(storage) = storage else { return };
    if let Err(error) = snapshots::begin_final(cloud, name, id, Tags::new()) {
        tracing::warn!(snapshot = name, %error, "the final snapshot was not begun");
        return;
    }
    if let Err(error) = storage.start().await {
        tracing::warn!(
            snapshot = name,
            error = error.chain(),
            "the storage could not be opened for the final snapshot"
        );
    }
    snapshots::copy_of(cloud, name, storage).await;
}

/// Ends a whole cluster at once: a green that is deleted with its deployment.
pub(crate) async fn whole_cluster(cloud: &Cloud, id: &ClusterId) {
    let members: Vec<InstanceId> =
        cloud.state().clusters.get(id).map(|c| c.members().cloned().collect()).unwrap_or_default();
    for member in &members {
        if let Some(instance) = cloud.state().instances.get_mut(member) {
            instance.status = "deleting".to_owned();
        }
    }
    for member in members.iter().rev() {
        remove_instance(cloud, member, false).await;
    }
    if let Some(cluster) = cloud.state().clusters.get_mut(id) {
        cluster.endpoints = Endpoints::None;
        cluster.status = "deleting".to_owned();
    }
    cloud.publish();
    remove_cluster(cloud, id, None).await;
}
