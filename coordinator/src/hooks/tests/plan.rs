//! Leave, asked over the whole plan with AWS and the agents played: a no at every step, waiting, failing, and never inside the hold.

use std::sync::Arc;
use std::time::Duration;

use engine::testing::{self, MemoryJournal};
use engine::{AskId, Driver, Ended, Entry, Fact, Holder, Operator, Options, Outcome, Parts, Request, RunId, Subject};
use proto::intent::GateWish;
use tokio_util::sync::CancellationToken;

use super::{Does, Played, asking, hook};
use crate::codes;
use crate::hooks::{Hook, Hooks, OnFailure, OnVeto, Trouble};
use crate::rds::fake::Switching;
use crate::steps::testing::{Stage, clock, spec};
use crate::world::Upgrade;

const STEPS: [&str; 7] = [
    "prerequisites",
    "provisioning",
    "post_provisioning",
    "replicating_data",
    "switchover",
    "post_switchover",
    "cleanup",
];

fn with(stage: &Stage, hook: Hook, carrier: Arc<Played>) {
    *stage.hooks.lock().unwrap() = Some(Hooks::over(vec![hook], carrier, None, stage.clock.clone()));
}

fn approvals(facts: &[Entry<Upgrade>]) -> Vec<(String, String)> {
    let asked = facts.iter().filter_map(|entry| match &entry.fact {
        Fact::ApprovalAsked { name, why, .. } => Some((name.clone(), why.clone())),
        _ => None,
    });
    asked.collect()
}

