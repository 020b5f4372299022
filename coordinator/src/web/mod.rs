//! The web page: all upgrades, and one, kept up to date by server-sent events; wishes of people go the way of the command line's,
//! through `Operator::ask`. Rendered here; what is shown are the views that `--output json` prints.
//!
//! `door.rs` lets in, `one.rs` and `all.rs` make sections of HTML, `live.rs` sends those that change, `act.rs` takes wishes.

mod act;
mod all;
mod assets;
mod charts;
mod cut;
mod door;
#[expect(unreachable_pub, reason = "what askama makes of a filter is public")]
mod filters;
mod journal;
mod live;
mod one;
mod parameters;
mod report;
mod seen;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;

use askama::Template;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::header::{CACHE_CONTROL, HOST};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use proto::identity::Role;
use tokio::sync::Semaphore;

use self::door::Visitor;
use self::one::{May, One, Section};
use crate::operator::view::StandsBy;
use crate::operator::{Operator, Refusal};
use crate::who::Guard;

/// A form of ours is much smaller.
const FORM_BYTES_MAX: usize = 8 << 10;
/// Samples that the charts of one page are made of: all that are kept.
const SAMPLES_READ: u32 = 20_000;

/// What the handlers share.
#[derive(Clone)]
struct Site {
    operator: Operator,
    /// Places of live pages.
    live: Arc<Semaphore>,
}

/// The pages' routes, to be merged with the admin endpoint's. At most `live_max` pages are kept up to date at once.
pub fn router(operator: Operator, live_max: usize) -> Router {
    let site = Site { operator, live: Arc::new(Semaphore::new(live_max)) };
    Router::new()
        .route("/", get(overview))
        .route("/live", get(live::all))
        .route("/upgrades/{id}", get(upgrade))
        .route("/upgrades/{id}/live", get(live::one))
        .route("/upgrades/{id}/journal", get(journal::older))
        .route("/upgrades/{id}/samples.json", get(samples_json))
        .route("/upgrades/{id}/status.json", get(status_json))
        .route("/upgrades/{id}/ask", post(act::ask).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)))
        .route("/explain/{code}", get(explain))
        .route("/assets/{version}/{name}", get(assets::asset))
        .route("/upgrades/{id}/report.html", get(report::page))
        .with_state(site)
}

/// Everything behind the same identity as the command line; see `door.rs`.
pub fn guarded(router: Router, guard: Guard) -> Router {
    router.layer(middleware::from_fn_with_state(guard, door::admit))
}

/// What every page has around it.
struct Frame {
    version: &'static str,
    stands_by: String,
}

impl Frame {
    fn new(operator: &Operator, port: u16) -> askama::Result<Frame> {
        Ok(Frame { version: &assets::VERSION, stands_by: stands_by(operator, port)? })
    }
}

#[derive(Template)]
#[template(path = "stands_by.html")]
struct Standing {
    stands_by: Option<StandsBy>,
    port: u16,
}

fn stands_by(operator: &Operator, port: u16) -> askama::Result<String> {
    Standing { stands_by: operator.stands_by(), port }.render()
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    sections: Vec<Section>,
}

#[derive(Template)]
#[template(path = "upgrade.html")]
struct Upgrade<'a> {
    frame: Frame,
    one: &'a One,
    say: String,
    sections: Vec<Section>,
    journal: journal::Rows,
}

impl Upgrade<'_> {
    fn section(&self, id: &str) -> &str {
        self.sections.iter().find(|(name, _)| *name == id).map_or("", |(_, html)| html)
    }
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message {
    frame: Frame,
    title: String,
    text: String,
}

async fn overview(State(site): State<Site>, Asked(port): Asked) -> Response {
    match site.operator.list().await {
        Ok(upgrades) => shown(|| {
            let sections = all::sections(&upgrades, &site.operator.agents())?;
            Overview { frame: Frame::new(&site.operator, port)?, sections }.render()
        }),
        Err(refusal) => refused(&site.operator, port, &refusal),
    }
}

async fn upgrade(
    State(site): State<Site>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Asked(port): Asked,
) -> Response {
    let read = async {
        let one = gather(&site.operator, &visitor, &id).await?;
        let journal = journal::newest(&site.operator, &one.view).await?;
        Ok((one, journal))
    };
    match read.await {
        Ok((one, journal)) => shown(|| {
            let (frame, sections) = (Frame::new(&site.operator, port)?, one.sections()?);
            Upgrade { frame, say: one::say(&one.view), one: &one, sections, journal }.render()
        }),
        Err(refusal) => refused(&site.operator, port, &refusal),
    }
}

/// All that the page of one upgrade shows, but for its journal and charts.
async fn gather(operator: &Operator, visitor: &Visitor, id: &str) -> Result<One, Refusal> {
    let (view, before) = operator.status_beside(id).await?;
    let asked = operator.spec(id).await?;
    Ok(One { view, before, asked, may: may(visitor) })
}

fn may(visitor: &Visitor) -> May {
    May { operate: visitor.caller.may(Role::Operate), approve: visitor.caller.may(Role::Approve) }
}

async fn status_json(State(site): State<Site>, Path(id): Path<String>) -> Response {
    match site.operator.status(&id).await {
        Ok(view) => Json(view).into_response(),
        Err(refusal) => (status_of(&refusal), refusal.to_string()).into_response(),
    }
}

async fn samples_json(State(site): State<Site>, Path(id): Path<String>) -> Response {
    let read = async {
        let view = site.operator.status(&id).await?;
        Ok::<_, Refusal>((site.operator.samples(&id, SAMPLES_READ).await?, view))
    };
    match read.await {
        Ok((samples, view)) => Json(charts::charts(&samples, &view)).into_response(),
        Err(refusal) => (status_of(&refusal), refusal.to_string()).into_response(),
    }
}

/// The runbook page of a code, as `pilot explain` prints it.
async fn explain(State(site): State<Site>, Path(code): Path<String>, Asked(port): Asked) -> Response {
    let code = code.to_ascii_uppercase();
    let (status, text) = match crate::cli::explain::page(&code) {
        Some(page) => (StatusCode::OK, page.to_owned()),
        None => (StatusCode::NOT_FOUND, format!("there is no code {code}")),
    };
    message(&site.operator, port, status, code, text)
}

/// The port at which the page was asked for: the other coordinators' pages are taken to be at the same.
struct Asked(u16);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Asked, Infallible> {
        Ok(Asked(port(&parts.headers)))
    }
}

fn port(headers: &HeaderMap) -> u16 {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = host.parse::<Authority>().ok();
    authority.and_then(|authority| authority.port_u16()).unwrap_or(443)
}

fn shown(render: impl FnOnce() -> askama::Result<String>) -> Response {
    match render() {
        Ok(html) => ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Html(html)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn message(operator: &Operator, port: u16, status: StatusCode, title: String, text: String) -> Response {
    let page = shown(|| Message { frame: Frame::new(operator, port)?, title, text }.render());
    (status, page).into_response()
}

fn refused(operator: &Operator, port: u16, refusal: &Refusal) -> Response {
    let title = match refusal {
        Refusal::NoSuchUpgrade(_) => "There is no such upgrade",
        Refusal::Refused(_) => "Refused",
        Refusal::NotLeading(_) => "This coordinator stands by",
        Refusal::Failed(_) => "It did not work",
    };
    message(operator, port, status_of(refusal), title.to_owned(), refusal.to_string())
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NoSuchUpgrade(_) => StatusCode::NOT_FOUND,
        Refusal::Refused(_) => StatusCode::CONFLICT,
        Refusal::Failed(_) | Refusal::NotLeading(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
