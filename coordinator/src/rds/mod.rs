//! The RDS port: the one way from the coordinator to the RDS API. `sdk.rs` is the real thing and the only file that names
//! `aws_sdk_rds`; `fake.rs` is a model with the same state machine; `contract.rs` is the suite both pass.
//!
//! Rules every implementation keeps:
//! - a read returns the whole list, however many pages AWS makes of it;
//! - a changing call is sent once. If its answer is not read, the failure is of class [`Class::Unknown`] and the caller looks;
//! - AWS's code and message come through verbatim.
//!
//! What may not live here: decisions (what a status means for the upgrade), waiting, retrying of changes, and identity checks
//! against the journal other than [`same_cluster`] and [`same_instance`].

pub mod contract;
mod deployment;
mod error;
pub mod fake;
mod ids;
mod names;
pub mod sdk;
mod types;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub use deployment::*;
pub use error::{ApiError as Error, Class, found};
pub use ids::*;
pub use names::{Names, Owner, TAG_KEY};
pub use types::*;

/// What every call answers.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// The RDS API, as far as an upgrade needs it. Held as `Arc<dyn Rds>`.
pub trait Rds: Send + Sync + 'static {
    // --- reading: clusters and instances ---

    /// `NotFound` when no cluster has this name now.
    fn cluster<'a>(&'a self, id: &'a ClusterId) -> Answer<'a, Cluster>;
    /// `NotFound` when no cluster has this ARN now.
    fn cluster_by_arn<'a>(&'a self, arn: &'a ClusterArn) -> Answer<'a, Cluster>;
    /// The cluster with this identity, whatever it is called now; `None` when it is gone.
    fn cluster_by_resource<'a>(&'a self, id: &'a ClusterResourceId) -> Answer<'a, Option<Cluster>>;
    /// Every cluster of the account and region.
    fn clusters(&self) -> Answer<'_, Vec<Cluster>>;
    /// All instances of the cluster that has this name now; empty when it has none or is not there.
    fn instances<'a>(&'a self, cluster: &'a ClusterId) -> Answer<'a, Vec<Instance>>;
    fn instance<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Instance>;

    // --- reading: what AWS offers ---

    /// The versions of `engine`, or the one asked for, with what each can be upgraded to.
    fn engine_versions<'a>(&'a self, engine: &'a str, version: Option<&'a Version>) -> Answer<'a, Vec<EngineVersion>>;
    /// The instance classes that AWS offers for this version; with `class`, that one or nothing.
    fn orderable_options<'a>(
        &'a self,
        engine: &'a str,
        version: &'a Version,
        class: Option<&'a str>,
    ) -> Answer<'a, Vec<OrderableOption>>;

    // --- parameter groups ---

    fn parameter_group<'a>(&'a self, scope: GroupScope, name: &'a ParameterGroupName) -> Answer<'a, ParameterGroup>;
    /// The parameters of a group, all pages, of one source or of all.
    fn parameters<'a>(
        &'a self,
        scope: GroupScope,
        name: &'a ParameterGroupName,
        source: Option<ParameterSource>,
    ) -> Answer<'a, Vec<Parameter>>;
    /// The parameters that a family has, with the engine's defaults: what a group of that family can hold at all.
    fn default_parameters<'a>(&'a self, scope: GroupScope, family: &'a Family) -> Answer<'a, Vec<Parameter>>;
    fn create_parameter_group<'a>(&'a self, new: &'a NewParameterGroup) -> Answer<'a, ParameterGroup>;
    /// Sets parameters, twenty to a call. Setting is idempotent: after `Unknown` read the group and set what is missing.
    fn modify_parameter_group<'a>(
        &'a self,
        scope: GroupScope,
        name: &'a ParameterGroupName,
        changes: &'a [ParameterChange],
    ) -> Answer<'a, ()>;
    /// `InvalidState` when it is in use.
    fn delete_parameter_group<'a>(&'a self, scope: GroupScope, name: &'a ParameterGroupName) -> Answer<'a, ()>;

    // --- changing clusters and instances ---

    fn modify_cluster<'a>(&'a self, id: &'a ClusterId, change: &'a ClusterChange) -> Answer<'a, Cluster>;
    fn modify_instance<'a>(&'a self, id: &'a InstanceId, change: &'a InstanceChange) -> Answer<'a, Instance>;
    fn reboot_instance<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Instance>;
    /// An instance of a cluster has no final snapshot of its own.
    fn delete_instance<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Instance>;
    /// Needs its instances gone and its deletion protection off.
    fn delete_cluster<'a>(
        &'a self,
        id: &'a ClusterId,
        last: &'a FinalSnapshot,
        delete_automated_backups: bool,
    ) -> Answer<'a, Cluster>;

    // --- snapshots ---

    fn create_snapshot<'a>(
        &'a self,
        id: &'a SnapshotId,
        cluster: &'a ClusterId,
        tags: &'a [Tag],
    ) -> Answer<'a, Snapshot>;
    fn snapshot<'a>(&'a self, id: &'a SnapshotId) -> Answer<'a, Snapshot>;
    fn delete_snapshot<'a>(&'a self, id: &'a SnapshotId) -> Answer<'a, Snapshot>;

    // --- deployments ---

    fn create_deployment<'a>(&'a self, new: &'a NewDeployment) -> Answer<'a, Deployment>;
    /// `NotFound` once it is deleted.
    fn deployment<'a>(&'a self, id: &'a DeploymentId) -> Answer<'a, Deployment>;
    fn deployment_by_name<'a>(&'a self, name: &'a DeploymentName) -> Answer<'a, Option<Deployment>>;
    /// Every deployment of the account and region.
    fn deployments(&self) -> Answer<'_, Vec<Deployment>>;
    /// The time-out, 30 to 3600 s, covers the whole switchover; on expiry AWS rolls everything back.
    fn switchover<'a>(&'a self, id: &'a DeploymentId, timeout: Duration) -> Answer<'a, Deployment>;
    /// With `delete_target` green goes too; refused by AWS once the switchover is completed. Blue is never touched.
    fn delete_deployment<'a>(&'a self, id: &'a DeploymentId, delete_target: bool) -> Answer<'a, Deployment>;

    // --- events, logs, tags ---

    /// Oldest first.
    fn events<'a>(&'a self, query: &'a EventQuery) -> Answer<'a, Vec<Event>>;
    /// The log files of an instance whose names contain `contains`, oldest first.
    fn log_files<'a>(&'a self, instance: &'a InstanceId, contains: &'a str) -> Answer<'a, Vec<LogFile>>;
    fn log_portion<'a>(&'a self, instance: &'a InstanceId, file: &'a str, from: &'a LogFrom) -> Answer<'a, LogPortion>;
    fn add_tags<'a>(&'a self, resource: &'a ResourceArn, tags: &'a [Tag]) -> Answer<'a, ()>;
    fn tags<'a>(&'a self, resource: &'a ResourceArn) -> Answer<'a, Vec<Tag>>;

    // --- what stands in the way of an upgrade ---

    /// Of everything in the account and region.
    fn pending_maintenance(&self) -> Answer<'_, Vec<MaintenanceAction>>;
    fn global_clusters(&self) -> Answer<'_, Vec<GlobalCluster>>;
    fn integrations(&self) -> Answer<'_, Vec<Integration>>;
    fn proxies(&self) -> Answer<'_, Vec<Proxy>>;
}

