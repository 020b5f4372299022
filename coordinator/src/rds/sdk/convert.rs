//! Turns what the SDK read into our own types. An object without its identity is refused; any other field may be missing.

use jiff::Timestamp;

use super::aws::{DateTime, types as aws};
use crate::rds::*;

/// The name of a field that AWS left out of an answer although nothing can be done without it.
#[derive(Debug)]
pub(super) struct Lacking(pub(super) &'static str);

type Converted<T> = Result<T, Lacking>;

fn need<T>(field: Option<T>, name: &'static str) -> Converted<T> {
    field.ok_or(Lacking(name))
}

fn time(at: Option<DateTime>) -> Option<Timestamp> {
    let at = at?;
    Timestamp::new(at.secs(), at.subsec_nanos() as i32).ok()
}

/// A time of ours, for AWS.
pub(super) fn date(at: Timestamp) -> DateTime {
    DateTime::from_nanos(at.as_nanosecond()).unwrap_or_else(|_| DateTime::from_secs(at.as_second()))
}

fn port(port: Option<i32>) -> Option<u16> {
    port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)
}

fn arn(text: Option<String>, name: &'static str) -> Converted<ResourceArn> {
    ResourceArn::try_from(need(text, name)?).map_err(|_| Lacking(name))
}

fn tags(list: Option<Vec<aws::Tag>>) -> Vec<Tag> {
    list.unwrap_or_default().into_iter().map(tag).collect()
}

pub(super) fn tag(tag: aws::Tag) -> Tag {
    Tag { key: tag.key.unwrap_or_default(), value: tag.value.unwrap_or_default() }
}

/// Our tags, for AWS.
pub(super) fn to_tags(tags: &[Tag]) -> Option<Vec<aws::Tag>> {
    if tags.is_empty() {
        return None;
    }
    Some(tags.iter().map(|t| aws::Tag::builder().key(&t.key).value(&t.value).build()).collect())
}

fn names(flags: &[(bool, &str)]) -> Vec<String> {
    flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()).collect()
}

fn cluster_pending(pending: Option<aws::ClusterPendingModifiedValues>) -> Vec<String> {
    let Some(p) = pending else { return Vec::new() };
    names(&[
        (p.pending_cloudwatch_logs_exports.is_some(), "PendingCloudwatchLogsExports"),
        (p.db_cluster_identifier.is_some(), "DBClusterIdentifier"),
        (p.master_user_password.is_some(), "MasterUserPassword"),
        (p.iam_database_authentication_enabled.is_some(), "IAMDatabaseAuthenticationEnabled"),
        (p.engine_version.is_some(), "EngineVersion"),
        (p.backup_retention_period.is_some(), "BackupRetentionPeriod"),
        (p.storage_type.is_some(), "StorageType"),
        (p.allocated_storage.is_some(), "AllocatedStorage"),
        (p.iops.is_some(), "Iops"),
        (p.certificate_details.is_some(), "CertificateDetails"),
    ])
}

fn instance_pending(pending: Option<aws::PendingModifiedValues>) -> Vec<String> {
    let Some(p) = pending else { return Vec::new() };
    names(&[
        (p.db_instance_class.is_some(), "DBInstanceClass"),
        (p.allocated_storage.is_some(), "AllocatedStorage"),
        (p.master_user_password.is_some(), "MasterUserPassword"),
        (p.port.is_some(), "Port"),
        (p.backup_retention_period.is_some(), "BackupRetentionPeriod"),
        (p.multi_az.is_some(), "MultiAZ"),
        (p.engine_version.is_some(), "EngineVersion"),
        (p.iops.is_some(), "Iops"),
        (p.storage_throughput.is_some(), "StorageThroughput"),
        (p.db_instance_identifier.is_some(), "DBInstanceIdentifier"),
        (p.storage_type.is_some(), "StorageType"),
        (p.ca_certificate_identifier.is_some(), "CACertificateIdentifier"),
        (p.db_subnet_group_name.is_some(), "DBSubnetGroupName"),
        (p.pending_cloudwatch_logs_exports.is_some(), "PendingCloudwatchLogsExports"),
        (p.processor_features.is_some_and(|f| !f.is_empty()), "ProcessorFeatures"),
        (p.iam_database_authentication_enabled.is_some(), "IAMDatabaseAuthenticationEnabled"),
    ])
}

