//! All clusters and upgrades, and all agents, as sections of HTML. Pure: from views to text.

use std::collections::BTreeSet;

use askama::Template;

use super::filters;
use super::one::Section;
use crate::operator::view::{Brief, ClusterAgents};

/// Both sections.
///
/// # Errors
/// When a template fails, which only a value that cannot be shown makes it.
pub(super) fn sections(upgrades: &[Brief], agents: &[ClusterAgents]) -> askama::Result<Vec<Section>> {
    let (active, ended): (Vec<&Brief>, Vec<&Brief>) = upgrades.iter().partition(|one| one.outcome.is_none());
    let known: BTreeSet<&str> = upgrades.iter().map(|one| one.cluster.as_str()).collect();
    let names = agents.iter().map(|one| name(&one.cluster));
    let idle = names.filter(|name| !known.contains(name)).collect();
    Ok(vec![("upgrades", Upgrades { active, ended, idle }.render()?), ("agents", Agents { agents }.render()?)])
}

/// One sentence for who cannot see the page.
pub(super) fn say(upgrades: &[Brief]) -> String {
    let active = upgrades.iter().filter(|one| one.outcome.is_none());
    let lines: Vec<String> = active.map(|one| format!("{}: {}, {}", one.cluster, one.phase, health(one).1)).collect();
    if lines.is_empty() { "no upgrade is under way".to_owned() } else { lines.join("; ") }
}

/// The cluster's name in its ARN.
fn name(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}

/// The class and the words.
fn health(brief: &Brief) -> (&'static str, &'static str) {
    match (brief.outcome.as_deref(), brief.health.as_str()) {
        (Some("succeeded"), _) => ("good", "succeeded"),
        (Some("unwound"), _) => ("bad", "unwound"),
        (Some("refused"), _) => ("bad", "refused"),
        (Some(_), _) => ("bad", "stopped"),
        (None, "ok") => ("good", "healthy"),
        (None, "attention") => ("warn", "needs attention"),
        (None, "person") => ("warn", "waits for a person"),
        (None, _) => ("bad", "cannot be driven"),
    }
}

#[derive(Template)]
#[template(path = "all/upgrades.html")]
struct Upgrades<'a> {
    active: Vec<&'a Brief>,
    ended: Vec<&'a Brief>,
    /// Clusters with agents that were never upgraded here.
    idle: Vec<&'a str>,
}

#[derive(Template)]
#[template(path = "all/agents.html")]
struct Agents<'a> {
    agents: &'a [ClusterAgents],
}
