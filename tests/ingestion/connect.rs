//! Kafka Connect with Debezium's PostgreSQL connector, for real: a server of PostgreSQL, a source that reads its slot, a broker, a
//! sink that writes a file.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
};

use agent::{ingestion::IngestionController, slots::SlotWatch, state::Role};
use lab::{
    connect::Worker,
    fleet::{Fleet, Node, Server, Stop},
    install,
    roles::{self, AGENT, AGENT_PASSWORD},
    status::Identity,
};
use proto::report::{IngestionState, Slot};
use runtime::clock::Clock;
use serde_json::{Value, json};

use super::{
    Folder, Life, PAUSED,
    contract::{Doing, Subject, a_successor_undoes_it, configured, figures, keeps_the_contract},
    mark, until, until_state,
};

const SOURCE: &str = "orders-source";
const SINK: &str = "orders-sink";

async fn server(folder: &Folder) -> (Fleet, Arc<Server>) {
    let trees = install::ensure(&[16], &|line| println!("{line}")).await.expect("PostgreSQL");
    let fleet = Fleet::open(&folder.0.join("fleet"), trees, false).await.expect("a fleet");
    let address = Ipv4Addr::new(127, 77, 0, 11);
    let port = TcpListener::bind((address, 0)).and_then(|probe| probe.local_addr()).expect("a port").port();
    let node = Node {
        name: "orders-1".into(),
        address: IpAddr::V4(address),
        port,
        parameters: BTreeMap::from([("rds.logical_replication".to_owned(), "1".to_owned())]),
        identity: Identity {
            instance: "orders-1".into(),
            topology: vec![("orders-1".into(), true)],
            ..Identity::default()
        },
        smallest: true,
    };
    let server = fleet.create(node, 16).await.expect("a server");
    server.start().await.expect("its start");
    roles::establish(&server).await.expect("roles");
    roles::create_database(&server, "orders").await.expect("a database");
    let admin = server.admin("orders").await.expect("a session");
    admin
        .batch_execute(
            "create role debezium login superuser replication password 'lab-debezium';
             create table public.item (id bigserial primary key, note text)",
        )
        .await
        .expect("the schema");
    (fleet, server)
}

/// What the test asks of the worker by hand.
struct Stage {
    worker: Worker,
    server: Arc<Server>,
    written: Mutex<usize>,
}

impl Stage {
    async fn ask(&self, method: &str, path: &str, body: &str) {
        let (status, said) = self.worker.ask(method, path, body).await.expect("the worker answers");
        assert!((200..300).contains(&status), "{method} {path}: {status}: {said}");
    }

    async fn configure(&self, name: &str, config: Value) {
        self.ask("PUT", &format!("/connectors/{name}/config"), &config.to_string()).await;
    }

    async fn both(&self, verb: &str) {
        for name in [SOURCE, SINK] {
            self.ask("PUT", &format!("/connectors/{name}/{verb}"), "").await;
        }
    }

    /// So many rows more, and how many there are now.
    async fn insert(&self, rows: usize) -> usize {
        let admin = self.server.admin("orders").await.expect("a session");
        let insert = format!("insert into public.item (note) select repeat('x', 300) from generate_series(1, {rows})");
        admin.batch_execute(&insert).await.expect("rows");
        let mut written = self.written.lock().expect("nobody panics with it");
        *written += rows;
        *written
    }

    /// How many rows came through.
    fn arrived(&self) -> usize {
        std::fs::read_to_string(self.worker.file("sink.txt")).unwrap_or_default().lines().count()
    }

    async fn all_arrive(&self, rows: usize) {
        until(&format!("{rows} rows are to come through"), || async {
            let arrived = self.arrived();
            if arrived >= rows { Ok(()) } else { Err(format!("{arrived}")) }
        })
        .await;
    }

    fn controller(&self, connectors: &[&str]) -> Arc<dyn IngestionController> {
        let section = json!({"kind": "kafka_connect", "name": "connect", "base_url": self.worker.base_url(),
            "connectors": connectors, "pause_seconds_max": 120});
        configured(&section, "agent")
    }
}

