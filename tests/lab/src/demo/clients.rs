//! All clients of the demo together: two ingestion services, the load, and four probes. One half connects directly, the
//! other through the pooler.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::Ledger;
use super::load::{self, Load};
use super::probe::{Kind, Probe};
use super::schema;
use super::service::{self, Service};
use super::session::Login;
use super::tally::{Felt, Tally};
use super::tempo::Tempo;
use crate::names::Resolver;

/// Pause of a probe after an answer.
const PROBE_EVERY: Duration = Duration::from_millis(4);
/// What each worker of a service takes in, a second.
const SERVICE_RATE: f64 = 40.0;
/// How long services may take to finish their backlog.
const DRAIN: Duration = Duration::from_secs(60);

/// Where clients connect; role and database are chosen by each client.
#[derive(Clone, Debug)]
pub struct Places {
    /// The cluster endpoint.
    pub direct: Login,
    /// The pooler.
    pub pooled: Login,
    /// Resolvers of direct clients that have one of their own, by client.
    pub resolvers: BTreeMap<String, Resolver>,
    /// Rows of `accounts` in each database.
    pub accounts: u64,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Clients {
    direct: Service,
    held: Service,
    load: Load,
    probes: Vec<Probe>,
    ledger: Arc<Ledger>,
}

/// What all of them felt.
#[derive(Debug)]
pub struct AllFelt {
    /// Client by client.
    pub tallies: Vec<(Arc<Tally>, Felt)>,
    /// The longest that a service was paused, all pauses together.
    pub paused: Duration,
    /// The largest backlog of a service.
    pub backlog_peak: u64,
}

fn owner(place: &Login, database: &str, application: &str) -> Login {
    place.database(database).role(&schema::owner(database), schema::PASSWORD, application)
}

impl Places {
    fn direct(&self, database: &str, application: &str) -> Login {
        let names = self.resolvers.get(application).cloned().or_else(|| self.direct.names.clone());
        Login { names, ..owner(&self.direct, database, application) }
    }
}

impl Clients {
    /// Those that connect directly.
    pub const DIRECT: [&'static str; 4] = ["orders-service", "load", "direct-writes", "direct-reads"];

    /// Starts them.
    pub async fn start(places: &Places, ledger: &Arc<Ledger>, tempo: &Tempo) -> anyhow::Result<Self> {
        let login = |database: &str, name: &str, held: bool| match held {
            true => owner(&places.pooled, database, name),
            false => places.direct(database, name),
        };
        let service = async |name: &str, databases: [&str; 2], held: bool| {
            let logins = databases.iter().map(|database| login(database, name, held)).collect();
            let options = service::Options { name: name.to_owned(), logins, rate: SERVICE_RATE, held };
            Service::start(options, Arc::clone(ledger), tempo.clone()).await
        };
        let direct = service("orders-service", ["orders", "billing"], false).await?;
        let held = service("telemetry-service", ["telemetry", "billing"], true).await?;
        let logins = schema::DATABASES.iter().map(|database| places.direct(database, "load")).collect();
        let load =
            Load::start(&load::Options { logins, clients: 6, rate: 120.0, accounts: places.accounts }, ledger, tempo);
        let probe = |name: &str, kind, held: bool, database: &str| {
            Probe::start(name, kind, held, login(database, name, held), PROBE_EVERY, Arc::clone(ledger), tempo.clone())
        };
        let probes = vec![
            probe("direct-writes", Kind::Writes, false, "orders"),
            probe("direct-reads", Kind::Reads, false, "orders"),
            probe("held-writes", Kind::Writes, true, "telemetry"),
            probe("held-reads", Kind::Reads, true, "telemetry"),
        ];
        Ok(Self { direct, held, load, probes, ledger: Arc::clone(ledger) })
    }

    /// Waits until every client has had answers.
    pub async fn warm_up(&self, tempo: &Tempo) -> anyhow::Result<()> {
        let look = async || {
            let quiet = self.tallies().into_iter().find(|tally| tally.snapshot().done < 20);
            match quiet {
                None => Ok(()),
                Some(tally) => Err(format!("{} has {:?}", tally.name, tally.snapshot())),
            }
        };
        tempo.until("answers for every client", Duration::from_millis(100), Duration::from_secs(30), look).await
    }

    /// Name and hook of the service that connects directly.
    pub fn direct_service(&self) -> (String, String) {
        ("orders-service".to_owned(), self.direct.base_url())
    }

    /// The service that connects directly.
    pub fn direct(&self) -> &Service {
        &self.direct
    }

    /// The tallies of all.
    pub fn tallies(&self) -> Vec<Arc<Tally>> {
        let services = [self.direct.tally(), self.held.tally(), self.load.tally()];
        services.into_iter().chain(self.probes.iter().map(Probe::tally)).collect()
    }

    /// Acknowledged writes so far.
    pub fn acknowledged(&self) -> u64 {
        self.ledger.count()
    }

    /// Stops load and probes, lets the services finish what they have. What was felt, and the operations left over.
    pub async fn finish(self) -> (AllFelt, u64) {
        let tallies: Vec<(Arc<Tally>, Felt)> = self
            .tallies()
            .into_iter()
            .map(|tally| {
                let felt = tally.snapshot();
                (tally, felt)
            })
            .collect();
        let paused = self.direct.paused_for().max(self.held.paused_for());
        let backlog_peak = self.direct.backlog_peak().max(self.held.backlog_peak());
        for probe in self.probes {
            probe.stop().await;
        }
        self.load.stop().await;
        let (direct, held) = tokio::join!(self.direct.drain(DRAIN), self.held.drain(DRAIN));
        (AllFelt { tallies, paused, backlog_peak }, direct + held)
    }
}
