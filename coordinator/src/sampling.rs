//! Beside a driver: once a second the lead's report becomes samples, and the time a step spends in named waits
//! is added up. For people and charts only; nothing decides on it.

mod ages;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::PoisonError;
use std::time::Duration;

use engine::failure::codes;
use engine::{Code, Handle, StepId};
use jiff::{SignedDuration, Timestamp};
use proto::report::Report;
use runtime::clock::{Clock, Mono};

use crate::cloudwatch::CloudWatch;
use crate::drivers::{DriversOptions, Running};
use crate::rds::InstanceId;
use crate::store::{Sample, Store};
use crate::world::Upgrade;

pub(crate) use ages::Ages;

/// Between two looks at the lead's report.
const EVERY: Duration = Duration::from_secs(1);
/// An older report of the lead is none.
pub(crate) const REPORT_AGE_MAX: Duration = Duration::from_secs(5);
/// Slots that have samples of their own.
const SLOTS_MAX: usize = 32;
/// Between two questions to CloudWatch, which has one point a minute.
const CLOUDWATCH_EVERY: Duration = Duration::from_secs(20);
/// An older point is no point.
const CLOUDWATCH_AGE_MAX: SignedDuration = SignedDuration::from_secs(300);

/// Samples until it is dropped.
pub(crate) async fn run(options: &DriversOptions, running: &Running, handle: &Handle<Upgrade>) -> Infallible {
    let (store, clock) = (&*options.store, &options.clock);
    let (reports, waits) = (sample(store, clock, running, handle), count_waits(store, clock, running, handle));
    tokio::join!(reports, waits, ask_cloudwatch(&*options.cloudwatch, clock, running)).0
}

/// Once in a while while the deployment has slots: what CloudWatch says of the writer that serves.
async fn ask_cloudwatch(cloudwatch: &dyn CloudWatch, clock: &Clock, running: &Running) -> Infallible {
    loop {
        let replicating = running.agents.lead_report().is_some_and(|report| lag_bytes(&report.value).is_some());
        let targets = running.agents.targets().filter(|_| replicating);
        let writer = targets.as_ref().and_then(|targets| targets.side(targets.serving)?.writer());
        let mut newest = None;
        if let Some(writer) = writer {
            let since = clock.now().saturating_sub(CLOUDWATCH_AGE_MAX).unwrap_or(Timestamp::MIN);
            match cloudwatch.oldest_replication_slot_lag(&InstanceId::new(&writer.instance), since).await {
                Ok(sample) => newest = sample.map(|sample| sample.bytes),
                Err(error) => tracing::debug!(%error, "cloudwatch was not read"),
            }
        }
        *running.cloudwatch_lag.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        clock.sleep(if replicating { CLOUDWATCH_EVERY } else { EVERY }).await;
    }
}

async fn sample(store: &dyn Store, clock: &Clock, running: &Running, handle: &Handle<Upgrade>) -> Infallible {
    let (began, mut kept) = (clock.mono(), None);
    loop {
        clock.sleep(EVERY).await;
        let Some(report) = running.agents.lead_report().filter(|report| report.age < REPORT_AGE_MAX) else { continue };
        let now = clock.mono();
        let behind = {
            let mut ages = running.ages.lock().unwrap_or_else(PoisonError::into_inner);
            ages.see(&report.value, now - report.age);
            ages.of(&report.value, now)
        };
        let phase = crate::operator::standing::phase(&handle.state());
        let pace = pace(phase.as_deref(), now.since(began));
        if kept.is_some_and(|kept| now.since(kept) + EVERY / 2 < pace) {
            continue;
        }
        kept = Some(now);
        let cloudwatch = *running.cloudwatch_lag.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = samples(&report.value, &behind, cloudwatch, clock.now().as_millisecond());
        if !samples.is_empty()
            && let Err(error) = store.add_samples(handle.run_id(), samples).await
        {
            tracing::warn!(upgrade = %handle.run_id(), error = %error, "samples were not kept");
        }
    }
}

/// Samples are many and the table is bounded: every second where a second counts, seldom in the hours of waiting.
fn pace(step: Option<&str>, driven: Duration) -> Duration {
    let fine = matches!(step, Some("switchover" | "post_switchover")) || driven < Duration::from_secs(600);
    Duration::from_secs(match driven.as_secs() {
        _ if fine => 1,
        0..3600 => 10,
        _ => 30,
    })
}

