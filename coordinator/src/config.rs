//! The server's configuration: one TOML file, overridden by environment variables (`PILOT_SERVE_LISTEN`,
//! `PILOT_SERVE_STORE__PATH` …), then by flags. Validated once; an unknown key is an error that names it.
//!
//! It holds no secret but perhaps an address of a hook: AWS credentials come from the SDK's own chain, everything else from files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};
use runtime::admin::Bounds;
use runtime::telemetry::Format;
use serde::{Deserialize, Serialize};

use crate::hooks::settings::{self, HookSettings};
use crate::store::{Place, SAMPLES_MAX, Tls};

/// Everything `pilot serve` is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// gRPC for agents and operators. Also `--listen`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where agents and people reach this coordinator (`https://HOST:PORT`), told by the others that stand by; `listen`
    /// where it is not given. For several on one store.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Web page, `/metrics`, `/livez`, `/readyz`, `/debug/tasks`. Also `--admin-listen`.
    #[serde(default = "default_admin")]
    pub admin_listen: SocketAddr,
    /// Gets `{"grpc": …, "admin": …}` once bound, so that ports may be 0.
    #[serde(default)]
    pub address_file: Option<PathBuf>,
    /// The one AWS region that this coordinator serves.
    pub region: String,
    /// Where journals are kept.
    pub store: StorePlace,
    /// Protection of every connection, TLS 1.3; without it `insecure` has to say so.
    #[serde(default)]
    pub tls: Option<OwnTls>,
    /// Operators by tokens, beside those by certificates; takes `tls`.
    #[serde(default)]
    pub oidc: Option<Oidc>,
    /// What is allowed without protection.
    #[serde(default)]
    pub insecure: Insecure,
    /// How long commands hold without renewal.
    #[serde(default)]
    pub lease: Lease,
    /// What this coordinator bears of others.
    #[serde(default)]
    pub limits: Limits,
    /// Logs, on stderr.
    #[serde(default)]
    pub log: Log,
    /// Where people reach the web page, for links in what hooks are told.
    #[serde(default)]
    pub page_url: Option<String>,
    /// What else is asked before steps, and told of them.
    #[serde(default)]
    pub hooks: Vec<HookSettings>,
}

/// What this coordinator bears of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Agents attached at once, of all clusters; one more is turned away (PU0115) and dials on. Each needs an open file:
    /// allow the process (`LimitNOFILE`) a few hundred more.
    pub agents_max: usize,
    /// Samples kept of one upgrade for charts, in the store; the oldest go first.
    pub samples_max: u32,
    /// Pages that are kept up to date at once; never more than half of `admin.connections_max`.
    pub live_max: usize,
    /// Of the web page and `/metrics`.
    pub admin: Bounds,
}

impl Limits {
    /// Live pages must leave connections for all else.
    pub fn live(&self) -> usize {
        self.live_max.min(self.admin.connections_max / 2)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { agents_max: 2000, samples_max: SAMPLES_MAX, live_max: 32, admin: Bounds::default() }
    }
}

/// Where journals are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StorePlace {
    /// One file, of this coordinator alone.
    Sqlite {
        /// The file of the journals; a second process on it is refused.
        path: PathBuf,
    },
    /// A database that several coordinators share.
    Postgres(Place),
}

/// TLS 1.3, for agents, operators and the web page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnTls {
    /// With `tls.crt`, `tls.key` and `ca.crt`, as cert-manager mounts them; read again when they change.
    pub folder: PathBuf,
    /// Certificates that were withdrawn, as `pilot agents revoke` or any authority lists them (PEM); read again when it changes.
    #[serde(default)]
    pub crl_file: Option<PathBuf>,
}

/// A provider of OpenID Connect whose tokens name operators. Agents always show a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// As it stands in the tokens (`iss`), an https:// address.
    pub issuer: String,
    /// What the provider calls this coordinator (`aud`).
    pub audience: String,
    /// The provider's keys: a file or an https:// address; found by the issuer where it is not given.
    #[serde(default)]
    pub jwks: Option<String>,
    /// Certificates (PEM) of the authorities that the provider's must come from; the system's where it is not given.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The claim that lists roles or groups; with dots, one inside others.
    #[serde(default = "default_role_claim")]
    pub role_claim: String,
    /// Which values of the claim give which role.
    #[serde(default)]
    pub roles: RoleNames,
}

