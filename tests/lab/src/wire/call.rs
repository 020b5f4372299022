//! One call from its bytes to its answer: read, decode, prove the caller, ask what it may do, check the input, carry it out,
//! encode. The order is AWS's: an operation that is not there is refused before a signature is looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::limits::{self, Words};
use crate::cloud::params::Params;
use crate::cloud::requests::{Outcome, RequestRecord};
use crate::cloud::{Cloud, dispatch, metrics};
use crate::faults::Fault;
use crate::iam::signature::Signed;
use crate::iam::{Caller, Need, needs};
use crate::wire::connection::Switch;
use crate::wire::xml::Element;
use crate::wire::{cbor, query};

const TARGET: &str = "GraniteServiceVersion20100801.";
const CBOR_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";
const MONITORING_NAMESPACE: &str = "http://monitoring.amazonaws.com/doc/2010-08-01/";
const RDS_VERSION: &str = "2014-10-31";
const MONITORING_VERSION: &str = "2010-08-01";
/// The largest body that is read.
const BODY_MAX: usize = 1 << 20;
/// How long a body may take to come.
const BODY_WAIT: Duration = Duration::from_secs(20);
/// Parts of a parameter's name: no input of AWS is nested deeper.
const DEPTH_MAX: usize = 16;

/// How a call speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Query,
    Json,
    Cbor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Rds,
    Monitoring,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Rds => "rds",
            Self::Monitoring => "monitoring",
        }
    }

    /// Its own trouble, by the code that each has for it.
    fn failed(self) -> Refusal {
        let code = match self {
            Self::Rds => "InternalFailure",
            Self::Monitoring => "InternalServiceError",
        };
        Refusal::new(code, 500, "The request processing has failed because of an unknown error.")
    }
}

/// What is asked for.
struct Call {
    service: Service,
    action: String,
    /// The form of a Query call.
    params: Params,
    /// Every input as names to values.
    input: Value,
    /// The refusal of an operation that is not there.
    unknown: Option<Refusal>,
}

/// What is answered.
enum Answered {
    Element(Option<Element>),
    Value(Value),
}

/// Answers whatever is no control path.
pub(super) async fn answer(
    State(cloud): State<Cloud>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let protocol = protocol(&parts);
    let decoded = match read(&cloud, body).await {
        Ok(bytes) => decode(protocol, &parts, &bytes).map(|call| (call, bytes)),
        Err(refusal) => Err(refusal),
    };
    let (call, bytes) = match decoded {
        Ok(decoded) => decoded,
        Err(refusal) => return refused(protocol, None, &refusal),
    };
    let signed = Signed {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body: &bytes,
    };
    match observed(&cloud, &switch, &call, &signed).await {
        Ok(answered) => encode(protocol, &call, answered),
        Err(refusal) => refused(protocol, Some(&call), &refusal),
    }
}

fn protocol(parts: &Parts) -> Protocol {
    if parts.uri.path().starts_with("/service/") {
        return Protocol::Cbor;
    }
    if parts.headers.contains_key("x-amz-target") { Protocol::Json } else { Protocol::Query }
}

/// The whole body, within limits of size and time.
async fn read(cloud: &Cloud, body: Body) -> Answer<Bytes> {
    let text = |why: &str| why.to_owned();
    match cloud.clock().within(BODY_WAIT, to_bytes(body, BODY_MAX)).await {
        None => Err(Refusal::new("RequestTimeout", 408, text("The request body did not arrive in time."))),
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) if is_length(&error) => {
            Err(Refusal::new("RequestEntityTooLarge", 413, format!("The request is larger than {BODY_MAX} bytes.")))
        }
        Some(Err(_)) => Err(Refusal::new("IncompleteBody", 400, text("The request body is not whole."))),
    }
}

fn is_length(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.to_string().contains("length limit exceeded") {
            return true;
        }
        next = cause.source();
    }
    false
}

fn decode(protocol: Protocol, parts: &Parts, body: &[u8]) -> Answer<Call> {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let monitoring = |action: &str, input: Value| {
        let unknown = (!metrics::SERVED.contains(&action)).then(|| unknown(action, MONITORING_VERSION));
        Ok(Call { service: Service::Monitoring, action: action.to_owned(), params: Params::default(), input, unknown })
    };
    match protocol {
        Protocol::Cbor => {
            let Some(operation) = parts.uri.path().strip_prefix(CBOR_PATH) else {
                return Err(Refusal::new("UnknownOperationException", 404, "There is no such service."));
            };
            if !kind.starts_with("application/cbor") && !body.is_empty() {
                let text = format!("The content type must be application/cbor, not {kind}");
                return Err(Refusal::new("UnsupportedMediaTypeException", 415, text));
            }
            monitoring(operation, cbor::decode(body).map_err(unreadable)?)
        }
        Protocol::Json => {
            let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
            let Some(operation) = target.strip_prefix(TARGET) else {
                return Err(unknown(target, MONITORING_VERSION));
            };
            if !kind.starts_with("application/x-amz-json-1.") {
                let text = format!("The content type must be application/x-amz-json-1.0, not {kind}");
                return Err(Refusal::new("UnsupportedMediaTypeException", 415, text));
            }
            let input: Value = serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
            if !input.is_object() {
                return Err(unreadable("the body is no object".to_owned()));
            }
            monitoring(operation, input)
        }
        Protocol::Query => form(parts, kind, body),
    }
}

