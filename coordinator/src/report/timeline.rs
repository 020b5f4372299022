//! When what was at work: attempts and undoings of every step, the attempts of the cut, and the outages and holds that the agents
//! measured. Which of them count is decided as the tally of `pilot status` does, so that the figures are the same.

use std::collections::BTreeMap;

use engine::{Entry, Fact};
use jiff::{SignedDuration, Timestamp};
use proto::report::{Event, HoldKind, OutageKind};

use super::known::{Known, PREREQUISITES};
use super::model::{Attempt, Cut, Listed, Outage, Span, Step};
use crate::operator::view::StatusView;
use crate::world::{Upgrade, Witness};

/// Every step of the plan with its attempts.
pub(super) fn steps(status: &StatusView, entries: &[Entry<Upgrade>]) -> Vec<Step> {
    let mut spans: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for entry in entries {
        let at = entry.at;
        match &entry.fact {
            Fact::StepStarted { step, attempt } => {
                begin(spans.entry(step.as_str()).or_default(), *attempt, at, "running")
            }
            Fact::UndoStarted { step } => begin(spans.entry(step.as_str()).or_default(), 0, at, "undoing"),
            Fact::StepDone { step, .. } => close(spans.entry(step.as_str()).or_default(), at, "done", None),
            Fact::StepSkipped { step, .. } => close(spans.entry(step.as_str()).or_default(), at, "skipped", None),
            Fact::StepFailed { step, failure, .. } => {
                let why = format!("{failure} ({})", failure.code);
                close(spans.entry(step.as_str()).or_default(), at, "failed", Some(why));
            }
            Fact::UndoDone { step } => close(spans.entry(step.as_str()).or_default(), at, "undone", None),
            Fact::Stuck { step, failure } => {
                if let Some(open) = spans.entry(step.as_str()).or_default().last_mut() {
                    (open.end, open.failure) = ("stuck".into(), Some(format!("{failure} ({})", failure.code)));
                }
            }
            Fact::Finished { .. } => spans.values_mut().for_each(|spans| interrupt(spans, at)),
            _ => {}
        }
    }
    let step = |view: &crate::operator::view::StepView| Step {
        id: view.id.clone(),
        title: view.title.clone(),
        state: view.state.clone(),
        seconds: view.seconds,
        waits: view.waits.clone(),
        spans: spans.remove(view.id.as_str()).unwrap_or_default(),
    };
    status.steps.iter().map(step).collect()
}

fn begin(spans: &mut Vec<Span>, attempt: u32, at: Timestamp, end: &str) {
    interrupt(spans, at);
    spans.push(Span { attempt, from: at, to: None, end: end.to_owned(), failure: None });
}

/// What has no end when something else begins was interrupted.
fn interrupt(spans: &mut [Span], at: Timestamp) {
    if let Some(open) = spans.last_mut().filter(|open| open.to.is_none()) {
        open.to = Some(at);
        if open.end != "stuck" {
            open.end = "interrupted".to_owned();
        }
    }
}

/// A check may fail, and a step be skipped, without a start.
fn close(spans: &mut Vec<Span>, at: Timestamp, end: &str, failure: Option<String>) {
    if spans.last().is_none_or(|last| last.to.is_some()) {
        let attempt = spans.iter().map(|span| span.attempt).max().unwrap_or_default();
        spans.push(Span { attempt, from: at, to: None, end: String::new(), failure: None });
    }
    if let Some(open) = spans.last_mut() {
        (open.to, open.end, open.failure) = (Some(at), end.to_owned(), failure);
    }
}

