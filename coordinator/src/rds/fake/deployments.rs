//! The life of a Blue/Green deployment in the fake: refused or made, task by task, AVAILABLE, switched over or back, deleted.
//! Follows the fact sheet: green is absent at first, member details lag, names move before COMPLETED is told.

use std::time::Duration;

use super::catalogue;
use super::faults::{Creation, Switching};
use super::operations::refuse;
use super::world::*;
use crate::rds::*;

const LOWER: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const TASKS: [&str; 3] =
    ["CREATING_READ_REPLICA_OF_SOURCE", "DB_ENGINE_VERSION_UPGRADE", "CREATE_DB_INSTANCES_FOR_CLUSTER"];
const CREATE: &str = "CreateBlueGreenDeployment";
const SWITCH: &str = "SwitchoverBlueGreenDeployment";
const DELETE: &str = "DeleteBlueGreenDeployment";

/// 1 to 60 letters, digits and single hyphens; a letter first, no hyphen last.
fn legal_name(name: &str) -> bool {
    (1..=60).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !name.contains("--")
        && !name.ends_with('-')
}

impl World {
    // --- asked for ---

    pub(super) fn create_deployment(&mut self, new: &NewDeployment) -> Result<Deployment, Error> {
        let blue = self.creatable(new)?;
        let blue_cluster = self.clusters[&blue].clone();
        let mut pairs = Vec::new();
        let mut members = vec![pending_detail(blue_cluster.arn.clone().into())];
        for instance in self.members(&blue_cluster.id) {
            pairs.push((instance.resource_id.clone(), None));
            members.push(pending_detail(instance.arn.clone()));
        }
        members.extend(blue_cluster.custom_endpoints.iter().map(|e| pending_detail(endpoint_arn(e))));
        let id = DeploymentId::new(format!("bgd-{}", self.fresh(LOWER, 16)));
        let mut tasks: Vec<Task> = TASKS.map(|name| Task { name: name.into(), state: TaskState::Pending }).into();
        if !blue_cluster.custom_endpoints.is_empty() {
            tasks.push(Task { name: "CREATE_CUSTOM_ENDPOINTS".into(), state: TaskState::Pending });
        }
        let shown = Deployment {
            id: id.clone(),
            name: new.name.clone(),
            source: blue_cluster.arn.clone().into(),
            target: None,
            status: DeploymentStatus::Provisioning,
            status_details: None,
            members,
            tasks,
            created: Some(self.wall),
            deleted: None,
            tags: new.tags.clone(),
        };
        let mut begun = shown.clone();
        begun.tasks[0].state = TaskState::InProgress;
        let state = DeploymentState {
            shown: begun,
            blue,
            green: None,
            pairs,
            target_version: new.target_version.clone(),
            target_cluster_group: new.target_cluster_group.clone(),
            target_instance_group: new.target_instance_group.clone(),
            switched: false,
            stalled: None,
        };
        self.deployments.insert(id.clone(), state);
        self.later(self.timings.task, Happening::TaskDone(id, 0));
        Ok(shown)
    }

    /// The preconditions that AWS checks in the call. Gives blue's identity.
    fn creatable(&self, new: &NewDeployment) -> Result<ClusterResourceId, Error> {
        let name = new.name.as_str();
        if !legal_name(name) {
            return refuse(
                CREATE,
                name,
                "InvalidParameterValue",
                format!("Invalid blue green deployment name: {name}"),
            );
        }
        if self.deployments.values().any(|d| d.shown.name.as_str().eq_ignore_ascii_case(name)) {
            let said = format!("A Blue Green Deployment with the name '{name}' already exists");
            return refuse(CREATE, name, "BlueGreenDeploymentAlreadyExistsFault", said);
        }
        let Some(blue) = self.clusters.values().find(|c| c.arn == new.source) else {
            return refuse(CREATE, name, "DBClusterNotFoundFault", format!("DBCluster {} not found.", new.source));
        };
        self.supported(name, blue)?;
        self.target_fits(new, blue)?;
        let idle = |c: &Cluster| c.status.is_available() && self.members(&c.id).iter().all(|i| i.status.is_available());
        if !idle(blue) || blue.writer().is_none() {
            let said = format!("DB cluster {} is not in available state", blue.id);
            return refuse(CREATE, name, "InvalidDBClusterStateFault", said);
        }
        if self.unfinished_deployment(&blue.resource_id).is_some() {
            let said = format!("DB cluster {} is already part of a blue green deployment", blue.id);
            return refuse(CREATE, name, "InvalidDBClusterStateFault", said);
        }
        self.replication_live(name, blue)?;
        Ok(blue.resource_id.clone())
    }

