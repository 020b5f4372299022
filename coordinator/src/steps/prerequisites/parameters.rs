//! Our own copies of the parameter groups (field rule 2.3): for blue with what the deployment needs, for the target family
//! with everything the user had set. Groups of others are never changed; a group in use is never deleted.

use std::collections::BTreeMap;

use engine::{Failure, Look};
use proto::jobs::Inspection;
use serde::{Deserialize, Serialize};

use super::Start;
use crate::{
    preflight::{Facts, carried_over, failed},
    rds::{
        self, ApplyMethod, ClusterChange, Family, GroupScope, Names, NewParameterGroup, ParameterChange,
        ParameterGroupName, ParameterSource, Rds,
    },
    steps::{
        codes,
        shared::{Context, our_tag, recorded_cluster, until_applied},
    },
};

/// The groups that this upgrade made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupNames {
    pub blue_cluster: ParameterGroupName,
    pub green_cluster: ParameterGroupName,
    pub green_instance: ParameterGroupName,
}

/// The groups that were there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserGroups {
    pub(crate) cluster: ParameterGroupName,
    pub(crate) cluster_family: Family,
    pub(crate) instance: ParameterGroupName,
}

/// One setting of ours, for those who read what was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    /// What ran before, where it was read.
    pub before: Option<String>,
    pub value: String,
    /// Green has it too, and the new production keeps it.
    pub on_green: bool,
}

impl UserGroups {
    pub(super) fn of(facts: &Facts) -> UserGroups {
        UserGroups {
            cluster: facts.groups.cluster.name.clone(),
            cluster_family: facts.groups.cluster.family.clone(),
            instance: facts.groups.instance.name.clone(),
        }
    }
}

/// Slots, senders and workers that a deployment over `databases` databases needs at least.
fn required(databases: u64) -> [(&'static str, u64); 4] {
    const SPARE: u64 = 5;
    let workers = databases + SPARE;
    [
        ("max_replication_slots", workers),
        ("max_wal_senders", workers),
        ("max_logical_replication_workers", workers),
        ("max_worker_processes", workers + 8 + 1),
    ]
}

/// What must be set on a group besides what the user set: never less than what runs now.
fn wanted(databases: u64, running: &BTreeMap<String, String>) -> BTreeMap<&'static str, String> {
    let mut wanted = BTreeMap::from([("rds.logical_replication", "1".to_owned())]);
    for (name, least) in required(databases) {
        let now: u64 = running.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        wanted.insert(name, now.max(least).to_string());
    }
    wanted
}

/// What the logging of schema changes needs, on blue only.
const LOG_DDL: (&str, &str) = ("log_statement", "ddl");

/// What is set in our groups besides what the user set.
pub(super) fn settings(start: &Start) -> Vec<Setting> {
    let before = |name: &str| start.settings.get(name).cloned();
    let wanted = wanted(start.databases, &start.settings).into_iter();
    let both = wanted.map(|(name, value)| Setting { name: name.into(), before: before(name), value, on_green: true });
    let (name, value) = LOG_DDL;
    let blue = Setting { name: name.into(), before: before(name), value: value.into(), on_green: false };
    both.chain([blue]).collect()
}

/// What the running server still lacks, as sentences; empty when a deployment can be made.
pub(super) fn unmet(seen: &Inspection, databases: u64) -> Vec<String> {
    let setting = |name: &str| seen.settings.get(name).map(String::as_str);
    let mut unmet = Vec::new();
    if setting("wal_level") != Some("logical") {
        unmet.push(format!("wal_level is {}", setting("wal_level").unwrap_or("unknown")));
    }
    for (name, least) in required(databases) {
        match setting(name).and_then(|value| value.parse::<u64>().ok()) {
            Some(value) if value >= least => {}
            Some(value) => unmet.push(format!("{name} is {value} and must be {least}")),
            None => unmet.push(format!("{name} is unknown")),
        }
    }
    unmet
}

