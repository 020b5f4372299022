//! Ingestion systems that people have, and the agent's controllers of them: one contract for every kind, Kafka Connect with
//! Debezium for real, Kubernetes as a stand-in that the real kubectl judges, and the real gate over both.

mod connect;
mod contract;
mod kubernetes;

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use agent::{
    config::{Database, HostRule, Tls},
    gate::Gate,
    helm::Helm,
    ingestion::{IngestionController, Marks, PauseMark},
    pg::Dialer,
    spool::Spool,
    state::{Lease, Shared},
};
use proto::{
    epoch::{Epoch, Generation},
    intent::{GateWish, IngestionWish, Intent, Refusal, Targets, WatchWish},
    report::IngestionState,
    side::{Endpoint, Member, Side, SideIdentity},
};
use runtime::{clock::Clock, shutdown::Stop, supervision::Supervisor};

/// Longer than anything here may take on a busy machine.
const LONG: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A folder of its own for one test; removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("pilot-ingestion-{name}-{}", std::process::id()));
        let _not_there = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _not_there = std::fs::remove_dir_all(&self.0);
    }
}

fn mark(upgrade: &str) -> PauseMark {
    let at = Clock::system().now();
    PauseMark { upgrade: upgrade.to_owned(), since: at, expires_at: at, found: None }
}

/// Until `look` gives a value; says what it last saw.
async fn until<T, F: Future<Output = Result<T, String>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let clock = Clock::system();
    let began = clock.mono();
    loop {
        let last = match look().await {
            Ok(seen) => return seen,
            Err(last) => last,
        };
        assert!(clock.mono().since(began) < LONG, "{what}: last seen {last}");
        clock.sleep(LOOK_EVERY).await;
    }
}

async fn until_state(controller: &dyn IngestionController, wanted: IngestionState) {
    until(&format!("{} is to be {wanted:?}", controller.name()), || async {
        match controller.observe().await {
            Ok(seen) if seen.state == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// One life of an agent as far as ingestion goes: the real gate and helm, with a coordinator's word in place of the link.
struct Life {
    shared: Shared,
    stop: Stop,
    supervisor: Supervisor,
    generation: u64,
    server: SocketAddr,
}

impl Life {
    async fn begin(folder: &Folder, systems: Vec<Arc<dyn IngestionController>>) -> Life {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Life::beside(folder, systems, nowhere, ("nobody", "secret")).await
    }

    /// The same beside a server of PostgreSQL.
    async fn beside(
        folder: &Folder,
        systems: Vec<Arc<dyn IngestionController>>,
        server: SocketAddr,
        (user, password): (&str, &str),
    ) -> Life {
        let clock = Clock::system();
        std::fs::write(folder.0.join("pw"), password).expect("a password file");
        let database = database(folder, user);
        let rules: Vec<HostRule> = vec!["127.0.0.0/8".parse().expect("a block")];
        let dialer = Dialer::new(&database, rules, clock.clone()).expect("a dialer");
        let spool = Spool::open(&folder.0.join("agent.sqlite")).expect("a spool");
        let memory = spool.wake().await.expect("its memory");
        let shared = Shared::new(clock.clone(), spool, dialer, memory);
        let (stop, marks) = (Stop::new(), Marks::new(folder.0.join("marks")));
        let mut supervisor = Supervisor::new(clock.clone(), stop.clone(), |_| {});
        supervisor.start(Helm { shared: shared.clone() });
        supervisor.start(Gate::new(shared.clone(), systems, marks));
        // Whoever is obeyed is obeyed for the length of a test.
        shared.lease.send_replace(Lease { until: Some(clock.mono() + LONG * 4) });
        let mut life = Life { shared, stop, supervisor, generation: 0, server };
        life.say(IngestionWish::Running);
        life
    }

    fn say(&mut self, ingestion: IngestionWish) {
        self.generation += 1;
        let (host, port) = (self.server.ip().to_string(), self.server.port());
        let member =
            Member { resource_id: "db-1".into(), instance: "orders-1".into(), host: host.clone(), port, writer: true };
        let blue =
            SideIdentity { side: Side::Blue, cluster_resource_id: "blue".into(), major: 16, members: vec![member] };
        let production = Endpoint { host, port };
        let intent = Intent {
            upgrade: "up-test".parse().expect("an id"),
            epoch: Epoch(1),
            generation: Generation(self.generation),
            ingestion,
            purger: None,
            gate: GateWish::Open,
            targets: Targets { production, serving: Side::Blue, blue, green: None },
            window: None,
            watch: WatchWish::default(),
        };
        self.shared.intent.send_replace(Some(Arc::new(intent)));
    }

    /// Wishes, and waits until the gate says how it ended.
    async fn wish(&mut self, ingestion: IngestionWish) -> Result<(), Refusal> {
        self.say(ingestion);
        self.settled().await
    }

    async fn settled(&self) -> Result<(), Refusal> {
        until("the wish is to be settled", || async {
            match self.shared.settled.borrow().clone() {
                Some(settled) if settled.generation.0 == self.generation => Ok(settled.result.map(drop)),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Its end, as the end of the process would be.
    async fn end(self) {
        self.stop.trigger();
        self.supervisor.join(Duration::from_secs(5)).await;
    }
}

fn database(folder: &Folder, user: &str) -> Database {
    Database {
        user: user.into(),
        password_file: Some(folder.0.join("pw")),
        password_command: None,
        maintenance_database: "postgres".into(),
        tls: Tls::Disable,
        tls_ca_file: None,
    }
}

const PAUSED: IngestionWish = IngestionWish::Paused { max_pause_ms: 600_000 };
