//! What people can ask: status, history, plans, and wishes. `Operator` answers in views (`view.rs`, filled by `standing.rs`;
//! `plan.rs`), whose JSON is what `--output json` prints; `service.rs` is its gRPC end, `web/` and the CLI render the same views.
//!
//! It reads the fold and puts wishes into the inbox. It appends nothing and decides nothing about an upgrade.

pub mod course;
#[cfg(test)]
mod documented;
pub mod expected;
pub mod facts;
mod folds;
mod live;
pub(crate) mod plan;
mod service;
pub(crate) mod standing;
pub mod tally;
pub mod view;
mod wire;

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use engine::{AskId, JournalError, Record, Request, RunFilter, RunId, RunInfo, Seq, State, StepId, Subject};
use proto::ids::{ClusterArn, JobId};
use proto::intent::Targets;
use proto::jobs::{Inspect, Inspection};
use proto::side::Side;
use runtime::supervision::chain;

pub use expected::Before;
pub use plan::{Cause, PlanStep, PlanView};
pub use service::OperatorService;
pub(crate) use service::{LEADER, REQUEST_ID};

use crate::codes;
use crate::drivers::{Drivers, Running};
use crate::link::{Keep, Standing};
use crate::preflight::{self, Facts, Preflight};
use crate::report::{self, Report};
use crate::spec::UpgradeSpec;
use crate::store::{About, AgentVersion};
use crate::world::Upgrade;
use folds::{Fold, Folds, Unread};
use standing::Live;
use view::{Answer, Brief, FactView, HistoryView, StatusView};

/// How long preflight's inspection of every database may take.
const INSPECT_WITHIN: Duration = Duration::from_secs(120);
/// After a start many journals may have to be read for what steps took earlier; who asks does not wait longer for it.
const BEFORE_WITHIN: Duration = Duration::from_millis(50);
/// Earlier upgrades that tell how long a step takes.
const EARLIER_MAX: usize = 20;

/// Why a question or wish was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Exit code 2: a precondition, or bad input. The text begins with a code.
    #[error("{0}")]
    Refused(String),
    #[error("there is no upgrade {0}")]
    NoSuchUpgrade(String),
    /// Only the coordinator that drives can do it; its address, when it is known.
    #[error("{}: this coordinator stands by, {}", codes::NOT_LEADING, .0.as_deref().map_or("and nobody drives yet".to_owned(), |leader| format!("{leader} drives")))]
    NotLeading(Option<String>),
    /// Something of ours or AWS's failed; trying again may help.
    #[error("{0}")]
    Failed(String),
}

impl From<engine::Failure> for Refusal {
    fn from(failure: engine::Failure) -> Refusal {
        use engine::FailureClass as C;
        let text = format!("{}: {failure}", failure.code);
        match failure.class {
            C::Permanent | C::NeedsOperator => Refusal::Refused(text),
            C::Transient | C::Unknown | C::Interrupted => Refusal::Failed(text),
        }
    }
}

fn store(error: JournalError) -> Refusal {
    match error {
        JournalError::NoSuchRun(id) => Refusal::NoSuchUpgrade(id.to_string()),
        JournalError::SubjectBusy { subject, by } => Refusal::Refused(format!(
            "{}: {subject} is being upgraded already, by {by}; follow it with `pilot watch {by}`, or end it with `pilot abort {by} --confirm CLUSTER`",
            codes::CLUSTER_BUSY
        )),
        JournalError::Held { holder, .. } => Refusal::NotLeading(Some(holder).filter(|holder| !holder.is_empty())),
        other => Refusal::Failed(chain(&other)),
    }
}

/// What an upgrade was started with.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `None` where the journal cannot be read.
    pub spec: Option<UpgradeSpec>,
    /// Settings that a person has changed since.
    pub tuned: BTreeMap<String, serde_json::Value>,
}

/// Answers people. Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    drivers: Drivers,
    folds: Folds,
    ended: live::Ended,
}

