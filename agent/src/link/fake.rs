//! For tests: a coordinator in this process, on the real wire, and an ingestion system in memory. The test says every word
//! of the coordinator itself; only heartbeats are answered for it while it wants that.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use proto::{intent::Refusal, report::IngestionState};
use runtime::{clock::Clock, shutdown::Stop, supervision::Supervisor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Link, Options,
    runner::{AtOnce, Runner},
    wire::generated::{
        self, FromAgent, ToAgent,
        agent_link_server::{AgentLink, AgentLinkServer},
        from_agent, to_agent,
    },
};
use crate::{
    gate::Gate,
    helm::{self, Helm},
    ingestion::{BoxFuture, ControlError, IngestionController, Marks, Observation, PauseMark, Serving},
    jobs::Registry,
    state::Shared,
};

pub(crate) const WITHIN: Duration = Duration::from_secs(10);
pub(crate) const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";

/// One stream, from the coordinator's end.
pub(crate) struct Stream {
    pub(crate) hello: generated::Hello,
    heard: mpsc::Receiver<from_agent::Message>,
    say: mpsc::Sender<Result<ToAgent, Status>>,
}

impl Stream {
    pub(crate) async fn say(&self, message: to_agent::Message) {
        self.say.send(Ok(ToAgent { message: Some(message) })).await.expect("the agent listens");
    }

    pub(crate) async fn welcome(&self, epoch: u64, lease_ms: u64) {
        self.welcome_speaking(epoch, lease_ms, 0).await;
    }

    /// The same of a coordinator that speaks this version of the link.
    pub(crate) async fn welcome_speaking(&self, epoch: u64, lease_ms: u64, protocol: u32) {
        let (store_id, role) = ("store".into(), "helper".into());
        let welcome = generated::Welcome { store_id, epoch, lease_ms, role, protocol };
        self.say(to_agent::Message::Welcome(welcome)).await;
    }

    pub(crate) async fn intent(&self, intent: &proto::intent::Intent) {
        let body_json = serde_json::to_string(intent).unwrap();
        let (epoch, generation) = (intent.epoch.0, intent.generation.0);
        self.say(to_agent::Message::Intent(generated::Intent { epoch, generation, body_json })).await;
    }

    /// The first message for which `pick` gives something; the others are passed over.
    pub(crate) async fn hear<T>(&mut self, what: &str, pick: impl Fn(&from_agent::Message) -> Option<T>) -> T {
        let mut passed = Vec::new();
        let found = tokio::time::timeout(WITHIN, async {
            while let Some(message) = self.heard.recv().await {
                if let Some(found) = pick(&message) {
                    return Some(found);
                }
                if !matches!(message, from_agent::Message::Report(_)) {
                    passed.push(message);
                }
            }
            None
        });
        match found.await {
            Ok(Some(found)) => found,
            other => panic!(
                "{what} did not come ({}); passed over {passed:?}",
                if other.is_ok() { "closed" } else { "late" }
            ),
        }
    }

    /// `Ok(())` when the intent of this generation was applied, else the reason of its refusal.
    pub(crate) async fn settled(&mut self, generation: u64) -> Result<(), Refusal> {
        self.hear(&format!("an answer to intent {generation}"), |message| match message {
            from_agent::Message::IntentApplied(it) if it.generation == generation => Some(Ok(())),
            from_agent::Message::IntentRefused(it) if it.generation == generation => {
                Some(Err(Refusal { reason: it.reason.clone(), pause_over: it.pause_over }))
            }
            _ => None,
        })
        .await
    }
}

/// The coordinator.
pub(crate) struct Coordinator {
    pub(crate) address: String,
    /// While set, heartbeats renew the lease.
    pub(crate) renews: Arc<AtomicBool>,
    streams: mpsc::Receiver<Stream>,
    stop: Stop,
}

