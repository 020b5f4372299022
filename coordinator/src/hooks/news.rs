//! What the facts of an upgrade are news of. Pure: how it stood before a fact, the fact, how it stands after it.

use std::collections::BTreeMap;

use engine::failure::codes;
use engine::{Alarm, Entry, Fact, Mode, MonitorId, Move, Outcome, PlanShape, Request, State, StepId, Why, decide};
use jiff::Timestamp;

use super::notice::{About, Notice};
use super::point::Point;
use crate::world::Upgrade;

/// What stands, as far as it makes news: nothing of it once the upgrade has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    alarms: BTreeMap<MonitorId, Alarm>,
    /// By name: the step, and why.
    approvals: BTreeMap<String, (StepId, String)>,
    /// Where a person is needed, and why; not for an approval or a pause, which are theirs.
    person: Option<(String, Why)>,
    /// Why it goes back, or what it failed with.
    cause: Option<Why>,
    switched_over: bool,
}

impl Standing {
    /// Of this fold, at the time of its last fact.
    pub fn of(shape: &PlanShape, state: &State<Upgrade>) -> Standing {
        let switched_over = state.committed();
        if state.outcome().is_some() || state.spec().is_none() {
            return Standing { switched_over, ..Standing::default() };
        }
        let alarms: BTreeMap<_, _> = state.alarms().iter().map(|(id, alarm)| (id, alarm.clone())).collect();
        let open = state.open_approvals();
        let approvals = open.map(|(step, name, why)| (name.to_owned(), (step, why.to_owned()))).collect();
        let person = match decide(shape, state, state.updated_at()) {
            Move::AskOperator(why) if ![codes::PAUSED, codes::APPROVAL].contains(&why.code) => Some(why),
            _ => None,
        };
        let told = |why: &Why| alarms.values().any(|alarm| alarm.why() == why);
        let at = crate::operator::standing::phase(state).unwrap_or_default();
        let person = person.filter(|why| !told(why)).map(|why| (at, why));
        let failed = state.steps().iter().rev().find_map(|step| step.failure.as_ref());
        let cause = match state.mode() {
            Mode::Unwinding { why } | Mode::Restarting { why, .. } => Some(why.clone()),
            _ => failed.map(|failure| Why::new(failure.code, failure)),
        };
        Standing { alarms, approvals, person, cause, switched_over }
    }
}

/// The news of one fact for those who are told, in order. `hook` goes into their delivery ids.
pub fn news(about: &About, hook: &str, before: &Standing, entry: &Entry<Upgrade>, after: &Standing) -> Vec<Notice> {
    let mut told = Told { about, hook, at: entry.at, seq: entry.seq.0, after, all: Vec::new() };
    told.over(before, entry);
    told.happened(before, entry);
    told.begun(before);
    told.all
}

struct Told<'a> {
    about: &'a About,
    hook: &'a str,
    at: Timestamp,
    seq: u64,
    after: &'a Standing,
    all: Vec<Notice>,
}

