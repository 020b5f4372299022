//! Wishes of people who press a button: taken from our own pages only, as the role allows, and only while what the person saw is
//! still so. Then they go the way of the command line's.

use std::collections::BTreeMap;

use askama::Template;
use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::Request;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use proto::identity::Role;
use serde::Deserialize;
use serde_json::Value;

use super::door::{Visitor, same_origin};
use super::seen::Seen;
use super::{Frame, Site, port, shown, status_of};
use crate::codes;
use crate::operator::view::Answer;
use crate::operator::{Operator, Refusal};
use crate::world::Upgrade;

/// A form, as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    act: String,
    seen: String,
    name: String,
    confirm: String,
    until: String,
    key: String,
    value: String,
}

/// What became of it.
#[derive(Template)]
#[template(path = "answer.html")]
struct Told<'a> {
    good: bool,
    text: &'a str,
    /// What changed since the page was shown.
    changed: &'a [String],
}

#[derive(Template)]
#[template(path = "answer_page.html")]
struct Page<'a> {
    frame: Frame,
    id: &'a str,
    answer: &'a str,
}

/// Why it was not done.
struct Not {
    status: StatusCode,
    text: String,
    changed: Vec<String>,
}

impl Not {
    fn new(status: StatusCode, text: String) -> Not {
        Not { status, text, changed: Vec::new() }
    }
}

impl From<Refusal> for Not {
    fn from(refusal: Refusal) -> Not {
        Not::new(status_of(&refusal), refusal.to_string())
    }
}

/// `POST /upgrades/{id}/ask`.
pub(super) async fn ask(
    State(site): State<Site>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Wish>, FormRejection>,
) -> Response {
    let done = match form {
        _ if !same_origin(&headers) => {
            let why = "this was not sent by a page of this coordinator, and is not done";
            Err(Not::new(StatusCode::FORBIDDEN, format!("{}: {why}", codes::OTHER_SITE)))
        }
        Ok(Form(wish)) => take(&site.operator, &visitor, &id, &wish).await,
        Err(rejection) => Err(Not::new(rejection.status(), rejection.body_text())),
    };
    let (status, good, text, changed) = match done {
        Ok(text) => (StatusCode::OK, true, text, Vec::new()),
        Err(Not { status, text, changed }) => (status, false, text, changed),
    };
    let told = Told { good, text: &text, changed: &changed }.render();
    let by_script = headers.contains_key("hx-request");
    let page = shown(|| {
        let answer = told?;
        if by_script {
            return Ok(answer);
        }
        Page { frame: Frame::new(&site.operator, port(&headers))?, id: &id, answer: &answer }.render()
    });
    (status, page).into_response()
}

async fn take(operator: &Operator, visitor: &Visitor, id: &str, wish: &Wish) -> Result<String, Not> {
    let bad = |text: String| Not::new(StatusCode::BAD_REQUEST, text);
    let request = request(wish, operator.clock().now()).map_err(bad)?;
    let role = if matches!(request, Request::Approve { .. }) { Role::Approve } else { Role::Operate };
    let denied = visitor.allowed(role).await;
    denied.map_err(|denied| Not::new(StatusCode::FORBIDDEN, denied.to_string()))?;
    let then =
        Seen::parse(&wish.seen).ok_or_else(|| bad("the form is none of this page's: load it again".to_owned()))?;
    let changed = then.changed(&Seen::of(&operator.status(id).await?));
    if !changed.is_empty() {
        let text = format!("{}: not done, because what the page showed is not so any more", codes::STALE_PAGE);
        return Err(Not { status: StatusCode::CONFLICT, text, changed });
    }
    let confirm = (!wish.confirm.is_empty()).then_some(wish.confirm.trim());
    let answer = operator.ask(id, "", &visitor.name(), request, confirm).await?;
    Ok(said(&wish.act, &answer))
}

fn said(act: &str, answer: &Answer) -> String {
    match answer.taken {
        true => format!("Done: {act} is in the journal of {}.", answer.upgrade),
        false => format!("{act} is in the inbox of {}; its driver has not read it yet.", answer.upgrade),
    }
}

/// What the form asks for, or what is wrong with it. Pure.
fn request(wish: &Wish, now: Timestamp) -> Result<Request<Upgrade>, String> {
    Ok(match wish.act.as_str() {
        "approve" if wish.name.is_empty() => return Err("an approval has a name".to_owned()),
        "approve" => Request::Approve { name: Some(wish.name.clone()) },
        "pause" => Request::Pause,
        "resume" => Request::Resume,
        "abort" => Request::Abort,
        "postpone" => Request::Postpone { until: until(wish.until.trim(), now)? },
        "unpostpone" => Request::Postpone { until: now },
        "tune" if wish.key.trim().is_empty() => return Err("a setting has a name".to_owned()),
        "tune" => {
            let value = Value::String(wish.value.trim().to_owned());
            Request::Tune { settings: BTreeMap::from([(wish.key.trim().to_owned(), value)]) }
        }
        other => return Err(format!("{other:?} is nothing that can be asked for here")),
    })
}

/// As a browser writes it (`2026-11-30T16:02`, taken as UTC), or with its offset; nothing: until told otherwise.
fn until(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if text.is_empty() {
        return Ok(Timestamp::MAX);
    }
    let civil = || text.parse::<DateTime>().and_then(|time| time.to_zoned(TimeZone::UTC)).map(|time| time.timestamp());
    let until = text.parse::<Timestamp>().or_else(|_| civil());
    let until = until.map_err(|_| format!("{text:?} is not a time: write it as 2026-11-30T16:02"))?;
    if until <= now {
        return Err(format!("{until} is past: nothing would be postponed"));
    }
    Ok(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(act: &str) -> Wish {
        Wish { act: act.to_owned(), ..Wish::default() }
    }

    #[test]
    fn a_form_asks_for_what_it_says_and_nonsense_is_named() {
        let now: Timestamp = "2026-11-30T16:00:00Z".parse().unwrap();
        let check = |wish: Wish, expected: &str| {
            let found = match request(&wish, now) {
                Ok(request) => serde_json::to_string(&request).unwrap(),
                Err(wrong) => wrong,
            };
            assert!(found.contains(expected), "{found}");
        };
        check(Wish { name: "reboot".into(), ..wish("approve") }, r#"{"request":"approve","name":"reboot"}"#);
        check(wish("approve"), "an approval has a name");
        check(wish("pause"), r#"{"request":"pause"}"#);
        check(Wish { until: "2026-11-30T18:30".into(), ..wish("postpone") }, r#""until":"2026-11-30T18:30:00Z""#);
        check(Wish { until: "2026-11-30T18:30+01:00".into(), ..wish("postpone") }, r#""until":"2026-11-30T17:30:00Z""#);
        check(wish("postpone"), r#""until":"9999-12-30"#);
        check(Wish { until: "2026-11-30T15:00".into(), ..wish("postpone") }, "is past");
        check(Wish { until: "soon".into(), ..wish("postpone") }, "\"soon\" is not a time");
        check(
            Wish { key: "replication.lag_bytes_max".into(), value: "7".into(), ..wish("tune") },
            r#""replication.lag_bytes_max":"7""#,
        );
        check(
            Wish { key: "reboot.policy".into(), value: "allow".into(), ..wish("tune") },
            r#""reboot.policy":"allow""#,
        );
        check(wish("tune"), "a setting has a name");
        check(wish("<script>"), "is nothing that can be asked for");
    }
}