/// The code of the failure that [`same_cluster`] and [`same_instance`] give: ours, not AWS's.
pub const IDENTITY_CHANGED: &str = "IdentityChanged";

/// Reads the cluster called `id` and refuses unless it is the one recorded. To be called right before every change by name.
///
/// # Errors
/// [`IDENTITY_CHANGED`], class `Permanent`, when the name belongs to another cluster now; else what the read fails with.
pub async fn same_cluster(rds: &dyn Rds, id: &ClusterId, recorded: &ClusterResourceId) -> Result<Cluster, Error> {
    let cluster = rds.cluster(id).await?;
    if cluster.resource_id == *recorded {
        return Ok(cluster);
    }
    Err(identity_changed("DescribeDBClusters", id.as_str(), recorded.as_str(), cluster.resource_id.as_str()))
}

/// As [`same_cluster`], for an instance.
///
/// # Errors
/// As [`same_cluster`].
pub async fn same_instance(rds: &dyn Rds, id: &InstanceId, recorded: &InstanceResourceId) -> Result<Instance, Error> {
    let instance = rds.instance(id).await?;
    if instance.resource_id == *recorded {
        return Ok(instance);
    }
    Err(identity_changed("DescribeDBInstances", id.as_str(), recorded.as_str(), instance.resource_id.as_str()))
}

/// The switchover's time-out in whole seconds, within AWS's limits; the SDK itself checks nothing.
pub(crate) fn switchover_seconds(id: &DeploymentId, timeout: Duration) -> Result<i32, Error> {
    match timeout.as_secs() {
        seconds @ 30..=3600 => Ok(seconds as i32),
        seconds => {
            let message = format!("a switchover time-out of {seconds} s is outside 30 to 3600 s");
            Err(Error::new(Class::Permanent, "SwitchoverBlueGreenDeployment", id, "InvalidParameterValue", message))
        }
    }
}

fn identity_changed(operation: &'static str, name: &str, recorded: &str, found: &str) -> Error {
    let message = format!("`{name}` is {found} now, but {recorded} was recorded under this name");
    Error::new(Class::Permanent, operation, name, IDENTITY_CHANGED, message)
}
