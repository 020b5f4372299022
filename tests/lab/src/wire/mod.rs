//! The one listener: AWS Query for RDS, Smithy RPC v2 CBOR and JSON 1.0 for CloudWatch, and the lab's own control path. It
//! decodes a call, has `cloud::dispatch` answer it, and encodes the answer; faults of the wire happen here.

pub(crate) mod cbor;
mod connection;
pub(crate) mod query;
pub(crate) mod xml;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;

use crate::cloud::errors::Refusal;
use crate::cloud::requests::{Outcome, RequestRecord};
use crate::cloud::{Cloud, dispatch, metrics};
use crate::faults::{Fault, Moment, Planned};
use crate::wire::connection::{Listener, Switch};

const TARGET: &str = "GraniteServiceVersion20100801.";
const MONITORING_NAMESPACE: &str = "http://monitoring.amazonaws.com/doc/2010-08-01/";

/// Binds a loopback port and serves until the lab stops.
pub(crate) async fn serve(cloud: Cloud) -> io::Result<SocketAddr> {
    let listener = Listener::bind().await?;
    let address = listener.address();
    let stop = cloud.stopping().clone();
    let service = router(cloud.clone()).into_make_service_with_connect_info::<Switch>();
    cloud.spawn(async move {
        let served = axum::serve(listener, service).with_graceful_shutdown(async move { stop.cancelled().await }).await;
        if let Err(error) = served {
            tracing::warn!(%error, "the endpoint ended");
        }
    });
    Ok(address)
}

fn router(cloud: Cloud) -> Router {
    Router::new()
        .route("/", post(root))
        .route("/service/GraniteServiceVersion20100801/operation/{operation}", post(cbor_call))
        .route("/_lab/faults", get(faults).post(plan_fault).delete(clear_faults))
        .route("/_lab/moments", post(reached))
        .route("/_lab/requests", get(requests))
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(cloud)
}

async fn root(
    State(cloud): State<Cloud>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = headers.get("x-amz-target").and_then(|v| v.to_str().ok());
    if let Some(operation) = target.and_then(|t| t.strip_prefix(TARGET)) {
        return json_call(&cloud, &switch, operation, &body).await;
    }
    let params = query::form(&body);
    let Some(action) = params.get("Action").map(str::to_owned) else {
        return query::refusal(
            &Refusal::new("MissingAction", 400, "The request must contain the parameter Action."),
            "",
        );
    };
    let monitoring = params.get("Version") == Some("2010-08-01");
    let (service, namespace) =
        if monitoring { ("monitoring", MONITORING_NAMESPACE) } else { ("rds", query::NAMESPACE) };
    let mut logged = params.all().clone();
    logged.retain(|name, _| name != "Action" && name != "Version");
    let work = async {
        if monitoring {
            let answer = metrics::call(&cloud, &action, &query::as_value(&params))?;
            return Ok(Some(query::from_value(&answer)));
        }
        dispatch::call(&cloud, &action, &params).await
    };
    let (result, _) = observed(&cloud, &switch, service, &action, logged, work).await;
    match result {
        Ok(element) => query::success(&action, element, namespace),
        Err(refusal) => query::refusal(&refusal, namespace),
    }
}

async fn json_call(cloud: &Cloud, switch: &Switch, operation: &str, body: &Bytes) -> Response {
    let input: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let (result, _) = observed(cloud, switch, "monitoring", operation, flat(&input), async {
        metrics::call(cloud, operation, &input)
    })
    .await;
    let (status, value, code) = match result {
        Ok(value) => (StatusCode::OK, value, None),
        Err(refusal) => {
            let value = serde_json::json!({ "__type": refusal.code, "message": refusal.message });
            (status(&refusal), value, Some(format!("{};Sender", refusal.code)))
        }
    };
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], value.to_string()).into_response();
    if let Some(code) = code.and_then(|c| c.parse().ok()) {
        response.headers_mut().insert("x-amzn-query-error", code);
    }
    response
}

async fn cbor_call(
    State(cloud): State<Cloud>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    Path(operation): Path<String>,
    body: Bytes,
) -> Response {
    let input = match cbor::decode(&body) {
        Ok(input) => input,
        Err(reason) => return cbor::refusal(&Refusal::new("SerializationException", 400, reason)),
    };
    let (result, _) = observed(&cloud, &switch, "monitoring", &operation, flat(&input), async {
        metrics::call(&cloud, &operation, &input)
    })
    .await;
    match result {
        Ok(value) => cbor::success(&value),
        Err(refusal) => cbor::refusal(&refusal),
    }
}

/// Answers a call with the faults of the wire around it, and writes it into the log.
async fn observed<T>(
    cloud: &Cloud,
    switch: &Switch,
    service: &'static str,
    action: &str,
    parameters: std::collections::BTreeMap<String, String>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> (Result<T, Refusal>, bool) {
    let at = cloud.clock().now();
    let began = cloud.since_start();
    let mut result = match before(cloud, action) {
        Some(refusal) => Err(refusal),
        None => work.await,
    };
    let mut dropped = false;
    let after = |f: &Fault| matches!(f, Fault::ErrorAfter { .. } | Fault::DropAnswer { .. } | Fault::Delay { .. });
    if let Some(fault) = cloud.faults().take_for_action(action, after) {
        match fault {
            Fault::Delay { millis, .. } => cloud.clock().sleep(std::time::Duration::from_millis(millis)).await,
            Fault::DropAnswer { .. } => {
                dropped = true;
                switch.cut();
            }
            _ => result = Err(Refusal::internal("The request processing has failed because of an unknown error.")),
        }
    }
    let outcome = match &result {
        _ if dropped => Outcome::Dropped,
        Ok(_) => Outcome::Done,
        Err(refusal) => Outcome::Refused { code: refusal.code.clone(), message: refusal.message.clone() },
    };
    let micros = u64::try_from((cloud.since_start() - began).as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(service, action, ?outcome, micros, "call");
    cloud.requests().push(RequestRecord { at, micros, service, action: action.to_owned(), parameters, outcome });
    (result, dropped)
}

/// A fault that keeps the call from happening at all.
fn before(cloud: &Cloud, action: &str) -> Option<Refusal> {
    let early = |f: &Fault| matches!(f, Fault::Throttle { .. } | Fault::ErrorBefore { .. } | Fault::Refuse { .. });
    Some(match cloud.faults().take_for_action(action, early)? {
        Fault::Throttle { .. } => Refusal::new("Throttling", 400, "Rate exceeded"),
        Fault::Refuse { code, status, message, .. } => Refusal::new(&code, status, message),
        _ => Refusal::internal("The request processing has failed because of an unknown error."),
    })
}

fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The top level of a CloudWatch call for the log.
fn flat(input: &Value) -> std::collections::BTreeMap<String, String> {
    let Value::Object(map) = input else { return std::collections::BTreeMap::new() };
    map.iter()
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect()
}

async fn faults(State(cloud): State<Cloud>) -> Response {
    axum::Json(cloud.faults().outstanding()).into_response()
}

async fn plan_fault(State(cloud): State<Cloud>, axum::Json(planned): axum::Json<Planned>) -> StatusCode {
    cloud.faults().plan_all([planned]);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(cloud): State<Cloud>) -> StatusCode {
    cloud.faults().clear();
    StatusCode::NO_CONTENT
}

async fn reached(State(cloud): State<Cloud>, axum::Json(moment): axum::Json<Moment>) -> StatusCode {
    cloud.faults().reached(moment);
    StatusCode::NO_CONTENT
}

async fn requests(State(cloud): State<Cloud>) -> Response {
    axum::Json(cloud.requests().all()).into_response()
}
