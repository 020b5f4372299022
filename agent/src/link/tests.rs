//! The link, the gate and the helm against a coordinator on the real wire.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use proto::{
    epoch::{Epoch, Generation},
    intent::{GateWish, IngestionWish, Intent, Refusal, SwitchoverWindow, Targets, WatchWish},
    job::{Expected, JobFailureClass, JobKind as _},
    jobs::{LedgerState, LedgerStatus},
    protocol,
    report::{Event, HoldKind, Report},
    side::{Endpoint, Member, Side, SideIdentity},
};

use crate::{
    ingestion::Serving,
    jobs::{Registry, failure},
    status::Chart,
};

use super::{
    fake::{Agent, CLUSTER, Coordinator, Stream, System, folder},
    wire::generated::{self, ack, from_agent::Message as Up, to_agent::Message as Down},
};

mod jobs;

fn side(side: Side, major: u32) -> SideIdentity {
    // Port 1 of a loopback address: nothing listens there.
    let member = Member {
        resource_id: format!("db-{side:?}"),
        instance: format!("{side:?}-1"),
        host: "127.0.0.1".into(),
        port: 1,
        writer: true,
    };
    SideIdentity { side, cluster_resource_id: format!("cluster-{side:?}"), major, members: vec![member] }
}

fn wish(generation: u64) -> Intent {
    Intent {
        upgrade: "up-test".parse().unwrap(),
        epoch: Epoch(4),
        generation: Generation(generation),
        ingestion: IngestionWish::Running,
        purger: None,
        gate: GateWish::Open,
        targets: Targets {
            production: Endpoint { host: "127.0.0.1".into(), port: 1 },
            serving: Side::Blue,
            blue: side(Side::Blue, 14),
            green: Some(side(Side::Green, 16)),
        },
        window: None,
        watch: WatchWish::default(),
    }
}

pub(super) fn hold(generation: u64, hold_max_ms: u64) -> Intent {
    let window = SwitchoverWindow { open: true, deadline_ms: 60_000, grace_ms: 1_000, hold_max_ms };
    Intent { gate: GateWish::Hold, window: Some(window), ..wish(generation) }
}

fn paused(generation: u64, max_pause_ms: u64) -> Intent {
    Intent { ingestion: IngestionWish::Paused { max_pause_ms }, ..wish(generation) }
}

async fn attached(name: &str) -> (Coordinator, Stream, Agent, Arc<System>, std::path::PathBuf) {
    let mut coordinator = Coordinator::start().await;
    let (folder, system) = (folder(name), Arc::new(System::default()));
    let agent = Agent::start(&folder, &coordinator.address, system.clone()).await;
    let stream = coordinator.attached().await;
    stream.welcome(4, 2_000).await;
    (coordinator, stream, agent, system, folder)
}

async fn next_event(stream: &mut Stream) -> (u64, Event) {
    stream
        .hear("an event", |message| match message {
            Up::Event(event) => Some((event.n, serde_json::from_str(&event.body_json).unwrap())),
            _ => None,
        })
        .await
}