impl Operator {
    pub fn new(drivers: Drivers) -> Operator {
        Operator { drivers, folds: Folds::default(), ended: live::Ended::default() }
    }

    /// Every upgrade that the store knows, newest first.
    pub async fn list(&self) -> Result<Vec<Brief>, Refusal> {
        let filter = RunFilter { limit: Some(100), ..RunFilter::default() };
        let runs = self.drivers.options().store.list(&filter).await.map_err(store)?;
        let mut briefs = Vec::with_capacity(runs.len());
        for run in runs {
            let status = self.status_of(run).await?;
            briefs.push(Brief::of(&status));
        }
        Ok(briefs)
    }

    /// One upgrade as it stands.
    pub async fn status(&self, id: &str) -> Result<StatusView, Refusal> {
        let mut view = self.status_alone(id).await?;
        if view.outcome.is_none() {
            view.expect(self.before_soon(id).await?.as_ref());
        }
        Ok(view)
    }

    /// One upgrade as it stands, beside what its steps took in earlier ones; without that while their journals are still being read.
    pub async fn status_beside(&self, id: &str) -> Result<(StatusView, Option<BTreeMap<StepId, Before>>), Refusal> {
        let mut view = self.status_alone(id).await?;
        let before = self.before_soon(id).await?;
        view.expect(before.as_ref());
        Ok((view, before))
    }

    async fn status_alone(&self, id: &str) -> Result<StatusView, Refusal> {
        let info = self.drivers.options().store.info(&RunId::from(id)).await.map_err(store)?;
        self.status_of(info).await
    }

    async fn before_soon(&self, id: &str) -> Result<Option<BTreeMap<StepId, Before>>, Refusal> {
        self.clock().timeout(BEFORE_WITHIN, self.before(id)).await.ok().transpose()
    }

    async fn status_of(&self, info: RunInfo) -> Result<StatusView, Refusal> {
        let now = self.drivers.options().clock.now();
        if let Some(running) = self.drivers.running(&info.id)
            && let Some(handle) = &running.handle
        {
            let state = handle.state();
            if state.spec().is_some() {
                let progress = handle.progress().borrow().clone();
                let cloudwatch_lag = *running.cloudwatch_lag.lock().unwrap_or_else(PoisonError::into_inner);
                let report = running.agents.lead_report();
                let ages = running.ages.lock().unwrap_or_else(PoisonError::into_inner);
                let mono = self.drivers.options().clock.mono();
                let behind_ms = report.as_ref().map(|report| ages.of(&report.value, mono)).unwrap_or_default();
                drop(ages);
                let live = Live { progress, report, cloudwatch_lag, behind_ms, trouble: None };
                return Ok(standing::status(
                    &info,
                    &running.about,
                    &running.shape,
                    &state,
                    &running.tally(),
                    Some(&live),
                    now,
                ));
            }
        }
        match info.outcome {
            None => self.status_from_journal(info).await,
            Some(_) => self.status_of_ended(info).await,
        }
    }

    /// For an upgrade without a driver: the fold of its journal.
    async fn status_from_journal(&self, info: RunInfo) -> Result<StatusView, Refusal> {
        let options = self.drivers.options();
        let now = options.clock.now();
        let running = self.drivers.running(&info.id);
        let (about, _) = options.store.about(&info.id).await.map_err(store)?;
        let fold = match self.folds.newest(&*options.store, &info.id).await {
            Ok(fold) => fold,
            Err(Unread::Fold(error)) => return Ok(standing::unreadable(&info, &about, &chain(&error), now)),
            Err(Unread::Store(error)) => return Err(store(error)),
        };
        let Fold { state, tally, .. } = &*fold;
        let tally = running.as_ref().map_or_else(|| tally.clone(), Running::tally);
        let shape = match &running {
            Some(running) => running.shape.as_ref().clone(),
            None => state.spec().map(|spec| (options.plans)(spec).shape().clone()).unwrap_or_default(),
        };
        let trouble = running.as_ref().and_then(|running| running.trouble.clone());
        let live = trouble.map(|trouble| Live { trouble: Some(trouble), ..Live::default() });
        Ok(standing::status(&info, &about, &shape, state, &tally, live.as_ref(), now))
    }

