//! The state of the fake's account: what exists, what is due to happen when, and how names and identities relate. Objects are
//! kept by identity, because names move.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::clock::Mono;

use super::Timings;
use super::catalogue;
use super::faults::Faults;
use crate::rds::*;

pub(super) const REGION: &str = "us-east-1";
pub(super) const ACCOUNT: &str = "123456789012";

/// What is to happen, when its time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    SnapshotDone(SnapshotId),
    ClusterGroupApplied(ClusterResourceId),
    InstanceGroupApplied(InstanceResourceId),
    Rebooted(InstanceResourceId),
    InstanceAvailable(InstanceResourceId),
    InstanceGone(InstanceResourceId),
    ClusterGone(ClusterResourceId),
    TaskDone(DeploymentId, usize),
    MembersAvailable(DeploymentId),
    SwitchoverBegun(DeploymentId),
    MembersSwitching(DeploymentId),
    NamesMoved(DeploymentId),
    SwitchoverOver(DeploymentId),
    SwitchoverExpired(DeploymentId),
    SwitchoverCanceled(DeploymentId, String),
    DeploymentGone(DeploymentId, bool),
}

/// A group with what was set in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Group {
    pub group: ParameterGroup,
    /// What the user set: name, value, method.
    pub set: BTreeMap<String, (String, ApplyMethod)>,
    pub tags: Vec<Tag>,
}

impl Group {
    /// The value of a parameter, set or default.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        if let Some((value, _)) = self.set.get(name) {
            return Some(value.clone());
        }
        let all = catalogue::parameters(self.group.scope, &self.group.family);
        all.into_iter().find(|p| p.name == name).and_then(|p| p.value)
    }

    /// Every parameter that has a value.
    pub(super) fn values(&self) -> BTreeMap<String, String> {
        let all = catalogue::parameters(self.group.scope, &self.group.family);
        all.into_iter().filter_map(|p| Some((p.name.clone(), self.value(&p.name)?))).collect()
    }
}

/// A deployment with what AWS knows of it and does not show.
#[derive(Clone, Debug)]
pub(super) struct DeploymentState {
    pub(super) shown: Deployment,
    pub(super) blue: ClusterResourceId,
    pub(super) green: Option<ClusterResourceId>,
    /// Blue's instance and the green one made after it.
    pub(super) pairs: Vec<(InstanceResourceId, Option<InstanceResourceId>)>,
    pub(super) target_version: Version,
    pub(super) target_cluster_group: ParameterGroupName,
    pub(super) target_instance_group: ParameterGroupName,
    /// Green took the names and takes writes, whatever the deployment says.
    pub(super) switched: bool,
    /// A step of it that waits for a fault to be taken back.
    pub(super) stalled: Option<Happening>,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) timings: Timings,
    pub(super) clusters: BTreeMap<ClusterResourceId, Cluster>,
    pub(super) instances: BTreeMap<InstanceResourceId, Instance>,
    /// Cluster-level parameters that each server was started with.
    pub(super) booted: BTreeMap<InstanceResourceId, BTreeMap<String, String>>,
    pub(super) groups: BTreeMap<(GroupScope, ParameterGroupName), Group>,
    pub(super) snapshots: BTreeMap<SnapshotId, Snapshot>,
    pub(super) deployments: BTreeMap<DeploymentId, DeploymentState>,
    pub(super) events: Vec<Event>,
    pub(super) logs: BTreeMap<InstanceResourceId, BTreeMap<String, (String, Timestamp)>>,
    pub(super) maintenance: Vec<MaintenanceAction>,
    pub(super) global_clusters: Vec<GlobalCluster>,
    pub(super) integrations: Vec<Integration>,
    pub(super) proxies: Vec<Proxy>,
    pub(super) faults: Faults,
    due: Vec<(Mono, u64, Happening)>,
    counter: u64,
    pub(super) now: Mono,
    pub(super) wall: Timestamp,
}

impl World {
    pub(super) fn new(timings: Timings) -> Self {
        let mut groups = BTreeMap::new();
        let families: BTreeSet<Family> = catalogue::versions().into_iter().map(|v| v.family).collect();
        for family in families {
            for scope in [GroupScope::Cluster, GroupScope::Instance] {
                let group = default_group(scope, &family);
                groups.insert((scope, group.name.clone()), Group { group, set: BTreeMap::new(), tags: Vec::new() });
            }
        }
        Self {
            timings,
            clusters: BTreeMap::new(),
            instances: BTreeMap::new(),
            booted: BTreeMap::new(),
            groups,
            snapshots: BTreeMap::new(),
            deployments: BTreeMap::new(),
            events: Vec::new(),
            logs: BTreeMap::new(),
            maintenance: Vec::new(),
            global_clusters: Vec::new(),
            integrations: Vec::new(),
            proxies: Vec::new(),
            faults: Faults::default(),
            due: Vec::new(),
            counter: 0,
            now: Mono::ZERO,
            wall: Timestamp::UNIX_EPOCH,
        }
    }

