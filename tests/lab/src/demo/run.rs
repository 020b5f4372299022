//! The demo from beginning to end: lab, source, clients, trouble, pilot, judgement. Whatever happens, it leaves no process
//! behind unless it was asked to keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::bouncer::{self, Bouncer};
use super::clients::Clients;
use super::court::{self, Evidence, Sabotage};
use super::ledger::Ledger;
use super::pilot::{self, AgentOptions, Coordinator, Ingestion, Journal, Place, Process};
use super::schema::{self, Extensions, Scale};
use super::session::Login;
use super::sides::{self, Photograph};
use super::summary::{self, Aside, Report, ms};
use super::tempo::Tempo;
use super::trouble::{Scene, Trouble};
use super::{binaries, judge};
use crate::{ClusterHandle, ClusterSettings, Lab, Moment, Outcome, Scenario, Settings, Timings, install, scenario};

/// What the demo is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The source's major version.
    pub from: u32,
    /// The target's.
    pub to: u32,
    /// Readers beside the writer.
    pub readers: usize,
    /// Size of the source; 1.0 is a few hundred MB.
    pub scale: f64,
    /// AWS's real delays instead of none.
    pub real_time: bool,
    /// Other delays, and what is to go wrong.
    pub scenario: Option<Scenario>,
    /// Leave everything running at the end.
    pub keep: bool,
    /// A bad row to plant before judging.
    pub sabotage: Option<Sabotage>,
}

/// Gets a line for the person who waits.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// How the demo ended.
#[derive(Debug)]
pub struct Ended {
    /// For programs.
    pub report: Report,
    /// For people.
    pub aside: Aside,
    /// What is still running, when it was asked for.
    pub kept: Option<Kept>,
}

/// Everything that is left running by `--keep`.
pub struct Kept {
    world: World,
    /// How to look at it, in lines.
    pub how: Vec<String>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("how", &self.how).finish_non_exhaustive()
    }
}

impl Kept {
    /// Ends it all.
    pub async fn stop(self) {
        self.world.stop().await;
    }
}

/// What the demo has started, in the order in which it must end.
struct World {
    lab: Lab,
    folder: PathBuf,
    bouncer: Option<Bouncer>,
    /// The master user at the cluster endpoint.
    production: Option<Login>,
    agents: Vec<(String, Process)>,
    coordinator: Option<Coordinator>,
}