fn member(m: aws::DbClusterMember) -> Converted<Member> {
    Ok(Member {
        instance: need(m.db_instance_identifier, "DBClusterMembers.DBInstanceIdentifier")?.into(),
        is_writer: m.is_cluster_writer.unwrap_or(false),
        parameter_group_status: m.db_cluster_parameter_group_status.unwrap_or_default(),
        promotion_tier: m.promotion_tier,
    })
}

pub(super) fn cluster(c: aws::DbCluster) -> Converted<Cluster> {
    let arn = arn(c.db_cluster_arn, "DBClusterArn")?;
    Ok(Cluster {
        id: need(c.db_cluster_identifier, "DBClusterIdentifier")?.into(),
        arn: arn.as_cluster().ok_or(Lacking("DBClusterArn"))?,
        resource_id: need(c.db_cluster_resource_id, "DbClusterResourceId")?.into(),
        engine: need(c.engine, "Engine")?,
        engine_version: need(c.engine_version, "EngineVersion")?.into(),
        status: Status(need(c.status, "Status")?),
        parameter_group: c.db_cluster_parameter_group.unwrap_or_default().into(),
        endpoint: c.endpoint,
        reader_endpoint: c.reader_endpoint,
        custom_endpoints: c.custom_endpoints.unwrap_or_default(),
        port: port(c.port),
        members: c.db_cluster_members.unwrap_or_default().into_iter().map(member).collect::<Converted<_>>()?,
        deletion_protection: c.deletion_protection.unwrap_or(false),
        iam_database_authentication: c.iam_database_authentication_enabled.unwrap_or(false),
        master_username: c.master_username,
        master_user_secret: c.master_user_secret.and_then(|s| {
            let status = s.secret_status;
            s.secret_arn.map(|arn| MasterUserSecret { arn, status })
        }),
        global_cluster: c.global_cluster_identifier.filter(|id| !id.is_empty()),
        replication_source: c.replication_source_identifier.filter(|id| !id.is_empty()),
        activity_stream_status: c.activity_stream_status.map(|s| s.as_str().to_owned()),
        serverless_v2: c.serverless_v2_scaling_configuration.is_some(),
        storage_encrypted: c.storage_encrypted.unwrap_or(false),
        backup_retention_days: c.backup_retention_period,
        latest_restorable_time: time(c.latest_restorable_time),
        preferred_maintenance_window: c.preferred_maintenance_window,
        auto_minor_version_upgrade: c.auto_minor_version_upgrade,
        pending: cluster_pending(c.pending_modified_values),
        tags: tags(c.tag_list),
    })
}

fn endpoint(e: Option<aws::Endpoint>) -> Option<Endpoint> {
    let e = e?;
    Some(Endpoint { host: e.address?, port: port(e.port)? })
}

fn group_use(g: aws::DbParameterGroupStatus) -> ParameterGroupUse {
    ParameterGroupUse {
        name: g.db_parameter_group_name.unwrap_or_default().into(),
        apply_status: g.parameter_apply_status.unwrap_or_default(),
    }
}

fn status_info(s: aws::DbInstanceStatusInfo) -> StatusInfo {
    StatusInfo {
        kind: s.status_type.unwrap_or_default(),
        normal: s.normal.unwrap_or(false),
        status: s.status.unwrap_or_default(),
        message: s.message.filter(|m| !m.is_empty()),
    }
}

pub(super) fn instance(i: aws::DbInstance) -> Converted<Instance> {
    Ok(Instance {
        id: need(i.db_instance_identifier, "DBInstanceIdentifier")?.into(),
        arn: arn(i.db_instance_arn, "DBInstanceArn")?,
        resource_id: need(i.dbi_resource_id, "DbiResourceId")?.into(),
        cluster: i.db_cluster_identifier.filter(|id| !id.is_empty()).map(ClusterId::from),
        class: i.db_instance_class.unwrap_or_default(),
        engine: need(i.engine, "Engine")?,
        engine_version: need(i.engine_version, "EngineVersion")?.into(),
        status: Status(need(i.db_instance_status, "DBInstanceStatus")?),
        endpoint: endpoint(i.endpoint),
        parameter_groups: i.db_parameter_groups.unwrap_or_default().into_iter().map(group_use).collect(),
        status_infos: i.status_infos.unwrap_or_default().into_iter().map(status_info).collect(),
        promotion_tier: i.promotion_tier,
        availability_zone: i.availability_zone,
        iam_database_authentication: i.iam_database_authentication_enabled.unwrap_or(false),
        deletion_protection: i.deletion_protection.unwrap_or(false),
        preferred_maintenance_window: i.preferred_maintenance_window,
        pending: instance_pending(i.pending_modified_values),
        tags: tags(i.tag_list),
    })
}

