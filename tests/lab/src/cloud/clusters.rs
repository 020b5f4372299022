//! Changing clusters: `ModifyDBCluster`, `FailoverDBCluster`, `PromoteReadReplicaDBCluster`.

use anyhow::Context;

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::groups::Kind;
use crate::cloud::params::Params;
use crate::cloud::state::{State, family};
use crate::cloud::{Cloud, account, describe, servers};
use crate::mechanics::{Side, green, replica};
use crate::status::life;
use crate::wire::xml::Element;

pub(crate) fn modify(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBClusterIdentifier")?;
    cloud.state().cluster(&identifier)?;
    account::has_what_is_named(params, Kind::Cluster)?;
    if let Some(name) = params.get("NewDBClusterIdentifier").filter(|name| cloud.state().cluster(name).is_ok()) {
        return Err(Refusal::new("DBClusterAlreadyExistsFault", 400, format!("DB Cluster already exists: {name}")));
    }
    if let Some(group) = params.get("DBInstanceParameterGroupName") {
        cloud.state().instance_group(group)?;
    }
    for unserved in ["NewDBClusterIdentifier", "EngineVersion", "Port", "MasterUserPassword"] {
        if params.get(unserved).is_some() {
            return Err(Refusal::combination(format!("This lab does not serve {unserved} of ModifyDBCluster.")));
        }
    }
    let mut changed_group = None;
    {
        let mut state = cloud.state();
        let cluster = state.cluster(&identifier)?;
        let (id, status, in_switchover) =
            (cluster.id.clone(), cluster.status.clone(), in_switchover(&state, &cluster.id));
        if status != "available" || in_switchover {
            return Err(Refusal::cluster_state(format!("DB cluster {identifier} is not in available state")));
        }
        if let Some(name) = params.get("DBClusterParameterGroupName").map(str::to_lowercase) {
            let group = state.cluster_group(&name).map_err(|_| Refusal::cluster_group_not_found(&name))?;
            let wanted = family(state.cluster(&identifier)?.major());
            if group.family != wanted {
                let text = "can't be used for this cluster. Please use a parameter group with DBParameterGroupFamily";
                return Err(Refusal::combination(format!(
                    "The parameter group {name} with DBParameterGroupFamily {} {text} {wanted}",
                    group.family
                )));
            }
            if let Some(cluster) = state.clusters.get_mut(&id)
                && cluster.group != name
            {
                cluster.group.clone_from(&name);
                changed_group = Some(name.clone());
            }
            if changed_group.is_some() {
                servers::group_changed(&mut state, Kind::Cluster, &name, true);
            }
        }
        if let (Some(on), Some(cluster)) = (params.flag("DeletionProtection")?, state.clusters.get_mut(&id)) {
            cluster.deletion_protection = on;
        }
    }
    if let Some(name) = changed_group {
        servers::apply_dynamic(cloud, Kind::Cluster, &name);
    }
    let state = cloud.state();
    let cluster = state.cluster(&identifier)?;
    Ok(Some(Element::new("").child(describe::cluster(cloud, &state, cluster))))
}

/// Members cannot be modified while they are switched over.
pub(crate) fn in_switchover(state: &State, cluster: &str) -> bool {
    state.deployment_of(cluster).is_some_and(|d| d.status == "SWITCHOVER_IN_PROGRESS")
}

pub(crate) fn failover(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBClusterIdentifier")?;
    let mut state = cloud.state();
    let cluster = state.cluster(&identifier)?;
    if cluster.status != "available" || in_switchover(&state, &cluster.id) {
        return Err(Refusal::cluster_state(format!("DB cluster {identifier} is not in available state")));
    }
    if cluster.readers.is_empty() {
        return Err(Refusal::cluster_state(format!("DB cluster {identifier} has no reader to fail over to")));
    }
    let reader = match params.get("TargetDBInstanceIdentifier") {
        None => 0,
        Some(target) => {
            let target = state.instance(target)?.id.clone();
            cluster.readers.iter().position(|id| *id == target).ok_or_else(|| {
                Refusal::instance_state(format!("{target} is not a reader of DB cluster {identifier}"))
            })?
        }
    };
    let id = cluster.id.clone();
    if let Some(cluster) = state.clusters.get_mut(&id) {
        cluster.status = "failing-over".to_owned();
    }
    let now = cloud.clock().now();
    state.cluster_event(
        now,
        &identifier,
        "failover",
        format!("Started cross AZ failover to DB instance of {identifier}"),
    );
    let answer = describe::cluster(cloud, &state, state.cluster(&identifier)?);
    drop(state);
    let task = cloud.clone();
    cloud.spawn(async move { carry_out_failover(&task, &id, reader).await });
    Ok(Some(Element::new("").child(answer)))
}