impl World {
    async fn stop(self) {
        for (_, agent) in self.agents {
            agent.stop().await;
        }
        if let Some(coordinator) = self.coordinator {
            coordinator.process.stop().await;
        }
        if let Some(bouncer) = self.bouncer {
            bouncer.stop().await;
        }
        self.lab.stop().await;
        // A folder that cannot be removed is only litter.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs it. `say` gets a line for each thing that happens. When `stop` is cancelled everything is stopped, and that is the error.
pub async fn run(options: &Options, stop: &CancellationToken, say: Say<'_>) -> anyhow::Result<Ended> {
    let tempo = Tempo::start();
    let prepare = async {
        let binaries = binaries::find(say).await?;
        let pgbouncer = install::ensure_pgbouncer(say).await?;
        install::ensure(&[options.from, options.to], say).await?;
        anyhow::Ok((binaries, pgbouncer))
    };
    let (binaries, pgbouncer) = tokio::select! {
        prepared = prepare => prepared?,
        () = stop.cancelled() => anyhow::bail!("interrupted"),
    };
    let settings = match &options.scenario {
        Some(scenario) => {
            say(&scenario::told(scenario));
            Settings::from_scenario(scenario)
        }
        None if options.real_time => Settings { timings: Timings::real(), ..Settings::default() },
        None => Settings { timings: Timings::zero(), ..Settings::default() },
    };
    let unhurried = settings.timings.cloudwatch_period >= Duration::from_secs(30);
    let lab = Lab::start(settings).await?;
    let folder = std::env::temp_dir().join(format!("upgrade-pilot-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut world = World { lab, folder, bouncer: None, production: None, agents: Vec::new(), coordinator: None };
    let (telling, logs) = (world.lab.clone(), world.folder.join("pilot"));
    let ended = tokio::select! {
        ended = act(options, &mut world, binaries, pgbouncer, (&tempo, unhurried), say) => ended,
        never = tell_of_holds(telling, logs) => match never {},
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    match ended {
        Ok((report, aside)) if options.keep => {
            let how = how_to_look(options, &world);
            Ok(Ended { report, aside, kept: Some(Kept { world, how }) })
        }
        Ok((report, aside)) => {
            if !report.good() {
                say(&format!("the logs are in {}", keep_logs(&world.folder).display()));
            }
            world.stop().await;
            Ok(Ended { report, aside, kept: None })
        }
        Err(error) if stop.is_cancelled() => {
            world.stop().await;
            Err(error)
        }
        Err(error) => {
            let kept = keep_logs(&world.folder);
            world.stop().await;
            Err(error.context(format!("the logs are in {}", kept.display())))
        }
    }
}

/// Tells the lab each time that an agent has begun to hold clients, which it cannot see by itself.
async fn tell_of_holds(lab: Lab, logs: PathBuf) -> Infallible {
    let mut told = 0;
    loop {
        let logs = std::fs::read_dir(&logs).into_iter().flatten().flatten().map(|file| file.path());
        let agents = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let holds = |path: PathBuf| std::fs::read_to_string(path).map_or(0, |log| log.matches(pilot::HELD).count());
        let now: usize = agents.map(holds).sum();
        if now > told {
            lab.faults().reached(Moment::Hold);
        }
        told = now;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything between an open lab and a judged result.
async fn act(
    options: &Options,
    world: &mut World,
    binaries: binaries::Binaries,
    pgbouncer: PathBuf,
    (tempo, unhurried): (&Tempo, bool),
    say: Say<'_>,
) -> anyhow::Result<(Report, Aside)> {
    let source = Source::make(options, world, pgbouncer, tempo, say).await?;
    let ledger = Arc::new(Ledger::new());
    let clients = Clients::start(&source.places(world, options.scenario.as_ref())?, &ledger, tempo).await?;
    let (scene, scenes) = watch::channel(Scene::Provisioning);
    let trouble = Trouble::start(source.endpoint.clone(), options.from, scenes, tempo.clone());
    clients.warm_up(tempo).await?;
    say("load, two ingestion services and four probes are running; an idle transaction is open");

    let place = Place { binaries, folder: world.folder.join("pilot"), environment: world.lab.environment() };
    let grpc = start_pilot(&place, world, &source, &clients, tempo).await?;
    say("coordinator and two agents are up");
    let spec = pilot::write_spec(
        &place.folder,
        &pilot::spec(&source.cluster.identifier, options.to, schema::BATCH, unhurried),
    )?;
    let began = tempo.at();
    say(&format!("pilot upgrade --cluster {} --to {}", source.cluster.identifier, options.to));
    let mut upgrade = place.upgrade(&grpc, &source.cluster.identifier, options.to, &spec)?;
    let mut following = Following {
        place: &place,
        grpc: &grpc,
        lab: &world.lab,
        source: &source,
        scene,
        tempo,
        id: None,
        old_blue: None,
    };
    let status = following.until_ended(&mut upgrade, say).await?;
    let took = tempo.at().saturating_sub(began);
    let journal = following.journal().await.unwrap_or_default();
    let status_document = place.read(&grpc, &["status", &journal.id]).await.ok();
    let old_blue = following.old_blue.take();

    tempo.sleep(Duration::from_secs(2)).await;
    let end = tempo.at();
    let made = trouble.stop().await;
    let (felt, leftover) = clients.finish().await;
    say("load stopped, backlogs drained; judging");

    let mut aside = Aside {
        upgrade: took,
        source_bytes: source.bytes,
        consoles: (made.consoles, made.consoles_ended),
        ..Aside::default()
    };
    let book = ledger.snapshot();
    let reader = source.endpoint.role(&source.cluster.agent.0, &source.cluster.agent.1, "demo-judge");
    if let Some(kind) = options.sabotage {
        aside.sabotage = Some(court::sabotage(kind, &reader, &book, tempo).await?);
    }
    let (old, cut) = match &old_blue {
        Some((photograph, cut)) => (photograph.as_ref().map_err(Clone::clone), *cut),
        None => (Err("no switchover was seen".to_owned()), Duration::ZERO),
    };
    let interrupted: BTreeSet<u32> = made.nightly_sent.difference(&made.nightly_done).copied().collect();
    let resubmitted = journal.resubmitted("resubmitted");
    let mut nightly = made.nightly_done.clone();
    if resubmitted >= interrupted.len() as u64 {
        nightly.extend(&interrupted);
    }
    let switched = journal.has("point_of_no_return");
    let old = switched.then_some(old);
    let mut verdict = court::hear(&reader, &Evidence { book: &book, old_blue: old, cut, nightly }, tempo).await?;
    if leftover > 0 {
        judge::Verdict::lose(
            &mut verdict,
            leftover,
            format!("{leftover} operations of the services were never acknowledged"),
        );
    }
    let outcome = journal.outcome().unwrap_or_else(|| pilot::outcome_of(status.code()).to_owned());
    let windows = Windows::of(&journal, tempo, began, end);
    let report = report(Parts {
        outcome,
        versions: (source.version.clone(), source.version_now(tempo).await.unwrap_or_default()),
        journal: &journal,
        status: status_document.as_ref(),
        felt: &felt,
        windows,
        verdict: &verdict,
    });
    let outcome_bad = report.outcome != "succeeded";
    aside.backlog_peak = felt.backlog_peak;
    aside.failures = felt.tallies.iter().map(|(tally, felt)| (tally.name.clone(), felt.failed.clone())).collect();
    aside.unconnected =
        felt.tallies.iter().map(|(tally, felt)| (tally.name.clone(), felt.unconnected.clone())).collect();
    aside.agents = world.agents.iter().map(|(name, agent)| (name.clone(), agent.peak_resident_bytes())).collect();
    aside.refused = refusals(&journal);
    aside.extensions = journal.extensions();
    if outcome_bad {
        aside.failure = journal.last_failure();
    }
    let told = status_document.as_ref().and_then(|status| status.get("downtime")).and_then(Value::as_object);
    aside.by_agents = told.into_iter().flatten().filter_map(|(what, ms)| Some((what.clone(), ms.as_u64()?))).collect();
    aside.verdict = verdict;
    aside.wall = tempo.at();
    Ok((report, aside))
}

/// The source cluster with its databases and the pooler in front of it.
struct Source {
    cluster: ClusterHandle,
    endpoint: Login,
    version: String,
    bytes: u64,
    scale: Scale,
}

impl Source {
    async fn make(
        options: &Options,
        world: &mut World,
        pgbouncer: PathBuf,
        tempo: &Tempo,
        say: Say<'_>,
    ) -> anyhow::Result<Self> {
        let extensions = Extensions::of(options.from, options.to);
        let scale = Scale(options.scale);
        say(&format!("starting a PostgreSQL {} cluster", options.from));
        let cluster =
            world.lab.create_cluster(cluster_settings("orders", options.from, options.readers, extensions)).await?;
        let endpoint = master(&cluster);
        world.production = Some(endpoint.clone());
        say("filling three databases");
        schema::create(&endpoint, scale, extensions, tempo).await?;
        let users = schema::DATABASES.iter().map(|database| (schema::owner(database), schema::PASSWORD.to_owned()));
        let bouncer = bouncer::Options {
            program: pgbouncer,
            folder: world.folder.join("pgbouncer"),
            server: (endpoint.host.clone(), endpoint.port),
            names: Some(cluster.names.clone()),
            databases: schema::DATABASES.map(str::to_owned).to_vec(),
            elsewhere: Vec::new(),
            users: users.collect(),
        };
        world.bouncer = Some(Bouncer::start(&bouncer, tempo).await?);
        let mut source = Self { cluster, endpoint, version: String::new(), bytes: 0, scale };
        source.version = source.version_now(tempo).await?;
        let session = sides::open(&source.endpoint, tempo).await?;
        let size =
            "select sum(pg_database_size(oid)) from pg_database where datname in ('orders', 'billing', 'telemetry')";
        let answer = session.run(tempo, Duration::from_secs(20), size).await?;
        source.bytes = answer.first(0).and_then(|text| text.parse().ok()).unwrap_or_default();
        say(&format!("{} MiB in three databases of PostgreSQL {}", source.bytes / 1_048_576, source.version));
        Ok(source)
    }

    async fn version_now(&self, tempo: &Tempo) -> anyhow::Result<String> {
        let session = sides::open(&self.endpoint, tempo).await?;
        let answer = session.run(tempo, Duration::from_secs(10), "show server_version").await?;
        Ok(answer.first(0).and_then(|text| text.split_whitespace().next()).unwrap_or_default().to_owned())
    }

    fn places(&self, world: &World, scenario: Option<&Scenario>) -> anyhow::Result<super::clients::Places> {
        let bouncer = world.bouncer.as_ref().context("there is no pooler")?;
        let mut resolvers = BTreeMap::new();
        for (client, delay) in scenario.into_iter().flat_map(|scenario| &scenario.resolver_delays) {
            if Clients::DIRECT.contains(&client.as_str()) {
                resolvers.insert(client.clone(), world.lab.resolver(*delay)?);
            } else if client != "default" {
                anyhow::bail!(
                    "resolver_delay: there is no client {client}; use default or {}",
                    Clients::DIRECT.join(", ")
                );
            }
        }
        Ok(super::clients::Places {
            direct: self.endpoint.clone(),
            pooled: bouncer.login("", "", "postgres", ""),
            resolvers,
            accounts: self.scale.accounts(),
        })
    }
}

/// The settings of a cluster that can carry the demo.
pub fn cluster_settings(identifier: &str, major: u32, readers: usize, extensions: Extensions) -> ClusterSettings {
    let mut cluster = ClusterSettings::new(identifier, major);
    cluster.readers = readers;
    cluster.deletion_protection = true;
    if extensions.cron {
        cluster.preload.push("pg_cron".to_owned());
    }
    cluster
}

/// The master user at the cluster endpoint.
pub fn master(cluster: &ClusterHandle) -> Login {
    Login {
        host: cluster.endpoint.clone(),
        names: Some(cluster.names.clone()),
        port: cluster.port,
        user: cluster.master.0.clone(),
        password: cluster.master.1.clone(),
        database: "postgres".to_owned(),
        application: "demo".to_owned(),
    }
}

async fn start_pilot(
    place: &Place,
    world: &mut World,
    source: &Source,
    clients: &Clients,
    tempo: &Tempo,
) -> anyhow::Result<String> {
    let coordinator = place.coordinator(tempo).await?;
    let grpc = coordinator.grpc.clone();
    let bouncer = world.bouncer.as_ref().context("there is no pooler")?;
    let pooled = Ingestion::Pgbouncer {
        admin: bouncer.address().to_string(),
        admin_user: bouncer::ADMIN.to_owned(),
        databases: schema::DATABASES.map(str::to_owned).to_vec(),
        config_file: bouncer.databases_file().to_owned(),
    };
    let hook = Ingestion::Http { name: clients.direct_service().0, base_url: clients.direct_service().1 };
    for (id, ingestion) in [("agent-1", hook), ("agent-2", pooled)] {
        let options = AgentOptions {
            id: id.to_owned(),
            cluster: source.cluster.arn.clone(),
            login: source.cluster.agent.clone(),
            ingestion: vec![ingestion],
        };
        world.agents.push((id.to_owned(), place.agent(&coordinator, &options)?));
    }
    world.coordinator = Some(coordinator);
    place.agents_connected(&grpc, 2, tempo).await?;
    Ok(grpc)
}

/// Watches the upgrade from outside: sets the scene for trouble, and takes old blue's picture right after the cut.
struct Following<'a> {
    place: &'a Place,
    grpc: &'a str,
    lab: &'a Lab,
    source: &'a Source,
    scene: watch::Sender<Scene>,
    tempo: &'a Tempo,
    id: Option<String>,
    old_blue: Option<(Result<Photograph, String>, Duration)>,
}

impl Following<'_> {
    async fn until_ended(
        &mut self,
        upgrade: &mut tokio::process::Child,
        say: Say<'_>,
    ) -> anyhow::Result<std::process::ExitStatus> {
        let mut turn = 0_u32;
        loop {
            if let Some(status) = upgrade.try_wait()? {
                self.scene.send_replace(Scene::After);
                return Ok(status);
            }
            if self.old_blue.is_none() && self.switched() {
                self.scene.send_replace(Scene::After);
                say("the cut is over; reading old blue");
                self.photograph().await;
            }
            if turn.is_multiple_of(6) && self.old_blue.is_none() {
                self.set_scene().await;
            }
            turn = turn.wrapping_add(1);
            self.tempo.sleep(Duration::from_millis(80)).await;
        }
    }

    async fn journal(&mut self) -> anyhow::Result<Journal> {
        let journal = self.place.journal(self.grpc, &mut self.id).await?;
        Ok(journal.unwrap_or_default())
    }

    async fn set_scene(&mut self) {
        let Ok(journal) = self.journal().await else { return };
        let scene = if journal.has("point_of_no_return") || journal.has("finished") {
            Scene::After
        } else if journal.started("replicating_data").is_some() {
            Scene::NearTheCut
        } else if journal.started("post_provisioning").is_some() {
            Scene::Preparing
        } else {
            Scene::Provisioning
        };
        if *self.scene.borrow() != scene {
            self.scene.send_replace(scene);
        }
    }

    /// The production name leads to other servers than at first.
    fn switched(&self) -> bool {
        let members = self.lab.members(&self.source.cluster.identifier);
        let writer = members.iter().find(|(_, _, writer)| *writer).map(|(_, address, _)| *address);
        let first = self.source.cluster.members.first().map(|(_, address)| *address);
        writer.is_some() && writer != first
    }

    async fn photograph(&mut self) {
        let cut = self.asked_at().unwrap_or_default();
        let Some((_, address)) = self.source.cluster.members.first() else { return };
        let (user, password) = &self.source.cluster.agent;
        let login = Login { host: address.to_string(), ..self.source.endpoint.role(user, password, "demo-judge") };
        // Right after the cut the old side may still refuse everybody for a moment.
        let look = async || sides::photograph(&login, self.tempo).await.map_err(|error| format!("{error:#}"));
        let (every, limit) = (Duration::from_millis(200), Duration::from_secs(20));
        let photograph = self.tempo.until("old blue", every, limit, look).await.map_err(|error| format!("{error:#}"));
        self.old_blue = Some((photograph, cut));
    }

    /// When the last accepted switchover call arrived: a moment before writes were stopped.
    fn asked_at(&self) -> Option<Duration> {
        let requests = self.lab.requests();
        let call = requests.iter().rev().find(|request| {
            request.action == "SwitchoverBlueGreenDeployment" && !matches!(request.outcome, Outcome::Refused { .. })
        })?;
        Some(self.tempo.at_wall(call.at))
    }
}

/// The stretches of the run that downtimes are counted in.
#[derive(Clone, Copy, Debug)]
struct Windows {
    reboot: (Duration, Duration),
    cut: (Duration, Duration),
    whole: (Duration, Duration),
}

impl Windows {
    fn of(journal: &Journal, tempo: &Tempo, began: Duration, end: Duration) -> Self {
        let at = |step: &str| journal.started(step).map(|at: Timestamp| tempo.at_wall(at));
        Self {
            reboot: (began, at("provisioning").unwrap_or(end)),
            cut: (at("switchover").unwrap_or(end), end),
            whole: (Duration::ZERO, end),
        }
    }
}

struct Parts<'a> {
    outcome: String,
    versions: (String, String),
    journal: &'a Journal,
    status: Option<&'a Value>,
    felt: &'a super::clients::AllFelt,
    windows: Windows,
    verdict: &'a judge::Verdict,
}

fn report(parts: Parts<'_>) -> Report {
    let Parts { outcome, versions, journal, status, felt, windows, verdict } = parts;
    let gap = |name: &str, (from, to): (Duration, Duration)| {
        let found = felt.tallies.iter().find(|(tally, _)| tally.name == name);
        found.map_or(0, |(_, felt)| ms(felt.longest_within(from, to)))
    };
    let writers = felt.tallies.iter().filter(|(tally, _)| tally.writes && tally.name != "load");
    let by_client: BTreeMap<String, u64> =
        writers.map(|(tally, _)| (tally.name.clone(), gap(&tally.name, windows.whole))).collect();
    Report {
        outcome,
        from_version: versions.0,
        to_version: versions.1,
        steps: journal.steps(status),
        write_unavailable_ms: gap("direct-writes", windows.cut),
        read_unavailable_ms: gap("direct-reads", windows.cut),
        held_ms: gap("held-writes", windows.cut),
        ingestion_paused_ms: ms(felt.paused),
        reboot_unavailable_ms: gap("direct-writes", windows.reboot),
        max_write_gap_ms: by_client.values().copied().max().unwrap_or_default(),
        max_write_gap_ms_by_client: by_client,
        acknowledged: verdict.acknowledged,
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        failed_statements: summary::failed(felt.tallies.iter().map(|(tally, felt)| (&**tally, felt))),
        purged: journal.events("session_purged").len() as u64,
        ended: journal.events("session_ended").len() as u64,
        resubmitted: journal.resubmitted("resubmitted"),
    }
}

fn refusals(journal: &Journal) -> Vec<String> {
    let ended = journal.events("session_ended");
    let refused = ended.iter().filter_map(|event| {
        let reason = event.get("not_resubmittable")?.as_str()?;
        let command = event.get("session").and_then(|session| session.get("command")).and_then(Value::as_str);
        let user = event.get("session").and_then(|session| session.get("user")).and_then(Value::as_str);
        Some(format!("{} of {}: {reason}", command.unwrap_or("a transaction"), user.unwrap_or("somebody")))
    });
    let mut refused: Vec<String> = refused.collect();
    refused.sort();
    refused.dedup();
    refused
}

fn how_to_look(options: &Options, world: &World) -> Vec<String> {
    let mut how = exports(&world.lab);
    if let Some(coordinator) = &world.coordinator {
        how.push(format!("export PILOT_COORDINATOR={}", coordinator.grpc));
        how.push("pilot status".to_owned());
        how.push(format!("# the page: {}", coordinator.admin));
    }
    how.push(format!("# logs and configuration: {}", world.folder.join("pilot").display()));
    if let Some(production) = &world.production {
        how.push("# production by the cluster endpoint, then each of its members:".to_owned());
        how.push(psql(options.to, production, &production.host));
        for (_, address, _) in world.lab.members("orders") {
            how.push(psql(options.to, production, &address.to_string()));
        }
    }
    how
}

/// What to paste into a shell so that the project's binaries and AWS's clients find this lab.
pub fn exports(lab: &Lab) -> Vec<String> {
    let mut lines: Vec<String> =
        lab.environment().iter().map(|(name, value)| format!("export {name}={value}")).collect();
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        lines.push(format!("export PATH='{}':\"$PATH\"", folder.display()));
    }
    lines
}

/// A command that opens database `orders` at a server of the cluster, with the psql of an installed major.
pub fn psql(major: u32, login: &Login, host: &str) -> String {
    let program = install::cache_dir().join("postgresql").join(major.to_string()).join("bin/psql");
    let Login { port, user, password, .. } = login;
    format!("PGPASSWORD={password} '{}' -h {host} -p {port} -U {user} orders", program.display())
}

/// Copies the logs of the pilot's processes out of a folder that is about to be removed.
fn keep_logs(folder: &Path) -> PathBuf {
    let kept = folder.with_extension("logs");
    let _ = std::fs::create_dir_all(&kept);
    for file in std::fs::read_dir(folder.join("pilot")).into_iter().flatten().flatten() {
        let path = file.path();
        let wanted = path.extension().is_some_and(|extension| extension == "log" || extension == "toml");
        if wanted && let Some(name) = path.file_name() {
            let _ = std::fs::copy(&path, kept.join(name));
        }
    }
    kept
}
