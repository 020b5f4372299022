//! The four operations on blue/green deployments: what is refused at once, and the object as it looks. The work itself is in
//! `provision` and `switchover`.

use std::time::Duration;

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{Cluster, Deployment, Member, Plan, State, cluster_arn, family, instance_arn, major_of};
use crate::cloud::{Cloud, account, deletion, parameters, provision, state_id, switchover, tags, versions};
use crate::faults::{Fault, Quota};
use crate::names::Names;
use crate::status::life::{self, Story};
use crate::wire::xml::Element;

const TASKS: [&str; 3] =
    ["CREATING_READ_REPLICA_OF_SOURCE", "DB_ENGINE_VERSION_UPGRADE", "CREATE_DB_INSTANCES_FOR_CLUSTER"];

/// The last one, where there is something to do in it.
const COPY_ENDPOINTS: &str = "CREATE_CUSTOM_ENDPOINTS";

pub(crate) async fn create(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let name = params.require("BlueGreenDeploymentName")?.to_owned();
    let source = params.require("Source")?.to_owned();
    check_name(&name)?;
    let plan = {
        let state = cloud.state();
        let cluster = sourced(&state, &source)?;
        if state.deployments.values().any(|d| d.name.eq_ignore_ascii_case(&name)) {
            let text = format!("A Blue Green Deployment with the name '{name}' already exists");
            return Err(Refusal::new("BlueGreenDeploymentAlreadyExistsFault", 400, text));
        }
        let plan = planned(&state, cluster, params)?;
        account::has_room(&state, cloud.faults(), Quota::Clusters, 1)?;
        account::has_room(&state, cloud.faults(), Quota::Instances, cluster.members().count())?;
        plan
    };
    check_running(cloud, &source).await?;
    let identifier = state_id("bgd-", 16);
    let answer = {
        let mut state = cloud.state();
        let cluster = sourced(&state, &source)?;
        // Both may have changed while the servers were asked.
        available(&state, cluster)?;
        let blue = cluster.id.clone();
        let members = cluster.members().filter_map(|id| state.instances.get(id)).map(|i| i.identifier.clone());
        let members = std::iter::once(cluster_arn(&cluster.identifier)).chain(members.map(|i| instance_arn(&i)));
        let members = members.map(|source| (source, None));
        let endpoints = state.endpoints_of(&blue).map(|e| (e.arn(), Some((e.id.clone(), None))));
        let member = |(source, endpoints)| Member { source, target: None, status: "PROVISIONING", endpoints };
        let members: Vec<Member> = members.chain(endpoints).map(member).collect();
        let copies = members.iter().any(|m| m.endpoints.is_some()).then_some((COPY_ENDPOINTS, "PENDING"));
        let deployment = Deployment {
            identifier: identifier.clone(),
            name,
            source: cluster.arn(),
            target: None,
            blue,
            green: None,
            status: "PROVISIONING".to_owned(),
            details: None,
            members,
            tasks: TASKS.map(|task| (task, "PENDING")).into_iter().chain(copies).collect(),
            created: cloud.clock().now(),
            deleted: None,
            tags: params.tags(),
            degraded: None,
            plan,
            leaving: Names::new(),
            story: Story::default(),
            live: None,
        };
        let answer = element(&deployment);
        state.deployments.insert(identifier.clone(), deployment);
        answer
    };
    provision::start(cloud, identifier);
    Ok(Some(Element::new("").child(answer)))
}

/// 1 to 60 characters, a letter first, letters, digits and single hyphens.
fn check_name(name: &str) -> Answer<()> {
    let fits = (1..=60).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !name.contains("--")
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(Refusal::value(format!("The parameter BlueGreenDeploymentName is not a valid identifier: {name}")))
}

fn sourced<'a>(state: &'a State, source: &str) -> Answer<&'a Cluster> {
    if !source.starts_with("arn:aws:rds:") {
        return Err(Refusal::value(format!("Invalid source: {source}. The source must be an ARN.")));
    }
    if source.contains(":db:") {
        state.instance(source)?;
        let text = "The source database is a member of a DB cluster. Specify the ARN of the DB cluster.";
        return Err(Refusal::new("SourceDatabaseNotSupportedFault", 400, text));
    }
    state.cluster(source)
}

