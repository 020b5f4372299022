//! Opening the stage: the lab, its cluster and clients, the coordinator and the agents, each started and waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use lab::demo::bouncer::{self, Bouncer};
use lab::demo::ledger::Ledger;
use lab::demo::probe::{Kind, Probe};
use lab::demo::schema::{self, Scale};
use lab::demo::service::{self, Service};
use lab::demo::session::Login;
use lab::demo::tempo::Tempo;
use lab::demo::{run, sides};
use lab::iam::Caller;
use lab::status::Flavour;
use lab::{Lab, Settings, install};
use serde_json::Value;

use super::pilot::{Binaries, CommandLine};
use super::process::Process;
use super::several::{self, Several};
use super::{CLUSTER, COORDINATOR, EVERY, READING, START, Setting, Stage, commanded, owner, pilot, role};

impl Stage {
    pub(super) async fn open(setting: Setting) -> anyhow::Result<Stage> {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let binaries = Binaries::find()?;
        let tempo = Tempo::start();
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("upgrade-pilot-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let delay_of = |client: &str| setting.resolver_delays.get(client).copied();
        let resolver_delay = delay_of("default").unwrap_or_default();
        let (timings, tls) = (setting.timings.clone(), setting.database_tls);
        let settings = Settings { timings, resolver_delay, tls, ..Settings::default() };
        let lab = Lab::start(settings).await?;
        let settings = run::cluster_settings(CLUSTER, setting.from, setting.readers, setting.extensions);
        let settings = (setting.shape)(settings);
        let flavour = settings.flavour;
        let cluster = lab.create_cluster(settings).await?;
        let master = run::master(&cluster);
        schema::create(&master, Scale(0.001), setting.extensions, &tempo).await?;
        if flavour == Flavour::Rds {
            // As the role's script says: before it, so that it grants what the agent reads there.
            let session = sides::open(&master.database("postgres"), &tempo).await?;
            session.run(&tempo, START, "create extension rds_tools").await?;
        }
        role::make(&lab, &master, setting.from, &tempo).await.context("making the agents' role by its script")?;
        let ledger = Arc::new(Ledger::new());
        let readers = setting.reading.then(|| cluster.reader_endpoint.clone());
        let bouncer = if setting.pooled { Some(pooler(&folder, &master, readers, &tempo).await?) } else { None };
        let logins = ["orders", "billing"].map(|database| owner(&master, database, "orders-service"));
        let options =
            service::Options { name: "orders-service".into(), logins: logins.to_vec(), rate: 15.0, held: false };
        let service = Service::start(options, Arc::clone(&ledger), tempo.clone()).await?;
        let mut direct = owner(&master, "orders", "direct-writes");
        if let Some(delay) = delay_of(&direct.application) {
            direct.names = Some(lab.resolver(delay)?);
        }
        let mut probes = vec![probe(Kind::Writes, direct.clone(), &ledger, &tempo)];
        if let Some(bouncer) = &bouncer {
            let login = |database, name| bouncer.login(&schema::owner("telemetry"), schema::PASSWORD, database, name);
            probes.push(probe(Kind::Writes, login("telemetry", "held-writes"), &ledger, &tempo));
            if setting.reading {
                replayed(&login(READING, "test"), &tempo).await?;
                probes.push(probe(Kind::Reads, login(READING, "held-reads"), &ledger, &tempo));
            }
        }
        let mut environment = lab.environment();
        if let Some(policy) = setting.policy {
            let caller = Caller::new(COORDINATOR, policy);
            // What comes later in a list of variables wins.
            environment.extend(caller.environment());
            lab.add_caller(caller);
        }
        let mut cli = CommandLine { program: binaries.pilot.clone(), coordinator: String::new(), tls: None };
        let tls = folder.join("tls");
        let tls = setting.tls.then_some(tls);
        if let Some(tls) = &tls {
            cli.enrol(tls, "coordinator", &["--coordinator-name", "127.0.0.1"], &tempo).await?;
            cli.enrol(tls, "agents", &["--cluster", &cluster.arn], &tempo).await?;
            let tester = ["--operator", "tester", "--role", "operate,approve"];
            cli.tls = Some(cli.enrol(tls, "tester", &tester, &tempo).await?);
        }
        let several = match (setting.shared, setting.trapped) {
            (true, _) => Some(Several::start(&folder, 2).await?),
            (false, true) => Some(Several::start(&folder, 0).await?),
            (false, false) => None,
        };
        let store = several.as_ref().map_or_else(|| pilot::file_store(&folder), |several| several.section(0));
        let store = store + &setting.configured.replace("{folder}", &folder.display().to_string());
        let config = folder.join("coordinator.toml");
        let anywhere = ("127.0.0.1:0", "127.0.0.1:0");
        let own = tls.as_ref().map(|tls| tls.join("coordinator"));
        let text = pilot::coordinator_config(&folder, "coordinator", anywhere, &store, setting.lease, own.as_deref());
        std::fs::write(&config, text)?;
        let config = config.display().to_string();
        let log = folder.join("coordinator.log");
        let mut own = environment.clone();
        if setting.shared {
            lab.add_caller(several::caller(0));
            own.extend(several::caller(0).environment());
        }
        let coordinator = Process::start(&binaries.pilot, &["serve", "--config", &config], &own, log)?;
        let mut stage = Stage {
            coordinator,
            agents: Vec::new(),
            cli,
            admin: String::new(),
            tempo,
            ledger,
            cluster,
            master,
            direct,
            service: Some(service),
            probes,
            bouncer,
            reading: setting.reading,
            folder,
            binaries,
            lease: setting.lease,
            store,
            several,
            cables: Vec::new(),
            commanded: setting.commanded,
            tls,
            expected: Vec::new(),
            warnings_judged: false,
            lab,
        };
        stage.find_coordinator().await.with_context(|| stage.logs())?;
        if setting.shared {
            stage.start_standby(&environment).await.with_context(|| stage.logs())?;
        }
        if setting.cables {
            stage.lay_cables(setting.agents).await?;
        }
        for number in 1..=setting.agents {
            stage.start_agent(&format!("agent-{number}"), None, number == setting.agents)?;
        }
        stage.until_connected(setting.agents as usize).await.with_context(|| stage.logs())?;
        Ok(stage)
    }

    /// Reads where the coordinator listens, and pins its ports for the lives to come.
    pub(super) async fn find_coordinator(&mut self) -> anyhow::Result<()> {
        let file = self.folder.join("coordinator.addr");
        let (grpc, admin) = find(&self.tempo, &mut self.coordinator, &file).await?;
        let own = self.tls.as_ref().map(|tls| tls.join("coordinator"));
        let addresses = (grpc.as_str(), admin.as_str());
        let text =
            pilot::coordinator_config(&self.folder, "coordinator", addresses, &self.store, self.lease, own.as_deref());
        std::fs::write(self.folder.join("coordinator.toml"), text)?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.cli.coordinator = format!("{scheme}://{grpc}");
        self.admin = format!("{scheme}://{admin}");
        Ok(())
    }

    /// Starts one more agent. `cluster` is an ARN in place of the stage's own; `last` gives it the pooler if there is one.
    ///
    /// # Errors
    /// When its files or its process cannot be made.
    pub fn start_agent(&mut self, id: &str, cluster: Option<&str>, last: bool) -> anyhow::Result<()> {
        std::fs::write(self.folder.join(format!("{id}.password")), role::PASSWORD)?;
        let cluster = cluster.unwrap_or(&self.cluster.arn);
        let (url, user) = (self.coordinator_of(self.agents.len()), role::NAME);
        let shown = self.tls.as_ref().map(|tls| tls.join("agents"));
        let (shown, trusted) = (shown.as_deref(), self.lab.authority());
        let mut text = pilot::agent_config(&self.folder, id, cluster, &url, user, shown, trusted);
        if let (Some(service), true) = (&self.service, self.agents.is_empty()) {
            let url = service.base_url();
            text += &format!("[[ingestion]]\nname = \"orders-service\"\nkind = \"http\"\nbase_url = \"{url}\"\n");
        }
        if self.commanded && self.agents.is_empty() {
            text += &commanded::config(&self.folder)?;
        }
        if let (Some(bouncer), true) = (&self.bouncer, last) {
            text += &format!(
                "[[ingestion]]\nname = \"bouncer\"\nkind = \"pgbouncer\"\nadmin = \"{}\"\nadmin_user = \"{}\"\n\
                 databases = {:?}\nreader_databases = {:?}\nconfig_file = {}\n",
                bouncer.address(),
                bouncer::ADMIN,
                schema::DATABASES,
                if self.reading { vec![READING] } else { Vec::new() },
                pilot::quoted(bouncer.databases_file()),
            );
        }
        let config = self.folder.join(format!("{id}.toml"));
        std::fs::write(&config, text)?;
        let args = ["--config", &config.display().to_string()];
        let log = self.folder.join(format!("{id}.log"));
        self.agents.push(Process::start(&self.binaries.agent, &args, &self.lab.environment(), log)?);
        Ok(())
    }
}

/// Reads where a coordinator listens, from the file that it writes.
pub(super) async fn find(
    tempo: &Tempo,
    process: &mut Process,
    file: &std::path::Path,
) -> anyhow::Result<(String, String)> {
    let look = async || {
        if let Some(status) = process.ended() {
            return Ok(Err(status));
        }
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        serde_json::from_str::<Value>(&text).map(Ok).map_err(|error| error.to_string())
    };
    let found = tempo.until("the coordinator's addresses", EVERY, START, look).await?;
    let found = found.map_err(|status| anyhow::anyhow!("the coordinator ended at once: {status}"))?;
    let part = |name: &str| found[name].as_str().map(str::to_owned).context("an address in the file");
    Ok((part("grpc")?, part("admin")?))
}

/// Waits until the reader behind `login` has what was put into its writer.
async fn replayed(login: &Login, tempo: &Tempo) -> anyhow::Result<()> {
    let look = async || {
        let session = login.open(tempo, START).await.map_err(|miss| miss.to_string())?;
        let rows = session.run(tempo, START, "select 1 from accounts where id = 1").await;
        rows.map_err(|miss| miss.to_string())?.first(0).map(drop).ok_or_else(|| "no row".to_owned())
    };
    tempo.until("the reader to have replayed the schema", EVERY, START, look).await
}

fn probe(kind: Kind, login: Login, ledger: &Arc<Ledger>, tempo: &Tempo) -> Probe {
    let (every, name) = (Duration::from_millis(20), login.application.clone());
    Probe::start(&name, kind, name.starts_with("held"), login, every, Arc::clone(ledger), tempo.clone())
}

async fn pooler(
    folder: &std::path::Path,
    master: &Login,
    readers: Option<String>,
    tempo: &Tempo,
) -> anyhow::Result<Bouncer> {
    let reading = |host| bouncer::Elsewhere { name: READING.to_owned(), database: "telemetry".to_owned(), host };
    let program = install::ensure_pgbouncer(&|_| {}).await?;
    let users = schema::DATABASES.iter().map(|database| (schema::owner(database), schema::PASSWORD.to_owned()));
    let options = bouncer::Options {
        program,
        folder: folder.join("pgbouncer"),
        server: (master.host.clone(), master.port),
        names: master.names.clone(),
        databases: schema::DATABASES.map(str::to_owned).to_vec(),
        elsewhere: readers.map(reading).into_iter().collect(),
        users: users.collect(),
    };
    Bouncer::start(&options, tempo).await
}
