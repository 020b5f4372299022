//! `pilot serve`: puts the coordinator together, in order, and takes it apart again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use engine::Holder;
use proto::epoch::Epoch;
use runtime::admin::{self, Admin, Bounds};
use runtime::clock::Clock;
use runtime::recorder::{self, Recorder};
use runtime::shutdown::{Stop, on_signal};
use runtime::supervision::{Ready, Supervisor, Task, TaskError};
use runtime::telemetry;
use runtime::tls::{Credentials, Door, Incoming, Refusal, trusting_as_the_system};
use runtime::{dumps, effective, notify, probe};
use tokio::net::TcpListener;
use tonic::transport::Server;

use super::{Exit, Fault, print, say};
use crate::config::{Config, Overrides, StorePlace};
use crate::drivers::{Drivers, DriversOptions};
use crate::hooks::Hooks;
use crate::link::{Hub, HubOptions, LinkService};
use crate::operator::{Operator, OperatorService};
use crate::rds::sdk::{Options, Place, shared_config};
use crate::store::{PostgresStore, SqliteStore, Store};
use crate::who::{Guard, Tokens};
use crate::{check, cloudwatch, metrics, rds, scrape, steps, web};

/// Drivers and open requests get this long after the stop; the journal makes it safe to end at any time.
const DRAIN: Duration = Duration::from_secs(10);
/// A peer that answers no ping for this long is gone.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

const EXAMPLES: &str = "\
Examples:
  pilot serve --config pilot.toml
  pilot serve --config pilot.toml --listen 0.0.0.0:7400 --admin-listen 127.0.0.1:7401";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// The configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where agents and operators are served, in place of the configured address
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the web page and metrics are served, in place of the configured address
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Say what would be done and show the configuration as it takes effect, without secrets; exit 64 if it cannot be used
    #[arg(long, conflicts_with = "probe")]
    check: bool,
    /// Ask the coordinator that runs here with this configuration whether it is ready; exit 1 if not. For health checks
    #[arg(long)]
    probe: bool,
}

impl Serve {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let overrides = Overrides { listen: self.listen, admin_listen: self.admin_listen };
        let config = Config::load(&self.config, &overrides)
            .map_err(|error| Fault::usage(runtime::supervision::chain(&error)))?;
        if self.check {
            return checked(&config);
        }
        if self.probe {
            return probed(&config).await;
        }
        let traces = telemetry::init_traced(config.log.format, &config.log.filter, "pilot")
            .map_err(|error| Fault::usage(runtime::supervision::chain(&error)))?;
        serve(config).await.map_err(|error| Fault::failed(format!("{error:#}")))?;
        // What is left is sent, which waits for the runtime's own threads.
        let _sent = tokio::task::spawn_blocking(move || drop(traces)).await;
        Ok(Exit::Done)
    }
}

fn checked(config: &Config) -> Result<Exit, Fault> {
    let found = check::check(config, &Clock::system());
    say(&found.text());
    let shown = toml::to_string(&effective::shown(config)).map_err(|error| Fault::failed(error.to_string()))?;
    print(&shown);
    if found.wrong.is_empty() { Ok(Exit::Done) } else { Err(Fault::usage("the configuration cannot be used here")) }
}

