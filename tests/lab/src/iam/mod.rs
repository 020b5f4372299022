//! Who may do what: callers with their keys and policies, the signature that proves a caller, the rights that a call needs.
//! It answers as AWS does and knows nothing of what a call does.

pub(crate) mod needs;
pub mod policy;
pub mod signature;

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Deserialize;

pub use self::policy::{Need, Policy, Verdict, decide};
pub use self::signature::sign;

use self::signature::Signed;
use crate::cloud::errors::Refusal;
use crate::settings::ACCOUNT;

/// Keys of the caller that is always there and may do everything.
pub const ADMINISTRATOR: (&str, &str) = ("lab", "lab");

/// Somebody who calls the lab.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Name of the IAM user.
    pub name: String,
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
    /// For temporary credentials: the session token that has to come with every call.
    #[serde(default)]
    pub session_token: Option<String>,
    /// When temporary credentials end.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// What it may do; nothing without a policy.
    #[serde(default)]
    pub policies: Vec<Policy>,
}

impl Caller {
    /// A caller with this policy, whose keys are made from its name.
    #[must_use]
    pub fn new(name: &str, policy: Policy) -> Self {
        Self {
            name: name.to_owned(),
            access_key: format!("AKIALAB{}", name.to_uppercase()),
            secret_key: format!("secret-of-{name}"),
            session_token: None,
            expires: None,
            policies: vec![policy],
        }
    }

    /// What a process needs in its environment to be this caller.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let token = self.session_token.as_ref().map(|token| ("AWS_SESSION_TOKEN", token));
        [("AWS_ACCESS_KEY_ID", &self.access_key), ("AWS_SECRET_ACCESS_KEY", &self.secret_key)]
            .into_iter()
            .chain(token)
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }

    fn administrator() -> Self {
        let (access_key, secret_key) = ADMINISTRATOR;
        Self {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            ..Self::new("administrator", Policy::administrator())
        }
    }

    /// Whether it may do all of this.
    ///
    /// # Errors
    /// `AccessDenied` with AWS's text for the first need that is not met.
    pub(crate) fn may(&self, needs: &[Need]) -> Result<(), Refusal> {
        for need in needs {
            let why = match decide(&self.policies, need) {
                Verdict::Allowed => continue,
                Verdict::NotAllowed => {
                    format!("because no identity-based policy allows the {} action", need.action)
                }
                Verdict::Denied => "with an explicit deny in an identity-based policy".to_owned(),
            };
            let who = format!("arn:aws:iam::{ACCOUNT}:user/{}", self.name);
            let of = if need.resource == "*" { String::new() } else { format!(" on resource: {}", need.resource) };
            let text = format!("User: {who} is not authorized to perform: {}{of} {why}", need.action);
            return Err(Refusal::new("AccessDenied", 403, text));
        }
        Ok(())
    }
}

/// Everybody who is known.
#[derive(Debug)]
pub(crate) struct Callers(Mutex<Vec<Caller>>);

impl Callers {
    pub(crate) fn new(more: &[Caller]) -> Self {
        let all = std::iter::once(Caller::administrator()).chain(more.iter().cloned()).collect();
        Self(Mutex::new(all))
    }

    /// Adds a caller, or gives one with the same access key another secret and other policies.
    pub(crate) fn put(&self, caller: Caller) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.access_key != caller.access_key);
        all.push(caller);
    }

    fn find(&self, access_key: &str) -> Option<Caller> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|caller| caller.access_key == access_key).cloned()
    }

    /// Who signed a call to `service`.
    ///
    /// # Errors
    /// AWS's code for what is wrong with the signature or with its key.
    pub(crate) fn prove(&self, signed: &Signed<'_>, service: &str, now: Timestamp) -> Result<Caller, Refusal> {
        let claim = signature::claim(signed)?;
        let unknown = || {
            let text = "The security token included in the request is invalid.";
            Refusal::new("InvalidClientTokenId", 403, text)
        };
        let caller = self.find(&claim.access_key).ok_or_else(unknown)?;
        if claim.token != caller.session_token {
            return Err(unknown());
        }
        signature::verify(signed, &claim, &caller.secret_key, service, now)?;
        if caller.expires.is_some_and(|end| end <= now) {
            let text = "The security token included in the request is expired";
            return Err(Refusal::new("ExpiredToken", 403, text));
        }
        Ok(caller)
    }
}
