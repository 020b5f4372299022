//! The stage: a lab with one small cluster, clients that keep a ledger, a coordinator and agents that can be killed. Every
//! wait has a deadline and says what it last saw; everything ends with the stage, also when a test fails.

pub mod browser;
pub mod cable;
pub mod commanded;
mod copies;
pub mod depth;
pub mod facts;
pub mod hooks;
pub mod http;
pub mod kept;
mod opening;
pub mod pilot;
pub mod process;
pub mod prometheus;
pub mod reach;
pub mod role;
pub mod secrets;
pub mod several;
pub mod store;
pub mod takeover;
pub mod trap;
pub mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::demo::bouncer::Bouncer;
use lab::demo::court::{self, Evidence};
use lab::demo::judge::Verdict;
use lab::demo::ledger::Ledger;
use lab::demo::probe::Probe;
use lab::demo::schema::{self, Extensions};
use lab::demo::service::Service;
use lab::demo::session::{Login, Session};
use lab::demo::sides;
use lab::demo::tempo::Tempo;
use lab::iam::Policy;
use lab::{ClusterHandle, ClusterSettings, Lab, Outcome, Timings};
use serde_json::Value;

use self::cable::Cable;
use self::facts::Facts;
use self::pilot::{Binaries, CommandLine, Follower, Said, Upgrade};
use self::process::Process;
use self::several::Several;
use self::world::World;

/// The cluster of every stage.
pub const CLUSTER: &str = "orders";
/// The pooler's name for `telemetry` at the reader endpoint.
pub const READING: &str = "telemetry_readers";
/// Name of the coordinator as a caller of AWS, where it has a policy of its own.
pub const COORDINATOR: &str = "coordinator";
/// Between two looks of a wait.
const EVERY: Duration = Duration::from_millis(50);
/// For a process to be there.
const START: Duration = Duration::from_secs(60);

/// What is to be on the stage.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The source's major version.
    pub from: u32,
    /// Readers beside the writer.
    pub readers: usize,
    /// Which extensions its databases use.
    pub extensions: Extensions,
    /// The provider's delays.
    pub timings: Timings,
    /// How many agents; the first controls the ingestion service.
    pub agents: u32,
    /// Whether there is a pooler, controlled by the last agent, and a client behind it.
    pub pooled: bool,
    /// Whether the pooler has a database [`READING`] that leads to the reader endpoint, and a client that reads there.
    pub reading: bool,
    /// How much later than the zone each client's resolver knows; `default` is everybody's, the pilot's own processes included.
    pub resolver_delays: BTreeMap<String, Duration>,
    /// Whether the first agent also controls a system by commands, which note what they are asked.
    pub commanded: bool,
    /// The coordinator's policy in AWS; `None`: it may do everything.
    pub policy: Option<Policy>,
    /// What else the cluster is to have.
    pub shape: fn(ClusterSettings) -> ClusterSettings,
    /// The coordinator's leases: driver, agent, call, in seconds.
    pub lease: (u64, u64, u64),
    /// Two coordinators that share a store in PostgreSQL, in place of one with a file.
    pub shared: bool,
    /// One coordinator with a store in PostgreSQL, whose appends a test can make to stand still ([`Stage::trap`]).
    pub trapped: bool,
    /// Whether all connections are TLS, with certificates that `pilot agents enrol` issues.
    pub tls: bool,
    /// Whether agents reach the databases by TLS, and how much later than the names the servers' certificates change.
    pub database_tls: Option<Duration>,
    /// What else stands in the coordinator's configuration; `{folder}` is the stage's.
    pub configured: String,
    /// Whether each agent reaches the coordinator over a cable of its own, which a test can cut. For one coordinator.
    pub cables: bool,
}

