//! The agent's configuration: one TOML file, then `PILOT_AGENT_*` variables, then flags; checked once, whole.
//! Secrets are never in it, only where they are found.

mod ingestion;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use proto::ids::{AgentId, ClusterArn};
use runtime::admin::Bounds;
use runtime::telemetry::Format;
use serde::{Deserialize, Serialize};

use crate::link::runner::AtOnce;

pub use self::ingestion::{Ingestion, Kubernetes};

/// Everything the agent is told at its start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This agent's name: letters, digits, dots, hyphens and underscores, unique within the cluster.
    pub agent_id: AgentId,
    /// The one cluster that this agent is bound to: its full ARN.
    pub cluster: ClusterArn,
    /// `https://HOST:PORT` of the coordinator, or of several that share a store, separated by commas; `http://` to this
    /// machine only, where `insecure` says so. Also `--coordinator`.
    pub coordinator: String,
    /// TLS 1.3 to the coordinator; needed for `https://`.
    pub tls: Option<LinkTls>,
    /// What is allowed without protection.
    #[serde(default)]
    pub insecure: Insecure,
    /// The agent's own memory, one SQLite file; keep it over restarts. Pause marks lie in a folder beside it. Also
    /// `--state-file`.
    pub state_file: PathBuf,
    /// Where `/metrics`, `/livez`, `/readyz` and `/debug/tasks` are served, plain; with port 0 the system chooses one.
    #[serde(default = "loopback")]
    pub admin_listen: SocketAddr,
    /// Gets the bound admin address as one line.
    pub admin_address_file: Option<PathBuf>,
    /// Hosts that may be connected to: DNS suffixes (`rds.amazonaws.com`) or address blocks (`10.0.0.0/8`), not none.
    pub host_suffixes: Vec<HostRule>,
    /// How databases are reached; the same for all sides.
    pub database: Database,
    /// One `[[ingestion]]` for each system that writes, and for each PgBouncer that clients are behind.
    #[serde(default)]
    pub ingestion: Vec<Ingestion>,
    /// Business queries that both sides are to answer alike. A spec names them.
    #[serde(default)]
    pub query: Vec<Query>,
    /// What this agent bears.
    #[serde(default)]
    pub limits: Limits,
    /// Logs, on stderr.
    #[serde(default)]
    pub log: Log,
}

/// What this agent bears.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Events kept for a coordinator that does not acknowledge them; beyond it the oldest go that are seen again, never what
    /// was done, and it is counted.
    pub events_max: usize,
    /// Jobs that run or wait; one more is refused, and asked for again by the coordinator.
    pub jobs_max: usize,
    /// Long jobs (vacuum, comparison, statistics) that run at once; the others wait for their turn.
    pub long_jobs_max: usize,
    /// Of `/metrics` and the like.
    pub admin: Bounds,
}

impl Default for Limits {
    fn default() -> Limits {
        let at_once = AtOnce::default();
        Limits {
            events_max: 10_000,
            jobs_max: at_once.jobs_max,
            long_jobs_max: at_once.long_jobs_max,
            admin: Bounds::default(),
        }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// TLS 1.3 to the coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTls {
    /// With `tls.crt`, `tls.key` and `ca.crt`, as cert-manager mounts them; read again when they change.
    pub folder: PathBuf,
    /// The name in the coordinator's certificate, where it is not the host of `coordinator`.
    pub server_name: Option<String>,
}

/// What is allowed without protection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Insecure {
    /// In place of `tls.folder`: a plain connection to a coordinator on this machine.
    pub loopback_without_tls: bool,
    /// Core dumps as the system would write them; they hold every secret of the process.
    pub core_dumps: bool,
}

