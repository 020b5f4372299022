//! A workload of Kubernetes: paused by scaling it to 0, by its `/scale`, or by KEDA's annotation where KEDA scales it.
//!
//! What there was before is written on the object itself, by a change that fails when somebody else changed the object since it
//! was read. So an agent that lost its files finds its own pause again, a second agent leaves it alone, and what a person
//! changes meanwhile stays. A pause is done when no pod is left, not when none is counted: the counts leave out pods that are on
//! their way out and still write. A resume is done when the API server has taken it: how soon pods start is the cluster's.

mod access;
mod object;

use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::{Method, StatusCode, header};
use proto::report::IngestionState;
use runtime::clock::Clock;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::access::Source;
use self::{
    access::Access,
    object::{List, Move, NOTE, Note, Object, PAUSED_REPLICAS},
};
use super::{
    BoxFuture, ControlError, IngestionController, Observation, PauseMark, Serving, failed,
    web::{self, Call, Figures},
};

/// Between looks while a pause takes effect, and between tries where the API server cannot be asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Of what an API server says of a refusal, this much is passed on.
const MESSAGE_MAX: usize = 300;
/// What we write as.
const MERGE_PATCH: &str = "application/merge-patch+json";

/// What is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workload {
    Deployment(String),
    StatefulSet(String),
    /// KEDA's, with whatever it scales.
    ScaledObject(String),
}

impl Workload {
    /// `deployment/NAME` or `statefulset/NAME`.
    pub fn read(text: &str) -> Option<Workload> {
        match text.split_once('/') {
            Some(("deployment", name)) if !name.is_empty() => Some(Workload::Deployment(name.to_owned())),
            Some(("statefulset", name)) if !name.is_empty() => Some(Workload::StatefulSet(name.to_owned())),
            _ => None,
        }
    }

    fn path(&self, namespace: &str) -> String {
        let (group, kind, name) = match self {
            Workload::Deployment(name) => ("apps/v1", "deployments", name),
            Workload::StatefulSet(name) => ("apps/v1", "statefulsets", name),
            Workload::ScaledObject(name) => ("keda.sh/v1alpha1", "scaledobjects", name),
        };
        format!("/apis/{group}/namespaces/{}/{kind}/{}", web::part(namespace), web::part(name))
    }
}

/// How a workload is configured.
#[derive(Debug)]
pub struct Options {
    pub name: String,
    /// The cluster's ARN and the agent's name: whose pauses are ours.
    pub agent: String,
    pub source: Source,
    /// Else the service account's, or the kubeconfig's.
    pub namespace: Option<String>,
    pub workload: Workload,
    pub within: Duration,
    pub backlog_url: Option<String>,
}

/// See the module.
pub struct Kubernetes {
    name: String,
    agent: String,
    access: Access,
    namespace: Option<String>,
    workload: Workload,
    within: Duration,
    figures: Option<Figures>,
    clock: Clock,
}

/// The API server did not do what was asked.
enum Miss {
    /// Somebody else changed the object since it was read: read it again.
    Changed,
    /// The next try may do.
    Passing(String),
    Final(String),
}

impl Kubernetes {
    pub fn new(options: Options, clock: Clock) -> Kubernetes {
        let Options { name, agent, source, namespace, workload, within, backlog_url } = options;
        let access = Access::new(source, clock.clone());
        let figures = backlog_url.map(|url| Figures { url, clock: clock.clone() });
        Kubernetes { name, agent, access, namespace, workload, within, figures, clock }
    }

