//! What pages load: our style and script, and two vendored libraries with their licences. Compiled in; nothing comes from elsewhere.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// One file: its name, its type, its bytes.
type Asset = (&'static str, &'static str, &'static [u8]);

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

const ALL: [Asset; 8] = [
    ("page.css", STYLE, include_bytes!("assets/page.css")),
    ("page.js", SCRIPT, include_bytes!("assets/page.js")),
    ("charts.js", SCRIPT, include_bytes!("assets/charts.js")),
    ("htmx.js", SCRIPT, include_bytes!("assets/htmx-4.0.1.min.js")),
    ("htmx-LICENSE.txt", TEXT, include_bytes!("assets/htmx-LICENSE.txt")),
    ("uplot.js", SCRIPT, include_bytes!("assets/uplot-1.6.32.min.js")),
    ("uplot.css", STYLE, include_bytes!("assets/uplot-1.6.32.min.css")),
    ("uplot-LICENSE.txt", TEXT, include_bytes!("assets/uplot-LICENSE.txt")),
];

/// Changes with any of them: part of their addresses, so that browsers keep them for good.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = Sha256::new();
    ALL.iter().for_each(|(_, _, bytes)| hasher.update(bytes));
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});

/// `GET /assets/{version}/{name}`.
pub(super) async fn asset(Path((version, name)): Path<(String, String)>) -> Response {
    let Some((_, kind, bytes)) = ALL.iter().find(|(known, ..)| *known == name) else {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    };
    // A page of another version asks for its own: it is not to be kept under that name.
    let keep = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static(keep))];
    (headers, *bytes).into_response()
}
