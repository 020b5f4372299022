//! The CLI's end of the operator service, and the only file of the CLI that names generated types. Turns a refusal into
//! the exit code it stands for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::wire::operator_client::OperatorClient;
use proto::wire::{
    AgentsRequest, AskRequest, Document, SpecRequest, StartRequest, StatusRequest, UpgradeRequest, WatchRequest,
};
use runtime::clock::Clock;
use runtime::tls::{self, Credentials, DialError, Way};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Common, Exit, Fault};
use crate::codes;
use crate::operator::view::WatchView;
use crate::operator::{LEADER, REQUEST_ID};
use crate::who::TOKEN_BYTES_MAX;

/// Dialling a coordinator that is not there fails within this.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A coordinator that drives is looked for so long: above a lease and a take-over.
const TAKE_OVER_MAX: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// A coordinator on whose connection nothing answers for this long, twice, is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// A connection over which every call shows the token of the day.
type Line = OperatorClient<InterceptedService<Channel, Badge>>;

/// A connection to the coordinator.
pub(crate) struct Client {
    rpc: Line,
    url: String,
    /// Every coordinator that was named.
    all: Vec<String>,
    shows: Shows,
    /// Names this command in the coordinator's log, and its wish in the journal.
    request: String,
}

/// What shows who asks.
#[derive(Clone)]
struct Shows {
    /// The folder of a certificate.
    tls: Option<PathBuf>,
    token_file: Option<PathBuf>,
    /// Of the command.
    request: String,
}

/// Puts the token into every call. The file is read anew each time: a token lives for minutes, a `watch` for hours.
#[derive(Clone)]
pub(crate) struct Badge {
    token: Option<PathBuf>,
    request: String,
}

impl Interceptor for Badge {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Ok(id) = self.request.parse() {
            request.metadata_mut().insert(REQUEST_ID, id);
        }
        if let Some(file) = &self.token {
            let token = token(file).map_err(Status::invalid_argument)?;
            request.metadata_mut().insert("authorization", token);
        }
        Ok(request)
    }
}

