//! What a hook's answer means. Pure. The protocol, for both kinds:
//!
//! | | go, or told | wait | no | anything else |
//! | --- | --- | --- | --- | --- |
//! | command | exit 0 | exit 75 | exit 77 | has failed |
//! | endpoint | 2xx without a body, or `{"decision": "go"}` | 2xx, `{"decision": "wait"}` | 2xx, `{"decision": "veto"}` | has failed |
//!
//! A reason is the body's `"reason"`, or the first line that the command prints. Whoever is only told may answer anything within
//! 2xx, or exit 0. What has failed is tried again, but for 4xx that say that it never will do.

use std::time::Duration;

use serde::Deserialize;

use super::tame;

/// `EX_TEMPFAIL` and `EX_NOPERM` of sysexits.
const EXIT_WAIT: i32 = 75;
const EXIT_VETO: i32 = 77;
const REASON_CHARS_MAX: usize = 500;
/// A server that asks for more time gets at most this.
const AFTER_MAX: Duration = Duration::from_secs(60);

/// What came back from one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A command has ended; without a code by a signal.
    Exit { code: Option<i32>, out: String, err: String },
    /// An endpoint has answered; not `whole` when there was more than is read.
    Http { status: u16, body: String, whole: bool, retry_after: Option<Duration> },
    /// There was nothing to say to it.
    Nothing,
}

/// What it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Go,
    Wait(String),
    Veto(String),
}

/// A try that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Trouble {
    pub text: String,
    /// May another try help?
    pub again: bool,
    /// How long the other side wants to be left alone.
    pub after: Option<Duration>,
}

impl Trouble {
    pub(super) fn passing(text: impl std::fmt::Display) -> Trouble {
        Trouble { text: tame(&text.to_string(), REASON_CHARS_MAX), again: true, after: None }
    }

    pub(super) fn lasting(text: impl std::fmt::Display) -> Trouble {
        Trouble { again: false, ..Trouble::passing(text) }
    }
}

/// See the top of the file. `asked` or only told.
///
/// # Errors
/// When the answer is none.
pub fn judge(asked: bool, heard: &Heard) -> Result<Said, Trouble> {
    match heard {
        Heard::Nothing => Ok(Said::Go),
        Heard::Exit { code, out, err } => exited(asked, *code, out, err),
        Heard::Http { status, body, whole, retry_after } => answered(asked, *status, body, *whole, *retry_after),
    }
}

fn exited(asked: bool, code: Option<i32>, out: &str, err: &str) -> Result<Said, Trouble> {
    let line = |text: &str| tame(text.trim().lines().next().unwrap_or_default(), REASON_CHARS_MAX);
    let said = if out.trim().is_empty() { line(err) } else { line(out) };
    match code {
        Some(0) => Ok(Said::Go),
        Some(EXIT_WAIT) if asked => Ok(Said::Wait(or_none(said))),
        Some(EXIT_VETO) if asked => Ok(Said::Veto(or_none(said))),
        _ => {
            let how = code.map_or("was ended by a signal".to_owned(), |code| format!("exited with {code}"));
            let complaint = if err.trim().is_empty() { line(out) } else { line(err) };
            Err(Trouble::passing(format!("it {how}{}", quoted(&complaint))))
        }
    }
}

#[derive(Deserialize)]
struct Body {
    decision: Option<String>,
    reason: Option<String>,
}

fn answered(asked: bool, status: u16, body: &str, whole: bool, after: Option<Duration>) -> Result<Said, Trouble> {
    let text = tame(body, REASON_CHARS_MAX);
    match status {
        200..=299 if !asked => Ok(Said::Go),
        200..=299 if !whole => Err(Trouble::passing("its answer is longer than is read")),
        200..=299 if body.trim().is_empty() => Ok(Said::Go),
        200..=299 => decided(body).ok_or_else(|| {
            Trouble::passing(format!(
                "its answer is neither empty nor a JSON object with \"decision\": go, wait or veto{}",
                quoted(&text)
            ))
        }),
        300..=399 => Err(Trouble::lasting(format!("it answered {status}: redirects are not followed"))),
        408 | 425 | 429 | 500..=599 => {
            let trouble = Trouble::passing(format!("it answered {status}{}", quoted(&text)));
            Err(Trouble { after: after.map(|after| after.min(AFTER_MAX)), ..trouble })
        }
        _ => Err(Trouble::lasting(format!("it answered {status}{}", quoted(&text)))),
    }
}

