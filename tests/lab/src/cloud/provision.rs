//! Building green: the tasks of a deployment's creation over the real machinery, what it becomes when that succeeds or
//! fails, and the watch for what degrades it while it waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::cloud::state::{
    Cluster, Deployment, Endpoints, Instance, Replication, State, cluster_arn, instance_arn, major_of,
};
use crate::cloud::{Cloud, clusters, create, endpoints, instances, parameters, state_id};
use crate::faults::{Fault, Moment};
use crate::fleet::{Admin, Node};
use crate::mechanics::green::{self, BuildFailed, Stage};
use crate::mechanics::health::{self, Baseline, ChangeKind};
use crate::mechanics::{Side, Sides};
use crate::settings::REGION;
use crate::status::{Identity, Status, life};

/// How often, and how far apart, blue is looked for when a failed creation left something there.
const FREE_TRIES: u32 = 300;
const FREE_EVERY: Duration = Duration::from_millis(200);

/// A green that replicates.
pub(crate) struct Live {
    sides: Mutex<Sides>,
    baseline: Baseline,
    /// What marks it in the names of slots and publications.
    pub(crate) tag: String,
}

impl Live {
    pub(crate) fn sides(&self) -> Sides {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over the side of which a reader has become the writer.
    pub(crate) fn replace_side(&self, side: &Side) {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = |other: &Side| other.members().iter().any(|m| Arc::ptr_eq(m, &side.writer));
        if is_in(&sides.blue) {
            sides.blue = side.clone();
        } else if is_in(&sides.green) {
            sides.green = side.clone();
        }
    }

    /// What was done on blue that green cannot follow, in AWS's words; `None` while there is nothing.
    pub(crate) async fn degraded(&self) -> anyhow::Result<Option<String>> {
        let blue = self.sides().blue.writer;
        let changes = health::changes_since(&blue, &self.baseline).await?;
        let Some(first) = changes.first() else { return Ok(None) };
        let kind = match first.kind {
            ChangeKind::Ddl => "DDL",
            ChangeKind::Refresh => "materialized view refresh",
            ChangeKind::LargeObject => "Large Object",
        };
        let database = first.database.as_deref().unwrap_or("an unknown database");
        tracing::info!(database, kind, what = %first.what, "blue was changed in a way that green cannot follow");
        Ok(Some(format!("{kind} change in database {database}")))
    }
}

/// Begins the creation of a deployment's green.
pub(crate) fn start(cloud: &Cloud, identifier: String) {
    let task = cloud.clone();
    cloud.spawn(async move {
        if let Err(error) = provision(&task, &identifier).await {
            invalid(&task, &identifier, &format!("{error:#}"), &[]);
        }
    });
}

/// The names, addresses and servers that green is to have.
struct Blueprint {
    cluster: String,
    identifier: String,
    blue: Side,
    plan: green::Plan,
    names: Vec<String>,
    version: String,
}

async fn provision(cloud: &Cloud, identifier: &str) -> anyhow::Result<()> {
    task_status(cloud, identifier, 0, "IN_PROGRESS");
    cloud.faults().reached(Moment::Provisioning);
    cloud.clock().sleep(cloud.settings().timings.create_task).await;
    let wrong = cloud.faults().take(|f| matches!(f, Fault::InvalidConfiguration { .. }));
    if let Some(Fault::InvalidConfiguration { reason }) = wrong {
        anyhow::bail!(reason);
    }
    let blueprint = draw(cloud, identifier).await?;
    let majors = [blueprint.blue.writer.major(), major_of(&blueprint.version)];
    let fleet = cloud.fleet(&majors).await.context("installing the target version")?;
    enter_green(cloud, identifier, &blueprint);
    let progress = {
        let (cloud, identifier) = (cloud.clone(), identifier.to_owned());
        Arc::new(move |stage: Stage, ended: bool| stage_status(&cloud, &identifier, stage, ended))
    };
    let tag = blueprint.plan.tag.clone();
    let built = green::build(&fleet, &blueprint.blue, blueprint.plan.clone(), progress, cloud.stopping()).await;
    let sides = match built {
        Ok(sides) => sides,
        Err(failed) => {
            fail(cloud, identifier, &blueprint, failed).await;
            return Ok(());
        }
    };
    // Everything but the last task is over by now; the provider's own delays of the two that follow the copy.
    task_status(cloud, identifier, 2, "IN_PROGRESS");
    task_status(cloud, identifier, 3, "IN_PROGRESS");
    cloud.clock().sleep(cloud.settings().timings.create_task * 2).await;
    let baseline = health::baseline(&sides.blue.writer, &sides.links).await.context("taking the baseline of blue")?;
    let live = Arc::new(Live { sides: Mutex::new(sides.clone()), baseline, tag });
    ready(cloud, identifier, &blueprint, &sides, Arc::clone(&live)).await?;
    watch(cloud, identifier, &live).await;
    Ok(())
}

/// Decides names and addresses: each member of blue gets a twin with a random suffix of its own.
async fn draw(cloud: &Cloud, identifier: &str) -> anyhow::Result<Blueprint> {
    let state = cloud.state();
    let deployment = state.deployment(identifier)?;
    let blue = state.clusters.get(&deployment.blue).context("blue is gone")?;
    let groups =
        [state.cluster_group(&deployment.plan.cluster_group)?, state.instance_group(&deployment.plan.instance_group)?];
    let settings = parameters::after_restart(&parameters::merged(groups.into_iter()));
    let members: Vec<&Instance> = blue.members().filter_map(|id| state.instances.get(id)).collect();
    let names: Vec<String> = members.iter().map(|i| green_name(&i.identifier)).collect();
    let topology: Vec<(String, bool)> = names.iter().enumerate().map(|(n, name)| (name.clone(), n == 0)).collect();
    let mut nodes = Vec::new();
    for name in &names {
        nodes.push(Node {
            smallest: blue.smallest,
            name: format!("{name}-{}", state_id("", 4)),
            address: blue.network.address()?,
            port: blue.network.port,
            parameters: settings.clone(),
            identity: Identity {
                instance: name.clone(),
                topology: topology.clone(),
                flavour: blue.flavour,
                ..Identity::default()
            },
        });
    }
    let mut nodes = nodes.into_iter();
    let cluster = create::cluster_id();
    let plan = green::Plan {
        tag: cluster.trim_start_matches("cluster-").to_lowercase(),
        region: REGION.to_owned(),
        major: major_of(&deployment.plan.version),
        writer: nodes.next().context("blue has no writer")?,
        readers: nodes.collect(),
        hide_slot_wait: cloud.faults().take(|f| matches!(f, Fault::HideSlotWait)).is_some(),
    };
    let side = clusters::side(&state, &blue.id).context("blue has no servers")?;
    let version = deployment.plan.version.clone();
    Ok(Blueprint { cluster, identifier: green_name(&blue.identifier), blue: side, plan, names, version })
}

fn green_name(blue: &str) -> String {
    format!("{blue}-green-{}", state_id("", 6))
}

/// Green appears in the account: its cluster and its members, still being created.
fn enter_green(cloud: &Cloud, identifier: &str, blueprint: &Blueprint) {
    let now = cloud.clock().now();
    let mut state = cloud.state();
    let Some((blue, plan)) = state.deployment(identifier).ok().map(|d| (d.blue.clone(), d.plan.clone())) else {
        return;
    };
    let Some(of) = state.clusters.get(&blue) else { return };
    let smallest = of.smallest;
    let (network, tags, clone_group) = (Arc::clone(&of.network), of.tags.clone(), of.clone_group.clone());
    let (source, protection, class, flavour) = (of.arn(), of.deletion_protection, class_of(&state, of), of.flavour);
    let nodes = std::iter::once(&blueprint.plan.writer).chain(&blueprint.plan.readers);
    let mut members = Vec::new();
    for (tier, (name, node)) in blueprint.names.iter().zip(nodes).enumerate() {
        let instance = Instance {
            id: format!("db-{}", state_id("", 26).to_uppercase()),
            identifier: name.clone(),
            class: class.clone(),
            status: "creating".to_owned(),
            cluster: blueprint.cluster.clone(),
            address: node.address,
            port: network.port,
            version: blueprint.version.clone(),
            cluster_group_status: "in-sync".to_owned(),
            group: plan.instance_group.clone(),
            group_status: "in-sync".to_owned(),
            applied: node.parameters.clone(),
            server: None,
            replication: Replication::None,
            created: now,
            tags: tags.clone(),
            tier: u32::try_from(tier).unwrap_or(15).min(15),
            busy: Arc::default(),
            logs: None,
        };
        members.push(instance.id.clone());
        state.instances.insert(instance.id.clone(), instance);
    }
    let mut members = members.into_iter();
    let cluster = Cluster {
        id: blueprint.cluster.clone(),
        identifier: blueprint.identifier.clone(),
        version: blueprint.version.clone(),
        flavour,
        status: "creating".to_owned(),
        group: plan.cluster_group,
        writer: members.next().unwrap_or_default(),
        readers: members.collect(),
        network,
        endpoints: Endpoints::None,
        smallest,
        deletion_protection: protection,
        created: now,
        tags,
        source: Some(source),
        clone_group,
        storage: None,
    };
    state.clusters.insert(cluster.id.clone(), cluster);
    if let Ok(deployment) = state.deployment_mut(identifier) {
        deployment.green = Some(blueprint.cluster.clone());
        deployment.target = Some(cluster_arn(&blueprint.identifier));
        if let Some(member) = deployment.members.first_mut() {
            member.target = Some(cluster_arn(&blueprint.identifier));
        }
    }
}

fn class_of(state: &State, cluster: &Cluster) -> String {
    state.instances.get(&cluster.writer).map_or_else(|| "db.r6g.large".to_owned(), |i| i.class.clone())
}

/// Which task a stage of the machinery belongs to.
fn stage_status(cloud: &Cloud, identifier: &str, stage: Stage, ended: bool) {
    let (task, last) = match stage {
        Stage::Publications | Stage::Copy | Stage::Slots => (0, false),
        Stage::Recover => (0, true),
        Stage::Upgrade => (1, false),
        Stage::Subscribe => (1, true),
        Stage::Readers => (2, false),
    };
    tracing::info!(deployment = identifier, ?stage, ended, "building green");
    match (stage, ended) {
        (Stage::Slots, false) => cloud.faults().reached(Moment::Slots),
        (Stage::Upgrade, false) => cloud.faults().reached(Moment::Upgrading),
        _ => {}
    }
    match (last, ended) {
        (true, true) => task_status(cloud, identifier, task, "COMPLETED"),
        (_, false) => task_status(cloud, identifier, task, "IN_PROGRESS"),
        (false, true) => {}
    }
}

fn task_status(cloud: &Cloud, identifier: &str, task: usize, status: &'static str) {
    let mut state = cloud.state();
    if let Ok(Some(task)) = state.deployment_mut(identifier).map(|d| d.tasks.get_mut(task)) {
        task.1 = status;
    }
}

/// Green serves and follows: everything becomes available.
async fn ready(
    cloud: &Cloud,
    identifier: &str,
    blueprint: &Blueprint,
    sides: &Sides,
    live: Arc<Live>,
) -> anyhow::Result<()> {
    let now = cloud.clock().now();
    {
        let mut state = cloud.state();
        let cluster = state.clusters.get_mut(&blueprint.cluster).context("green is gone")?;
        cluster.endpoints = Endpoints::Published;
        cluster.status = "available".to_owned();
        let members: Vec<String> = cluster.members().cloned().collect();
        for (n, (id, server)) in members.iter().zip(sides.green.members()).enumerate() {
            if let Some(instance) = state.instances.get_mut(id) {
                instance.server = Some(server);
                instance.status = "available".to_owned();
                instance.replication = if n == 0 { Replication::Running } else { Replication::None };
            }
        }
        copy_endpoints(&mut state, identifier, &blueprint.cluster)?;
        let deployment = state.deployment_mut(identifier)?;
        for (member, name) in deployment.members.iter_mut().skip(1).zip(&blueprint.names) {
            member.target = Some(instance_arn(name));
        }
        deployment.members.iter_mut().for_each(|m| m.status = "AVAILABLE");
        deployment.tasks.iter_mut().for_each(|t| t.1 = "COMPLETED");
        deployment.live = Some(live);
    }
    cloud.publish();
    life::enter(cloud, identifier, Some(Status::Available));
    let early = cloud.faults().take(|f| matches!(f, Fault::AvailableTooEarly { .. }));
    if let (Some(Fault::AvailableTooEarly { millis }), Some(name)) = (early, blueprint.names.first()) {
        instances::show_status(cloud, name, "modifying", std::time::Duration::from_millis(millis));
    }
    let mut state = cloud.state();
    state.deployment_mut(identifier)?.status = "AVAILABLE".to_owned();
    let text = "Blue/green deployment tasks completed. You can make more modifications to the green environment databases or \
                switch over the deployment.";
    state.deployment_event(now, identifier, "creation", text);
    drop(state);
    cloud.faults().reached(Moment::Replicating);
    Ok(())
}

/// Green gets a copy of every custom endpoint that blue had when the deployment was made.
fn copy_endpoints(state: &mut State, identifier: &str, green: &str) -> anyhow::Result<()> {
    let mut members = state.deployment(identifier)?.members.clone();
    for member in &mut members {
        let Some((original, twin)) = &mut member.endpoints else { continue };
        match endpoints::copy(state, original, green) {
            Some((id, arn)) => (*twin, member.target) = (Some(id), Some(arn)),
            None => tracing::warn!(endpoint = %member.source, "a custom endpoint went before it was copied"),
        }
    }
    state.deployment_mut(identifier)?.members = members;
    Ok(())
}

/// The machinery could not build green: the reason in AWS's words, the upgrade's log kept where it can be read.
async fn fail(cloud: &Cloud, identifier: &str, blueprint: &Blueprint, failed: BuildFailed) {
    tracing::warn!(deployment = identifier, stage = ?failed.stage, reason = %failed.reason, "green could not be made");
    if let Some(log) = &failed.log {
        let folder = cloud.work_dir().join(format!("logs-{identifier}"));
        let kept =
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("pg_upgrade_internal.log"), log));
        match kept {
            Ok(()) => {
                let mut state = cloud.state();
                let writer = state.clusters.get(&blueprint.cluster).map(|c| c.writer.clone()).unwrap_or_default();
                if let Some(instance) = state.instances.get_mut(&writer) {
                    instance.logs = Some(folder);
                }
            }
            Err(error) => tracing::warn!(%error, "the upgrade's log could not be kept"),
        }
    }
    if let Some(error) = failed.left_behind {
        free_blue(cloud, identifier, &blueprint.plan.tag, error).await;
    }
    invalid(cloud, identifier, &failed.reason, &failed.parameters);
}

