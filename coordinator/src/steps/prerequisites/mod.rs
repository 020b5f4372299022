//! Step 1: makes the cluster fit for a deployment. Snapshot, our schema, replica identities, extensions quieted, our own
//! parameter groups, the one reboot; each verified, in the order of field rule 2. Undone in reverse.

mod parameters;
mod reboot;

use std::time::Duration;

use engine::{Failure, Gate, Look, Reversal, Step, StepId, Wait};
use jiff::Timestamp;
use proto::{
    intent::WatchWish,
    jobs::{Inspect, Inspection, InstallSchema, Quiesce, Quiesced, RemoveSchema, SetReplicaIdentity, Table, Unquiesce},
    side::{Endpoint, Side},
};
use serde::{Deserialize, Serialize};

pub(crate) use parameters::delete_group;
pub use parameters::{GroupNames, Setting};

use super::{
    codes, deletion,
    deletion::Doomed,
    shared::{Context, Recorded, SETTLE, fresh_job, ids, job, our_tag, poll, publish, remembered, targets, wish},
};
use crate::{
    preflight::{self, Facts, Finding, Leftover, Preflight, Target, failed},
    rds::{self, Names, Rds, SnapshotId},
    spec::{self, UpgradeSpec},
    world::Upgrade,
};

pub struct Prerequisites;

/// What later steps need to know of the cluster as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    pub blue: Recorded,
    pub production: Endpoint,
    pub from_version: String,
    pub target: Target,
    pub snapshot: SnapshotId,
    pub groups: GroupNames,
    /// Connectable databases: so many slots the deployment needs.
    pub databases: u64,
    pub quiesced: Quiesced,
    pub reboot_unavailable_ms: Option<u64>,
    /// Databases that got schema `upgrade_pilot`.
    #[serde(default)]
    pub schema_in: Vec<String>,
    /// What was set in our groups besides what the user had set.
    #[serde(default)]
    pub settings: Vec<Setting>,
}

/// Our jobs that only touch a few rows or objects.
pub(crate) const SHORT_JOB: Duration = Duration::from_secs(120);

impl Step<Upgrade> for Prerequisites {
    const ID: StepId = ids::PREREQUISITES;
    const TITLE: &'static str = "Prerequisites";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = Prepared;

    async fn check(&self, cx: &Context<'_>) -> Result<Gate, Failure> {
        let (facts, inspection) = examine(cx).await?;
        let preflight = preflight::preflight(&facts, Some(&inspection), cx.spec());
        Ok(gate(&preflight, cx.spec(), cx.recall_output::<Start>("start").is_some()))
    }

    async fn run(&self, cx: &Context<'_>) -> Result<Prepared, Failure> {
        // What was there before the first attempt is what counts: a later one would read our own groups as the user's.
        let start = match cx.recall_output::<Start>("start") {
            Some(start) => start,
            None => remembered(cx, "start", started(cx)).await?,
        };
        let Start { blue, production, target, from_version, .. } = start.clone();
        cx.world().agents.aim(targets(production.clone(), &blue, None));
        delete_leftovers(cx, &start).await?;
        let snapshot = snapshot(cx, &start).await?;
        let schema = InstallSchema { upgrade: cx.run_id().to_string() };
        let schema_in = job(cx, "install-schema", Side::Blue, &schema, SHORT_JOB).await?.databases;
        replica_identities(cx).await?;
        if cx.recall::<Timestamp>("quiesce").is_none() {
            // Nothing is quieted for days only because the window has not come.
            reboot::until_allowed(cx).await?;
        }
        let quiesced = quiesce(cx).await?;
        let groups = parameters::put_in_place(cx, &start).await?;
        let reboot_unavailable_ms = reboot::if_needed(cx, &start).await?;
        publish(cx, wish(cx.spec(), targets(production.clone(), &blue, None), WatchWish::default(), false), SETTLE)
            .await?;
        Ok(Prepared {
            databases: start.databases,
            blue,
            production,
            from_version,
            target,
            snapshot,
            groups,
            quiesced,
            reboot_unavailable_ms,
            schema_in,
            settings: parameters::settings(&start),
        })
    }

    async fn verify(&self, cx: &Context<'_>, prepared: &Prepared) -> Result<(), Failure> {
        let cluster = super::shared::recorded_cluster(cx, &prepared.blue).await?;
        let instances = super::shared::instances(cx, &cluster.id).await?;
        if let Some(why) = super::shared::out_of_sync(&cluster, &instances) {
            return Err(Failure::transient(codes::NOT_IN_SYNC, format!("verifying {}", cluster.id)).because(why));
        }
        let seen = fresh_job(cx, "verify", Side::Blue, &Inspect { queries: Vec::new() }, SHORT_JOB).await?;
        let unmet = parameters::unmet(&seen, prepared.databases);
        if unmet.is_empty() {
            return Ok(());
        }
        Err(Failure::permanent(codes::NOT_IN_SYNC, format!("verifying the running settings of {}", cluster.id))
            .because(unmet.join(", ")))
    }

