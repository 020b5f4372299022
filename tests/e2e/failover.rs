//! Writers that fail over or restart at any moment (field rule 7.6): while green is built, while it follows, in the hold,
//! and between the call and the cut. One upgrade suffers them all and still ends well, in as many attempts as it takes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Fault;
use lab::fleet::Stop;
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::{CLUSTER, Setting, Stage, depth, play};

const LIMIT: Duration = Duration::from_secs(150);
const CALL: &str = "SwitchoverBlueGreenDeployment";
/// An agent says so when clients are held.
const HELD: &str = "paused hold=true";
/// Nobody may be held longer, whatever fails.
const HOLD_MAX: u64 = 60;

/// What happens to writers.
#[derive(Clone, Copy)]
enum Blow {
    /// Another member becomes the writer.
    Failover,
    /// The writer restarts.
    Reboot,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_fail_over_or_restart_at_any_moment_cost_attempts_and_no_row() {
    use Blow::{Failover, Reboot};
    suffered([(Failover, Reboot), (Reboot, Failover)]).await;
    if depth::is_full() {
        suffered([(Reboot, Failover), (Failover, Reboot)]).await;
    }
}

/// An upgrade under blows. `while_free` are those to blue and green before the hold, `held` those inside it.
async fn suffered([while_free, held]: [(Blow, Blow); 2]) {
    play(Setting { readers: 1, agents: 1, pooled: true, ..Setting::default() }, async |stage| {
        let mut upgrade = stage.upgrade(&patient(stage.spec(16))).await?;
        let id = upgrade.id.clone();

        stage.until_logged("provisioning: create is done", LIMIT).await?;
        strike(stage, CLUSTER, while_free.0).await.context("blue, while green is built")?;

        let at_it = |status: &Value| status["phase"] == "replicating_data" && status["current"]["doing"] == "run";
        stage.wait_until(&id, "replicating data", 2 * LIMIT, at_it).await?;
        let green = stage.green().await?;
        strike(stage, CLUSTER, Blow::Failover).await.context("blue, while green follows")?;
        strike(stage, &green, Blow::Failover).await.context("green, while it follows")?;
        // A crash loses the statistics' ages with it.
        let writer = stage.lab.writer(&green).context("green has no writer")?;
        writer.stop(Stop::Immediate).await?;
        writer.start().await?;

        let asks = |status: &Value| status["approvals"][0]["name"] == "switchover";
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks).await?;
        strike(stage, CLUSTER, while_free.1).await.context("blue, before the gates")?;
        strike(stage, &green, while_free.1).await.context("green, before the gates")?;

        let holds = |stage: &Stage| stage.agents[0].log().matches(HELD).count();
        let before = holds(stage);
        for (n, (cluster, blow)) in [(CLUSTER, held.0), (green.as_str(), held.1)].into_iter().enumerate() {
            // An open transaction keeps the hold open for as long as transactions may drain.
            let slow = stage.slow_writer().await?;
            if n == 0 {
                stage.pilot(&["approve", &id, "switchover"]).await?.expect(0, &[])?;
            }
            stage.until_agent_logged(0, HELD, before + n + 1, LIMIT).await?;
            strike(stage, cluster, blow).await.with_context(|| format!("{cluster}, in the hold"))?;
            drop(slow);
            let facts = stage.history(&id).await?;
            ensure!(facts.count("pivot_armed") == 0, "armed with a writer away\n{}", facts.story());
        }

        stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 4000 }, 1);
        until_writes_are_stopped(stage).await?;
        for cluster in [CLUSTER, green.as_str()] {
            let writer = stage.lab.writer(cluster).with_context(|| format!("{cluster} has no writer"))?;
            writer.restart().await.with_context(|| format!("{cluster}, between the call and the cut"))?;
        }

        upgrade.ended(2 * LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        ended_well(stage, &id).await
    })
    .await;
}