fn form(parts: &Parts, kind: &str, body: &[u8]) -> Answer<Call> {
    if parts.uri.path() != "/" {
        return Err(Refusal::new("UnknownOperationException", 404, "There is no such service."));
    }
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let body = if kind.starts_with("application/x-www-form-urlencoded") { body } else { b"" };
    let params = query::form(&[query, b"&", body].concat())?;
    if params.all().keys().any(|name| name.split('.').count() > DEPTH_MAX) {
        return Err(query::malformed("a parameter's name has too many parts"));
    }
    let Some(action) = params.get("Action").filter(|action| !action.is_empty()).map(str::to_owned) else {
        return Err(Refusal::new("MissingAction", 400, "The request must contain the parameter Action."));
    };
    let version = params.get("Version").unwrap_or("NO_VERSION_SPECIFIED");
    let (service, served, words): (_, &[&str], _) = match version {
        RDS_VERSION => (Service::Rds, &dispatch::SERVED, Words::Rds),
        MONITORING_VERSION => (Service::Monitoring, &metrics::SERVED, Words::CloudWatch),
        _ => (Service::Rds, &[], Words::Rds),
    };
    let unknown = (!served.contains(&action.as_str())).then(|| unknown(&action, version));
    let input = query::as_value(&params, words == Words::CloudWatch);
    Ok(Call { service, action, params, input, unknown })
}

fn unknown(action: &str, version: &str) -> Refusal {
    Refusal::new("InvalidAction", 400, format!("Could not find operation {action} for version {version}"))
}

fn unreadable(why: String) -> Refusal {
    Refusal::new("SerializationException", 400, why)
}

/// Answers a call with the faults of the wire around it, and writes it into the log.
async fn observed(cloud: &Cloud, switch: &Switch, call: &Call, signed: &Signed<'_>) -> Answer<Answered> {
    let at = cloud.clock().now();
    let began = cloud.since_start();
    let service = call.service.name();
    // The machine's time: clients sign by it, also where a test steps the lab's own.
    let proven = match &call.unknown {
        Some(refusal) => Err(refusal.clone()),
        None => cloud.callers().prove(signed, service, cloud.clock().machine()),
    };
    let needs = match call.service {
        _ if call.unknown.is_some() => Vec::new(),
        Service::Rds => needs::of_rds(&cloud.state(), &call.action, &call.params),
        Service::Monitoring => needs::of_monitoring(&call.action),
    };
    let caller = proven.as_ref().map_or_else(|_| String::new(), |caller| caller.name.clone());
    let mut result = match proven {
        Ok(caller) => carried_out(cloud, call, &caller, &needs).await,
        Err(refusal) => Err(refusal),
    };
    let mut dropped = false;
    let after = |f: &Fault| matches!(f, Fault::ErrorAfter { .. } | Fault::DropAnswer { .. } | Fault::Delay { .. });
    if let Some(fault) = cloud.faults().take_for_action(&call.action, after) {
        match fault {
            Fault::Delay { millis, .. } => cloud.clock().sleep(Duration::from_millis(millis)).await,
            Fault::DropAnswer { .. } => {
                dropped = true;
                switch.cut();
            }
            _ => result = Err(call.service.failed()),
        }
    }
    let outcome = match &result {
        _ if dropped => Outcome::Dropped,
        Ok(_) => Outcome::Done,
        Err(refusal) => Outcome::Refused { code: refusal.code.clone(), message: refusal.message.clone() },
    };
    let micros = u64::try_from((cloud.since_start() - began).as_micros()).unwrap_or(u64::MAX);
    let action = call.action.clone();
    tracing::debug!(service, action, ?outcome, micros, "call");
    let parameters = logged(call);
    cloud.requests().push(RequestRecord { at, micros, service, action, caller, needs, parameters, outcome });
    result
}

async fn carried_out(cloud: &Cloud, call: &Call, caller: &Caller, needs: &[Need]) -> Answer<Answered> {
    if let Some(refusal) = before(cloud, call) {
        return Err(refusal);
    }
    caller.may(needs)?;
    match call.service {
        Service::Rds => {
            limits::check(Words::Rds, &call.action, &call.input)?;
            dispatch::call(cloud, &call.action, &call.params).await.map(Answered::Element)
        }
        Service::Monitoring => {
            limits::check(Words::CloudWatch, &call.action, &call.input)?;
            metrics::call(cloud, &call.action, &call.input).map(Answered::Value)
        }
    }
}

