//! The pilot's own processes as the demo runs them: configuration files, coordinator, agents, the one command, and what
//! can be read back with `--output json`. It is the only file of the demo that knows the shape of the pilot's answers,
//! and it reads them as a stranger would: through the command line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::binaries::Binaries;
use super::tempo::Tempo;

/// What an agent logs when clients are held.
pub const HELD: &str = "paused hold=true";

/// Where the pilot's files are and how its processes find AWS.
#[derive(Clone, Debug)]
pub struct Place {
    /// The binaries.
    pub binaries: Binaries,
    /// A folder for configuration, logs and state; made if missing.
    pub folder: PathBuf,
    /// What to export.
    pub environment: Vec<(String, String)>,
}

/// One ingestion controller in an agent's configuration.
#[derive(Clone, Debug)]
pub enum Ingestion {
    /// A service with the HTTP hook.
    Http {
        /// Its name.
        name: String,
        /// Its hook.
        base_url: String,
    },
    /// A pgbouncer.
    Pgbouncer {
        /// `address:port` of its console.
        admin: String,
        /// The console's role.
        admin_user: String,
        /// What it pauses and retargets.
        databases: Vec<String>,
        /// The file with the `[databases]` section.
        config_file: PathBuf,
    },
}

/// One agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// `agent-1`.
    pub id: String,
    /// ARN of the cluster.
    pub cluster: String,
    /// Role and password in the databases.
    pub login: (String, String),
    /// What it controls.
    pub ingestion: Vec<Ingestion>,
}

/// A running process of the pilot, with its log.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it writes its log.
    pub log: PathBuf,
}

impl Process {
    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The most memory it ever had resident, in bytes.
    pub fn peak_resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it.
    pub async fn stop(mut self) {
        // It may be gone already.
        let _ = self.child.kill().await;
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// A running coordinator and where it listens.
#[derive(Debug)]
pub struct Coordinator {
    /// Its process.
    pub process: Process,
    /// `http://127.0.0.1:PORT` for agents and the command line.
    pub grpc: String,
    /// `http://127.0.0.1:PORT` of the page and the metrics.
    pub admin: String,
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn spawn(&self, program: &Path, args: &[OsString], log: &str) -> anyhow::Result<Process> {
        let log = self.file(log);
        let out = std::fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .process_group(0);
        command.stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Process { child, log })
    }

    /// Writes the coordinator's configuration; `listen` and `admin_listen` are `address:port`. Gives the file.
    pub fn write_coordinator(&self, listen: &str, admin_listen: &str) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        let config = format!(
            "listen = \"{listen}\"\nadmin_listen = \"{admin_listen}\"\naddress_file = {}\nregion = \"{}\"\n\
             [store]\nkind = \"sqlite\"\npath = {}\n[insecure]\nloopback_without_tls = true\n",
            toml_path(&self.file("coordinator.addr")),
            crate::settings::REGION,
            toml_path(&self.file("pilot.sqlite")),
        );
        let file = self.file("coordinator.toml");
        std::fs::write(&file, config)?;
        Ok(file)
    }

