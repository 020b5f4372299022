//! One-off work on the databases: one file per kind of job, and the registry that runs a job by the name of its kind.
//!
//! A job's contract (body, output) is `proto::jobs`. Nothing here decides *whether* a job may run: the link admits it, gives it a
//! deadline and a stop token, and keeps its result. Every connection a job opens is identified before the job acts on
//! it (`servers.rs`), and every SQL text is in `pg/catalog.rs`.

pub mod codes;
pub mod compare;
pub mod cron;
pub mod end_sessions;
pub mod fingerprint;
pub mod identity;
pub mod inspect;
pub mod leftovers;
pub mod marker;
pub mod memory;
pub mod partman;
pub mod quiesce;
pub mod resubmit;
pub mod schema;
pub mod sequences;
pub mod servers;
pub mod statement;
pub mod statistics;
pub mod test_extensions;
pub mod update_extensions;
pub mod vacuum;
pub mod views;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use proto::{
    ids::JobId,
    job::{Expected, JobFailure, JobFailureClass, JobKind, JobProgress},
    report::Event,
};
use runtime::clock::{Clock, Mono};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use self::memory::Memory;
use crate::pg::Dialer;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A business query of the agent's configuration; a spec names it, its SQL never crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedQuery {
    pub name: String,
    pub database: String,
    pub sql: String,
}

/// Everything that a job may see and do.
#[derive(Clone)]
pub struct JobCx {
    pub id: JobId,
    /// This agent's name, written into markers and ledger rows.
    pub agent: String,
    /// The servers that the job is meant for.
    pub on: Expected,
    /// How servers are reached: addresses, credentials, certificates.
    pub dial: Dialer,
    /// The business queries that this agent knows.
    pub queries: Arc<[NamedQuery]>,
    /// What jobs of this agent remember of each other: warm connections, clean comparisons. Lost with the process, harmlessly.
    pub memory: Arc<Memory>,
    pub clock: Clock,
    /// When the link gives the job up. A job plans its waits by it.
    pub deadline: Mono,
    /// Cancelled when the job is to stop; a job looks at it between its acts.
    pub stop: CancellationToken,
    /// Last value wins; may be called often.
    pub progress: Arc<dyn Fn(JobProgress) + Send + Sync>,
    /// Events that must not be lost. Returns once the event is in the agent's hands.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl JobCx {
    /// What is left until the deadline.
    pub fn remaining(&self) -> Duration {
        self.deadline.since(self.clock.mono())
    }

    /// Tells how far the job has come.
    pub fn advance(&self, done: u64, total: u64, unit: &str, detail: impl Into<String>) {
        (self.progress)(JobProgress { id: self.id.clone(), done, total, unit: unit.into(), detail: detail.into() });
    }

    /// # Errors
    /// `Cancelled` when the job was told to stop or its deadline has passed.
    pub fn still_wanted(&self, doing: &str) -> Result<(), JobFailure> {
        if self.stop.is_cancelled() {
            return Err(failure(JobFailureClass::Cancelled, codes::CANCELLED, doing, ["the job was cancelled"]));
        }
        if self.remaining().is_zero() {
            return Err(failure(JobFailureClass::Cancelled, codes::DEADLINE, doing, ["the job's deadline has passed"]));
        }
        Ok(())
    }

    /// Waits, at most until the deadline.
    ///
    /// # Errors
    /// As [`JobCx::still_wanted`].
    pub async fn pause(&self, time: Duration, doing: &str) -> Result<(), JobFailure> {
        self.still_wanted(doing)?;
        tokio::select! {
            () = self.clock.sleep(time.min(self.remaining())) => {}
            () = self.stop.cancelled() => {}
        }
        self.still_wanted(doing)
    }
}

/// A failure in the wire's form.
pub fn failure<const N: usize>(class: JobFailureClass, code: &str, doing: &str, chain: [&str; N]) -> JobFailure {
    JobFailure { class, code: code.into(), doing: doing.into(), chain: chain.map(str::to_owned).to_vec() }
}

type Runner = Box<dyn Fn(JobCx, Value) -> BoxFuture<'static, Result<Value, JobFailure>> + Send + Sync>;

struct Kind {
    name: &'static str,
    urgent: bool,
    run: Runner,
}

/// Every kind of job this agent can do.
#[derive(Default)]
pub struct Registry {
    kinds: Vec<Kind>,
}

