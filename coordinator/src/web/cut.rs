//! The cut on a line of time, zoomed to the moments that clients feel: what both sides' servers said, when writes and reads were
//! refused, when clients were held. Places are percent of the line. Pure.

use jiff::Timestamp;
use proto::phase::SwitchoverPhase;
use proto::side::Side;

use super::filters::as_ms;
use crate::operator::course::Moment;
use crate::operator::tally::Gap;
use crate::operator::view::StatusView;

/// Shorter bars could not be seen.
const WIDTH_MIN: f64 = 0.4;

/// The line of time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Cut {
    /// The moment connections were cut, or writes began to fail.
    pub(super) at: Option<Timestamp>,
    pub(super) lanes: Vec<Lane>,
    pub(super) ticks: Vec<Tick>,
}

/// One row of it.
#[derive(Debug, PartialEq)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    /// `said`, `write`, `read`, `held`, `ingestion`.
    pub(super) kind: &'static str,
    pub(super) bars: Vec<Bar>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) left: String,
    pub(super) width: String,
    /// Within the bar, as far as there is room.
    pub(super) text: String,
    /// For whoever points at it.
    pub(super) title: String,
    /// Of a status: `available`, `initiated` …
    pub(super) label: &'static str,
}

/// A mark of the scale.
#[derive(Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) left: String,
    pub(super) text: String,
}

/// From one moment to another, in milliseconds from the cut.
#[derive(Debug, Clone, Copy)]
struct Zoom {
    from: i64,
    to: i64,
}

impl Zoom {
    fn place(self, ms: i64) -> f64 {
        (ms.clamp(self.from, self.to) - self.from) as f64 / (self.to - self.from) as f64 * 100.0
    }

    fn bar(self, from: i64, to: i64, text: String, title: String, label: &'static str) -> Option<Bar> {
        if to < self.from || from > self.to {
            return None;
        }
        let left = self.place(from).min(100.0 - WIDTH_MIN);
        let width = (self.place(to) - left).max(WIDTH_MIN);
        Some(Bar { left: format!("{left:.2}%"), width: format!("{width:.2}%"), text, title, label })
    }
}

/// When connections were cut in the last try, by the agents; else when writes began to fail.
pub(super) fn origin(view: &StatusView) -> Option<Timestamp> {
    let told = view.switchover.iter().rev().find_map(|moment| {
        let offset = moment.offset_ms?;
        moment.at.checked_sub(jiff::SignedDuration::from_millis(offset)).ok()
    });
    told.or_else(|| view.gaps.iter().filter(|gap| !gap.reboot && gap.kind == "write").map(|gap| gap.from).min())
}

/// The cut of this upgrade, if there was one.
pub(super) fn cut(view: &StatusView) -> Cut {
    let Some(at) = origin(view) else { return Cut::default() };
    let ms = |moment: Timestamp| moment.as_millisecond() - at.as_millisecond();
    let near = |gap: &&Gap| !gap.reboot && ms(gap.from).abs() < 600_000;
    let gaps: Vec<&Gap> = view.gaps.iter().filter(near).collect();
    let zoom = zoom(view, &gaps, ms);
    let mut lanes = vec![
        said(view, "Blue says", Side::Blue, zoom, ms),
        said(view, "Green says", Side::Green, zoom, ms),
        felt(&gaps, "Writes refused", "write", zoom, ms),
        felt(&gaps, "Reads refused", "read", zoom, ms),
        felt(&gaps, "Clients held", "held", zoom, ms),
        felt(&gaps, "Ingestion paused", "ingestion", zoom, ms),
    ];
    lanes.retain(|lane| !lane.bars.is_empty() || matches!(lane.kind, "write" | "read"));
    Cut { at: Some(at), lanes, ticks: ticks(zoom) }
}

/// Around all that was felt, and the first write on green; a long pause of ingestion does not count.
fn zoom(view: &StatusView, gaps: &[&Gap], ms: impl Fn(Timestamp) -> i64) -> Zoom {
    let (mut from, mut to) = (0, 500);
    for gap in gaps.iter().filter(|gap| gap.kind != "ingestion") {
        let begins = ms(gap.from);
        (from, to) = (from.min(begins), to.max(begins + gap.ms as i64));
    }
    let accepted = |moment: &&Moment| moment.what == "green_accepted_write" && ms(moment.at).abs() < 600_000;
    to = view.switchover.iter().filter(accepted).map(|moment| ms(moment.at)).fold(to, i64::max);
    let edge = (to - from) / 8;
    Zoom { from: from - edge, to: to + edge }
}

