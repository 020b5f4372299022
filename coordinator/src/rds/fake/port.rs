//! The fake behind the port: each call settles the world, meets its fault or acts, and is logged when it changes something.
//! Nothing happens before the future is polled, as with the real client.

use super::*;

/// Bytes of one portion of a log.
const PORTION_BYTES: usize = 1_000_000;

impl Rds for Fake {
    fn cluster<'a>(&'a self, id: &'a ClusterId) -> Answer<'a, Cluster> {
        Box::pin(async move {
            self.read("DescribeDBClusters", id.as_str(), |w| {
                let cluster = w.cluster_named("DescribeDBClusters", id)?;
                Ok(w.told(cluster))
            })
        })
    }

    fn cluster_by_arn<'a>(&'a self, arn: &'a ClusterArn) -> Answer<'a, Cluster> {
        Box::pin(async move {
            self.read("DescribeDBClusters", arn.as_str(), |w| {
                let cluster = w.cluster_named("DescribeDBClusters", &arn.cluster_id())?;
                Ok(w.told(cluster))
            })
        })
    }

    fn cluster_by_resource<'a>(&'a self, id: &'a ClusterResourceId) -> Answer<'a, Option<Cluster>> {
        Box::pin(
            async move { self.read("DescribeDBClusters", id.as_str(), |w| Ok(w.clusters.get(id).map(|c| w.told(c)))) },
        )
    }

