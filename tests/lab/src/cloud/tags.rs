//! Tags of whatever has an ARN.

use crate::cloud::Cloud;
use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{State, Tags};
use crate::wire::xml::Element;

pub(crate) fn add(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let arn = params.require("ResourceName")?;
    let mut state = cloud.state();
    stays(&state, arn)?;
    tags_of(&mut state, arn)?.extend(params.tags());
    Ok(None)
}

pub(crate) fn remove(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let arn = params.require("ResourceName")?;
    let mut state = cloud.state();
    stays(&state, arn)?;
    let tags = tags_of(&mut state, arn)?;
    for key in params.values("TagKeys", "member") {
        tags.remove(&key);
    }
    Ok(None)
}

pub(crate) fn list(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let arn = params.require("ResourceName")?;
    let mut state = cloud.state();
    let tags = tags_of(&mut state, arn)?;
    Ok(Some(Element::new("").list("TagList", elements(tags))))
}

/// The `Tag` elements of a `TagList`.
pub(crate) fn elements(tags: &Tags) -> impl Iterator<Item = Element> + '_ {
    tags.iter().map(|(key, value)| Element::new("Tag").with("Key", key).with("Value", value))
}

/// Kinds of things that the lab has none of, with the code for one that is not there.
const ABSENT: [(&str, &str); 9] = [
    ("db-proxy", "DBProxyNotFoundFault"),
    ("db-proxy-endpoint", "DBProxyEndpointNotFoundFault"),
    ("dbcr", "DBCapacityReservationNotFound"),
    ("integration", "IntegrationNotFoundFault"),
    ("shard-group", "DBShardGroupNotFound"),
    ("snapshot", "DBSnapshotNotFound"),
    ("snapshot-tenant-database", "DBSnapshotTenantDatabaseNotFoundFault"),
    ("target-group", "DBProxyTargetGroupNotFoundFault"),
    ("tenant-database", "TenantDatabaseNotFound"),
];

/// Refuses to change the tags of what is being deleted.
fn stays(state: &State, arn: &str) -> Answer<()> {
    let text = || format!("{arn} is being deleted.");
    if state.cluster(arn).is_ok_and(|found| arn == found.arn() && found.status == "deleting") {
        return Err(Refusal::cluster_state(text()));
    }
    if state.instance(arn).is_ok_and(|found| arn == found.arn() && found.status == "deleting") {
        return Err(Refusal::instance_state(text()));
    }
    match state.custom_endpoints.values().find(|found| found.arn() == arn) {
        Some(found) if found.status == "deleting" => Err(Refusal::endpoint_state(text())),
        _ => Ok(()),
    }
}

fn tags_of<'a>(state: &'a mut State, arn: &str) -> Answer<&'a mut Tags> {
    let bad = || Refusal::value(format!("Invalid resource name: {arn}"));
    let mut parts = arn.splitn(7, ':').skip(5);
    let (kind, name) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
    match kind {
        "cluster" => Ok(&mut state.cluster_mut(name)?.tags),
        "db" => Ok(&mut state.instance_mut(name)?.tags),
        "cluster-pg" => {
            state.cluster_groups.get_mut(name).map(|g| &mut g.tags).ok_or_else(|| Refusal::group_not_found(name))
        }
        "pg" => state.instance_groups.get_mut(name).map(|g| &mut g.tags).ok_or_else(|| Refusal::group_not_found(name)),
        "cluster-snapshot" => {
            state.snapshots.get_mut(name).map(|s| &mut s.tags).ok_or_else(|| Refusal::snapshot_not_found(name))
        }
        "cluster-endpoint" => {
            let found = state.custom_endpoints.values_mut().find(|endpoint| endpoint.identifier == name);
            found.map(|endpoint| &mut endpoint.tags).ok_or_else(bad)
        }
        "deployment" => Ok(&mut state.deployment_mut(name)?.tags),
        _ => Err(ABSENT
            .iter()
            .find(|(absent, _)| *absent == kind)
            .map_or_else(bad, |(_, code)| Refusal::new(code, 404, format!("{arn} not found.")))),
    }
}