fn felt(gaps: &[&Gap], name: &'static str, kind: &'static str, zoom: Zoom, ms: impl Fn(Timestamp) -> i64) -> Lane {
    let bars = gaps.iter().filter(|gap| gap.kind == kind).filter_map(|gap| {
        let begins = ms(gap.from);
        let title = format!("{} from {begins:+} ms, seen by {}", as_ms(gap.ms), gap.agent);
        zoom.bar(begins, begins + gap.ms as i64, as_ms(gap.ms), title, "")
    });
    Lane { name, kind, bars: bars.collect() }
}

/// Each word of a side's server until its next one.
fn said(view: &StatusView, name: &'static str, side: Side, zoom: Zoom, ms: impl Fn(Timestamp) -> i64) -> Lane {
    let told = view.switchover.iter().filter(|moment| moment.side == Some(side));
    let mut words: Vec<(i64, &Option<SwitchoverPhase>)> = told.map(|moment| (ms(moment.at), &moment.phase)).collect();
    words.sort_by_key(|(at, _)| *at);
    words.dedup_by_key(|(_, phase)| *phase);
    let ends = words.iter().skip(1).map(|(at, _)| *at).chain([zoom.to]);
    let bars = words.iter().zip(ends).filter_map(|((at, phase), end)| {
        let phase = phase.as_ref()?;
        let text = phase.as_str().trim_start_matches("SWITCHOVER_").to_lowercase().replace('_', " ");
        zoom.bar(*at, end, text, format!("{phase} from {at:+} ms"), phase.label())
    });
    Lane { name, kind: "said", bars: bars.collect() }
}

/// Round distances, three to seven of them.
fn ticks(zoom: Zoom) -> Vec<Tick> {
    let steps = [50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000];
    let step = steps.into_iter().find(|step| (zoom.to - zoom.from) / step <= 6).unwrap_or(600_000);
    let first = zoom.from.div_euclid(step) + 1;
    let marks = (first..).map(|n| n * step).take_while(|ms| *ms < zoom.to);
    let text = |ms: i64| match ms {
        0 => "cut".to_owned(),
        _ if step < 1000 => format!("{ms:+} ms"),
        _ => format!("{:+} s", ms / 1000),
    };
    marks.map(|ms| Tick { left: format!("{:.2}%", zoom.place(ms)), text: text(ms) }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::web::testing::view;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000 + ms).unwrap()
    }

    fn gap(kind: &str, from: i64, ms: u64) -> Gap {
        let (kind, agent) = (kind.to_owned(), "agent-1".to_owned());
        Gap { kind, from: at(from), ms, agent, before: None, after: None, reboot: false }
    }

    fn word(side: Side, ms: i64, phase: SwitchoverPhase) -> Moment {
        let (what, agent) = ("status".to_owned(), "agent-1".to_owned());
        Moment { at: at(ms), what, agent, side: Some(side), phase: Some(phase), offset_ms: Some(ms) }
    }

    #[test]
    fn the_line_is_zoomed_to_what_was_felt_and_counts_from_the_cut() {
        use SwitchoverPhase as P;
        let mut view = view();
        view.switchover = vec![
            word(Side::Blue, -3000, P::Initiated),
            word(Side::Blue, 0, P::InProgress),
            word(Side::Blue, 800, P::PostProcessing),
            word(Side::Blue, 60_000, P::Completed),
        ];
        view.gaps =
            vec![gap("write", 20, 700), gap("read", 100, 300), gap("held", -40, 900), gap("ingestion", -9000, 10_000)];
        let cut = cut(&view);
        assert_eq!(cut.at, Some(at(0)));
        let lanes: Vec<(&str, usize)> = cut.lanes.iter().map(|lane| (lane.name, lane.bars.len())).collect();
        // Both words of long before and after stand outside; the pause is cut at the edges.
        assert_eq!(
            lanes,
            [
                ("Blue says", 3),
                ("Writes refused", 1),
                ("Reads refused", 1),
                ("Clients held", 1),
                ("Ingestion paused", 1)
            ]
        );
        assert_eq!(cut.lanes[1].bars[0].title, "700 ms from +20 ms, seen by agent-1");
        assert_eq!((cut.lanes[4].bars[0].left.as_str(), cut.lanes[4].bars[0].width.as_str()), ("0.00%", "100.00%"));
        assert!(cut.ticks.iter().any(|tick| tick.text == "cut"), "{:?}", cut.ticks);
        assert!((3..=7).contains(&cut.ticks.len()), "{:?}", cut.ticks);
    }

    #[test]
    fn a_cut_without_any_status_counts_from_the_first_refused_write_and_none_is_none() {
        let mut view = view();
        assert_eq!(cut(&view), Cut::default());
        view.gaps = vec![Gap { reboot: true, ..gap("write", 0, 90) }, gap("write", 5000, 90)];
        assert_eq!(cut(&view).at, Some(at(5000)));
    }
}