async fn probed(config: &Config) -> Result<Exit, Fault> {
    let certificate = config.tls.as_ref().map(|tls| tls.folder.join("tls.crt"));
    let address = check::admin_address(config).map_err(Fault::usage)?;
    let said = probe::ready(address, certificate.as_deref(), &Clock::system()).await.map_err(Fault::failed)?;
    print(&said);
    Ok(Exit::Done)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let clock = Clock::system();
    let recorder = recorder::install(&[])?;
    metrics::describe();
    if config.insecure.core_dumps {
        dumps::on().context("switching core dumps on")?;
        tracing::warn!("core dumps are on, as insecure.core_dumps says: they hold every secret of this process");
    }
    let store = open_store(&config, &clock).await?;
    let credentials = match &config.tls {
        Some(tls) => Some(Arc::new(Credentials::open_with(&tls.folder, tls.crl_file.as_deref(), clock.clone())?)),
        None => None,
    };
    let grpc = admin::bind(config.listen).await?;
    let pages = admin::bind(config.admin_listen).await?;
    let (grpc_at, pages_at) = (grpc.local_addr()?, pages.local_addr()?);
    let stop = Stop::new();
    let hub = hub(&config, &store, &clock);
    let drivers = drivers(&config, &store, &hub, &clock, &stop, grpc_at).await?;
    let operator = Operator::new(drivers.clone());
    let (scraped, ticks) = (drivers.clone(), clock.clone());
    let recorder = recorder.showing(move || metrics::scraped(&scrape::scrape(&scraped, ticks.now())));

    let mut supervisor = Supervisor::new(clock.clone(), stop.clone(), metrics::task_died);
    let (guard, callers) = guard(&config, credentials.as_ref(), &clock)?;
    let doors = Doors { credentials, callers, guard: guard.clone(), clock: clock.clone() };
    supervisor.start(Grpc {
        listener: Some(grpc),
        address: grpc_at,
        hub: hub.clone(),
        operator: operator.clone(),
        doors: doors.clone(),
        agents_max: config.limits.agents_max,
    });
    let board = supervisor.board();
    let version = concat!("pilot ", env!("CARGO_PKG_VERSION"), "\n");
    let router = Admin { recorder: recorder.clone(), board, version }
        .router()
        .merge(web::router(operator, config.limits.live()));
    let router = web::guarded(router, guard);
    supervisor.start(Pages {
        listener: Some(pages),
        address: pages_at,
        router,
        recorder,
        clock,
        doors,
        bounds: config.limits.admin,
    });
    if let Some(path) = &config.address_file {
        write_addresses(path, grpc_at, pages_at)?;
    }
    tracing::info!(grpc = %grpc_at, pages = %pages_at, store = %store.id().0, "serving");
    notify::ready();

    let signal = on_signal(&stop).await?;
    notify::stopping();
    tracing::info!(signal, "stopping; upgrades go on when the coordinator is started again");
    // While the agents are there: what a driver holds is let go, and its lease is given back.
    if Clock::system().timeout(DRAIN, drivers.join()).await.is_err() {
        tracing::info!("a driver was cut at a call; it is looked at when the upgrade is resumed");
    }
    hub.close("");
    supervisor.join(DRAIN).await;
    Ok(())
}

/// Who watches the doors, and through which one agents and operators come.
fn guard(config: &Config, credentials: Option<&Arc<Credentials>>, clock: &Clock) -> anyhow::Result<(Guard, Door)> {
    let mut guard = Guard::new(&config.region, clock.clone());
    if let Some(credentials) = credentials {
        guard = guard.asking(Arc::clone(credentials));
    }
    let Some(oidc) = &config.oidc else { return Ok((guard, Door::Callers)) };
    let tokens = Tokens::open(oidc, clock.clone()).map_err(anyhow::Error::msg).context("taking tokens (oidc)")?;
    Ok((guard.taking(tokens), Door::Anyone))
}

async fn open_store(config: &Config, clock: &Clock) -> anyhow::Result<Arc<dyn Store>> {
    let most = config.limits.samples_max;
    Ok(match &config.store {
        StorePlace::Sqlite { path } => Arc::new(SqliteStore::open(path, clock.clone())?.keeping(most)),
        StorePlace::Postgres(place) => Arc::new(PostgresStore::open(place, clock.clone()).await?.keeping(most)),
    })
}

fn hub(config: &Config, store: &Arc<dyn Store>, clock: &Clock) -> Hub {
    Hub::new(HubOptions {
        store: store.id().clone(),
        epoch: Epoch(0),
        lease: config.lease.agent(),
        clock: clock.clone(),
        keeper: store.clone(),
    })
}

