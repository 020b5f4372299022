//! Every precondition of an upgrade, read-only: what AWS says and what the lead agent sees, gathered here and judged by
//! the pure function in `judge.rs`. Run before anything is touched, and again right before the deployment is made.

mod extensions;
mod judge;
mod leftovers;
mod parameters;
#[cfg(test)]
mod tests;

use engine::Failure;
use engine::ids::Code;
use jiff::Timestamp;
use proto::jobs::Inspection;
use proto::side::{Endpoint, SideIdentity};
use serde::{Deserialize, Serialize};

pub use judge::judge;
pub use leftovers::{Leftover, leftovers};
pub use parameters::{Carried, Lost, carried_over};

use crate::{
    rds::{
        self, Class, Cluster, Deployment, Error, GlobalCluster, GroupScope, Instance, Integration, MaintenanceAction,
        Parameter, ParameterGroup, ParameterSource, Proxy, Rds, Version,
    },
    spec::UpgradeSpec,
    steps::codes,
    topology,
};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The upgrade cannot begin.
    Blocker,
    /// It begins only when the spec's `accept` names the code.
    Acceptable,
    Warning,
    Note,
}

/// One thing that preflight found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub code: Code,
    pub what: String,
    pub cure: String,
}

impl Finding {
    /// On one line, with its cure.
    pub fn line(&self) -> String {
        format!("{} {}: {}; {}", self.code, self.weight(), self.what, self.cure)
    }

    /// How much it weighs, in words.
    pub fn weight(&self) -> &'static str {
        match self.severity {
            Severity::Blocker => "blocker",
            Severity::Acceptable => "to accept",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// What AWS says of the cluster and of what stands around it.
#[derive(Debug, Clone)]
pub struct Facts {
    pub now: Timestamp,
    /// The upgrade on whose behalf this was read; a deployment of its own is no finding. `None` before there is one.
    pub run: Option<String>,
    pub cluster: Cluster,
    pub instances: Vec<Instance>,
    pub target: Result<Target, NoTarget>,
    /// Instance classes of the cluster that AWS does not offer for the target version.
    pub classes_not_offered: Vec<String>,
    pub deployments: Vec<Deployment>,
    pub maintenance: Vec<MaintenanceAction>,
    pub global: Vec<GlobalCluster>,
    pub integrations: Vec<Integration>,
    pub proxies: Vec<Proxy>,
    pub groups: Groups,
}

/// The parameter groups in use, with what the user set in them and what the target family can hold.
#[derive(Debug, Clone)]
pub struct Groups {
    pub cluster: ParameterGroup,
    pub cluster_user: Vec<Parameter>,
    pub cluster_target: Vec<Parameter>,
    pub instance: ParameterGroup,
    pub instance_user: Vec<Parameter>,
    pub instance_target: Vec<Parameter>,
}

/// Where the upgrade goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub version: Version,
    pub family: crate::rds::Family,
}

/// Why the wished version cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTarget {
    /// Lower than, or equal to, what runs.
    NotHigher { running: Version },
    /// AWS has no such path; these it has.
    NoPath { reachable: Vec<Version> },
}

/// The whole of a preflight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    pub cluster: String,
    pub from_version: String,
    pub to_version: Option<String>,
    pub findings: Vec<Finding>,
}

impl Preflight {
    /// What keeps the upgrade from beginning.
    pub fn blocking<'a>(&'a self, spec: &'a UpgradeSpec) -> impl Iterator<Item = &'a Finding> {
        self.findings.iter().filter(|finding| match finding.severity {
            Severity::Blocker => true,
            Severity::Acceptable => !spec.accept.iter().any(|code| code == finding.code.as_str()),
            Severity::Warning | Severity::Note => false,
        })
    }
}