    fn supported(&self, name: &str, blue: &Cluster) -> Result<(), Error> {
        let why = if blue.engine != catalogue::ENGINE {
            "its engine is not supported"
        } else if blue.master_user_secret.is_some() {
            "its master password is managed in AWS Secrets Manager"
        } else if blue.global_cluster.is_some() {
            "it is part of an Aurora global database"
        } else if self.integrations.iter().any(|i| i.source_arn == blue.arn.as_str()) {
            "it is the source of a zero-ETL integration"
        } else if blue.replication_source.is_some() {
            "it is a replica"
        } else {
            return Ok(());
        };
        let said = format!("The source DB cluster {} is not supported by blue green deployments: {why}.", blue.id);
        refuse(CREATE, name, "SourceClusterNotSupportedFault", said)
    }

    fn target_fits(&self, new: &NewDeployment, blue: &Cluster) -> Result<(), Error> {
        let name = new.name.as_str();
        let versions = catalogue::versions();
        let from = versions.iter().find(|v| v.version == blue.engine_version);
        let offered = from.is_some_and(|v| v.upgrade_targets.iter().any(|t| t.version == new.target_version));
        if !offered && new.target_version != blue.engine_version {
            let said = format!("Cannot upgrade {} from {} to {}", blue.id, blue.engine_version, new.target_version);
            return refuse(CREATE, name, "InvalidParameterCombination", said);
        }
        let family = catalogue::family(&new.target_version);
        let wanted = [
            (GroupScope::Cluster, &new.target_cluster_group, "DBClusterParameterGroupNotFound"),
            (GroupScope::Instance, &new.target_instance_group, "DBParameterGroupNotFound"),
        ];
        for (scope, group, missing) in wanted {
            let Some(found) = self.groups.get(&(scope, group.clone())) else {
                return refuse(CREATE, name, missing, format!("Parameter group not found: {group}"));
            };
            if found.group.family != family {
                let said = format!("The parameter group {group} with family {} cannot be used", found.group.family);
                return refuse(CREATE, name, "InvalidParameterCombination", said);
            }
        }
        Ok(())
    }

    /// Blue's writer runs with logical replication, and reads in-sync; green's group has it too.
    fn replication_live(&self, name: &str, blue: &Cluster) -> Result<(), Error> {
        let writer = blue.writer().filter(|w| w.in_sync()).and_then(|w| self.instance_id(&w.instance));
        let booted = writer.and_then(|w| self.booted.get(&w));
        if booted.and_then(|b| b.get("rds.logical_replication")).is_some_and(|v| v == "1") {
            return Ok(());
        }
        let said = format!(
            "Blue Green Deployments requires cluster parameter group has logical replication enabled and in-sync: {}",
            blue.id
        );
        refuse(CREATE, name, "InvalidDBClusterStateFault", said)
    }

