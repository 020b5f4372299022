//! How one upgrade stands: its view, built from the fold, the counts and the transient progress; pure.

use std::collections::BTreeMap;

use engine::cx::Doing;
use engine::state::Mode;
use engine::{Alarm, Outcome, PlanShape, Progress, RunInfo, State, Status, StepId, StepState, Unit};
use jiff::Timestamp;
use proto::report::Report;

use super::tally::{Counts, Downtime, StepTimes, Tally};
use super::view::{
    AlarmView, ApprovalView, ControllerView, CurrentView, IngestionView, LagView, OtherSlotView, ProgressView,
    SlotView, StatusView, StepView, WaitView, WarningView,
};
use super::{Before, expected};
use crate::link::Fresh;
use crate::sampling::total;
use crate::store::About;
use crate::world::Upgrade;

/// The step that a person can postpone.
const SWITCHOVER: &str = "switchover";

/// What only a running driver knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    pub progress: Progress,
    pub report: Option<Fresh<Report>>,
    pub cloudwatch_lag: Option<u64>,
    /// How far each slot is behind in time, in milliseconds.
    pub behind_ms: BTreeMap<String, u64>,
    pub trouble: Option<String>,
}

impl StatusView {
    /// Puts in what its steps may be expected to take, and what is left of the one at work, where that is known and it has not ended.
    pub fn expect(&mut self, before: Option<&BTreeMap<StepId, Before>>) {
        let Some(before) = before.filter(|_| self.outcome.is_none()) else { return };
        let medians: BTreeMap<_, _> = before.iter().map(|(step, took)| (step.as_str(), took.median_seconds)).collect();
        for step in &mut self.steps {
            step.expected_seconds = medians.get(step.id.as_str()).copied().map(rounded);
        }
        let Some(current) = &mut self.current else { return };
        let Some(step) = self.steps.iter().find(|step| step.id == current.step && step.state == "running") else {
            return;
        };
        // Lag is counted in bytes: of the bytes allowed, not of a work.
        let done = current.progress.as_ref().filter(|count| count.unit != Unit::BYTES.0);
        let done = done.map(|count| (count.done, count.total));
        let left = step.worked_seconds.and_then(|so_far| expected::left(so_far, done, step.expected_seconds));
        current.left_seconds = left.map(rounded);
    }
}

/// The whole view of one upgrade.
pub(crate) fn status(
    info: &RunInfo,
    about: &About,
    shape: &PlanShape,
    state: &State<Upgrade>,
    tally: &Tally,
    live: Option<&Live>,
    now: Timestamp,
) -> StatusView {
    let ended = state.outcome().map(|_| state.updated_at());
    let approvals: Vec<ApprovalView> = state
        .open_approvals()
        .map(|(step, name, why)| ApprovalView { name: name.into(), step: step.to_string(), why: why.into() })
        .collect();
    let report = live.and_then(|live| live.report.as_ref()).map(|fresh| &*fresh.value);
    let mut view = StatusView {
        phase: phase(state).unwrap_or_default(),
        direction: direction(state.mode()).to_owned(),
        health: String::new(),
        outcome: state.outcome().map(|outcome| outcome.as_str().to_owned()),
        updated_at: state.updated_at(),
        next_seq: state.next_seq().0,
        seconds: ended.unwrap_or(now).duration_since(info.created_at).as_secs_f64().max(0.0),
        switched_over: state.committed(),
        paused: state.paused(),
        postponed_until: state.postponed_until().filter(|until| now < *until && !state.committed()),
        steps: state
            .steps()
            .iter()
            .map(|step| step_view(step, shape, tally.steps.get(&step.id), ended.unwrap_or(now)))
            .collect(),
        current: live.and_then(|live| current(&live.progress)),
        lag: report.zip(live).map(|(report, live)| lag(report, &live.behind_ms)).unwrap_or_default(),
        ingestion: report.map(ingestion).unwrap_or_default(),
        counts: tally.counts,
        downtime: tally.downtime(),
        statements: tally.statements.clone(),
        switchover: tally.course.moments().to_vec(),
        schema_changes: tally.schema_changes.clone(),
        sessions: tally.sessions.clone(),
        gaps: tally.gaps.clone(),
        ddl: tally.ddl.clone(),
        approvals,
        alarms: state.alarms().iter().map(|(id, alarm)| alarm_view(id.as_str(), alarm)).collect(),
        warnings: state.warnings().map(warning_view).collect(),
        reason: reason(state, live),
        ..empty(info, about, now)
    };
    if state.outcome().is_some_and(|outcome| outcome != Outcome::Succeeded) {
        view.reason = view.reason.take().or_else(|| tally.cause.clone());
    }
    view.lag.cloudwatch_bytes = live.and_then(|live| live.cloudwatch_lag);
    view.health = health(&view, live).to_owned();
    view.next_action = next_action(&view);
    view
}

