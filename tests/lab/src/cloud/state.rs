//! What the account holds: clusters, instances, parameter groups, snapshots, deployments and events. Names are looked up
//! here; a resource id stays with its machine for life while identifiers, endpoints and ARNs move at a switchover. No
//! server is touched from here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::network::Network;
use crate::fleet::Server;
use crate::names::Names;
use crate::settings::{ACCOUNT, REGION};
use crate::status::Flavour;
use crate::status::life::Story;

pub(crate) type Tags = BTreeMap<String, String>;
/// `cluster-…`: a cluster for life.
pub(crate) type ClusterId = String;
/// `db-…`: an instance for life.
pub(crate) type InstanceId = String;

/// The account.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) clusters: BTreeMap<ClusterId, Cluster>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) cluster_groups: BTreeMap<String, Group>,
    pub(crate) instance_groups: BTreeMap<String, Group>,
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    pub(crate) deployments: BTreeMap<String, Deployment>,
    /// By resource id.
    pub(crate) custom_endpoints: BTreeMap<String, CustomEndpoint>,
    pub(crate) events: Vec<Event>,
}

pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) identifier: String,
    /// `14.23`.
    pub(crate) version: String,
    pub(crate) flavour: Flavour,
    pub(crate) status: String,
    pub(crate) group: String,
    pub(crate) writer: InstanceId,
    pub(crate) readers: Vec<InstanceId>,
    pub(crate) network: Arc<Network>,
    /// What of it has names; see [`crate::cloud::naming`].
    pub(crate) endpoints: Endpoints,
    /// Whether its servers have the least that they run with.
    pub(crate) smallest: bool,
    pub(crate) deletion_protection: bool,
    pub(crate) created: Timestamp,
    pub(crate) tags: Tags,
    /// ARN of the cluster that this one replicates from, while it does.
    pub(crate) source: Option<String>,
    pub(crate) clone_group: String,
    /// The data that outlives the last member, until the cluster is deleted.
    pub(crate) storage: Option<Arc<Server>>,
}

impl Cluster {
    pub(crate) fn arn(&self) -> String {
        cluster_arn(&self.identifier)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &InstanceId> {
        std::iter::once(&self.writer).filter(|id| !id.is_empty()).chain(&self.readers)
    }

    pub(crate) fn major(&self) -> u32 {
        major_of(&self.version)
    }
}

/// Whether a cluster's endpoints have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// Not yet, or no longer.
    None,
    /// They lead to what the account says.
    Published,
    /// Names were changed in the account and still lead where they led: the zone follows later.
    Lagging,
}

/// A custom endpoint of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct CustomEndpoint {
    /// `cluster-endpoint-…`, for life.
    pub(crate) id: String,
    pub(crate) identifier: String,
    pub(crate) cluster: ClusterId,
    pub(crate) kind: EndpointKind,
    /// Empty: all members but the excluded ones, also those to come.
    pub(crate) static_members: Vec<InstanceId>,
    pub(crate) excluded: Vec<InstanceId>,
    pub(crate) status: &'static str,
    pub(crate) tags: Tags,
}

impl CustomEndpoint {
    pub(crate) fn arn(&self) -> String {
        cluster_endpoint_arn(&self.identifier)
    }
}

/// Which members a custom endpoint leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    Reader,
    Any,
}

impl EndpointKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reader => "READER",
            Self::Any => "ANY",
        }
    }
}

pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) identifier: String,
    pub(crate) class: String,
    pub(crate) status: String,
    pub(crate) cluster: ClusterId,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) version: String,
    /// `in-sync`, `pending-reboot`, `applying`: of the cluster's group on this member.
    pub(crate) cluster_group_status: String,
    pub(crate) group: String,
    pub(crate) group_status: String,
    /// What is in force: every parameter that was set, by its real PostgreSQL name.
    pub(crate) applied: BTreeMap<String, String>,
    pub(crate) server: Option<Arc<Server>>,
    /// Text of a broken replication from blue, on green's writer.
    pub(crate) replication: Replication,
    pub(crate) created: Timestamp,
    pub(crate) tags: Tags,
    pub(crate) tier: u32,
    /// Held by whoever restarts or configures the server.
    pub(crate) busy: Arc<tokio::sync::Mutex<()>>,
    /// Where log files are without a server: those of an upgrade that failed.
    pub(crate) logs: Option<std::path::PathBuf>,
}

