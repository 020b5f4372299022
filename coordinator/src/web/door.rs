//! The door of the pages: who may look, from where a request may come, and what a browser is told about every answer.

use std::net::IpAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use proto::identity::Role;
use runtime::tls::Peer;

use crate::codes;
use crate::who::{Caller, Denied, Guard, Shown};

/// Nothing but our own files runs, is drawn or is asked; nobody frames us.
const RULES: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Who was let in, and by what.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    pub(super) guard: Guard,
    shown: Shown,
    from: Option<IpAddr>,
}

impl Visitor {
    /// Whose name stands in the journal: that of the certificate or token; without one, where the browser is.
    pub(super) fn name(&self) -> String {
        let from = self.from.map_or_else(|| "an unknown place".to_owned(), |from| from.to_string());
        self.caller.name(&format!("web page at {from}"))
    }

    /// May it do what takes this role? A refusal is counted and logged.
    pub(super) async fn allowed(&self, role: Role) -> Result<(), Denied> {
        self.guard.holder(&self.shown, role).await.map(drop)
    }
}

/// Everything behind the same identity as the command line: whoever may look sees all, nobody else sees more than that the
/// process lives and is ready.
pub(super) async fn admit(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    if ["/livez", "/readyz"].contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.clone());
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = Shown::new(peer.as_ref(), authorization);
    let caller = match guard.holder(&shown, Role::View).await {
        Ok(caller) => caller,
        Err(denied) => return (StatusCode::FORBIDDEN, format!("{denied}\n")).into_response(),
    };
    let plain = peer.as_ref().is_none_or(|peer| !peer.secured);
    if plain && request.uri().path() != "/metrics" && !asked_here(request.headers()) {
        let why = "without TLS the page is for this machine only: ask for it at 127.0.0.1, [::1] or localhost";
        return (StatusCode::FORBIDDEN, format!("{}: {why}\n", codes::OTHER_SITE)).into_response();
    }
    let from = peer.map(|peer| peer.address.ip());
    request.extensions_mut().insert(Visitor { caller, guard, shown, from });
    let mut answer = next.run(request).await;
    for (name, value) in RULES {
        // The report has a rule of its own.
        answer.headers_mut().entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    answer
}

fn text(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A name that leads here is no proof: a foreign page's own name can be made to lead to this machine.
fn asked_here(headers: &HeaderMap) -> bool {
    let Some(authority) = text(headers, HOST).and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Is a wish sent by a page of ours? The browser itself says so; other pages cannot make it say so.
pub(super) fn same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = text(headers, "sec-fetch-site") {
        return site == "same-origin";
    }
    let (Some(origin), Some(host)) = (text(headers, ORIGIN), text(headers, HOST)) else { return false };
    origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn a_wish_is_taken_from_our_own_pages_only() {
        let check = |all: &[(&'static str, &'static str)], expected| assert_eq!(same_origin(&headers(all)), expected);
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "same-site"), ("origin", "https://a:1"), ("host", "a:1")], false);
        check(&[("sec-fetch-site", "cross-site")], false);
        check(&[("sec-fetch-site", "none")], false);
        check(&[("origin", "https://pilot:7401"), ("host", "pilot:7401")], true);
        check(&[("origin", "https://evil"), ("host", "pilot:7401")], false);
        check(&[("origin", "null"), ("host", "pilot:7401")], false);
        check(&[("host", "pilot:7401")], false);
    }

    #[test]
    fn without_tls_a_foreign_name_that_leads_here_is_not_answered() {
        let check = |host, expected| assert_eq!(asked_here(&headers(&[("host", host)])), expected, "{host}");
        ["127.0.0.1:7401", "localhost:1", "[::1]:7401", "127.9.9.9", "LOCALHOST"]
            .iter()
            .for_each(|host| check(host, true));
        ["evil.example:7401", "10.0.0.1", "127.0.0.1.evil.example", ""].iter().for_each(|host| check(host, false));
    }
}
