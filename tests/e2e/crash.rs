//! `kill -9` of the coordinator and of an agent, at least once within every step and between arming and the outcome. The
//! journal itself shows that a kill was within a step: the epoch rises with every life of the coordinator.

use std::time::Duration;

use anyhow::ensure;
use lab::Fault;
use tests::stage::{Setting, play};

use super::upgrade::succeeded;

const STEPS: [&str; 7] = [
    "prerequisites",
    "provisioning",
    "post_provisioning",
    "replicating_data",
    "switchover",
    "post_switchover",
    "cleanup",
];
const STEP: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_in_every_step_and_while_armed_goes_on_where_it_was() {
    play(Setting::default(), async |stage| {
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
        succeeded(stage, &upgrade.id, 16).await
    })
    .await;
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
