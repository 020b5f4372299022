//! The one reboot that static parameters need: in its window, approved or allowed, ingestion paused and clients held where they can be, the
//! writer first, its outage measured.

use std::time::Duration;

use engine::{Failure, Look};
use proto::intent::{GateWish, IngestionWish, SwitchoverWindow, WatchWish};

use super::{Start, targets, wish};
use crate::{
    codes::BAD_SPEC,
    preflight::failed,
    rds::{self, Cluster},
    spec::{RebootPolicy, UpgradeSpec},
    steps::shared::{Context, RecordedInstance, SETTLE, instances, publish, recorded_cluster, until_in_sync},
};

/// Reboots the members that wait for it. Returns what writers could not do by the lead's probe, in milliseconds; `None`
/// when nothing was rebooted or nothing was measured.
pub(super) async fn if_needed(cx: &Context<'_>, start: &Start) -> Result<Option<u64>, Failure> {
    let limit = Duration::from_secs(cx.spec().reboot.seconds_max);
    let waiting = pending(cx, start).await?;
    if waiting.is_empty() {
        until_in_sync(cx, &start.blue, cx.spec().provisioning.stable_reads, limit).await?;
        return Ok(None);
    }
    let begun = start.blue.instances.iter().any(|instance| cx.recall::<()>(&key(instance)).is_some());
    if !begun {
        until_allowed(cx).await?;
    }
    if cx.spec().reboot.policy == RebootPolicy::Approve && cx.spec().reboot.window.is_none() {
        let names: Vec<&str> = waiting.iter().map(|instance| instance.id.as_str()).collect();
        let why = format!(
            "static parameters wait for a reboot of {}; writers are without a server for some seconds",
            names.join(", ")
        );
        cx.approval("reboot", why).await?;
    }
    let before = measured(cx);
    let mut quiet = wish(cx.spec(), targets(start.production.clone(), &start.blue, None), WatchWish::default(), false);
    quiet.ingestion = IngestionWish::Paused { max_pause_ms: cx.spec().ingestion.max_pause_seconds * 1000 };
    quiet.gate = GateWish::Hold;
    quiet.window = Some(window(cx.spec()));
    publish(cx, quiet.clone(), SETTLE).await?;
    for instance in &waiting {
        reboot(cx, start, instance).await?;
        until_available(cx, start, limit).await?;
    }
    until_in_sync(cx, &start.blue, cx.spec().provisioning.stable_reads, limit).await?;
    quiet.ingestion = IngestionWish::Running;
    quiet.gate = GateWish::Open;
    quiet.window = None;
    publish(cx, quiet, SETTLE).await?;
    Ok(measured(cx).zip(before).map(|(after, before)| after.saturating_sub(before)))
}

/// Waits for the spec's window, where it has one; a person's approval does not wait for it.
pub(super) async fn until_allowed(cx: &Context<'_>) -> Result<(), Failure> {
    let window = cx
        .spec()
        .reboot
        .window()
        .map_err(|wrong| Failure::permanent(BAD_SPEC, "reading reboot.window").because(wrong))?;
    let Some(window) = window else { return Ok(()) };
    let deadline = window.every() + Duration::from_secs(3600);
    let wait = engine::Wait { every: Duration::from_secs(1), deadline, what: "the window of the reboot" };
    cx.until(wait, || async {
        let now = cx.clock().now();
        let left = window.opens_in(now);
        if left.is_zero() || cx.approved("reboot") {
            return Ok(Look::There(()));
        }
        let opens = now.saturating_add(left).unwrap_or(now);
        Ok(Look::NotYet(format!("it opens at {opens:.0}; pilot approve {} reboot does not wait for it", cx.run_id())))
    })
    .await
}

/// Who can hold clients holds them while the writer restarts; probes look closely, and an agent on its own asks the database.
fn window(spec: &UpgradeSpec) -> SwitchoverWindow {
    SwitchoverWindow {
        open: true,
        deadline_ms: spec.reboot.seconds_max * 1000,
        grace_ms: 0,
        hold_max_ms: u64::from(spec.switchover.hold_seconds_max) * 1000,
    }
}

/// Members that wait for a reboot, the writer first.
async fn pending(cx: &Context<'_>, start: &Start) -> Result<Vec<RecordedInstance>, Failure> {
    let cluster = recorded_cluster(cx, &start.blue).await?;
    let all = instances(cx, &cluster.id).await?;
    let waits = |recorded: &&RecordedInstance| {
        let member = cluster.members.iter().find(|member| member.instance == recorded.id);
        let instance = all.iter().find(|instance| instance.id == recorded.id);
        member.is_some_and(|member| !member.in_sync()) || instance.is_some_and(|instance| !instance.in_sync())
    };
    let mut waiting: Vec<RecordedInstance> = start.blue.instances.iter().filter(waits).cloned().collect();
    let is_writer = |cluster: &Cluster, id| cluster.writer().is_some_and(|writer| writer.instance == id);
    waiting.sort_by_key(|instance| !is_writer(&cluster, instance.id.clone()));
    Ok(waiting)
}

async fn reboot(cx: &Context<'_>, start: &Start, instance: &RecordedInstance) -> Result<(), Failure> {
    let rds = &*cx.world().rds;
    let in_sync = move || async move {
        let cluster = recorded_cluster(cx, &start.blue).await?;
        let member = cluster.members.iter().find(|member| member.instance == instance.id);
        Ok(match member {
            Some(member) if member.in_sync() => Look::There(()),
            Some(member) => Look::NotYet(format!("{} is {}", instance.id, member.parameter_group_status)),
            None => Look::NotYet(format!("{} is not a member", instance.id)),
        })
    };
    cx.effect(
        &key(instance),
        async { Ok(()) },
        move |()| in_sync(),
        |()| async move {
            let doing = || format!("rebooting {}", instance.id);
            let same = rds::same_instance(rds, &instance.id, &instance.resource_id).await;
            same.map_err(|error| failed(doing(), error))?;
            rds.reboot_instance(&instance.id).await.map(|_| ()).map_err(|error| failed(doing(), error))
        },
    )
    .await
}

/// Names the reboot of one instance.
fn key(instance: &RecordedInstance) -> String {
    format!("reboot-{}", instance.resource_id)
}

async fn until_available(cx: &Context<'_>, start: &Start, deadline: Duration) -> Result<(), Failure> {
    let wait = engine::Wait {
        every: super::poll(cx.spec()).min(Duration::from_secs(2)),
        deadline,
        what: "the rebooted instance to be available",
    };
    cx.until(wait, || async {
        let cluster = recorded_cluster(cx, &start.blue).await?;
        let all = instances(cx, &cluster.id).await?;
        match all.iter().find(|instance| !instance.status.is_available()) {
            Some(instance) => Ok(Look::NotYet(format!("{} is {}", instance.id, instance.status))),
            None => Ok(Look::There(())),
        }
    })
    .await
}

/// Milliseconds without writes that the lead's probe has counted so far.
fn measured(cx: &Context<'_>) -> Option<u64> {
    Some(cx.world().agents.lead_report()?.value.probe.write_unavailable_ms)
}
