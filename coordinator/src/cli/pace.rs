//! How fast a counted work goes, from what a follower has seen of it. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use runtime::clock::Mono;

use crate::operator::view::CurrentView;

/// The rate is that of this time: fast enough to follow a change, slow enough not to jump.
const WINDOW: Duration = Duration::from_secs(30);
/// Sights kept at most.
const SIGHTS_MAX: usize = 256;

/// The sights of one work.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Step and unit: another one begins anew.
    of: Option<(String, String)>,
    seen: VecDeque<(Mono, u64)>,
}

impl Pace {
    /// Takes in what is seen now; returns the rate a second, when two sights tell one.
    pub(super) fn note(&mut self, now: Mono, current: Option<&CurrentView>) -> Option<f64> {
        let Some((current, count)) = current.and_then(|current| Some((current, current.progress.as_ref()?))) else {
            *self = Pace::default();
            return None;
        };
        // Lag is a level, not a work.
        if count.unit == engine::Unit::BYTES.0 {
            return None;
        }
        let of = Some((current.step.clone(), count.unit.clone()));
        if self.of != of || self.seen.back().is_some_and(|(_, done)| *done > count.done) {
            *self = Pace { of, seen: VecDeque::new() };
        }
        self.seen.push_back((now, count.done));
        while self.seen.len() > SIGHTS_MAX || self.seen.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
            self.seen.pop_front();
        }
        let (first, last) = (self.seen.front()?, self.seen.back()?);
        let (time, work) = (last.0.since(first.0).as_secs_f64(), last.1.saturating_sub(first.1));
        (time >= 1.0 && work > 0).then(|| work as f64 / time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::view::ProgressView;

    fn current(done: u64, unit: &str) -> CurrentView {
        let progress = Some(ProgressView { done, total: 100, unit: unit.into() });
        CurrentView {
            step: "post_provisioning".into(),
            doing: "run".into(),
            progress,
            left_seconds: None,
            waiting_for: None,
            asks_person: false,
            until: None,
        }
    }

    #[test]
    fn a_rate_is_told_by_two_sights_and_by_the_newest_of_them() {
        let mut pace = Pace::default();
        let mut check = |second: u64, seen: Option<CurrentView>, rate: Option<f64>| {
            assert_eq!(pace.note(Mono(Duration::from_secs(second)), seen.as_ref()), rate, "at {second} s");
        };
        check(0, Some(current(10, "tables")), None);
        check(2, Some(current(14, "tables")), Some(2.0));
        check(40, Some(current(14, "tables")), None);
        check(42, Some(current(24, "tables")), Some(5.0));
        check(43, Some(current(3, "tables")), None);
        check(44, Some(current(4, "rows")), None);
        check(46, Some(current(4, "bytes")), None);
        check(47, None, None);
    }
}
