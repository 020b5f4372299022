//! The demo's clients and judge against real servers, with a switchover by hand: no pilot, no AWS side. What holds here
//! is the proof that the demo's verdict means something: nothing is lost under load, and a planted bad row is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::bouncer::{self, Bouncer};
use super::clients::{Clients, Places};
use super::court::{self, Evidence, Sabotage};
use super::judge::Verdict;
use super::ledger::{Book, Ledger};
use super::schema::{self, Extensions, Scale};
use super::session::Login;
use super::sides::{self, Photograph};
use super::tempo::Tempo;
use crate::endpoint::Forwarder;
use crate::fleet::{Fleet, Node, Stop};
use crate::mechanics::{Side, Sides, green, switchover};
use crate::roles;
use crate::status::Identity;
use crate::{install, settings};

const SCALE: Scale = Scale(0.01);

/// A small cluster without an AWS side: blue, the endpoint, and the pooler in front of it.
struct Bench {
    fleet: Fleet,
    folder: PathBuf,
    blue: Side,
    endpoint: Forwarder,
    bouncer: Bouncer,
    tempo: Tempo,
}

fn silent(_: &str) {}

fn node(name: &str, host: u8, port: u16, block: [u8; 2]) -> Node {
    let parameters = [("rds.logical_replication", "1"), ("max_replication_slots", "20"), ("max_wal_senders", "20")];
    Node {
        smallest: false,
        name: name.to_owned(),
        address: IpAddr::V4(Ipv4Addr::new(127, block[0], block[1], host)),
        port,
        parameters: parameters
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        identity: Identity {
            instance: name.to_owned(),
            topology: vec![(name.to_owned(), true)],
            ..Identity::default()
        },
    }
}

impl Bench {
    async fn start(from: u32, to: u32) -> anyhow::Result<Self> {
        let tempo = Tempo::start();
        let trees = install::ensure(&[from, to], &silent).await?;
        let pgbouncer = install::ensure_pgbouncer(&silent).await?;
        let folder = std::env::temp_dir().join(format!("pilot-lab-demo-test-{:08x}", rand::random::<u32>()));
        let fleet = Fleet::open(&folder.join("servers"), trees, false).await?;
        let block = [rand::random_range(60..120), rand::random_range(1..250)];
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let writer = fleet.create(node("blue", 11, port, block), from).await?;
        writer.start().await?;
        roles::establish(&writer).await?;
        let address = SocketAddr::from((Ipv4Addr::new(127, block[0], block[1], 1), port));
        let endpoint = Forwarder::bind(address, writer.address()).await?;
        schema::create(&master(&endpoint), SCALE, Extensions { cron: false, partman: true }, &tempo).await?;
        let bouncer = bouncer::Options {
            program: pgbouncer,
            folder: folder.join("pgbouncer"),
            names: None,
            server: (address.ip().to_string(), port),
            databases: schema::DATABASES.map(str::to_owned).to_vec(),
            elsewhere: Vec::new(),
            users: schema::DATABASES.iter().map(|d| (schema::owner(d), schema::PASSWORD.to_owned())).collect(),
        };
        let bouncer = Bouncer::start(&bouncer, &tempo).await?;
        let blue = Side { writer, readers: Vec::new() };
        Ok(Self { fleet, folder, blue, endpoint, bouncer, tempo })
    }

    async fn green(&self, major: u32) -> anyhow::Result<Sides> {
        let blue = self.blue.writer.address();
        let IpAddr::V4(ip) = blue.ip() else { anyhow::bail!("not a loopback address") };
        let octets = ip.octets();
        let plan = green::Plan {
            tag: "abcdefghijklmnopqrstuvwxyz".to_owned(),
            region: settings::REGION.to_owned(),
            major,
            writer: node("green", 21, blue.port(), [octets[1], octets[2]]),
            readers: Vec::new(),
            hide_slot_wait: false,
        };
        let progress: green::Progress = Arc::new(|_, _| ());
        Ok(green::build(&self.fleet, &self.blue, plan, progress, &CancellationToken::new()).await?)
    }

    /// PAUSE, switch, retarget, RESUME: what an agent does around the RDS call. When the switchover began.
    async fn cut(&self, sides: &Sides) -> anyhow::Result<Duration> {
        let limit = Duration::from_secs(20);
        let console = self.bouncer.console().open(&self.tempo, limit).await?;
        for database in schema::DATABASES {
            console.run(&self.tempo, limit, &format!("PAUSE {database}")).await?;
        }
        let began = self.tempo.at();
        let green = sides.green.writer.address();
        let limits = switchover::Limits::for_timeout(Duration::from_secs(30));
        let progress: switchover::Progress = Arc::new(|_| ());
        let endpoint = self.endpoint.clone();
        let moved = || async move {
            endpoint.lead_to(green);
            Ok(())
        };
        switchover::run(sides, &limits, progress, &CancellationToken::new(), moved).await?;
        let databases = schema::DATABASES.map(str::to_owned);
        let section = bouncer::databases_section(&databases, &green.ip().to_string(), green.port());
        std::fs::write(self.bouncer.databases_file(), section)?;
        console.run(&self.tempo, limit, "RELOAD").await?;
        for database in schema::DATABASES {
            console.run(&self.tempo, limit, &format!("RESUME {database}")).await?;
        }
        Ok(began)
    }

