//! The world that steps are tested in: AWS as `rds::fake` plays it, agents that answer every job as a healthy pair would,
//! and reports that follow what the fake account shows. `world as before` and `complete` are judged from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use engine::testing::Scene;
use jiff::Timestamp;
use proto::{
    intent::GateWish,
    job::JobFailure,
    jobs::*,
    report::{Controller, IngestionState, Outcome, Report, Seen},
    side::{ServerSaid, Side},
};
use runtime::clock::Clock;

use crate::{
    cloudwatch::{self, Metric},
    hooks::{self, Hooks, Leave},
    rds::{
        self, ClusterResourceId, InstanceId, Rds,
        fake::{Fake, NewCluster, Picture, Timings},
    },
    spec::{CleanupPolicy, RebootPolicy, UpgradeSpec},
    world::{
        Upgrade, World,
        fake::FakeAgents,
        healthy::{self, Healthy},
    },
};

pub(crate) const CLUSTER: &str = "orders";
const ARN: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";

/// What the agents' databases hold of ours; flipped by the jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Databases {
    pub(crate) schema: bool,
    pub(crate) quiet: bool,
    pub(crate) identity_full: Vec<Table>,
    pub(crate) resubmitted: u32,
    pub(crate) vacuumed: bool,
}

/// A cluster, its agents, and handles to make things go wrong.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) aws: Fake,
    pub(crate) metrics: cloudwatch::fake::Fake,
    pub(crate) agents: FakeAgents,
    pub(crate) databases: Arc<Mutex<Databases>>,
    pub(crate) blue: ClusterResourceId,
    pub(crate) clock: Clock,
    /// Changes the reports before they are sent.
    pub(crate) tamper: Arc<Mutex<Option<Tamper>>>,
    /// While set, `agent-2` stays attached and says nothing.
    pub(crate) silent: Arc<AtomicBool>,
    /// Free local storage of the writer that CloudWatch tells, if it does.
    pub(crate) free_bytes: Arc<Mutex<Option<f64>>>,
    /// Who is asked before steps.
    pub(crate) hooks: Arc<Mutex<Option<Hooks>>>,
}

type Tamper = Box<dyn Fn(&mut Report) + Send>;

/// A spec that waits for nobody and is quick, in virtual time.
pub(crate) fn spec() -> UpgradeSpec {
    let mut spec = UpgradeSpec::new(CLUSTER, "16");
    spec.reboot.policy = RebootPolicy::Allow;
    spec.cleanup.policy = CleanupPolicy::AfterRetention;
    spec.cleanup.retention_seconds = 10;
    spec.cleanup.quiet_seconds = 5;
    spec.replication.sustained_seconds = 2.0;
    spec.provisioning.poll_seconds = 1.0;
    spec.replication.drain_seconds_max = 120;
    spec.switchover.retry_after_seconds = 5.0;
    spec
}

/// AWS at a pace that leaves every intermediate state to be seen, and the matrix affordable.
fn timings() -> Timings {
    let seconds = Duration::from_secs;
    Timings {
        snapshot: seconds(3),
        apply: seconds(1),
        reboot: seconds(2),
        task: seconds(3),
        details_lag: seconds(2),
        switchover: seconds(2),
        completed_lag: seconds(3),
        delete: seconds(2),
        restorable_lag: seconds(5),
    }
}

impl Stage {
    pub(crate) fn new(clock: Clock) -> Stage {
        Stage::with(clock, NewCluster::named(CLUSTER, "14.12"))
    }

    pub(crate) fn with(clock: Clock, cluster: NewCluster) -> Stage {
        let aws = Fake::new(clock.clone(), timings());
        let cluster = aws.add_cluster(cluster);
        let agents = FakeAgents::with(ARN, clock.clone(), &["agent-1", "agent-2"]);
        let metrics = cloudwatch::fake::Fake::new(clock.clone());
        let databases = Arc::default();
        let (blue, tamper) = (cluster.resource_id, Arc::default());
        let free_bytes = Arc::new(Mutex::new(Some(50e9)));
        let (silent, hooks) = (Arc::default(), Arc::default());
        let stage = Stage { aws, metrics, agents, databases, blue, clock, tamper, silent, free_bytes, hooks };
        stage.answer_jobs();
        stage
    }