    async fn undo(&self, cx: &Context<'_>) -> Result<(), Failure> {
        let Some(start) = cx.recall_output::<Start>("start") else { return Ok(()) };
        cx.world().agents.aim(targets(start.production.clone(), &start.blue, None));
        parameters::take_out(cx, &start).await?;
        if cx.recall::<Timestamp>("quiesce").is_some() {
            job(cx, "unquiesce", Side::Blue, &Unquiesce {}, SHORT_JOB).await?;
        }
        if let Some(full) = cx.recall::<Vec<Table>>("replica-identity") {
            let body = SetReplicaIdentity { full: Vec::new(), restore: full };
            job(cx, "restore-identity", Side::Blue, &body, SHORT_JOB).await?;
        }
        let removed = job(cx, "remove-schema", Side::Blue, &RemoveSchema {}, SHORT_JOB).await?;
        for (database, why) in removed.kept {
            cx.warn(codes::LEDGER_KEPT, format!("schema upgrade_pilot stays in {database}: {why}"));
        }
        Ok(())
    }
}

/// Open when nothing blocks. What is only not ready is waited for once the upgrade has begun: it may be our own reboot.
pub(crate) fn gate(preflight: &Preflight, spec: &UpgradeSpec, begun: bool) -> Gate {
    let blocking: Vec<&Finding> = preflight.blocking(spec).collect();
    let passing = |finding: &&Finding| [codes::NOT_AVAILABLE, codes::PENDING_CHANGES].contains(&finding.code);
    let said = |finding: &&Finding| format!("{}: {} ({})", finding.code, finding.what, finding.cure);
    let reason = blocking.iter().map(said).collect::<Vec<_>>().join("; ");
    match blocking.is_empty() {
        true => Gate::Open,
        false if begun && blocking.iter().all(passing) => Gate::Wait { reason, retry_after: Duration::from_secs(5) },
        false => Gate::Closed { reason },
    }
}

/// What was read once, before anything was touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) blue: Recorded,
    pub(super) production: Endpoint,
    pub(crate) target: Target,
    pub(crate) from_version: String,
    pub(super) databases: u64,
    /// Running settings that limits are computed from.
    pub(super) settings: std::collections::BTreeMap<String, String>,
    /// The groups that the user has on the cluster and on its writer.
    pub(crate) users: parameters::UserGroups,
    /// What earlier upgrades left, to be deleted first.
    #[serde(default)]
    pub(super) leftovers: Vec<Leftover>,
}

async fn started(cx: &Context<'_>) -> Result<Start, Failure> {
    let (facts, inspection) = examine(cx).await?;
    let (production, _) = preflight::blue_side(&facts)?;
    let target = facts.target.clone().map_err(|why| {
        Failure::permanent(codes::TARGET_UNREACHABLE, format!("choosing the version to go to: {why:?}"))
    })?;
    Ok(Start {
        blue: Recorded::of(Side::Blue, &facts.cluster, &facts.instances)?,
        production,
        target,
        from_version: facts.cluster.engine_version.to_string(),
        databases: inspection.databases.len() as u64,
        users: parameters::UserGroups::of(&facts),
        leftovers: preflight::leftovers(&facts),
        settings: inspection.settings,
    })
}

/// AWS's facts and the lead agent's, read now.
pub(crate) async fn examine(cx: &Context<'_>) -> Result<(Facts, Inspection), Failure> {
    let mut facts = preflight::gather(&*cx.world().rds, cx.spec(), cx.clock().now()).await?;
    facts.run = Some(cx.run_id().to_string());
    let (production, blue) = preflight::blue_side(&facts)?;
    let agents = &cx.world().agents;
    if agents.targets().is_none() {
        agents.aim(proto::intent::Targets { production, serving: Side::Blue, blue, green: None });
    }
    let body = Inspect { queries: cx.spec().verify.queries.clone() };
    let inspection = fresh_job(cx, "inspect", Side::Blue, &body, SHORT_JOB).await?;
    Ok((facts, inspection))
}

/// Only what preflight has shown, only when it was asked for, and nothing of it may stay on blue.
async fn delete_leftovers(cx: &Context<'_>, start: &Start) -> Result<(), Failure> {
    if start.leftovers.is_empty() || !cx.spec().clean_leftovers {
        return Ok(());
    }
    for leftover in &start.leftovers {
        let doomed = Doomed {
            name: &leftover.name,
            deployment: Some(&leftover.deployment),
            owner: Names::of(&leftover.upgrade).tag(),
            blue: &start.blue,
            object_only_once_switched: true,
            green: None,
        };
        cx.effect(
            &format!("leftover-{}", leftover.deployment),
            async { Ok(()) },
            |()| deletion::is_gone(cx, &doomed),
            |()| deletion::delete_with_green(cx, &doomed),
        )
        .await?;
    }
    deletion::nothing_left_on_blue(cx).await
}

