//! Which server is which: the two sides of a blue/green pair, and how a server is recognised as one of them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A side of the pair. `Blue` serves before the cut, `Green` is the upgraded copy; after the cut blue is the *old* side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Blue,
    Green,
}

/// One server of a side, by the address that stays with the machine when names move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The instance's resource id (`db-…`), which AWS never moves.
    pub resource_id: String,
    /// The instance's name when it was recorded.
    pub instance: String,
    /// Host name or address to dial.
    pub host: String,
    pub port: u16,
    pub writer: bool,
}

/// What a side was when it was recorded: the identity that jobs, markers and probes are checked against (field rule 1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideIdentity {
    pub side: Side,
    /// The cluster's resource id (`cluster-…`).
    pub cluster_resource_id: String,
    /// Major version, as 14 or 16.
    pub major: u32,
    pub members: Vec<Member>,
}

impl SideIdentity {
    /// The writer when it was recorded; a failover may have moved the role since.
    pub fn writer(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.writer)
    }

    /// The readers when it was recorded.
    pub fn readers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.writer)
    }
}

/// What a server says of itself in SQL, in the transaction that is about to act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSaid {
    /// `inet_server_addr()`.
    pub address: IpAddr,
    /// `server_version_num / 10000`.
    pub major: u32,
    /// `aurora_db_instance_identifier()` where there is one; renamed at a switchover, so shown and never compared.
    pub instance: Option<String>,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// `transaction_read_only`.
    pub read_only: bool,
}

/// A production endpoint: its name stays, what answers behind it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}
