//! The toy passes the suites that every real step must pass, and the suites notice a step that does not.

use futures_util::FutureExt;
use runtime::clock::Clock;

use super::toy::{A, Act, B, F, P, Toy, plan, scene};
use crate::cx::Cx;
use crate::failure::{Failure, FailureClass};
use crate::ids::StepId;
use crate::plan::Plan;
use crate::step::{Gate, Look, Reversal, Step};
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

/// Leaves its thing behind, or makes it twice.
struct Careless {
    undoes: bool,
    looks: bool,
}

impl Step<Toy> for Careless {
    const ID: StepId = StepId("careless");
    const TITLE: &'static str = "Careless";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = ();

    async fn check(&self, _: &Cx<'_, Toy>) -> Result<Gate, Failure> {
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        let world = cx.world();
        let there = world.cell("made").is_some() && self.looks;
        let look = |(): &()| async move { Ok(if there { Look::There(()) } else { Look::NotYet(String::new()) }) };
        let act = |(): &()| async move {
            let made = world.cell("made").unwrap_or_default();
            world.set("made", &format!("{made}x"));
            Ok(())
        };
        cx.effect("make", async { Ok(()) }, look, act).await
    }

    async fn verify(&self, _: &Cx<'_, Toy>, (): &()) -> Result<(), Failure> {
        Ok(())
    }

    async fn undo(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        if self.undoes {
            cx.world().cells().remove("made");
        }
        Ok(())
    }
}

async fn passes(undoes: bool, looks: bool) -> bool {
    let make = async || {
        let mut scene = scene(|_| {}, Plan::new().then(Careless { undoes, looks }));
        scene.complete = Box::new(|world| match world.cell("made").as_deref() {
            Some("x") => Ok(()),
            made => Err(format!("made is {made:?}")),
        });
        scene
    };
    std::panic::AssertUnwindSafe(crash_matrix(make)).catch_unwind().await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn the_suite_notices_a_step_that_leaves_something_or_acts_twice() {
    assert!(passes(true, true).await);
    assert!(!passes(false, true).await, "an undo that leaves something");
    assert!(!passes(true, false).await, "an effect that does not look");
}
