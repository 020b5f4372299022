//! How many jobs an agent takes, and how many long ones it does at once.

use std::time::Duration;

use proto::{
    ids::JobId,
    job::Job,
    jobs::{Marker, MarkerSeen, Vacuum, Vacuumed},
};
use tokio::sync::watch;

use super::super::runner::{AtOnce, FULL, Offer, Runner};
use super::*;
use crate::{
    jobs::Registry,
    testing::{Pair, Peak},
};

/// A runner whose markers end when the first gate is opened and whose vacuums when the second is, and the vacuums under way.
struct Scene {
    pair: Pair,
    runner: Runner,
    markers: watch::Sender<bool>,
    vacuums: watch::Sender<bool>,
    begun: watch::Receiver<usize>,
    peak: Peak,
}

async fn scene(name: &str) -> Scene {
    let pair = Pair::start(name, |_, _| async { runtime::played::Said::Done }).await;
    let (markers, vacuums) = (watch::Sender::new(false), watch::Sender::new(false));
    let (begin, begun) = watch::channel(0);
    let (begin, peak) = (Arc::new(begin), Peak::default());
    let mut registry = Registry::default();
    let gate = markers.clone();
    registry.add::<Marker, _, _>(move |_, _| {
        let mut gate = gate.subscribe();
        async move {
            let _there = gate.wait_for(|open| *open).await;
            Ok(MarkerSeen { databases: Vec::new() })
        }
    });
    let (gate, most) = (vacuums.clone(), peak.clone());
    registry.add::<Vacuum, _, _>(move |_, _| {
        let (mut gate, begin, peak) = (gate.subscribe(), begin.clone(), most.clone());
        async move {
            peak.up();
            begin.send_modify(|begun| *begun += 1);
            let _there = gate.wait_for(|open| *open).await;
            peak.down();
            Ok(Vacuumed { tables: 1, full: 0, reindexed: 0, slowest: Vec::new() })
        }
    });
    let runner =
        Runner::new(pair.shared.clone(), registry, "agent-1".into(), Vec::new(), AtOnce::default()).await.unwrap();
    Scene { pair, runner, markers, vacuums, begun, peak }
}

impl Scene {
    fn job(&self, kind: &str, n: usize) -> Job {
        let body = match kind {
            "marker" => serde_json::to_value(Marker { key: "k".into() }),
            _ => serde_json::to_value(Vacuum { parallel: 1, full: Vec::new(), reindex: Vec::new() }),
        };
        Job {
            id: format!("up-test/step/1/{kind}-{n}").parse().unwrap(),
            epoch: Epoch(4),
            deadline_ms: 60_000,
            kind: kind.into(),
            on: self.pair.cx(Side::Blue, Duration::ZERO).on,
            body: body.unwrap(),
        }
    }

    /// Waits until all these are answered.
    async fn answered(&self, jobs: &[Job]) {
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        let mut changed = self.runner.changed();
        let all = async {
            loop {
                changed.borrow_and_update();
                let answers = self.runner.answers();
                if ids.iter().all(|id| answers.iter().any(|answer| answer.id() == id)) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(super::super::fake::WITHIN, all).await.expect("the jobs are done in time");
    }
}

#[tokio::test]
async fn of_sixty_four_jobs_that_run_or_wait_the_next_is_refused_and_taken_when_they_have_ended() {
    let scene = scene("jobs-full").await;
    let jobs: Vec<Job> = (0..65).map(|n| scene.job("marker", n)).collect();
    for job in &jobs[..64] {
        assert_eq!(scene.runner.offer(job.clone()).await, Offer::Accepted);
    }
    let refused = scene.runner.offer(jobs[64].clone()).await;
    assert!(matches!(&refused, Offer::Refused { code: FULL, reason } if reason.contains("64 jobs")), "{refused:?}");
    assert_eq!(scene.runner.offer(jobs[0].clone()).await, Offer::Accepted, "one that it has is none more");
    scene.markers.send_replace(true);
    scene.answered(&jobs[..64]).await;
    assert_eq!(scene.runner.offer(jobs[64].clone()).await, Offer::Accepted);
    scene.answered(&jobs).await;
}

#[tokio::test]
async fn three_long_jobs_are_done_at_once_and_an_urgent_one_waits_for_none_of_them() {
    let mut scene = scene("jobs-long").await;
    let long: Vec<Job> = (0..10).map(|n| scene.job("vacuum", n)).collect();
    for job in &long {
        assert_eq!(scene.runner.offer(job.clone()).await, Offer::Accepted);
    }
    let begun = scene.begun.wait_for(|begun| *begun >= 3);
    tokio::time::timeout(super::super::fake::WITHIN, begun).await.expect("three begin in time").unwrap();
    scene.markers.send_replace(true);
    let urgent = scene.job("marker", 0);
    assert_eq!(scene.runner.offer(urgent.clone()).await, Offer::Accepted);
    scene.answered(&[urgent]).await;
    assert_eq!(*scene.begun.borrow(), 3, "more than three went on");
    scene.vacuums.send_replace(true);
    scene.answered(&long).await;
    assert_eq!((scene.peak.most(), *scene.begun.borrow()), (3, 10));
}
