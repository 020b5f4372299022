//! One life of an agent: the real link, gate, helm, stance, job runner and spool; in place of its connections a model of the
//! databases, folded by the probe's own book.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::{
    config::{Database, Tls},
    gate::Gate,
    helm::{self, Helm},
    ingestion::{IngestionController, Marks, observer::Observer},
    link::{
        Link, Options,
        runner::{AtOnce, Runner},
    },
    pg::Dialer,
    probe::{Book, Look, ProbeTask},
    spool::{Disk, Spool, Work},
    state::Shared,
};
use coordinator::world::healthy;
use proto::{intent::Intent, side::Side};
use runtime::{
    shutdown::Stop,
    supervision::{Ready, Supervisor, Task, TaskError},
};
use tokio::sync::mpsc;

use super::{
    jobs,
    net::network,
    systems::Controller,
    world::{AGENTS, ARN, COORDINATORS, World, address_of, locked},
};

/// A disk that takes its time; what was not written when the process is lost is lost.
fn disk(world: Arc<World>) -> Disk {
    let (work, mut queue) = mpsc::unbounded_channel::<Work>();
    tokio::spawn(async move {
        while let Some(work) = queue.recv().await {
            let latency = if world.dice.percent(2) { 1..300 } else { 0..4 };
            tokio::time::sleep(world.dice.millis(latency)).await;
            work();
        }
    });
    Arc::new(move |one| work.send(one).is_ok())
}

fn nowhere() -> Database {
    Database {
        user: "upgrade_pilot".into(),
        password_file: Some("never-read".into()),
        password_command: None,
        maintenance_database: "postgres".into(),
        tls: Tls::Disable,
        tls_ca_file: None,
    }
}

pub(super) async fn life(world: Arc<World>, agent: usize) -> turmoil::Result {
    let clock = world.clock_of(2 + agent);
    // The files of an agent that was lost are still there: another life opens them.
    let file = format!("file:{}-{agent}?mode=memory&cache=shared", world.folder.display());
    let spool = Spool::open_on(Path::new(&file), disk(world.clone()))?;
    locked(&world.spools)[agent] = Some(spool.clone());
    let memory = spool.wake().await?;
    let dialer = Dialer::new(&nowhere(), vec!["nowhere.invalid".parse()?], clock.clone())?;
    let shared = Shared::new(clock.clone(), spool, dialer, memory);
    locked(&world.lives)[agent] = Some(shared.clone());
    let systems: Vec<Arc<dyn IngestionController>> = world.systems[agent]
        .iter()
        .map(|system| -> Arc<dyn IngestionController> {
            Arc::new(Controller { world: world.clone(), system: system.clone() })
        })
        .collect();
    let runner = Runner::new(
        shared.clone(),
        jobs::registry(world.clone(), agent),
        AGENTS[agent].into(),
        Vec::new(),
        AtOnce::default(),
    );
    let runner = runner.await?;
    know(&shared);
    helm::steer(&shared);
    let stop = Stop::new();
    let mut supervisor = Supervisor::new(clock, stop, |_| {});
    supervisor.start(Helm { shared: shared.clone() });
    let marks = Marks::new(world.folder.join(AGENTS[agent]));
    supervisor.start(Gate::new(shared.clone(), systems.clone(), marks));
    supervisor.start(Eyes { world: world.clone(), shared: shared.clone(), agent });
    supervisor.start(Observer { shared: shared.clone(), controllers: systems });
    let options = Options {
        coordinator: COORDINATORS.map(|name| format!("http://{name}:7400")).join(","),
        tls: None,
        agent: AGENTS[agent].parse()?,
        cluster: ARN.parse()?,
        controllers: vec!["pool".into(), "loader".into()],
    };
    supervisor.start(Link { shared, options: Arc::new(options), runner, network: Some(network()) });
    std::future::pending::<()>().await;
    Ok(())
}

