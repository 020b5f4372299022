//! What people can do to a run, what they cannot, and when the run asks for them.

use std::time::Duration;

use jiff::Timestamp;

use super::toy::{Act, Stage, Toy, plan};
use crate::driver::Ended;
use crate::fact::{Entry, Fact, Outcome, Request};
use crate::failure::{FailureClass, codes};
use crate::ids::StepId;
use crate::state::Status;
use crate::step::Gate;

const LONG: Duration = Duration::from_secs(80_000);

#[tokio::test(start_paused = true)]
async fn a_pause_calms_and_a_resume_continues_the_attempt() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.run", Act::Until("door", LONG));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    stage.say(Request::Pause).await;
    let seen = going.sees(|progress| progress.asks_operator).await;
    assert_eq!(seen.waiting.unwrap().code, codes::PAUSED);
    assert_eq!(stage.world.log().last().unwrap(), "calm");
    stage.clock.sleep(Duration::from_secs(3600)).await;
    stage.say(Request::Resume).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    assert_eq!(stage.state().await.step(StepId("b")).unwrap().attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn approvals_are_asked_for_by_gates_and_inside_steps() {
    let stage = Stage::new(plan()).await;
    stage.world.on("a.check", Act::Gate(Gate::Approval { name: "reboot", why: "30 s".into() }));
    stage.world.on("b.run", Act::Approval("spend"));
    stage.world.on("b.run", Act::Approval("spend"));
    let going = stage.go();
    going.sees(|progress| progress.asks_operator).await;
    let open = stage.state().await;
    assert_eq!(
        open.open_approvals().collect::<Vec<_>>(),
        [(StepId("a"), "reboot", "30 s")],
        "in the fold, for readers"
    );
    stage.say(Request::Approve { name: Some("something else".into()) }).await;
    stage.clock.sleep(Duration::from_secs(60)).await;
    assert!(going.handle.progress().borrow().asks_operator, "another name approves nothing");
    stage.say(Request::Approve { name: Some("reboot".into()) }).await;
    going.folds(|state| state.open_approvals().any(|(_, name, _)| name == "spend")).await;
    stage.say(Request::Approve { name: None }).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    assert_eq!(stage.state().await.step(StepId("b")).unwrap().attempt, 1, "the answer continues the attempt");
}

#[tokio::test(start_paused = true)]
async fn an_abort_unwinds_and_does_not_restart() {
    let stage = Stage::new(plan().restart_from(StepId("a"), 5)).await;
    stage.world.on("b.run", Act::Until("door", LONG));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    stage.say(Request::Abort).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Unwound));
    assert_eq!(stage.state().await.round(), 1);
}

/// While the armed call is under way, everything is asked for; then it happens, or not.
async fn armed(happens: bool) -> (Ended, Stage) {
    let stage = Stage::new(plan()).await;
    if !happens {
        stage.world.on("p.armed", Act::Fail(FailureClass::Unknown));
    }
    stage.world.on("p.look", Act::Hang(Duration::from_secs(300)));
    let going = stage.go();
    going.folds(|state| state.armed()).await;
    for request in [Request::Pause, Request::Abort, Request::Postpone { until: jiff::Timestamp::MAX }] {
        stage.say(request).await;
    }
    stage.clock.sleep(Duration::from_secs(120)).await;
    let state = going.handle.state();
    assert!(state.armed() && state.paused(), "nothing acts while armed, and the grace drops nothing");
    (going.end().await, stage)
}