    pub(super) fn switchover(&mut self, id: &DeploymentId, timeout: Duration) -> Result<Deployment, Error> {
        let target = id.as_str();
        switchover_seconds(id, timeout)?;
        let Some(state) = self.deployments.get(id) else { return Err(no_deployment(SWITCH, id)) };
        let may = [DeploymentStatus::Available, DeploymentStatus::SwitchoverFailed];
        if !may.contains(&state.shown.status) || state.switched {
            let said = format!("Blue green deployment {id} is in {} state", state.shown.status);
            return refuse(SWITCH, target, "InvalidBlueGreenDeploymentStateFault", said);
        }
        let blue_and_green = [Some(&state.blue), state.green.as_ref()].into_iter().flatten();
        let clusters: Vec<&Cluster> = blue_and_green.filter_map(|c| self.clusters.get(c)).collect();
        for cluster in &clusters {
            if let Some(busy) = self.members(&cluster.id).into_iter().find(|i| !i.status.is_available()) {
                let said = format!("DB instance {} is not in available state", busy.id);
                return refuse(SWITCH, target, "InvalidBlueGreenDeploymentStateFault", said);
            }
        }
        let (source, green) = (state.shown.source.clone(), state.shown.target.clone());
        let said = format!("Switchover from {source} to {} was started.", green.map(String::from).unwrap_or_default());
        self.event(SourceType::BlueGreenDeployment, target, "notification", said);
        let switching = self.faults.switching.clone();
        if let Switching::Late(by) = switching {
            self.later(by, Happening::SwitchoverBegun(id.clone()));
            return Ok(self.deployment_mut(id).shown.clone());
        }
        self.later(self.timings.details_lag, Happening::MembersSwitching(id.clone()));
        let at = self.timings.switchover;
        match switching {
            Switching::Succeeds | Switching::SwitchesAndFails | Switching::Late(_) => {
                self.later(at, Happening::NamesMoved(id.clone()));
            }
            Switching::TimesOut => self.later(timeout, Happening::SwitchoverExpired(id.clone())),
            Switching::Reverts { reason } => self.later(at, Happening::SwitchoverCanceled(id.clone(), reason)),
            Switching::Hangs => self.stall(id, Happening::NamesMoved(id.clone())),
        }
        let state = self.deployment_mut(id);
        state.shown.status = DeploymentStatus::SwitchoverInProgress;
        Ok(state.shown.clone())
    }

    pub(super) fn delete_deployment(&mut self, id: &DeploymentId, delete_target: bool) -> Result<Deployment, Error> {
        let target = id.as_str();
        let Some(state) = self.deployments.get(id) else { return Err(no_deployment(DELETE, id)) };
        let status = state.shown.status.clone();
        let may = [
            DeploymentStatus::Available,
            DeploymentStatus::SwitchoverCompleted,
            DeploymentStatus::InvalidConfiguration,
            DeploymentStatus::SwitchoverFailed,
        ];
        if !may.contains(&status) {
            let said = format!("Blue green deployment {id} cannot be deleted while its lifecycle is {status}");
            return refuse(DELETE, target, "InvalidBlueGreenDeploymentStateFault", said);
        }
        if delete_target && (status == DeploymentStatus::SwitchoverCompleted || state.switched) {
            let said = format!("Deleting target is not allowed while blue green deployment lifecycle is {status}");
            return refuse(DELETE, target, "InvalidBlueGreenDeploymentStateFault", said);
        }
        let green = state.green.as_ref().and_then(|g| self.clusters.get(g));
        if delete_target && green.is_some_and(|g| g.deletion_protection) {
            let said = "Cannot delete protected Cluster, please disable deletion protection and try again.";
            return refuse(DELETE, target, "InvalidParameterCombination", said);
        }
        let wall = self.wall;
        self.later(self.timings.delete, Happening::DeploymentGone(id.clone(), delete_target));
        let state = self.deployment_mut(id);
        state.shown.status = DeploymentStatus::Deleting;
        state.shown.deleted = Some(wall);
        Ok(state.shown.clone())
    }

    // --- what happens by itself ---

    pub(super) fn deployment_happens(&mut self, happening: Happening) {
        match happening {
            Happening::TaskDone(id, n) => self.task_done(&id, n),
            Happening::MembersAvailable(id) => self.members_become(&id, MemberStatus::Available),
            Happening::MembersSwitching(id) => {
                if self.deployment_mut(&id).shown.status == DeploymentStatus::SwitchoverInProgress {
                    self.members_become(&id, MemberStatus::SwitchoverInProgress);
                }
            }
            Happening::SwitchoverBegun(id) => {
                self.later(self.timings.details_lag, Happening::MembersSwitching(id.clone()));
                self.later(self.timings.switchover, Happening::NamesMoved(id.clone()));
                self.deployment_mut(&id).shown.status = DeploymentStatus::SwitchoverInProgress;
            }
            Happening::NamesMoved(id) => self.names_moved(&id),
            Happening::SwitchoverOver(id) => self.switchover_over(&id),
            Happening::SwitchoverExpired(id) => {
                let reason = "the switchover timed out";
                self.switched_back(&id, DeploymentStatus::SwitchoverFailed, reason);
            }
            Happening::SwitchoverCanceled(id, reason) => {
                self.switched_back(&id, DeploymentStatus::Available, &reason);
            }
            Happening::DeploymentGone(id, with_target) => self.deployment_gone(&id, with_target),
            other => unreachable!("{other:?} is not a deployment's"),
        }
    }

