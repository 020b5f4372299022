//! The admin HTTP endpoint: `/metrics`, `/livez`, `/readyz`, `/debug/tasks`. It shows; it changes nothing.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    clock::Clock,
    recorder::Recorder,
    shutdown::Stop,
    supervision::Board,
    tls::{Incoming, Peer},
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
/// Open connections get this long to end after the stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves `router` without protection until `stop`, as [`serve_on`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    recorder: Recorder,
    clock: Clock,
    stop: Stop,
) -> io::Result<()> {
    let incoming = Incoming::plain(listener, clock.clone())?;
    serve_on(incoming, router, recorder, clock, stop).await
}

/// Serves `router` until `stop`; open requests then get two seconds. Bounds `recorder`'s memory meanwhile. Every request
/// has a `ConnectInfo<Peer>` among its extensions.
pub async fn serve_on(
    incoming: Incoming,
    router: Router,
    recorder: Recorder,
    clock: Clock,
    stop: Stop,
) -> io::Result<()> {
    let mut upkeep = JoinSet::new();
    let (ticks, until) = (clock.clone(), stop.clone());
    upkeep.spawn(async move {
        while until.sleep(&ticks, UPKEEP_EVERY).await {
            recorder.upkeep();
        }
    });
    let asked = stop.clone();
    let server = axum::serve(incoming, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move { asked.triggered().await });
    let served = tokio::select! {
        end = async { server.await } => end,
        _late = stop.drain(&clock, DRAIN, std::future::pending::<()>()) => Ok(()),
    };
    upkeep.shutdown().await;
    served
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
        let server = tokio::spawn(serve(listener, admin.router(), recorder, clock, stop.clone()));
        assert!(ask(address, "/livez").await.ends_with("pilot-test 0.0.0"));
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/metrics").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/debug/tasks").await.ends_with("{}"));
        stop.trigger();
        server.await.unwrap().unwrap();
    }
}
