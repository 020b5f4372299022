//! A toy domain: a world of named cells, two reversible steps, a pivot and a forward-only step, all of which can be
//! told to misbehave.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::clock::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cx::{Cx, Progress};
use crate::driver::{DriveError, Driver, Ended, Handle, Options, Parts};
use crate::fact::{Entry, Fact, Request};
use crate::failure::{Failure, FailureClass};
use crate::ids::{AskId, Code, Operator, RunId, StepId, Subject};
use crate::journal::{Holder, Journal, JournalRead, Seq, ask, entries, fold, start};
use crate::plan::{Plan, Retry};
use crate::state::{Pivot, State};
use crate::step::{Domain, Gate, Look, Reversal, Settled, Step, Unit, Wait};
use crate::testing::{MemoryJournal, Scene};

pub(super) const TEST: Code = Code("TEST");

#[derive(Clone, Debug)]
pub(super) struct Toy;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) wish: String,
}

impl Domain for Toy {
    type World = World;
    type Spec = Spec;
    type Witness = String;
    type Event = String;
    type Ask = String;

    async fn calm(cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        let world = cx.world();
        world.note("calm");
        world.play(cx, "calm").await?;
        world.cells().remove("held");
        Ok(())
    }

    async fn leave(cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        let world = cx.world();
        lock(&world.leaves).push(format!("{} {}", cx.step(), cx.attempt()));
        world.play(cx, &format!("{}.leave", cx.step())).await.map(drop)
    }

    fn tune(_: &Spec, settings: &BTreeMap<String, Value>) -> Option<Spec> {
        Some(Spec { wish: settings.get("wish")?.as_str()?.to_owned() })
    }

    /// "patient" is tried once more than the plan says, "hasty" not at all.
    fn retry(spec: &Spec, _: StepId, planned: Retry) -> Retry {
        match spec.wish.as_str() {
            "patient" => Retry { retries_max: planned.retries_max + 1, ..planned },
            "hasty" => Retry { retries_max: 0, ..planned },
            _ => planned,
        }
    }
}

