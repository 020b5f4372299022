//! The eighth step, monitoring: one file a monitor. A monitor raises and clears its own alarm; it never changes the world.

pub(crate) mod ddl;
mod held;
mod ingestion;
mod link;
mod old_side;
mod production;
mod replication_lag;
mod storage;

use std::time::Duration;

use engine::state::Mode;
use engine::{Alarm, Code, MonitorCx, Monitors, StepId, Why};

use crate::{
    rds::{Error, InstanceId},
    steps::prerequisites::Prepared,
    world::Upgrade,
};

/// Every monitor, from the first step to the end.
pub fn all() -> Monitors<Upgrade> {
    Monitors::new()
        .and(link::Link)
        .and(replication_lag::ReplicationLag)
        .and(storage::Storage)
        .and(ddl::SchemaChanges)
        .and(ingestion::Ingestion)
        .and(held::Held)
        .and(production::Production)
        .and(old_side::OldSide)
}

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

type Context<'a> = MonitorCx<'a, Upgrade>;

/// The deployment is being made or stands, and production is still blue: slots keep what green has not taken.
fn has_slots(cx: &Context<'_>) -> bool {
    let state = cx.state();
    let begun = state.step(StepId("provisioning")).is_some_and(|step| step.touched);
    begun && state.reversible() && !state.committed() && matches!(state.mode(), Mode::Forward)
}

/// The writer that blue has now; `None` before the cluster is recorded, or while it has none.
async fn writer_of_blue(cx: &Context<'_>) -> Result<Option<InstanceId>, Error> {
    let state = cx.state();
    let prepared = state.output(StepId("prerequisites"));
    let Some(prepared) = prepared.and_then(|value| serde_json::from_value::<Prepared>(value.clone()).ok()) else {
        return Ok(None);
    };
    let cluster = cx.world().rds.cluster(&prepared.blue.cluster).await?;
    Ok(cluster.writer().map(|writer| writer.instance.clone()))
}

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