fn samples(report: &Report, behind_ms: &BTreeMap<String, u64>, cloudwatch: Option<u64>, at_ms: i64) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |name: &str, value: Option<f64>| {
        samples.extend(value.map(|value| Sample { at_ms, name: name.to_owned(), value }));
    };
    add("lag_bytes", lag_bytes(report).map(|bytes| bytes as f64));
    add("marker_ms", report.marker.as_ref().and_then(|marker| marker.max_ms).map(|ms| ms as f64));
    add("backlog", total(report, |controller| controller.backlog.map(|backlog| backlog as f64)));
    add("ingestion_rate", total(report, |controller| controller.rate));
    add("cloudwatch_bytes", cloudwatch.map(|bytes| bytes as f64));
    let slots = report.slots.iter().flat_map(|slots| &slots.slots).filter(|slot| slot.of_deployment);
    for slot in slots.take(SLOTS_MAX) {
        add(&format!("slot_bytes/{}", slot.name), slot.lag_bytes.map(|bytes| bytes as f64));
        add(&format!("slot_ms/{}", slot.name), behind_ms.get(&slot.name).map(|ms| *ms as f64));
    }
    samples
}

/// The slot of the deployment that is furthest behind.
pub(crate) fn lag_bytes(report: &Report) -> Option<u64> {
    let slots = report.slots.as_ref()?;
    slots.slots.iter().filter(|slot| slot.of_deployment).filter_map(|slot| slot.lag_bytes).max()
}

/// The sum over all controllers that know it.
pub(crate) fn total(report: &Report, of: impl Fn(&proto::report::Controller) -> Option<f64>) -> Option<f64> {
    let known: Vec<f64> = report.ingestion.iter().filter_map(of).collect();
    (!known.is_empty()).then(|| known.iter().sum())
}

/// Follows the transient progress; a wait that ends is added to its step, in memory and as a sample `wait/<step>/<what>`.
async fn count_waits(store: &dyn Store, clock: &Clock, running: &Running, handle: &Handle<Upgrade>) -> Infallible {
    let mut progress = handle.progress();
    let mut open: Option<(StepId, String, Mono)> = None;
    loop {
        let now = {
            let progress = progress.borrow_and_update();
            let inside = progress.wait.as_ref().map(|wait| wait.what.to_owned());
            let outside = progress.waiting.as_ref().map(|why| named(why.code));
            progress.step.zip(inside.or(outside))
        };
        let same = open.as_ref().map(|(step, what, _)| (*step, what.clone())) == now;
        if !same {
            if let Some((step, what, since)) = open.take() {
                let seconds = (clock.mono() - since).as_secs_f64();
                running.tally.lock().unwrap_or_else(PoisonError::into_inner).add_wait(step, &what, seconds);
                let name = format!("wait/{step}/{what}");
                let sample = Sample { at_ms: clock.now().as_millisecond(), name, value: seconds };
                if let Err(error) = store.add_samples(handle.run_id(), vec![sample]).await {
                    tracing::warn!(upgrade = %handle.run_id(), error = %error, "samples were not kept");
                }
            }
            open = now.map(|(step, what)| (step, what, clock.mono()));
        }
        if progress.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What a step waits for outside of its own work: a person, in words, or what a code explains.
fn named(code: Code) -> String {
    match code {
        codes::APPROVAL => "an approval".to_owned(),
        codes::PAUSED => "a person who paused it".to_owned(),
        code => code.to_string(),
    }
}

/// Adds the waits that an earlier process kept as samples.
pub(crate) fn recall_waits(samples: &[Sample], tally: &mut crate::operator::tally::Tally) {
    for sample in samples {
        let mut parts = sample.name.splitn(3, '/');
        if let (Some("wait"), Some(step), Some(what)) = (parts.next(), parts.next(), parts.next())
            && let Some(step) = StepId::parse(step)
        {
            tally.add_wait(step, what, sample.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_counts_at_the_cut_and_hours_of_waiting_do_not_push_it_out() {
        let pace = |step, minutes: u64| pace(Some(step), Duration::from_secs(minutes * 60)).as_secs();
        assert_eq!([pace("provisioning", 1), pace("switchover", 600), pace("post_switchover", 600)], [1, 1, 1]);
        assert_eq!([pace("provisioning", 30), pace("replicating_data", 300)], [10, 30]);
    }
}