/// How a step misbehaves, once.
pub(super) enum Act {
    Fail(FailureClass),
    Gate(Gate),
    Panic,
    /// Waits for a cell to appear, by `until`, this long.
    Until(&'static str, Duration),
    /// Waits this long without looking at anything.
    Hang(Duration),
    Approval(&'static str),
}

pub(super) struct World {
    pub(super) clock: Clock,
    cells: Mutex<BTreeMap<String, String>>,
    acts: Mutex<HashMap<String, VecDeque<Act>>>,
    log: Mutex<Vec<String>>,
    /// The attempts that leave was asked for.
    leaves: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(clock: &Clock) -> Arc<World> {
        let cells = BTreeMap::from([("setting".to_owned(), "old".to_owned())]);
        Arc::new(World {
            clock: clock.clone(),
            cells: cells.into(),
            acts: Mutex::default(),
            log: Mutex::default(),
            leaves: Mutex::default(),
        })
    }

    pub(super) fn cells(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        lock(&self.cells)
    }

    pub(super) fn cell(&self, name: &str) -> Option<String> {
        self.cells().get(name).cloned()
    }

    pub(super) fn set(&self, name: &str, value: &str) {
        self.cells().insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn note(&self, what: impl Into<String>) {
        lock(&self.log).push(what.into());
    }

    pub(super) fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    pub(super) fn leaves(&self) -> Vec<String> {
        lock(&self.leaves).clone()
    }

    /// From now on, `place` ("a.run", "calm" …) misbehaves like this, one after the other.
    pub(super) fn on(&self, place: &str, act: Act) {
        lock(&self.acts).entry(place.to_owned()).or_default().push_back(act);
    }

    fn next(&self, place: &str) -> Option<Act> {
        lock(&self.acts).get_mut(place)?.pop_front()
    }

    async fn play(&self, cx: &Cx<'_, Toy>, place: &str) -> Result<Option<Gate>, Failure> {
        match self.next(place) {
            None => Ok(None),
            Some(Act::Fail(class)) => Err(Failure::new(class, TEST, format!("{place} was told to fail"))),
            Some(Act::Gate(gate)) => Ok(Some(gate)),
            Some(Act::Panic) => panic!("{place} was told to panic"),
            Some(Act::Until(cell, deadline)) => {
                let wait = Wait { every: Duration::from_secs(5), deadline, what: "a cell" };
                cx.progress(1, 2, Unit::ITEMS);
                cx.until(wait, || async move {
                    Ok(match self.cell(cell) {
                        Some(_) => Look::There(None),
                        None => Look::NotYet(format!("{cell} is empty")),
                    })
                })
                .await
            }
            Some(Act::Hang(time)) => {
                self.clock.sleep(time).await;
                self.note(format!("{place} came back"));
                Ok(None)
            }
            Some(Act::Approval(name)) => {
                cx.approval(name, "it costs something").await?;
                Ok(None)
            }
        }
    }

    /// A change to one cell, as an effect that looks.
    async fn change(&self, cx: &Cx<'_, Toy>, key: &str, cell: &str, to: &str) -> Result<String, Failure> {
        let before = async { Ok(self.cell(cell)) };
        let look = |_: &Option<String>| async move {
            self.note(format!("look {key}"));
            let there = self.cell(cell).is_some_and(|value| value == to);
            Ok(if there { Look::There(to.to_owned()) } else { Look::NotYet("not changed".to_owned()) })
        };
        let act = |_: &Option<String>| async move {
            self.note(format!("act {key}"));
            self.set(cell, to);
            Ok(to.to_owned())
        };
        cx.effect(key, before, look, act).await
    }

    fn restore(&self, cx: &Cx<'_, Toy>, key: &str, cell: &str) {
        match cx.recall::<Option<String>>(key) {
            Some(Some(value)) => self.set(cell, &value),
            Some(None) => drop(self.cells().remove(cell)),
            None => {}
        }
    }
}

/// Changes a setting that was there before.
pub(super) struct A;

impl Step<Toy> for A {
    const ID: StepId = StepId("a");
    const TITLE: &'static str = "Change the setting";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = String;

    async fn check(&self, cx: &Cx<'_, Toy>) -> Result<Gate, Failure> {
        cx.world().note("a.check");
        Ok(cx.world().play(cx, "a.check").await?.unwrap_or(Gate::Open))
    }

    async fn run(&self, cx: &Cx<'_, Toy>) -> Result<String, Failure> {
        cx.world().note(format!("a.run {}", cx.attempt()));
        let wish = cx.spec().wish.clone();
        let done = cx.world().change(cx, "setting", "setting", &wish).await?;
        cx.world().play(cx, "a.run").await?;
        Ok(done)
    }

    async fn verify(&self, cx: &Cx<'_, Toy>, out: &String) -> Result<(), Failure> {
        cx.world().play(cx, "a.verify").await?;
        match cx.world().cell("setting").as_ref() == Some(out) {
            true => Ok(()),
            false => Err(Failure::permanent(TEST, "the setting is something else")),
        }
    }

    async fn undo(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        cx.world().note("a.undo");
        cx.world().play(cx, "a.undo").await?;
        cx.world().restore(cx, "setting", "setting");
        Ok(())
    }
}

/// Builds two new things, whose names differ after a restart.
pub(super) struct B;

impl Step<Toy> for B {
    const ID: StepId = StepId("b");
    const TITLE: &'static str = "Build";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = String;

    async fn check(&self, cx: &Cx<'_, Toy>) -> Result<Gate, Failure> {
        Ok(cx.world().play(cx, "b.check").await?.unwrap_or(Gate::Open))
    }

    async fn run(&self, cx: &Cx<'_, Toy>) -> Result<String, Failure> {
        let setting = cx.output::<A>()?;
        let name = format!("thing-{}-{}", cx.run_id(), cx.round());
        cx.world().change(cx, "thing", &name, &setting).await?;
        cx.world().play(cx, "b.run").await?;
        cx.world().change(cx, "second", &format!("{name}-b"), "second").await?;
        Ok(name)
    }

    async fn verify(&self, _: &Cx<'_, Toy>, _: &String) -> Result<(), Failure> {
        Ok(())
    }

    async fn undo(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        cx.world().note("b.undo");
        cx.world().play(cx, "b.undo").await?;
        let name = format!("thing-{}-{}", cx.run_id(), cx.round());
        cx.world().cells().retain(|cell, _| !cell.starts_with(&name));
        Ok(())
    }
}

/// Holds, arms, cuts once, looks, settles, releases.
pub(super) struct P;

impl Step<Toy> for P {
    const ID: StepId = StepId("p");
    const TITLE: &'static str = "Cut";
    const REVERSAL: Reversal = Reversal::Pivot;
    type Output = ();

    async fn check(&self, cx: &Cx<'_, Toy>) -> Result<Gate, Failure> {
        cx.world().note("p.check");
        Ok(cx.world().play(cx, "p.check").await?.unwrap_or(Gate::Open))
    }

    async fn run(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        let world = cx.world();
        if cx.pivot() == Pivot::Untouched {
            world.play(cx, "p.run").await?;
            world.change(cx, "hold", "held", "yes").await?;
            cx.arm().await?;
            world.play(cx, "p.armed").await?;
            world.change(cx, "cut", "cut", "yes").await?;
        }
        if !cx.state().committed() {
            world.play(cx, "p.look").await?;
            let seen = world.cell("cut").is_some();
            world.note(format!("seen {seen}"));
            world.cells().remove("held");
            if !seen {
                cx.settle(Settled::NotHappened("no cut".to_owned())).await?;
                return Err(Failure::transient(TEST, "the cut did not happen"));
            }
            cx.settle(Settled::Happened("cut".to_owned())).await?;
        }
        world.cells().remove("held");
        world.play(cx, "p.after").await?;
        Ok(())
    }

    async fn verify(&self, cx: &Cx<'_, Toy>, (): &()) -> Result<(), Failure> {
        cx.world().play(cx, "p.verify").await?;
        Ok(())
    }

    async fn undo(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        cx.world().note("p.undo");
        cx.world().cells().remove("held");
        Ok(())
    }
}

/// Tidies up after the cut.
pub(super) struct F;

impl Step<Toy> for F {
    const ID: StepId = StepId("f");
    const TITLE: &'static str = "Tidy";
    const REVERSAL: Reversal = Reversal::ForwardOnly;
    type Output = ();

    async fn check(&self, cx: &Cx<'_, Toy>) -> Result<Gate, Failure> {
        Ok(cx.world().play(cx, "f.check").await?.unwrap_or(Gate::Open))
    }

    async fn run(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        cx.world().change(cx, "tidy", "tidy", "yes").await?;
        cx.world().play(cx, "f.run").await?;
        Ok(())
    }

    async fn verify(&self, _: &Cx<'_, Toy>, (): &()) -> Result<(), Failure> {
        Ok(())
    }

    async fn undo(&self, cx: &Cx<'_, Toy>) -> Result<(), Failure> {
        cx.world().note("f.undo");
        Ok(())
    }
}

pub(super) fn plan() -> Plan<Toy> {
    let few = Retry { retries_max: 2, delay_min: Duration::from_secs(1), delay_max: Duration::from_secs(8) };
    Plan::new().then(A).retry(few).then(B).retry(few).then(P).retry(few).then(F).retry(few)
}

pub(super) fn scene(prepare: impl Fn(&World), plan: Plan<Toy>) -> Scene<Toy> {
    let clock = Clock::tokio();
    let world = World::new(&clock);
    prepare(&world);
    let before = world.cells().clone();
    Scene {
        plan,
        spec: Spec { wish: "new".into() },
        world,
        clock,
        as_before: Box::new(move |world| {
            let cells = world.cells().clone();
            if cells == before { Ok(()) } else { Err(format!("the cells are {cells:?}")) }
        }),
        complete: Box::new(|world| {
            let wrong = world.cell("cut").is_none() || world.cell("tidy").is_none() || world.cell("held").is_some();
            if wrong { Err(format!("the cells are {:?}", world.cells())) } else { Ok(()) }
        }),
    }
}

/// A run with its journal, to be driven by hand.
pub(super) struct Stage {
    pub(super) clock: Clock,
    pub(super) world: Arc<World>,
    pub(super) journal: MemoryJournal,
    pub(super) id: RunId,
    pub(super) plan: Arc<Plan<Toy>>,
    pub(super) options: Options<Toy>,
}

impl Stage {
    pub(super) async fn new(plan: Plan<Toy>) -> Stage {
        let clock = Clock::tokio();
        let (world, journal, id) = (World::new(&clock), MemoryJournal::new(clock.clone()), RunId::from("run"));
        let spec = Spec { wish: "new".into() };
        start::<Toy>(&journal, &Subject::from("s"), &id, spec, plan.shape(), clock.now()).await.unwrap();
        Stage { clock, world, journal, id, plan: Arc::new(plan), options: Options::default() }
    }

    pub(super) fn driver(&self, holder: &str) -> (Driver<Toy>, Handle<Toy>) {
        self.driver_on(holder, Arc::new(self.journal.clone()))
    }

    pub(super) fn driver_on(&self, holder: &str, journal: Arc<dyn Journal>) -> (Driver<Toy>, Handle<Toy>) {
        let holder = Holder { id: holder.to_owned(), address: String::new() };
        let (plan, world, clock) = (self.plan.clone(), self.world.clone(), self.clock.clone());
        Driver::new(self.id.clone(), Parts { plan, world, journal, clock, holder, options: self.options.clone() })
    }

    /// Drives in the background.
    pub(super) fn go(&self) -> Going {
        let (driver, handle) = self.driver("one");
        let stop = CancellationToken::new();
        Going { handle, stop: stop.clone(), task: tokio::spawn(driver.run(stop)) }
    }

    /// Drives to the end.
    pub(super) async fn end(&self) -> Ended {
        self.go().end().await
    }

    pub(super) async fn say(&self, request: Request<Toy>) {
        ask(&self.journal, &self.id, AskId::fresh(), Operator::from("ann"), &request, self.clock.now()).await.unwrap();
    }

    pub(super) async fn facts(&self) -> Vec<Entry<Toy>> {
        entries(&self.journal, &self.id, Seq(0)).await.unwrap()
    }

    /// The kinds of the facts, with the step where there is one: "step_started a".
    pub(super) async fn story(&self) -> Vec<String> {
        let of = |entry: &Entry<Toy>| {
            let value = entry.fact.encode().unwrap();
            let step = value.get("step").and_then(|step| step.as_str()).map(|step| format!(" {step}"));
            format!("{}{}", entry.fact.kind(), step.unwrap_or_default())
        };
        self.facts().await.iter().map(of).collect()
    }

    pub(super) async fn state(&self) -> State<Toy> {
        fold(&self.journal, &self.id).await.unwrap()
    }

    pub(super) async fn journal_holder(&self) -> Option<Holder> {
        self.journal.holder(&Subject::from("s")).await.unwrap().map(|(holder, _)| holder)
    }

    pub(super) async fn failures(&self) -> Vec<Failure> {
        let facts = self.facts().await.into_iter();
        facts.filter_map(|e| if let Fact::StepFailed { failure, .. } = e.fact { Some(failure) } else { None }).collect()
    }
}

pub(super) struct Going {
    pub(super) handle: Handle<Toy>,
    pub(super) stop: CancellationToken,
    pub(super) task: tokio::task::JoinHandle<Result<Ended, DriveError>>,
}

impl Going {
    pub(super) async fn end(self) -> Ended {
        self.result().await.unwrap()
    }

    pub(super) async fn result(self) -> Result<Ended, DriveError> {
        let limit = Duration::from_secs(86_400);
        match tokio::time::timeout(limit, self.task).await {
            Ok(joined) => joined.unwrap(),
            Err(_) => panic!("the run hangs: {:?}, {:?}", self.handle.progress().borrow(), self.handle.state().mode()),
        }
    }

    /// Waits until the progress is so, for a virtual day at most.
    pub(super) async fn sees(&self, what: impl FnMut(&Progress) -> bool) -> Progress {
        let mut progress = self.handle.progress();
        let waited = tokio::time::timeout(Duration::from_secs(86_400), progress.wait_for(what)).await;
        match waited {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("not seen; last: {:?}", self.handle.progress().borrow()),
        }
    }

    /// Waits until the fold is so, for a virtual day at most.
    pub(super) async fn folds(&self, mut what: impl FnMut(&State<Toy>) -> bool) {
        let mut states = self.handle.states();
        let waited = tokio::time::timeout(Duration::from_secs(86_400), states.wait_for(|state| what(state))).await;
        if waited.is_err() {
            panic!("not folded; last: {:?}", self.handle.state());
        }
    }
}
