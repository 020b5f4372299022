//! `kill -9` of the coordinator, of an agent and of both, exactly before and after the facts of an upgrade, on the path that
//! succeeds and on two that unwind, and at the moments between the pivot's arming and its outcome. One upgrade takes many kills.
//! `TEST_DEPTH=full` plays upgrades until every point has had every kill, and prints what was played (`KILLS=aborted` or
//! `KILLS=both`: only that part; `KILLS_KEPT=FILE`: goes on where an earlier one stopped); quick samples. What is judged, from outside, is in `judge`.

mod first;
mod hunt;
mod judge;
mod report;
mod window;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use serde_json::Value;
use tests::stage::pilot::{Upgrade, with};
use tests::stage::trap::Trap;
use tests::stage::{CLUSTER, Setting, Stage, depth, play};

use self::hunt::Hunter;
use self::judge::Ends;
use self::report::{Campaign, Path, Shared, Victim, shared};
use self::window::Case;

/// For an upgrade with all its kills, and for what comes before the first.
const LIMIT: Duration = Duration::from_secs(480);
/// Upgrades of one path and victim, before what is left is told as not reached.
const RUNS_MAX: usize = 60;
/// As many upgrades in a row without any kill: what is left comes by chance only.
const IDLE_MAX: usize = 3;
/// Facts between two kills in full depth: about a dozen kills an upgrade.
const SPACING: i64 = 8;

fn setting() -> Setting {
    Setting { pooled: true, trapped: true, ..Setting::default() }
}

/// In a hurry, with attempts for all that is killed.
fn spec(stage: &Stage, to: u32) -> toml::Table {
    let spec = with(with(stage.spec(to), "switchover.attempts", 8), "switchover.hold_ack_ms_max", 4000);
    let spec = with(with(spec, "switchover.timeout_seconds", 30), "switchover.revert_allowance_seconds", 10);
    with(spec, "switchover.hold_seconds_max", i64::from(judge::HOLD_SECONDS_MAX))
}

/// Begins an upgrade of a path and arms the trap where the path's own points begin, which is told.
async fn begun(stage: &Stage, trap: &Trap, path: Path, hunter: &Hunter) -> anyhow::Result<(Upgrade, i64)> {
    let plain = spec(stage, 16);
    match path {
        Path::Succeeds | Path::Window => {
            hunter.arm(trap).await?;
            Ok((stage.upgrade(&plain).await?, 1))
        }
        Path::Aborted => {
            let upgrade = stage.upgrade(&with(plain, "switchover.approve", true)).await?;
            let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
            stage.wait_until(&upgrade.id, "the switchover's approval", LIMIT, asks).await?;
            hunter.arm(trap).await?;
            let first = trap.length(&upgrade.id).await?;
            stage.pilot(&["abort", &upgrade.id, "--confirm", CLUSTER]).await?.expect(0, &[])?;
            Ok((upgrade, first))
        }
        Path::CutFails => {
            stage.lab.faults().plan(Fault::SwitchoverFails { reason: "the lab's storage said no".into() }, 50);
            let upgrade = stage.upgrade(&with(plain, "switchover.attempts", 2)).await?;
            stage.until_logged("replicating_data done", LIMIT).await?;
            hunter.arm(trap).await?;
            let first = trap.length(&upgrade.id).await?;
            Ok((upgrade, first))
        }
    }
}

/// One upgrade of a path with its kills, judged.
async fn run(stage: &mut Stage, trap: &Trap, path: Path, hunter: &mut Hunter) -> anyhow::Result<()> {
    let before = stage.world().await?;
    let (mut upgrade, first) = begun(stage, trap, path, hunter).await?;
    let said = hunter.follow(stage, trap, &mut upgrade, LIMIT).await?;
    stage.lab.faults().clear();
    hunter.came(&trap.points(&upgrade.id, first).await?);
    let may = if path == Path::Succeeds { Ends::Either } else { Ends::Unwound };
    let ended = judge::all(stage, &upgrade.id, &said, &before, may).await.context("judged from outside")?;
    hunter.ended(ended);
    Ok(())
}

/// Upgrades of one path and victim until every point that comes has been killed at, before and after.
fn campaign(told: &Shared, path: Path, victim: Victim) {
    let mut idle = 0;
    for number in 0..RUNS_MAX {
        let begun = shared(told).begun(path, victim);
        if begun && (shared(told).left(path, victim).is_empty() || idle == IDLE_MAX) {
            return;
        }
        let before = shared(told).kills();
        let hunter = Hunter::new(Arc::clone(told), path, &[victim], SPACING).skipping(number as i64 % SPACING);
        report::alone(told, path, victim, move || {
            play(setting(), async move |stage| {
                let (trap, mut hunter) = (stage.trap().await?, hunter);
                run(stage, &trap, path, &mut hunter).await?;
                stage.nothing_lost().await.map(drop)
            })
        });
        idle = if shared(told).kills() > before { 0 } else { idle + 1 };
    }
}

/// Two upgrades of one cluster, the first aborted, with some kills of each kind.
async fn sample(stage: &mut Stage) -> anyhow::Result<()> {
    let (told, trap) = (Shared::default(), stage.trap().await?);
    first::killed_at_the_first_fact(stage, &trap, &told).await.context("killed at the first fact")?;
    for (path, victims, spacing) in [
        (Path::Aborted, [Victim::Both, Victim::Coordinator, Victim::Agent], 6),
        (Path::Succeeds, [Victim::Coordinator, Victim::Agent, Victim::Both], 18),
    ] {
        let mut hunter = Hunter::new(Arc::clone(&told), path, &victims, spacing).skipping(spacing / 2);
        if path == Path::Succeeds {
            let case = Case { victim: Victim::Both, moment: window::Moment::Stopped, api: window::Api::Lies };
            case.plan(stage);
            hunter = hunter.with_case(case);
        }
        run(stage, &trap, path, &mut hunter).await.with_context(|| format!("{path:?}: {}", shared(&told)))?;
    }
    println!("{}", shared(&told));
    ensure!(shared(&told).kills() >= 4, "hardly anything was killed:\n{}", shared(&told));
    stage.nothing_lost().await.map(drop)
}

#[test]
fn killed_before_or_after_any_fact_an_upgrade_ends_complete_or_as_before() {
    if !depth::is_full() {
        return report::block_on(play(Setting { timings: window::timings(), ..setting() }, sample));
    }
    let told = Campaign::open();
    for path in Path::ALL {
        for victim in Victim::ALL {
            if report::asked(&format!("{path:?} {victim:?}")) {
                campaign(&told, path, victim);
                println!("{}", shared(&told));
            }
        }
    }
    assert!(shared(&told).clean(), "{}", shared(&told));
}