    pub(super) fn deployment_mut(&mut self, id: &DeploymentId) -> &mut DeploymentState {
        self.deployments.get_mut(id).expect("nothing is planned for a deployment that is gone")
    }

    fn stall(&mut self, id: &DeploymentId, what: Happening) {
        self.deployment_mut(id).stalled = Some(what);
    }

    /// After a fault was taken back: what waited for it goes on.
    pub(super) fn unstall(&mut self) {
        let stalled: Vec<Happening> = self.deployments.values_mut().filter_map(|d| d.stalled.take()).collect();
        for happening in stalled {
            self.later(Duration::ZERO, happening);
        }
    }

    fn members_become(&mut self, id: &DeploymentId, status: MemberStatus) {
        for member in &mut self.deployment_mut(id).shown.members {
            member.status = status.clone();
        }
    }

    fn task_done(&mut self, id: &DeploymentId, n: usize) {
        let last = self.deployments[id].shown.tasks.len() - 1;
        if n == last && self.faults.creation == Creation::NeverReady {
            return self.stall(id, Happening::TaskDone(id.clone(), n));
        }
        if n == 1
            && let Creation::Invalid { reason } = self.faults.creation.clone()
        {
            return self.creation_failed(id, &reason);
        }
        match n {
            0 => self.make_green(id),
            1 => self.upgrade_green(id),
            2 => self.make_green_instances(id),
            _ => self.make_green_endpoints(id),
        }
        let tasks = &mut self.deployment_mut(id).shown.tasks;
        tasks[n].state = TaskState::Completed;
        if n < last {
            tasks[n + 1].state = TaskState::InProgress;
            return self.later(self.timings.task, Happening::TaskDone(id.clone(), n + 1));
        }
        self.deployment_mut(id).shown.status = DeploymentStatus::Available;
        self.later(self.timings.details_lag, Happening::MembersAvailable(id.clone()));
        self.event(
            SourceType::BlueGreenDeployment,
            id.as_str(),
            "creation",
            "Blue/green deployment tasks completed. You can make more modifications to the green environment \
             databases or switch over the deployment.",
        );
    }

    fn creation_failed(&mut self, id: &DeploymentId, reason: &str) {
        let shown = &mut self.deployment_mut(id).shown;
        shown.tasks[1].state = TaskState::Failed;
        shown.status = DeploymentStatus::InvalidConfiguration;
        shown.status_details = Some(reason.to_owned());
        // Green stays behind as it is, standing still, until somebody deletes it.
        let green = self.deployments[id].green.clone();
        if let Some(green) = green.and_then(|green| self.clusters.get_mut(&green)) {
            green.status = Status("available".into());
        }
        let said = format!("Creation of blue/green deployment failed because {reason}");
        self.event(SourceType::BlueGreenDeployment, id.as_str(), "creation", said);
    }

    fn make_green(&mut self, id: &DeploymentId) {
        let state = self.deployments[id].clone();
        let mut green = self.clusters[&state.blue].clone();
        let blue_id = green.id.clone();
        green.resource_id = ClusterResourceId::new(format!("cluster-{}", self.fresh(LOWER, 26).to_uppercase()));
        green.status = Status("creating".into());
        green.members.clear();
        green.custom_endpoints.clear();
        let (resource, name) = (green.resource_id.clone(), format!("{blue_id}-green-{}", self.fresh(LOWER, 6)));
        green.id = ClusterId::new(&name);
        self.clusters.insert(resource.clone(), green);
        self.rename_cluster(&resource, &ClusterId::from(name));
        let arn: ResourceArn = self.clusters[&resource].arn.clone().into();
        let state = self.deployment_mut(id);
        state.green = Some(resource);
        state.shown.target = Some(arn.clone());
        state.shown.members[0].target = Some(arn);
    }