impl Instance {
    pub(crate) fn arn(&self) -> String {
        instance_arn(&self.identifier)
    }
}

/// Whether an instance replicates from another, as `StatusInfos` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replication {
    None,
    Running,
    Broken(String),
}

/// A parameter group of either kind.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) family: String,
    pub(crate) description: String,
    pub(crate) tags: Tags,
    /// What the user has set: value and the apply method given.
    pub(crate) user: BTreeMap<String, UserValue>,
}

/// A value as the user set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserValue {
    pub(crate) value: String,
    pub(crate) at_reboot: bool,
}

impl Group {
    pub(crate) fn is_default(&self) -> bool {
        self.name.starts_with("default.")
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) identifier: String,
    pub(crate) cluster_id: ClusterId,
    pub(crate) cluster_identifier: String,
    pub(crate) cluster_created: Timestamp,
    pub(crate) version: String,
    pub(crate) port: u16,
    pub(crate) status: String,
    pub(crate) percent: u8,
    pub(crate) created: Timestamp,
    pub(crate) tags: Tags,
    /// Folder of the real base copy, once it is there.
    pub(crate) folder: Option<std::path::PathBuf>,
}

impl Snapshot {
    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:rds:{REGION}:{ACCOUNT}:cluster-snapshot:{}", self.identifier)
    }
}

pub(crate) struct Deployment {
    pub(crate) identifier: String,
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) target: Option<String>,
    pub(crate) blue: ClusterId,
    pub(crate) green: Option<ClusterId>,
    pub(crate) status: String,
    pub(crate) details: Option<String>,
    pub(crate) members: Vec<Member>,
    pub(crate) tasks: Vec<(&'static str, &'static str)>,
    pub(crate) created: Timestamp,
    pub(crate) deleted: Option<Timestamp>,
    pub(crate) tags: Tags,
    /// Why replication to green is broken, once it is: only a new deployment cures it.
    pub(crate) degraded: Option<String>,
    pub(crate) plan: Plan,
    /// Names that green had before the switchover and that are not gone yet.
    pub(crate) leaving: Names,
    /// What the servers of both sides tell about it.
    pub(crate) story: Story,
    /// The real green while it replicates.
    pub(crate) live: Option<Arc<crate::cloud::provision::Live>>,
}

/// What was asked for at creation.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) version: String,
    pub(crate) cluster_group: String,
    pub(crate) instance_group: String,
}

/// One line of `SwitchoverDetails`.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) source: String,
    pub(crate) target: Option<String>,
    pub(crate) status: &'static str,
    /// Resource ids of a custom endpoint and of its copy: they stay while names move.
    pub(crate) endpoints: Option<(String, Option<String>)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    pub(crate) source_type: &'static str,
    pub(crate) source: String,
    pub(crate) arn: String,
    pub(crate) message: String,
    pub(crate) categories: Vec<&'static str>,
}

impl State {
    pub(crate) fn cluster(&self, identifier: &str) -> Answer<&Cluster> {
        let wanted = name_in_arn(identifier, "cluster");
        self.clusters.values().find(|c| c.identifier == wanted).ok_or_else(|| Refusal::cluster_not_found(&wanted))
    }

    pub(crate) fn cluster_mut(&mut self, identifier: &str) -> Answer<&mut Cluster> {
        let wanted = name_in_arn(identifier, "cluster");
        self.clusters.values_mut().find(|c| c.identifier == wanted).ok_or_else(|| Refusal::cluster_not_found(&wanted))
    }

    pub(crate) fn instance(&self, identifier: &str) -> Answer<&Instance> {
        let wanted = name_in_arn(identifier, "db");
        self.instances.values().find(|i| i.identifier == wanted).ok_or_else(|| Refusal::instance_not_found(&wanted))
    }

    pub(crate) fn instance_mut(&mut self, identifier: &str) -> Answer<&mut Instance> {
        let wanted = name_in_arn(identifier, "db");
        self.instances.values_mut().find(|i| i.identifier == wanted).ok_or_else(|| Refusal::instance_not_found(&wanted))
    }

