//! Step 3: `VACUUM (ANALYZE)` of every table on green, and what the spec asks for besides; statistics proven newer than the
//! upgrade. Nothing to undo: green is thrown away as a whole.

use std::time::Duration;

use engine::{Failure, Gate, Reversal, Step, StepId};
use jiff::Timestamp;
use proto::{
    jobs::{CheckStatistics, Table, Vacuum, Vacuumed},
    side::Side,
};
use serde::{Deserialize, Serialize};

use super::{
    codes,
    prerequisites::SHORT_JOB,
    provisioning::{Provisioning, replicating_wish},
    shared::{Context, SETTLE, fresh_job, ids, job, publish, recorded_cluster},
    sides::Sides,
};
use crate::{spec, world::Upgrade};

pub struct PostProvisioning;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Optimised {
    pub vacuumed: Vacuumed,
    pub since: Timestamp,
}

impl Step<Upgrade> for PostProvisioning {
    const ID: StepId = ids::POST_PROVISIONING;
    const TITLE: &'static str = "Post-provisioning";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = Optimised;

    async fn check(&self, cx: &Context<'_>) -> Result<Gate, Failure> {
        recorded_cluster(cx, &cx.output::<Provisioning>()?.green).await?;
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Context<'_>) -> Result<Optimised, Failure> {
        let sides = Sides::of(cx)?;
        publish(cx, replicating_wish(cx.spec(), sides.targets(Side::Blue)), SETTLE).await?;
        let wanted = &cx.spec().vacuum;
        let tables = |names| spec::tables(names).map_err(|error| Failure::permanent(crate::codes::BAD_SPEC, error));
        let vacuumed = vacuum(cx, "vacuum", tables(&wanted.full)?, tables(&wanted.reindex)?).await?;
        Ok(Optimised { vacuumed, since: sides.provisioned.at })
    }

    async fn verify(&self, cx: &Context<'_>, optimised: &Optimised) -> Result<(), Failure> {
        statistics_are_there(cx, optimised.since).await
    }

    async fn undo(&self, _: &Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

async fn vacuum(cx: &Context<'_>, key: &str, full: Vec<Table>, reindex: Vec<Table>) -> Result<Vacuumed, Failure> {
    let wanted = &cx.spec().vacuum;
    let body = Vacuum { parallel: wanted.parallel, full, reindex };
    job(cx, key, Side::Green, &body, Duration::from_secs(wanted.seconds_max)).await
}

/// As [`statistics_are_there`]; where some are missing all tables are vacuumed once more: a server that crashed has
/// forgotten when its tables were.
pub(super) async fn statistics_are_there_again(cx: &Context<'_>, since: Timestamp) -> Result<(), Failure> {
    match statistics_are_there(cx, since).await {
        Err(missing) if missing.code == codes::STATISTICS_MISSING => {
            cx.warn(codes::STATISTICS_MISSING, format!("{}: some are missing, vacuuming once more", missing.doing));
            vacuum(cx, "vacuum-again", Vec::new(), Vec::new()).await?;
            statistics_are_there(cx, since).await
        }
        seen => seen,
    }
}

/// Every table of green, partitioned parents and extended statistics included, was analysed after `since`.
pub(super) async fn statistics_are_there(cx: &Context<'_>, since: Timestamp) -> Result<(), Failure> {
    let seen = fresh_job(cx, "statistics", Side::Green, &CheckStatistics { since }, SHORT_JOB).await?;
    if seen.without.is_empty() && seen.extended_without.is_empty() {
        return Ok(());
    }
    let names = seen.without.iter().map(ToString::to_string).chain(seen.extended_without).take(20);
    let doing = format!("checking the statistics of {} tables on green", seen.tables);
    Err(names.fold(Failure::permanent(codes::STATISTICS_MISSING, doing), |failure, name| {
        failure.because(format!("none newer than the upgrade: {name}"))
    }))
}
