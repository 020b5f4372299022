//! Does production answer? While it does not, by the probes of every agent that can be heard, nothing is switched over.

use std::convert::Infallible;
use std::time::Duration;

use engine::{Monitor, MonitorId};
use proto::report::Outcome;
use runtime::clock::Mono;

use super::{Context, EVERY, has_slots, hold, note, tell};
use crate::{steps::codes, world::Upgrade};

pub(super) struct Production;

/// A connection that breaks once is no outage.
const DOWN_FOR: Duration = Duration::from_secs(10);
/// A probe's word that is older is none.
const FRESH_MS: u64 = 5000;

impl Monitor<Upgrade> for Production {
    const ID: MonitorId = MonitorId("production");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut since: Option<Mono> = None;
        loop {
            let now = cx.clock().mono();
            // Around the cut the outcome is read by those who know more.
            let down = if cx.state().armed() { None } else { down(&cx) };
            since = down.as_ref().and(since.or(Some(now)));
            let long = since.is_some_and(|since| now.since(since) >= DOWN_FOR);
            let alarm = down.filter(|_| long).map(|how| match has_slots(&cx) {
                true => hold(codes::PRODUCTION_DOWN, how),
                false => note(codes::PRODUCTION_DOWN, how),
            });
            tell(&cx, alarm).await;
            cx.clock().sleep(EVERY).await;
        }
    }
}

/// How production fails to answer every agent that says anything; `None` when one is answered, or none says anything.
fn down(cx: &Context<'_>) -> Option<String> {
    let mut how = None;
    for (agent, report) in cx.world().agents.reports() {
        let Some(report) = report else { continue };
        let age = u64::try_from(report.age.as_millis()).unwrap_or(u64::MAX);
        let Some(seen) = &report.value.probe.production else { continue };
        if seen.age_ms.saturating_add(age) > FRESH_MS {
            continue;
        }
        match &seen.outcome {
            Outcome::Answered { .. } => return None,
            Outcome::Unreachable { kind, sqlstate } => {
                let state = sqlstate.as_ref().map(|state| format!(", {state}")).unwrap_or_default();
                how = Some(format!("production does not answer the probe of {agent}: {kind}{state}"));
            }
        }
    }
    how
}
