//! What the fake does when it is asked about clusters, instances, parameter groups and snapshots. Every refusal carries the code
//! and, where it is known, the text of AWS.

use super::catalogue;
use super::world::*;
use crate::rds::sdk::failure::{Effect, classify};
use crate::rds::*;

/// A refusal, classified as the real answer would be.
pub(super) fn refuse<T>(
    operation: &'static str,
    target: &str,
    code: &str,
    message: impl Into<String>,
) -> Result<T, Error> {
    let class = classify(Effect::Changes, &format!("rds:{operation}"), 400, code, "");
    Err(Error::new(class, operation, target, code, message))
}

fn group_codes(scope: GroupScope) -> (&'static str, &'static str) {
    match scope {
        GroupScope::Cluster => ("DBClusterParameterGroupNotFound", "DBClusterParameterGroup not found"),
        GroupScope::Instance => ("DBParameterGroupNotFound", "DBParameterGroup not found"),
    }
}

impl World {
    // --- clusters and instances ---

    pub(super) fn cluster_named(&self, operation: &'static str, id: &ClusterId) -> Result<&Cluster, Error> {
        match self.clusters.values().find(|c| c.id == *id) {
            Some(cluster) => Ok(cluster),
            None => refuse(operation, id.as_str(), "DBClusterNotFoundFault", format!("DBCluster {id} not found.")),
        }
    }

    pub(super) fn instance_named(&self, operation: &'static str, id: &InstanceId) -> Result<&Instance, Error> {
        match self.instances.values().find(|i| i.id == *id) {
            Some(instance) => Ok(instance),
            None => refuse(operation, id.as_str(), "DBInstanceNotFound", format!("DBInstance {id} not found.")),
        }
    }

