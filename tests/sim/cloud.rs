//! The line on which a coordinator reaches AWS: late, cut now and then, and what was sent arrives even when its sender is gone.

use std::sync::Arc;
use std::time::Duration;

use coordinator::cloudwatch::{CloudWatch, Metric, Point};
use coordinator::rds::*;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::world::{COORDINATORS, Lost, World};

/// The longest that a changing call is waited for.
pub(super) const CALL: Duration = Duration::from_secs(2);

pub(super) struct Line {
    pub(super) world: Arc<World>,
    pub(super) coordinator: usize,
}

impl Line {
    async fn way(&self, changes: bool) -> Result<(), Error> {
        let dice = &self.world.dice;
        let latency = if dice.percent(2) { 1..1500 } else { 1..8 };
        tokio::time::sleep(dice.millis(latency)).await;
        if !self.world.is_lost(&Lost::Aws(self.coordinator)) {
            return Ok(());
        }
        tokio::time::sleep(dice.millis(1..1500)).await;
        Err(lost(changes))
    }

    async fn pass<T>(&self, changes: bool, call: Answer<'_, T>) -> Result<T, Error> {
        self.way(false).await?;
        let done = call.await;
        self.way(changes).await?;
        done
    }

    /// A change that goes on without its sender.
    async fn send<T: Send + 'static>(
        &self,
        what: &'static str,
        act: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        if self.world.is_lost(&Lost::Aws(self.coordinator)) {
            tokio::time::sleep(self.world.dice.millis(1..1500)).await;
            return Err(lost(true));
        }
        let (answer, answered) = oneshot::channel();
        let (world, by) = (self.world.clone(), COORDINATORS[self.coordinator]);
        let slow = world.dice.percent(15);
        let (there, back) = match slow {
            // It acts when its sender has stopped waiting, and never later than one whole call.
            true => (world.dice.millis(500..1990), world.dice.millis(10..1500)),
            false => (world.dice.millis(1..40), world.dice.millis(1..40)),
        };
        let request = async move {
            tokio::time::sleep(there).await;
            let done = act.await;
            let end = done.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
            world.tell(format!("AWS: {what} of {by}: {end}"));
            tokio::time::sleep(back).await;
            let _the_sender_may_be_gone = answer.send(done);
        };
        let _aws_is_always_there = self.world.to_aws.send(Box::pin(request));
        match tokio::time::timeout(CALL, answered).await {
            Ok(Ok(_)) if self.world.is_lost(&Lost::Aws(self.coordinator)) => Err(lost(true)),
            Ok(Ok(done)) => done,
            _ => Err(lost(true)),
        }
    }
}

fn lost(changes: bool) -> Error {
    let class = if changes { Class::Unknown } else { Class::Transient };
    Error::new(class, "AnyCall", "-", "DispatchFailure", "the line is cut")
}

