//! The whole plan, played: well, with everything lost and failing everywhere, and against the troubles AWS is known for.

mod around;
mod holding;

use engine::{Fact, Outcome, testing};
use proto::job::{JobFailure, JobFailureClass, JobKind};
use proto::jobs::{FindLeftovers, RemoveSchema, SchemaRemoved, Unquiesce, Unquiesced};

use super::testing::{CLUSTER, Stage, clock, cluster_of, spec};
use crate::{
    hooks::tests::{Does, Played, asking},
    hooks::{Hook, Hooks},
    rds::fake::{Creation, Fault, Switching},
    steps::codes,
    world::Upgrade,
};

fn failures(facts: &[engine::Entry<Upgrade>]) -> Vec<(engine::StepId, engine::Failure)> {
    let failed = facts.iter().filter_map(|entry| match &entry.fact {
        Fact::StepFailed { step, failure, .. } => Some((*step, failure.clone())),
        _ => None,
    });
    failed.collect()
}

fn ended(played: &testing::Played<Upgrade>, expected: Outcome) {
    let said: Vec<String> =
        failures(&played.facts).iter().map(|(step, failure)| format!("{step}: {failure}")).collect();
    assert_eq!(played.outcome, expected, "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_whole_plan_moves_production_to_green_and_leaves_nothing_behind() {
    let stage = Stage::new(clock());
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Succeeded);
    let now = cluster_of(&stage.aws, CLUSTER).await.expect("production");
    assert_eq!(now.engine_version.major(), Some(16));
    assert!(cluster_of(&stage.aws, "orders-old1").await.is_none());
    let order: Vec<&str> = stage.aws.calls().into_iter().map(|call| call.operation).collect();
    let at = |operation: &str| order.iter().position(|o| *o == operation).unwrap_or_else(|| panic!("no {operation}"));
    assert!(at("CreateDBClusterSnapshot") < at("ModifyDBCluster"), "{order:?}");
    assert!(at("RebootDBInstance") < at("CreateBlueGreenDeployment"), "{order:?}");
    assert!(at("CreateBlueGreenDeployment") < at("SwitchoverBlueGreenDeployment"), "{order:?}");
    assert!(at("DeleteBlueGreenDeployment") < at("DeleteDBCluster"), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn lost_at_every_append_and_failing_at_every_effect_it_ends_complete_or_as_before() {
    // A hook is asked before every step, and says wait before it says go.
    let make = async || {
        let stage = Stage::new(clock());
        let says = Played::new(|_, n| if n % 2 == 0 { Does::Says(75, "a moment") } else { Does::Says(0, "") });
        let hook = Hook { ask_again: std::time::Duration::from_secs(1), ..asking("patient") };
        *stage.hooks.lock().unwrap() = Some(Hooks::over(vec![hook], says, None, stage.clock.clone()));
        stage.scene(spec())
    };
    let report = Box::pin(testing::conformance(make)).await;
    assert!(report.appends > 20, "{report:?}");
    println!("{} runs, {} appends, {} effects", report.runs, report.appends, report.effects.len());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_turns_invalid_is_quoted_and_unwound() {
    let stage = Stage::new(clock());
    stage.aws.creation(Creation::Invalid { reason: "incompatible parameter(s): [max_replication_slots]".into() });
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    let (_, failure) = failures(&played.facts).pop().expect("a failure");
    assert_eq!(failure.code, codes::DEPLOYMENT_INVALID);
    assert!(failure.to_string().contains("max_replication_slots"), "{failure}");
}

/// Fails a few times before it does what it does, as a database that is away.
fn away<J: JobKind>(answer: impl Fn() -> J::Output + Send + 'static) -> impl FnMut(J) -> Result<J::Output, JobFailure> {
    let mut times = 3;
    move |_| {
        if times == 0 {
            return Ok(answer());
        }
        times -= 1;
        let (class, code) = (JobFailureClass::Transient, "PU0705".to_owned());
        Err(JobFailure { class, code, doing: "connecting".into(), chain: vec!["blue does not answer".into()] })
    }
}

#[tokio::test(start_paused = true)]
async fn an_undoing_that_meets_databases_that_are_away_asks_again_and_ends_with_the_world_as_before() {
    let stage = Stage::new(clock());
    stage.aws.creation(Creation::Invalid { reason: "no such class".into() });
    let (loud, gone) = (stage.databases.clone(), stage.databases.clone());
    stage
        .agents
        .answer(away::<FindLeftovers>(Vec::new))
        .answer(away::<Unquiesce>(move || {
            loud.lock().unwrap().quiet = false;
            Unquiesced { cron_jobs: 2, partition_sets: 1, rows_in_default: Vec::new() }
        }))
        .answer(away::<RemoveSchema>(move || {
            gone.lock().unwrap().schema = false;
            SchemaRemoved { databases: vec!["orders".into()], kept: Vec::new() }
        }));
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    let silent = played.facts.iter().filter(|entry| match &entry.fact {
        Fact::Warned { code, .. } => *code == crate::codes::JOB_SILENT,
        _ => false,
    });
    assert_eq!(silent.count(), 0, "a job that was asked for again was not given again");
}

#[tokio::test(start_paused = true)]
async fn a_reverted_switchover_is_tried_again_and_then_unwound() {
    let stage = Stage::new(clock());
    stage.aws.switching(Switching::Reverts { reason: "long running transactions".into() });
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    let armed = played.facts.iter().filter(|entry| matches!(entry.fact, Fact::PivotArmed { .. })).count();
    let disarmed = played.facts.iter().filter(|entry| matches!(entry.fact, Fact::PivotDisarmed { .. })).count();
    assert_eq!((armed, disarmed), (3, 3), "three attempts are the budget");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_the_one_call_is_read_and_never_sent_again() {
    let stage = Stage::new(clock());
    stage.aws.fail_once("SwitchoverBlueGreenDeployment", Fault::LostReply);
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_create_adopts_what_was_made() {
    let stage = Stage::new(clock());
    stage.aws.fail_once("CreateBlueGreenDeployment", Fault::LostReply);
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Succeeded);
    let created = stage.aws.calls().into_iter().filter(|c| c.operation == "CreateBlueGreenDeployment" && c.acted);
    assert_eq!(created.count(), 1);
}
