//! The report of an upgrade that was really made: it says what the status says, it is one valid HTML file, and its hash is computed
//! again from the history by the line that it prints.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::install;
use serde_json::Value;
use tests::stage::{CLUSTER, Stage, http};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A parser that judges HTML by the standard, with what it needs; installed once, into the cache folder.
const PARSER: [&str; 3] = ["html5lib==1.1", "six==1.17.0", "webencodings==0.5.1"];
const STRICT: &str = "import sys, html5lib; html5lib.HTMLParser(strict=True).parse(sys.stdin.buffer.read())";
const LIMIT: Duration = Duration::from_secs(120);

/// An upgrade that goes on has a report too, and it says that it has not ended.
pub(super) async fn while_it_goes_on(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let words = ["**NOT ENDED**", "Nothing to do yet", "the upgrade has not ended"];
    stage.pilot(&["report", id, "--format", "md"]).await?.expect(0, &words)
}

/// Every format of the report of an upgrade that succeeded.
pub(super) async fn of_the_whole(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let report = stage.pilot(&["report", id, "--format", "json"]).await?.json()?;
    let status = stage.status(id).await?;
    agrees(&report, &status)?;
    snapshots_are_there(stage, &report).await.context("snapshots")?;
    computed_again(stage, &report).await.context("the journal's hash")?;
    let page = stage.pilot(&["report", id]).await?;
    page.expect(0, &["<!DOCTYPE html>", id])?;
    valid(stage, &page.out).await.context("the HTML")?;
    let made = |page: &str| page.trim_end().replacen(report["made_at"].as_str().unwrap_or("?"), "", 1).len();
    let served = http::ask(&stage.admin, "GET", &format!("/upgrades/{id}/report.html"), "").await?;
    ensure!(made(&served).abs_diff(made(&page.out)) < 10, "the page is another one than the command's");
    let file = std::env::temp_dir().join(format!("{id}.md"));
    let out = file.display().to_string();
    let said = stage.pilot(&["report", id, "--format", "md", "--out", &out]).await?;
    said.expect(0, &[&format!("the report of {id} is in {out}")])?;
    let written = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;
    ensure!(said.out.is_empty() && written.starts_with(&format!("# Upgrade of {CLUSTER}: PostgreSQL 14")), "{written}");
    stage.pilot(&["report", "nobody"]).await?.expect(2, &["there is no upgrade nobody"])?;
    terraform(stage, id).await
}

fn agrees(report: &Value, status: &Value) -> anyhow::Result<()> {
    for same in ["downtime", "counts", "seconds", "started_at", "asked_by"] {
        ensure!(report[same] == status[same], "{same}: {} and {}", report[same], status[same]);
    }
    ensure!(report["verdict"]["outcome"] == status["outcome"], "{}", report["verdict"]);
    ensure!(report["cut"]["moments"] == status["switchover"], "{}", report["cut"]);
    ensure!(report["plan_as_named"] == true, "plan and digest do not agree: {}", report["plan_digest"]);
    ensure!(report["versions"]["agents"][0]["agent"] == "agent-1", "{}", report["versions"]);
    for (kind, figure) in [
        ("write", "write_unavailable_ms"),
        ("read", "read_unavailable_ms"),
        ("held", "held_ms"),
        ("ingestion_paused", "ingestion_paused_ms"),
    ] {
        let rows = report["outages"]["rows"].as_array().context("outages")?.iter();
        let counted = rows.filter(|row| row["kind"] == kind && row["counts"] == true);
        let counted = counted.filter(|row| kind != "write" || row["during"] == "cut");
        let ms: u64 = counted.filter_map(|row| row["ms"].as_u64()).sum();
        ensure!(status["downtime"][figure] == ms, "{kind}: {ms} charted, {} told", status["downtime"][figure]);
    }
    let verified = &report["verification"];
    let databases = verified["databases"].as_array().context("databases")?;
    let tables: u64 = databases.iter().filter_map(|one| one["tables"].as_u64()).sum();
    ensure!(tables > 0 && verified["tables"] == tables, "{verified}");
    ensure!(verified["rows"].as_u64() > Some(0) && verified["largest"][0]["equal"] == true, "{verified}");
    let markers = verified["markers"].as_array().context("markers")?.len();
    ensure!(markers >= databases.len() && verified["objects"].as_u64() > Some(0), "{verified}");
    ensure!(report["statistics"]["vacuumed"].as_u64() > Some(0), "{}", report["statistics"]);
    let changed = report["changes"].to_string();
    for wanted in ["version of production", "cluster parameter group", "rebooted once", "upgrade_pilot", "old cluster"]
    {
        ensure!(changed.contains(wanted), "{wanted} is not among {changed}");
    }
    let asked: Vec<&str> =
        report["people"]["rows"].as_array().context("people")?.iter().filter_map(|row| row["what"].as_str()).collect();
    ensure!(asked.contains(&"approve switchover") && asked.contains(&"pause"), "{asked:?}");
    Ok(())
}

