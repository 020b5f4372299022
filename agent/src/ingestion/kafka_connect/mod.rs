//! Connectors of Kafka Connect, by its REST interface: paused and resumed by `PUT`, read by `GET …/status`.
//!
//! Connectors that somebody else had paused or stopped before are neither paused nor resumed. A paused source that reads a
//! replication slot goes on holding that slot's WAL; the agent's slot watch shows it.
//!
//! Backlog and rate: Connect knows what a sink has committed and not how much there is, so it gives the rate of sinks only. The
//! rest comes from `backlog_url` where that is configured.

mod status;

use std::{collections::BTreeMap, path::PathBuf, sync::Mutex, time::Duration};

use futures_util::future::try_join_all;
use hyper::{Method, StatusCode, header};
use proto::report::IngestionState;
use runtime::{
    clock::{Clock, Mono},
    http::Answer,
};

use self::status::{Pace, Status, committed, together};
use super::{
    ASK_AGAIN, BoxFuture, ControlError, IngestionController, Observation, PauseMark, Serving, failed,
    web::{self, Call, Figures},
};

/// Between looks while a pause takes effect, and between tries where a worker cannot be asked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Offsets are asked for this often: a worker opens a client to the brokers for each answer.
const OFFSETS_EVERY: Duration = Duration::from_secs(15);

/// Where the workers are, and as whom they are asked.
#[derive(Debug, Clone)]
pub struct Workers {
    /// `http://` or `https://`.
    pub base_url: String,
    pub user: Option<String>,
    /// Read at every request.
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
}

/// See the module.
pub struct KafkaConnect {
    name: String,
    workers: Workers,
    connectors: Vec<String>,
    within: Duration,
    figures: Option<Figures>,
    clock: Clock,
    paces: Mutex<Paces>,
}

/// What the sinks have committed, by connector.
#[derive(Debug, Default)]
struct Paces {
    asked: Option<Mono>,
    of: BTreeMap<String, Pace>,
}

/// Why a step towards the wanted state was none.
enum Miss {
    /// The next try may do.
    Passing(String),
    Final(ControlError),
}

impl KafkaConnect {
    pub fn new(
        name: String,
        workers: Workers,
        connectors: Vec<String>,
        within: Duration,
        backlog_url: Option<String>,
        clock: Clock,
    ) -> KafkaConnect {
        let workers = Workers { base_url: workers.base_url.trim_end_matches('/').to_owned(), ..workers };
        let figures = backlog_url.map(|url| Figures { url, clock: clock.clone() });
        KafkaConnect { name, workers, connectors, within, figures, clock, paces: Mutex::default() }
    }

    fn url(&self, connector: &str, what: &str) -> String {
        format!("{}/connectors/{}/{what}", self.workers.base_url, web::part(connector))
    }

    /// Any answer of a worker, whatever its status.
    async fn ask(&self, method: Method, url: String) -> Result<Answer, String> {
        let tls = web::trust(&url, self.workers.ca_file.as_ref())?;
        let mut call = Call::new(method, url);
        if let Some(user) = &self.workers.user {
            let password = match &self.workers.password_file {
                Some(path) => {
                    tokio::fs::read_to_string(path).await.map_err(|error| format!("its password: {error}"))?
                }
                None => String::new(),
            };
            let password = password.lines().next().unwrap_or_default();
            call.headers.push((header::AUTHORIZATION, web::basic(user, password)));
        }
        web::exchange(&self.clock, tls, call).await
    }

    /// Its body, where the worker did what was asked. Rebalances (409), other workers' absence and our own are waited for.
    async fn did(&self, method: Method, connector: &str, what: &str) -> Result<Answer, Miss> {
        let url = self.url(connector, what);
        let doing = format!("{method} {url}");
        let answer = self.ask(method, url).await.map_err(|error| Miss::Passing(format!("{doing}: {error}")))?;
        match answer.status {
            status if status.is_success() => Ok(answer),
            // A worker that is starting has no routes yet, and says so without a code.
            StatusCode::NOT_FOUND if has_code(&answer.body) => {
                Err(Miss::Final(failed(doing, format!("there is no connector {connector:?} at this worker"))))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Miss::Final(failed(
                doing,
                format!("it answered {}: look at user and password_file", answer.status),
            ))),
            status => Err(Miss::Passing(format!("{doing}: it answered {status}"))),
        }
    }

