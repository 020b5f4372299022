//! All clusters' tables, the store's identity, and the wish keeper: where agents attach and drivers take their handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Which coordinator has the agents: the one that drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// This one.
    Leads,
    /// Another one, at this address; `None` while nobody is known to.
    Follows { leader: Option<String> },
}

/// What a hub is made of.
#[derive(Clone)]
pub struct HubOptions {
    pub store: StoreId,
    /// Used for clusters that no driver drives, until [`Hub::lead`] says a newer one.
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
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    standing: Standing,
    epoch: Epoch,
    tables: BTreeMap<ClusterArn, Arc<Table>>,
}

impl Hub {
    pub fn new(options: HubOptions) -> Hub {
        let inner = Inner { standing: Standing::Leads, epoch: options.epoch, tables: BTreeMap::new() };
        Hub { options: Arc::new(options), inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, cluster: &ClusterArn) -> Arc<Table> {
        let mut inner = self.lock();
        let epoch = inner.epoch;
        let make = || {
            let options = &self.options;
            Arc::new(Table::new(cluster.clone(), epoch, options.clock.clone(), options.lease))
        };
        Arc::clone(inner.tables.entry(cluster.clone()).or_insert_with(make))
    }

    /// Whether agents are let in, and where they are sent when not.
    pub fn standing(&self) -> Standing {
        self.lock().standing.clone()
    }

    /// From now on this coordinator may take agents in ([`Hub::open_doors`]), and says what it says under this epoch at least.
    pub fn lead(&self, epoch: Epoch) {
        self.lock().epoch = epoch;
    }

    /// Lets agents in.
    pub fn open_doors(&self) {
        self.lock().standing = Standing::Leads;
    }

    /// Another coordinator has the agents: everybody is sent there, and everything about them is forgotten. Handles of before
    /// speak to nobody any more.
    pub fn follow(&self, leader: Option<String>) {
        let mut inner = self.lock();
        let tables = std::mem::take(&mut inner.tables);
        inner.standing = Standing::Follows { leader: leader.clone() };
        drop(inner);
        say_goodbye(tables.values(), &leader.unwrap_or_default());
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
        let tables = self.lock().tables.clone();
        tables.keys().map(|cluster| (cluster.clone(), self.agents(cluster).seen())).collect()
    }

    /// Says goodbye to everybody; `address` is where to dial instead, empty when there is nowhere.
    pub fn close(&self, address: &str) {
        let tables = self.lock().tables.clone();
        say_goodbye(tables.values(), address);
    }

    /// What the hub was made of.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }
}

fn say_goodbye<'a>(tables: impl Iterator<Item = &'a Arc<Table>>, address: &str) {
    for table in tables {
        table.lock().closing = Some(address.to_owned());
        table.ring_down();
    }
}