/// Removes what a failed creation left on blue because blue was restarting or failing over: from whoever is its writer now, as
/// soon as that answers.
async fn free_blue(cloud: &Cloud, identifier: &str, tag: &str, mut error: String) {
    for _ in 0..FREE_TRIES {
        let writer = {
            let state = cloud.state();
            let blue = state.deployment(identifier).ok().map(|d| d.blue.clone());
            blue.and_then(|blue| clusters::side(&state, &blue)).map(|side| side.writer)
        };
        let Some(writer) = writer else { return };
        match green::clean_up(&writer, tag).await {
            Ok(_) => return,
            Err(again) => error = again.chain(),
        }
        tokio::time::sleep(FREE_EVERY).await;
    }
    tracing::error!(deployment = identifier, error, "something of a failed creation stays on blue");
}

/// The deployment cannot become anything any more.
fn invalid(cloud: &Cloud, identifier: &str, reason: &str, parameters: &[String]) {
    let text = if parameters.is_empty() {
        format!("Creation of blue/green deployment failed because {reason}")
    } else {
        let which = format!("due to incompatible parameter(s): [{}]", parameters.join(", "));
        format!(
            "Creation of blue/green deployment failed {which}. See the documentation to resolve it, then delete and recreate the deployment."
        )
    };
    let now = cloud.clock().now();
    let mut state = cloud.state();
    let Ok(deployment) = state.deployment_mut(identifier) else { return };
    deployment.status = "INVALID_CONFIGURATION".to_owned();
    deployment.details = Some(text.clone());
    for task in deployment.tasks.iter_mut().filter(|t| t.1 == "IN_PROGRESS") {
        task.1 = "FAILED";
    }
    let green = deployment.green.clone();
    settle_failed_green(&mut state, green.as_deref());
    state.deployment_event(now, identifier, "failure", text);
}

