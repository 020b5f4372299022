//! Cluster snapshots: real base copies of the writer, kept until they are deleted.

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{Snapshot, Tags};
use crate::cloud::versions::ENGINE;
use crate::cloud::{Cloud, account, tags};
use crate::faults::Quota;
use crate::fleet::Server;
use crate::mechanics::snapshot;
use crate::settings::{MASTER_USER, REGION};
use crate::wire::xml::Element;

pub(crate) fn create(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let name = params.new_identifier("DBClusterSnapshotIdentifier", 63)?;
    let cluster = params.identifier("DBClusterIdentifier")?;
    let answer = begin(cloud, &name, &cluster, params.tags())?;
    let task = cloud.clone();
    cloud.spawn(async move { copy(&task, &name).await });
    Ok(Some(Element::new("").child(answer)))
}

/// Notes a snapshot that is being made of a cluster that serves.
fn begin(cloud: &Cloud, name: &str, cluster: &str, tags: Tags) -> Answer<Element> {
    let id = {
        let state = cloud.state();
        let of = state.cluster(cluster)?;
        if of.status != "available" || of.writer.is_empty() {
            return Err(Refusal::cluster_state(format!("DB cluster {cluster} is not in available state")));
        }
        of.id.clone()
    };
    begin_final(cloud, name, &id, tags)
}

/// Notes a snapshot that is being made, also of a cluster that is on its way out.
pub(crate) fn begin_final(cloud: &Cloud, name: &str, id: &str, tags: Tags) -> Answer<Element> {
    let mut state = cloud.state();
    let of = state.clusters.get(id).ok_or_else(|| Refusal::cluster_not_found(id))?;
    if state.snapshots.contains_key(name) {
        let text = format!("Cannot create the snapshot because a snapshot with the identifier {name} already exists.");
        return Err(Refusal::new("DBClusterSnapshotAlreadyExistsFault", 400, text));
    }
    account::has_room(&state, cloud.faults(), Quota::ClusterSnapshots, 1)?;
    let now = cloud.clock().now();
    let identifier = of.identifier.clone();
    let snapshot = Snapshot {
        identifier: name.to_owned(),
        cluster_id: of.id.clone(),
        cluster_identifier: of.identifier.clone(),
        cluster_created: of.created,
        version: of.version.clone(),
        port: of.network.port,
        status: "creating".to_owned(),
        percent: 0,
        created: now,
        tags,
        folder: None,
    };
    let answer = element(&snapshot);
    state.snapshots.insert(name.to_owned(), snapshot);
    state.cluster_event(now, &identifier, "backup", format!("Creating manual cluster snapshot {name}"));
    Ok(answer)
}

/// Takes the base copy of a snapshot that was begun.
async fn copy(cloud: &Cloud, name: &str) {
    let server = {
        let state = cloud.state();
        let of = state.snapshots.get(name).map(|s| s.cluster_id.clone()).unwrap_or_default();
        state.writer_server(&of)
    };
    match server {
        Some(server) => copy_of(cloud, name, &server).await,
        None => settle(cloud, name, Err(anyhow::anyhow!("the cluster has no writer"))),
    }
}

/// The same from a server that is at hand.
pub(crate) async fn copy_of(cloud: &Cloud, name: &str, server: &Server) {
    let copied = async {
        let fleet = cloud.fleet(&[]).await?;
        Ok(snapshot::take(&fleet, server, &format!("snapshot-{name}"), cloud.stopping()).await?)
    };
    let outcome = copied.await;
    cloud.clock().sleep(cloud.settings().timings.snapshot).await;
    settle(cloud, name, outcome);
}

fn settle(cloud: &Cloud, name: &str, outcome: anyhow::Result<snapshot::Snapshot>) {
    let mut state = cloud.state();
    let Some(snapshot) = state.snapshots.get_mut(name) else { return };
    let now = cloud.clock().now();
    match outcome {
        Ok(copy) => {
            snapshot.folder = Some(copy.folder);
            snapshot.status = "available".to_owned();
            snapshot.percent = 100;
            let cluster = snapshot.cluster_identifier.clone();
            state.cluster_event(now, &cluster, "backup", format!("Manual cluster snapshot created: {name}"));
        }
        Err(error) => {
            tracing::warn!(snapshot = name, error = format!("{error:#}"), "a snapshot failed");
            snapshot.status = "failed".to_owned();
        }
    }
}