/// What the service refuses without looking into the servers.
fn planned(state: &State, cluster: &Cluster, params: &Params) -> Answer<Plan> {
    available(state, cluster)?;
    let version = match params.get("TargetEngineVersion") {
        Some(asked) => versions::resolve(asked)?.to_owned(),
        None => cluster.version.clone(),
    };
    if major_of(&version) < cluster.major() {
        return Err(Refusal::combination(format!(
            "The target engine version {version} must not be lower than the source engine version {}.",
            cluster.version
        )));
    }
    if !versions::is_target(&cluster.version, &version) {
        return Err(Refusal::combination(format!(
            "Cannot upgrade aurora-postgresql from {} to {version}",
            cluster.version
        )));
    }
    if cluster.identifier.len() > 50 {
        return Err(Refusal::value(format!(
            "The identifier {} is too long for a blue/green deployment.",
            cluster.identifier
        )));
    }
    let wanted = family(major_of(&version));
    let same = cluster.major() == major_of(&version);
    let default = format!("default.{wanted}");
    let of_cluster = params.get("TargetDBClusterParameterGroupName").map(str::to_lowercase);
    let of_cluster = of_cluster.unwrap_or_else(|| if same { cluster.group.clone() } else { default.clone() });
    let of_instance = params.get("TargetDBParameterGroupName").map(str::to_lowercase);
    let blue_group = state.instances.get(&cluster.writer).map(|i| i.group.clone());
    let of_instance = of_instance
        .unwrap_or_else(|| if same { blue_group.unwrap_or_else(|| default.clone()) } else { default.clone() });
    let group = state.cluster_group(&of_cluster).map_err(|_| Refusal::cluster_group_not_found(&of_cluster))?;
    let instance_group = state.instance_group(&of_instance)?;
    for found in [&group, &instance_group] {
        if found.family != wanted {
            return Err(Refusal::combination(format!(
                "The parameter group {} with DBParameterGroupFamily {} can't be used for this deployment. Please use a parameter group with DBParameterGroupFamily {wanted}",
                found.name, found.family
            )));
        }
    }
    logical(state, cluster)?;
    Ok(Plan { version, cluster_group: of_cluster, instance_group: of_instance })
}

fn available(state: &State, cluster: &Cluster) -> Answer<()> {
    if cluster.status != "available" {
        return Err(Refusal::cluster_state(format!("DB cluster {} is not in available state", cluster.identifier)));
    }
    for instance in cluster.members().filter_map(|id| state.instances.get(id)) {
        if instance.status != "available" {
            return Err(Refusal::instance_state(format!(
                "DB instance {} is not in available state",
                instance.identifier
            )));
        }
    }
    if let Some(deployment) = state.deployment_of(&cluster.id) {
        return Err(Refusal::cluster_state(format!(
            "DB cluster {} is already part of blue/green deployment {}",
            cluster.identifier, deployment.identifier
        )));
    }
    if let Some(of) = &cluster.source {
        let text = format!("DB cluster {} is a read replica of {of}", cluster.identifier);
        return Err(Refusal::new("SourceClusterNotSupportedFault", 400, text));
    }
    Ok(())
}

/// Logical replication must be on in a custom group, and in force.
fn logical(state: &State, cluster: &Cluster) -> Answer<()> {
    let group = state.cluster_group(&cluster.group)?;
    let on = group.user.get("rds.logical_replication").is_some_and(|set| parameters::is_on(&set.value));
    if group.is_default() || !on {
        let text = "Blue/green deployments require a DB cluster with logical replication enabled. Associate a custom DB cluster \
                    parameter group with rds.logical_replication set to 1, and reboot the writer DB instance.";
        return Err(Refusal::new("SourceClusterNotSupportedFault", 400, text));
    }
    let writer = state.instances.get(&cluster.writer);
    if writer.is_none_or(|w| w.cluster_group_status != "in-sync" || w.group_status != "in-sync") {
        let text =
            "The parameter group of the writer DB instance isn't in sync. Reboot the writer DB instance and try again.";
        return Err(Refusal::new("SourceDatabaseNotSupportedFault", 400, text));
    }
    Ok(())
}

