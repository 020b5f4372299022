//! Every verb of the command line on one upgrade that asks a person for everything, and the metrics of both binaries.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::install;
use serde_json::Value;
use tests::stage::facts::Facts;
use tests::stage::pilot::with;
use tests::stage::{CLUSTER, Setting, Stage, http, play};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::report;
use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(120);

/// What must be told of the coordinator while it upgrades.
const OF_COORDINATOR: [&str; 12] = [
    "pilot_build_info",
    "pilot_phase",
    "pilot_step_duration_seconds",
    "pilot_replication_lag_bytes",
    "pilot_ingestion_backlog",
    "pilot_ingestion_rate",
    "pilot_sessions_purged_total",
    "pilot_sessions_ended_total",
    "pilot_downtime_seconds",
    "pilot_schema_changes_total",
    "pilot_agent_links",
    "pilot_facts_total",
];
/// On every series of the agent.
const OF_AGENT_1: &str = "{cluster=\"orders\",agent=\"agent-1\"}";
/// What must be told of an agent.
const OF_AGENT: [&str; 7] = [
    "pilot_agent_build_info",
    "pilot_agent_link_up",
    "pilot_agent_replication_lag_bytes",
    "pilot_agent_ingestion_backlog",
    "pilot_agent_ingestion_rate",
    "pilot_agent_resident_bytes",
    "pilot_agent_probe_writable",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_follows_approves_pauses_and_resumes_an_upgrade_and_reads_its_metrics() {
    play(Setting { agents: 1, ..Setting::default() }, async |stage| {
        explained(stage).await?;
        let mut spec = with(stage.spec(16), "reboot.policy", "approve");
        spec = with(spec, "switchover.approve", true);
        spec = with(spec, "cleanup.policy", "approve");
        let mut upgrade = stage.upgrade(&spec).await?;
        let id = upgrade.id.clone();
        agents(stage).await?;
        approve(stage, &id, "reboot").await?;
        pause_and_resume(stage, &id).await?;
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks("switchover")).await?;
        metrics(stage).await?;
        report::while_it_goes_on(stage, &id).await?;
        tune(stage, &id).await?;
        postpone(stage, &id).await?;
        detach(stage, &id).await?;
        quick(stage, &id).await?;
        approve(stage, &id, "switchover").await?;
        postponed(stage, &id).await?;
        stage.wait_until(&id, "the cleanup's approval", LIMIT, asks("cleanup")).await?;
        let after = http::ask(&stage.admin, "GET", "/metrics", "").await?;
        ensure!(
            after.contains(&format!("pilot_downtime_seconds{{upgrade=\"{id}\",cluster=\"orders\",kind=\"write\"}}")),
            "no downtime:\n{after}"
        );
        stage.pilot(&["approve", &id, "--output", "json"]).await?.json()?;
        let ended = upgrade.ended(LIMIT, &stage.tempo).await?;
        ended.expect(0, &[])?;
        ensure!(ended.json()?["outcome"] == "succeeded", "{}", ended.out);
        ended_views(stage, &id).await?;
        report::of_the_whole(stage, &id).await?;
        one_id_tells_the_story(stage, &id).await?;
        succeeded(stage, &id, 16).await
    })
    .await;
}

fn asks(name: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["approvals"][0]["name"] == name
}

async fn explained(stage: &Stage) -> anyhow::Result<()> {
    stage.pilot(&["explain", "pu0024"]).await?.expect(0, &["# PU0024", "## What to do"])?;
    let none = stage.pilot(&["status", "--output", "json"]).await?.json()?;
    ensure!(none["upgrades"].as_array().is_some_and(Vec::is_empty), "{none}");
    let found = stage.pilot(&["preflight", "--cluster", CLUSTER, "--to", "16", "--output", "json"]).await?.json()?;
    ensure!(found["blocked"] == false && found["findings"].is_array(), "{found}");
    Ok(())
}

