//! The promises, looked at while everything runs and once more at the end. Knows what is true outside of every process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::state::Shared;
use coordinator::world::Upgrade;
use engine::{Fact, JournalRead, Move, Outcome, RunFilter, RunId, RunInfo, Seq, State};
use futures_util::FutureExt;
use proto::epoch::{Epoch, Generation};

use super::{
    coordinators::{HOLD_MAX, PAUSE_MAX, spec},
    world::{AGENTS, World},
};

/// What a cap or a lease may be late by: a slow disk, a slow system, a system that fails for two seconds.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Of an intent.
type Number = (Epoch, Generation);

#[derive(Default)]
pub(super) struct Judge {
    /// By agent: the life it is in, its highest number, and the highest that hurt.
    marks: [(u32, Number, Number); 2],
    lapsed: [Option<Duration>; 2],
    pending: [BTreeSet<u64>; 2],
    observed: BTreeSet<(String, u64)>,
    read: u64,
    told: [String; 2],
    pub(super) held: Option<Duration>,
    pub(super) armed: Option<Duration>,
    armings: u64,
    pub(super) committed: bool,
}

/// The run, once there is one.
pub(super) fn run(world: &World) -> Option<RunInfo> {
    world.shelf.journal.list(&RunFilter::default()).now_or_never()?.ok()?.pop()
}

/// Its fold.
pub(super) fn fold(world: &World, id: &RunId) -> Result<State<Upgrade>, String> {
    let folded = engine::journal::fold::<Upgrade>(&world.shelf.journal, id).now_or_never();
    folded.ok_or("the store does not answer")?.map_err(|error| runtime::supervision::chain(&error))
}

/// Does it wait for a person?
pub(super) fn waits_for_a_person(world: &World, id: &RunId) -> Option<String> {
    let plan = coordinator::steps::plan(&spec(world));
    match engine::decide(plan.shape(), &fold(world, id).ok()?, world.clock.now()) {
        Move::AskOperator(why) => Some(why.to_string()),
        _ => None,
    }
}

impl Judge {
    /// One look at everything; at the events only now and then.
    pub(super) fn look(&mut self, world: &World, closely: bool) {
        for (agent, name) in AGENTS.into_iter().enumerate() {
            let Some((life, up)) = world.up(name) else { continue };
            let Some(shared) = world.life(agent) else { continue };
            self.numbers(world, agent, life, &shared);
            self.caps(world, agent, up);
            self.leases(world, agent, up, &shared);
            if closely {
                self.events(world, agent, &shared);
            }
            let stance = shared.stance.borrow().to_string();
            if self.told[agent] != stance {
                world.tell(format!("{} stance {stance}", AGENTS[agent]));
                self.told[agent] = stance;
            }
        }
        // The hold of the reboot is an earlier one.
        let cuttable = self.held.is_none() && world.aws.cut(&world.blue).is_some();
        if cuttable && world.systems.iter().any(|both| both[0].state().paused.is_some()) {
            self.held = Some(world.now());
        }
    }

    /// Two coordinators are never obeyed: what is obeyed has a number, and numbers only rise.
    fn numbers(&mut self, world: &World, agent: usize, life: u32, shared: &Shared) {
        let Some(mark) = shared.watermark.borrow().clone() else { return };
        let now = (mark.epoch, mark.generation);
        let (in_life, highest, harmful) = &mut self.marks[agent];
        // A wish that releases is done before it is on the disk, so a new life may not know it; one that hurts it must.
        let floor = if *in_life == life { *highest } else { *harmful };
        if now < floor {
            world.violated(format!("{} obeys {now:?} after {floor:?}", AGENTS[agent]));
        }
        if *in_life != life || now > *highest {
            let intent = shared.intent.borrow().clone();
            let wish = intent.as_deref().map(|intent| (intent.gate, intent.ingestion, intent.window.map(|w| w.open)));
            let serving = intent.as_deref().map(|intent| intent.targets.serving);
            world.tell(format!("{} life {life} obeys e{} g{} {wish:?} {serving:?}", AGENTS[agent], now.0.0, now.1.0));
            if intent.is_some_and(|intent| intent.is_harmful()) {
                *harmful = now;
            }
        }
        (*in_life, *highest) = (life, now);
    }

    /// Nothing is held beyond its cap while its agent is there.
    fn caps(&self, world: &World, agent: usize, up: Duration) {
        let now = world.now();
        for system in &world.systems[agent] {
            let Some(since) = system.state().paused else { continue };
            let cap = if system.holds() { HOLD_MAX } else { HOLD_MAX.max(PAUSE_MAX) };
            if now > since + cap + TOLERANCE && now > up + TOLERANCE {
                let late = now - since - cap;
                world.violated(format!("{} {} is held {late:?} beyond its cap", AGENTS[agent], system.name()));
            }
        }
    }

    /// Without a lease and outside the window nothing that hurts stays.
    fn leases(&mut self, world: &World, agent: usize, up: Duration, shared: &Shared) {
        let now = world.now();
        let lapsed = shared.lease.borrow().until.is_none_or(|until| until < shared.clock.mono());
        let open = shared.intent.borrow().as_deref().is_some_and(|it| it.window.is_some_and(|window| window.open));
        if !lapsed || open {
            self.lapsed[agent] = None;
            return;
        }
        let since = (*self.lapsed[agent].get_or_insert(now)).max(up);
        let paused = world.systems[agent].iter().find(|system| system.state().paused.is_some());
        if let Some(system) = paused
            && now > since + TOLERANCE
        {
            world.violated(format!("{} {} is paused without lease or window", AGENTS[agent], system.name()));
        }
    }