struct Service {
    streams: mpsc::Sender<Stream>,
    renews: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl AgentLink for Service {
    type AttachStream = ReceiverStream<Result<ToAgent, Status>>;

    async fn attach(&self, request: Request<Streaming<FromAgent>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let (say, outgoing) = mpsc::channel(64);
        let (heard_by, heard) = mpsc::channel(4096);
        let (streams, renews, renew) = (self.streams.clone(), self.renews.clone(), say.clone());
        tokio::spawn(async move {
            let mut opened = Some((heard, say));
            while let Ok(Some(FromAgent { message: Some(message) })) = incoming.message().await {
                match (message, opened.take()) {
                    (from_agent::Message::Hello(hello), Some((heard, say))) => {
                        let _test_is_over = streams.send(Stream { hello, heard, say }).await;
                    }
                    (from_agent::Message::Heartbeat(beat), _) => {
                        if renews.load(Ordering::SeqCst) {
                            let renewed = generated::LeaseRenewed { sequence: beat.sequence, epoch: 1_000 };
                            let message = Some(to_agent::Message::LeaseRenewed(renewed));
                            let _closed = renew.send(Ok(ToAgent { message })).await;
                        }
                    }
                    (message, _) => {
                        if heard_by.send(message).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl Coordinator {
    pub(crate) async fn start() -> Coordinator {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (streams_in, streams) = mpsc::channel(8);
        let (renews, stop) = (Arc::new(AtomicBool::new(true)), Stop::new());
        let service = Service { streams: streams_in, renews: renews.clone() };
        let until = stop.clone();
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(AgentLinkServer::new(service))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { until.triggered().await })
                .await
        });
        Coordinator { address, renews, streams, stop }
    }

    /// The next stream that an agent opens.
    pub(crate) async fn attached(&mut self) -> Stream {
        tokio::time::timeout(WITHIN, self.streams.recv()).await.expect("an agent dialled").expect("open")
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.trigger();
    }
}

/// An ingestion system in memory.
#[derive(Default)]
pub(crate) struct System {
    pub(crate) paused: AtomicBool,
    pub(crate) refuses: AtomicBool,
    pub(crate) pauses: AtomicU32,
    /// Where it was told to go at its last resume.
    pub(crate) sent_to: Mutex<Option<Serving>>,
}

impl IngestionController for System {
    fn name(&self) -> &str {
        "loader"
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>> {
        Box::pin(async {
            let paused = self.paused.load(Ordering::SeqCst);
            let state = if paused { IngestionState::Paused } else { IngestionState::Running };
            Ok(Observation { state, backlog: Some(1), rate: None })
        })
    }

    fn pause<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async {
            self.pauses.fetch_add(1, Ordering::SeqCst);
            self.paused.store(true, Ordering::SeqCst);
            if self.refuses.load(Ordering::SeqCst) {
                return Err(crate::ingestion::failed("pausing loader", "it refuses"));
            }
            Ok(())
        })
    }

    fn resume<'a>(&'a self, _mark: &'a PauseMark, to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            *self.sent_to.lock().unwrap() = to;
            self.paused.store(false, Ordering::SeqCst);
            Ok(())
        })
    }
}

impl System {
    pub(crate) async fn becomes(&self, paused: bool) {
        let reached = async {
            while self.paused.load(Ordering::SeqCst) != paused {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(WITHIN, reached).await.unwrap_or_else(|_| panic!("loader did not become paused={paused}"));
    }
}

/// An agent without databases: link, gate and helm.
pub(crate) struct Agent {
    pub(crate) shared: Shared,
    stop: Stop,
    supervisor: Mutex<Option<Supervisor>>,
}

/// A folder of its own for one test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("pilot-agent-{name}-{}", std::process::id()));
    let _not_there = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Agent {
    pub(crate) async fn start(folder: &std::path::Path, address: &str, system: Arc<System>) -> Agent {
        Agent::start_with(folder, address, system, crate::jobs::registry()).await
    }

    /// The same, with these kinds of jobs.
    pub(crate) async fn start_with(
        folder: &std::path::Path,
        address: &str,
        system: Arc<System>,
        jobs: Registry,
    ) -> Agent {
        let clock = Clock::system();
        let shared = crate::testing::wake(folder, clock.clone()).await;
        let runner = Runner::new(shared.clone(), jobs, "agent-1".into(), Vec::new(), AtOnce::default()).await.unwrap();
        let stop = Stop::new();
        helm::steer(&shared);
        let mut supervisor = Supervisor::new(clock, stop.clone(), |_| {});
        let systems: Vec<Arc<dyn IngestionController>> = vec![system];
        supervisor.start(Gate::new(shared.clone(), systems, Marks::new(folder.join("marks"))));
        supervisor.start(Helm { shared: shared.clone() });
        let options = Options {
            coordinator: address.to_owned(),
            tls: None,
            agent: "agent-1".parse().unwrap(),
            cluster: CLUSTER.parse().unwrap(),
            controllers: vec!["loader".into()],
        };
        supervisor.start(Link { shared: shared.clone(), options: Arc::new(options), runner, network: None });
        Agent { shared, stop, supervisor: Mutex::new(Some(supervisor)) }
    }

    /// Stops every task, as the end of the process would, and leaves the files.
    pub(crate) async fn kill(self) {
        self.stop.trigger();
        let supervisor = self.supervisor.lock().unwrap().take();
        if let Some(supervisor) = supervisor {
            supervisor.join(WITHIN).await;
        }
    }
}
