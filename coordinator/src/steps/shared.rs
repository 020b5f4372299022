//! What the steps have in common: jobs under derived ids, records of who is who, waiting for things AWS makes.

use std::time::Duration;

use engine::{Code, Cx, Failure, FailureClass, Look, StepId, Wait};
use proto::{
    intent::{GateWish, IngestionWish, Targets, WatchWish},
    job::JobKind,
    side::{Endpoint, Side, SideIdentity},
};
use serde::{Deserialize, Serialize};

use super::codes;
use crate::{
    link::{Keep, Wish},
    preflight::failed,
    rds::{self, Cluster, ClusterArn, ClusterId, ClusterResourceId, Instance, InstanceId, InstanceResourceId, Tag},
    spec::{PauseFor, UpgradeSpec},
    topology,
    world::{Upgrade, job_id},
};

/// What a step can see and do, in this domain.
pub(crate) type Context<'a> = Cx<'a, Upgrade>;

/// One side as it was when it was first seen: names for calls, resource ids to check them against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub cluster: ClusterId,
    pub arn: ClusterArn,
    pub resource_id: ClusterResourceId,
    pub instances: Vec<RecordedInstance>,
    pub identity: SideIdentity,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedInstance {
    pub id: InstanceId,
    pub resource_id: InstanceResourceId,
    pub writer: bool,
}

impl Recorded {
    /// From what AWS describes now.
    pub fn of(side: Side, cluster: &Cluster, instances: &[Instance]) -> Result<Recorded, Failure> {
        let identity = topology::side_identity(side, cluster, instances).map_err(|error| {
            Failure::transient(codes::AWS_INCOMPLETE, format!("recording {}", cluster.id)).caused_by(&error)
        })?;
        let writer = |id: &InstanceId| cluster.writer().is_some_and(|writer| writer.instance == *id);
        let instances = instances
            .iter()
            .map(|i| RecordedInstance { id: i.id.clone(), resource_id: i.resource_id.clone(), writer: writer(&i.id) })
            .collect();
        Ok(Recorded {
            cluster: cluster.id.clone(),
            arn: cluster.arn.clone(),
            resource_id: cluster.resource_id.clone(),
            instances,
            identity,
        })
    }
}

/// The tag that every object we make carries.
pub(crate) fn our_tag(cx: &Context<'_>) -> Tag {
    Tag::new(rds::TAG_KEY, cx.run_id().as_str())
}

/// A job for the lead, under an id that is the same after a resume and another one in the next attempt.
pub(crate) use crate::world::run_job as job;

/// A job whose answer is only good now: under an id that is never used again.
pub(crate) async fn fresh_job<J: JobKind>(
    cx: &Context<'_>,
    key: &str,
    side: Side,
    body: &J,
    deadline: Duration,
) -> Result<J::Output, Failure> {
    let key = format!("{key}-{}", uuid::Uuid::now_v7().simple());
    let id = job_id(cx.run_id().as_str(), cx.step().as_str(), cx.attempt(), &key)?;
    let agents = &cx.world().agents;
    let mut unwanted = Unwanted { cancel: Some(|| agents.cancel(&id)) };
    let work = cx.unless_interrupted(agents.job(&id, Keep::Once, side, body, deadline, |_| {}));
    let answer = crate::world::named::<J, _>(cx, deadline, work).await?;
    unwanted.cancel = None;
    answer
}

/// Takes a job back when nobody waits for its answer any more.
struct Unwanted<F: Fn()> {
    cancel: Option<F>,
}

impl<F: Fn()> Drop for Unwanted<F> {
    fn drop(&mut self) {
        if let Some(cancel) = &self.cancel {
            cancel();
        }
    }
}