async fn stage(folder: &Folder) -> (Fleet, Stage) {
    let parts = install::ensure_kafka_connect(&|line| println!("{line}")).await.expect("Kafka Connect");
    let (fleet, server) = server(folder).await;
    let clock = Clock::system();
    let began = clock.mono();
    let worker = Worker::start(parts, &folder.0.join("connect"), clock.clone()).await.expect("a worker");
    println!("the worker answers after {} ms", clock.mono().since(began).as_millis());
    let stage = Stage { worker, server, written: Mutex::new(0) };
    let address = stage.server.address();
    let source = json!({"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "tasks.max": "1",
        "database.hostname": address.ip().to_string(), "database.port": address.port().to_string(),
        "database.user": "debezium", "database.password": "lab-debezium", "database.dbname": "orders",
        "topic.prefix": "cdc", "plugin.name": "pgoutput", "slot.name": "debezium", "publication.name": "cdc",
        "publication.autocreate.mode": "filtered", "table.include.list": "public.item", "snapshot.mode": "no_data"});
    stage.configure(SOURCE, source).await;
    until_state(stage.controller(&[SOURCE]).as_ref(), IngestionState::Running).await;
    until("the slot is to be read", || async {
        let admin = stage.server.admin("orders").await.map_err(|error| error.chain())?;
        let active = "select count(*) from pg_replication_slots where slot_name = 'debezium' and active";
        let count: i64 = admin.query_one(active, &[]).await.map_err(|error| error.to_string())?.get(0);
        if count == 1 { Ok(()) } else { Err("nobody reads it".to_owned()) }
    })
    .await;
    // The topic is there before its reader looks for it.
    stage.insert(1).await;
    let file = stage.worker.file("sink.txt").display().to_string();
    let sink = json!({"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1",
        "file": file, "topics": "cdc.public.item"});
    stage.configure(SINK, sink).await;
    (fleet, stage)
}