    /// What was acknowledged is in the journal, once; unless there is no journal it could go to.
    fn events(&mut self, world: &World, agent: usize, shared: &Shared) {
        let now: BTreeSet<u64> = shared.spool.events_after(0, usize::MAX).into_iter().map(|(n, _)| n).collect();
        let acknowledged: Vec<u64> = self.pending[agent].difference(&now).copied().collect();
        self.pending[agent] = now;
        let run = run(world).filter(|run| run.outcome.is_none());
        let Some(run) = run else { return };
        self.read(world, &run.id);
        for n in acknowledged {
            if !self.observed.contains(&(AGENTS[agent].to_owned(), n)) {
                world.violated(format!("event {n} of {} was acknowledged and is not in the journal", AGENTS[agent]));
            }
        }
    }

    /// Reads on in the journal.
    pub(super) fn read(&mut self, world: &World, id: &RunId) {
        let entries = engine::journal::entries::<Upgrade>(&world.shelf.journal, id, Seq(self.read)).now_or_never();
        let Some(Ok(entries)) = entries else { return };
        for entry in entries {
            self.read = entry.seq.0 + 1;
            match entry.fact {
                Fact::Observed { source, n, .. } if !self.observed.insert((source.0.clone(), n)) => {
                    world.violated(format!("event {n} of {source:?} is in the journal twice"));
                }
                Fact::PivotArmed { .. } => {
                    self.armings += 1;
                    self.armed.get_or_insert(world.now());
                }
                Fact::PointOfNoReturn { .. } => {
                    self.committed = true;
                    if !world.cut().switched {
                        world.violated("the point of no return was recorded and nothing was switched");
                    }
                }
                Fact::PivotDisarmed { .. } if world.cut().switched => {
                    world.violated("the pivot was disarmed although production is green");
                }
                _ => {}
            }
        }
    }

    /// Everything has healed and the run has ended: complete or as before.
    pub(super) fn end(&mut self, world: &World, run: &RunInfo, asked_to_stop: bool) {
        self.read(world, &run.id);
        if let Err(why) = fold(world, &run.id) {
            world.violated(format!("the journal is not legal: {why}"));
        }
        self.asked_once(world);
        let switched = world.switched();
        match run.outcome {
            Some(Outcome::Succeeded) => complete(world),
            Some(Outcome::Unwound | Outcome::Refused) => as_before(world),
            Some(Outcome::Stopped) if asked_to_stop => {}
            outcome => world.violated(format!("it ended as {outcome:?}")),
        }
        for (agent, both) in world.systems.iter().enumerate() {
            for system in both {
                let state = system.state();
                if state.paused.is_some() {
                    world.violated(format!("{} {} is paused at the end", AGENTS[agent], system.name()));
                }
                if state.on_green && !switched {
                    world.violated(format!("{} {} is sent to green at the end", AGENTS[agent], system.name()));
                }
            }
            let Some(shared) = world.life(agent) else { continue };
            if shared.intent.borrow().as_deref().is_some_and(proto::intent::Intent::is_harmful) {
                world.violated(format!("{} was left with a wish that hurts", AGENTS[agent]));
            }
            if !shared.spool.events_after(0, 1).is_empty() {
                world.violated(format!("an event of {} never arrived", AGENTS[agent]));
            }
        }
    }

    /// AWS was asked for each change at most once for each state that was seen.
    fn asked_once(&self, world: &World) {
        let calls = world.aws.calls();
        let switchovers = calls.iter().filter(|call| call.operation == "SwitchoverBlueGreenDeployment").count() as u64;
        if switchovers > self.armings {
            world.violated(format!("AWS was asked {switchovers} times to switch over, armed {} times", self.armings));
        }
        let mut acted: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.acted && call.operation.starts_with("Create")) {
            *acted.entry((call.operation, &call.target)).or_default() += 1;
        }
        for ((operation, target), times) in acted.into_iter().filter(|(_, times)| *times > 1) {
            world.violated(format!("{operation} made {target} {times} times"));
        }
    }
}

fn complete(world: &World) {
    let picture = world.aws.snapshot_of_world();
    let left: Vec<&str> =
        picture.names().filter(|name| name.contains("-old1") || name.starts_with("deployment ")).collect();
    let databases = world.databases().clone();
    if !world.switched() || !left.is_empty() {
        world.violated(format!("it succeeded; switched: {}, left behind: {left:?}", world.switched()));
    }
    if databases.schema || databases.quiet || !databases.vacuumed {
        world.violated(format!("it succeeded and the databases are not complete: {databases:?}"));
    }
}

fn as_before(world: &World) {
    let changed = world.aws.snapshot_of_world().disallowed_differences_from(&world.before);
    if !changed.is_empty() {
        world.violated(format!("it unwound and AWS is not as before: {changed:?}"));
    }
    let databases = world.databases().clone();
    if databases.schema || databases.quiet {
        world.violated(format!("it unwound and the databases are not as before: {databases:?}"));
    }
}