/// Makes the groups and puts blue's on the cluster.
pub(super) async fn put_in_place(cx: &Context<'_>, start: &Start) -> Result<GroupNames, Failure> {
    let names = Names::of(cx.run_id().as_str());
    let groups = GroupNames {
        blue_cluster: names.blue_cluster_group(),
        green_cluster: names.green_cluster_group(),
        green_instance: names.green_instance_group(),
    };
    let users = &start.users;
    let wanted = wanted(start.databases, &start.settings);
    let mut on_blue = wanted.clone();
    on_blue.insert(LOG_DDL.0, LOG_DDL.1.to_owned());
    let copy = |scope, from, name, family, extra| copy_group(cx, Copy { scope, from, name, family, extra });
    copy(GroupScope::Cluster, &users.cluster, &groups.blue_cluster, &users.cluster_family, &on_blue).await?;
    let target = &start.target.family;
    copy(GroupScope::Cluster, &users.cluster, &groups.green_cluster, target, &wanted).await?;
    copy(GroupScope::Instance, &users.instance, &groups.green_instance, target, &BTreeMap::new()).await?;
    use_group(cx, start, &groups.blue_cluster).await?;
    Ok(groups)
}

struct Copy<'a> {
    scope: GroupScope,
    from: &'a ParameterGroupName,
    name: &'a ParameterGroupName,
    family: &'a Family,
    extra: &'a BTreeMap<&'static str, String>,
}

/// A group of ours in `family` with everything the user had set that the family takes, and `extra` on top.
async fn copy_group(cx: &Context<'_>, copy: Copy<'_>) -> Result<(), Failure> {
    let rds = &*cx.world().rds;
    let Copy { scope, from, name, family, extra } = copy;
    let new = NewParameterGroup {
        scope,
        name: name.clone(),
        family: family.clone(),
        description: format!("Upgrade Pilot, upgrade {}: copy of {from}", cx.run_id()),
        tags: vec![our_tag(cx)],
    };
    cx.effect(
        &format!("group-{name}"),
        async { Ok(name.clone()) },
        |_| look_for_group(cx, rds, scope, name),
        |_| {
            let new = new.clone();
            async move {
                if let Look::There(()) = look_for_group(cx, rds, scope, &new.name).await? {
                    return Ok(());
                }
                let made = rds.create_parameter_group(&new).await;
                made.map(|_| ()).map_err(|error| failed(format!("making parameter group {}", new.name), error))
            }
        },
    )
    .await?;
    let doing = || format!("filling parameter group {name}");
    let user = rds.parameters(scope, from, Some(ParameterSource::User)).await.map_err(|e| failed(doing(), e))?;
    let family_has = rds.default_parameters(scope, family).await.map_err(|e| failed(doing(), e))?;
    let (carried, _) = carried_over(&user, &family_has);
    let mut values: BTreeMap<String, String> = carried.into_iter().map(|c| (c.name, c.value)).collect();
    values.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let has = rds.parameters(scope, name, Some(ParameterSource::User)).await.map_err(|e| failed(doing(), e))?;
    let is_static = |name: &str| family_has.iter().find(|p| p.name == name).is_none_or(|p| p.is_static);
    let changes: Vec<ParameterChange> = values
        .into_iter()
        .filter(|(name, value)| !has.iter().any(|p| p.name == *name && p.value.as_ref() == Some(value)))
        .map(|(name, value)| {
            let apply = if is_static(&name) { ApplyMethod::PendingReboot } else { ApplyMethod::Immediate };
            ParameterChange { name, value, apply }
        })
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    rds.modify_parameter_group(scope, name, &changes).await.map_err(|error| failed(doing(), error))
}

