//! The plan: one file a step, one line each. Steps reach the world through `Cx` only.

#[cfg(test)]
mod bytes;
pub mod cleanup;
pub mod codes;
mod deletion;
mod lag;
#[cfg(test)]
mod many;
pub mod post_provisioning;
pub mod post_switchover;
pub mod prerequisites;
pub mod provisioning;
pub mod replicating_data;
mod shared;
mod sides;
pub mod switchover;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use shared::Recorded;

use engine::{Plan, Retry, StepId};

use crate::{monitors, spec::UpgradeSpec, world::Upgrade};

/// The plan of an upgrade. The order is the program's; the spec sets only the budgets.
pub fn plan(spec: &UpgradeSpec) -> Plan<Upgrade> {
    let attempts = attempts(spec);
    let forward = Retry { retries_max: 10, delay_min: Duration::from_secs(1), delay_max: Duration::from_secs(60) };
    Plan::new()
        .then(prerequisites::Prerequisites)
        .then(provisioning::Provisioning)
        .then(post_provisioning::PostProvisioning)
        .then(replicating_data::ReplicatingData)
        .then(switchover::Switchover)
        .retry(attempts)
        .then(post_switchover::PostSwitchover)
        .retry(forward)
        .then(cleanup::Cleanup)
        .retry(forward)
        .throughout(monitors::all())
        .restart_from(shared::ids::PROVISIONING, spec.retries)
}

/// The budget of a step that a person may change while it is spent.
pub(crate) fn retry(spec: &UpgradeSpec, step: StepId) -> Option<Retry> {
    (step == shared::ids::SWITCHOVER).then(|| attempts(spec))
}

fn attempts(spec: &UpgradeSpec) -> Retry {
    let again = crate::spec::seconds(spec.switchover.retry_after_seconds);
    Retry { retries_max: spec.switchover.attempts.saturating_sub(1), delay_min: again, delay_max: again }
}
