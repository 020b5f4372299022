//! Databases over TLS, as on AWS: every certificate is verified in full, and after the cut a server's certificate follows its new
//! names some time later.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Timings;
use serde_json::Value;
use tests::stage::pilot::with;
use tests::stage::{CLUSTER, Setting, Stage, play};

use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(90);
/// How much later than the names the certificates change.
const LATE: Duration = Duration::from_secs(4);
/// The old side stays until the certificates have followed.
const RETENTION: u32 = 12;
const SESSIONS: &str = "select count(*)::text, coalesce(bool_and(ssl), false)::text from pg_stat_ssl join pg_stat_activity \
     using (pid) where application_name = 'upgrade_pilot' and backend_type = 'client backend'";

/// The agents have sessions on production's writer, and each is encrypted.
async fn encrypted(stage: &Stage) -> anyhow::Result<()> {
    let look = async || {
        let server = stage.lab.writer(CLUSTER).ok_or("production has no writer")?;
        let admin = server.admin("postgres").await.map_err(|error| error.chain())?;
        let row = admin.query_one(SESSIONS, &[]).await.map_err(|error| error.to_string())?;
        let (sessions, all): (String, String) = (row.get(0), row.get(1));
        if all == "true" { Ok(()) } else { Err(format!("{sessions} sessions, all encrypted: {all}")) }
    };
    stage.tempo.until("encrypted sessions of the agents", Duration::from_millis(100), LIMIT, look).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_follow_their_names_late_shut_no_agent_out() {
    let ms = Duration::from_millis;
    let timings =
        Timings { names_delay: ms(1000), green_names_delay: ms(2000), completed_delay: ms(3000), ..Timings::zero() };
    play(Setting { timings, pooled: true, database_tls: Some(LATE), ..Setting::default() }, async |stage| {
        let spec = with(stage.spec(16), "cleanup.retention_seconds", RETENTION);
        let mut upgrade = stage.upgrade(&spec).await?;
        encrypted(stage).await.context("on blue")?;
        stage.until_logged("switchover started", LIMIT).await?;
        let begun = stage.tempo.at();
        let cleans = |status: &Value| status["phase"] == "cleanup";
        stage.wait_until(&upgrade.id, "cleanup", LIMIT, cleans).await?;
        encrypted(stage).await.context("on green, with the names and without the certificates")?;
        // One that never dialled a name of before.
        stage.agents[0].kill();
        stage.agents[0].again()?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        encrypted(stage).await.context("on green, with certificates for its new names")?;

        let held = stage.longest_gap("held-writes", begun);
        ensure!(held < ms(2500), "the held client waited {held:?}");
        for agent in &stage.agents {
            let log = agent.log();
            ensure!(log.contains("the certificate is for another name of the cluster"), "none was late\n{log}");
            ensure!(!log.contains("invalid peer certificate"), "an agent was shut out\n{log}");
        }
        succeeded(stage, &upgrade.id, 16).await
    })
    .await;
}
