//! The names and identities AWS gives, each its own type, so that a name can never stand where an identity is meant.
//!
//! *Names* (cluster id, instance id, ARNs, parameter groups) move at a switchover; *resource ids* never do. Nothing here
//! talks to AWS, and nothing here checks that a thing exists.

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta] $name:ident;)+) => {$(
        #[$doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )+};
}

text_id! {
    /// A cluster's present name (DBClusterIdentifier). It moves at a switchover.
    ClusterId;
    /// A cluster's identity for life (DbClusterResourceId, `cluster-…`). It never moves.
    ClusterResourceId;
    /// An instance's present name (DBInstanceIdentifier). It moves at a switchover.
    InstanceId;
    /// An instance's identity for life (DbiResourceId, `db-…`). It never moves.
    InstanceResourceId;
    /// A deployment's identity, `bgd-` and 16 characters.
    DeploymentId;
    /// The name we give a deployment; unique per account and region.
    DeploymentName;
    /// A parameter group's name, of a cluster or of an instance.
    ParameterGroupName;
    /// A parameter group's family, such as `aurora-postgresql16`.
    Family;
    /// A cluster snapshot's name.
    SnapshotId;
    /// An engine version, such as `16.4`.
    Version;
}

impl Version {
    /// The major version: the digits before the first dot. `None` when there are none.
    pub fn major(&self) -> Option<u32> {
        self.0.split('.').next()?.parse().ok()
    }

    /// The version as numbers, for ordering: `16.10` is above `16.9`. Parts that are no number count as zero.
    pub fn numbers(&self) -> Vec<u32> {
        self.0.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    }
}

impl DeploymentId {
    /// The object AWS tags and lists is addressed by ARN; a deployment's is derived from its id.
    pub fn arn(&self, region: &str, account: &str) -> ResourceArn {
        ResourceArn(format!("arn:aws:rds:{region}:{account}:deployment:{self}"))
    }
}

/// Why a text is not an ARN this program can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the ARN of an RDS {expected}")]
pub struct NotAnArn {
    pub text: String,
    pub expected: &'static str,
}

/// The ARN of any RDS object: `arn:PARTITION:rds:REGION:ACCOUNT:KIND:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceArn(String);

impl ResourceArn {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, n: usize) -> &str {
        self.0.splitn(7, ':').nth(n).unwrap_or_default()
    }

    pub fn region(&self) -> &str {
        self.part(3)
    }

    pub fn account(&self) -> &str {
        self.part(4)
    }

    /// `cluster`, `db`, `cluster-endpoint`, `cluster-pg`, `pg`, `cluster-snapshot`, `deployment` …
    pub fn kind(&self) -> &str {
        self.part(5)
    }

    /// What follows the kind: the object's present name.
    pub fn name(&self) -> &str {
        self.part(6)
    }

    /// The cluster this ARN names, when it names one.
    pub fn as_cluster(&self) -> Option<ClusterArn> {
        ClusterArn::try_from(self.0.clone()).ok()
    }

    /// The instance this ARN names, when it names one.
    pub fn as_instance(&self) -> Option<InstanceId> {
        (self.kind() == "db").then(|| InstanceId::new(self.name()))
    }
}

/// The ARN of a cluster; carries its *present* name, and so moves at a switchover.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterArn(ResourceArn);

impl ClusterArn {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub fn region(&self) -> &str {
        self.0.region()
    }

    pub fn account(&self) -> &str {
        self.0.account()
    }

    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::new(self.0.name())
    }

    pub fn resource(&self) -> &ResourceArn {
        &self.0
    }

    /// The ARN that a cluster named `id` has in the same account and region.
    pub fn sibling(&self, id: &ClusterId) -> ClusterArn {
        let head = self.0.as_str().rsplit_once(':').map_or("", |(head, _)| head);
        ClusterArn(ResourceArn(format!("{head}:{id}")))
    }
}

impl TryFrom<String> for ResourceArn {
    type Error = NotAnArn;

    fn try_from(text: String) -> Result<Self, NotAnArn> {
        let parts: Vec<&str> = text.splitn(7, ':').collect();
        let legal = parts.len() == 7
            && parts[0] == "arn"
            && parts[2] == "rds"
            && [1, 3, 4, 5, 6].iter().all(|n| !parts[*n].is_empty());
        if legal { Ok(Self(text)) } else { Err(NotAnArn { text, expected: "object" }) }
    }
}

impl TryFrom<String> for ClusterArn {
    type Error = NotAnArn;

    fn try_from(text: String) -> Result<Self, NotAnArn> {
        let arn = ResourceArn::try_from(text).map_err(|e| NotAnArn { expected: "cluster", ..e })?;
        if arn.kind() == "cluster" { Ok(Self(arn)) } else { Err(NotAnArn { text: arn.0, expected: "cluster" }) }
    }
}

macro_rules! arn_text {
    ($($name:ident),+) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAnArn;

            fn from_str(text: &str) -> Result<Self, NotAnArn> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(arn: $name) -> String {
                arn.as_str().to_owned()
            }
        }
    )+};
}

arn_text!(ResourceArn, ClusterArn);

impl From<ClusterArn> for ResourceArn {
    fn from(arn: ClusterArn) -> Self {
        arn.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_taken_apart_and_a_wrong_one_refused() {
        let arn: ClusterArn = "arn:aws:rds:us-east-1:123456789012:cluster:orders".parse().expect("a cluster arn");
        assert_eq!((arn.region(), arn.account()), ("us-east-1", "123456789012"));
        assert_eq!(arn.cluster_id(), ClusterId::from("orders"));
        assert_eq!(
            arn.sibling(&"orders-old1".into()).as_str(),
            "arn:aws:rds:us-east-1:123456789012:cluster:orders-old1"
        );
        for wrong in ["orders", "arn:aws:rds:us-east-1:123456789012:db:orders", "arn:aws:s3:::bucket", ""] {
            assert!(wrong.parse::<ClusterArn>().is_err(), "{wrong} was taken for a cluster ARN");
        }
    }

    #[test]
    fn versions_know_their_major_and_order_by_number() {
        assert_eq!(Version::from("16.4").major(), Some(16));
        assert_eq!(Version::from("x").major(), None);
        assert!(Version::from("16.10").numbers() > Version::from("16.9").numbers());
    }
}
