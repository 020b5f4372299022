//! The report of an upgrade as one file: `/upgrades/{id}/report.html`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use super::refused;
use crate::operator::Operator;
use crate::report::html;

pub(super) async fn page(State(operator): State<Operator>, Path(id): Path<String>) -> Response {
    let report = match operator.report(&id).await {
        Ok(report) => report,
        Err(refusal) => return refused(&refusal),
    };
    match html::page(&report) {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