async fn snapshots_are_there(stage: &Stage, report: &Value) -> anyhow::Result<()> {
    let there = stage.aws("DescribeDBClusterSnapshots", &[]).await?;
    let named = report["snapshots"].as_array().context("snapshots")?;
    ensure!(named.len() == 3, "{named:?}");
    let gone = named.iter().filter_map(|one| one["id"].as_str()).find(|id| !there.contains(*id));
    ensure!(gone.is_none(), "{gone:?} is not at AWS");
    Ok(())
}

/// The very line that the report prints, in a shell.
async fn computed_again(stage: &Stage, report: &Value) -> anyhow::Result<()> {
    let line = report["journal"]["how"].as_str().context("how")?;
    let folder = stage.cli.program.parent().context("the program has a folder")?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("PATH", path).env("PILOT_COORDINATOR", &stage.cli.coordinator);
    let done = stage.tempo.within(LIMIT, shell.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let done = done.context("it did not end")??;
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(report["journal"]["sha256"] == said.trim(), "{said} instead of {}: {errors}", report["journal"]["sha256"]);
    Ok(())
}

/// A parser that stops at the first thing that the standard does not allow.
async fn valid(stage: &Stage, page: &str) -> anyhow::Result<()> {
    let mut parser = Command::new(python(stage).await?);
    parser.args(["-c", STRICT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut parser = parser.kill_on_drop(true).spawn()?;
    parser.stdin.take().context("it takes no input")?.write_all(page.as_bytes()).await?;
    let done = stage.tempo.within(LIMIT, parser.wait_with_output()).await.context("it did not end")??;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

async fn python(stage: &Stage) -> anyhow::Result<PathBuf> {
    let folder = install::cache_dir().join("html5lib");
    let venv = folder.join("venv");
    let (stamp, made_of) = (folder.join("complete"), PARSER.join(" "));
    if !std::fs::read_to_string(&stamp).is_ok_and(|there| there == made_of) {
        eprintln!("installing {made_of} into {}", venv.display());
        std::fs::create_dir_all(&folder)?;
        run(stage, Path::new("python3"), &["-m", "venv", "--clear", &venv.display().to_string()]).await?;
        let install = [&["install", "--quiet", "--disable-pip-version-check"], &PARSER[..]].concat();
        run(stage, &venv.join("bin/pip"), &install).await?;
        std::fs::write(&stamp, made_of)?;
    }
    Ok(venv.join("bin/python"))
}

async fn run(stage: &Stage, program: &Path, args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    let done = stage.tempo.within(LIMIT, command.args(args).stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let done = done.with_context(|| format!("{} did not end", program.display()))??;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// The follow-up has the real names of this cluster, and says of none that is not there.
async fn terraform(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let said = stage.pilot(&["report", id, "--format", "terraform"]).await?;
    said.expect(0, &[&format!("terraform import aws_rds_cluster.{CLUSTER} {CLUSTER}"), "CloudFormation"])?;
    let described = stage.aws("DescribeDBInstances", &[]).await?;
    for (name, ..) in stage.lab.members(CLUSTER) {
        ensure!(said.out.contains(&format!(" {name}\n")), "{name} is not imported:\n{}", said.out);
        let resource = described.split(&format!("<DBInstanceIdentifier>{name}</DBInstanceIdentifier>")).nth(1);
        let resource = resource.and_then(|rest| rest.split("<DbiResourceId>").nth(1)?.split('<').next());
        if let Some(resource) = resource {
            ensure!(said.out.contains(&format!("-> {resource}\n")), "{name} is {resource} now:\n{}", said.out);
        }
    }
    let groups = stage.aws("DescribeDBClusterParameterGroups", &[]).await?;
    let group = said.out.lines().find_map(|line| line.trim().strip_prefix("id = \"")?.strip_suffix('"'));
    let group = group.context("no group is imported")?;
    ensure!(groups.contains(group), "{group} is not at AWS");
    Ok(())
}

/// What was ended, resubmitted, purged and seen, each by its application.
pub(super) async fn of_the_trouble_of_real_life(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let report = stage.pilot(&["report", id, "--output", "json"]).await?.json()?;
    let row = |list: &str, application: &str| -> anyhow::Result<Value> {
        let rows = report[list]["rows"].as_array().with_context(|| list.to_owned())?;
        let row = rows.iter().find(|row| row["application"] == application);
        row.cloned().with_context(|| format!("{application} is not in {list}: {rows:?}"))
    };
    ensure!(row("purged", "console")?["waited_on"].is_string(), "{}", report["purged"]);
    let nightly = row("ended", "nightly-batch")?;
    ensure!(nightly["verdict"] == "resubmitted" && nightly["key"].is_string(), "{nightly}");
    let month_end = row("ended", "month-end")?["verdict"].to_string();
    ensure!(month_end.contains("will not run again"), "{month_end}");
    ensure!(report["notes"].to_string().contains("stale-pool"), "{}", report["notes"]);
    ensure!(report["counts"]["resubmitted"] == 1, "{}", report["counts"]);
    Ok(())
}
