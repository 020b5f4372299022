//! Who somebody is, by the names in a certificate: URIs of the scheme `pilot`, which any certificate authority can write.
//! Pure: it reads names; that the certificate is good is another's to check.
//!
//! `pilot://agent/CLUSTER_ARN` or `pilot://agent/CLUSTER_ARN/AGENT_ID`: an agent of one cluster, or only this one.
//! `pilot://operator/NAME/ROLE`, once for each role: a person or program that may look, operate or approve.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::ids::{AgentId, ClusterArn};

const AGENT: &str = "pilot://agent/";
const OPERATOR: &str = "pilot://operator/";
const SCHEME: &str = "pilot://";

/// What an operator may do. Every role may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See everything, change nothing.
    View,
    /// Start, pause, resume, abort.
    Operate,
    /// Approve what an upgrade asks for.
    Approve,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::View, Role::Operate, Role::Approve];

    /// As it stands in a certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::View => "view",
            Role::Operate => "operate",
            Role::Approve => "approve",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is not a role: write view, operate or approve"))
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// An agent of this cluster; with an id, only this one.
    Agent { cluster: ClusterArn, agent: Option<AgentId> },
    /// An operator with these roles, at least one.
    Operator { name: String, roles: BTreeSet<Role> },
}

/// The names of a certificate say nobody, or more than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("its certificate names neither an agent nor an operator (a URI as pilot://operator/NAME/view)")]
    Nobody,
    #[error("{uri:?} in its certificate cannot be read: {why}")]
    Unreadable { uri: String, why: String },
    #[error("its certificate names more than one agent or operator")]
    Several,
}

impl Identity {
    /// Reads the URIs of a certificate. Those of other schemes are somebody else's.
    ///
    /// # Errors
    /// When they name nobody, several, or nothing that can be read.
    pub fn of(uris: &[String]) -> Result<Identity, IdentityError> {
        let mut found: Option<Identity> = None;
        for uri in uris.iter().filter(|uri| uri.starts_with(SCHEME)) {
            let one = read(uri).map_err(|why| IdentityError::Unreadable { uri: uri.clone(), why })?;
            found = Some(match (found, one) {
                (None, one) => one,
                (Some(Identity::Operator { name, mut roles }), Identity::Operator { name: same, roles: more })
                    if name == same =>
                {
                    roles.extend(more);
                    Identity::Operator { name, roles }
                }
                _ => return Err(IdentityError::Several),
            });
        }
        found.ok_or(IdentityError::Nobody)
    }

    /// The URIs to write into a certificate.
    pub fn uris(&self) -> Vec<String> {
        match self {
            Identity::Agent { cluster, agent: None } => vec![format!("{AGENT}{cluster}")],
            Identity::Agent { cluster, agent: Some(agent) } => vec![format!("{AGENT}{cluster}/{agent}")],
            Identity::Operator { name, roles } => roles.iter().map(|role| format!("{OPERATOR}{name}/{role}")).collect(),
        }
    }
}

/// For logs and answers: `operator alice`, `agent a-1 of arn:…`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Agent { cluster, agent: None } => write!(f, "an agent of {cluster}"),
            Identity::Agent { cluster, agent: Some(agent) } => write!(f, "agent {agent} of {cluster}"),
            Identity::Operator { name, .. } => write!(f, "operator {name}"),
        }
    }
}

/// Is this a name that an operator can have?
pub fn is_operator_name(name: &str) -> bool {
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@' | b'+');
    (1..=100).contains(&name.len()) && name.bytes().all(fit)
}

fn read(uri: &str) -> Result<Identity, String> {
    if let Some(rest) = uri.strip_prefix(AGENT) {
        let (cluster, agent) = rest.split_once('/').map_or((rest, None), |(cluster, agent)| (cluster, Some(agent)));
        let cluster: ClusterArn = cluster.parse().map_err(|error| format!("{error}"))?;
        let agent = agent.map(AgentId::from_str).transpose().map_err(|error| format!("{error}"))?;
        return Ok(Identity::Agent { cluster, agent });
    }
    let Some(rest) = uri.strip_prefix(OPERATOR) else {
        return Err("it begins neither with pilot://agent/ nor with pilot://operator/".to_owned());
    };
    let (name, role) = rest.split_once('/').ok_or("it has no role: write pilot://operator/NAME/ROLE")?;
    if !is_operator_name(name) {
        return Err(format!("{name:?} is not a name: 1 to 100 letters, digits, or any of . - _ @ +"));
    }
    Ok(Identity::Operator { name: name.to_owned(), roles: BTreeSet::from([role.parse()?]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";

    fn of(uris: &[&str]) -> Result<Identity, IdentityError> {
        Identity::of(&uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_written_into_a_certificate_is_read_back() {
        let cluster: ClusterArn = ARN.parse().unwrap();
        for identity in [
            Identity::Agent { cluster: cluster.clone(), agent: None },
            Identity::Agent { cluster, agent: Some("a-1".parse().unwrap()) },
            Identity::Operator { name: "alice@example.com".into(), roles: BTreeSet::from(Role::ALL) },
        ] {
            assert_eq!(Identity::of(&identity.uris()), Ok(identity));
        }
    }

    #[test]
    fn a_certificate_that_names_nobody_or_several_is_nobodys() {
        let agent = format!("pilot://agent/{ARN}");
        assert_eq!(of(&[]), Err(IdentityError::Nobody));
        assert_eq!(of(&["spiffe://example.com/orders"]), Err(IdentityError::Nobody));
        assert!(of(&["spiffe://example.com/orders", &agent]).is_ok());
        assert_eq!(of(&["pilot://operator/a/view", "pilot://operator/b/view"]), Err(IdentityError::Several));
        assert_eq!(of(&[&agent, "pilot://operator/a/view"]), Err(IdentityError::Several));
        assert_eq!(of(&[&agent, &format!("{agent}/a-2")]), Err(IdentityError::Several));
    }

    #[test]
    fn a_name_that_cannot_be_read_is_refused_and_never_half_read() {
        for uri in [
            "pilot://",
            "pilot://admin/a",
            "pilot://agent/orders",
            "pilot://operator/alice",
            "pilot://operator/alice/root",
            "pilot://operator/al ice/view",
            "pilot://operator//view",
            "pilot://operator/alice/view/approve",
            &format!("pilot://agent/{ARN}/"),
            &format!("pilot://agent/{ARN}/a/b"),
        ] {
            let error = of(&[uri, "pilot://operator/alice/view"]).unwrap_err();
            assert!(matches!(error, IdentityError::Unreadable { .. }), "{uri}: {error}");
        }
    }
}
