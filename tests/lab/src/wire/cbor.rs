//! Smithy RPC v2 CBOR: the body of a CloudWatch call as the current SDKs send it, to and from the value that JSON carries.
//! Moments have CBOR's tag 1 on this wire; in the value they are seconds since 1970.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ciborium::Value as Cbor;
use serde_json::{Map, Number, Value};

use crate::cloud::errors::Refusal;

/// The value of a body; an empty one is an empty structure.
pub(crate) fn decode(body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let mut rest = body;
    let cbor: Cbor = ciborium::from_reader(&mut rest).map_err(|error| format!("the body is not CBOR: {error}"))?;
    if !rest.is_empty() || !cbor.is_map() {
        return Err("the body is not one CBOR map".to_owned());
    }
    Ok(to_value(cbor))
}

/// A result.
pub(crate) fn success(value: &Value) -> Response {
    respond(StatusCode::OK, &to_cbor("", value), None)
}

/// An error with its code.
pub(crate) fn refusal(refusal: &Refusal) -> Response {
    let body = Cbor::Map(vec![
        (Cbor::Text("__type".into()), Cbor::Text(refusal.code.clone())),
        (Cbor::Text("message".into()), Cbor::Text(refusal.message.clone())),
    ]);
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(status, &body, Some(format!("{};Sender", refusal.code)))
}

fn respond(status: StatusCode, body: &Cbor, code: Option<String>) -> Response {
    let mut bytes = Vec::new();
    if let Err(error) = ciborium::into_writer(body, &mut bytes) {
        tracing::warn!(%error, "an answer could not be written as CBOR");
    }
    let mut response = (status, [(header::CONTENT_TYPE, "application/cbor")], bytes).into_response();
    response.headers_mut().insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    if let Some(code) = code.and_then(|c| c.parse().ok()) {
        response.headers_mut().insert("x-amzn-query-error", code);
    }
    response
}

fn to_value(cbor: Cbor) -> Value {
    match cbor {
        Cbor::Bool(b) => b.into(),
        Cbor::Text(text) => text.into(),
        Cbor::Integer(i) => i64::try_from(i).map_or(Value::Null, Value::from),
        Cbor::Float(f) => Number::from_f64(f).map_or(Value::Null, Value::Number),
        Cbor::Array(items) => items.into_iter().map(to_value).collect(),
        Cbor::Tag(_, inner) => to_value(*inner),
        Cbor::Map(entries) => entries
            .into_iter()
            .filter_map(|(key, value)| Some((key.into_text().ok()?, to_value(value))))
            .collect::<Map<_, _>>()
            .into(),
        _ => Value::Null,
    }
}

pub(super) fn to_cbor(name: &str, value: &Value) -> Cbor {
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(b) => Cbor::Bool(*b),
        Value::String(text) => Cbor::Text(text.clone()),
        Value::Number(n) if name == "Timestamps" || name == "Timestamp" => {
            Cbor::Tag(1, Box::new(Cbor::Float(n.as_f64().unwrap_or(0.0))))
        }
        Value::Number(n) => match n.as_i64() {
            Some(i) => Cbor::Integer(i.into()),
            None => Cbor::Float(n.as_f64().unwrap_or(0.0)),
        },
        Value::Array(items) => Cbor::Array(items.iter().map(|item| to_cbor(name, item)).collect()),
        Value::Object(map) => {
            Cbor::Map(map.iter().map(|(key, value)| (Cbor::Text(key.clone()), to_cbor(key, value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_goes_out_tagged_and_comes_back_as_seconds() {
        let value = serde_json::json!({ "Timestamps": [1.5], "Values": [2.0], "Id": "a" });
        let cbor = to_cbor("", &value);
        let tagged = Cbor::Array(vec![Cbor::Tag(1, Box::new(Cbor::Float(1.5)))]);
        assert!(
            matches!(&cbor, Cbor::Map(m) if m.iter().any(|(k, v)| *k == Cbor::Text("Timestamps".into()) && *v == tagged))
        );
        assert_eq!(to_value(cbor), value);
    }
}