/// A failover from its beginning to its end, whoever asked for it.
pub(crate) async fn carry_out_failover(cloud: &Cloud, id: &str, reader: usize) {
    if let Some(cluster) = cloud.state().clusters.get_mut(id) {
        cluster.status = "failing-over".to_owned();
    }
    if let Err(error) = fail_over(cloud, id, reader).await {
        tracing::error!(cluster = %id, error = format!("{error:#}"), "the failover did not succeed");
    }
    let mut state = cloud.state();
    if let Some(cluster) = state.clusters.get_mut(id) {
        cluster.status = "available".to_owned();
        let identifier = cluster.identifier.clone();
        let now = cloud.clock().now();
        state.cluster_event(now, &identifier, "failover", format!("Completed failover of DB cluster {identifier}"));
    }
}

/// Makes a reader the writer: servers, endpoints, replication to green, and what the servers say of themselves.
pub(crate) async fn fail_over(cloud: &Cloud, id: &str, reader: usize) -> anyhow::Result<()> {
    let (side, live) = {
        let state = cloud.state();
        let side = side(&state, id).context("the cluster has no servers")?;
        (side, state.deployment_of(id).and_then(|d| d.live.clone()))
    };
    let side = replica::failover(&side, reader).await?;
    {
        let mut state = cloud.state();
        let cluster = state.clusters.get_mut(id).context("the cluster is gone")?;
        let promoted = cluster.readers.remove(reader);
        let demoted = std::mem::replace(&mut cluster.writer, promoted);
        cluster.readers.insert(reader, demoted);
    }
    cloud.publish();
    if let Some(live) = live {
        live.replace_side(&side);
        green::repoint(&live.sides()).await?;
    }
    life::tell(cloud, &[id]);
    Ok(())
}

/// The servers of a cluster.
pub(crate) fn side(state: &State, id: &str) -> Option<Side> {
    let cluster = state.clusters.get(id)?;
    let server = |id: &String| state.instances.get(id).and_then(|i| i.server.clone());
    Some(Side { writer: server(&cluster.writer)?, readers: cluster.readers.iter().filter_map(server).collect() })
}

/// Turns a kept green into a standalone cluster; of a green inside a live deployment it breaks the replication.
pub(crate) fn promote(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBClusterIdentifier")?;
    let mut state = cloud.state();
    let cluster = state.cluster(&identifier)?;
    if cluster.source.is_none() {
        return Err(Refusal::cluster_state(format!("DB cluster {identifier} is not a read replica cluster")));
    }
    if in_switchover(&state, &cluster.id) {
        return Err(Refusal::cluster_state(format!("DB cluster {identifier} is not in available state")));
    }
    let id = cluster.id.clone();
    let (mut live, mut broken) = (None, None);
    if let Some(deployment) = state.deployments.values_mut().find(|d| d.green.as_ref() == Some(&id)) {
        deployment.status = "INVALID_CONFIGURATION".to_owned();
        deployment.details = Some(format!("The target cluster {identifier} was promoted."));
        live = deployment.live.take();
        broken = Some(deployment.identifier.clone());
    }
    if let Some(cluster) = state.clusters.get_mut(&id) {
        cluster.source = None;
    }
    let answer = describe::cluster(cloud, &state, state.cluster(&identifier)?);
    drop(state);
    if let Some(deployment) = broken {
        life::enter(cloud, &deployment, None);
    }
    let task = cloud.clone();
    cloud.spawn(async move {
        if let Some(live) = live
            && let Err(error) = crate::cloud::provision::make_standalone(&task, &live).await
        {
            tracing::warn!(error = format!("{error:#}"), "a promoted green was not freed");
        }
    });
    Ok(Some(Element::new("").child(answer)))
}