/// What stands in a file of a token, as a header that is shown nowhere.
fn token(file: &Path) -> Result<MetadataValue<Ascii>, String> {
    let named = file.display();
    let failed = |error: std::io::Error| format!("the token in {named} cannot be read: {error}");
    if std::fs::metadata(file).map_err(failed)?.len() > TOKEN_BYTES_MAX as u64 {
        return Err(format!("{named} is too long for a token"));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let text = text.trim();
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let value = fits.then(|| format!("Bearer {text}").parse::<MetadataValue<Ascii>>().ok()).flatten();
    let mut value = value.ok_or_else(|| format!("{named} holds no token"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Client {
    pub(crate) async fn connect(common: &Common) -> Result<Client, Fault> {
        let request = uuid::Uuid::now_v7().to_string();
        let (tls, token_file) = (common.tls.clone(), common.token_file.clone());
        let shows = Shows { tls, token_file, request: request.clone() };
        let mut failed = Fault::usage("--coordinator is empty; write --coordinator https://HOST:PORT");
        let all = common.coordinator.split(',').map(str::trim).filter(|url| !url.is_empty());
        let all: Vec<String> = all.map(str::to_owned).collect();
        for url in all.clone() {
            match dial(&url, &shows).await {
                Ok(rpc) => return Ok(Client { rpc, url, all, shows, request }),
                Err(fault) => failed = fault,
            }
        }
        Err(failed)
    }

    /// Turns to the next coordinator that answers, if there is another one.
    async fn turn(&mut self) -> bool {
        let at = self.all.iter().position(|url| *url == self.url).map_or(0, |at| at + 1);
        for url in self.all.clone().iter().cycle().skip(at).take(self.all.len()).filter(|url| **url != self.url) {
            if let Ok(rpc) = dial(url, &self.shows).await {
                (self.rpc, self.url) = (rpc, url.clone());
                return true;
            }
        }
        false
    }

    /// Asks any coordinator: one that cannot reach the store is passed over.
    async fn any<T>(&mut self, call: impl AsyncFn(&mut Line) -> Result<Response<T>, Status>) -> Result<T, Fault> {
        let mut others = self.all.len().saturating_sub(1);
        loop {
            match call(&mut self.rpc).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if status.code() == Code::Unavailable && others > 0 && self.turn().await => others -= 1,
                Err(status) => return Err(self.fault(&status)),
            }
        }
    }

    /// Asks the coordinator that drives: one that stands by says where it is, and a take-over is waited for.
    async fn led<T>(&mut self, call: impl AsyncFn(&mut Line) -> Result<Response<T>, Status>) -> Result<T, Fault> {
        let clock = Clock::system();
        let began = clock.mono();
        loop {
            let status = match call(&mut self.rpc).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            let leader = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok()).map(str::to_owned);
            let Some(leader) = leader.filter(|_| clock.mono() - began < TAKE_OVER_MAX) else {
                return Err(self.fault(&status));
            };
            if !leader.is_empty() {
                let scheme = self.url.split("://").next().unwrap_or("https");
                let url = if leader.contains("://") { leader } else { format!("{scheme}://{leader}") };
                // One that is gone is still named until its lease has run out.
                if let Ok(rpc) = dial(&url, &self.shows).await {
                    (self.rpc, self.url) = (rpc, url);
                    continue;
                }
            }
            // It may know of none because it does not reach the store; another one may.
            self.turn().await;
            clock.sleep(ASK_AGAIN).await;
        }
    }

    fn fault(&self, status: &Status) -> Fault {
        let text = status.message();
        match status.code() {
            Code::NotFound => Fault::refused(format!("{text}; `pilot status` shows those that there are")),
            Code::FailedPrecondition | Code::InvalidArgument | Code::AlreadyExists => Fault::refused(text),
            Code::PermissionDenied => Fault::refused(text),
            Code::Unavailable if text.is_empty() => Fault::failed(format!("the coordinator at {} is gone", self.url)),
            _ => Fault::failed(format!("{text} (request {})", self.request)),
        }
    }

    pub(crate) async fn preflight(&mut self, spec: &Value) -> Result<Value, Fault> {
        let request = SpecRequest { spec_json: spec.to_string() };
        parse(&self.led(async |rpc| rpc.preflight(request.clone()).await).await?.json)
    }

    pub(crate) async fn plan<T: DeserializeOwned>(&mut self, spec: &Value) -> Result<T, Fault> {
        let request = SpecRequest { spec_json: spec.to_string() };
        parse(&self.led(async |rpc| rpc.plan(request.clone()).await).await?.json)
    }

    /// Returns the upgrade's id.
    pub(crate) async fn start(&mut self, spec: &Value, digest: &str) -> Result<String, Fault> {
        let (plan_digest, asked_by) = (digest.to_owned(), person());
        let request = StartRequest { spec_json: spec.to_string(), plan_digest, asked_by };
        let started = self.led(async |rpc| rpc.start_upgrade(request.clone()).await).await;
        // Refused is not begun; any other end leaves it open.
        let unknown = |fault: Fault| match fault.exit {
            Exit::Failed => {
                Fault::failed(format!("{}; whether the upgrade has begun is not known: pilot status", fault.text))
            }
            _ => fault,
        };
        Ok(started.map_err(unknown)?.upgrade_id)
    }

    /// An empty id asks for all.
    pub(crate) async fn status<T: DeserializeOwned>(&mut self, id: &str) -> Result<T, Fault> {
        let request = StatusRequest { upgrade_id: id.to_owned() };
        parse(&self.any(async |rpc| rpc.status(request.clone()).await).await?.json)
    }

    pub(crate) async fn history<T: DeserializeOwned>(&mut self, id: &str) -> Result<T, Fault> {
        let request = UpgradeRequest { upgrade_id: id.to_owned() };
        parse(&self.any(async |rpc| rpc.history(request.clone()).await).await?.json)
    }

    pub(crate) async fn report<T: DeserializeOwned>(&mut self, id: &str) -> Result<T, Fault> {
        let request = UpgradeRequest { upgrade_id: id.to_owned() };
        parse(&self.any(async |rpc| rpc.report(request.clone()).await).await?.json)
    }

    pub(crate) async fn settings<T: DeserializeOwned>(&mut self, id: &str) -> Result<T, Fault> {
        let request = UpgradeRequest { upgrade_id: id.to_owned() };
        parse(&self.any(async |rpc| rpc.settings(request.clone()).await).await?.json)
    }

    pub(crate) async fn agents(&mut self) -> Result<Value, Fault> {
        parse(&self.led(async |rpc| rpc.agents(AgentsRequest {}).await).await?.json)
    }

    /// Puts a wish into the inbox. `request` is the engine's request, with `confirm` beside it where one is needed.
    pub(crate) async fn ask(&mut self, id: &str, request: &Value) -> Result<Value, Fault> {
        let request = AskRequest {
            upgrade_id: id.to_owned(),
            ask_id: self.request.clone(),
            asked_by: person(),
            request_json: request.to_string(),
        };
        // The same wish twice is one: it has its id.
        parse(&self.any(async |rpc| rpc.ask(request.clone()).await).await?.json)
    }

    pub(crate) async fn watch(&mut self, id: &str, from_seq: u64) -> Result<Watching, Fault> {
        let request = WatchRequest { upgrade_id: id.to_owned(), from_seq };
        Ok(Watching(self.any(async |rpc| rpc.watch(request.clone()).await).await?))
    }
}

async fn dial(url: &str, shows: &Shows) -> Result<Line, Fault> {
    let way = way(url, shows)?;
    let token_file = shows.token_file.clone().filter(|_| !matches!(way, Way::Plain));
    let badge = Badge { token: token_file, request: shows.request.clone() };
    if let Some(file) = &badge.token {
        token(file).map_err(Fault::usage)?;
    }
    let tune = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
    };
    let channel = tls::connect(url, &way, tune).await.map_err(|error| {
        let cause = runtime::supervision::chain(&error);
        if let Some(alert) = tls::refused_by_peer(&error) {
            let code = codes::BAD_CERTIFICATE;
            return Fault::refused(format!(
                "{code}: the coordinator at {url} does not take this certificate ({alert})"
            ));
        }
        match error {
            DialError::Address { .. } => Fault::usage(cause),
            DialError::Transport(_) => Fault::failed(format!(
                "the coordinator at {url} does not answer ({cause}); is `pilot serve` running there?"
            )),
        }
    })?;
    Ok(OperatorClient::with_interceptor(channel, badge).max_decoding_message_size(DOCUMENT_BYTES_MAX))
}

/// How the coordinator is dialled: `https://` with a certificate or a token, `http://` only on this machine, with neither.
fn way(url: &str, shows: &Shows) -> Result<Way, Fault> {
    if url.starts_with("http://") {
        if tls::is_loopback_url(url) {
            return Ok(Way::Plain);
        }
        return Err(Fault::usage(format!(
            "{url} is without protection, and not this machine: write https://HOST:PORT"
        )));
    }
    let folder = shows.tls.as_deref().ok_or_else(|| match shows.token_file {
        None => Fault::usage(format!("{url} asks for your certificate: give its folder with --tls or PILOT_TLS")),
        Some(_) => Fault::usage(format!("give the folder of the ca.crt that {url} is of, with --tls or PILOT_TLS")),
    })?;
    if shows.token_file.is_some() && !folder.join("tls.crt").exists() {
        return Way::unnamed(&folder.join("ca.crt")).map_err(|error| Fault::usage(format!("ca.crt: {error}")));
    }
    let credentials = Credentials::open(folder, Clock::system())
        .map_err(|error| Fault::usage(runtime::supervision::chain(&error)))?;
    Ok(Way::Tls { credentials: Arc::new(credentials), name: None })
}

/// A stream of views.
pub(crate) struct Watching(Streaming<Document>);

impl Watching {
    /// `Ok(None)` when the upgrade has ended, `Err` when the stream broke (dial again).
    pub(crate) async fn next(&mut self) -> Result<Option<WatchView>, Fault> {
        let next = self.0.message().await.map_err(|status| Fault::failed(status.message()))?;
        next.map(|document| parse(&document.json)).transpose()
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Fault> {
    serde_json::from_str(json).map_err(|error| Fault {
        exit: Exit::Failed,
        text: format!("the coordinator's answer cannot be read ({error}); is it of another version?"),
    })
}

/// Who asks, as the machine knows it.
fn person() -> String {
    std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "operator".to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Bytes;
    use runtime::tls::Incoming;
    use tonic::body::Body;
    use tonic::codegen::{Service, http};

    use super::*;

    /// Answers every call with a document whose message has so many bytes.
    #[derive(Clone)]
    struct Long(usize);

    impl tonic::server::NamedService for Long {
        const NAME: &'static str = "upgrade_pilot.v1.Operator";
    }

    impl Service<http::Request<Body>> for Long {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<http::Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            // A field of text: its number, its length in four bytes, and the text.
            let text = self.0 - 5;
            let length = [0x80 | text, 0x80 | text >> 7, 0x80 | text >> 14, text >> 21];
            let length = length.map(|part| u8::try_from(part & 0xff).unwrap());
            let mut frame = vec![0];
            frame.extend(u32::try_from(self.0).unwrap().to_be_bytes());
            frame.push(0x0a);
            frame.extend(length);
            frame.push(b'[');
            frame.resize(5 + self.0 - 1, b' ');
            frame.push(b']');
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
            let answer = http::Response::builder().header("content-type", "application/grpc").body(Body::new(body));
            std::future::ready(Ok(answer.unwrap()))
        }
    }

    async fn status_of(bytes: usize) -> Result<Value, Fault> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let coordinator = format!("http://{}", listener.local_addr().unwrap());
        let incoming = Incoming::plain(listener, Clock::system()).unwrap();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(tonic::transport::Server::builder().add_service(Long(bytes)).serve_with_incoming(incoming));
        let common = Common { coordinator, tls: None, token_file: None, output: crate::cli::Output::Json };
        Client::connect(&common).await?.status("").await
    }

    #[tokio::test]
    async fn an_answer_beyond_64_mebibytes_is_refused_by_its_length() {
        assert_eq!(status_of(64 << 20).await.map_err(|fault| fault.text), Ok(Value::Array(Vec::new())));
        let refused = status_of((64 << 20) + 1).await.expect_err("one byte more is read");
        assert!(refused.text.contains("67108865") && refused.text.contains("67108864"), "{}", refused.text);
        assert!(matches!(refused.exit, Exit::Failed));
    }
}
