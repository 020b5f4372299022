//! What a person had before the eyes when a button was pressed. A wish that was formed on something else than what is so now is
//! refused, and told what changed. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::one::approvals;
use crate::operator::view::StatusView;

/// What decides whether a wish still means what it meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    phase: String,
    attempt: u32,
    direction: String,
    outcome: Option<String>,
    switched_over: bool,
    paused: bool,
    postponed_until: Option<Timestamp>,
    approvals: Vec<String>,
    /// It waits for a person, and not for the end of a pause.
    asks: bool,
}

impl Seen {
    pub(super) fn of(view: &StatusView) -> Seen {
        let step = view.steps.iter().find(|step| step.id == view.phase);
        Seen {
            phase: view.phase.clone(),
            attempt: step.map_or(0, |step| step.attempt),
            direction: view.direction.clone(),
            outcome: view.outcome.clone(),
            switched_over: view.switched_over,
            paused: view.paused,
            postponed_until: view.postponed_until,
            approvals: approvals(view).into_iter().map(|(name, _)| name.to_owned()).collect(),
            asks: !view.paused && view.current.as_ref().is_some_and(|current| current.asks_person),
        }
    }

    /// As a form carries it.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What a form carried; `None` when no page of ours made it.
    pub(super) fn parse(text: &str) -> Option<Seen> {
        serde_json::from_str(text).ok()
    }

    /// What is so now and was not then, one sentence each; none when nothing of it changed.
    pub(super) fn changed(&self, now: &Seen) -> Vec<String> {
        let mut changed = Vec::new();
        let mut say = |differs: bool, text: String| changed.extend(differs.then_some(text));
        if let Some(outcome) = &now.outcome {
            say(self.outcome != now.outcome, format!("it has ended: {outcome}"));
        }
        say(now.switched_over && !self.switched_over, "it has switched over; nothing is undone any more".to_owned());
        say(self.phase != now.phase, format!("it is at {}, no longer at {}", now.phase, self.phase));
        let attempts = self.phase == now.phase && self.attempt != now.attempt;
        say(attempts, format!("{} is at attempt {}, no longer at {}", now.phase, now.attempt, self.attempt));
        say(self.direction != now.direction, format!("it goes {}, no longer {}", now.direction, self.direction));
        say(now.paused && !self.paused, "it has been paused".to_owned());
        say(!now.paused && self.paused, "its pause has ended".to_owned());
        if self.postponed_until != now.postponed_until {
            let until = now.postponed_until.map(|until| format!("its switchover is postponed until {until}"));
            say(true, until.unwrap_or_else(|| "its switchover is not postponed any more".to_owned()));
        }
        for name in now.approvals.iter().filter(|name| !self.approvals.contains(name)) {
            say(true, format!("it asks for the approval {name}"));
        }
        for name in self.approvals.iter().filter(|name| !now.approvals.contains(name)) {
            say(true, format!("it does not ask for the approval {name} any more"));
        }
        let quiet = changed.is_empty();
        // An approval that is asked for says so by its name.
        if quiet && now.approvals.is_empty() && self.asks != now.asks {
            changed.push(if now.asks { "it waits for a person" } else { "it goes on by itself" }.to_owned());
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_since_a_page_was_shown_is_said_by_name() {
        let then = Seen {
            phase: "prerequisites".into(),
            attempt: 1,
            direction: "forward".into(),
            outcome: None,
            switched_over: false,
            paused: false,
            postponed_until: None,
            approvals: vec!["reboot".into()],
            asks: true,
        };
        let check = |change: fn(&mut Seen), expected: &[&str]| {
            let mut now = then.clone();
            change(&mut now);
            assert_eq!(then.changed(&now), expected);
            assert_eq!(Seen::parse(&now.text()), Some(now));
        };
        check(|_| {}, &[]);
        check(|now| now.paused = true, &["it has been paused"]);
        check(|now| now.attempt = 2, &["prerequisites is at attempt 2, no longer at 1"]);
        check(|now| now.asks = false, &[]);
        check(
            |now| (now.phase, now.approvals, now.asks) = ("provisioning".into(), Vec::new(), false),
            &["it is at provisioning, no longer at prerequisites", "it does not ask for the approval reboot any more"],
        );
        check(|now| now.outcome = Some("unwound".into()), &["it has ended: unwound"]);
        check(|now| now.approvals.push("<script>".into()), &["it asks for the approval <script>"]);
        let stuck = Seen { approvals: Vec::new(), ..then.clone() };
        assert_eq!(stuck.changed(&Seen { asks: false, ..stuck.clone() }), ["it goes on by itself"]);
        assert_eq!(Seen::parse("{}"), None);
    }
}