/// What the group says must be what the writer does.
async fn check_running(cloud: &Cloud, source: &str) -> Answer<()> {
    let server = {
        let state = cloud.state();
        let id = state.cluster(source)?.id.clone();
        state.writer_server(&id).ok_or_else(|| Refusal::cluster_state("The DB cluster has no writer."))?
    };
    let asked = async {
        let admin = server.admin("postgres").await?;
        let row = admin.query_one("select current_setting('wal_level')", &[]).await?;
        anyhow::Ok(row.get::<_, String>(0))
    };
    match asked.await {
        Ok(level) if level == "logical" => Ok(()),
        Ok(_) => {
            let text =
                "A static parameter of the writer DB instance differs from its running value: rds.logical_replication";
            Err(Refusal::new("SourceDatabaseNotSupportedFault", 400, text))
        }
        Err(error) => Err(Refusal::internal(format!("asking the writer: {error:#}"))),
    }
}

pub(crate) fn describe(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let state = cloud.state();
    let filters =
        params.filters(&["blue-green-deployment-identifier", "blue-green-deployment-name", "source", "target"])?;
    let one = params.get("BlueGreenDeploymentIdentifier").map(|id| state.deployment(id)).transpose()?;
    let mut found: Vec<&Deployment> = match one {
        Some(deployment) => vec![deployment],
        None => state.deployments.values().collect(),
    };
    for (name, values) in &filters {
        found.retain(|d| match name.as_str() {
            "blue-green-deployment-identifier" => values.iter().any(|v| v.eq_ignore_ascii_case(&d.identifier)),
            "blue-green-deployment-name" => values.iter().any(|v| v.eq_ignore_ascii_case(&d.name)),
            "source" => values.contains(&d.source),
            _ => d.target.as_ref().is_some_and(|target| values.contains(target)),
        });
    }
    let (page, marker) = params.page(found, 100)?;
    let shown = |d: &Deployment| match d.status.as_str() {
        "AVAILABLE" if flaps(cloud) => described(d, Some("PROVISIONING")),
        "SWITCHOVER_IN_PROGRESS" if cloud.faults().take(|fault| *fault == Fault::StillAvailable).is_some() => {
            described(d, Some("AVAILABLE"))
        }
        _ => described(d, None),
    };
    Ok(Some(
        Element::new("")
            .list("BlueGreenDeployments", page.into_iter().map(|d| shown(d).named("member")))
            .maybe("Marker", marker),
    ))
}

/// Whether this description is one that a fault wants to be out of date: every other one while it is planned.
fn flaps(cloud: &Cloud) -> bool {
    let planned = cloud.faults().outstanding().into_iter().find(|p| p.fault == Fault::Flaps && p.at.is_none());
    let taken = cloud.faults().take(|fault| *fault == Fault::Flaps).is_some();
    taken && planned.is_some_and(|p| p.times % 2 == 0)
}

pub(crate) fn switchover(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("BlueGreenDeploymentIdentifier")?;
    let timeout = params.number("SwitchoverTimeout")?.unwrap_or(300);
    if !(30..=3600).contains(&timeout) {
        return Err(Refusal::value(format!(
            "Invalid SwitchoverTimeout {timeout}. It must be between 30 and 3600 seconds."
        )));
    }
    let mut state = cloud.state();
    let deployment = state.deployment(&identifier)?;
    if !matches!(deployment.status.as_str(), "AVAILABLE" | "SWITCHOVER_FAILED") {
        let text = format!("Switchover is not allowed while blue green deployment lifecycle is {}", deployment.status);
        return Err(Refusal::deployment_state(text));
    }
    let sides = [Some(&deployment.blue), deployment.green.as_ref()];
    for cluster in sides.into_iter().flatten().filter_map(|id| state.clusters.get(id)) {
        if cluster.status != "available" {
            return Err(Refusal::deployment_state(format!(
                "DB cluster {} is not in available state",
                cluster.identifier
            )));
        }
        for instance in cluster.members().filter_map(|id| state.instances.get(id)) {
            if instance.status != "available" {
                return Err(Refusal::deployment_state(format!(
                    "DB instance {} is not in available state",
                    instance.identifier
                )));
            }
        }
    }
    let deployment = state.deployment_mut(&identifier)?;
    deployment.status = "SWITCHOVER_IN_PROGRESS".to_owned();
    deployment.details = None;
    let answer = element(deployment);
    drop(state);
    let seconds = u64::try_from(timeout).unwrap_or(300);
    switchover::start(cloud, identifier, Duration::from_secs(seconds));
    Ok(Some(Element::new("").child(answer)))
}

