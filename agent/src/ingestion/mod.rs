//! Ingestion systems: one file each, chosen by `kind` in the configuration. A controller pauses and resumes; when that is
//! done, and for how long at most, is `gate`'s business.

pub mod command;
pub mod http;
pub mod kafka_connect;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod observer;
pub mod pgbouncer;
mod web;

use std::{future::Future, io, net::SocketAddr, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use proto::report::IngestionState;
use runtime::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::config::Ingestion;

/// A pause must have come about within this, unless a system says that it takes longer; in a hold always.
pub const PAUSE_WITHIN: Duration = Duration::from_secs(5);
/// A system that was asked and does not say that it did it is asked again: something that was asked before and given up may have
/// come after it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A boxed future, so that controllers can be kept in one list.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A controller could not do or see something.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{doing}: {what}")]
    Failed { doing: String, what: String },
    #[error("{doing}: not done within {limit_ms} ms; last seen {last:?}")]
    NotInTime { doing: String, limit_ms: u64, last: String },
}

pub(crate) fn failed(doing: impl Into<String>, what: impl std::fmt::Display) -> ControlError {
    ControlError::Failed { doing: doing.into(), what: what.to_string() }
}

/// What a system says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub state: IngestionState,
    pub backlog: Option<u64>,
    /// Rows, messages or statements a second.
    pub rate: Option<f64>,
}

/// Says who paused a system and until when; kept beside the state file, so that a later process undoes only its own pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseMark {
    pub upgrade: String,
    pub since: Timestamp,
    pub expires_at: Timestamp,
    /// What the system was like before, in its own words: what a resume must not touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// Where the side that serves is, by address: names may still lead to the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    pub writer: SocketAddr,
    /// `None` when it has none.
    pub reader: Option<SocketAddr>,
}

/// One ingestion system. One file; registered by one line in [`controllers`]; chosen by `kind` in the configuration.
pub trait IngestionController: Send + Sync {
    fn name(&self) -> &str;
    fn kind(&self) -> &'static str;
    /// Running, paused or mixed; backlog and rate where they are known.
    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>>;
    /// How long a pause outside of a hold may take.
    fn pause_within(&self) -> Duration {
        PAUSE_WITHIN
    }
    /// What a resume must know of the time before the pause; asked before the mark is written, and kept in it.
    fn survey(&self) -> BoxFuture<'_, Result<Option<String>, ControlError>> {
        Box::pin(async { Ok(None) })
    }
    /// A pause of this agent's that the system itself remembers, for an agent that has lost its files.
    fn left(&self) -> BoxFuture<'_, Result<Option<PauseMark>, ControlError>> {
        Box::pin(async { Ok(None) })
    }
    /// Pauses, and returns when the system says that it is paused. The caller bounds the time and may drop the future;
    /// `resume` must then be able to put things right.
    fn pause<'a>(&'a self, mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Idempotent; called only for a pause of our own. `to` is set when another side serves than before the pause.
    fn resume<'a>(&'a self, mark: &'a PauseMark, to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>>;
    /// It can hold clients through the cut, and be told the new address.
    fn holds(&self) -> bool {
        false
    }
    /// Sends clients to the servers at `to` from now on.
    fn retarget(&self, _to: Serving) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Ok(()) })
    }
    /// Sends clients where the configuration sent them before [`IngestionController::retarget`]: to the production name. `false`
    /// when that must wait, because the system itself remembers another address of the name.
    fn restore_target(&self) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async { Ok(true) })
    }
}

/// The configured systems, one line a kind. `agent` is the cluster's ARN and the agent's name.
pub fn controllers(config: &[Ingestion], agent: &str, clock: &Clock) -> Vec<Arc<dyn IngestionController>> {
    let made = config.iter().map(|system| -> Arc<dyn IngestionController> {
        match system.clone() {
            Ingestion::Http { name, base_url } => Arc::new(http::Http::new(name, &base_url, clock.clone())),
            Ingestion::Command { name, observe, pause, resume } => {
                Arc::new(command::Command { name, observe, pause, resume, clock: clock.clone() })
            }
            Ingestion::KafkaConnect {
                name,
                base_url,
                connectors,
                user,
                password_file,
                ca_file,
                pause_seconds_max,
                backlog_url,
            } => {
                let workers = kafka_connect::Workers { base_url, user, password_file, ca_file };
                let within = Duration::from_secs(pause_seconds_max);
                let clock = clock.clone();
                Arc::new(kafka_connect::KafkaConnect::new(name, workers, connectors, within, backlog_url, clock))
            }
            #[cfg(feature = "kubernetes")]
            Ingestion::Kubernetes(system) => {
                Arc::new(kubernetes::Kubernetes::new(system.options(agent), clock.clone()))
            }
            // The configuration is refused before.
            #[cfg(not(feature = "kubernetes"))]
            Ingestion::Kubernetes(system) => unreachable!("{} {agent} without the feature kubernetes", system.name),
            Ingestion::Pgbouncer {
                name,
                admin,
                admin_user,
                admin_password_file,
                databases,
                reader_databases,
                config_file,
            } => {
                let console =
                    pgbouncer::Console { address: admin, user: admin_user, password_file: admin_password_file };
                let databases = pgbouncer::Databases { writer: databases, reader: reader_databases };
                Arc::new(pgbouncer::PgBouncer::new(name, console, databases, config_file, clock.clone()))
            }
        }
    });
    made.collect()
}

