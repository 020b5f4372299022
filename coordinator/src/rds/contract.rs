//! One suite that every implementation of [`Rds`] passes: the fake, and the SDK against the lab, so that the fake cannot drift.
//! It asks through the port alone, waits on values with a deadline and says what it saw last. It panics where it is not met, and
//! is for tests only.
//!
//! Parts can be run alone; [`whole`] runs all of them in order on one cluster and upgrades it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;

use super::*;

/// What the suite is run on: an available Aurora PostgreSQL cluster with a writer, which the suite may upgrade.
#[derive(Clone)]
pub struct Fixture {
    pub rds: Arc<dyn Rds>,
    pub clock: Clock,
    pub cluster: ClusterId,
    /// A higher major version that is offered to it.
    pub target_version: Version,
    /// Between two looks.
    pub every: Duration,
    /// For any one wait.
    pub deadline: Duration,
}

/// A group of ours for each level.
struct Groups {
    cluster: ParameterGroupName,
    instance: ParameterGroupName,
}

impl Fixture {
    async fn until<T: Debug>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<T, Error>,
        done: impl Fn(&T) -> bool,
    ) -> T {
        let began = self.clock.mono();
        loop {
            let seen = look().await.unwrap_or_else(|e| panic!("waiting for {what}: {e}"));
            if done(&seen) {
                return seen;
            }
            let waited = self.clock.mono().since(began);
            assert!(waited < self.deadline, "{what} was not so after {waited:?}; last seen: {seen:#?}");
            self.clock.sleep(self.every).await;
        }
    }

    async fn gone<T: Debug>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<T, Error>) {
        self.until(what, async || found(look().await), |seen| seen.is_none()).await;
    }

    async fn cluster_now(&self) -> Cluster {
        self.rds.cluster(&self.cluster).await.expect("the fixture's cluster is there")
    }
}

#[track_caller]
fn refused<T: Debug>(answer: Result<T, Error>, class: Class, code: &str) {
    let e = answer.expect_err("should have been refused");
    assert_eq!((&e.class, e.code.as_str()), (&class, code), "{e}");
    assert!(!e.message.is_empty(), "{code} came without AWS's words");
}

fn tag() -> Tag {
    Tag::new("upgrade-pilot", "contract")
}

/// Everything, in order. Leaves the cluster upgraded and its old side deleted.
pub async fn whole(fixture: &Fixture) {
    reads(fixture).await;
    not_found(fixture).await;
    snapshots(fixture).await;
    parameter_groups(fixture).await;
    deployment(fixture).await;
}

