//! A model of RDS in memory with the real state machine: objects are made, applied, rebooted, switched and deleted over time, on
//! the clock it is given (in tests usually tokio's paused one) and on [`Fake::advance`]. It passes the same contract as the real
//! thing and is for tests only; what it refuses, it refuses with AWS's codes.
//!
//! A test seeds it ([`Fake::add_cluster`]), orders trouble ([`Fake::fail_once`], [`Fake::creation`], [`Fake::switching`]), reads
//! what was asked of it ([`Fake::calls`]) and compares the world before and after ([`Fake::snapshot_of_world`]).

mod catalogue;
mod deployments;
mod faults;
mod operations;
mod picture;
mod seed;
#[cfg(test)]
mod tests;
mod world;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use runtime::clock::Clock;

pub use self::faults::{Creation, Fault, Switching};
pub use self::picture::{Difference, Picture};
pub use self::seed::NewCluster;
pub use self::world::Group;
use self::world::World;
use super::*;

/// How long things take in the fake.
#[derive(Clone, Debug)]
pub struct Timings {
    pub snapshot: Duration,
    /// From a changed parameter group to `pending-reboot`.
    pub apply: Duration,
    pub reboot: Duration,
    /// Each task of a deployment's creation.
    pub task: Duration,
    /// How far the member details of a deployment are behind its own status.
    pub details_lag: Duration,
    /// From the switchover call to green taking names and writes.
    pub switchover: Duration,
    /// From there to SWITCHOVER_COMPLETED.
    pub completed_lag: Duration,
    pub delete: Duration,
    /// How far the latest restorable time is behind.
    pub restorable_lag: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            snapshot: seconds(30),
            apply: seconds(5),
            reboot: seconds(15),
            task: seconds(60),
            details_lag: seconds(10),
            switchover: seconds(20),
            completed_lag: seconds(40),
            delete: seconds(30),
            restorable_lag: seconds(300),
        }
    }
}

impl Timings {
    /// Everything has happened at the next look.
    pub fn zero() -> Self {
        let zero = Duration::ZERO;
        Self {
            snapshot: zero,
            apply: zero,
            reboot: zero,
            task: zero,
            details_lag: zero,
            switchover: zero,
            completed_lag: zero,
            delete: zero,
            restorable_lag: zero,
        }
    }
}

/// One changing call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub operation: &'static str,
    pub target: String,
    pub at: Timestamp,
    /// Whether the world was changed by it, whatever the caller was told.
    pub acted: bool,
    /// What the caller was told: `None` is success.
    pub failed: Option<(Class, String)>,
}

/// How far a switchover really is, whatever the API tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub running: bool,
    /// Green took the names and takes writes.
    pub switched: bool,
    pub green: Option<ClusterResourceId>,
}

/// The fake. Clones are the same account.
#[derive(Clone)]
pub struct Fake {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
}

struct Inner {
    world: World,
    calls: Vec<Call>,
    reads: u64,
    /// What [`Fake::advance`] has added to the clock.
    ahead: Duration,
}

impl Fake {
    pub fn new(clock: Clock, timings: Timings) -> Self {
        let inner = Inner { world: World::new(timings), calls: Vec::new(), reads: 0, ahead: Duration::ZERO };
        let fake = Self { inner: Arc::new(Mutex::new(inner)), clock };
        drop(fake.settled());
        fake
    }

    /// The world as it is now.
    fn settled(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().expect("no holder of the fake's lock panics");
        let ahead = inner.ahead;
        let wall = self.clock.now().saturating_add(ahead).unwrap_or(Timestamp::MAX);
        inner.world.settle(self.clock.mono() + ahead, wall);
        inner
    }

    fn read<T>(
        &self,
        operation: &'static str,
        target: &str,
        answer: impl FnOnce(&mut World) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut inner = self.settled();
        inner.reads += 1;
        match inner.world.faults.next(operation) {
            Some(fault) => Err(fault.error(false, operation, target)),
            None => answer(&mut inner.world),
        }
    }

    fn change<T>(
        &self,
        operation: &'static str,
        target: &str,
        act: impl FnOnce(&mut World) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut inner = self.settled();
        let fault = inner.world.faults.next(operation);
        let done = match &fault {
            Some(fault) if !fault.acts() => None,
            _ => Some(act(&mut inner.world)),
        };
        let acted = matches!(done, Some(Ok(_)));
        let told = match (fault, done) {
            (Some(fault), _) => Err(fault.error(true, operation, target)),
            (None, Some(answer)) => answer,
            (None, None) => unreachable!("without a fault it acts"),
        };
        let failed = told.as_ref().err().map(|e| (e.class.clone(), e.code.clone()));
        let at = inner.world.wall;
        inner.calls.push(Call { operation, target: target.to_owned(), at, acted, failed });
        told
    }

    // --- for tests ---

    /// Lets time pass for this account alone.
    pub fn advance(&self, by: Duration) {
        self.inner.lock().expect("no holder of the fake's lock panics").ahead += by;
        drop(self.settled());
    }

    /// The next call of this API name meets the fault; several are met one after another.
    pub fn fail_once(&self, operation: &'static str, fault: Fault) {
        self.settled().world.faults.once(operation, fault);
    }