/// Which values of the claim give which role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoleNames {
    /// Values of the claim that may look.
    pub view: Vec<String>,
    /// Values of the claim that may look, start, pause, resume and abort.
    pub operate: Vec<String>,
    /// Values of the claim that may look and approve.
    pub approve: Vec<String>,
}

impl Default for RoleNames {
    fn default() -> RoleNames {
        let one = |name: &str| vec![name.to_owned()];
        RoleNames { view: one("pilot-view"), operate: one("pilot-operate"), approve: one("pilot-approve") }
    }
}

/// What is allowed without protection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Insecure {
    /// In place of `tls.folder`: plain connections, both addresses loopback; whoever can dial may do everything.
    pub loopback_without_tls: bool,
    /// Core dumps as the system would write them; they hold every secret of the process.
    pub core_dumps: bool,
}

/// How long commands hold without renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lease {
    /// A driver's over its upgrade, and the lead among coordinators; at least three times `call_seconds`.
    pub driver_seconds: u64,
    /// How long agents obey without renewal.
    pub agent_seconds: u64,
    /// The longest a changing call to AWS may take; at most a third of the driver's.
    pub call_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How a line looks; `json` is one object a line.
    pub format: Format,
    /// `tracing` directives; the environment variable `RUST_LOG` wins.
    pub filter: String,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease { driver_seconds: 10, agent_seconds: 15, call_seconds: 3 }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { format: Format::Text, filter: "info".to_owned() }
    }
}

impl Lease {
    pub fn driver(&self) -> Duration {
        Duration::from_secs(self.driver_seconds)
    }

    pub fn agent(&self) -> Duration {
        Duration::from_secs(self.agent_seconds)
    }

    pub fn call(&self) -> Duration {
        Duration::from_secs(self.call_seconds)
    }
}

fn default_role_claim() -> String {
    "roles".to_owned()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7400))
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7401))
}

/// A configuration that cannot be used: what is wrong, and what to write.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration {path} cannot be read")]
    Read { path: PathBuf, source: config::ConfigError },
    #[error("{key} in {path}: {wrong}; {cure}")]
    Wrong { path: PathBuf, key: &'static str, wrong: String, cure: &'static str },
}

/// Flags that win over file and environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub listen: Option<SocketAddr>,
    pub admin_listen: Option<SocketAddr>,
}