    /// Asks for `path` below the namespace's objects; `path` is made when the namespace is known.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: impl FnOnce(&str) -> String,
        body: Option<Value>,
    ) -> Result<T, Miss> {
        let identity = self.access.identity().await.map_err(Miss::Passing)?;
        let path = path(self.namespace.as_deref().unwrap_or(&identity.namespace));
        let doing = format!("{method} {path}");
        let mut call = Call::new(method, format!("{}{path}", identity.server));
        call.headers.extend(identity.authorization.map(|value| (header::AUTHORIZATION, value)));
        call.body = body.map(|body| (MERGE_PATCH, body.to_string()));
        let answer = web::exchange(&self.clock, identity.tls, call).await;
        let answer = answer.map_err(|error| Miss::Passing(format!("{doing}: {error}")))?;
        let said = || format!("{doing}: it answered {}: {}", answer.status, message(&answer.body));
        match answer.status {
            status if status.is_success() => serde_json::from_slice(&answer.body)
                .map_err(|error| Miss::Passing(format!("{doing}: its answer cannot be read: {error}"))),
            StatusCode::CONFLICT => Err(Miss::Changed),
            StatusCode::UNAUTHORIZED => {
                self.access.was_refused();
                Err(Miss::Passing(said()))
            }
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(Miss::Final(said()))
            }
            _ => Err(Miss::Passing(said())),
        }
    }

    async fn read(&self, workload: &Workload) -> Result<Object, Miss> {
        self.ask(Method::GET, |namespace| workload.path(namespace), None).await
    }

    async fn change(&self, sub: &str, body: Value) -> Result<(), Miss> {
        let path = |namespace: &str| format!("{}{sub}", self.workload.path(namespace));
        self.ask::<Value>(Method::PATCH, path, Some(body)).await.map(drop)
    }

    /// No pod of it is left, by its controller and by looking for them.
    async fn is_gone(&self, object: &Object) -> Result<bool, Miss> {
        if !object.is_down() {
            return Ok(false);
        }
        let selector = object.selector().map_err(Miss::Final)?;
        // Pods that have ended write nothing any more; there may be many of them.
        let query = format!(
            "labelSelector={}&fieldSelector={}&limit=1",
            web::part(&selector),
            web::part("status.phase!=Succeeded,status.phase!=Failed")
        );
        let pods = |namespace: &str| format!("/api/v1/namespaces/{}/pods?{query}", web::part(namespace));
        let pods: List = self.ask(Method::GET, pods, None).await?;
        Ok(pods.items.is_empty())
    }

    /// The workload that a ScaledObject scales.
    async fn scaled(&self, object: &Object) -> Result<Object, Miss> {
        let target = object.target().ok_or_else(|| Miss::Final("it has no scaleTargetRef".to_owned()))?;
        let kind = target.kind.as_deref().unwrap_or("Deployment");
        let workload = match (target.api_version.as_deref().unwrap_or("apps/v1"), kind) {
            ("apps/v1", "Deployment") => Workload::Deployment(target.name.clone()),
            ("apps/v1", "StatefulSet") => Workload::StatefulSet(target.name.clone()),
            (group, kind) => {
                return Err(Miss::Final(format!("it scales a {kind} of {group}, whose pods are not known here")));
            }
        };
        self.read(&workload).await
    }

    /// Paused for good, as far as the cluster itself says.
    async fn is_paused(&self, object: &Object) -> Result<bool, Miss> {
        match &self.workload {
            // KEDA that has not read its annotation yet might still scale up.
            Workload::ScaledObject(_) if !(object.is_held() && object.is_paused_by_keda()) => Ok(false),
            Workload::ScaledObject(_) => self.is_gone(&self.scaled(object).await?).await,
            Workload::Deployment(_) | Workload::StatefulSet(_) => self.is_gone(object).await,
        }
    }

    async fn state(&self) -> Result<IngestionState, Miss> {
        let object = self.read(&self.workload).await?;
        let wanted_up = match &self.workload {
            // As many as KEDA finds right, be it none.
            Workload::ScaledObject(_) if !object.is_held() => return Ok(IngestionState::Running),
            Workload::ScaledObject(_) => false,
            Workload::Deployment(_) | Workload::StatefulSet(_) => object.replicas() > 0,
        };
        Ok(match wanted_up {
            true if object.ready() > 0 => IngestionState::Running,
            false if self.is_paused(&object).await? => IngestionState::Paused,
            _ => IngestionState::Mixed,
        })
    }

    /// Does what is next; says whether nothing is. Every change is of the object as it was read.
    async fn step(&self, object: &Object, next: Move) -> Result<bool, Miss> {
        let version = object.resource_version();
        let annotate = |annotations: Value| {
            let metadata = json!({"resourceVersion": version, "annotations": annotations});
            self.change("", json!({ "metadata": metadata }))
        };
        let written = |note: &Note| serde_json::to_string(note).map_err(|error| Miss::Final(error.to_string()));
        let tell = |why: &str| tracing::warn!(system = self.name, reason = why, "somebody else changed it");
        match next {
            Move::Wait => return Ok(true),
            Move::Leave(why) => {
                why.as_deref().map(tell);
                return Ok(true);
            }
            Move::Refuse(why) => return Err(Miss::Final(why)),
            Move::Note(note) => annotate(json!({ NOTE: written(&note)? })).await?,
            Move::Hold(note) => annotate(json!({ NOTE: written(&note)?, PAUSED_REPLICAS: "0" })).await?,
            Move::Restore(before) => annotate(json!({ NOTE: Value::Null, PAUSED_REPLICAS: before })).await?,
            Move::Forget(why) => {
                why.as_deref().map(tell);
                annotate(json!({ NOTE: Value::Null })).await?;
            }
            Move::Scale(replicas) => {
                let scale = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
                self.change("/scale", scale).await?;
            }
        }
        Ok(false)
    }

    /// Moves on as `decide` says, until nothing is to be done and, where `down` asks for it, no pod is left.
    async fn drive(
        &self,
        what: &'static str,
        down: bool,
        decide: impl Fn(&Object) -> Result<Move, String>,
    ) -> Result<(), ControlError> {
        let doing =
            || format!("{what} {}", self.workload.path(self.namespace.as_deref().unwrap_or("its own namespace")));
        let (began, mut last) = (self.clock.mono(), "nothing".to_owned());
        loop {
            let step = async {
                let object = self.read(&self.workload).await?;
                let next = decide(&object).map_err(Miss::Final)?;
                match self.step(&object, next).await? {
                    true if !down => Ok(true),
                    true => Ok(self.is_paused(&object).await?),
                    false => Err(Miss::Changed),
                }
            };
            let mut again = LOOK_EVERY;
            match step.await {
                Ok(true) => return Ok(()),
                Ok(false) => last = "pods that are still there".to_owned(),
                // Changed, by us or by others: what is next is seen at once, for as long as it goes well.
                Err(Miss::Changed) => again = LOOK_EVERY / 20,
                Err(Miss::Passing(why)) => last = why,
                Err(Miss::Final(why)) => return Err(failed(doing(), why)),
            }
            if self.clock.mono().since(began) + again >= self.within {
                let limit_ms = crate::state::millis(self.within);
                return Err(ControlError::NotInTime { doing: doing(), limit_ms, last });
            }
            self.clock.sleep(again).await;
        }
    }
}

