//! The ingestion systems of an agent's configuration: which there are, and what is wrong with one.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A key, what is wrong with it, and what to do.
type Wrong = (&'static str, String, &'static str);

fn wrong(key: &'static str, what: &str, cure: &'static str) -> Option<Wrong> {
    Some((key, what.to_owned(), cure))
}

/// One ingestion system.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ingestion {
    /// A service that is asked over HTTP.
    Http {
        /// What it is called in plans, logs and metrics.
        name: String,
        /// `http://HOST:PORT`: `POST …/pause`, `POST …/resume`, `GET …/state` are asked of it. Each answers within 2 s, and the last one
        /// with `{"state": "running", "backlog": 123, "rate": 45.6}`: running, paused or mixed; backlog and rate where they are known.
        /// Pause and resume may be asked for twice, and are once a second until the state is as asked for. After the cut a resume
        /// says where green's writer is: `{"writer": {"host": "10.1.2.3", "port": 5432}}`.
        base_url: String,
    },
    /// Anything that programs on this machine can pause.
    Command {
        /// What it is called in plans, logs and metrics.
        name: String,
        /// Program and arguments that print `{"state": "running", "backlog": 123, "rate": 45.6}`: running, paused or mixed; backlog and
        /// rate where they are known.
        observe: Vec<String>,
        /// Program and arguments that pause it; may be run twice.
        pause: Vec<String>,
        /// Program and arguments that resume it; may be run twice.
        resume: Vec<String>,
    },
    /// Connectors of Kafka Connect, by its REST interface.
    KafkaConnect {
        /// What it is called in plans, logs and metrics.
        name: String,
        /// `http://` or `https://` of the workers.
        base_url: String,
        /// The connectors to pause, not none.
        connectors: Vec<String>,
        /// For basic authentication, with `password_file`.
        user: Option<String>,
        /// The user's password, on the first line; read at every request.
        password_file: Option<PathBuf>,
        /// Certificates (PEM) to trust instead of the system's own.
        ca_file: Option<PathBuf>,
        /// How long a pause may take; in a hold all have 5 s.
        #[serde(default = "pause_seconds_max")]
        pause_seconds_max: u64,
        /// Answers with the JSON of the kind `http`, of which backlog and rate are taken.
        backlog_url: Option<String>,
    },
    /// A workload of Kubernetes, or what KEDA scales.
    Kubernetes(Kubernetes),
    /// A PgBouncer that clients are behind: it holds them through the cut and is told where to go on, by address; so its
    /// `server_tls_sslmode` is at most `verify-ca`.
    Pgbouncer {
        /// What it is called in plans, logs and metrics.
        name: String,
        /// `ADDRESS:PORT` of the admin console.
        admin: SocketAddr,
        /// A user of `admin_users`.
        admin_user: String,
        /// The user's password, on the first line.
        admin_password_file: Option<PathBuf>,
        /// PgBouncer's database names that are held and retargeted, not none.
        databases: Vec<String>,
        /// Those that lead to the cluster's readers: held with the others, sent to a reader of green where it has one.
        #[serde(default)]
        reader_databases: Vec<String>,
        /// An `%include`d file with the `[databases]` section, rewritten by the agent.
        config_file: PathBuf,
    },
}

fn pause_seconds_max() -> u64 {
    60
}

/// A workload of Kubernetes; needs the feature of that name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// What it is called in plans, logs and metrics.
    pub name: String,
    /// `deployment/NAME` or `statefulset/NAME`.
    pub workload: Option<String>,
    /// In place of `workload`: the ScaledObject of KEDA that scales it.
    pub scaled_object: Option<String>,
    /// Else the service account's, or the kubeconfig's.
    pub namespace: Option<String>,
    /// Else the pod's own service account is used.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it, else its current one.
    pub context: Option<String>,
    /// How long a pause may take; in a hold all have 5 s.
    #[serde(default = "pause_seconds_max")]
    pub pause_seconds_max: u64,
    /// Answers with the JSON of the kind `http`, of which backlog and rate are taken.
    pub backlog_url: Option<String>,
}

#[cfg(feature = "kubernetes")]
impl Kubernetes {
    /// `None` where it is not exactly one.
    fn target(&self) -> Option<crate::ingestion::kubernetes::Workload> {
        use crate::ingestion::kubernetes::Workload;
        match (&self.workload, &self.scaled_object) {
            (Some(workload), None) => Workload::read(workload),
            (None, Some(name)) if !name.is_empty() => Some(Workload::ScaledObject(name.clone())),
            _ => None,
        }
    }

