//! A new cluster: addresses, real servers, roles, databases, names, and its place in the account.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;

use crate::cloud::network::Network;
use crate::cloud::parameters::{after_restart, merged};
use crate::cloud::state::{Cluster, Endpoints, Group, Instance, Replication, Tags, UserValue, family};
use crate::cloud::{Cloud, catalogue, endpoints, state_id};
use crate::fleet::{Node, Server};
use crate::mechanics::{Side, replica};
use crate::roles;
use crate::settings::{AGENT_PASSWORD, AGENT_USER, ClusterSettings, MASTER_PASSWORD, MASTER_USER};
use crate::status::{Identity, life};
use crate::{ClusterHandle, LabError};

/// Makes a cluster and returns when it serves.
pub(crate) async fn cluster(cloud: &Cloud, settings: ClusterSettings) -> Result<ClusterHandle, LabError> {
    let identifier = settings.identifier.to_lowercase();
    make(cloud, settings).await.map_err(|source| LabError::Cluster {
        identifier,
        doing: "starting its servers".into(),
        source,
    })
}

async fn make(cloud: &Cloud, settings: ClusterSettings) -> anyhow::Result<ClusterHandle> {
    let identifier = settings.identifier.to_lowercase();
    anyhow::ensure!(cloud.state().cluster(&identifier).is_err(), "the identifier is taken");
    let version =
        catalogue::version(settings.major).with_context(|| format!("there is no major {}", settings.major))?;
    let fleet = cloud.fleet(&[settings.major]).await?;
    let network = Arc::new(Network::find().await?);
    let (cluster_group, instance_group) = groups(cloud, &settings, &identifier)?;
    let applied = {
        let state = cloud.state();
        after_restart(&merged(
            [state.cluster_group(&cluster_group)?, state.instance_group(&instance_group)?].into_iter(),
        ))
    };
    let names: Vec<String> = (1..=settings.readers + 1).map(|n| format!("{identifier}-{n}")).collect();
    let topology: Vec<(String, bool)> = names.iter().enumerate().map(|(n, name)| (name.clone(), n == 0)).collect();
    let mut nodes = Vec::new();
    for name in &names {
        nodes.push(Node {
            smallest: settings.smallest,
            name: format!("{name}-{}", state_id("", 6)),
            address: network.address()?,
            port: network.port,
            parameters: applied.clone(),
            identity: Identity {
                instance: name.clone(),
                topology: topology.clone(),
                flavour: settings.flavour,
                ..Identity::default()
            },
        });
    }
    let mut nodes = nodes.into_iter();
    let first = nodes.next().context("no writer")?;
    let writer = fleet.create(first, settings.major).await.context("making the writer")?;
    writer.start().await.context("starting the writer")?;
    roles::establish(&writer).await.context("making the roles")?;
    for database in &settings.databases {
        roles::create_database(&writer, database).await.with_context(|| format!("making database {database}"))?;
    }
    let mut readers = Vec::new();
    for node in nodes {
        readers.push(replica::follow(&fleet, &writer, node, cloud.stopping()).await.context("making a reader")?);
    }
    let side = Side { writer, readers };
    let made = Made { identifier, version, cluster_group, instance_group, applied, names, network, side };
    let handle = made.handle(cloud, &settings);
    let id = made.enter(cloud, &settings)?;
    cloud.publish();
    life::tell(cloud, &[&id]);
    Ok(handle)
}

/// A cluster whose servers run and that is not in the account yet.
struct Made {
    identifier: String,
    version: &'static str,
    cluster_group: String,
    instance_group: String,
    applied: BTreeMap<String, String>,
    names: Vec<String>,
    network: Arc<Network>,
    side: Side,
}

impl Made {
    fn handle(&self, cloud: &Cloud, settings: &ClusterSettings) -> ClusterHandle {
        let members = self.names.iter().cloned().zip(self.side.members().iter().map(|server| server.ip())).collect();
        ClusterHandle {
            identifier: self.identifier.clone(),
            arn: crate::cloud::state::cluster_arn(&self.identifier),
            endpoint: cloud.zone().cluster(&self.identifier),
            reader_endpoint: cloud.zone().readers(&self.identifier),
            port: self.network.port,
            members,
            master: (MASTER_USER.to_owned(), MASTER_PASSWORD.to_owned()),
            agent: (AGENT_USER.to_owned(), AGENT_PASSWORD.to_owned()),
            databases: settings.databases.clone(),
            names: cloud.resolver().clone(),
        }
    }

