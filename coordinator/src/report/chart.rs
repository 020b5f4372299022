//! The two charts of a report: steps over the whole upgrade, and what clients felt, zoomed to when they felt it. Only geometry: where
//! bars, ticks and marks stand, in the units of the picture. The template draws them.

use jiff::Timestamp;

use super::model::{Outage, Report};

/// Where lanes begin and how wide they are.
const LEFT: f64 = 170.0;
const WIDTH: f64 = 690.0;
const LANE: f64 = 26.0;
const TOP: f64 = 8.0;
/// Outages further apart than this are another picture.
const GAP_MS: i64 = 30_000;
const PANELS_MAX: usize = 6;
const BARS_MAX: usize = 400;
const MARKS_MAX: usize = 24;

/// One picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) height: String,
    pub(super) bottom: String,
    pub(super) lanes: Vec<Lane>,
    pub(super) ticks: Vec<Tick>,
    pub(super) marks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lane {
    pub(super) label: String,
    pub(super) y: String,
    pub(super) text_y: String,
    pub(super) bars: Vec<Bar>,
    pub(super) figure: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) x: String,
    pub(super) width: String,
    pub(super) class: String,
    pub(super) title: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) x: String,
    pub(super) label: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mark {
    pub(super) x: String,
    /// Its place in the list below the picture.
    pub(super) number: usize,
    pub(super) label: String,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: i64,
    ms: f64,
}

impl Scale {
    fn of(from: Timestamp, to: Timestamp) -> Scale {
        let from = from.as_millisecond();
        Scale { from, ms: (to.as_millisecond() - from).max(1) as f64 }
    }

    fn x(self, at: Timestamp) -> f64 {
        LEFT + ((at.as_millisecond() - self.from) as f64 / self.ms).clamp(0.0, 1.0) * WIDTH
    }

    fn bar(self, from: Timestamp, to: Timestamp, class: &str, title: String) -> Bar {
        let (x, end) = (self.x(from), self.x(to));
        Bar { x: number(x), width: number((end - x).max(1.5)), class: class.to_owned(), title }
    }

