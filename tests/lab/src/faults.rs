//! Trouble on request: what a test or an operator of the lab asks to go wrong, and how often. Faults are taken one by one, so
//! that `times: 2` means exactly two. In process through `Lab::faults()`, from outside through `POST /_lab/faults`.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// The call is answered with `Throttling` and nothing happens. `action` is an API action (`DescribeDBClusters`) or `*`.
    Throttle { action: String },
    /// HTTP 500 and nothing happens.
    ErrorBefore { action: String },
    /// It happens, and the answer is HTTP 500.
    ErrorAfter { action: String },
    /// It happens, and the connection is closed without an answer.
    DropAnswer { action: String },
    /// The call is refused with this code and HTTP status, and nothing happens (`AccessDenied` 403, for example).
    Refuse { action: String, code: String, status: u16, message: String },
    /// The answer comes that much later than what was done.
    Delay { action: String, millis: u64 },
    /// The next deployment's creation ends as INVALID_CONFIGURATION for this reason.
    InvalidConfiguration { reason: String },
    /// The next deployment says AVAILABLE while a green member still says `modifying`, for this long.
    AvailableTooEarly { millis: u64 },
    /// The next deployment, once AVAILABLE, is described as PROVISIONING every other time; `times` counts the descriptions.
    Flaps,
    /// A deployment that is being switched over is described as AVAILABLE, as if the call had not come yet; `times` counts the
    /// descriptions.
    StillAvailable,
    /// This instance shows `status` instead of `available` for this long. `blue` and `green` are the writers of the deployment.
    MemberStatus { instance: String, status: String, millis: u64 },
    /// The next switchover is rolled back and the deployment says SWITCHOVER_FAILED.
    SwitchoverFails { reason: String },
    /// The next switchover is refused by a guardrail with this reason and the deployment says AVAILABLE again.
    SwitchoverCancelled { reason: String },
    /// The next switchover is taken back after writes were stopped and connections dropped; the deployment says AVAILABLE again.
    SwitchoverReverts { reason: String },
    /// The next switchover is taken back because sequences did not synchronise, with RDS's event for it.
    SequencesDoNotSync,
    /// The next switchover stays with writes stopped for this long before it goes on.
    SwitchoverStalls { millis: u64 },
    /// Before the next switchover the servers are really brought into the state that this guardrail refuses, and out of it
    /// again after it has.
    Guardrail { guardrail: Guardrail },
    /// What servers tell about a deployment changes this much later than it should, as long as it is planned.
    StatusLate { millis: u64 },
    /// Servers tell nothing of deployments, as long as it is planned.
    StatusAbsent,
    /// Servers tell at most this status of deployments, as long as it is planned.
    StatusStuck { status: crate::status::Status },
    /// CloudWatch answers this many bytes more than the slots show.
    ReportedLag { bytes: u64 },
    /// Green really applies nothing in any live deployment, as long as it is planned: its tables are locked.
    ApplyStalls,
    /// Green's apply workers really run only `percent` of the time, in any live deployment, as long as it is planned: what a
    /// slow disk of green looks like from blue.
    ApplySlow { percent: u32 },
    /// The deployment's slots are really lost: blue keeps no WAL for them while apply stands still.
    SlotLost,
    /// The next deployment's slot creation waits where no client can see it.
    HideSlotWait,
    /// A reader takes over in this cluster: an identifier, or `blue` or `green` of the deployment.
    Failover { cluster: String },
    /// The writer of this cluster is restarted: an identifier, or `blue` or `green` of the deployment.
    Reboot { cluster: String },
    /// `DescribePendingMaintenanceActions` tells of this, as long as it is planned.
    PendingMaintenance { resource_arn: String, action: String },
    /// This cluster is described as having something that it has not, as long as it is planned.
    Looks { cluster: String, feature: Feature },
    /// A call that would make the account hold more than this is refused by its quota.
    Quota { of: Quota, at_most: usize },
}

/// What an account may hold only so many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// Clusters, greens among them.
    Clusters,
    /// Their members.
    Instances,
    /// Manual snapshots of clusters, final ones among them.
    ClusterSnapshots,
}

/// A guardrail of a switchover that can really be tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guardrail {
    /// A slot on blue that is not the deployment's.
    ExternalSlot,
    /// A subscription on blue.
    ExternalSubscription,
    /// A client's writing transaction on green.
    GreenWrites,
    /// A client's writing transaction on blue that is older than the limit, which is a second for this once.
    LongWrite,
    /// Green is behind by more than the limit, which is a kilobyte for this once.
    Lag,
    /// One of green's subscriptions is disabled.
    NotReplicating,
}

/// When a fault begins to be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A deployment is being created, before anything is done for it.
    Provisioning,
    /// Its logical slots are being made.
    Slots,
    /// `pg_upgrade` is about to run.
    Upgrading,
    /// It says AVAILABLE.
    Replicating,
    /// Clients are held for the cut. The lab cannot see that: whoever drives the upgrade says so (`Faults::reached`, or
    /// `POST /_lab/moments`).
    Hold,
    /// The switchover was asked for and nothing is stopped yet.
    Called,
    /// Writes and connections are being stopped.
    Stopped,
    /// Green takes writes.
    Switched,
}