    async fn stop(self) {
        self.bouncer.stop().await;
        self.endpoint.stop();
        self.fleet.stop_all(Stop::Immediate).await;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn master(endpoint: &Forwarder) -> Login {
    Login {
        names: None,
        host: endpoint.address().ip().to_string(),
        port: endpoint.address().port(),
        user: settings::MASTER_USER.to_owned(),
        password: settings::MASTER_PASSWORD.to_owned(),
        database: "postgres".to_owned(),
        application: "test".to_owned(),
    }
}

async fn judged(
    reader: &Login,
    book: &Book,
    old: &Photograph,
    cut: Duration,
    tempo: &Tempo,
) -> anyhow::Result<Verdict> {
    let evidence = Evidence { book, old_blue: Some(Ok(old)), cut, nightly: BTreeSet::new() };
    court::hear(reader, &evidence, tempo).await
}

/// Takes back what `sabotage` planted, so that the next planted row is the only one.
async fn repair(reader: &Login, kind: Sabotage, planted: &str, tempo: &Tempo) -> anyhow::Result<()> {
    let key = planted.split_whitespace().nth(2).unwrap_or_default();
    let database = planted.rsplit(' ').next().unwrap_or_default();
    let (service, n) = key.rsplit_once('/').unwrap_or_default();
    let rows = format!("service = '{service}' and n = {n}");
    let sql = match kind {
        Sabotage::Lose => return Ok(()),
        Sabotage::Change => format!("update events set payload = replace(payload, ' (changed)', '') where {rows}"),
        Sabotage::Double => {
            format!("delete from events where {rows} and id = (select max(id) from events where {rows})")
        }
    };
    let session = sides::open(&reader.database(database), tempo).await?;
    session.run(tempo, Duration::from_secs(10), &sql).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_by_hand_loses_nothing_and_the_judge_finds_every_planted_row() -> anyhow::Result<()> {
    let bench = Bench::start(14, 16).await?;
    let ended = switch_and_judge(&bench).await;
    bench.stop().await;
    ended
}

async fn switch_and_judge(bench: &Bench) -> anyhow::Result<()> {
    let tempo = &bench.tempo;
    let ledger = Arc::new(Ledger::new());
    let direct = master(&bench.endpoint);
    let places = Places {
        direct: direct.clone(),
        pooled: bench.bouncer.login("", "", "postgres", ""),
        resolvers: std::collections::BTreeMap::new(),
        accounts: SCALE.accounts(),
    };
    let clients = Clients::start(&places, &ledger, tempo).await?;
    clients.warm_up(tempo).await?;
    let sides = bench.green(16).await?;

    clients.direct().pause().await;
    let cut = bench.cut(&sides).await?;
    clients.direct().resume();
    let reader = direct.role(settings::AGENT_USER, settings::AGENT_PASSWORD, "test-judge");
    let old_login = Login { host: bench.blue.writer.ip().to_string(), ..reader.clone() };
    let old = sides::photograph(&old_login, tempo).await?;
    let before = clients.acknowledged();
    let more = async || match clients.acknowledged() {
        now if now > before + 500 => Ok(()),
        now => Err(format!("{now} acknowledged, {before} at the cut")),
    };
    tempo.until("writes on green", Duration::from_millis(50), Duration::from_secs(30), more).await?;
    let (felt, leftover) = clients.finish().await;
    assert_eq!(leftover, 0, "operations left over");
    for (tally, felt) in &felt.tallies {
        let gap = felt.longest_within(cut, tempo.at());
        println!("{}: longest gap {gap:?}, failed {:?}, not connected {:?}", tally.name, felt.failed, felt.unconnected);
    }

    let held = felt.tallies.iter().filter(|(tally, _)| tally.held).map(|(_, felt)| felt.failures()).sum::<u64>();
    assert_eq!(held, 0, "failed statements of held clients: {felt:?}");
    let book = ledger.snapshot();
    let verdict = judged(&reader, &book, &old, cut, tempo).await?;
    assert!(verdict.clean(), "{verdict:#?}");
    assert!(verdict.acknowledged > 500, "{verdict:#?}");

    for kind in [Sabotage::Change, Sabotage::Double, Sabotage::Lose] {
        let planted = court::sabotage(kind, &reader, &book, tempo).await?;
        let verdict = judged(&reader, &book, &old, cut, tempo).await?;
        assert!(!verdict.clean(), "{planted} was not found: {verdict:#?}");
        assert_eq!(verdict.duplicated > 0, kind == Sabotage::Double, "{planted}: {verdict:#?}");
        repair(&reader, kind, &planted, tempo).await?;
    }
    Ok(())
}