    /// Brings the world to this time: whatever was due before it happens, in order, each at its own time.
    pub(super) fn settle(&mut self, now: Mono, wall: Timestamp) {
        loop {
            let next = self.due.iter().enumerate().filter(|(_, d)| d.0 <= now).min_by_key(|(_, d)| (d.0, d.1));
            let Some((at, (due, _, _))) = next.map(|(at, d)| (at, d.clone())) else { break };
            let (_, _, happening) = self.due.remove(at);
            self.now = due;
            let ago = SignedDuration::try_from(now.since(due)).unwrap_or_default();
            self.wall = wall.saturating_sub(ago).unwrap_or(wall);
            self.happen(happening);
        }
        (self.now, self.wall) = (now, wall);
    }

    pub(super) fn later(&mut self, after: Duration, happening: Happening) {
        self.counter += 1;
        self.due.push((self.now + after, self.counter, happening));
    }

    /// Takes back what was planned and is no longer to happen.
    pub(super) fn cancel(&mut self, unwanted: impl Fn(&Happening) -> bool) {
        self.due.retain(|(_, _, happening)| !unwanted(happening));
    }

    /// A name or identity of `length` characters that no other call gives.
    pub(super) fn fresh(&mut self, alphabet: &[u8], length: usize) -> String {
        self.counter += 1;
        let mut seed = self.counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut text = String::with_capacity(length);
        for _ in 0..length {
            seed ^= seed >> 29;
            seed = seed.wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(self.counter);
            text.push(char::from(alphabet[(seed >> 33) as usize % alphabet.len()]));
        }
        text
    }

    pub(super) fn event(&mut self, kind: SourceType, source: &str, category: &str, message: impl Into<String>) {
        self.events.push(Event {
            source: Some(source.to_owned()),
            source_type: Some(kind.as_str().to_owned()),
            source_arn: None,
            message: message.into(),
            categories: vec![category.to_owned()],
            at: Some(self.wall),
        });
    }

    // --- by name ---

    pub(super) fn cluster_id(&self, id: &ClusterId) -> Option<ClusterResourceId> {
        self.clusters.values().find(|c| c.id == *id).map(|c| c.resource_id.clone())
    }

    pub(super) fn instance_id(&self, id: &InstanceId) -> Option<InstanceResourceId> {
        self.instances.values().find(|i| i.id == *id).map(|i| i.resource_id.clone())
    }

    pub(super) fn members(&self, cluster: &ClusterId) -> Vec<&Instance> {
        self.instances.values().filter(|i| i.cluster.as_ref() == Some(cluster)).collect()
    }

    /// The deployment that has this cluster as blue or green and has not been completed.
    pub(super) fn unfinished_deployment(&self, cluster: &ClusterResourceId) -> Option<&DeploymentState> {
        let of = |d: &&DeploymentState| d.blue == *cluster || d.green.as_ref() == Some(cluster);
        self.deployments.values().filter(of).find(|d| d.shown.status != DeploymentStatus::SwitchoverCompleted)
    }

    /// A cluster as it is told now: some fields follow the clock.
    pub(super) fn told(&self, cluster: &Cluster) -> Cluster {
        let mut cluster = cluster.clone();
        let lag = SignedDuration::try_from(self.timings.restorable_lag).unwrap_or_default();
        cluster.latest_restorable_time = self.wall.saturating_sub(lag).ok();
        cluster
    }

    /// Gives a cluster its names: id, ARN and endpoints go together.
    pub(super) fn rename_cluster(&mut self, which: &ClusterResourceId, to: &ClusterId) {
        let Some(cluster) = self.clusters.get_mut(which) else { return };
        let from = std::mem::replace(&mut cluster.id, to.clone());
        cluster.arn = cluster_arn(to);
        cluster.endpoint = Some(host(&format!("{to}.cluster-fake")));
        cluster.reader_endpoint = Some(host(&format!("{to}.cluster-ro-fake")));
        for instance in self.instances.values_mut().filter(|i| i.cluster.as_ref() == Some(&from)) {
            instance.cluster = Some(to.clone());
        }
    }

    pub(super) fn rename_instance(&mut self, which: &InstanceResourceId, to: &InstanceId) {
        let Some(instance) = self.instances.get_mut(which) else { return };
        let from = std::mem::replace(&mut instance.id, to.clone());
        instance.arn = resource_arn("db", to.as_str());
        if let Some(endpoint) = &mut instance.endpoint {
            endpoint.host = host(&format!("{to}.fake"));
        }
        let members = self.clusters.values_mut().flat_map(|c| c.members.iter_mut());
        for member in members.filter(|m| m.instance == from) {
            member.instance = to.clone();
        }
    }