    fn enter(self, cloud: &Cloud, settings: &ClusterSettings) -> anyhow::Result<String> {
        let now = cloud.clock().now();
        let id = cluster_id();
        let tags: Tags = settings.tags.iter().cloned().collect();
        let mut members = Vec::new();
        let mut state = cloud.state();
        for (tier, (name, server)) in self.names.iter().zip(self.side.members()).enumerate() {
            let mut instance = instance(name, &id, self.version, &server);
            instance.class.clone_from(&settings.instance_class);
            instance.group.clone_from(&self.instance_group);
            instance.applied.clone_from(&self.applied);
            instance.tags.clone_from(&tags);
            instance.tier = u32::try_from(tier).unwrap_or(15).min(15);
            instance.created = now;
            members.push(instance.id.clone());
            state.instances.insert(instance.id.clone(), instance);
        }
        let mut members = members.into_iter();
        let cluster = Cluster {
            id: id.clone(),
            identifier: self.identifier.clone(),
            version: self.version.to_owned(),
            flavour: settings.flavour,
            status: "available".to_owned(),
            group: self.cluster_group,
            writer: members.next().unwrap_or_default(),
            readers: members.collect(),
            network: self.network,
            endpoints: Endpoints::Published,
            smallest: settings.smallest,
            deletion_protection: settings.deletion_protection,
            created: now,
            tags,
            source: None,
            clone_group: uuid::Uuid::now_v7().to_string(),
            storage: None,
        };
        state.cluster_event(now, &self.identifier, "creation", "DB cluster created");
        state.clusters.insert(id.clone(), cluster);
        endpoints::enter(&mut state, &id, &settings.custom_endpoints)?;
        Ok(id)
    }
}

/// An instance over a running server.
pub(crate) fn instance(name: &str, cluster: &str, version: &str, server: &Arc<Server>) -> Instance {
    Instance {
        id: format!("db-{}", state_id("", 26).to_uppercase()),
        identifier: name.to_owned(),
        class: "db.r6g.large".to_owned(),
        status: "available".to_owned(),
        cluster: cluster.to_owned(),
        address: server.ip(),
        port: server.address().port(),
        version: version.to_owned(),
        cluster_group_status: "in-sync".to_owned(),
        group: String::new(),
        group_status: "in-sync".to_owned(),
        applied: BTreeMap::new(),
        server: Some(Arc::clone(server)),
        replication: Replication::None,
        created: jiff::Timestamp::UNIX_EPOCH,
        tags: Tags::new(),
        tier: 0,
        busy: Arc::default(),
        logs: None,
    }
}

pub(crate) fn cluster_id() -> String {
    format!("cluster-{}", state_id("", 26).to_uppercase())
}

/// The parameter groups of a new cluster: its own where something is set, else the family's default.
fn groups(cloud: &Cloud, settings: &ClusterSettings, identifier: &str) -> anyhow::Result<(String, String)> {
    let family = family(settings.major);
    let mut of_instance = settings.instance_parameters.clone();
    if !settings.preload.is_empty() {
        of_instance.push(("shared_preload_libraries".to_owned(), settings.preload.join(",")));
    }
    let mut state = cloud.state();
    let mut names = Vec::new();
    for (kind, values) in [("cluster", &settings.cluster_parameters), ("instance", &of_instance)] {
        if values.is_empty() {
            names.push(format!("default.{family}"));
            continue;
        }
        let name = format!("{identifier}-{kind}-group");
        let group = custom(&name, &family, values)?;
        let groups = if kind == "cluster" { &mut state.cluster_groups } else { &mut state.instance_groups };
        groups.insert(name.clone(), group);
        names.push(name);
    }
    let instance = names.pop().unwrap_or_default();
    Ok((names.pop().unwrap_or_default(), instance))
}

fn custom(name: &str, family: &str, values: &[(String, String)]) -> anyhow::Result<Group> {
    let definitions = catalogue::family(family).context("no such family")?;
    let mut user = BTreeMap::new();
    for (parameter, value) in values {
        let definition =
            definitions.get(parameter).with_context(|| format!("there is no parameter {parameter} in {family}"))?;
        if let Some(why) = definition.refuses(value) {
            anyhow::bail!(why);
        }
        user.insert(parameter.clone(), UserValue { value: value.clone(), at_reboot: definition.is_static });
    }
    Ok(Group {
        name: name.to_owned(),
        family: family.to_owned(),
        description: "Made with the cluster".to_owned(),
        tags: Tags::new(),
        user,
    })
}