    /// Writes an agent's configuration and password; `coordinator` is `http://address:port`. Gives the file.
    pub fn write_agent(&self, coordinator: &str, options: &AgentOptions) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        let password = self.file(&format!("{}.password", options.id));
        std::fs::write(&password, &options.login.1)?;
        let file = self.file(&format!("{}.toml", options.id));
        std::fs::write(&file, agent_config(options, coordinator, &self.folder, &password))?;
        Ok(file)
    }

    /// Starts the coordinator on ports that the system chooses.
    pub async fn coordinator(&self, tempo: &Tempo) -> anyhow::Result<Coordinator> {
        let file = self.write_coordinator("127.0.0.1:0", "127.0.0.1:0")?;
        let address = self.file("coordinator.addr");
        let args = ["serve".into(), "--config".into(), file.into_os_string()];
        let mut process = self.spawn(&self.binaries.pilot, &args, "coordinator.log")?;
        let look = async || {
            if let Some(status) = process.ended() {
                return Ok(Err(status));
            }
            let text = std::fs::read_to_string(&address).map_err(|error| error.to_string())?;
            let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let part =
                |name: &str| value.get(name).and_then(Value::as_str).map(url).ok_or(format!("no {name} in {text}"));
            Ok(Ok((part("grpc")?, part("admin")?)))
        };
        let found =
            tempo.until("the coordinator's address", Duration::from_millis(50), Duration::from_secs(20), look).await;
        match found {
            Ok(Ok((grpc, admin))) => Ok(Coordinator { process, grpc, admin }),
            Ok(Err(status)) => anyhow::bail!("the coordinator ended at once ({status}):\n{}", process.tail()),
            Err(error) => Err(error.context(process.tail())),
        }
    }

    /// Starts an agent.
    pub fn agent(&self, coordinator: &Coordinator, options: &AgentOptions) -> anyhow::Result<Process> {
        self.agent_at(&coordinator.grpc, options)
    }

    /// Starts an agent of the coordinator at `http://address:port`.
    pub fn agent_at(&self, coordinator: &str, options: &AgentOptions) -> anyhow::Result<Process> {
        let file = self.write_agent(coordinator, options)?;
        self.spawn(&self.binaries.agent, &["--config".into(), file.into_os_string()], &format!("{}.log", options.id))
    }

    /// Starts the one command with its output in a log of its own.
    pub fn upgrade_aside(&self, coordinator: &str, spec: &Path, log: &str) -> anyhow::Result<Process> {
        let mut args: Vec<OsString> =
            ["upgrade", "--yes", "--coordinator", coordinator, "--spec"].map(Into::into).to_vec();
        args.push(spec.into());
        self.spawn(&self.binaries.pilot, &args, log)
    }

    /// Runs a reading verb and parses what it prints.
    pub async fn read(&self, coordinator: &str, verb: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command(coordinator);
        let output = command.args(verb).args(["--output", "json"]).output().await.context("starting pilot")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_str(text.trim())
            .with_context(|| format!("pilot {} printed no JSON: {text} {said}", verb.join(" ")))
    }

    fn command(&self, coordinator: &str) -> Command {
        let mut command = Command::new(&self.binaries.pilot);
        command.envs(self.environment.iter().cloned()).env("PILOT_COORDINATOR", coordinator);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Waits until `count` agents are connected.
    pub async fn agents_connected(&self, coordinator: &str, count: usize, tempo: &Tempo) -> anyhow::Result<()> {
        let look = async || {
            let seen = self.read(coordinator, &["agents"]).await.map_err(|error| format!("{error:#}"))?;
            let connected = connected_agents(&seen);
            if connected >= count { Ok(()) } else { Err(format!("{connected} connected in {seen}")) }
        };
        tempo.until("connected agents", Duration::from_millis(300), Duration::from_secs(30), look).await
    }

    /// The one command. Its output goes to this program's stderr as it comes.
    pub fn upgrade(&self, coordinator: &str, cluster: &str, to: u32, spec: &Path) -> anyhow::Result<Child> {
        let shown = || -> anyhow::Result<Stdio> { Ok(std::io::stderr().as_fd().try_clone_to_owned()?.into()) };
        let mut command = self.command(coordinator);
        command.args(["upgrade", "--cluster", cluster, "--to", &to.to_string(), "--spec"]).arg(spec);
        command.args(["--yes", "--until", "finished"]).stdout(shown()?).stderr(shown()?).process_group(0);
        command.spawn().context("starting pilot upgrade")
    }

    /// The journal of the newest upgrade, read now; `None` while there is none.
    pub async fn journal(&self, coordinator: &str, known: &mut Option<String>) -> anyhow::Result<Option<Journal>> {
        if known.is_none() {
            *known = newest(&self.read(coordinator, &["status"]).await?);
        }
        let Some(id) = known.as_deref() else { return Ok(None) };
        let history = self.read(coordinator, &["history", id]).await?;
        Ok(Some(Journal::parse(id, &history)))
    }
}

fn url(address: &str) -> String {
    if address.starts_with("http") { address.to_owned() } else { format!("http://{address}") }
}

