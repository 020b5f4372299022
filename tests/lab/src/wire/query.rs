//! AWS Query: the form that comes in, the XML that goes out. CloudWatch over this protocol is a courtesy to old clients.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::cloud::errors::Refusal;
use crate::cloud::params::Params;
use crate::wire::xml::{self, Element};

/// The XML namespace of RDS.
pub(crate) const NAMESPACE: &str = "http://rds.amazonaws.com/doc/2014-10-31/";

/// The parameters of a form body.
pub(crate) fn form(body: &[u8]) -> Params {
    let text = String::from_utf8_lossy(body);
    Params::new(text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    }))
}

/// `<ActionResponse><ActionResult>…`; without a result for operations that have none.
pub(crate) fn success(action: &str, result: Option<Element>, namespace: &str) -> Response {
    let mut root = Element::new(format!("{action}Response"));
    if let Some(result) = result {
        root = root.child(result.named(format!("{action}Result")));
    }
    let id = Uuid::now_v7().to_string();
    let root = root.child(Element::new("ResponseMetadata").with("RequestId", &id));
    respond(StatusCode::OK, &root, namespace, id)
}

/// `<ErrorResponse><Error>…` with the status of the refusal.
pub(crate) fn refusal(refusal: &Refusal, namespace: &str) -> Response {
    let id = Uuid::now_v7().to_string();
    let side = if refusal.status >= 500 { "Receiver" } else { "Sender" };
    let error = Element::new("Error").with("Type", side).with("Code", &refusal.code).with("Message", &refusal.message);
    let root = Element::new("ErrorResponse").child(error).with("RequestId", &id);
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let namespace = if namespace.is_empty() { NAMESPACE } else { namespace };
    respond(status, &root, namespace, id)
}

fn respond(status: StatusCode, root: &Element, namespace: &str, id: String) -> Response {
    let body = xml::document(root, namespace);
    let mut response = (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response();
    if let Ok(id) = id.parse() {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A CloudWatch form as the value that the other protocols carry: numbers in names become lists.
pub(crate) fn as_value(params: &Params) -> Value {
    let mut root = Value::Object(Map::new());
    for (name, value) in params.all() {
        if name == "Action" || name == "Version" {
            continue;
        }
        let mut at = &mut root;
        for part in name.split('.').filter(|part| *part != "member") {
            let Value::Object(map) = at else { break };
            at = map.entry(part.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        }
        *at = typed(value);
    }
    listed(root)
}

fn typed(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match text.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        },
    }
}

fn listed(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let mut numbers: Vec<u32> = map.keys().filter_map(|key| key.parse().ok()).collect();
    if !map.is_empty() && numbers.len() == map.len() {
        numbers.sort_unstable();
        let mut map = map;
        return numbers.iter().filter_map(|n| map.remove(&n.to_string())).map(listed).collect();
    }
    map.into_iter().map(|(key, value)| (key, listed(value))).collect::<Map<_, _>>().into()
}

/// A CloudWatch answer as XML: lists of `member`s, moments as text.
pub(crate) fn from_value(value: &Value) -> Element {
    element("Result", value)
}

fn element(name: &str, value: &Value) -> Element {
    let name = name.to_owned();
    match value {
        Value::Object(map) => map.iter().fold(Element::new(name), |parent, (key, value)| match key.as_str() {
            "Timestamp" => parent.child(Element::text("Timestamp", moment(value))),
            "Timestamps" => {
                let all = value.as_array().into_iter().flatten();
                parent.list("Timestamps", all.map(|at| Element::text("member", moment(at))))
            }
            _ => parent.child(element(key, value)),
        }),
        Value::Array(items) => {
            items.iter().fold(Element::new(name), |parent, item| parent.child(element("member", item)))
        }
        Value::String(text) => Element::text(name, text),
        other => Element::text(name, other),
    }
}

fn moment(value: &Value) -> String {
    let millis = value.as_f64().map_or(0, |seconds| (seconds * 1000.0) as i64);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), xml::iso)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let p = form(b"Action=X&A.B.1=a%2Bb+c&Empty=");
        assert_eq!((p.get("A.B.1"), p.get("Empty")), (Some("a+b c"), Some("")));
    }

    #[test]
    fn names_with_numbers_become_lists() {
        let p = form(b"Action=X&Q.member.1.Id=a&Q.member.2.Id=b&Q.member.2.S.Period=60");
        assert_eq!(as_value(&p), serde_json::json!({ "Q": [{ "Id": "a" }, { "Id": "b", "S": { "Period": 60 } }] }));
    }
}
