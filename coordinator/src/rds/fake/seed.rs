//! Makes what a test starts from: a cluster that has been running for long, in sync with its groups.

use std::collections::BTreeMap;

use super::Fake;
use super::catalogue;
use super::world::*;
use crate::rds::*;

/// A cluster that is already there.
#[derive(Clone, Debug)]
pub struct NewCluster {
    pub id: ClusterId,
    pub version: Version,
    pub readers: usize,
    /// Parameters that the user has set in a cluster group of the user's own; empty leaves AWS's default group.
    pub cluster_parameters: Vec<(String, String)>,
    /// As above, for the instances.
    pub instance_parameters: Vec<(String, String)>,
    pub deletion_protection: bool,
    pub custom_endpoints: Vec<String>,
    pub tags: Vec<Tag>,
}

impl NewCluster {
    /// A protected cluster with one reader, user-set parameters on both levels, and logical replication off.
    pub fn named(id: &str, version: &str) -> Self {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            id: id.into(),
            version: version.into(),
            readers: 1,
            cluster_parameters: vec![set("log_statement", "none"), set("work_mem", "65536")],
            instance_parameters: vec![set("autovacuum_naptime", "10")],
            deletion_protection: true,
            custom_endpoints: Vec::new(),
            tags: vec![Tag::new("team", "orders")],
        }
    }
}

impl Fake {
    /// Adds a cluster; its instances are `ID-1` (the writer), `ID-2` … and its groups `ID-cluster` and `ID-instance`.
    pub fn add_cluster(&self, new: NewCluster) -> Cluster {
        let mut inner = self.settled();
        let world = &mut inner.world;
        let cluster_group = own_group(world, GroupScope::Cluster, &new, &new.cluster_parameters);
        let instance_group = own_group(world, GroupScope::Instance, &new, &new.instance_parameters);
        let cluster = blank_cluster(world, &new, cluster_group);
        let resource = cluster.resource_id.clone();
        world.clusters.insert(resource.clone(), cluster);
        world.rename_cluster(&resource, &new.id);
        for n in 0..=new.readers {
            let id = InstanceId::new(format!("{}-{}", new.id, n + 1));
            add_instance(world, &resource, &id, n == 0, &instance_group);
        }
        let cluster = world.clusters[&resource].clone();
        world.told(&cluster)
    }
}

fn own_group(
    world: &mut World,
    scope: GroupScope,
    new: &NewCluster,
    parameters: &[(String, String)],
) -> ParameterGroupName {
    let family = catalogue::family(&new.version);
    if parameters.is_empty() {
        return default_group_name(&family);
    }
    let suffix = if scope == GroupScope::Cluster { "cluster" } else { "instance" };
    let name = ParameterGroupName::new(format!("{}-{suffix}", new.id));
    let known = catalogue::parameters(scope, &family);
    let method = |name: &str| {
        let parameter = known.iter().find(|p| p.name == name);
        parameter.and_then(|p| p.apply_method).unwrap_or(ApplyMethod::PendingReboot)
    };
    let set = parameters.iter().map(|(name, value)| (name.clone(), (value.clone(), method(name))));
    let set: BTreeMap<_, _> = set.collect();
    let arn = group_arn(scope, &name);
    let group = ParameterGroup { scope, name: name.clone(), arn, family, description: "the user's own".into() };
    world.groups.insert((scope, name.clone()), Group { group, set, tags: Vec::new() });
    name
}

fn blank_cluster(world: &mut World, new: &NewCluster, group: ParameterGroupName) -> Cluster {
    Cluster {
        id: new.id.clone(),
        arn: cluster_arn(&new.id),
        resource_id: ClusterResourceId::new(format!(
            "cluster-{}",
            world.fresh(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 26)
        )),
        engine: catalogue::ENGINE.into(),
        engine_version: new.version.clone(),
        status: available(),
        parameter_group: group,
        endpoint: None,
        reader_endpoint: None,
        custom_endpoints: new.custom_endpoints.clone(),
        port: Some(5432),
        members: Vec::new(),
        deletion_protection: new.deletion_protection,
        iam_database_authentication: false,
        master_username: Some("postgres".into()),
        master_user_secret: None,
        global_cluster: None,
        replication_source: None,
        activity_stream_status: Some("stopped".into()),
        serverless_v2: false,
        storage_encrypted: true,
        backup_retention_days: Some(7),
        latest_restorable_time: None,
        preferred_maintenance_window: Some("sun:05:00-sun:05:30".into()),
        auto_minor_version_upgrade: Some(false),
        pending: Vec::new(),
        tags: new.tags.clone(),
    }
}

fn add_instance(
    world: &mut World,
    cluster: &ClusterResourceId,
    id: &InstanceId,
    is_writer: bool,
    group: &ParameterGroupName,
) {
    let resource = InstanceResourceId::new(format!("db-{}", world.fresh(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 26)));
    let owner = world.clusters.get_mut(cluster).expect("made just before");
    let instance = Instance {
        id: id.clone(),
        arn: resource_arn("db", id.as_str()),
        resource_id: resource.clone(),
        cluster: Some(owner.id.clone()),
        class: "db.r6g.large".into(),
        engine: owner.engine.clone(),
        engine_version: owner.engine_version.clone(),
        status: available(),
        endpoint: Some(instance_endpoint(id)),
        parameter_groups: vec![ParameterGroupUse { name: group.clone(), apply_status: "in-sync".into() }],
        status_infos: Vec::new(),
        promotion_tier: Some(1),
        availability_zone: Some(format!("{REGION}a")),
        iam_database_authentication: false,
        deletion_protection: false,
        preferred_maintenance_window: owner.preferred_maintenance_window.clone(),
        pending: Vec::new(),
        tags: owner.tags.clone(),
    };
    owner.members.push(Member {
        instance: id.clone(),
        is_writer,
        parameter_group_status: "in-sync".into(),
        promotion_tier: Some(1),
    });
    world.instances.insert(resource.clone(), instance);
    world.boot(&resource);
}