fn toml_path(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

fn agent_config(options: &AgentOptions, coordinator: &str, folder: &Path, password: &Path) -> String {
    let own = |suffix: &str| toml_path(&folder.join(format!("{}.{suffix}", options.id)));
    let mut text = format!(
        "agent_id = \"{}\"\ncluster = \"{}\"\ncoordinator = \"{coordinator}\"\nstate_file = {}\n\
         admin_listen = \"127.0.0.1:0\"\nadmin_address_file = {}\nhost_suffixes = [\"127.0.0.0/8\", \".rds.amazonaws.com\"]\n\n\
         [insecure]\nloopback_without_tls = true\n\n\
         [database]\nuser = \"{}\"\npassword_file = {}\nmaintenance_database = \"postgres\"\ntls = \"disable\"\n",
        options.id,
        options.cluster,
        own("sqlite"),
        own("admin"),
        options.login.0,
        toml_path(password),
    );
    for ingestion in &options.ingestion {
        text.push_str("\n[[ingestion]]\n");
        // Writing to a String cannot fail.
        let _ = match ingestion {
            Ingestion::Http { name, base_url } => {
                writeln!(text, "name = \"{name}\"\nkind = \"http\"\nbase_url = \"{base_url}\"")
            }
            Ingestion::Pgbouncer { admin, admin_user, databases, config_file } => writeln!(
                text,
                "name = \"bouncer\"\nkind = \"pgbouncer\"\nadmin = \"{admin}\"\nadmin_user = \"{admin_user}\"\n\
                 databases = {databases:?}\nconfig_file = {}",
                toml_path(config_file),
            ),
        };
    }
    text.push_str(
        "\n[[query]]\nname = \"orders_total\"\ndatabase = \"orders\"\nsql = \"select count(*), sum(amount) from public.orders\"\n\
         \n[[query]]\nname = \"ledger_sides\"\ndatabase = \"billing\"\n\
         sql = \"select side, count(*), sum(amount) from public.ledger group by side order by side\"\n",
    );
    text
}

/// The spec of the demo's upgrade: nothing waits for a person, nothing is kept afterwards.
pub fn spec(cluster: &str, to: u32, batch: &str, real_time: bool) -> String {
    let (poll, sustained, grace) = if real_time { (5.0, 30.0, 10.0) } else { (0.3, 3.0, 2.0) };
    format!(
        r#"cluster = "{cluster}"
to = "{to}"

[reboot]
policy = "allow"

[purge]
idle_grace_seconds = {grace:.1}
active_wait_seconds = 60.0
age_fallback_after_seconds = 20.0

[provisioning]
poll_seconds = {poll:.1}
stable_reads = 3
premake_hours = 144

[vacuum]
parallel = 2

[replication]
sustained_seconds = {sustained:.1}

[verify]
queries = ["orders_total", "ledger_sides"]
hold_budget_ms = 150

[switchover]
drain_ms = 200
long_transaction_ms = 2000
retry_after_seconds = 3.0

[[switchover.resubmit]]
database = "{database}"
role = "{batch}"
search_path = "\"$user\", public"
client_does_not_retry = true

[[switchover.resubmit]]
database = "billing"
role = "{batch}"
search_path = "\"$user\", public"
client_does_not_retry = true

[after]
refresh_views = true

[cleanup]
policy = "after_retention"
retention_seconds = 0
quiet_seconds = 2
"#,
        database = super::schema::NIGHTLY,
    )
}

fn connected_agents(document: &Value) -> usize {
    let own = usize::from(document.get("connected").and_then(Value::as_bool).unwrap_or(false));
    let inner =
        document.as_array().into_iter().flatten().chain(document.as_object().into_iter().flat_map(|map| map.values()));
    own + inner.map(connected_agents).sum::<usize>()
}

fn newest(status: &Value) -> Option<String> {
    let list = status.as_array().or_else(|| status.get("upgrades").and_then(Value::as_array));
    let first = list.map_or(Some(status), |list| list.first())?;
    let name =
        ["id", "upgrade", "upgrade_id", "run"].into_iter().find_map(|key| first.get(key).and_then(Value::as_str));
    name.map(str::to_owned)
}

/// One fact with the time it was written.
#[derive(Clone, Debug)]
pub struct FactSeen {
    /// When.
    pub at: Option<Timestamp>,
    /// `step_started`, `point_of_no_return` …
    pub kind: String,
    /// The whole of it.
    pub fact: Value,
}

/// What `pilot history` printed.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// The upgrade's id.
    pub id: String,
    /// All facts, oldest first.
    pub facts: Vec<FactSeen>,
}

/// One step as the summary shows it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StepSeen {
    /// Its id.
    pub id: String,
    /// From its first start to its last end, in seconds.
    pub seconds: f64,
    /// What it waited for, as the pilot names it.
    pub waits: Value,
    /// How often it was started.
    #[serde(skip)]
    pub attempts: u64,
    /// Since when, and until when.
    #[serde(skip)]
    pub span: (Timestamp, Timestamp),
}

impl StepSeen {
    /// What was no wait with a name: for AWS, for a policy, or for work of the databases.
    pub fn own_seconds(&self) -> f64 {
        let waits = self.waits.as_array().into_iter().flatten();
        let waited: f64 = waits.filter_map(|wait| wait["seconds"].as_f64()).sum();
        (self.seconds - waited).max(0.0)
    }
}

