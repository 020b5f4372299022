//! An ingestion system with three HTTP routes: `POST /pause`, `POST /resume`, `GET /state`.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, Uri, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use proto::report::IngestionState;
use runtime::clock::Clock;

use super::{BoxFuture, ControlError, IngestionController, Observation, PauseMark, failed, read_state};

/// One request, answer included.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);
const BODY_MAX: usize = 64 * 1024;
/// Between looks while a pause takes effect.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module.
pub struct Http {
    name: String,
    base_url: String,
    client: Client<HttpConnector, Empty<Bytes>>,
    clock: Clock,
}

impl Http {
    /// `base_url` is `http://HOST:PORT`, with or without a path.
    pub fn new(name: String, base_url: &str, clock: Clock) -> Http {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(REQUEST_WITHIN));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(2).build(connector);
        Http { name, base_url: base_url.trim_end_matches('/').to_owned(), client, clock }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, ControlError> {
        let doing = || format!("{method} {}{path}", self.base_url);
        let uri: Uri = format!("{}{path}", self.base_url).parse().map_err(|error| failed(doing(), error))?;
        let request = Request::builder().method(method.clone()).uri(uri).body(Empty::new());
        let request = request.map_err(|error| failed(doing(), error))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| failed(doing(), chain(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
            let body = body.map_err(|error| failed(doing(), error))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(failed(doing(), format!("it answered {status}"))) }
        };
        self.clock.timeout(REQUEST_WITHIN, exchange).await.map_err(|elapsed| failed(doing(), elapsed))?
    }

    async fn reach(&self, path: &'static str, wanted: IngestionState) -> Result<(), ControlError> {
        self.ask(Method::POST, path).await?;
        while self.observe().await?.state != wanted {
            self.clock.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    runtime::supervision::chain(error)
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
            let body = self.ask(Method::GET, "/state").await?;
            read_state(&format!("reading {}/state", self.base_url), &body)
        })
    }

    fn pause<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.reach("/pause", IngestionState::Paused))
    }

    fn resume<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.reach("/resume", IngestionState::Running))
    }
}
