//! `kill -9` of the coordinator and of an agent, at least once within every step and between arming and the outcome. The
//! journal itself shows that a kill was within a step: the epoch rises with every life of the coordinator. Hooks are asked and told
//! through all of it.

use std::time::Duration;

use anyhow::ensure;
use lab::Fault;
use serde_json::Value;
use tests::stage::hooks::{Receiver, STEPS, each_once};
use tests::stage::{Setting, Stage, play};

use super::upgrade::succeeded;

const STEP: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_in_every_step_and_while_armed_goes_on_where_it_was() {
    let receiver = Receiver::start().await.expect("a receiver");
    let setting = Setting { configured: receiver.configuration(), ..Setting::default() };
    play(setting, async |stage| {
        // AWS takes its time over the switchover: the kill is between the call and the outcome.
        let action = "SwitchoverBlueGreenDeployment";
        stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 3000 }, 1);
        let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
        for step in STEPS {
            let moment = match step {
                "prerequisites" => "prerequisites: about to do snapshot".to_owned(),
                "provisioning" => "provisioning: about to do create".to_owned(),
                _ => format!("{step} started"),
            };
            stage.until_logged(&moment, STEP).await?;
            stage.crash_coordinator().await?;
            if step == "switchover" {
                stage.until_logged("switchover armed", STEP).await?;
                let asked = async || match stage.asked_of_aws(action) {
                    0 => Err("not asked yet".to_owned()),
                    _ => Ok(()),
                };
                stage.tempo.until("the call", Duration::from_millis(5), STEP, asked).await?;
                stage.crash_coordinator().await?;
            }
        }
        upgrade.ended(STEP, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let facts = stage.history(&upgrade.id).await?;
        for step in STEPS {
            let (begun, done) = (facts.epoch("step_started", Some(step)), facts.epoch("step_done", Some(step)));
            ensure!(begun < done, "no kill was within {step} ({begun:?}, {done:?})\n{}", facts.story());
        }
        let (armed, read) = (facts.epoch("pivot_armed", None), facts.epoch("point_of_no_return", None));
        ensure!(armed < read, "no kill was while armed ({armed:?}, {read:?})\n{}", facts.story());
        hooks_were_asked_and_told(stage, &receiver, &upgrade.id).await?;
        succeeded(stage, &upgrade.id, 16).await
    })
    .await;
}

/// The point of every notice, each once, without what comes by chance (alarms of links that the kills have broken).
fn course(notices: &[Value]) -> Vec<&str> {
    let mut points: Vec<&str> = Vec::new();
    for point in notices.iter().filter_map(|notice| notice["point"].as_str()).filter(|point| *point != "alarm") {
        if !points.contains(&point) {
            points.push(point);
        }
    }
    points
}

/// Every point of the whole upgrade, in order, at least once and under the same id; and a person can try a hook.
async fn hooks_were_asked_and_told(stage: &Stage, receiver: &Receiver, id: &str) -> anyhow::Result<()> {
    let last = async || match receiver.took().iter().any(|notice| notice["point"] == "finished") {
        true => Ok(()),
        false => Err(format!("{:?}", course(&receiver.took()))),
    };
    stage.tempo.until("the last news", Duration::from_millis(50), STEP, last).await?;
    let asked = each_once(stage.asked()?);
    ensure!(course(&asked) == STEPS.map(|step| format!("before_{step}")), "asked: {:?}", course(&asked));
    let told = each_once(receiver.took());
    let mut expected: Vec<String> = STEPS.iter().map(|step| format!("after_{step}")).collect();
    expected.insert(4, "point_of_no_return".to_owned());
    expected.push("finished".to_owned());
    ensure!(course(&told) == expected, "told: {:?}", course(&told));
    let place = |notice: &Value| notice["delivery"].as_str().and_then(|id| id.split('/').nth(1)?.parse::<u64>().ok());
    ensure!(told.is_sorted_by_key(place), "not in order: {told:?}");
    let of_it = |notice: &&Value| {
        notice["upgrade"] == id && notice["cluster"] == "orders" && notice["version"] == 1 && notice["test"] == false
    };
    ensure!(asked.iter().chain(&told).all(|notice| of_it(&notice)), "{asked:?}\n{told:?}");
    ensure!(told.last().is_some_and(|last| last["outcome"] == "succeeded"), "{told:?}");

    let config = stage.file("coordinator.toml").display().to_string();
    let tried = stage.pilot(&["hooks", "test", "--config", &config, "told", "--point", "alarm"]).await?;
    tried.expect(0, &["told of alarm as a test", "it answered 200"])?;
    ensure!(receiver.took().last().is_some_and(|last| last["test"] == true), "{:?}", receiver.took().last());
    let tried = stage
        .pilot(&["hooks", "test", "--config", &config, "asked", "--point", "before_prerequisites", "--output", "json"])
        .await?;
    tried.expect(0, &["\"exit\":0", "\"outcome\":\"go\"", "before_prerequisites"])?;
    stage.pilot(&["hooks", "test", "--config", &config, "nobody"]).await?.expect(2, &["configured are: asked, told"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_in_every_step_comes_back_and_nothing_is_done_twice() {
    play(Setting::default(), async |stage| {
        let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
        for (number, step) in STEPS.into_iter().enumerate() {
            stage.until_logged(&format!("{step} started"), STEP).await?;
            // The first agent leads and controls ingestion; the other one has its turn too.
            stage.crash_agent(0)?;
            if number % 2 == 1 {
                stage.crash_agent(1)?;
            }
        }
        upgrade.ended(STEP, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let lives = stage.agents[0].log().matches(" started").count();
        ensure!(lives > STEPS.len(), "the first agent had {lives} lives");
        succeeded(stage, &upgrade.id, 16).await
    })
    .await;
}