    /// Everything about one upgrade, for a change record. The status is read first, so that the facts have all that it tells of.
    pub async fn report(&self, id: &str) -> Result<Report, Refusal> {
        let options = self.drivers.options();
        let status = self.status(id).await?;
        let (about, _) = options.store.about(&RunId::from(id)).await.map_err(store)?;
        let records = self.records(id, Seq(0)).await?;
        let read = records.iter().map(engine::Entry::decode).collect::<Result<Vec<_>, _>>();
        let entries =
            read.map_err(|error| Refusal::Failed(format!("the journal of {id} cannot be read: {}", chain(&error))))?;
        let input = report::Input {
            status: &status,
            about: &about,
            records: &records,
            entries: &entries,
            now: options.clock.now(),
        };
        Ok(report::build(&input))
    }

    /// The facts of an upgrade at and after `from`.
    pub async fn history(&self, id: &str, from: Seq) -> Result<HistoryView, Refusal> {
        let records = self.records(id, from).await?;
        Ok(HistoryView { id: id.to_owned(), facts: records.into_iter().map(FactView::of).collect() })
    }

    async fn records(&self, id: &str, from: Seq) -> Result<Vec<Record>, Refusal> {
        let options = self.drivers.options();
        let run = RunId::from(id);
        let mut records = Vec::new();
        let mut next = from;
        loop {
            let page = options.store.read_from(&run, next, 1000).await.map_err(store)?;
            let full = page.len() == 1000;
            next = page.last().map_or(next, |last| Seq(last.seq.0 + 1));
            records.extend(page);
            if !full {
                break;
            }
        }
        Ok(records)
    }

    /// At most `limit` facts from `from` on.
    pub async fn some_history(&self, id: &str, from: Seq, limit: usize) -> Result<Vec<FactView>, Refusal> {
        let records = self.drivers.options().store.read_from(&RunId::from(id), from, limit).await.map_err(store)?;
        Ok(records.into_iter().map(FactView::of).collect())
    }

    /// What it was started with, and what a person has tuned since.
    pub async fn spec(&self, id: &str) -> Result<Asked, Refusal> {
        let run = RunId::from(id);
        let of = |state: &State<Upgrade>| Asked {
            spec: state.spec().map(|spec| spec.as_ref().clone()),
            tuned: state.all_tuned().map(|(key, value)| (key.to_owned(), value.clone())).collect(),
        };
        if let Some(handle) = self.drivers.running(&run).and_then(|running| running.handle) {
            return Ok(of(&handle.state()));
        }
        self.drivers.options().store.info(&run).await.map_err(store)?;
        match self.folds.newest(&*self.drivers.options().store, &run).await {
            Ok(fold) => Ok(of(&fold.state)),
            Err(Unread::Fold(_)) => Ok(Asked::default()),
            Err(Unread::Store(error)) => Err(store(error)),
        }
    }

    /// What steps took in the newest upgrades that have ended, but for this one.
    pub async fn before(&self, id: &str) -> Result<BTreeMap<StepId, Before>, Refusal> {
        let journals = &*self.drivers.options().store;
        let filter = RunFilter { limit: Some(4 * EARLIER_MAX), ..RunFilter::default() };
        let runs = journals.list(&filter).await.map_err(store)?;
        let ended = runs.into_iter().filter(|run| run.outcome.is_some() && run.id.as_str() != id);
        let mut earlier = Vec::new();
        for run in ended.take(EARLIER_MAX) {
            match self.folds.newest(journals, &run.id).await {
                Ok(fold) => earlier.push(fold),
                // Of another version, or damaged: it tells nothing here.
                Err(Unread::Fold(_)) => {}
                Err(Unread::Store(error)) => return Err(store(error)),
            }
        }
        Ok(expected::before(earlier.iter().map(|fold| &**fold)))
    }

