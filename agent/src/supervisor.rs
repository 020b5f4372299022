//! Puts the agent together: wakes the memory, takes the stance it asks for, then starts every task, the link last.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use runtime::{
    admin::{self, Admin, Bounds},
    clock::Clock,
    recorder::Recorder,
    shutdown::Stop,
    supervision::{Ready, Supervisor, Task, TaskError},
    tls::Incoming,
};
use tokio::net::TcpListener;

use crate::{
    config::Config,
    gate::Gate,
    helm::{self, Helm},
    ingestion::{self, Marks, observer::Observer},
    jobs::{self, NamedQuery},
    link::{
        self, Link,
        runner::{AtOnce, Runner},
    },
    meeting::Meeting,
    metrics,
    pg::Dialer,
    probe::ProbeTask,
    purger::Purger,
    slots::SlotWatch,
    spool::Spool,
    state::Shared,
    status::StatusTask,
    watch::Watch,
};

/// What every binary of the program answers to `--version`.
pub const VERSION: &str = concat!("pilot-agent ", env!("CARGO_PKG_VERSION"));
/// Tasks and jobs get this long to end after the stop.
const DRAIN: Duration = Duration::from_secs(5);

/// An agent that is put together and not started yet.
pub struct Agent {
    pub shared: Shared,
    config: Config,
    runner: Runner,
    listener: TcpListener,
    recorder: Recorder,
}

impl Agent {
    /// Opens the state file, binds the admin address, loads certificates. Changes nothing outside yet.
    pub async fn new(config: Config, clock: Clock, recorder: Recorder) -> Result<Agent, TaskError> {
        if let Some(folder) = config.state_file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let spool = Spool::open(&config.state_file)?.keeping(config.limits.events_max);
        let memory = spool.wake().await?;
        let dialer = Dialer::new(&config.database, config.host_suffixes.clone(), clock.clone())?;
        let shared = Shared::new(clock, spool, dialer, memory);
        let queries = config.query.iter().map(|query| NamedQuery {
            name: query.name.clone(),
            database: query.database.clone(),
            sql: query.sql.clone(),
        });
        let (agent, queries) = (config.agent_id.to_string(), queries.collect());
        let at_once = AtOnce { jobs_max: config.limits.jobs_max, long_jobs_max: config.limits.long_jobs_max };
        let runner = Runner::new(shared.clone(), jobs::registry(), agent, queries, at_once).await?;
        let listener = admin::bind(config.admin_listen).await?;
        if let Some(path) = &config.admin_address_file {
            write_address(path, listener.local_addr()?)?;
        }
        Ok(Agent { shared, config, runner, listener, recorder })
    }

    /// Where `/metrics` is served.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Runs until `stop`. The stance that the memory asks for is taken before anything is dialled.
    pub async fn run(self, stop: Stop) -> bool {
        let (shared, config) = (self.shared, self.config);
        let stance = helm::steer(&shared);
        tracing::info!(%stance, agent = %config.agent_id, cluster = %config.cluster, "agent starts");
        let controllers = ingestion::controllers(&config.ingestion, &config.owner(), &shared.clock);
        let names = controllers.iter().map(|controller| controller.name().to_owned()).collect();
        let gate = Gate::new(shared.clone(), controllers.clone(), Marks::new(config.marks_dir()));
        let options = link::Options {
            coordinator: config.coordinator.clone(),
            tls: config
                .tls
                .as_ref()
                .map(|tls| link::Tls { folder: tls.folder.clone(), server_name: tls.server_name.clone() }),
            agent: config.agent_id.clone(),
            cluster: config.cluster.clone(),
            controllers: names,
        };
        let mut supervisor = Supervisor::new(shared.clock.clone(), stop.clone(), metrics::task_died);
        let seen = shared.clone();
        let recorder = self.recorder.showing(move || metrics::seen(&seen.report()));
        let admin = Admin { recorder: recorder.clone(), board: supervisor.board(), version: VERSION };
        supervisor.start(Helm { shared: shared.clone() });
        supervisor.start(gate);
        supervisor.start(ProbeTask { shared: shared.clone(), agent: config.agent_id.to_string() });
        supervisor.start(StatusTask { shared: shared.clone() });
        supervisor.start(Observer { shared: shared.clone(), controllers });
        supervisor.start(Meeting { shared: shared.clone() });
        supervisor.start(SlotWatch { shared: shared.clone() });
        supervisor.start(Purger { shared: shared.clone() });
        supervisor.start(Watch { shared: shared.clone(), runner: self.runner.clone() });
        supervisor.start(Link {
            shared: shared.clone(),
            options: Arc::new(options),
            runner: self.runner.clone(),
            network: None,
        });
        supervisor.start(AdminTask {
            listener: Some(self.listener),
            admin,
            recorder,
            clock: shared.clock.clone(),
            bounds: config.limits.admin,
        });
        let ended = supervisor.join(DRAIN).await;
        self.runner.close(DRAIN).await;
        ended
    }
}

fn write_address(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, format!("{address}\n"))?;
    std::fs::rename(draft, path)
}

/// Serves the admin endpoint.
struct AdminTask {
    /// Taken at the first start; bound before, so that the address is known early. Bound anew after a death.
    listener: Option<TcpListener>,
    admin: Admin,
    recorder: Recorder,
    clock: Clock,
    bounds: Bounds,
}

impl Task for AdminTask {
    const NAME: &'static str = "admin";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let Some(listener) = self.listener.take() else {
            return Err("the admin listener is gone; the address stays unserved until the next start".into());
        };
        let address = listener.local_addr()?;
        tracing::info!(%address, "admin endpoint");
        ready.set(true);
        let router = self.admin.clone().router();
        let incoming = Incoming::plain(listener, self.clock.clone())?;
        let (recorder, clock) = (self.recorder.clone(), self.clock.clone());
        let served = admin::serve(incoming, router, recorder, clock, stop, self.bounds).await;
        if served.is_err() {
            self.listener = admin::bind(address).await.ok();
        }
        Ok(served?)
    }
}
