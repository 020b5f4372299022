//! One upgrade as sections of HTML, each rendered for itself: the page is made of them, and a live page is sent those that changed.
//! Pure: from views to text.

use std::collections::BTreeMap;

use askama::Template;
use engine::StepId;
use proto::report::Verdict;

use super::cut::{Cut, cut};
use super::filters;
use super::filters::as_span;
use super::parameters::{Group, parameters};
use super::seen::Seen;
use crate::operator::facts::fate;
use crate::operator::tally::{Harm, SessionEnd};
use crate::operator::view::{StatusView, StepView};
use crate::operator::{Asked, Before};
use crate::spec::tune::{self, Setting};

/// What one page is made of.
pub(super) struct One {
    pub(super) view: StatusView,
    /// `None` while it is not read yet.
    pub(super) before: Option<BTreeMap<StepId, Before>>,
    pub(super) asked: Asked,
    pub(super) may: May,
}

/// What the visitor's role allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct May {
    pub(super) operate: bool,
    pub(super) approve: bool,
}

/// Of the sessions that were touched the newest so many are on the page, all in the report: the first paint waits for each row.
const SESSIONS_SHOWN: usize = 40;

/// A section by its id in the page.
pub(super) type Section = (&'static str, String);

impl One {
    /// All of them.
    ///
    /// # Errors
    /// When a template fails, which only a value that cannot be shown makes it.
    pub(super) fn sections(&self) -> askama::Result<Vec<Section>> {
        let view = &self.view;
        let steps: Vec<Step<'_>> = view.steps.iter().map(|step| self.step(step)).collect();
        let newest = &view.sessions[view.sessions.len().saturating_sub(SESSIONS_SHOWN)..];
        let ends = newest.iter().map(|end| Ended { end, verdict: verdict(view, end) });
        let parameters = parameters(&self.asked);
        Ok(vec![
            ("now", Now { view, health: health(view), title: title(view) }.render()?),
            ("do", self.what_to_do().render()?),
            ("steps", Steps { steps, known: self.before.is_some() }.render()?),
            ("lag", Lag { view }.render()?),
            ("ingestion", Ingestion { view }.render()?),
            ("cut", CutOf { view, cut: cut(view) }.render()?),
            ("ddl", Ddl { view }.render()?),
            ("sessions", Sessions { view, ends: ends.collect() }.render()?),
            ("findings", Findings { view }.render()?),
            ("parameters", Parameters { parameters, tuned: &self.asked.tuned }.render()?),
        ])
    }

    fn what_to_do(&self) -> Do<'_> {
        let (view, may) = (&self.view, self.may);
        let seen = Seen::of(view).text();
        Do { view, may, waits: waits(view), approvals: approvals(view), settings: tune::SETTINGS, seen }
    }

    fn step<'a>(&self, step: &'a StepView) -> Step<'a> {
        let before = StepId::parse(&step.id).and_then(|id| self.before.as_ref()?.get(&id));
        let usual = before.map(|before| {
            let Before { median_seconds, least_seconds, most_seconds, upgrades } = *before;
            let range = match upgrades {
                1 => "one upgrade".to_owned(),
                n => format!("{} to {}, {n} upgrades", as_span(least_seconds), as_span(most_seconds)),
            };
            (as_span(median_seconds), range)
        });
        let running = step.state == "running";
        let share = before
            .filter(|_| running)
            .zip(step.worked_seconds)
            .map(|(before, worked)| (worked / before.median_seconds.max(0.001) * 100.0).clamp(0.0, 100.0) as u8);
        let late =
            running && before.is_some_and(|before| step.worked_seconds.is_some_and(|it| it > before.most_seconds));
        Step { step, usual, share, late }
    }
}

/// One sentence for who cannot see the page; it is read out when it changes.
pub(super) fn say(view: &StatusView) -> String {
    let state = match &view.outcome {
        Some(outcome) => outcome.clone(),
        None => format!("{}, {}", title(view), health(view).1),
    };
    let asks = view.approvals.first().map(|approval| format!("; it asks for the approval {}", approval.name));
    format!("{}: {state}{}", view.cluster, asks.unwrap_or_default())
}

