//! The side that does not serve any more: data written there is the worst that can happen after a cut, and is said loudest.

use std::convert::Infallible;

use engine::{Alarm, Monitor, MonitorId};

use super::{Context, EVERY, note, tell};
use crate::{steps::codes, world::Upgrade};

pub(super) struct OldSide;

impl Monitor<Upgrade> for OldSide {
    const ID: MonitorId = MonitorId("old_side");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        loop {
            if let Some(alarm) = judge(&cx) {
                tell(&cx, Some(alarm)).await;
            }
            cx.clock().sleep(EVERY).await;
        }
    }
}

/// Stands once raised: rows on the old side do not come over by themselves.
fn judge(cx: &Context<'_>) -> Option<Alarm> {
    let report = cx.world().agents.lead_report()?;
    let old = report.value.old_side.as_ref()?;
    if old.write_commits > 0 {
        let why = format!("data written to the old side: {} transactions since the cut", old.write_commits);
        return Some(note(codes::OLD_SIDE_WRITTEN, why));
    }
    None
}
