//! Who is who, from what AWS describes: the sides of a pair as the agents are told them. Pure.

use proto::side::{Endpoint, Member, Side, SideIdentity};

use crate::rds::{Cluster, Instance};

/// Why a side cannot be named yet; the text says what AWS left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("AWS does not tell {what} of {of}")]
pub struct Incomplete {
    pub what: &'static str,
    pub of: String,
}

/// The identity of a side: its cluster's resource id, version and every member with the address it is reached at.
///
/// # Errors
/// When AWS has not told an endpoint, a version or a writer.
pub fn side_identity(side: Side, cluster: &Cluster, instances: &[Instance]) -> Result<SideIdentity, Incomplete> {
    let missing = |what, of: &str| Incomplete { what, of: of.to_owned() };
    let major = cluster.engine_version.major().ok_or_else(|| missing("a version", cluster.id.as_str()))?;
    let mut members = Vec::with_capacity(cluster.members.len());
    for member in &cluster.members {
        let id = &member.instance;
        let instance = instances.iter().find(|i| i.id == *id).ok_or_else(|| missing("the instance", id.as_str()))?;
        let endpoint = instance.endpoint.as_ref().ok_or_else(|| missing("the endpoint", id.as_str()))?;
        members.push(Member {
            resource_id: instance.resource_id.to_string(),
            instance: id.to_string(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            writer: member.is_writer,
        });
    }
    let identity = SideIdentity { side, cluster_resource_id: cluster.resource_id.to_string(), major, members };
    match identity.writer() {
        Some(_) => Ok(identity),
        None => Err(missing("a writer", cluster.id.as_str())),
    }
}

/// A recorded side under the names that its servers have now, found by their resource ids, which never change. Servers that are
/// not described, or without an address yet, keep the names that were recorded.
pub fn renamed(recorded: &SideIdentity, instances: &[Instance]) -> SideIdentity {
    let member = |member: &Member| {
        let described = instances.iter().find(|instance| instance.resource_id.as_str() == member.resource_id);
        match described.and_then(|instance| Some((instance, instance.endpoint.as_ref()?))) {
            Some((instance, now)) => {
                Member { instance: instance.id.to_string(), host: now.host.clone(), port: now.port, ..member.clone() }
            }
            None => member.clone(),
        }
    };
    SideIdentity { members: recorded.members.iter().map(member).collect(), ..recorded.clone() }
}

/// The name that applications use.
///
/// # Errors
/// When AWS has not told the cluster's endpoint.
pub fn production(cluster: &Cluster) -> Result<Endpoint, Incomplete> {
    let endpoint = cluster
        .writer_endpoint()
        .ok_or_else(|| Incomplete { what: "the writer endpoint", of: cluster.id.to_string() })?;
    Ok(Endpoint { host: endpoint.host, port: endpoint.port })
}
