//! Faults that happen by themselves once they are due, and those that a switchover meets on its way: which cluster is meant,
//! and what the servers are put through. What is done to them is in `mechanics::trouble`.

use std::time::Duration;

use crate::cloud::state::{ClusterId, Deployment, State};
use crate::cloud::{Cloud, clusters, instances};
use crate::faults::Fault;
use crate::mechanics::Sides;
use crate::mechanics::switchover::{Limits, NotSwitched};
use crate::mechanics::trouble::{self, Tripped};

/// Over which apply that is slow is slow on the average.
const PERIOD: Duration = Duration::from_millis(400);

/// Plays faults that wait for nobody's call, for as long as the lab runs.
pub(crate) async fn play(cloud: Cloud) {
    let due = |fault: &Fault| matches!(fault, Fault::Failover { .. } | Fault::Reboot { .. } | Fault::SlotLost);
    let mut slow: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        while let Some(fault) = cloud.faults().take(due) {
            let task = cloud.clone();
            cloud.spawn(async move { happen(&task, fault).await });
        }
        if slowness(&cloud).is_some() && slow.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            slow = Some(cloud.spawn(slow_down(cloud.clone())));
        }
        cloud.faults().news.notified().await;
    }
}

async fn happen(cloud: &Cloud, fault: Fault) {
    let named = |name: &str| cluster(&cloud.state(), name);
    match &fault {
        Fault::Failover { cluster } => match named(cluster) {
            Some(id) => clusters::carry_out_failover(cloud, &id, 0).await,
            None => tracing::warn!(%cluster, "there is no such cluster to fail over"),
        },
        Fault::Reboot { cluster } => match named(cluster).and_then(|id| writer(&cloud.state(), &id)) {
            Some(id) => instances::carry_out_reboot(cloud, &id).await,
            None => tracing::warn!(%cluster, "there is no such cluster to reboot the writer of"),
        },
        _ => {
            let Some(sides) = sides(cloud) else {
                tracing::warn!("there is no deployment whose slots could be lost");
                return;
            };
            if let Err(error) = trouble::lose_slots(&sides).await {
                tracing::warn!(error = error.chain(), "the deployment's slots were not lost");
            }
        }
    }
}

/// Which cluster a fault means by `blue`, `green` or an identifier.
pub(crate) fn cluster(state: &State, name: &str) -> Option<ClusterId> {
    match name {
        "blue" => live(state).map(|d| d.blue.clone()),
        "green" => live(state).and_then(|d| d.green.clone()),
        other => state.cluster(other).ok().map(|c| c.id.clone()),
    }
}

/// Which instance a fault means by `blue` or `green` (their writers) or an identifier.
pub(crate) fn instance(state: &State, name: &str) -> Option<String> {
    let id = match name {
        "blue" | "green" => writer(state, &cluster(state, name)?)?,
        other => state.instance(other).ok()?.id.clone(),
    };
    state.instances.get(&id).map(|instance| instance.identifier.clone())
}

fn writer(state: &State, cluster: &str) -> Option<String> {
    state.clusters.get(cluster).map(|c| c.writer.clone())
}

fn live(state: &State) -> Option<&Deployment> {
    state.deployments.values().find(|d| !matches!(d.status.as_str(), "SWITCHOVER_COMPLETED" | "DELETING"))
}

fn sides(cloud: &Cloud) -> Option<Sides> {
    let state = cloud.state();
    live(&state)?.live.as_ref().map(|live| live.sides())
}

fn slowness(cloud: &Cloud) -> Option<u32> {
    cloud.faults().standing(|fault| match fault {
        Fault::ApplySlow { percent } => Some((*percent).clamp(1, 100)),
        _ => None,
    })
}

