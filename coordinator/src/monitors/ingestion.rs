//! Ingestion: does every controller do what it was told, and can it be asked at all?

use std::convert::Infallible;

use engine::{Alarm, Monitor, MonitorId};
use proto::intent::{GateWish, IngestionWish};
use proto::report::IngestionState;

use super::{Context, EVERY, hold, note, tell};
use crate::{steps::codes, world::Upgrade};

pub(super) struct Ingestion;

impl Monitor<Upgrade> for Ingestion {
    const ID: MonitorId = MonitorId("ingestion");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut off = 0;
        loop {
            // One odd reading is a controller on its way; three in a row are not.
            let found = judge(&cx);
            off = if found.is_some() { off + 1 } else { 0 };
            tell(&cx, found.filter(|_| off >= 3)).await;
            cx.clock().sleep(EVERY).await;
        }
    }
}

fn judge(cx: &Context<'_>) -> Option<Alarm> {
    let wish = cx.world().agents.wish()?;
    let should_run = wish.gate == GateWish::Open && wish.ingestion == IngestionWish::Running;
    for (agent, report) in cx.world().agents.reports() {
        let Some(report) = report else { continue };
        for controller in &report.value.ingestion {
            let name = &controller.name;
            match &controller.state {
                IngestionState::Unknown(why) => {
                    return Some(hold(codes::INGESTION_OFF, format!("{agent} cannot ask {name}: {why}")));
                }
                IngestionState::Paused | IngestionState::Mixed if should_run => {
                    return Some(note(codes::INGESTION_OFF, format!("{name} of {agent} does not run as it should")));
                }
                _ => {}
            }
        }
    }
    None
}
