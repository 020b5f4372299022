//! Switchovers that come to nothing: an agent that is away, a call that never arrived while the coordinator was killed, a
//! call that AWS took back. Each lets everybody go on on blue; the next attempt is whole. And a switchover that never
//! happens is unwound.

use std::time::Duration;

use anyhow::ensure;
use lab::Fault;
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::{Setting, Stage, play};

use super::unwind::unwound;

const LIMIT: Duration = Duration::from_secs(120);
const CALL: &str = "SwitchoverBlueGreenDeployment";

/// Clients go on: the one behind the pooler gets answers again, ingestion runs.
pub(super) async fn all_go_on(stage: &Stage, after: &str) -> anyhow::Result<()> {
    for client in ["held-writes", "direct-writes"] {
        let before = stage.acknowledged(client);
        let look = async || match stage.acknowledged(client) {
            now if now > before + 3 => Ok(()),
            now => Err(format!("{} more", now - before)),
        };
        let what = format!("writes of {client} after {after}");
        stage.tempo.until(&what, Duration::from_millis(20), Duration::from_secs(20), look).await?;
    }
    stage.ingestion_runs().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_come_to_nothing_let_clients_go_on_and_the_next_one_switches() {
    play(Setting { pooled: true, ..Setting::default() }, async |stage| {
        let spec = with(with(stage.spec(16), "switchover.approve", true), "switchover.attempts", 4);
        let mut upgrade = stage.upgrade(&spec).await?;
        let id = upgrade.id.clone();
        let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks).await?;

        stage.agents[1].kill();
        stage.pilot(&["approve", &id, "switchover"]).await?.expect(0, &[])?;
        stage.until_logged("not heard from: agent-2 (PU0603)", LIMIT).await?;
        all_go_on(stage, "an agent was lost").await?;
        let facts = stage.history(&id).await?;
        ensure!(facts.count("pivot_armed") == 0, "armed without an agent\n{}", facts.story());
        stage.lab.faults().plan(Fault::ErrorBefore { action: CALL.into() }, 1);
        stage.agents[1].again()?;

        stage.until_logged("switchover armed", LIMIT).await?;
        let taken = async || match stage.lab.faults().outstanding() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        };
        stage.tempo.until("the call that fails", Duration::from_millis(5), LIMIT, taken).await?;
        stage.lab.faults().plan(Fault::SwitchoverCancelled { reason: "a guardrail said no".into() }, 1);
        stage.crash_coordinator().await?;
        stage.until_logged("not switched over: ", LIMIT).await?;
        all_go_on(stage, "a call that never arrived").await?;

        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let facts = stage.history(&id).await?;
        let (armed, disarmed) = (facts.count("pivot_armed"), facts.count("pivot_disarmed"));
        // The process is killed before or after its first call: then the call that is made to fail is the first or the second.
        let one_switched = armed == disarmed + 1 && (3..=4).contains(&armed);
        ensure!(one_switched, "armed {armed} times, disarmed {disarmed} times\n{}", facts.story());
        ensure!(facts.count("point_of_no_return") == 1, "{}", facts.story());
        ensure!(facts.story().contains("a guardrail said no"), "AWS's reason is not told\n{}", facts.story());
        // One never arrived: the lab took the one that it cancelled and the one that it did.
        ensure!(stage.asked_of_aws(CALL) == 2, "AWS was asked {} times", stage.asked_of_aws(CALL));
        ensure!(stage.asked_of_aws("CreateBlueGreenDeployment") == 1, "a second deployment");
        ensure!(stage.failed_statements("held-writes") == 0, "statements of the held client failed");
        stage.ingestion_runs().await?;
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_that_aws_cannot_do_is_unwound_when_the_attempts_are_used_up() {
    play(Setting { pooled: true, ..Setting::default() }, async |stage| {
        let before = stage.world().await?;
        stage.lab.faults().plan(Fault::SwitchoverFails { reason: "the lab's storage said no".into() }, 2);
        let mut upgrade = stage.upgrade(&with(stage.spec(16), "switchover.attempts", 2)).await?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound", "the lab's storage said no"])?;
        unwound(stage, &upgrade.id, &before, &["PU0404"]).await?;
        ensure!(stage.asked_of_aws(CALL) == 2, "AWS was asked {} times", stage.asked_of_aws(CALL));
        all_go_on(stage, "the unwinding").await?;
        let version = stage.sql("postgres", "show server_version_num").await?.unwrap_or_default();
        ensure!(version.starts_with("14"), "production runs {version}");
        stage.nothing_lost().await.map(drop)
    })
    .await;
}
