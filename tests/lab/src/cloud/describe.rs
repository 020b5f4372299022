//! `DescribeDBClusters` and `DescribeDBInstances`: how a cluster and an instance look from outside.

use jiff::{SignedDuration, Timestamp};

use crate::cloud::Cloud;
use crate::cloud::errors::Answer;
use crate::cloud::params::Params;
use crate::cloud::state::{Cluster, Endpoints, Instance, Replication, State};
use crate::cloud::tags;
use crate::cloud::versions::ENGINE;
use crate::faults::Feature;
use crate::settings::{ACCOUNT, MASTER_USER, REGION};
use crate::wire::xml::Element;

/// The zone that RDS's names of this region are in.
const HOSTED_ZONE: &str = "Z2R2ITUGPM61AM";

pub(crate) fn clusters(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let state = cloud.state();
    let filters = params.filters(&["clone-group-id", "db-cluster-id", "db-cluster-resource-id", "domain", "engine"])?;
    let one = params.get("DBClusterIdentifier").map(|identifier| state.cluster(identifier)).transpose()?;
    let mut found: Vec<&Cluster> = match one {
        Some(cluster) => vec![cluster],
        None => state.clusters.values().collect(),
    };
    for (name, values) in &filters {
        found.retain(|c| match name.as_str() {
            "clone-group-id" => values.contains(&c.clone_group),
            "db-cluster-id" => values.iter().any(|v| v.eq_ignore_ascii_case(&c.identifier) || *v == c.arn()),
            "db-cluster-resource-id" => values.contains(&c.id),
            "engine" => values.iter().any(|v| v == ENGINE),
            _ => false,
        });
    }
    found.sort_by(|a, b| a.identifier.cmp(&b.identifier));
    let (page, marker) = params.page(found, 100)?;
    let list = page.into_iter().map(|c| cluster(cloud, &state, c));
    Ok(Some(Element::new("").maybe("Marker", marker).list("DBClusters", list)))
}

pub(crate) fn instances(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let state = cloud.state();
    let filters = params.filters(&["db-cluster-id", "db-instance-id", "dbi-resource-id", "domain", "engine"])?;
    let one = params.get("DBInstanceIdentifier").map(|identifier| state.instance(identifier)).transpose()?;
    let mut found: Vec<&Instance> = match one {
        Some(instance) => vec![instance],
        None => state.instances.values().collect(),
    };
    for (name, values) in &filters {
        found.retain(|i| match name.as_str() {
            "db-cluster-id" => state
                .clusters
                .get(&i.cluster)
                .is_some_and(|c| values.iter().any(|v| v.eq_ignore_ascii_case(&c.identifier) || *v == c.arn())),
            "db-instance-id" => values.iter().any(|v| v.eq_ignore_ascii_case(&i.identifier) || *v == i.arn()),
            "dbi-resource-id" => values.contains(&i.id),
            "engine" => values.iter().any(|v| v == ENGINE),
            _ => false,
        });
    }
    found.sort_by(|a, b| a.identifier.cmp(&b.identifier));
    let (page, marker) = params.page(found, 100)?;
    let list = page.into_iter().map(|i| instance(cloud, &state, i));
    Ok(Some(Element::new("").maybe("Marker", marker).list("DBInstances", list)))
}