    fn clusters(&self) -> Answer<'_, Vec<Cluster>> {
        Box::pin(async move {
            self.read("DescribeDBClusters", "-", |w| Ok(w.clusters.values().map(|c| w.told(c)).collect()))
        })
    }

    fn instances<'a>(&'a self, cluster: &'a ClusterId) -> Answer<'a, Vec<Instance>> {
        Box::pin(async move {
            self.read("DescribeDBInstances", cluster.as_str(), |w| {
                Ok(w.members(cluster).into_iter().cloned().collect())
            })
        })
    }

    fn instance<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Instance> {
        Box::pin(async move {
            self.read("DescribeDBInstances", id.as_str(), |w| w.instance_named("DescribeDBInstances", id).cloned())
        })
    }

    fn engine_versions<'a>(&'a self, engine: &'a str, version: Option<&'a Version>) -> Answer<'a, Vec<EngineVersion>> {
        Box::pin(async move {
            self.read("DescribeDBEngineVersions", engine, |_| {
                let mut all = catalogue::versions();
                all.retain(|v| v.engine == engine && version.is_none_or(|wanted| v.version == *wanted));
                Ok(all)
            })
        })
    }

    fn orderable_options<'a>(
        &'a self,
        engine: &'a str,
        version: &'a Version,
        class: Option<&'a str>,
    ) -> Answer<'a, Vec<OrderableOption>> {
        Box::pin(async move {
            self.read("DescribeOrderableDBInstanceOptions", engine, |_| {
                let mut all = catalogue::orderable(version);
                all.retain(|o| o.engine == engine && class.is_none_or(|wanted| o.class == wanted));
                Ok(all)
            })
        })
    }

    fn parameter_group<'a>(&'a self, scope: GroupScope, name: &'a ParameterGroupName) -> Answer<'a, ParameterGroup> {
        const OPERATION: &str = "DescribeDBClusterParameterGroups";
        Box::pin(async move {
            self.read(OPERATION, name.as_str(), |w| w.group(OPERATION, scope, name).map(|g| g.group.clone()))
        })
    }

    fn parameters<'a>(
        &'a self,
        scope: GroupScope,
        name: &'a ParameterGroupName,
        source: Option<ParameterSource>,
    ) -> Answer<'a, Vec<Parameter>> {
        Box::pin(async move {
            self.read("DescribeDBClusterParameters", name.as_str(), |w| w.parameters(scope, name, source.as_ref()))
        })
    }

    fn default_parameters<'a>(&'a self, scope: GroupScope, family: &'a Family) -> Answer<'a, Vec<Parameter>> {
        const OPERATION: &str = "DescribeEngineDefaultClusterParameters";
        Box::pin(async move {
            self.read(OPERATION, family.as_str(), |_| match catalogue::parameters(scope, family) {
                none if none.is_empty() => {
                    let said = format!("ParameterGroupFamily {family} is not a valid parameter group family");
                    operations::refuse(OPERATION, family.as_str(), "InvalidParameterValue", said)
                }
                all => Ok(all),
            })
        })
    }

    fn create_parameter_group<'a>(&'a self, new: &'a NewParameterGroup) -> Answer<'a, ParameterGroup> {
        let operation = match new.scope {
            GroupScope::Cluster => "CreateDBClusterParameterGroup",
            GroupScope::Instance => "CreateDBParameterGroup",
        };
        Box::pin(async move { self.change(operation, new.name.as_str(), |w| w.create_group(new)) })
    }

    fn modify_parameter_group<'a>(
        &'a self,
        scope: GroupScope,
        name: &'a ParameterGroupName,
        changes: &'a [ParameterChange],
    ) -> Answer<'a, ()> {
        let operation = match scope {
            GroupScope::Cluster => "ModifyDBClusterParameterGroup",
            GroupScope::Instance => "ModifyDBParameterGroup",
        };
        Box::pin(async move {
            // Twenty to a call, so that a fault can strike in the middle.
            for some in changes.chunks(20) {
                self.change(operation, name.as_str(), |w| w.modify_group(scope, name, some))?;
            }
            Ok(())
        })
    }

    fn delete_parameter_group<'a>(&'a self, scope: GroupScope, name: &'a ParameterGroupName) -> Answer<'a, ()> {
        let operation = match scope {
            GroupScope::Cluster => "DeleteDBClusterParameterGroup",
            GroupScope::Instance => "DeleteDBParameterGroup",
        };
        Box::pin(async move { self.change(operation, name.as_str(), |w| w.delete_group(scope, name)) })
    }

    fn modify_cluster<'a>(&'a self, id: &'a ClusterId, change: &'a ClusterChange) -> Answer<'a, Cluster> {
        Box::pin(async move { self.change("ModifyDBCluster", id.as_str(), |w| w.modify_cluster(id, change)) })
    }

    fn modify_instance<'a>(&'a self, id: &'a InstanceId, change: &'a InstanceChange) -> Answer<'a, Instance> {
        Box::pin(async move { self.change("ModifyDBInstance", id.as_str(), |w| w.modify_instance(id, change)) })
    }

    fn reboot_instance<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Instance> {
        Box::pin(async move { self.change("RebootDBInstance", id.as_str(), |w| w.reboot_instance(id)) })
    }

    fn delete_instance<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Instance> {
        Box::pin(async move { self.change("DeleteDBInstance", id.as_str(), |w| w.delete_instance(id)) })
    }

    fn delete_cluster<'a>(
        &'a self,
        id: &'a ClusterId,
        last: &'a FinalSnapshot,
        delete_automated_backups: bool,
    ) -> Answer<'a, Cluster> {
        Box::pin(async move {
            self.change("DeleteDBCluster", id.as_str(), |w| w.delete_cluster(id, last, delete_automated_backups))
        })
    }

    fn create_snapshot<'a>(
        &'a self,
        id: &'a SnapshotId,
        cluster: &'a ClusterId,
        tags: &'a [Tag],
    ) -> Answer<'a, Snapshot> {
        Box::pin(async move {
            self.change("CreateDBClusterSnapshot", id.as_str(), |w| w.create_snapshot(id, cluster, tags))
        })
    }

    fn snapshot<'a>(&'a self, id: &'a SnapshotId) -> Answer<'a, Snapshot> {
        const OPERATION: &str = "DescribeDBClusterSnapshots";
        Box::pin(async move { self.read(OPERATION, id.as_str(), |w| w.snapshot(OPERATION, id)) })
    }

    fn delete_snapshot<'a>(&'a self, id: &'a SnapshotId) -> Answer<'a, Snapshot> {
        Box::pin(async move { self.change("DeleteDBClusterSnapshot", id.as_str(), |w| w.delete_snapshot(id)) })
    }

    fn create_deployment<'a>(&'a self, new: &'a NewDeployment) -> Answer<'a, Deployment> {
        Box::pin(
            async move { self.change("CreateBlueGreenDeployment", new.name.as_str(), |w| w.create_deployment(new)) },
        )
    }

    fn deployment<'a>(&'a self, id: &'a DeploymentId) -> Answer<'a, Deployment> {
        Box::pin(async move { self.read("DescribeBlueGreenDeployments", id.as_str(), |w| w.told_deployment(id)) })
    }

    fn deployment_by_name<'a>(&'a self, name: &'a DeploymentName) -> Answer<'a, Option<Deployment>> {
        Box::pin(async move {
            self.read("DescribeBlueGreenDeployments", name.as_str(), |w| {
                let named = |d: &Deployment| d.name.as_str().eq_ignore_ascii_case(name.as_str());
                let id = w.deployments.values().find(|d| named(&d.shown)).map(|d| d.shown.id.clone());
                id.map(|id| w.told_deployment(&id)).transpose()
            })
        })
    }

    fn deployments(&self) -> Answer<'_, Vec<Deployment>> {
        Box::pin(async move {
            self.read("DescribeBlueGreenDeployments", "-", |w| {
                Ok(w.deployments.values().map(|d| d.shown.clone()).collect())
            })
        })
    }

    fn switchover<'a>(&'a self, id: &'a DeploymentId, timeout: Duration) -> Answer<'a, Deployment> {
        Box::pin(
            async move { self.change("SwitchoverBlueGreenDeployment", id.as_str(), |w| w.switchover(id, timeout)) },
        )
    }

    fn delete_deployment<'a>(&'a self, id: &'a DeploymentId, delete_target: bool) -> Answer<'a, Deployment> {
        Box::pin(async move {
            self.change("DeleteBlueGreenDeployment", id.as_str(), |w| w.delete_deployment(id, delete_target))
        })
    }

    fn events<'a>(&'a self, query: &'a EventQuery) -> Answer<'a, Vec<Event>> {
        Box::pin(async move {
            self.read("DescribeEvents", query.source.as_deref().unwrap_or("-"), |w| {
                let kind = query.source_type.map(SourceType::as_str);
                let wanted = |e: &&Event| {
                    e.at.is_some_and(|at| at >= query.since)
                        && kind.is_none_or(|k| e.source_type.as_deref() == Some(k))
                        && (query.source.is_none() || e.source == query.source)
                };
                Ok(w.events.iter().filter(wanted).cloned().collect())
            })
        })
    }

    fn log_files<'a>(&'a self, instance: &'a InstanceId, contains: &'a str) -> Answer<'a, Vec<LogFile>> {
        Box::pin(async move {
            self.read("DescribeDBLogFiles", instance.as_str(), |w| {
                let id = w.instance_named("DescribeDBLogFiles", instance)?.resource_id.clone();
                let files = w.logs.get(&id).into_iter().flatten().filter(|(name, _)| name.contains(contains));
                let file = |(name, (text, at)): (&String, &(String, Timestamp))| LogFile {
                    name: name.clone(),
                    last_written: Some(*at),
                    size: text.len() as u64,
                };
                let mut all: Vec<LogFile> = files.map(file).collect();
                all.sort_by(|a, b| (a.last_written, &a.name).cmp(&(b.last_written, &b.name)));
                Ok(all)
            })
        })
    }

    fn log_portion<'a>(&'a self, instance: &'a InstanceId, file: &'a str, from: &'a LogFrom) -> Answer<'a, LogPortion> {
        const OPERATION: &str = "DownloadDBLogFilePortion";
        Box::pin(async move {
            self.read(OPERATION, file, |w| {
                let id = w.instance_named(OPERATION, instance)?.resource_id.clone();
                let Some((text, _)) = w.logs.get(&id).and_then(|files| files.get(file)) else {
                    let said = format!("DBLog File: {file}, is not found on the DB instance");
                    return operations::refuse(OPERATION, file, "DBLogFileNotFoundFault", said);
                };
                Ok(portion(text, from))
            })
        })
    }

    fn add_tags<'a>(&'a self, resource: &'a ResourceArn, tags: &'a [Tag]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.change("AddTagsToResource", resource.as_str(), |w| {
                let all = w.tags_of("AddTagsToResource", resource)?;
                all.retain(|old| tags.iter().all(|new| new.key != old.key));
                all.extend_from_slice(tags);
                Ok(())
            })
        })
    }

    fn tags<'a>(&'a self, resource: &'a ResourceArn) -> Answer<'a, Vec<Tag>> {
        Box::pin(async move {
            self.read("ListTagsForResource", resource.as_str(), |w| {
                w.tags_of("ListTagsForResource", resource).map(|tags| tags.clone())
            })
        })
    }

    fn pending_maintenance(&self) -> Answer<'_, Vec<MaintenanceAction>> {
        Box::pin(async move { self.read("DescribePendingMaintenanceActions", "-", |w| Ok(w.maintenance.clone())) })
    }

    fn global_clusters(&self) -> Answer<'_, Vec<GlobalCluster>> {
        Box::pin(async move { self.read("DescribeGlobalClusters", "-", |w| Ok(w.global_clusters.clone())) })
    }

    fn integrations(&self) -> Answer<'_, Vec<Integration>> {
        Box::pin(async move { self.read("DescribeIntegrations", "-", |w| Ok(w.integrations.clone())) })
    }

    fn proxies(&self) -> Answer<'_, Vec<Proxy>> {
        Box::pin(async move { self.read("DescribeDBProxies", "-", |w| Ok(w.proxies.clone())) })
    }
}

/// Markers are byte offsets, as text.
fn portion(text: &str, from: &LogFrom) -> LogPortion {
    let start = match from {
        LogFrom::Start => 0,
        LogFrom::Marker(marker) => marker.parse().unwrap_or(0).min(text.len()),
        LogFrom::Tail { lines } => {
            let ends = text.trim_end_matches('\n').rmatch_indices('\n').map(|(at, _)| at + 1);
            ends.take(*lines as usize).last().filter(|_| text.lines().count() > *lines as usize).unwrap_or(0)
        }
    };
    let mut end = (start + PORTION_BYTES).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let some = text.get(start..end).unwrap_or_default();
    LogPortion { text: some.to_owned(), marker: Some(end.to_string()), more: end < text.len() }
}
