//! Endpoints of clusters: `DescribeDBClusterEndpoints` and the custom ones, which a user makes, changes and deletes and which a
//! deployment copies to green. What their names lead to is in [`crate::cloud::naming`].

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{
    Cluster, CustomEndpoint, EndpointKind, Endpoints, InstanceId, State, Tags, cluster_endpoint_arn,
};
use crate::cloud::{Cloud, state_id};
use crate::settings;
use crate::wire::xml::Element;

/// Most custom endpoints of one cluster.
const QUOTA: usize = 5;

/// `DescribeDBClusterEndpoints`.
pub(crate) fn describe(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let state = cloud.state();
    let one = params.get("DBClusterIdentifier").map(|identifier| state.cluster(identifier)).transpose()?;
    let wanted: Vec<&Cluster> = match one {
        Some(cluster) => vec![cluster],
        None => state.clusters.values().collect(),
    };
    let filters = params.filters(&[
        "db-cluster-endpoint-type",
        "db-cluster-endpoint-custom-type",
        "db-cluster-endpoint-id",
        "db-cluster-endpoint-status",
    ])?;
    let asked = params.get("DBClusterEndpointIdentifier").map(str::to_lowercase);
    let fits = |kind: &str, custom: Option<&CustomEndpoint>| {
        let fit = filters.iter().all(|(name, values)| {
            let has = |one: &str| values.iter().any(|value| value.eq_ignore_ascii_case(one));
            match name.as_str() {
                "db-cluster-endpoint-type" => has(kind),
                "db-cluster-endpoint-status" => has(custom.map_or("available", |endpoint| endpoint.status)),
                "db-cluster-endpoint-custom-type" => custom.is_some_and(|endpoint| has(endpoint.kind.name())),
                _ => custom.is_some_and(|endpoint| has(&endpoint.identifier)),
            }
        });
        fit && asked.as_ref().is_none_or(|asked| custom.is_some_and(|endpoint| endpoint.identifier == *asked))
    };
    let mut all = Vec::new();
    for c in wanted {
        let zone = cloud.zone();
        let own = [("WRITER", zone.cluster(&c.identifier)), ("READER", zone.readers(&c.identifier))];
        for (kind, host) in own.into_iter().filter(|(kind, _)| c.endpoints != Endpoints::None && fits(kind, None)) {
            all.push(
                Element::new("DBClusterEndpointList")
                    .with("DBClusterIdentifier", &c.identifier)
                    .with("Endpoint", host)
                    .with("Status", "available")
                    .with("EndpointType", kind),
            );
        }
        let custom = state.endpoints_of(&c.id).filter(|endpoint| fits("CUSTOM", Some(endpoint)));
        all.extend(custom.map(|endpoint| element("DBClusterEndpointList", cloud, &state, endpoint)));
    }
    if let (Some(asked), true) = (&asked, all.is_empty()) {
        return Err(not_found(asked));
    }
    let (page, marker) = params.page(all, 100)?;
    Ok(Some(Element::new("").maybe("Marker", marker).list("DBClusterEndpoints", page)))
}

/// `CreateDBClusterEndpoint`.
pub(crate) fn create(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let (cluster, identifier) =
        (params.identifier("DBClusterIdentifier")?, params.identifier("DBClusterEndpointIdentifier")?);
    let kind = kind(params.require("EndpointType")?)?;
    let mut state = cloud.state();
    let found = state.cluster(&cluster)?;
    if found.status != "available" {
        return Err(Refusal::cluster_state(format!("DB cluster {cluster} is not in available state")));
    }
    if state.custom_endpoints.values().any(|endpoint| endpoint.identifier == identifier) {
        let text = format!("DB cluster endpoint already exists: {identifier}");
        return Err(Refusal::new("DBClusterEndpointAlreadyExistsFault", 400, text));
    }
    if state.endpoints_of(&found.id).count() >= QUOTA {
        let text = format!("A DB cluster can have at most {QUOTA} custom endpoints.");
        return Err(Refusal::new("DBClusterEndpointQuotaExceededFault", 403, text));
    }
    let [static_members, excluded] = members(&state, found, params)?.map(Option::unwrap_or_default);
    let endpoint = CustomEndpoint {
        id: new_id(),
        identifier,
        cluster: found.id.clone(),
        kind,
        static_members,
        excluded,
        status: "creating",
        tags: params.tags(),
    };
    let answer = fields(Element::new(""), cloud, &state, &endpoint);
    let id = endpoint.id.clone();
    state.custom_endpoints.insert(id.clone(), endpoint);
    drop(state);
    settle(cloud, id, Some("available"));
    Ok(Some(answer))
}