/// A green that never came to be stays in the account, without servers, until it is deleted.
fn settle_failed_green(state: &mut State, green: Option<&str>) {
    let Some(cluster) = green.and_then(|id| state.clusters.get_mut(id)) else { return };
    cluster.status = "available".to_owned();
    let members: Vec<String> = cluster.members().cloned().collect();
    for id in members {
        if let Some(instance) = state.instances.get_mut(&id) {
            instance.status = "incompatible-parameters".to_owned();
        }
    }
}

/// Looks at a live deployment until it is no longer one: what was done on blue, and whether green still follows.
async fn watch(cloud: &Cloud, identifier: &str, live: &Arc<Live>) {
    let (mut silent, mut stall) = (0, Vec::new());
    loop {
        tokio::time::sleep(cloud.settings().timings.watch).await;
        let stalls = cloud.faults().standing(|f| matches!(f, Fault::ApplyStalls).then_some(())).is_some();
        if stalls && stall.is_empty() {
            stall = stall_apply(&live.sides()).await;
        } else if !stalls {
            // Sessions that go release their locks.
            stall.clear();
        }
        let mine = |d: &Deployment| {
            d.live.as_ref().is_some_and(|l| Arc::ptr_eq(l, live)) && d.status != "SWITCHOVER_COMPLETED"
        };
        let (waits, known) = match cloud.state().deployment(identifier) {
            Ok(d) if mine(d) => (d.status != "SWITCHOVER_IN_PROGRESS", d.degraded.is_some()),
            _ => return,
        };
        if !waits {
            continue;
        }
        if !known && let Ok(Some(why)) = live.degraded().await {
            degrade(cloud, identifier, &why);
            continue;
        }
        silent = match health::links(&live.sides()).await {
            Ok(links) => match links
                .iter()
                .find(|l| !l.slot_active || !l.worker || l.wal_status.as_deref() == Some("lost"))
            {
                Some(link) => {
                    let limit = if link.wal_status.as_deref() == Some("lost") { 0 } else { 5 };
                    if silent >= limit {
                        follows(cloud, identifier, Some(format!("Replication of database {} stopped.", link.database)));
                    }
                    silent + 1
                }
                None if known => 0,
                None => {
                    follows(cloud, identifier, None);
                    0
                }
            },
            Err(_) => silent,
        };
    }
}