/// The kinds, one line each.
pub fn registry() -> Registry {
    let mut all = Registry::default();
    all.add::<proto::jobs::Inspect, _, _>(inspect::run);
    all.add::<proto::jobs::InstallSchema, _, _>(schema::install);
    all.add::<proto::jobs::RemoveSchema, _, _>(schema::remove);
    all.add::<proto::jobs::LedgerStatus, _, _>(schema::ledger_status);
    all.add::<proto::jobs::SetReplicaIdentity, _, _>(identity::run);
    all.add::<proto::jobs::Quiesce, _, _>(quiesce::quiesce);
    all.add::<proto::jobs::Unquiesce, _, _>(quiesce::unquiesce);
    all.add::<proto::jobs::UpdateExtensions, _, _>(update_extensions::run);
    all.add::<proto::jobs::TestExtensions, _, _>(test_extensions::run);
    all.add::<proto::jobs::Vacuum, _, _>(vacuum::run);
    all.add::<proto::jobs::CheckStatistics, _, _>(statistics::run);
    all.add::<proto::jobs::CompareSchema, _, _>(fingerprint::compare);
    all.add::<proto::jobs::Fingerprint, _, _>(fingerprint::run);
    all.add::<proto::jobs::Compare, _, _>(compare::run);
    all.add::<proto::jobs::Marker, _, _>(marker::run);
    all.add::<proto::jobs::EndSessions, _, _>(end_sessions::run);
    all.add::<proto::jobs::Resubmit, _, _>(resubmit::run);
    all.add::<proto::jobs::Identify, _, _>(leftovers::identify);
    all.add::<proto::jobs::FindLeftovers, _, _>(leftovers::run);
    all.add::<proto::jobs::CheckSequences, _, _>(sequences::run);
    all.add::<proto::jobs::RefreshViews, _, _>(views::run);
    all
}

impl Registry {
    /// Adds a kind. One of the same name that is there already goes first.
    pub fn add<K, F, R>(&mut self, run: F)
    where
        K: JobKind,
        F: Fn(JobCx, K) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<K::Output, JobFailure>> + Send + 'static,
    {
        let run: Runner = Box::new(move |cx, body| {
            let run = run.clone();
            Box::pin(async move {
                let doing = format!("reading the body of a job of kind {}", K::KIND);
                let shape = |error: serde_json::Error| {
                    failure(JobFailureClass::Permanent, codes::BAD_BODY, &doing, [&error.to_string()])
                };
                let body: K = serde_json::from_value(body).map_err(shape)?;
                let output = run(cx, body).await?;
                serde_json::to_value(output).map_err(shape)
            })
        });
        self.kinds.push(Kind { name: K::KIND, urgent: K::URGENT, run });
    }

    /// The kinds, for `Hello`'s capabilities.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.kinds.iter().map(|kind| kind.name)
    }

    /// Must a job of this kind never queue behind long work? `None` for a kind that this agent does not have.
    pub fn urgent(&self, kind: &str) -> Option<bool> {
        self.find(kind).map(|kind| kind.urgent)
    }

    /// Runs a job to its end, its deadline or its cancellation, whichever comes first. Dropping the future abandons it: its
    /// connections close and the servers stop what they were doing for it.
    ///
    /// # Errors
    /// What the job could not do; an unknown kind or a body that does not parse is `Permanent`.
    pub async fn run(&self, kind: &str, cx: JobCx, body: Value) -> Result<Value, JobFailure> {
        let doing = format!("running a job of kind {kind}");
        let Some(found) = self.find(kind) else {
            return Err(failure(
                JobFailureClass::Permanent,
                codes::UNKNOWN_KIND,
                &doing,
                ["this agent has no such kind"],
            ));
        };
        cx.still_wanted(&doing)?;
        let (stop, watch) = (cx.stop.clone(), cx.clone());
        tokio::select! {
            done = (found.run)(cx, body) => done,
            () = stop.cancelled() => Err(cancelled(&watch, &doing)),
            () = watch.clock.sleep_until(watch.deadline) => Err(cancelled(&watch, &doing)),
        }
    }

    fn find(&self, kind: &str) -> Option<&Kind> {
        self.kinds.iter().find(|known| known.name == kind)
    }
}

fn cancelled(cx: &JobCx, doing: &str) -> JobFailure {
    cx.still_wanted(doing)
        .err()
        .unwrap_or_else(|| failure(JobFailureClass::Cancelled, codes::CANCELLED, doing, ["the job was stopped"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_registered_once() {
        let registry = registry();
        let mut kinds: Vec<_> = registry.kinds().collect();
        assert_eq!(kinds.len(), 21);
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 21);
        assert_eq!(registry.urgent("marker"), Some(true));
        assert_eq!(registry.urgent("vacuum"), Some(false));
        assert_eq!(registry.urgent("nonsense"), None);
    }
}
