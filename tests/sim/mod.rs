//! Coordinators and agents on a simulated network: their real code on both ends, two of each, one shared store, AWS and the
//! databases played; partitions, one-way losses, stalls, crashes, cut lines, late and lost answers, clocks that are off, by seed.
//!
//! A seed that breaks a promise prints its history. `SIM_SEED=123 cargo nextest run --workspace sim::` plays one seed, `SIM_SEEDS=N` so
//! many, from `SIM_FIRST` on. A seed repeats its faults; which of two things of the same moment comes first is tokio's choice.

mod agents;
mod cloud;
mod coordinators;
mod dice;
mod faults;
mod jobs;
mod judge;
mod net;
mod store;
mod systems;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coordinator::rds::fake::Switching;
use engine::{AskId, Operator, Request, RunId};
use futures_util::FutureExt;
use tests::stage::depth;
use turmoil::Sim;

use self::{
    dice::Dice,
    faults::{Fault, From},
    judge::Judge,
    world::{AGENTS, COORDINATORS, World, locked},
};

/// The grain of the network; what happens within a host is exact.
const TICK: Duration = Duration::from_millis(20);
/// Everything heals then at the latest: in most seeds soon after the cut, in the long ones only when every cap has passed.
const HEAL_AT: (Duration, Duration) = (Duration::from_secs(38), Duration::from_secs(80));
const LONG_PERCENT: u64 = 15;
/// The longest that a healed world may take to end: the outcome of a cut may be looked for 220 s, twice.
const END_WITHIN: Duration = Duration::from_secs(1200);
/// After the end agents hear the last word and give their last events.
const SETTLE: Duration = Duration::from_secs(3);

/// How one seed ended.
struct Played {
    seed: u64,
    violations: Vec<String>,
    history: String,
    outcome: String,
    /// In simulated time.
    lasted: Duration,
    took: Duration,
}

fn ask(world: &World, id: &RunId, request: &Request<coordinator::world::Upgrade>) {
    world.tell(format!("a person asks: {request:?}"));
    let by = Operator("ann".into());
    let asked = engine::journal::ask(&world.shelf.journal, id, AskId::fresh(), by, request, world.clock.now());
    let _the_store_is_in_memory = asked.now_or_never();
}

/// A seed while it is played.
struct Play<'a> {
    world: Arc<World>,
    sim: Sim<'a>,
    judge: Judge,
    faults: Vec<Fault>,
    healed: Option<Duration>,
    heal_at: Duration,
    /// The switchover hangs until everything heals.
    hangs: bool,
    stopped: bool,
}

impl Play<'_> {
    fn new(seed: u64) -> Play<'static> {
        fastrand::seed(seed);
        let dice = Dice::new(seed);
        let (faults, switching) = faults::throw(&dice);
        let long = dice.percent(LONG_PERCENT);
        let world = World::new(seed, &dice, long);
        world.tell(format!("seed {seed}: {switching:?}, skews {:?}", world.skews));
        let hangs = switching == Switching::Hangs;
        world.aws.switching(switching);
        let heal_at = if long { HEAL_AT.1 } else { HEAL_AT.0 };
        let latency = dice.one_of(&[(1, 10), (1, 60), (5, 250)]);
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(100_000))
            .min_message_latency(Duration::from_millis(latency.0))
            .max_message_latency(Duration::from_millis(latency.1))
            .tcp_capacity(1 << 20);
        let mut sim = builder.build();
        let aws = world.clone();
        sim.host("aws", move || cloud::serve(aws.clone()));
        for (n, name) in COORDINATORS.into_iter().enumerate() {
            let world = world.clone();
            sim.host(name, move || coordinators::life(world.clone(), n));
        }
        for (n, name) in AGENTS.into_iter().enumerate() {
            let world = world.clone();
            sim.host(name, move || agents::life(world.clone(), n));
        }
        for name in COORDINATORS.into_iter().chain(AGENTS) {
            world.restarted(name);
        }
        Play { world, sim, judge: Judge::default(), faults, healed: None, heal_at, hangs, stopped: false }
    }

    fn trouble(&mut self) {
        let run = judge::run(&self.world);
        for fault in &mut self.faults {
            let since = match fault.from {
                From::Start => Some(Duration::ZERO),
                From::Hold => self.judge.held,
                From::Arming => self.judge.armed,
            };
            if fault.turn(&self.world, &mut self.sim, since)
                && let Some(run) = &run
            {
                self.stopped = true;
                ask(&self.world, &run.id, &Request::Abort);
            }
        }
    }

    fn heal(&mut self) {
        self.world.tell("everything heals");
        self.healed = Some(self.world.now());
        for fault in &mut self.faults {
            fault.heal(&self.world, &mut self.sim);
        }
        self.world.aws.switching(Switching::Succeeds);
    }

    /// Ticks until the run has ended and everything is quiet, or it is clear that it never will.
    fn run(&mut self) {
        let (mut ticks, mut ended) = (0_u64, None);
        loop {
            if let Err(error) = self.sim.step() {
                return self.world.violated(format!("a process ended: {error}"));
            }
            ticks += 1;
            if !ticks.is_multiple_of(3) {
                continue;
            }
            let now = self.world.now();
            self.judge.look(&self.world, ticks.is_multiple_of(12));
            if !locked(&self.world.violations).is_empty() {
                return;
            }
            if self.healed.is_none() {
                self.trouble();
            }
            let run = judge::run(&self.world);
            let over = run.as_ref().is_some_and(|run| run.outcome.is_some());
            if self.healed.is_none() && (over || now > self.heal_at || self.idle(now)) {
                self.heal();
            }
            if over && now > *ended.get_or_insert(now) + SETTLE {
                return;
            }
            if let (Some(healed), Some(run)) = (self.healed, &run)
                && ticks.is_multiple_of(150)
                && !over
            {
                if let Some(why) = judge::waits_for_a_person(&self.world, &run.id) {
                    self.world.tell(format!("a person is waited for: {why}"));
                    ask(&self.world, &run.id, &Request::Resume);
                }
                if now > healed + END_WITHIN {
                    return self.world.violated("it does not end");
                }
            }
        }
    }

    /// Nothing is left that could go wrong, and what went wrong has had its time.
    fn idle(&self, now: Duration) -> bool {
        !self.hangs && now > Duration::from_secs(25) && self.faults.iter().all(Fault::is_over)
    }
}

