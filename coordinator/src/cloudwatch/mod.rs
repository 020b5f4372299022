//! The CloudWatch port: the metrics that an upgrade reads. `sdk.rs` is the real thing and the only file that names
//! `aws_sdk_cloudwatch`; `fake.rs` is the model; `contract.rs` is the suite both pass.
//!
//! CloudWatch is one to three minutes late and is therefore history and a second opinion, never the last word of a gate.
//! A point that is not there is `None`, never zero.

pub mod contract;
pub mod fake;
pub mod sdk;

use jiff::Timestamp;

use crate::rds::{Answer, InstanceId};

/// A metric of namespace `AWS/RDS` with dimension `DBInstanceIdentifier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Bytes of WAL that the slot furthest behind has not confirmed.
    OldestReplicationSlotLag,
    /// Bytes of disk that slots hold.
    ReplicationSlotDiskUsage,
    /// Bytes of local storage that are free (Aurora).
    FreeLocalStorage,
    /// Percent.
    CpuUtilization,
    DatabaseConnections,
}

impl Metric {
    /// Which figure of a minute counts: the worst.
    pub fn statistic(self) -> &'static str {
        match self {
            Self::FreeLocalStorage => "Minimum",
            _ => "Maximum",
        }
    }

    /// AWS's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OldestReplicationSlotLag => "OldestReplicationSlotLag",
            Self::ReplicationSlotDiskUsage => "ReplicationSlotDiskUsage",
            Self::FreeLocalStorage => "FreeLocalStorage",
            Self::CpuUtilization => "CPUUtilization",
            Self::DatabaseConnections => "DatabaseConnections",
        }
    }
}

/// One point of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub value: f64,
    /// The beginning of the minute that the point is about, on AWS's clock.
    pub at: Timestamp,
}

/// A number of bytes, at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub bytes: u64,
    /// The beginning of the minute that the sample is about, on AWS's clock.
    pub at: Timestamp,
}

/// CloudWatch, as far as an upgrade needs it. Held as `Arc<dyn CloudWatch>`.
pub trait CloudWatch: Send + Sync + 'static {
    /// The newest point (the worst of its minute, see [`Metric::statistic`]) not older than `since`; `None` when there is none.
    fn newest<'a>(&'a self, metric: Metric, instance: &'a InstanceId, since: Timestamp) -> Answer<'a, Option<Point>>;

    /// [`Metric::OldestReplicationSlotLag`] of the instance that is the writer *now*, in whole bytes. A negative point, which
    /// AWS gives where there is no slot, is `None`.
    fn oldest_replication_slot_lag<'a>(
        &'a self,
        instance: &'a InstanceId,
        since: Timestamp,
    ) -> Answer<'a, Option<Sample>> {
        self.bytes(Metric::OldestReplicationSlotLag, instance, since)
    }

    /// [`Metric::FreeLocalStorage`] of one instance, in whole bytes. On Aurora the cluster's volume grows by itself; what can
    /// fill up is each instance's own local storage (temporary files, logs, what decoding spills).
    fn free_local_storage<'a>(&'a self, instance: &'a InstanceId, since: Timestamp) -> Answer<'a, Option<Sample>> {
        self.bytes(Metric::FreeLocalStorage, instance, since)
    }

    /// The newest point of a metric in bytes; a negative one is `None`.
    fn bytes<'a>(&'a self, metric: Metric, instance: &'a InstanceId, since: Timestamp) -> Answer<'a, Option<Sample>> {
        Box::pin(async move {
            let point = self.newest(metric, instance, since).await?;
            Ok(point.filter(|p| p.value >= 0.0).map(|p| Sample { bytes: p.value as u64, at: p.at }))
        })
    }
}