    // --- what happens by itself ---

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::SnapshotDone(id) => self.snapshot_done(&id),
            Happening::ClusterGroupApplied(id) => self.cluster_group_applied(&id),
            Happening::InstanceGroupApplied(id) => self.instance_group_applied(&id),
            Happening::Rebooted(id) => self.rebooted(&id),
            Happening::InstanceAvailable(id) => {
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.status = available();
                }
            }
            Happening::InstanceGone(id) => self.instance_gone(&id),
            Happening::ClusterGone(id) => {
                self.clusters.remove(&id);
            }
            other => self.deployment_happens(other),
        }
    }

    fn snapshot_done(&mut self, id: &SnapshotId) {
        if let Some(snapshot) = self.snapshots.get_mut(id) {
            snapshot.status = available();
            snapshot.percent_progress = Some(100);
        }
    }

    fn cluster_group_applied(&mut self, id: &ClusterResourceId) {
        let members = self.clusters.get_mut(id).map(|c| &mut c.members);
        for member in members.into_iter().flatten().filter(|m| m.parameter_group_status == "applying") {
            member.parameter_group_status = "pending-reboot".into();
        }
    }

    fn instance_group_applied(&mut self, id: &InstanceResourceId) {
        let groups = self.instances.get_mut(id).map(|i| &mut i.parameter_groups);
        for group in groups.into_iter().flatten().filter(|g| g.apply_status == "applying") {
            group.apply_status = "pending-reboot".into();
        }
    }

    fn rebooted(&mut self, id: &InstanceResourceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.status = available();
        for group in instance.parameter_groups.iter_mut().filter(|g| g.apply_status == "pending-reboot") {
            group.apply_status = "in-sync".into();
        }
        let name = instance.id.clone();
        for cluster in self.clusters.values_mut() {
            for member in cluster.members.iter_mut().filter(|m| m.instance == name) {
                if member.parameter_group_status == "pending-reboot" {
                    member.parameter_group_status = "in-sync".into();
                }
            }
        }
        self.boot(id);
        self.event(SourceType::DbInstance, name.as_str(), "availability", "DB instance restarted");
    }

    /// Notes the cluster-level parameters that a server starts with.
    pub(super) fn boot(&mut self, id: &InstanceResourceId) {
        let Some(cluster) = self.instances.get(id).and_then(|i| i.cluster.clone()) else { return };
        let group = self.clusters.values().find(|c| c.id == cluster).map(|c| c.parameter_group.clone());
        let group = group.and_then(|name| self.groups.get(&(GroupScope::Cluster, name)));
        if let Some(values) = group.map(Group::values) {
            self.booted.insert(id.clone(), values);
        }
    }

    fn instance_gone(&mut self, id: &InstanceResourceId) {
        let Some(instance) = self.instances.remove(id) else { return };
        self.booted.remove(id);
        self.logs.remove(id);
        for cluster in self.clusters.values_mut() {
            cluster.members.retain(|m| m.instance != instance.id);
            if cluster.writer().is_none()
                && let Some(heir) = cluster.members.first_mut()
            {
                heir.is_writer = true;
            }
        }
    }
}

pub(super) fn available() -> Status {
    Status("available".into())
}

fn host(name: &str) -> String {
    format!("{name}.{REGION}.rds.amazonaws.com")
}

pub(super) fn resource_arn(kind: &str, name: &str) -> ResourceArn {
    let text = format!("arn:aws:rds:{REGION}:{ACCOUNT}:{kind}:{name}");
    ResourceArn::try_from(text).expect("the fake's own ARN")
}

pub(super) fn cluster_arn(id: &ClusterId) -> ClusterArn {
    resource_arn("cluster", id.as_str()).as_cluster().expect("a cluster's ARN")
}

pub(super) fn group_arn(scope: GroupScope, name: &ParameterGroupName) -> ResourceArn {
    resource_arn(if scope == GroupScope::Cluster { "cluster-pg" } else { "pg" }, name.as_str())
}

pub(super) fn default_group_name(family: &Family) -> ParameterGroupName {
    ParameterGroupName::new(format!("default.{family}"))
}

fn default_group(scope: GroupScope, family: &Family) -> ParameterGroup {
    let name = default_group_name(family);
    let arn = group_arn(scope, &name);
    ParameterGroup { scope, name, arn, family: family.clone(), description: format!("Default group for {family}") }
}

/// An instance's endpoint in the fake.
pub(super) fn instance_endpoint(id: &InstanceId) -> Endpoint {
    Endpoint { host: host(&format!("{id}.fake")), port: 5432 }
}
