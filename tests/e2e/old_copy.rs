//! A coordinator whose store was put back from an old copy: agents have obeyed a newer one and refuse whatever it says. The newer store
//! goes on. Then an abort while the switchover is armed, which is taken and undoes nothing, because the outcome is a cut; and one after
//! the cut, which is refused.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{Fault, Timings};
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::{CLUSTER, Setting, Stage, play};

use super::abort::{abort_while_armed, came_while_armed};
use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(120);
const HELD: &str = "paused hold=true";
/// How an agent says that it has heard a wish, and that it does not obey one.
const WISH: &str = " intent upgrade=";
const REFUSED: &str = "a command was refused";
/// Lives of the coordinator between the copy and its being put back: each has numbers of its own.
const LIVES: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_put_back_from_an_old_copy_commands_nobody_and_an_abort_after_the_call_undoes_nothing() {
    // AWS says late that it is done: the upgrade is still at work after the cut.
    let timings = Timings { completed_delay: Duration::from_secs(6), ..Timings::zero() };
    play(Setting { timings, ..Setting::default() }, async |stage| {
        let mut upgrade = stage.upgrade(&with(stage.spec(16), "switchover.approve", true)).await?;
        let id = upgrade.id.clone();
        until_it_asks(stage, &id).await?;
        commands_nobody(stage, &id).await.context("a store from an old copy")?;

        stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 3000 }, 1);
        stage.pilot(&["approve", &id, "switchover"]).await?.expect(0, &[])?;
        abort_while_armed(stage, &id).await?;
        let at_work = |status: &Value| status["phase"] == "post_switchover" && status["switched_over"] == true;
        stage.wait_until(&id, "work after the cut", LIMIT, at_work).await?;
        let late = stage.pilot(&["abort", &id, "--confirm", CLUSTER]).await?;
        late.expect(2, &["PU0114", "has switched over", &format!("pilot watch {id}")])?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&id).await?;
        came_while_armed(&facts, "point_of_no_return")?;
        ensure!(facts.count("undo_started") == 0, "something was undone\n{}", facts.story());
        let epochs: Vec<u64> = facts.0.iter().filter_map(|fact| fact["epoch"].as_u64()).collect();
        ensure!(epochs.is_sorted(), "the old copy appended\n{}", facts.story());
        succeeded(stage, &id, 16).await
    })
    .await;
}

async fn until_it_asks(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let asks = |status: &Value| status["approvals"][0]["name"] == "switchover" && status["health"] == "person";
    stage.wait_until(id, "the switchover's approval", LIMIT, asks).await.map(drop)
}

/// The coordinator lives on the copy for a while, and is told to switch over: no agent does anything for it, and so it does nothing,
/// neither on, nor back when its attempts are spent.
async fn commands_nobody(stage: &mut Stage, id: &str) -> anyhow::Result<()> {
    let old = stage.copy_store("old", None).await?;
    for _ in 0..LIVES {
        heard_by_all(stage, async |stage| stage.crash_coordinator().await).await?;
    }
    let newer = stage.copy_store("newer", Some(&old)).await?;
    let changes = stage.changes_at_aws().len();
    // Clients were held for the reboot.
    let holds: Vec<usize> = stage.agents.iter().map(|agent| agent.log().matches(HELD).count()).collect();
    stage.until_connected(2).await?;
    stage.pilot(&["approve", id, "switchover"]).await?.expect(0, &[])?;
    let spent = |status: &Value| {
        let step = |step: &Value| step["id"] == "switchover" && step["state"] == "failed" && step["attempt"] == 3;
        let waits = status["current"]["waiting_for"].as_str().is_some_and(|what| what.contains("PU0914"));
        waits && status["steps"].as_array().is_some_and(|steps| steps.iter().any(step))
    };
    stage.wait_until(id, "its attempts to be spent, and nobody to let it go back", LIMIT, spent).await?;
    let facts = stage.history(id).await?;
    ensure!(facts.count("undo_started") == 0, "it undoes without agents\n{}", facts.story());
    let refused =
        facts.of_kind("step_failed", Some("switchover")).any(|seen| seen["fact"]["failure"]["code"] == "PU0791");
    ensure!(refused && facts.count("pivot_armed") == 0, "no job was refused\n{}", facts.story());
    for (number, agent) in stage.agents.iter().enumerate() {
        let (log, metrics) = (agent.log(), stage.agent_metrics(number).await?);
        let obeyed = log.matches(HELD).count() != holds[number];
        ensure!(log.contains(REFUSED) && !obeyed, "agent {number} obeyed it\n{}", agent.tail(30));
        let refused =
            |line: &&str| line.starts_with("pilot_agent_commands_refused_total{") && line.contains("reason=\"stale\"");
        let counted = metrics.lines().find(refused).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        ensure!(counted > Some(0.0), "agent {number} has not counted what it refused:\n{metrics}");
    }
    let changed = stage.changes_at_aws().len();
    ensure!(changed == changes, "AWS was asked for {} changes by the old copy", changed - changes);
    heard_by_all(stage, async |stage| stage.copy_store("thrown-away", Some(&newer)).await.map(drop)).await?;
    until_it_asks(stage, id).await
}

/// Something happens to the coordinator, and every agent hears a wish of its next life.
async fn heard_by_all(
    stage: &mut Stage,
    happens: impl AsyncFnOnce(&mut Stage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let before: Vec<usize> = stage.agents.iter().map(|agent| agent.log().matches(WISH).count()).collect();
    happens(stage).await?;
    for (number, count) in before.into_iter().enumerate() {
        stage.until_agent_logged(number, WISH, count + 1, LIMIT).await?;
    }
    Ok(())
}