/// Finds the cluster that a spec names.
///
/// # Errors
/// `PU0011` when there is none; what the API says otherwise.
pub async fn find_cluster(rds: &dyn Rds, spec: &UpgradeSpec) -> Result<Cluster, Failure> {
    let doing = || format!("finding cluster {}", spec.cluster);
    let answer = match spec.cluster.parse() {
        Ok(arn) => rds.cluster_by_arn(&arn).await,
        Err(_) => rds.cluster(&spec.cluster.as_str().into()).await,
    };
    answer.map_err(|error| match error.class {
        Class::NotFound => Failure::permanent(codes::CLUSTER_UNKNOWN, doing())
            .because(error)
            .because("name a cluster of this account and region, by identifier or ARN"),
        _ => failed(doing(), error),
    })
}

/// Asks AWS for everything that `judge` needs.
///
/// # Errors
/// What the API says; a call that is not allowed names its IAM action.
pub async fn gather(rds: &dyn Rds, spec: &UpgradeSpec, now: Timestamp) -> Result<Facts, Failure> {
    let cluster = find_cluster(rds, spec).await?;
    let doing = |what: &str| format!("reading {what} of {}", cluster.id);
    let instances = rds.instances(&cluster.id).await.map_err(|e| failed(doing("the instances"), e))?;
    let target = resolve_target(rds, &cluster, spec).await?;
    let classes_not_offered = match &target {
        Ok(target) => classes_not_offered(rds, &cluster, &instances, target).await?,
        Err(_) => Vec::new(),
    };
    let groups = groups(rds, &cluster, &instances, target.as_ref().ok()).await?;
    Ok(Facts {
        now,
        run: None,
        deployments: rds.deployments().await.map_err(|e| failed(doing("the deployments"), e))?,
        maintenance: rds.pending_maintenance().await.map_err(|e| failed(doing("the pending maintenance"), e))?,
        global: rds.global_clusters().await.map_err(|e| failed(doing("the global clusters"), e))?,
        integrations: rds.integrations().await.map_err(|e| failed(doing("the zero-ETL integrations"), e))?,
        proxies: rds.proxies().await.map_err(|e| failed(doing("the proxies"), e))?,
        cluster,
        instances,
        target,
        classes_not_offered,
        groups,
    })
}

/// The version to go to: the newest of the wished major, or exactly the one named.
async fn resolve_target(
    rds: &dyn Rds,
    cluster: &Cluster,
    spec: &UpgradeSpec,
) -> Result<Result<Target, NoTarget>, Failure> {
    let doing = || format!("reading what {} {} can be upgraded to", cluster.engine, cluster.engine_version);
    let wished = Version::new(&spec.to);
    let major_only = !spec.to.contains('.');
    let running = &cluster.engine_version;
    if wished.major() <= running.major() {
        return Ok(Err(NoTarget::NotHigher { running: running.clone() }));
    }
    let versions = rds.engine_versions(&cluster.engine, Some(running)).await.map_err(|error| failed(doing(), error))?;
    let mut reachable: Vec<Version> =
        versions.iter().flat_map(|v| &v.upgrade_targets).filter(|t| t.is_major).map(|t| t.version.clone()).collect();
    reachable.sort_by_key(Version::numbers);
    let fits = |version: &&Version| if major_only { version.major() == wished.major() } else { **version == wished };
    let Some(version) = reachable.iter().rev().find(fits).cloned() else {
        return Ok(Err(NoTarget::NoPath { reachable }));
    };
    let described =
        rds.engine_versions(&cluster.engine, Some(&version)).await.map_err(|error| failed(doing(), error))?;
    match described.into_iter().find(|described| described.version == version) {
        Some(described) => Ok(Ok(Target { version, family: described.family })),
        None => Ok(Err(NoTarget::NoPath { reachable })),
    }
}

