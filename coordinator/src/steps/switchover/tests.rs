//! What one attempt may wait for, and for how long: the gates, a call that is late, an outcome that cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Entry, Fact, FailureClass, Outcome, testing};
use proto::jobs::{Compare, Compared};
use runtime::clock::Mono;

use super::*;
use crate::rds::Status;
use crate::rds::fake::{Fake, Fault, Switching};
use crate::spec::UpgradeSpec;
use crate::steps::testing::{Stage, clock, spec};

/// One attempt of the cut, and no other round.
fn once() -> UpgradeSpec {
    let mut spec = spec();
    spec.switchover.attempts = 1;
    spec.retries = 0;
    spec
}

/// Is set when replicating is over: from then on only the cut's own gates look.
fn verified(stage: &Stage) -> Arc<AtomicBool> {
    let verified = Arc::new(AtomicBool::new(false));
    let tell = verified.clone();
    stage.agents.answer(move |_: Compare| {
        tell.store(true, Ordering::SeqCst);
        Ok(Compared { tables: Vec::new(), queries: Vec::new(), unproven: Vec::new(), rounds: 1 })
    });
    verified
}

/// From the beginning of the attempt to its failure, in seconds, and the failure.
fn attempt(facts: &[Entry<Upgrade>]) -> (i64, engine::Failure) {
    let began = facts.iter().find(|entry| matches!(entry.fact, Fact::StepStarted { step: ids::SWITCHOVER, .. }));
    let began = began.expect("the switchover was begun").at;
    let failed = facts.iter().find_map(|entry| match &entry.fact {
        Fact::StepFailed { step: ids::SWITCHOVER, failure, .. } => Some((entry.at, failure.clone())),
        _ => None,
    });
    let (at, failure) = failed.expect("the switchover failed");
    (at.duration_since(began).as_secs(), failure)
}

/// Seconds from arming to the fact that `ends` takes.
fn armed_for(facts: &[Entry<Upgrade>], ends: impl Fn(&Fact<Upgrade>) -> bool) -> i64 {
    let armed = facts.iter().find(|entry| matches!(entry.fact, Fact::PivotArmed { .. })).expect("armed");
    let end = facts.iter().find(|entry| ends(&entry.fact)).expect("the end of being armed");
    end.at.duration_since(armed.at).as_secs()
}

/// Blue's reader has something to do, or nothing.
fn busy(aws: &Fake, busy: bool) {
    let status = if busy { "modifying" } else { "available" };
    aws.edit_instance(&"orders-2".into(), |reader| reader.status = Status(status.into()));
}

fn switched_over(stage: &Stage) -> usize {
    stage.aws.calls().iter().filter(|call| call.operation == "SwitchoverBlueGreenDeployment").count()
}

#[tokio::test(start_paused = true)]
async fn gates_that_stay_shut_give_the_attempt_up_when_their_time_is_over() {
    for gates in [1800, 90] {
        let mut spec = once();
        assert_eq!(spec.switchover.gates_seconds_max, 1800, "half an hour, where nothing else is asked for");
        spec.switchover.gates_seconds_max = gates;
        shut(spec, i64::try_from(gates).unwrap()).await;
    }
}

async fn shut(spec: UpgradeSpec, gates: i64) {
    let stage = Stage::new(clock());
    let verified = verified(&stage);
    *stage.tamper.lock().unwrap() = Some(Box::new(move |report| {
        if verified.load(Ordering::SeqCst) {
            report.marker.as_mut().expect("a marker").max_ms = Some(60_000);
        }
    }));
    let played = testing::play(stage.scene(spec)).await;
    assert_eq!(played.outcome, Outcome::Unwound);
    let (seconds, failure) = attempt(&played.facts);
    assert_eq!((failure.code, failure.class), (codes::GATE_MISSED, FailureClass::Transient), "{failure}");
    assert!((gates..gates + 10).contains(&seconds), "given up after {seconds} s: {failure}");
    assert_eq!(switched_over(&stage), 0);
}