impl Journal {
    /// Reads facts wherever the document has them: a list, or a list under `facts` or `history`, plain or wrapped.
    pub fn parse(id: &str, document: &Value) -> Self {
        let list = document.as_array().or_else(|| {
            ["facts", "history", "records"].into_iter().find_map(|key| document.get(key).and_then(Value::as_array))
        });
        let facts = list.into_iter().flatten().filter_map(|record| {
            let fact = record.get("fact").unwrap_or(record);
            let kind = fact.get("kind")?.as_str()?.to_owned();
            let at = record.get("at").and_then(Value::as_str).and_then(|text| text.parse().ok());
            Some(FactSeen { at, kind, fact: fact.clone() })
        });
        Self { id: id.to_owned(), facts: facts.collect() }
    }

    /// Whether a fact of this kind is there.
    pub fn has(&self, kind: &str) -> bool {
        self.facts.iter().any(|fact| fact.kind == kind)
    }

    /// When a step was first started.
    pub fn started(&self, step: &str) -> Option<Timestamp> {
        let of_step = |fact: &&FactSeen| {
            fact.kind == "step_started" && fact.fact.get("step").and_then(Value::as_str) == Some(step)
        };
        self.facts.iter().find(of_step)?.at
    }

    /// How it ended, in the pilot's word.
    pub fn outcome(&self) -> Option<String> {
        let last = self.facts.iter().rev().find(|fact| fact.kind == "finished")?;
        last.fact.get("outcome").and_then(Value::as_str).map(str::to_owned)
    }

    /// All steps that were started, in order.
    pub fn steps(&self, status: Option<&Value>) -> Vec<StepSeen> {
        let mut steps: Vec<StepSeen> = Vec::new();
        for seen in &self.facts {
            let (Some(at), Some(id)) = (seen.at, seen.fact.get("step").and_then(Value::as_str)) else { continue };
            match (seen.kind.as_str(), steps.iter().position(|step| step.id == id)) {
                ("step_started", None) => {
                    let waits = status.and_then(|status| waits(status, id)).unwrap_or_else(|| Value::Array(Vec::new()));
                    steps.push(StepSeen { id: id.to_owned(), seconds: 0.0, waits, attempts: 1, span: (at, at) });
                }
                ("step_started", Some(n)) => steps[n].attempts += 1,
                ("step_done" | "step_failed" | "undo_done", Some(n)) => {
                    let step = &mut steps[n];
                    step.span.1 = at;
                    step.seconds = (at.duration_since(step.span.0).as_secs_f64() * 1000.0).round() / 1000.0;
                }
                _ => {}
            }
        }
        steps
    }

    /// All events that agents reported, of one kind.
    pub fn events(&self, name: &str) -> Vec<&Value> {
        self.facts.iter().filter(|fact| fact.kind == "observed").filter_map(|fact| event(&fact.fact, name)).collect()
    }

    /// Resubmission verdicts, by word.
    pub fn resubmitted(&self, verdict: &str) -> u64 {
        let word = |event: &&Value| {
            let told = event.get("verdict");
            let told = told.and_then(|told| told.as_str().or_else(|| told.get("verdict").and_then(Value::as_str)));
            told == Some(verdict)
        };
        self.events("resubmission").iter().filter(|event| word(event)).count() as u64
    }

    /// The extensions that were raised on the new side and what trying each of them showed, for a person.
    pub fn extensions(&self) -> Vec<String> {
        let of_step = |fact: &&FactSeen| {
            fact.kind == "step_done" && fact.fact.get("step").and_then(Value::as_str) == Some("post_switchover")
        };
        let output = self.facts.iter().rev().find(of_step).and_then(|fact| fact.fact.get("output"));
        let list = |name: &str| output.and_then(|output| output.get(name)?.as_array()).into_iter().flatten();
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let raised = list("extensions").map(|one| {
            format!("{} {} → {} in {}", text(one, "name"), text(one, "from"), text(one, "to"), text(one, "database"))
        });
        let tried = list("tests").map(|one| {
            let passed = one.get("passed").and_then(Value::as_bool) == Some(true);
            let verdict = if passed { "tried" } else { "failed" };
            format!("{} {verdict}: {}", text(one, "name"), text(one, "evidence"))
        });
        raised.chain(tried).collect()
    }

    /// The last failure in the journal, for a person.
    pub fn last_failure(&self) -> Option<String> {
        let last = self.facts.iter().rev().find(|fact| matches!(fact.kind.as_str(), "step_failed" | "stuck"))?;
        Some(last.fact.get("failure").unwrap_or(&last.fact).to_string())
    }
}