    /// Members cannot be changed while a switchover runs.
    fn not_switching(&self, operation: &'static str, target: &str, cluster: &ClusterId) -> Result<(), Error> {
        let deployment = self.cluster_id(cluster).and_then(|c| self.unfinished_deployment(&c).map(|d| &d.shown));
        match deployment {
            Some(d) if d.status == DeploymentStatus::SwitchoverInProgress => {
                let said = format!("{target} is part of the switchover of {}", d.id);
                refuse(operation, target, "InvalidDBClusterStateFault", said)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn modify_cluster(&mut self, id: &ClusterId, change: &ClusterChange) -> Result<Cluster, Error> {
        const OPERATION: &str = "ModifyDBCluster";
        let cluster = self.cluster_named(OPERATION, id)?.clone();
        if !cluster.status.is_available() {
            let said = format!("DB cluster {id} is not in available state");
            return refuse(OPERATION, id.as_str(), "InvalidDBClusterStateFault", said);
        }
        self.not_switching(OPERATION, id.as_str(), id)?;
        if let Some(name) = &change.parameter_group {
            self.fitting_group(OPERATION, id.as_str(), GroupScope::Cluster, name, &cluster.engine_version)?;
            if *name != cluster.parameter_group {
                self.later(self.timings.apply, Happening::ClusterGroupApplied(cluster.resource_id.clone()));
            }
        }
        let shown = self.clusters.get_mut(&cluster.resource_id).expect("found above");
        if let Some(protection) = change.deletion_protection {
            shown.deletion_protection = protection;
        }
        if let Some(name) = &change.parameter_group
            && *name != shown.parameter_group
        {
            shown.parameter_group = name.clone();
            shown.members.iter_mut().for_each(|m| m.parameter_group_status = "applying".into());
        }
        let shown = shown.clone();
        Ok(self.told(&shown))
    }

    fn fitting_group(
        &self,
        operation: &'static str,
        target: &str,
        scope: GroupScope,
        name: &ParameterGroupName,
        version: &Version,
    ) -> Result<(), Error> {
        let group = self.group(operation, scope, name)?;
        if group.group.family == catalogue::family(version) {
            return Ok(());
        }
        let said = format!("The parameter group {name} with family {} does not fit {version}", group.group.family);
        refuse(operation, target, "InvalidParameterCombination", said)
    }

    pub(super) fn modify_instance(&mut self, id: &InstanceId, change: &InstanceChange) -> Result<Instance, Error> {
        const OPERATION: &str = "ModifyDBInstance";
        let instance = self.ready_instance(OPERATION, id)?;
        if let Some(name) = &change.parameter_group {
            self.fitting_group(OPERATION, id.as_str(), GroupScope::Instance, name, &instance.engine_version)?;
            let now = ParameterGroupUse { name: name.clone(), apply_status: "applying".into() };
            let shown = self.instances.get_mut(&instance.resource_id).expect("found above");
            if shown.parameter_groups.first().is_none_or(|g| g.name != *name) {
                shown.parameter_groups = vec![now];
                self.later(self.timings.apply, Happening::InstanceGroupApplied(instance.resource_id.clone()));
            }
        }
        Ok(self.instances[&instance.resource_id].clone())
    }

    fn ready_instance(&self, operation: &'static str, id: &InstanceId) -> Result<Instance, Error> {
        let instance = self.instance_named(operation, id)?.clone();
        if !instance.status.is_available() {
            let said = format!("Instance {id} is not in available state.");
            return refuse(operation, id.as_str(), "InvalidDBInstanceState", said);
        }
        if let Some(cluster) = &instance.cluster {
            self.not_switching(operation, id.as_str(), cluster)?;
        }
        Ok(instance)
    }

    pub(super) fn reboot_instance(&mut self, id: &InstanceId) -> Result<Instance, Error> {
        let instance = self.ready_instance("RebootDBInstance", id)?;
        self.later(self.timings.reboot, Happening::Rebooted(instance.resource_id.clone()));
        let shown = self.instances.get_mut(&instance.resource_id).expect("found above");
        shown.status = Status("rebooting".into());
        Ok(shown.clone())
    }

    pub(super) fn delete_instance(&mut self, id: &InstanceId) -> Result<Instance, Error> {
        const OPERATION: &str = "DeleteDBInstance";
        let instance = self.ready_instance(OPERATION, id)?;
        let cluster = instance.cluster.as_ref().and_then(|c| self.cluster_id(c));
        if let Some(d) = cluster.and_then(|c| self.unfinished_deployment(&c).map(|d| d.shown.id.clone())) {
            let said = format!("Instance {id} is part of the blue green deployment {d}.");
            return refuse(OPERATION, id.as_str(), "InvalidDBInstanceState", said);
        }
        if instance.deletion_protection {
            let said = "Cannot delete protected DB Instance, please disable deletion protection and try again.";
            return refuse(OPERATION, id.as_str(), "InvalidParameterCombination", said);
        }
        self.later(self.timings.delete, Happening::InstanceGone(instance.resource_id.clone()));
        let shown = self.instances.get_mut(&instance.resource_id).expect("found above");
        shown.status = Status("deleting".into());
        Ok(shown.clone())
    }

    pub(super) fn delete_cluster(
        &mut self,
        id: &ClusterId,
        last: &FinalSnapshot,
        _delete_automated_backups: bool,
    ) -> Result<Cluster, Error> {
        const OPERATION: &str = "DeleteDBCluster";
        let cluster = self.cluster_named(OPERATION, id)?.clone();
        let target = id.as_str();
        if !cluster.status.is_available() {
            let said = format!("DB cluster {id} is not in available state");
            return refuse(OPERATION, target, "InvalidDBClusterStateFault", said);
        }
        if cluster.deletion_protection {
            let said = "Cannot delete protected Cluster, please disable deletion protection and try again.";
            return refuse(OPERATION, target, "InvalidParameterCombination", said);
        }
        if self.members(id).iter().any(|i| i.status.0 != "deleting") {
            let said = "Cluster cannot be deleted, it still contains DB instances in non-deleting state.";
            return refuse(OPERATION, target, "InvalidDBClusterStateFault", said);
        }
        if self.unfinished_deployment(&cluster.resource_id).is_some() {
            let said = format!("DB cluster {id} is part of a blue green deployment");
            return refuse(OPERATION, target, "InvalidDBClusterStateFault", said);
        }
        if let FinalSnapshot::Take(snapshot) = last {
            self.take_snapshot(OPERATION, snapshot, &cluster, &[])?;
        }
        self.later(self.timings.delete, Happening::ClusterGone(cluster.resource_id.clone()));
        let shown = self.clusters.get_mut(&cluster.resource_id).expect("found above");
        shown.status = Status("deleting".into());
        Ok(shown.clone())
    }

    // --- snapshots ---

    pub(super) fn create_snapshot(
        &mut self,
        id: &SnapshotId,
        cluster: &ClusterId,
        tags: &[Tag],
    ) -> Result<Snapshot, Error> {
        const OPERATION: &str = "CreateDBClusterSnapshot";
        let cluster = self.cluster_named(OPERATION, cluster)?.clone();
        if !cluster.status.is_available() {
            let said = format!("DB cluster {} is not in available state", cluster.id);
            return refuse(OPERATION, id.as_str(), "InvalidDBClusterStateFault", said);
        }
        self.take_snapshot(OPERATION, id, &cluster, tags)
    }

    fn take_snapshot(
        &mut self,
        operation: &'static str,
        id: &SnapshotId,
        cluster: &Cluster,
        tags: &[Tag],
    ) -> Result<Snapshot, Error> {
        if self.snapshots.contains_key(id) {
            let said =
                format!("Cannot create the cluster snapshot because one with the identifier {id} already exists.");
            return refuse(operation, id.as_str(), "DBClusterSnapshotAlreadyExistsFault", said);
        }
        let snapshot = Snapshot {
            id: id.clone(),
            arn: resource_arn("cluster-snapshot", id.as_str()),
            cluster: cluster.id.clone(),
            cluster_resource_id: Some(cluster.resource_id.clone()),
            status: Status("creating".into()),
            percent_progress: Some(0),
            engine_version: Some(cluster.engine_version.clone()),
            created: Some(self.wall),
            tags: tags.to_vec(),
        };
        self.snapshots.insert(id.clone(), snapshot.clone());
        self.later(self.timings.snapshot, Happening::SnapshotDone(id.clone()));
        Ok(snapshot)
    }

    pub(super) fn snapshot(&self, operation: &'static str, id: &SnapshotId) -> Result<Snapshot, Error> {
        match self.snapshots.get(id) {
            Some(snapshot) => Ok(snapshot.clone()),
            None => {
                let said = format!("DBClusterSnapshot not found: {id}");
                refuse(operation, id.as_str(), "DBClusterSnapshotNotFoundFault", said)
            }
        }
    }

    pub(super) fn delete_snapshot(&mut self, id: &SnapshotId) -> Result<Snapshot, Error> {
        let snapshot = self.snapshot("DeleteDBClusterSnapshot", id)?;
        if !snapshot.status.is_available() {
            let said = format!("Cannot delete the snapshot {id} because it is {}", snapshot.status);
            return refuse("DeleteDBClusterSnapshot", id.as_str(), "InvalidDBClusterSnapshotStateFault", said);
        }
        self.snapshots.remove(id);
        Ok(snapshot)
    }

    // --- parameter groups ---

    pub(super) fn group(
        &self,
        operation: &'static str,
        scope: GroupScope,
        name: &ParameterGroupName,
    ) -> Result<&Group, Error> {
        match self.groups.get(&(scope, name.clone())) {
            Some(group) => Ok(group),
            None => {
                let (code, said) = group_codes(scope);
                refuse(operation, name.as_str(), code, format!("{said}: {name}"))
            }
        }
    }

    pub(super) fn parameters(
        &self,
        scope: GroupScope,
        name: &ParameterGroupName,
        source: Option<&ParameterSource>,
    ) -> Result<Vec<Parameter>, Error> {
        let group = self.group("DescribeDBClusterParameters", scope, name)?;
        let all = catalogue::parameters(scope, &group.group.family).into_iter().map(|mut parameter| {
            if let Some((value, method)) = group.set.get(&parameter.name) {
                parameter.value = Some(value.clone());
                parameter.source = ParameterSource::User;
                parameter.apply_method = Some(*method);
            }
            parameter
        });
        Ok(all.filter(|p| source.is_none_or(|s| p.source == *s)).collect())
    }

    pub(super) fn create_group(&mut self, new: &NewParameterGroup) -> Result<ParameterGroup, Error> {
        const OPERATION: &str = "CreateDBClusterParameterGroup";
        let (name, target) = (new.name.clone(), new.name.as_str());
        if self.groups.contains_key(&(new.scope, name.clone())) {
            let said = format!("Parameter group {name} already exists");
            return refuse(OPERATION, target, "DBParameterGroupAlreadyExists", said);
        }
        if catalogue::parameters(new.scope, &new.family).is_empty() {
            let said = format!("ParameterGroupFamily {} is not a valid parameter group family", new.family);
            return refuse(OPERATION, target, "InvalidParameterValue", said);
        }
        let group = ParameterGroup {
            scope: new.scope,
            arn: group_arn(new.scope, &name),
            name: name.clone(),
            family: new.family.clone(),
            description: new.description.clone(),
        };
        let made = Group { group: group.clone(), set: Default::default(), tags: new.tags.clone() };
        self.groups.insert((new.scope, name), made);
        Ok(group)
    }

    pub(super) fn modify_group(
        &mut self,
        scope: GroupScope,
        name: &ParameterGroupName,
        changes: &[ParameterChange],
    ) -> Result<(), Error> {
        const OPERATION: &str = "ModifyDBClusterParameterGroup";
        let (group, target) = (self.group(OPERATION, scope, name)?.group.clone(), name.as_str());
        if group.is_default() {
            let said = format!("Cannot modify a default parameter group: {name}");
            return refuse(OPERATION, target, "InvalidParameterValue", said);
        }
        let known = catalogue::parameters(scope, &group.family);
        let mut restarts = false;
        for change in changes {
            let Some(parameter) = known.iter().find(|p| p.name == change.name) else {
                let said = format!("Could not find parameter with name: {}", change.name);
                return refuse(OPERATION, target, "InvalidParameterValue", said);
            };
            if parameter.is_static && change.apply == ApplyMethod::Immediate {
                let said = "cannot use immediate apply method for static parameter";
                return refuse(OPERATION, target, "InvalidParameterCombination", said);
            }
            restarts |= parameter.is_static || change.apply == ApplyMethod::PendingReboot;
        }
        let group = self.groups.get_mut(&(scope, name.clone())).expect("found above");
        for change in changes {
            group.set.insert(change.name.clone(), (change.value.clone(), change.apply));
        }
        if restarts {
            self.wait_for_reboot(scope, name);
        }
        Ok(())
    }

    /// A static change of a group in use: its users read `pending-reboot`.
    fn wait_for_reboot(&mut self, scope: GroupScope, name: &ParameterGroupName) {
        match scope {
            GroupScope::Cluster => {
                let users = self.clusters.values_mut().filter(|c| c.parameter_group == *name);
                users.flat_map(|c| &mut c.members).for_each(|m| m.parameter_group_status = "pending-reboot".into());
            }
            GroupScope::Instance => {
                let uses = self.instances.values_mut().flat_map(|i| &mut i.parameter_groups);
                uses.filter(|g| g.name == *name).for_each(|g| g.apply_status = "pending-reboot".into());
            }
        }
    }

    pub(super) fn delete_group(&mut self, scope: GroupScope, name: &ParameterGroupName) -> Result<(), Error> {
        const OPERATION: &str = "DeleteDBClusterParameterGroup";
        let (group, target) = (self.group(OPERATION, scope, name)?.group.clone(), name.as_str());
        let used = match scope {
            GroupScope::Cluster => self.clusters.values().any(|c| c.parameter_group == *name),
            GroupScope::Instance => self.instances.values().flat_map(|i| &i.parameter_groups).any(|g| g.name == *name),
        };
        if group.is_default() || used {
            let said = if used {
                "One or more database instances are still members of this parameter group"
            } else {
                "Default parameter groups cannot be deleted"
            };
            return refuse(OPERATION, target, "InvalidDBParameterGroupState", format!("{said}: {name}"));
        }
        self.groups.remove(&(scope, name.clone()));
        Ok(())
    }

    // --- tags ---

    pub(super) fn tags_of(&mut self, operation: &'static str, arn: &ResourceArn) -> Result<&mut Vec<Tag>, Error> {
        let name = arn.name().to_owned();
        let tags = match arn.kind() {
            "cluster" => self.clusters.values_mut().find(|c| c.id.as_str() == name).map(|c| &mut c.tags),
            "db" => self.instances.values_mut().find(|i| i.id.as_str() == name).map(|i| &mut i.tags),
            "cluster-snapshot" => self.snapshots.get_mut(&SnapshotId::new(&name)).map(|s| &mut s.tags),
            "deployment" => self.deployments.get_mut(&DeploymentId::new(&name)).map(|d| &mut d.shown.tags),
            "cluster-pg" => self.groups.get_mut(&(GroupScope::Cluster, name.into())).map(|g| &mut g.tags),
            "pg" => self.groups.get_mut(&(GroupScope::Instance, name.into())).map(|g| &mut g.tags),
            _ => None,
        };
        match tags {
            Some(tags) => Ok(tags),
            None => refuse(operation, arn.as_str(), "DBClusterNotFoundFault", format!("{arn} not found.")),
        }
    }
}
