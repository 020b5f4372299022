//! What a lab and its clusters are made from. Plain values: nothing here starts, waits for or reads anything.

use std::path::PathBuf;
use std::time::Duration;

use crate::faults::Planned;
use crate::iam::Caller;
use crate::scenario::Scenario;
use crate::status::Flavour;

/// The one AWS account that the lab knows.
pub const ACCOUNT: &str = "123456789012";
/// The one region that the lab knows.
pub const REGION: &str = "us-east-1";
/// Name of the master user of every cluster: not a superuser, as on AWS.
pub const MASTER_USER: &str = "postgres";
/// Password of the master user.
pub const MASTER_PASSWORD: &str = "lab-master";
/// Name of the role that the agents log in as.
pub const AGENT_USER: &str = "upgrade_pilot";
/// Password of the agents' role.
pub const AGENT_PASSWORD: &str = "lab-agent";

/// How a lab behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the servers' data folders go. `None`: a folder of its own under the cache directory, removed by `Lab::stop`.
    pub work_dir: Option<PathBuf>,
    /// The provider's own delays.
    pub timings: Timings,
    /// Whether servers synchronise to disk. Off makes tests fast; the real thing is on.
    pub fsync: bool,
    /// Whether provider time runs by itself or is stepped by a test.
    pub clock: ClockMode,
    /// What goes wrong, planned before anything happens.
    pub faults: Vec<Planned>,
    /// How much later than the zone everybody's resolver knows who asks for none of his own.
    pub resolver_delay: Duration,
    /// Whether servers take TLS, and how much later than the names a server's certificate changes. `None`: without TLS.
    pub tls: Option<Duration>,
    /// Who may call beside the administrator, whose keys `Lab::environment` gives.
    pub callers: Vec<Caller>,
}

impl Default for Settings {
    /// Short delays, no fsync, time that runs: what a test wants.
    fn default() -> Self {
        Self {
            work_dir: None,
            timings: Timings::short(),
            fsync: false,
            clock: ClockMode::Auto,
            faults: Vec::new(),
            resolver_delay: Duration::ZERO,
            tls: None,
            callers: Vec::new(),
        }
    }
}

impl Settings {
    /// The defaults with a scenario's timings, faults and `default` resolver delay.
    #[must_use]
    pub fn from_scenario(scenario: &Scenario) -> Self {
        Self {
            timings: scenario.timings.clone(),
            faults: scenario.faults.clone(),
            resolver_delay: scenario.resolver_delay("default"),
            ..Self::default()
        }
    }
}

/// How provider time goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockMode {
    /// With the machine's clock.
    Auto,
    /// Only when a test says so (`Lab::clock().advance(..)`). Real work of real servers still takes real time.
    Explicit,
}

/// The provider's own delays, on top of what the real work of the servers takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// Before each task of a deployment's creation.
    pub create_task: Duration,
    /// `rebooting` before and after the real restart.
    pub reboot: Duration,
    /// `creating` of a snapshot after its real base copy.
    pub snapshot: Duration,
    /// Between a modify call and the moment it is applied (`applying`, `modifying`).
    pub modify: Duration,
    /// Before members of a running switchover show `SWITCHOVER_IN_PROGRESS`.
    pub member_lag: Duration,
    /// Least time from the call, or from `SWITCHOVER_INITIATED` as servers tell it, to writes being stopped.
    pub initiated: Duration,
    /// From writes being stopped, which is `SWITCHOVER_IN_PROGRESS`, to connections being dropped.
    pub drop_delay: Duration,
    /// Least time from writes being stopped to green taking them, which is `SWITCHOVER_IN_POST_PROCESSING`.
    pub window: Duration,
    /// From green taking writes to its members telling that they have blue's names.
    pub topology_delay: Duration,
    /// How long green's row stays after `SWITCHOVER_COMPLETED`, which comes with the names.
    pub rows_stay: Duration,
    /// From green taking writes to the deployment saying `SWITCHOVER_COMPLETED`.
    pub completed_delay: Duration,
    /// From green taking writes to the endpoints' names leading there.
    pub names_delay: Duration,
    /// From green taking writes to the names that green had before being gone; never before the endpoints' names have moved.
    pub green_names_delay: Duration,
    /// How late a CloudWatch point becomes visible.
    pub cloudwatch_delay: Duration,
    /// Distance of CloudWatch points.
    pub cloudwatch_period: Duration,
    /// How long a deletion shows `deleting`.
    pub delete: Duration,
    /// How far `LatestRestorableTime` lies behind the present.
    pub restorable_delay: Duration,
    /// How often a live deployment looks at its servers for what degrades it.
    pub watch: Duration,
}

