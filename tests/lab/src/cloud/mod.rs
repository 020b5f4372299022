//! The AWS side of the lab: an account's state, the operations on it, and the tasks that carry them out on real servers.
//! The wire in front of it is `crate::wire`; what a server does is `crate::fleet` and `crate::mechanics`.

mod account;
mod blue_green;
mod catalogue;
mod certificates;
mod clusters;
pub(crate) mod create;
mod deletion;
mod describe;
pub(crate) mod dispatch;
mod endpoints;
pub(crate) mod errors;
mod events;
mod groups;
mod instances;
pub(crate) mod limits;
mod logs;
pub(crate) mod metrics;
mod naming;
mod network;
mod parameters;
pub(crate) mod params;
pub(crate) mod provision;
#[cfg(test)]
mod real_many;
#[cfg(test)]
mod real_names;
#[cfg(test)]
pub(crate) mod real_tests;
#[cfg(test)]
mod real_trouble;
pub mod requests;
mod servers;
mod snapshots;
pub(crate) mod state;
mod surroundings;
mod switchover;
mod tags;
mod trouble;
mod versions;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::LabError;
use crate::clock::LabClock;
use crate::cloud::certificates::Certificates;
use crate::cloud::requests::Requests;
use crate::cloud::state::State;
use crate::faults::Faults;
use crate::fleet::{Fleet, Stop};
use crate::iam::Callers;
use crate::install;
use crate::names::{Resolver, Zone};
use crate::settings::Settings;

/// The account and everything that runs for it. Clones share it.
#[derive(Clone)]
pub(crate) struct Cloud(Arc<Inner>);

struct Inner {
    settings: Settings,
    clock: LabClock,
    faults: Faults,
    requests: Requests,
    callers: Callers,
    metrics: metrics::Samples,
    state: Mutex<State>,
    fleet: OnceCell<Fleet>,
    zone: Zone,
    certificates: Option<Certificates>,
    resolver: Resolver,
    work_dir: PathBuf,
    own_work_dir: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    /// What `stop` does, for a lab that was not stopped: a test that failed leaves no servers and no folder.
    fn drop(&mut self) {
        drop(std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner)));
        drop(self.fleet.take());
        if self.own_work_dir {
            let _ = std::fs::remove_dir_all(&self.work_dir);
        }
    }
}

impl Cloud {
    /// An empty account with a folder to work in. `preload` is what makes programs resolve through the lab's hosts files.
    pub(crate) fn open(settings: Settings, preload: String) -> Result<Self, LabError> {
        let own_work_dir = settings.work_dir.is_none();
        let work_dir = match &settings.work_dir {
            Some(dir) => dir.clone(),
            None => crate::install::cache_dir().join("work").join(short_name()),
        };
        std::fs::create_dir_all(&work_dir).map_err(|source| LabError::Open {
            doing: format!("making the work folder {}", work_dir.display()),
            source,
        })?;
        let named = Zone::new(&work_dir, preload).and_then(|zone| {
            let resolver = zone.resolver(settings.resolver_delay)?;
            Ok((zone, resolver))
        });
        let (zone, resolver) =
            named.map_err(|source| LabError::Open { doing: "making the hosts file".into(), source })?;
        let certificates = settings.tls.map(|delay| Certificates::open(&work_dir, delay)).transpose();
        let certificates = certificates.map_err(|error| LabError::Open {
            doing: "making the authority of the certificates".into(),
            source: std::io::Error::other(error),
        })?;
        let clock = LabClock::new(settings.clock);
        let callers = Callers::new(&settings.callers);
        let cloud = Self(Arc::new(Inner {
            settings,
            clock,
            faults: Faults::default(),
            requests: Requests::default(),
            callers,
            metrics: metrics::Samples::default(),
            state: Mutex::default(),
            fleet: OnceCell::new(),
            zone,
            certificates,
            resolver,
            work_dir,
            own_work_dir,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }));
        cloud.faults().plan_all(cloud.settings().faults.clone());
        cloud.spawn(metrics::sample(cloud.clone()));
        cloud.spawn(cloud.zone().clone().rotate());
        cloud.spawn(trouble::play(cloud.clone()));
        Ok(cloud)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn clock(&self) -> &LabClock {
        &self.0.clock
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.0.requests
    }

    /// The names.
    pub(crate) fn certificates(&self) -> Option<&Certificates> {
        self.0.certificates.as_ref()
    }

    pub(crate) fn zone(&self) -> &Zone {
        &self.0.zone
    }

    /// The view of the names of everybody who asks for none of his own.
    pub(crate) fn resolver(&self) -> &Resolver {
        &self.0.resolver
    }

    pub(crate) fn callers(&self) -> &Callers {
        &self.0.callers
    }

    pub(crate) fn samples(&self) -> &metrics::Samples {
        &self.0.metrics
    }

    /// Machine time since the lab began.
    pub(crate) fn since_start(&self) -> std::time::Duration {
        self.0.clock.elapsed()
    }

    /// The servers. Installs the majors that are not there yet.
    pub(crate) async fn fleet(&self, majors: &[u32]) -> anyhow::Result<Fleet> {
        let trees = install::ensure(majors, &|line| tracing::info!(line, "install")).await?;
        let open = || Fleet::open(&self.0.work_dir, trees, self.0.settings.fsync);
        Ok(self.0.fleet.get_or_try_init(open).await?.clone())
    }

    pub(crate) fn work_dir(&self) -> &Path {
        &self.0.work_dir
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// The account. Never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `task` until it ends or the lab stops; `stop` waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => (),
                () = task => (),
            }
        })
    }

    pub(crate) fn members(&self, cluster: &str) -> Vec<(String, IpAddr, bool)> {
        let state = self.state();
        let Ok(cluster) = state.cluster(cluster) else { return Vec::new() };
        cluster
            .members()
            .filter_map(|id| state.instances.get(id))
            .map(|instance| (instance.identifier.clone(), instance.address, instance.id == cluster.writer))
            .collect()
    }

    pub(crate) fn writer(&self, cluster: &str) -> Option<Arc<crate::fleet::Server>> {
        let state = self.state();
        let writer = &state.cluster(cluster).ok()?.writer;
        state.instances.get(writer)?.server.clone()
    }

    /// Ends all tasks, then all servers.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        {
            let mut state = self.state();
            for deployment in state.deployments.values_mut() {
                deployment.live = None;
            }
        }
        if let Some(fleet) = self.0.fleet.get() {
            fleet.stop_all(Stop::Immediate).await;
        }
        if self.0.own_work_dir
            && let Err(error) = std::fs::remove_dir_all(&self.0.work_dir)
        {
            tracing::warn!(%error, folder = %self.0.work_dir.display(), "the work folder could not be removed");
        }
    }
}

/// Eight characters: short, because sockets live below it and a socket's path has a limit.
fn short_name() -> String {
    state_id("", 8)
}

/// `prefix` and `length` random characters a-z, 0-9.
fn state_id(prefix: &str, length: usize) -> String {
    use rand::RngExt;
    let mut rng = rand::rng();
    let tail: String =
        (0..length).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[rng.random_range(0..36)])).collect();
    format!("{prefix}{tail}")
}