/// Locks every table of clients on green against writing, in one session for each database.
async fn stall_apply(sides: &Sides) -> Vec<Admin> {
    const LOCK: &str = "do $$ declare t regclass; begin for t in select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace \
        where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema') \
        loop execute format('lock table %s in share mode', t); end loop; end $$";
    let mut held = Vec::new();
    for link in &sides.links {
        let locked = async {
            let admin = sides.green.writer.admin(&link.database).await?;
            admin.batch_execute(&format!("set default_transaction_read_only = off; begin; {LOCK}")).await?;
            anyhow::Ok(admin)
        };
        match locked.await {
            Ok(admin) => held.push(admin),
            Err(error) => {
                tracing::warn!(database = %link.database, error = format!("{error:#}"), "apply was not stalled")
            }
        }
    }
    held
}

/// Blue was changed in a way that only a new deployment cures.
pub(crate) fn degrade(cloud: &Cloud, identifier: &str, why: &str) {
    let now = cloud.clock().now();
    {
        let mut state = cloud.state();
        let Ok(deployment) = state.deployment_mut(identifier) else { return };
        deployment.degraded = Some(why.to_owned());
        let text = format!(
            "Data definition language (DDL) changes and Large Object changes aren't supported while a blue/green deployment exists ({why}). \
             The green databases now have a status of REPLICATION_DEGRADED. Delete the blue/green deployment with its green databases and recreate it."
        );
        state.deployment_event(now, identifier, "notification", text);
    }
    follows(cloud, identifier, Some("Replication degraded".to_owned()));
}

/// Says on green's writer whether it follows.
fn follows(cloud: &Cloud, identifier: &str, broken: Option<String>) {
    let mut state = cloud.state();
    let green = state.deployment(identifier).ok().and_then(|d| d.green.clone());
    let writer = green.and_then(|id| state.clusters.get(&id)).map(|c| c.writer.clone());
    if let Some(instance) = writer.and_then(|id| state.instances.get_mut(&id)) {
        instance.replication = broken.map_or(Replication::Running, Replication::Broken);
    }
}

/// Ends the replication of a green that is not switched to: subscriptions on green, slots and publications on blue.
pub(crate) async fn make_standalone(cloud: &Cloud, live: &Live) -> anyhow::Result<()> {
    let sides = live.sides();
    if let Err(error) = green::detach(&sides).await {
        tracing::warn!(error = error.chain(), "green's subscriptions were not dropped");
    }
    green::clean_up(&sides.blue.writer, &live.tag).await.context("cleaning up blue")?;
    let writer = sides.green.writer;
    let mut state = cloud.state();
    for instance in state.instances.values_mut().filter(|i| i.server.as_ref().is_some_and(|s| Arc::ptr_eq(s, &writer)))
    {
        instance.replication = Replication::None;
    }
    Ok(())
}
