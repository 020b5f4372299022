//! One suite that every implementation of [`CloudWatch`] passes: the fake, and the SDK against the lab. Panics where it is not
//! met; for tests only.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use runtime::clock::Clock;

use super::*;

/// What the suite is run on: a writer with at least one logical slot, whose lag is or soon will be published.
#[derive(Clone)]
pub struct Fixture {
    pub cloudwatch: Arc<dyn CloudWatch>,
    pub clock: Clock,
    pub writer: InstanceId,
    /// For the first point to arrive.
    pub deadline: Duration,
}

/// Everything, in order.
pub async fn whole(f: &Fixture) {
    published(f).await;
    nothing(f).await;
}

/// A point arrives, is not older than asked for, and is in whole bytes.
pub async fn published(f: &Fixture) {
    let began = f.clock.mono();
    loop {
        let since = f.clock.now().saturating_sub(SignedDuration::from_mins(5)).expect("a time");
        let sample = f.cloudwatch.oldest_replication_slot_lag(&f.writer, since).await.expect("an answer");
        if let Some(sample) = sample {
            assert!(sample.at >= since, "{sample:?} is older than {since}");
            return;
        }
        let waited = f.clock.mono().since(began);
        assert!(waited < f.deadline, "no point of {} within {waited:?}", f.writer);
        f.clock.sleep(Duration::from_millis(200)).await;
    }
}

/// What is not there is `None`: an instance that nobody has, and a time that has not come.
pub async fn nothing(f: &Fixture) {
    let nobody = InstanceId::from("no-such-instance");
    let since = f.clock.now().saturating_sub(SignedDuration::from_mins(5)).expect("a time");
    let metric = Metric::OldestReplicationSlotLag;
    assert_eq!(f.cloudwatch.newest(metric, &nobody, since).await.expect("an answer"), None);
    let later = f.clock.now().saturating_add(SignedDuration::from_mins(10)).expect("a time");
    assert_eq!(f.cloudwatch.newest(metric, &f.writer, later).await.expect("an answer"), None);
}
