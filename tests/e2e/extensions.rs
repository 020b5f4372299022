//! 15 to 17 with real pg_cron and pg_partman on both sides: quieted before, raised as the agent's role after, each one tried for
//! real, and everything as the user had set it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::demo::schema::Extensions;
use serde_json::Value;
use tests::stage::facts::Facts;
use tests::stage::pilot::with;
use tests::stage::{Setting, Stage, play};

use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(150);

/// The row that pg_cron keeps while a job runs; it stands here until the test ends the job.
const A_JOB_RUNS: &str =
    "insert into cron.job_run_details (jobid, runid, job_pid, database, username, command, status, start_time)
    values (1, -1, 0, 'postgres', 'postgres', 'select 1', 'running', clock_timestamp())";
const THE_JOB_ENDS: &str =
    "update cron.job_run_details set status = 'succeeded', end_time = clock_timestamp() where runid = -1
    returning to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cron_and_partman_are_quieted_raised_and_tried_from_15_to_17() {
    let extensions = Extensions::of(15, 17);
    assert!(extensions.cron && extensions.partman);
    play(Setting { from: 15, extensions, agents: 1, ..Setting::default() }, async |stage| {
        let identity = "select relreplident::text from pg_class where oid = 'partman.template_public_alerts'::regclass";
        let template = stage.sql("telemetry", identity).await?;
        ensure!(template.as_deref() == Some("d"), "the template has a replica identity of its own: {template:?}");
        let alerts = partitions(stage).await?;

        stage.sql("postgres", A_JOB_RUNS).await?;
        let spec = with(with(stage.spec(17), "after.refresh_views", true), "provisioning.premake_hours", 144);
        let mut upgrade = stage.upgrade(&spec).await?;
        let ended = end_the_job_when_all_are_off(stage).await?;
        upgrade.ended(2 * LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&upgrade.id).await?;
        quieted(&facts, &ended)?;
        raised_and_tried(&facts)?;
        as_the_user_had_it(stage, alerts).await?;
        succeeded(stage, &upgrade.id, 17).await
    })
    .await;
}

/// Waits until every job is off and has been for two seconds, ends the one that still runs, and says when.
async fn end_the_job_when_all_are_off(stage: &Stage) -> anyhow::Result<String> {
    let look = async || {
        let asked = "select (select count(*) from cron.job where active) || ' active, for two seconds: ' ||
            (clock_timestamp() > start_time + interval '2 seconds') from cron.job_run_details where runid = -1";
        match stage.sql("postgres", asked).await {
            Ok(Some(seen)) if seen == "0 active, for two seconds: true" => Ok(()),
            Ok(seen) => Err(format!("{seen:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    };
    stage.tempo.until("quiet jobs", Duration::from_millis(100), LIMIT, look).await?;
    stage.sql("postgres", THE_JOB_ENDS).await?.context("the run that was made up")
}

async fn partitions(stage: &Stage) -> anyhow::Result<u64> {
    let count = "select count(*) from pg_inherits where inhparent = 'public.alerts'::regclass";
    Ok(stage.sql("telemetry", count).await?.unwrap_or_default().parse()?)
}

fn output<'a>(facts: &'a Facts, step: &str) -> anyhow::Result<&'a Value> {
    let done = facts.0.iter().find(|seen| seen["kind"] == "step_done" && seen["fact"]["step"] == step);
    Ok(&done.with_context(|| format!("{step} is not done\n{}", facts.story()))?["fact"]["output"])
}

/// Both jobs were off and the running one awaited, partitions reach six days ahead.
fn quieted(facts: &Facts, job_ended: &str) -> anyhow::Result<()> {
    let quiesced = &output(facts, "prerequisites")?["quiesced"];
    ensure!(quiesced["cron_jobs"] == 2 && quiesced["partition_sets"] == 1, "{quiesced}");
    ensure!(quiesced["partitions_made"].as_u64() >= Some(2), "{quiesced}");
    let done = facts.of_kind("effect_done", Some("prerequisites")).find(|seen| seen["fact"]["key"] == "quiesce");
    let done = done.and_then(|seen| seen["at"].as_str()).context("quiesce has no time")?;
    ensure!(done > job_ended, "quieted at {done}, while a job ran until {job_ended}");
    Ok(())
}

/// Each extension reached the target's version and did its work on the new production.
fn raised_and_tried(facts: &Facts) -> anyhow::Result<()> {
    let moved = output(facts, "post_switchover")?;
    for (name, from, to) in [("pg_cron", "1.4-1", "1.6"), ("pg_partman", "4.7.2", "5.2.4")] {
        let of_it = |list: &str| moved[list].as_array().and_then(|all| all.iter().find(|one| one["name"] == name));
        let raised = of_it("extensions").with_context(|| format!("{name} was not raised: {moved}"))?;
        ensure!(raised["from"] == from && raised["to"] == to, "{raised}");
        let tried = of_it("tests").with_context(|| format!("{name} was not tried: {moved}"))?;
        ensure!(tried["passed"] == true && tried["version"] == to, "{tried}");
    }
    ensure!(moved["unquiesced"]["cron_jobs"] == 2 && moved["unquiesced"]["partition_sets"] == 1, "{moved}");
    Ok(())
}

/// Jobs and sets are as before, nothing of the tests is left, and the user's own maintenance works.
async fn as_the_user_had_it(stage: &Stage, alerts: u64) -> anyhow::Result<()> {
    let jobs =
        stage.sql("postgres", "select string_agg(jobname, ' ' order by jobname) from cron.job where active").await?;
    ensure!(jobs.as_deref() == Some("beat sweep"), "active jobs on the new side: {jobs:?}");
    let sets = "select string_agg(concat_ws(' ', parent_table, automatic_maintenance, premake), ', ') from partman.part_config";
    let sets = stage.sql("telemetry", sets).await?;
    ensure!(sets.as_deref() == Some("public.alerts on 3"), "partition sets on the new side: {sets:?}");
    let made = partitions(stage).await?;
    ensure!(made >= alerts + 2, "{made} partitions, {alerts} before");
    let raise = "update partman.part_config set premake = 12 where parent_table = 'public.alerts'";
    stage.sql("telemetry", raise).await?;
    stage.sql("telemetry", "select partman.run_maintenance('public.alerts')").await?;
    let after = partitions(stage).await?;
    ensure!(after > made, "the user's own maintenance made no partition: {made} before, {after} after");
    Ok(())
}