    /// Wakes at every fact and every request of an upgrade.
    pub fn changes(&self, id: &str) -> tokio::sync::watch::Receiver<u64> {
        self.drivers.options().store.watch(&RunId::from(id))
    }

    /// Returns when this coordinator is asked to stop. Who follows is let go then, and goes on at another one, or here after
    /// the restart; an open stream would keep the program from ending.
    pub async fn stopping(&self) {
        self.drivers.options().stop.triggered().await;
    }

    /// The transient progress of an upgrade, if it is driven here now.
    pub fn running(&self, id: &str) -> Option<Running> {
        self.drivers.running(&RunId::from(id))
    }

    /// Whether this coordinator drives; the others answer what can be read from the store, and keep wishes.
    pub fn leads(&self) -> Result<(), Refusal> {
        match self.drivers.options().hub.standing() {
            Standing::Leads => Ok(()),
            Standing::Follows { leader } => Err(Refusal::NotLeading(leader)),
        }
    }

    /// Who drives, as people are told by a coordinator that stands by; `None` while this one drives.
    pub fn stands_by(&self) -> Option<view::StandsBy> {
        match self.drivers.options().hub.standing() {
            Standing::Leads => None,
            Standing::Follows { leader } => Some(view::StandsBy { leader }),
        }
    }

    /// Every agent that ever attached, by cluster.
    pub fn agents(&self) -> Vec<view::ClusterAgents> {
        let seen = self.drivers.options().hub.seen().into_iter();
        seen.map(|(cluster, agents)| view::ClusterAgents { cluster: cluster.to_string(), agents }).collect()
    }

    /// The newest samples of an upgrade, for charts.
    pub async fn samples(&self, id: &str, limit: u32) -> Result<Vec<crate::store::Sample>, Refusal> {
        self.drivers.options().store.samples(&RunId::from(id), limit).await.map_err(store)
    }

    /// What the coordinator's clock says.
    pub fn clock(&self) -> &runtime::clock::Clock {
        &self.drivers.options().clock
    }
}

// --- before an upgrade ---

impl Operator {
    /// Every precondition, read-only.
    pub async fn preflight(&self, spec: &UpgradeSpec) -> Result<Preflight, Refusal> {
        self.leads()?;
        validate(spec)?;
        let (facts, inspection) = self.look(spec).await?;
        Ok(preflight::preflight(&facts, inspection.as_ref(), spec))
    }

    /// What an upgrade would do, with what preflight found.
    pub async fn plan(&self, spec: &UpgradeSpec) -> Result<PlanView, Refusal> {
        self.leads()?;
        validate(spec)?;
        let (facts, inspection) = self.look(spec).await?;
        not_busy(&facts)?;
        let found = preflight::preflight(&facts, inspection.as_ref(), spec);
        let plan = (self.drivers.options().plans)(spec);
        let roster = self.drivers.options().hub.agents(&cluster_arn(&facts)?).roster();
        Ok(plan::plan_view(spec, &facts, &found, plan.shape(), &roster))
    }

