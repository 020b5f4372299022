//! Where parameters reach the real servers: reloads and restarts.

use std::sync::Arc;

use anyhow::Context;

use crate::cloud::Cloud;
use crate::cloud::groups::Kind;
use crate::cloud::parameters;
use crate::cloud::state::{InstanceId, State};
use crate::fleet::Server;

/// Notes on every member that uses the group that it changed: `pending-reboot` if something waits for a restart.
pub(crate) fn group_changed(state: &mut State, kind: Kind, name: &str, waits: bool) {
    if !waits {
        return;
    }
    for id in users_of(state, kind, name) {
        if let Some(instance) = state.instances.get_mut(&id) {
            *status_of(kind, instance) = "pending-reboot".to_owned();
        }
    }
}

/// Has every member that uses the group reload what can be changed without a restart. Returns at once.
pub(crate) fn apply_dynamic(cloud: &Cloud, kind: Kind, name: &str) {
    let members = users_of(&cloud.state(), kind, name);
    for id in members {
        let before = {
            let mut state = cloud.state();
            let Some(instance) = state.instances.get_mut(&id) else { continue };
            let status = status_of(kind, instance);
            let before = status.clone();
            if before == "in-sync" {
                *status = "applying".to_owned();
            }
            before
        };
        let cloud2 = cloud.clone();
        cloud.spawn(async move {
            cloud2.clock().sleep(cloud2.settings().timings.modify).await;
            let outcome = reload(&cloud2, &id).await;
            if let Err(error) = &outcome {
                tracing::warn!(instance = %id, error = format!("{error:#}"), "a parameter change was not applied");
            }
            let mut state = cloud2.state();
            if let Some(instance) = state.instances.get_mut(&id) {
                let status = status_of(kind, instance);
                if status == "applying" {
                    *status = if outcome.is_ok() { before } else { "failed-to-apply".to_owned() };
                }
            }
        });
    }
}

/// Brings a member's dynamic parameters into force.
pub(crate) async fn reload(cloud: &Cloud, id: &InstanceId) -> anyhow::Result<()> {
    let Some((server, busy)) = server_of(cloud, id) else { return Ok(()) };
    let _turn = busy.lock().await;
    let after = {
        let state = cloud.state();
        let Some(instance) = state.instances.get(id) else { return Ok(()) };
        let family = crate::cloud::state::family(crate::cloud::state::major_of(&instance.version));
        parameters::after_reload(&instance.applied, &parameters::wanted(&state, instance), &family)
    };
    server.set_parameters(after.clone()).context("writing parameters")?;
    if server.is_running() {
        server.reload().await.context("reloading")?;
    }
    if let Some(instance) = cloud.state().instances.get_mut(id) {
        instance.applied = after;
    }
    Ok(())
}

/// Really restarts a member with all that its groups say, after which it is in sync.
pub(crate) async fn restart(cloud: &Cloud, id: &InstanceId) -> anyhow::Result<()> {
    let Some((server, busy)) = server_of(cloud, id) else { return Ok(()) };
    let _turn = busy.lock().await;
    let after = {
        let state = cloud.state();
        let Some(instance) = state.instances.get(id) else { return Ok(()) };
        parameters::after_restart(&parameters::wanted(&state, instance))
    };
    server.set_parameters(after.clone()).context("writing parameters")?;
    server.restart().await.context("restarting")?;
    let mut state = cloud.state();
    if let Some(instance) = state.instances.get_mut(id) {
        instance.applied = after;
        instance.cluster_group_status = "in-sync".to_owned();
        instance.group_status = "in-sync".to_owned();
    }
    Ok(())
}

fn server_of(cloud: &Cloud, id: &InstanceId) -> Option<(Arc<Server>, Arc<tokio::sync::Mutex<()>>)> {
    let state = cloud.state();
    let instance = state.instances.get(id)?;
    Some((instance.server.clone()?, Arc::clone(&instance.busy)))
}

fn users_of(state: &State, kind: Kind, name: &str) -> Vec<InstanceId> {
    state
        .instances
        .values()
        .filter(|instance| match kind {
            Kind::Cluster => state.clusters.get(&instance.cluster).is_some_and(|c| c.group == name),
            Kind::Instance => instance.group == name,
        })
        .map(|instance| instance.id.clone())
        .collect()
}

fn status_of(kind: Kind, instance: &mut crate::cloud::state::Instance) -> &mut String {
    match kind {
        Kind::Cluster => &mut instance.cluster_group_status,
        Kind::Instance => &mut instance.group_status,
    }
}