/// What a cluster may be described as having.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// `MasterUserSecret`: the master password is managed by Secrets Manager.
    ManagedSecret,
    /// `GlobalClusterIdentifier`, and `DescribeGlobalClusters` lists it.
    GlobalDatabase,
    /// `IAMDatabaseAuthenticationEnabled`.
    IamAuthentication,
    /// `ActivityStreamStatus` started.
    ActivityStream,
    /// `DescribeIntegrations` lists a zero-ETL integration.
    ZeroEtl,
    /// `DescribeDBProxyTargets` lists it behind a proxy.
    Proxy,
    /// `Engine` is `aurora-mysql`.
    OtherEngine,
}

impl Fault {
    fn action(&self) -> Option<&str> {
        match self {
            Self::Throttle { action }
            | Self::ErrorBefore { action }
            | Self::ErrorAfter { action }
            | Self::DropAnswer { action }
            | Self::Refuse { action, .. }
            | Self::Delay { action, .. } => Some(action),
            _ => None,
        }
    }
}

/// A fault and how often it is still to happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
    /// How many times it still does.
    #[serde(default = "once")]
    pub times: u32,
    /// When it begins to be due; `None`: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
}

const fn once() -> u32 {
    1
}

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Mutex<Vec<Planned>>,
    /// Wakes whoever plays the faults that wait for nobody's call.
    pub(crate) news: Notify,
}

impl Faults {
    /// Plans `fault` for the next `times` occasions.
    pub fn plan(&self, fault: Fault, times: u32) {
        self.plan_at(fault, times, None);
    }

    /// Plans `fault` for `times` occasions from a moment on.
    pub fn plan_at(&self, fault: Fault, times: u32, at: Option<Moment>) {
        self.lock().push(Planned { fault, times, at });
        self.news.notify_one();
    }

    /// Plans everything of a scenario.
    pub fn plan_all(&self, planned: impl IntoIterator<Item = Planned>) {
        self.lock().extend(planned);
        self.news.notify_one();
    }

    /// A moment has come: what waited for it is due from now on.
    pub fn reached(&self, moment: Moment) {
        for planned in self.lock().iter_mut().filter(|planned| planned.at == Some(moment)) {
            planned.at = None;
        }
        self.news.notify_one();
    }

    /// Forgets all that has not happened yet.
    pub fn clear(&self) {
        self.lock().clear();
        self.news.notify_one();
    }

    /// What has not happened yet.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Planned> {
        self.lock().clone()
    }

    /// Takes one occasion of the first fault of `action` that `wanted` accepts.
    pub(crate) fn take_for_action(&self, action: &str, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        self.take(|fault| fault.action().is_some_and(|a| a == "*" || a == action) && wanted(fault))
    }

    /// Takes one occasion of the first fault that `wanted` accepts.
    pub(crate) fn take(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut planned = self.lock();
        let at = planned.iter().position(|p| p.at.is_none() && p.times > 0 && wanted(&p.fault))?;
        planned[at].times -= 1;
        let fault = planned[at].fault.clone();
        planned.retain(|p| p.times > 0);
        Some(fault)
    }

    /// Looks without taking: for faults that last until they are cleared.
    pub(crate) fn standing<T>(&self, look: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.lock().iter().filter(|p| p.at.is_none()).find_map(|p| look(&p.fault))
    }

    /// Whether `cluster` is described as having `feature`.
    pub(crate) fn looks(&self, cluster: &str, feature: Feature) -> bool {
        self.standing(|fault| match fault {
            Fault::Looks { cluster: c, feature: f } if c == cluster && *f == feature => Some(()),
            _ => None,
        })
        .is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Planned>> {
        self.planned.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_exactly_as_often_as_planned() {
        let faults = Faults::default();
        faults.plan(Fault::Throttle { action: "DescribeDBClusters".into() }, 2);
        let taken = || faults.take_for_action("DescribeDBClusters", |f| matches!(f, Fault::Throttle { .. })).is_some();
        assert_eq!([taken(), taken(), taken()], [true, true, false]);
        assert!(faults.outstanding().is_empty());
    }

    #[test]
    fn a_fault_with_a_moment_waits_for_it() {
        let faults = Faults::default();
        faults.plan_at(Fault::Flaps, 1, Some(Moment::Replicating));
        let taken = || faults.take(|f| *f == Fault::Flaps).is_some();
        faults.reached(Moment::Provisioning);
        assert!(!taken());
        faults.reached(Moment::Replicating);
        assert_eq!([taken(), taken()], [true, false]);
    }

    #[test]
    fn the_control_path_reads_a_fault_with_and_without_times() {
        let one: Planned = serde_json::from_str(r#"{"kind":"throttle","action":"*"}"#).expect("valid");
        assert_eq!((one.times, one.fault), (1, Fault::Throttle { action: "*".into() }));
        let two: Planned = serde_json::from_str(r#"{"kind":"reported_lag","bytes":7,"times":2}"#).expect("valid");
        assert_eq!((two.times, two.fault), (2, Fault::ReportedLag { bytes: 7 }));
        let stuck: Planned =
            serde_json::from_str(r#"{"kind":"status_stuck","status":"SWITCHOVER_INITIATED"}"#).expect("valid");
        assert_eq!(stuck.fault, Fault::StatusStuck { status: crate::status::Status::SwitchoverInitiated });
    }
}