impl Told<'_> {
    fn tell(&mut self, point: Point, outcome: &str, shape: impl FnOnce(Notice) -> Notice) {
        let delivery = format!("{}/{}/{}/{}", self.about.upgrade, self.seq, self.all.len(), self.hook);
        let mut notice = shape(self.about.notice(delivery, point, outcome, self.at));
        notice.switched_over = self.after.switched_over;
        self.all.push(notice);
    }

    /// What stood and stands no more.
    fn over(&mut self, before: &Standing, entry: &Entry<Upgrade>) {
        let answered = matches!(entry.fact, Fact::Asked { request: Request::Approve { .. }, .. });
        for (name, (step, why)) in &before.approvals {
            if !self.after.approvals.contains_key(name) {
                let outcome = if answered { "answered" } else { "withdrawn" };
                self.tell(Point::APPROVAL_WANTED, outcome, |notice| approval(notice, name, *step, why));
            }
        }
        for (monitor, alarm) in &before.alarms {
            if !self.after.alarms.contains_key(monitor) {
                self.tell(Point::ALARM, "cleared", |notice| {
                    alarm_of(notice, monitor.as_str(), level(alarm), alarm.why())
                });
            }
        }
        if let Some((at, why)) = &before.person
            && self.after.person.as_ref().is_none_or(|(now, _)| now != at)
        {
            self.tell(Point::ALARM, "cleared", |notice| alarm_of(notice, at, "person", why));
        }
    }

    fn happened(&mut self, before: &Standing, entry: &Entry<Upgrade>) {
        let at = |notice: Notice, attempt| Notice { attempt, ..notice };
        match &entry.fact {
            Fact::StepStarted { step, attempt } => {
                if let Some(point) = Point::before(*step) {
                    self.tell(point, "begins", |notice| at(notice, Some(*attempt)));
                }
            }
            Fact::StepDone { step, .. } => self.after_step(*step, "done", None),
            Fact::StepSkipped { step, reason } => self.after_step(*step, "skipped", Some(reason)),
            Fact::UndoDone { step } => self.after_step(*step, "undone", None),
            Fact::PointOfNoReturn { witness } => {
                self.tell(Point::POINT_OF_NO_RETURN, "passed", |notice| notice.reason(None, &witness.evidence));
            }
            Fact::Finished { outcome } => {
                let cause = before.cause.as_ref().filter(|_| *outcome != Outcome::Succeeded);
                self.tell(Point::FINISHED, outcome.as_str(), |notice| match cause {
                    Some(why) => notice.reason(Some(why.code), &why.text),
                    None => notice,
                });
            }
            _ => {}
        }
    }

    fn after_step(&mut self, step: StepId, outcome: &str, reason: Option<&String>) {
        let Some(point) = Point::after(step) else { return };
        self.tell(point, outcome, |notice| match reason {
            Some(reason) => notice.reason(None, reason),
            None => notice,
        });
    }

    /// What stands and did not stand, or not so.
    fn begun(&mut self, before: &Standing) {
        let after = self.after;
        for (monitor, alarm) in &after.alarms {
            // Figures in its text change all the time; that is no news.
            let same = |known: &Alarm| level(known) == level(alarm) && known.why().code == alarm.why().code;
            if !before.alarms.get(monitor).is_some_and(same) {
                self.tell(Point::ALARM, "raised", |notice| {
                    alarm_of(notice, monitor.as_str(), level(alarm), alarm.why())
                });
            }
        }
        for (name, (step, why)) in &after.approvals {
            if !before.approvals.contains_key(name) {
                let next = format!("pilot approve {} {name}", self.about.upgrade);
                self.tell(Point::APPROVAL_WANTED, "asked", |notice| Notice {
                    next_action: Some(next),
                    ..approval(notice, name, *step, why)
                });
            }
        }
        if let Some((at, why)) = &after.person
            && before.person.as_ref().is_none_or(|(then, _)| then != at)
        {
            let resume = format!("pilot resume {}", self.about.upgrade);
            let abort = format!("{resume}, or: pilot abort {} --confirm {}", self.about.upgrade, self.about.cluster());
            let next = if after.switched_over { resume } else { abort };
            self.tell(Point::ALARM, "raised", |notice| Notice {
                next_action: Some(next),
                ..alarm_of(notice, at, "person", why)
            });
        }
    }
}

fn approval(notice: Notice, name: &str, step: StepId, why: &str) -> Notice {
    Notice { subject: Some(name.to_owned()), step: Some(step.to_string()), ..notice.reason(None, why) }
}

fn alarm_of(notice: Notice, subject: &str, level: &str, why: &Why) -> Notice {
    let (subject, level) = (Some(subject.to_owned()), Some(level.to_owned()));
    Notice { subject, level, ..notice.reason(Some(why.code), &why.text) }
}

fn level(alarm: &Alarm) -> &'static str {
    match alarm {
        Alarm::Note(_) => "note",
        Alarm::Hold(_) => "hold",
        Alarm::Unwind(_) => "unwind",
    }
}
