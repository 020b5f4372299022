//! The whole plan, played: well, with everything lost and failing everywhere, and against the troubles AWS is known for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use engine::{Alarm, Fact, FailureClass, Outcome, testing};
use proto::job::{JobFailure, JobFailureClass, JobKind};
use proto::jobs::{
    Compare, Compared, FindLeftovers, RemoveSchema, SchemaRemoved, Table, TableCompared, Unquiesce, Unquiesced,
};
use proto::report::{IngestionState, Sessions};

use super::testing::{CLUSTER, Stage, clock, cluster_of, spec};
use crate::{
    hooks::tests::{Does, Played, asking},
    hooks::{Hook, Hooks},
    rds::fake::{Creation, Fault, NewCluster, Switching},
    rds::{DeploymentId, Names, NewDeployment, Rds, Tag},
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

#[tokio::test(start_paused = true)]
async fn lag_that_never_drains_unwinds() {
    let stage = Stage::new(clock());
    *stage.tamper.lock().unwrap() = Some(Box::new(|report| {
        report.marker.as_mut().expect("a marker").max_ms = Some(60_000);
    }));
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    assert_eq!(failures(&played.facts).pop().expect("a failure").1.code, codes::LAG_NEVER_DRAINS);
}

#[tokio::test(start_paused = true)]
async fn a_measurement_that_is_missing_never_passes_the_gate() {
    let stage = Stage::new(clock());
    *stage.tamper.lock().unwrap() = Some(Box::new(|report| report.marker = None));
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    let (_, failure) = failures(&played.facts).pop().expect("a failure");
    assert!(failure.to_string().contains("marker delay is not measured"), "{failure}");
}

/// The gravest alarm of this code that was raised, and what it said.
fn raised(facts: &[engine::Entry<Upgrade>], code: engine::Code) -> Vec<Alarm> {
    let raised = facts.iter().filter_map(|entry| match &entry.fact {
        Fact::AlarmRaised { alarm, .. } if alarm.why().code == code => Some(alarm.clone()),
        _ => None,
    });
    raised.collect()
}

#[tokio::test(start_paused = true)]
async fn local_storage_that_runs_out_unwinds_and_a_missing_figure_only_keeps_the_gate_shut() {
    let stage = Stage::new(clock());
    *stage.free_bytes.lock().unwrap() = Some(1e6);
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    assert!(matches!(raised(&played.facts, codes::STORAGE_LOW)[..], [Alarm::Unwind(_)]));

    let stage = Stage::new(clock());
    *stage.free_bytes.lock().unwrap() = None;
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    assert_eq!(raised(&played.facts, codes::STORAGE_LOW), []);
    let (_, failure) = failures(&played.facts).pop().expect("a failure");
    assert_eq!(failure.code, codes::LAG_NEVER_DRAINS);
    assert!(failure.to_string().contains("free local storage is not measured"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn ingestion_paused_up_to_its_cap_unwinds() {
    let stage = Stage::new(clock());
    let mut slow = spec();
    slow.ingestion.pause = crate::spec::PauseFor::Replication;
    slow.ingestion.max_pause_seconds = 600;
    slow.replication.sustained_seconds = 3600.0;
    slow.replication.drain_seconds_max = 7200;
    let (clock, since) = (stage.clock.clone(), std::sync::Mutex::new(None));
    *stage.tamper.lock().unwrap() = Some(Box::new(move |report| {
        // The agent lets ingestion run again at the cap, whatever is wished.
        let mut since = since.lock().unwrap();
        let paused = report.ingestion[0].state == IngestionState::Paused;
        *since = if paused { since.or(Some(clock.mono())) } else { None };
        let Some(time) = since.map(|since| clock.mono().since(since)) else { return };
        match time.as_secs() < 600 {
            true => report.ingestion_paused_ms = Some(time.as_millis() as u64),
            false => report.ingestion[0].state = IngestionState::Running,
        }
    }));
    let played = testing::play(stage.scene(slow)).await;
    ended(&played, Outcome::Unwound);
    let alarms = raised(&played.facts, crate::codes::INGESTION_OFF);
    assert!(matches!(alarms[..], [Alarm::Note(_), Alarm::Unwind(_), ..]), "{alarms:?}");
}

#[tokio::test(start_paused = true)]
async fn production_that_answers_nobody_holds_the_switchover_until_it_does() {
    let stage = Stage::new(clock());
    let (clock, aws) = (stage.clock.clone(), stage.aws.clone());
    let since = std::sync::Mutex::new(None);
    *stage.tamper.lock().unwrap() = Some(Box::new(move |report| {
        // Half a minute's outage that begins when the deployment does.
        let begun = aws.snapshot_of_world().names().any(|name| name.starts_with("deployment "));
        let mut since = since.lock().unwrap();
        *since = since.or(begun.then(|| clock.mono()));
        if since.is_some_and(|since| clock.mono().since(since) < std::time::Duration::from_secs(30)) {
            let outcome = proto::report::Outcome::Unreachable { kind: "refused".into(), sqlstate: None };
            report.probe.production = Some(proto::report::Seen { age_ms: 1, outcome });
        }
    }));
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Succeeded);
    assert!(matches!(raised(&played.facts, codes::PRODUCTION_DOWN)[..], [Alarm::Hold(_)]));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_silent_for_longer_than_five_seconds_holds_the_switchover_until_it_is_heard() {
    for (silent_seconds, holds) in [(4, false), (30, true)] {
        let stage = Stage::new(clock());
        let (clock, aws, silent) = (stage.clock.clone(), stage.aws.clone(), stage.silent.clone());
        let since = Arc::new(std::sync::Mutex::new(None::<jiff::Timestamp>));
        let began = since.clone();
        *stage.tamper.lock().unwrap() = Some(Box::new(move |_| {
            // It stays attached, and says nothing, from the deployment's beginning on.
            let begun = aws.snapshot_of_world().names().any(|name| name.starts_with("deployment "));
            let mut since = since.lock().unwrap();
            *since = since.or(begun.then(|| clock.now()));
            let quiet = since.is_some_and(|since| clock.now().duration_since(since).as_secs() < silent_seconds);
            silent.store(quiet, std::sync::atomic::Ordering::SeqCst);
        }));
        let played = testing::play(stage.scene(spec())).await;
        ended(&played, Outcome::Succeeded);
        let held = played.facts.iter().find(
            |entry| matches!(&entry.fact, Fact::AlarmRaised { alarm, .. } if alarm.why().code == codes::LINK_DOWN),
        );
        let after = held.map(|entry| entry.at.duration_since(began.lock().unwrap().expect("it was silent")));
        match after {
            Some(after) => assert!(holds && (4_500..7_000).contains(&after.as_millis()), "held after {after}"),
            None => assert!(!holds, "{silent_seconds} s of silence held nothing"),
        }
        let alarms = raised(&played.facts, codes::LINK_DOWN);
        let said = |alarm: &Alarm| matches!(alarm, Alarm::Hold(why) if why.text.contains("agent-2"));
        assert!(alarms.iter().all(said), "{alarms:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_schema_change_in_the_log_holds_until_it_is_settled_by_name_and_both_sides_are_equal() {
    let made = || {
        let stage = Stage::new(clock());
        let line =
            "2026-11-23 05:00:00 UTC:10.0.0.1(5432):app@orders:[7]:LOG:  statement: CREATE INDEX i ON lines (id)\n";
        stage.aws.write_log(&"orders-1".into(), "error/postgresql.log.2026-11-23-05", line);
        let mut impatient = spec();
        impatient.switchover.attempts = 1;
        (stage, impatient)
    };
    let seen = "CREATE INDEX i ON lines (id) by app in orders from 10.0.0.1(5432), 2026-11-23T05:00:00Z";
    let name = crate::monitors::ddl::acknowledgement(&[seen.to_owned()].into());

    let (stage, impatient) = made();
    let played = testing::play(stage.scene(impatient)).await;
    ended(&played, Outcome::Unwound);
    let alarms = raised(&played.facts, codes::SCHEMA_CHANGED);
    let [Alarm::Hold(why)] = &alarms[..] else { panic!("{alarms:?}") };
    assert!(why.text.contains(seen) && why.text.contains(&format!("pilot approve run {name}")), "{why}");

    let (stage, impatient) = made();
    let settled = engine::Request::Approve { name: Some(name.clone()) };
    let played = testing::play_asked(stage.scene(impatient), settled).await;
    ended(&played, Outcome::Succeeded);
    let warned = played.facts.iter().any(|entry| matches!(&entry.fact, Fact::Warned { detail, .. } if detail == seen));
    assert!(warned, "it is told all the same");

    // Without a word on the fingerprints nothing is settled.
    let (stage, impatient) = made();
    *stage.tamper.lock().unwrap() = Some(Box::new(|report| report.schema = None));
    let settled = engine::Request::Approve { name: Some(name) };
    ended(&testing::play_asked(stage.scene(impatient), settled).await, Outcome::Unwound);
}

#[tokio::test(start_paused = true)]
async fn dead_rows_kept_too_long_hold_the_switchover_until_they_can_be_vacuumed() {
    let stage = Stage::new(clock());
    let clock = stage.clock.clone();
    let began = clock.mono();
    *stage.tamper.lock().unwrap() = Some(Box::new(move |report| {
        // The slots get on after a while: at first too old for the cut, then not.
        let old = clock.mono().since(began) < std::time::Duration::from_secs(60);
        report.slots.as_mut().expect("slots").xmin_age = Some(if old { 300_000_000 } else { 7 });
    }));
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Succeeded);
    assert!(matches!(raised(&played.facts, codes::XMIN_HELD)[..], [Alarm::Hold(_)]));
    let armed = played.facts.iter().find(|entry| matches!(entry.fact, Fact::PivotArmed { .. })).expect("armed");
    let waited = armed.at.duration_since(played.facts[0].at);
    assert!(waited.as_secs() >= 60, "armed after {waited}, while dead rows were still kept");
}

#[tokio::test(start_paused = true)]
async fn rows_that_differ_unwind_with_the_table_named() {
    let stage = Stage::new(clock());
    stage.agents.answer(|_: Compare| {
        let table = Table { database: "orders".into(), schema: "public".into(), name: "lines".into() };
        let tables = vec![TableCompared { table, equal: false, blue_rows: 10, green_rows: 9, rounds: 5 }];
        Ok(Compared { tables, queries: Vec::new(), unproven: Vec::new(), rounds: 5 })
    });
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    let (_, failure) = failures(&played.facts).pop().expect("a failure");
    assert_eq!((failure.code, failure.class), (codes::DATA_DIFFERS, FailureClass::Permanent));
    assert!(failure.to_string().contains("orders: public.lines has 10 rows on blue and 9 on green"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_shut_opens_at_the_threshold_that_a_person_tunes() {
    let shut = || {
        let stage = Stage::new(clock());
        *stage.tamper.lock().unwrap() = Some(Box::new(|report| {
            report.slots.as_mut().expect("slots").slots[0].lag_bytes = Some(100);
        }));
        stage
    };
    let mut strict = spec();
    strict.replication.lag_bytes_max = 99;
    ended(&testing::play(shut().scene(strict.clone())).await, Outcome::Unwound);
    let settings = [("replication.lag_bytes_max".to_owned(), 100.into())].into();
    let played = testing::play_asked(shut().scene(strict), engine::Request::Tune { settings }).await;
    ended(&played, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_slot_unwinds_by_its_alarm() {
    let stage = Stage::new(clock());
    let mut slow = spec();
    slow.replication.sustained_seconds = 3600.0;
    slow.replication.drain_seconds_max = 7200;
    slow.replication.stalled_seconds_max = 60;
    *stage.tamper.lock().unwrap() = Some(Box::new(|report| {
        report.slots.as_mut().expect("slots").slots[0].lag_bytes = Some(100);
    }));
    let played = testing::play(stage.scene(slow)).await;
    ended(&played, Outcome::Unwound);
    let alarmed = played.facts.iter().any(|entry| {
        matches!(&entry.fact, Fact::AlarmRaised { alarm: Alarm::Unwind(why), .. } if why.code == codes::SLOT_TROUBLE)
    });
    assert!(alarmed, "the slots stand at one position with lag: an alarm must have said so");
}

#[tokio::test(start_paused = true)]
async fn a_schema_change_holds_the_switchover_and_unwinds_in_the_end() {
    let stage = Stage::new(clock());
    let mut impatient = spec();
    impatient.switchover.attempts = 1;
    *stage.tamper.lock().unwrap() = Some(Box::new(|report| {
        report.schema.as_mut().expect("a watch").differences = vec!["orders: table public.extra (only on blue)".into()];
    }));
    let played = testing::play(stage.scene(impatient)).await;
    ended(&played, Outcome::Unwound);
    let held = played.facts.iter().any(|entry| {
        matches!(&entry.fact, Fact::AlarmRaised { alarm: Alarm::Hold(why), .. } if why.code == codes::SCHEMA_CHANGED)
    });
    assert!(held, "the alarm must have said so");
    let switched = stage.aws.calls().into_iter().any(|call| call.operation == "SwitchoverBlueGreenDeployment");
    assert!(!switched);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_refuses_the_hold_releases_all_and_unwinds_when_the_budget_is_spent() {
    let stage = Stage::new(clock());
    // The hold of the reboot is taken; the one of the cut, with green known, is not.
    stage.agents.opinion(|intent| match intent.gate {
        proto::intent::GateWish::Hold if intent.targets.green.is_some() => {
            Err("pgbouncer did not pause".to_owned().into())
        }
        _ => Ok(()),
    });
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Unwound);
    let (_, failure) = failures(&played.facts).pop().expect("a failure");
    assert_eq!(failure.code, codes::HOLD_NOT_SETTLED);
    assert!(failure.to_string().contains("pgbouncer did not pause"), "{failure}");
    assert!(!stage.aws.calls().into_iter().any(|call| call.operation == "SwitchoverBlueGreenDeployment"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_pause_is_over_unwinds_before_the_cut_at_once_and_goes_on_after_it() {
    use proto::{intent::IngestionWish, intent::Refusal, side::Side};
    for (on, outcome) in [(Side::Blue, Outcome::Unwound), (Side::Green, Outcome::Succeeded)] {
        let stage = Stage::new(clock());
        let mut long = spec();
        long.ingestion.pause = crate::spec::PauseFor::Replication;
        stage.agents.opinion(move |intent| match intent.ingestion {
            IngestionWish::Paused { .. } if intent.targets.green.is_some() && intent.targets.serving == on => {
                Err(Refusal { reason: "the ingestion pause reached its cap".into(), pause_over: true })
            }
            _ => Ok(()),
        });
        let played = testing::play(stage.scene(long)).await;
        ended(&played, outcome);
        let refused =
            failures(&played.facts).into_iter().filter(|(_, failure)| failure.code == crate::codes::INGESTION_OFF);
        let classes: Vec<_> = refused.map(|(_, failure)| failure.class).collect();
        let expected: &[FailureClass] = if on == Side::Blue { &[FailureClass::Permanent] } else { &[] };
        assert_eq!(classes, expected, "one attempt, not several");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unwinding_after_an_attempt_at_the_cut_wishes_for_no_pause_that_is_over() {
    use proto::{
        intent::{GateWish, IngestionWish, Refusal},
        jobs::{Resubmit, Resubmitted},
    };
    let stage = Stage::new(clock());
    let mut long = spec();
    long.ingestion.pause = crate::spec::PauseFor::Replication;
    let undoing = Arc::new(AtomicBool::new(false));
    let (begun, pauses) = (Arc::clone(&undoing), AtomicU32::new(0));
    stage.agents.opinion(move |intent| match (intent.gate, intent.ingestion) {
        (GateWish::Hold, _) if intent.targets.green.is_some() => {
            begun.store(true, Ordering::SeqCst);
            Err("pgbouncer did not pause".to_owned().into())
        }
        // A pause that an undoing begins is over when it asks again: only a wish to run begins another one.
        (_, IngestionWish::Paused { .. }) if begun.load(Ordering::SeqCst) => {
            match pauses.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(()),
                _ => Err(Refusal { reason: "the ingestion pause reached its cap".into(), pause_over: true }),
            }
        }
        (_, IngestionWish::Running) => {
            pauses.store(0, Ordering::SeqCst);
            Ok(())
        }
        _ => Ok(()),
    });
    let mut blue = away::<Resubmit>(|| Resubmitted { verdicts: Vec::new() });
    stage.agents.answer(move |job: Resubmit| match undoing.load(Ordering::SeqCst) {
        true => blue(job),
        false => Ok(Resubmitted { verdicts: Vec::new() }),
    });
    let played = testing::play(stage.scene(long)).await;
    ended(&played, Outcome::Unwound);
    assert!(!stage.aws.calls().into_iter().any(|call| call.operation == "SwitchoverBlueGreenDeployment"));
}

#[tokio::test(start_paused = true)]
async fn preflight_that_blocks_refuses_before_anything_is_touched() {
    let stage = Stage::new(clock());
    let mut impossible = spec();
    impossible.to = "13".into();
    let played = testing::play(stage.scene(impossible)).await;
    ended(&played, Outcome::Refused);
    assert!(stage.aws.calls().is_empty(), "{:?}", stage.aws.calls());
}

/// A cluster with a deployment that stands: somebody made it and went away. Green is protected as blue is.
async fn with_a_deployment(name: crate::rds::DeploymentName, tags: Vec<Tag>) -> (Stage, DeploymentId) {
    let mut cluster = NewCluster::named(CLUSTER, "14.12");
    cluster.cluster_parameters.push(("rds.logical_replication".into(), "1".into()));
    let stage = Stage::with(clock(), cluster);
    let source = cluster_of(&stage.aws, CLUSTER).await.expect("blue").arn;
    let new = NewDeployment {
        name,
        source,
        target_version: "16.4".into(),
        target_cluster_group: "default.aurora-postgresql16".into(),
        target_instance_group: "default.aurora-postgresql16".into(),
        tags,
    };
    let made = stage.aws.create_deployment(&new).await.expect("a deployment");
    stage.clock.sleep(std::time::Duration::from_secs(60)).await;
    (stage, made.id)
}

async fn left_by_an_earlier_upgrade() -> (Stage, DeploymentId) {
    let earlier = Names::of("up-earlier");
    with_a_deployment(earlier.deployment(2), vec![earlier.tag()]).await
}

/// When the first reboot was asked for, and when the upgrade was created.
fn rebooted(stage: &Stage, facts: &[engine::Entry<Upgrade>]) -> (jiff::Timestamp, jiff::Timestamp) {
    let calls = stage.aws.calls();
    let reboot = calls.iter().find(|call| call.operation == "RebootDBInstance").expect("a reboot");
    (reboot.at, facts[0].at)
}

#[tokio::test(start_paused = true)]
async fn the_reboot_waits_for_its_window_and_nothing_is_quieted_before() {
    // The clock of the stage begins on a Monday, at midnight.
    let stage = Stage::new(clock());
    let mut patient = spec();
    patient.reboot.window = Some("mon:02:00-mon:03:00".into());
    patient.reboot.policy = crate::spec::RebootPolicy::Approve;
    let played = testing::play(stage.scene(patient)).await;
    ended(&played, Outcome::Succeeded);
    let (at, began) = rebooted(&stage, &played.facts);
    let waited = at.duration_since(began).as_secs();
    assert!((7200..7260).contains(&waited), "rebooted after {waited} s");
    let quiet =
        played.facts.iter().find(|entry| matches!(&entry.fact, Fact::EffectPlanned { key, .. } if key == "quiesce"));
    assert!(quiet.expect("extensions were quieted").at.duration_since(began).as_secs() >= 7200);
    let asked = played.facts.iter().any(|entry| matches!(entry.fact, Fact::ApprovalAsked { .. }));
    assert!(!asked, "the window is the permission");
}

#[tokio::test(start_paused = true)]
async fn an_approval_does_not_wait_for_the_window_of_the_reboot() {
    let stage = Stage::new(clock());
    let mut patient = spec();
    patient.reboot.window = Some("sun:02:00-sun:03:00".into());
    let approved = engine::Request::Approve { name: Some("reboot".into()) };
    let played = testing::play_asked(stage.scene(patient), approved).await;
    ended(&played, Outcome::Succeeded);
    let (at, began) = rebooted(&stage, &played.facts);
    assert!(at.duration_since(began).as_secs() < 600, "rebooted at {at}");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_upgrade_left_is_refused_by_name_until_its_deletion_is_asked_for() {
    let (stage, left) = left_by_an_earlier_upgrade().await;
    let began = stage.aws.calls().len();
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Refused);
    let (_, failure) = failures(&played.facts).pop().expect("a failure");
    for said in ["PU0043", "upgrade up-earlier has left", left.as_str(), "--clean-leftovers"] {
        assert!(failure.to_string().contains(said), "{said}: {failure}");
    }
    assert_eq!(stage.aws.calls().len(), began, "nothing was touched");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_upgrade_left_is_deleted_first_with_its_green_and_nothing_else() {
    let (stage, left) = left_by_an_earlier_upgrade().await;
    let green = stage.aws.deployment(&left).await.expect("it stands").target_cluster().expect("a green").cluster_id();
    let began = stage.aws.calls().len();
    let mut cleaning = spec();
    cleaning.clean_leftovers = true;
    let played = testing::play(stage.scene(cleaning)).await;
    ended(&played, Outcome::Succeeded);
    assert!(cluster_of(&stage.aws, green.as_str()).await.is_none(), "{green} is still there");
    let calls: Vec<_> = stage.aws.calls().split_off(began).into_iter().filter(|call| call.acted).collect();
    let of = |operation: &str| -> Vec<(usize, &str)> {
        let calls = calls.iter().enumerate().filter(|(_, call)| call.operation == operation);
        calls.map(|(at, call)| (at, call.target.as_str())).collect()
    };
    assert_eq!(of("DeleteBlueGreenDeployment")[0], (1, left.as_str()), "{calls:?}");
    assert_eq!(of("ModifyDBCluster")[0], (0, green.as_str()), "protection goes off on its green only: {calls:?}");
    assert!(of("CreateDBClusterSnapshot")[0].0 > 1, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_of_somebody_else_is_never_deleted() {
    // A tag alone does not make it ours: its name must be derived from the upgrade that the tag names.
    for tags in [Vec::new(), vec![Names::of("up-earlier").tag()]] {
        let (stage, theirs) = with_a_deployment("theirs".into(), tags).await;
        let mut cleaning = spec();
        cleaning.clean_leftovers = true;
        let played = testing::play(stage.scene(cleaning)).await;
        ended(&played, Outcome::Refused);
        assert!(failures(&played.facts)[0].1.to_string().contains("PU0015"));
        stage.aws.deployment(&theirs).await.expect("it still stands");
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_what_was_left_passes_the_crash_matrix() {
    let make = async || {
        let (stage, _) = left_by_an_earlier_upgrade().await;
        let mut cleaning = spec();
        cleaning.clean_leftovers = true;
        let mut scene = stage.scene(cleaning);
        // Of the whole plan the step that deletes; the leftover itself does not come back.
        scene.plan = engine::Plan::new().then(super::prerequisites::Prerequisites);
        let (before, after) = (stage.clone(), stage);
        let serving = |stage: &Stage| match stage.aws.serving(&CLUSTER.into()) == Some(stage.blue.clone()) {
            true => Ok(()),
            false => Err("production is not blue".to_owned()),
        };
        scene.as_before = Box::new(move |_| serving(&before));
        scene.complete = Box::new(move |_| {
            let left = after.aws.snapshot_of_world().names().any(|name| name.starts_with("deployment "));
            if left { Err("the deployment is still there".to_owned()) } else { serving(&after) }
        });
        scene
    };
    testing::crash_matrix(make).await;
}

#[tokio::test(start_paused = true)]
async fn active_transactions_that_block_slots_are_ended_only_after_approval() {
    let stage = Stage::new(clock());
    stage.aws.creation(Creation::NeverReady);
    let (agents, aws) = (stage.agents.clone(), stage.aws.clone());
    *stage.tamper.lock().unwrap() = Some(Box::new(move |report| {
        // Somebody's long transaction holds the slots up until the purger may end it.
        let may_end = agents.last_intent().and_then(|intent| intent.purger).is_some_and(|purger| purger.end_active);
        let blockers = if may_end { 0 } else { 1 };
        if may_end {
            aws.creation(Creation::Succeeds);
        }
        report.sessions = Some(Sessions { waiting_slots: blockers, blockers, ..Sessions::default() });
    }));
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Succeeded);
    let asked = played
        .facts
        .iter()
        .any(|entry| matches!(&entry.fact, Fact::ApprovalAsked { name, .. } if name == "purge-active"));
    assert!(asked, "a person is asked before an active transaction is ended");
}

/// Something that makes old blue look like another, or right again.
type Disguise = fn(&Stage, right: bool);

#[tokio::test(start_paused = true)]
async fn cleanup_deletes_nothing_whose_resource_id_is_not_old_blues() {
    let disguises: [(&str, Disguise); 4] = [
        ("-STRANGER, not green", |stage, right| {
            stage.aws.edit_cluster(&CLUSTER.into(), |cluster| {
                cluster.resource_id = strange(cluster.resource_id.as_str(), right).as_str().into();
            });
        }),
        ("its name archive does not end in -old and a number", |stage, right| {
            let (from, to) = if right { ("archive", "orders-old1") } else { ("orders-old1", "archive") };
            stage.aws.edit_cluster(&from.into(), |cluster| cluster.id = to.into());
        }),
        ("the deployment names arn:aws:rds:us-east-1:123456789012:cluster:other as its source", |stage, right| {
            let name = if right { "orders-old1" } else { "other" };
            let arn = format!("arn:aws:rds:us-east-1:123456789012:cluster:{name}");
            stage.aws.edit_deployment_of(&stage.blue, |deployment| deployment.source = arn.parse().expect("an ARN"));
        }),
        ("this instance was not of blue when it was recorded", |stage, right| {
            // The reader of old blue, which goes first: another of the same name in its place.
            stage.aws.edit_instance(&"orders-2-old1".into(), |reader| {
                reader.resource_id = strange(reader.resource_id.as_str(), right).as_str().into();
            });
        }),
    ];
    for (words, disguise) in disguises {
        let stage = Stage::new(clock());
        let mut stranger = NewCluster::named("orders-old2", "14.12");
        stranger.deletion_protection = false;
        let stranger = stage.aws.add_cluster(stranger);
        let (seen, since) = (stage.clone(), std::sync::Mutex::new(None));
        *stage.tamper.lock().unwrap() = Some(Box::new(move |_| {
            // From the new production's snapshot on, which is what cleanup begins with, for half a minute.
            let snapshots = seen.aws.calls().iter().filter(|call| call.operation == "CreateDBClusterSnapshot").count();
            let mut since = since.lock().unwrap();
            match *since {
                None if snapshots == 2 => {
                    disguise(&seen, false);
                    *since = Some((seen.clock.mono(), false));
                }
                Some((from, false)) if seen.clock.mono().since(from) > std::time::Duration::from_secs(30) => {
                    assert_eq!(deleted(&seen), [""; 0], "while {words}");
                    disguise(&seen, true);
                    *since = Some((from, true));
                }
                _ => {}
            }
        }));
        let played = testing::play(stage.scene(spec())).await;
        ended(&played, Outcome::Succeeded);
        let refused = failures(&played.facts).into_iter().find(|(_, failure)| failure.code == codes::OLD_BLUE_WRONG);
        let (_, failure) = refused.unwrap_or_else(|| panic!("nothing was refused while {words}"));
        assert!(failure.class == FailureClass::NeedsOperator && failure.to_string().contains(words), "{failure}");
        assert_eq!(deleted(&stage), ["orders-2-old1", "orders-1-old1", "orders-old1"]);
        let left = cluster_of(&stage.aws, "orders-old2").await.expect("the stranger's cluster stands");
        assert_eq!((left.resource_id, left.members.len()), (stranger.resource_id, 2));
    }
}

/// An identity that is another's, or the right one again.
fn strange(id: &str, right: bool) -> String {
    let own = id.trim_end_matches("-STRANGER");
    if right { own.to_owned() } else { format!("{own}-STRANGER") }
}

/// What AWS was asked to delete of clusters and instances, and did, in order.
fn deleted(stage: &Stage) -> Vec<String> {
    let calls = stage.aws.calls().into_iter().filter(|call| call.acted);
    calls
        .filter(|call| ["DeleteDBCluster", "DeleteDBInstance"].contains(&call.operation))
        .map(|call| call.target)
        .collect()
}