async fn classes_not_offered(
    rds: &dyn Rds,
    cluster: &Cluster,
    instances: &[Instance],
    target: &Target,
) -> Result<Vec<String>, Failure> {
    let mut missing = Vec::new();
    let mut classes: Vec<&str> = instances.iter().map(|instance| instance.class.as_str()).collect();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        let offered = rds
            .orderable_options(&cluster.engine, &target.version, Some(class))
            .await
            .map_err(|error| failed(format!("asking whether {class} is offered for {}", target.version), error))?;
        if offered.is_empty() {
            missing.push(class.to_owned());
        }
    }
    Ok(missing)
}

async fn groups(
    rds: &dyn Rds,
    cluster: &Cluster,
    instances: &[Instance],
    target: Option<&Target>,
) -> Result<Groups, Failure> {
    let failing = |error: Error| failed(format!("reading the parameter groups of {}", cluster.id), error);
    let writer = cluster.writer().and_then(|writer| instances.iter().find(|i| i.id == writer.instance));
    let Some(in_use) = writer.and_then(|writer| writer.parameter_groups.first()) else {
        return Err(Failure::transient(codes::AWS_INCOMPLETE, format!("reading the writer of {}", cluster.id))
            .because("AWS shows no writer, or a writer without a parameter group"));
    };
    let user = Some(ParameterSource::User);
    let read = async |scope, name| {
        let group = rds.parameter_group(scope, name).await.map_err(failing)?;
        let set = rds.parameters(scope, name, user.clone()).await.map_err(failing)?;
        let holds = match target {
            Some(target) => rds.default_parameters(scope, &target.family).await.map_err(failing)?,
            None => Vec::new(),
        };
        Ok::<_, Failure>((group, set, holds))
    };
    let (cluster_group, cluster_user, cluster_target) = read(GroupScope::Cluster, &cluster.parameter_group).await?;
    let (instance, instance_user, instance_target) = read(GroupScope::Instance, &in_use.name).await?;
    Ok(Groups { cluster: cluster_group, cluster_user, cluster_target, instance, instance_user, instance_target })
}

/// The side that serves now, as the agents are told it.
///
/// # Errors
/// When AWS leaves out what an identity needs.
pub fn blue_side(facts: &Facts) -> Result<(Endpoint, SideIdentity), Failure> {
    let incomplete = |error: topology::Incomplete| {
        Failure::transient(codes::AWS_INCOMPLETE, format!("naming the servers of {}", facts.cluster.id))
            .caused_by(&error)
    };
    let blue =
        topology::side_identity(proto::side::Side::Blue, &facts.cluster, &facts.instances).map_err(incomplete)?;
    Ok((topology::production(&facts.cluster).map_err(incomplete)?, blue))
}

/// Findings from what AWS and the lead agent said; `None` when no agent could be asked.
pub fn preflight(facts: &Facts, inspection: Option<&Inspection>, spec: &UpgradeSpec) -> Preflight {
    Preflight {
        cluster: facts.cluster.id.to_string(),
        from_version: facts.cluster.engine_version.to_string(),
        to_version: facts.target.as_ref().ok().map(|target| target.version.to_string()),
        findings: judge(facts, inspection, spec),
    }
}

/// An API failure as the engine's: the class was decided at the port.
pub fn failed(doing: impl std::fmt::Display, error: Error) -> Failure {
    let failure = match &error.class {
        Class::Throttled | Class::Transient => Failure::transient(codes::AWS_TRANSIENT, doing),
        Class::Unknown => Failure::unknown(codes::AWS_UNKNOWN, doing),
        Class::InvalidState => Failure::transient(codes::AWS_INVALID_STATE, doing),
        Class::AccessDenied { action } => {
            return Failure::permanent(codes::AWS_ACCESS_DENIED, doing)
                .because(format!("the coordinator's role may not do {action}; allow it"))
                .because(error);
        }
        Class::Permanent if error.code == rds::IDENTITY_CHANGED => Failure::permanent(codes::IDENTITY_CHANGED, doing),
        Class::NotFound | Class::AlreadyExists | Class::Permanent => Failure::permanent(codes::AWS_REFUSED, doing),
    };
    failure.because(error)
}
