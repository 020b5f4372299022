//! An abort while the switchover is armed, which AWS then takes back: only then it unwinds, and what was ended for the cut runs again on
//! blue. The undoing gets stuck twice: AWS denies the deletion, and a slot of the deployment is left on blue. Each time people are told
//! what and what to do, and nothing before it is undone.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use lab::demo::schema::LINES;
use lab::iam::Caller;
use serde_json::Value;
use tests::stage::{COORDINATOR, Setting, Stage, http, play};

use super::abort::{abort_while_armed, came_while_armed};
use super::iam::{less, policy, setting};
use super::real_life::{long_statement, resubmitting};
use super::unwind::unwound;

const LIMIT: Duration = Duration::from_secs(120);
const DELETION: &str = "rds:DeleteBlueGreenDeployment";
/// What AWS calls the slots of a deployment begins so.
const SLOT: &str = "rds_left_behind";
/// A client, and its statement, which writes a line and then takes minutes, unless somebody else runs it.
const BATCH: &str = "nightly-batch";
const INTO: &str = "insert into nightly_lines (run, line, amount) select 1, g, g * 10 from generate_series";
const SLOW: &str = "where pg_sleep(case when g > 1 and current_setting('application_name') = 'nightly-batch' then 60 else 0 end)::text = ''";
/// What is counted of it.
const STUCK: &str = "pilot_facts_total{kind=\"stuck\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_while_armed_waits_for_the_outcome_and_a_stuck_undo_is_shown_paged_and_resumed() {
    play(Setting { pooled: true, ..setting(less(DELETION)) }, async |stage| {
        let before = stage.world().await?;
        stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 3000 }, 1);
        stage.lab.faults().plan(Fault::SwitchoverFails { reason: "the lab's storage said no".into() }, 1);
        let mut upgrade = stage.upgrade(&resubmitting(stage)).await?;
        let id = upgrade.id.clone();
        let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks).await?;
        let batch = long_statement(stage, "orders", BATCH, format!("{INTO}(1, {LINES}) g {SLOW}")).await?;
        stage.pilot(&["approve", &id, "switchover"]).await?.expect(0, &[])?;
        abort_while_armed(stage, &id).await?;

        let said = upgrade.ended(LIMIT, &stage.tempo).await?;
        said.expect(3, &["PU0203", DELETION, &format!("pilot resume {id}")])?;
        shown_and_paged(stage, &id, 1, &["PU0203", DELETION, "allow it"]).await.context("AWS denies the deletion")?;
        ran_again_once(stage, &id).await.context("what was ended for the cut")?;
        batch.abort();
        let left = format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
        let blue = stage.blue_writer()?;
        blue.admin("postgres").await?.batch_execute(&left).await?;
        stage.lab.add_caller(Caller::new(COORDINATOR, policy()));
        stage.pilot(&["resume", &id]).await?.expect(0, &[])?;

        stage.wait_until(&id, "a slot to be in the way", LIMIT, |status| stuck(status).contains(SLOT)).await?;
        shown_and_paged(stage, &id, 2, &["PU0323", SLOT]).await.context("a slot is left on blue")?;
        let gone = format!("select pg_drop_replication_slot('{SLOT}')");
        blue.admin("postgres").await?.batch_execute(&gone).await?;
        stage.pilot(&["resume", &id]).await?.expect(0, &[])?;

        let watched = stage.pilot(&["watch", &id, "--output", "json"]).await?;
        watched.expect(1, &["unwound"])?;
        unwound(stage, &id, &before, &["the lab's storage said no"]).await?;
        came_while_armed(&stage.history(&id).await?, "pivot_disarmed")?;
        stage.goes_on("held-writes").await?;
        ensure!(stage.failed_statements("held-writes") == 0, "statements of the held client failed");
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// The statement that was ended for the cut has run again on blue, though the abort came before its attempt could do that.
async fn ran_again_once(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let facts = stage.history(id).await?;
    ensure!(facts.events("session_ended") == 1, "no statement was ended, so nothing is shown\n{}", facts.story());
    let lines = stage.sql("orders", "select count(*) || ' ' || count(distinct line) from nightly_lines").await?;
    ensure!(lines == Some(format!("{LINES} {LINES}")), "lines and different ones: {lines:?}\n{}", facts.story());
    Ok(())
}

/// What the step that is stuck says, or nothing.
fn stuck(status: &Value) -> String {
    let steps = status["steps"].as_array().cloned().unwrap_or_default();
    let failure = steps.iter().find(|step| step["state"] == "stuck").and_then(|step| step["failure"].as_str());
    failure.unwrap_or_default().to_owned()
}

/// For the `count`th time: `status` and `watch` say what is in the way, with its code and what a person can do; whoever follows ends
/// with exit code 3; it was counted, and a person is paged by it; and what comes before in the plan is not undone.
async fn shown_and_paged(stage: &Stage, id: &str, count: usize, words: &[&str]) -> anyhow::Result<()> {
    let resume = format!("pilot resume {id}");
    let waits = |status: &Value| status["health"] == "person" && !stuck(status).is_empty();
    let status = stage.wait_until(id, "the undoing to be stuck", LIMIT, waits).await?;
    let reason = status["reason"].as_str().unwrap_or_default();
    let next = status["next_action"].as_str().unwrap_or_default();
    for word in words {
        ensure!(reason.contains(word) && stuck(&status).contains(word), "{word:?} is not said: {status}");
    }
    ensure!(next.contains(&resume), "what a person can do is not said: {status}");
    for verb in ["status", "watch"] {
        let said = stage.pilot(&[verb, id]).await?;
        said.expect(if verb == "watch" { 3 } else { 0 }, &[words, &[resume.as_str()]].concat())?;
    }
    let facts = stage.history(id).await?;
    ensure!(facts.count("stuck") == count, "stuck {} times\n{}", facts.count("stuck"), facts.story());
    let early = facts.of_kind("undo_started", Some("prerequisites")).count();
    ensure!(early == 0, "the steps before the one that is stuck are undone\n{}", facts.story());
    stage.ingestion_runs().await?;
    stage.goes_on("held-writes").await?;

    let metrics = http::ask(&stage.admin, "GET", "/metrics", "").await?;
    ensure!(metrics.contains(&format!("\n{STUCK} {count}\n")), "{STUCK} is not {count}:\n{metrics}");
    // What `UpgradePilotStuck` asks for; that it fires then is tested with the rules.
    let paged = |line: &&str| {
        line.starts_with(&format!("pilot_upgrade_step_state{{upgrade=\"{id}\"")) && line.ends_with("state=\"stuck\"} 1")
    };
    ensure!(metrics.lines().filter(paged).count() == 1, "nobody is paged:\n{metrics}");
    Ok(())
}