    /// About six round times, counted from the beginning.
    fn ticks(self) -> Vec<Tick> {
        const STEPS: [f64; 20] = [
            1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 30e3, 60e3, 300e3, 600e3, 1800e3,
            3600e3, 14400e3, 86400e3,
        ];
        let step = STEPS.iter().copied().find(|step| self.ms / step <= 8.0).unwrap_or(self.ms / 6.0);
        let label = |ms: f64| match step {
            step if step < 1e3 && self.ms < 10e3 => format!("{ms:.0} ms"),
            step if step < 60e3 => format!("{:.0} s", ms / 1e3),
            step if step < 3600e3 => format!("{:.0} min", ms / 60e3),
            _ => format!("{:.0} h", ms / 3600e3),
        };
        let count = (self.ms / step) as usize;
        let tick =
            |n: usize| Tick { x: number(LEFT + n as f64 * step / self.ms * WIDTH), label: label(n as f64 * step) };
        (0..=count).map(tick).collect()
    }
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

fn panel(title: String, scale: Scale, lanes: Vec<(String, Vec<Bar>, String)>, marks: Vec<Mark>) -> Panel {
    let lanes: Vec<Lane> = lanes
        .into_iter()
        .enumerate()
        .map(|(n, (label, bars, figure))| {
            let y = TOP + n as f64 * LANE;
            Lane { label, y: number(y), text_y: number(y + 14.0), bars, figure }
        })
        .collect();
    let bottom = TOP + lanes.len() as f64 * LANE;
    Panel { title, height: number(bottom + 38.0), bottom: number(bottom), lanes, ticks: scale.ticks(), marks }
}

/// Every step with its attempts, over the whole upgrade.
pub(super) fn steps(report: &Report) -> Option<Panel> {
    let spans = || report.steps.iter().flat_map(|step| &step.spans);
    let from = spans().map(|span| span.from).min()?;
    let now = report.ended_at.unwrap_or(report.made_at);
    let to = spans().map(|span| span.to.unwrap_or(now)).max()?;
    let scale = Scale::of(from, to);
    let lanes = report.steps.iter().filter(|step| !step.spans.is_empty()).map(|step| {
        let bars = step.spans.iter().take(BARS_MAX).map(|span| {
            let what = match span.attempt {
                0 => "undoing".to_owned(),
                attempt => format!("attempt {attempt}"),
            };
            scale.bar(span.from, span.to.unwrap_or(now), &span.end, format!("{what}: {}", span.end))
        });
        let figure = step.seconds.map(super::html::seconds).unwrap_or_default();
        (step.title.clone(), bars.collect(), figure)
    });
    let title = format!("Counted from {from:.0}");
    Some(panel(title, scale, lanes.collect(), Vec::new()))
}

/// The kinds in the order of their lanes.
const KINDS: [(&str, &str); 4] = [
    ("write", "writes unavailable"),
    ("read", "reads unavailable"),
    ("held", "clients held"),
    ("ingestion_paused", "ingestion paused"),
];

/// What was felt, as many pictures as there were times. A long pause of ingestion does not stretch a picture of what is shorter.
pub(super) fn downtime(report: &Report) -> Vec<Panel> {
    let outages = &report.outages.rows;
    let felt = |outage: &&Outage| outage.kind != "ingestion_paused";
    let mut sharp: Vec<&Outage> = outages.iter().filter(felt).collect();
    if sharp.is_empty() {
        sharp = outages.iter().collect();
    }
    sharp.sort_by_key(|outage| outage.from);
    let mut windows: Vec<(Timestamp, Timestamp)> = Vec::new();
    for outage in sharp {
        match windows.last_mut() {
            Some((_, to)) if outage.from.as_millisecond() - to.as_millisecond() < GAP_MS => *to = (*to).max(outage.to),
            _ => windows.push((outage.from, outage.to)),
        }
    }
    // The newest are those of the cut that came.
    let skipped = windows.len().saturating_sub(PANELS_MAX);
    windows.into_iter().skip(skipped).map(|(from, to)| window(report, from, to)).collect()
}

fn window(report: &Report, from: Timestamp, to: Timestamp) -> Panel {
    let margin = jiff::SignedDuration::from_millis(((to.as_millisecond() - from.as_millisecond()) / 12).max(20));
    let (from, to) = (from.saturating_sub(margin).unwrap_or(from), to.saturating_add(margin).unwrap_or(to));
    let scale = Scale::of(from, to);
    let inside = |outage: &&Outage| outage.from <= to && outage.to >= from;
    let lanes = KINDS.iter().map(|(kind, label)| {
        let mut seen: Vec<&Outage> =
            report.outages.rows.iter().filter(inside).filter(|one| one.kind == *kind).collect();
        // Those that count are drawn last, over the others.
        seen.sort_by_key(|outage| outage.counts);
        let bar = |outage: &&Outage| {
            let class = format!("{kind}{}", if outage.counts { "" } else { " faint" });
            scale.bar(outage.from, outage.to, &class, format!("{}: {} ms", outage.agent, outage.ms))
        };
        let ms: u64 = seen.iter().filter(|outage| outage.counts).map(|outage| outage.ms).sum();
        let figure = if seen.is_empty() { "none".to_owned() } else { format!("{ms} ms") };
        ((*label).to_owned(), seen.iter().take(BARS_MAX).map(bar).collect(), figure)
    });
    let moments = report.cut.moments.iter().filter(|moment| moment.at >= from && moment.at <= to).take(MARKS_MAX);
    let mark = |(n, moment): (usize, &crate::operator::course::Moment)| Mark {
        x: number(scale.x(moment.at)),
        number: n + 1,
        label: moment.line(),
    };
    let during = report.outages.rows.iter().find(inside).map_or("cut", |outage| outage.during.as_str());
    let what = if during == "reboot" { "Around the reboot" } else { "Around the cut" };
    let begins = from.strftime("%Y-%m-%d %H:%M:%S%.3f");
    panel(format!("{what}: counted from {begins} UTC"), scale, lanes.collect(), moments.enumerate().map(mark).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_few_and_inside_whatever_the_length() {
        for ms in [1, 40, 999, 7_500, 61_000, 3_700_000, 90_000_000, i64::MAX / 2_000_000] {
            let from = Timestamp::UNIX_EPOCH;
            let to = Timestamp::from_millisecond(ms.min(200_000_000_000)).unwrap();
            let ticks = Scale::of(from, to).ticks();
            assert!((1..=10).contains(&ticks.len()), "{ms}: {ticks:?}");
            let last: f64 = ticks.last().unwrap().x.parse().unwrap();
            assert!(last <= LEFT + WIDTH + 0.1, "{ms}: {ticks:?}");
        }
    }
}