    /// Starts an upgrade, if nothing stands in its way and the plan is still the one that was shown (`digest`, when given).
    pub async fn start(&self, spec: UpgradeSpec, digest: &str, asked_by: &str) -> Result<RunId, Refusal> {
        self.leads()?;
        validate(&spec)?;
        let (facts, inspection) = self.look(&spec).await?;
        not_busy(&facts)?;
        let found = preflight::preflight(&facts, inspection.as_ref(), &spec);
        let blocking: Vec<String> = found.blocking(&spec).map(preflight::Finding::line).collect();
        if !blocking.is_empty() {
            let list = blocking.join("\n");
            return Err(Refusal::Refused(format!(
                "{}: the upgrade cannot begin:\n{list}",
                crate::steps::codes::PREFLIGHT_BLOCKED
            )));
        }
        let cluster = cluster_arn(&facts)?;
        let roster = self.drivers.options().hub.agents(&cluster).roster();
        let plan = (self.drivers.options().plans)(&spec);
        let shown = plan::plan_view(&spec, &facts, &found, plan.shape(), &roster);
        if !digest.is_empty() && digest != shown.digest {
            return Err(Refusal::Refused(format!(
                "{}: the plan has changed since it was shown; look at it again: pilot upgrade --cluster {} --to {}",
                codes::PLAN_CHANGED,
                spec.cluster,
                spec.to
            )));
        }
        let spec = UpgradeSpec { cluster: cluster.to_string(), ..spec };
        let seen = self.drivers.options().hub.agents(&cluster).seen().into_iter();
        let agents = seen
            .filter(|seen| roster.contains(&seen.agent))
            .map(|seen| AgentVersion { agent: seen.agent, version: seen.version })
            .collect();
        let about = About {
            roster,
            from_version: found.from_version.clone(),
            to_version: shown.to_version.clone(),
            asked_by: asked_by.to_owned(),
            plan_digest: shown.digest.clone(),
            plan: Some(shown),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            agents,
        };
        self.drivers.start(&cluster, spec, &about).await.map_err(store)
    }

    /// What AWS says, and what the lead agent sees when there is one.
    async fn look(&self, spec: &UpgradeSpec) -> Result<(Facts, Option<Inspection>), Refusal> {
        let options = self.drivers.options();
        let mut facts = preflight::gather(&*options.rds, spec, options.clock.now()).await?;
        facts.run = self.active(&facts).await?;
        let inspection = self.inspect(&facts, spec).await?;
        Ok((facts, inspection))
    }

    /// The upgrade of this cluster that is under way, if one is: what it made is no leftover.
    async fn active(&self, facts: &Facts) -> Result<Option<String>, Refusal> {
        let subject = Subject(cluster_arn(facts)?.to_string());
        let filter = RunFilter { active_only: true, subject: Some(subject), limit: Some(1) };
        let active = self.drivers.options().store.list(&filter).await.map_err(store)?;
        Ok(active.first().map(|run| run.id.to_string()))
    }

    async fn inspect(&self, facts: &Facts, spec: &UpgradeSpec) -> Result<Option<Inspection>, Refusal> {
        let agents = self.drivers.options().hub.agents(&cluster_arn(facts)?);
        if agents.connected().is_empty() || facts.cluster.engine != "aurora-postgresql" {
            return Ok(None);
        }
        let (production, blue) = preflight::blue_side(facts)?;
        if agents.wish().is_none() {
            agents.aim(Targets { production, serving: Side::Blue, blue, green: None });
        }
        let id: JobId = format!("preflight/{}", uuid::Uuid::now_v7())
            .parse()
            .map_err(|error| Refusal::Failed(format!("naming a job: {error}")))?;
        let body = Inspect { queries: spec.verify.queries.clone() };
        let inspection = agents.job(&id, Keep::Once, Side::Blue, &body, INSPECT_WITHIN, |_| {}).await?;
        Ok(Some(inspection))
    }
}

fn validate(spec: &UpgradeSpec) -> Result<(), Refusal> {
    spec.validate().map_err(|error| Refusal::Refused(format!("{}: {error}", codes::BAD_SPEC)))
}

/// A cluster has one upgrade at a time.
fn not_busy(facts: &Facts) -> Result<(), Refusal> {
    let Some(run) = &facts.run else { return Ok(()) };
    let (subject, by) = (Subject(facts.cluster.arn.to_string()), RunId::from(run.as_str()));
    Err(store(JournalError::SubjectBusy { subject, by }))
}

fn cluster_arn(facts: &Facts) -> Result<ClusterArn, Refusal> {
    let text = facts.cluster.arn.as_str();
    text.parse().map_err(|error| Refusal::Failed(format!("reading the cluster's ARN {text}: {error}")))
}

