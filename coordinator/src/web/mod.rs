//! The web page: all upgrades, and one. Rendered here, refreshed by the browser; it shows and changes nothing.

mod report;

use std::convert::Infallible;

use askama::Template;
use axum::extract::{ConnectInfo, FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use proto::identity::Role;
use runtime::tls::Peer;

use crate::operator::view::{Brief, StandsBy, StatusView};
use crate::operator::{Operator, Refusal};
use crate::who::{Guard, Shown};

/// The pages' routes, to be merged with the admin endpoint's.
pub fn router(operator: Operator) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/upgrades/{id}", get(upgrade))
        .route("/upgrades/{id}/status.json", get(status_json))
        .route("/upgrades/{id}/report.html", get(report::page))
        .with_state(operator)
}

/// Everything behind the same identity as the command line: whoever may look sees all, nobody else sees more than that the
/// process lives and is ready.
pub fn guarded(router: Router, guard: Guard) -> Router {
    router.layer(middleware::from_fn_with_state(guard, admit))
}

async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if !["/livez", "/readyz"].contains(&request.uri().path()) {
        let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer);
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Err(denied) = guard.holder(&Shown::new(peer, authorization), Role::View).await {
            return (StatusCode::FORBIDDEN, format!("{denied}\n")).into_response();
        }
    }
    next.run(request).await
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    stands_by: Option<StandsBy>,
    port: u16,
    upgrades: Vec<Brief>,
    agents: Vec<crate::operator::view::ClusterAgents>,
}

#[derive(Template)]
#[template(path = "upgrade.html")]
struct One {
    stands_by: Option<StandsBy>,
    port: u16,
    view: StatusView,
}

async fn overview(State(operator): State<Operator>, Asked(port): Asked) -> Response {
    match operator.list().await {
        Ok(upgrades) => page(&Overview { stands_by: operator.stands_by(), port, upgrades, agents: operator.agents() }),
        Err(refusal) => refused(&refusal),
    }
}

async fn upgrade(State(operator): State<Operator>, Path(id): Path<String>, Asked(port): Asked) -> Response {
    match operator.status(&id).await {
        Ok(view) => page(&One { stands_by: operator.stands_by(), port, view }),
        Err(refusal) => refused(&refusal),
    }
}

async fn status_json(State(operator): State<Operator>, Path(id): Path<String>) -> Response {
    match operator.status(&id).await {
        Ok(view) => Json(view).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// The port at which the page was asked for: the other coordinators' pages are taken to be at the same.
struct Asked(u16);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Asked, Infallible> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let authority = host.parse::<axum::http::uri::Authority>().ok();
        Ok(Asked(authority.and_then(|authority| authority.port_u16()).unwrap_or(443)))
    }
}

fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let code = match refusal {
        Refusal::NoSuchUpgrade(_) => StatusCode::NOT_FOUND,
        Refusal::Refused(_) => StatusCode::CONFLICT,
        Refusal::Failed(_) | Refusal::NotLeading(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, refusal.to_string()).into_response()
}