/// The addresses of the recorded servers, which no name has to be asked for.
fn know(shared: &Shared) {
    let Some(intent) = shared.intent.borrow().clone() else { return };
    let sides = [Some(&intent.targets.blue), intent.targets.green.as_ref()].into_iter().flatten();
    let members = sides.flat_map(|side| &side.members);
    let addresses = members.map(|member| (member.resource_id.clone(), address_of(&member.resource_id)));
    shared.dialer.seed(addresses.collect::<HashMap<_, _>>());
}

/// The probe and the watchers, looking at the model.
struct Eyes {
    world: Arc<World>,
    shared: Shared,
    agent: usize,
}

impl Eyes {
    fn pace(&self) -> Duration {
        Duration::from_millis(if self.shared.in_window() { 20 } else { 250 })
    }

    async fn latency(&self, side: Side) -> bool {
        let dice = &self.world.dice;
        if self.world.reaches(self.agent, side) {
            tokio::time::sleep(dice.millis(0..4)).await;
            return self.world.reaches(self.agent, side);
        }
        tokio::time::sleep(if self.shared.in_window() { Duration::from_millis(500) } else { Duration::from_secs(2) })
            .await;
        false
    }

    async fn look(&self, intent: &Intent, side: Side, may_write: bool) -> Look {
        let failed = || Look::Failed { kind: "timeout".into(), sqlstate: None };
        if !self.latency(side).await {
            return failed();
        }
        let writable = self.world.takes_writes(side);
        let said = intent.targets.side(side).and_then(|side| self.world.said(side, !writable));
        let there = self.world.databases().schema;
        let wrote = match (writable, may_write && there) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) => None,
        };
        said.map_or_else(failed, |said| Look::Answered { said, wrote })
    }

    async fn watch_production(&self, book: &Mutex<Book<'_>>) {
        loop {
            let intent = self.shared.intent.borrow().clone();
            if let Some(intent) = &intent {
                know(&self.shared);
                let side = self.world.name_leads_to(self.agent);
                let look = self.look(intent, side, true).await;
                locked(book).production(look, intent);
            }
            self.rest(self.pace()).await;
        }
    }

    async fn watch_green(&self, book: &Mutex<Book<'_>>, probe: &ProbeTask) {
        loop {
            let intent = self.shared.intent.borrow().clone();
            let announced = intent.filter(|intent| intent.window.is_some() && intent.targets.green.is_some());
            if let Some(intent) = announced {
                know(&self.shared);
                let may_write = probe.may_write_on_green(&intent, &locked(book));
                let look = self.look(&intent, Side::Green, may_write).await;
                locked(book).green(look, &intent);
            }
            self.rest(self.pace()).await;
        }
    }

    async fn rest(&self, time: Duration) {
        let mut intent = self.shared.intent.subscribe();
        tokio::select! {
            biased;
            () = tokio::time::sleep(time) => {}
            _ = intent.changed() => {}
        }
    }

    /// What the watchers would see.
    async fn watch_the_rest(&self) {
        loop {
            self.picture();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn picture(&self) {
        let now = self.shared.clock.mono();
        let reaches = |side| self.world.reaches(self.agent, side);
        let (both, switched) = (reaches(Side::Blue) && reaches(Side::Green), self.world.switched());
        self.shared.picture(|pictures| {
            if both {
                pictures.slots = Some((now, healthy::slots()));
                pictures.marker = Some((now, healthy::marker()));
                pictures.schema = Some((now, healthy::schema()));
            }
            if switched && reaches(Side::Blue) {
                pictures.old_side = Some((now, healthy::old_side()));
            }
        });
    }
}

impl Task for Eyes {
    const NAME: &'static str = "probe";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        ready.set(true);
        let probe = ProbeTask { shared: self.shared.clone(), agent: AGENTS[self.agent].into() };
        let book = Mutex::new(Book::new(&self.shared));
        tokio::select! {
            () = stop.triggered() => {}
            () = self.watch_production(&book) => {}
            () = self.watch_green(&book, &probe) => {}
            () = self.watch_the_rest() => {}
        }
        Ok(())
    }
}
