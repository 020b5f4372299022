//! An ingestion system with three HTTP routes: `POST /pause`, `POST /resume`, `GET /state`. Resumed on another side than it was
//! paused on, it is told where that side's writer is, so that it need not wait for a name.
//!
//! A `POST /pause` that is given up is not taken back: the service may do it later. So a resume asks at once, and is done when no
//! request for a pause is under way any more and the service runs.

use std::{sync::Mutex, time::Duration};

use hyper::{HeaderMap, Method, body::Bytes, header};
use proto::report::IngestionState;
use runtime::{
    clock::Clock,
    http::{Call, Client},
};

use tokio::task::AbortHandle;

use super::{BoxFuture, ControlError, IngestionController, Observation, PauseMark, Serving, failed, reach, read_state};

/// One request, answer included.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);
const BODY_MAX: usize = 64 * 1024;
/// Between looks while a pause takes effect.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module.
pub struct Http {
    name: String,
    routes: Routes,
    clock: Clock,
    /// The last request for a pause.
    pausing: Mutex<Option<AbortHandle>>,
}

#[derive(Clone)]
struct Routes {
    base_url: String,
    client: Client,
}

impl Routes {
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
}

impl Http {
    /// `base_url` is `http://HOST:PORT`, with or without a path.
    pub fn new(name: String, base_url: &str, clock: Clock) -> Http {
        let client = Client::plain(clock.clone());
        let routes = Routes { base_url: base_url.trim_end_matches('/').to_owned(), client };
        Http { name, routes, clock, pausing: Mutex::default() }
    }

    /// In a task of its own, so that whoever gives up waiting does not lose sight of it.
    async fn ask_for_a_pause(&self) -> Result<(), ControlError> {
        let routes = self.routes.clone();
        let asking = tokio::spawn(async move { routes.ask(Method::POST, "/pause", None).await });
        *self.pausing.lock().expect("nobody panics with it") = Some(asking.abort_handle());
        asking.await.map_err(|error| failed("POST /pause", error))?.map(drop)
    }

    /// A request for a pause has neither been answered nor reached its time.
    fn is_pausing(&self) -> bool {
        self.pausing.lock().expect("nobody panics with it").as_ref().is_some_and(|asking| !asking.is_finished())
    }

    async fn let_run(&self, body: Option<String>) -> Result<(), ControlError> {
        let ask = || -> BoxFuture<'_, _> {
            let body = body.clone();
            Box::pin(async { self.routes.ask(Method::POST, "/resume", body).await.map(drop) })
        };
        reach(self, ask, IngestionState::Running, LOOK_EVERY, &self.clock).await
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
            let body = self.routes.ask(Method::GET, "/state", None).await?;
            read_state(&format!("reading {}/state", self.routes.base_url), &body)
        })
    }

    fn pause<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        let ask = || -> BoxFuture<'a, _> { Box::pin(self.ask_for_a_pause()) };
        Box::pin(reach(self, ask, IngestionState::Paused, LOOK_EVERY, &self.clock))
    }

    fn resume<'a>(&'a self, _mark: &'a PauseMark, to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        let body = to.map(|to| {
            let writer = serde_json::json!({ "host": to.writer.ip(), "port": to.writer.port() });
            serde_json::json!({ "writer": writer }).to_string()
        });
        Box::pin(async move {
            let pausing = self.is_pausing();
            self.let_run(body.clone()).await?;
            if !pausing {
                return Ok(());
            }
            while self.is_pausing() {
                self.clock.sleep(LOOK_EVERY).await;
            }
            self.let_run(body).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use axum::{
        Router,
        routing::{get, post},
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

    /// A service that takes its time for a pause, as long as nobody lets it go on.
    async fn slow_service() -> (String, Arc<AtomicBool>, Arc<tokio::sync::Semaphore>) {
        let (paused, going_on) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Semaphore::new(0)));
        let (slow, gate) = (paused.clone(), going_on.clone());
        let pause = move || async move {
            gate.acquire().await.unwrap().forget();
            slow.store(true, Ordering::SeqCst);
        };
        let running = paused.clone();
        let resume = move || async move { running.store(false, Ordering::SeqCst) };
        let seen = paused.clone();
        let state = move || async move {
            format!(r#"{{"state":"{}"}}"#, if seen.load(Ordering::SeqCst) { "paused" } else { "running" })
        };
        let routes =
            Router::new().route("/pause", post(pause)).route("/resume", post(resume)).route("/state", get(state));
        let listener = admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (address, paused, going_on)
    }

    /// Whoever stops waiting for a pause and resumes has a service that runs, even when the pause comes after the resume.
    #[tokio::test]
    async fn a_pause_that_was_given_up_and_comes_late_is_undone() {
        let (address, paused, going_on) = slow_service().await;
        let http = Arc::new(Http::new("orders".into(), &address, Clock::system()));
        let given_up = Clock::system().timeout(Duration::from_millis(100), http.pause(&mark())).await;
        given_up.expect_err("nobody let it go on");
        let resuming = http.clone();
        let mut resumed = tokio::spawn(async move { resuming.resume(&mark(), None).await });
        Clock::system()
            .timeout(Duration::from_millis(300), &mut resumed)
            .await
            .expect_err("its pause is still under way");
        going_on.add_permits(1);
        resumed.await.unwrap().unwrap();
        assert!(!paused.load(Ordering::SeqCst));
    }

    /// It runs when the request for a pause has got no answer: that has its time.
    #[tokio::test]
    async fn a_resume_does_not_wait_for_ever_for_the_pause_before_it() {
        let (address, paused, _nobody) = slow_service().await;
        let http = Http::new("orders".into(), &address, Clock::system());
        Clock::system()
            .timeout(Duration::from_millis(100), http.pause(&mark()))
            .await
            .expect_err("nobody let it go on");
        http.resume(&mark(), None).await.unwrap();
        assert!(!http.is_pausing() && !paused.load(Ordering::SeqCst));
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