fn empty(info: &RunInfo, about: &About, now: Timestamp) -> StatusView {
    let arn = info.subject.as_str();
    StatusView {
        id: info.id.to_string(),
        cluster: arn.rsplit(':').next().unwrap_or(arn).to_owned(),
        cluster_arn: arn.to_owned(),
        from_version: about.from_version.clone(),
        to_version: about.to_version.clone(),
        asked_by: about.asked_by.clone(),
        phase: String::new(),
        direction: "forward".to_owned(),
        health: "ok".to_owned(),
        outcome: info.outcome.map(|outcome| outcome.as_str().to_owned()),
        started_at: info.created_at,
        updated_at: now,
        seconds: now.duration_since(info.created_at).as_secs_f64().max(0.0),
        next_seq: 0,
        switched_over: false,
        paused: false,
        postponed_until: None,
        steps: Vec::new(),
        current: None,
        lag: LagView::default(),
        ingestion: IngestionView::default(),
        counts: Counts::default(),
        downtime: Downtime::default(),
        statements: Vec::new(),
        switchover: Vec::new(),
        schema_changes: Vec::new(),
        sessions: Vec::new(),
        gaps: Vec::new(),
        ddl: Vec::new(),
        approvals: Vec::new(),
        alarms: Vec::new(),
        warnings: Vec::new(),
        reason: None,
        next_action: None,
    }
}

/// A journal that this version cannot read: everything the store knows, and why.
pub(crate) fn unreadable(info: &RunInfo, about: &About, why: &str, now: Timestamp) -> StatusView {
    let next_action = Some("run the version of this program that the reason names".to_owned());
    StatusView { health: "trouble".into(), reason: Some(why.to_owned()), next_action, ..empty(info, about, now) }
}

/// The step at work: the one being undone, else the first that is not passed, else the last.
pub(crate) fn phase(state: &State<Upgrade>) -> Option<String> {
    let undoing = state.steps().iter().find(|step| matches!(step.status, Status::Undoing | Status::Stuck));
    let step = undoing.or_else(|| state.current()).or_else(|| state.steps().last())?;
    Some(step.id.to_string())
}

fn direction(mode: &Mode) -> &'static str {
    match mode {
        Mode::Forward => "forward",
        Mode::Restarting { .. } => "restarting",
        Mode::Unwinding { .. } => "unwinding",
        Mode::Finished { .. } => "finished",
    }
}

fn state_name(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Running => "running",
        Status::Failed => "failed",
        Status::Done => "done",
        Status::Skipped => "skipped",
        Status::Undoing => "undoing",
        Status::Undone => "undone",
        Status::Stuck => "stuck",
    }
}

