//! The course of the switchover as the agents saw it: what the servers said of it, green's first write, the release of clients;
//! each with its distance from the moment connections were cut. Pure; for people, nothing decides on it.

use jiff::Timestamp;
use proto::phase::SwitchoverPhase;
use proto::report::{Event, HoldKind};
use proto::side::Side;
use serde::{Deserialize, Serialize};

/// Moments that are kept; the oldest go first.
const MOMENTS_MAX: usize = 64;

/// One moment of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub at: Timestamp,
    /// `status`, `green_accepted_write`, `clients_released`.
    pub what: String,
    /// The agent that saw or did it.
    pub agent: String,
    /// Of a status: whose server said it.
    pub side: Option<Side>,
    /// Of a status: AWS's word; null when its rows went.
    pub phase: Option<SwitchoverPhase>,
    /// Milliseconds from the first sight of `SWITCHOVER_IN_PROGRESS`; null while it was not seen.
    pub offset_ms: Option<i64>,
}

impl Moment {
    /// One line.
    pub fn line(&self) -> String {
        let offset = self.offset_ms.map(|ms| format!("{ms:+} ms: ")).unwrap_or_default();
        format!("{offset}{} ({})", self.what_in_words(), self.agent)
    }

    /// What was said or done.
    pub fn what_in_words(&self) -> String {
        match (self.what.as_str(), self.side) {
            ("status", Some(side)) => said(side, self.phase.as_ref()),
            ("green_accepted_write", _) => "green accepted a write".to_owned(),
            ("clients_released", _) => "clients were let go".to_owned(),
            (other, _) => other.to_owned(),
        }
    }
}

/// What a side's server said, in words.
pub fn said(side: Side, phase: Option<&SwitchoverPhase>) -> String {
    let name = match side {
        Side::Blue => "blue",
        Side::Green => "green",
    };
    match phase {
        Some(phase) => format!("{name} says {phase}"),
        None => format!("{name} says nothing of the switchover"),
    }
}

/// The moments so far.
#[derive(Debug, Clone, Default)]
pub struct Course {
    moments: Vec<Moment>,
    /// When connections were cut, by the first who saw it; again none once blue serves again.
    origin: Option<Timestamp>,
}

impl Course {
    /// Takes in an agent's event; most are no part of it.
    pub fn observe(&mut self, agent: &str, event: &Event) {
        let (at, what, side, phase) = match event {
            Event::SwitchoverPhase { at, side, phase, .. } => (*at, "status", Some(*side), phase.clone()),
            Event::GreenAcceptedWrite { at, .. } => (*at, "green_accepted_write", None, None),
            Event::Held { at, kind: HoldKind::Gate, .. } if self.origin.is_some() => {
                (*at, "clients_released", None, None)
            }
            _ => return,
        };
        match &phase {
            Some(SwitchoverPhase::InProgress) if self.origin.is_none() => self.begin(at),
            Some(phase) if phase.says_blue() => self.origin = None,
            _ => {}
        }
        if self.moments.len() == MOMENTS_MAX {
            self.moments.remove(0);
        }
        let (agent, offset_ms) = (agent.to_owned(), self.origin.map(|origin| offset(origin, at)));
        self.moments.push(Moment { at, what: what.to_owned(), agent, side, phase, offset_ms });
    }

    /// What led to it is counted from it too.
    fn begin(&mut self, origin: Timestamp) {
        self.origin = Some(origin);
        for moment in self.moments.iter_mut().rev().take_while(|moment| moment.offset_ms.is_none()) {
            moment.offset_ms = Some(offset(origin, moment.at));
        }
    }

    /// Oldest first.
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }
}

fn offset(origin: Timestamp, at: Timestamp) -> i64 {
    at.as_millisecond().saturating_sub(origin.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(events: &[(i64, SwitchoverPhase)]) -> Course {
        let mut course = Course::default();
        for (ms, phase) in events {
            let at = Timestamp::from_millisecond(*ms).unwrap();
            let phase = Some(phase.clone());
            course.observe("agent-1", &Event::SwitchoverPhase { at, side: Side::Green, phase, offset_ms: None });
        }
        course
    }

    #[test]
    fn every_moment_has_its_distance_from_the_cut_of_connections() {
        use SwitchoverPhase as P;
        let mut course = course(&[(1000, P::Initiated), (3000, P::InProgress), (6000, P::PostProcessing)]);
        let at = Timestamp::from_millisecond(6012).unwrap();
        course.observe("agent-1", &Event::GreenAcceptedWrite { at, offset_ms: None });
        course.observe("agent-2", &Event::Held { at, ms: 5000, kind: HoldKind::Gate });
        let lines: Vec<String> = course.moments().iter().map(Moment::line).collect();
        assert_eq!(
            lines,
            [
                "-2000 ms: green says SWITCHOVER_INITIATED (agent-1)",
                "+0 ms: green says SWITCHOVER_IN_PROGRESS (agent-1)",
                "+3000 ms: green says SWITCHOVER_IN_POST_PROCESSING (agent-1)",
                "+3012 ms: green accepted a write (agent-1)",
                "+3012 ms: clients were let go (agent-2)",
            ]
        );
    }

    #[test]
    fn a_second_try_is_counted_from_its_own_cut() {
        use SwitchoverPhase as P;
        let course = course(&[(0, P::InProgress), (900, P::Available), (5000, P::InProgress), (5100, P::Completed)]);
        let offsets: Vec<_> = course.moments().iter().map(|moment| moment.offset_ms).collect();
        assert_eq!(offsets, [Some(0), Some(-4100), Some(0), Some(100)]);
    }
}