fn decided(body: &str) -> Option<Said> {
    let Body { decision, reason } = serde_json::from_str(body).ok()?;
    let reason = or_none(tame(&reason.unwrap_or_default(), REASON_CHARS_MAX));
    match decision?.as_str() {
        "go" => Some(Said::Go),
        "wait" => Some(Said::Wait(reason)),
        "veto" => Some(Said::Veto(reason)),
        _ => None,
    }
}

fn or_none(reason: String) -> String {
    if reason.is_empty() { "no reason given".to_owned() } else { reason }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, out: &str, err: &str) -> Heard {
        Heard::Exit { code: Some(code), out: out.into(), err: err.into() }
    }

    fn http(status: u16, body: &str) -> Heard {
        Heard::Http { status, body: body.into(), whole: true, retry_after: None }
    }

    #[test]
    fn an_answer_of_one_who_is_asked_is_go_wait_no_or_none() {
        let check = |heard: Heard, expected: Said| assert_eq!(judge(true, &heard), Ok(expected), "{heard:?}");
        check(exit(0, "whatever", ""), Said::Go);
        check(exit(75, "frozen until 8\nmore", ""), Said::Wait("frozen until 8".into()));
        check(exit(77, "", "not today"), Said::Veto("not today".into()));
        check(exit(77, "", ""), Said::Veto("no reason given".into()));
        check(http(200, ""), Said::Go);
        check(http(204, " \n"), Said::Go);
        check(http(200, r#"{"decision":"go"}"#), Said::Go);
        check(http(201, r#"{"decision":"wait","reason":"a\u001b[31m\nb","more":1}"#), Said::Wait("a [31m b".into()));
        check(http(200, r#"{"decision":"veto","reason":"freeze"}"#), Said::Veto("freeze".into()));
        check(Heard::Nothing, Said::Go);
        let refused = |heard: Heard, again: bool, words: &str| {
            let trouble = judge(true, &heard).unwrap_err();
            assert!(trouble.again == again && trouble.text.contains(words), "{trouble:?}");
        };
        refused(exit(1, "out", "no such host"), true, "exited with 1: no such host");
        refused(Heard::Exit { code: None, out: String::new(), err: String::new() }, true, "signal");
        for lie in ["ok", "[]", "{}", r#"{"decision":"GO"}"#, r#"{"decision":1}"#, "{\"decision\":", "<html>"] {
            refused(http(200, lie), true, "neither empty");
        }
        refused(Heard::Http { status: 200, body: "x".into(), whole: false, retry_after: None }, true, "longer");
        refused(http(302, ""), false, "redirects are not followed");
        refused(http(404, "no_service"), false, "404: no_service");
        refused(http(500, ""), true, "500");
        refused(http(100, ""), false, "100");
        let busy = Heard::Http {
            status: 429,
            body: String::new(),
            whole: true,
            retry_after: Some(Duration::from_secs(100_000)),
        };
        assert_eq!(judge(true, &busy).unwrap_err().after, Some(AFTER_MAX));
    }

    #[test]
    fn who_is_only_told_may_say_anything_within_2xx_and_decides_nothing() {
        for heard in [exit(0, "", ""), http(200, "ok"), http(202, r#"{"decision":"veto"}"#), http(299, "<html>")] {
            assert_eq!(judge(false, &heard), Ok(Said::Go), "{heard:?}");
        }
        for heard in [exit(75, "", ""), exit(77, "", ""), http(301, ""), http(400, "")] {
            assert!(judge(false, &heard).is_err(), "{heard:?}");
        }
        let endless = Heard::Http { status: 200, body: "x".into(), whole: false, retry_after: None };
        assert_eq!(judge(false, &endless), Ok(Said::Go));
    }

    #[test]
    fn any_bytes_of_a_hook_are_judged() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "hook-answers");
        target.seed(r#"{"decision":"wait","reason":"x"}"#).words(&["\"decision\":", "\"go\"", "\"veto\""]).run(
            |bytes| {
                let body = String::from_utf8_lossy(bytes).into_owned();
                let said = |heard: &Heard| match judge(true, heard) {
                    Ok(Said::Go) => "go",
                    Ok(Said::Wait(reason) | Said::Veto(reason)) => {
                        assert!(reason.chars().count() <= REASON_CHARS_MAX + 1 && !reason.contains('\n'));
                        "held"
                    }
                    Err(_) => "failed",
                };
                let exit = Heard::Exit { code: Some(75), out: body.clone(), err: body.clone() };
                format!("{} {}", said(&http(200, &body)), said(&exit))
            },
        );
    }
}
