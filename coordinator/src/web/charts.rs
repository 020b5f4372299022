//! Samples as the columns that charts draw: one axis of time, thinned to what a screen shows; peaks stay. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::cut;
use crate::operator::view::StatusView;
use crate::store::Sample;

/// Points of one line.
const POINTS_MAX: i64 = 600;

/// What `samples.json` says.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Charts {
    /// Milliseconds since 1970, rising.
    pub(super) at: Vec<i64>,
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
}

#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Line {
    /// `bytes`, `ms`, `rate`, `backlog`: the chart.
    pub(super) chart: &'static str,
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
}

/// A moment to be drawn in every chart.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Mark {
    pub(super) at: i64,
    pub(super) what: String,
}

/// The newest values, to be drawn behind those.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Point {
    pub(super) at: i64,
    pub(super) values: Vec<(&'static str, String, f64)>,
    pub(super) marks: Vec<Mark>,
}

/// Which chart a sample belongs to, and as what; waits and doubles belong to none.
fn line(name: &str) -> Option<(&'static str, String)> {
    if let Some(slot) = name.strip_prefix("slot_bytes/") {
        return Some(("bytes", slot.to_owned()));
    }
    if let Some(slot) = name.strip_prefix("slot_ms/") {
        return Some(("ms", slot.to_owned()));
    }
    let (chart, name) = match name {
        "cloudwatch_bytes" => ("bytes", "CloudWatch"),
        "marker_ms" => ("ms", "marker"),
        "ingestion_rate" => ("rate", "rate"),
        "backlog" => ("backlog", "backlog"),
        _ => return None,
    };
    Some((chart, name.to_owned()))
}

pub(super) fn charts(samples: &[Sample], view: &StatusView) -> Charts {
    let known: Vec<_> = samples.iter().filter_map(|sample| Some((sample, line(&sample.name)?))).collect();
    let times = || known.iter().map(|(sample, _)| sample.at_ms);
    let (first, last) = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
    let bucket = ((last - first) / POINTS_MAX + 1).max(1);
    let mut at: Vec<i64> = times().map(|ms| (ms - first) / bucket).collect();
    at.sort_unstable();
    at.dedup();
    let mut lines: BTreeMap<(&'static str, String), Vec<Option<f64>>> = BTreeMap::new();
    for (sample, line) in known {
        let Ok(place) = at.binary_search(&((sample.at_ms - first) / bucket)) else { continue };
        let values = lines.entry(line).or_insert_with(|| vec![None; at.len()]);
        values[place] = Some(values[place].map_or(sample.value, |value| value.max(sample.value)));
    }
    let lines = lines.into_iter().map(|((chart, name), values)| Line { chart, name, values });
    Charts { at: at.iter().map(|n| first + n * bucket).collect(), lines: lines.collect(), marks: marks(view) }
}

/// What the page is told beside its sections.
pub(super) fn point(view: &StatusView, now: Timestamp) -> Point {
    let mut values = Vec::new();
    for slot in &view.lag.slots {
        values.extend(slot.bytes.map(|bytes| ("bytes", slot.name.clone(), bytes as f64)));
        values.extend(slot.behind_ms.map(|ms| ("ms", slot.name.clone(), ms as f64)));
    }
    values.extend(view.lag.cloudwatch_bytes.map(|bytes| ("bytes", "CloudWatch".to_owned(), bytes as f64)));
    values.extend(view.lag.marker_ms.map(|ms| ("ms", "marker".to_owned(), ms as f64)));
    values.extend(view.ingestion.rate.map(|rate| ("rate", "rate".to_owned(), rate)));
    values.extend(view.ingestion.backlog.map(|backlog| ("backlog", "backlog".to_owned(), backlog as f64)));
    Point { at: now.as_millisecond(), values, marks: marks(view) }
}

fn marks(view: &StatusView) -> Vec<Mark> {
    let cut = cut::origin(view).map(|at| Mark { at: at.as_millisecond(), what: "cut".to_owned() });
    let accepted = view.switchover.iter().find(|moment| moment.what == "green_accepted_write");
    let accepted = accepted.map(|moment| Mark { at: moment.at.as_millisecond(), what: "green writes".to_owned() });
    cut.into_iter().chain(accepted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::testing::view;

    fn sample(at_ms: i64, name: &str, value: f64) -> Sample {
        Sample { at_ms, name: name.to_owned(), value }
    }

    #[test]
    fn lines_share_one_axis_and_waits_are_none_of_them() {
        let samples = [
            sample(1000, "slot_bytes/rds_a", 7.0),
            sample(1000, "slot_ms/rds_a", 20.0),
            sample(2000, "cloudwatch_bytes", 9.0),
            sample(2000, "wait/cleanup/a person", 1.0),
            sample(3000, "lag_bytes", 1.0),
        ];
        let charts = charts(&samples, &view());
        assert_eq!(charts.at, [1000, 2000]);
        let lines: Vec<_> =
            charts.lines.iter().map(|line| (line.chart, line.name.as_str(), &line.values[..])).collect();
        assert_eq!(
            lines,
            [
                ("bytes", "CloudWatch", &[None, Some(9.0)][..]),
                ("bytes", "rds_a", &[Some(7.0), None][..]),
                ("ms", "rds_a", &[Some(20.0), None][..]),
            ]
        );
    }

    #[test]
    fn a_long_upgrade_is_thinned_and_its_peak_stays() {
        let mut samples: Vec<Sample> = (0..20_000).map(|n| sample(n * 1000, "backlog", 1.0)).collect();
        samples[12_345].value = 99.0;
        let charts = charts(&samples, &view());
        assert!(charts.at.len() <= 601, "{}", charts.at.len());
        assert!(charts.at.is_sorted());
        let peak = charts.lines[0].values.iter().flatten().copied().fold(0.0, f64::max);
        assert_eq!(peak, 99.0);
        assert_eq!(super::charts(&[], &view()).at, [] as [i64; 0]);
    }
}