    pub(crate) fn deployment(&self, identifier: &str) -> Answer<&Deployment> {
        let wanted = identifier.to_lowercase();
        self.deployments.get(&wanted).ok_or_else(|| Refusal::deployment_not_found(identifier))
    }

    pub(crate) fn deployment_mut(&mut self, identifier: &str) -> Answer<&mut Deployment> {
        let wanted = identifier.to_lowercase();
        self.deployments.get_mut(&wanted).ok_or_else(|| Refusal::deployment_not_found(identifier))
    }

    /// The live deployment that this cluster is a side of, if there is one.
    pub(crate) fn deployment_of(&self, cluster: &str) -> Option<&Deployment> {
        self.deployments
            .values()
            .find(|d| d.status != "SWITCHOVER_COMPLETED" && (d.blue == cluster || d.green.as_deref() == Some(cluster)))
    }

    /// The custom endpoints of a cluster.
    pub(crate) fn endpoints_of<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a CustomEndpoint> {
        self.custom_endpoints.values().filter(move |endpoint| endpoint.cluster == cluster)
    }

    /// The server of a cluster's writer.
    pub(crate) fn writer_server(&self, cluster: &str) -> Option<Arc<Server>> {
        let cluster = self.clusters.get(cluster)?;
        self.instances.get(&cluster.writer)?.server.clone()
    }

    /// The default group of a family is there from the start and needs no making.
    pub(crate) fn cluster_group(&self, name: &str) -> Answer<Group> {
        group(&self.cluster_groups, name, "cluster").ok_or_else(|| Refusal::group_not_found(name))
    }

    /// As `cluster_group`, of the other kind.
    pub(crate) fn instance_group(&self, name: &str) -> Answer<Group> {
        group(&self.instance_groups, name, "instance").ok_or_else(|| Refusal::group_not_found(name))
    }
}

fn group(groups: &BTreeMap<String, Group>, name: &str, kind: &str) -> Option<Group> {
    let name = name.to_lowercase();
    if let Some(group) = groups.get(&name) {
        return Some(group.clone());
    }
    let family = name.strip_prefix("default.")?;
    let major = family.strip_prefix("aurora-postgresql")?.parse::<u32>().ok()?;
    (14..=18).contains(&major).then(|| Group {
        name: name.clone(),
        family: family.to_owned(),
        description: format!("Default {kind} parameter group for {family}"),
        tags: Tags::new(),
        user: BTreeMap::new(),
    })
}

/// `aurora-postgresql16`.
pub(crate) fn family(major: u32) -> String {
    format!("aurora-postgresql{major}")
}

/// `16` of `16.15`; 0 for what is no version.
pub(crate) fn major_of(version: &str) -> u32 {
    version.split('.').next().and_then(|m| m.parse().ok()).unwrap_or(0)
}

pub(crate) fn cluster_arn(identifier: &str) -> String {
    format!("arn:aws:rds:{REGION}:{ACCOUNT}:cluster:{identifier}")
}

pub(crate) fn instance_arn(identifier: &str) -> String {
    format!("arn:aws:rds:{REGION}:{ACCOUNT}:db:{identifier}")
}

pub(crate) fn cluster_endpoint_arn(identifier: &str) -> String {
    format!("arn:aws:rds:{REGION}:{ACCOUNT}:cluster-endpoint:{identifier}")
}

pub(crate) fn group_arn(kind: &str, name: &str) -> String {
    format!("arn:aws:rds:{REGION}:{ACCOUNT}:{kind}:{name}")
}

pub(crate) fn deployment_arn(identifier: &str) -> String {
    format!("arn:aws:rds:{REGION}:{ACCOUNT}:deployment:{identifier}")
}

/// The service takes an identifier or an ARN in most places.
fn name_in_arn(identifier: &str, kind: &str) -> String {
    let prefix = format!("arn:aws:rds:{REGION}:{ACCOUNT}:{kind}:");
    identifier.strip_prefix(&prefix).unwrap_or(identifier).to_lowercase()
}