    fn databases(&self) -> std::sync::MutexGuard<'_, Databases> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn world(&self) -> World {
        World {
            rds: Arc::new(self.aws.clone()),
            cloudwatch: Arc::new(self.metrics.clone()),
            agents: self.agents.agents("run-1"),
            leave: self.leave(),
            clock: self.clock.clone(),
        }
    }

    fn leave(&self) -> Leave {
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let hooks = hooks.unwrap_or_else(|| Hooks::none(self.clock.clone()));
        Leave::new(hooks, hooks::About { upgrade: "run-1".into(), cluster_arn: ARN.into(), ..hooks::About::default() })
    }

    /// Is green behind the production name now?
    fn switched(&self) -> bool {
        self.aws.serving(&CLUSTER.into()).is_some_and(|serving| serving != self.blue)
    }

    fn answer_jobs(&self) {
        let change = |stage: &Stage, edit: fn(&mut Databases)| {
            let stage = stage.clone();
            move || edit(&mut stage.databases())
        };
        let agents = &self.agents;
        let (install, remove) = (change(self, |d| d.schema = true), change(self, |d| d.schema = false));
        let (quiet, loud) = (change(self, |d| d.quiet = true), change(self, |d| d.quiet = false));
        let vacuumed = change(self, |d| d.vacuumed = true);
        let resubmitted = change(self, |d| d.resubmitted += 1);
        let (inspecting, identifying, identities) = (self.clone(), self.clone(), self.clone());
        agents
            .answer(move |_: Inspect| Ok(inspecting.inspection()))
            .answer(move |_: InstallSchema| {
                install();
                Ok(InstallSchema::healthy())
            })
            .answer(move |_: RemoveSchema| {
                remove();
                Ok(RemoveSchema::healthy())
            })
            .answer(move |body: SetReplicaIdentity| {
                identities.databases().identity_full = body.full.clone();
                Ok(body.full)
            })
            .answer(move |_: Quiesce| {
                quiet();
                Ok(Quiesce::healthy())
            })
            .answer(move |_: Unquiesce| {
                loud();
                Ok(Unquiesce::healthy())
            })
            .answer(move |_: Vacuum| {
                vacuumed();
                Ok(Vacuum::healthy())
            })
            .answer(move |_: Resubmit| {
                resubmitted();
                Ok(Resubmit::healthy())
            })
            .answer(move |_: Identify| identifying.identify());
        self.answer_readings();
    }

    fn answer_readings(&self) {
        let leftovers = self.clone();
        self.agents
            .answer(|_: CheckStatistics| Ok(CheckStatistics::healthy()))
            .answer(|_: CompareSchema| Ok(CompareSchema::healthy()))
            .answer(|_: Compare| Ok(Compare::healthy()))
            .answer(|_: Marker| Ok(Marker::healthy()))
            .answer(|_: EndSessions| Ok(EndSessions::healthy()))
            .answer(|_: CheckSequences| Ok(CheckSequences::healthy()))
            .answer(|_: UpdateExtensions| Ok(UpdateExtensions::healthy()))
            .answer(|_: TestExtensions| Ok(TestExtensions::healthy()))
            .answer(|_: LedgerStatus| Ok(LedgerStatus::healthy()))
            .answer(move |_: FindLeftovers| Ok(leftovers.leftovers()));
    }

    pub(crate) fn inspection(&self) -> Inspection {
        let writer = InstanceId::from("orders-1");
        healthy::inspection(said(14), |name| self.aws.booted_with(&writer, name))
    }

    fn identify(&self) -> Result<Identified, JobFailure> {
        if !self.switched() {
            return Err(crate::world::fake::failure("identifying production", "it is blue"));
        }
        Ok(Identified { said: said(16), version: "16.4".into(), subscriptions_left: 0 })
    }

    fn leftovers(&self) -> Vec<Leftover> {
        let left = self.aws.snapshot_of_world().names().any(|name| name.starts_with("deployment "));
        if left { vec![healthy::leftover()] } else { Vec::new() }
    }

    /// What the agents see now.
    fn report(&self) -> Report {
        let seen = |side, major, wrote| {
            let outcome = Outcome::Answered { side: Some(side), said: said(major), wrote };
            Some(Seen { age_ms: 1, outcome })
        };
        let mut report = Report { stance: "obey".into(), ..Report::default() };
        report.slots = Some(healthy::slots());
        report.marker = Some(healthy::marker());
        report.schema = Some(healthy::schema());
        report.ingestion = vec![Controller {
            name: "loader".into(),
            kind: "http".into(),
            state: self.ingestion(),
            backlog: Some(0),
            rate: Some(5.0),
            holds: false,
            age_ms: 1,
        }];
        if self.switched() {
            report.probe.production = seen(Side::Green, 16, true);
            report.probe.green = seen(Side::Green, 16, true);
            report.probe.green_took_write = true;
            report.old_side = Some(healthy::old_side());
        } else {
            report.probe.production = seen(Side::Blue, 14, true);
            report.probe.blue_writes_in_a_row = 5;
        }
        report
    }

    fn ingestion(&self) -> IngestionState {
        let told = self.agents.last_intent();
        let paused = told.is_some_and(|intent| {
            intent.gate == GateWish::Hold || matches!(intent.ingestion, proto::intent::IngestionWish::Paused { .. })
        });
        if paused { IngestionState::Paused } else { IngestionState::Running }
    }

    /// Reports and metrics every 500 ms, until the scene is gone.
    async fn observe(self, alive: Weak<()>) {
        while alive.upgrade().is_some() {
            let mut report = self.report();
            if let Some(tamper) = self.tamper.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                tamper(&mut report);
            }
            self.agents.report("agent-1", report.clone());
            if !self.silent.load(Ordering::SeqCst) {
                self.agents.report("agent-2", report);
            }
            self.metrics.put(Metric::OldestReplicationSlotLag, &"orders-1".into(), 100.0);
            if let Some(free) = *self.free_bytes.lock().unwrap_or_else(PoisonError::into_inner) {
                self.metrics.put(Metric::FreeLocalStorage, &"orders-1".into(), free);
            }
            self.clock.sleep(Duration::from_millis(500)).await;
        }
    }

    /// The whole plan in this world.
    pub(crate) fn scene(&self, spec: UpgradeSpec) -> Scene<Upgrade> {
        let alive = Arc::new(());
        tokio::spawn(self.clone().observe(Arc::downgrade(&alive)));
        let (before, stage) = (self.aws.snapshot_of_world(), self.clone());
        let (kept, last) = (alive.clone(), self.clone());
        Scene {
            plan: super::plan(&spec),
            spec,
            world: Arc::new(self.world()),
            clock: self.clock.clone(),
            as_before: Box::new(move |_| {
                let _alive = &kept;
                stage.as_before(&before)
            }),
            complete: Box::new(move |_| {
                let _alive = &alive;
                last.complete()
            }),
        }
    }

    fn as_before(&self, before: &Picture) -> Result<(), String> {
        let changed = self.aws.snapshot_of_world().disallowed_differences_from(before);
        if !changed.is_empty() {
            return Err(format!("AWS is not as before: {changed:?}"));
        }
        let databases = self.databases().clone();
        if databases.schema || databases.quiet || !databases.identity_full.is_empty() {
            return Err(format!("the databases are not as before: {databases:?}"));
        }
        self.harmless()
    }

    fn complete(&self) -> Result<(), String> {
        let picture = self.aws.snapshot_of_world();
        let left: Vec<&str> =
            picture.names().filter(|name| name.contains("-old1") || name.starts_with("deployment ")).collect();
        if !self.switched() || !left.is_empty() {
            return Err(format!("switched is {}, left behind: {left:?}", self.switched()));
        }
        let databases = self.databases().clone();
        if databases.schema || databases.quiet || !databases.vacuumed || databases.resubmitted == 0 {
            return Err(format!("the databases are not complete: {databases:?}"));
        }
        let calls = self.aws.calls();
        let switchovers = calls.iter().filter(|c| c.operation == "SwitchoverBlueGreenDeployment" && c.acted).count();
        if switchovers != 1 {
            return Err(format!("AWS switched over {switchovers} times"));
        }
        self.harmless()
    }

    /// Nothing of the last word could hurt the application.
    fn harmless(&self) -> Result<(), String> {
        match self.agents.last_intent() {
            Some(intent) if intent.is_harmful() => Err(format!("the agents were left with {intent:?}")),
            _ => Ok(()),
        }
    }
}

fn said(major: u32) -> ServerSaid {
    ServerSaid {
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        major,
        instance: None,
        in_recovery: false,
        read_only: false,
    }
}

/// The clock of a test whose time is paused.
pub(crate) fn clock() -> Clock {
    Clock::tokio_at("2026-11-23T00:00:00Z".parse::<Timestamp>().expect("a time"))
}

/// Reads an account that has settled; unused reads keep the fake's time moving.
pub(crate) async fn cluster_of(aws: &dyn Rds, id: &str) -> Option<rds::Cluster> {
    rds::found(aws.cluster(&id.into()).await).expect("the fake answers")
}