#[tokio::test(start_paused = true)]
async fn nothing_acts_while_armed_until_the_outcome_is_read() {
    let (ended, stage) = armed(false).await;
    assert_eq!(ended, Ended::Finished(Outcome::Unwound), "the abort acts once it is proven that nothing happened");
    let log = stage.world.log();
    assert!(!log.contains(&"act cut".to_owned()), "armed and begun anew: it looks and never acts: {log:?}");
    let of = |what: &str| log.iter().position(|line| line == what).unwrap();
    assert!(of("p.look came back") < of("p.undo"), "the call was not cancelled: {log:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_while_armed_is_void_once_it_has_happened() {
    let stage = Stage::new(plan()).await;
    stage.world.on("p.look", Act::Hang(Duration::from_secs(300)));
    let going = stage.go();
    going.folds(|state| state.armed()).await;
    stage.say(Request::Abort).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    assert!(!stage.world.log().iter().any(|line| line.ends_with("undo")));
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_stopped_while_armed_reads_the_outcome_first() {
    let stage = Stage::new(plan()).await;
    stage.world.on("p.look", Act::Hang(Duration::from_secs(300)));
    let going = stage.go();
    going.folds(|state| state.armed()).await;
    going.stop.cancel();
    assert_eq!(going.end().await, Ended::Stopped);
    assert!(!stage.state().await.armed(), "the work went on until it was known what became of the call");
    assert!(stage.world.log().contains(&"p.look came back".to_owned()), "{:?}", stage.world.log());
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_armed_asks_a_person_and_then_looks_again() {
    let stage = Stage::new(plan()).await;
    stage.world.on("p.look", Act::Fail(FailureClass::NeedsOperator));
    for _ in 0..20 {
        stage.world.on("p.look", Act::Fail(FailureClass::Unknown)); // looking has no budget
    }
    let going = stage.go();
    going.sees(|progress| progress.asks_operator).await;
    assert!(going.handle.state().armed());
    assert!(!stage.world.log().contains(&"calm".to_owned()), "while armed, waiting must not open anything");
    stage.say(Request::Resume).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    let log = stage.world.log();
    assert_eq!(log.iter().filter(|line| *line == "act cut").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pivot_that_never_happens_spends_its_budget_and_looks_spend_none() {
    let stage = Stage::new(plan()).await;
    for _ in 0..10 {
        stage.world.on("p.look", Act::Fail(FailureClass::Transient));
    }
    for _ in 0..3 {
        stage.world.on("p.armed", Act::Fail(FailureClass::Unknown));
    }
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
    let story = stage.story().await;
    assert_eq!(
        story.iter().filter(|fact| *fact == "pivot_disarmed").count(),
        3,
        "first try and two retries: {story:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn after_the_point_of_no_return_failures_stop_for_a_person() {
    for (place, step) in [("p.after", StepId("p")), ("f.run", StepId("f"))] {
        let stage = Stage::new(plan()).await;
        stage.world.on(place, Act::Fail(FailureClass::Permanent));
        let going = stage.go();
        going.sees(|progress| progress.asks_operator).await;
        assert_eq!(going.handle.state().current().unwrap().id, step);
        stage.say(Request::Resume).await;
        assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
        let log = stage.world.log();
        assert_eq!(log.iter().filter(|line| *line == "act cut").count(), 1, "{log:?}");
        assert!(!log.iter().any(|line| line.ends_with("undo")), "{log:?}");

        let stage = Stage::new(plan()).await;
        stage.world.on(place, Act::Fail(FailureClass::Permanent));
        let going = stage.go();
        going.sees(|progress| progress.asks_operator).await;
        stage.say(Request::Abort).await;
        assert_eq!(going.end().await, Ended::Finished(Outcome::Stopped), "a person gives up");
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_who_is_needed_says_resume_and_the_attempt_goes_on() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.run", Act::Fail(FailureClass::NeedsOperator));
    let going = stage.go();
    let seen = going.sees(|progress| progress.asks_operator).await;
    assert!(seen.waiting.unwrap().text.contains("b.run was told to fail"));
    stage.say(Request::Resume).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    assert_eq!(stage.state().await.step(StepId("b")).unwrap().attempt, 1);
    assert_eq!(stage.world.log().iter().filter(|line| *line == "act thing").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_undo_stops_the_ones_before_it() {
    for (request, outcome) in [(Request::Resume, Outcome::Unwound), (Request::Abort, Outcome::Stopped)] {
        let stage = Stage::new(plan()).await;
        stage.world.on("p.run", Act::Fail(FailureClass::Permanent));
        stage.world.on("b.undo", Act::Fail(FailureClass::Transient));
        stage.world.on("b.undo", Act::Fail(FailureClass::Permanent));
        let going = stage.go();
        going.sees(|progress| progress.asks_operator).await;
        assert_eq!(going.handle.state().step(StepId("b")).unwrap().status, Status::Stuck);
        assert!(!stage.world.log().contains(&"a.undo".to_owned()));
        stage.say(request).await;
        assert_eq!(going.end().await, Ended::Finished(outcome));
        assert_eq!(stage.world.log().contains(&"a.undo".to_owned()), outcome == Outcome::Unwound);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_undone_before_the_world_is_calm() {
    let stage = Stage::new(plan()).await;
    for _ in 0..5 {
        stage.world.on("calm", Act::Fail(FailureClass::Permanent));
    }
    stage.world.on("b.run", Act::Fail(FailureClass::Permanent));
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
    let log = stage.world.log();
    let calms = log.iter().take_while(|line| *line != "b.undo").filter(|line| *line == "calm").count();
    assert_eq!(calms, 6);
    let warned = stage.facts().await.into_iter().filter(|entry| matches!(entry.fact, Fact::Warned { .. })).count();
    assert_eq!(warned, 1, "said once, tried for as long as it takes");
}

#[tokio::test(start_paused = true)]
async fn a_postponed_pivot_waits_for_its_time_or_until_told() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.run", Act::Until("door", LONG));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    let until = stage.clock.now() + Duration::from_secs(7200);
    stage.say(Request::Postpone { until }).await;
    stage.world.set("door", "open");
    let seen = going.sees(|progress| progress.waiting.as_ref().is_some_and(|why| why.code == codes::POSTPONED)).await;
    assert_eq!(seen.until, Some(until));
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    assert!(stage.clock.now() >= until);

    let stage = Stage::new(plan()).await;
    stage.say(Request::Postpone { until: Timestamp::MAX }).await;
    let going = stage.go();
    going.sees(|progress| progress.waiting.as_ref().is_some_and(|why| why.code == codes::POSTPONED)).await;
    stage.clock.sleep(Duration::from_secs(30 * 24 * 3600)).await;
    assert!(stage.world.cell("cut").is_none(), "nobody has told it");
    assert!(!going.handle.progress().borrow().asks_operator, "a person has asked for it and is not asked back");
    stage.say(Request::Postpone { until: stage.clock.now() }).await;
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn what_a_person_tunes_holds_from_the_next_attempt_and_at_once_for_what_is_judged_anew() {
    let tune = |wish: &str| Request::Tune { settings: [("wish".to_owned(), wish.into())].into() };
    let stage = Stage::new(plan()).await;
    stage.world.on("a.run", Act::Until("door", LONG));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    stage.say(tune("newer")).await;
    stage.say(Request::Tune { settings: [("speed".to_owned(), 5.into())].into() }).await;
    stage.world.on("a.verify", Act::Fail(FailureClass::Transient));
    stage.world.set("door", "open");
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    let state = stage.state().await;
    assert_eq!(state.spec().map(|spec| spec.wish.as_str()), Some("new"), "what was asked for stays");
    assert_eq!(state.in_force().map(|spec| spec.wish.as_str()), Some("newer"), "what cannot be changes nothing");
    let set = |entry: &Entry<Toy>| match &entry.fact {
        Fact::EffectDone { key, attempt, output, .. } if key == "setting" => Some((*attempt, output.clone())),
        _ => None,
    };
    let set: Vec<_> = stage.facts().await.iter().filter_map(set).collect();
    assert_eq!(set, [(1, "new".into()), (2, "newer".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_budget_is_the_one_in_force() {
    for (wish, runs) in [("patient", 4), ("new", 3), ("hasty", 1)] {
        let stage = Stage::new(plan()).await;
        (0..9).for_each(|_| stage.world.on("a.run", Act::Fail(FailureClass::Transient)));
        stage.say(Request::Tune { settings: [("wish".to_owned(), wish.into())].into() }).await;
        assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
        let log = stage.world.log();
        assert_eq!(log.iter().filter(|line| line.starts_with("a.run")).count(), runs, "{wish}");
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_come_back_is_dropped_after_the_grace() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.run", Act::Hang(LONG));
    let going = stage.go();
    going.folds(|state| state.step(StepId("b")).is_some_and(|step| step.effect("thing").is_some())).await;
    stage.say(Request::Abort).await;
    let began = stage.clock.mono();
    assert_eq!(going.end().await, Ended::Finished(Outcome::Unwound));
    assert!(stage.clock.mono() - began <= stage.options.interrupt_grace + Duration::from_secs(1));
    assert!(!stage.world.log().contains(&"b.run came back".to_owned()));
}
