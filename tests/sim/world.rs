//! What is outside of every process and survives them all: AWS, the store, the databases, the ingestion systems, the network's
//! cuts, and the history that a failing seed shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{spool::Spool, state::Shared};
use coordinator::{
    cloudwatch,
    rds::{
        ClusterResourceId,
        fake::{Cut, Fake, NewCluster, Picture, Timings},
    },
};
use jiff::Timestamp;
use proto::side::{ServerSaid, Side, SideIdentity};
use runtime::clock::Clock;
use tokio::sync::mpsc;

use super::{dice::Dice, store::Shelf, systems::System};

pub(super) const CLUSTER: &str = "orders";
pub(super) const ARN: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
pub(super) const COORDINATORS: [&str; 2] = ["coordinator-1", "coordinator-2"];
pub(super) const AGENTS: [&str; 2] = ["agent-1", "agent-2"];
pub(super) const BEGAN: Timestamp = Timestamp::constant(1_795_392_000, 0);

/// Something that is on its way to AWS and arrives even if its sender is gone.
pub(super) type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who cannot reach what, beside the network between coordinators and agents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lost {
    /// A coordinator and the store.
    Store(usize),
    /// A coordinator and AWS.
    Aws(usize),
    /// An agent and a side.
    Server(usize, Side),
    /// Nobody reaches the writer of this side: a failover.
    Down(Side),
}

/// What the databases hold of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Databases {
    pub(super) schema: bool,
    pub(super) quiet: bool,
    pub(super) vacuumed: bool,
    pub(super) resubmitted: u32,
    /// When the cut was first seen at work, and when green began to take writes.
    pub(super) began: Option<Duration>,
    pub(super) switched: Option<Duration>,
}

