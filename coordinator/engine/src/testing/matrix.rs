//! Plays runs to their end while everything goes wrong: the process is lost at every append, every effect fails in
//! every way, a person aborts at every moment. The end must be the world as it was, or the work complete.
//!
//! Call these from a runtime whose time is paused (`#[tokio::test(start_paused = true)]`), or they take as long as the
//! steps do.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::clock::Clock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cx::{Faults, Point, Progress};
use crate::driver::{DriveError, Driver, Ended, Handle, Options, Parts};
use crate::fact::{Entry, Fact, Outcome, Request};
use crate::failure::{Failure, FailureClass};
use crate::ids::{AskId, Code, Operator, RunId, StepId, Subject};
use crate::journal::{Holder, JournalError, Seq, ask, entries, start};
use crate::plan::Plan;
use crate::state::State;
use crate::step::Domain;
use crate::testing::journal::{LossyJournal, MemoryJournal, When};

const LIVES_MAX: usize = 8;
const ANSWERS_MAX: usize = 40;
const VIRTUAL_TIME_MAX: Duration = Duration::from_secs(60 * 86_400);
const INJECTED: Code = Code("TEST");

/// Says what is wrong with a world, if anything.
pub type Verdict<W> = Box<dyn Fn(&W) -> Result<(), String>>;

/// One fresh world and a plan to play in it.
pub struct Scene<D: Domain> {
    /// The steps: the one under test, and [`crate::testing::Given`] in place of those it builds on.
    pub plan: Plan<D>,
    /// What is asked for.
    pub spec: D::Spec,
    /// As it is before the run.
    pub world: Arc<D::World>,
    /// The clock the world runs on.
    pub clock: Clock,
    /// Whether the world is as it was before the run (but for what is allowed to stay).
    pub as_before: Verdict<D::World>,
    /// Whether the work is complete.
    pub complete: Verdict<D::World>,
}

/// What was played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Runs played to their end.
    pub runs: usize,
    /// Appends on the path on which nothing goes wrong.
    pub appends: usize,
    /// Effects on that path, in order.
    pub effects: Vec<(StepId, String)>,
}

/// A run that has been played.
pub struct Played<D: Domain> {
    /// How it ended.
    pub outcome: Outcome,
    /// The fold of its journal.
    pub state: State<D>,
    /// Its facts.
    pub facts: Vec<Entry<D>>,
}

/// What goes wrong in one play.
#[derive(Clone, Debug, Default)]
struct Script {
    loss: Option<(usize, When)>,
    fault: Option<(StepId, String, Point, FailureClass)>,
    abort_after: Option<usize>,
}

/// Plays the scene with nothing going wrong but what the world itself does. Approves and resumes whenever the run asks
/// for a person.
///
/// # Panics
/// If the run does not end, or its end is neither the world as it was nor the work complete.
pub async fn play<D: Domain>(scene: Scene<D>) -> Played<D> {
    enact(scene, Script::default()).await
}

/// As [`play`], with a person's wish in the inbox from the beginning.
///
/// # Panics
/// As [`play`].
pub async fn play_asked<D: Domain>(scene: Scene<D>, request: Request<D>) -> Played<D> {
    enact_asked(scene, Script::default(), Some(request)).await
}

/// Loses the process before and after every append (so also between every act and its record), on the path on which
/// nothing goes wrong; and loses it so while unwinding from a failure of each effect, made or not made. Every run must
/// end as the same run does without losses: complete, or with the world as it was.
///
/// # Panics
/// With the script of the first play that breaks this.
pub async fn crash_matrix<D: Domain>(make: impl AsyncFn() -> Scene<D>) -> Report {
    let (mut report, appends) = well(&make).await;
    lose_everywhere(&make, &Script::default(), appends, Some(Outcome::Succeeded), &mut report).await;
    for (step, key) in report.effects.clone() {
        for point in [Point::BeforeAct, Point::AfterAct] {
            let fault = Some((step, key.clone(), point, FailureClass::Permanent));
            let script = Script { fault, ..Script::default() };
            let played = enact(make().await, script.clone()).await;
            report.runs += 1;
            lose_everywhere(&make, &script, played.facts.len() - 1, None, &mut report).await;
        }
    }
    report
}

