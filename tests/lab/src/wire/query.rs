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

/// The parameters of a form.
///
/// # Errors
/// `MalformedQueryString` for an escape that is none, and for what is not UTF-8.
pub(crate) fn form(form: &[u8]) -> Result<Params, Refusal> {
    let mut pairs = Vec::new();
    for pair in form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        pairs.push((percent_decoded(name)?, percent_decoded(value)?));
    }
    Ok(Params::new(pairs))
}

/// What a form that cannot be read is refused with.
pub(crate) fn malformed(why: &str) -> Refusal {
    Refusal::new("MalformedQueryString", 404, format!("The query string contains a syntax error: {why}"))
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

fn percent_decoded(bytes: &[u8]) -> Result<String, Refusal> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(*byte).to_digit(16));
                let (high, low) = (digit(), digit());
                let byte = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                byte.ok_or_else(|| malformed("a percent sign without two hexadecimal digits"))?
            }
            b'+' => b' ',
            other => *other,
        });
    }
    String::from_utf8(out).map_err(|_| malformed("it is not UTF-8"))
}

/// A form as the value that the other protocols carry: numbers in names become lists. `typed`: texts that look like numbers or
/// booleans become such, and the items of a list have no name of their own, as CloudWatch has it.
pub(crate) fn as_value(params: &Params, typed: bool) -> Value {
    let mut root = Value::Object(Map::new());
    for (name, value) in params.all() {
        if name == "Action" || name == "Version" {
            continue;
        }
        let mut at = &mut root;
        for part in name.split('.').filter(|part| !typed || *part != "member") {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(map) = at else { break };
            at = map.entry(part.to_owned()).or_insert(Value::Null);
        }
        // `A=` beside `A.member.1=x`: the list is what counts.
        if !at.is_object() {
            *at = if typed { guessed(value) } else { value.as_str().into() };
        }
    }
    listed(root)
}

fn guessed(text: &str) -> Value {
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
        let p = form(b"Action=X&A.B.1=a%2Bb+c&Empty=").expect("a form");
        assert_eq!((p.get("A.B.1"), p.get("Empty")), (Some("a+b c"), Some("")));
    }

    #[test]
    fn a_form_that_cannot_be_read_is_refused() {
        for bad in [&b"A=%"[..], b"A=%4", b"A=%zz", b"A=%ff", b"\xff=1"] {
            assert_eq!(form(bad).expect_err("malformed").code, "MalformedQueryString", "{bad:?}");
        }
    }

    #[test]
    fn names_with_numbers_become_lists() {
        let p = form(b"Action=X&Q.member.1.Id=a&Q.member.2.Id=b&Q.member.2.S.Period=60").expect("a form");
        assert_eq!(
            as_value(&p, true),
            serde_json::json!({ "Q": [{ "Id": "a" }, { "Id": "b", "S": { "Period": 60 } }] })
        );
    }
}
