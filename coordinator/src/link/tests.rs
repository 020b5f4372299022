//! The link with an agent that is played over real gRPC: what it is told, when, and what is said again after a break.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use proto::epoch::{Epoch, StoreId};
use proto::ids::{JobId, UpgradeId};
use proto::intent::{GateWish, IngestionWish, Targets, WatchWish};
use proto::jobs::Marker;
use proto::report::Report;
use proto::side::{Endpoint, Side, SideIdentity};
use runtime::clock::Clock;
use runtime::tls::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Server;

use super::wire::played::{
    AgentLinkClient, Event, Heartbeat, Hello, IntentApplied, JobDone, JobFailed, Said, Told, What,
};
use super::wire::{WireFrom, WireTo};
use super::*;
use crate::codes;
use crate::who::Guard;

mod limits;
mod thousand;

const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
const SOON: Duration = Duration::from_secs(10);

/// A wish to hold, or a calm one.
pub(crate) fn wish(hold: bool) -> Wish {
    let blue =
        SideIdentity { side: Side::Blue, cluster_resource_id: "cluster-B".into(), major: 14, members: Vec::new() };
    let production = Endpoint { host: "127.0.0.1".into(), port: 5432 };
    Wish {
        ingestion: IngestionWish::Running,
        purger: None,
        gate: if hold { GateWish::Hold } else { GateWish::Open },
        targets: Targets { production, serving: Side::Blue, blue, green: None },
        window: None,
        watch: WatchWish::default(),
    }
}

/// Remembers what it was told to keep.
#[derive(Default)]
struct Kept(Mutex<Vec<Wish>>);

impl WishKeeper for Kept {
    fn keep<'a>(&'a self, _: &'a UpgradeId, _: Epoch, wish: &'a Wish) -> BoxFuture<'a, Result<(), String>> {
        self.0.lock().unwrap().push(wish.clone());
        Box::pin(async { Ok(()) })
    }
}

struct Scene {
    hub: Hub,
    address: SocketAddr,
    clock: Clock,
    lease: watch::Sender<engine::Lease>,
    kept: Arc<Kept>,
    _server: tokio::task::JoinSet<()>,
}

/// A hub served on a loopback port, with a driver's lease that the test holds.
async fn scene() -> Scene {
    scene_for(100).await
}

