//! Everything that is judged before the hold: thresholds held for the sustained time, every check AWS could refuse, the
//! schema. Nothing here hurts the application.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use engine::{Failure, FailureClass, Look};
use runtime::clock::Mono;

use crate::{
    preflight::failed,
    rds,
    spec::UpgradeSpec,
    steps::{
        codes,
        lag::{self, CloudWatchReader, Lag, Steady},
        provisioning::not_ready,
        replicating_data::same_schema,
        shared::{Context, out_of_time, poll},
        sides::Sides,
    },
};

/// Returns what was measured when everything held.
pub(super) async fn before_the_hold(cx: &Context<'_>, sides: &Sides) -> Result<Lag, Failure> {
    // For all of them together; beyond it the attempt is given up.
    let began = cx.clock().mono();
    members_stable(cx, sides, began).await?;
    same_schema(cx).await?;
    let lag = thresholds(cx, began).await?;
    if let Some(why) = cx.alarms().holding() {
        return Err(Failure::transient(codes::GATE_MISSED, "opening the switchover").because(why));
    }
    Ok(lag)
}

/// What is left of the time for all gates together, from now on.
fn limit(cx: &Context<'_>, began: Mono) -> impl Fn(&UpgradeSpec) -> Duration + Send + Sync {
    let spent = cx.clock().mono().since(began);
    move |spec| Duration::from_secs(spec.switchover.gates_seconds_max).saturating_sub(spent)
}

async fn thresholds(cx: &Context<'_>, began: Mono) -> Result<Lag, Failure> {
    let steady = Steady::new();
    let cloudwatch = CloudWatchReader::new();
    let opened = cx.until_in_force(lag::EVERY, "the gates of the switchover", limit(cx, began), || async {
        let lag = lag::measure(cx, &cloudwatch).await?;
        lag::show(cx, &lag);
        let limits = &cx.spec_now().replication;
        let mut missed = lag.misses(limits);
        missed.extend(cx.alarms().holding().map(ToString::to_string));
        let needed = crate::spec::seconds(limits.sustained_seconds);
        Ok(match steady.held(cx.clock().mono(), needed, missed.is_empty()) {
            true => Look::There(lag),
            false if missed.is_empty() => Look::NotYet("open, not long enough yet".into()),
            false => Look::NotYet(missed.join(", ")),
        })
    });
    opened.await.map_err(out_of_time(codes::GATE_MISSED, FailureClass::Transient, None))
}

/// Deployment and every instance of both sides available on N equal reads: AWS refuses the call otherwise.
async fn members_stable(cx: &Context<'_>, sides: &Sides, began: Mono) -> Result<(), Failure> {
    let good = AtomicU32::new(0);
    let id = &sides.provisioned.deployment;
    let reads = cx.spec().provisioning.stable_reads;
    let (every, what) = (poll(cx.spec()), "every member to stay available");
    let stable = cx.until_in_force(every, what, limit(cx, began), || async {
        let answer = rds::found(cx.world().rds.deployment(id).await);
        let deployment =
            answer.map_err(|error| failed(format!("reading deployment {id}"), error))?.ok_or_else(|| {
                Failure::permanent(codes::DEPLOYMENT_GONE, format!("reading deployment {id}"))
                    .because("it is not there any more")
            })?;
        if deployment.status == rds::DeploymentStatus::InvalidConfiguration {
            let failure = Failure::permanent(codes::DEPLOYMENT_INVALID, format!("reading deployment {id}"));
            return Err(failure.because(deployment.status_details.unwrap_or_else(|| deployment.status.to_string())));
        }
        match not_ready(cx, &sides.prepared, &deployment).await? {
            Some(why) => {
                good.store(0, Ordering::Relaxed);
                Ok(Look::NotYet(why))
            }
            None => {
                let seen = good.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(if seen >= reads {
                    Look::There(())
                } else {
                    Look::NotYet(format!("available, read {seen} of {reads}"))
                })
            }
        }
    });
    stable.await.map_err(out_of_time(codes::GATE_MISSED, FailureClass::Transient, None))
}