/// What can be read of a cluster agrees with itself.
pub async fn reads(f: &Fixture) {
    let cluster = f.cluster_now().await;
    assert_eq!(cluster.id, f.cluster);
    assert_eq!(cluster.engine, "aurora-postgresql");
    assert!(cluster.status.is_available() && cluster.writer_endpoint().is_some(), "{cluster:#?}");
    assert_eq!(f.rds.cluster_by_arn(&cluster.arn).await.expect("by ARN").resource_id, cluster.resource_id);
    let by_resource = f.rds.cluster_by_resource(&cluster.resource_id).await.expect("by resource id");
    assert_eq!(by_resource.map(|c| c.id), Some(cluster.id.clone()));
    let all = f.rds.clusters().await.expect("all clusters");
    assert!(all.iter().any(|c| c.resource_id == cluster.resource_id), "not among all clusters");
    let instances = f.rds.instances(&cluster.id).await.expect("instances");
    let mut listed: Vec<_> = instances.iter().map(|i| i.id.clone()).collect();
    let mut members: Vec<_> = cluster.members.iter().map(|m| m.instance.clone()).collect();
    listed.sort();
    members.sort();
    assert_eq!(listed, members, "instances and members differ");
    assert_eq!(cluster.members.iter().filter(|m| m.is_writer).count(), 1);
    for instance in &instances {
        assert!(instance.endpoint.is_some() && instance.cluster.as_ref() == Some(&cluster.id), "{instance:#?}");
        assert_eq!(f.rds.instance(&instance.id).await.expect("one instance").resource_id, instance.resource_id);
    }
    offers(f, &cluster, &instances).await;
    assert!(f.rds.deployments().await.expect("deployments").iter().all(|d| d.source != *cluster.arn.resource()));
    for (what, answer) in [
        ("maintenance", f.rds.pending_maintenance().await.map(drop)),
        ("global clusters", f.rds.global_clusters().await.map(drop)),
        ("integrations", f.rds.integrations().await.map(drop)),
        ("proxies", f.rds.proxies().await.map(drop)),
        ("log files", f.rds.log_files(&instances[0].id, "postgresql").await.map(drop)),
        ("tags", f.rds.tags(cluster.arn.resource()).await.map(drop)),
    ] {
        answer.unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

async fn offers(f: &Fixture, cluster: &Cluster, instances: &[Instance]) {
    let versions = f.rds.engine_versions(&cluster.engine, Some(&cluster.engine_version)).await.expect("versions");
    assert_eq!(versions.len(), 1, "one version was asked for: {versions:#?}");
    let target = versions[0].upgrade_targets.iter().find(|t| t.version == f.target_version);
    assert!(target.is_some_and(|t| t.is_major), "{} is not offered: {versions:#?}", f.target_version);
    let class = instances[0].class.as_str();
    let options = f.rds.orderable_options(&cluster.engine, &f.target_version, Some(class)).await.expect("options");
    assert!(options.iter().any(|o| o.class == class), "{class} is not offered for {}", f.target_version);
}

/// What is not there is `NotFound`, with AWS's code.
pub async fn not_found(f: &Fixture) {
    let rds = &f.rds;
    let (cluster, instance) = (ClusterId::from("no-such"), InstanceId::from("no-such"));
    refused(rds.cluster(&cluster).await, Class::NotFound, "DBClusterNotFoundFault");
    refused(rds.instance(&instance).await, Class::NotFound, "DBInstanceNotFound");
    refused(rds.deployment(&"bgd-nosuchdeploymen".into()).await, Class::NotFound, "BlueGreenDeploymentNotFoundFault");
    assert_eq!(rds.deployment_by_name(&"no-such".into()).await.expect("by name"), None);
    refused(rds.snapshot(&"no-such".into()).await, Class::NotFound, "DBClusterSnapshotNotFoundFault");
    for scope in [GroupScope::Cluster, GroupScope::Instance] {
        let e = rds.parameter_group(scope, &"no-such".into()).await.expect_err("no such group");
        assert!(e.is_not_found(), "{e}");
    }
    assert_eq!(rds.cluster_by_resource(&"cluster-NOSUCH".into()).await.expect("by resource id"), None);
    assert_eq!(rds.instances(&cluster).await.expect("of no cluster"), Vec::new());
}

/// A snapshot is made once, becomes available, keeps its tags, and goes.
pub async fn snapshots(f: &Fixture) {
    let id = SnapshotId::from("contract-snapshot");
    let made = f.rds.create_snapshot(&id, &f.cluster, &[tag()]).await.expect("a snapshot");
    assert_eq!(made.cluster, f.cluster);
    let again = f.rds.create_snapshot(&id, &f.cluster, &[]).await;
    refused(again, Class::AlreadyExists, "DBClusterSnapshotAlreadyExistsFault");
    f.until("the snapshot available", async || f.rds.snapshot(&id).await, |s| s.status.is_available()).await;
    assert!(f.rds.tags(&made.arn).await.expect("its tags").contains(&tag()));
    f.rds.delete_snapshot(&id).await.expect("deleted");
    f.gone("the snapshot", async || f.rds.snapshot(&id).await).await;
}

/// Groups are made, filled past one page, found again, and refused while in use.
pub async fn parameter_groups(f: &Fixture) {
    let cluster = f.cluster_now().await;
    let version = f.rds.engine_versions(&cluster.engine, Some(&cluster.engine_version)).await.expect("versions");
    let groups = make_groups(f, "contract-parameters", &version[0].family).await;
    for (scope, name) in [(GroupScope::Cluster, &groups.cluster), (GroupScope::Instance, &groups.instance)] {
        let group = f.rds.parameter_group(scope, name).await.expect("the group");
        assert_eq!((group.scope, &group.family, group.is_default()), (scope, &version[0].family, false));
        assert!(f.rds.tags(&group.arn).await.expect("its tags").contains(&tag()));
        let defaults = f.rds.parameters(scope, name, None).await.expect("all parameters");
        assert!(defaults.iter().any(|p| p.name == "log_statement"), "{scope:?}: {defaults:#?}");
        let set = f.rds.parameters(scope, name, Some(ParameterSource::User)).await.expect("what is set");
        assert_eq!(set, Vec::new(), "nothing was set yet");
    }
    refused(
        f.rds.create_parameter_group(&new_group(GroupScope::Cluster, &groups.cluster, &version[0].family)).await,
        Class::AlreadyExists,
        "DBParameterGroupAlreadyExists",
    );
    let change = [change("log_statement", "ddl", ApplyMethod::Immediate)];
    f.rds.modify_parameter_group(GroupScope::Cluster, &groups.cluster, &change).await.expect("set");
    let set = f.rds.parameters(GroupScope::Cluster, &groups.cluster, Some(ParameterSource::User)).await.expect("set");
    let set: Vec<_> = set.iter().map(|p| (p.name.as_str(), p.value.as_deref())).collect();
    assert_eq!(set, [("log_statement", Some("ddl"))]);
    let e = f
        .rds
        .modify_parameter_group(
            GroupScope::Cluster,
            &groups.cluster,
            &[self::change("rds.logical_replication", "1", ApplyMethod::Immediate)],
        )
        .await;
    assert_eq!(e.expect_err("a static parameter at once").class, Class::Permanent);
    let defaults = f.rds.default_parameters(GroupScope::Cluster, &version[0].family).await.expect("defaults");
    assert!(defaults.iter().any(|p| p.name == "rds.logical_replication" && p.is_static));
    for (scope, name) in [(GroupScope::Cluster, &groups.cluster), (GroupScope::Instance, &groups.instance)] {
        f.rds.delete_parameter_group(scope, name).await.expect("deleted");
        assert!(f.rds.parameter_group(scope, name).await.is_err_and(|e| e.is_not_found()));
    }
}

fn change(name: &str, value: &str, apply: ApplyMethod) -> ParameterChange {
    ParameterChange { name: name.into(), value: value.into(), apply }
}

fn new_group(scope: GroupScope, name: &ParameterGroupName, family: &Family) -> NewParameterGroup {
    let description = "made by the contract of the port".into();
    NewParameterGroup { scope, name: name.clone(), family: family.clone(), description, tags: vec![tag()] }
}

async fn make_groups(f: &Fixture, stem: &str, family: &Family) -> Groups {
    let cluster = ParameterGroupName::new(format!("{stem}-cluster"));
    let instance = ParameterGroupName::new(format!("{stem}-instance"));
    for (scope, name) in [(GroupScope::Cluster, &cluster), (GroupScope::Instance, &instance)] {
        f.rds.create_parameter_group(&new_group(scope, name, family)).await.expect("a group");
    }
    Groups { cluster, instance }
}

/// The whole life of a deployment: refused before it can be, made, AVAILABLE, switched over, cleaned up.
pub async fn deployment(f: &Fixture) {
    let blue = f.cluster_now().await;
    let versions = f.rds.engine_versions(&blue.engine, None).await.expect("versions");
    let family = |version: &Version| {
        let offered = versions.iter().find(|v| v.version == *version);
        offered.unwrap_or_else(|| panic!("{version} is not listed")).family.clone()
    };
    let green_groups = make_groups(f, "contract-green", &family(&f.target_version)).await;
    replicate_logically(f, GroupScope::Cluster, &green_groups.cluster).await;
    let new = NewDeployment {
        name: "contract-deployment".into(),
        source: blue.arn.clone(),
        target_version: f.target_version.clone(),
        target_cluster_group: green_groups.cluster,
        target_instance_group: green_groups.instance,
        tags: vec![tag()],
    };
    let early = f.rds.create_deployment(&new).await;
    assert!(early.is_err_and(|e| !e.may_have_acted()), "created without logical replication");
    let blue_groups = make_groups(f, "contract-blue", &family(&blue.engine_version)).await;
    make_ready(f, &blue_groups).await;
    let deployment = make_deployment(f, &new, &blue).await;
    switch(f, &deployment, &blue).await;
    clean_up(f, &deployment.id, &blue).await;
}

async fn replicate_logically(f: &Fixture, scope: GroupScope, name: &ParameterGroupName) {
    let changes = [
        change("rds.logical_replication", "1", ApplyMethod::PendingReboot),
        change("max_replication_slots", "30", ApplyMethod::PendingReboot),
        change("max_wal_senders", "30", ApplyMethod::PendingReboot),
        change("max_logical_replication_workers", "20", ApplyMethod::PendingReboot),
        change("max_worker_processes", "40", ApplyMethod::PendingReboot),
    ];
    f.rds.modify_parameter_group(scope, name, &changes).await.expect("set for replication");
}

/// Swaps the group, sees `pending-reboot`, restarts, sees `in-sync`.
async fn make_ready(f: &Fixture, groups: &Groups) {
    replicate_logically(f, GroupScope::Cluster, &groups.cluster).await;
    let swap =
        ClusterChange { parameter_group: Some(groups.cluster.clone()), apply_immediately: true, ..Default::default() };
    f.rds.modify_cluster(&f.cluster, &swap).await.expect("group swapped");
    let pending = |c: &Cluster| c.members.iter().all(|m| m.parameter_group_status == "pending-reboot");
    let cluster = f.until("pending-reboot", async || f.rds.cluster(&f.cluster).await, pending).await;
    assert_eq!(cluster.parameter_group, groups.cluster);
    let used = f.rds.delete_parameter_group(GroupScope::Cluster, &groups.cluster).await;
    refused(used, Class::InvalidState, "InvalidDBParameterGroupState");
    let mut order: Vec<&Member> = cluster.members.iter().collect();
    order.sort_by_key(|m| !m.is_writer);
    for member in order {
        f.rds.reboot_instance(&member.instance).await.expect("rebooting");
        let up = |i: &Instance| i.status.is_available();
        f.until("the instance back", async || f.rds.instance(&member.instance).await, up).await;
    }
    let in_sync = |c: &Cluster| c.members.iter().all(Member::in_sync);
    f.until("in-sync", async || f.rds.cluster(&f.cluster).await, in_sync).await;
}

async fn make_deployment(f: &Fixture, new: &NewDeployment, blue: &Cluster) -> Deployment {
    let made = f.rds.create_deployment(new).await.expect("a deployment");
    assert_eq!((&made.status, &made.target), (&DeploymentStatus::Provisioning, &None));
    assert_eq!(made.source, *blue.arn.resource());
    refused(f.rds.create_deployment(new).await, Class::AlreadyExists, "BlueGreenDeploymentAlreadyExistsFault");
    let other = NewDeployment { name: "contract-other".into(), ..new.clone() };
    assert_eq!(f.rds.create_deployment(&other).await.expect_err("a second of one source").class, Class::InvalidState);
    let by_name = f.rds.deployment_by_name(&new.name).await.expect("by name");
    assert_eq!(by_name.map(|d| d.id), Some(made.id.clone()));
    let look = async || f.rds.deployment(&made.id).await;
    let ready = f.until("the deployment available", look, Deployment::is_all_available).await;
    assert_eq!(ready.tasks_done().0, ready.tasks_done().1, "{ready:#?}");
    assert!(ready.members.len() > blue.members.len(), "cluster and instances are members: {ready:#?}");
    assert_eq!(ready.tag(&tag().key), Some(tag().value.as_str()));
    let green = f.rds.cluster_by_arn(&ready.target_cluster().expect("a target")).await.expect("green");
    assert_eq!((&green.engine_version, &green.parameter_group), (&new.target_version, &new.target_cluster_group));
    assert_ne!(green.resource_id, blue.resource_id);
    let names = |c: &Cluster| c.members.iter().map(|m| (m.instance.clone(), m.is_writer)).collect::<Vec<_>>();
    assert_eq!(names(&f.cluster_now().await), names(blue), "blue's members were touched");
    assert!(green.id.as_str().starts_with(&format!("{}-green-", blue.id)), "{}", green.id);
    ready
}

async fn switch(f: &Fixture, ready: &Deployment, blue: &Cluster) {
    let green_arn = ready.target_cluster().expect("a target");
    let green = f.rds.cluster_by_arn(&green_arn).await.expect("green");
    let too_short = f.rds.switchover(&ready.id, Duration::from_secs(10)).await;
    assert_eq!(too_short.expect_err("a time-out of 10 s").class, Class::Permanent);
    let members_idle = async || f.rds.instances(&green.id).await;
    let idle = |all: &Vec<Instance>| all.iter().all(|i| i.status.is_available());
    f.until("green's instances available", members_idle, idle).await;
    let reply = f.rds.switchover(&ready.id, Duration::from_secs(300)).await.expect("switching");
    assert_eq!(reply.status, DeploymentStatus::SwitchoverInProgress);
    assert_eq!(reply.source, *blue.arn.resource(), "names move later");
    let completed = |d: &Deployment| d.status == DeploymentStatus::SwitchoverCompleted;
    let done = f.until("completed", async || f.rds.deployment(&ready.id).await, completed).await;
    assert_eq!(done.target_cluster().as_ref(), Some(&blue.arn), "{done:#?}");
    let production = f.cluster_now().await;
    assert_eq!((&production.resource_id, &production.engine_version), (&green.resource_id, &f.target_version));
    let old = f.rds.cluster_by_resource(&blue.resource_id).await.expect("old blue").expect("old blue is there");
    assert_eq!(Some(old.arn), done.source_cluster());
    assert!(old.id.as_str().starts_with(&format!("{}-old", blue.id)), "{}", old.id);
    let again = f.rds.switchover(&ready.id, Duration::from_secs(300)).await;
    refused(again, Class::InvalidState, "InvalidBlueGreenDeploymentStateFault");
}

async fn clean_up(f: &Fixture, deployment: &DeploymentId, blue: &Cluster) {
    let with_target = f.rds.delete_deployment(deployment, true).await;
    refused(with_target, Class::InvalidState, "InvalidBlueGreenDeploymentStateFault");
    f.rds.delete_deployment(deployment, false).await.expect("the object deleted");
    f.gone("the deployment", async || f.rds.deployment(deployment).await).await;
    let old = f.rds.cluster_by_resource(&blue.resource_id).await.expect("old blue").expect("old blue outlives it");
    let still_full = f.rds.delete_cluster(&old.id, &FinalSnapshot::Skip, false).await;
    assert!(still_full.is_err_and(|e| !e.may_have_acted()), "deleted with its instances");
    let mut order: Vec<&Member> = old.members.iter().collect();
    order.sort_by_key(|m| m.is_writer);
    for member in order {
        f.rds.delete_instance(&member.instance).await.expect("deleting");
        f.gone("the instance", async || f.rds.instance(&member.instance).await).await;
    }
    let unprotected = ClusterChange { deletion_protection: Some(false), apply_immediately: true, ..Default::default() };
    f.rds.modify_cluster(&old.id, &unprotected).await.expect("protection off");
    let last = FinalSnapshot::Take("contract-final".into());
    f.rds.delete_cluster(&old.id, &last, false).await.expect("deleting");
    f.until("old blue gone", async || f.rds.cluster_by_resource(&blue.resource_id).await, Option::is_none).await;
    let kept = SnapshotId::from("contract-final");
    f.until("the final snapshot", async || f.rds.snapshot(&kept).await, |s| s.status.is_available()).await;
    assert!(f.cluster_now().await.status.is_available(), "production was touched");
}
