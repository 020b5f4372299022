//! The way out: one try of a command or an endpoint, within its time. What it says is judged elsewhere (`answer.rs`).
//!
//! A command gets no shell and an environment of its own: nothing of the coordinator's, whose variables may be credentials.

use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use runtime::clock::Clock;
use runtime::command::{self, Run, RunError};
use runtime::http::{Call, CallError};
use runtime::supervision::chain;
use sha2::Sha256;

use super::answer::{Heard, Trouble};
use super::notice::Notice;
use super::{Carrier, Endpoint, Hook, Target, Url, preset, settings};

/// Of an answer or an output so much is read.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// No file with a secret is longer.
const SECRET_BYTES_MAX: u64 = 8 << 10;
/// What a command finds of the coordinator's environment.
const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

pub(super) struct Wires {
    clock: Clock,
}

impl Wires {
    pub(super) fn new(clock: Clock) -> Wires {
        Wires { clock }
    }

    async fn run(&self, command: &[String], notice: &Notice, within: Duration) -> Result<Heard, Trouble> {
        let json = notice.json();
        let environment = environment(notice);
        let output_bytes_max = ANSWER_BYTES_MAX;
        let run = Run { command, environment, input: json.as_bytes(), within, output_bytes_max };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match command::run(run, &self.clock).await {
            Ok(ran) => Ok(Heard::Exit { code: ran.code, out: text(&ran.out), err: text(&ran.err) }),
            Err(error @ RunError::Start(_)) => Err(Trouble::lasting(chain(&error))),
            Err(error) => Err(Trouble::passing(chain(&error))),
        }
    }

    async fn post(
        &self,
        endpoint: &Endpoint,
        notice: &Notice,
        body: String,
        within: Duration,
    ) -> Result<Heard, Trouble> {
        let url = match &endpoint.url {
            Url::Given(url) => url.clone(),
            Url::InFile(path) => secret(path)?,
        };
        settings::allowed(&url, endpoint.plain_http).map_err(Trouble::lasting)?;
        let headers = headers(endpoint, notice, &body, &self.clock)?;
        let body = Bytes::from(body);
        let call = Call { method: Method::POST, url: &url, headers, body, within, answer_bytes_max: ANSWER_BYTES_MAX };
        let answer = endpoint.client.call(call).await.map_err(|error| match error {
            CallError::Address(_) => Trouble::lasting(error),
            CallError::Unreached(_) | CallError::Late(_) | CallError::Broken(_) => Trouble::passing(error),
        })?;
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Heard::Http {
            status: answer.status.as_u16(),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
            whole: answer.whole,
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

impl Carrier for Wires {
    fn carry<'a>(
        &'a self,
        hook: &'a Hook,
        notice: &'a Notice,
        within: Duration,
    ) -> BoxFuture<'a, Result<Heard, Trouble>> {
        Box::pin(async move {
            match &hook.target {
                Target::Command(command) => self.run(command, notice, within).await,
                Target::Http(endpoint) => self.post(endpoint, notice, notice.json(), within).await,
                Target::Slack(endpoint) => self.post(endpoint, notice, preset::slack(notice).to_string(), within).await,
                Target::Pagerduty { endpoint, routing_key_file } => {
                    let key = secret(routing_key_file)?;
                    match preset::pagerduty(notice, &key) {
                        Some(event) => self.post(endpoint, notice, event.to_string(), within).await,
                        None => Ok(Heard::Nothing),
                    }
                }
            }
        })
    }
}

/// What a command finds in its environment: the notice's fields that scripts want most.
fn environment(notice: &Notice) -> Vec<(String, String)> {
    let kept = KEPT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let own = [
        ("PILOT_POINT", notice.point.to_string()),
        ("PILOT_DELIVERY", notice.delivery.clone()),
        ("PILOT_TEST", if notice.test { "1" } else { "" }.to_owned()),
        ("PILOT_UPGRADE", notice.upgrade.clone()),
        ("PILOT_CLUSTER", notice.cluster.clone()),
        ("PILOT_CLUSTER_ARN", notice.cluster_arn.clone()),
        ("PILOT_FROM_VERSION", notice.from_version.clone()),
        ("PILOT_TO_VERSION", notice.to_version.clone()),
        ("PILOT_STEP", text(&notice.step)),
        ("PILOT_OUTCOME", notice.outcome.clone()),
        ("PILOT_SUBJECT", text(&notice.subject)),
        ("PILOT_REASON", text(&notice.reason)),
        ("PILOT_NEXT_ACTION", text(&notice.next_action)),
    ];
    kept.chain(own.into_iter().map(|(name, value)| (name.to_owned(), value))).collect()
}

fn headers(endpoint: &Endpoint, notice: &Notice, body: &str, clock: &Clock) -> Result<HeaderMap, Trouble> {
    let mut headers = HeaderMap::new();
    let mut put = |name: &str, value: &str, secret: bool| {
        let wrong = || Trouble::lasting(format!("header {name} cannot be sent: it holds what no header may"));
        let key = HeaderName::try_from(name).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        value.set_sensitive(secret);
        headers.insert(key, value);
        Ok::<(), Trouble>(())
    };
    put("content-type", "application/json", false)?;
    put("accept", "application/json", false)?;
    put("user-agent", "upgrade-pilot", false)?;
    put("idempotency-key", &notice.delivery, false)?;
    put("x-pilot-delivery", &notice.delivery, false)?;
    put("x-pilot-point", notice.point.as_str(), false)?;
    for (name, value) in &endpoint.headers {
        put(name, value, false)?;
    }
    for (name, path) in &endpoint.header_files {
        put(name, &secret(path)?, true)?;
    }
    if let Some(path) = &endpoint.secret_file {
        let at = clock.now().as_second().to_string();
        put("x-pilot-timestamp", &at, false)?;
        put("x-pilot-signature", &signature(&secret(path)?, &at, body), false)?;
    }
    Ok(headers)
}

/// `sha256=` and the HMAC-SHA256, in hexadecimal, of the time, a full stop and the body.
pub(super) fn signature(secret: &str, at: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// The text of a small file, without the end of its line. Read at every call: secrets are exchanged.
fn secret(path: &Path) -> Result<String, Trouble> {
    let failed = |why: String| Trouble::passing(format!("{} cannot be read: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > SECRET_BYTES_MAX {
        return Err(failed(format!("it is longer than {SECRET_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    match text.trim() {
        "" => Err(failed("it is empty".to_owned())),
        text => Ok(text.to_owned()),
    }
}