    /// For the controller; the configuration was checked.
    pub(crate) fn options(self, agent: &str) -> crate::ingestion::kubernetes::Options {
        use crate::ingestion::kubernetes::{Options, Source};
        Options {
            workload: self.target().expect("checked when the configuration was read"),
            source: match self.kubeconfig {
                Some(file) => Source::Kubeconfig { file, context: self.context },
                None => Source::pod(),
            },
            name: self.name,
            agent: agent.to_owned(),
            namespace: self.namespace,
            within: std::time::Duration::from_secs(self.pause_seconds_max),
            backlog_url: self.backlog_url,
        }
    }

    fn wrong(&self) -> Option<Wrong> {
        if self.target().is_none() {
            let cure = "write workload = \"deployment/NAME\" or \"statefulset/NAME\", or scaled_object = \"NAME\"";
            return wrong("workload, scaled_object", "not exactly one thing to pause is named", cure);
        }
        if self.context.is_some() && self.kubeconfig.is_none() {
            return wrong("context", "is given without kubeconfig", "name the kubeconfig too");
        }
        None
    }
}

#[cfg(not(feature = "kubernetes"))]
impl Kubernetes {
    fn wrong(&self) -> Option<Wrong> {
        wrong("kind", "kubernetes is not in this agent", "take one that was built with the feature kubernetes")
    }
}

impl Ingestion {
    pub fn name(&self) -> &str {
        match self {
            Ingestion::Http { name, .. }
            | Ingestion::Command { name, .. }
            | Ingestion::KafkaConnect { name, .. }
            | Ingestion::Kubernetes(Kubernetes { name, .. })
            | Ingestion::Pgbouncer { name, .. } => name,
        }
    }

    /// Which key is wrong beside the name, why, and what to do.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        match self {
            Ingestion::Http { base_url, .. } if !base_url.starts_with("http://") => {
                wrong("base_url", "is not an http:// address", "write http://HOST:PORT")
            }
            Ingestion::Command { observe, pause, resume, .. } => {
                let empty = [observe, pause, resume].iter().any(|command| command.is_empty());
                let cure = "give observe, pause and resume as lists";
                if empty { wrong("observe, pause, resume", "one of them is an empty command", cure) } else { None }
            }
            Ingestion::Pgbouncer { databases, .. } if databases.is_empty() => {
                wrong("databases", "is empty", "name the PgBouncer databases to hold")
            }
            Ingestion::Http { .. } | Ingestion::Pgbouncer { .. } => None,
            Ingestion::KafkaConnect { base_url, connectors, user, password_file, .. } => {
                wrong_connect(base_url, connectors, user.is_some(), password_file.is_some())
                    .or_else(|| self.wrong_bounds())
            }
            Ingestion::Kubernetes(system) => system.wrong().or_else(|| self.wrong_bounds()),
        }
    }

    fn wrong_bounds(&self) -> Option<Wrong> {
        let (Ingestion::KafkaConnect { pause_seconds_max, backlog_url, .. }
        | Ingestion::Kubernetes(Kubernetes { pause_seconds_max, backlog_url, .. })) = self
        else {
            return None;
        };
        if !(5..=120).contains(pause_seconds_max) {
            return wrong("pause_seconds_max", &format!("{pause_seconds_max} is not from 5 to 120"), "leave it away");
        }
        if backlog_url.as_deref().is_some_and(|url| !is_web(url)) {
            return wrong("backlog_url", "is not an http:// or https:// address", "write the whole address");
        }
        None
    }
}

fn wrong_connect(base_url: &str, connectors: &[String], user: bool, password: bool) -> Option<Wrong> {
    if !is_web(base_url) {
        return wrong(
            "base_url",
            "is not an http:// or https:// address",
            "write http://HOST:PORT or https://HOST:PORT",
        );
    }
    if connectors.is_empty() || connectors.iter().any(String::is_empty) {
        return wrong("connectors", "names none", "name the connectors to pause");
    }
    if user != password {
        return wrong("user, password_file", "one of them is missing", "give both or neither");
    }
    if user && base_url.starts_with("http://") && !runtime::tls::is_loopback_url(base_url) {
        return wrong("base_url", "is without TLS, and a password would go there", "write https://HOST:PORT");
    }
    None
}

fn is_web(url: &str) -> bool {
    (url.starts_with("http://") || url.starts_with("https://")) && !runtime::tls::host(url).is_empty()
}
