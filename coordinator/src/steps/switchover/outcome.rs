//! Reading what became of the one call. Armed, nothing else is allowed: green took a write, or AWS moved the names, is
//! *switched*; blue's identity under its original name, writable, with the deployment AVAILABLE or SWITCHOVER_FAILED, is *not
//! switched*; anything else is looked at again, and then asked of a person (field rule 7.3).

use std::time::Duration;

use engine::{Failure, FailureClass, Look, Settled, Wait};
use proto::phase::SideStatus;
use proto::report::{Outcome, Report};
use runtime::clock::Mono;

use crate::{
    preflight::failed,
    rds::{self, Deployment, DeploymentStatus},
    steps::{
        codes,
        shared::{Context, out_of_time},
        sides::Sides,
    },
    world::Witness,
};

/// Between two looks at AWS; the agents' evidence wakes the look at once.
const AWS_EVERY: Duration = Duration::from_millis(500);
/// After a call whose answer was lost, or a crash, AVAILABLE must stand this long: the call may still be on its way.
const QUIET: Duration = Duration::from_secs(20);
/// AWS may say so late (field rule 7.3).
const LATE: Duration = Duration::from_secs(180);
/// A report older than this proves nothing.
const FRESH_MS: u64 = 2000;

/// What is known of the call.
pub(super) enum Call {
    Taken { at: Mono },
    Refused { error: rds::Error },
    NotKnown,
}

/// The outcome, settled in the journal already.
pub(super) enum Read {
    Switched(Witness),
    NotSwitched(Failure),
}

/// What one look saw.
enum Sight {
    Switched(Witness),
    NotSwitched { witness: Witness, why: String },
    Unclear(String),
}

/// Looks until the outcome is read, and settles the pivot with it.
pub(super) async fn read(cx: &Context<'_>, sides: &Sides, call: Call) -> Result<Read, Failure> {
    let cut = &cx.spec().switchover;
    let covered = Duration::from_secs(u64::from(cut.timeout_seconds) + u64::from(cut.revert_allowance_seconds));
    let watcher = Watcher::new(call);
    let wait = Wait { every: Duration::ZERO, deadline: covered + LATE, what: "the outcome of the switchover" };
    let sight = cx.until(wait, || async {
        match watcher.look(cx, sides).await? {
            Sight::Unclear(seen) => {
                watcher.next(cx).await;
                Ok(Look::NotYet(seen))
            }
            clear => Ok(Look::There(clear)),
        }
    });
    let cure = "look at the deployment and at who answers behind the endpoint, then `pilot resume`: it looks again";
    let unreadable = out_of_time(codes::OUTCOME_UNREADABLE, FailureClass::NeedsOperator, Some(cure));
    let sight = sight.await.map_err(unreadable)?;
    match sight {
        Sight::Switched(witness) => {
            cx.settle(Settled::Happened(witness.clone())).await?;
            Ok(Read::Switched(witness))
        }
        Sight::NotSwitched { witness, why } => {
            cx.settle(Settled::NotHappened(witness)).await?;
            Ok(Read::NotSwitched(watcher.failure(sides, why)))
        }
        Sight::Unclear(seen) => Err(Failure::unknown(codes::OUTCOME_UNREADABLE, "reading the outcome").because(seen)),
    }
}

struct Watcher {
    call: Call,
    seen: std::sync::Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// AWS was seen at work: what is AVAILABLE after that was reverted.
    in_progress: bool,
    /// Since when the API looks as if nothing had happened.
    quiet_since: Option<Mono>,
    asked_at: Option<Mono>,
    last: Option<Said>,
}

/// What AWS said last, kept between two of its looks.
#[derive(Clone)]
struct Said {
    status: DeploymentStatus,
    details: Option<String>,
    names_on_green: bool,
    names_on_blue: bool,
}

