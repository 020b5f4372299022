//! What the tests share: a blue with a little data, a plan for its green, a client that writes and remembers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::clock::Clock;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::endpoint::Forwarder;
use crate::fleet::{Admin, Fleet, Node, Server, Stop};
use crate::mechanics::green::{self, BuildFailed, Plan, Progress, Stage};
use crate::mechanics::{Side, Sides};
use crate::roles::{self, MASTER, MASTER_PASSWORD};
use crate::status::Identity;

/// The 26 characters of the tests' deployments.
pub(super) const TAG: &str = "abcdefghijklmnopqrstuvwxyz";

/// One test's fleet. Only one exists at a time in a process and, by a lock in the cache, on a machine.
pub(super) struct Bench {
    pub(super) fleet: Fleet,
    work: PathBuf,
    port: u16,
    block: [u8; 2],
    pub(super) clock: Clock,
    _turn: std::fs::File,
}

impl Bench {
    pub(super) async fn new(majors: &[u32]) -> Self {
        let trees = crate::install::ensure(majors, &|line| println!("{line}")).await.expect("installing the majors");
        let turn =
            crate::fleet::lock(&crate::install::cache_dir().join("tests.lock")).await.expect("waiting for the turn");
        let work = std::env::temp_dir().join(format!("pilot-lab-test-{:08x}", rand::random::<u32>()));
        let fleet = Fleet::open(&work, trees, false).await.expect("opening the fleet");
        let block = [rand::random::<u8>() | 1, rand::random::<u8>()];
        let probe = std::net::TcpListener::bind((Ipv4Addr::new(127, block[0], block[1], 1), 0)).expect("a port");
        let port = probe.local_addr().expect("its address").port();
        Self { fleet, work, port, block, clock: Clock::system(), _turn: turn }
    }

    pub(super) fn address(&self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.block[0], self.block[1], last))
    }

    pub(super) fn node(&self, name: &str, last: u8, parameters: &[(&str, &str)]) -> Node {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        all.insert("rds.logical_replication".into(), "1".into());
        all.insert("log_statement".into(), "ddl".into());
        all.extend(parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let identity = Identity { instance: name.into(), topology: vec![(name.into(), true)], ..Identity::default() };
        Node {
            name: name.into(),
            address: self.address(last),
            port: self.port,
            parameters: all,
            identity,
            smallest: false,
        }
    }

    /// A writer with the databases `orders` and `billing`, made by the master user.
    pub(super) async fn blue(&self, major: u32, parameters: &[(&str, &str)]) -> Arc<Server> {
        let blue = self.fleet.create(self.node("orders-1", 11, parameters), major).await.expect("creating blue");
        blue.start().await.expect("starting blue");
        roles::establish(&blue).await.expect("roles");
        for database in ["orders", "billing"] {
            roles::create_database(&blue, database).await.expect("a database");
            let master = master(&blue, database).await;
            master.batch_execute(SCHEMA).await.expect("the schema");
        }
        roles::join_owners(&blue).await.expect("owners");
        blue
    }

    pub(super) fn plan(&self, major: u32, parameters: &[(&str, &str)], readers: u8) -> Plan {
        let reader = |number: u8| self.node(&format!("orders-green-{}", number + 2), 22 + number, parameters);
        Plan {
            tag: TAG.into(),
            region: "us-east-1".into(),
            major,
            writer: self.node("orders-green-1", 21, parameters),
            readers: (0..readers).map(reader).collect(),
            hide_slot_wait: false,
        }
    }

    /// Builds green and prints what each stage took.
    pub(super) async fn build(
        &self,
        blue: &Side,
        plan: Plan,
        cancel: &CancellationToken,
    ) -> Result<Sides, BuildFailed> {
        green::build(&self.fleet, blue, plan, self.stages(), cancel).await
    }

    pub(super) fn stages(&self) -> Progress {
        let (clock, begun) = (self.clock.clone(), Mutex::new(self.clock.mono()));
        Arc::new(move |stage: Stage, ended| {
            let mut begun = begun.lock().expect("the stages' lock");
            if ended {
                println!("stage {stage:?}: {} ms", clock.mono().since(*begun).as_millis());
            }
            *begun = clock.mono();
        })
    }

    pub(super) async fn endpoint(&self, last: u8, target: &Server) -> Forwarder {
        Forwarder::bind(SocketAddr::new(self.address(last), self.port), target.address()).await.expect("the endpoint")
    }

    pub(super) async fn end(self) {
        self.fleet.stop_all(Stop::Immediate).await;
        std::fs::remove_dir_all(&self.work).expect("removing the work folder");
    }
}

pub(super) fn side(writer: &Arc<Server>) -> Side {
    Side { writer: Arc::clone(writer), readers: Vec::new() }
}

const SCHEMA: &str = "
    create table item (id bigserial primary key, n bigint not null, note text);
    insert into item (n, note) select -g, md5(g::text) from generate_series(1, 2000) g;
    create sequence down increment -1 maxvalue 1000000 start 1000000;
    create sequence never_called;
    select nextval('down') from generate_series(1, 10);
    create materialized view totals as select count(*) from item;";

pub(super) async fn master(server: &Server, database: &str) -> Admin {
    server.client(MASTER, MASTER_PASSWORD, database).await.expect("connecting as the master user")
}

/// One value of one row, as text.
pub(super) async fn value(session: &Admin, question: &str) -> String {
    let rows = session.simple_query(question).await.unwrap_or_else(|error| panic!("{question}: {error:?}"));
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("null").to_owned()),
        _ => None,
    });
    row.unwrap_or_else(|| "nothing".into())
}

/// Waits until a question has an answer.
pub(super) async fn until(session: &Admin, question: &str, wanted: &str) {
    let mut last = String::new();
    for _ in 0..3000 {
        last = value(session, question).await;
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{question}: wanted {wanted}, last saw {last}");
}

/// A client that inserts numbered rows as fast as it can, reconnects, and remembers what was acknowledged and when.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(i64, Duration)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(endpoint: SocketAddr, clock: Clock) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let task = tokio::spawn(write(endpoint, clock, Arc::clone(&stop), Arc::clone(&acknowledged)));
        Self { stop, acknowledged, task }
    }

    pub(super) fn count(&self) -> usize {
        self.acknowledged.lock().expect("the writer's lock").len()
    }

    /// Waits until some more rows were acknowledged.
    pub(super) async fn more(&self, rows: usize) {
        let wanted = self.count() + rows;
        for _ in 0..3000 {
            if self.count() >= wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the writer stands at {} rows, wanted {wanted}", self.count());
    }

    /// Ends it: the numbers acknowledged, and the longest time between two of them.
    pub(super) async fn end(self) -> (Vec<i64>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writer");
        let rows = self.acknowledged.lock().expect("the writer's lock").clone();
        let gap = rows.windows(2).map(|pair| pair[1].1.saturating_sub(pair[0].1)).max().unwrap_or_default();
        (rows.into_iter().map(|(number, _)| number).collect(), gap)
    }
}

async fn write(
    endpoint: SocketAddr,
    clock: Clock,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(i64, Duration)>>>,
) {
    let mut config = tokio_postgres::Config::new();
    config
        .host(endpoint.ip().to_string())
        .port(endpoint.port())
        .user(MASTER)
        .password(MASTER_PASSWORD)
        .dbname("orders");
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((client, connection)) = config.connect(NoTls).await {
            let connection = tokio::spawn(connection);
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                if client.execute("insert into item (n) values ($1)", &[&number]).await.is_err() {
                    break;
                }
                acknowledged.lock().expect("the writer's lock").push((number, clock.mono().0));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            connection.abort();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