pub(super) fn engine_version(v: aws::DbEngineVersion) -> Converted<EngineVersion> {
    let targets = v.valid_upgrade_target.unwrap_or_default();
    Ok(EngineVersion {
        engine: need(v.engine, "Engine")?,
        version: need(v.engine_version, "EngineVersion")?.into(),
        family: need(v.db_parameter_group_family, "DBParameterGroupFamily")?.into(),
        status: v.status,
        upgrade_targets: targets.into_iter().map(upgrade_target).collect::<Converted<_>>()?,
    })
}

fn upgrade_target(t: aws::UpgradeTarget) -> Converted<UpgradeTarget> {
    Ok(UpgradeTarget {
        engine: need(t.engine, "ValidUpgradeTarget.Engine")?,
        version: need(t.engine_version, "ValidUpgradeTarget.EngineVersion")?.into(),
        is_major: t.is_major_version_upgrade.unwrap_or(false),
    })
}

pub(super) fn orderable(o: aws::OrderableDbInstanceOption) -> Converted<OrderableOption> {
    Ok(OrderableOption {
        engine: need(o.engine, "Engine")?,
        version: need(o.engine_version, "EngineVersion")?.into(),
        class: need(o.db_instance_class, "DBInstanceClass")?,
    })
}

pub(super) fn cluster_group(g: aws::DbClusterParameterGroup) -> Converted<ParameterGroup> {
    Ok(ParameterGroup {
        scope: GroupScope::Cluster,
        name: need(g.db_cluster_parameter_group_name, "DBClusterParameterGroupName")?.into(),
        arn: arn(g.db_cluster_parameter_group_arn, "DBClusterParameterGroupArn")?,
        family: need(g.db_parameter_group_family, "DBParameterGroupFamily")?.into(),
        description: g.description.unwrap_or_default(),
    })
}

pub(super) fn instance_group(g: aws::DbParameterGroup) -> Converted<ParameterGroup> {
    Ok(ParameterGroup {
        scope: GroupScope::Instance,
        name: need(g.db_parameter_group_name, "DBParameterGroupName")?.into(),
        arn: arn(g.db_parameter_group_arn, "DBParameterGroupArn")?,
        family: need(g.db_parameter_group_family, "DBParameterGroupFamily")?.into(),
        description: g.description.unwrap_or_default(),
    })
}

pub(super) fn parameter(p: aws::Parameter) -> Converted<Parameter> {
    Ok(Parameter {
        name: need(p.parameter_name, "ParameterName")?,
        value: p.parameter_value,
        source: p.source.as_deref().unwrap_or("engine-default").into(),
        is_static: p.apply_type.as_deref() == Some("static"),
        data_type: p.data_type,
        allowed_values: p.allowed_values,
        is_modifiable: p.is_modifiable.unwrap_or(false),
        apply_method: match p.apply_method {
            Some(aws::ApplyMethod::Immediate) => Some(ApplyMethod::Immediate),
            Some(aws::ApplyMethod::PendingReboot) => Some(ApplyMethod::PendingReboot),
            _ => None,
        },
    })
}

/// Our change, for AWS.
pub(super) fn to_parameter(change: &ParameterChange) -> aws::Parameter {
    let method = match change.apply {
        ApplyMethod::Immediate => aws::ApplyMethod::Immediate,
        ApplyMethod::PendingReboot => aws::ApplyMethod::PendingReboot,
    };
    let named = aws::Parameter::builder().parameter_name(&change.name);
    named.parameter_value(&change.value).apply_method(method).build()
}

pub(super) fn snapshot(s: aws::DbClusterSnapshot) -> Converted<Snapshot> {
    Ok(Snapshot {
        id: need(s.db_cluster_snapshot_identifier, "DBClusterSnapshotIdentifier")?.into(),
        arn: arn(s.db_cluster_snapshot_arn, "DBClusterSnapshotArn")?,
        cluster: need(s.db_cluster_identifier, "DBClusterIdentifier")?.into(),
        cluster_resource_id: s.db_cluster_resource_id.map(ClusterResourceId::from),
        status: Status(need(s.status, "Status")?),
        percent_progress: s.percent_progress,
        engine_version: s.engine_version.map(Version::from),
        created: time(s.snapshot_create_time),
        tags: tags(s.tag_list),
    })
}