// --- wishes ---

impl Operator {
    /// Puts a wish into the inbox and waits a moment for the driver to make it a fact. `confirm` must be the cluster's name
    /// for an abort.
    pub async fn ask(
        &self,
        id: &str,
        ask: &str,
        by: &str,
        request: Request<Upgrade>,
        confirm: Option<&str>,
    ) -> Result<Answer, Refusal> {
        let options = self.drivers.options();
        let run = RunId::from(id);
        let info = options.store.info(&run).await.map_err(store)?;
        if let Some(outcome) = info.outcome {
            return Err(Refusal::Refused(format!(
                "upgrade {id} has ended: {}; see how with `pilot status {id}`",
                outcome.as_str()
            )));
        }
        let request = match request {
            Request::Abort => {
                confirmed(info.subject.as_str(), confirm)?;
                self.may_abort(&run).await?;
                Request::Abort
            }
            Request::Tune { settings } => Request::Tune { settings: self.may_tune(&run, &settings).await? },
            Request::Postpone { until } => {
                self.may_postpone(&run, until).await?;
                Request::Postpone { until }
            }
            other => other,
        };
        let ask = if ask.is_empty() { AskId::fresh() } else { AskId::from(ask) };
        let mut changes = options.store.watch(&run);
        engine::journal::ask::<Upgrade>(&*options.store, &run, ask.clone(), by.into(), &request, options.clock.now())
            .await
            .map_err(store)?;
        let taken = async {
            loop {
                if self.has_asked(&run, &ask).await {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let taken = options.clock.timeout(Duration::from_secs(2), taken).await.is_ok();
        if let (true, Request::Tune { settings }) = (taken, &request) {
            self.was_tuned(&run, settings).await?;
        }
        Ok(Answer { upgrade: id.to_owned(), ask: ask.to_string(), taken })
    }
}

impl Operator {
    /// After the switchover nothing is undone: while it is at work, an abort would do nothing at all.
    async fn may_abort(&self, run: &RunId) -> Result<(), Refusal> {
        let running = self.drivers.running(run).and_then(|running| running.handle);
        let (may, step) = match running.map(|handle| handle.state()) {
            Some(state) => (state.may_abort(), state.current().map(|step| step.id.to_string())),
            None => match engine::journal::fold::<Upgrade>(&*self.drivers.options().store, run).await {
                Ok(state) => (state.may_abort(), state.current().map(|step| step.id.to_string())),
                // What cannot be read is not driven either; the wish is kept.
                Err(_) => (true, None),
            },
        };
        if may {
            return Ok(());
        }
        Err(Refusal::Refused(format!(
            "{}: {run} has switched over and serves from the new version; nothing is undone any more. It is at {}: \
             follow it with `pilot watch {run}`",
            codes::SWITCHED_OVER,
            step.as_deref().unwrap_or("its end")
        )))
    }

    /// Is the wish a fact? Where another coordinator drives, its journal says so.
    async fn has_asked(&self, run: &RunId, ask: &AskId) -> bool {
        match self.drivers.running(run).and_then(|running| running.handle) {
            Some(handle) => handle.state().has_asked(ask),
            None if self.leads().is_ok() => false,
            None => {
                let folded = engine::journal::fold::<Upgrade>(&*self.drivers.options().store, run).await;
                folded.is_ok_and(|state| state.has_asked(ask))
            }
        }
    }
}

/// Aborting takes the cluster's name, so that it is never a slip.
fn confirmed(subject: &str, confirm: Option<&str>) -> Result<(), Refusal> {
    let name = subject.rsplit(':').next().unwrap_or(subject);
    match confirm {
        Some(given) if given == name => Ok(()),
        Some(given) => {
            Err(Refusal::Refused(format!("{given:?} is not the cluster of this upgrade: write --confirm {name}")))
        }
        None => Err(Refusal::Refused(format!("an abort takes the cluster's name: write --confirm {name}"))),
    }
}
