//! What a driver does when things go well, fail, stop and come back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::toy::{A, Act, B, F, P, Stage, TEST, Toy, plan};
use crate::driver::{DriveError, Ended};
use crate::fact::{Alarm, Fact, Outcome};
use crate::failure::{FailureClass, codes};
use crate::ids::{MonitorId, Source, StepId, Subject};
use crate::journal::{Append, Epoch, FoldError, Holder, Journal, JournalError, Seq};
use crate::monitor::{Monitor, MonitorCx};
use crate::plan::Plan;
use crate::state::Status;
use crate::step::{Gate, Step, Why};

fn count(log: &[String], what: &str) -> usize {
    log.iter().filter(|line| *line == what).count()
}

#[tokio::test(start_paused = true)]
async fn a_run_in_which_nothing_goes_wrong() {
    let stage = Stage::new(plan()).await;
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded));
    let story = stage.story().await;
    let told = "created, step_started a, effect_planned a, effect_done a, step_done a, step_started b, effect_planned b, \
                effect_done b, effect_planned b, effect_done b, step_done b, step_started p, effect_planned p, \
                effect_done p, pivot_armed, effect_planned p, effect_done p, point_of_no_return, step_done p, \
                step_started f, effect_planned f, effect_done f, step_done f, finished";
    assert_eq!(story.join(", "), told);
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded), "an ended run is not driven again");
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_a_new_attempt_and_undo_restores_the_first_before() {
    let stage = Stage::new(plan()).await;
    stage.world.on("a.run", Act::Fail(FailureClass::Transient));
    stage.world.on("b.run", Act::Fail(FailureClass::Permanent));
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
    let log = stage.world.log();
    assert_eq!(count(&log, "act setting"), 2, "a retry does its effects again: {log:?}");
    let expected = BTreeMap::from([("setting".to_owned(), "old".to_owned())]);
    assert_eq!(*stage.world.cells(), expected, "not the value that the second attempt found");
    let tail: Vec<&str> = log.iter().map(String::as_str).skip_while(|line| *line != "calm").collect();
    assert_eq!(tail, ["calm", "b.undo", "a.undo"], "calm first, then in reverse");
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_unwinds_and_says_so() {
    let stage = Stage::new(plan()).await;
    for _ in 0..3 {
        stage.world.on("b.run", Act::Fail(FailureClass::Transient));
    }
    let began = stage.clock.mono();
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
    assert!(stage.clock.mono() - began >= Duration::from_millis(2400), "1 s and 2 s of backoff, less the jitter");
    assert_eq!(stage.failures().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn gates_refuse_wait_skip_and_close() {
    let closed = || Act::Gate(Gate::Closed { reason: "not today".into() });
    let stage = Stage::new(plan()).await;
    stage.world.on("a.check", closed());
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Refused));
    assert_eq!(stage.story().await, ["created", "step_failed a", "finished"]);

    let stage = Stage::new(plan()).await;
    let wait = Gate::Wait { reason: "the moon".into(), retry_after: Duration::from_secs(3600) };
    stage.world.on("a.check", Act::Gate(wait));
    stage.world.on("b.check", Act::Gate(Gate::Skip { reason: "there already".into() }));
    stage.world.on("p.check", closed());
    let going = stage.go();
    let seen = going.sees(|progress| progress.waiting.is_some()).await;
    assert!(seen.waiting.unwrap().text == "the moon" && !seen.asks_operator && seen.until.is_some());
    assert_eq!(going.end().await, Ended::Finished(Outcome::Unwound));
    assert!(stage.clock.mono().0 >= Duration::from_secs(3600));
    let story = stage.story().await.join(", ");
    let tail = "step_done a, step_skipped b, step_failed p, undo_started a, undo_done a, finished";
    assert!(story.ends_with(tail), "only what was started is undone: {story}");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_driver_is_continued_in_the_same_attempt_and_its_effects_are_remembered() {
    let stage = Stage::new(plan()).await;
    stage.world.on("a.run", Act::Until("door", Duration::from_secs(600)));
    let going = stage.go();
    going.sees(|progress| progress.wait.as_ref().is_some_and(|wait| wait.last == "door is empty")).await;
    going.stop.cancel();
    assert_eq!(going.end().await, Ended::Stopped);
    assert_eq!(stage.journal_holder().await, None, "the lease is given back");
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded));
    let log = stage.world.log();
    assert_eq!((count(&log, "act setting"), count(&log, "a.run 1"), count(&log, "a.check")), (1, 2, 2), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_a_failure_that_quotes_the_last_status() {
    let stage = Stage::new(plan()).await;
    stage.world.on("a.run", Act::Until("door", Duration::from_secs(60)));
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
    let failure = &stage.failures().await[0];
    assert_eq!(failure.code, codes::DEADLINE);
    assert_eq!(failure.to_string(), "waiting 60 s for a cell: last seen: door is empty");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_panics_is_a_failed_step() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.run", Act::Panic);
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound));
    assert_eq!(stage.failures().await[0].code, codes::PANICKED);
}

