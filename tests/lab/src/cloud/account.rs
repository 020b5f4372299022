//! What an account lacks and how much it may hold: things that a change refers to and that the lab has none of, and quotas.

use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::groups::Kind;
use crate::cloud::params::Params;
use crate::cloud::state::State;
use crate::faults::{Fault, Faults, Quota};

/// What a parameter of `ModifyDBCluster` or `ModifyDBInstance` names, and the refusal of one that is not there.
const ABSENT: [(&str, &str, u16); 4] = [
    ("OptionGroupName", "OptionGroupNotFoundFault", 404),
    ("Domain", "DomainNotFoundFault", 404),
    ("PerformanceInsightsKMSKeyId", "KMSKeyNotAccessibleFault", 400),
    ("MasterUserSecretKmsKeyId", "KMSKeyNotAccessibleFault", 400),
];
/// The same of `ModifyDBInstance` alone.
const ABSENT_OF_INSTANCES: [(&str, &str, u16); 4] = [
    ("CACertificateIdentifier", "CertificateNotFound", 404),
    ("DBCapacityReservationIdentifier", "DBCapacityReservationNotFound", 404),
    ("DBSecurityGroups.DBSecurityGroupName.1", "DBSecurityGroupNotFound", 404),
    ("AwsBackupRecoveryPointArn", "BackupPolicyNotFoundFault", 404),
];
/// The certificate authorities of the region.
const AUTHORITIES: [&str; 3] = ["rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1", "rds-ca-ecc384-g1"];
const STORAGE: [&str; 2] = ["aurora", "aurora-iopt1"];

/// Refuses a change that refers to what the account has not: an option group, directory, key, reservation, IPv6 subnet.
pub(crate) fn has_what_is_named(params: &Params, of: Kind) -> Answer<()> {
    let of_instances = ABSENT_OF_INSTANCES.iter().filter(|_| of == Kind::Instance);
    for &(parameter, code, status) in ABSENT.iter().chain(of_instances) {
        if let Some(named) = params.get(parameter).filter(|named| !AUTHORITIES.contains(named)) {
            return Err(Refusal::new(code, status, format!("{named} not found.")));
        }
    }
    if params.get("NetworkType").is_some_and(|kind| kind.eq_ignore_ascii_case("DUAL")) {
        let text = "The DB subnet group has no subnet with an IPv6 CIDR block.";
        return Err(Refusal::new("NetworkTypeNotSupported", 400, text));
    }
    match params.get("StorageType").filter(|kind| !STORAGE.contains(kind)) {
        None => Ok(()),
        Some(kind) => Err(Refusal::new("StorageTypeNotSupported", 400, format!("Invalid storage type: {kind}"))),
    }
}

impl Quota {
    /// What AWS grants a new account, and how it refuses more.
    const fn of(self) -> (usize, &'static str, u16) {
        match self {
            Self::Clusters => (40, "DBClusterQuotaExceededFault", 403),
            Self::Instances => (40, "InstanceQuotaExceeded", 400),
            Self::ClusterSnapshots => (100, "SnapshotQuotaExceeded", 400),
        }
    }
}

/// Refuses `more` of something when the account would then hold more than it may.
pub(crate) fn has_room(state: &State, faults: &Faults, quota: Quota, more: usize) -> Answer<()> {
    let held = match quota {
        Quota::Clusters => state.clusters.len(),
        Quota::Instances => state.instances.len(),
        Quota::ClusterSnapshots => state.snapshots.len(),
    };
    let (usual, code, status) = quota.of();
    let lowered =
        |fault: &Fault| matches!(fault, Fault::Quota { of, at_most } if *of == quota && held + more > *at_most);
    let at_most = match faults.take(lowered) {
        Some(Fault::Quota { at_most, .. }) => at_most,
        _ if held + more > usual => usual,
        _ => return Ok(()),
    };
    Err(Refusal::new(
        code,
        status,
        format!("The account holds {held} of at most {at_most}; {more} more were asked for."),
    ))
}
