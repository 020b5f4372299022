//! Replication lag as the gates judge it: per slot by SQL, in time by the marker, and CloudWatch's figure. A measurement that
//! is missing or too old is `None`, and `None` never passes.

use std::sync::Mutex;
use std::time::Duration;

use engine::{Failure, Unit};
use runtime::clock::Mono;
use serde::{Deserialize, Serialize};

use super::shared::Context;
use crate::{cloudwatch::Sample, rds::InstanceId, spec::Replication, steps::prerequisites::Prerequisites};

/// Between two measurements.
pub(crate) const EVERY: Duration = Duration::from_millis(250);
/// An SQL measurement older than this is none.
const SQL_FRESH_MS: u64 = 2000;
/// CloudWatch has a point a minute: asking more often only costs.
const CLOUDWATCH_EVERY: Duration = Duration::from_secs(10);

/// One measurement. `None` is missing, never zero.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Lag {
    /// Bytes of the slot furthest behind.
    pub slot_bytes: Option<u64>,
    pub slots: Vec<(String, Option<u64>)>,
    pub marker_ms: Option<u64>,
    pub cloudwatch_bytes: Option<u64>,
    /// Transactions since the oldest `catalog_xmin` or `xmin` of a slot.
    pub xmin_age: Option<u64>,
    /// Free local storage of the writer.
    pub free_bytes: Option<u64>,
}

impl Lag {
    /// The thresholds that are not met, as sentences; empty when all are.
    pub(crate) fn misses(&self, limits: &Replication) -> Vec<String> {
        let judge = |what: &str, unit: &str, value: Option<u64>, max: u64| match value {
            None => Some(format!("{what} is not measured")),
            Some(value) if value > max => Some(format!("{what} is {value} {unit} of {max} allowed")),
            Some(_) => None,
        };
        let free = match self.free_bytes {
            _ if limits.free_bytes_hold == 0 => None,
            None => Some("free local storage is not measured".to_owned()),
            Some(free) if free < limits.free_bytes_hold => {
                Some(format!("free local storage is {free} bytes of {} needed", limits.free_bytes_hold))
            }
            Some(_) => None,
        };
        [
            judge("slot lag", "bytes", self.slot_bytes, limits.lag_bytes_max),
            judge("marker delay", "ms", self.marker_ms, limits.marker_delay_ms_max),
            judge("CloudWatch's lag", "bytes", self.cloudwatch_bytes, limits.cloudwatch_lag_bytes_max),
            judge("the slots' xmin age", "transactions", self.xmin_age, limits.xmin_age_hold),
            free,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// How long a condition has held without a break.
pub(crate) struct Steady {
    since: Mutex<Option<Mono>>,
}

impl Steady {
    pub(crate) fn new() -> Steady {
        Steady { since: Mutex::new(None) }
    }

    /// Notes whether it holds now; true once it has held as long as is needed.
    pub(crate) fn held(&self, now: Mono, needed: Duration, holds: bool) -> bool {
        let mut since = self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !holds {
            *since = None;
            return false;
        }
        let began = *since.get_or_insert(now);
        now.since(began) >= needed
    }
}

/// Asks CloudWatch no more often than it can have news.
pub(crate) struct CloudWatchReader {
    last: Mutex<Option<(Mono, Figures)>>,
}

/// What CloudWatch says of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Figures {
    lag: Option<u64>,
    free: Option<u64>,
}

impl Figures {
    /// What is missing is asked for again soon.
    fn good_for(self) -> Duration {
        if self.lag.is_some() && self.free.is_some() { CLOUDWATCH_EVERY } else { Duration::from_secs(1) }
    }
}

impl CloudWatchReader {
    pub(crate) fn new() -> CloudWatchReader {
        CloudWatchReader { last: Mutex::new(None) }
    }

    async fn read(&self, cx: &Context<'_>) -> Result<Figures, Failure> {
        let now = cx.clock().mono();
        let remembered = *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, figures)) = remembered
            && now.since(at) < figures.good_for()
        {
            return Ok(figures);
        }
        let figures = figures(cx).await?;
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((now, figures));
        Ok(figures)
    }
}