/// How databases are reached; the same for all sides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The role of `deploy/sql/agent_role.sql`.
    pub user: String,
    /// The password, on its first line; read again when a server refuses it. This or `password_command`.
    pub password_file: Option<PathBuf>,
    /// Prints the password on its first line (an IAM token, say): program and arguments, run for each server, which `PGHOST`, `PGPORT`
    /// and `PGUSER` name, and again when the server refuses it. This or `password_file`.
    pub password_command: Option<Vec<String>>,
    /// The database that is connected to first, to find the others.
    #[serde(default = "maintenance_database")]
    pub maintenance_database: String,
    /// How connections to databases are protected.
    #[serde(default)]
    pub tls: Tls,
    /// Certificates (PEM) to trust instead of the system's own.
    pub tls_ca_file: Option<PathBuf>,
}

fn maintenance_database() -> String {
    "postgres".into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    #[default]
    VerifyFull,
    /// Accepted only where every address that a host has is a loopback one.
    Disable,
}

/// A key business query. Its SQL stands here and never crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// What a spec calls it, in `verify.queries`.
    pub name: String,
    /// The database it runs in.
    pub database: String,
    /// One `SELECT`. It stands here and never crosses the wire.
    pub sql: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How a line looks; `json` is one object a line.
    pub format: Format,
    /// `tracing` directives; the environment variable `RUST_LOG` wins.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: Format::Text, filter: "info".into() }
    }
}

/// A DNS suffix or a block of addresses that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostRule {
    Suffix(String),
    Block { network: IpAddr, bits: u8 },
}

impl TryFrom<String> for HostRule {
    type Error = String;

    fn try_from(text: String) -> Result<HostRule, String> {
        text.parse()
    }
}

impl From<HostRule> for String {
    fn from(rule: HostRule) -> String {
        match rule {
            HostRule::Suffix(suffix) => suffix,
            HostRule::Block { network, bits } => format!("{network}/{bits}"),
        }
    }
}

impl FromStr for HostRule {
    type Err = String;

    fn from_str(text: &str) -> Result<HostRule, String> {
        let Some((network, bits)) = text.split_once('/') else {
            let suffix = text.trim_start_matches('.').to_ascii_lowercase();
            return if suffix.is_empty() || suffix.parse::<IpAddr>().is_ok() {
                Err(format!("{text:?} is neither a DNS suffix nor an address block: write example.com or 10.0.0.0/8"))
            } else {
                Ok(HostRule::Suffix(suffix))
            };
        };
        let network: IpAddr = network.parse().map_err(|_| format!("{network:?} is not an address"))?;
        let width = if network.is_ipv4() { 32 } else { 128 };
        match bits.parse::<u8>() {
            Ok(bits) if bits <= width => Ok(HostRule::Block { network, bits }),
            _ => Err(format!("/{bits} is not a prefix length of {network}")),
        }
    }
}

impl HostRule {
    /// Does the rule allow `host`, a name or an address?
    pub fn allows(&self, host: &str) -> bool {
        match (self, host.parse::<IpAddr>()) {
            (HostRule::Suffix(suffix), Err(_)) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                host == *suffix || host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            (HostRule::Block { network, bits }, Ok(address)) => in_block(*network, *bits, address),
            _ => false,
        }
    }
}

fn in_block(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let high = |value: u128, width: u32| value.checked_shr(width - u32::from(bits)).unwrap_or(0);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            high(u32::from(network).into(), 32) == high(u32::from(address).into(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => high(network.into(), 128) == high(address.into(), 128),
        _ => false,
    }
}

/// The configuration is not usable: which key, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration cannot be read; compare it with the documented keys")]
    Read(#[source] config::ConfigError),
    #[error("{key}: {what}; {cure}")]
    Value { key: String, what: String, cure: String },
}

fn wrong(key: impl Into<String>, what: impl Into<String>, cure: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), what: what.into(), cure: cure.into() }
}