/// A `DBCluster`.
pub(crate) fn cluster(cloud: &Cloud, state: &State, c: &Cluster) -> Element {
    let looks = |feature| cloud.faults().looks(&c.identifier, feature);
    let members = c.members().filter_map(|id| state.instances.get(id)).map(|i| {
        Element::new("DBClusterMember")
            .with("DBInstanceIdentifier", &i.identifier)
            .with("IsClusterWriter", i.id == c.writer)
            .with("DBClusterParameterGroupStatus", &i.cluster_group_status)
            .with("PromotionTier", i.tier)
    });
    let custom = state.endpoints_of(&c.id).map(|e| Element::text("member", cloud.zone().custom(&e.identifier)));
    let named = c.endpoints != Endpoints::None;
    let element = Element::new("DBCluster")
        .with("AllocatedStorage", 1)
        .list("AvailabilityZones", ["a", "b", "c"].map(|z| Element::text("AvailabilityZone", format!("{REGION}{z}"))))
        .with("BackupRetentionPeriod", 7)
        .with("DBClusterIdentifier", &c.identifier)
        .with("DBClusterParameterGroup", &c.group)
        .with("DBSubnetGroup", "default")
        .with("Status", &c.status)
        .at("EarliestRestorableTime", c.created)
        .maybe("Endpoint", named.then(|| cloud.zone().cluster(&c.identifier)))
        .maybe("ReaderEndpoint", named.then(|| cloud.zone().readers(&c.identifier)))
        .list("CustomEndpoints", custom)
        .with("MultiAZ", !c.readers.is_empty())
        .with("Engine", if looks(Feature::OtherEngine) { "aurora-mysql" } else { ENGINE })
        .with("EngineVersion", &c.version)
        .at("LatestRestorableTime", restorable(cloud, c.created))
        .with("Port", c.network.port)
        .with("MasterUsername", MASTER_USER)
        .with("PreferredBackupWindow", "03:00-03:30")
        .with("PreferredMaintenanceWindow", "sun:05:00-sun:05:30")
        .maybe("ReplicationSourceIdentifier", c.source.as_ref())
        .list("ReadReplicaIdentifiers", [])
        .list("DBClusterMembers", members)
        .with("HostedZoneId", HOSTED_ZONE)
        .with("StorageEncrypted", true)
        .with("KmsKeyId", format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"))
        .with("DbClusterResourceId", &c.id)
        .with("DBClusterArn", c.arn())
        .list("AssociatedRoles", [])
        .with("IAMDatabaseAuthenticationEnabled", looks(Feature::IamAuthentication))
        .with("CloneGroupId", &c.clone_group)
        .at("ClusterCreateTime", c.created);
    let element = extras(element, c, &looks);
    element.list("TagList", tags::elements(&c.tags))
}

/// What most clusters have in common, and what a fault makes one look like.
fn extras(element: Element, c: &Cluster, looks: &dyn Fn(Feature) -> bool) -> Element {
    let element = element
        .with("EngineMode", "provisioned")
        .with("AutoMinorVersionUpgrade", false)
        .with("DeletionProtection", c.deletion_protection)
        .with("HttpEndpointEnabled", false)
        .with("ActivityStreamStatus", if looks(Feature::ActivityStream) { "started" } else { "stopped" })
        .with("CopyTagsToSnapshot", false)
        .with("CrossAccountClone", false)
        .with("NetworkType", "IPV4")
        .maybe("GlobalClusterIdentifier", looks(Feature::GlobalDatabase).then_some("lab-global"));
    if looks(Feature::ManagedSecret) {
        let arn = format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:rds!cluster-lab");
        element.child(Element::new("MasterUserSecret").with("SecretArn", arn).with("SecretStatus", "active"))
    } else {
        element
    }
}

/// A `DBInstance`.
pub(crate) fn instance(cloud: &Cloud, state: &State, i: &Instance) -> Element {
    let cluster = state.clusters.get(&i.cluster);
    let group = Element::new("DBParameterGroup")
        .with("DBParameterGroupName", &i.group)
        .with("ParameterApplyStatus", &i.group_status);
    let element = Element::new("DBInstance")
        .with("DBInstanceIdentifier", &i.identifier)
        .with("DBInstanceClass", &i.class)
        .with("Engine", ENGINE)
        .with("DBInstanceStatus", &i.status)
        .with("MasterUsername", MASTER_USER);
    let element = match i.status.as_str() {
        "creating" => element,
        _ => element.child(
            Element::new("Endpoint")
                .with("Address", cloud.zone().instance(&i.identifier))
                .with("Port", i.port)
                .with("HostedZoneId", HOSTED_ZONE),
        ),
    };
    element
        .with("AllocatedStorage", 1)
        .at("InstanceCreateTime", i.created)
        .with("PreferredBackupWindow", "03:00-03:30")
        .with("BackupRetentionPeriod", 7)
        .list("DBParameterGroups", [group])
        .with("AvailabilityZone", format!("{REGION}a"))
        .with("PreferredMaintenanceWindow", "sun:05:00-sun:05:30")
        .child(Element::new("PendingModifiedValues"))
        .with("MultiAZ", false)
        .with("EngineVersion", &i.version)
        .with("AutoMinorVersionUpgrade", false)
        .with("LicenseModel", "postgresql-license")
        .with("PubliclyAccessible", false)
        .list("StatusInfos", status_info(&i.replication))
        .with("StorageType", "aurora")
        .with("DbInstancePort", 0)
        .maybe("DBClusterIdentifier", cluster.map(|c| &c.identifier))
        .with("StorageEncrypted", true)
        .with("DbiResourceId", &i.id)
        .with("CACertificateIdentifier", "rds-ca-rsa2048-g1")
        .with("CopyTagsToSnapshot", false)
        .with("MonitoringInterval", 0)
        .with("PromotionTier", i.tier)
        .with("DBInstanceArn", i.arn())
        .with("IAMDatabaseAuthenticationEnabled", false)
        .with("PerformanceInsightsEnabled", false)
        .with("DeletionProtection", false)
        .list("TagList", tags::elements(&i.tags))
        .with("BackupTarget", "region")
        .with("NetworkType", "IPV4")
}

fn status_info(replication: &Replication) -> Option<Element> {
    let info = |normal: bool, status: &str| {
        Element::new("DBInstanceStatusInfo")
            .with("StatusType", "read replication")
            .with("Normal", normal)
            .with("Status", status)
    };
    match replication {
        Replication::None => None,
        Replication::Running => Some(info(true, "replicating")),
        Replication::Broken(why) => Some(info(false, "error").with("Message", why)),
    }
}

/// Up to when the backups reach.
fn restorable(cloud: &Cloud, created: Timestamp) -> Timestamp {
    let delay = SignedDuration::try_from(cloud.settings().timings.restorable_delay).unwrap_or(SignedDuration::ZERO);
    cloud.clock().now().checked_sub(delay).unwrap_or(created).max(created)
}
