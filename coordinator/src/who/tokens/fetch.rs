//! One GET over TLS, for a provider's keys: within a time and a length, and of that address only. Nothing is sent but the path.

use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use runtime::clock::Clock;
use runtime::http::{Call, Client};

/// One request, answer included.
const WITHIN: Duration = Duration::from_secs(3);
/// No answer is longer.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 10;

pub(super) struct Fetch(Client);

impl Fetch {
    /// Trusts the authorities in `ca_file`, or else the system's.
    pub(super) fn new(ca_file: Option<&Path>, clock: Clock) -> Result<Fetch, String> {
        let client = Client::new(ca_file, clock);
        client.map(Fetch).map_err(|error| if ca_file.is_some() { format!("oidc.ca_file: {error}") } else { error })
    }

    pub(super) async fn get(&self, url: &str) -> Result<Bytes, String> {
        let failed = |error: String| format!("GET {url}: {error}");
        if !url.starts_with("https://") {
            return Err(failed("it is not https://HOST".to_owned()));
        }
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
        let (body, answer_bytes_max) = (Bytes::new(), ANSWER_BYTES_MAX);
        let call = Call { method: Method::GET, url, headers, body, within: WITHIN, answer_bytes_max };
        let answer = self.0.call(call).await.map_err(|error| failed(error.to_string()))?;
        match (answer.status.is_success(), answer.whole) {
            (false, _) => Err(failed(format!("it answered {}", answer.status))),
            (true, false) => Err(failed(format!("length limit exceeded: {ANSWER_BYTES_MAX} bytes"))),
            (true, true) => Ok(answer.body),
        }
    }
}