impl Config {
    /// Reads, overrides, validates.
    ///
    /// # Errors
    /// Names the file, and the key where one is at fault.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let environment =
            Environment::with_prefix("PILOT_SERVE").prefix_separator("_").separator("__").try_parsing(true);
        let layers = config::Config::builder()
            .add_source(File::from(path).format(FileFormat::Toml))
            .add_source(environment)
            .build()
            .map_err(failed)?;
        let mut config: Config = layers.try_deserialize().map_err(failed)?;
        config.listen = overrides.listen.unwrap_or(config.listen);
        config.admin_listen = overrides.admin_listen.unwrap_or(config.admin_listen);
        config.validate(path)?;
        Ok(config)
    }

    fn validate(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key, wrong: String, cure| Err(ConfigError::Wrong { path: path.to_owned(), key, wrong, cure });
        match (&self.tls, self.insecure.loopback_without_tls) {
            (Some(_), false) => {}
            (None, true) => {
                for (key, address) in [("listen", self.listen), ("admin_listen", self.admin_listen)] {
                    if !address.ip().is_loopback() {
                        let cure = "give tls.folder, or listen on 127.0.0.1";
                        return wrong(key, format!("without TLS, and {address} is not a loopback address"), cure);
                    }
                }
            }
            (None, false) => {
                let cure = "name the folder of tls.crt, tls.key and ca.crt (`pilot agents enrol` makes one), or set \
                            insecure.loopback_without_tls to true";
                return wrong("tls.folder", "it is missing".to_owned(), cure);
            }
            (Some(_), true) => {
                let cure = "give only one of the two";
                return wrong("insecure.loopback_without_tls", "tls.folder is given too".to_owned(), cure);
            }
        }
        if let Some(oidc) = &self.oidc {
            if self.tls.is_none() {
                let cure = "give tls.folder: a token is a secret, and taken over protected connections only";
                return wrong("oidc", "there is no TLS".to_owned(), cure);
            }
            if !oidc.issuer.starts_with("https://") || oidc.audience.is_empty() {
                let cure = "write the provider's https:// address as it stands in its tokens, and who they are for";
                return wrong("oidc.issuer", "issuer or audience cannot be".to_owned(), cure);
            }
            if oidc.jwks.as_ref().is_some_and(|place| place.starts_with("http://")) {
                let cure = "write a file or an https:// address";
                return wrong("oidc.jwks", "keys over a plain connection are anybody's".to_owned(), cure);
            }
        }
        if let StorePlace::Postgres(place) = &self.store
            && place.tls == Tls::Disable
            && !place.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        {
            return wrong(
                "store.tls",
                format!("{:?} is no loopback address and the connection is not protected", place.host),
                "leave store.tls away, or write an address as 127.0.0.1",
            );
        }
        if self.region.is_empty() {
            return wrong("region", "it is empty".to_owned(), "write the AWS region, as us-east-1");
        }
        let lease = &self.lease;
        if lease.call_seconds == 0 || lease.agent_seconds == 0 || lease.driver_seconds < 3 * lease.call_seconds {
            return wrong(
                "lease",
                "a changing call may take more than a third of the driver's lease, or a lease is 0".to_owned(),
                "write call_seconds of at most a third of driver_seconds, and agent_seconds above 0",
            );
        }
        if !(1..=100_000).contains(&self.limits.agents_max) {
            let cure = "write a number from 1 to 100000, below the open files that the system allows";
            return wrong("limits.agents_max", self.limits.agents_max.to_string(), cure);
        }
        if !(1_000..=1_000_000).contains(&self.limits.samples_max) {
            let cure = "write a number from 1000 to 1000000";
            return wrong("limits.samples_max", self.limits.samples_max.to_string(), cure);
        }
        if !(1..=5000).contains(&self.limits.live_max) {
            return wrong("limits.live_max", self.limits.live_max.to_string(), "write a number from 1 to 5000");
        }
        if let Some(why) = self.limits.admin.wrong() {
            return wrong("limits.admin", why.to_owned(), "write numbers within");
        }
        if self.page_url.as_ref().is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            return wrong("page_url", "it is no address".to_owned(), "write https://HOST, as people type it");
        }
        if let Err(why) = settings::validate(&self.hooks) {
            return wrong("hooks", why, "see deploy/hooks/README.md");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "region = 'us-east-1'\n[store]\nkind = 'sqlite'\npath = 'pilot.sqlite'\n\
                        [insecure]\nloopback_without_tls = true\n";

    fn load(name: &str, text: &str) -> Result<Config, ConfigError> {
        let path = std::env::temp_dir().join(format!("pilot-config-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path, &Overrides::default());
        std::fs::remove_file(&path).unwrap();
        config
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = load("small", GOOD).unwrap();
        assert_eq!((config.listen.port(), config.lease.driver_seconds), (7400, 10));
    }

    #[test]
    fn a_shared_store_is_named_without_a_secret() {
        let text = GOOD.replace(
            "kind = 'sqlite'\npath = 'pilot.sqlite'",
            "kind = 'postgres'\nhost = 'store.example'\ndatabase = 'pilot'\nuser = 'pilot'",
        );
        let config = load("shared", &text).unwrap();
        let StorePlace::Postgres(place) = config.store else { panic!("{:?}", config.store) };
        assert_eq!((place.port, place.tls), (5432, Tls::VerifyFull));
        let secret = text.replace("user =", "password = 'x'\nuser =");
        assert!(runtime::supervision::chain(&load("secret", &secret).unwrap_err()).contains("password"));
    }

    #[test]
    fn the_example_of_several_coordinators_can_be_used() {
        let config = load("example", include_str!("../../deploy/coordinators.toml")).unwrap();
        assert!(matches!(config.store, StorePlace::Postgres(_)));
    }

    #[test]
    fn with_tls_any_address_may_be_listened_on() {
        let open = format!(
            "listen = '0.0.0.0:7400'\n{}",
            GOOD.replace("[insecure]\nloopback_without_tls = true", "[tls]\nfolder = '/etc/tls'")
        );
        assert_eq!(load("tls", &open).unwrap().tls.unwrap().folder, Path::new("/etc/tls"));
    }

    #[test]
    fn a_provider_of_tokens_is_named_by_issuer_and_audience() {
        let text = GOOD.replace("[insecure]\nloopback_without_tls = true", "[tls]\nfolder = '/etc/tls'");
        let oidc = "[oidc]\nissuer = 'https://id.example'\naudience = 'pilot'\n";
        let oidc = load("oidc", &format!("{text}{oidc}[oidc.roles]\noperate = ['dba']\n")).unwrap().oidc.unwrap();
        assert_eq!((oidc.role_claim.as_str(), oidc.roles.operate.as_slice()), ("roles", &["dba".to_owned()][..]));
        assert_eq!(oidc.roles.approve, ["pilot-approve"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |name: &str, text: String, expected: &str| {
            let error = runtime::supervision::chain(&load(name, &text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check("unknown", format!("listn = '127.0.0.1:1'\n{GOOD}"), "listn");
        check("open", format!("listen = '0.0.0.0:7400'\n{GOOD}"), "not a loopback address");
        check("plain", GOOD.replace("true", "false"), "tls.folder");
        check("both", format!("{GOOD}[tls]\nfolder = '/etc/tls'\n"), "only one of the two");
        let open_store = "kind = 'postgres'\nhost = 'store.example'\ndatabase = 'p'\nuser = 'p'\ntls = 'disable'";
        check("store", GOOD.replace("kind = 'sqlite'\npath = 'pilot.sqlite'", open_store), "store.tls");
        let oidc = "[oidc]\nissuer = 'https://id.example'\naudience = 'pilot'\n";
        check("oidc-plain", format!("{GOOD}{oidc}"), "oidc");
        let tls = GOOD.replace("[insecure]\nloopback_without_tls = true", "[tls]\nfolder = '/etc/tls'");
        check("oidc-issuer", format!("{tls}{}", oidc.replace("https", "http")), "oidc.issuer");
        check("oidc-keys", format!("{tls}{oidc}jwks = 'http://id.example/keys'\n"), "oidc.jwks");
        check("oidc-key", format!("{tls}{oidc}secret = 'x'\n"), "secret");
        check("lease", format!("{GOOD}[lease]\ncall_seconds = 20\n"), "third");
        check("agents", format!("{GOOD}[limits]\nagents_max = 0\n"), "limits.agents_max");
        check("samples", format!("{GOOD}[limits]\nsamples_max = 999\n"), "limits.samples_max");
        check("admin", format!("{GOOD}[limits.admin]\nhead_seconds_max = 0\n"), "limits.admin");
    }

    #[test]
    fn any_bytes_in_the_configuration_are_refused_or_load() {
        let whole = format!(
            "listen = '127.0.0.1:1'\n{GOOD}[lease]\ndriver_seconds = 30\nagent_seconds = 15\ncall_seconds = 10\n\
             [limits]\nagents_max = 10\n[limits.admin]\nconnections_max = 3\n"
        );
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "config").seed(whole);
        target.words(&["[::1]:0", "0.0.0.0:1", "[store]\n", "kind = 'postgres'\n", "''"]).run(|bytes| {
            match load("bytes", &String::from_utf8_lossy(bytes)) {
                Ok(_) => "valid".into(),
                Err(error) => {
                    runtime::supervision::chain(&error).split(['`', '"']).next().unwrap_or_default().to_owned()
                }
            }
        });
    }
}