async fn agents(stage: &Stage) -> anyhow::Result<()> {
    let seen = stage.pilot(&["agents", "--output", "json"]).await?.json()?;
    let agent = &seen["clusters"][0]["agents"][0];
    ensure!(agent["agent"] == "agent-1" && agent["connected"] == true && agent["lead"] == true, "{seen}");
    stage.pilot(&["agents"]).await?.expect(0, &["agent-1", "connected", "lead"])
}

async fn approve(stage: &Stage, id: &str, name: &'static str) -> anyhow::Result<()> {
    // The wish for an approval and that the step waits for it are two facts.
    let waits = |status: &Value| asks(name)(status) && status["health"] == "person";
    let status = stage.wait_until(id, name, LIMIT, waits).await?;
    ensure!(status["next_action"] == format!("pilot approve {id} {name}").as_str(), "{status}");
    let answer = stage.pilot(&["approve", id, name, "--output", "json"]).await?;
    answer.expect(0, &[])?;
    ensure!(answer.json()?["upgrade"] == id, "{}", answer.out);
    Ok(())
}

async fn pause_and_resume(stage: &Stage, id: &str) -> anyhow::Result<()> {
    stage.pilot(&["pause", id, "--output", "json"]).await?.expect(0, &[])?;
    let paused = |status: &Value| status["current"]["asks_person"] == true && status["approvals"][0].is_null();
    stage.wait_until(id, "the pause", LIMIT, paused).await?;
    let facts = stage.history(id).await?.0.len();
    stage.pilot(&["status", id]).await?.expect(0, &[id, CLUSTER])?;
    stage.pilot(&["resume", id, "--output", "json"]).await?.expect(0, &[])?;
    let look = async || match stage.history(id).await {
        Ok(now) if now.0.len() > facts + 1 => Ok(()),
        Ok(now) => Err(now.story()),
        Err(error) => Err(format!("{error:#}")),
    };
    stage.tempo.until("going on after the pause", Duration::from_millis(100), LIMIT, look).await
}

/// Thresholds change while it runs, together where they need each other; what cannot be is refused by name.
async fn tune(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let value = |view: &Value, key: &str, field: &str| {
        let settings = view["settings"].as_array().cloned().unwrap_or_default();
        settings.into_iter().find(|setting| setting["key"] == key).map(|setting| setting[field].clone())
    };
    for (change, part) in [
        ("replication.lag=5", "replication.lag_bytes_max"),
        ("replication.lag_bytes_max=lots", "4MiB"),
        ("switchover.timeout_seconds=600", "switchover.hold_seconds_max"),
    ] {
        stage.pilot(&["tune", id, change]).await?.expect(2, &["PU1301", part])?;
    }
    let together = ["switchover.timeout_seconds=10m", "switchover.hold_seconds_max=11m", "switchover.attempts=5"];
    let tuned = stage.pilot(&[&["tune", id][..], &together, &["--output", "json"]].concat()).await?;
    ensure!(tuned.json()?["taken"] == true, "{}\n{}", tuned.out, tuned.err);
    let view = stage.pilot(&["tune", id, "--output", "json"]).await?.json()?;
    for (key, now, before) in [
        ("switchover.timeout_seconds", 600, 300),
        ("switchover.hold_seconds_max", 660, 420),
        ("switchover.attempts", 5, 3),
    ] {
        ensure!(value(&view, key, "value") == Some(now.into()), "{key}: {view}");
        ensure!(value(&view, key, "started_with") == Some(before.into()), "{key}: {view}");
    }
    stage.pilot(&["tune", id]).await?.expect(0, &["* switchover.attempts", "5 times (was 3 times)", "lag_bytes_max"])
}

