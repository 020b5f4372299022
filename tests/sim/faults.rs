//! What goes wrong in one seed, when, and for how long; thrown before anything runs, applied between two ticks.

use std::time::Duration;

use coordinator::rds::fake::{Fault as AwsFault, Switching};
use turmoil::Sim;

use super::{
    dice::Dice,
    world::{AGENTS, COORDINATORS, Lost, World, locked},
};
use proto::side::Side;

/// Counted from the beginning, from the first hold, or from the first arming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Start,
    Hold,
    Arming,
}

#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// Nothing passes between the two.
    Partition(&'static str, &'static str),
    /// Nothing passes from the first to the second.
    OneWay(&'static str, &'static str),
    /// What passes between the two arrives later, all at once.
    Stall(&'static str, &'static str),
    /// The process is killed and started again after the time.
    Crash(&'static str),
    Lose(Lost),
    /// An ingestion system fails every request.
    Break(usize, usize),
    /// The next such call to AWS meets this.
    Aws(&'static str, AwsFault),
    /// Every such call does.
    AwsAlways(&'static str, AwsFault),
    /// A person gives up.
    Abort,
}

#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) from: From,
    pub(super) after: Duration,
    pub(super) lasts: Duration,
    pub(super) trouble: Trouble,
    until: Option<Duration>,
    over: bool,
}

const CALLS: [&str; 9] = [
    "SwitchoverBlueGreenDeployment",
    "SwitchoverBlueGreenDeployment",
    "CreateBlueGreenDeployment",
    "DescribeBlueGreenDeployments",
    "DescribeDBClusters",
    "CreateDBClusterSnapshot",
    "RebootDBInstance",
    "ModifyDBCluster",
    "DeleteBlueGreenDeployment",
];

/// The faults of a seed, and how its switchover goes.
pub(super) fn throw(dice: &Dice) -> (Vec<Fault>, Switching) {
    let switching = match dice.below(100) {
        0..68 => Switching::Succeeds,
        68..84 => Switching::Reverts { reason: "a guardrail".into() },
        84..89 => Switching::TimesOut,
        _ => Switching::Hangs,
    };
    let many = dice.below(7);
    let mut faults: Vec<Fault> = (0..many).map(|_| one(dice)).collect();
    if dice.percent(7) {
        faults.push(Fault { trouble: Trouble::Abort, ..one(dice) });
    }
    (faults, switching)
}

fn one(dice: &Dice) -> Fault {
    let (from, after) = match dice.below(10) {
        0..3 => (From::Start, dice.millis(0..45_000)),
        3..6 => (From::Hold, dice.millis(0..4000)),
        _ => (From::Arming, dice.millis(0..4500)),
    };
    let lasts = match dice.below(10) {
        0..4 => dice.millis(50..3000),
        4..8 => dice.millis(3000..15_000),
        _ => dice.millis(15_000..60_000),
    };
    let (coordinator, agent) = (dice.one_of(&COORDINATORS), dice.one_of(&AGENTS));
    let n = usize::try_from(dice.below(2)).unwrap_or_default();
    let side = dice.one_of(&[Side::Blue, Side::Green]);
    let trouble = match dice.below(26) {
        0..4 => Trouble::Partition(coordinator, agent),
        4..6 if dice.percent(50) => Trouble::OneWay(coordinator, agent),
        4..6 => Trouble::OneWay(agent, coordinator),
        6..8 => Trouble::Stall(coordinator, agent),
        8..11 => Trouble::Crash(coordinator),
        11..14 => Trouble::Crash(agent),
        14..16 => Trouble::Lose(Lost::Store(n)),
        16..18 => Trouble::Lose(Lost::Aws(n)),
        18..20 => Trouble::Lose(Lost::Server(n, side)),
        20 => Trouble::Lose(Lost::Down(side)),
        21 => Trouble::Break(n, usize::try_from(dice.below(2)).unwrap_or_default()),
        22..25 => {
            let fault =
                dice.one_of(&[AwsFault::Throttle, AwsFault::Broken, AwsFault::LostRequest, AwsFault::LostReply]);
            Trouble::Aws(dice.one_of(&CALLS), fault)
        }
        _ => Trouble::AwsAlways(dice.one_of(&CALLS), dice.one_of(&[AwsFault::Throttle, AwsFault::Broken])),
    };
    // A system that fails may not be released in time: shorter than what the judge tolerates.
    let lasts = if matches!(trouble, Trouble::Break(..)) { lasts.min(Duration::from_secs(2)) } else { lasts };
    Fault { from, after, lasts, trouble, until: None, over: false }
}

impl Fault {
    /// Has it begun and ended?
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Begins or ends it, when its time has come. `true`: a person is to ask for the abort now.
    pub(super) fn turn(&mut self, world: &World, sim: &mut Sim<'_>, since: Option<Duration>) -> bool {
        let now = world.now();
        match self.until {
            None if since.is_some_and(|since| now >= since + self.after) => {
                world.tell(format!("FAULT {:?} for {:?}", self.trouble, self.lasts));
                self.until = Some(now + self.lasts);
                self.begin(world, sim);
                matches!(self.trouble, Trouble::Abort)
            }
            Some(until) if now >= until && !self.over => {
                self.over = true;
                world.tell(format!("OVER {:?}", self.trouble));
                self.end(world, sim);
                false
            }
            _ => false,
        }
    }

    fn begin(&self, world: &World, sim: &mut Sim<'_>) {
        match &self.trouble {
            Trouble::Partition(a, b) => sim.partition(*a, *b),
            Trouble::OneWay(a, b) => sim.partition_oneway(*a, *b),
            Trouble::Stall(a, b) => sim.hold(*a, *b),
            Trouble::Crash(host) => {
                if sim.is_host_running(*host) {
                    sim.crash(*host);
                    world.crashed(host);
                }
            }
            Trouble::Lose(lost) => drop(locked(&world.lost).insert(lost.clone())),
            Trouble::Break(agent, n) => world.systems[*agent][*n].set_broken(true),
            Trouble::Aws(call, fault) => world.aws.fail_once(call, fault.clone()),
            Trouble::AwsAlways(call, fault) => world.aws.fail_always(call, Some(fault.clone())),
            Trouble::Abort => {}
        }
    }

    fn end(&self, world: &World, sim: &mut Sim<'_>) {
        match &self.trouble {
            Trouble::Partition(a, b) | Trouble::OneWay(a, b) => sim.repair(*a, *b),
            Trouble::Stall(a, b) => sim.release(*a, *b),
            Trouble::Crash(host) => {
                if !sim.is_host_running(*host) {
                    sim.bounce(*host);
                    world.restarted(host);
                }
            }
            Trouble::Lose(lost) => drop(locked(&world.lost).remove(lost)),
            Trouble::Break(agent, n) => world.systems[*agent][*n].set_broken(false),
            Trouble::AwsAlways(call, _) => world.aws.fail_always(call, None),
            Trouble::Aws(..) | Trouble::Abort => {}
        }
    }

    /// Ends it, begun or not: it never begins any more.
    pub(super) fn heal(&mut self, world: &World, sim: &mut Sim<'_>) {
        if !std::mem::replace(&mut self.over, true) && self.until.is_some() {
            world.tell(format!("HEALED {:?}", self.trouble));
            self.end(world, sim);
        }
        self.until = Some(Duration::ZERO);
    }
}
