//! Who may command: every caller is who its certificate, or an operator's token, says, and may do what that names. Each refusal
//! has a code, is counted, and is logged once for the same caller and reason.
//!
//! It judges callers, never what they ask for. On a plain connection, which is opened on loopback only and only where that
//! was asked for, whoever can dial may do everything.

#[cfg(test)]
pub(crate) mod tests;
mod tokens;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Code;
use proto::identity::{Identity, Role};
use proto::ids::{AgentId, ClusterArn};
use runtime::clock::Clock;
use runtime::tls::{Certificate, Credentials, Peer, Refusal};
use tonic::{Request, Status};

pub(crate) use self::tokens::TOKEN_BYTES_MAX;
pub use self::tokens::Tokens;
use self::tokens::{Bearer, Flaw};
use crate::{codes, metrics};

/// Callers and reasons that were logged already; beyond it the memory begins anew.
const LOGGED_MAX: usize = 1024;

/// Open streams look so often whether their certificate was withdrawn.
const WITHDRAWN_EVERY: Duration = Duration::from_secs(1);

/// The guard of all doors of a coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Guard {
    region: Arc<str>,
    clock: Clock,
    tokens: Option<Arc<Tokens>>,
    credentials: Option<Arc<Credentials>>,
    logged: Arc<Mutex<BTreeSet<String>>>,
}

/// What somebody shows who asks for something.
#[derive(Debug, Clone)]
pub struct Shown {
    peer: Option<Peer>,
    token: Option<Token>,
}

/// A secret: it is shown nowhere.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Shown {
    /// By the other end of the connection, and by the header `authorization`, if it bears a token.
    pub fn new(peer: Option<&Peer>, authorization: Option<&str>) -> Shown {
        let (scheme, token) = authorization.and_then(|value| value.split_once(' ')).unwrap_or_default();
        let token = scheme.eq_ignore_ascii_case("bearer").then(|| Token(token.trim().to_owned()));
        Shown { peer: peer.cloned(), token }
    }

    fn of<T>(request: &Request<T>) -> Shown {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        Shown::new(request.extensions().get::<Peer>(), authorization)
    }
}

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `None` on a plain connection.
    identity: Option<Identity>,
    /// How long its certificate, or its token, is good for still.
    left: Option<Duration>,
    certificate: Option<Arc<Certificate>>,
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
    /// May it do what takes this role? For showing; [`Guard::holder`] is what keeps others out.
    pub fn may(&self, role: Role) -> bool {
        match &self.identity {
            None => true,
            Some(Identity::Operator { roles, .. }) => role == Role::View || roles.contains(&role),
            Some(Identity::Agent { .. }) => false,
        }
    }

    /// Who asks: the name in the certificate or the token; on a plain connection what the caller says of itself.
    pub fn name(&self, said: &str) -> String {
        match &self.identity {
            Some(Identity::Operator { name, .. }) => name.clone(),
            Some(agent) => agent.to_string(),
            None => said.to_owned(),
        }
    }
}

impl Guard {
    /// A guard for a coordinator of this region.
    pub fn new(region: &str, clock: Clock) -> Guard {
        Guard { region: region.into(), clock, tokens: None, credentials: None, logged: Arc::default() }
    }

    /// The same, which also takes operators' tokens.
    #[must_use]
    pub fn taking(self, tokens: Tokens) -> Guard {
        Guard { tokens: Some(Arc::new(tokens)), ..self }
    }

    /// The same, which asks these whether a certificate was withdrawn.
    #[must_use]
    pub fn asking(self, credentials: Arc<Credentials>) -> Guard {
        Guard { credentials: Some(credentials), ..self }
    }