/// Everything before goes on; the approval alone does not begin the switchover.
async fn postpone(stage: &Stage, id: &str) -> anyhow::Result<()> {
    stage.pilot(&["postpone", id, "--until", "2020-01-01T00:00:00Z"]).await?.expect(2, &["PU1302", "--for 2h"])?;
    stage.pilot(&["postpone", id]).await?.expect(0, &["the postponement is in the journal"])?;
    stage.pilot(&["status", id]).await?.expect(0, &["postponed: no switchover until told otherwise"])
}

async fn postponed(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let waits = |status: &Value| {
        let waiting = status["current"]["waiting_for"].as_str().unwrap_or_default();
        waiting.contains("postponed by a person until told otherwise")
    };
    let status = stage.wait_until(id, "the postponement", LIMIT, waits).await?;
    ensure!(status["next_action"] == format!("pilot postpone {id} --off"), "{status}");
    ensure!(status["current"]["asks_person"] == false && status["health"] == "ok", "{status}");
    stage.pilot(&["postpone", id, "--off"]).await?.expect(0, &["the end of the postponement is in the journal"])
}

/// Ctrl-C leaves a follower and not the upgrade. Where there is a terminal one line moves; where not, lines are plain.
async fn detach(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let plain = stage.follows(&["watch", id])?;
    let said = plain.interrupted("waits for a person", &stage.tempo).await?;
    said.expect(
        130,
        &["detached; the upgrade goes on", &format!("pilot watch {id}"), "waits for a person: pilot approve"],
    )?;
    ensure!(!said.err.contains('\x1b') && !said.out.contains('\x1b'), "escape codes in a pipe: {}", said.err);
    let drawn = stage.follows_on_terminal(&["watch", id])?;
    let drawn = drawn.interrupted("switchover (5 of 7)", &stage.tempo).await?;
    drawn.expect(130, &["detached; the upgrade goes on", "switchover (5 of 7)"])?;
    ensure!(drawn.out.contains('\x1b'), "nothing was drawn on the terminal: {}", drawn.out);
    ensure!(stage.status(id).await?["outcome"].is_null(), "it has ended with its followers");
    Ok(())
}

/// Figures: `MEASURE=1`. Two clusters' worth of facts are there by now, and the agents' reports.
async fn quick(stage: &Stage, id: &str) -> anyhow::Result<()> {
    if std::env::var_os("MEASURE").is_none() {
        return Ok(());
    }
    for args in [&["status"][..], &["status", id]] {
        let mut times = Vec::new();
        for _ in 0..50 {
            let began = stage.tempo.at();
            stage.pilot(args).await?.expect(0, &[])?;
            times.push(stage.tempo.at() - began);
        }
        times.sort();
        println!("pilot {}: median {:?}, worst {:?}", args.join(" "), times[25], times[49]);
        ensure!(times[25] < Duration::from_millis(50), "pilot {} takes {:?}", args.join(" "), times[25]);
    }
    Ok(())
}

/// From the command to AWS's request ids and the agents' jobs: one id, in every log.
async fn one_id_tells_the_story(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let facts = stage.history(id).await?;
    let tuned = facts.of_kind("asked", None).find(|seen| seen["fact"]["request"]["request"] == "tune");
    let ask = tuned.as_ref().and_then(|seen| seen["fact"]["ask"].as_str()).context("the wish's id")?.to_owned();
    let log = stage.coordinator.log();
    let of =
        |text: &str, words: &[&str]| text.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    ensure!(of(&log, &[&ask, id, "a wish was asked for"]) == 1, "the wish {ask} is not in the log");
    ensure!(of(&log, &[&ask, id, "fact=\"asked\""]) == 1, "{ask} is no fact");
    ensure!(of(&log, &[id, "an upgrade was asked for", "request="]) == 1, "who started {id} is not in the log");
    for operation in ["CreateBlueGreenDeployment", "SwitchoverBlueGreenDeployment", "DeleteDBCluster"] {
        let calls = of(&log, &[&format!("run={id}"), operation, "request_id=\""]);
        ensure!(calls > 0, "{operation} has no request id of AWS with {id}");
        ensure!(of(&log, &[operation, "request_id=\"none\""]) == 0, "{operation} was answered without an id");
    }
    let agent = stage.agents.iter().map(|agent| agent.log()).collect::<String>();
    ensure!(of(&agent, &[&format!("{id}/post_provisioning/"), "job done"]) > 0, "no job of {id} in the agent's log");
    ensure!(of(&agent, &["intent", &format!("upgrade={id}")]) > 0, "no intent of {id} in the agent's log");
    Ok(())
}

