//! What a step may be expected to take: the median of what it took in the upgrades that succeeded before. For people only;
//! nothing decides on it. Pure.

use std::collections::BTreeMap;

/// What the steps of one upgrade took, by step id, in seconds.
pub type Took = Vec<(String, f64)>;

/// The median for each step that was ever done.
pub fn expected<'a>(earlier: impl IntoIterator<Item = &'a Took>) -> BTreeMap<String, f64> {
    let mut by_step: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (step, seconds) in earlier.into_iter().flatten().filter(|(_, seconds)| seconds.is_finite()) {
        by_step.entry(step.clone()).or_default().push(*seconds);
    }
    by_step.into_iter().filter_map(|(step, times)| Some((step, median(times)?))).collect()
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    let upper = *times.get(times.len() / 2)?;
    let lower = *times.get((times.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
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
        let took = |seconds: f64| vec![("cleanup".to_owned(), seconds)];
        let check = |earlier: &[f64], expect: Option<f64>| {
            let all: Vec<Took> = earlier.iter().copied().map(took).collect();
            assert_eq!(expected(&all).get("cleanup").copied(), expect, "{earlier:?}");
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