/// `ModifyDBClusterEndpoint`.
pub(crate) fn modify(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBClusterEndpointIdentifier")?;
    let mut state = cloud.state();
    let id = available(&state, &identifier)?;
    let of = state.custom_endpoints.get(&id).map(|endpoint| endpoint.cluster.clone()).unwrap_or_default();
    let cluster = state.clusters.get(&of).ok_or_else(|| Refusal::cluster_not_found(&of))?;
    let [static_members, excluded] = members(&state, cluster, params)?;
    let kind = params.get("EndpointType").map(kind).transpose()?;
    let endpoint = state.custom_endpoints.get_mut(&id).ok_or_else(|| not_found(&identifier))?;
    // One list replaces the other: an endpoint has members or exceptions.
    match (static_members, excluded) {
        (Some(members), _) => (endpoint.static_members, endpoint.excluded) = (members, Vec::new()),
        (None, Some(excluded)) => (endpoint.static_members, endpoint.excluded) = (Vec::new(), excluded),
        (None, None) => {}
    }
    endpoint.kind = kind.unwrap_or(endpoint.kind);
    endpoint.status = "modifying";
    let endpoint = endpoint.clone();
    let answer = fields(Element::new(""), cloud, &state, &endpoint);
    drop(state);
    settle(cloud, id, Some("available"));
    Ok(Some(answer))
}

/// `DeleteDBClusterEndpoint`.
pub(crate) fn delete(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let identifier = params.identifier("DBClusterEndpointIdentifier")?;
    let mut state = cloud.state();
    let id = available(&state, &identifier)?;
    let endpoint = state.custom_endpoints.get_mut(&id).ok_or_else(|| not_found(&identifier))?;
    endpoint.status = "deleting";
    let endpoint = endpoint.clone();
    let answer = fields(Element::new(""), cloud, &state, &endpoint);
    drop(state);
    settle(cloud, id, None);
    Ok(Some(answer))
}

/// What a new cluster is made with.
pub(crate) fn enter(state: &mut State, cluster: &str, wanted: &[settings::CustomEndpoint]) -> anyhow::Result<()> {
    for endpoint in wanted {
        let ids = |names: &[String]| -> anyhow::Result<Vec<InstanceId>> {
            let ids = names.iter().map(|name| state.instance(name).map(|found| found.id.clone()));
            Ok(ids.collect::<Answer<Vec<_>>>()?)
        };
        let made = CustomEndpoint {
            id: new_id(),
            identifier: endpoint.identifier.to_lowercase(),
            cluster: cluster.to_owned(),
            kind: if endpoint.readers_only { EndpointKind::Reader } else { EndpointKind::Any },
            static_members: ids(&endpoint.static_members)?,
            excluded: ids(&endpoint.excluded_members)?,
            status: "available",
            tags: Tags::new(),
        };
        state.custom_endpoints.insert(made.id.clone(), made);
    }
    Ok(())
}

/// The copy of blue's endpoint that green gets: its members' twins, by place. Gives its resource id and ARN.
pub(crate) fn copy(state: &mut State, id: &str, green: &str) -> Option<(String, String)> {
    let original = state.custom_endpoints.get(id)?.clone();
    let members = |cluster: &str| -> Vec<InstanceId> {
        state.clusters.get(cluster).map(|c| c.members().cloned().collect()).unwrap_or_default()
    };
    let (of_blue, of_green) = (members(&original.cluster), members(green));
    let twins = |ids: &[InstanceId]| -> Vec<InstanceId> {
        let place = |id: &InstanceId| of_blue.iter().position(|member| member == id);
        ids.iter().filter_map(|id| of_green.get(place(id)?).cloned()).collect()
    };
    let copy = CustomEndpoint {
        id: new_id(),
        identifier: format!("{}-green-{}", original.identifier, state_id("", 6)),
        cluster: green.to_owned(),
        static_members: twins(&original.static_members),
        excluded: twins(&original.excluded),
        ..original
    };
    let made = (copy.id.clone(), copy.arn());
    state.custom_endpoints.insert(copy.id.clone(), copy);
    Some(made)
}

