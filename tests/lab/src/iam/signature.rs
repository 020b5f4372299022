//! Signature Version 4: who signed a call, worked out as AWS works it out, from the bytes that came. It knows keys and no
//! rights; it also signs, for tests that speak HTTP themselves.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use sha2::{Digest, Sha256};

use crate::cloud::errors::Refusal;
use crate::settings::REGION;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How old a signature may be, and how far ahead of the service's clock.
const AGE_MAX: SignedDuration = SignedDuration::from_mins(15);
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// A call as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// The `Authorization` header in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) access_key: String,
    scope: Scope,
    headers: Vec<String>,
    signature: String,
    /// `20261123T010203Z`.
    date: String,
    pub(crate) token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    day: String,
    region: String,
    service: String,
    last: String,
}

impl Scope {
    fn text(&self) -> String {
        format!("{}/{}/{}/{}", self.day, self.region, self.service, self.last)
    }
}

/// Reads who a call claims to be from.
///
/// # Errors
/// `MissingAuthenticationToken` without a signature, `IncompleteSignature` for one that cannot be read.
pub(crate) fn claim(signed: &Signed<'_>) -> Result<Claim, Refusal> {
    let Some(header) = signed.headers.get("authorization") else {
        return Err(Refusal::new("MissingAuthenticationToken", 403, "Request is missing Authentication Token"));
    };
    let header = header.to_str().map_err(|_| incomplete("The Authorization header is not ASCII.".to_owned()))?;
    let Some(parts) = header.trim().strip_prefix(ALGORITHM).filter(|rest| rest.starts_with(' ')) else {
        return Err(incomplete(format!("Unsupported AWS 'algorithm': '{header}'")));
    };
    let mut found = [("Credential", None), ("SignedHeaders", None), ("Signature", None)];
    for part in parts.split(',').map(str::trim) {
        let Some((name, value)) = part.split_once('=') else {
            let text = "not a valid key=value pair (missing equal-sign) in Authorization header";
            return Err(incomplete(format!("'{part}' {text}: '{header}'.")));
        };
        if let Some(slot) = found.iter_mut().find(|(known, _)| *known == name) {
            slot.1 = Some(value.to_owned());
        }
    }
    let lacking: Vec<String> = found
        .iter()
        .filter(|(_, value)| value.as_ref().is_none_or(String::is_empty))
        .map(|(name, _)| format!("Authorization header requires '{name}' parameter."))
        .collect();
    let [(_, Some(credential)), (_, Some(names)), (_, Some(signature))] = found else {
        return Err(incomplete(format!("{} Authorization={header}", lacking.join(" "))));
    };
    if !lacking.is_empty() {
        return Err(incomplete(format!("{} Authorization={header}", lacking.join(" "))));
    }
    let Some(date) = date(signed.headers) else {
        let text = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.";
        return Err(incomplete(format!("{text} Authorization={header}")));
    };
    let (access_key, scope) = scope(&credential)?;
    let headers: Vec<String> = names.split(';').map(str::to_owned).collect();
    Ok(Claim { access_key, scope, headers, signature, date, token: text_of(signed.headers, "x-amz-security-token") })
}

/// When a call says that it was signed: `X-Amz-Date`, or HTTP's own header in that form.
fn date(headers: &HeaderMap) -> Option<String> {
    let http = |text: String| match jiff::fmt::rfc2822::parse(&text) {
        Ok(at) => basic(at.timestamp()),
        Err(_) => text,
    };
    text_of(headers, "x-amz-date").or_else(|| text_of(headers, "date").map(http))
}

/// `AKID/20261123/us-east-1/rds/aws4_request`.
fn scope(credential: &str) -> Result<(String, Scope), Refusal> {
    let mut parts: Vec<&str> = credential.rsplitn(5, '/').collect();
    parts.reverse();
    let [key, day, region, service, last] = parts[..] else {
        let text = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term,";
        return Err(incomplete(format!("{text} got '{credential}'")));
    };
    let scope = Scope { day: day.into(), region: region.into(), service: service.into(), last: last.into() };
    Ok((key.to_owned(), scope))
}