/// The suite every step passes: [`crash_matrix`], and
/// - each effect fails transiently, and with an unknown outcome, made and not made: the run still succeeds;
/// - a person aborts after each fact: the world is as it was, or (past the point of no return) the work complete.
///
/// # Panics
/// With the script of the first play that breaks this.
pub async fn conformance<D: Domain>(make: impl AsyncFn() -> Scene<D>) -> Report {
    let mut report = crash_matrix(&make).await;
    for (step, key) in report.effects.clone() {
        for point in [Point::BeforeAct, Point::AfterAct] {
            for class in [FailureClass::Transient, FailureClass::Unknown, FailureClass::NeedsOperator] {
                let fault = Some((step, key.clone(), point, class));
                let played = enact(make().await, Script { fault: fault.clone(), ..Script::default() }).await;
                assert_eq!(played.outcome, Outcome::Succeeded, "after {fault:?}: {}", story(&played.facts));
                report.runs += 1;
            }
        }
    }
    for n in 0..report.appends {
        enact(make().await, Script { abort_after: Some(n), ..Script::default() }).await;
        report.runs += 1;
    }
    report
}

async fn well<D: Domain>(make: impl AsyncFn() -> Scene<D>) -> (Report, usize) {
    let played = enact(make().await, Script::default()).await;
    assert_eq!(played.outcome, Outcome::Succeeded, "nothing went wrong, yet: {}", story(&played.facts));
    let effects = played.facts.iter().filter_map(|entry| match &entry.fact {
        Fact::EffectPlanned { step, key, .. } => Some((*step, key.clone())),
        _ => None,
    });
    let appends = played.facts.len() - 1; // `Created` is not the driver's
    (Report { runs: 1, appends, effects: effects.collect() }, appends)
}

async fn lose_everywhere<D: Domain>(
    make: impl AsyncFn() -> Scene<D>,
    script: &Script,
    appends: usize,
    expected: Option<Outcome>,
    report: &mut Report,
) {
    for n in 0..appends {
        for when in [When::Before, When::After] {
            let script = Script { loss: Some((n, when)), ..script.clone() };
            let played = enact(make().await, script.clone()).await;
            let as_expected = expected.is_none_or(|expected| expected == played.outcome);
            assert!(as_expected, "{script:?} ended {:?}: {}", played.outcome, story(&played.facts));
            report.runs += 1;
        }
    }
}

/// One play, from `Created` to the end, over as many lives of the driver as it takes.
async fn enact<D: Domain>(scene: Scene<D>, script: Script) -> Played<D> {
    enact_asked(scene, script, None).await
}

