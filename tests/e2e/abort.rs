//! `pilot abort` at moments of an upgrade, from its first facts on: before the cut the world is as it was; what comes after the cut
//! undoes nothing. While armed it waits for the outcome (`stuck.rs`, `old_copy.rs`).

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::stage::facts::Facts;
use tests::stage::pilot::Upgrade;
use tests::stage::world::World;
use tests::stage::{CLUSTER, Setting, Stage, depth, play};

use super::unwind::unwound;

const LIMIT: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(30);
/// How many facts there are when it is aborted, in quick depth: in the prerequisites, while green is built, and beside it.
const MOMENTS: [usize; 3] = [5, 24, 40];
/// Between two moments in full depth.
const APART: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_at_any_instant_leaves_the_world_as_before_or_comes_after_the_cut() {
    play(Setting { agents: 1, ..Setting::default() }, async |stage| {
        let before = stage.world().await?;
        let mut moments: Vec<usize> =
            if depth::is_full() { (1..).step_by(APART).take(40).collect() } else { MOMENTS.into() };
        moments.reverse();
        while let Some(moment) = moments.pop() {
            if !aborted(stage, moment, &before).await.with_context(|| format!("aborted at fact {moment}"))? {
                // The cut came first: everything before it was tried.
                break;
            }
        }
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// The facts of an upgrade, once they are as wished.
async fn until(stage: &Stage, id: &str, what: &str, wished: impl Fn(&Facts) -> bool) -> anyhow::Result<Facts> {
    let look = async || match stage.history(id).await {
        Ok(facts) if wished(&facts) => Ok(facts),
        Ok(facts) => Err(facts.story()),
        Err(error) => Err(format!("{error:#}")),
    };
    stage.tempo.until(what, LOOK, LIMIT, look).await
}

async fn abort(stage: &Stage, upgrade: &Upgrade) -> anyhow::Result<tests::stage::pilot::Said> {
    stage.pilot(&["abort", &upgrade.id, "--confirm", CLUSTER]).await
}

/// Whether it was unwound; else it had switched over before it was asked.
async fn aborted(stage: &mut Stage, moment: usize, before: &World) -> anyhow::Result<bool> {
    let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
    let id = upgrade.id.clone();
    let facts = until(stage, &id, "that many facts", |facts| facts.0.len() >= moment).await?;
    let said = abort(stage, &upgrade).await?;
    let ended = upgrade.ended(LIMIT, &stage.tempo).await?;
    println!("aborted at fact {} (asked for {moment}): exit {}", facts.0.len(), ended.code);
    let facts = stage.history(&id).await?;
    if facts.count("point_of_no_return") == 1 {
        ended.expect(0, &["succeeded"])?;
        ensure!(facts.count("undo_started") == 0, "something was undone\n{}", facts.story());
        return Ok(false);
    }
    said.expect(0, &[])?;
    ended.expect(1, &["unwound"])?;
    unwound(stage, &id, before, &[]).await?;
    Ok(true)
}

/// `pilot abort` between the one call and the outcome, which a fault has to hold open. It is taken.
pub(super) async fn abort_while_armed(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let asked = async || match stage.asked_of_aws("SwitchoverBlueGreenDeployment") {
        0 => Err(stage.logs()),
        _ => Ok(()),
    };
    stage.tempo.until("the call", Duration::from_millis(5), LIMIT, asked).await?;
    stage.pilot(&["abort", id, "--confirm", CLUSTER]).await?.expect(0, &["abort is in the journal"])
}

/// The journal says that the one abort came while armed, and that the outcome was read after it.
pub(super) fn came_while_armed(facts: &Facts, outcome: &str) -> anyhow::Result<()> {
    let kinds = facts.0.iter().map(|seen| match seen["fact"]["request"]["request"].as_str() {
        Some("abort") => "abort",
        _ => seen["kind"].as_str().unwrap_or_default(),
    });
    let course: Vec<&str> = kinds.filter(|kind| ["pivot_armed", "abort", outcome].contains(kind)).collect();
    ensure!(course == ["pivot_armed", "abort", outcome], "{course:?}\n{}", facts.story());
    Ok(())
}
