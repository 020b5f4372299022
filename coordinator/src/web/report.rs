//! The report of an upgrade as one file: `/upgrades/{id}/report.html`.

use axum::extract::{Path, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{IntoResponse, Response};

use super::{Asked, Site, refused, shown};
use crate::report::html;

/// The file carries its own style, as it must when it is saved; it has no script.
const RULES: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

pub(super) async fn page(State(site): State<Site>, Path(id): Path<String>, Asked(port): Asked) -> Response {
    match site.operator.report(&id).await {
        Ok(report) => ([(CONTENT_SECURITY_POLICY, RULES)], shown(|| html::page(&report))).into_response(),
        Err(refusal) => refused(&site.operator, port, &refusal),
    }
}
