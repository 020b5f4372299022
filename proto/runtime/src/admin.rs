//! The admin HTTP endpoint: `/metrics`, `/livez`, `/readyz`, `/debug/tasks`. It shows; it changes nothing.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    routing::get,
};
use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::{
    clock::Clock,
    recorder::Recorder,
    shutdown::Stop,
    supervision::Board,
    tls::{Connection, Incoming},
};

/// What the endpoint shows.
#[derive(Clone)]
pub struct Admin {
    pub recorder: Recorder,
    pub board: Board,
    /// Answers `/livez` and names the process there, as `pilot 0.0.0`.
    pub version: &'static str,
}

impl Admin {
    /// The four routes; merge them with the routes of a web page by [`Router::merge`].
    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(alive))
            .route("/readyz", get(ready))
            .route("/debug/tasks", get(tasks))
            .with_state(self)
    }
}

async fn metrics(State(admin): State<Admin>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "text/plain; version=0.0.4")], admin.recorder.render())
}

async fn alive(State(admin): State<Admin>) -> &'static str {
    admin.version
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.board.unready() {
        waiting if waiting.is_empty() => (StatusCode::OK, "ready\n".into()),
        waiting => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", waiting.join(", "))),
    }
}

async fn tasks(State(admin): State<Admin>) -> Json<serde_json::Value> {
    Json(serde_json::json!(admin.board.states()))
}

/// Binds `address`; port 0 lets the system choose. The error names the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// How often the recorder's memory is bounded.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Open connections get this long to end after the stop, or after their life.
const DRAIN: Duration = Duration::from_secs(2);
/// A connection is closed after this long; whoever wants more dials again. It also ends those that do not read what they asked for.
const LIFE: Duration = Duration::from_secs(60);

/// What the endpoint bears of those who connect; a part of both configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Connections at once; more wait in the system's queue.
    pub connections_max: usize,
    /// How long the head of a request may take, the wait for its first byte included.
    pub head_seconds_max: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { connections_max: 64, head_seconds_max: 10 }
    }
}

impl Bounds {
    /// What is wrong with them, if something is.
    pub fn wrong(&self) -> Option<&'static str> {
        let fit = (1..=10_000).contains(&self.connections_max) && (1..=60).contains(&self.head_seconds_max);
        (!fit).then_some("connections_max is to be from 1 to 10000, head_seconds_max from 1 to 60")
    }
}

/// Serves `router` until `stop`; open requests then get two seconds. Bounds `recorder`'s memory meanwhile. Every request
/// has a `ConnectInfo<Peer>` among its extensions.
pub async fn serve(
    mut incoming: Incoming,
    router: Router,
    recorder: Recorder,
    clock: Clock,
    stop: Stop,
    bounds: Bounds,
) -> io::Result<()> {
    let mut upkeep = JoinSet::new();
    let (ticks, until) = (clock.clone(), stop.clone());
    upkeep.spawn(async move {
        while until.sleep(&ticks, UPKEEP_EVERY).await {
            recorder.upkeep();
        }
    });
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    let mut open = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((incoming.next().await?, place))
        };
        let Some(Some((connection, place))) = stop.unless(next).await else { break };
        while open.try_join_next().is_some() {}
        open.spawn(answer(connection?, router.clone(), bounds, clock.clone(), stop.clone(), place));
    }
    // Who has not ended by then is cut.
    let _late = clock.timeout(DRAIN, async { while open.join_next().await.is_some() {} }).await;
    upkeep.shutdown().await;
    Ok(())
}

/// Answers the requests of one connection until it ends, by itself or after its life.
async fn answer(
    connection: Connection,
    router: Router,
    bounds: Bounds,
    clock: Clock,
    stop: Stop,
    _place: OwnedSemaphorePermit,
) {
    let router = router.layer(Extension(ConnectInfo(connection.peer().clone())));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(bounds.head_seconds_max));
    let mut serving = pin!(http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router)));
    tokio::select! {
        // How it ended is the other end's affair.
        _ended = &mut serving => return,
        () = stop.triggered() => {}
        () = clock.sleep(LIFE) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _late = clock.timeout(DRAIN, serving).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_four_routes_answer_and_the_stop_ends_them() {
        let (stop, clock, recorder) = (Stop::new(), Clock::system(), Recorder::detached());
        let admin = Admin { recorder: recorder.clone(), board: Board::default(), version: "pilot-test 0.0.0" };
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = Incoming::plain(listener, clock.clone()).unwrap();
        let server = tokio::spawn(serve(incoming, admin.router(), recorder, clock, stop.clone(), Bounds::default()));
        assert!(ask(address, "/livez").await.ends_with("pilot-test 0.0.0"));
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/metrics").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/debug/tasks").await.ends_with("{}"));
        stop.trigger();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_sends_half_a_head_is_closed_and_keeps_nobody_out_for_longer() {
        let (stop, clock, recorder) = (Stop::new(), Clock::system(), Recorder::detached());
        let admin = Admin { recorder: recorder.clone(), board: Board::default(), version: "pilot-test 0.0.0" };
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounds = Bounds { connections_max: 2, head_seconds_max: 1 };
        let incoming = Incoming::plain(listener, clock.clone()).unwrap();
        let server = tokio::spawn(serve(incoming, admin.router(), recorder, clock, stop.clone(), bounds));
        let mut slow = Vec::new();
        for _ in 0..4 {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HT").await.unwrap();
            slow.push(stream);
        }
        // It waits for a place until the slow ones are closed, two at a time.
        assert!(ask(address, "/livez").await.ends_with("pilot-test 0.0.0"));
        for mut stream in slow {
            let mut rest = Vec::new();
            let ended = stream.read_to_end(&mut rest).await;
            assert!(ended.is_err() || !rest.starts_with(b"HTTP/1.1 200"), "half a head was answered");
        }
        stop.trigger();
        server.await.unwrap().unwrap();
        assert!(Bounds { connections_max: 0, ..bounds }.wrong().is_some() && bounds.wrong().is_none());
    }
}
