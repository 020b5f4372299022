//! The journal in pages, newest first: the page has the newest facts, older ones are loaded when they are asked for.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Response};
use engine::Seq;
use serde::Deserialize;

use super::{Asked, Frame, Site, filters, refused, shown};
use crate::operator::view::{FactView, StatusView};
use crate::operator::{Operator, Refusal};

/// Facts of one page.
const PAGE: u64 = 50;

/// A part of the journal as rows of its table.
pub(super) struct Rows {
    id: String,
    /// Newest first.
    facts: Vec<FactView>,
    /// The first fact that is shown; 0: there are no older ones.
    first: u64,
}

/// The rows, and behind them what loads older ones.
#[derive(Template)]
#[template(path = "journal/rows.html")]
struct Table<'a> {
    rows: &'a Rows,
}

/// New rows alone.
#[derive(Template)]
#[template(path = "journal/facts.html")]
struct Facts<'a> {
    facts: &'a [FactView],
}

#[derive(Template)]
#[template(path = "journal/page.html")]
struct Page<'a> {
    frame: Frame,
    id: &'a str,
    rows: &'a str,
}

impl Rows {
    pub(super) fn html(&self) -> askama::Result<String> {
        Table { rows: self }.render()
    }
}

/// Rows of facts that have come, newest first.
pub(super) fn rows_of(mut facts: Vec<FactView>) -> askama::Result<String> {
    facts.reverse();
    Facts { facts: &facts }.render()
}

/// The newest facts, as far as this view tells of them.
pub(super) async fn newest(operator: &Operator, view: &StatusView) -> Result<Rows, Refusal> {
    before(operator, &view.id, view.next_seq).await
}

async fn before(operator: &Operator, id: &str, end: u64) -> Result<Rows, Refusal> {
    let first = end.saturating_sub(PAGE);
    let limit = usize::try_from(end - first).unwrap_or_default();
    let mut facts = operator.some_history(id, Seq(first), limit).await?;
    facts.reverse();
    Ok(Rows { id: id.to_owned(), facts, first })
}

#[derive(Deserialize)]
pub(super) struct Older {
    before: Option<u64>,
}

/// `GET /upgrades/{id}/journal?before=SEQ`: rows for a page that asks for them by script, else a page of its own.
pub(super) async fn older(
    State(site): State<Site>,
    Path(id): Path<String>,
    Query(Older { before: end }): Query<Older>,
    Asked(port): Asked,
    headers: HeaderMap,
) -> Response {
    let read = async {
        let view = site.operator.status(&id).await?;
        before(&site.operator, &id, end.unwrap_or(u64::MAX).min(view.next_seq)).await
    };
    match read.await {
        Ok(rows) if headers.contains_key("hx-request") => match rows.html() {
            Ok(html) => Html(html).into_response(),
            Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        Ok(rows) => shown(|| Page { frame: Frame::new(&site.operator, port)?, id: &id, rows: &rows.html()? }.render()),
        Err(refusal) => refused(&site.operator, port, &refusal),
    }
}
