//! The agent follows a switchover by itself: clients go on at green's first write, while AWS still says that it is switching and
//! names still lead to blue; and a switchover that is taken back lets them go on on blue, never on green.

use std::time::Duration;

use anyhow::ensure;
use lab::status::Status;
use lab::{Fault, Timings};
use serde_json::Value;
use tests::stage::facts::Facts;
use tests::stage::pilot::with;
use tests::stage::{Setting, Stage, play};

const LIMIT: Duration = Duration::from_secs(150);
const SWITCHING: &str = "<Status>SWITCHOVER_IN_PROGRESS</Status>";

/// What AWS says of the deployment now.
async fn deployment(stage: &Stage) -> anyhow::Result<String> {
    stage.aws("DescribeBlueGreenDeployments", &[]).await
}

/// Waits until a client had more answers.
async fn answered(stage: &Stage, client: &str, within: Duration) -> anyhow::Result<()> {
    let before = stage.acknowledged(client);
    let look = async || match stage.acknowledged(client) {
        now if now > before + 3 => Ok(()),
        now => Err(format!("{} more", now - before)),
    };
    stage.tempo.until(&format!("answers to {client}"), Duration::from_millis(5), within, look).await
}

/// The provider's cut as on AWS, in a hurry: the status is told before connections go, and they are gone for a while.
fn cut() -> Timings {
    let ms = Duration::from_millis;
    Timings { initiated: ms(300), drop_delay: ms(300), window: ms(1500), ..Timings::zero() }
}

/// The phases that one side's server said, in order, from the last `AVAILABLE` on.
fn phases(facts: &Facts, side: &str) -> Vec<String> {
    let events = facts.of_kind("observed", None).map(|seen| &seen["fact"]["event"]);
    let told = events.filter(|event| event["event"] == "switchover_phase" && event["side"] == side);
    let words: Vec<String> = told.filter_map(|event| Some(event["phase"].as_str()?.to_owned())).collect();
    let from = words.iter().rposition(|word| word == "AVAILABLE").unwrap_or(0);
    words[from..].to_vec()
}

/// Green takes a write and the held client goes on, while AWS still says that it switches.
async fn served_by_green_before_aws_says_so(stage: &Stage) -> anyhow::Result<()> {
    stage.until_logged("green accepted a write", LIMIT).await?;
    answered(stage, "held-writes", Duration::from_secs(5)).await?;
    let said = deployment(stage).await?;
    ensure!(said.contains(SWITCHING), "AWS was not late, so nothing is shown: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_at_greens_first_write_and_never_there_when_it_is_taken_back() {
    let (completed_delay, names_delay) = (Duration::from_secs(12), Duration::from_secs(8));
    let timings = Timings { completed_delay, names_delay, ..cut() };
    play(Setting { pooled: true, timings, ..Setting::default() }, async |stage| {
        stage.lab.faults().plan(Fault::SwitchoverReverts { reason: "the lab took it back".into() }, 1);
        let mut upgrade = stage.upgrade(&with(stage.spec(16), "switchover.attempts", 3)).await?;
        let id = upgrade.id.clone();

        stage.until_logged("not switched over: ", LIMIT).await?;
        answered(stage, "held-writes", Duration::from_secs(20)).await?;
        let facts = stage.history(&id).await?;
        ensure!(facts.events("green_accepted_write") == 0, "a green that never served\n{}", facts.story());

        served_by_green_before_aws_says_so(stage).await?;

        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let facts = stage.history(&id).await?;
        ensure!(facts.count("point_of_no_return") == 1, "{}", facts.story());
        let story = phases(&facts, "green");
        let order = ["AVAILABLE", "SWITCHOVER_INITIATED", "SWITCHOVER_IN_PROGRESS", "SWITCHOVER_IN_POST_PROCESSING"];
        let place = |word: &String| order.iter().chain(&["SWITCHOVER_COMPLETED"]).position(|known| known == word);
        let places: Vec<_> = story.iter().map(place).collect();
        ensure!(places.is_sorted() && !places.contains(&None), "green said {story:?}\n{}", facts.story());
        ensure!(
            order.iter().all(|word| story.iter().any(|said| said == word)),
            "green said {story:?}\n{}",
            facts.story()
        );
        let status = stage.status(&id).await?;
        let moments = status["switchover"].as_array().cloned().unwrap_or_default();
        let has = |what: &str| moments.iter().any(|moment: &Value| moment["what"] == what);
        ensure!(has("status") && has("green_accepted_write"), "{moments:?}");
        ensure!(stage.failed_statements("held-writes") == 0, "statements of the held client failed");
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_stuck_keeps_nobody_waiting() {
    let timings = Timings { completed_delay: Duration::from_secs(12), names_delay: Duration::from_secs(8), ..cut() };
    play(Setting { pooled: true, timings, ..Setting::default() }, async |stage| {
        stage.lab.faults().plan(Fault::StatusStuck { status: Status::Available }, u32::MAX);
        let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
        let id = upgrade.id.clone();
        served_by_green_before_aws_says_so(stage).await?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let facts = stage.history(&id).await?;
        let story = phases(&facts, "green");
        ensure!(story == ["AVAILABLE"], "green said {story:?}, so the fault was none\n{}", facts.story());
        ensure!(stage.failed_statements("held-writes") == 0, "statements of the held client failed");
        stage.nothing_lost().await.map(drop)
    })
    .await;
}