async fn enact_asked<D: Domain>(scene: Scene<D>, script: Script, asked: Option<Request<D>>) -> Played<D> {
    let Scene { plan, spec, world, clock, as_before, complete } = scene;
    let plan = Arc::new(plan);
    let (id, subject) = (RunId::from("run"), Subject::from("subject"));
    let memory = MemoryJournal::new(clock.clone());
    start::<D>(&memory, &subject, &id, spec, plan.shape(), clock.now()).await.expect("an empty journal");
    if let Some(asked) = asked {
        ask(&memory, &id, AskId::fresh(), Operator::from("test"), &asked, clock.now()).await.expect("an inbox");
    }
    let journal = LossyJournal::new(memory.clone(), script.loss);
    let abort = Arc::new(Notify::new());
    let mut options = Options::<D> { inbox_every: Duration::from_secs(10), ..Options::default() };
    options.faults = script.fault.clone().map(faults);
    options.on_fact = script.abort_after.map(|n| {
        let (left, abort) = (AtomicUsize::new(n), abort.clone());
        let count = move |_: &Entry<D>| {
            if left.fetch_sub(1, Ordering::SeqCst) == 0 {
                abort.notify_one();
            }
        };
        Arc::new(count) as crate::driver::OnFact<D>
    });
    let live = async |life: usize| {
        let holder = Holder { id: format!("life-{life}"), address: String::new() };
        let parts = Parts {
            plan: plan.clone(),
            world: world.clone(),
            journal: Arc::new(journal.clone()),
            clock: clock.clone(),
            holder,
            options: options.clone(),
        };
        let (driver, handle) = Driver::new(id.clone(), parts);
        tokio::select! {
            ended = driver.run(CancellationToken::new()) => Some(ended),
            () = journal.lost() => None,
            never = person(&memory, &id, &clock, &handle, &abort) => match never {},
        }
    };
    let mut outcome = None;
    let mut life = 0;
    while outcome.is_none() {
        life += 1;
        assert!(life <= LIVES_MAX, "{script:?}: the run does not end");
        match clock.timeout(VIRTUAL_TIME_MAX, Box::pin(live(life))).await {
            Err(_) => panic!("{script:?}: the run hangs: {}", tell::<D>(&memory, &id).await),
            Ok(None) => {}
            Ok(Some(Ok(Ended::Finished(ended)))) => outcome = Some(ended),
            Ok(Some(Err(DriveError::Journal { source: JournalError::Held { remaining, .. }, .. }))) => {
                clock.sleep(remaining).await;
            }
            Ok(Some(other)) => panic!("{script:?}: {other:?}: {}", tell::<D>(&memory, &id).await),
        }
    }
    let outcome = outcome.expect("the loop has ended");
    let facts = entries::<D>(&memory, &id, Seq(0)).await.expect("a journal that can be read");
    let state = facts.iter().fold(State::empty(), |state, entry| state.apply(entry).expect("a legal journal"));
    let verdict = match outcome {
        Outcome::Succeeded => complete(&world),
        Outcome::Unwound | Outcome::Refused => as_before(&world),
        // Only where a person gave up, which these plays do past the point of no return alone.
        Outcome::Stopped if state.committed() && script.abort_after.is_some() => Ok(()),
        Outcome::Stopped => Err("nobody gave up".to_owned()),
    };
    if let Err(wrong) = verdict {
        panic!("{script:?} ended {outcome:?}, but {wrong}: {}", story(&facts));
    }
    Played { outcome, state, facts }
}

fn faults((step, key, point, class): (StepId, String, Point, FailureClass)) -> Faults {
    let left = Mutex::new(Some(class));
    Arc::new(move |at, in_step, in_key| {
        if (at, in_step, in_key) != (point, step, key.as_str()) {
            return None;
        }
        let class = left.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Failure::new(class, INJECTED, format!("{key} was made to fail ({point:?})")))
    })
}

/// A person who approves and resumes whatever asks for one, and aborts when told to.
async fn person<D: Domain>(
    journal: &MemoryJournal,
    id: &RunId,
    clock: &Clock,
    handle: &Handle<D>,
    abort: &Notify,
) -> std::convert::Infallible {
    let say = async |request: Request<D>| {
        let by = Operator::from("test");
        ask(journal, id, AskId::fresh(), by, &request, clock.now()).await.expect("an inbox");
    };
    let mut answers = 0;
    let mut progress = handle.progress();
    loop {
        let asked: Option<Progress> = tokio::select! {
            () = abort.notified() => None,
            waits = progress.wait_for(|progress| progress.asks_operator) => match waits {
                Ok(waits) => Some(waits.clone()),
                Err(_) => std::future::pending().await,
            },
        };
        let Some(asked) = asked else {
            say(Request::Abort).await;
            continue;
        };
        answers += 1;
        assert!(answers <= ANSWERS_MAX, "the run asks for a person again and again: {:?}", asked.waiting);
        clock.sleep(Duration::from_secs(1)).await;
        say(Request::Approve { name: None }).await;
        say(Request::Resume).await;
        clock.sleep(Duration::from_secs(1)).await;
    }
}

async fn tell<D: Domain>(journal: &MemoryJournal, id: &RunId) -> String {
    entries::<D>(journal, id, Seq(0)).await.map_or_else(|error| format!("{error:?}"), |facts| story(&facts))
}

fn story<D: Domain>(facts: &[Entry<D>]) -> String {
    facts.iter().map(|entry| format!("\n  {} {} {:?}", entry.seq, entry.epoch, brief(&entry.fact))).collect()
}

fn brief<D: Domain>(fact: &Fact<D>) -> impl Debug {
    let mut text = format!("{fact:?}");
    if let Some((cut, _)) = text.char_indices().nth(300) {
        text.truncate(cut);
    }
    text
}
