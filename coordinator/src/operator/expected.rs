//! What a step may be expected to take: the median of what it took in earlier upgrades, without what it waited for a person. For
//! people only; nothing decides on it. Pure.

use std::collections::BTreeMap;

use engine::{Status, StepId};
use jiff::Timestamp;

use super::folds::Fold;

/// What a step took in earlier upgrades, without what it waited for a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Before {
    pub median_seconds: f64,
    pub least_seconds: f64,
    pub most_seconds: f64,
    pub upgrades: usize,
}

impl Before {
    /// Of the times that are numbers; `None` without one.
    fn of(mut seconds: Vec<f64>) -> Option<Before> {
        seconds.retain(|time| time.is_finite());
        seconds.sort_by(f64::total_cmp);
        let (least_seconds, most_seconds) = (*seconds.first()?, *seconds.last()?);
        let upgrades = seconds.len();
        let median_seconds = f64::midpoint(seconds[(upgrades - 1) / 2], seconds[upgrades / 2]);
        Some(Before { median_seconds, least_seconds, most_seconds, upgrades })
    }
}

/// Over upgrades whose step was done; none of them, no entry.
pub(crate) fn before<'a>(earlier: impl Iterator<Item = &'a Fold>) -> BTreeMap<StepId, Before> {
    let mut took: BTreeMap<StepId, Vec<f64>> = BTreeMap::new();
    for fold in earlier {
        for step in fold.state.steps().iter().filter(|step| step.status == Status::Done) {
            let seconds = fold.tally.steps.get(&step.id).and_then(|times| times.worked(Timestamp::MAX));
            took.entry(step.id).or_default().extend(seconds);
        }
    }
    took.into_iter().filter_map(|(step, seconds)| Some((step, Before::of(seconds)?))).collect()
}

/// What is left of a step that has taken `so_far`, by the share of its work that is done where that is known, else by what such
/// steps took. `None` when neither says anything: a step that is over its time is not said to end at once.
pub fn left(so_far: f64, done: Option<(u64, u64)>, expected: Option<f64>) -> Option<f64> {
    let by_work = done.filter(|(done, total)| *done > 0 && done < total);
    let by_work = by_work.map(|(done, total)| so_far * (total - done) as f64 / done as f64);
    let by_time = expected.map(|expected| expected - so_far);
    // Counts may be of a part of the step only: what steps took speaks first, as long as it says something.
    by_time.filter(|left| *left > 0.0).or(by_work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_expected_to_take_the_median_of_the_earlier_ones() {
        let check = |earlier: &[f64], expect: Option<f64>| {
            let before = Before::of(earlier.to_vec());
            assert_eq!(before.map(|before| before.median_seconds), expect, "{earlier:?}");
        };
        check(&[], None);
        check(&[7.0], Some(7.0));
        check(&[9.0, 1.0], Some(5.0));
        check(&[100.0, 1.0, 3.0], Some(3.0));
        check(&[f64::NAN, 2.0], Some(2.0));
    }

    #[test]
    fn what_is_left_is_said_only_when_something_speaks_for_it() {
        assert_eq!(left(10.0, None, Some(25.0)), Some(15.0));
        assert_eq!(left(10.0, Some((1, 3)), Some(25.0)), Some(15.0));
        assert_eq!(left(30.0, Some((1, 3)), Some(25.0)), Some(60.0), "over its time: by the work");
        assert_eq!(left(30.0, None, Some(25.0)), None);
        assert_eq!(left(30.0, Some((0, 3)), None), None);
        assert_eq!(left(30.0, Some((3, 3)), None), None);
    }
}
