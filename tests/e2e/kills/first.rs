//! `kill -9` of the coordinator exactly before and after the first fact of an upgrade, while the person who asks for it waits.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tests::stage::trap::Trap;
use tests::stage::{CLUSTER, Stage};

use super::LIMIT;
use super::hunt::struck;
use super::judge::{self, Ends};
use super::report::{Path, Shared, Side, Victim, shared};
use super::spec;

const POINT: &str = "^created";

/// Before it nothing has begun, after it the upgrade goes on; the person is told that it is not known, and where to see it.
pub(super) async fn killed_at_the_first_fact(stage: &mut Stage, trap: &Trap, told: &Shared) -> anyhow::Result<()> {
    let before = stage.world().await?;
    let spec = spec(stage, 16);
    for side in [Side::Before, Side::After] {
        trap.arm(POINT, 0, &BTreeSet::new()).await?;
        let asked = stage.asks_for(&spec)?;
        let (asked, killed) = tokio::join!(asked, killed(stage, trap, side));
        shared(told).killed(Path::Succeeds, Victim::Coordinator, &killed?, side);
        match asked? {
            Err(said) => said.expect(1, &["whether the upgrade has begun is not known", "pilot status"])?,
            Ok(upgrade) => bail!("{} was said to have begun by a coordinator that was dead", upgrade.id),
        }
        if side == Side::Before {
            ensure!(active(stage).await?.is_empty(), "an upgrade has begun without a first fact");
            let other = stage.world().await?.since(&before);
            ensure!(other.is_empty(), "something was changed: {other:#?}");
        }
    }
    let begun = active(stage).await?;
    let [id] = &begun[..] else { bail!("{begun:?} are under way") };
    match stage.try_upgrade(&spec).await? {
        Err(said) => said.expect(2, &["PU0004", id])?,
        Ok(upgrade) => bail!("{} has begun beside {id}", upgrade.id),
    }
    stage.pilot(&["abort", id, "--confirm", CLUSTER]).await?.expect(0, &[])?;
    let ended = stage.pilot(&["watch", id]).await?;
    judge::all(stage, id, &ended, &before, Ends::Unwound).await.context("judged from outside").map(drop)
}

/// Kills beside the first fact; where that was.
async fn killed(stage: &mut Stage, trap: &Trap, side: Side) -> anyhow::Result<String> {
    let look = async || match trap.standing().await {
        Ok(Some(standing)) => Ok(standing),
        other => Err(format!("{other:?}")),
    };
    let standing = stage.tempo.until("the first fact", Duration::from_millis(5), LIMIT, look).await?;
    trap.arm("^$", 0, &BTreeSet::new()).await?;
    struck(stage, trap, &standing, Victim::Coordinator, side, 0).await?;
    Ok(standing.point)
}

/// The upgrades that have not ended.
async fn active(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let all = stage.pilot(&["status", "--output", "json"]).await?.json()?;
    let all = all["upgrades"].as_array().context("a list of upgrades")?;
    let open = all.iter().filter(|it| it["outcome"].is_null());
    Ok(open.filter_map(|it: &Value| Some(it["id"].as_str()?.to_owned())).collect())
}
