//! What the account's names lead to: the endpoints of clusters and instances, from the state to the zone. Must not decide when
//! a name appears or moves; whoever changes the state says so by [`Endpoints`] and then calls [`Cloud::publish`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cloud::Cloud;
use crate::cloud::state::{Cluster, EndpointKind, Endpoints, State};
use crate::names::{Names, Zone};

impl Cloud {
    /// Brings the zone up to date with the account. Clients see it when their resolver does.
    pub(crate) fn publish(&self) {
        // Under the lock: of two that publish, the later one knows more.
        let state = self.state();
        let clusters = state.clusters.values().map(|cluster| {
            let names = match cluster.endpoints {
                Endpoints::None => Some(Names::new()),
                Endpoints::Published => Some(names(self.zone(), &state, cluster)),
                Endpoints::Lagging => None,
            };
            (cluster.id.clone(), names)
        });
        let leaving = state.deployments.values().map(|d| (d.identifier.clone(), Some(d.leaving.clone())));
        self.zone().publish(clusters.chain(leaving).collect::<BTreeMap<_, _>>());
        self.certify(&state);
    }

    /// Lets the names of these clusters follow the account, all at the same moment.
    pub(crate) fn publish_lagging(&self, clusters: &[&str]) {
        for id in clusters {
            if let Some(cluster) = self.state().clusters.get_mut(*id).filter(|c| c.endpoints == Endpoints::Lagging) {
                cluster.endpoints = Endpoints::Published;
            }
        }
        self.publish();
    }
}

/// What the names of a cluster lead to by its present identifiers.
pub(crate) fn names(zone: &Zone, state: &State, cluster: &Cluster) -> Names {
    let address = |id: &String| -> Option<IpAddr> {
        let instance = state.instances.get(id)?;
        instance.server.as_ref().map(|_| instance.address)
    };
    let writer: Vec<IpAddr> = address(&cluster.writer).into_iter().collect();
    let readers: Vec<IpAddr> = cluster.readers.iter().filter_map(address).collect();
    let mut names = Names::new();
    for instance in cluster.members().filter_map(|id| state.instances.get(id)).filter(|i| i.server.is_some()) {
        names.insert(zone.instance(&instance.identifier), vec![instance.address]);
    }
    // A cluster without readers answers at its reader endpoint with the writer.
    names.insert(zone.readers(&cluster.identifier), if readers.is_empty() { writer.clone() } else { readers });
    for endpoint in
        state.endpoints_of(&cluster.id).filter(|endpoint| matches!(endpoint.status, "available" | "modifying"))
    {
        let wanted = |id: &&String| match endpoint.static_members.as_slice() {
            [] => !endpoint.excluded.contains(*id),
            members => members.contains(*id),
        };
        let reads = |id: &&String| endpoint.kind == EndpointKind::Any || **id != cluster.writer;
        let members = cluster.members().filter(wanted).filter(reads).filter_map(address);
        names.insert(zone.custom(&endpoint.identifier), members.collect());
    }
    names.insert(zone.cluster(&cluster.identifier), writer);
    names
}
