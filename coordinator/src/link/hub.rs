//! All clusters' tables, the store's identity, and the wish keeper: where agents attach and drivers take their handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use proto::{
    epoch::{Epoch, StoreId},
    ids::{AgentId, ClusterArn, UpgradeId},
};
use runtime::clock::Clock;

use super::agents::{AgentSeen, Agents, Wish};
use super::message::{Hello, Welcome};
use super::session::Session;
use super::table::Table;

/// Keeps the newest wish of an upgrade, so that a restarted coordinator can say the same again or take it back. Last value
/// only, and nothing decides on it.
pub trait WishKeeper: Send + Sync + 'static {
    /// Remembers the wish, told under this epoch; returns once it is durable. Refused when there is one of a newer epoch.
    fn keep<'a>(&'a self, upgrade: &'a UpgradeId, epoch: Epoch, wish: &'a Wish) -> BoxFuture<'a, Result<(), String>>;
}

/// What a hub is made of.
#[derive(Clone)]
pub struct HubOptions {
    pub store: StoreId,
    /// Acquired at the start of this process; used for clusters that no driver drives.
    pub epoch: Epoch,
    /// How long an agent obeys without hearing again.
    pub lease: Duration,
    pub clock: Clock,
    pub keeper: Arc<dyn WishKeeper>,
}

/// Every cluster's agents. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    options: Arc<HubOptions>,
    tables: Arc<Mutex<BTreeMap<ClusterArn, Arc<Table>>>>,
}

impl Hub {
    pub fn new(options: HubOptions) -> Hub {
        Hub { options: Arc::new(options), tables: Arc::default() }
    }

    fn table(&self, cluster: &ClusterArn) -> Arc<Table> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let options = &self.options;
            Arc::new(Table::new(cluster.clone(), options.epoch, options.clock.clone(), options.lease))
        };
        Arc::clone(tables.entry(cluster.clone()).or_insert_with(make))
    }

    /// An agent said `Hello`: its session begins, and an older one of the same agent ends.
    pub fn attach(&self, hello: Hello) -> Session {
        let table = self.table(&hello.cluster);
        let agent = hello.agent.clone();
        let number = table.attach(hello);
        let inner = table.lock();
        let welcome = Welcome {
            store: self.options.store.clone(),
            epoch: inner.epoch,
            lease_ms: u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX),
            lead: inner.is_lead(&agent),
        };
        drop(inner);
        Session::new(table, agent, number, welcome)
    }

    /// The agents of a cluster, for looking and for preflight's jobs: no upgrade is opened.
    pub fn agents(&self, cluster: &ClusterArn) -> Agents {
        Agents::new(self.table(cluster), Arc::clone(&self.options.keeper))
    }

    /// Opens an upgrade: its roster is fixed, events wait for their facts, leases depend on its driver. `last` is the wish
    /// that was kept before a restart; it is said again under the driver's epoch, once that is known.
    pub fn open(&self, cluster: &ClusterArn, upgrade: &UpgradeId, roster: Vec<AgentId>, last: Option<Wish>) -> Agents {
        let agents = self.agents(cluster);
        agents.open(upgrade, roster, last);
        agents
    }

    /// Every agent ever attached, by cluster.
    pub fn seen(&self) -> Vec<(ClusterArn, Vec<AgentSeen>)> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tables.keys().map(|cluster| (cluster.clone(), self.agents(cluster).seen())).collect()
    }

    /// Says goodbye to everybody; `address` is where to dial instead, empty when there is nowhere.
    pub fn close(&self, address: &str) {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for table in tables.values() {
            table.lock().closing = Some(address.to_owned());
            table.ring_down();
        }
    }

    /// What the hub was made of.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }
}
