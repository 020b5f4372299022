//! The one listener: AWS Query for RDS, Smithy RPC v2 CBOR, JSON 1.0 and Query for CloudWatch, and the lab's own control path.
//! A call is decoded and answered by `call`; faults of the wire happen there too.

mod call;
pub(crate) mod cbor;
mod connection;
pub(crate) mod query;
#[cfg(test)]
mod tests;
pub(crate) mod xml;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::cloud::{Cloud, dispatch, metrics};
use crate::faults::{Moment, Planned};
use crate::iam::Caller;
use crate::wire::connection::Listener;

/// Binds a loopback port and serves until the lab stops.
pub(crate) async fn serve(cloud: Cloud) -> io::Result<SocketAddr> {
    let listener = Listener::bind().await?;
    let address = listener.address();
    let accepting = cloud.clone();
    cloud.spawn(async move {
        let router = router(accepting.clone());
        loop {
            let connection = listener.accept().await;
            accepting.spawn(connection.serve(router.clone()));
        }
    });
    Ok(address)
}

fn router(cloud: Cloud) -> Router {
    Router::new()
        .route("/_lab/faults", get(faults).post(plan_fault).delete(clear_faults))
        .route("/_lab/moments", post(reached))
        .route("/_lab/requests", get(requests))
        .route("/_lab/callers", post(add_caller))
        .route("/_lab/operations", get(operations))
        .fallback(call::answer)
        .with_state(cloud)
}

async fn faults(State(cloud): State<Cloud>) -> Response {
    axum::Json(cloud.faults().outstanding()).into_response()
}

async fn plan_fault(State(cloud): State<Cloud>, axum::Json(planned): axum::Json<Planned>) -> StatusCode {
    cloud.faults().plan_all([planned]);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(cloud): State<Cloud>) -> StatusCode {
    cloud.faults().clear();
    StatusCode::NO_CONTENT
}

async fn reached(State(cloud): State<Cloud>, axum::Json(moment): axum::Json<Moment>) -> StatusCode {
    cloud.faults().reached(moment);
    StatusCode::NO_CONTENT
}

async fn requests(State(cloud): State<Cloud>) -> Response {
    axum::Json(cloud.requests().all()).into_response()
}

/// One more caller, or new policies for one that is known. A policy that cannot be read is refused with its reason.
async fn add_caller(State(cloud): State<Cloud>, axum::Json(caller): axum::Json<Caller>) -> StatusCode {
    cloud.callers().put(caller);
    StatusCode::NO_CONTENT
}

/// What is served, by service.
async fn operations() -> Response {
    axum::Json(serde_json::json!({ "rds": &dispatch::SERVED[..], "cloudwatch": &metrics::SERVED[..] })).into_response()
}