impl Config {
    /// Reads `file`, lays `PILOT_AGENT_*` variables over it (`PILOT_AGENT_DATABASE__USER` for `database.user`), then
    /// `flags` (key, value), and checks the whole.
    pub fn load(file: &Path, flags: &[(&str, String)]) -> Result<Config, ConfigError> {
        let variables = config::Environment::with_prefix("PILOT_AGENT").prefix_separator("_").separator("__");
        let mut builder = config::Config::builder()
            .add_source(config::File::from(file).format(config::FileFormat::Toml))
            .add_source(variables);
        for (key, value) in flags {
            builder = builder.set_override(*key, value.as_str()).map_err(ConfigError::Read)?;
        }
        let read = builder.build().and_then(config::Config::try_deserialize::<Config>);
        read.map_err(ConfigError::Read)?.checked()
    }

    fn checked(self) -> Result<Config, ConfigError> {
        self.checked_link()?;
        if self.host_suffixes.is_empty() {
            return Err(wrong("host_suffixes", "is empty", "name the DNS suffix or address block of your databases"));
        }
        match (&self.database.password_file, &self.database.password_command) {
            (Some(_), None) => {}
            (None, Some(command)) if !command.is_empty() => {}
            _ => {
                let cure = "give exactly one of password_file and password_command";
                return Err(wrong("database", "has no single source of the password", cure));
            }
        }
        for (key, value, least, most) in [
            ("limits.events_max", self.limits.events_max, 100, 1_000_000),
            // Fewer could not take the urgent jobs of one cut beside long ones.
            ("limits.jobs_max", self.limits.jobs_max, 16, 1024),
            ("limits.long_jobs_max", self.limits.long_jobs_max, 1, 16),
        ] {
            if !(least..=most).contains(&value) {
                return Err(wrong(key, format!("{value} is not from {least} to {most}"), "leave it away"));
            }
        }
        if let Some(why) = self.limits.admin.wrong() {
            return Err(wrong("limits.admin", why, "write numbers within"));
        }
        self.checked_ingestion()?;
        unique("query", self.query.iter().map(|query| query.name.as_str()))?;
        Ok(self)
    }

    /// Every coordinator, where they are several.
    fn checked_link(&self) -> Result<(), ConfigError> {
        self.coordinator.split(',').try_for_each(|one| self.checked_coordinator(one.trim()))
    }

    fn checked_coordinator(&self, url: &str) -> Result<(), ConfigError> {
        let insecure = "insecure.loopback_without_tls";
        match (url.split_once("://").map(|(scheme, _)| scheme), &self.tls) {
            (Some("https"), Some(_)) if self.insecure.loopback_without_tls => {
                Err(wrong(insecure, "is asked for beside tls.folder", "give only one of the two"))
            }
            (Some("https"), Some(_)) => Ok(()),
            (Some("https"), None) => {
                Err(wrong("tls.folder", "is missing", "name the folder of tls.crt, tls.key and ca.crt"))
            }
            (Some("http"), _) if !self.insecure.loopback_without_tls => {
                let what = format!("is not true, and {url} is without TLS");
                Err(wrong(insecure, what, "write https://HOST:PORT and tls.folder"))
            }
            (Some("http"), _) if !runtime::tls::is_loopback_url(url) => {
                let what = "is without TLS, and not an address of this machine";
                Err(wrong("coordinator", what, "write https://HOST:PORT and tls.folder"))
            }
            (Some("http"), Some(_)) => {
                Err(wrong("coordinator", "is without TLS beside tls.folder", "write https://HOST:PORT"))
            }
            (Some("http"), None) => Ok(()),
            _ => Err(wrong("coordinator", "is not an https:// address", "write https://HOST:PORT")),
        }
    }