impl Timings {
    /// No delay of the provider at all: everything takes what the real servers take.
    #[must_use]
    pub const fn zero() -> Self {
        let none = Duration::ZERO;
        Self {
            create_task: none,
            reboot: none,
            snapshot: none,
            modify: none,
            member_lag: none,
            initiated: none,
            drop_delay: none,
            window: none,
            topology_delay: none,
            rows_stay: none,
            completed_delay: none,
            names_delay: none,
            green_names_delay: none,
            cloudwatch_delay: none,
            cloudwatch_period: Duration::from_secs(1),
            delete: none,
            restorable_delay: none,
            watch: Duration::from_millis(500),
        }
    }

    /// Delays long enough to be seen by a poller and short enough for a test.
    #[must_use]
    pub const fn short() -> Self {
        Self {
            create_task: Duration::from_millis(200),
            reboot: Duration::from_millis(100),
            snapshot: Duration::from_millis(200),
            modify: Duration::from_millis(50),
            member_lag: Duration::from_millis(100),
            initiated: Duration::from_millis(50),
            drop_delay: Duration::from_millis(50),
            window: Duration::from_millis(150),
            topology_delay: Duration::from_millis(50),
            rows_stay: Duration::from_millis(500),
            completed_delay: Duration::from_millis(300),
            names_delay: Duration::from_millis(100),
            green_names_delay: Duration::from_millis(100),
            cloudwatch_delay: Duration::from_millis(500),
            cloudwatch_period: Duration::from_secs(1),
            delete: Duration::from_millis(100),
            restorable_delay: Duration::from_secs(1),
            watch: Duration::from_secs(1),
        }
    }

    /// The delays seen on AWS, creation excepted (its hours would teach nothing).
    #[must_use]
    pub const fn real() -> Self {
        Self {
            create_task: Duration::from_secs(10),
            reboot: Duration::from_secs(5),
            snapshot: Duration::from_secs(20),
            modify: Duration::from_secs(5),
            member_lag: Duration::from_secs(11),
            initiated: Duration::from_secs(2),
            drop_delay: Duration::from_millis(200),
            window: Duration::from_millis(2500),
            topology_delay: Duration::from_secs(10),
            rows_stay: Duration::from_secs(44),
            completed_delay: Duration::from_secs(60),
            names_delay: Duration::from_secs(15),
            green_names_delay: Duration::from_secs(50),
            cloudwatch_delay: Duration::from_secs(120),
            cloudwatch_period: Duration::from_secs(60),
            delete: Duration::from_secs(20),
            restorable_delay: Duration::from_secs(300),
            watch: Duration::from_secs(2),
        }
    }