/// The JSON that `http` and `command` systems print.
#[derive(Debug, Deserialize)]
pub(crate) struct Stated {
    state: String,
    backlog: Option<u64>,
    rate: Option<f64>,
}

pub(crate) fn read_state(doing: &str, text: &[u8]) -> Result<Observation, ControlError> {
    let stated: Stated = serde_json::from_slice(text).map_err(|error| failed(doing, error))?;
    let state = match stated.state.as_str() {
        "running" => IngestionState::Running,
        "paused" => IngestionState::Paused,
        "mixed" => IngestionState::Mixed,
        other => return Err(failed(doing, format!("state {other:?} is neither running, paused nor mixed"))),
    };
    Ok(Observation { state, backlog: stated.backlog, rate: stated.rate })
}

/// Asks a system, and looks at it this often until it says that it is as wanted. The caller bounds the time.
async fn reach<'a>(
    system: &'a dyn IngestionController,
    ask: impl Fn() -> BoxFuture<'a, Result<(), ControlError>> + Send,
    wanted: IngestionState,
    look_every: Duration,
    clock: &Clock,
) -> Result<(), ControlError> {
    loop {
        ask().await?;
        let asked = clock.mono();
        while clock.mono().since(asked) < ASK_AGAIN {
            if system.observe().await?.state == wanted {
                return Ok(());
            }
            clock.sleep(look_every).await;
        }
    }
}

/// Pause marks: one small file a system.
#[derive(Debug, Clone)]
pub struct Marks {
    dir: PathBuf,
}

impl Marks {
    /// The folder is made when the first mark is written.
    pub fn new(dir: PathBuf) -> Marks {
        Marks { dir }
    }

    fn path(&self, system: &str) -> PathBuf {
        self.dir.join(format!("{system}.json"))
    }

    /// Our own mark of the system, if it is paused by us.
    pub fn read(&self, system: &str) -> io::Result<Option<PauseMark>> {
        match std::fs::read(self.path(system)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// On disk when it returns; written before the pause it speaks of.
    pub fn write(&self, system: &str, mark: &PauseMark) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let (path, text) = (self.path(system), serde_json::to_vec(mark).map_err(io::Error::other)?);
        let draft = path.with_extension("draft");
        let mut file = std::fs::File::create(&draft)?;
        io::Write::write_all(&mut file, &text)?;
        file.sync_all()?;
        std::fs::rename(draft, path)
    }

    /// After the resume.
    pub fn remove(&self, system: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(system)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_no_state_is_refused_by_name() {
        let seen = read_state("asking", br#"{"state":"paused","backlog":3,"rate":1.5}"#).unwrap();
        assert_eq!(seen, Observation { state: IngestionState::Paused, backlog: Some(3), rate: Some(1.5) });
        let error = read_state("asking", br#"{"state":"asleep"}"#).unwrap_err();
        assert_eq!(error.to_string(), r#"asking: state "asleep" is neither running, paused nor mixed"#);
    }

    #[test]
    fn a_mark_outlives_the_one_who_wrote_it() {
        let dir = std::env::temp_dir().join(format!("marks-{}", std::process::id()));
        let marks = Marks::new(dir.clone());
        assert_eq!(marks.read("loader").unwrap(), None);
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mark = PauseMark { upgrade: "up-1".into(), since: at, expires_at: at, found: None };
        marks.write("loader", &mark).unwrap();
        assert_eq!(Marks::new(dir.clone()).read("loader").unwrap(), Some(mark));
        marks.remove("loader").unwrap();
        marks.remove("loader").unwrap();
        assert_eq!(marks.read("loader").unwrap(), None);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn any_bytes_of_an_ingestion_system_are_a_state_or_refused() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "ingestion-state");
        let target = target.words(&["\"paused\"", "\"mixed\"", "\"rate\":", "\"backlog\":", "1e400"]);
        target.seed(*br#"{"state":"running","backlog":12,"rate":3.5}"#).run(|bytes| {
            match read_state("reading", bytes) {
                Ok(seen) => {
                    assert!(seen.rate.is_none_or(f64::is_finite), "{:?}", seen.rate);
                    format!("{:?} {}", seen.state, seen.backlog.is_some())
                }
                Err(error) => error.to_string().chars().take(60).collect(),
            }
        });
    }
}