pub(crate) fn delete(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("BlueGreenDeploymentIdentifier")?;
    let with_target = params.flag("DeleteTarget")?.unwrap_or(false);
    let mut state = cloud.state();
    let deployment = state.deployment(&identifier)?;
    let status = deployment.status.clone();
    if with_target && status == "SWITCHOVER_COMPLETED" {
        let text = "Deleting target is not allowed while blue green deployment lifecycle is SWITCHOVER_COMPLETED";
        return Err(Refusal::deployment_state(text));
    }
    if !matches!(status.as_str(), "AVAILABLE" | "SWITCHOVER_COMPLETED" | "INVALID_CONFIGURATION" | "SWITCHOVER_FAILED")
    {
        return Err(Refusal::deployment_state(format!(
            "Deletion is not allowed while blue green deployment lifecycle is {status}"
        )));
    }
    let green = deployment.green.clone();
    let protected = green.as_ref().and_then(|id| state.clusters.get(id)).is_some_and(|c| c.deletion_protection);
    if with_target && protected {
        let text = "Cannot delete protected Cluster, please disable deletion protection and try again.";
        return Err(Refusal::combination(text));
    }
    let now = cloud.clock().now();
    let deployment = state.deployment_mut(&identifier)?;
    deployment.status = "DELETING".to_owned();
    deployment.deleted = Some(now);
    let answer = element(deployment);
    drop(state);
    life::enter(cloud, &identifier, None);
    let task = cloud.clone();
    let switched = status == "SWITCHOVER_COMPLETED";
    cloud.spawn(async move { remove(&task, &identifier, with_target, switched).await });
    Ok(Some(Element::new("").child(answer)))
}

/// Ends a deployment: before a switchover its replication too, and its green if that was asked for. Blue is never touched
/// beyond that.
async fn remove(cloud: &Cloud, identifier: &str, with_target: bool, switched: bool) {
    let (live, blue, green) = {
        let mut state = cloud.state();
        let Ok(deployment) = state.deployment_mut(identifier) else { return };
        (deployment.live.take(), deployment.blue.clone(), deployment.green.clone())
    };
    cloud.clock().sleep(cloud.settings().timings.delete).await;
    if !switched {
        if let Some(live) = live
            && let Err(error) = provision::make_standalone(cloud, &live).await
        {
            tracing::error!(%identifier, error = format!("{error:#}"), "the replication of a deleted deployment was not removed");
        }
        if let Some(green) = green.as_ref().filter(|_| with_target) {
            deletion::whole_cluster(cloud, green).await;
        }
    }
    {
        let mut state = cloud.state();
        state.deployments.remove(identifier);
        let now = cloud.clock().now();
        state.deployment_event(now, identifier, "deletion", "Blue/green deployment deleted.");
    }
    let sides: Vec<&str> = std::iter::once(blue.as_str()).chain(green.as_deref()).collect();
    life::tell(cloud, &sides);
}

/// A `BlueGreenDeployment`.
pub(crate) fn element(d: &Deployment) -> Element {
    described(d, None)
}

/// The same, as it is or as if it were still being made.
/// `told`: what it and its members are said to be, in place of the truth.
fn described(d: &Deployment, told: Option<&'static str>) -> Element {
    let status = told.unwrap_or(&d.status);
    let members = d.members.iter().map(|m| {
        Element::new("member")
            .with("SourceMember", &m.source)
            .maybe("TargetMember", m.target.as_ref())
            .with("Status", told.unwrap_or(m.status))
    });
    let tasks = d.tasks.iter().map(|(name, status)| Element::new("member").with("Name", name).with("Status", status));
    let element = Element::new("BlueGreenDeployment")
        .with("BlueGreenDeploymentIdentifier", &d.identifier)
        .with("BlueGreenDeploymentName", &d.name)
        .with("Source", &d.source)
        .maybe("Target", d.target.as_ref())
        .list("SwitchoverDetails", members)
        .list("Tasks", tasks)
        .with("Status", status)
        .maybe("StatusDetails", d.details.as_ref())
        .at("CreateTime", d.created);
    let element = match d.deleted {
        Some(at) => element.at("DeleteTime", at),
        None => element,
    };
    element.list("TagList", tags::elements(&d.tags))
}