impl Default for Setting {
    /// PostgreSQL 14, one writer, no delays of the provider, two agents, no pooler, short leases.
    fn default() -> Setting {
        Setting {
            from: 14,
            readers: 0,
            extensions: Extensions { cron: false, partman: false },
            timings: Timings::zero(),
            agents: 2,
            pooled: false,
            reading: false,
            resolver_delays: BTreeMap::new(),
            commanded: false,
            policy: None,
            shape: std::convert::identity,
            lease: (9, 4, 3),
            shared: false,
            trapped: false,
            tls: false,
            database_tls: None,
            configured: String::new(),
            cables: false,
        }
    }
}

/// Everything that is running.
pub struct Stage {
    /// `None` only while the coordinator is being started.
    pub coordinator: Process,
    /// `agent-1` …, in order.
    pub agents: Vec<Process>,
    /// The command line.
    pub cli: CommandLine,
    /// Where certificates are, each in a folder of its own: `ca`, `coordinator`, `agents`, `tester`.
    pub tls: Option<PathBuf>,
    /// `http://127.0.0.1:PORT` of the coordinator's page and metrics.
    pub admin: String,
    /// Time.
    pub tempo: Tempo,
    /// What was acknowledged to the clients.
    pub ledger: Arc<Ledger>,
    /// The cluster as it was made.
    pub cluster: ClusterHandle,
    /// The master user at the cluster endpoint.
    pub master: Login,
    /// The client `direct-writes`, with its own view of names.
    pub direct: Login,
    service: Option<Service>,
    probes: Vec<Probe>,
    bouncer: Option<Bouncer>,
    reading: bool,
    folder: PathBuf,
    binaries: Binaries,
    lease: (u64, u64, u64),
    /// The section of the configuration that names the coordinators' store.
    store: String,
    several: Option<Several>,
    /// From each agent to the coordinator, in the agents' order; empty where there are none.
    cables: Vec<Cable>,
    commanded: bool,
    /// What the test expects to be logged as WARN or ERROR.
    expected: Vec<String>,
    warnings_judged: bool,
    /// The cloud.
    pub lab: Lab,
}

/// Opens a stage, plays on it and ends everything. On failure the logs stay and the panic says where.
///
/// # Panics
/// With the failure of the play.
pub async fn play(setting: Setting, body: impl AsyncFnOnce(&mut Stage) -> anyhow::Result<()>) {
    let mut stage = Stage::open(setting).await.unwrap_or_else(|error| panic!("the stage could not be set: {error:#}"));
    let mut played = body(&mut stage).await.and_then(|()| stage.nothing_unexpected_was_logged());
    if played.is_ok() {
        played = stage.no_secret_was_written().await;
    }
    let logs = stage.logs();
    let folder = stage.folder.clone();
    let Stage { coordinator, agents, service, probes, bouncer, several, lab, .. } = stage;
    drop((coordinator, agents, service, probes, bouncer));
    if let Some(several) = several {
        several.end().await;
    }
    lab.stop().await;
    match played {
        // A folder that cannot be removed is only litter.
        Ok(()) => drop(std::fs::remove_dir_all(&folder)),
        Err(error) => panic!("{error:#}\n{logs}\nall files of the run are in {}", folder.display()),
    }
}