    /// The sets that have a name, as a scenario file calls them.
    pub const NAMES: [&'static str; 7] =
        ["zero", "short", "real", "jdbc-2025-11", "jdbc-2025-04", "python-2025-07", "node-2025-04"];

    /// A set by its name. The dated ones are `real` with the moments of a switchover as the maintainers of AWS's drivers have
    /// published, those after the first write that green takes counted from it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let published = |[initiated, window, topology, names, green_names, completed]: [u64; 6]| Self {
            initiated: Duration::from_millis(initiated),
            window: Duration::from_millis(window),
            topology_delay: Duration::from_millis(topology),
            names_delay: Duration::from_millis(names),
            green_names_delay: Duration::from_millis(green_names),
            completed_delay: Duration::from_millis(completed),
            ..Self::real()
        };
        Some(match name {
            "zero" => Self::zero(),
            "short" => Self::short(),
            "real" => Self::real(),
            "jdbc-2025-11" => published([7_418, 3_090, 13_585, 30_027, 62_293, 62_294]),
            // When members took blue's names was not published with this one.
            "jdbc-2025-04" => published([830, 1_830, 10_000, 10_970, 75_270, 86_770]),
            "python-2025-07" => published([2_280, 2_500, 7_400, 16_100, 51_300, 51_300]),
            "node-2025-04" => published([2_600, 7_400, 18_500, 31_100, 125_600, 129_100]),
            _ => return None,
        })
    }

    /// Every delay with the name that a scenario file gives it.
    pub fn entries(&mut self) -> Vec<(&'static str, &mut Duration)> {
        // Taken apart in full, so that a delay without a name does not compile.
        let Self {
            create_task,
            reboot,
            snapshot,
            modify,
            member_lag,
            initiated,
            drop_delay,
            window,
            topology_delay,
            rows_stay,
            completed_delay,
            names_delay,
            green_names_delay,
            cloudwatch_delay,
            cloudwatch_period,
            delete,
            restorable_delay,
            watch,
        } = self;
        vec![
            ("create_task", create_task),
            ("reboot", reboot),
            ("snapshot", snapshot),
            ("modify", modify),
            ("member_lag", member_lag),
            ("initiated", initiated),
            ("drop_delay", drop_delay),
            ("window", window),
            ("topology_delay", topology_delay),
            ("rows_stay", rows_stay),
            ("completed_delay", completed_delay),
            ("names_delay", names_delay),
            ("green_names_delay", green_names_delay),
            ("cloudwatch_delay", cloudwatch_delay),
            ("cloudwatch_period", cloudwatch_period),
            ("delete", delete),
            ("restorable_delay", restorable_delay),
            ("watch", watch),
        ]
    }
}

/// What a new cluster is made from.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Its identifier, `orders` for example: a letter first, then letters, digits and single hyphens.
    pub identifier: String,
    /// PostgreSQL's major version, 14 to 18.
    pub major: u32,
    /// How many readers beside the writer.
    pub readers: usize,
    /// What the user has set in a cluster parameter group of his own. Empty: the family's default group.
    pub cluster_parameters: Vec<(String, String)>,
    /// The same for the instance parameter group.
    pub instance_parameters: Vec<(String, String)>,
    /// Databases to make beside `postgres`, owned by the master user.
    pub databases: Vec<String>,
    /// Extensions that need a preloaded library (`pg_cron`): their library is put into `shared_preload_libraries` of a
    /// custom instance group before the first start. The extension itself is created by whoever wants it.
    pub preload: Vec<String>,
    /// Instance class of all members.
    pub instance_class: String,
    /// Whether deletion protection is on.
    pub deletion_protection: bool,
    /// Tags of the cluster and its instances.
    pub tags: Vec<(String, String)>,
    /// Its custom endpoints.
    pub custom_endpoints: Vec<CustomEndpoint>,
    /// The least memory and disk that a server runs with, for many clusters in one lab.
    pub smallest: bool,
    /// What its servers tell about themselves, and how: as Aurora does, or as RDS for PostgreSQL.
    pub flavour: Flavour,
}

/// A custom endpoint of a new cluster.
#[derive(Debug, Clone, Default)]
pub struct CustomEndpoint {
    /// Its identifier, the first part of its name.
    pub identifier: String,
    /// Whether it leads to readers only, or to any member.
    pub readers_only: bool,
    /// Instance identifiers of the members it leads to; empty: to all but those excluded.
    pub static_members: Vec<String>,
    /// Instance identifiers of the members it never leads to.
    pub excluded_members: Vec<String>,
}

impl ClusterSettings {
    /// A cluster `identifier` of `major` with one writer, no reader and default parameter groups.
    #[must_use]
    pub fn new(identifier: &str, major: u32) -> Self {
        Self {
            identifier: identifier.to_owned(),
            major,
            readers: 0,
            cluster_parameters: Vec::new(),
            instance_parameters: Vec::new(),
            databases: Vec::new(),
            preload: Vec::new(),
            instance_class: "db.r6g.large".to_owned(),
            deletion_protection: false,
            tags: Vec::new(),
            custom_endpoints: Vec::new(),
            smallest: false,
            flavour: Flavour::Aurora,
        }
    }
}
