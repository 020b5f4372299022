//! Upgrades that go through: with answers that are lost on the way, with a provider that tells late.

use std::time::Duration;

use anyhow::ensure;
use lab::{Fault, Timings};
use tests::stage::{CLUSTER, Setting, Stage, play};

const LIMIT: Duration = Duration::from_secs(150);

/// The upgrade ended well, production is of `major`, and AWS was asked for each step once.
pub(super) async fn succeeded(stage: &mut Stage, id: &str, major: u32) -> anyhow::Result<()> {
    let status = stage.status(id).await?;
    ensure!(status["outcome"] == "succeeded", "{status}");
    let facts = stage.history(id).await?;
    ensure!(facts.count("point_of_no_return") == 1, "{}", facts.story());
    for action in ["CreateBlueGreenDeployment", "SwitchoverBlueGreenDeployment"] {
        let asked = stage.asked_of_aws(action);
        ensure!(asked == 1, "AWS was asked for {action} {asked} times\n{}", facts.story());
    }
    let version = stage.sql("postgres", "show server_version_num").await?.unwrap_or_default();
    ensure!(version.starts_with(&major.to_string()), "production runs {version}");
    let clusters: Vec<String> = stage.lab.members(CLUSTER).into_iter().map(|(name, ..)| name).collect();
    ensure!(!clusters.is_empty(), "{CLUSTER} has no member");
    stage.ingestion_runs().await?;
    stage.nothing_lost().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_of_create_and_switchover_are_looked_for_and_never_asked_again() {
    play(Setting { agents: 1, ..Setting::default() }, async |stage| {
        for action in ["CreateBlueGreenDeployment", "SwitchoverBlueGreenDeployment"] {
            stage.lab.faults().plan(Fault::DropAnswer { action: action.into() }, 1);
        }
        let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let left = stage.lab.faults().outstanding();
        ensure!(left.is_empty(), "these answers were never lost: {left:?}");
        succeeded(stage, &upgrade.id, 16).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_held_client_feels_does_not_grow_with_what_the_provider_tells_late() {
    let late =
        Timings { completed_delay: Duration::from_secs(6), names_delay: Duration::from_secs(3), ..Timings::zero() };
    play(Setting { timings: late, pooled: true, ..Setting::default() }, async |stage| {
        let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
        stage.until_logged("switchover started", LIMIT).await?;
        let begun = stage.tempo.at();
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let [held, direct] = ["held-writes", "direct-writes"].map(|client| stage.longest_gap(client, begun));
        let felt = format!("the held client waited {held:?}, the direct one {direct:?}");
        ensure!(direct >= Duration::from_secs(3), "names did not come late: {felt}");
        ensure!(held < Duration::from_millis(2500), "{felt}");
        let failed = stage.failed_statements("held-writes");
        ensure!(failed == 0, "{failed} statements of the held client failed");
        succeeded(stage, &upgrade.id, 16).await
    })
    .await;
}