    /// Every call of this API name meets the fault, until `None`.
    pub fn fail_always(&self, operation: &'static str, fault: Option<Fault>) {
        self.settled().world.faults.always(operation, fault);
    }

    /// How the making of green goes from now on; taking back what stalled it lets it go on.
    pub fn creation(&self, creation: Creation) {
        let mut inner = self.settled();
        inner.world.faults.creation = creation;
        inner.world.unstall();
    }

    /// How switchovers accepted from now on go; taking back what stalled one lets it go on.
    pub fn switching(&self, switching: Switching) {
        let mut inner = self.settled();
        inner.world.faults.switching = switching;
        inner.world.unstall();
    }

    /// Green's instances made from now on stay `storage-optimization` for so long after AVAILABLE.
    pub fn members_late(&self, by: Duration) {
        self.settled().world.faults.members_late = by;
    }

    /// The next `times` descriptions of an AVAILABLE deployment show it PROVISIONING.
    pub fn flap(&self, times: u32) {
        self.settled().world.faults.flaps = times;
    }

    /// The deployment becomes unusable, as when green is promoted by hand or its replication breaks for good.
    pub fn invalidate(&self, id: &DeploymentId, reason: &str) {
        let mut inner = self.settled();
        if let Some(state) = inner.world.deployments.get_mut(id) {
            state.shown.status = DeploymentStatus::InvalidConfiguration;
            state.shown.status_details = Some(reason.to_owned());
        }
    }

    /// Changes a cluster behind everybody's back.
    pub fn edit_cluster(&self, id: &ClusterId, edit: impl FnOnce(&mut Cluster)) {
        let mut inner = self.settled();
        if let Some(cluster) = inner.world.clusters.values_mut().find(|c| c.id == *id) {
            edit(cluster);
        }
    }

    /// Changes what AWS shows of the deployment that has this cluster as its source.
    pub fn edit_deployment_of(&self, source: &ClusterResourceId, edit: impl FnOnce(&mut Deployment)) {
        let mut inner = self.settled();
        if let Some(state) = inner.world.deployments.values_mut().find(|state| state.blue == *source) {
            edit(&mut state.shown);
        }
    }

    /// Changes an instance behind everybody's back.
    pub fn edit_instance(&self, id: &InstanceId, edit: impl FnOnce(&mut Instance)) {
        let mut inner = self.settled();
        if let Some(instance) = inner.world.instances.values_mut().find(|i| i.id == *id) {
            edit(instance);
        }
    }

    /// The first reader becomes writer. Without a reader nothing happens.
    pub fn fail_over(&self, id: &ClusterId) {
        self.edit_cluster(id, |cluster| {
            let Some(heir) = cluster.members.iter().position(|m| !m.is_writer) else { return };
            for (n, member) in cluster.members.iter_mut().enumerate() {
                member.is_writer = n == heir;
            }
        });
    }

    pub fn write_log(&self, instance: &InstanceId, file: &str, text: &str) {
        let mut inner = self.settled();
        let (wall, id) = (inner.world.wall, inner.world.instance_id(instance));
        let Some(id) = id else { return };
        let entry = inner.world.logs.entry(id).or_default().entry(file.to_owned());
        let (old, at) = entry.or_insert_with(|| (String::new(), wall));
        old.push_str(text);
        *at = wall;
    }

    pub fn add_maintenance(&self, action: MaintenanceAction) {
        self.settled().world.maintenance.push(action);
    }

    pub fn add_global_cluster(&self, global: GlobalCluster) {
        self.settled().world.global_clusters.push(global);
    }

    pub fn add_integration(&self, integration: Integration) {
        self.settled().world.integrations.push(integration);
    }

    pub fn add_proxy(&self, proxy: Proxy) {
        self.settled().world.proxies.push(proxy);
    }

    /// Every changing call, in order, those that failed included.
    pub fn calls(&self) -> Vec<Call> {
        self.settled().calls.clone()
    }

    /// How many calls read only.
    pub fn reads(&self) -> u64 {
        self.settled().reads
    }

    /// The cluster-level parameters that a server was started with: what a scripted agent would see in `pg_settings`.
    pub fn booted_with(&self, instance: &InstanceId, parameter: &str) -> Option<String> {
        let inner = self.settled();
        let id = inner.world.instance_id(instance)?;
        inner.world.booted.get(&id)?.get(parameter).cloned()
    }

    /// The identity that has the production name and takes writes: what a scripted agent's probe would reach.
    pub fn serving(&self, cluster: &ClusterId) -> Option<ClusterResourceId> {
        self.settled().world.cluster_id(cluster)
    }

    /// Since when the one deployment of this cluster is being switched over, and whether its green took names and writes: what a
    /// model of the databases needs. `None` without a deployment.
    pub fn cut(&self, source: &ClusterResourceId) -> Option<Cut> {
        let inner = self.settled();
        let state = inner.world.deployments.values().find(|state| state.blue == *source)?;
        let running = state.shown.status == DeploymentStatus::SwitchoverInProgress;
        Some(Cut { running, switched: state.switched, green: state.green.clone() })
    }

    /// What exists and how, for comparing before and after.
    pub fn snapshot_of_world(&self) -> Picture {
        Picture::of(&self.settled().world)
    }
}

mod port;