    fn upgrade_green(&mut self, id: &DeploymentId) {
        let state = self.deployments[id].clone();
        let Some(green) = state.green.and_then(|g| self.clusters.get_mut(&g)) else { return };
        green.engine_version = state.target_version;
        green.parameter_group = state.target_cluster_group;
        green.status = available();
    }

    fn make_green_instances(&mut self, id: &DeploymentId) {
        let state = self.deployments[id].clone();
        let Some(green) = state.green.and_then(|g| self.clusters.get(&g)).cloned() else { return };
        let late = self.faults.members_late;
        for (n, (blue, _)) in state.pairs.iter().enumerate() {
            let Some(mut instance) = self.instances.get(blue).cloned() else { continue };
            let was_writer = self.clusters[&state.blue].writer().is_some_and(|w| w.instance == instance.id);
            let name = InstanceId::new(format!("{}-green-{}", instance.id, self.fresh(LOWER, 6)));
            let resource = InstanceResourceId::new(format!("db-{}", self.fresh(LOWER, 26).to_uppercase()));
            instance.resource_id = resource.clone();
            instance.id = name.clone();
            instance.arn = resource_arn("db", name.as_str());
            instance.cluster = Some(green.id.clone());
            instance.engine_version = green.engine_version.clone();
            instance.endpoint = Some(instance_endpoint(&name));
            instance.parameter_groups =
                vec![ParameterGroupUse { name: state.target_instance_group.clone(), apply_status: "in-sync".into() }];
            if !late.is_zero() {
                instance.status = Status("storage-optimization".into());
                self.later(self.timings.details_lag + late, Happening::InstanceAvailable(resource.clone()));
            }
            let tier = instance.promotion_tier;
            self.instances.insert(resource.clone(), instance);
            let member = Member {
                instance: name.clone(),
                is_writer: was_writer,
                parameter_group_status: "in-sync".into(),
                promotion_tier: tier,
            };
            if let Some(cluster) = self.clusters.get_mut(&green.resource_id) {
                cluster.members.push(member);
            }
            self.boot(&resource);
            let state = self.deployment_mut(id);
            state.pairs[n].1 = Some(resource);
            state.shown.members[n + 1].target = Some(resource_arn("db", name.as_str()));
        }
    }

    fn make_green_endpoints(&mut self, id: &DeploymentId) {
        let suffix = self.fresh(LOWER, 6);
        let state = self.deployment_mut(id);
        for member in state.shown.members.iter_mut().filter(|m| m.target.is_none()) {
            let source = member.source.as_ref().map(|s| s.name().to_owned()).unwrap_or_default();
            member.target = Some(resource_arn("cluster-endpoint", &format!("{source}-green-{suffix}")));
        }
    }

    fn names_moved(&mut self, id: &DeploymentId) {
        let state = self.deployments[id].clone();
        let Some(green) = state.green.clone() else { return };
        let production = self.clusters[&state.blue].id.clone();
        let old = (1..).map(|n| ClusterId::new(format!("{production}-old{n}")));
        let old = old.into_iter().find(|o| self.cluster_id(o).is_none()).expect("endless");
        let ending = old.as_str()[production.as_str().len()..].to_owned();
        self.rename_cluster(&state.blue, &old);
        self.rename_cluster(&green, &production);
        for (blue, green) in &state.pairs {
            let Some(name) = self.instances.get(blue).map(|i| i.id.clone()) else { continue };
            self.rename_instance(blue, &InstanceId::new(format!("{name}{ending}")));
            if let Some(green) = green {
                self.rename_instance(green, &name);
            }
        }
        let blue = &self.clusters[&state.blue];
        let (tags, endpoints) = (blue.tags.clone(), blue.custom_endpoints.clone());
        if let Some(cluster) = self.clusters.get_mut(&green) {
            (cluster.tags, cluster.custom_endpoints) = (tags, endpoints);
        }
        self.deployment_mut(id).switched = true;
        self.later(self.timings.completed_lag, Happening::SwitchoverOver(id.clone()));
    }