/// Checks a claim against the secret of its key.
///
/// # Errors
/// `SignatureDoesNotMatch` for anything that is not as the service works it out; `IncompleteSignature` for a date that is none.
pub(crate) fn verify(
    signed: &Signed<'_>,
    claim: &Claim,
    secret: &str,
    service: &str,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(at) = parsed(&claim.date) else {
        let text = "Date must be in ISO-8601 'basic format'. Got";
        return Err(incomplete(format!("{text} '{}'. See http://en.wikipedia.org/wiki/ISO_8601", claim.date)));
    };
    check_scope(claim, service)?;
    check_age(claim, at, now)?;
    for name in ["host", "x-amz-date"] {
        if signed.headers.contains_key(name) && !claim.headers.iter().any(|signed| signed == name) {
            return Err(mismatch(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
    }
    let expected = signature(signed, claim, secret);
    // The keys of a lab on a loopback address are no secrets: a comparison that leaks time costs nothing here.
    if expected == claim.signature {
        return Ok(());
    }
    Err(mismatch(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and \
         signing method. Consult the service documentation for details.",
    ))
}

fn check_scope(claim: &Claim, service: &str) -> Result<(), Refusal> {
    let Scope { day, region, service: scoped, last } = &claim.scope;
    if region != REGION {
        return Err(mismatch(format!("Credential should be scoped to a valid region, not '{region}'.")));
    }
    if scoped != service {
        return Err(mismatch(format!("Credential should be scoped to correct service: '{service}'.")));
    }
    if last != "aws4_request" {
        let text = "Credential should be scoped with a valid terminator: 'aws4_request', not";
        return Err(mismatch(format!("{text} '{last}'.")));
    }
    if !claim.date.starts_with(day.as_str()) {
        let text = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP";
        let of_date = claim.date.get(..8).unwrap_or(&claim.date);
        return Err(mismatch(format!("{text}: '{day}' != '{of_date}', from '{}'.", claim.date)));
    }
    Ok(())
}

fn check_age(claim: &Claim, at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
    let age = now.duration_since(at);
    if age > AGE_MAX {
        let limit = now.checked_sub(AGE_MAX).unwrap_or(now);
        let (limit, now) = (basic(limit), basic(now));
        let text = format!("Signature expired: {} is now earlier than {limit} ({now} - 15 min.)", claim.date);
        return Err(mismatch(text));
    }
    if -age > AHEAD_MAX {
        let limit = now.checked_add(AHEAD_MAX).unwrap_or(now);
        let (limit, now) = (basic(limit), basic(now));
        let text = format!("Signature not yet current: {} is still later than {limit} ({now} + 5 min.)", claim.date);
        return Err(mismatch(text));
    }
    Ok(())
}

fn signature(signed: &Signed<'_>, claim: &Claim, secret: &str) -> String {
    let canonical = canonical(signed, &claim.headers);
    let digest = hex(&Sha256::digest(canonical.as_bytes()));
    let to_sign = format!("{ALGORITHM}\n{}\n{}\n{digest}", claim.date, claim.scope.text());
    let key = [&claim.scope.day, &claim.scope.region, &claim.scope.service, &claim.scope.last]
        .iter()
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| keyed(&key, part.as_bytes()));
    hex(&keyed(&key, to_sign.as_bytes()))
}

fn keyed(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn canonical(signed: &Signed<'_>, names: &[String]) -> String {
    let mut query: Vec<(&str, &str)> = signed
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    query.sort_unstable();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers: String = names.iter().map(|name| format!("{name}:{}\n", header(signed.headers, name))).collect();
    let body = hex(&Sha256::digest(signed.body));
    let path = encoded(signed.path);
    format!("{}\n{path}\n{}\n{headers}\n{}\n{body}", signed.method, query.join("&"), names.join(";"))
}

/// The values of a header, each trimmed and with single blanks, joined by commas.
fn header(headers: &HeaderMap, name: &str) -> String {
    let one = |value: &axum::http::HeaderValue| {
        String::from_utf8_lossy(value.as_bytes()).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    headers.get_all(name).iter().map(one).collect::<Vec<_>>().join(",")
}

/// A path encoded once more, as every service but S3 has it.
fn encoded(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `20261123T010203Z` as a moment.
fn parsed(text: &str) -> Option<Timestamp> {
    let at = civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    at.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn basic(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn incomplete(message: String) -> Refusal {
    Refusal::new("IncompleteSignature", 400, message)
}

fn mismatch(message: impl Into<String>) -> Refusal {
    Refusal::new("SignatureDoesNotMatch", 403, message)
}

/// The headers that sign a call, for whoever speaks HTTP to a lab by himself: `Host`, `X-Amz-Date`, `Authorization`.
#[must_use]
pub fn sign(
    keys: (&str, &str),
    service: &str,
    host: &str,
    path: &str,
    body: &[u8],
    at: Timestamp,
) -> Vec<(String, String)> {
    let date = basic(at);
    let mut headers = HeaderMap::new();
    for (name, value) in [("host", host), ("x-amz-date", &date)] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    let day = date.get(..8).unwrap_or_default().to_owned();
    let scope = Scope { day, region: REGION.into(), service: service.into(), last: "aws4_request".into() };
    let names = vec!["host".to_owned(), "x-amz-date".to_owned()];
    let access_key = keys.0.to_owned();
    let claim = Claim { access_key, scope, headers: names, signature: String::new(), date, token: None };
    let signed = Signed { method: "POST", path, query: "", headers: &headers, body };
    let signature = signature(&signed, &claim, keys.1);
    let credential = format!("{}/{}", keys.0, claim.scope.text());
    let authorization =
        format!("{ALGORITHM} Credential={credential}, SignedHeaders=host;x-amz-date, Signature={signature}");
    [("Host", host.to_owned()), ("X-Amz-Date", claim.date), ("Authorization", authorization)]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                axum::http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        headers
    }

    /// AWS's own published example (`get-vanilla-query-order-key-case`).
    #[test]
    fn the_published_example_comes_out_as_published() {
        let headers = headers(&[("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")]);
        let signed =
            Signed { method: "GET", path: "/", query: "Param2=value2&Param1=value1", headers: &headers, body: b"" };
        let claim = Claim {
            access_key: KEYS.0.into(),
            scope: scope("AKIDEXAMPLE/20150830/us-east-1/service/aws4_request").expect("a scope").1,
            headers: vec!["host".into(), "x-amz-date".into()],
            signature: String::new(),
            date: "20150830T123600Z".into(),
            token: None,
        };
        let expected = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        assert_eq!(signature(&signed, &claim, KEYS.1), expected);
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    /// A call signed at noon, changed by `change`, looked at at `now`.
    fn verdict(now: &str, change: impl Fn(&mut HeaderMap)) -> Result<(), Refusal> {
        let body = b"Action=DescribeDBClusters";
        let pairs = sign(KEYS, "rds", "lab", "/", body, at("2026-11-23T12:00:00Z"));
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut headers = headers(&pairs);
        change(&mut headers);
        let signed = Signed { method: "POST", path: "/", query: "", headers: &headers, body };
        let claim = claim(&signed)?;
        verify(&signed, &claim, KEYS.1, "rds", at(now))
    }

    #[test]
    fn without_the_header_of_aws_the_date_of_http_says_when_it_was_signed() {
        let said = |text: &str| date(&headers(&[("Date", text)]));
        assert_eq!(said("Mon, 23 Nov 2026 12:00:00 GMT").as_deref(), Some("20261123T120000Z"));
        assert_eq!(said("20261123T120000Z").as_deref(), Some("20261123T120000Z"));
        assert_eq!(said("soon").as_deref(), Some("soon"));
        assert_eq!(date(&headers(&[])), None);
    }

    #[test]
    fn every_flaw_of_a_signature_has_its_code() {
        const NOON: &str = "2026-11-23T12:00:01Z";
        let set = |name: &'static str, value: &'static str| {
            move |h: &mut HeaderMap| drop(h.insert(name, value.parse().expect("a value")))
        };
        let code = |now: &str, change: &dyn Fn(&mut HeaderMap)| verdict(now, change).map_err(|r| (r.code, r.status));
        let is = |code: &str, status: u16| Err((code.to_owned(), status));
        assert_eq!(code(NOON, &|_| ()), Ok(()));
        let gone = |h: &mut HeaderMap| drop(h.remove("authorization"));
        assert_eq!(code(NOON, &gone), is("MissingAuthenticationToken", 403));
        for bad in [
            "Basic abc",
            "AWS4-HMAC-SHA256 nonsense",
            "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=1",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/us-east-1/rds/aws4_request",
        ] {
            assert_eq!(code(NOON, &set("authorization", bad)), is("IncompleteSignature", 400), "{bad}");
        }
        assert_eq!(code(NOON, &|h| drop(h.remove("x-amz-date"))), is("IncompleteSignature", 400));
        for (date, expected) in [
            ("yesterday", is("IncompleteSignature", 400)),
            ("20261123T126000Z", is("IncompleteSignature", 400)),
            ("20261123T120000", is("IncompleteSignature", 400)),
            ("20261124T120000Z", is("SignatureDoesNotMatch", 403)),
            ("20261123T120001Z", is("SignatureDoesNotMatch", 403)),
        ] {
            assert_eq!(code(NOON, &set("x-amz-date", date)), expected, "{date}");
        }
        assert_eq!(code(NOON, &set("host", "elsewhere")), is("SignatureDoesNotMatch", 403));
        assert_eq!(code("2026-11-23T12:15:01Z", &|_| ()), is("SignatureDoesNotMatch", 403));
        assert_eq!(code("2026-11-23T11:54:59Z", &|_| ()), is("SignatureDoesNotMatch", 403));
        assert_eq!(code("2026-11-23T12:14:59Z", &|_| ()), Ok(()));
        let text = verdict("2026-11-23T12:15:01Z", |_| ()).expect_err("too old").message;
        assert_eq!(
            text,
            "Signature expired: 20261123T120000Z is now earlier than 20261123T120001Z (20261123T121501Z - 15 min.)"
        );
    }
}
