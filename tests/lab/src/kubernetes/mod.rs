//! A stand-in for a Kubernetes API server, where no real one is to be had: Deployments, StatefulSets, their `/scale` and pods, and
//! KEDA's ScaledObjects, as the API documents them. The real kubectl judges it (`tests/ingestion`).
//!
//! It plays the controllers too: pods start and end in their own time, and pods on their way out are counted by nobody and
//! still there. Rights are enforced for a token that was given a Role.

mod objects;
mod rights;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::objects::{Pace, Refused};
pub use self::rights::Rule;

use self::objects::Objects;
use self::rights::Request;

/// The kinds that it knows: group and version, plural, singular, kind.
const KINDS: &[(&str, &str, &str, &str)] = &[
    ("apps/v1", "deployments", "deployment", "Deployment"),
    ("apps/v1", "statefulsets", "statefulset", "StatefulSet"),
    ("keda.sh/v1alpha1", "scaledobjects", "scaledobject", "ScaledObject"),
    ("v1", "pods", "pod", "Pod"),
];

/// A running stand-in. Ends when dropped.
pub struct Server {
    state: Arc<Shared>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    objects: Mutex<Objects>,
    /// Told at every change, for watches.
    changed: watch::Sender<u64>,
    /// Tokens with a Role; who shows none is an administrator.
    rights: Mutex<Vec<(String, Vec<Rule>)>>,
    /// Every request that changed something, and who asked: method, path and body.
    log: Mutex<Vec<(String, Value)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// Starts one on a loopback port that the system chooses.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(pace: Pace, clock: Clock) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (changed, _) = watch::channel(0);
        let objects = Mutex::new(Objects::new(pace, clock.clone()));
        let state = Arc::new(Shared { objects, changed, rights: Mutex::default(), log: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let serve = tokio::spawn(async move {
            // It ends with the server.
            let _ended = axum::serve(listener, router).await;
        });
        let played = Arc::clone(&state);
        let controllers = tokio::spawn(async move {
            loop {
                clock.sleep(Duration::from_millis(10)).await;
                if locked(&played.objects).play() {
                    played.changed.send_modify(|version| *version += 1);
                }
            }
        });
        Ok(Self { state, address, tasks: vec![serve, controllers] })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A workload with so many pods that run: `deployments` or `statefulsets`.
    pub fn add_workload(&self, namespace: &str, plural: &str, name: &str, replicas: u32) {
        locked(&self.state.objects).add_workload(namespace, plural, name, replicas);
    }

    /// A ScaledObject of KEDA that scales a Deployment.
    pub fn add_scaled_object(&self, namespace: &str, name: &str, deployment: &str) {
        locked(&self.state.objects).add_scaled_object(namespace, name, deployment);
    }

    /// Whoever shows this token has these rights and no others.
    pub fn grant(&self, token: &str, rules: Vec<Rule>) {
        locked(&self.state.rights).push((token.to_owned(), rules));
    }

    /// How many pods of a workload there are, on their way out or not.
    #[must_use]
    pub fn pods(&self, namespace: &str, name: &str) -> usize {
        locked(&self.state.objects).pods_of(namespace, name)
    }

    /// What was changed by requests, in order: `PATCH /apis/…`, and the body.
    #[must_use]
    pub fn changes(&self) -> Vec<(String, Value)> {
        locked(&self.state.log).clone()
    }
}

/// The parts of an address that names objects.
struct Place<'a> {
    group: &'a str,
    namespace: Option<&'a str>,
    plural: &'a str,
    name: Option<&'a str>,
    sub: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn read(path: &'a str) -> Option<Place<'a>> {
        let (group, rest) = match path.strip_prefix("/api/v1/") {
            Some(rest) => ("v1", rest),
            None => {
                let rest = path.strip_prefix("/apis/")?;
                let end = rest.match_indices('/').nth(1)?.0;
                (&rest[..end], &rest[end + 1..])
            }
        };
        let (namespace, rest) = match rest.strip_prefix("namespaces/") {
            Some(rest) => rest.split_once('/').map(|(namespace, rest)| (Some(namespace), rest))?,
            None => (None, rest),
        };
        let mut parts = rest.split('/');
        let plural = parts.next()?;
        KINDS.iter().find(|kind| kind.0 == group && kind.1 == plural)?;
        Some(Place { group, namespace, plural, name: parts.next(), sub: parts.next() })
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path();
    if method == Method::GET
        && let Some(found) = discovery(path)
    {
        return reply(StatusCode::OK, &found);
    }
    let Some(place) = Place::read(path) else { return refuse(&Refused::missing(path)) };
    let query = Query::read(uri.query().unwrap_or_default());
    if let Some(refused) = forbidden(&shared, &method, &place, &query, &headers) {
        return refuse(&refused);
    }
    if method == Method::GET && place.name.is_none() {
        return list(&shared, &place, &query);
    }
    let done = match method {
        Method::GET => locked(&shared.objects).read(place.namespace, place.plural, place.name, place.sub),
        Method::PATCH | Method::PUT => {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            change(&shared, &method, &place, kind, &body)
        }
        _ => Err(Refused { status: 405, reason: "MethodNotAllowed", message: format!("{method} is not played") }),
    };
    match done {
        Ok(object) => reply(StatusCode::OK, &object),
        Err(refused) => refuse(&refused),
    }
}

fn change(shared: &Shared, method: &Method, place: &Place<'_>, kind: &str, body: &[u8]) -> Result<Value, Refused> {
    let unreadable =
        |error: serde_json::Error| Refused { status: 400, reason: "BadRequest", message: error.to_string() };
    let change: Value = serde_json::from_slice(body).map_err(unreadable)?;
    // Of what is patched here, maps and numbers, both kinds of merge make the same.
    let merges =
        kind.starts_with("application/merge-patch+json") || kind.starts_with("application/strategic-merge-patch+json");
    if method == Method::PATCH && !merges {
        let message = format!("patches of {kind:?} are not played");
        return Err(Refused { status: 415, reason: "UnsupportedMediaType", message });
    }
    let path = [place.namespace, Some(place.plural), place.name, place.sub]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("/");
    let done = locked(&shared.objects).change(place.namespace, place.plural, place.name, place.sub, &change)?;
    locked(&shared.log).push((format!("{method} {path}"), change));
    shared.changed.send_modify(|version| *version += 1);
    Ok(done)
}

/// The query of a list.
struct Query {
    labels: String,
    fields: String,
    limit: Option<usize>,
    watch: bool,
    /// What the client of a watch has seen already.
    seen: Option<u64>,
}

impl Query {
    fn read(text: &str) -> Query {
        let mut query = Query { labels: String::new(), fields: String::new(), limit: None, watch: false, seen: None };
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            match name {
                "labelSelector" => query.labels = value,
                "fieldSelector" => query.fields = value,
                "limit" => query.limit = value.parse().ok().filter(|limit| *limit > 0),
                "resourceVersion" => query.seen = value.parse().ok(),
                "watch" => query.watch = matches!(value.as_str(), "true" | "1"),
                _ => {}
            }
        }
        query
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = match (first, tail) {
            (b'%', [high, low, ..]) => {
                let hex = std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                rest = &tail[2..];
                hex.unwrap_or(b'?')
            }
            (b'+', _) => {
                rest = tail;
                b' '
            }
            (byte, _) => {
                rest = tail;
                *byte
            }
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn list(shared: &Arc<Shared>, place: &Place<'_>, query: &Query) -> Response {
    let select =
        |shared: &Shared| locked(&shared.objects).list(place.namespace, place.plural, &query.labels, &query.fields);
    let (items, version) = match select(shared) {
        Ok(found) => found,
        Err(refused) => return refuse(&refused),
    };
    if !query.watch {
        let items: Vec<Value> = items.into_iter().take(query.limit.unwrap_or(usize::MAX)).collect();
        let kind = KINDS.iter().find(|kind| kind.1 == place.plural).map_or("", |kind| kind.3);
        let list = json!({"kind": format!("{kind}List"), "apiVersion": place.group,
            "metadata": {"resourceVersion": version.to_string()}, "items": items});
        return reply(StatusCode::OK, &list);
    }
    // Every later state of what is selected, as long as the client reads.
    let (shared, namespace) = (Arc::clone(shared), place.namespace.map(str::to_owned));
    let (plural, labels, fields) = (place.plural.to_owned(), query.labels.clone(), query.fields.clone());
    let begun = (shared.changed.subscribe(), query.seen.unwrap_or(version), true);
    let events = futures_util::stream::unfold(begun, move |(mut changed, seen, first)| {
        let (shared, namespace) = (Arc::clone(&shared), namespace.clone());
        let (plural, labels, fields) = (plural.clone(), labels.clone(), fields.clone());
        async move {
            if !first {
                changed.changed().await.ok()?;
            }
            let (items, now) = locked(&shared.objects).list(namespace.as_deref(), &plural, &labels, &fields).ok()?;
            let newer = items.iter().filter(|item| objects::version(item) > seen);
            let lines: String =
                newer.map(|item| json!({"type": "MODIFIED", "object": item}).to_string() + "\n").collect();
            Some((Ok::<_, Infallible>(Bytes::from(lines)), (changed, now, false)))
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(events)).into_response()
}

fn forbidden(
    shared: &Shared,
    method: &Method,
    place: &Place<'_>,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Refused> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let rights = locked(&shared.rights);
    let Some((_, rules)) = rights.iter().find(|(known, _)| known == token) else {
        return Some(Refused { status: 401, reason: "Unauthorized", message: "Unauthorized".to_owned() });
    };
    let verb = match (method, place.name) {
        (&Method::GET, None) if query.watch => "watch",
        (&Method::GET, None) => "list",
        (&Method::GET, Some(_)) => "get",
        (&Method::PUT, _) => "update",
        _ => "patch",
    };
    let resource = place.sub.map_or_else(|| place.plural.to_owned(), |sub| format!("{}/{sub}", place.plural));
    let group = place.group.split_once('/').map_or("", |(group, _)| group);
    let request = Request { group, resource: &resource, verb, name: place.name };
    if rules.iter().any(|rule| rule.allows(&request)) {
        return None;
    }
    let name = place.name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
    let message = format!(
        "{resource}{name} is forbidden: User \"agent\" cannot {verb} resource \"{resource}\" in API group \"{group}\""
    );
    Some(Refused { status: 403, reason: "Forbidden", message })
}

fn reply(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn refuse(refused: &Refused) -> Response {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": refused.message, "reason": refused.reason, "code": refused.status});
    reply(status, &body)
}

/// What clients ask first: which groups, versions and kinds there are.
fn discovery(path: &str) -> Option<Value> {
    let resources = |group: &str| {
        let of = |plural: &str, singular: &str, kind: &str, verbs: &[&str]| json!({"name": plural, "singularName": singular, "namespaced": true, "kind": kind, "verbs": verbs});
        let mut list = Vec::new();
        for (_, plural, singular, kind) in KINDS.iter().filter(|kind| kind.0 == group) {
            list.push(of(plural, singular, kind, &["get", "list", "watch", "patch", "update"]));
            if group == "apps/v1" {
                let mut scale = of(&format!("{plural}/scale"), "", "Scale", &["get", "patch", "update"]);
                scale["group"] = "autoscaling".into();
                scale["version"] = "v1".into();
                list.push(scale);
            }
        }
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": list})
    };
    Some(match path {
        "/version" => json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0", "platform": "linux/amd64"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "/apis" => {
            let groups = ["apps/v1", "keda.sh/v1alpha1"].map(|group| {
                let (name, version) = group.split_once('/').unwrap_or((group, ""));
                let version = json!({"groupVersion": group, "version": version});
                json!({"name": name, "versions": [version], "preferredVersion": version})
            });
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        "/api/v1" => resources("v1"),
        "/apis/apps/v1" => resources("apps/v1"),
        "/apis/keda.sh/v1alpha1" => resources("keda.sh/v1alpha1"),
        _ => return None,
    })
}
