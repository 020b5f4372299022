//! A thousand agents on one coordinator, each over a connection of its own: how fast all of them are told to hold, and how long
//! it takes until all have come back and settled after every connection broke at once. The agents live in the same process, so its
//! memory holds both ends.
//!
//! The bounds here are those of a machine that is busy; with `MEASURE=1` they are the promised ones, for a quiet one:
//! `MEASURE=1 cargo nextest run --workspace a_thousand_agents --no-capture`.

use std::sync::atomic::{AtomicUsize, Ordering};

use proto::epoch::Generation;
use runtime::clock::Mono;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

use super::*;

const CLUSTERS: usize = 100;
const AGENTS: usize = 10;
/// As real agents: a heartbeat a second, a report in between.
const BEAT: Duration = Duration::from_secs(1);
/// Handshakes under way at once; more would only queue in the kernel.
const DIALS_MAX: usize = 64;

/// What all the played agents share.
struct Crowd {
    address: SocketAddr,
    clock: Clock,
    dialling: Semaphore,
    /// When each was told the newest hold.
    told: Mutex<Vec<Mono>>,
    attached: AtomicUsize,
    /// Changes when every connection breaks.
    cut: watch::Sender<u32>,
}

impl Crowd {
    /// One agent: dials for ever, applies what it is told, beats and reports.
    async fn agent(self: Arc<Self>, cluster: String, name: String) {
        loop {
            let ended = self.life(&cluster, &name).await;
            // Cut: at once again, as everybody. Refused while everybody comes: a moment later.
            if ended.is_none() {
                self.clock.sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn life(&self, cluster: &str, name: &str) -> Option<()> {
        let permit = self.dialling.acquire().await.ok()?;
        let channel = Channel::from_shared(format!("http://{}", self.address)).ok()?.connect().await.ok()?;
        let (say, said) = mpsc::channel(16);
        let hello = Hello { agent_id: name.into(), cluster_arn: cluster.into(), ..Hello::default() };
        say.send(WireFrom { message: Some(Said::Hello(hello)) }).await.ok()?;
        let mut stream = AgentLinkClient::new(channel).attach(ReceiverStream::new(said)).await.ok()?.into_inner();
        drop(permit);
        self.attached.fetch_add(1, Ordering::SeqCst);
        let (mut sequence, mut cut) = (0, self.cut.subscribe());
        loop {
            let message = tokio::select! {
                _ = cut.changed() => return Some(()),
                message = stream.message() => message,
                () = self.clock.sleep(BEAT) => {
                    sequence += 1;
                    let beat = Said::Heartbeat(Heartbeat { sequence, intent_age_ms: 1 });
                    let body_json = serde_json::to_string(&Report::default()).ok()?;
                    for message in [beat, Said::Report(super::super::wire::played::Report { body_json })] {
                        say.send(WireFrom { message: Some(message) }).await.ok()?;
                    }
                    continue;
                }
            };
            let Told::Intent(intent) = message.ok().flatten()?.message? else { continue };
            if intent.body_json.contains("\"hold\"") {
                self.told.lock().unwrap().push(self.clock.mono());
            }
            let (epoch, generation) = (intent.epoch, intent.generation);
            let applied = IntentApplied { epoch, generation, observed_json: "{}".into() };
            say.send(WireFrom { message: Some(Said::IntentApplied(applied)) }).await.ok()?;
        }
    }
}

/// Resident memory of this process in MiB.
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") / 1024
}

/// Publishes a wish for every cluster at once and waits until every agent has applied it.
async fn settle(all: &[Agents], wish: &Wish) -> Vec<Generation> {
    let one = |agents: &Agents| {
        let (agents, wish) = (agents.clone(), wish.clone());
        async move {
            let generation = agents.publish(wish).await.unwrap();
            agents.await_settled(generation, Duration::from_secs(120)).await.unwrap();
            generation
        }
    };
    futures_util::future::join_all(all.iter().map(one)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_are_told_to_hold_at_once_and_come_back_all_together() {
    // As many as the configuration lets in by itself: while they come back, those who left may be counted still.
    let scene = scene_for(crate::config::Limits::default().agents_max).await;
    scene.lease.send_modify(|lease| lease.until = scene.clock.mono() + Duration::from_secs(3600));
    let all: Vec<Agents> = (0..CLUSTERS).map(|n| cluster(&scene, n)).collect();
    let crowd = Arc::new(Crowd {
        address: scene.address,
        clock: scene.clock.clone(),
        dialling: Semaphore::new(DIALS_MAX),
        told: Mutex::default(),
        attached: AtomicUsize::new(0),
        cut: watch::Sender::new(0),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..CLUSTERS {
        for name in 0..AGENTS {
            tasks.spawn(crowd.clone().agent(arn(n), format!("agent-{name}")));
        }
    }
    settle(&all, &wish(false)).await;

    let began = scene.clock.mono();
    let generations = settle(&all, &wish(true)).await;
    let settled = scene.clock.mono().since(began);
    let mut told: Vec<Duration> = crowd.told.lock().unwrap().iter().map(|at| at.since(began)).collect();
    told.sort();
    assert_eq!(told.len(), CLUSTERS * AGENTS);
    let p99 = told[told.len() * 99 / 100];

    crowd.told.lock().unwrap().clear();
    let attached = crowd.attached.load(Ordering::SeqCst);
    let began = scene.clock.mono();
    crowd.cut.send_modify(|cuts| *cuts += 1);
    let back = async || {
        crowd.attached.load(Ordering::SeqCst) >= attached + CLUSTERS * AGENTS
            && all.iter().zip(&generations).all(|(agents, hold)| agents.settled(*hold) == Settled::All)
    };
    while !back().await {
        let waited = scene.clock.mono().since(began);
        let seen: usize = all.iter().map(|agents| agents.connected().len()).sum();
        assert!(waited < Duration::from_secs(120), "{seen} are back after {waited:?}");
        scene.clock.sleep(Duration::from_millis(20)).await;
    }
    let storm = scene.clock.mono().since(began);
    let memory = resident_mib();
    println!(
        "told to hold: p99 {p99:?}, last {:?}, all settled {settled:?}; back after {storm:?}; {memory} MiB",
        told[999]
    );
    let measured = std::env::var_os("MEASURE").is_some();
    let bounds = if measured { (100, 10, 300) } else { (10_000, 100, 600) };
    assert!(p99 < Duration::from_millis(bounds.0), "the hold reached 99 of 100 agents after {p99:?}");
    assert!(storm < Duration::from_secs(bounds.1), "all were back after {storm:?}");
    assert!(memory < bounds.2, "{memory} MiB are resident");
}

fn arn(n: usize) -> String {
    format!("arn:aws:rds:us-east-1:123456789012:cluster:shop-{n}")
}

fn cluster(scene: &Scene, n: usize) -> Agents {
    let roster = (0..AGENTS).map(|name| format!("agent-{name}").parse().unwrap()).collect();
    let agents = scene.hub.open(&arn(n).parse().unwrap(), &format!("up-{n:04}").parse().unwrap(), roster, None);
    agents.follow(scene.lease.subscribe());
    agents
}
