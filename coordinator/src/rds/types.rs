//! What AWS tells about clusters, instances, parameters, snapshots and the rest, in our own words. Statuses are open: a word
//! AWS adds later is kept, compared and shown, never an error. A field AWS left out is `None`, and `None` passes no gate.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::*;

/// One tag of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

impl Tag {
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// A cluster or instance status, as AWS words it: `available`, `rebooting`, `upgrading`, `storage-optimization` …
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(pub String);

impl Status {
    pub fn is_available(&self) -> bool {
        self.0 == "available"
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

/// A master password that Secrets Manager rotates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterUserSecret {
    pub arn: String,
    pub status: Option<String>,
}

/// One member of a cluster, as the cluster lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub instance: InstanceId,
    pub is_writer: bool,
    /// `in-sync`, `pending-reboot`, `applying` …: whether the member runs with the cluster's parameter group.
    pub parameter_group_status: String,
    pub promotion_tier: Option<i32>,
}

impl Member {
    pub fn in_sync(&self) -> bool {
        self.parameter_group_status == "in-sync"
    }
}

/// An Aurora cluster (or Multi-AZ DB cluster).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub arn: ClusterArn,
    pub resource_id: ClusterResourceId,
    /// `aurora-postgresql` for the only engine this program upgrades.
    pub engine: String,
    pub engine_version: Version,
    pub status: Status,
    pub parameter_group: ParameterGroupName,
    /// The host of the writer endpoint.
    pub endpoint: Option<String>,
    pub reader_endpoint: Option<String>,
    pub custom_endpoints: Vec<String>,
    pub port: Option<u16>,
    pub members: Vec<Member>,
    pub deletion_protection: bool,
    pub iam_database_authentication: bool,
    pub master_username: Option<String>,
    pub master_user_secret: Option<MasterUserSecret>,
    pub global_cluster: Option<String>,
    /// The ARN this cluster replicates from, when it is itself a replica.
    pub replication_source: Option<String>,
    pub activity_stream_status: Option<String>,
    pub serverless_v2: bool,
    pub storage_encrypted: bool,
    pub backup_retention_days: Option<i32>,
    pub latest_restorable_time: Option<Timestamp>,
    /// UTC, as AWS writes it: `sun:05:00-sun:05:30`.
    pub preferred_maintenance_window: Option<String>,
    pub auto_minor_version_upgrade: Option<bool>,
    /// Names of changes that wait for a window or a reboot.
    pub pending: Vec<String>,
    pub tags: Vec<Tag>,
}

impl Cluster {
    pub fn writer(&self) -> Option<&Member> {
        self.members.iter().find(|m| m.is_writer)
    }

    pub fn readers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| !m.is_writer)
    }

    /// The writer endpoint, when AWS gave both halves of it.
    pub fn writer_endpoint(&self) -> Option<Endpoint> {
        Some(Endpoint { host: self.endpoint.clone()?, port: self.port? })
    }

    pub fn tag(&self, key: &str) -> Option<&str> {
        value_of(&self.tags, key)
    }
}

/// The value of the tag `key`.
pub fn value_of<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
}

/// An instance's use of an instance-level parameter group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterGroupUse {
    pub name: ParameterGroupName,
    /// `in-sync`, `pending-reboot`, `applying`, `failed-to-apply`, `pending-database-upgrade`.
    pub apply_status: String,
}

/// One line of an instance's replication status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    pub kind: String,
    pub normal: bool,
    pub status: String,
    pub message: Option<String>,
}

/// A database instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub arn: ResourceArn,
    pub resource_id: InstanceResourceId,
    pub cluster: Option<ClusterId>,
    pub class: String,
    pub engine: String,
    pub engine_version: Version,
    pub status: Status,
    /// `None` while the instance is being made.
    pub endpoint: Option<Endpoint>,
    pub parameter_groups: Vec<ParameterGroupUse>,
    pub status_infos: Vec<StatusInfo>,
    pub promotion_tier: Option<i32>,
    pub availability_zone: Option<String>,
    pub iam_database_authentication: bool,
    pub deletion_protection: bool,
    pub preferred_maintenance_window: Option<String>,
    pub pending: Vec<String>,
    pub tags: Vec<Tag>,
}

impl Instance {
    /// Every parameter group of the instance is `in-sync`; false when it lists none.
    pub fn in_sync(&self) -> bool {
        !self.parameter_groups.is_empty() && self.parameter_groups.iter().all(|g| g.apply_status == "in-sync")
    }
}

/// A version that a cluster can be upgraded to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeTarget {
    pub engine: String,
    pub version: Version,
    pub is_major: bool,
}

/// A version that AWS offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineVersion {
    pub engine: String,
    pub version: Version,
    pub family: Family,
    /// `available`, `deprecated`.
    pub status: Option<String>,
    pub upgrade_targets: Vec<UpgradeTarget>,
}

/// An instance class that AWS offers for a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderableOption {
    pub engine: String,
    pub version: Version,
    pub class: String,
}

/// Whether a parameter group is a cluster's or an instance's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupScope {
    Cluster,
    Instance,
}

/// A parameter group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterGroup {
    pub scope: GroupScope,
    pub name: ParameterGroupName,
    pub arn: ResourceArn,
    pub family: Family,
    pub description: String,
}