#[tokio::test(start_paused = true)]
async fn a_driver_whose_epoch_was_taken_appends_nothing_more() {
    let stage = Stage::new(plan()).await;
    stage.world.on("a.run", Act::Until("door", Duration::from_secs(86_000)));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    let held = stage.driver("two").0.run(Default::default()).await;
    assert!(matches!(held, Err(DriveError::Journal { source: JournalError::Held { .. }, .. })), "{held:?}");
    let again = Holder { id: "one".into(), address: String::new() };
    stage.journal.acquire(&Subject::from("s"), &again, Duration::from_secs(60)).await.unwrap();
    let before = stage.facts().await.len();
    assert_eq!(going.end().await, Ended::Fenced);
    assert_eq!(stage.facts().await.len(), before);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_run_makes_no_changing_call_before_the_former_holders_last_one_has_timed_out() {
    let stage = Stage::new(plan()).await;
    stage.world.on("a.run", Act::Until("door", Duration::from_secs(600)));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    going.task.abort();
    stage.world.set("door", "open");
    stage.clock.sleep(stage.options.lease_ttl).await;
    let began = stage.clock.mono();
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded));
    assert!(stage.clock.mono() - began >= stage.options.call_timeout);
}

#[tokio::test(start_paused = true)]
async fn another_plan_and_a_newer_journal_are_refused_and_nothing_is_touched() {
    let stage = Stage::new(Plan::new().then(A)).await;
    let other = Stage { plan: Arc::new(plan()), ..stage };
    let refused = other.go().result().await;
    assert!(matches!(refused, Err(DriveError::PlanDiffers { .. })), "{refused:?}");
    let subject = Subject::from("s");
    let holder = Holder { id: "newer".into(), address: String::new() };
    let epoch: Epoch = other.journal.acquire(&subject, &holder, Duration::from_secs(5)).await.unwrap();
    let fact = serde_json::json!({ "kind": "teleported", "format": 7 });
    let (seq, at) = (Seq(1), other.clock.now());
    other.journal.append(Append { id: &other.id, epoch, seq, at, fact: &fact, outcome: None }).await.unwrap();
    other.journal.release(&subject, epoch).await.unwrap();
    let Err(DriveError::Fold { source: FoldError::Decode { source, .. }, .. }) = other.go().result().await else {
        panic!("a journal of a newer version must not be driven");
    };
    assert!(source.to_string().ends_with("run a version that reads format 7"), "{source}");
    assert_eq!(other.journal_holder().await, None, "the lease is given back");
}

