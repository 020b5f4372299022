//! The stream to the coordinator: dialled by the agent, again and again for ever, so that no port is open inwards. What the
//! coordinator wishes is applied by others; here it is admitted, passed on, and answered for.

#[cfg(test)]
mod fake;
pub mod runner;
mod session;
#[cfg(test)]
mod tests;
mod wire;

use std::{path::PathBuf, sync::Arc, time::Duration};

use proto::ids::{AgentId, ClusterArn};
use runtime::{
    backoff::Backoff,
    shutdown::Stop,
    supervision::{Ready, Task, TaskError, chain},
    tls::{self, Credentials, DialError, Way},
};
use tonic::transport::{Channel, Endpoint};

use self::{
    runner::Runner,
    session::{End, Session},
};
use crate::{ingestion::BoxFuture, metrics, state::Shared};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A stream on which nothing answers for this long, twice, is dead.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Shortest and longest wait between dials.
const DIAL_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// Whom to dial, and as whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// `https://HOST:PORT`, or `http://` without `tls`; several coordinators that share a store, separated by commas: the one that
    /// drives is found by asking.
    pub coordinator: String,
    pub tls: Option<Tls>,
    pub agent: AgentId,
    pub cluster: ClusterArn,
    /// Names of the ingestion systems.
    pub controllers: Vec<String>,
}

/// How the connection is protected.
#[derive(Debug, Clone)]
pub struct Tls {
    pub folder: PathBuf,
    /// What the coordinator's certificate must be for; the host that is dialled, if `None`.
    pub server_name: Option<String>,
}

/// Opens a connection over another network than the system's own, without certificates.
pub type Network = Arc<dyn Fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> + Send + Sync>;

/// See the module.
pub struct Link {
    pub shared: Shared,
    pub options: Arc<Options>,
    pub runner: Runner,
    /// `None`: the system's.
    pub network: Option<Network>,
}

impl Link {
    /// Certificates are read at the first dial, not before: an agent that cannot read them still does what its memory asks for.
    fn way(&self) -> Result<Way, TaskError> {
        let Some(tls) = &self.options.tls else { return Ok(Way::Plain) };
        let credentials = Credentials::open(&tls.folder, self.shared.clock.clone())?;
        Ok(Way::Tls { credentials: Arc::new(credentials), name: tls.server_name.clone() })
    }

    async fn dial(&self, address: &str, way: &Way) -> Result<Channel, DialError> {
        metrics::dialled();
        let tune = |endpoint: Endpoint| {
            endpoint
                .connect_timeout(CONNECT_WITHIN)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true)
        };
        match &self.network {
            None => tls::connect(address, way, tune).await,
            Some(network) => Ok(network(tune(Endpoint::from_shared(address.to_owned())?)).await?),
        }
    }

    async fn attach(&self, address: &str, way: &mut Option<Way>, stop: &Stop, ready: &Ready) -> Result<End, TaskError> {
        let way = match way {
            Some(way) => way,
            None => way.insert(self.way()?),
        };
        let channel = self.dial(address, way).await?;
        let mut session =
            Session::open(self.shared.clone(), self.options.clone(), self.runner.clone(), channel).await?;
        metrics::link(true);
        ready.set(true);
        let end = session.run(stop).await;
        metrics::link(false);
        end
    }
}

impl Task for Link {
    const NAME: &'static str = "link";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let mut backoff = Backoff::new(DIAL_WAITS.0, DIAL_WAITS.1);
        let all: Vec<String> = self.options.coordinator.split(',').map(|one| one.trim().to_owned()).collect();
        let mut turns = all.iter().cycle();
        let mut sent_to = None;
        let (mut said, mut way) = (String::new(), None);
        while !stop.is_triggered() {
            let Some(address) = sent_to.take().or_else(|| turns.next().cloned()) else { break };
            let end = stop.unless(self.attach(&address, &mut way, &stop, &ready)).await;
            ready.set(false);
            metrics::link(false);
            let mut wait = backoff.next_wait();
            match end {
                None | Some(Ok(End::Stopped)) => return Ok(()),
                Some(Ok(End::Closed { welcomed })) => {
                    if welcomed {
                        backoff.reset();
                        said.clear();
                        wait = DIAL_WAITS.0;
                    }
                    tracing::info!(coordinator = address, "the stream ended, dialling again");
                }
                Some(Ok(End::Goodbye { address, after })) => {
                    backoff.reset();
                    tracing::info!(
                        next = address,
                        after_ms = crate::state::millis(after),
                        "the coordinator said goodbye"
                    );
                    if !address.is_empty() {
                        let scheme = way.as_ref().unwrap_or(&Way::Plain).scheme();
                        sent_to = Some(if address.contains("://") { address } else { format!("{scheme}://{address}") });
                    }
                    wait = after;
                }
                Some(Err(error)) => {
                    let why = chain(error.as_ref());
                    // The same reason again is no news.
                    if why != said {
                        tracing::warn!(coordinator = address, error = why, "no stream to the coordinator, dialling on");
                        said = why;
                    }
                }
            }
            stop.sleep(&self.shared.clock, wait).await;
        }
        Ok(())
    }
}