    fn checked_ingestion(&self) -> Result<(), ConfigError> {
        unique("ingestion", self.ingestion.iter().map(Ingestion::name))?;
        for system in &self.ingestion {
            let name = system.name();
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                let cure = "use letters, digits, dots, hyphens and underscores";
                return Err(wrong("ingestion.name", format!("{name:?} is not a name"), cure));
            }
            if let Some((key, what, cure)) = system.wrong() {
                return Err(wrong(format!("ingestion {name}: {key}"), what, cure));
            }
        }
        Ok(())
    }

    /// Whose pauses are this agent's, wherever they are written down.
    pub fn owner(&self) -> String {
        format!("{} {}", self.cluster, self.agent_id)
    }

    /// Where pause marks are kept: a folder beside the state file.
    pub fn marks_dir(&self) -> PathBuf {
        self.state_file.with_extension("marks")
    }
}

fn unique<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(wrong(format!("{key}.name"), format!("{name:?} stands twice"), "give each its own name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
agent_id = "agent-1"
cluster = "arn:aws:rds:us-east-1:123456789012:cluster:orders"
coordinator = "http://127.0.0.1:7400"
state_file = "/var/lib/agent.sqlite"
host_suffixes = ["127.0.0.0/8", "rds.amazonaws.com"]
[insecure]
loopback_without_tls = true
[database]
user = "upgrade_pilot"
password_file = "/etc/pw"
tls = "disable"
[[ingestion]]
name = "bouncer"
kind = "pgbouncer"
admin = "127.0.0.1:6432"
admin_user = "admin"
databases = ["orders"]
config_file = "/etc/databases.ini"
[[query]]
name = "orders_total"
database = "orders"
sql = "select 1"
"#;

    fn load(name: &str, text: &str) -> Result<Config, String> {
        let file = std::env::temp_dir().join(format!("config-{name}-{}.toml", std::process::id()));
        std::fs::write(&file, text).unwrap();
        Config::load(&file, &[]).map_err(|error| runtime::supervision::chain(&error))
    }

    #[test]
    fn the_documented_file_is_read() {
        let config = load("whole", WHOLE).unwrap();
        assert_eq!((config.database.tls, config.ingestion[0].name()), (Tls::Disable, "bouncer"));
        assert_eq!(config.admin_listen.port(), 0);
    }

    fn other(kind: &str, keys: &str) -> String {
        format!("[[ingestion]]\nname = \"other\"\nkind = \"{kind}\"\n{keys}\n[[query]]")
    }

    #[test]
    fn systems_that_people_have_are_read() {
        let connect =
            "base_url = \"https://connect:8083\"\nconnectors = [\"a\"]\nuser = \"u\"\npassword_file = \"/pw\"";
        let workload =
            "workload = \"deployment/writer\"\nnamespace = \"ingest\"\nbacklog_url = \"http://writer/backlog\"";
        for (kind, keys) in
            [("kafka_connect", connect), ("kubernetes", workload), ("kubernetes", "scaled_object = \"x\"")]
        {
            let config = load("people", &WHOLE.replace("[[query]]", &other(kind, keys))).unwrap();
            assert_eq!(config.ingestion[1].name(), "other");
            assert_eq!(
                crate::ingestion::controllers(&config.ingestion, &config.owner(), &runtime::clock::Clock::system())
                    .len(),
                2
            );
        }
    }

    #[test]
    fn an_error_names_the_key_and_the_cure() {
        let system = |keys: &str| other("kubernetes", keys);
        let connect =
            |url: &str, rest: &str| other("kafka_connect", &format!("base_url = \"{url}\"\nconnectors = {rest}"));
        let wrong: [(&str, &str, &str); 22] = [
            ("agent_id = \"agent-1\"", "agent_id = \"agent 1\"", "for key `agent_id`"),
            ("user =", "usr =", "unknown field `usr`"),
            ("http://127.0.0.1:7400", "127.0.0.1:7400", "coordinator: is not an https:// address; write"),
            ("http://127.0.0.1", "http://10.0.0.1", "coordinator: is without TLS, and not an address of this machine"),
            ("http://127.0.0.1", "https://127.0.0.1", "tls.folder: is missing"),
            ("loopback_without_tls = true", "", "insecure.loopback_without_tls: is not true"),
            ("[insecure]", "[tls]\nfolder = \"/tls\"\n[insecure]", "is without TLS beside tls.folder"),
            ("password_file = \"/etc/pw\"\n", "", "give exactly one of password_file and password_command"),
            ("127.0.0.0/8", "127.0.0.0/33", "for key `host_suffixes[0]`"),
            ("databases = [\"orders\"]", "databases = []", "ingestion bouncer: databases: is empty"),
            (
                "[[query]]",
                &system("workload = \"pod/x\""),
                "ingestion other: workload, scaled_object: not exactly one thing",
            ),
            ("[[query]]", &system("scaled_object = \"x\"\ncontext = \"lab\""), "context: is given without kubeconfig"),
            (
                "[[query]]",
                &system("scaled_object = \"x\"\npause_seconds_max = 4"),
                "pause_seconds_max: 4 is not from 5 to 120",
            ),
            ("[[query]]", &system("scaled_object = \"x\"\nreplicas = 0"), "unknown field `replicas`"),
            ("[[query]]", &connect("http://connect:8083", "[]"), "ingestion other: connectors: names none"),
            ("[[query]]", &connect("connect:8083", "[\"a\"]"), "base_url: is not an http:// or https:// address"),
            ("[[query]]", &connect("http://c", "[\"a\"]\nuser = \"u\""), "user, password_file: one of them is missing"),
            (
                "[[query]]",
                &connect("http://c", "[\"a\"]\nuser = \"u\"\npassword_file = \"/pw\""),
                "base_url: is without TLS, and a password would go there",
            ),
            ("[insecure]", "[limits]\nevents_max = 1\n[insecure]", "limits.events_max: 1 is not from"),
            ("[insecure]", "[limits]\njobs_max = 15\n[insecure]", "limits.jobs_max: 15 is not from 16 to 1024"),
            ("[insecure]", "[limits]\nlong_jobs_max = 0\n[insecure]", "limits.long_jobs_max: 0 is not from 1 to 16"),
            ("[insecure]", "[limits.admin]\nconnections_max = 0\n[insecure]", "limits.admin: connections_max is"),
        ];
        for (at, (from, to, said)) in wrong.into_iter().enumerate() {
            let error = load(&format!("wrong-{at}"), &WHOLE.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(said), "{said:?} is not in {error:?}");
        }
    }

    #[test]
    fn only_hosts_under_a_rule_are_allowed() {
        let suffix: HostRule = "rds.amazonaws.com".parse().unwrap();
        let block: HostRule = "10.1.0.0/16".parse().unwrap();
        for host in ["rds.amazonaws.com", "orders.RDS.amazonaws.com", "a.b.rds.amazonaws.com."] {
            assert!(suffix.allows(host), "{host}");
        }
        for host in ["evilrds.amazonaws.com", "rds.amazonaws.com.evil.org", "10.1.2.3"] {
            assert!(!suffix.allows(host), "{host}");
        }
        assert!(block.allows("10.1.255.1") && !block.allows("10.2.0.1") && !block.allows("10.1.2.3.example.com"));
        assert!("::/0".parse::<HostRule>().unwrap().allows("::1"));
        assert!("0.0.0.0/0".parse::<HostRule>().unwrap().allows("127.0.0.1"));
    }

    #[test]
    fn any_bytes_in_the_configuration_are_refused_or_load() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "config").seed(WHOLE);
        target
            .words(&["::1/129", "0.0.0.0/33", "[[ingestion]]\n", "kind = 'http'\n", "'/0'", "host_suffixes = ['."])
            .run(|bytes| match load("bytes", &String::from_utf8_lossy(bytes)) {
                Ok(config) => {
                    config.host_suffixes.iter().any(|rule| rule.allows("orders.rds.amazonaws.com")).to_string()
                }
                Err(error) => error.split(['`', '"']).next().unwrap_or_default().to_owned(),
            });
    }
}
