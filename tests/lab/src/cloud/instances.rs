//! Changing instances: `ModifyDBInstance`, `RebootDBInstance` (a real restart), and what may be pending for them.

use std::time::Duration;

use crate::cloud::clusters::in_switchover;
use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::groups::Kind;
use crate::cloud::params::Params;
use crate::cloud::state::{InstanceId, family};
use crate::cloud::{Cloud, account, describe, servers, trouble, versions};
use crate::faults::Fault;
use crate::wire::xml::Element;

pub(crate) fn modify(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBInstanceIdentifier")?;
    cloud.state().instance(&identifier)?;
    account::has_what_is_named(params, Kind::Instance)?;
    if let Some(name) = params.get("NewDBInstanceIdentifier").filter(|name| cloud.state().instance(name).is_ok()) {
        return Err(Refusal::new("DBInstanceAlreadyExists", 400, format!("DB instance already exists: {name}")));
    }
    if params.get("NewDBInstanceIdentifier").is_some() || params.get("EngineVersion").is_some() {
        return Err(Refusal::combination(
            "This lab does not serve NewDBInstanceIdentifier and EngineVersion of ModifyDBInstance.",
        ));
    }
    let mut changed_group = None;
    {
        let mut state = cloud.state();
        let instance = state.instance(&identifier)?;
        let wanted = family(crate::cloud::state::major_of(&instance.version));
        if instance.status != "available" || in_switchover(&state, &instance.cluster) {
            return Err(Refusal::instance_state(format!("DB instance {identifier} is not in available state")));
        }
        let group = params.get("DBParameterGroupName").map(str::to_lowercase);
        if let Some(name) = &group {
            let found = state.instance_group(name)?;
            if found.family != wanted {
                return Err(Refusal::combination(format!(
                    "The parameter group {name} with DBParameterGroupFamily {} can't be used for this instance. Please use a parameter group with DBParameterGroupFamily {wanted}",
                    found.family
                )));
            }
        }
        let class = params.get("DBInstanceClass");
        if let Some(class) = class.filter(|class| !versions::has_class(class)) {
            return Err(Refusal::value(format!("Invalid DB Instance class: {class}")));
        }
        let instance = state.instance_mut(&identifier)?;
        if let Some(class) = class {
            instance.class = class.to_owned();
        }
        if let Some(name) = group.filter(|name| *name != instance.group) {
            instance.group.clone_from(&name);
            instance.group_status = "pending-reboot".to_owned();
            changed_group = Some(name);
        }
    }
    if let Some(name) = changed_group {
        servers::apply_dynamic(cloud, Kind::Instance, &name);
    }
    let state = cloud.state();
    Ok(Some(Element::new("").child(describe::instance(cloud, &state, state.instance(&identifier)?))))
}

pub(crate) fn reboot(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBInstanceIdentifier")?;
    if params.flag("ForceFailover")? == Some(true) {
        return Err(Refusal::combination("You cannot specify ForceFailover for an Aurora instance."));
    }
    let mut state = cloud.state();
    let instance = state.instance(&identifier)?;
    if instance.status != "available" || in_switchover(&state, &instance.cluster) {
        return Err(Refusal::instance_state(format!("DB instance {identifier} is not in available state")));
    }
    let instance = state.instance_mut(&identifier)?;
    instance.status = "rebooting".to_owned();
    let id = instance.id.clone();
    let answer = describe::instance(cloud, &state, state.instance(&identifier)?);
    drop(state);
    let task = cloud.clone();
    cloud.spawn(async move { carry_out_reboot(&task, &id).await });
    Ok(Some(Element::new("").child(answer)))
}