async fn snapshot(cx: &Context<'_>, start: &Start) -> Result<SnapshotId, Failure> {
    let rds = &*cx.world().rds;
    let id = Names::of(cx.run_id().as_str()).snapshot();
    cx.effect(
        "snapshot",
        async { Ok(id.clone()) },
        |id: &SnapshotId| look_for_snapshot(cx, rds, id.clone()),
        |id| {
            let id = id.clone();
            take_snapshot(cx, id, &start.blue.cluster)
        },
    )
    .await?;
    let deadline = Duration::from_secs(cx.spec().provisioning.snapshot_seconds_max);
    until_snapshot_available(cx, &id, deadline).await?;
    Ok(id)
}

/// Takes a snapshot, or adopts the one that an earlier attempt took.
pub(crate) async fn take_snapshot(
    cx: &Context<'_>,
    id: SnapshotId,
    cluster: &rds::ClusterId,
) -> Result<SnapshotId, Failure> {
    let rds = &*cx.world().rds;
    if let Look::There(id) = look_for_snapshot(cx, rds, id.clone()).await? {
        return Ok(id);
    }
    let made = rds.create_snapshot(&id, cluster, &[our_tag(cx)]).await;
    made.map(|_| id.clone()).map_err(|error| failed(format!("taking snapshot {id}"), error))
}

pub(crate) async fn look_for_snapshot(
    cx: &Context<'_>,
    rds: &dyn Rds,
    id: SnapshotId,
) -> Result<Look<SnapshotId>, Failure> {
    let found = rds::found(rds.snapshot(&id).await).map_err(|error| failed(format!("looking for {id}"), error))?;
    match found {
        None => Ok(Look::NotYet(format!("there is no snapshot {id}"))),
        Some(snapshot) if snapshot.tags.contains(&our_tag(cx)) => Ok(Look::There(id)),
        Some(_) => Err(Failure::permanent(codes::NOT_OURS, format!("snapshot {id} is not of this upgrade"))),
    }
}

/// Waits for a snapshot; one that fails is said so with its status.
pub(crate) async fn until_snapshot_available(
    cx: &Context<'_>,
    id: &SnapshotId,
    deadline: Duration,
) -> Result<(), Failure> {
    let wait = Wait { every: poll(cx.spec()), deadline, what: "the snapshot to be available" };
    cx.until(wait, || async {
        let snapshot =
            cx.world().rds.snapshot(id).await.map_err(|error| failed(format!("reading snapshot {id}"), error))?;
        if snapshot.status.is_available() {
            return Ok(Look::There(()));
        }
        if snapshot.status.0.contains("fail") {
            let doing = format!("waiting for snapshot {id}");
            return Err(Failure::permanent(codes::SNAPSHOT_FAILED, doing).because(snapshot.status));
        }
        let percent = snapshot.percent_progress.unwrap_or(0).max(0);
        cx.progress(percent.unsigned_abs().into(), 100, engine::Unit::PERCENT);
        Ok(Look::NotYet(format!("{} at {percent} %", snapshot.status)))
    })
    .await
}

async fn replica_identities(cx: &Context<'_>) -> Result<(), Failure> {
    let full = spec::tables(&cx.spec().replica_identity_full)
        .map_err(|error| Failure::permanent(codes::NO_REPLICA_IDENTITY, error))?;
    if full.is_empty() {
        return Ok(());
    }
    cx.effect(
        "replica-identity",
        async { Ok(full) },
        |_| async { Ok(Look::NotYet("not known to be set".into())) },
        |full: &Vec<Table>| {
            let body = SetReplicaIdentity { full: full.clone(), restore: Vec::new() };
            async move { job(cx, "replica-identity", Side::Blue, &body, SHORT_JOB).await }
        },
    )
    .await
    .map(|_: Vec<Table>| ())
}

/// Partitions ahead, then pg_cron and pg_partman quiet. The planned moment is what partitions must reach.
async fn quiesce(cx: &Context<'_>) -> Result<Quiesced, Failure> {
    let ahead = Duration::from_secs(cx.spec().provisioning.premake_hours * 3600);
    let until = cx.clock().now().saturating_add(ahead).unwrap_or(Timestamp::MAX);
    cx.effect(
        "quiesce",
        async { Ok(until) },
        |_| async { Ok(Look::NotYet("asked of the agent, which knows what it did".into())) },
        |until: &Timestamp| {
            let body = Quiesce { premake_until: *until, running_jobs_wait_ms: 600_000 };
            async move { job(cx, "quiesce", Side::Blue, &body, Duration::from_secs(1200)).await }
        },
    )
    .await
}