/// Half an hour is all that an attempt has, however many gates are shut one after the other.
#[tokio::test(start_paused = true)]
async fn gates_that_are_shut_in_turn_have_half_an_hour_together() {
    let stage = Stage::new(clock());
    let (verified, aws, clock, since) =
        (verified(&stage), stage.aws.clone(), stage.clock.clone(), std::sync::Mutex::new(None::<Mono>));
    *stage.tamper.lock().unwrap() = Some(Box::new(move |report| {
        if !verified.load(Ordering::SeqCst) {
            return;
        }
        // A reader that is busy for a thousand seconds, and lag all the while.
        let since = *since.lock().unwrap().get_or_insert(clock.mono());
        busy(&aws, clock.mono().since(since) < Duration::from_secs(1000));
        report.marker.as_mut().expect("a marker").max_ms = Some(60_000);
    }));
    let played = testing::play(stage.scene(once())).await;
    assert_eq!(played.outcome, Outcome::Unwound);
    let (seconds, failure) = attempt(&played.facts);
    assert!(failure.to_string().contains("marker delay is 60000 ms"), "{failure}");
    assert!((1800..1810).contains(&seconds), "given up after {seconds} s: {failure}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_gets_available_gives_the_attempt_up_and_not_the_upgrade() {
    let stage = Stage::new(clock());
    let (verified, aws, clock, since) =
        (verified(&stage), stage.aws.clone(), stage.clock.clone(), std::sync::Mutex::new(None::<Mono>));
    *stage.tamper.lock().unwrap() = Some(Box::new(move |_| {
        if verified.load(Ordering::SeqCst) {
            // Longer than the attempt, and not for ever: the world is to be as it was.
            let since = *since.lock().unwrap().get_or_insert(clock.mono());
            busy(&aws, clock.mono().since(since) < Duration::from_secs(1802));
        }
    }));
    let played = testing::play(stage.scene(once())).await;
    assert_eq!(played.outcome, Outcome::Unwound);
    let (seconds, failure) = attempt(&played.facts);
    assert_eq!((failure.code, failure.class), (codes::GATE_MISSED, FailureClass::Transient), "{failure}");
    assert!(failure.to_string().contains("orders-2 is modifying"), "{failure}");
    assert!((1800..1810).contains(&seconds), "given up after {seconds} s: {failure}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_taken_or_lost_and_shows_nothing_is_read_as_none_after_twenty_seconds() {
    for lost in [false, true] {
        let stage = Stage::new(clock());
        match lost {
            true => stage.aws.fail_once("SwitchoverBlueGreenDeployment", Fault::LostRequest),
            false => stage.aws.switching(Switching::Late(Duration::from_secs(86_400))),
        }
        let played = testing::play(stage.scene(once())).await;
        assert_eq!(played.outcome, Outcome::Unwound, "lost: {lost}");
        let seconds = armed_for(&played.facts, |fact| matches!(fact, Fact::PivotDisarmed { .. }));
        assert!((20..22).contains(&seconds), "lost: {lost}: read as not switched after {seconds} s");
        assert_eq!(attempt(&played.facts).1.code, codes::NOT_SWITCHED);
        assert_eq!(switched_over(&stage), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_begins_late_is_waited_for_and_never_taken_for_none() {
    let stage = Stage::new(clock());
    stage.aws.switching(Switching::Late(Duration::from_secs(18)));
    let played = testing::play(stage.scene(once())).await;
    assert_eq!(played.outcome, Outcome::Succeeded);
    assert!(!played.facts.iter().any(|entry| matches!(entry.fact, Fact::PivotDisarmed { .. })));
    assert_eq!(switched_over(&stage), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_read_is_asked_of_a_person_three_minutes_after_all_aws_may_take() {
    let stage = Stage::new(clock());
    stage.aws.switching(Switching::Hangs);
    let (aws, clock, since) = (stage.aws.clone(), stage.clock.clone(), std::sync::Mutex::new(None::<Mono>));
    *stage.tamper.lock().unwrap() = Some(Box::new(move |_| {
        // It goes on in the end, an hour after the call, so that the upgrade does.
        if aws.calls().iter().any(|call| call.operation == "SwitchoverBlueGreenDeployment") {
            let since = *since.lock().unwrap().get_or_insert(clock.mono());
            if clock.mono().since(since) > Duration::from_secs(3600) {
                aws.switching(Switching::Succeeds);
            }
        }
    }));
    let spec = once();
    let all = i64::from(spec.switchover.timeout_seconds + spec.switchover.revert_allowance_seconds) + 180;
    let played = testing::play(stage.scene(spec)).await;
    assert_eq!(played.outcome, Outcome::Succeeded);
    let failed = |fact: &Fact<Upgrade>| matches!(fact, Fact::StepFailed { step: ids::SWITCHOVER, .. });
    let seconds = armed_for(&played.facts, failed);
    assert!((all..all + 10).contains(&seconds), "a person was asked after {seconds} s, not {all}");
    let (_, failure) = attempt(&played.facts);
    assert_eq!((failure.code, failure.class), (codes::OUTCOME_UNREADABLE, FailureClass::NeedsOperator), "{failure}");
    assert_eq!(switched_over(&stage), 1, "and the call was not sent again");
}