fn step_view(step: &StepState, shape: &PlanShape, times: Option<&StepTimes>, now: Timestamp) -> StepView {
    let title = shape.index(step.id).map_or(step.id.as_str(), |index| shape.steps[index].title);
    let mut waits: Vec<WaitView> = times
        .iter()
        .flat_map(|times| &times.waits)
        .map(|(what, seconds)| WaitView { what: what.clone(), seconds: rounded(*seconds) })
        .collect();
    waits.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    StepView {
        id: step.id.to_string(),
        title: title.to_owned(),
        state: state_name(step.status).to_owned(),
        seconds: times.and_then(|times| times.seconds(now)).map(rounded),
        worked_seconds: times.and_then(|times| times.worked(now)).map(rounded),
        attempt: step.attempt,
        expected_seconds: None,
        waits,
        failure: step.failure.as_ref().map(|failure| format!("{failure} ({})", failure.code)),
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn doing_name(doing: Doing) -> &'static str {
    match doing {
        Doing::Idle => "idle",
        Doing::Check => "check",
        Doing::Run => "run",
        Doing::Verify => "verify",
        Doing::Undo => "undo",
        Doing::Calm => "calm",
    }
}

fn current(progress: &Progress) -> Option<CurrentView> {
    let inside = progress
        .wait
        .as_ref()
        .map(|wait| if wait.last.is_empty() { wait.what.to_owned() } else { format!("{}: {}", wait.what, wait.last) });
    let outside = progress.waiting.as_ref().map(ToString::to_string);
    Some(CurrentView {
        step: progress.step?.to_string(),
        doing: doing_name(progress.doing).to_owned(),
        progress: progress.count.map(|count| ProgressView {
            done: count.done,
            total: count.total,
            unit: count.unit.0.to_owned(),
        }),
        left_seconds: None,
        waiting_for: inside.or(outside),
        asks_person: progress.asks_operator,
        until: progress.until,
    })
}

fn lag(report: &Report, behind_ms: &BTreeMap<String, u64>) -> LagView {
    let slots = || report.slots.iter().flat_map(|slots| &slots.slots);
    LagView {
        other_slots: slots()
            .filter(|slot| !slot.of_deployment)
            .map(|slot| OtherSlotView {
                name: slot.name.clone(),
                database: slot.database.clone(),
                active: slot.active,
                retained_bytes: slot.retained_bytes,
            })
            .collect(),
        slots: slots()
            .filter(|slot| slot.of_deployment)
            .map(|slot| SlotView {
                name: slot.name.clone(),
                database: slot.database.clone(),
                bytes: slot.lag_bytes,
                retained_bytes: slot.retained_bytes,
                behind_ms: behind_ms.get(&slot.name).copied(),
            })
            .collect(),
        cloudwatch_bytes: None,
        marker_ms: report.marker.as_ref().and_then(|marker| marker.max_ms),
    }
}

fn ingestion(report: &Report) -> IngestionView {
    use proto::report::IngestionState as S;
    let name = |state: &S| match state {
        S::Running => "running",
        S::Paused => "paused",
        S::Mixed => "mixed",
        S::Unknown(_) => "unknown",
    };
    let controllers: Vec<ControllerView> = report
        .ingestion
        .iter()
        .map(|controller| ControllerView {
            name: controller.name.clone(),
            kind: controller.kind.clone(),
            state: name(&controller.state).to_owned(),
            rate: controller.rate,
            backlog: controller.backlog,
        })
        .collect();
    let first = controllers.first().map(|controller| controller.state.clone());
    let same = controllers.iter().all(|controller| Some(&controller.state) == first.as_ref());
    IngestionView {
        rate: total(report, |controller| controller.rate),
        backlog: total(report, |controller| controller.backlog.map(|backlog| backlog as f64)).map(|sum| sum as u64),
        state: if same { first } else { Some("mixed".to_owned()) },
        controllers,
    }
}

fn alarm_view(monitor: &str, alarm: &Alarm) -> AlarmView {
    let level = match alarm {
        Alarm::Note(_) => "note",
        Alarm::Hold(_) => "hold",
        Alarm::Unwind(_) => "unwind",
    };
    let why = alarm.why();
    // `pilot approve ID NAME`, as a monitor writes its cure.
    let approval = why.text.rsplit_once("pilot approve ").and_then(|(_, rest)| rest.split_whitespace().nth(1));
    AlarmView {
        monitor: monitor.into(),
        level: level.into(),
        code: why.code.to_string(),
        text: why.text.clone(),
        approval: approval.map(str::to_owned),
    }
}

fn warning_view(warning: &engine::state::Warning) -> WarningView {
    WarningView {
        at: warning.at,
        step: warning.step.map(|step| step.to_string()),
        code: warning.code.to_string(),
        detail: warning.detail.clone(),
    }
}

/// Why no driver drives it, what an undo is stuck with, why it goes back, or what the step at work failed with.
fn reason(state: &State<Upgrade>, live: Option<&Live>) -> Option<String> {
    if let Some(trouble) = live.and_then(|live| live.trouble.clone()) {
        return Some(trouble);
    }
    // What a person is asked to cure comes before why it goes back at all.
    let stuck = state.steps().iter().find(|step| step.status == Status::Stuck);
    if let Some(failure) = stuck.and_then(|step| step.failure.as_ref()) {
        return Some(format!("{failure} ({})", failure.code));
    }
    if let Mode::Unwinding { why } | Mode::Restarting { why, .. } = state.mode() {
        return Some(why.to_string());
    }
    let failed = state.steps().iter().rev().find_map(|step| step.failure.as_ref());
    failed.map(|failure| format!("{failure} ({})", failure.code))
}

fn health(view: &StatusView, live: Option<&Live>) -> &'static str {
    if live.is_some_and(|live| live.trouble.is_some()) {
        return "trouble";
    }
    if view.outcome.is_some() {
        return "ok";
    }
    if view.current.as_ref().is_some_and(|current| current.asks_person) {
        return "person";
    }
    let uneasy = view.direction != "forward"
        || view.alarms.iter().any(|alarm| alarm.level != "note")
        || view.steps.iter().any(|step| matches!(step.state.as_str(), "failed" | "stuck"));
    if uneasy { "attention" } else { "ok" }
}

fn next_action(view: &StatusView) -> Option<String> {
    let id = &view.id;
    if view.outcome.is_some() {
        return None;
    }
    if let Some(approval) = view.approvals.first() {
        return Some(format!("pilot approve {id} {}", approval.name));
    }
    let asks = view.current.as_ref().is_some_and(|current| current.asks_person);
    match (asks, view.switched_over) {
        (true, false) => Some(format!(
            "look at the reason, then: pilot resume {id}, or: pilot abort {id} --confirm {}",
            view.cluster
        )),
        (true, true) => Some(format!("look at the reason, then: pilot resume {id}")),
        (false, false) if view.postponed_until.is_some() && view.phase == SWITCHOVER => {
            Some(format!("pilot postpone {id} --off"))
        }
        (false, _) => None,
    }
}