impl Stage {
    /// `kill -9`, then starts the coordinator again on the same ports and waits until it listens.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn crash_coordinator(&mut self) -> anyhow::Result<()> {
        self.coordinator.kill();
        std::fs::remove_file(self.folder.join("coordinator.addr"))?;
        self.coordinator.again()?;
        self.find_coordinator().await
    }

    /// `kill -9` of an agent (from 0), and another start.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn crash_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let agent = self.agents.get_mut(number).context("there is no such agent")?;
        agent.kill();
        agent.again()
    }

    /// Takes from an agent (from 0), which does not run, all that it has written down.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn lose_disk(&self, number: usize) -> anyhow::Result<()> {
        let state = format!("agent-{}.sqlite", number + 1);
        for file in std::fs::read_dir(&self.folder)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(&state) {
                std::fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    /// The `/metrics` of an agent (from 0).
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn agent_metrics(&self, number: usize) -> anyhow::Result<String> {
        let file = self.folder.join(format!("agent-{}.admin", number + 1));
        let address = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        http::ask(address.trim(), "GET", "/metrics", "").await
    }

    /// Runs a verb of the command line.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn pilot(&self, args: &[&str]) -> anyhow::Result<Said> {
        self.cli.run(args, &self.tempo).await
    }

    /// Starts a verb that follows; see [`CommandLine::follows`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follows(&self, args: &[&str]) -> anyhow::Result<Follower> {
        self.cli.follows(args, &self.folder)
    }

    /// The same on a terminal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follows_on_terminal(&self, args: &[&str]) -> anyhow::Result<Follower> {
        self.cli.follows_on_terminal(args, &self.folder)
    }

    /// The stage's cluster to a version, in a hurry.
    #[must_use]
    pub fn spec(&self, to: u32) -> toml::Table {
        pilot::hasty_spec(CLUSTER, to)
    }

    /// Starts an upgrade, or says why it was refused.
    ///
    /// # Errors
    /// When the command line fails.
    pub async fn try_upgrade(&self, spec: &toml::Table) -> anyhow::Result<Result<Upgrade, Said>> {
        self.asks_for(spec)?.await
    }

    /// The same, beside everything else that happens on the stage.
    ///
    /// # Errors
    /// When the spec cannot be written.
    pub fn asks_for(
        &self,
        spec: &toml::Table,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<Result<Upgrade, Said>>> + use<>> {
        static SPECS: AtomicU32 = AtomicU32::new(0);
        let file = self.folder.join(format!("spec-{}.toml", SPECS.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&file, toml::to_string(spec)?)?;
        let (cli, tempo) = (self.cli.clone(), self.tempo.clone());
        Ok(async move { cli.upgrade(&file, &tempo).await })
    }

    /// Starts an upgrade.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn upgrade(&self, spec: &toml::Table) -> anyhow::Result<Upgrade> {
        let begun = self.try_upgrade(spec).await?;
        begun.map_err(|said| anyhow::anyhow!("refused with exit {}: {}\n{}", said.code, said.out, said.err))
    }

    /// How an upgrade stands.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub async fn status(&self, id: &str) -> anyhow::Result<Value> {
        self.pilot(&["status", id, "--output", "json"]).await?.json()
    }

    /// Every fact of an upgrade.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub async fn history(&self, id: &str) -> anyhow::Result<Facts> {
        Facts::of(&self.pilot(&["history", id, "--output", "json"]).await?.json()?)
    }

    /// Waits until the status of an upgrade is as wished.
    ///
    /// # Errors
    /// When it is not within `limit`, or the upgrade ended otherwise; quotes the last status.
    pub async fn wait_until(
        &self,
        id: &str,
        what: &str,
        limit: Duration,
        wished: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let look = async || {
            let status = self.status(id).await.map_err(|error| format!("{error:#}"))?;
            if wished(&status) {
                return Ok(Ok(status));
            }
            if status["outcome"].is_string() {
                return Ok(Err(status));
            }
            Err(format!("{}: {} {}", status["phase"], status["current"], status["reason"]))
        };
        let found = self.tempo.until(what, EVERY, limit, look).await?;
        found.map_err(|status| anyhow::anyhow!("the upgrade ended before {what}: {status}"))
    }

    /// Waits until the coordinator has logged a line with `text`, which is said for every fact.
    ///
    /// # Errors
    /// When it has not within `limit`; quotes the end of the log.
    pub async fn until_logged(&self, text: &str, limit: Duration) -> anyhow::Result<()> {
        let look = async || {
            let log = self.coordinator.log();
            if log.contains(text) { Ok(()) } else { Err(self.coordinator.tail(3)) }
        };
        self.tempo.until(text, Duration::from_millis(5), limit, look).await
    }

    /// Waits until an agent (from 0) has logged lines with `text` as often as `times`, over all its lives.
    ///
    /// # Errors
    /// When it has not within `limit`; quotes the end of the log.
    pub async fn until_agent_logged(
        &self,
        number: usize,
        text: &str,
        times: usize,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let agent = self.agents.get(number).context("there is no such agent")?;
        let look = async || {
            let seen = agent.log().lines().filter(|line| line.contains(text)).count();
            if seen >= times { Ok(()) } else { Err(format!("{seen} of {times}\n{}", agent.tail(3))) }
        };
        self.tempo.until(text, Duration::from_millis(5), limit, look).await
    }

    /// Asks the lab's API for something as an operator at the console would: `&[("DBClusterIdentifier", "orders")]`.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn aws(&self, action: &str, parameters: &[(&str, &str)]) -> anyhow::Result<String> {
        let parameters: String = parameters.iter().map(|(name, value)| format!("&{name}={value}")).collect();
        let form = format!("Action={action}&Version=2014-10-31{parameters}");
        http::ask_lab(&self.lab.endpoint_url(), &form, &self.tempo).await
    }

    /// The name of the deployment's green cluster.
    ///
    /// # Errors
    /// When there is none.
    pub async fn green(&self) -> anyhow::Result<String> {
        let answer = self.aws("DescribeBlueGreenDeployments", &[]).await?;
        let target = answer.split("<Target>").nth(1).and_then(|rest| rest.split("</Target>").next());
        let name = target.and_then(|arn| arn.rsplit(':').next()).context("the deployment has no target")?;
        Ok(name.to_owned())
    }

    /// Waits until as many agents are attached.
    ///
    /// # Errors
    /// When they are not in a minute.
    pub async fn until_connected(&self, count: usize) -> anyhow::Result<()> {
        let look = async || {
            let said = self.pilot(&["agents", "--output", "json"]).await.map_err(|error| format!("{error:#}"))?;
            let seen = said.out.matches("\"connected\":true").count();
            if seen >= count { Ok(()) } else { Err(format!("{seen} connected: {} {}", said.out, said.err)) }
        };
        self.tempo.until("connected agents", EVERY, START, look).await
    }

    /// How often AWS was asked for `action` and did it (also where the answer was lost on the way).
    #[must_use]
    pub fn asked_of_aws(&self, action: &str) -> usize {
        let done = |outcome: &Outcome| !matches!(outcome, Outcome::Refused { .. });
        self.lab.requests().iter().filter(|call| call.action == action && done(&call.outcome)).count()
    }

    /// Every changing call to AWS so far.
    #[must_use]
    pub fn changes_at_aws(&self) -> Vec<String> {
        self.lab.requests().into_iter().map(|call| call.action).filter(|action| changes(action)).collect()
    }

    /// The whole world as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn world(&self) -> anyhow::Result<World> {
        let databases = [&["postgres"][..], &schema::DATABASES[..]].concat();
        World::look(&self.lab.endpoint_url(), &self.master, &databases, &self.tempo).await
    }

    /// Runs SQL as the master user through the cluster endpoint; the first cell.
    ///
    /// # Errors
    /// The server's own.
    pub async fn sql(&self, database: &str, sql: &str) -> anyhow::Result<Option<String>> {
        let session = sides::open(&self.master.database(database), &self.tempo).await?;
        let answer = session.run(&self.tempo, START, sql).await.with_context(|| sql.to_owned())?;
        Ok(answer.first(0).map(str::to_owned))
    }

    /// Runs SQL as the owner of a database.
    ///
    /// # Errors
    /// The server's own.
    pub async fn sql_as_owner(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let session = sides::open(&owner(&self.master, database, "test"), &self.tempo).await?;
        session.run(&self.tempo, START, sql).await.map(drop).with_context(|| sql.to_owned())
    }

    /// A client's transaction that has written and stays open: it keeps a hold for as long as transactions may drain.
    ///
    /// # Errors
    /// The server's own.
    pub async fn slow_writer(&self) -> anyhow::Result<Session> {
        let login = owner(&self.master, "billing", "slow-writer");
        let slow = login.open(&self.tempo, START).await?;
        slow.run(&self.tempo, START, "begin; update console_notes set note = 'a moment' where id = 1").await?;
        Ok(slow)
    }

    /// Waits until more writes of a client are acknowledged.
    ///
    /// # Errors
    /// When they are not in two minutes.
    pub async fn goes_on(&self, client: &str) -> anyhow::Result<()> {
        let before = self.acknowledged(client);
        let look = async || match self.acknowledged(client) {
            now if now > before + 3 => Ok(()),
            now => Err(format!("{} more", now - before)),
        };
        self.tempo.until(&format!("writes of {client}"), Duration::from_millis(20), 2 * START, look).await
    }

    /// Whether the ingestion service's own hook says `running`, with its answer.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ingestion_runs(&self) -> anyhow::Result<()> {
        let service = self.service.as_ref().context("the service is stopped")?;
        let state = http::ask(&service.base_url(), "GET", "/state", "").await?;
        ensure!(state.contains("\"running\""), "ingestion says {state}");
        Ok(())
    }

    /// What the commands of the commanded system were asked to do, in order: `pause` and `resume`.
    ///
    /// # Errors
    /// When there is none.
    pub fn commands(&self) -> anyhow::Result<Vec<String>> {
        commanded::asked(&self.folder)
    }

    /// The longest gap between two acknowledged writes of a client since a moment on the stage's clock.
    #[must_use]
    pub fn longest_gap(&self, client: &str, since: Duration) -> Duration {
        let tallies = self.probes.iter().map(Probe::tally).filter(|tally| tally.name == client);
        let longest = tallies.map(|tally| tally.snapshot().longest_within(since, self.tempo.at()));
        longest.max().unwrap_or_default()
    }

    /// How many writes of a client were acknowledged.
    #[must_use]
    pub fn acknowledged(&self, client: &str) -> u64 {
        let tallies = self.probes.iter().map(Probe::tally).filter(|tally| tally.name == client);
        tallies.map(|tally| tally.snapshot().done).sum()
    }

    /// How many statements of a client failed.
    #[must_use]
    pub fn failed_statements(&self, client: &str) -> u64 {
        let tallies = self.probes.iter().map(Probe::tally);
        tallies.filter(|tally| tally.name == client).map(|tally| tally.snapshot().failures()).sum()
    }

    /// How many statements of a client failed with this SQLSTATE.
    #[must_use]
    pub fn failed_with(&self, client: &str, code: &str) -> u64 {
        let tallies = self.probes.iter().map(Probe::tally).filter(|tally| tally.name == client);
        tallies.filter_map(|tally| tally.snapshot().failed.get(code).copied()).sum()
    }

    /// Where the pooler sends a database of its own names now, by its databases file, and the address, version and role of the
    /// server that answers there: `127.9.8.22 16 t` (`t`: a reader).
    ///
    /// # Errors
    /// When there is no pooler, or it does not answer.
    pub async fn behind_pooler(&self, database: &str) -> anyhow::Result<(String, String)> {
        let bouncer = self.bouncer.as_ref().context("there is no pooler")?;
        let file = std::fs::read_to_string(bouncer.databases_file())?;
        let line = file.lines().find(|line| line.starts_with(&format!("{database} = ")));
        let host = line.and_then(|line| line.split("host=").nth(1)?.split_whitespace().next());
        let login = bouncer.login(&schema::owner("telemetry"), schema::PASSWORD, database, "test");
        let session = login.open(&self.tempo, START).await?;
        let who = "select concat_ws(' ', host(inet_server_addr()), current_setting('server_version_num')::int / 10000, \
            pg_is_in_recovery())";
        let who = session.run(&self.tempo, START, who).await?;
        Ok((host.context("no such database")?.to_owned(), who.first(0).unwrap_or_default().to_owned()))
    }

    /// Stops the clients, lets the service finish what it has, and judges every acknowledged write against what is there.
    ///
    /// # Errors
    /// When something is lost, doubled or left over.
    pub async fn nothing_lost(&mut self) -> anyhow::Result<Verdict> {
        for probe in self.probes.drain(..) {
            probe.stop().await;
        }
        let service = self.service.take().context("the clients are stopped already")?;
        let left = service.drain(START).await;
        ensure!(left == 0, "{left} operations of the service were never acknowledged");
        let book = self.ledger.snapshot();
        let reader = self.master.role(&self.cluster.agent.0, &self.cluster.agent.1, "test-judge");
        let evidence = Evidence { book: &book, old_blue: None, cut: Duration::ZERO, nightly: Default::default() };
        let verdict = court::hear(&reader, &evidence, &self.tempo).await?;
        ensure!(verdict.clean(), "lost {}, doubled {}: {:?}", verdict.lost, verdict.duplicated, verdict.findings);
        ensure!(verdict.acknowledged > 50, "only {} writes were acknowledged", verdict.acknowledged);
        Ok(verdict)
    }

    /// From now on every WARN of coordinators and agents is judged too: one with one of these texts, as an ERROR with one, is what the
    /// test is about, any other fails it.
    pub fn expects(&mut self, texts: &[&str]) {
        self.warnings_judged = true;
        self.expects_errors(texts);
    }

    /// An ERROR with one of these texts is what the test is about; any other fails it, on every stage.
    pub fn expects_errors(&mut self, texts: &[&str]) {
        self.expected.extend(texts.iter().map(|text| (*text).to_owned()));
    }

    /// Nothing was logged that asks for a person but what the test has listed.
    fn nothing_unexpected_was_logged(&self) -> anyhow::Result<()> {
        let grave = |line: &&str| match line.split_whitespace().nth(1) {
            Some("ERROR") => true,
            Some("WARN") => self.warnings_judged,
            _ => false,
        };
        let listed = |line: &&str| self.expected.iter().any(|text| line.contains(text));
        let standby = self.several.as_ref().and_then(|it| it.standby.as_ref());
        let mut found = Vec::new();
        for process in std::iter::once(&self.coordinator).chain(&self.agents).chain(standby) {
            found.extend(process.log().lines().filter(grave).filter(|line| !listed(line)).map(str::to_owned));
        }
        ensure!(found.is_empty(), "logged and not expected:\n{}", found.join("\n"));
        Ok(())
    }

    /// No password and no canary in what the processes wrote; a process that is dead has no metrics.
    async fn no_secret_was_written(&self) -> anyhow::Result<()> {
        let mut texts = vec![("metrics", http::ask(&self.admin, "GET", "/metrics", "").await.unwrap_or_default())];
        for number in 0..self.agents.len() {
            texts.push(("metrics of an agent", self.agent_metrics(number).await.unwrap_or_default()));
        }
        secrets::none_written(&self.folder, &texts)
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let agents: Vec<String> = self.agents.iter().map(|agent| agent.tail(12)).collect();
        let standby =
            self.several.as_ref().and_then(|it| it.standby.as_ref()).map(|it| it.tail(30)).unwrap_or_default();
        format!("{}\n{standby}\n{}", self.coordinator.tail(30), agents.join("\n"))
    }
}

/// Whether a call to AWS changes something.
fn changes(action: &str) -> bool {
    !["Describe", "List", "Get", "Download"].iter().any(|verb| action.starts_with(verb))
}

fn owner(place: &Login, database: &str, application: &str) -> Login {
    place.database(database).role(&schema::owner(database), schema::PASSWORD, application)
}
