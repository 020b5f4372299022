//! An ingestion system with three HTTP routes: `POST /pause`, `POST /resume`, `GET /state`. Resumed on another side than it was
//! paused on, it is told where that side's writer is, so that it need not wait for a name.

use std::time::Duration;

use hyper::{HeaderMap, Method, body::Bytes, header};
use proto::report::IngestionState;
use runtime::{
    clock::Clock,
    http::{Call, Client},
};

use super::{BoxFuture, ControlError, IngestionController, Observation, PauseMark, Serving, failed, read_state};

/// One request, answer included.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);
const BODY_MAX: usize = 64 * 1024;
/// Between looks while a pause takes effect.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module.
pub struct Http {
    name: String,
    base_url: String,
    client: Client,
    clock: Clock,
}

impl Http {
    /// `base_url` is `http://HOST:PORT`, with or without a path.
    pub fn new(name: String, base_url: &str, clock: Clock) -> Http {
        let client = Client::plain(clock.clone());
        Http { name, base_url: base_url.trim_end_matches('/').to_owned(), client, clock }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<String>) -> Result<Bytes, ControlError> {
        let url = format!("{}{path}", self.base_url);
        let doing = format!("{method} {url}");
        let json = header::HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter(body.is_some().then_some((header::CONTENT_TYPE, json)));
        let (url, body) = (url.as_str(), Bytes::from(body.unwrap_or_default()));
        let call = Call { method, url, headers, body, within: REQUEST_WITHIN, answer_bytes_max: BODY_MAX };
        match self.client.call(call).await {
            Ok(answer) if !answer.whole => Err(failed(doing, format!("its answer is longer than {BODY_MAX} bytes"))),
            Ok(answer) if answer.status.is_success() => Ok(answer.body),
            Ok(answer) => Err(failed(doing, format!("it answered {}", answer.status))),
            Err(error) => Err(failed(doing, error)),
        }
    }

    async fn reach(
        &self,
        path: &'static str,
        body: Option<String>,
        wanted: IngestionState,
    ) -> Result<(), ControlError> {
        self.ask(Method::POST, path, body).await?;
        while self.observe().await?.state != wanted {
            self.clock.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl IngestionController for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "http"
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>> {
        Box::pin(async move {
            let body = self.ask(Method::GET, "/state", None).await?;
            read_state(&format!("reading {}/state", self.base_url), &body)
        })
    }

    fn pause<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.reach("/pause", None, IngestionState::Paused))
    }

    fn resume<'a>(&'a self, _mark: &'a PauseMark, to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        let body = to.map(|to| {
            let writer = serde_json::json!({ "host": to.writer.ip(), "port": to.writer.port() });
            serde_json::json!({ "writer": writer }).to_string()
        });
        Box::pin(self.reach("/resume", body, IngestionState::Running))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use runtime::admin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A tiny service: three routes, one request a connection.
    async fn service() -> (String, Arc<AtomicBool>, Arc<Mutex<Vec<String>>>) {
        let listener = admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let paused = Arc::new(AtomicBool::new(false));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (state, seen) = (paused.clone(), bodies.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0_u8; 1024];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                let line = text.lines().next().unwrap_or_default().to_owned();
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
                seen.lock().unwrap().extend(body.filter(|body| !body.is_empty()));
                let (status, body) = match line.as_str() {
                    "POST /pause HTTP/1.1" => {
                        state.store(true, Ordering::SeqCst);
                        ("200 OK", String::new())
                    }
                    "POST /resume HTTP/1.1" => {
                        state.store(false, Ordering::SeqCst);
                        ("200 OK", String::new())
                    }
                    "GET /state HTTP/1.1" => {
                        let name = if state.load(Ordering::SeqCst) { "paused" } else { "running" };
                        ("200 OK", format!(r#"{{"state":"{name}","backlog":12,"rate":3.5}}"#))
                    }
                    _ => ("404 Not Found", String::new()),
                };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        });
        (address, paused, bodies)
    }

    fn mark() -> PauseMark {
        let at = jiff::Timestamp::UNIX_EPOCH;
        PauseMark { upgrade: "up-1".into(), since: at, expires_at: at, found: None }
    }

    #[tokio::test]
    async fn a_service_is_paused_observed_and_resumed() {
        let (address, paused, bodies) = service().await;
        let http = Http::new("orders".into(), &address, Clock::system());
        http.pause(&mark()).await.unwrap();
        assert!(paused.load(Ordering::SeqCst));
        let seen = http.observe().await.unwrap();
        assert_eq!(seen, Observation { state: IngestionState::Paused, backlog: Some(12), rate: Some(3.5) });
        http.resume(&mark(), None).await.unwrap();
        assert_eq!(*bodies.lock().unwrap(), Vec::<String>::new(), "nothing moved, nothing is told");
        let to = Serving { writer: "10.1.2.3:5433".parse().unwrap(), reader: None };
        http.resume(&mark(), Some(to)).await.unwrap();
        assert_eq!(*bodies.lock().unwrap(), [r#"{"writer":{"host":"10.1.2.3","port":5433}}"#]);
        assert!(!paused.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_refusal_names_the_request() {
        let (address, ..) = service().await;
        let http = Http::new("orders".into(), &format!("{address}/elsewhere"), Clock::system());
        let error = http.pause(&mark()).await.unwrap_err().to_string();
        assert!(error.starts_with("POST http://") && error.ends_with("it answered 404 Not Found"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_beyond_its_limit_is_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut answering = tokio::task::JoinSet::new();
        answering.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _asked = stream.read(&mut request).await;
            let body = " ".repeat(BODY_MAX + 1);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _refused = stream.write_all(answer.as_bytes()).await;
        });
        let error = Http::new("loader".into(), &base, Clock::system()).observe().await.unwrap_err();
        assert!(error.to_string().contains("its answer is longer than"), "{error}");
    }
}