fn undone(facts: &[Entry<Upgrade>]) -> usize {
    facts.iter().filter(|entry| matches!(entry.fact, Fact::UndoStarted { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn a_no_before_any_step_asks_a_person_and_its_approval_lets_the_step_begin() {
    for step in STEPS {
        let (stage, point) = (Stage::new(clock()), format!("before_{step}"));
        let says = Played::new({
            let point = point.clone();
            move |notice, _| {
                let veto = notice.point.as_str() == point;
                if veto { Does::Says(77, "frozen") } else { Does::Says(0, "") }
            }
        });
        with(&stage, asking("freeze"), says.clone());
        let played = testing::play(stage.scene(spec())).await;
        assert_eq!(played.outcome, Outcome::Succeeded, "{step}");
        let asked = approvals(&played.facts);
        let name = format!("hook/freeze/{point}/1");
        assert_eq!(asked, [(name, format!("hook freeze says no {point}: frozen (PU1001)"))], "{step}");
        assert_eq!(undone(&played.facts), 0, "{step}");
        let points: Vec<String> = says.calls("freeze").iter().map(|notice| notice.point.to_string()).collect();
        assert_eq!(points, STEPS.map(|step| format!("before_{step}")), "each was asked once, in order");
    }
}

#[tokio::test(start_paused = true)]
async fn a_no_that_unwinds_does_so_before_the_switchover_and_only_asks_after_it() {
    for step in STEPS {
        let (stage, point) = (Stage::new(clock()), format!("before_{step}"));
        let says = Played::new({
            let point = point.clone();
            move |notice, _| {
                if notice.point.as_str() == point { Does::Says(77, "never") } else { Does::Says(0, "") }
            }
        });
        with(&stage, Hook { on_veto: OnVeto::Unwind, ..asking("freeze") }, says);
        let played = testing::play(stage.scene(spec())).await;
        let after = ["post_switchover", "cleanup"].contains(&step);
        let expected = match step {
            "prerequisites" => Outcome::Refused,
            _ if after => Outcome::Succeeded,
            _ => Outcome::Unwound,
        };
        assert_eq!(played.outcome, expected, "{step}");
        assert_eq!(approvals(&played.facts).len(), usize::from(after), "{step}");
        let began = played.facts.iter().filter(|entry| match &entry.fact {
            Fact::StepStarted { step: started, .. } => started.as_str() == step,
            _ => false,
        });
        assert_eq!(began.count(), usize::from(after), "{step} began without leave");
        let vetoed = |entry: &Entry<Upgrade>| match &entry.fact {
            Fact::StepFailed { failure, .. } => failure.code == codes::HOOK_VETO,
            _ => false,
        };
        assert_eq!(played.facts.iter().any(vetoed), !after, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_wait_is_asked_again_under_the_same_id_and_not_for_ever() {
    let stage = Stage::new(clock());
    let says = Played::new(|_, n| if n < 3 { Does::Says(75, "until 8") } else { Does::Says(0, "") });
    with(&stage, hook("freeze", &["before_provisioning"]), says.clone());
    let played = testing::play(stage.scene(spec())).await;
    assert_eq!((played.outcome, approvals(&played.facts).len()), (Outcome::Succeeded, 0));
    let calls = says.calls("freeze");
    let ids: Vec<&str> = calls.iter().map(|notice| notice.delivery.as_str()).collect();
    assert_eq!(ids, ["run-1/before_provisioning/1/freeze"; 4]);
    assert!(calls[3].at == calls[0].at, "one question, asked four times");

    let stage = Stage::new(clock());
    let says = Played::new(|_, _| Does::Says(75, "until 8"));
    let impatient = Hook { wait_max: Duration::from_secs(100), ..hook("freeze", &["before_provisioning"]) };
    with(&stage, impatient, says.clone());
    let played = testing::play(stage.scene(spec())).await;
    assert_eq!(played.outcome, Outcome::Succeeded);
    let why = &approvals(&played.facts)[0].1;
    assert!(why.contains("it still says wait after 100 s: until 8 (PU1001)"), "{why}");
    assert_eq!(says.calls("freeze").len(), 5, "at 0, 30, 60, 90 and 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_cannot_be_asked_is_ignored_or_stops_or_unwinds_as_its_policy_says() {
    let check = async |on_failure: OnFailure, hangs: bool, again: bool, outcome: Outcome, tries: usize| {
        let stage = Stage::new(clock());
        let says = Played::new(move |_, _| match hangs {
            true => Does::Hangs,
            false => Does::Fails(Trouble { text: "no route".into(), again, after: None }),
        });
        with(&stage, Hook { on_failure, ..hook("freeze", &["before_switchover"]) }, says.clone());
        let played = testing::play(stage.scene(spec())).await;
        assert_eq!(played.outcome, outcome, "{on_failure:?}");
        assert_eq!(says.calls("freeze").len(), tries, "{on_failure:?}");
        let warned = played.facts.iter().filter_map(|entry| match &entry.fact {
            Fact::Warned { code, detail, .. } if *code == codes::HOOK_FAILED => Some(detail.clone()),
            _ => None,
        });
        (approvals(&played.facts), warned.collect::<Vec<_>>())
    };
    let (asked, warned) = check(OnFailure::Ignore, false, true, Outcome::Succeeded, 3).await;
    assert_eq!(asked, []);
    let said = "hook freeze could not be asked before_switchover: no route; the step begins all the same";
    assert_eq!(warned, [said]);
    let (asked, warned) = check(OnFailure::Stop, true, true, Outcome::Succeeded, 3).await;
    assert_eq!(asked[0].0, "hook/freeze/before_switchover/1");
    assert!(asked[0].1.ends_with("(PU1002)") && warned.is_empty(), "{asked:?} {warned:?}");
    let (asked, _) = check(OnFailure::Unwind, false, false, Outcome::Unwound, 1).await;
    assert_eq!(asked, []);
}

#[tokio::test(start_paused = true)]
async fn the_hook_before_the_switchover_is_asked_before_each_attempt_and_never_while_anybody_is_held() {
    let stage = Stage::new(clock());
    stage.aws.switching(Switching::Reverts { reason: "long running transactions".into() });
    let agents = stage.agents.clone();
    // It takes its time, and tells what agents were told last when it began and when it ended.
    let says = Played::new(move |notice, _| {
        let told = agents.last_intent();
        let held = told.is_some_and(|intent| intent.gate == GateWish::Hold || intent.window.is_some_and(|it| it.open));
        assert!(!held, "{} was asked inside the hold", notice.point);
        Does::Says(0, "")
    });
    with(&stage, asking("freeze"), says.clone());
    let played = testing::play(stage.scene(spec())).await;
    assert_eq!(played.outcome, Outcome::Unwound);
    let asked: Vec<(String, Option<u32>)> = says
        .calls("freeze")
        .iter()
        .filter(|notice| notice.point.as_str() == "before_switchover")
        .map(|notice| (notice.delivery.clone(), notice.attempt))
        .collect();
    let expected = [1, 2, 3].map(|n| (format!("run-1/before_switchover/{n}/freeze"), Some(n)));
    assert_eq!(asked, expected);
}

#[tokio::test(start_paused = true)]
async fn an_abort_while_a_hook_hangs_acts_at_once_and_what_waits_is_shown() {
    for hangs in [true, false] {
        let stage = Stage::new(clock());
        let says = Played::new(move |_, _| if hangs { Does::Hangs } else { Does::Says(75, "until 8") });
        let slow =
            Hook { timeout: Duration::from_secs(60), retries: Some(20), ..hook("freeze", &["before_switchover"]) };
        with(&stage, slow, says);
        let scene = stage.scene(spec());
        let (id, subject, clock) = (RunId::from("run-1"), Subject::from("c"), stage.clock.clone());
        let journal = MemoryJournal::new(clock.clone());
        engine::journal::start::<Upgrade>(&journal, &subject, &id, scene.spec, scene.plan.shape(), clock.now())
            .await
            .unwrap();
        let parts = Parts {
            plan: Arc::new(scene.plan),
            world: scene.world,
            journal: Arc::new(journal.clone()),
            clock: clock.clone(),
            holder: Holder { id: "one".into(), address: String::new() },
            options: Options::default(),
        };
        let (driver, handle) = Driver::new(id.clone(), parts);
        let driving = tokio::spawn(driver.run(CancellationToken::new()));
        let mut progress = handle.progress();
        let what = if hangs { "the answer of a hook" } else { "leave of a hook" };
        let shown = progress.wait_for(|now| now.wait.as_ref().is_some_and(|wait| wait.what == what)).await.unwrap();
        let last = shown.wait.as_ref().unwrap().last.clone();
        drop(shown);
        assert_eq!(last, if hangs { "" } else { "freeze says wait: until 8" });
        let began = clock.mono();
        let by = Operator::from("ann");
        engine::journal::ask::<Upgrade>(&journal, &id, AskId::fresh(), by, &Request::Abort, clock.now()).await.unwrap();
        let mut states = handle.states();
        states.wait_for(|state| matches!(state.mode(), engine::Mode::Unwinding { .. })).await.unwrap();
        let mut undoing = handle.states();
        undoing
            .wait_for(|state| state.steps().iter().any(|step| step.status == engine::Status::Undoing))
            .await
            .unwrap();
        assert!(clock.mono() - began < Duration::from_secs(3), "hangs: {hangs}");
        assert_eq!(driving.await.unwrap().unwrap(), Ended::Finished(Outcome::Unwound));
        (scene.as_before)(&stage.world()).unwrap();
    }
}
