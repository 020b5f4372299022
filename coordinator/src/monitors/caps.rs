//! How long ingestion has been paused and clients held (field rule 2.5): told at 80 % of the cap. At 100 % the agents have let go
//! by themselves, and the upgrade goes back; after the cut it only asks a person.

use std::convert::Infallible;

use engine::{Alarm, Monitor, MonitorId};
use proto::intent::{GateWish, IngestionWish};

use super::{Context, EVERY, note, tell, unwind};
use crate::{steps::codes, world::Upgrade};

pub(super) struct Caps;

impl Monitor<Upgrade> for Caps {
    const ID: MonitorId = MonitorId("caps");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut longest = Longest::default();
        loop {
            let wish = cx.world().agents.wish();
            let holding = wish.as_ref().is_some_and(|wish| wish.gate == GateWish::Hold);
            let max_pause_ms = wish.and_then(|wish| match wish.ingestion {
                IngestionWish::Paused { max_pause_ms } => Some(max_pause_ms),
                IngestionWish::Running => None,
            });
            let reports = cx.world().agents.reports();
            let of = |ms: fn(&proto::report::Report) -> Option<u64>| {
                reports.iter().filter_map(|(_, report)| ms(&report.as_ref()?.value)).max()
            };
            let caps = Asked {
                max_pause_ms,
                hold_max_ms: holding.then(|| u64::from(cx.spec().switchover.hold_seconds_max) * 1000),
            };
            let seen =
                Seen { paused_ms: of(|report| report.ingestion_paused_ms), held_ms: of(|report| report.held_ms) };
            tell(&cx, longest.judge(caps, seen)).await;
            cx.clock().sleep(EVERY).await;
        }
    }
}

/// What the agents are told, and for how long at most.
#[derive(Debug, Clone, Copy)]
struct Asked {
    max_pause_ms: Option<u64>,
    hold_max_ms: Option<u64>,
}

/// What they report.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    paused_ms: Option<u64>,
    held_ms: Option<u64>,
}

/// The longest that was seen of what stands now. One that ends although it is still asked for has reached its cap.
#[derive(Debug, Default)]
struct Longest(Seen);

impl Longest {
    fn judge(&mut self, asked: Asked, seen: Seen) -> Option<Alarm> {
        let paused = Share::of(&mut self.0.paused_ms, asked.max_pause_ms, seen.paused_ms);
        let held = Share::of(&mut self.0.held_ms, asked.hold_max_ms, seen.held_ms);
        let why = |what: &str, ms: u64| format!("{what} for {} s", ms / 1000);
        match (paused, held) {
            (Share::Over(ms), _) => {
                let why = why("ingestion was paused", ms) + ", its cap; it runs again";
                Some(unwind(codes::PAUSED_TOO_LONG, why))
            }
            (Share::Near(ms), _) => Some(note(codes::PAUSED_TOO_LONG, why("ingestion has been paused", ms))),
            (_, Share::Over(ms)) => {
                Some(note(codes::HELD_TOO_LONG, why("clients were held", ms) + ", the cap, and let go"))
            }
            (_, Share::Near(ms)) => Some(note(codes::HELD_TOO_LONG, why("clients have been held", ms))),
            (Share::Under, Share::Under) => None,
        }
    }
}

/// Of a cap, with the milliseconds.
enum Share {
    Under,
    Near(u64),
    Over(u64),
}

impl Share {
    fn of(longest: &mut Option<u64>, cap: Option<u64>, now: Option<u64>) -> Share {
        let Some(cap) = cap else {
            *longest = None;
            return Share::Under;
        };
        *longest = (*longest).max(now);
        let near = cap / 5 * 4;
        match *longest {
            Some(ms) if ms >= cap || (ms >= near && now.is_none()) => Share::Over(ms),
            Some(ms) if ms >= near => Share::Near(ms),
            _ => Share::Under,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_at_four_fifths_of_its_cap_and_unwinds_at_the_cap() {
        let mut longest = Longest::default();
        let mut check = |cap: Option<u64>, paused_ms: Option<u64>| {
            longest.judge(Asked { max_pause_ms: cap, hold_max_ms: None }, Seen { paused_ms, held_ms: None })
        };
        assert_eq!(check(Some(10_000), Some(7_999)), None);
        assert!(
            matches!(check(Some(10_000), Some(8_000)), Some(Alarm::Note(why)) if why.code == codes::PAUSED_TOO_LONG)
        );
        // The agent has let go between two reports.
        assert!(matches!(check(Some(10_000), None), Some(Alarm::Unwind(why)) if why.code == codes::PAUSED_TOO_LONG));
        assert_eq!(check(None, None), None);
        assert_eq!(check(Some(10_000), None), None);
        assert!(matches!(check(Some(10_000), Some(10_000)), Some(Alarm::Unwind(_))));
    }

    #[test]
    fn a_long_hold_is_told() {
        let asked = Asked { max_pause_ms: None, hold_max_ms: Some(420_000) };
        let alarm = Longest::default().judge(asked, Seen { paused_ms: None, held_ms: Some(400_000) });
        assert!(matches!(alarm, Some(Alarm::Note(why)) if why.code == codes::HELD_TOO_LONG));
    }
}
