//! A Blue/Green deployment as AWS describes it. The words are open (`Other`), because AWS adds to them; what "switched" and
//! "not switched" mean is decided in the switchover step and not here.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::*;
use super::types::{Tag, value_of};

macro_rules! open_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// A word this program does not know; it is kept as it came.
            Other(String),
        }

        impl $name {
            /// AWS's word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(text),
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

open_words! {
    /// The status of the deployment as a whole.
    DeploymentStatus {
        Provisioning = "PROVISIONING",
        Available = "AVAILABLE",
        SwitchoverInProgress = "SWITCHOVER_IN_PROGRESS",
        /// May be shown up to two minutes after green took writes.
        SwitchoverCompleted = "SWITCHOVER_COMPLETED",
        /// Creation failed, or green became unusable; the reason is in events and status details.
        InvalidConfiguration = "INVALID_CONFIGURATION",
        SwitchoverFailed = "SWITCHOVER_FAILED",
        Deleting = "DELETING",
    }
}

open_words! {
    /// The status of one pair of members. It lags the deployment's own status by seconds.
    MemberStatus {
        Provisioning = "PROVISIONING",
        Available = "AVAILABLE",
        SwitchoverInProgress = "SWITCHOVER_IN_PROGRESS",
        SwitchoverCompleted = "SWITCHOVER_COMPLETED",
        SwitchoverFailed = "SWITCHOVER_FAILED",
        MissingSource = "MISSING_SOURCE",
        MissingTarget = "MISSING_TARGET",
    }
}

open_words! {
    /// The state of one task of the creation.
    TaskState {
        Pending = "PENDING",
        InProgress = "IN_PROGRESS",
        Completed = "COMPLETED",
        Failed = "FAILED",
    }
}

/// A pair of members: the cluster, an instance, or a custom endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverDetail {
    /// Blue's member; after the switchover the `-old<N>` one.
    pub source: Option<ResourceArn>,
    /// Green's member; absent while it is being made. After the switchover the production name.
    pub target: Option<ResourceArn>,
    pub status: MemberStatus,
}

/// One task of the creation. The set of names is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub name: String,
    pub state: TaskState,
}

/// A Blue/Green deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: DeploymentId,
    pub name: DeploymentName,
    /// Blue's ARN; after the switchover the ARN of `…-old<N>`.
    pub source: ResourceArn,
    /// Absent until green exists; after the switchover the ARN with the production name.
    pub target: Option<ResourceArn>,
    pub status: DeploymentStatus,
    /// Free text.
    pub status_details: Option<String>,
    pub members: Vec<SwitchoverDetail>,
    pub tasks: Vec<Task>,
    pub created: Option<Timestamp>,
    pub deleted: Option<Timestamp>,
    pub tags: Vec<Tag>,
}

impl Deployment {
    /// The source, when it is a cluster (Aurora).
    pub fn source_cluster(&self) -> Option<ClusterArn> {
        self.source.as_cluster()
    }

    /// The target, when it is there and a cluster.
    pub fn target_cluster(&self) -> Option<ClusterArn> {
        self.target.as_ref()?.as_cluster()
    }

    /// The deployment and every pair of members read AVAILABLE, and every pair has both halves.
    pub fn is_all_available(&self) -> bool {
        self.status == DeploymentStatus::Available
            && !self.members.is_empty()
            && self
                .members
                .iter()
                .all(|m| m.status == MemberStatus::Available && m.source.is_some() && m.target.is_some())
    }

    /// AWS takes a switchover now: all is available, or an earlier switchover was taken back and left SWITCHOVER_FAILED where
    /// AVAILABLE stood. Every pair has both halves.
    pub fn may_switch_over(&self) -> bool {
        let deployment = matches!(self.status, DeploymentStatus::Available | DeploymentStatus::SwitchoverFailed);
        let member = |m: &SwitchoverDetail| {
            let stands = matches!(m.status, MemberStatus::Available | MemberStatus::SwitchoverFailed);
            stands && m.source.is_some() && m.target.is_some()
        };
        deployment && !self.members.is_empty() && self.members.iter().all(member)
    }

    /// (completed, all) tasks of the creation.
    pub fn tasks_done(&self) -> (u64, u64) {
        let done = self.tasks.iter().filter(|t| t.state == TaskState::Completed).count();
        (done as u64, self.tasks.len() as u64)
    }

    pub fn tag(&self, key: &str) -> Option<&str> {
        value_of(&self.tags, key)
    }
}

/// A deployment to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeployment {
    pub name: DeploymentName,
    pub source: ClusterArn,
    pub target_version: Version,
    /// Named always: what AWS picks when it is left out loses logical replication and all tuning on green.
    pub target_cluster_group: ParameterGroupName,
    pub target_instance_group: ParameterGroupName,
    pub tags: Vec<Tag>,
}
