//! The web page: all upgrades, and one. Rendered here, refreshed by the browser; it shows and changes nothing.

use askama::Template;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use proto::identity::Role;
use runtime::tls::Peer;

use crate::operator::view::{Brief, StatusView};
use crate::operator::{Operator, Refusal};
use crate::who::{Guard, Shown};

/// The pages' routes, to be merged with the admin endpoint's.
pub fn router(operator: Operator) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/upgrades/{id}", get(upgrade))
        .route("/upgrades/{id}/status.json", get(status_json))
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
    upgrades: Vec<Brief>,
    agents: Vec<crate::operator::view::ClusterAgents>,
}

#[derive(Template)]
#[template(path = "upgrade.html")]
struct One {
    view: StatusView,
}

async fn overview(State(operator): State<Operator>) -> Response {
    match operator.list().await {
        Ok(upgrades) => page(&Overview { upgrades, agents: operator.agents() }),
        Err(refusal) => refused(&refusal),
    }
}

async fn upgrade(State(operator): State<Operator>, Path(id): Path<String>) -> Response {
    match operator.status(&id).await {
        Ok(view) => page(&One { view }),
        Err(refusal) => refused(&refusal),
    }
}

async fn status_json(State(operator): State<Operator>, Path(id): Path<String>) -> Response {
    match operator.status(&id).await {
        Ok(view) => Json(view).into_response(),
        Err(refusal) => refused(&refusal),
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