/// A restart from its beginning to its end, whoever asked for it.
pub(crate) async fn carry_out_reboot(cloud: &Cloud, id: &InstanceId) {
    if let Some(instance) = cloud.state().instances.get_mut(id) {
        instance.status = "rebooting".to_owned();
    }
    let now = cloud.clock().now();
    let delay = cloud.settings().timings.reboot;
    cloud.clock().sleep(delay).await;
    let outcome = servers::restart(cloud, id).await;
    cloud.clock().sleep(delay).await;
    let mut state = cloud.state();
    let Some(instance) = state.instances.get_mut(id) else { return };
    let identifier = instance.identifier.clone();
    match outcome {
        Ok(()) => {
            instance.status = "available".to_owned();
            state.instance_event(now, &identifier, "availability", "DB instance restarted");
        }
        Err(error) => {
            instance.status = "incompatible-parameters".to_owned();
            tracing::warn!(%identifier, error = format!("{error:#}"), "the restart failed");
            let text = "The database instance is in an incompatible-parameters state.";
            state.instance_event(now, &identifier, "failure", text);
        }
    }
}

pub(crate) fn maintenance(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let wanted = params.get("ResourceIdentifier");
    if let Some(arn) = wanted {
        let state = cloud.state();
        if state.cluster(arn).is_err() && state.instance(arn).is_err() {
            return Err(Refusal::new("ResourceNotFoundFault", 404, format!("{arn} not found.")));
        }
    }
    let filters = params.filters(&["db-cluster-id", "db-instance-id"])?;
    let fits = |arn: &str| {
        filters.iter().all(|(name, values)| {
            let kind = if name == "db-cluster-id" { ":cluster:" } else { ":db:" };
            values.iter().any(|value| value == arn || arn.ends_with(&format!("{kind}{value}")))
        })
    };
    let standing: Vec<(String, String)> = cloud
        .faults()
        .outstanding()
        .into_iter()
        .filter_map(|planned| match planned.fault {
            Fault::PendingMaintenance { resource_arn, action } => Some((resource_arn, action)),
            _ => None,
        })
        .filter(|(arn, _)| wanted.is_none_or(|w| w == arn) && fits(arn))
        .collect();
    let (page, marker) = params.page(standing, 100)?;
    let due = cloud.clock().now();
    let list = page.into_iter().map(|(arn, action)| {
        let detail = Element::new("PendingMaintenanceAction")
            .with("Action", action)
            .at("CurrentApplyDate", due)
            .with("Description", "Planned by the lab");
        Element::new("ResourcePendingMaintenanceActions")
            .with("ResourceIdentifier", arn)
            .list("PendingMaintenanceActionDetails", [detail])
    });
    Ok(Some(Element::new("").list("PendingMaintenanceActions", list).maybe("Marker", marker)))
}

/// Begins the faults that make an instance look other than available.
pub(crate) fn play_status_faults(cloud: &Cloud) {
    let named = |name: &str| trouble::instance(&cloud.state(), name);
    let here = |name: &str| {
        let instance = named(name);
        instance.is_some_and(|name| cloud.state().instance(&name).is_ok_and(|i| i.status == "available"))
    };
    let due = |fault: &Fault| matches!(fault, Fault::MemberStatus { instance, .. } if here(instance));
    while let Some(Fault::MemberStatus { instance, status, millis }) = cloud.faults().take(due) {
        if let Some(instance) = named(&instance) {
            show_status(cloud, &instance, &status, Duration::from_millis(millis));
        }
    }
}

/// Has an instance show a status for a while.
pub(crate) fn show_status(cloud: &Cloud, identifier: &str, status: &str, span: Duration) {
    let id = match cloud.state().instance_mut(identifier) {
        Ok(instance) => {
            instance.status = status.to_owned();
            instance.id.clone()
        }
        Err(_) => return,
    };
    let (task, status) = (cloud.clone(), status.to_owned());
    cloud.spawn(async move {
        task.clock().sleep(span).await;
        if let Some(instance) = task.state().instances.get_mut(&id).filter(|i| i.status == status) {
            instance.status = "available".to_owned();
        }
    });
}
