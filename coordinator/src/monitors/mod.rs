//! The eighth step, monitoring: one file a monitor. A monitor raises and clears its own alarm; it never changes the world.

mod ddl;
mod ingestion;
mod link;
mod old_side;
mod replication_lag;

use std::time::Duration;

use engine::{Alarm, Code, MonitorCx, Monitors, Why};

use crate::world::Upgrade;

/// Every monitor, from the first step to the end.
pub fn all() -> Monitors<Upgrade> {
    Monitors::new()
        .and(link::Link)
        .and(replication_lag::ReplicationLag)
        .and(ddl::SchemaChanges)
        .and(ingestion::Ingestion)
        .and(old_side::OldSide)
}

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

type Context<'a> = MonitorCx<'a, Upgrade>;

/// Raises what was found, or clears when nothing is wrong.
async fn tell(cx: &Context<'_>, alarm: Option<Alarm>) {
    match alarm {
        Some(alarm) => cx.raise(alarm).await,
        None => cx.clear().await,
    }
}

fn hold(code: Code, why: impl std::fmt::Display) -> Alarm {
    Alarm::Hold(Why::new(code, why))
}

fn unwind(code: Code, why: impl std::fmt::Display) -> Alarm {
    Alarm::Unwind(Why::new(code, why))
}

fn note(code: Code, why: impl std::fmt::Display) -> Alarm {
    Alarm::Note(Why::new(code, why))
}