/// The slot of the source, as the agent sees and reports it.
async fn slot_keeping(life: &Life, more_than: u64) -> Slot {
    until(&format!("the slot is to keep more than {more_than} bytes"), || async {
        let report = life.shared.report();
        let slots = report.slots.map(|slots| slots.slots).unwrap_or_default();
        match slots.iter().find(|slot| slot.name == "debezium") {
            Some(slot) if slot.retained_bytes.is_some_and(|bytes| bytes > more_than) => Ok(slot.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn paused_while_its_slot_keeps_wal(stage: &Stage) {
    let lives = Folder::new("connect-life");
    let controller = stage.controller(&[SOURCE, SINK]);
    let mut life =
        Life::beside(&lives, vec![controller.clone()], stage.server.address(), (AGENT, AGENT_PASSWORD)).await;
    life.shared.role.send_replace(Role::Lead);
    let watch = SlotWatch { shared: life.shared.clone() };
    life.supervisor.start(watch);
    let before = slot_keeping(&life, 0).await;
    assert!(!before.of_deployment && before.active, "{before:?}");

    let (clock, rows) = (Clock::system(), stage.insert(20).await);
    stage.all_arrive(rows).await;
    let began = clock.mono();
    life.wish(PAUSED).await.expect("a pause");
    println!("paused by the gate after {} ms", clock.mono().since(began).as_millis());
    assert_eq!(controller.observe().await.expect("observed").state, IngestionState::Paused);

    // Nothing comes through any more, the slot is still there, and what it keeps is seen to grow.
    let (arrived, kept) = (stage.arrived(), slot_keeping(&life, 0).await.retained_bytes.unwrap_or(0));
    let rows = stage.insert(2000).await;
    let grown = slot_keeping(&life, kept + 500_000).await;
    println!("a paused source's slot keeps {:?} bytes, before {kept}", grown.retained_bytes);
    assert!(!grown.of_deployment, "it is not the deployment's: {grown:?}");
    assert_eq!(stage.arrived(), arrived, "paused, and rows came through");

    let began = clock.mono();
    life.wish(proto::intent::IngestionWish::Running).await.expect("a release");
    println!("resumed by the gate after {} ms", clock.mono().since(began).as_millis());
    stage.all_arrive(rows).await;
    life.end().await;
}

async fn what_cannot_be_paused_is_named(stage: &Stage) {
    let broken = json!({"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1",
        "file": "/nowhere/at/all", "topics": "cdc.public.item"});
    stage.configure("broken", broken).await;
    let controller = stage.controller(&[SOURCE, "broken"]);
    let why = until("a task is to fail", || async {
        match controller.observe().await.map(|seen| seen.state) {
            Ok(IngestionState::Unknown(why)) if why.contains("FAILED") => Ok(why),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(
        why.starts_with("connector broken task 0 is FAILED: org.apache.kafka.connect.errors.ConnectException"),
        "{why}"
    );
    assert!(!why.contains("nowhere"), "the words of a failure may be anything: {why}");
    let error = controller.pause(&mark("up-1")).await.expect_err("what failed is not paused").to_string();
    assert!(error.contains("broken task 0 is FAILED") && error.contains("restart or delete it"), "{error}");
    controller.resume(&mark("up-1"), None).await.expect("what failed is not waited for");
    stage.ask("DELETE", "/connectors/broken", "").await;

    let error = stage.controller(&["nobody"]).pause(&mark("up-1")).await.expect_err("there is none").to_string();
    assert!(error.contains("there is no connector \"nobody\""), "{error}");
}

/// The worker goes away before the pause is asked for, and comes back.
async fn paused_through_a_restart(stage: &mut Stage) {
    let controller = stage.controller(&[SOURCE, SINK]);
    let mark = mark("up-1");
    let (restarted, paused) = tokio::join!(stage.worker.restart(), controller.pause(&mark));
    restarted.expect("a restart");
    paused.expect("a pause through the restart");
    assert_eq!(controller.observe().await.expect("observed").state, IngestionState::Paused);
    controller.resume(&mark, None).await.expect("a resume");
    let rows = stage.insert(10).await;
    stage.all_arrive(rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_connect_with_debezium_is_paused_watched_and_resumed_for_real() {
    let folder = Folder::new("connect");
    let (fleet, mut stage) = stage(&folder).await;
    let sinks = json!({"kind": "kafka_connect", "name": "sinks", "base_url": stage.worker.base_url(), "connectors": [SINK],
        "backlog_url": figures(Arc::new(Mutex::new(json!({"backlog": 7})))).await});
    let sinks = configured(&sinks, "agent");
    let rows = stage.insert(50).await;
    stage.all_arrive(rows).await;
    until_state(sinks.as_ref(), IngestionState::Running).await;

    paused_while_its_slot_keeps_wal(&stage).await;
    {
        let controller = || stage.controller(&[SOURCE, SINK]);
        let pauses = || -> Doing<'_> { Box::pin(stage.both("pause")) };
        let resumes = || -> Doing<'_> { Box::pin(stage.both("resume")) };
        let subject = Subject { controller: &controller, by_hand: Some((&pauses, &resumes)), remembers: false };
        a_successor_undoes_it(&subject, "connect-successor").await;
        keeps_the_contract(subject).await;
    }
    what_cannot_be_paused_is_named(&stage).await;
    paused_through_a_restart(&mut stage).await;

    // What a sink commits is counted; what a source remembers is not, and its slot is watched instead.
    let seen = until("the sink's rate is to be known", || async {
        match sinks.observe().await {
            Ok(seen) if seen.rate.is_some() => Ok(seen),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(seen.rate.is_some_and(|rate| rate > 0.0) && seen.backlog == Some(7), "{seen:?}");
    let source = stage.controller(&[SOURCE]).observe().await.expect("observed");
    assert_eq!((source.backlog, source.rate), (None, None), "what is not known is not said");
    drop(stage);
    fleet.stop_all(Stop::Immediate).await;
}
