//! Who may command: every caller is who its certificate says, and may do what that names. Each refusal has a code, is counted,
//! and is logged once for the same caller and reason.
//!
//! It judges callers, never what they ask for. On a plain connection, which is opened on loopback only and only where that
//! was asked for, whoever can dial may do everything.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Code;
use proto::identity::{Identity, Role};
use proto::ids::{AgentId, ClusterArn};
use runtime::clock::Clock;
use runtime::tls::{Peer, Refusal};
use tonic::{Request, Status};

use crate::{codes, metrics};

/// Callers and reasons that were logged already; beyond it the memory begins anew.
const LOGGED_MAX: usize = 1024;

/// The guard of all doors of a coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Guard {
    region: Arc<str>,
    clock: Clock,
    logged: Arc<Mutex<BTreeSet<String>>>,
}

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `None` on a plain connection.
    identity: Option<Identity>,
    /// How long its certificate is good for still.
    left: Option<Duration>,
}

/// Somebody was not let in, or may not do what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {why}")]
pub struct Denied {
    pub code: Code,
    /// Of a closed set: a label.
    pub reason: &'static str,
    pub why: String,
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Status {
        Status::permission_denied(denied.to_string())
    }
}

impl Caller {
    /// Who asks: the name in the certificate; on a plain connection what the caller says of itself.
    pub fn name(&self, said: &str) -> String {
        match &self.identity {
            Some(Identity::Operator { name, .. }) => name.clone(),
            Some(agent) => agent.to_string(),
            None => said.to_owned(),
        }
    }

    /// How long its certificate is good for; `None` without one.
    pub fn left(&self) -> Option<Duration> {
        self.left
    }
}

impl Guard {
    /// A guard for a coordinator of this region.
    pub fn new(region: &str, clock: Clock) -> Guard {
        Guard { region: region.into(), clock, logged: Arc::default() }
    }

    /// A connection was not taken.
    pub fn turned_away(&self, refusal: &Refusal) {
        let (code, reason) = (codes::BAD_CERTIFICATE, refusal.reason);
        self.deny(&refusal.address.ip().to_string(), Denied { code, reason, why: refusal.what.clone() });
    }

    /// Who opened the stream of an agent: nobody else than an agent.
    ///
    /// # Errors
    /// [`Denied`], counted and logged.
    pub fn agent<T>(&self, request: &Request<T>) -> Result<Caller, Denied> {
        let peer = request.extensions().get::<Peer>();
        let caller = self.caller(peer)?;
        match &caller.identity {
            Some(operator @ Identity::Operator { .. }) => {
                let why = format!("{operator} is no agent");
                Err(self.deny(&operator.to_string(), denied(codes::BAD_CERTIFICATE, "kind", why)))
            }
            _ => Ok(caller),
        }
    }

    /// May this caller attach as this agent of this cluster?
    ///
    /// # Errors
    /// [`Denied`], counted and logged.
    pub fn attach(&self, caller: &Caller, agent: &AgentId, cluster: &ClusterArn) -> Result<(), Denied> {
        let region = cluster.as_str().split(':').nth(3).unwrap_or_default();
        let foreign =
            |reason, why| Err(self.deny(&format!("{agent} {cluster}"), denied(codes::FOREIGN_AGENT, reason, why)));
        if region != &*self.region {
            return foreign(
                "region",
                format!("cluster {cluster} is in {region}; this coordinator serves {}", self.region),
            );
        }
        match &caller.identity {
            Some(Identity::Agent { cluster: bound, .. }) if bound != cluster => {
                foreign("cluster", format!("agent {agent} claims {cluster}; its certificate is for {bound}"))
            }
            Some(Identity::Agent { agent: Some(bound), .. }) if bound != agent => {
                foreign("agent", format!("agent {agent} of {cluster} shows the certificate of {bound}"))
            }
            _ => Ok(()),
        }
    }

    /// May whoever made this request do what takes this role?
    ///
    /// # Errors
    /// [`Denied`], counted and logged.
    pub fn operator<T>(&self, request: &Request<T>, role: Role) -> Result<Caller, Denied> {
        self.holder(request.extensions().get::<Peer>(), role)
    }

    /// The same for the other end of a connection.
    ///
    /// # Errors
    /// [`Denied`], counted and logged.
    pub fn holder(&self, peer: Option<&Peer>, role: Role) -> Result<Caller, Denied> {
        let caller = self.caller(peer)?;
        match &caller.identity {
            None => Ok(caller),
            Some(Identity::Operator { roles, .. }) if role == Role::View || roles.contains(&role) => Ok(caller),
            Some(Identity::Operator { name, roles }) => {
                let has: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
                let why = format!("operator {name} has the role {}, this takes {role}", has.join(" and "));
                Err(self.deny(name, denied(codes::NOT_ALLOWED, "role", why)))
            }
            Some(agent @ Identity::Agent { .. }) => {
                let why = format!("{agent} is no operator");
                Err(self.deny(&agent.to_string(), denied(codes::BAD_CERTIFICATE, "kind", why)))
            }
        }
    }

    fn caller(&self, peer: Option<&Peer>) -> Result<Caller, Denied> {
        let refuse = |peer: &str, reason, why| self.deny(peer, denied(codes::BAD_CERTIFICATE, reason, why));
        let peer = peer.ok_or_else(|| refuse("unknown", "none", "nothing is known of the connection".to_owned()))?;
        if !peer.secured {
            return Ok(Caller { identity: None, left: None });
        }
        let address = peer.address.ip().to_string();
        let Some(certificate) = &peer.certificate else {
            return Err(refuse(&address, "none", "no certificate was shown".to_owned()));
        };
        // A connection outlives the moment in which it was taken.
        let left = Duration::try_from(certificate.not_after.duration_since(self.clock.now()));
        let Some(left) = left.ok().filter(|left| !left.is_zero()) else {
            return Err(refuse(&address, "expired", format!("the certificate expired at {}", certificate.not_after)));
        };
        match Identity::of(&certificate.uris) {
            Ok(identity) => Ok(Caller { identity: Some(identity), left: Some(left) }),
            Err(error) => Err(refuse(&address, "nobody", error.to_string())),
        }
    }

    /// Counts, and logs what is new.
    fn deny(&self, who: &str, denied: Denied) -> Denied {
        metrics::refused(denied.reason);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= LOGGED_MAX {
            logged.clear();
        }
        if logged.insert(format!("{} {who}", denied.reason)) {
            tracing::warn!(who, code = %denied.code, reason = denied.reason, why = denied.why, "refused");
        }
        denied
    }
}

fn denied(code: Code, reason: &'static str, why: String) -> Denied {
    Denied { code, reason, why }
}