/// CloudWatch's newest points for the writer that blue has now, those that are fresh enough.
async fn figures(cx: &Context<'_>) -> Result<Figures, Failure> {
    let prepared = cx.output::<Prerequisites>()?;
    let cluster = super::shared::recorded_cluster(cx, &prepared.blue).await?;
    let Some(writer): Option<InstanceId> = cluster.writer().map(|writer| writer.instance.clone()) else {
        return Ok(Figures::default());
    };
    let age = Duration::from_secs(cx.spec_now().replication.cloudwatch_age_seconds_max);
    let since = cx.clock().now().saturating_sub(age).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let cloudwatch = &cx.world().cloudwatch;
    let lag = cloudwatch.oldest_replication_slot_lag(&writer, since).await;
    let lag = lag.map_err(|error| crate::preflight::failed("reading OldestReplicationSlotLag", error))?;
    let free = cloudwatch.free_local_storage(&writer, since).await;
    let free = free.map_err(|error| crate::preflight::failed("reading FreeLocalStorage", error))?;
    let fresh = |sample: Option<Sample>| sample.filter(|sample| sample.at >= since).map(|sample| sample.bytes);
    Ok(Figures { lag: fresh(lag), free: fresh(free) })
}

/// Measures now, from the lead's newest report and CloudWatch.
pub(crate) async fn measure(cx: &Context<'_>, cloudwatch: &CloudWatchReader) -> Result<Lag, Failure> {
    let prepared = cx.output::<Prerequisites>()?;
    let figures = cloudwatch.read(cx).await?;
    let mut lag = Lag { cloudwatch_bytes: figures.lag, free_bytes: figures.free, ..Lag::default() };
    let Some(report) = cx.world().agents.lead_report() else { return Ok(lag) };
    let fresh = |age_ms: u64| age_ms + u64::try_from(report.age.as_millis()).unwrap_or(u64::MAX) <= SQL_FRESH_MS;
    if let Some(slots) = report.value.slots.as_ref().filter(|slots| fresh(slots.age_ms)) {
        let ours: Vec<_> = slots.slots.iter().filter(|slot| slot.of_deployment && slot.logical).collect();
        lag.slots = ours.iter().map(|slot| (slot.name.clone(), slot.lag_bytes)).collect();
        let all_active = ours.iter().all(|slot| slot.active) && ours.len() as u64 >= prepared.databases;
        let worst = ours.iter().map(|slot| slot.lag_bytes).collect::<Option<Vec<_>>>();
        lag.xmin_age = slots.xmin_age;
        lag.slot_bytes = worst.filter(|_| all_active).and_then(|bytes| bytes.into_iter().max());
    }
    if let Some(marker) = report.value.marker.as_ref().filter(|marker| fresh(marker.age_ms)) {
        lag.marker_ms = marker.max_ms.max(marker.pending_ms).filter(|_| marker.max_ms.is_some());
    }
    Ok(lag)
}

/// Shows the figure that matters most to people.
pub(crate) fn show(cx: &Context<'_>, lag: &Lag) {
    if let Some(bytes) = lag.slot_bytes {
        cx.progress(bytes, cx.spec_now().replication.lag_bytes_max, Unit::BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::UpgradeSpec;

    #[test]
    fn what_is_not_measured_never_passes() {
        let limits = UpgradeSpec::new("orders", "16").replication;
        let good = Lag {
            slot_bytes: Some(0),
            marker_ms: Some(3),
            cloudwatch_bytes: Some(0),
            slots: Vec::new(),
            xmin_age: Some(7),
            free_bytes: Some(50 << 30),
        };
        assert_eq!(good.misses(&limits), Vec::<String>::new());
        for broken in [
            Lag { slot_bytes: None, ..good.clone() },
            Lag { marker_ms: None, ..good.clone() },
            Lag { cloudwatch_bytes: None, ..good.clone() },
            Lag { xmin_age: None, ..good.clone() },
            Lag { free_bytes: None, ..good.clone() },
            Lag { free_bytes: Some(limits.free_bytes_hold - 1), ..good.clone() },
        ] {
            assert_eq!(broken.misses(&limits).len(), 1, "{broken:?}");
        }
        let unasked = Replication { free_bytes_hold: 0, ..limits.clone() };
        assert_eq!(Lag { free_bytes: None, ..good.clone() }.misses(&unasked), Vec::<String>::new());
        let behind = Lag { slot_bytes: Some(u64::MAX), ..good };
        assert!(behind.misses(&limits)[0].starts_with("slot lag is"));
    }

    #[test]
    fn a_break_starts_the_time_again() {
        let (steady, needed) = (Steady::new(), Duration::from_secs(10));
        let at = |seconds| Mono(Duration::from_secs(seconds));
        assert!(!steady.held(at(0), needed, true));
        assert!(!steady.held(at(9), needed, false));
        assert!(!steady.held(at(10), needed, true));
        assert!(!steady.held(at(19), needed, true));
        assert!(steady.held(at(20), needed, true));
    }
}
