//! `kill -9` where it hurts most: an agent that holds clients, before the call and after it, and the coordinator while an
//! interrupted statement runs again.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use lab::demo::schema::{self, LINES};
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::{Setting, Stage, play};

use super::cut::all_go_on;
use super::real_life::{events, long_statement, resubmitting};

const LIMIT: Duration = Duration::from_secs(120);
const HELD: &str = "paused hold=true";
const RELEASED: &str = "released kind=Gate";
/// The agent beside the pooler, and the one beside the ingestion service.
const HOLDER: usize = 1;
const OTHER: usize = 0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_while_it_holds_clients_lets_them_go_and_a_killed_coordinator_runs_no_statement_twice() {
    play(Setting { pooled: true, ..Setting::default() }, async |stage| {
        let spec = with(with(resubmitting(stage), "switchover.attempts", 6), "switchover.drain_ms", 8000);
        let spec = with(with(spec, "switchover.hold_ack_ms_max", 2500), "switchover.long_transaction_ms", 60_000);
        stage.expects(&[
            "no stream to the coordinator",
            "acting alone",
            "the job was cancelled",
            "due to lock timeout",
        ]);
        let mut upgrade = stage.upgrade(&spec).await?;
        let id = upgrade.id.clone();
        let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks).await?;
        before_the_call(stage, &id).await.context("an agent, in the hold")?;
        let nightly = nightly(stage).await?;
        after_the_call(stage).await.context("an agent, between the call and the release")?;
        while_it_runs_again(stage).await.context("the coordinator, while a statement runs again")?;
        nightly.abort();
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&id).await?;
        ensure!(facts.count("point_of_no_return") == 1, "{}", facts.story());
        let asked = stage.asked_of_aws("SwitchoverBlueGreenDeployment");
        ensure!(asked == 1, "AWS was asked {asked} times\n{}", facts.story());
        let mut verdicts: Vec<String> =
            events(&facts, "resubmission").iter().map(|event| event["verdict"]["verdict"].to_string()).collect();
        verdicts.dedup();
        let once = [r#""resubmitted""#, r#""already_done""#];
        ensure!(verdicts.iter().all(|verdict| once.contains(&verdict.as_str())), "{verdicts:?}");
        let lines = stage.sql("orders", "select count(*) || ' ' || count(distinct line) from nightly_lines").await?;
        ensure!(lines == Some(format!("{LINES} {LINES}")), "lines and different ones: {lines:?}\n{}", facts.story());
        let failed = stage.failed_statements("held-writes");
        ensure!(failed == 0, "{failed} statements of the held client failed");
        stage.ingestion_runs().await?;
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// Machines go while the old side is kept: what takes their place knows neither disk nor first names, and yet retires the old side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_on_new_machines_after_the_cut_find_both_sides_under_their_new_names() {
    play(Setting::default(), async |stage| {
        stage.expects(&["no stream to the coordinator"]);
        let mut upgrade = stage.upgrade(&with(stage.spec(16), "cleanup.policy", "approve")).await?;
        let asks = |status: &Value| status["approvals"][0]["name"] == "cleanup";
        stage.wait_until(&upgrade.id, "the cleanup's approval", LIMIT, asks).await?;
        for number in 0..stage.agents.len() {
            stage.agents[number].kill();
            stage.lose_disk(number)?;
            stage.agents[number].again()?;
        }
        stage.pilot(&["approve", &upgrade.id, "cleanup"]).await?.expect(0, &[])?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// The holder dies while clients are held: no call is made, and its next life lets them go before it dials.
async fn before_the_call(stage: &mut Stage, id: &str) -> anyhow::Result<()> {
    let holds = stage.agents[HOLDER].log().matches(HELD).count();
    let releases = stage.agents[OTHER].log().matches(RELEASED).count();
    let login = stage.master.database("billing").role(&schema::owner("billing"), schema::PASSWORD, "slow-writer");
    let slow = login.open(&stage.tempo, LIMIT).await?;
    // An open transaction keeps the hold open for as long as transactions may drain.
    slow.run(&stage.tempo, LIMIT, "begin; update console_notes set note = 'a moment' where id = 1").await?;
    stage.pilot(&["approve", id, "switchover"]).await?.expect(0, &[])?;
    stage.until_agent_logged(HOLDER, HELD, holds + 1, LIMIT).await?;
    stage.agents[HOLDER].kill();
    stage.until_logged("not heard from: agent-2 (PU0603)", LIMIT).await?;
    stage.until_agent_logged(OTHER, RELEASED, releases + 1, LIMIT).await?;
    let facts = stage.history(id).await?;
    ensure!(facts.count("pivot_armed") == 0, "armed without an agent\n{}", facts.story());
    stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 4000 }, 1);
    stage.agents[HOLDER].again()?;
    all_go_on(stage, "the holder's next life").await
}

/// Takes two minutes on blue and five seconds on green.
async fn nightly(stage: &Stage) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let sql = format!(
        "insert into nightly_lines (run, line, amount) select 1, g, g * 10 from generate_series(1, {LINES}) g where \
         pg_sleep(case when current_setting('server_version_num')::int / 10000 = 14 then 0.3 else 0.0125 end)::text = ''"
    );
    long_statement(stage, "orders", "nightly-batch", sql).await
}

/// The holder dies while AWS switches over, and comes back at once.
async fn after_the_call(stage: &mut Stage) -> anyhow::Result<()> {
    let stalled = async || match stage.lab.faults().outstanding() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    };
    stage.tempo.until("the call", Duration::from_millis(5), LIMIT, stalled).await?;
    stage.crash_agent(HOLDER)
}

/// The coordinator dies while the statement is at work on the new production.
async fn while_it_runs_again(stage: &mut Stage) -> anyhow::Result<()> {
    let runs = "select count(*) from pg_stat_activity where query like '%nightly_lines%' and wait_event = 'PgSleep'
        and current_setting('server_version_num') like '16%'";
    let look = async || match stage.sql("postgres", runs).await {
        Ok(Some(count)) if count == "1" => Ok(()),
        Ok(seen) => Err(format!("{seen:?}")),
        Err(error) => Err(format!("{error:#}")),
    };
    stage.tempo.until("the statement on green", Duration::from_millis(20), LIMIT, look).await?;
    stage.crash_coordinator().await
}
