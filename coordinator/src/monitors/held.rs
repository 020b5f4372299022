//! How long clients have been held: told near the cap, and when the agents have let go at it. What follows from the outcome is the
//! switchover's own; a pause of ingestion is judged in `ingestion.rs`.

use std::convert::Infallible;

use engine::{Alarm, Monitor, MonitorId};
use proto::intent::GateWish;

use super::{Context, EVERY, note, tell};
use crate::{steps::codes, world::Upgrade};

pub(super) struct Held;

impl Monitor<Upgrade> for Held {
    const ID: MonitorId = MonitorId("held");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut longest = None;
        loop {
            let agents = &cx.world().agents;
            let holding = agents.wish().is_some_and(|wish| wish.gate == GateWish::Hold);
            let cap = u64::from(cx.spec().switchover.hold_seconds_max) * 1000;
            let now = agents.reports().iter().filter_map(|(_, report)| report.as_ref()?.value.held_ms).max();
            tell(&cx, judge(&mut longest, holding.then_some(cap), now)).await;
            cx.clock().sleep(EVERY).await;
        }
    }
}

/// `longest` is what was seen of the hold that is asked for now; one that ends although it is asked for has reached its cap.
fn judge(longest: &mut Option<u64>, cap_ms: Option<u64>, now_ms: Option<u64>) -> Option<Alarm> {
    let Some(cap) = cap_ms else {
        *longest = None;
        return None;
    };
    *longest = (*longest).max(now_ms);
    let (held, near) = ((*longest)?, cap / 5 * 4);
    let over = held >= cap || (held >= near && now_ms.is_none());
    let why = match over {
        true => format!("clients were held for {} s, the cap, and let go", held / 1000),
        false => format!("clients have been held for {} s", held / 1000),
    };
    (held >= near).then(|| note(codes::HELD_TOO_LONG, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_told_at_four_fifths_of_its_cap_and_at_the_cap() {
        let mut longest = None;
        let mut check =
            |cap: Option<u64>, now: Option<u64>| judge(&mut longest, cap, now).map(|alarm| alarm.why().text.clone());
        assert_eq!(check(Some(420_000), Some(335_999)), None);
        assert_eq!(check(Some(420_000), Some(336_000)).as_deref(), Some("clients have been held for 336 s"));
        // The agent has let go between two reports.
        assert_eq!(check(Some(420_000), None).as_deref(), Some("clients were held for 336 s, the cap, and let go"));
        assert_eq!(check(None, None), None);
        assert_eq!(check(Some(420_000), None), None);
    }
}