/// What an API server says of a refusal.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Status {
        message: Option<String>,
    }
    let said = serde_json::from_slice(body).ok().and_then(|status: Status| status.message);
    said.unwrap_or_default().chars().take(MESSAGE_MAX).collect()
}

impl IngestionController for Kubernetes {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    fn pause_within(&self) -> Duration {
        self.within
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>> {
        Box::pin(async move {
            let doing = || format!("looking at {:?}", self.workload);
            let (state, work) = tokio::join!(self.state(), Figures::look(self.figures.as_ref()));
            let state = state.map_err(|miss| match miss {
                Miss::Changed => failed(doing(), "it changed meanwhile"),
                Miss::Passing(why) | Miss::Final(why) => failed(doing(), why),
            })?;
            Ok(Observation { state, backlog: work.backlog, rate: work.rate })
        })
    }

    /// The pause of ours that is written on the object.
    fn left(&self) -> BoxFuture<'_, Result<Option<PauseMark>, ControlError>> {
        let look = self.read(&self.workload).map(|read| match read.map(|object| object.note()) {
            Ok(Ok(note)) => Ok(note.filter(|note| note.agent == self.agent).map(|note| PauseMark {
                upgrade: note.upgrade,
                since: note.since,
                expires_at: note.expires_at,
                found: None,
            })),
            Ok(Err(why)) | Err(Miss::Passing(why) | Miss::Final(why)) => {
                Err(failed("looking for a pause of ours", why))
            }
            Err(Miss::Changed) => Err(failed("looking for a pause of ours", "it changed meanwhile")),
        });
        Box::pin(look)
    }

    fn pause<'a>(&'a self, mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        let ours = Note {
            agent: self.agent.clone(),
            upgrade: mark.upgrade.clone(),
            since: mark.since,
            expires_at: mark.expires_at,
            replicas: None,
            paused_replicas: None,
        };
        let keda = matches!(self.workload, Workload::ScaledObject(_));
        Box::pin(self.drive(
            "pausing",
            true,
            move |object| if keda { object.holding(&ours) } else { object.pausing(&ours) },
        ))
    }

    fn resume<'a>(&'a self, _mark: &'a PauseMark, _to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        let keda = matches!(self.workload, Workload::ScaledObject(_));
        let decide = move |object: &Object| match keda {
            true => object.releasing(&self.agent),
            false => object.resuming(&self.agent),
        };
        Box::pin(self.drive("resuming", false, decide))
    }
}