pub(super) struct World {
    pub(super) seed: u64,
    /// For everything that happens while it runs; the faults were thrown before.
    pub(super) dice: Dice,
    /// The time of AWS, of the store and of the judge.
    pub(super) clock: Clock,
    pub(super) aws: Fake,
    pub(super) metrics: cloudwatch::fake::Fake,
    pub(super) blue: ClusterResourceId,
    pub(super) before: Picture,
    pub(super) shelf: Shelf,
    pub(super) folder: PathBuf,
    databases: Mutex<Databases>,
    pub(super) systems: Vec<[Arc<System>; 2]>,
    pub(super) lost: Mutex<BTreeSet<Lost>>,
    /// How far the wall clocks of coordinators and agents are off, in seconds.
    pub(super) skews: [i64; 4],
    /// How long the production name leads an agent to old blue after the cut.
    pub(super) stale: [Duration; 2],
    /// Blue stops its writes so long after the cut began.
    pub(super) blue_stops_after: Duration,
    /// What each agent shares with the judge in its present life, and how often it was started.
    pub(super) lives: Mutex<[Option<Shared>; 2]>,
    pub(super) spools: Mutex<[Option<Spool>; 2]>,
    pub(super) started: Mutex<BTreeMap<String, (u32, Duration, bool)>>,
    pub(super) to_aws: mpsc::UnboundedSender<Request>,
    pub(super) at_aws: Mutex<Option<mpsc::UnboundedReceiver<Request>>>,
    history: Mutex<String>,
    pub(super) violations: Mutex<Vec<String>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time of the simulation; between two hosts, the last that was told.
fn time() -> Clock {
    let last = AtomicU64::new(0);
    Clock::told(BEGAN, move || {
        let nanos = turmoil::sim_elapsed().map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        Duration::from_nanos(last.fetch_max(nanos, Ordering::SeqCst).max(nanos))
    })
}

/// AWS at a pace that leaves every intermediate state to be seen and the seeds affordable.
fn timings() -> Timings {
    let ms = Duration::from_millis;
    Timings {
        snapshot: ms(300),
        apply: ms(200),
        reboot: ms(500),
        task: ms(400),
        details_lag: ms(300),
        switchover: ms(1800),
        completed_lag: ms(1500),
        delete: ms(300),
        restorable_lag: ms(500),
    }
}

impl World {
    pub(super) fn new(seed: u64, dice: &Dice, long: bool) -> Arc<World> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("pilot-sim-{}-{number}", std::process::id()));
        let clock = time();
        let aws = Fake::new(clock.clone(), timings());
        let blue = aws.add_cluster(NewCluster::named(CLUSTER, "14.12")).resource_id;
        let (to_aws, at_aws) = mpsc::unbounded_channel();
        // Cleanup waits until AWS's time has passed the coordinator's time of the cut.
        let off = if long { 120 } else { 6 };
        let skews = [0; 4].map(|_| dice.millis(0..2000 * off).as_secs().cast_signed() - off.cast_signed());
        let system = |agent, name, holds| Arc::new(System::new(agent, name, holds));
        Arc::new(World {
            seed,
            dice: Dice::new(seed ^ 0xABCD),
            before: aws.snapshot_of_world(),
            metrics: cloudwatch::fake::Fake::new(clock.clone()),
            shelf: Shelf::new(clock.clone()),
            clock,
            aws,
            blue,
            folder,
            databases: Mutex::default(),
            systems: (0..2).map(|n| [system(n, "pool", true), system(n, "loader", false)]).collect(),
            lost: Mutex::default(),
            skews,
            stale: [dice.millis(0..8000), dice.millis(0..8000)],
            blue_stops_after: dice.millis(0..1500),
            lives: Mutex::default(),
            spools: Mutex::default(),
            started: Mutex::default(),
            to_aws,
            at_aws: Mutex::new(Some(at_aws)),
            history: Mutex::default(),
            violations: Mutex::default(),
        })
    }

    /// The clocks of a process: the simulation's time, the wall off by the host's skew.
    pub(super) fn clock_of(&self, host: usize) -> Clock {
        let passed = self.clock.clone();
        let wall = BEGAN.saturating_add(jiff::SignedDuration::from_secs(self.skews[host])).unwrap_or(BEGAN);
        Clock::told(wall, move || passed.mono().0)
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.mono().0
    }

    /// One line of the history.
    pub(super) fn tell(&self, what: impl std::fmt::Display) {
        let _text_takes_everything = writeln!(locked(&self.history), "{:9.3} {what}", self.now().as_secs_f64());
    }

    pub(super) fn history(&self) -> String {
        locked(&self.history).clone()
    }

    /// A promise was broken.
    pub(super) fn violated(&self, what: impl std::fmt::Display) {
        self.tell(format!("VIOLATED: {what}"));
        locked(&self.violations).push(what.to_string());
    }

    pub(super) fn is_lost(&self, lost: &Lost) -> bool {
        locked(&self.lost).contains(lost)
    }

    pub(super) fn databases(&self) -> MutexGuard<'_, Databases> {
        locked(&self.databases)
    }

    /// How far the cut really is.
    pub(super) fn cut(&self) -> Cut {
        let here = self.aws.cut(&self.blue);
        let cut = here.unwrap_or(Cut { running: false, switched: self.switched(), green: None });
        let now = self.now();
        let mut databases = self.databases();
        match cut.running {
            true => drop(databases.began.get_or_insert(now)),
            false if !cut.switched => databases.began = None,
            false => {}
        }
        if cut.switched {
            databases.switched.get_or_insert(now);
        }
        cut
    }

    /// Is green behind the production name now, as AWS has it?
    pub(super) fn switched(&self) -> bool {
        self.aws.serving(&CLUSTER.into()).is_some_and(|serving| serving != self.blue)
    }

    /// Does this side take a plain write now?
    pub(super) fn takes_writes(&self, side: Side) -> bool {
        let cut = self.cut();
        let began = self.databases().began;
        match side {
            Side::Green => cut.switched,
            Side::Blue if cut.switched => false,
            Side::Blue => began.is_none_or(|began| self.now() < began + self.blue_stops_after),
        }
    }

    /// Where the production name leads this agent.
    pub(super) fn name_leads_to(&self, agent: usize) -> Side {
        self.cut();
        let switched = self.databases().switched;
        if switched.is_some_and(|at| self.now() >= at + self.stale[agent]) { Side::Green } else { Side::Blue }
    }

    pub(super) fn reaches(&self, agent: usize, side: Side) -> bool {
        !self.is_lost(&Lost::Server(agent, side)) && !self.is_lost(&Lost::Down(side))
    }

    pub(super) fn life(&self, agent: usize) -> Option<Shared> {
        locked(&self.lives)[agent].clone()
    }

    /// What is said under this name about everything that an answer to a job needs.
    pub(super) fn said(&self, side: &SideIdentity, read_only: bool) -> Option<ServerSaid> {
        let address = address_of(&side.writer()?.resource_id);
        Some(ServerSaid { address, major: side.major, instance: None, in_recovery: false, read_only })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _it_may_never_have_been_made = std::fs::remove_dir_all(&self.folder);
    }
}

/// The address of a server, by what AWS never changes.
pub(super) fn address_of(resource_id: &str) -> IpAddr {
    let hash = resource_id.bytes().fold(17_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let [_, a, b, c] = hash.to_be_bytes();
    Ipv4Addr::new(10, a, b, c).into()
}

impl World {
    /// A process was killed.
    pub(super) fn crashed(&self, host: &str) {
        self.tell(format!("{host} is killed"));
        if let Some(row) = locked(&self.started).get_mut(host) {
            row.2 = false;
        }
        if let Some(agent) = AGENTS.iter().position(|name| *name == host) {
            locked(&self.lives)[agent] = None;
        }
    }

    /// A process was started.
    pub(super) fn restarted(&self, host: &str) {
        self.tell(format!("{host} is started"));
        let row = &mut locked(&self.started);
        let row = row.entry(host.to_owned()).or_default();
        *row = (row.0 + 1, self.now(), true);
    }

    /// Which life of this process it is, and since when; `None` while there is none.
    pub(super) fn up(&self, host: &str) -> Option<(u32, Duration)> {
        locked(&self.started).get(host).filter(|row| row.2).map(|row| (row.0, row.1))
    }
}
