//! Agents that are not heard from: the switchover waits until every one of the roster is back.

use std::convert::Infallible;
use std::time::Duration;

use engine::{Alarm, Monitor, MonitorId};

use super::{Context, EVERY, hold, tell};
use crate::{steps::codes, world::Upgrade};

pub(super) struct Link;

/// An agent silent for longer has lost its link.
const SILENT_MAX: Duration = Duration::from_secs(5);

impl Monitor<Upgrade> for Link {
    const ID: MonitorId = MonitorId("link");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        loop {
            tell(&cx, judge(&cx)).await;
            cx.clock().sleep(EVERY).await;
        }
    }
}

fn judge(cx: &Context<'_>) -> Option<Alarm> {
    let silent = |ms: u64| ms > u64::try_from(SILENT_MAX.as_millis()).unwrap_or(u64::MAX);
    let lost: Vec<String> = cx
        .world()
        .agents
        .seen()
        .into_iter()
        .filter(|agent| agent.in_roster && (!agent.connected || silent(agent.silent_ms)))
        .map(|agent| agent.agent.to_string())
        .collect();
    (!lost.is_empty()).then(|| hold(codes::LINK_DOWN, format!("not heard from: {}", lost.join(", "))))
}