async fn drivers(
    config: &Config,
    store: &Arc<dyn Store>,
    hub: &Hub,
    clock: &Clock,
    stop: &Stop,
    address: SocketAddr,
) -> anyhow::Result<Drivers> {
    let hooks = Hooks::open(&config.hooks, config.page_url.clone(), clock.clone());
    let hooks = hooks.map_err(anyhow::Error::msg).context("reading the hooks")?;
    for hook in hooks.all() {
        let points: Vec<&str> = hook.points.iter().map(|point| point.as_str()).collect();
        tracing::info!(hook = hook.name, to = hook.shown(), points = points.join(" "), "a hook is configured");
    }
    // The SDK would panic over it.
    trusting_as_the_system()
        .map_err(anyhow::Error::msg)
        .context("AWS is reached over TLS (install ca-certificates)")?;
    let aws = shared_config(Place { region: Some(config.region.clone()), ..Place::default() }).await;
    let limits = Options { change_timeout: config.lease.call(), ..Options::default() };
    let options = DriversOptions {
        store: store.clone(),
        hub: hub.clone(),
        rds: Arc::new(rds::sdk::Sdk::new(&aws, &limits)),
        cloudwatch: Arc::new(cloudwatch::sdk::Sdk::new(&aws, &limits, clock.clone())),
        plans: Arc::new(steps::plan),
        clock: clock.clone(),
        holder: Holder {
            id: uuid::Uuid::now_v7().to_string(),
            address: config.advertise.clone().unwrap_or_else(|| address.to_string()),
        },
        lease: config.lease.driver(),
        call_timeout: config.lease.call(),
        hooks,
        stop: stop.clone(),
    };
    Drivers::resume(options).await.context("resuming the upgrades under way")
}

/// Whole or not at all: whoever reads it sees both addresses.
fn write_addresses(path: &Path, grpc: SocketAddr, admin: SocketAddr) -> anyhow::Result<()> {
    let text = serde_json::json!({ "grpc": grpc.to_string(), "admin": admin.to_string() }).to_string();
    let beside = path.with_added_extension("new");
    std::fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("writing {}", path.display()))
}

/// How connections are taken in: with TLS and certificates, or plain on loopback.
#[derive(Clone)]
struct Doors {
    credentials: Option<Arc<Credentials>>,
    callers: Door,
    guard: Guard,
    clock: Clock,
}

impl Doors {
    fn open(&self, door: Door, listener: TcpListener) -> std::io::Result<Incoming> {
        let clock = self.clock.clone();
        match &self.credentials {
            None => Incoming::plain(listener, clock),
            Some(credentials) => {
                let guard = self.guard.clone();
                let refused = move |refusal: Refusal| guard.turned_away(&refusal);
                Incoming::tls(listener, clock, door, Arc::clone(credentials), refused)
            }
        }
    }
}

/// The gRPC server.
struct Grpc {
    listener: Option<TcpListener>,
    address: SocketAddr,
    hub: Hub,
    operator: Operator,
    doors: Doors,
    agents_max: usize,
}

impl Task for Grpc {
    const NAME: &'static str = "grpc";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => admin::bind(self.address).await?,
        };
        let incoming = self.doors.open(self.doors.callers, listener)?;
        ready.set(true);
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_service(LinkService::server_for(self.hub.clone(), self.doors.guard.clone(), self.agents_max))
            .add_service(OperatorService::server(self.operator.clone(), self.doors.guard.clone()))
            .serve_with_incoming_shutdown(incoming, async move { stop.triggered().await })
            .await?;
        Ok(())
    }
}

/// Web page, metrics, health.
struct Pages {
    listener: Option<TcpListener>,
    address: SocketAddr,
    router: axum::Router,
    recorder: Recorder,
    clock: Clock,
    doors: Doors,
    bounds: Bounds,
}

impl Task for Pages {
    const NAME: &'static str = "admin";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => admin::bind(self.address).await?,
        };
        ready.set(true);
        let incoming = self.doors.open(Door::Pages, listener)?;
        let (router, recorder) = (self.router.clone(), self.recorder.clone());
        admin::serve(incoming, router, recorder, self.clock.clone(), stop, self.bounds).await?;
        Ok(())
    }
}
