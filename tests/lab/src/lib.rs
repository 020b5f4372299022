//! A lab in place of AWS: an endpoint that speaks the RDS and CloudWatch APIs in front of real PostgreSQL servers.
//! `Lab::start` opens it, `Lab::create_cluster` puts a cluster in, and the AWS SDK does the rest through `Lab::environment`.
//! What is real, modelled or absent is listed in the README beside this crate. Production code never depends on it.

#![forbid(unsafe_code)]

pub mod bench;
pub mod clock;
pub mod cloud;
pub mod connect;
pub mod demo;
#[cfg(test)]
mod endpoint;
pub mod faults;
pub mod fleet;
pub mod iam;
pub mod install;
pub mod kubernetes;
pub mod mechanics;
pub mod names;
pub mod roles;
pub mod scenario;
pub mod settings;
pub mod status;
mod wire;

#[cfg(test)]
mod aws_driver_test;
#[cfg(test)]
mod by_hand_test;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

pub use crate::clock::LabClock;
pub use crate::cloud::requests::{Outcome, RequestRecord};
pub use crate::faults::{Fault, Faults, Moment};
pub use crate::names::Resolver;
pub use crate::scenario::Scenario;
pub use crate::settings::{ClusterSettings, Settings, Timings};

use crate::cloud::Cloud;

/// What can go wrong with the lab itself (an API call that is refused is an answer, not one of these).
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The listener or the work folder could not be had.
    #[error("opening the lab: {doing}")]
    Open {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A cluster could not be made.
    #[error("making cluster {identifier}: {doing}")]
    Cluster {
        /// Which cluster.
        identifier: String,
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: anyhow::Error,
    },
}

/// A running lab. Clones share it; `stop` ends it for all.
#[derive(Clone)]
pub struct Lab {
    cloud: Cloud,
    address: SocketAddr,
}

/// A cluster that the lab has made, by what a client needs to reach it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ClusterHandle {
    /// `orders`.
    pub identifier: String,
    /// `arn:aws:rds:us-east-1:123456789012:cluster:orders`.
    pub arn: String,
    /// Name of the writer endpoint: stays the same across a switchover, and leads elsewhere after it.
    pub endpoint: String,
    /// Name of the reader endpoint.
    pub reader_endpoint: String,
    /// The one port of both and of every member.
    pub port: u16,
    /// Addresses of the members, writer first, at the time the cluster was made.
    pub members: Vec<(String, IpAddr)>,
    /// Master user and password: not a superuser.
    pub master: (String, String),
    /// The agents' role and its password.
    pub agent: (String, String),
    /// The databases that were asked for.
    pub databases: Vec<String>,
    /// How this process resolves those names.
    #[serde(skip)]
    pub names: Resolver,
}

impl ClusterHandle {
    /// Where the writer endpoint leads now; `None` when it leads nowhere.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.names.lookup(&self.endpoint)
    }
}

impl Lab {
    /// Opens the endpoint on a loopback port that the system chooses.
    ///
    /// # Errors
    /// When the port or the work folder cannot be had.
    pub async fn start(settings: Settings) -> Result<Self, LabError> {
        let preload = install::ensure_names(&|line| tracing::info!(line, "install")).await;
        let preload = preload.map_err(|error| LabError::Open {
            doing: "finding the libraries that lead programs to the lab's names".into(),
            source: std::io::Error::other(error),
        })?;
        let cloud = Cloud::open(settings, preload)?;
        let address = wire::serve(cloud.clone())
            .await
            .map_err(|source| LabError::Open { doing: "binding the endpoint".into(), source })?;
        Ok(Self { cloud, address })
    }

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a process needs in its environment so that an AWS SDK talks to this lab and nothing else, and so that the lab's host
    /// names lead to its servers, after the settings' delay. For another view of the names replace it by [`Resolver::environment`]'s.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint_url().as_str()),
            ("AWS_REGION", settings::REGION),
            ("AWS_DEFAULT_REGION", settings::REGION),
            ("AWS_ACCESS_KEY_ID", iam::ADMINISTRATOR.0),
            ("AWS_SECRET_ACCESS_KEY", iam::ADMINISTRATOR.1),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .chain(self.cloud.resolver().environment())
        .collect()
    }

    /// A client's view of the lab's names that follows every change `delay` later, as a resolver does that caches. New names
    /// are seen at once.
    ///
    /// # Errors
    /// When its hosts file cannot be written.
    pub fn resolver(&self, delay: Duration) -> Result<Resolver, LabError> {
        let made = self.cloud.zone().resolver(delay);
        made.map_err(|source| LabError::Open { doing: "making a hosts file".into(), source })
    }

    /// The authority (PEM) whose certificates the servers show; `None` where the settings ask for no TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.cloud.certificates().map(|certificates| certificates.file.as_path())
    }

    /// The names that instances have: `orders-1.<zone>.us-east-1.rds.amazonaws.com`.
    #[must_use]
    pub fn instance_endpoint(&self, identifier: &str) -> String {
        self.cloud.zone().instance(identifier)
    }

    /// Lets one more caller in, or gives a known access key another secret and other policies.
    pub fn add_caller(&self, caller: iam::Caller) {
        self.cloud.callers().put(caller);
    }

    /// Makes a cluster with real servers and returns when all its members are `available`. Installs the major if needed.
    ///
    /// # Errors
    /// When the identifier is taken or the servers do not come up.
    pub async fn create_cluster(&self, settings: ClusterSettings) -> Result<ClusterHandle, LabError> {
        cloud::create::cluster(&self.cloud, settings).await
    }

    /// Every AWS call received so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.cloud.requests().all()
    }

    /// Trouble on request.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.cloud.faults()
    }

    /// Provider time.
    #[must_use]
    pub fn clock(&self) -> &LabClock {
        self.cloud.clock()
    }

    /// The members that a cluster has now: instance identifier, address, whether it is the writer.
    #[must_use]
    pub fn members(&self, cluster: &str) -> Vec<(String, IpAddr, bool)> {
        self.cloud.members(cluster)
    }

    /// The server that is the writer of a cluster now: for the provider's own hand, such as a session of `rdsadmin`, its log,
    /// or a restart that nobody asked for.
    #[must_use]
    pub fn writer(&self, cluster: &str) -> Option<std::sync::Arc<fleet::Server>> {
        self.cloud.writer(cluster)
    }

    /// Stops every server and the endpoint, and removes the work folder if it was the lab's own.
    pub async fn stop(self) {
        self.cloud.stop().await;
    }
}