/// The class and the words.
pub(super) fn health(view: &StatusView) -> (&'static str, &'static str) {
    match (view.outcome.as_deref(), view.health.as_str()) {
        (Some("succeeded"), _) => ("good", "succeeded"),
        (Some("unwound"), _) => ("bad", "unwound: the cluster is as before"),
        (Some("refused"), _) => ("bad", "refused: nothing was touched"),
        (Some(_), _) => ("bad", "stopped by a person"),
        (None, "ok") => ("good", "healthy"),
        (None, "attention") => ("warn", "needs attention"),
        (None, "person") => ("warn", "waits for a person"),
        (None, _) => ("bad", "cannot be driven"),
    }
}

/// Approvals that are waited for, and those that settle an alarm: by name, and why.
pub(super) fn approvals(view: &StatusView) -> Vec<(&str, &str)> {
    let asked = view.approvals.iter().map(|approval| (approval.name.as_str(), approval.why.as_str()));
    let settle = view.alarms.iter().filter_map(|alarm| Some((alarm.approval.as_deref()?, alarm.text.as_str())));
    asked.chain(settle).collect()
}

fn waits(view: &StatusView) -> bool {
    view.current.as_ref().is_some_and(|current| current.asks_person)
}

/// The title of the step at work.
fn title(view: &StatusView) -> &str {
    view.steps.iter().find(|step| step.id == view.phase).map_or(view.phase.as_str(), |step| step.title.as_str())
}

/// What became of a session's recorded statement.
fn verdict(view: &StatusView, end: &SessionEnd) -> Option<(&'static str, String)> {
    let key = end.key.as_ref()?;
    let statement = view.statements.iter().find(|statement| statement.key == *key);
    Some(match statement {
        None => ("", "recorded; not judged yet".to_owned()),
        Some(statement) => (class(&statement.verdict), fate(&statement.verdict)),
    })
}

fn class(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Resubmitted | Verdict::AlreadyDone | Verdict::CommittedOnBlue => "good",
        Verdict::Refused { .. } => "warn",
        Verdict::Unknown { .. } => "bad",
    }
}

/// The class and the words.
fn harm(harm: Option<&Harm>) -> (&'static str, &'static str) {
    match harm {
        Some(Harm::Breaks) => ("bad", "breaks it: the first row that green cannot take stops replication"),
        Some(Harm::Degrades) => ("bad", "breaks it on Aurora: replication cannot follow"),
        Some(Harm::Lacks) => ("warn", "goes on; green lacks it"),
        None => ("warn", "the sides differ"),
    }
}

struct Step<'a> {
    step: &'a StepView,
    /// The median, and the range over how many.
    usual: Option<(String, String)>,
    share: Option<u8>,
    late: bool,
}

struct Ended<'a> {
    end: &'a SessionEnd,
    verdict: Option<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "one/now.html")]
struct Now<'a> {
    view: &'a StatusView,
    health: (&'static str, &'static str),
    title: &'a str,
}

#[derive(Template)]
#[template(path = "one/do.html")]
struct Do<'a> {
    view: &'a StatusView,
    may: May,
    /// It waits for a person.
    waits: bool,
    approvals: Vec<(&'a str, &'a str)>,
    /// What can be tuned.
    settings: &'static [Setting],
    seen: String,
}

#[derive(Template)]
#[template(path = "one/steps.html")]
struct Steps<'a> {
    steps: Vec<Step<'a>>,
    /// Whether earlier upgrades were read.
    known: bool,
}

#[derive(Template)]
#[template(path = "one/lag.html")]
struct Lag<'a> {
    view: &'a StatusView,
}

#[derive(Template)]
#[template(path = "one/ingestion.html")]
struct Ingestion<'a> {
    view: &'a StatusView,
}

#[derive(Template)]
#[template(path = "one/cut.html")]
struct CutOf<'a> {
    view: &'a StatusView,
    cut: Cut,
}

#[derive(Template)]
#[template(path = "one/ddl.html")]
struct Ddl<'a> {
    view: &'a StatusView,
}

#[derive(Template)]
#[template(path = "one/sessions.html")]
struct Sessions<'a> {
    view: &'a StatusView,
    ends: Vec<Ended<'a>>,
}

#[derive(Template)]
#[template(path = "one/findings.html")]
struct Findings<'a> {
    view: &'a StatusView,
}

#[derive(Template)]
#[template(path = "one/parameters.html")]
struct Parameters<'a> {
    parameters: Vec<Group>,
    tuned: &'a BTreeMap<String, serde_json::Value>,
}