async fn metrics(stage: &Stage) -> anyhow::Result<()> {
    let coordinator = http::ask(&stage.admin, "GET", "/metrics", "").await?;
    described(&coordinator, &OF_COORDINATOR)?;
    let at_work = coordinator.lines().filter(|line| line.starts_with("pilot_phase{") && line.ends_with(" 1"));
    ensure!(at_work.count() == 1, "not one step at work:\n{coordinator}");
    ensure!(coordinator.contains("pilot_agent_links{cluster=\"orders\"} 1\n"), "not one agent:\n{coordinator}");
    let agent = stage.agent_metrics(0).await?;
    described(&agent, &OF_AGENT)?;
    ensure!(agent.contains(&format!("pilot_agent_link_up{OF_AGENT_1} 1\n")), "no link:\n{agent}");
    let resident =
        agent.lines().find_map(|line| line.strip_prefix("pilot_agent_resident_bytes")?.strip_prefix(OF_AGENT_1));
    let resident: f64 = resident.context("the agent's memory")?.trim().parse()?;
    ensure!(resident < f64::from(20 << 20), "the agent has {resident} bytes resident");
    for text in [coordinator, agent] {
        checked_by_prometheus(&text).await?;
        ensure!(!text.contains("lab-agent"), "a password is among the metrics");
    }
    Ok(())
}

/// Prometheus's own tool finds nothing to say about it.
async fn checked_by_prometheus(text: &str) -> anyhow::Result<()> {
    let tool = install::ensure_promtool(&|_| {}).await?;
    let mut check = Command::new(tool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.kill_on_drop(true).spawn().context("starting promtool")?;
    check.stdin.take().context("promtool takes no input")?.write_all(text.as_bytes()).await?;
    let said = check.wait_with_output().await?;
    let said = [String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr)].concat();
    ensure!(said.trim().is_empty(), "promtool says: {said}");
    Ok(())
}

/// Every name has samples, a type and a help text.
fn described(text: &str, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        for (what, wanted) in [("sample", format!("\n{name}")), ("type", format!("# TYPE {name} "))] {
            ensure!(text.contains(&wanted), "{name} has no {what} in:\n{text}");
        }
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        ensure!(help.is_some_and(|help| !help.trim().is_empty()), "{name} has no help");
    }
    Ok(())
}

async fn ended_views(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let watched = stage.pilot(&["watch", id, "--output", "json"]).await?;
    watched.expect(0, &[])?;
    ensure!(watched.json()?["outcome"] == "succeeded", "{}", watched.out);
    stage
        .pilot(&["history", id])
        .await?
        .expect(0, &["switched over", "cleanup done and verified", "upgrade succeeded"])?;
    let facts = Facts::of(&stage.pilot(&["history", id, "--output", "json"]).await?.json()?)?;
    let wishes = facts.of_kind("asked", None).filter_map(|seen| seen["fact"]["request"]["request"].as_str());
    let wishes: Vec<&str> = wishes.collect();
    let expected = ["approve", "pause", "resume", "tune", "postpone", "approve", "postpone", "approve"];
    ensure!(wishes == expected, "{wishes:?}");
    let all = stage.pilot(&["status", "--output", "json"]).await?.json()?;
    ensure!(all["upgrades"][0]["id"] == id && all["upgrades"][0]["outcome"] == "succeeded", "{all}");
    stage.pilot(&["abort", id, "--confirm", CLUSTER]).await?.expect(2, &["has ended"])
}
