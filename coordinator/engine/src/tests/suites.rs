//! The toy passes the suites that every real step must pass, and the suites notice a step that does not.

use std::time::Duration;

use futures_util::FutureExt;
use runtime::clock::Clock;

use super::toy::{A, Act, B, F, P, Toy, plan, scene};
use crate::failure::FailureClass;
use crate::ids::StepId;
use crate::plan::Plan;
use crate::testing::{Given, MemoryJournal, conformance, crash_matrix, journal_contract, play};

#[tokio::test(start_paused = true)]
async fn the_memory_journal_keeps_the_contract() {
    let clock = Clock::tokio();
    journal_contract(async || MemoryJournal::new(clock.clone()), clock.clone()).await;
}

#[tokio::test(start_paused = true)]
async fn the_whole_plan_survives_every_loss_failure_and_abort() {
    let report = conformance(async || scene(|_| {}, plan())).await;
    let effects: Vec<&str> = report.effects.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(effects, ["setting", "thing", "second", "hold", "cut", "tidy"]);
    assert!(report.runs > 400, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_fails_late_survives_every_loss_while_unwinding() {
    // Not the conformance of a good end: the failing path itself, lost everywhere.
    let failing = async || scene(|world| world.on("p.run", Act::Fail(FailureClass::Permanent)), plan());
    let played = play(failing().await).await;
    assert_eq!(played.outcome.as_str(), "unwound");
    let report =
        crash_matrix(async || scene(|world| world.on("p.run", Act::Fail(FailureClass::Transient)), plan())).await;
    assert!(report.runs > 100, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn one_step_is_tested_alone_with_the_others_given() {
    let report = conformance(async || {
        let given = Plan::<Toy>::new().then(Given::<Toy, A>::new(&"given".to_owned())).then(B);
        let mut scene = scene(|_| {}, given);
        scene.complete = Box::new(|world| match world.cell("thing-run-1").as_deref() {
            Some("given") => Ok(()),
            other => Err(format!("the thing is {other:?}")),
        });
        scene
    })
    .await;
    assert_eq!(report.effects.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [StepId("b"), StepId("b")]);

    let after_the_pivot = async || {
        let (a, b) = (Given::<Toy, A>::new(&String::new()), Given::<Toy, B>::new(&String::new()));
        let given =
            Plan::<Toy>::new().then(a).then(b).then(Given::<Toy, P>::new(&()).witnessed("given".into())).then(F);
        let mut scene = scene(|_| {}, given);
        scene.complete = Box::new(|world| world.cell("tidy").map(drop).ok_or_else(|| "not tidy".to_owned()));
        scene
    };
    assert_eq!(conformance(after_the_pivot).await.effects.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_suite_notices_an_undo_that_leaves_something() {
    let careless = async || {
        let mut scene = scene(|_| {}, plan());
        let (strict, clock) = (scene.as_before, scene.clock.clone());
        let began = clock.mono();
        scene.as_before = Box::new(move |world| {
            if clock.mono() - began > Duration::ZERO || world.cell("setting").as_deref() == Some("old") {
                world.set("left over", "yes");
            }
            strict(world)
        });
        scene
    };
    let noticed = std::panic::AssertUnwindSafe(crash_matrix(careless)).catch_unwind().await;
    assert!(noticed.is_err());
}
