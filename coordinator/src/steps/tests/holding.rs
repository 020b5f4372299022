//! What is measured, seen or refused while green replicates: what holds the switchover, and what unwinds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use engine::{Alarm, Fact, FailureClass, Outcome, testing};
use proto::jobs::{Compare, Compared, Table, TableCompared};
use proto::report::IngestionState;

use super::super::testing::{Stage, clock, spec};
use super::{away, ended, failures};
use crate::{steps::codes, world::Upgrade};

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