/// A fault that keeps the call from happening at all.
fn before(cloud: &Cloud, call: &Call) -> Option<Refusal> {
    let early = |f: &Fault| matches!(f, Fault::Throttle { .. } | Fault::ErrorBefore { .. } | Fault::Refuse { .. });
    Some(match cloud.faults().take_for_action(&call.action, early)? {
        Fault::Throttle { .. } => Refusal::new("Throttling", 400, "Rate exceeded"),
        Fault::Refuse { code, status, message, .. } => Refusal::new(&code, status, message),
        _ => call.service.failed(),
    })
}

/// The parameters as the log keeps them: a form's pairs, or the top level of an input.
fn logged(call: &Call) -> BTreeMap<String, String> {
    let mut pairs = call.params.all().clone();
    pairs.retain(|name, _| name != "Action" && name != "Version");
    if pairs.is_empty()
        && let Value::Object(map) = &call.input
    {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        pairs = map.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    }
    pairs
}

fn encode(protocol: Protocol, call: &Call, answered: Answered) -> Response {
    match (protocol, answered) {
        (Protocol::Query, Answered::Element(element)) => query::success(&call.action, element, query::NAMESPACE),
        (Protocol::Query, Answered::Value(value)) => {
            query::success(&call.action, Some(query::from_value(&value)), MONITORING_NAMESPACE)
        }
        (Protocol::Cbor, Answered::Value(value)) => cbor::success(&value),
        (Protocol::Json, Answered::Value(value)) => json(StatusCode::OK, &value, None),
        // Only a form asks for RDS.
        (Protocol::Cbor | Protocol::Json, Answered::Element(_)) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn refused(protocol: Protocol, call: Option<&Call>, refusal: &Refusal) -> Response {
    match protocol {
        Protocol::Query => {
            let monitoring = call.is_some_and(|call| call.service == Service::Monitoring);
            query::refusal(refusal, if monitoring { MONITORING_NAMESPACE } else { query::NAMESPACE })
        }
        Protocol::Cbor => cbor::refusal(refusal),
        Protocol::Json => {
            let value = serde_json::json!({ "__type": refusal.code, "message": refusal.message });
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            json(status, &value, Some(format!("{};Sender", refusal.code)))
        }
    }
}

fn json(status: StatusCode, value: &Value, code: Option<String>) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"))];
    let mut response = (status, kind, value.to_string()).into_response();
    if let Some(code) = code.and_then(|c| c.parse().ok()) {
        response.headers_mut().insert("x-amzn-query-error", code);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first byte chooses how the rest speaks.
    fn parts(first: u8) -> (Protocol, Parts) {
        let request = Request::builder().method("POST");
        let request = match first % 3 {
            0 => request.uri("/").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
            1 => {
                let target = format!("{TARGET}GetMetricData");
                request
                    .uri("/")
                    .header(header::CONTENT_TYPE, "application/x-amz-json-1.0")
                    .header("x-amz-target", target)
            }
            _ => request.uri(format!("{CBOR_PATH}GetMetricData")).header(header::CONTENT_TYPE, "application/cbor"),
        };
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        (protocol(&parts), parts)
    }

    #[test]
    fn any_bytes_on_the_wire_are_a_call_or_refused_by_code() {
        let mut binary = vec![2];
        let value = cbor::to_cbor("", &serde_json::json!({ "StartTime": 1.5, "MetricDataQueries": [{ "Id": "a" }] }));
        ciborium::into_writer(&value, &mut binary).expect("CBOR");
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "wire")
            .seed(*b"\0Action=DescribeDBClusters&Version=2014-10-31&Filters.Filter.1.Name=engine&MaxRecords=20")
            .seed(*b"\0Action=CreateDBClusterSnapshot&Version=2014-10-31&Tags.Tag.1.Key=a&Tags.Tag.1.Value=%C3%A9")
            .seed(*b"\x01{\"MetricDataQueries\": [{\"Id\": \"a\", \"Period\": 60}], \"StartTime\": 1.5}")
            .seed(binary)
            .words(&["Action=", "&Version=2010-08-01", ".member.1.", "%", "%00", "+", "&", "=", "\u{9f}\u{ff}"]);
        target.run(|bytes| {
            let (first, body) = bytes.split_first().map_or((0, bytes), |(first, body)| (*first, body));
            let (protocol, parts) = parts(first);
            match decode(protocol, &parts, body) {
                Ok(call) => {
                    let words = if call.service == Service::Rds { Words::Rds } else { Words::CloudWatch };
                    let checked = limits::check(words, &call.action, &call.input);
                    format!("{} {:?}", logged(&call).len().min(9), checked.err().map(|refusal| refusal.code))
                }
                Err(refusal) => {
                    assert!((400..500).contains(&refusal.status), "{}", refusal.status);
                    refusal.code
                }
            }
        });
    }
}
