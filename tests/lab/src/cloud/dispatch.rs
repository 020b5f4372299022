//! From an action's name to the operation that carries it out.

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::groups::{self, Kind};
use crate::cloud::params::Params;
use crate::cloud::{
    Cloud, blue_green, clusters, deletion, describe, endpoints, events, instances, logs, snapshots, surroundings, tags,
    versions,
};
use crate::wire::xml::Element;

/// The operations of RDS that are served.
pub(crate) const SERVED: [&str; 47] = [
    "AddTagsToResource",
    "CreateBlueGreenDeployment",
    "CreateDBClusterEndpoint",
    "CreateDBClusterParameterGroup",
    "CreateDBClusterSnapshot",
    "CreateDBParameterGroup",
    "DeleteBlueGreenDeployment",
    "DeleteDBCluster",
    "DeleteDBClusterEndpoint",
    "DeleteDBClusterParameterGroup",
    "DeleteDBClusterSnapshot",
    "DeleteDBInstance",
    "DeleteDBParameterGroup",
    "DescribeBlueGreenDeployments",
    "DescribeDBClusterEndpoints",
    "DescribeDBClusterParameterGroups",
    "DescribeDBClusterParameters",
    "DescribeDBClusterSnapshots",
    "DescribeDBClusters",
    "DescribeDBEngineVersions",
    "DescribeDBInstances",
    "DescribeDBLogFiles",
    "DescribeDBParameterGroups",
    "DescribeDBParameters",
    "DescribeDBProxies",
    "DescribeDBProxyTargets",
    "DescribeEngineDefaultClusterParameters",
    "DescribeEngineDefaultParameters",
    "DescribeEvents",
    "DescribeGlobalClusters",
    "DescribeIntegrations",
    "DescribeOrderableDBInstanceOptions",
    "DescribePendingMaintenanceActions",
    "DownloadDBLogFilePortion",
    "FailoverDBCluster",
    "ListTagsForResource",
    "ModifyDBCluster",
    "ModifyDBClusterEndpoint",
    "ModifyDBClusterParameterGroup",
    "ModifyDBInstance",
    "ModifyDBParameterGroup",
    "PromoteReadReplicaDBCluster",
    "RebootDBInstance",
    "RemoveTagsFromResource",
    "ResetDBClusterParameterGroup",
    "ResetDBParameterGroup",
    "SwitchoverBlueGreenDeployment",
];

/// Carries out an RDS call. The answer holds the result's members; `None` for operations without a result.
pub(crate) async fn call(cloud: &Cloud, action: &str, params: &Params) -> Answer<Option<Element>> {
    instances::play_status_faults(cloud);
    match action {
        "DescribeDBClusters" => describe::clusters(cloud, params),
        "DescribeDBInstances" => describe::instances(cloud, params),
        "DescribeDBClusterEndpoints" => endpoints::describe(cloud, params),
        "CreateDBClusterEndpoint" => endpoints::create(cloud, params),
        "ModifyDBClusterEndpoint" => endpoints::modify(cloud, params),
        "DeleteDBClusterEndpoint" => endpoints::delete(cloud, params),
        "DescribeGlobalClusters" | "DescribeIntegrations" | "DescribeDBProxies" | "DescribeDBProxyTargets" => {
            surroundings::describe(cloud, action, params)
        }
        "DescribeDBEngineVersions" => versions::describe(params),
        "DescribeOrderableDBInstanceOptions" => versions::orderable(params),
        "ModifyDBCluster" => clusters::modify(cloud, params),
        "FailoverDBCluster" => clusters::failover(cloud, params),
        "PromoteReadReplicaDBCluster" => clusters::promote(cloud, params),
        "ModifyDBInstance" => instances::modify(cloud, params),
        "RebootDBInstance" => instances::reboot(cloud, params),
        "DeleteDBInstance" => deletion::instance(cloud, params),
        "DeleteDBCluster" => deletion::cluster(cloud, params),
        "CreateDBClusterSnapshot" => snapshots::create(cloud, params),
        "DescribeDBClusterSnapshots" => snapshots::describe(cloud, params),
        "DeleteDBClusterSnapshot" => snapshots::delete(cloud, params).await,
        "CreateBlueGreenDeployment" => blue_green::create(cloud, params).await,
        "DescribeBlueGreenDeployments" => blue_green::describe(cloud, params),
        "SwitchoverBlueGreenDeployment" => blue_green::switchover(cloud, params),
        "DeleteBlueGreenDeployment" => blue_green::delete(cloud, params),
        "DescribeEvents" => events::describe(cloud, params),
        "DescribeDBLogFiles" => logs::describe(cloud, params),
        "DownloadDBLogFilePortion" => logs::download(cloud, params),
        "DescribePendingMaintenanceActions" => instances::maintenance(cloud, params),
        "AddTagsToResource" => tags::add(cloud, params),
        "RemoveTagsFromResource" => tags::remove(cloud, params),
        "ListTagsForResource" => tags::list(cloud, params),
        _ => group_call(cloud, action, params),
    }
}

fn group_call(cloud: &Cloud, action: &str, params: &Params) -> Answer<Option<Element>> {
    match action {
        "DescribeDBClusterParameterGroups" => groups::describe(cloud, params, Kind::Cluster),
        "DescribeDBParameterGroups" => groups::describe(cloud, params, Kind::Instance),
        "CreateDBClusterParameterGroup" => groups::create(cloud, params, Kind::Cluster),
        "CreateDBParameterGroup" => groups::create(cloud, params, Kind::Instance),
        "ModifyDBClusterParameterGroup" => groups::modify(cloud, params, Kind::Cluster),
        "ModifyDBParameterGroup" => groups::modify(cloud, params, Kind::Instance),
        "ResetDBClusterParameterGroup" => groups::reset(cloud, params, Kind::Cluster),
        "ResetDBParameterGroup" => groups::reset(cloud, params, Kind::Instance),
        "DeleteDBClusterParameterGroup" => groups::delete(cloud, params, Kind::Cluster),
        "DeleteDBParameterGroup" => groups::delete(cloud, params, Kind::Instance),
        "DescribeDBClusterParameters" => groups::parameters(cloud, params, Kind::Cluster),
        "DescribeDBParameters" => groups::parameters(cloud, params, Kind::Instance),
        "DescribeEngineDefaultClusterParameters" | "DescribeEngineDefaultParameters" => groups::engine_defaults(params),
        _ => Err(Refusal::new("InvalidAction", 400, format!("{action} is not supported"))),
    }
}
