//! The names of the lab as DNS has them: the zone, which maps RDS-shaped host names to the servers' own addresses with the
//! moment of every change. Clients see it through a [`Resolver`], which may lag behind. Nothing here decides what a name
//! should lead to; that is [`crate::cloud`]'s business.

mod dns;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::RngExt;
use runtime::clock::{Clock, Mono};

pub use view::Resolver;

use crate::settings::REGION;

/// How often a name with several addresses is led to the next of them in a hosts file.
const ROTATE: Duration = Duration::from_secs(1);

/// What a cluster's names lead to; a name without an address does not exist.
pub(crate) type Names = BTreeMap<String, Vec<IpAddr>>;

/// All names of one lab. Clones share it.
#[derive(Clone)]
pub(crate) struct Zone(Arc<Inner>);

struct Inner {
    id: String,
    clock: Clock,
    folder: PathBuf,
    /// What is preloaded so that unmodified programs read a hosts file of ours.
    preload: String,
    records: Mutex<Records>,
    views: Mutex<Vec<Weak<view::View>>>,
    counter: AtomicU32,
}

#[derive(Default)]
struct Records {
    /// What each cluster has published, by its resource id.
    owners: BTreeMap<String, Names>,
    /// Every value that a name has had, oldest first.
    history: BTreeMap<String, Vec<(Mono, Vec<IpAddr>)>>,
}

impl Records {
    fn now(&self, name: &str) -> &[IpAddr] {
        self.history.get(name).and_then(|values| values.last()).map_or(&[], |(_, to)| to)
    }

    /// What somebody is told who holds answers for `delay`: the newest value that is as old, or that followed none. Nobody holds
    /// an answer about a name that was not there.
    fn seen(&self, name: &str, now: Mono, delay: Duration) -> &[IpAddr] {
        let values = self.history.get(name).map_or(&[][..], Vec::as_slice);
        let known = |at: usize| {
            let followed_none = at.checked_sub(1).is_none_or(|before| values[before].1.is_empty());
            followed_none || now.since(values[at].0) >= delay
        };
        (0..values.len()).rev().find(|at| known(*at)).map_or(&[], |at| &values[at].1)
    }
}

impl Zone {
    /// An empty zone with an id of its own. Hosts files go under `folder`, which is made.
    pub(crate) fn new(folder: &Path, preload: String) -> io::Result<Self> {
        let folder = folder.join("names");
        std::fs::create_dir_all(&folder)?;
        // Whoever runs as another user reads them too.
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755))?;
        let mut rng = rand::rng();
        let id: String =
            (0..12).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[rng.random_range(0..36)])).collect();
        Ok(Self(Arc::new(Inner {
            id,
            clock: Clock::system(),
            folder,
            preload,
            records: Mutex::default(),
            views: Mutex::default(),
            counter: AtomicU32::new(1),
        })))
    }

    /// The writer endpoint of a cluster.
    pub(crate) fn cluster(&self, identifier: &str) -> String {
        self.host(identifier, "cluster-")
    }

    /// The reader endpoint of a cluster.
    pub(crate) fn readers(&self, identifier: &str) -> String {
        self.host(identifier, "cluster-ro-")
    }

    /// An instance's endpoint.
    pub(crate) fn instance(&self, identifier: &str) -> String {
        self.host(identifier, "")
    }

    /// A custom endpoint of a cluster.
    pub(crate) fn custom(&self, identifier: &str) -> String {
        self.host(identifier, "cluster-custom-")
    }

    fn host(&self, identifier: &str, kind: &str) -> String {
        format!("{identifier}.{kind}{}.{REGION}.rds.amazonaws.com", self.0.id)
    }

    /// Publishes what every cluster's names lead to, at once and for all. A cluster with `None` keeps what it published last;
    /// one that is missing has no names any more.
    pub(crate) fn publish(&self, clusters: BTreeMap<String, Option<Names>>) {
        let now = self.0.clock.mono();
        {
            let mut records = self.records();
            let mut old = std::mem::take(&mut records.owners);
            let kept = |(id, names): (String, Option<Names>)| {
                let names = names.or_else(|| old.remove(&id)).unwrap_or_default();
                (id, names)
            };
            let owners: BTreeMap<String, Names> = clusters.into_iter().map(kept).collect();
            let mut wanted: Names = owners.values().flatten().map(|(name, to)| (name.clone(), to.clone())).collect();
            for name in records.history.keys() {
                wanted.entry(name.clone()).or_default();
            }
            records.owners = owners;
            let changed =
                wanted.into_iter().filter(|(name, to)| records.now(name) != to.as_slice()).collect::<Vec<_>>();
            if changed.is_empty() {
                return;
            }
            for (name, to) in changed {
                tracing::debug!(name, ?to, "the zone changed");
                records.history.entry(name).or_default().push((now, to));
            }
        }
        self.views().iter().filter_map(Weak::upgrade).for_each(|view| view.zone_changed());
    }

    /// The names that lead to an address now.
    pub(crate) fn names_of(&self, address: IpAddr) -> BTreeSet<String> {
        let records = self.records();
        let names = records.history.keys().filter(|name| records.now(name).contains(&address));
        names.cloned().collect()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn views(&self) -> MutexGuard<'_, Vec<Weak<view::View>>> {
        self.0.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client's view of the zone that follows it `delay` later.
    ///
    /// # Errors
    /// When its hosts file cannot be written.
    pub(crate) fn resolver(&self, delay: Duration) -> io::Result<Resolver> {
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        let resolver = Resolver::new(self.clone(), delay, number)?;
        let mut views = self.views();
        views.retain(|view| view.strong_count() > 0);
        views.push(resolver.downgrade());
        Ok(resolver)
    }

    /// Leads names with several addresses to the next one in every hosts file, as RDS's reader endpoint does. Never ends.
    pub(crate) async fn rotate(self) {
        loop {
            self.0.clock.sleep(ROTATE).await;
            let several = self.records().owners.values().flatten().any(|(_, to)| to.len() > 1);
            if several {
                let views: Vec<_> = self.views().iter().filter_map(Weak::upgrade).collect();
                views.iter().for_each(|view| view.turn());
            }
        }
    }
}
