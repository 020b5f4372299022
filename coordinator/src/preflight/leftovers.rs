//! Deployments that other upgrades of this program left on a cluster: told from those of strangers by their tag and by the name
//! that is derived from it, and described well enough to be deleted on purpose. Decides nothing.

use serde::{Deserialize, Serialize};

use super::Facts;
use crate::rds::{Deployment, DeploymentId, DeploymentName, DeploymentStatus, Names, Owner};

/// A deployment that an earlier upgrade of this program made and did not delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    pub deployment: DeploymentId,
    pub name: DeploymentName,
    /// The upgrade that made it.
    pub upgrade: String,
    pub status: DeploymentStatus,
}

impl Leftover {
    /// What deleting it takes away, in words.
    pub fn deletes(&self) -> String {
        let Leftover { name, deployment, upgrade, status } = self;
        let what = match status {
            DeploymentStatus::SwitchoverCompleted => "only the object; the clusters stay",
            _ => "with its green cluster",
        };
        format!("deployment {name} ({deployment}) of upgrade {upgrade}, {what}")
    }
}

/// Whose a deployment on this cluster is.
pub(super) enum Whose {
    Ours,
    Left(Leftover),
    Foreign,
}

/// Deployments that have this cluster as their source, or that moved its name here and were never deleted.
pub(super) fn concerning(facts: &Facts) -> impl Iterator<Item = (&Deployment, Whose)> {
    let this = facts.cluster.arn.resource();
    let concerns = move |d: &&Deployment| d.source == *this || d.target.as_ref() == Some(this);
    facts.deployments.iter().filter(concerns).map(|deployment| (deployment, whose(deployment, facts.run.as_deref())))
}

fn whose(deployment: &Deployment, run: Option<&str>) -> Whose {
    match Names::of(run.unwrap_or_default()).owner(&deployment.tags) {
        Owner::Ours => Whose::Ours,
        Owner::OtherRun(upgrade) if Names::of(&upgrade).made(&deployment.name) => Whose::Left(Leftover {
            deployment: deployment.id.clone(),
            name: deployment.name.clone(),
            upgrade,
            status: deployment.status.clone(),
        }),
        Owner::OtherRun(_) | Owner::Foreign => Whose::Foreign,
    }
}

/// What earlier upgrades left on this cluster.
pub fn leftovers(facts: &Facts) -> Vec<Leftover> {
    let left = concerning(facts).filter_map(|(_, whose)| match whose {
        Whose::Left(leftover) => Some(leftover),
        Whose::Ours | Whose::Foreign => None,
    });
    left.collect()
}