fn optional_arn(text: Option<String>, name: &'static str) -> Converted<Option<ResourceArn>> {
    match text.filter(|t| !t.is_empty()) {
        None => Ok(None),
        text => arn(text, name).map(Some),
    }
}

fn detail(d: aws::SwitchoverDetail) -> Converted<SwitchoverDetail> {
    Ok(SwitchoverDetail {
        source: optional_arn(d.source_member, "SwitchoverDetails.SourceMember")?,
        target: optional_arn(d.target_member, "SwitchoverDetails.TargetMember")?,
        status: d.status.unwrap_or_default().into(),
    })
}

pub(super) fn deployment(d: aws::BlueGreenDeployment) -> Converted<Deployment> {
    let task = |t: aws::BlueGreenDeploymentTask| Task {
        name: t.name.unwrap_or_default(),
        state: t.status.unwrap_or_default().into(),
    };
    Ok(Deployment {
        id: need(d.blue_green_deployment_identifier, "BlueGreenDeploymentIdentifier")?.into(),
        name: need(d.blue_green_deployment_name, "BlueGreenDeploymentName")?.into(),
        source: arn(d.source, "Source")?,
        target: optional_arn(d.target, "Target")?,
        status: need(d.status, "Status")?.into(),
        status_details: d.status_details.filter(|s| !s.is_empty()),
        members: d.switchover_details.unwrap_or_default().into_iter().map(detail).collect::<Converted<_>>()?,
        tasks: d.tasks.unwrap_or_default().into_iter().map(task).collect(),
        created: time(d.create_time),
        deleted: time(d.delete_time),
        tags: tags(d.tag_list),
    })
}

pub(super) fn event(e: aws::Event) -> Event {
    Event {
        source: e.source_identifier,
        source_type: e.source_type.map(|t| t.as_str().to_owned()),
        source_arn: e.source_arn,
        message: e.message.unwrap_or_default(),
        categories: e.event_categories.unwrap_or_default(),
        at: time(e.date),
    }
}

pub(super) fn log_file(f: aws::DescribeDbLogFilesDetails) -> Converted<LogFile> {
    Ok(LogFile {
        name: need(f.log_file_name, "LogFileName")?,
        last_written: f.last_written.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        size: f.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
    })
}

pub(super) fn maintenance(r: aws::ResourcePendingMaintenanceActions) -> Vec<MaintenanceAction> {
    let resource = r.resource_identifier.unwrap_or_default();
    let action = |a: aws::PendingMaintenanceAction| MaintenanceAction {
        resource: resource.clone(),
        action: a.action.unwrap_or_default(),
        description: a.description,
        auto_applied_after: time(a.auto_applied_after_date),
        forced_apply: time(a.forced_apply_date),
        current_apply: time(a.current_apply_date),
    };
    r.pending_maintenance_action_details.unwrap_or_default().into_iter().map(action).collect()
}

pub(super) fn global_cluster(g: aws::GlobalCluster) -> GlobalCluster {
    let members = g.global_cluster_members.unwrap_or_default();
    let arns = members.into_iter().flat_map(|m| m.db_cluster_arn.into_iter().chain(m.readers.unwrap_or_default()));
    GlobalCluster { id: g.global_cluster_identifier.unwrap_or_default(), members: arns.collect() }
}

pub(super) fn integration(i: aws::Integration) -> Integration {
    Integration {
        name: i.integration_name.unwrap_or_default(),
        source_arn: i.source_arn.unwrap_or_default(),
        target_arn: i.target_arn.unwrap_or_default(),
        status: i.status.map(|s| s.as_str().to_owned()).unwrap_or_default(),
    }
}

pub(super) fn proxy(p: aws::DbProxy, targets: Vec<aws::DbProxyTarget>) -> Proxy {
    let target = |t: aws::DbProxyTarget| ProxyTarget {
        kind: t.r#type.map(|k| k.as_str().to_owned()),
        tracked_cluster: t.tracked_cluster_id.map(ClusterId::from),
        resource: t.rds_resource_id,
        endpoint: t.endpoint,
        port: port(t.port),
    };
    Proxy {
        name: p.db_proxy_name.unwrap_or_default(),
        arn: p.db_proxy_arn,
        status: p.status.map(|s| s.as_str().to_owned()),
        endpoint: p.endpoint,
        targets: targets.into_iter().map(target).collect(),
    }
}
