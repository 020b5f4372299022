//! A whole upgrade over TLS, with certificates of `pilot agents enrol`: who may command it, who may not, and certificates that
//! are exchanged in the middle. Prometheus scrapes it all along, with a certificate too.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::stage::pilot::with;
use tests::stage::prometheus::Prometheus;
use tests::stage::{Setting, Stage, play};

use super::dashboard;
use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(240);
const OTHER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:another";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_over_tls_obeys_those_whose_certificates_allow_it_and_outlives_an_exchange_of_them() {
    play(Setting { agents: 1, tls: true, ..Setting::default() }, async |stage| {
        stage.expects(&["refused", "no stream to the coordinator, dialling on"]);
        let prometheus = Prometheus::start(stage).await?;
        dashboard::before_it(stage, &prometheus).await.with_context(|| prometheus.tail())?;
        let spec = with(stage.spec(16), "switchover.approve", true);
        let mut upgrade = stage.upgrade(&spec).await?;
        let id = upgrade.id.clone();
        a_viewer_changes_nothing(stage, &id).await?;
        an_agent_of_another_cluster_stays_out(stage).await?;
        stage
            .wait_until(&id, "the switchover's approval", LIMIT, |status| {
                status["approvals"][0]["name"] == "switchover"
            })
            .await?;
        let mut seen = BTreeSet::new();
        dashboard::while_it_waits(stage, &prometheus, &id, &mut seen).await?;
        renew(stage).await?;
        stage.pilot(&["approve", &id, "switchover"]).await?.expect(0, &[])?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &[])?;
        dashboard::after_the_end(stage, &prometheus, &id, seen).await?;
        drop(prometheus);
        let history = stage.pilot(&["history", &id]).await?;
        history.expect(0, &["tester asks: approve switchover"])?;
        ensure!(!history.out.contains("vera"), "a refused wish is in the journal: {}", history.out);
        let logs = stage.coordinator.log() + &stage.agents[0].log();
        ensure!(!logs.contains("PRIVATE KEY") && !logs.contains(tests::stage::role::PASSWORD), "a secret is in a log");
        succeeded(stage, &id, 16).await
    })
    .await;
}

async fn a_viewer_changes_nothing(stage: &Stage, id: &str) -> anyhow::Result<()> {
    let tls = stage.tls.as_deref().context("the stage has TLS")?;
    let vera = stage.cli.enrol(tls, "vera", &["--operator", "vera", "--role", "view"], &stage.tempo).await?;
    let vera = stage.cli.shows(vera);
    vera.run(&["status", id], &stage.tempo).await?.expect(0, &[id])?;
    for verb in [&["pause", id][..], &["approve", id, "switchover"], &["abort", id, "--confirm", "orders"]] {
        vera.run(verb, &stage.tempo).await?.expect(2, &["PU0112", "operator vera has the role view"])?;
    }
    // An agent's certificate is none of an operator, and no certificate none at all.
    let agent = stage.cli.shows(tls.join("agents"));
    agent.run(&["status"], &stage.tempo).await?.expect(2, &["PU0111", "is no operator"])?;
    let elsewhere = tls.join("elsewhere");
    let mallory = ["--operator", "mallory", "--role", "operate"];
    let foreign = stage.cli.enrol(&elsewhere, "mallory", &mallory, &stage.tempo).await?;
    std::fs::copy(tls.join("coordinator/ca.crt"), foreign.join("ca.crt"))?;
    stage.cli.shows(foreign).run(&["status"], &stage.tempo).await?.expect(2, &["PU0111", "UnknownC"])?;
    let log = stage.coordinator.log();
    let said = log.lines().filter(|line| line.contains("refused") && line.contains("PU0112")).count();
    ensure!(said == 1, "a role that is missing is logged {said} times:\n{log}");
    Ok(())
}

/// Its certificate is good, and for the stage's cluster only.
async fn an_agent_of_another_cluster_stays_out(stage: &mut Stage) -> anyhow::Result<()> {
    stage.start_agent("stranger", Some(OTHER), false)?;
    stage.until_agent_logged(1, "PU0110", 1, LIMIT).await?;
    let seen = stage.pilot(&["agents", "--output", "json"]).await?.json()?;
    ensure!(!seen.to_string().contains("stranger"), "{seen}");
    drop(stage.agents.pop());
    Ok(())
}

/// New certificates of the same authority for everybody, while the upgrade waits.
async fn renew(stage: &Stage) -> anyhow::Result<()> {
    let tls = stage.tls.as_deref().context("the stage has TLS")?;
    let cluster = &stage.cluster.arn;
    stage.cli.enrol(tls, "coordinator", &["--coordinator-name", "127.0.0.1"], &stage.tempo).await?;
    stage.cli.enrol(tls, "agents", &["--cluster", cluster], &stage.tempo).await?;
    let look = async || match stage.pilot(&["status"]).await {
        Ok(said) if said.code == 0 && stage.coordinator.log().contains("certificates exchanged") => Ok(()),
        Ok(said) => Err(format!("exit {}: {}", said.code, said.err)),
        Err(error) => Err(format!("{error:#}")),
    };
    stage.tempo.until("the exchange of certificates", Duration::from_millis(200), LIMIT, look).await
}
