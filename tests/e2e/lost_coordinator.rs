//! Agents that lose the coordinator, by cables that are cut: before the window, in it before the call and after it, and after the
//! cut. Meanwhile they ask the database, by names that are stale; what they paused runs, whom they held goes on, where writes are.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use lab::demo::session::Session;
use serde_json::Value;
use tests::stage::cable::Passing;
use tests::stage::pilot::with;
use tests::stage::{Setting, Stage, play};

use super::unwind::until_replicating;
use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
const CALL: &str = "SwitchoverBlueGreenDeployment";
const HELD: &str = "paused hold=true";
const RELEASED: &str = "released kind=Gate";
const TO_BLUE: &str = "acting alone stance=release_to_blue";
const HOLDS_ON: &str = "acting alone stance=keep_holding";
const TO_GREEN: &str = "acting alone stance=release_to_green";
/// The agent beside the pooler, and the one beside the ingestion service.
const HOLDER: usize = 1;
const OTHER: usize = 0;
/// Nobody may be held longer, whatever fails.
const HOLD_MAX: u32 = 60;
/// How much later than the zone the program's own resolver knows.
const STALE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_lose_the_coordinator_at_any_moment_let_everybody_go_on_where_writes_are() {
    let resolver_delays = [("default".to_owned(), STALE)].into();
    play(Setting { pooled: true, cables: true, resolver_delays, ..Setting::default() }, async |stage| {
        let spec = with(with(stage.spec(16), "switchover.approve", true), "switchover.attempts", 6);
        let spec = with(with(spec, "switchover.drain_ms", 8000), "switchover.long_transaction_ms", 60_000);
        let spec = with(with(spec, "switchover.timeout_seconds", 30), "switchover.revert_allowance_seconds", 10);
        let spec = with(with(spec, "switchover.hold_seconds_max", HOLD_MAX), "switchover.hold_ack_ms_max", 2500);
        let spec = with(with(spec, "ingestion.pause", "replication"), "ingestion.max_pause_seconds", 600);
        let mut upgrade = stage.upgrade(&with(spec, "replication.sustained_seconds", 3.0)).await?;
        let id = upgrade.id.clone();
        before_the_window(stage, &id).await.context("before the window")?;
        let slow = in_the_hold(stage, &id).await.context("in the window, before the call")?;
        drop(slow);
        after_the_call(stage).await.context("in the window, after the call")?;
        after_the_cut(stage).await.context("after the window")?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&id).await?;
        let alone = facts.of_kind("observed", None).filter(|seen| seen["fact"]["event"]["event"] == "stance").count();
        ensure!(alone > 0, "that agents acted alone is not told\n{}", facts.story());
        let waited = stage.longest_gap("held-writes", Duration::ZERO);
        ensure!(waited < Duration::from_secs(HOLD_MAX.into()), "the held client waited {waited:?}");
        let failed = stage.failed_statements("held-writes");
        ensure!(failed == 0, "{failed} statements of the held client failed");
        succeeded(stage, &id, 16).await
    })
    .await;
}

/// Ingestion that is paused for the replication runs when the agent's lease is over, and is paused again when it has a new one.
async fn before_the_window(stage: &Stage, id: &str) -> anyhow::Result<()> {
    until_replicating(stage, id).await?;
    until_ingestion(stage, false).await?;
    stage.between_agents_and_coordinator(Passing::Reset)?;
    stage.until_logged("not heard from: agent-1, agent-2 (PU0603)", LIMIT).await?;
    until_ingestion(stage, true).await?;
    let status = stage.status(id).await?;
    ensure!(status["phase"] == "replicating_data" && status["outcome"].is_null(), "{status}");
    stage.between_agents_and_coordinator(Passing::All)?;
    until_ingestion(stage, false).await
}