    /// Comes when what the caller showed is good no longer, and says why. Never for who showed nothing.
    pub async fn over(&self, caller: &Caller) -> String {
        let expired = async {
            match caller.left {
                Some(left) => self.clock.sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let withdrawn = async {
            let (Some(credentials), Some(certificate)) = (&self.credentials, &caller.certificate) else {
                return std::future::pending().await;
            };
            while !credentials.is_withdrawn(certificate) {
                self.clock.sleep(WITHDRAWN_EVERY).await;
            }
            self.withdrawn(&caller.name(""), certificate)
        };
        tokio::select! {
            () = expired => "what it showed expired".to_owned(),
            denied = withdrawn => denied.why,
        }
    }

    fn withdrawn(&self, who: &str, certificate: &Certificate) -> Denied {
        let why = format!("the certificate {} was withdrawn", certificate.serial);
        self.deny(who, denied(codes::BAD_CERTIFICATE, "withdrawn", why))
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
        let caller = self.certified(request.extensions().get::<Peer>())?;
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

    /// Do this agent and this version understand each other?
    ///
    /// # Errors
    /// [`Denied`], counted and logged.
    pub fn speaks(&self, agent: &AgentId, cluster: &ClusterArn, said: u32) -> Result<(), Denied> {
        proto::protocol::understood(said).map_err(|misfit| {
            let why = format!("agent {agent} of {cluster} is of another version: {misfit}");
            self.deny(&format!("{agent} {cluster}"), denied(codes::OTHER_PROTOCOL, "protocol", why))
        })
    }

    /// May whoever made this request do what takes this role? What it shows is read before anything is waited for.
    ///
    /// # Errors
    /// [`Denied`], counted and logged.
    pub fn operator<T>(
        &self,
        request: &Request<T>,
        role: Role,
    ) -> impl Future<Output = Result<Caller, Denied>> + Send + use<T> {
        let (guard, shown) = (self.clone(), Shown::of(request));
        async move { guard.holder(&shown, role).await }
    }

    /// May whoever shows this do what takes this role?
    ///
    /// # Errors
    /// [`Denied`], counted and logged.
    pub async fn holder(&self, shown: &Shown, role: Role) -> Result<Caller, Denied> {
        let caller = self.caller(shown).await?;
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

    /// A token that is shown says who asks, and has to be good; else the certificate does.
    async fn caller(&self, shown: &Shown) -> Result<Caller, Denied> {
        let (Some(peer), Some(Token(token))) = (&shown.peer, &shown.token) else {
            return self.certified(shown.peer.as_ref());
        };
        if !peer.secured {
            return self.certified(Some(peer));
        }
        // A certificate that is shown beside it has to be good as well; whom it names does not count.
        let certificate = self.left(peer)?;
        let judged = match &self.tokens {
            Some(tokens) => tokens.judge(token).await,
            None => Err(Flaw { reason: "token_not_taken", why: "this coordinator takes no tokens (oidc)".to_owned() }),
        };
        let Bearer { name, roles, until } = judged.map_err(|Flaw { reason, why }| {
            self.deny(&peer.address.ip().to_string(), denied(codes::BAD_TOKEN, reason, why))
        })?;
        let token = Duration::try_from(until.duration_since(self.clock.now())).unwrap_or_default();
        let left = certificate.map_or(token, |certificate| certificate.min(token));
        let identity = Some(Identity::Operator { name, roles });
        Ok(Caller { identity, left: Some(left), certificate: peer.certificate.clone() })
    }

    /// Who the certificate says it is.
    fn certified(&self, peer: Option<&Peer>) -> Result<Caller, Denied> {
        let refuse = |peer: &str, reason, why| self.deny(peer, denied(codes::BAD_CERTIFICATE, reason, why));
        let peer = peer.ok_or_else(|| refuse("unknown", "none", "nothing is known of the connection".to_owned()))?;
        if !peer.secured {
            return Ok(Caller { identity: None, left: None, certificate: None });
        }
        let address = peer.address.ip().to_string();
        let Some(certificate) = &peer.certificate else {
            let what =
                if self.tokens.is_some() { "neither a certificate nor a token was" } else { "no certificate was" };
            return Err(refuse(&address, "none", format!("{what} shown")));
        };
        let left = self.left(peer)?;
        match Identity::of(&certificate.uris) {
            Ok(identity) => Ok(Caller { identity: Some(identity), left, certificate: Some(Arc::clone(certificate)) }),
            Err(error) => Err(refuse(&address, "nobody", error.to_string())),
        }
    }

    /// How long a shown certificate is good for: a connection outlives the moment in which it was taken. `None` without one.
    fn left(&self, peer: &Peer) -> Result<Option<Duration>, Denied> {
        let Some(certificate) = &peer.certificate else { return Ok(None) };
        if self.credentials.as_ref().is_some_and(|credentials| credentials.is_withdrawn(certificate)) {
            return Err(self.withdrawn(&peer.address.ip().to_string(), certificate));
        }
        let left = Duration::try_from(certificate.not_after.duration_since(self.clock.now()));
        if let Some(left) = left.ok().filter(|left| !left.is_zero()) {
            return Ok(Some(left));
        }
        let why = format!("the certificate expired at {}", certificate.not_after);
        Err(self.deny(&peer.address.ip().to_string(), denied(codes::BAD_CERTIFICATE, "expired", why)))
    }

    /// Counts, and logs what is new.
    fn deny(&self, who: &str, denied: Denied) -> Denied {
        metrics::refused(denied.reason);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{} {who}", denied.reason);
        if !logged.contains(&line) {
            if logged.len() >= LOGGED_MAX {
                logged.clear();
            }
            logged.insert(line);
            tracing::warn!(who, code = %denied.code, reason = denied.reason, why = denied.why, "refused");
        }
        denied
    }
}

fn denied(code: Code, reason: &'static str, why: String) -> Denied {
    Denied { code, reason, why }
}