fn event<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    if value.get("event").and_then(Value::as_str) == Some(name) {
        return Some(value);
    }
    value.as_object()?.values().filter(|inner| inner.is_object()).find_map(|inner| event(inner, name))
}

fn waits(status: &Value, id: &str) -> Option<Value> {
    let steps = status.get("steps")?.as_array()?;
    let step =
        steps.iter().find(|step| step.get("id").or_else(|| step.get("step")).and_then(Value::as_str) == Some(id))?;
    step.get("waits").cloned()
}

/// What an exit code of `pilot upgrade` means.
pub fn outcome_of(code: Option<i32>) -> &'static str {
    match code {
        Some(0) => "succeeded",
        Some(1) => "unwound",
        Some(2) => "refused",
        _ => "stopped",
    }
}

/// Writes the spec and says where.
pub fn write_spec(folder: &Path, text: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join("upgrade.toml");
    std::fs::write(&file, text)?;
    ensure!(file.is_file(), "the spec was not written");
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_the_demo_writes_are_toml() {
        let options = AgentOptions {
            id: "agent-1".into(),
            cluster: "arn:aws:rds:us-east-1:123456789012:cluster:orders".into(),
            login: ("upgrade_pilot".into(), "x".into()),
            ingestion: vec![
                Ingestion::Http { name: "a".into(), base_url: "http://127.0.0.1:1".into() },
                Ingestion::Pgbouncer {
                    admin: "127.0.0.1:2".into(),
                    admin_user: "b".into(),
                    databases: vec!["orders".into()],
                    config_file: "/tmp/x.ini".into(),
                },
            ],
        };
        let text = agent_config(&options, "http://127.0.0.1:7", Path::new("/tmp/demo"), Path::new("/tmp/pw"));
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(read["ingestion"].as_array().unwrap().len(), 2);
        let read: toml::Table = toml::from_str(&spec("orders", 16, "batch", false)).unwrap();
        assert_eq!(read["switchover"]["resubmit"][0]["search_path"].as_str(), Some("\"$user\", public"));
    }

    #[test]
    fn connected_agents_are_counted_wherever_they_stand() {
        let document = serde_json::json!({"clusters": [{"cluster": "c", "agents": [
            {"agent": "agent-1", "connected": true}, {"agent": "agent-2", "connected": false}]}]});
        assert_eq!(connected_agents(&document), 1);
        assert_eq!(newest(&serde_json::json!({"upgrades": [{"id": "up-2"}, {"id": "up-1"}]})).as_deref(), Some("up-2"));
        assert_eq!(newest(&serde_json::json!({"upgrades": []})), None);
    }

    #[test]
    fn the_journal_is_read_in_steps_and_events() {
        let document = serde_json::json!([
            {"seq": 1, "at": "2026-11-23T00:00:00Z", "fact": {"kind": "step_started", "step": "prerequisites", "attempt": 1}},
            {"seq": 2, "at": "2026-11-23T00:00:02.5Z", "fact": {"kind": "step_done", "step": "prerequisites", "output": {}}},
            {"seq": 3, "at": "2026-11-23T00:00:03Z", "fact": {"kind": "observed", "source": "agent-1", "n": 1,
                "event": {"event": "resubmission", "verdict": {"verdict": "resubmitted"}}}},
            {"seq": 4, "at": "2026-11-23T00:00:04Z", "fact": {"kind": "step_done", "step": "post_switchover", "output": {
                "extensions": [{"database": "postgres", "name": "pg_cron", "from": "1.4-1", "to": "1.6"}],
                "tests": [{"name": "pg_cron", "version": "1.6", "passed": true, "evidence": "job 3 ran"}]}}},
            {"seq": 5, "at": "2026-11-23T00:00:04Z", "fact": {"kind": "finished", "outcome": "succeeded"}},
        ]);
        let journal = Journal::parse("u", &document);
        let steps = journal.steps(None);
        assert_eq!((steps[0].id.as_str(), steps[0].seconds), ("prerequisites", 2.5));
        assert_eq!(journal.resubmitted("resubmitted"), 1);
        assert_eq!(journal.resubmitted("refused"), 0);
        assert_eq!(journal.outcome().as_deref(), Some("succeeded"));
        assert_eq!(journal.extensions(), ["pg_cron 1.4-1 → 1.6 in postgres", "pg_cron tried: job 3 ran"]);
    }
}