async fn look_for_group(
    cx: &Context<'_>,
    rds: &dyn Rds,
    scope: GroupScope,
    name: &ParameterGroupName,
) -> Result<Look<()>, Failure> {
    let doing = || format!("looking for parameter group {name}");
    let Some(group) = rds::found(rds.parameter_group(scope, name).await).map_err(|e| failed(doing(), e))? else {
        return Ok(Look::NotYet(format!("there is no parameter group {name}")));
    };
    let tags = rds.tags(&group.arn).await.map_err(|error| failed(doing(), error))?;
    if tags.contains(&our_tag(cx)) {
        return Ok(Look::There(()));
    }
    Err(Failure::permanent(codes::NOT_OURS, format!("parameter group {name} is not of this upgrade")))
}

/// Puts our group on the cluster; what was there is what undo puts back.
async fn use_group(cx: &Context<'_>, start: &Start, ours: &ParameterGroupName) -> Result<(), Failure> {
    cx.effect(
        "use-group",
        async { Ok(start.users.cluster.clone()) },
        |_| async move {
            let cluster = recorded_cluster(cx, &start.blue).await?;
            Ok(match cluster.parameter_group == *ours {
                true => Look::There(()),
                false => Look::NotYet(format!("{} uses {}", cluster.id, cluster.parameter_group)),
            })
        },
        |_| set_group(cx, start, ours.clone()),
    )
    .await
}

async fn set_group(cx: &Context<'_>, start: &Start, group: ParameterGroupName) -> Result<(), Failure> {
    let cluster = recorded_cluster(cx, &start.blue).await?;
    let doing = format!("putting parameter group {group} on {}", cluster.id);
    let change = ClusterChange { parameter_group: Some(group), apply_immediately: true, ..ClusterChange::default() };
    cx.world().rds.modify_cluster(&cluster.id, &change).await.map(|_| ()).map_err(|error| failed(doing, error))
}

/// Puts the user's group back and deletes ours. Static parameters are set back as `pending-reboot`, never rebooted for.
pub(super) async fn take_out(cx: &Context<'_>, start: &Start) -> Result<(), Failure> {
    let names = Names::of(cx.run_id().as_str());
    if let Some(users) = cx.recall::<ParameterGroupName>("use-group") {
        until_applied(cx, &start.blue).await?;
        if recorded_cluster(cx, &start.blue).await?.parameter_group != users {
            set_group(cx, start, users).await?;
            until_applied(cx, &start.blue).await?;
        }
        let cluster = recorded_cluster(cx, &start.blue).await?;
        let pending: Vec<&str> =
            cluster.members.iter().filter(|member| !member.in_sync()).map(|member| member.instance.as_str()).collect();
        if !pending.is_empty() {
            let members = pending.join(", ");
            cx.warn(
                codes::PENDING_REBOOT_LEFT,
                format!("static parameters are set back on {members} and wait for a reboot"),
            );
        }
    }
    delete_group(cx, GroupScope::Cluster, names.blue_cluster_group()).await?;
    delete_group(cx, GroupScope::Cluster, names.green_cluster_group()).await?;
    delete_group(cx, GroupScope::Instance, names.green_instance_group()).await
}

/// Deletes a group of ours; nothing when it is not there, refused when it is not ours.
pub(crate) async fn delete_group(cx: &Context<'_>, scope: GroupScope, name: ParameterGroupName) -> Result<(), Failure> {
    let rds = &*cx.world().rds;
    if let Look::NotYet(_) = look_for_group(cx, rds, scope, &name).await? {
        return Ok(());
    }
    match rds.delete_parameter_group(scope, &name).await {
        Err(error) if error.is_not_found() => Ok(()),
        answer => answer.map_err(|error| failed(format!("deleting parameter group {name}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_databases_and_never_shrink_what_runs() {
        let running = BTreeMap::from([
            ("max_replication_slots".to_owned(), "50".to_owned()),
            ("max_logical_replication_workers".to_owned(), "4".to_owned()),
        ]);
        let wanted = wanted(12, &running);
        assert_eq!(wanted["max_replication_slots"], "50");
        assert_eq!(wanted["max_logical_replication_workers"], "17");
        assert_eq!(wanted["max_worker_processes"], "26");
        assert_eq!(wanted["rds.logical_replication"], "1");
    }
}