impl Watcher {
    fn new(call: Call) -> Watcher {
        Watcher { call, seen: std::sync::Mutex::default() }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn look(&self, cx: &Context<'_>, sides: &Sides) -> Result<Sight, Failure> {
        if let Some(witness) = green_took_a_write(cx) {
            return Ok(Sight::Switched(witness));
        }
        let now = cx.clock().mono();
        if self.seen().asked_at.is_none_or(|at| now.since(at) >= AWS_EVERY) {
            self.seen().asked_at = Some(now);
            let said = tokio::select! {
                biased;
                // AWS may take long to answer, just now of all times; what an agent saw waits for no answer.
                witness = first_write(cx) => return Ok(Sight::Switched(witness)),
                said = ask_aws(cx, sides) => said?,
            };
            self.seen().last = Some(said);
        }
        let Some(said) = self.seen().last.clone() else { return Ok(Sight::Unclear("AWS has not answered yet".into())) };
        Ok(self.judge(cx, said))
    }

    fn judge(&self, cx: &Context<'_>, said: Said) -> Sight {
        let witness = |evidence: &str| Witness {
            evidence: evidence.to_owned(),
            deployment_status: Some(said.status.to_string()),
            server: None,
            at: Some(cx.clock().now()),
        };
        let now = cx.clock().mono();
        let mut seen = self.seen();
        match said.status {
            DeploymentStatus::SwitchoverCompleted if said.names_on_green => {
                return Sight::Switched(witness(
                    "AWS says SWITCHOVER_COMPLETED and the production name belongs to green",
                ));
            }
            DeploymentStatus::Available | DeploymentStatus::SwitchoverFailed if said.names_on_blue => {}
            DeploymentStatus::SwitchoverInProgress => {
                seen.in_progress = true;
                seen.quiet_since = None;
                return Sight::Unclear(format!("AWS is switching over{}", servers_say(cx)));
            }
            status => {
                seen.quiet_since = None;
                return Sight::Unclear(format!("the deployment is {status}"));
            }
        }
        let since = *seen.quiet_since.get_or_insert(now);
        let proven = match &self.call {
            Call::Refused { .. } => true,
            Call::Taken { at } => seen.in_progress || now.since(*at) >= QUIET,
            Call::NotKnown => seen.in_progress || now.since(since) >= QUIET,
        } || said.status == DeploymentStatus::SwitchoverFailed;
        if !proven {
            return Sight::Unclear(format!("the deployment is {} and the call may still be on its way", said.status));
        }
        if !blue_takes_writes(cx) {
            return Sight::Unclear(format!("the deployment is {} but no write has reached blue yet", said.status));
        }
        let why = said.details.unwrap_or_else(|| said.status.to_string());
        Sight::NotSwitched { witness: witness("blue answers under its own name and takes writes"), why }
    }

    /// Until an agent has news, or it is time to ask AWS again.
    async fn next(&self, cx: &Context<'_>) {
        let mut heard = cx.world().agents.heard();
        cx.clock().timeout(AWS_EVERY, heard.changed()).await.ok();
    }

    fn failure(&self, sides: &Sides, why: String) -> Failure {
        let doing = format!("switching over deployment {}", sides.provisioned.deployment);
        let failure = Failure::transient(codes::NOT_SWITCHED, doing);
        match &self.call {
            Call::Refused { error } => failure.because(error),
            Call::Taken { .. } | Call::NotKnown => failure.because(why),
        }
    }
}

/// Waits until an agent has seen green accept a write.
async fn first_write(cx: &Context<'_>) -> Witness {
    let mut heard = cx.world().agents.heard();
    loop {
        if let Some(witness) = green_took_a_write(cx) {
            return witness;
        }
        heard.changed().await;
    }
}

/// What the servers say themselves, for people: the agents act on writes, not on words.
fn servers_say(cx: &Context<'_>) -> String {
    let report = cx.world().agents.lead_report();
    let status = report.as_ref().and_then(|report| report.value.switchover.as_ref());
    let said = |side: &Option<SideStatus>| side.as_ref()?.phase.clone();
    let phases = status.map(|status| [said(&status.blue), said(&status.green)]).into_iter().flatten().flatten();
    phases.max().map(|phase| format!("; the servers say {phase}")).unwrap_or_default()
}

/// A write accepted by green, seen by any agent, is evidence enough.
fn green_took_a_write(cx: &Context<'_>) -> Option<Witness> {
    cx.world().agents.reports().into_iter().find_map(|(agent, report)| {
        let report = report?.value;
        if !report.probe.green_took_write {
            return None;
        }
        Some(Witness {
            evidence: format!("agent {agent} saw green accept a write"),
            deployment_status: None,
            server: answered(&report),
            at: Some(cx.clock().now()),
        })
    })
}

fn answered(report: &Report) -> Option<proto::side::ServerSaid> {
    match &report.probe.green.as_ref()?.outcome {
        Outcome::Answered { said, .. } => Some(said.clone()),
        Outcome::Unreachable { .. } => None,
    }
}

/// A plain write through the endpoint reaches blue, twice in a row, by an agent heard from just now.
fn blue_takes_writes(cx: &Context<'_>) -> bool {
    cx.world().agents.reports().into_iter().any(|(_, report)| {
        report.is_some_and(|report| {
            let seen = report.value.probe.production.as_ref().map(|seen| seen.age_ms);
            let age = u64::try_from(report.age.as_millis()).unwrap_or(u64::MAX);
            seen.is_some_and(|seen| seen + age <= FRESH_MS) && report.value.probe.blue_writes_in_a_row >= 2
        })
    })
}

async fn ask_aws(cx: &Context<'_>, sides: &Sides) -> Result<Said, Failure> {
    let rds = &*cx.world().rds;
    let (blue, green) = (&sides.prepared.blue, &sides.provisioned.green);
    let id = &sides.provisioned.deployment;
    let deployment: Deployment =
        rds.deployment(id).await.map_err(|error| failed(format!("reading deployment {id}"), error))?;
    let named = rds::found(rds.cluster(&blue.cluster).await);
    let named = named.map_err(|error| failed(format!("reading cluster {}", blue.cluster), error))?;
    let resource = named.map(|cluster| cluster.resource_id);
    Ok(Said {
        names_on_blue: deployment.source == *blue.arn.resource() && resource.as_ref() == Some(&blue.resource_id),
        names_on_green: resource.as_ref() == Some(&green.resource_id),
        status: deployment.status,
        details: deployment.status_details,
    })
}