async fn ack_event(stream: &Stream, n: u64) {
    stream.say(Down::Ack(generated::Ack { what: Some(ack::What::EventN(n)) })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_applied_when_everything_is_paused_and_released_at_once() {
    let (_coordinator, mut stream, agent, system, _folder) = attached("hold").await;
    assert_eq!((stream.hello.cluster_arn.as_str(), stream.hello.seen.is_none()), (CLUSTER, true));
    stream.intent(&hold(1, 60_000)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    assert!(system.paused.load(Ordering::SeqCst));
    let said = agent.shared.clock.mono();
    let open = Intent { gate: GateWish::Open, ..hold(2, 60_000) };
    stream.intent(&open).await;
    system.becomes(false).await;
    let took = agent.shared.clock.mono().since(said);
    assert!(took.as_millis() < 500, "the release took {took:?}");
    assert_eq!(stream.settled(2).await, Ok(()));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        if let (_, Event::Held { kind, .. }) = next_event(&mut stream).await {
            kinds.push(kind);
        }
    }
    kinds.sort_by_key(|kind| *kind == HoldKind::Ingestion);
    assert_eq!(kinds, [HoldKind::Gate, HoldKind::Ingestion]);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_let_go_to_green_as_soon_as_it_took_a_write_and_the_coordinator_hears_of_it() {
    let (_coordinator, mut stream, agent, system, _folder) = attached("follow").await;
    stream.intent(&hold(1, 60_000)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    agent.shared.status.send_modify(|chart| *chart = Chart::saying("SWITCHOVER_IN_POST_PROCESSING"));
    stream.hear("a report with the status", |message| read(message)?.switchover.map(drop)).await;
    assert!(system.paused.load(Ordering::SeqCst), "a status alone releases nobody");
    agent.shared.probe.send_modify(|probe| probe.green_took_write = true);
    system.becomes(false).await;
    let green = "127.0.0.1:1".parse().unwrap();
    assert_eq!(*system.sent_to.lock().unwrap(), Some(Serving { writer: green, reader: None }));
    let follows = |it: &Report| it.probe.green_took_write && it.stance == "follow_to_green";
    stream.hear("a report of it", |message| read(message).filter(follows)).await;
    let read_the_cut = Targets { serving: Side::Green, ..wish(2).targets };
    stream.intent(&Intent { gate: GateWish::Open, targets: read_the_cut, ..hold(2, 60_000) }).await;
    assert_eq!(stream.settled(2).await, Ok(()));
    assert!(!system.paused.load(Ordering::SeqCst));
    assert_eq!(system.pauses.load(Ordering::SeqCst), 1, "nothing was held again");
    agent.kill().await;
}

fn read(message: &Up) -> Option<Report> {
    match message {
        Up::Report(report) => serde_json::from_str(&report.body_json).ok(),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_intent_is_refused_and_changes_nothing() {
    let (_coordinator, mut stream, agent, system, _folder) = attached("stale").await;
    stream.intent(&wish(7)).await;
    assert_eq!(stream.settled(7).await, Ok(()));
    stream.intent(&hold(6, 60_000)).await;
    assert_eq!(stream.settled(6).await, Err("a newer intent was seen".to_owned().into()));
    stream.intent(&wish(7)).await;
    assert_eq!(stream.settled(7).await, Ok(()), "the same one again is answered again");
    assert_eq!(system.pauses.load(Ordering::SeqCst), 0);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_fails_is_refused_and_everything_is_opened_again() {
    let (_coordinator, mut stream, agent, system, _folder) = attached("refusal").await;
    system.refuses.store(true, Ordering::SeqCst);
    stream.intent(&hold(1, 60_000)).await;
    let Refusal { reason, pause_over } = stream.settled(1).await.unwrap_err();
    assert!(!pause_over);
    assert!(reason.contains("it refuses"), "{reason}");
    assert!(!system.paused.load(Ordering::SeqCst), "it was opened before the refusal was said");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_without_an_open_window_is_refused() {
    let (_coordinator, mut stream, agent, _system, _folder) = attached("no-window").await;
    stream.intent(&Intent { window: None, ..hold(1, 60_000) }).await;
    assert_eq!(stream.settled(1).await, Err("a hold without an open window has no cap".to_owned().into()));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_lease_resumes_ingestion_and_a_new_one_pauses_it_again() {
    let (mut coordinator, mut stream, agent, system, _folder) = attached("lapse").await;
    stream.welcome(4, 300).await;
    stream.intent(&paused(1, 60_000)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    coordinator.renews.store(false, Ordering::SeqCst);
    system.becomes(false).await;
    let (n, event) = next_event(&mut stream).await;
    assert!(matches!(&event, Event::Stance { stance, .. } if stance == "release_to_blue"), "{event:?}");
    ack_event(&stream, n).await;
    coordinator.renews.store(true, Ordering::SeqCst);
    system.becomes(true).await;
    drop(stream);
    let again = coordinator.attached().await;
    assert_eq!(again.hello.seen.as_ref().map(|seen| (seen.epoch, seen.generation)), Some((4, 1)));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_held_beyond_the_cap_though_the_coordinator_wishes_it() {
    let (_coordinator, mut stream, agent, system, _folder) = attached("cap").await;
    stream.intent(&hold(1, 600)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    system.becomes(false).await;
    let mut percents = Vec::new();
    while percents.len() < 2 {
        if let (_, Event::PauseCap { percent, resumed, .. }) = next_event(&mut stream).await {
            percents.push((percent, resumed));
        }
    }
    percents.sort_unstable();
    assert_eq!(percents, [(80, false), (100, true)]);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingestion_resumes_at_max_pause() {
    let (_coordinator, mut stream, agent, system, _folder) = attached("max-pause").await;
    stream.intent(&paused(1, 300)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    system.becomes(false).await;
    let over = Refusal { reason: "the ingestion pause reached its cap".into(), pause_over: true };
    assert_eq!(stream.settled(1).await, Err(over.clone()));
    stream.intent(&paused(2, 300)).await;
    assert_eq!(stream.settled(2).await, Err(over), "only a wish to run ends the cap");
    stream.intent(&wish(3)).await;
    assert_eq!(stream.settled(3).await, Ok(()));
    stream.intent(&paused(4, 60_000)).await;
    assert_eq!(stream.settled(4).await, Ok(()));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingestion_resumes_at_max_pause_though_clients_are_held() {
    let (_coordinator, mut stream, agent, system, _folder) = attached("max-pause-held").await;
    let mut both = hold(1, 60_000);
    both.ingestion = IngestionWish::Paused { max_pause_ms: 300 };
    stream.intent(&both).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    assert!(system.paused.load(Ordering::SeqCst));
    system.becomes(false).await;
    let over = Refusal { reason: "the ingestion pause reached its cap".into(), pause_over: true };
    assert_eq!(stream.settled(1).await, Err(over));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_back_undoes_its_predecessors_pause_before_it_dials() {
    let (coordinator, mut stream, agent, system, folder) = attached("restart").await;
    stream.intent(&paused(1, 60_000)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    agent.kill().await;
    assert!(system.paused.load(Ordering::SeqCst), "stopping changes nothing by itself");
    drop(coordinator);
    // Nobody listens there: the agent is alone.
    let agent = Agent::start(&folder, "http://127.0.0.1:1", system.clone()).await;
    system.becomes(false).await;
    assert_eq!(agent.shared.stance.borrow().name(), "release_to_blue");
    agent.kill().await;
}

/// Names move and vanish at a switchover: a process that comes after it goes by the addresses that its predecessor knew, whichever
/// of its tasks had found them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_any_task_found_are_there_for_the_next_process() {
    let (coordinator, mut stream, agent, system, folder) = attached("addresses").await;
    let address = "127.0.0.9".parse().unwrap();
    agent.shared.dialer.seed(HashMap::from([("db-GREEN".to_owned(), address)]));
    stream.intent(&paused(1, 60_000)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    agent.kill().await;
    drop(coordinator);
    let agent = Agent::start(&folder, "http://127.0.0.1:1", system.clone()).await;
    assert_eq!(agent.shared.dialer.addresses().get("db-GREEN"), Some(&address));
    agent.kill().await;
}

fn job(id: &str, kind: &str, epoch: u64) -> Down {
    let on = Expected {
        side: Side::Blue,
        production: Endpoint { host: "127.0.0.1".into(), port: 1 },
        blue: side(Side::Blue, 14),
        green: None,
    };
    Down::Job(generated::Job {
        id: id.into(),
        epoch,
        deadline_ms: 5_000,
        kind: kind.into(),
        expected_json: serde_json::to_string(&on).unwrap(),
        body_json: "{}".into(),
    })
}

async fn failed(stream: &mut Stream, id: &str) -> generated::JobFailed {
    stream
        .hear("a failed job", |message| match message {
            Up::JobFailed(job) if job.id == id => Some(job.clone()),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_answer_is_kept_until_it_is_acknowledged_and_given_again_for_the_same_id() {
    let (mut coordinator, mut stream, agent, _system, _folder) = attached("jobs").await;
    stream.say(job("up-test/1", "identify", 4)).await;
    stream
        .hear("an acceptance", |message| matches!(message, Up::JobAccepted(job) if job.id == "up-test/1").then_some(()))
        .await;
    let first = failed(&mut stream, "up-test/1").await;
    assert_eq!(first.class, "transient", "nothing listens there: {first:?}");
    drop(stream);
    let mut stream = coordinator.attached().await;
    stream.welcome(4, 2_000).await;
    assert_eq!(failed(&mut stream, "up-test/1").await, first, "it was not acknowledged");
    stream.say(job("up-test/1", "identify", 4)).await;
    assert_eq!(failed(&mut stream, "up-test/1").await, first, "the same id is the same work");
    agent.kill().await;
}

/// A kind of job that fails the first time and is counted.
fn second_time_lucky() -> (Registry, Arc<AtomicU32>) {
    let (mut registry, runs) = (Registry::default(), Arc::new(AtomicU32::new(0)));
    let counted = runs.clone();
    registry.add::<LedgerStatus, _, _>(move |_, _| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match run {
                0 => Err(failure(JobFailureClass::Transient, "PU0703", "asking the ledger", ["blue does not answer"])),
                _ => Ok(LedgerState { open_verdicts: 0, rows: u64::from(run) }),
            }
        }
    });
    (registry, runs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_was_acknowledged_is_new_work_and_what_was_done_is_never_done_again() {
    let (mut coordinator, folder, system) = (Coordinator::start().await, folder("again"), Arc::new(System::default()));
    let (jobs, runs) = second_time_lucky();
    let agent = Agent::start_with(&folder, &coordinator.address, system, jobs).await;
    let mut stream = coordinator.attached().await;
    stream.welcome(4, 2_000).await;
    let (id, kind) = ("up-test/1", LedgerStatus::KIND);
    let ack = || Down::Ack(generated::Ack { what: Some(ack::What::JobId(id.into())) });
    stream.say(job(id, kind, 4)).await;
    let first = failed(&mut stream, id).await;
    stream.say(job(id, kind, 4)).await;
    assert_eq!(failed(&mut stream, id).await, first, "it was not acknowledged");
    // On the same stream, as an undoing asks that is tried again.
    let mut answers = Vec::new();
    for _ in 0..2 {
        stream.say(ack()).await;
        stream.say(job(id, kind, 4)).await;
        let done = |message: &Up| match message {
            Up::JobDone(job) if job.id == id => Some(job.output_json.clone()),
            _ => None,
        };
        answers.push(stream.hear("an answer", done).await);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(runs.load(Ordering::SeqCst), 2, "once failed, once done");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_an_unknown_kind_or_a_deposed_coordinator_are_refused() {
    let (_coordinator, mut stream, agent, _system, _folder) = attached("refused-jobs").await;
    stream.intent(&wish(1)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    for (id, kind, epoch, code) in [("a", "raw_sql", 4, "PU0700"), ("b", "identify", 3, super::runner::STALE)] {
        stream.say(job(id, kind, epoch)).await;
        let refused = stream
            .hear("a refusal", |message| match message {
                Up::JobRefused(job) if job.id == id => Some(job.code.clone()),
                _ => None,
            })
            .await;
        assert_eq!(refused, code);
    }
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_are_stale_replayed_or_altered_are_refused_counted_and_logged_once() {
    let recorder = runtime::recorder::install(&[]).unwrap();
    let (_coordinator, mut stream, agent, system, _folder) = attached("counted").await;
    stream.intent(&wish(7)).await;
    assert_eq!(stream.settled(7).await, Ok(()));
    for _ in 0..2 {
        // One that was overtaken, played again; one of a coordinator that was deposed; and another wish under a known number.
        for (intent, said) in [
            (hold(6, 60_000), "a newer intent was seen"),
            (Intent { epoch: Epoch(3), ..hold(8, 60_000) }, "a newer intent was seen"),
            (hold(7, 60_000), "an intent of the same number said something else"),
        ] {
            let generation = intent.generation.0;
            stream.intent(&intent).await;
            assert_eq!(stream.settled(generation).await, Err(said.to_owned().into()));
        }
        stream.say(job("late", "identify", 3)).await;
        let refused = |message: &Up| matches!(message, Up::JobRefused(job) if job.id == "late").then_some(());
        stream.hear("a refusal", refused).await;
    }
    assert_eq!(system.pauses.load(Ordering::SeqCst), 0, "nothing of it was done");
    let logged = [("altered", "intent", 4), ("stale", "intent", 3), ("stale", "intent", 4), ("stale", "job", 3)];
    assert_eq!(agent.shared.refusals(), logged);
    let shown = recorder.render();
    for line in [r#"{reason="stale"} 6"#, r#"{reason="altered"} 2"#] {
        assert!(shown.contains(&format!("pilot_agent_commands_refused_total{line}")), "{line}: {shown}");
    }
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_speaks_another_version_is_not_obeyed_and_one_that_is_understood_is() {
    let mut coordinator = Coordinator::start().await;
    let (folder, system) = (folder("other-version"), Arc::new(System::default()));
    let agent = Agent::start(&folder, &coordinator.address, system.clone()).await;
    let stream = coordinator.attached().await;
    stream.welcome_speaking(4, 2_000, protocol::SPOKEN + 1).await;
    stream.intent(&hold(1, 60_000)).await;
    // It hangs up and dials again.
    let mut stream = coordinator.attached().await;
    assert_eq!(agent.shared.refusals(), [("protocol", "welcome", 4)]);
    assert_eq!(system.pauses.load(Ordering::SeqCst), 0);
    assert_eq!(stream.hello.protocol, protocol::SPOKEN);
    stream.welcome_speaking(4, 2_000, protocol::SPOKEN).await;
    stream.intent(&wish(1)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_sent_again_until_it_is_acknowledged() {
    let (mut coordinator, mut stream, agent, _system, _folder) = attached("events").await;
    agent.shared.event(Event::OldSideWritten { at: agent.shared.clock.now(), commits: 1 });
    agent.shared.event(Event::OldSideWritten { at: agent.shared.clock.now(), commits: 2 });
    let (first, second) = (next_event(&mut stream).await, next_event(&mut stream).await);
    assert_eq!((first.0, second.0), (1, 2));
    ack_event(&stream, 1).await;
    // Acknowledged when a later word of the same stream was answered.
    stream.intent(&wish(1)).await;
    assert_eq!(stream.settled(1).await, Ok(()));
    drop(stream);
    let mut stream = coordinator.attached().await;
    stream.welcome(4, 2_000).await;
    assert_eq!(next_event(&mut stream).await, second);
    agent.kill().await;
}
