//! Operators by bearer tokens of an OpenID Connect provider: who signed, for whom, from when to when, and which roles.
//!
//! Signatures are asymmetric only; what the provider's keys are is `keys.rs`'s to know. A token is never logged, kept or repeated.

mod fetch;
mod keys;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use proto::identity::Role;
use runtime::clock::Clock;
use serde_json::{Map, Value};

use self::keys::Keys;
use crate::config::Oidc;

/// No token is longer.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Clocks may differ by so much, in seconds.
const LEEWAY: f64 = 30.0;
/// No name of a subject is longer: OpenID Connect's own limit.
const SUBJECT_MAX: usize = 255;
/// What is signed by the provider alone. A shared secret and no signature at all are not among them.
const SIGNED: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Judges tokens of one provider.
pub struct Tokens {
    settings: Oidc,
    keys: Keys,
    clock: Clock,
}

/// Whom a good token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// Subject and issuer. A certificate cannot hold such a name.
    pub(crate) name: String,
    /// At least one.
    pub(crate) roles: BTreeSet<Role>,
    pub(crate) until: Timestamp,
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Of a closed set: a label.
    pub(crate) reason: &'static str,
    pub(crate) why: String,
}

fn flaw<T>(reason: &'static str, why: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw { reason, why: why.into() })
}

impl Tokens {
    /// For the provider of `settings`. Keys in a file are read now, those behind an address when they are needed.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub fn open(settings: &Oidc, clock: Clock) -> Result<Tokens, String> {
        Ok(Tokens { settings: settings.clone(), keys: Keys::open(settings, clock.clone())?, clock })
    }

    /// Reads a token and verifies it in full.
    pub(crate) async fn judge(&self, token: &str) -> Result<Bearer, Flaw> {
        if token.len() > TOKEN_BYTES_MAX {
            return flaw("token_unreadable", format!("the token is longer than {TOKEN_BYTES_MAX} bytes"));
        }
        let header = header(token)?;
        let kid = header.kid.as_deref();
        let Some(key) = self.keys.find(kid).await else {
            let named = kid.map_or("none, and the provider has several".to_owned(), shown);
            return flaw("token_key", format!("the token's key ({named}) is none that is known of the provider"));
        };
        if !key.algorithms.contains(&header.alg) {
            return flaw("token_algorithm", format!("the token's key is not for {:?}", header.alg));
        }
        let mut signature = Validation::new(header.alg);
        // What it says is judged below, by our clock.
        signature.validate_exp = false;
        signature.validate_aud = false;
        signature.required_spec_claims.clear();
        match decode::<Map<String, Value>>(token, &key.decoding, &signature) {
            Ok(token) => judged(&token.claims, &self.settings, self.clock.now()),
            Err(error) => match error.kind() {
                ErrorKind::InvalidSignature => flaw("token_signature", "the provider did not sign this token"),
                ErrorKind::InvalidAlgorithm => flaw("token_algorithm", "the token's key is for another algorithm"),
                _ => flaw("token_unreadable", "the token cannot be read"),
            },
        }
    }
}

/// The header, whose signature is of a kind that is taken.
fn header(token: &str) -> Result<Header, Flaw> {
    let signed = "it must be signed by RS256, PS256, ES256, a longer one of these, or EdDSA";
    match decode_header(token) {
        Ok(header) if !SIGNED.contains(&header.alg) => {
            flaw("token_algorithm", format!("the token's algorithm is {:?}; {signed}", header.alg))
        }
        Ok(header) if header.crit.is_some() => flaw("token_unreadable", "the token has extensions (crit)"),
        Ok(header) => Ok(header),
        Err(error) => match error.kind() {
            // `none`, and what nobody knows.
            ErrorKind::Json(cause) if cause.to_string().contains("unknown variant") => {
                flaw("token_algorithm", format!("the token's algorithm is not known or none; {signed}"))
            }
            _ => flaw("token_unreadable", "the token is none: HEADER.CLAIMS.SIGNATURE"),
        },
    }
}

/// What a token says whose signature is good.
fn judged(claims: &Map<String, Value>, settings: &Oidc, now: Timestamp) -> Result<Bearer, Flaw> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    match text("iss") {
        Some(issuer) if issuer == settings.issuer => {}
        other => {
            return flaw("token_issuer", format!("the token's issuer is {}", other.map_or("missing".into(), shown)));
        }
    }
    if !texts(claims.get("aud")).contains(&settings.audience.as_str()) {
        return flaw("token_audience", format!("the token is not for {}", settings.audience));
    }
    let now = now.as_second() as f64;
    let Some(end) = claims.get("exp").and_then(Value::as_f64) else {
        return flaw("token_expired", "the token has no end (exp)");
    };
    if end + LEEWAY <= now {
        return flaw("token_expired", format!("the token expired {:.0} s ago", now - end));
    }
    match claims.get("nbf").map(Value::as_f64) {
        None => {}
        Some(Some(begin)) if begin - LEEWAY <= now => {}
        Some(_) => return flaw("token_not_yet_valid", "the token is not valid yet"),
    }
    let subject = text("sub").filter(|it| !it.is_empty() && it.len() <= SUBJECT_MAX && !it.contains(char::is_control));
    let Some(subject) = subject else { return flaw("token_subject", "the token names nobody (sub)") };
    let roles = roles(claims, settings);
    if roles.is_empty() {
        let claim = &settings.role_claim;
        return flaw("token_role", format!("{} has none of the roles that {claim} can give here", shown(subject)));
    }
    let until = Timestamp::from_second((end + LEEWAY) as i64).unwrap_or(Timestamp::MAX);
    Ok(Bearer { name: format!("{subject} of {}", settings.issuer), roles, until })
}

fn roles(claims: &Map<String, Value>, settings: &Oidc) -> BTreeSet<Role> {
    let claim = &settings.role_claim;
    // A claim may have dots in its name, or lie inside others.
    let found = claims.get(claim).or_else(|| {
        let (first, rest) = claim.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
    });
    let found = texts(found);
    let names = &settings.roles;
    let given = [(Role::View, &names.view), (Role::Operate, &names.operate), (Role::Approve, &names.approve)];
    let given = given.into_iter().filter(|(_, names)| names.iter().any(|name| found.contains(&name.as_str())));
    given.map(|(role, _)| role).collect()
}

/// A list of texts, or one text of words as `scope` is.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A stranger's text, fit for a log.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}
