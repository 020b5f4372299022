//! One life of a coordinator: the real drivers with the real plan, the real link server, on the shared store.

use std::sync::Arc;
use std::time::Duration;

use coordinator::hooks::Hooks;
use coordinator::{
    drivers::{Drivers, DriversOptions},
    link::{Hub, HubOptions, LinkService, Standing},
    spec::{CleanupPolicy, PauseFor, RebootPolicy, UpgradeSpec},
    steps,
    store::{About, Store},
    who::Guard,
};
use engine::{Holder, JournalRead, RunFilter};
use proto::{epoch::Epoch, ids::ClusterArn};
use runtime::shutdown::Stop;

use super::{
    cloud,
    net::listen,
    store,
    world::{AGENTS, ARN, CLUSTER, COORDINATORS, World},
};

pub(super) const DRIVER_LEASE: Duration = Duration::from_secs(6);
pub(super) const AGENT_LEASE: Duration = Duration::from_secs(4);
pub(super) const HOLD_MAX: Duration = Duration::from_secs(40);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A spec that waits for nobody and is quick, in simulated time.
pub(super) fn spec(world: &World) -> UpgradeSpec {
    let mut spec = UpgradeSpec::new(CLUSTER, "16");
    spec.reboot.policy = RebootPolicy::Allow;
    spec.cleanup.policy = CleanupPolicy::AfterRetention;
    spec.cleanup.retention_seconds = 1;
    spec.cleanup.quiet_seconds = 1;
    spec.replication.sustained_seconds = 0.5;
    spec.replication.drain_seconds_max = 120;
    spec.provisioning.poll_seconds = 0.25;
    spec.ingestion.max_pause_seconds = PAUSE_MAX.as_secs();
    if world.seed.is_multiple_of(3) {
        spec.ingestion.pause = PauseFor::Replication;
    }
    let cut = &mut spec.switchover;
    cut.timeout_seconds = 30;
    cut.revert_allowance_seconds = 10;
    cut.hold_seconds_max = u32::try_from(HOLD_MAX.as_secs()).unwrap_or(u32::MAX);
    cut.hold_ack_ms_max = 4000;
    cut.retry_after_seconds = 1.0;
    cut.attempts = 2;
    cut.drain_ms = 200;
    spec
}

pub(super) async fn life(world: Arc<World>, coordinator: usize) -> turmoil::Result {
    let clock = world.clock_of(coordinator);
    let store: Arc<dyn Store> = Arc::new(store::Line::new(world.clone(), coordinator));
    let cloud = || cloud::Line { world: world.clone(), coordinator };
    let stop = Stop::new();
    let hub = Hub::new(HubOptions {
        store: store.id().clone(),
        epoch: Epoch(0),
        lease: AGENT_LEASE,
        clock: clock.clone(),
        keeper: store.clone(),
    });
    let name = COORDINATORS[coordinator];
    let life = world.dice.next();
    let drivers = loop {
        let options = DriversOptions {
            store: store.clone(),
            hub: hub.clone(),
            rds: Arc::new(cloud()),
            cloudwatch: Arc::new(cloud::Metrics(cloud())),
            plans: Arc::new(steps::plan),
            clock: clock.clone(),
            holder: Holder { id: format!("{name}-{life}"), address: format!("{name}:7400") },
            lease: DRIVER_LEASE,
            call_timeout: cloud::CALL,
            hooks: Hooks::none(clock.clone()),
            stop: stop.clone(),
        };
        match Drivers::resume(options).await {
            Ok(drivers) => break drivers,
            // The process would end and be started again.
            Err(_) => clock.sleep(Duration::from_millis(500)).await,
        }
    };
    let guard = Guard::new("us-east-1", clock.clone());
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(LinkService::server(hub.clone(), guard))
        .serve_with_incoming(listen(7400).await?);
    tokio::select! {
        served = server => Ok(served?),
        () = begin(&world, &hub, &drivers) => Ok(()),
    }
}

/// Somebody asks for the upgrade once all agents are there; after that, nothing.
async fn begin(world: &World, hub: &Hub, drivers: &Drivers) {
    let cluster: ClusterArn = ARN.parse().expect("an ARN");
    let roster: Vec<_> = AGENTS.iter().map(|agent| agent.parse().expect("a name")).collect();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = world.shelf.journal.list(&RunFilter::default()).await.is_ok_and(|all| !all.is_empty());
        let there = hub.standing() == Standing::Leads && hub.agents(&cluster).connected().len() == AGENTS.len();
        if begun || !there {
            continue;
        }
        let about = About { roster: roster.clone(), ..About::default() };
        let started = drivers.start(&cluster, spec(world), &about).await;
        world.tell(format!("started: {:?}", started.map_err(|error| error.to_string())));
    }
}