pub(crate) fn describe(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let state = cloud.state();
    let filters = params.filters(&["db-cluster-id", "db-cluster-snapshot-id", "snapshot-type", "engine"])?;
    let name = params.get("DBClusterSnapshotIdentifier").map(str::to_lowercase);
    if let Some(name) = &name
        && !state.snapshots.values().any(|s| s.identifier == *name || s.arn() == *name)
    {
        return Err(Refusal::snapshot_not_found(name));
    }
    let cluster = params.get("DBClusterIdentifier").map(str::to_lowercase);
    let automated = params.get("SnapshotType").is_some_and(|kind| kind != "manual");
    let found: Vec<&Snapshot> = state
        .snapshots
        .values()
        .filter(|_| !automated)
        .filter(|s| name.as_ref().is_none_or(|n| *n == s.identifier || *n == s.arn()))
        .filter(|s| cluster.as_ref().is_none_or(|c| *c == s.cluster_identifier))
        .filter(|s| params.get("DbClusterResourceId").is_none_or(|id| id == s.cluster_id))
        .filter(|s| {
            filters.iter().all(|(filter, values)| match filter.as_str() {
                "db-cluster-id" => values.contains(&s.cluster_identifier),
                "db-cluster-snapshot-id" => values.contains(&s.identifier),
                "snapshot-type" => values.iter().any(|v| v == "manual"),
                _ => values.iter().any(|v| v == ENGINE),
            })
        })
        .collect();
    let (page, marker) = params.page(found, 100)?;
    Ok(Some(Element::new("").maybe("Marker", marker).list("DBClusterSnapshots", page.into_iter().map(element))))
}

pub(crate) async fn delete(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let name = params.identifier("DBClusterSnapshotIdentifier")?;
    let snapshot = {
        let mut state = cloud.state();
        let snapshot = state.snapshots.get(&name).ok_or_else(|| Refusal::snapshot_not_found(&name))?;
        if snapshot.status == "creating" {
            let text = format!("Snapshot {name} is not in the available state");
            return Err(Refusal::new("InvalidDBClusterSnapshotStateFault", 400, text));
        }
        state.snapshots.remove(&name)
    };
    let Some(mut snapshot) = snapshot else { return Err(Refusal::snapshot_not_found(&name)) };
    if let Some(folder) = &snapshot.folder {
        snapshot::delete(folder).await.map_err(|error| Refusal::internal(error.chain()))?;
    }
    snapshot.status = "deleted".to_owned();
    Ok(Some(Element::new("").child(element(&snapshot))))
}

fn element(s: &Snapshot) -> Element {
    Element::new("DBClusterSnapshot")
        .list("AvailabilityZones", [Element::text("AvailabilityZone", format!("{REGION}a"))])
        .with("DBClusterSnapshotIdentifier", &s.identifier)
        .with("DBClusterIdentifier", &s.cluster_identifier)
        .at("SnapshotCreateTime", s.created)
        .with("Engine", ENGINE)
        .with("EngineMode", "provisioned")
        .with("AllocatedStorage", 1)
        .with("Status", &s.status)
        .with("Port", s.port)
        .at("ClusterCreateTime", s.cluster_created)
        .with("MasterUsername", MASTER_USER)
        .with("EngineVersion", &s.version)
        .with("LicenseModel", "postgresql-license")
        .with("SnapshotType", "manual")
        .with("PercentProgress", s.percent)
        .with("StorageEncrypted", true)
        .with("DBClusterSnapshotArn", s.arn())
        .with("IAMDatabaseAuthenticationEnabled", false)
        .list("TagList", tags::elements(&s.tags))
        .with("DbClusterResourceId", &s.cluster_id)
}
