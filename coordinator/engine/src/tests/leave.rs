//! Leave that others give before a step: when it is asked for, when again, and what comes of a no.

use std::time::Duration;

use super::toy::{Act, Stage, plan, scene};
use crate::driver::Ended;
use crate::fact::{Fact, Outcome, Request};
use crate::failure::FailureClass;
use crate::ids::StepId;
use crate::step::Gate;
use crate::testing::{conformance, play};

const LONG: Duration = Duration::from_secs(80_000);

#[tokio::test(start_paused = true)]
async fn leave_is_asked_for_once_before_each_attempt_and_never_for_one_that_was_started() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.run", Act::Fail(FailureClass::Transient));
    stage.world.on("b.run", Act::Until("door", LONG));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    going.stop.cancel();
    assert_eq!(going.end().await, Ended::Stopped);
    stage.world.set("door", "open");
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded));
    assert_eq!(stage.world.leaves(), ["a 1", "b 1", "b 2", "p 1", "f 1"], "attempt 2 of b was continued");
}

#[tokio::test(start_paused = true)]
async fn leave_is_asked_for_when_the_gate_is_open_and_again_when_the_gate_has_closed_for_long() {
    let stage = Stage::new(plan()).await;
    let wait = |seconds| {
        let retry_after = Duration::from_secs(seconds);
        Act::Gate(Gate::Wait { reason: "not yet".into(), retry_after })
    };
    stage.world.on("b.check", wait(60));
    // Open, and asking takes longer than a check is good for; then it is closed for a moment, and once for long.
    stage.world.on("b.check", Act::Gate(Gate::Open));
    stage.world.on("b.leave", Act::Hang(Duration::from_secs(5)));
    stage.world.on("b.check", wait(10));
    stage.world.on("b.check", Act::Gate(Gate::Open));
    let going = stage.go();
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    assert_eq!(stage.world.leaves(), ["a 1", "b 1", "p 1", "f 1"]);

    let stage = Stage::new(plan()).await;
    stage.world.on("b.leave", Act::Hang(Duration::from_secs(5)));
    stage.world.on("b.check", Act::Gate(Gate::Open));
    stage.world.on("b.check", wait(60));
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded));
    assert_eq!(stage.world.leaves(), ["a 1", "b 1", "b 1", "p 1", "f 1"], "an old leave is none");
}

#[tokio::test(start_paused = true)]
async fn an_abort_or_a_pause_while_leave_is_waited_for_acts_at_once() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.leave", Act::Until("door", LONG));
    stage.world.on("b.leave", Act::Until("door", LONG));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    stage.say(Request::Pause).await;
    going.sees(|progress| progress.asks_operator).await;
    stage.say(Request::Resume).await;
    going.sees(|progress| progress.wait.is_some()).await;
    let began = stage.clock.mono();
    stage.say(Request::Abort).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Unwound));
    assert!(stage.clock.mono() - began < Duration::from_secs(2));
    let started = stage.story().await.into_iter().filter(|fact| *fact == "step_started b").count();
    assert_eq!(started, 0, "what had no leave was not started");
}

#[tokio::test(start_paused = true)]
async fn a_no_asks_a_person_or_turns_round_and_after_the_pivot_it_only_asks() {
    for step in ["a", "b", "p", "f"] {
        let stage = Stage::new(plan()).await;
        stage.world.on(&format!("{step}.leave"), Act::Approval("leave"));
        let going = stage.go();
        going.sees(|progress| progress.asks_operator).await;
        let open = stage.state().await;
        assert_eq!(open.open_approvals().map(|(at, ..)| at.as_str()).collect::<Vec<_>>(), [step]);
        stage.say(Request::Approve { name: None }).await;
        assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded), "{step}");

        let stage = Stage::new(plan()).await;
        stage.world.on(&format!("{step}.leave"), Act::Fail(FailureClass::Permanent));
        let going = stage.go();
        match step {
            "a" => assert_eq!(going.end().await, Ended::Finished(Outcome::Refused)),
            "f" => {
                going.sees(|progress| progress.asks_operator).await;
                assert!(!stage.world.log().iter().any(|line| line.ends_with("undo")), "undone after the pivot");
                stage.say(Request::Resume).await;
                assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
            }
            _ => assert_eq!(going.end().await, Ended::Finished(Outcome::Unwound), "{step}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn leave_that_panics_is_a_failed_step_and_the_matrix_stands_with_every_kind_of_leave() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.leave", Act::Panic);
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
    let approved = |world: &super::toy::World| world.on("p.leave", Act::Approval("go"));
    conformance(async || scene(approved, plan())).await;
    let played = play(scene(|world| world.on("f.leave", Act::Fail(FailureClass::Permanent)), plan())).await;
    assert_eq!(played.outcome, Outcome::Succeeded);
    let started = |entry: &&crate::fact::Entry<_>| matches!(entry.fact, Fact::StepStarted { step: StepId("f"), .. });
    assert_eq!(played.facts.iter().filter(started).count(), 1);
}
