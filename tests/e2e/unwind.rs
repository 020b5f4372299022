//! Upgrades that cannot go on before the switchover: each unwinds by itself, says why, and leaves the world as it was but
//! for what field rule 9.3 allows. One cluster, one failure after another.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::secrets::CANARY;
use tests::stage::world::World;
use tests::stage::{CLUSTER, Setting, Stage, play};

const LIMIT: Duration = Duration::from_secs(120);

/// What may be other than before after an unwinding (field rule 9.3): static parameters that wait for a reboot, and the kept
/// snapshot.
fn allowed(line: &str) -> bool {
    let kept = ["pending-reboot", "in-sync", "DescribeDBClusterSnapshots: "];
    let running = ["wal_level", "max_replication_slots", "max_wal_senders", "max_worker_processes", "max_logical_"];
    kept.iter().any(|part| line.contains(part))
        || running.iter().any(|name| line.contains(&format!("runs with {name}")))
}

/// It ended as unwound with exit 1 and these words, and nothing of it is left.
pub(super) async fn unwound(stage: &Stage, id: &str, before: &World, words: &[&str]) -> anyhow::Result<Value> {
    let status = stage.status(id).await?;
    ensure!(status["outcome"] == "unwound", "{status}");
    let reason = status["reason"].as_str().unwrap_or_default();
    for word in words {
        ensure!(reason.contains(word), "{word:?} is not in the reason: {reason}");
    }
    let after = stage.world().await?;
    let other: Vec<String> = after.since(before).into_iter().filter(|line| !allowed(line)).collect();
    ensure!(other.is_empty(), "the world is not as before: {other:#?}\n{}", stage.history(id).await?.story());
    for (what, sql) in [
        ("slots", "select count(*) from pg_replication_slots"),
        ("publications", "select count(*) from pg_publication"),
    ] {
        let left = stage.sql("orders", sql).await?;
        ensure!(left.as_deref() == Some("0"), "{what} left on blue: {left:?}");
    }
    stage.ingestion_runs().await?;
    Ok(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_before_the_cut_is_unwound_and_the_world_is_as_before() {
    play(Setting::default(), async |stage| {
        let before = stage.world().await?;
        invalid_configuration(stage, &before).await.context("INVALID_CONFIGURATION")?;
        aborted(stage, &before).await.context("pilot abort")?;
        schema_changed(stage, &before).await.context("a schema change on blue")?;
        lag_never_drains(stage, &before).await.context("lag that never drains")?;
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

async fn invalid_configuration(stage: &mut Stage, before: &World) -> anyhow::Result<()> {
    let reason = "the instance class is not supported in this lab";
    stage.lab.faults().plan(Fault::InvalidConfiguration { reason: reason.into() }, 1);
    let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
    upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound", reason])?;
    unwound(stage, &upgrade.id, before, &[reason, "PU0321"]).await.map(drop)
}

async fn aborted(stage: &mut Stage, before: &World) -> anyhow::Result<()> {
    let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
    let id = upgrade.id.clone();
    stage
        .wait_until(&id, "green being built", LIMIT, |status| {
            status["phase"] == "provisioning" && status["current"]["doing"] == "run"
        })
        .await?;
    stage.pilot(&["abort", &id]).await?.expect(2, &["--confirm orders"])?;
    stage.pilot(&["abort", &id, "--confirm", "another"]).await?.expect(2, &["--confirm orders"])?;
    stage.pilot(&["abort", &id, "--confirm", CLUSTER]).await?.expect(0, &[])?;
    upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound"])?;
    unwound(stage, &id, before, &[]).await.map(drop)
}

/// Green is there and followed, and a while is left before the gates of the switchover open.
pub(super) async fn until_replicating(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let at_it = |status: &Value| status["phase"] == "replicating_data" && status["current"]["doing"] == "run";
    stage.wait_until(id, "replicating data", LIMIT, at_it).await.map(drop)
}

async fn schema_changed(stage: &mut Stage, before: &World) -> anyhow::Result<()> {
    let spec = with(stage.spec(16), "replication.sustained_seconds", 5.0);
    let mut upgrade = stage.upgrade(&spec).await?;
    until_replicating(stage, &upgrade.id).await?;
    // What only the server's log has of these statements must not be shown by anybody.
    let statement = format!("create role no_login password '{CANARY}' /* {CANARY} */; drop role no_login");
    stage.sql("postgres", &statement).await?;
    let statement = format!("alter table accounts add column remark text default e'it\\'s {CANARY}'");
    stage.sql_as_owner("billing", &statement).await?;
    upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound"])?;
    unwound(stage, &upgrade.id, before, &["accounts"]).await?;
    let facts = stage.history(&upgrade.id).await?;
    ensure!(facts.count("pivot_armed") == 0, "{}", facts.story());
    Ok(())
}

async fn lag_never_drains(stage: &mut Stage, before: &World) -> anyhow::Result<()> {
    let spec = with(stage.spec(16), "replication.sustained_seconds", 4.0);
    let spec = with(spec, "replication.drain_seconds_max", 12);
    let mut upgrade = stage.upgrade(&spec).await?;
    until_replicating(stage, &upgrade.id).await?;
    stage.lab.faults().plan(Fault::ApplyStalls, 1);
    let ended = upgrade.ended(LIMIT, &stage.tempo).await;
    stage.lab.faults().clear();
    ended?.expect(1, &["unwound"])?;
    unwound(stage, &upgrade.id, before, &["PU0344"]).await.map(drop)
}