/// The same, for so many agents at once.
async fn scene_for(agents_max: usize) -> Scene {
    let (clock, kept) = (Clock::system(), Arc::new(Kept::default()));
    let hub = Hub::new(HubOptions {
        store: StoreId("store-1".into()),
        epoch: Epoch(3),
        lease: Duration::from_secs(2),
        clock: clock.clone(),
        keeper: kept.clone(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = LinkService::server_for(hub.clone(), Guard::new("us-east-1", clock.clone()), agents_max);
    let incoming = Incoming::plain(listener, clock.clone()).unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    let until = clock.mono() + Duration::from_secs(60);
    let lease = watch::Sender::new(engine::Lease { epoch: engine::Epoch(7), until, lost: false });
    Scene { hub, address, clock, lease, kept, _server: server }
}

impl Scene {
    /// An upgrade with this roster, driven under epoch 7.
    fn open(&self, roster: &[&str], last: Option<Wish>) -> Agents {
        let roster = roster.iter().map(|name| name.parse().unwrap()).collect();
        let agents = self.hub.open(&CLUSTER.parse().unwrap(), &"up-0001".parse().unwrap(), roster, last);
        agents.follow(self.lease.subscribe());
        agents
    }

    async fn dial(&self, agent: &str, cluster: &str) -> Result<Played, tonic::Status> {
        self.dial_with(Hello { agent_id: agent.into(), cluster_arn: cluster.into(), ..Hello::default() }).await
    }

    async fn dial_with(&self, hello: Hello) -> Result<Played, tonic::Status> {
        let mut client = AgentLinkClient::connect(format!("http://{}", self.address)).await.unwrap();
        let (say, said) = mpsc::channel(16);
        say.send(WireFrom { message: Some(Said::Hello(hello)) }).await.unwrap();
        let told = client.attach(ReceiverStream::new(said)).await?.into_inner();
        Ok(Played { say, told, clock: self.clock.clone() })
    }

    async fn attach(&self, agent: &str) -> Played {
        self.dial(agent, CLUSTER).await.unwrap()
    }
}

/// The far end of one stream.
struct Played {
    say: mpsc::Sender<WireFrom>,
    told: Streaming<WireTo>,
    clock: Clock,
}

impl Played {
    async fn say(&self, message: Said) {
        self.say.send(WireFrom { message: Some(message) }).await.unwrap();
    }

    async fn told(&mut self) -> Told {
        let next = self.clock.timeout(SOON, self.told.message()).await.expect("told something in time");
        next.unwrap().expect("the stream goes on").message.expect("a message")
    }

    /// Skips until `pick` takes something.
    async fn until<T>(&mut self, pick: impl Fn(Told) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.told().await) {
                return picked;
            }
        }
    }

    async fn intent(&mut self) -> (u64, u64) {
        self.until(|told| match told {
            Told::Intent(intent) => Some((intent.epoch, intent.generation)),
            _ => None,
        })
        .await
    }

    /// The next job that it is given: its id.
    async fn job(&mut self) -> String {
        self.until(|told| match told {
            Told::Job(job) => Some(job.id),
            _ => None,
        })
        .await
    }

    /// The next thing that is acknowledged.
    async fn acked(&mut self) -> What {
        self.until(|told| match told {
            Told::Ack(ack) => ack.what,
            _ => None,
        })
        .await
    }

    async fn applied(&self, (epoch, generation): (u64, u64)) {
        self.say(Said::IntentApplied(IntentApplied { epoch, generation, observed_json: "{}".into() })).await;
    }
}

#[tokio::test]
async fn an_intent_is_settled_when_the_whole_roster_has_applied_it_and_is_said_again_after_a_break() {
    let scene = scene().await;
    let agents = scene.open(&["a", "b"], None);
    let (mut a, mut b) = (scene.attach("a").await, scene.attach("b").await);
    let generation = agents.publish(wish(true)).await.unwrap();
    assert_eq!(scene.kept.0.lock().unwrap().len(), 1, "a harmful wish was not kept");
    let told = a.intent().await;
    assert_eq!(told, (7, generation.0));
    a.applied(told).await;
    let silent = agents.await_settled(generation, Duration::from_millis(200)).await.unwrap_err();
    assert!(silent.doing.contains('b') && !silent.doing.contains("a,"), "{silent}");

    let told = b.intent().await;
    b.applied(told).await;
    agents.await_settled(generation, SOON).await.unwrap();

    // Away, it has not settled; back, it is told the same generation again.
    drop(b);
    let mut heard = agents.heard();
    while agents.settled(generation) == Settled::All {
        scene.clock.timeout(SOON, heard.changed()).await.expect("the agent is seen to go");
    }
    let mut b = scene.attach("b").await;
    assert_eq!(b.intent().await, told);
    b.applied(told).await;
    agents.await_settled(generation, SOON).await.unwrap();

    // The same wish again is the same generation; calm is another, acknowledged.
    assert_eq!(agents.publish(wish(true)).await.unwrap(), generation);
    let calm = agents.calm(SOON);
    let both = async {
        for agent in [&mut a, &mut b] {
            let told = agent.intent().await;
            agent.applied(told).await;
        }
    };
    let (calmed, ()) = tokio::join!(calm, both);
    calmed.unwrap();
}

#[tokio::test]
async fn a_restarted_coordinator_says_the_last_wish_again_under_its_own_epoch() {
    let scene = scene().await;
    let agents = scene.open(&["a"], Some(wish(true)));
    let mut a = scene.attach("a").await;
    assert_eq!(a.intent().await, (7, 1));
    scene.lease.send_modify(|lease| lease.epoch = engine::Epoch(9));
    agents.lease_changed();
    assert_eq!(a.intent().await, (9, 1));
}

#[tokio::test]
async fn a_job_is_done_once_however_often_it_is_asked_for() {
    let scene = scene().await;
    let agents = scene.open(&["a"], None);
    agents.aim(wish(false).targets);
    let mut a = scene.attach("a").await;
    let id: JobId = "up-0001/switchover/1/marker".parse().unwrap();
    let body = Marker { key: "k".into() };
    let run = || agents.job(&id, Keep::UntilStepDone, Side::Blue, &body, SOON, |_| {});
    // The first asker goes away without an answer; the stream breaks; the job is sent again and asked for again.
    assert!(scene.clock.timeout(Duration::from_millis(300), run()).await.is_err());
    assert_eq!(a.job().await, id.as_str());
    drop(a);
    let mut a = scene.attach("a").await;
    assert_eq!(a.job().await, id.as_str());
    a.say(Said::JobDone(JobDone { id: id.to_string(), output_json: r#"{"databases":[["orders",41]]}"#.into() })).await;
    assert_eq!(run().await.unwrap().databases, [("orders".to_owned(), 41)]);
    assert_eq!(run().await.unwrap().databases.len(), 1, "the result is kept until the step is done");
    agents.acknowledge_jobs("up-0001/switchover/");
    assert_eq!(a.acked().await, What::JobId(id.to_string()));
}

#[tokio::test]
async fn leases_are_renewed_only_while_the_driver_holds_its_own() {
    let scene = scene().await;
    let _agents = scene.open(&["a"], None);
    let mut a = scene.attach("a").await;
    let renewed = |told| match told {
        Told::LeaseRenewed(renewed) => Some(renewed.sequence),
        _ => None,
    };
    a.say(Said::Heartbeat(Heartbeat { sequence: 1, intent_age_ms: 0 })).await;
    assert_eq!(a.until(renewed).await, 1);
    scene.lease.send_modify(|lease| lease.lost = true);
    a.say(Said::Heartbeat(Heartbeat { sequence: 2, intent_age_ms: 0 })).await;
    let silence = scene.clock.timeout(Duration::from_millis(300), a.until(renewed)).await;
    assert!(silence.is_err(), "a lease was renewed by a driver that has lost its own");
}

#[tokio::test]
async fn an_event_waits_for_its_fact_and_a_report_shows_its_age() {
    let scene = scene().await;
    let agents = scene.open(&["a"], None);
    let mut a = scene.attach("a").await;
    let mut heard = agents.heard();
    let event = r#"{"event":"stance","at":"2026-01-01T00:00:00Z","stance":"obey"}"#;
    // Sent twice, as after a break: taken once.
    for _ in 0..2 {
        a.say(Said::Event(Event { n: 5, body_json: event.into() })).await;
    }
    let report = serde_json::to_string(&Report { stance: "obey".into(), ..Report::default() }).unwrap();
    a.say(Said::Report(super::wire::played::Report { body_json: report })).await;
    while agents.lead_report().is_none() {
        scene.clock.timeout(SOON, heard.changed()).await.expect("a report in time");
    }
    assert!(agents.lead_report().unwrap().age < SOON);
    let (agent, n, _) = agents.next_event().expect("an event waits");
    agents.acknowledge_event(&agent, n);
    assert!(agents.next_event().is_none(), "the same event waits twice");
    assert_eq!(a.acked().await, What::EventN(5));

    // The acknowledgement was lost with the stream: said again, it is acknowledged again.
    drop(a);
    let mut a = scene.attach("a").await;
    a.say(Said::Event(Event { n: 5, body_json: event.into() })).await;
    assert_eq!(a.acked().await, What::EventN(5));
    assert!(agents.next_event().is_none(), "an event that is a fact waits again");
}

#[tokio::test]
async fn a_job_that_was_taken_back_can_be_given_again_on_the_same_stream() {
    let scene = scene().await;
    let agents = scene.open(&["a"], None);
    agents.aim(wish(false).targets);
    let mut a = scene.attach("a").await;
    let id: JobId = "up-0001/switchover/1/marker".parse().unwrap();
    let body = Marker { key: "k".into() };
    let run = || agents.job(&id, Keep::UntilStepDone, Side::Blue, &body, SOON, |_| {});
    assert!(scene.clock.timeout(Duration::from_millis(300), run()).await.is_err());
    assert_eq!(a.job().await, id.as_str());
    agents.cancel(&id);
    let cancelled = a
        .until(|told| match told {
            Told::CancelJob(cancel) => Some(cancel.id),
            _ => None,
        })
        .await;
    assert_eq!(cancelled, id.as_str());
    let answer = async {
        let id = a.job().await;
        a.say(Said::JobDone(JobDone { id, output_json: r#"{"databases":[]}"#.into() })).await;
    };
    let (result, ()) = tokio::join!(run(), answer);
    assert!(result.unwrap().databases.is_empty());
}

#[tokio::test]
async fn a_job_that_failed_is_given_again_on_the_same_stream_when_it_is_asked_for_again() {
    let scene = scene().await;
    let agents = scene.open(&["a"], None);
    agents.aim(wish(false).targets);
    let mut a = scene.attach("a").await;
    let id: JobId = "up-0001/prerequisites/1/unquiesce".parse().unwrap();
    let body = Marker { key: "k".into() };
    let run = || agents.job(&id, Keep::UntilStepDone, Side::Blue, &body, SOON, |_| {});
    let fails = async {
        let id = a.job().await;
        let (class, code) = ("transient".into(), "PU0703".into());
        a.say(Said::JobFailed(JobFailed { id, class, code, ..JobFailed::default() })).await;
    };
    let (failed, ()) = tokio::join!(run(), fails);
    assert_eq!(failed.unwrap_err().code.as_str(), "PU0703");
    let answer = async {
        // The failure is acknowledged before the job is said again, or the agent would answer with it.
        let acked = a
            .until(|told| match told {
                Told::Ack(ack) => Some(ack.what),
                Told::Job(job) => panic!("{} was given before its failure was acknowledged", job.id),
                _ => None,
            })
            .await;
        assert_eq!(acked, Some(What::JobId(id.to_string())));
        let id = a.job().await;
        a.say(Said::JobDone(JobDone { id, output_json: r#"{"databases":[]}"#.into() })).await;
    };
    let (done, ()) = tokio::join!(run(), answer);
    assert!(done.unwrap().databases.is_empty());
}

#[tokio::test]
async fn an_upgrade_that_ends_takes_nothing_from_a_preflight_that_is_under_way() {
    let scene = scene().await;
    let agents = scene.open(&["a"], None);
    let mut a = scene.attach("a").await;
    let (ours, next): (JobId, JobId) = ("up-0001/cleanup/1/marker".parse().unwrap(), "preflight/2".parse().unwrap());
    let body = Marker { key: "k".into() };
    agents.aim(wish(false).targets);
    let left = agents.job(&ours, Keep::UntilStepDone, Side::Blue, &body, SOON, |_| {});
    assert!(scene.clock.timeout(Duration::from_millis(300), left).await.is_err());
    assert_eq!(a.job().await, ours.as_str());
    let look = agents.job(&next, Keep::Once, Side::Blue, &body, SOON, |_| {});
    let ends = async {
        let id = a.job().await;
        agents.close(&"up-0001".parse().unwrap());
        assert_eq!(a.acked().await, What::JobId(ours.to_string()));
        a.say(Said::JobDone(JobDone { id, output_json: r#"{"databases":[]}"#.into() })).await;
    };
    let (looked, ()) = tokio::join!(look, ends);
    assert!(looked.expect("answered").databases.is_empty());
    assert!(agents.targets().is_some(), "and the next look knows where the servers are");
}

#[tokio::test]
async fn an_agent_of_another_region_or_without_a_hello_is_cut() {
    let scene = scene().await;
    let other = CLUSTER.replace("us-east-1", "eu-west-1");
    let refused = scene.dial("a", &other).await.err().expect("refused");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().contains("eu-west-1"), "{refused}");
    let refused = scene.dial("not a name", CLUSTER).await.err().expect("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn an_agent_that_speaks_another_version_is_refused_by_name_and_one_that_says_none_is_let_in() {
    let scene = scene().await;
    let hello = |protocol| Hello { agent_id: "a".into(), cluster_arn: CLUSTER.into(), protocol, ..Hello::default() };
    let newer = proto::protocol::SPOKEN + 1;
    let refused = scene.dial_with(hello(newer)).await.err().expect("refused");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let said = [codes::OTHER_PROTOCOL.as_str(), "agent a of", &format!("version {newer} of the link")];
    assert!(said.iter().all(|part| refused.message().contains(part)), "{refused}");
    let agents = scene.open(&["a"], None);
    assert!(agents.connected().is_empty());
    for understood in [0, proto::protocol::SPOKEN] {
        let mut a = scene.dial_with(hello(understood)).await.unwrap();
        let welcomed = a.until(|told| match told {
            Told::Welcome(welcome) => Some(welcome.protocol),
            _ => None,
        });
        assert_eq!(welcomed.await, proto::protocol::SPOKEN);
    }
}

#[tokio::test]
async fn everybody_is_told_goodbye() {
    let scene = scene().await;
    let mut a = scene.attach("a").await;
    scene.hub.close("");
    let goodbye = a
        .until(|told| match told {
            Told::Goodbye(goodbye) => Some(goodbye.address),
            _ => None,
        })
        .await;
    assert_eq!(goodbye, "");
    let end = scene.clock.timeout(SOON, a.told.message()).await.expect("the stream ends");
    assert!(end.unwrap().is_none());
}

#[tokio::test]
async fn a_message_beyond_its_limit_cuts_its_stream_and_no_other() {
    let scene = scene().await;
    let agents = scene.open(&["a", "b"], None);
    let (mut a, mut b) = (scene.attach("a").await, scene.attach("b").await);
    a.say(Said::Report(super::wire::played::Report { body_json: " ".repeat(9 << 20) })).await;
    let cut = async { while let Ok(Some(_)) = a.told.message().await {} };
    scene.clock.timeout(SOON, cut).await.expect("the stream was not cut");
    agents.publish(wish(true)).await.unwrap();
    b.intent().await;
}

#[tokio::test]
async fn one_agent_more_than_may_be_is_turned_away_by_name() {
    let scene = scene_for(2).await;
    let (mut first, mut second) = (scene.attach("a-1").await, scene.attach("a-2").await);
    assert!(matches!(first.told().await, Told::Welcome(_)) && matches!(second.told().await, Told::Welcome(_)));
    let refused = scene.dial("a-3", CLUSTER).await.err().expect("a third is let in");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("PU0115"), "{refused}");
    // One goes, and its place is free.
    drop(first);
    let clock = scene.clock.clone();
    let again = async {
        while scene.dial("a-3", CLUSTER).await.is_err() {
            clock.sleep(Duration::from_millis(10)).await;
        }
    };
    clock.timeout(SOON, again).await.expect("a place in time");
}
