//! Bad input: each case is refused before anything is touched, with exit 2 (bad usage 64) and with what to do.

use std::time::Duration;

use anyhow::ensure;
use lab::Fault;
use lab::faults::Feature;
use tests::stage::pilot::{Said, with};
use tests::stage::{CLUSTER, Setting, Stage, play};

/// `pilot upgrade` with this spec is refused; what it said.
async fn refused(stage: &Stage, spec: &toml::Table, words: &[&str]) -> anyhow::Result<()> {
    match stage.try_upgrade(spec).await? {
        Ok(upgrade) => anyhow::bail!("{} was started, although {words:?}", upgrade.id),
        Err(said) => said.expect(2, words),
    }
}

/// The lab saw no changing call, and no upgrade was begun.
async fn untouched(stage: &Stage) -> anyhow::Result<()> {
    let changes = stage.changes_at_aws();
    ensure!(changes.is_empty(), "AWS was asked for {changes:?}");
    let all = stage.pilot(&["status", "--output", "json"]).await?.json()?;
    ensure!(all["upgrades"].as_array().is_some_and(Vec::is_empty), "{all}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_before_anything_is_touched_and_says_what_to_do() {
    play(Setting { agents: 0, ..Setting::default() }, async |stage| {
        agents(stage).await?;
        targets(stage).await?;
        cluster(stage).await?;
        spec_and_usage(stage).await?;
        permissions(stage).await?;
        databases(stage).await?;
        untouched(stage).await?;
        second_upgrade(stage).await
    })
    .await;
}

async fn agents(stage: &mut Stage) -> anyhow::Result<()> {
    refused(stage, &stage.spec(16), &["PU0020", "no agent", "start pilot-agent"]).await?;
    let elsewhere = stage.cluster.arn.replace("us-east-1", "eu-west-1");
    stage.start_agent("agent-far", Some(&elsewhere), false)?;
    let far = &stage.agents[0];
    let look = async || if far.log().contains("PU0110") { Ok(()) } else { Err(far.tail(3)) };
    let (every, limit) = (Duration::from_millis(50), Duration::from_secs(20));
    stage.tempo.until("an agent of another region to be cut and told why", every, limit, look).await?;
    let other = stage.cluster.arn.replace(":orders", ":billing");
    stage.start_agent("agent-other", Some(&other), false)?;
    stage.until_connected(1).await?;
    refused(stage, &stage.spec(16), &["PU0020", "no agent"]).await?;
    stage.start_agent("agent-1", None, false)?;
    stage.until_connected(2).await
}

async fn targets(stage: &Stage) -> anyhow::Result<()> {
    for lower in [13, 14] {
        refused(stage, &stage.spec(lower), &["PU0013", "name a higher major version"]).await?;
    }
    for beyond in ["99", "16.99"] {
        refused(stage, &with(stage.spec(16), "to", beyond), &["PU0014", "choose one of", "16.15"]).await?;
    }
    refused(stage, &with(stage.spec(16), "to", "sixteen"), &["PU0001", "write a major version"]).await
}

async fn cluster(stage: &Stage) -> anyhow::Result<()> {
    refused(stage, &with(stage.spec(16), "cluster", "nosuch"), &["PU0011", "nosuch", "name a cluster"]).await?;
    let looks = Fault::Looks { cluster: CLUSTER.into(), feature: Feature::OtherEngine };
    stage.lab.faults().plan(looks, 1);
    let said = refused(stage, &stage.spec(16), &["PU0012", "aurora-mysql", "name an Aurora PostgreSQL cluster"]).await;
    stage.lab.faults().clear();
    said
}

async fn spec_and_usage(stage: &Stage) -> anyhow::Result<()> {
    refused(stage, &with(stage.spec(16), "switchover.speed", "fast"), &["PU0001", "speed"]).await?;
    refused(stage, &with(stage.spec(16), "switchover.timeout_seconds", 5), &["PU0001", "use 30 to 3600"]).await?;
    for (usage, words) in [
        (vec!["fly"], vec!["unrecognized subcommand"]),
        (vec!["upgrade", "--cluster", CLUSTER], vec!["--to"]),
        (vec!["upgrade", "--cluster", CLUSTER, "--to", "16"], vec!["--yes"]),
        (vec!["upgrade", "--spec", "/nowhere/spec.toml"], vec!["/nowhere/spec.toml"]),
        (vec!["abort"], vec!["<ID>"]),
    ] {
        stage.pilot(&usage).await?.expect(64, &words)?;
    }
    stage.pilot(&["status", "up-nosuch"]).await?.expect(2, &["up-nosuch"])?;
    stage.pilot(&["explain", "PU9999"]).await?.expect(2, &["PU9999", "`pilot explain` lists"])
}

async fn permissions(stage: &Stage) -> anyhow::Result<()> {
    for action in ["DescribeDBClusters", "DescribeBlueGreenDeployments", "DescribePendingMaintenanceActions"] {
        stage.lab.faults().plan(
            Fault::Refuse {
                action: action.into(),
                code: "AccessDenied".into(),
                status: 403,
                message: format!("User is not authorized to perform: rds:{action}"),
            },
            1,
        );
        let said = refused(stage, &stage.spec(16), &["PU0203", &format!("rds:{action}"), "allow it"]).await;
        stage.lab.faults().clear();
        said?;
    }
    Ok(())
}

async fn databases(stage: &Stage) -> anyhow::Result<()> {
    stage.sql_as_owner("billing", "create table scratch (n int)").await?;
    let said: anyhow::Result<Said> =
        stage.pilot(&["preflight", "--cluster", CLUSTER, "--to", "16", "--output", "json"]).await;
    said?.expect(2, &["PU0024", "scratch"])?;
    refused(stage, &stage.spec(16), &["PU0024", "scratch", "replica_identity_full"]).await?;
    stage.sql_as_owner("billing", "drop table scratch").await?;
    refused(stage, &with(stage.spec(16), "verify.queries", vec!["nosuch"]), &["PU0023", "nosuch", "configuration"])
        .await?;
    stage.pilot(&["preflight", "--cluster", CLUSTER, "--to", "16"]).await?.expect(0, &[])?;
    what_green_would_not_follow(stage).await
}

/// Unlogged tables, large objects and triggers that fire on replicas, on a real server: found by name, one after the other.
async fn what_green_would_not_follow(stage: &Stage) -> anyhow::Result<()> {
    for (make, remove, code, words) in [
        ("create unlogged table scratch (id int primary key)", "drop table scratch", "PU0025", "public.scratch"),
        ("select lo_create(4711)", "select lo_unlink(4711)", "PU0026", "1 in billing"),
        (
            "create table t (id int primary key); create function f() returns trigger language plpgsql as 'begin return new; end';
             create trigger audit before insert on t for each row execute function f(); alter table t enable always trigger audit",
            "drop table t; drop function f()",
            "PU0040",
            "public.t: audit",
        ),
    ] {
        stage.sql_as_owner("billing", make).await?;
        // The triggers are only warned of.
        let exit = if code == "PU0040" { 0 } else { 2 };
        let said = stage.pilot(&["preflight", "--cluster", CLUSTER, "--to", "16", "--output", "json"]).await?;
        said.expect(exit, &[code, words])?;
        stage.sql_as_owner("billing", remove).await?;
    }
    stage.sql_as_owner("billing", "create unlogged table scratch (id int primary key)").await?;
    refused(stage, &stage.spec(16), &["PU0025", "public.scratch", "rds.logically_replicate_unlogged_tables"]).await?;
    stage.sql_as_owner("billing", "drop table scratch").await?;
    stage.pilot(&["preflight", "--cluster", CLUSTER, "--to", "16"]).await?.expect(0, &[])
}

async fn second_upgrade(stage: &mut Stage) -> anyhow::Result<()> {
    let mut upgrade = stage.upgrade(&with(stage.spec(16), "reboot.policy", "approve")).await?;
    let id = upgrade.id.clone();
    refused(stage, &stage.spec(16), &["PU0004", &id, "pilot watch"]).await?;
    let limit = Duration::from_secs(60);
    let asked =
        stage.wait_until(&id, "the reboot's approval", limit, |status| status["approvals"][0]["name"] == "reboot");
    asked.await?;
    refused(stage, &stage.spec(16), &["PU0004", &id]).await?;
    stage.pilot(&["abort", &id, "--confirm", CLUSTER]).await?.expect(0, &[])?;
    upgrade.ended(limit, &stage.tempo).await?.expect(1, &["unwound"])
}