/// AWS is at work: the stall is taken, and blue takes no clients any more.
async fn until_writes_are_stopped(stage: &Stage) -> anyhow::Result<()> {
    let stalls = || !stage.lab.faults().outstanding().is_empty();
    let look = async || match stalls() || stage.sql("postgres", "create temporary table t ()").await.is_ok() {
        true => Err("blue takes writes".to_owned()),
        false => Ok(()),
    };
    stage.tempo.until("writes to be stopped", Duration::from_millis(20), LIMIT, look).await
}

async fn strike(stage: &Stage, cluster: &str, blow: Blow) -> anyhow::Result<()> {
    match blow {
        Blow::Failover => failover(stage, cluster).await,
        Blow::Reboot => reboot(stage, cluster).await,
    }
}

fn patient(spec: toml::Table) -> toml::Table {
    let spec = with(with(spec, "retries", 2), "switchover.approve", true);
    let spec = with(with(spec, "switchover.attempts", 8), "switchover.drain_ms", 4000);
    let spec = with(with(spec, "switchover.timeout_seconds", 30), "switchover.revert_allowance_seconds", 10);
    let spec = with(spec, "switchover.long_transaction_ms", 60_000);
    with(spec, "switchover.hold_seconds_max", i64::try_from(HOLD_MAX).unwrap_or(i64::MAX))
}

async fn ended_well(stage: &mut Stage, id: &str) -> anyhow::Result<()> {
    let facts = stage.history(id).await?;
    ensure!(facts.count("point_of_no_return") == 1, "{}", facts.story());
    ensure!(facts.count("stuck") == 0, "{}", facts.story());
    ensure!(facts.story().contains("vacuuming once more"), "the crash was not noticed\n{}", facts.story());
    ensure!(stage.asked_of_aws(CALL) <= facts.count("pivot_armed"), "called without being armed\n{}", facts.story());
    let held = stage.longest_gap("held-writes", Duration::ZERO);
    ensure!(held < Duration::from_secs(HOLD_MAX), "the held client waited {held:?}");
    let version = stage.sql("postgres", "show server_version_num").await?.unwrap_or_default();
    ensure!(version.starts_with("16"), "production runs {version}");
    stage.ingestion_runs().await?;
    stage.nothing_lost().await.map(drop)
}

/// Another member becomes the writer; returns when AWS says that it is done.
async fn failover(stage: &Stage, cluster: &str) -> anyhow::Result<()> {
    let before = writer_of(stage, cluster)?;
    stage.aws("FailoverDBCluster", &[("DBClusterIdentifier", cluster)]).await?;
    until_available(stage, cluster).await?;
    let after = writer_of(stage, cluster)?;
    ensure!(before != after, "{before} is still the writer of {cluster}");
    Ok(())
}

/// The writer restarts.
async fn reboot(stage: &Stage, cluster: &str) -> anyhow::Result<()> {
    stage.aws("RebootDBInstance", &[("DBInstanceIdentifier", &writer_of(stage, cluster)?)]).await?;
    until_available(stage, cluster).await
}

fn writer_of(stage: &Stage, cluster: &str) -> anyhow::Result<String> {
    let members = stage.lab.members(cluster);
    let writer = members.into_iter().find(|(_, _, writer)| *writer);
    Ok(writer.with_context(|| format!("{cluster} has no writer"))?.0)
}

async fn until_available(stage: &Stage, cluster: &str) -> anyhow::Result<()> {
    let look = async || {
        let clusters = stage.aws("DescribeDBClusters", &[("DBClusterIdentifier", cluster)]).await;
        let filter = [("Filters.Filter.1.Name", "db-cluster-id"), ("Filters.Filter.1.Values.Value.1", cluster)];
        let instances = stage.aws("DescribeDBInstances", &filter).await;
        let (clusters, instances) =
            (clusters.map_err(|error| error.to_string())?, instances.map_err(|error| error.to_string())?);
        let away = ["<Status>failing-over", "<DBInstanceStatus>rebooting"];
        match away.iter().find(|word| clusters.contains(**word) || instances.contains(**word)) {
            None => Ok(()),
            Some(word) => Err((*word).to_owned()),
        }
    };
    stage.tempo.until(&format!("{cluster} to be available"), Duration::from_millis(20), LIMIT, look).await
}