    async fn status(&self, connector: &str) -> Result<Status, Miss> {
        let answer = self.did(Method::GET, connector, "status").await?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| Miss::Passing(format!("reading the status of connector {connector}: {error}")))
    }

    /// Until `arrived` says so of the connector's status, and of whether it was asked; asks for `verb` as long as it does not.
    async fn drive(
        &self,
        connector: &str,
        verb: &'static str,
        arrived: impl Fn(&Status, bool) -> Result<bool, ControlError>,
    ) -> Result<(), ControlError> {
        let (began, mut asked, mut last) = (self.clock.mono(), None::<Mono>, "nothing".to_owned());
        loop {
            let step = async {
                let status = self.status(connector).await?;
                if arrived(&status, asked.is_some()).map_err(Miss::Final)? {
                    return Ok(true);
                }
                // A pause that no worker remembers (one was restarted) is asked for again, too.
                if asked.is_none_or(|at| self.clock.mono().since(at) >= ASK_AGAIN) {
                    self.did(Method::PUT, connector, verb).await?;
                    asked = Some(self.clock.mono());
                }
                Err(Miss::Passing(format!("{:?}", status.state(connector)).to_lowercase()))
            };
            match step.await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Miss::Final(error)) => return Err(error),
                Err(Miss::Passing(why)) => last = why,
            }
            if self.clock.mono().since(began) + LOOK_EVERY >= self.within {
                let limit_ms = crate::state::millis(self.within);
                return Err(ControlError::NotInTime {
                    doing: format!("{verb} of connector {connector}"),
                    limit_ms,
                    last,
                });
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn pause_one(&self, connector: &str) -> Result<(), ControlError> {
        let arrived = |status: &Status, _: bool| match status.failure(connector) {
            Some(why) => Err(failed(format!("pausing connector {connector}"), format!("{why}; restart or delete it"))),
            None => Ok(status.state(connector) == IngestionState::Paused),
        };
        self.drive(connector, "pause", arrived).await
    }

    async fn resume_one(&self, connector: &str) -> Result<(), ControlError> {
        let arrived = |status: &Status, asked: bool| {
            if status.is_stopped() {
                // We pause and never stop: a person did this since.
                tracing::warn!(system = self.name, connector, "somebody stopped it meanwhile, leaving it so");
                return Ok(true);
            }
            // Asked for in any case: a pause that was given up may still be under way.
            Ok(asked && status.is_let_go())
        };
        self.drive(connector, "resume", arrived).await
    }

    async fn statuses(&self) -> Result<Vec<Status>, ControlError> {
        let looks = self.connectors.iter().map(|connector| async move {
            self.status(connector).await.map_err(|miss| match miss {
                Miss::Final(error) => error,
                Miss::Passing(why) => failed(format!("looking at connector {connector}"), why),
            })
        });
        try_join_all(looks).await
    }

    /// Messages a second over all sinks; none as long as one connector's is not known.
    async fn rate(&self, statuses: &[Status]) -> Option<f64> {
        if !statuses.iter().all(Status::is_sink) {
            return None;
        }
        let now = self.clock.mono();
        let due = {
            let mut paces = self.paces.lock().expect("nobody panics with it");
            let due = paces.asked.is_none_or(|at| now.since(at) >= OFFSETS_EVERY);
            if due {
                paces.asked = Some(now);
            }
            due
        };
        if due {
            for connector in &self.connectors {
                // A worker before Kafka 3.6 has no such route.
                let Ok(answer) = self.did(Method::GET, connector, "offsets").await else { continue };
                if let Some(sum) = committed(&answer.body) {
                    let mut paces = self.paces.lock().expect("nobody panics with it");
                    paces.of.entry(connector.clone()).or_default().note(now, sum);
                }
            }
        }
        let paces = self.paces.lock().expect("nobody panics with it");
        self.connectors.iter().map(|connector| paces.of.get(connector)?.rate(now)).sum()
    }
}

/// Connect itself answered, not what stands before it.
fn has_code(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Refused {
        #[expect(dead_code, reason = "that it is there is what matters")]
        error_code: u16,
    }
    serde_json::from_slice::<Refused>(body).is_ok()
}

impl IngestionController for KafkaConnect {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "kafka_connect"
    }

    fn pause_within(&self) -> Duration {
        self.within
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>> {
        Box::pin(async move {
            let statuses = self.statuses().await?;
            let states = statuses.iter().zip(&self.connectors).map(|(status, connector)| status.state(connector));
            let state = together(states);
            let (work, rate) = tokio::join!(Figures::look(self.figures.as_ref()), self.rate(&statuses));
            Ok(Observation { state, backlog: work.backlog, rate: work.rate.or(rate) })
        })
    }

    /// The connectors that somebody else has paused or stopped.
    fn survey(&self) -> BoxFuture<'_, Result<Option<String>, ControlError>> {
        Box::pin(async move {
            let statuses = self.statuses().await?;
            let others = statuses.iter().zip(&self.connectors);
            let others = others.filter(|(status, connector)| status.state(connector) == IngestionState::Paused);
            let others: Vec<&String> = others.map(|(_, connector)| connector).collect();
            if !others.is_empty() {
                tracing::info!(system = self.name, ?others, "paused by somebody else, leaving them so");
            }
            serde_json::to_string(&others).map(Some).map_err(|error| failed("keeping what was found", error))
        })
    }

    fn pause<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            try_join_all(self.connectors.iter().map(|connector| self.pause_one(connector))).await?;
            Ok(())
        })
    }

    fn resume<'a>(&'a self, mark: &'a PauseMark, _to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let found = mark.found.as_deref().unwrap_or("[]");
            let others: Vec<String> =
                serde_json::from_str(found).map_err(|error| failed("reading what was found", error))?;
            let ours = self.connectors.iter().filter(|connector| !others.contains(connector));
            try_join_all(ours.map(|connector| self.resume_one(connector))).await?;
            Ok(())
        })
    }
}