/// Lets green's apply workers run only part of the time until that is no longer planned.
async fn slow_down(cloud: Cloud) {
    while let Some(percent) = slowness(&cloud) {
        let running = PERIOD * percent / 100;
        if let Some(sides) = sides(&cloud) {
            match trouble::pause_apply(&sides).await {
                Ok(paused) => {
                    tokio::time::sleep(PERIOD - running).await;
                    drop(paused);
                }
                Err(error) => tracing::warn!(error = error.chain(), "apply was not slowed down"),
            }
        }
        tokio::time::sleep(running.max(Duration::from_millis(10))).await;
    }
}

/// Trips the guardrail that is planned for this switchover.
pub(crate) async fn trip(cloud: &Cloud, sides: &Sides, limits: &mut Limits) -> Option<Tripped> {
    let planned = cloud.faults().take(|fault| matches!(fault, Fault::Guardrail { .. }));
    let Some(Fault::Guardrail { guardrail }) = planned else { return None };
    match trouble::trip(guardrail, sides, limits).await {
        Ok(tripped) => Some(tripped),
        Err(error) => {
            tracing::warn!(error = error.chain(), ?guardrail, "the guardrail was not tripped");
            None
        }
    }
}

/// Brings the servers out of the state that a guardrail has refused.
pub(crate) async fn lift(tripped: Tripped) {
    if let Err(error) = tripped.lift().await {
        tracing::warn!(error = error.chain(), "what tripped a guardrail is still there");
    }
}

/// Trouble that is planned for the moment in which writes are stopped and connections dropped.
pub(crate) struct Planned {
    /// Why it is taken back, and whether the deployment says SWITCHOVER_FAILED rather than AVAILABLE.
    back: Option<(String, bool)>,
    stall: Duration,
}

impl Planned {
    /// Nothing.
    pub(crate) const fn none() -> Self {
        Self { back: None, stall: Duration::ZERO }
    }

    /// What is planned for this switchover.
    pub(crate) fn take(cloud: &Cloud) -> Self {
        let back = cloud.faults().take(|fault| {
            matches!(fault, Fault::SwitchoverFails { .. } | Fault::SwitchoverReverts { .. } | Fault::SequencesDoNotSync)
        });
        let back = back.and_then(|fault| match fault {
            Fault::SwitchoverFails { reason } => Some((reason, true)),
            Fault::SwitchoverReverts { reason } => Some((reason, false)),
            Fault::SequencesDoNotSync => Some(("sequences could not be synchronized".to_owned(), false)),
            _ => None,
        });
        let stall = match cloud.faults().take(|fault| matches!(fault, Fault::SwitchoverStalls { .. })) {
            Some(Fault::SwitchoverStalls { millis }) => Duration::from_millis(millis),
            _ => Duration::ZERO,
        };
        Self { back, stall }
    }

    /// Lets it happen.
    ///
    /// # Errors
    /// Why the switchover is taken back.
    pub(crate) async fn play(&self, cloud: &Cloud, timeout: Duration) -> Result<(), String> {
        cloud.clock().sleep(self.stall.min(timeout)).await;
        if self.stall >= timeout {
            return Err(timed_out(timeout));
        }
        self.back.clone().map_or(Ok(()), |(reason, _)| Err(reason))
    }

    /// Why a switchover did not happen, in one line, and whether the deployment says SWITCHOVER_FAILED.
    pub(crate) fn outcome(&self, why: &NotSwitched) -> (String, bool) {
        match (&self.back, why) {
            (Some((reason, failed)), NotSwitched::Cancelled(_)) => (reason.clone(), *failed),
            (_, NotSwitched::Cancelled(reason)) => (reason.clone(), false),
            (_, NotSwitched::Refused(refusal)) => (refusal.to_string(), false),
            (_, other) => (chain(other), matches!(other, NotSwitched::Stuck(_) | NotSwitched::Failed { .. })),
        }
    }
}

/// Why a switchover that took too long is taken back.
pub(crate) fn timed_out(timeout: Duration) -> String {
    format!("the switchover timeout of {} seconds was reached", timeout.as_secs())
}

/// An error with its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