/// Plays one seed on this thread.
fn play(seed: u64) -> Played {
    let began = runtime::clock::Clock::system();
    let mut play = Play::new(seed);
    play.run();
    let run = judge::run(&play.world);
    match run.filter(|_| locked(&play.world.violations).is_empty()) {
        Some(run) => play.judge.end(&play.world, &run, play.stopped),
        None if locked(&play.world.violations).is_empty() => play.world.violated("no upgrade was ever begun"),
        None => {}
    }
    let outcome = judge::run(&play.world).and_then(|run| run.outcome);
    let Play { world, sim, .. } = play;
    let lasted = world.now();
    drop(sim);
    Played {
        seed,
        violations: locked(&world.violations).clone(),
        history: world.history(),
        outcome: outcome.map_or("unended", |outcome| outcome.as_str()).to_owned(),
        lasted,
        took: began.mono().0,
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays these seeds on every core; stops at the first that breaks a promise.
fn play_all(first: u64, many: u64) -> (Vec<(String, Duration, Duration)>, Option<Played>) {
    let next = AtomicU64::new(first);
    let worker = || {
        let mut ended = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first + many {
                return (ended, None);
            }
            let played = play(seed);
            ended.push((played.outcome.clone(), played.lasted, played.took));
            if !played.violations.is_empty() {
                next.store(u64::MAX / 2, Ordering::SeqCst);
                return (ended, Some(played));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a seed does not panic")).collect()
    });
    let (mut ended, mut broken) = (Vec::new(), None);
    for (some, failed) in all {
        ended.extend(some);
        broken = broken.or(failed);
    }
    (ended, broken)
}

#[test]
fn whatever_the_network_does_every_seed_ends_complete_or_as_before_and_no_promise_is_broken() {
    if let Some(seed) = setting("SIM_SEED") {
        let played = play(seed);
        println!("{}\nseed {seed} ended {} in {:?}", played.history, played.outcome, played.took);
        assert!(played.violations.is_empty(), "seed {seed}: {:#?}", played.violations);
        return;
    }
    let many = setting("SIM_SEEDS").unwrap_or(if depth::is_full() { 10_000 } else { 500 });
    let (ended, broken) = play_all(setting("SIM_FIRST").unwrap_or(1), many);
    let (lasted, took) =
        ended.iter().fold((Duration::ZERO, Duration::ZERO), |(a, b), (_, lasted, took)| (a + *lasted, b + *took));
    let count = |outcome: &str| ended.iter().filter(|(it, ..)| it == outcome).count();
    println!(
        "{} seeds, {} succeeded, {} unwound, {} stopped, {} refused; {lasted:?} simulated in {took:?}",
        ended.len(),
        count("succeeded"),
        count("unwound"),
        count("stopped"),
        count("refused")
    );
    if let Some(broken) = broken {
        panic!("{}\nseed {} broke a promise: {:#?}", broken.history, broken.seed, broken.violations);
    }
    // A simulation in which nothing ever happens proves nothing.
    assert!(count("succeeded") * 5 > ended.len() && count("unwound") * 20 > ended.len(), "too few of one kind");
}
