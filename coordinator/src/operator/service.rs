//! The gRPC end of `Operator`: reads a request, asks, answers with one JSON document. Thin.

use std::pin::Pin;
use std::time::Duration;

use engine::{Request as Wish, Seq};
use futures_util::Stream;
use proto::identity::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::view::WatchView;
use super::wire::{
    AgentsRequest, AskRequest, Document, OperatorRpc, OperatorServer, SpecRequest, StartRequest, Started,
    StatusRequest, UpgradeRequest, WatchRequest,
};
use super::{Operator, Refusal};
use crate::spec::UpgradeSpec;
use crate::who::Guard;
use crate::world::Upgrade;

/// At most one document in this time, however fast facts come.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// A document at least this often, so that progress without facts is seen.
const WATCH_AT_LEAST: Duration = Duration::from_secs(1);

/// In a refusal of a coordinator that stands by: the address of the one that drives, empty when none is known.
pub(crate) const LEADER: &str = "pilot-leader";

/// Names the command that asks, in the log; a wish has the same id in the journal.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// Longer ones are none of ours.
const REQUEST_ID_MAX: usize = 64;

/// The service, to be added to a tonic server.
pub struct OperatorService {
    operator: Operator,
    guard: Guard,
}

impl OperatorService {
    /// The service, ready for a router.
    pub fn server(operator: Operator, guard: Guard) -> OperatorServer<OperatorService> {
        OperatorServer::new(OperatorService { operator, guard }).max_encoding_message_size(64 << 20)
    }
}

type Reply<T> = Result<Response<T>, Status>;

fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Refused(text) => Status::failed_precondition(text),
        Refusal::NoSuchUpgrade(_) => Status::not_found(refusal.to_string()),
        Refusal::NotLeading(ref leader) => {
            let mut status = Status::unavailable(refusal.to_string());
            let leader = leader.as_deref().unwrap_or_default().parse();
            status.metadata_mut().insert(LEADER, leader.unwrap_or_else(|_| MetadataValue::from_static("")));
            status
        }
        Refusal::Failed(text) => Status::unavailable(text),
    }
}

/// The id that a command gave itself.
fn request_id<T>(request: &Request<T>) -> Option<String> {
    let id = request.metadata().get(REQUEST_ID)?.to_str().ok()?;
    (id.len() <= REQUEST_ID_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())).then(|| id.to_owned())
}

fn document(view: &impl Serialize) -> Reply<Document> {
    let json = serde_json::to_string(view).map_err(|error| Status::internal(format!("writing the answer: {error}")))?;
    Ok(Response::new(Document { json }))
}

fn read<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Status> {
    serde_json::from_str(json).map_err(|error| Status::invalid_argument(format!("{what} cannot be read: {error}")))
}

