//! CloudWatch in memory: points that a test puts there, told as late as AWS tells them. For tests only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;

use super::*;
use crate::rds::Error;

/// The fake. Clones are the same account.
#[derive(Clone)]
pub struct Fake {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
}

#[derive(Default)]
struct Inner {
    points: BTreeMap<(Metric, InstanceId), Vec<Point>>,
    late: Duration,
    failure: Option<Error>,
}

impl Fake {
    /// Points are told at once until [`Fake::late`] says otherwise.
    pub fn new(clock: Clock) -> Self {
        Self { inner: Arc::default(), clock }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the fake's lock panics")
    }

    /// Adds a point of now.
    pub fn put(&self, metric: Metric, instance: &InstanceId, value: f64) {
        self.put_at(metric, instance, Point { value, at: self.clock.now() });
    }

    pub fn put_at(&self, metric: Metric, instance: &InstanceId, point: Point) {
        self.inner().points.entry((metric, instance.clone())).or_default().push(point);
    }

    /// A point is told so long after its time.
    pub fn late(&self, by: Duration) {
        self.inner().late = by;
    }

    /// Every call fails with this, until `None`.
    pub fn fail(&self, failure: Option<Error>) {
        self.inner().failure = failure;
    }
}

impl CloudWatch for Fake {
    fn newest<'a>(&'a self, metric: Metric, instance: &'a InstanceId, since: Timestamp) -> Answer<'a, Option<Point>> {
        Box::pin(async move {
            let inner = self.inner();
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            let late = SignedDuration::try_from(inner.late).unwrap_or_default();
            let told = self.clock.now().saturating_sub(late).unwrap_or(Timestamp::MIN);
            let points = inner.points.get(&(metric, instance.clone())).into_iter().flatten();
            Ok(points.filter(|p| p.at >= since && p.at <= told).max_by_key(|p| p.at).copied())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudwatch::contract;

    #[tokio::test(start_paused = true)]
    async fn the_fake_meets_the_contract() {
        let fake = Fake::new(Clock::tokio());
        let writer = InstanceId::from("orders-1");
        fake.put(Metric::OldestReplicationSlotLag, &writer, 4096.0);
        let fixture = contract::Fixture {
            cloudwatch: Arc::new(fake),
            clock: Clock::tokio(),
            writer,
            deadline: Duration::from_secs(10),
        };
        contract::whole(&fixture).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_point_is_none_until_it_is_told_and_a_stale_one_again() {
        let clock = Clock::tokio();
        let fake = Fake::new(clock.clone());
        let writer = InstanceId::from("orders-1");
        fake.late(Duration::from_secs(120));
        fake.put(Metric::OldestReplicationSlotLag, &writer, 7.0);
        let fresh = || clock.now().saturating_sub(SignedDuration::from_mins(5)).expect("a time");
        let look = async || fake.oldest_replication_slot_lag(&writer, fresh()).await.expect("an answer");
        assert_eq!(look().await, None);
        clock.sleep(Duration::from_secs(121)).await;
        assert_eq!(look().await.map(|s| s.bytes), Some(7));
        clock.sleep(Duration::from_secs(300)).await;
        assert_eq!(look().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_negative_point_is_no_measurement() {
        let fake = Fake::new(Clock::tokio());
        let writer = InstanceId::from("orders-1");
        fake.put(Metric::OldestReplicationSlotLag, &writer, -1.0);
        let lag = fake.oldest_replication_slot_lag(&writer, Timestamp::UNIX_EPOCH).await.expect("an answer");
        assert_eq!(lag, None);
    }
}