/// After the delay of a change: the status that it ends in, or the end of the endpoint.
fn settle(cloud: &Cloud, id: String, status: Option<&'static str>) {
    let task = cloud.clone();
    cloud.spawn(async move {
        task.clock().sleep(task.settings().timings.modify).await;
        match status {
            None => drop(task.state().custom_endpoints.remove(&id)),
            Some(status) => {
                if let Some(endpoint) = task.state().custom_endpoints.get_mut(&id) {
                    endpoint.status = status;
                }
            }
        }
        task.publish();
    });
    // A changed list of members is in force at once; an endpoint that goes or comes is not there meanwhile.
    cloud.publish();
}

fn available(state: &State, identifier: &str) -> Answer<String> {
    let found = state.custom_endpoints.values().find(|endpoint| endpoint.identifier == identifier);
    let found = found.ok_or_else(|| not_found(identifier))?;
    let cluster = state.clusters.get(&found.cluster);
    if let Some(cluster) = cluster.filter(|cluster| cluster.status != "available") {
        let text = format!("DB cluster {} is not in available state", cluster.identifier);
        return Err(Refusal::cluster_state(text));
    }
    if found.status == "available" {
        return Ok(found.id.clone());
    }
    let text = format!("DB cluster endpoint {identifier} is not in available state");
    Err(Refusal::endpoint_state(text))
}

fn not_found(identifier: &str) -> Refusal {
    Refusal::new("DBClusterEndpointNotFoundFault", 400, format!("DB cluster endpoint not found: {identifier}"))
}

fn kind(text: &str) -> Answer<EndpointKind> {
    match text.to_ascii_uppercase().as_str() {
        "READER" => Ok(EndpointKind::Reader),
        "ANY" => Ok(EndpointKind::Any),
        _ => Err(Refusal::value(format!("Invalid custom endpoint type {text}. Valid types: READER, ANY."))),
    }
}

/// The two lists of members, each `None` when it was not given.
fn members(state: &State, cluster: &Cluster, params: &Params) -> Answer<[Option<Vec<InstanceId>>; 2]> {
    let list = |name: &str| -> Answer<Option<Vec<InstanceId>>> {
        let names = params.values(name, "member");
        let mut ids = Vec::new();
        for name in &names {
            let instance = state.instance(name)?;
            if instance.cluster != cluster.id {
                let text = format!("DB instance {name} is not a member of DB cluster {}", cluster.identifier);
                return Err(Refusal::instance_state(text));
            }
            if instance.status != "available" {
                return Err(Refusal::instance_state(format!("DB instance {name} is not in available state")));
            }
            ids.push(instance.id.clone());
        }
        Ok((!names.is_empty()).then_some(ids))
    };
    let lists = [list("StaticMembers")?, list("ExcludedMembers")?];
    if lists.iter().all(Option::is_some) {
        return Err(Refusal::combination("StaticMembers and ExcludedMembers cannot be specified together."));
    }
    Ok(lists)
}

fn new_id() -> String {
    format!("cluster-endpoint-{}", state_id("", 26).to_uppercase())
}

fn element(name: &'static str, cloud: &Cloud, state: &State, endpoint: &CustomEndpoint) -> Element {
    fields(Element::new(name), cloud, state, endpoint)
}

fn fields(element: Element, cloud: &Cloud, state: &State, endpoint: &CustomEndpoint) -> Element {
    let names = |ids: &[InstanceId]| -> Vec<Element> {
        let found = ids.iter().filter_map(|id| state.instances.get(id));
        found.map(|instance| Element::text("member", &instance.identifier)).collect()
    };
    element
        .with("DBClusterEndpointIdentifier", &endpoint.identifier)
        .maybe("DBClusterIdentifier", state.clusters.get(&endpoint.cluster).map(|c| &c.identifier))
        .with("DBClusterEndpointResourceIdentifier", &endpoint.id)
        .with("Endpoint", cloud.zone().custom(&endpoint.identifier))
        .with("Status", endpoint.status)
        .with("EndpointType", "CUSTOM")
        .with("CustomEndpointType", endpoint.kind.name())
        .list("StaticMembers", names(&endpoint.static_members))
        .list("ExcludedMembers", names(&endpoint.excluded))
        .with("DBClusterEndpointArn", cluster_endpoint_arn(&endpoint.identifier))
}