/// The switchover, attempt by attempt and moment by moment.
pub(super) fn cut(status: &StatusView, known: &Known, entries: &[Entry<Upgrade>]) -> Cut {
    let mut attempts: Vec<Attempt> = Vec::new();
    for entry in entries {
        match &entry.fact {
            Fact::PivotArmed { attempt } => attempts.push(Attempt {
                attempt: *attempt,
                armed_at: entry.at,
                settled_at: None,
                outcome: None,
                evidence: None,
                deployment_status: None,
            }),
            Fact::PivotDisarmed { witness } => settle(&mut attempts, entry.at, "not_switched", witness),
            Fact::PointOfNoReturn { witness } => settle(&mut attempts, entry.at, "switched", witness),
            _ => {}
        }
    }
    let held = known.switched.as_ref().and_then(|switched| switched.held.as_ref());
    Cut {
        attempts,
        moments: status.switchover.clone(),
        prepared_ms: held.map(|held| held.prepared_ms),
        refused: held.map(|held| held.refused.clone()).unwrap_or_default(),
    }
}

fn settle(attempts: &mut [Attempt], at: Timestamp, outcome: &str, witness: &Witness) {
    if let Some(open) = attempts.last_mut() {
        open.settled_at = Some(at);
        open.outcome = Some(outcome.to_owned());
        open.evidence = Some(witness.evidence.clone());
        open.deployment_status = witness.deployment_status.clone();
    }
}

/// Every outage, hold and pause that an agent measured.
pub(super) fn outages(entries: &[Entry<Upgrade>]) -> Listed<Outage> {
    let mut all = Vec::new();
    let mut ended: Option<Timestamp> = None;
    for entry in entries {
        match &entry.fact {
            Fact::StepStarted { step: PREREQUISITES, .. } => ended = None,
            Fact::StepDone { step: PREREQUISITES, .. }
            | Fact::StepSkipped { step: PREREQUISITES, .. }
            | Fact::UndoDone { step: PREREQUISITES } => ended = Some(entry.at),
            Fact::Observed { source, event, .. } => {
                let Some((kind, from, to, ms)) = measured(event) else { continue };
                let during = if ended.is_none_or(|ended| from < ended) { "reboot" } else { "cut" };
                let (kind, during, agent) = (kind.to_owned(), during.to_owned(), source.as_str().to_owned());
                all.push(Outage { kind, during, agent, from, to, ms, counts: false });
            }
            _ => {}
        }
    }
    count(&mut all);
    let mut listed = Listed::default();
    all.into_iter().for_each(|outage| listed.push(outage));
    listed
}

fn measured(event: &Event) -> Option<(&'static str, Timestamp, Timestamp, u64)> {
    let began = |at: Timestamp, ms: u64| {
        let length = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
        at.saturating_sub(length).unwrap_or(at)
    };
    Some(match event {
        Event::Outage { from, to, ms, kind: OutageKind::Write, .. } => ("write", *from, *to, *ms),
        Event::Outage { from, to, ms, kind: OutageKind::Read, .. } => ("read", *from, *to, *ms),
        Event::Held { at, ms, kind: HoldKind::Gate } => ("held", began(*at, *ms), *at, *ms),
        Event::Held { at, ms, kind: HoldKind::Ingestion } => ("ingestion_paused", began(*at, *ms), *at, *ms),
        _ => return None,
    })
}

/// Marks what the figures are made of. Every agent sees the same outage: the one who saw most of it counts; of holds the longest.
fn count(all: &mut [Outage]) {
    for (kind, during) in
        [("write", Some("reboot")), ("write", Some("cut")), ("read", Some("cut")), ("ingestion_paused", None)]
    {
        let one = |outage: &&Outage| outage.kind == kind && during.is_none_or(|during| outage.during == during);
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        all.iter().filter(one).for_each(|outage| *sums.entry(&outage.agent).or_default() += outage.ms);
        let most = sums.into_iter().rev().max_by_key(|(_, ms)| *ms).map(|(agent, _)| agent.to_owned());
        let Some(most) = most else { continue };
        all.iter_mut().filter(|outage| one(&&**outage) && outage.agent == most).for_each(|outage| outage.counts = true);
    }
    let longest = all.iter().filter(|outage| outage.kind == "held").map(|outage| outage.ms).max();
    let longest = all.iter_mut().find(|outage| outage.kind == "held" && Some(outage.ms) == longest);
    if let Some(hold) = longest {
        hold.counts = true;
    }
}