#[tonic::async_trait]
impl OperatorRpc for OperatorService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

    async fn preflight(&self, request: Request<SpecRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        let spec: UpgradeSpec = read("the spec", &request.get_ref().spec_json)?;
        let found = self.operator.preflight(&spec).await.map_err(status)?;
        let blocked = found.blocking(&spec).next().is_some();
        let mut view = serde_json::to_value(&found).map_err(|error| Status::internal(error.to_string()))?;
        view["blocked"] = blocked.into();
        document(&view)
    }

    async fn plan(&self, request: Request<SpecRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        let spec: UpgradeSpec = read("the spec", &request.get_ref().spec_json)?;
        document(&self.operator.plan(&spec).await.map_err(status)?)
    }

    async fn start_upgrade(&self, request: Request<StartRequest>) -> Reply<Started> {
        let caller = self.guard.operator(&request, Role::Operate).await?;
        let named = request_id(&request);
        let request = request.into_inner();
        let spec: UpgradeSpec = read("the spec", &request.spec_json)?;
        let by = caller.name(&request.asked_by);
        let id = self.operator.start(spec, &request.plan_digest, &by).await.map_err(status)?;
        tracing::info!(request = named, upgrade = %id, by, "an upgrade was asked for");
        Ok(Response::new(Started { upgrade_id: id.to_string() }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        match request.get_ref().upgrade_id.as_str() {
            "" => document(&serde_json::json!({ "upgrades": self.operator.list().await.map_err(status)? })),
            id => document(&self.operator.status(id).await.map_err(status)?),
        }
    }

    async fn history(&self, request: Request<UpgradeRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        document(&self.operator.history(&request.get_ref().upgrade_id, Seq(0)).await.map_err(status)?)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Reply<Self::WatchStream> {
        let caller = self.guard.operator(&request, Role::View).await?;
        let request = request.into_inner();
        self.operator.status(&request.upgrade_id).await.map_err(status)?;
        let (sender, documents) = mpsc::channel(8);
        let (operator, guard) = (self.operator.clone(), self.guard.clone());
        // Ends when the follower goes, what it showed is good no longer, this coordinator stops, or the upgrade ends.
        tokio::spawn(async move {
            tokio::select! {
                () = follow(operator.clone(), request, sender) => {}
                // It asks again with what it has by then.
                _why = guard.over(&caller) => {}
                () = operator.stopping() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(documents))))
    }

    async fn ask(&self, request: Request<AskRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        let mut body: serde_json::Value = read("the request", &request.get_ref().request_json)?;
        let confirm = body.as_object_mut().and_then(|fields| fields.remove("confirm"));
        let confirm = confirm.as_ref().and_then(serde_json::Value::as_str);
        let wish: Wish<Upgrade> = read("the request", &body.to_string())?;
        let role = if matches!(wish, Wish::Approve { .. }) { Role::Approve } else { Role::Operate };
        let by = self.guard.operator(&request, role).await?.name(&request.get_ref().asked_by);
        let request = request.into_inner();
        tracing::info!(request = request.ask_id, upgrade = request.upgrade_id, by, "a wish was asked for");
        let answer = self.operator.ask(&request.upgrade_id, &request.ask_id, &by, wish, confirm);
        document(&answer.await.map_err(status)?)
    }

    async fn settings(&self, request: Request<UpgradeRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        document(&self.operator.settings(&request.get_ref().upgrade_id).await.map_err(status)?)
    }

    async fn agents(&self, request: Request<AgentsRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        self.operator.leads().map_err(status)?;
        document(&serde_json::json!({ "clusters": self.operator.agents() }))
    }

    async fn report(&self, request: Request<UpgradeRequest>) -> Reply<Document> {
        self.guard.operator(&request, Role::View).await?;
        document(&self.operator.report(&request.get_ref().upgrade_id).await.map_err(status)?)
    }
}

/// Sends what is new until the upgrade has ended and its last fact is sent.
async fn follow(operator: Operator, request: WatchRequest, sender: mpsc::Sender<Result<Document, Status>>) {
    let id = request.upgrade_id;
    let mut next = Seq(request.from_seq);
    let mut changes = operator.changes(&id);
    loop {
        changes.borrow_and_update();
        let view = newest(&operator, &id, next).await;
        let (over, reply) = match view {
            Ok(view) => {
                next = view.facts.last().map_or(next, |fact| Seq(fact.seq + 1));
                let over = view.status.outcome.is_some();
                (over, document(&view).map(Response::into_inner))
            }
            Err(refusal) => (true, Err(status(refusal))),
        };
        if sender.send(reply).await.is_err() || over {
            return;
        }
        operator.clock().sleep(WATCH_EVERY).await;
        let _ = operator.clock().timeout(WATCH_AT_LEAST - WATCH_EVERY, changes.changed()).await;
    }
}

/// The status is read first, so that every fact it tells of is among the facts or was sent before.
async fn newest(operator: &Operator, id: &str, next: Seq) -> Result<WatchView, Refusal> {
    let status = operator.status(id).await?;
    let facts = operator.history(id, next).await?.facts;
    Ok(WatchView { status, facts })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use runtime::clock::Clock;
    use runtime::tls::Peer;

    use super::*;
    use crate::drivers::tests::{Outside, life};
    use crate::store::About;

    const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread")]
    async fn who_follows_an_upgrade_is_let_go_when_the_coordinator_stops() {
        let file = std::env::temp_dir().join(format!("pilot-watch-{}.sqlite", uuid::Uuid::now_v7()));
        let drivers = life(&file, &Outside::default()).await;
        let (spec, about) = (UpgradeSpec::new(CLUSTER, "16"), About::default());
        let id = drivers.start(&CLUSTER.parse().unwrap(), spec, &about).await.unwrap();
        let clock = Clock::system();
        let guard = Guard::new("us-east-1", clock.clone());
        let service = OperatorService { operator: Operator::new(drivers.clone()), guard };
        let mut request = Request::new(WatchRequest { upgrade_id: id.to_string(), from_seq: 0 });
        let address = ([127, 0, 0, 1], 1).into();
        request.extensions_mut().insert(Peer { address, secured: false, certificate: None });
        let mut documents = service.watch(request).await.unwrap().into_inner();
        assert!(documents.next().await.is_some_and(|document| document.is_ok()), "nothing is shown");

        drivers.options().stop.trigger();
        let rest = async {
            while let Some(document) = documents.next().await {
                document.expect("it is told of no failure");
            }
        };
        clock.timeout(SOON, rest).await.expect("the stream goes on");
        std::fs::remove_file(&file).unwrap();
    }
}