/// Reads and small changes: there, done, back.
macro_rules! pass {
    ($($life:lifetime $changes:literal $name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        $(fn $name<$life>(&$life self, $($arg: $kind),*) -> Answer<$life, $out> {
            Box::pin(self.pass($changes, self.world.aws.$name($($arg),*)))
        })*
    };
}

impl Rds for Line {
    pass! {
        'a false cluster(id: &'a ClusterId) -> Cluster;
        'a false cluster_by_arn(arn: &'a ClusterArn) -> Cluster;
        'a false cluster_by_resource(id: &'a ClusterResourceId) -> Option<Cluster>;
        'a false clusters() -> Vec<Cluster>;
        'a false instances(cluster: &'a ClusterId) -> Vec<Instance>;
        'a false instance(id: &'a InstanceId) -> Instance;
        'a false engine_versions(engine: &'a str, version: Option<&'a Version>) -> Vec<EngineVersion>;
        'a false orderable_options(engine: &'a str, version: &'a Version, class: Option<&'a str>) -> Vec<OrderableOption>;
        'a false parameter_group(scope: GroupScope, name: &'a ParameterGroupName) -> ParameterGroup;
        'a false parameters(scope: GroupScope, name: &'a ParameterGroupName, source: Option<ParameterSource>) -> Vec<Parameter>;
        'a false default_parameters(scope: GroupScope, family: &'a Family) -> Vec<Parameter>;
        'a true create_parameter_group(new: &'a NewParameterGroup) -> ParameterGroup;
        'a true modify_parameter_group(scope: GroupScope, name: &'a ParameterGroupName, changes: &'a [ParameterChange]) -> ();
        'a true delete_parameter_group(scope: GroupScope, name: &'a ParameterGroupName) -> ();
        'a true modify_cluster(id: &'a ClusterId, change: &'a ClusterChange) -> Cluster;
        'a true modify_instance(id: &'a InstanceId, change: &'a InstanceChange) -> Instance;
        'a true reboot_instance(id: &'a InstanceId) -> Instance;
        'a true delete_instance(id: &'a InstanceId) -> Instance;
        'a true delete_cluster(id: &'a ClusterId, last: &'a FinalSnapshot, backups: bool) -> Cluster;
        'a true create_snapshot(id: &'a SnapshotId, cluster: &'a ClusterId, tags: &'a [Tag]) -> Snapshot;
        'a false snapshot(id: &'a SnapshotId) -> Snapshot;
        'a true delete_snapshot(id: &'a SnapshotId) -> Snapshot;
        'a false deployment(id: &'a DeploymentId) -> Deployment;
        'a false deployment_by_name(name: &'a DeploymentName) -> Option<Deployment>;
        'a false deployments() -> Vec<Deployment>;
        'a false events(query: &'a EventQuery) -> Vec<Event>;
        'a false log_files(instance: &'a InstanceId, contains: &'a str) -> Vec<LogFile>;
        'a false log_portion(instance: &'a InstanceId, file: &'a str, from: &'a LogFrom) -> LogPortion;
        'a true add_tags(resource: &'a ResourceArn, tags: &'a [Tag]) -> ();
        'a false tags(resource: &'a ResourceArn) -> Vec<Tag>;
        'a false pending_maintenance() -> Vec<MaintenanceAction>;
        'a false global_clusters() -> Vec<GlobalCluster>;
        'a false integrations() -> Vec<Integration>;
        'a false proxies() -> Vec<Proxy>;
    }

    fn create_deployment<'a>(&'a self, new: &'a NewDeployment) -> Answer<'a, Deployment> {
        let (aws, new) = (self.world.aws.clone(), new.clone());
        Box::pin(self.send("create the deployment", async move { aws.create_deployment(&new).await }))
    }

    fn switchover<'a>(&'a self, id: &'a DeploymentId, timeout: Duration) -> Answer<'a, Deployment> {
        let (aws, id) = (self.world.aws.clone(), id.clone());
        Box::pin(self.send("switch over", async move { aws.switchover(&id, timeout).await }))
    }

    fn delete_deployment<'a>(&'a self, id: &'a DeploymentId, delete_target: bool) -> Answer<'a, Deployment> {
        let (aws, id) = (self.world.aws.clone(), id.clone());
        Box::pin(self.send("delete the deployment", async move { aws.delete_deployment(&id, delete_target).await }))
    }
}

/// CloudWatch on the same line.
pub(super) struct Metrics(pub(super) Line);

impl CloudWatch for Metrics {
    fn newest<'a>(&'a self, metric: Metric, instance: &'a InstanceId, since: Timestamp) -> Answer<'a, Option<Point>> {
        Box::pin(self.0.pass(false, self.0.world.metrics.newest(metric, instance, since)))
    }
}

/// AWS's own host: does what has arrived.
pub(super) async fn serve(world: Arc<World>) -> turmoil::Result {
    let requests = super::world::locked(&world.at_aws).take();
    let mut requests = requests.ok_or("AWS is never restarted")?;
    let mut every = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            biased;
            request = requests.recv() => match request {
                Some(request) => drop(tokio::spawn(request)),
                None => return Ok(()),
            },
            // CloudWatch gets its points from the servers.
            _ = every.tick() => {
                world.metrics.put(Metric::OldestReplicationSlotLag, &"orders-1".into(), 100.0);
                world.metrics.put(Metric::FreeLocalStorage, &"orders-1".into(), 50e9);
            }
        }
    }
}
