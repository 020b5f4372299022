//! Two coordinators and a store that is out of reach: for one of them, while the other still reaches it, and for both, while clients
//! are held. In between both are replaced, one after another, as a rolling restart does it. Blue or green serves all the time.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use serde_json::Value;
use tests::stage::cable::Passing;
use tests::stage::pilot::with;
use tests::stage::{Setting, Stage, play};

use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(120);
const CALL: &str = "SwitchoverBlueGreenDeployment";
const HELD: &str = "paused hold=true";
const RELEASED: &str = "released kind=Gate";
/// The agent beside the pooler.
const HOLDER: usize = 1;
/// Nobody may be held longer, whatever fails.
const HOLD_MAX: u32 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_out_of_reach_of_one_or_all_coordinators_harms_nobody_and_they_are_replaced_at_any_moment() {
    play(Setting { shared: true, pooled: true, lease: (6, 4, 2), ..Setting::default() }, async |stage| {
        let spec = with(with(stage.spec(16), "switchover.approve", true), "switchover.attempts", 8);
        let spec = with(with(spec, "switchover.drain_ms", 8000), "switchover.long_transaction_ms", 60_000);
        let spec = with(with(spec, "switchover.timeout_seconds", 30), "switchover.revert_allowance_seconds", 10);
        let spec = with(spec, "switchover.hold_seconds_max", HOLD_MAX);
        let mut upgrade = stage.upgrade(&spec).await?;
        let id = upgrade.id.clone();
        stage.until_either_logged("provisioning: about to do create", LIMIT).await?;
        one_is_cut_off(stage).await.context("one without a store, in provisioning")?;
        let at_it = |status: &Value| status["phase"] == "replicating_data";
        stage.wait_until(&id, "replicating data", LIMIT, at_it).await?;
        for number in 0..2 {
            replaced(stage, number).await.context("a rolling restart, in replicating")?;
        }
        let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks).await?;
        let slow = stage.slow_writer().await?;
        stage.pilot(&["approve", &id, "switchover"]).await?.expect(0, &[])?;
        replaced_in_the_hold(stage).await.context("a rolling restart, in the hold")?;
        lost_in_the_hold(stage).await.context("no store, in the hold")?;
        drop(slow);
        stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 4000 }, 1);
        stage.store()?.again().await?;
        lost_after_the_call(stage).await.context("no store, after the call")?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&id).await?;
        let epochs: Vec<u64> = facts.0.iter().filter_map(|fact| fact["epoch"].as_u64()).collect();
        ensure!(epochs.is_sorted(), "a deposed coordinator appended\n{}", facts.story());
        let waited = stage.longest_gap("held-writes", Duration::ZERO);
        ensure!(waited < Duration::from_secs(HOLD_MAX.into()), "the held client waited {waited:?}");
        succeeded(stage, &id, 16).await
    })
    .await;
}

/// The one that drives cannot reach the store, the other can, and both reach AWS and the agents.
async fn one_is_cut_off(stage: &mut Stage) -> anyhow::Result<()> {
    let driver = stage.until_somebody_leads().await?;
    stage.cable(driver)?.passes(Passing::Silence);
    stage.until_leads(1 - driver).await?;
    // Its own lease ended before that of the store did, on whose clock the other has taken over.
    let asked = stage.changes_asked_by(driver);
    stage.until_connected(2).await?;
    stage.until_stands_by(driver).await?;
    stage.cable(driver)?.passes(Passing::All);
    let late = async || match stage.cable(driver).map(|cable| cable.late()) {
        Ok(0) => Err("nothing arrived late".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    stage.tempo.until("what it had sent", Duration::from_millis(20), LIMIT, late).await?;
    let after = stage.changes_asked_by(driver);
    ensure!(after == asked, "AWS was asked for {} changes by a deposed coordinator", after - asked);
    ensure!(stage.leads(1 - driver), "the one that came back took over again");
    Ok(())
}

/// As a rolling restart does with each: it is asked to end, ends by itself, and comes back.
async fn replaced(stage: &mut Stage, number: usize) -> anyhow::Result<()> {
    let led = stage.leads(number);
    stage.one_of_two(number)?.signal("TERM")?;
    if led {
        stage.until_leads(1 - number).await?;
    }
    stage.until_ended(number).await?;
    stage.one_of_two(number)?.again()?;
    stage.until_stands_by(number).await
}

/// Waits until clients are held, or are let go, by what the agent has said last.
async fn until_held(stage: &Stage, held: bool) -> anyhow::Result<()> {
    let look = async || {
        let log = stage.agents[HOLDER].log();
        let said = log.lines().rev().find(|line| line.contains(HELD) || line.contains(RELEASED)).unwrap_or_default();
        if said.contains(HELD) == held { Ok(()) } else { Err(format!("{said}\n{}", stage.logs())) }
    };
    let what = if held { "clients to be held" } else { "clients to be let go" };
    stage.tempo.until(what, Duration::from_millis(5), LIMIT, look).await
}

async fn replaced_in_the_hold(stage: &mut Stage) -> anyhow::Result<()> {
    for _ in 0..2 {
        until_held(stage, true).await?;
        let driver = stage.until_somebody_leads().await?;
        replaced(stage, driver).await?;
    }
    Ok(())
}

/// Nobody renews the agents' leases: they let clients go on on blue.
async fn lost_in_the_hold(stage: &mut Stage) -> anyhow::Result<()> {
    until_held(stage, true).await?;
    stage.store()?.crash().await?;
    let changes = stage.changes_at_aws().len();
    until_held(stage, false).await?;
    stage.goes_on("held-writes").await?;
    let changed = stage.changes_at_aws().len();
    ensure!(changes == changed, "AWS was asked for {} changes without a store", changed - changes);
    ensure!(stage.asked_of_aws(CALL) == 0, "it was called with a transaction open");
    Ok(())
}

/// AWS is at work and nobody can tell the agents how it ended: they see for themselves that green takes writes.
async fn lost_after_the_call(stage: &mut Stage) -> anyhow::Result<()> {
    let asked = async || match stage.asked_of_aws(CALL) {
        0 => Err(stage.logs()),
        _ => Ok(()),
    };
    stage.tempo.until("the call", Duration::from_millis(5), LIMIT, asked).await?;
    stage.store()?.crash().await?;
    stage.goes_on("held-writes").await?;
    let (_, behind) = stage.behind_pooler("telemetry").await?;
    ensure!(behind.contains("16"), "the held client was let go to {behind}");
    stage.store()?.again().await
}