    fn switchover_over(&mut self, id: &DeploymentId) {
        let state = self.deployments[id].clone();
        if self.faults.switching == Switching::SwitchesAndFails {
            self.deployment_mut(id).shown.status = DeploymentStatus::SwitchoverFailed;
            return self.members_become(id, MemberStatus::SwitchoverFailed);
        }
        let arn = |c: &ClusterResourceId| self.clusters.get(c).map(|c| ResourceArn::from(c.arn.clone()));
        let db = |i: &InstanceResourceId| self.instances.get(i).map(|i| i.arn.clone());
        let (source, target) = (arn(&state.blue), state.green.as_ref().and_then(arn));
        let mut pairs = vec![(source.clone(), target.clone())];
        pairs.extend(state.pairs.iter().map(|(b, g)| (db(b), g.as_ref().and_then(db))));
        let shown = &mut self.deployment_mut(id).shown;
        for (member, (source, target)) in shown.members.iter_mut().zip(pairs) {
            (member.source, member.target) = (source, target);
        }
        shown.source = source.unwrap_or_else(|| shown.source.clone());
        shown.target = target;
        shown.status = DeploymentStatus::SwitchoverCompleted;
        self.members_become(id, MemberStatus::SwitchoverCompleted);
        let said = "Switchover of the blue/green deployment completed.";
        self.event(SourceType::BlueGreenDeployment, id.as_str(), "notification", said);
    }

    fn switched_back(&mut self, id: &DeploymentId, status: DeploymentStatus, reason: &str) {
        let member = match status {
            DeploymentStatus::SwitchoverFailed => MemberStatus::SwitchoverFailed,
            _ => MemberStatus::Available,
        };
        self.deployment_mut(id).shown.status = status;
        self.members_become(id, member);
        self.event(
            SourceType::BlueGreenDeployment,
            id.as_str(),
            "notification",
            "Switchover of the blue/green deployment was canceled.",
        );
        let blue = self.deployments[id].shown.source.name().to_owned();
        let said = format!("Switchover from DB cluster {blue} was canceled due to {reason}.");
        self.event(SourceType::DbCluster, &blue, "notification", said);
    }

    fn deployment_gone(&mut self, id: &DeploymentId, with_target: bool) {
        let Some(state) = self.deployments.remove(id) else { return };
        self.cancel(|h| {
            use Happening::{MembersAvailable, MembersSwitching, SwitchoverBegun};
            matches!(h, MembersAvailable(d) | MembersSwitching(d) | SwitchoverBegun(d) if d == id)
        });
        self.event(SourceType::BlueGreenDeployment, id.as_str(), "deletion", "Blue/green deployment deleted.");
        if !with_target {
            return;
        }
        for green in state.pairs.into_iter().filter_map(|(_, green)| green) {
            self.instances.remove(&green);
            self.booted.remove(&green);
        }
        if let Some(green) = state.green {
            self.clusters.remove(&green);
        }
    }
}

fn pending_detail(source: ResourceArn) -> SwitchoverDetail {
    SwitchoverDetail { source: Some(source), target: None, status: MemberStatus::Provisioning }
}

fn endpoint_arn(host: &str) -> ResourceArn {
    resource_arn("cluster-endpoint", host.split('.').next().unwrap_or(host))
}

fn no_deployment(operation: &'static str, id: &DeploymentId) -> Error {
    let said = format!("BlueGreenDeployment {id} not found.");
    Error::new(Class::NotFound, operation, id, "BlueGreenDeploymentNotFoundFault", said)
}

impl World {
    /// A deployment as it is told: it may flap.
    pub(super) fn told_deployment(&mut self, id: &DeploymentId) -> Result<Deployment, Error> {
        let Some(state) = self.deployments.get(id) else {
            return Err(no_deployment("DescribeBlueGreenDeployments", id));
        };
        let mut shown = state.shown.clone();
        if shown.status == DeploymentStatus::Available && self.faults.flaps > 0 {
            self.faults.flaps -= 1;
            shown.status = DeploymentStatus::Provisioning;
        }
        Ok(shown)
    }
}