#[tokio::test(start_paused = true)]
async fn observations_are_journaled_once_and_every_fact_reaches_the_hook() {
    let mut stage = Stage::new(plan()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kinds = seen.clone();
    stage.options.on_fact = Some(Arc::new(move |entry| kinds.lock().unwrap().push(entry.fact.kind())));
    stage.world.on("a.run", Act::Until("door", Duration::from_secs(600)));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    for n in [1, 2, 2, 1] {
        going.handle.observe(Source::from("watcher"), n, format!("event {n}")).await.unwrap();
    }
    going.handle.warn(TEST, "look at this").await.unwrap();
    stage.world.set("door", "open");
    let handle = going.handle.clone();
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
    let observed = stage.facts().await.into_iter().filter(|entry| matches!(entry.fact, Fact::Observed { .. }));
    assert_eq!(observed.count(), 2);
    let facts = stage.facts().await.len();
    assert_eq!(seen.lock().unwrap().len(), facts - 1, "all but `created`");
    assert!(handle.observe(Source::from("watcher"), 3, String::new()).await.unwrap_err().is_interrupted());
}

/// Raises what the cell `alarm` says, and dies once if the cell `die` is set.
struct Watcher;

impl Monitor<Toy> for Watcher {
    const ID: MonitorId = MonitorId("watcher");

    async fn watch(&self, cx: MonitorCx<'_, Toy>) -> Infallible {
        loop {
            if cx.world().cells().remove("die").is_some() {
                panic!("told to die");
            }
            let why = |text: &str| Why::new(TEST, text);
            match cx.world().cell("alarm").as_deref() {
                Some("hold") => cx.raise(Alarm::Hold(why("hold it"))).await,
                Some("unwind") => cx.raise(Alarm::Unwind(why("turn round"))).await,
                _ => cx.clear().await,
            }
            cx.clock().sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_holds_the_pivot_until_it_is_cleared_and_a_dead_monitor_is_one() {
    let stage = Stage::new(plan().watched_by(Watcher)).await;
    stage.world.set("die", "yes");
    stage.world.on("a.run", Act::Until("door", Duration::from_secs(600)));
    let going = stage.go();
    going.folds(|state| state.alarms().holding().is_some_and(|why| why.code == codes::MONITOR_DIED)).await;
    stage.world.set("alarm", "hold");
    going.folds(|state| state.alarms().holding().is_some_and(|why| why.text == "hold it")).await;
    stage.world.set("door", "open");
    going.folds(|state| state.step(P::ID).is_some_and(|step| step.status == Status::Failed)).await;
    assert_eq!(stage.failures().await[0].code, codes::CANNOT_ARM);
    stage.world.cells().remove("alarm");
    assert_eq!(going.end().await, Ended::Finished(Outcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn an_alarm_to_unwind_interrupts_the_step_and_unwinds() {
    let stage = Stage::new(plan().watched_by(Watcher)).await;
    stage.world.on("b.run", Act::Until("door", Duration::from_secs(86_000)));
    let going = stage.go();
    going.sees(|progress| progress.wait.is_some()).await;
    stage.world.set("alarm", "unwind");
    assert_eq!(going.end().await, Ended::Finished(Outcome::Unwound));
    assert!(stage.failures().await.is_empty(), "an interruption is not a failure");
    assert_eq!(stage.world.cell("setting").as_deref(), Some("old"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_undoes_back_to_its_step_and_begins_there_in_a_new_round() {
    let stage = Stage::new(plan().restart_from(B::ID, 1)).await;
    stage.world.on("p.run", Act::Fail(FailureClass::Permanent));
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded));
    let log = stage.world.log();
    assert_eq!((count(&log, "act setting"), count(&log, "a.undo"), count(&log, "b.undo")), (1, 0, 1), "{log:?}");
    assert_eq!((stage.state().await.round(), stage.state().await.step(B::ID).unwrap().attempt), (2, 2));
    assert!(stage.world.cell("thing-run-2").is_some() && stage.world.cell("thing-run-1").is_none());

    let stage = Stage::new(plan().restart_from(B::ID, 1)).await;
    for _ in 0..2 {
        stage.world.on("p.run", Act::Fail(FailureClass::Permanent));
    }
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound), "the budget is spent");
    let stage = Stage::new(plan().restart_from(B::ID, 1)).await;
    stage.world.on("a.run", Act::Fail(FailureClass::Permanent));
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Unwound), "it failed before the restart step");
}

#[test]
fn a_plan_in_an_impossible_order_cannot_be_built() {
    let refused = |build: fn() -> Plan<Toy>| std::panic::catch_unwind(build).is_err();
    assert!(refused(|| Plan::new().then(F)), "forward only before the pivot");
    assert!(refused(|| Plan::new().then(P).then(A)), "reversible after the pivot");
    assert!(refused(|| Plan::new().then(A).then(A)), "the same step twice");
    assert_eq!(plan().shape().ids().steps, [StepId("a"), StepId("b"), StepId("p"), StepId("f")]);
}
