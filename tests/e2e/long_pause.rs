//! Ingestion paused for as long as green follows, by a hook and by commands: past its cap it runs again and the upgrade goes
//! back; within it, it resumes on the new production. On the way, rewrites of named tables on green, and a slot that waits
//! where nobody can see it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use lab::demo::schema;
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::{Setting, Stage, play};

use super::unwind::unwound;

const LIMIT: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_pause_ends_at_its_cap_or_on_the_new_production_and_what_the_spec_asks_is_rewritten() {
    play(Setting { agents: 1, commanded: true, ..Setting::default() }, async |stage| {
        stage.expects(&["a cap is near or reached"]);
        past_the_cap(stage).await.context("a pause past its cap")?;
        within_the_cap(stage).await.context("a pause within its cap")?;
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

fn long(stage: &Stage, max_pause_seconds: i64) -> toml::Table {
    let spec = with(stage.spec(16), "ingestion.pause", "replication");
    with(spec, "ingestion.max_pause_seconds", max_pause_seconds)
}

async fn past_the_cap(stage: &mut Stage) -> anyhow::Result<()> {
    let before = stage.world().await?;
    // The cap comes while lag is watched: one that comes together with an intent shows as the refusal of that intent (PU0103).
    let spec = with(long(stage, 20), "replication.sustained_seconds", 60.0);
    let mut upgrade = stage.upgrade(&spec).await?;
    upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound"])?;
    unwound(stage, &upgrade.id, &before, &["PU0604", "its longest pause of 20 s is over"]).await?;
    let facts = stage.history(&upgrade.id).await?;
    ensure!(facts.events("pause_cap") >= 2, "80 % and 100 % are not told\n{}", facts.story());
    Ok(())
}

async fn within_the_cap(stage: &mut Stage) -> anyhow::Result<()> {
    let (full, reindex) = (vec!["orders.public.events"], vec!["billing.public.accounts"]);
    let spec = with(with(long(stage, 600), "vacuum.full", full), "vacuum.reindex", reindex);
    // Long enough to be told from a waiting slot that is seen, which ends a transaction after one second.
    let spec = with(spec, "purge.age_fallback_after_seconds", 4.0);
    stage.lab.faults().plan(Fault::HideSlotWait, 1);
    let before = stage.commands()?.len();
    let mut upgrade = stage.upgrade(&spec).await?;
    let id = upgrade.id.clone();
    purged_by_age(stage, &id).await?;

    let at_it = |status: &Value| status["phase"] == "replicating_data" && status["current"]["doing"] == "run";
    let status = stage.wait_until(&id, "replicating data", LIMIT, at_it).await?;
    ensure!(status["ingestion"]["state"] == "paused", "{}", status["ingestion"]);
    rewritten(stage).await?;
    upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

    let status = stage.status(&id).await?;
    let facts = stage.history(&id).await?;
    let (paused, held) = (&status["downtime"]["ingestion_paused_ms"], &status["downtime"]["held_ms"]);
    ensure!(paused.as_u64() > held.as_u64().map(|ms| ms + 1000), "paused {paused} ms, held {held} ms");
    let asked = stage.commands()?.split_off(before);
    // Around the reboot, and from provisioning until the extensions were tried on the new production.
    ensure!(asked == ["pause", "resume", "pause", "resume"], "the commands were {asked:?}\n{}", facts.story());
    let vacuumed = facts.of_kind("step_done", Some("post_provisioning")).next().context("no vacuum")?;
    let vacuumed = &vacuumed["fact"]["output"]["vacuumed"];
    ensure!(vacuumed["full"] == 1 && vacuumed["reindexed"] == 1, "{vacuumed}");
    stage.ingestion_runs().await
}

/// A transaction that is open while a slot waits unseen is ended by its age, and only after the time for that.
async fn purged_by_age(stage: &Stage, id: &str) -> anyhow::Result<()> {
    stage.until_logged(&format!("provisioning started upgrade={id}"), LIMIT).await?;
    let login = stage.master.database("billing").role(&schema::owner("billing"), schema::PASSWORD, "console");
    let console = login.open(&stage.tempo, LIMIT).await?;
    console.run(&stage.tempo, LIMIT, "begin; update console_notes set note = 'lunch' where id = 1").await?;
    let begun = stage.tempo.at();
    let ended = async || if console.is_closed() { Ok(()) } else { Err("it is still there".to_owned()) };
    stage.tempo.until("the console's end", Duration::from_millis(50), LIMIT, ended).await?;
    let age = stage.tempo.at() - begun;
    ensure!(age >= Duration::from_secs(3), "ended after {age:?}, though no waiting slot could be seen");
    let recorded = async || match stage.history(id).await {
        Ok(facts) if facts.events("session_purged") == 1 => Ok(()),
        Ok(facts) => Err(facts.story()),
        Err(error) => Err(format!("{error:#}")),
    };
    stage.tempo.until("the console's record", Duration::from_millis(50), LIMIT, recorded).await
}

/// On green the table and the index have files of their own by now: `pg_upgrade` keeps a file's number, a rewrite gives another.
async fn rewritten(stage: &Stage) -> anyhow::Result<()> {
    let green = stage.lab.writer(&stage.green().await?).context("green has no writer")?;
    for (database, relation) in [("orders", "public.events"), ("billing", "public.accounts_pkey")] {
        let sql = format!("select pg_relation_filenode('{relation}') from pg_class where oid = '{relation}'::regclass");
        let on_green: u32 = green.admin(database).await?.query_one(&sql, &[]).await?.get(0);
        let on_blue = stage.sql(database, &sql).await?.unwrap_or_default();
        ensure!(on_blue != on_green.to_string(), "{relation} of {database} has the file of blue, {on_blue}");
    }
    Ok(())
}
