//! What must hold after an upgrade, whatever was killed in it, seen from outside: the journal, AWS's log, both sides' catalogues,
//! the clients' ledgers.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use coordinator::store::PostgresStore;
use coordinator::world::Upgrade;
use engine::RunId;
use engine::journal::fold;
use lab::Outcome;
use runtime::clock::Clock;
use runtime::supervision::chain;
use tests::stage::facts::Facts;
use tests::stage::pilot::Said;
use tests::stage::world::World;
use tests::stage::{CLUSTER, Stage};

use crate::e2e::unwind::unwound;

/// Nobody is held longer.
pub(super) const HOLD_SECONDS_MAX: u32 = 45;

/// How an upgrade may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Complete or as before: a killed agent costs attempts.
    Either,
    /// As before.
    Unwound,
}

/// What may be asked for in the same words once only.
const ONCE: [&str; 10] = [
    "CreateBlueGreenDeployment",
    "CreateDBClusterSnapshot",
    "CopyDBClusterParameterGroup",
    "CreateDBClusterParameterGroup",
    "CreateDBParameterGroup",
    "DeleteBlueGreenDeployment",
    "DeleteDBCluster",
    "DeleteDBClusterParameterGroup",
    "DeleteDBInstance",
    "DeleteDBParameterGroup",
];
/// What must be the same in a database after an upgrade that is complete.
const LASTING: [&str; 9] = [
    "schema ",
    "relation ",
    "trigger ",
    "event trigger ",
    "publication ",
    "subscription ",
    "slot ",
    "prepared ",
    "setting of ",
];

/// Judges; whether it was unwound.
pub(super) async fn all(stage: &Stage, id: &str, said: &Said, before: &World, may: Ends) -> anyhow::Result<bool> {
    let facts = stage.history(id).await?;
    let story = || facts.story();
    journal(stage, id, &facts).await.with_context(story)?;
    calls(stage, &facts).with_context(story)?;
    let status = stage.status(id).await?;
    let back = status["outcome"] == "unwound";
    ensure!(back || status["outcome"] == "succeeded", "{status}\n{}", story());
    ensure!(back || may == Ends::Either, "{status}\n{}", story());
    said.expect(i32::from(back), &[if back { "unwound" } else { "succeeded" }]).with_context(story)?;
    if back {
        unwound(stage, id, before, &[]).await?;
    } else {
        complete(stage, &facts, before).await.with_context(story)?;
    }
    held(stage, &facts).with_context(story)?;
    stage.ingestion_runs().await?;
    Ok(back)
}

/// The engine reads it to its end: sums, places, order. Nobody who was deposed has appended.
async fn journal(stage: &Stage, id: &str, facts: &Facts) -> anyhow::Result<()> {
    let store = PostgresStore::open(stage.store_place()?, Clock::system()).await;
    let store = store.map_err(|error| anyhow::anyhow!(chain(&error)))?;
    let state = fold::<Upgrade>(&store, &RunId::from(id)).await.map_err(|error| anyhow::anyhow!(chain(&error)))?;
    ensure!(state.outcome().is_some(), "the journal has no end");
    let epochs: Vec<u64> = facts.0.iter().filter_map(|fact| fact["epoch"].as_u64()).collect();
    ensure!(epochs.is_sorted(), "a deposed coordinator appended");
    let observed =
        facts.of_kind("observed", None).map(|seen| format!("{} {}", seen["fact"]["source"], seen["fact"]["n"]));
    let mut observed: Vec<String> = observed.collect();
    let all = observed.len();
    observed.sort();
    observed.dedup();
    ensure!(observed.len() == all, "an event of an agent is there twice");
    Ok(())
}

/// Each changing call at most once where its words name what it is about, and the one call at most once for each arming.
fn calls(stage: &Stage, facts: &Facts) -> anyhow::Result<()> {
    let requests = stage.lab.requests();
    let mut done: BTreeMap<String, usize> = BTreeMap::new();
    for call in requests.iter().filter(|call| !matches!(call.outcome, Outcome::Refused { .. })) {
        if ONCE.contains(&call.action.as_str()) {
            *done.entry(format!("{} {:?}", call.action, call.parameters)).or_default() += 1;
        }
    }
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "asked of AWS more than once: {twice:#?}");
    let begun = facts.0.first().and_then(|fact| fact["at"].as_str()?.parse::<jiff::Timestamp>().ok());
    let begun = begun.context("the first fact has no time")?;
    let switched =
        requests.iter().filter(|call| call.action == "SwitchoverBlueGreenDeployment" && call.at >= begun).count();
    let armed = facts.count("pivot_armed");
    ensure!(switched <= armed, "armed {armed} times, and AWS was asked to switch over {switched} times");
    ensure!(facts.count("point_of_no_return") <= 1, "switched over twice");
    Ok(())
}

/// Production is of the new version, and of ours nothing is left.
async fn complete(stage: &Stage, facts: &Facts, before: &World) -> anyhow::Result<()> {
    ensure!(facts.count("point_of_no_return") == 1, "never switched over");
    let version = stage.sql("postgres", "show server_version_num").await?.unwrap_or_default();
    ensure!(version.starts_with("16"), "production runs {version}");
    let members = stage.lab.members(CLUSTER);
    ensure!(!members.is_empty(), "{CLUSTER} has no member");
    let after = stage.world().await?;
    let ours = |line: &String| {
        let text = line.split_once(": ").map_or("", |(_, text)| text);
        LASTING.iter().any(|kind| text.starts_with(kind)) && !line[2..].starts_with("Describe")
    };
    let other: Vec<String> = after.since(before).into_iter().filter(ours).collect();
    ensure!(other.is_empty(), "not as it was on the new production: {other:#?}");
    let deployments = stage.aws("DescribeBlueGreenDeployments", &[]).await?;
    ensure!(!deployments.contains("<BlueGreenDeploymentIdentifier>"), "a deployment is left: {deployments}");
    Ok(())
}

/// By what the agents say; a client that was held longer would be in its ledger too. A held client fails no statement, unless an
/// agent that had lost its coordinator found blue writing before the cut and let its clients go there.
fn held(stage: &Stage, facts: &Facts) -> anyhow::Result<()> {
    let cap = u64::from(HOLD_SECONDS_MAX) * 1000;
    let events = || facts.of_kind("observed", None).map(|seen| &seen["fact"]["event"]);
    let longest = events().filter(|event| event["event"] == "held").filter_map(|event| event["ms"].as_u64()).max();
    ensure!(longest.unwrap_or_default() <= cap + 1000, "somebody was held for {longest:?} ms");
    let failed = stage.failed_statements("held-writes");
    let let_go = events().any(|event| event["event"] == "stance" && event["stance"] == "release_to_blue");
    ensure!(failed == 0 || let_go, "{failed} statements of the held client failed");
    Ok(())
}