/// Runs `read` once in an attempt and remembers its answer.
pub(crate) async fn remembered<T, R>(cx: &Context<'_>, key: &str, read: R) -> Result<T, Failure>
where
    T: Serialize + serde::de::DeserializeOwned + Send + Sync,
    R: Future<Output = Result<T, Failure>> + Send,
{
    let nothing = async { Ok(()) };
    cx.effect(key, nothing, |()| async { Ok(Look::NotYet("not read yet".into())) }, |()| read).await
}

/// The wish that belongs to the time between two moments: the gate open, ingestion as the spec asks.
pub(crate) fn wish(spec: &UpgradeSpec, targets: Targets, watch: WatchWish, replicating: bool) -> Wish {
    let ingestion = match spec.ingestion.pause {
        PauseFor::Replication if replicating => {
            IngestionWish::Paused { max_pause_ms: spec.ingestion.max_pause_seconds * 1000 }
        }
        _ => IngestionWish::Running,
    };
    Wish { ingestion, purger: None, gate: GateWish::Open, targets, window: None, watch }
}

/// Where the servers are before the cut.
pub(crate) fn targets(production: Endpoint, blue: &Recorded, green: Option<&Recorded>) -> Targets {
    Targets {
        production,
        serving: Side::Blue,
        blue: blue.identity.clone(),
        green: green.map(|green| green.identity.clone()),
    }
}

/// Publishes a wish and waits until every agent has settled it.
pub(crate) async fn publish(cx: &Context<'_>, wish: Wish, within: Duration) -> Result<(), Failure> {
    let agents = &cx.world().agents;
    // Outside of a hold pods may take their time to end.
    let pauses = wish.gate == GateWish::Open && matches!(wish.ingestion, IngestionWish::Paused { .. });
    let within = if pauses { within.max(PAUSE_SETTLE) } else { within };
    let generation = agents.publish(wish).await?;
    cx.unless_interrupted(agents.await_settled(generation, within)).await?
}

/// How long an agent may take to pause ingestion outside of a hold: somewhat more than its longest `pause_seconds_max`.
pub(crate) const PAUSE_SETTLE: Duration = Duration::from_secs(130);

/// How long an agent may take to settle a harmless wish.
pub(crate) const SETTLE: Duration = Duration::from_secs(30);

/// The production cluster as AWS describes it now, refused unless it is the recorded one.
pub(crate) async fn recorded_cluster(cx: &Context<'_>, recorded: &Recorded) -> Result<Cluster, Failure> {
    rds::same_cluster(&*cx.world().rds, &recorded.cluster, &recorded.resource_id)
        .await
        .map_err(|error| failed(format!("reading cluster {}", recorded.cluster), error))
}

/// A wait that ran out of time is told under the step's own code and class, with a cure where there is one; any other failure
/// stays as it is.
pub(crate) fn out_of_time(
    code: Code,
    class: FailureClass,
    cure: Option<&'static str>,
) -> impl FnOnce(Failure) -> Failure {
    move |failure| {
        if failure.code != engine::failure::codes::DEADLINE {
            return failure;
        }
        let failure = failure.with_code(code).with_class(class);
        match cure {
            Some(cure) => failure.because(cure),
            None => failure,
        }
    }
}

/// The answer to a deletion that is looked at again anyway: gone, on its way, or perhaps on its way is no failure.
pub(crate) fn asked_to_delete<T>(answer: Result<T, rds::Error>, doing: impl std::fmt::Display) -> Result<(), Failure> {
    match answer {
        Err(error) if !(error.is_not_found() || error.is_invalid_state() || error.may_have_acted()) => {
            Err(failed(doing, error))
        }
        _ => Ok(()),
    }
}

/// Waits until the cluster and all its instances are available and every parameter is in sync, `reads` times in a row.
pub(crate) async fn until_in_sync(
    cx: &Context<'_>,
    recorded: &Recorded,
    reads: u32,
    deadline: Duration,
) -> Result<(), Failure> {
    let good = std::sync::atomic::AtomicU32::new(0);
    let wait = Wait { every: poll(cx.spec()), deadline, what: "the cluster to be available and in sync" };
    cx.until(wait, || async {
        let cluster = recorded_cluster(cx, recorded).await?;
        let instances = instances(cx, &cluster.id).await?;
        match out_of_sync(&cluster, &instances) {
            None => {
                let seen = good.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                Ok(if seen >= reads {
                    Look::There(())
                } else {
                    Look::NotYet(format!("in sync, read {seen} of {reads}"))
                })
            }
            Some(why) => {
                good.store(0, std::sync::atomic::Ordering::Relaxed);
                Ok(Look::NotYet(why))
            }
        }
    })
    .await
}

/// Waits until everything is available (a reboot of ours may still be under way) and no member is `applying` a parameter
/// change any more; one that waits for a reboot is done waiting.
pub(crate) async fn until_applied(cx: &Context<'_>, recorded: &Recorded) -> Result<(), Failure> {
    let deadline = Duration::from_secs(cx.spec().reboot.seconds_max);
    let wait = Wait { every: poll(cx.spec()), deadline, what: "the parameter group to be applied" };
    cx.until(wait, || async {
        let cluster = recorded_cluster(cx, recorded).await?;
        let all = instances(cx, &cluster.id).await?;
        if let Some(instance) = all.iter().find(|instance| !instance.status.is_available()) {
            return Ok(Look::NotYet(format!("{} is {}", instance.id, instance.status)));
        }
        Ok(match cluster.members.iter().find(|member| member.parameter_group_status == "applying") {
            Some(member) => Look::NotYet(format!("{} is applying", member.instance)),
            None => Look::There(()),
        })
    })
    .await
}

/// Why the cluster is not ready, or `None`.
pub(crate) fn out_of_sync(cluster: &Cluster, instances: &[Instance]) -> Option<String> {
    if !cluster.status.is_available() {
        return Some(format!("{} is {}", cluster.id, cluster.status));
    }
    if let Some(instance) = instances.iter().find(|instance| !instance.status.is_available()) {
        return Some(format!("{} is {}", instance.id, instance.status));
    }
    if let Some(member) = cluster.members.iter().find(|member| !member.in_sync()) {
        return Some(format!("{} is {}", member.instance, member.parameter_group_status));
    }
    instances.iter().find(|instance| !instance.in_sync()).map(|instance| format!("{} is not in sync", instance.id))
}

pub(crate) async fn instances(cx: &Context<'_>, cluster: &ClusterId) -> Result<Vec<Instance>, Failure> {
    cx.world()
        .rds
        .instances(cluster)
        .await
        .map_err(|error| failed(format!("reading the instances of {cluster}"), error))
}

/// Between two looks at AWS.
pub(crate) fn poll(spec: &UpgradeSpec) -> Duration {
    crate::spec::seconds(spec.provisioning.poll_seconds).max(Duration::from_millis(50))
}

/// The step ids, as in the journal, the metrics and the JSON.
pub(crate) mod ids {
    use super::StepId;

    pub(crate) const PREREQUISITES: StepId = StepId("prerequisites");
    pub(crate) const PROVISIONING: StepId = StepId("provisioning");
    pub(crate) const POST_PROVISIONING: StepId = StepId("post_provisioning");
    pub(crate) const REPLICATING_DATA: StepId = StepId("replicating_data");
    pub(crate) const SWITCHOVER: StepId = StepId("switchover");
    pub(crate) const POST_SWITCHOVER: StepId = StepId("post_switchover");
    pub(crate) const CLEANUP: StepId = StepId("cleanup");
}