/// No call is made, and clients go on on blue, while the coordinator knows nothing of them and they know nothing of it.
async fn in_the_hold(stage: &Stage, id: &str) -> anyhow::Result<Session> {
    let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
    stage.wait_until(id, "the switchover's approval", LIMIT, asks).await?;
    let slow = stage.slow_writer().await?;
    let [held, alone, released] = [HELD, TO_BLUE, RELEASED].map(|text| said(stage, HOLDER, text));
    stage.pilot(&["approve", id, "switchover"]).await?.expect(0, &[])?;
    stage.until_agent_logged(HOLDER, HELD, held + 1, LIMIT).await?;
    stage.between_agents_and_coordinator(Passing::Silence)?;
    stage.until_agent_logged(HOLDER, TO_BLUE, alone + 1, LIMIT).await?;
    stage.until_agent_logged(HOLDER, RELEASED, released + 1, LIMIT).await?;
    stage.goes_on("held-writes").await?;
    until_ingestion(stage, true).await?;
    let (_, behind) = stage.behind_pooler("telemetry").await?;
    ensure!(behind.contains(" 14 "), "the held client was let go to {behind}");
    let facts = stage.history(id).await?;
    ensure!(facts.count("pivot_armed") == 0, "armed without agents\n{}", facts.story());
    stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 8000 }, 1);
    stage.between_agents_and_coordinator(Passing::All)?;
    Ok(slow)
}

/// AWS is at work when the agents are cut off: they keep holding, and let go to green when green takes a write, before the name
/// that they know leads there and before the coordinator could tell them.
async fn after_the_call(stage: &Stage) -> anyhow::Result<()> {
    let asked = async || match stage.asked_of_aws(CALL) {
        0 => Err(stage.logs()),
        _ => Ok(()),
    };
    stage.tempo.until("the call", Duration::from_millis(5), LIMIT, asked).await?;
    let held_on = said(stage, HOLDER, HOLDS_ON);
    stage.between_agents_and_coordinator(Passing::Silence)?;
    stage.until_agent_logged(HOLDER, HOLDS_ON, held_on + 1, LIMIT).await?;
    stage.until_agent_logged(HOLDER, TO_GREEN, 1, LIMIT).await?;
    let (leads_to, blue) = (stage.lab.resolver(STALE)?.lookup(&stage.cluster.endpoint), stage.cluster.members[0].1);
    ensure!(leads_to == Some(blue), "the name is not stale: it leads to {leads_to:?}, so nothing is shown");
    stage.goes_on("held-writes").await?;
    let (_, behind) = stage.behind_pooler("telemetry").await?;
    ensure!(behind.contains(" 16 "), "the held client was let go to {behind}");
    until_ingestion(stage, true).await?;
    stage.between_agents_and_coordinator(Passing::All)
}

/// The new production serves without a coordinator, and nobody goes back.
async fn after_the_cut(stage: &Stage) -> anyhow::Result<()> {
    stage.until_logged("post_switchover started", LIMIT).await?;
    let alone = said(stage, OTHER, TO_GREEN);
    stage.between_agents_and_coordinator(Passing::Reset)?;
    stage.until_agent_logged(OTHER, TO_GREEN, alone + 1, LIMIT).await?;
    until_ingestion(stage, true).await?;
    stage.goes_on("held-writes").await?;
    let (_, behind) = stage.behind_pooler("telemetry").await?;
    ensure!(behind.contains(" 16 "), "the held client went back to {behind}");
    stage.between_agents_and_coordinator(Passing::All)
}

/// How often an agent has logged this, over all its lives.
fn said(stage: &Stage, agent: usize, text: &str) -> usize {
    stage.agents[agent].log().matches(text).count()
}

async fn until_ingestion(stage: &Stage, runs: bool) -> anyhow::Result<()> {
    let look = async || match (runs, stage.ingestion_runs().await) {
        (true, Ok(())) | (false, Err(_)) => Ok(()),
        (true, Err(error)) => Err(format!("{error:#}")),
        (false, Ok(())) => Err("it runs".to_owned()),
    };
    let what = if runs { "ingestion to run" } else { "ingestion to be paused" };
    stage.tempo.until(what, LOOK, LIMIT, look).await.with_context(|| stage.logs())
}