impl ParameterGroup {
    /// AWS's own group, which nobody can modify or delete.
    pub fn is_default(&self) -> bool {
        self.name.as_str().starts_with("default.")
    }
}

/// A parameter group to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewParameterGroup {
    pub scope: GroupScope,
    pub name: ParameterGroupName,
    pub family: Family,
    pub description: String,
    pub tags: Vec<Tag>,
}

/// Who set a parameter's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterSource {
    User,
    System,
    EngineDefault,
    #[serde(untagged)]
    Other(String),
}

impl ParameterSource {
    pub fn as_str(&self) -> &str {
        match self {
            Self::User => "user",
            Self::System => "system",
            Self::EngineDefault => "engine-default",
            Self::Other(text) => text,
        }
    }
}

impl From<&str> for ParameterSource {
    fn from(text: &str) -> Self {
        match text {
            "user" => Self::User,
            "system" => Self::System,
            "engine-default" => Self::EngineDefault,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// When a changed parameter takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplyMethod {
    /// At once; only dynamic parameters can.
    Immediate,
    PendingReboot,
}

/// One parameter of a group, or of a family's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    /// `None` when the engine decides.
    pub value: Option<String>,
    pub source: ParameterSource,
    /// A static parameter needs a restart.
    pub is_static: bool,
    pub data_type: Option<String>,
    /// AWS's text: `0,1`, `on,off`, `8-4294967295`.
    pub allowed_values: Option<String>,
    pub is_modifiable: bool,
    pub apply_method: Option<ApplyMethod>,
}

/// A parameter to be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterChange {
    pub name: String,
    pub value: String,
    pub apply: ApplyMethod,
}

/// What to change on a cluster; `None` leaves as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterChange {
    pub parameter_group: Option<ParameterGroupName>,
    pub deletion_protection: Option<bool>,
    /// False puts the change off to the maintenance window.
    pub apply_immediately: bool,
}

/// What to change on an instance; `None` leaves as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceChange {
    pub parameter_group: Option<ParameterGroupName>,
    pub apply_immediately: bool,
}

/// A cluster snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub arn: ResourceArn,
    /// The name that the cluster had when the snapshot was taken.
    pub cluster: ClusterId,
    pub cluster_resource_id: Option<ClusterResourceId>,
    /// `creating`, `available`, `failed`.
    pub status: Status,
    pub percent_progress: Option<i32>,
    pub engine_version: Option<Version>,
    pub created: Option<Timestamp>,
    pub tags: Vec<Tag>,
}

/// What becomes of the data of a cluster that is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalSnapshot {
    Skip,
    Take(SnapshotId),
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceType {
    DbCluster,
    DbInstance,
    BlueGreenDeployment,
    DbClusterSnapshot,
}

impl SourceType {
    /// AWS's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DbCluster => "db-cluster",
            Self::DbInstance => "db-instance",
            Self::BlueGreenDeployment => "blue-green-deployment",
            Self::DbClusterSnapshot => "db-cluster-snapshot",
        }
    }
}

/// Which events to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// `None`: events about anything.
    pub source_type: Option<SourceType>,
    /// The identifier of the source; needs `source_type`.
    pub source: Option<String>,
    /// Inclusive. AWS keeps 14 days.
    pub since: Timestamp,
}

/// One event. The API gives no event number: match on the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub source: Option<String>,
    pub source_type: Option<String>,
    pub source_arn: Option<String>,
    pub message: String,
    pub categories: Vec<String>,
    pub at: Option<Timestamp>,
}

/// One log file of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    pub name: String,
    pub last_written: Option<Timestamp>,
    /// Bytes.
    pub size: u64,
}

/// Where to read a log file from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrom {
    Start,
    /// The marker of the portion read before.
    Marker(String),
    /// The last lines of the file.
    Tail {
        lines: u32,
    },
}

/// A portion of a log file, at most 1 MB or 10,000 lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPortion {
    pub text: String,
    /// Where the next portion begins.
    pub marker: Option<String>,
    /// More is there to be read now.
    pub more: bool,
}

/// Maintenance that AWS plans for an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceAction {
    pub resource: String,
    pub action: String,
    pub description: Option<String>,
    /// In the first maintenance window after this.
    pub auto_applied_after: Option<Timestamp>,
    /// At this time in any case.
    pub forced_apply: Option<Timestamp>,
    /// When it will be applied as things stand.
    pub current_apply: Option<Timestamp>,
}

/// A Global Database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalCluster {
    pub id: String,
    /// ARNs of its clusters and of their readers.
    pub members: Vec<String>,
}

/// A zero-ETL integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integration {
    pub name: String,
    pub source_arn: String,
    pub target_arn: String,
    pub status: String,
}

/// What an RDS Proxy points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyTarget {
    /// `RDS_INSTANCE`, `TRACKED_CLUSTER` …
    pub kind: Option<String>,
    /// The cluster that the target was registered through.
    pub tracked_cluster: Option<ClusterId>,
    /// The name of the cluster or instance.
    pub resource: Option<String>,
    pub endpoint: Option<String>,
    pub port: Option<u16>,
}

/// An RDS Proxy, with all targets of all its target groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    pub name: String,
    pub arn: Option<String>,
    pub status: Option<String>,
    pub endpoint: Option<String>,
    pub targets: Vec<ProxyTarget>,
}
