//! Agents that cannot reach blue or green for a while: in the prerequisites, beside replication, while they hold clients, after the
//! cut, and while an undoing runs. It costs attempts and no row, and goes on by itself when the side answers again.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::reach::{let_in, shut_out};
use tests::stage::{CLUSTER, Setting, Stage, depth, play};

use super::unwind::{until_replicating, unwound};
use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(120);
const HELD: &str = "paused hold=true";
const RELEASED: &str = "released kind=Gate";
const FAILED: &str = "job failed";
/// Nobody may be held longer, whatever fails.
const HOLD_MAX: u32 = 60;

/// Which side is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Blue,
    Green,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_out_of_reach_of_its_agents_costs_attempts_and_no_row_and_nobody_is_held_beyond_the_cap() {
    play(Setting { agents: 1, pooled: true, ..Setting::default() }, async |stage| {
        let spec = with(with(stage.spec(16), "switchover.approve", true), "switchover.attempts", 8);
        let spec = with(with(spec, "switchover.drain_ms", 4000), "switchover.long_transaction_ms", 60_000);
        let spec = with(with(spec, "switchover.timeout_seconds", 30), "switchover.revert_allowance_seconds", 10);
        let spec = with(with(spec, "switchover.hold_seconds_max", HOLD_MAX), "replication.sustained_seconds", 4.0);
        let mut upgrade = stage.upgrade(&spec).await?;
        let id = upgrade.id.clone();
        stage.until_logged("prerequisites: about to do snapshot", LIMIT).await?;
        refused_until_a_job_fails(stage).await.context("blue, in the prerequisites")?;
        for (lost, missing) in [(Lost::Blue, "slot lag is not measured"), (Lost::Green, "marker delay")] {
            beside_replication(stage, &id, lost, missing).await.with_context(|| format!("{lost:?}, in replicating"))?;
        }
        let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks).await?;
        in_the_hold(stage, &id, Lost::Blue).await.context("blue, in the hold")?;
        if depth::is_full() {
            in_the_hold(stage, &id, Lost::Green).await.context("green, in the hold")?;
        }
        stage.until_logged("post_switchover started", LIMIT).await?;
        refused_until_a_job_fails(stage).await.context("the new production, after the cut")?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&id).await?;
        ensure!(facts.count("stuck") == 0 && facts.count("undo_started") == 0, "{}", facts.story());
        for step in ["prerequisites", "switchover"] {
            let failed = facts.of_kind("step_failed", Some(step)).count();
            ensure!(failed > 0, "no attempt of {step} was spent, so nothing is shown\n{}", facts.story());
        }
        let waited = stage.longest_gap("held-writes", Duration::ZERO);
        ensure!(waited < Duration::from_secs(HOLD_MAX.into()), "the held client waited {waited:?}");
        succeeded(stage, &id, 16).await
    })
    .await;
}

/// Blue answers the clients and refuses the agent, once the deployment is gone and once it is not: the undoing waits for it, is
/// not stuck, and asks nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undoing_that_meets_a_blue_out_of_reach_goes_on_by_itself_when_blue_is_back() {
    play(Setting { agents: 1, ..Setting::default() }, async |stage| {
        let before = stage.world().await?;
        let spec = with(stage.spec(16), "replication.sustained_seconds", 60.0);
        let mut upgrade = stage.upgrade(&spec).await?;
        let id = upgrade.id.clone();
        until_replicating(stage, &id).await?;
        stage.pilot(&["abort", &id, "--confirm", CLUSTER]).await?.expect(0, &[])?;
        stage.until_logged("undoing provisioning", LIMIT).await?;
        refused_until_a_job_fails(stage).await.context("while the deployment is deleted")?;
        stage.until_logged("undoing prerequisites", LIMIT).await?;
        refused_until_a_job_fails(stage).await.context("while the prerequisites are undone")?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound"])?;

        unwound(stage, &id, &before, &["asked to abort"]).await?;
        let facts = stage.history(&id).await?;
        ensure!(facts.count("stuck") == 0, "{}", facts.story());
        ensure!(!facts.story().contains("PU0105"), "a job was never answered\n{}", facts.story());
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// Production takes clients and refuses the agent until that has cost a job.
async fn refused_until_a_job_fails(stage: &Stage) -> anyhow::Result<()> {
    let failed = stage.agents[0].log().matches(FAILED).count();
    let production = stage.blue_writer()?;
    shut_out(&production).await?;
    let waited = stage.until_agent_logged(0, FAILED, failed + 1, LIMIT).await;
    let_in(&production).await?;
    waited
}

/// What is not measured keeps the gate shut; it opens when the side answers again.
async fn beside_replication(stage: &Stage, id: &str, lost: Lost, missing: &str) -> anyhow::Result<()> {
    let waits_for = |status: &Value| status["current"]["waiting_for"].as_str().unwrap_or_default().to_owned();
    let at_it = |status: &Value| status["phase"] == "replicating_data" && waits_for(status).contains("thresholds");
    let open = |status: &Value| at_it(status) && waits_for(status).contains("not long enough yet");
    stage.wait_until(id, "an open gate", LIMIT, open).await?;
    let silence = match lost {
        Lost::Blue => stage.silence(&*stage.blue_writer()?).await?,
        Lost::Green => stage.silence(&*stage.green_writer().await?).await?,
    };
    let unknown = |status: &Value| at_it(status) && waits_for(status).contains(missing);
    stage.wait_until(id, "a measurement to be missing", LIMIT, unknown).await?;
    drop(silence);
    stage.wait_until(id, "the gate to open again", LIMIT, open).await.map(drop)
}

/// Clients are held and the lead hears nothing of a side: the attempt is over, they are let go, and nothing was called.
async fn in_the_hold(stage: &Stage, id: &str, lost: Lost) -> anyhow::Result<()> {
    let [held, released] = [HELD, RELEASED].map(|text| stage.agents[0].log().matches(text).count());
    let armed = stage.history(id).await?.count("pivot_armed");
    let slow = stage.slow_writer().await?;
    if stage.status(id).await?["approvals"][0]["name"] == "switchover" {
        stage.pilot(&["approve", id, "switchover"]).await?.expect(0, &[])?;
    }
    stage.until_agent_logged(0, HELD, held + 1, LIMIT).await?;
    let silence = match lost {
        Lost::Blue => stage.silence(&*stage.blue_writer()?).await?,
        Lost::Green => stage.silence(&*stage.green_writer().await?).await?,
    };
    if lost == Lost::Green {
        slow.run(&stage.tempo, LIMIT, "rollback").await?;
    }
    stage.until_agent_logged(0, RELEASED, released + 1, LIMIT).await?;
    let facts = stage.history(id).await?;
    ensure!(facts.count("pivot_armed") == armed, "armed with {lost:?} away\n{}", facts.story());
    drop((silence, slow));
    Ok(())
}
