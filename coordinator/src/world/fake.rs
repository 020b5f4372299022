//! Scripted agents for tests of steps and monitors: they attach to the very table that real ones attach to, only without a
//! wire. Jobs are answered by closures, one a kind; intents are recorded and applied; reports are what the test sets.
//!
//! A kind without a closure fails `Permanent`, so that a step cannot pass on an answer that nobody wrote.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use proto::{
    epoch::{Epoch, StoreId},
    ids::{AgentId, ClusterArn, UpgradeId},
    intent::{Intent, Refusal},
    job::{Job, JobFailure, JobFailureClass, JobKind},
    report::{Event, Report},
};
use runtime::clock::Clock;

use crate::link::{Agents, FromAgent, Hello, Hub, HubOptions, Session, ToAgent, Wish, WishKeeper};

type Answer = Box<dyn FnMut(&Job) -> Result<serde_json::Value, JobFailure> + Send>;
type Opinion = Box<dyn FnMut(&Intent) -> Result<(), Refusal> + Send>;

/// The agents of one cluster, played. Cheap to clone; clones play the same agents.
#[derive(Clone)]
pub struct FakeAgents {
    hub: Hub,
    cluster: ClusterArn,
    roster: Vec<AgentId>,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    answers: BTreeMap<String, Answer>,
    opinion: Option<Opinion>,
    intents: Vec<(AgentId, Intent)>,
    jobs: Vec<Job>,
    /// Results by job id: the same id is the same work.
    done: BTreeMap<String, Result<serde_json::Value, JobFailure>>,
    ears: BTreeMap<AgentId, Box<dyn Fn(FromAgent) + Send>>,
    events: u64,
}

struct KeepsNothing;

impl WishKeeper for KeepsNothing {
    fn keep<'a>(&'a self, _: &'a UpgradeId, _: Epoch, _: &'a Wish) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

impl FakeAgents {
    /// One agent, `agent-1`, attached to the cluster and leading. Must be called within a runtime.
    ///
    /// # Panics
    /// When `cluster` is not the ARN of a cluster.
    pub fn new(cluster: &str, clock: Clock) -> FakeAgents {
        FakeAgents::with(cluster, clock, &["agent-1"])
    }

    /// These agents, all attached.
    ///
    /// # Panics
    /// When `cluster` is not the ARN of a cluster, or a name is none for an agent.
    pub fn with(cluster: &str, clock: Clock, agents: &[&str]) -> FakeAgents {
        let cluster: ClusterArn = cluster.parse().expect("the ARN of a cluster");
        let hub = Hub::new(HubOptions {
            store: StoreId("fake".into()),
            epoch: Epoch(1),
            lease: Duration::from_secs(10),
            clock,
            keeper: Arc::new(KeepsNothing),
        });
        let roster = agents.iter().map(|name| name.parse().expect("an agent's name")).collect();
        let fake = FakeAgents { hub, cluster, roster, script: Arc::default() };
        fake.roster.iter().for_each(|agent| fake.attach(agent));
        fake
    }

    /// The handle for a `World`, with an upgrade of this id open.
    ///
    /// # Panics
    /// When `upgrade` is no upgrade id.
    pub fn agents(&self, upgrade: &str) -> Agents {
        let upgrade: UpgradeId = upgrade.parse().expect("an upgrade id");
        let last = self.hub.agents(&self.cluster).wish();
        self.hub.open(&self.cluster, &upgrade, self.roster.clone(), last)
    }

    /// Answers every job of this kind from now on, also those that were failed before under the same id.
    pub fn answer<J: JobKind>(
        &self,
        mut answer: impl FnMut(J) -> Result<J::Output, JobFailure> + Send + 'static,
    ) -> &FakeAgents {
        let erased = move |job: &Job| {
            let body = serde_json::from_value(job.body.clone())
                .map_err(|error| failure("reading the body", &error.to_string()))?;
            let output = answer(body)?;
            serde_json::to_value(output).map_err(|error| failure("writing the output", &error.to_string()))
        };
        self.script().answers.insert(J::KIND.to_owned(), Box::new(erased));
        self
    }

    /// What the agents think of intents: `Err` is a refusal with this reason. Without it every intent is applied at once.
    pub fn opinion(&self, opinion: impl FnMut(&Intent) -> Result<(), Refusal> + Send + 'static) -> &FakeAgents {
        self.script().opinion = Some(Box::new(opinion));
        self
    }

    /// The newest report of an agent from now on.
    pub fn report(&self, agent: &str, report: Report) {
        self.say(agent, FromAgent::Report(Box::new(report)));
    }

    /// An event, under the next number.
    pub fn event(&self, agent: &str, event: Event) {
        let n = {
            let mut script = self.script();
            script.events += 1;
            script.events
        };
        self.say(agent, FromAgent::Event { n, event });
    }

    fn say(&self, agent: &str, message: FromAgent) {
        let agent: AgentId = agent.parse().expect("an agent's name");
        if let Some(ear) = self.script().ears.get(&agent) {
            ear(message);
        }
    }

    /// The stream of this agent breaks and stays broken until [`FakeAgents::attach_again`].
    pub fn detach(&self, agent: &str) {
        let agent: AgentId = agent.parse().expect("an agent's name");
        self.script().ears.remove(&agent);
        // A newer session ends the old one; dropped at once, it leaves the agent away.
        drop(self.hub.attach(self.hello(&agent)));
    }

    /// The agent dials again.
    pub fn attach_again(&self, agent: &str) {
        self.attach(&agent.parse().expect("an agent's name"));
    }

    /// Every intent that was told, in order.
    pub fn intents(&self) -> Vec<Intent> {
        self.script().intents.iter().map(|(_, intent)| intent.clone()).collect()
    }

    /// The last intent that was told.
    pub fn last_intent(&self) -> Option<Intent> {
        self.script().intents.last().map(|(_, intent)| intent.clone())
    }

    /// Every job that was really done (not those answered again), in order.
    pub fn jobs(&self) -> Vec<Job> {
        self.script().jobs.clone()
    }

    /// The kinds of the jobs that were really done, in order.
    pub fn kinds(&self) -> Vec<String> {
        self.script().jobs.iter().map(|job| job.kind.clone()).collect()
    }

    /// The hub they are attached to.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hello(&self, agent: &AgentId) -> Hello {
        Hello::plain(agent.clone(), self.cluster.clone())
    }

    fn attach(&self, agent: &AgentId) {
        let session = self.hub.attach(self.hello(agent));
        let ear = session.ear();
        self.script().ears.insert(
            agent.clone(),
            Box::new(move |message| {
                let _ = ear(message);
            }),
        );
        tokio::spawn(play(self.clone(), session));
    }

    fn handle(&self, agent: &AgentId, message: ToAgent) -> Option<FromAgent> {
        let mut script = self.script();
        match message {
            ToAgent::Intent(intent) => {
                let (epoch, generation) = (intent.epoch, intent.generation);
                let verdict = script.opinion.as_mut().map_or(Ok(()), |opinion| opinion(&intent));
                script.intents.push((agent.clone(), *intent));
                Some(match verdict {
                    Ok(()) => FromAgent::IntentApplied { epoch, generation },
                    Err(refusal) => FromAgent::IntentRefused { epoch, generation, refusal },
                })
            }
            ToAgent::Job(job) => Some(script.job(*job)),
            ToAgent::AckJob(id) => {
                script.done.remove(id.as_str());
                None
            }
            ToAgent::Welcome(_)
            | ToAgent::LeaseRenewed { .. }
            | ToAgent::CancelJob { .. }
            | ToAgent::AckEvent(_)
            | ToAgent::Goodbye { .. } => None,
        }
    }
}

async fn play(fake: FakeAgents, mut session: Session) {
    while let Some(message) = session.next().await {
        let agent = session.agent().clone();
        if let Some(answer) = fake.handle(&agent, message)
            && session.hear(answer).is_err()
        {
            return;
        }
    }
}

impl Script {
    fn job(&mut self, job: Job) -> FromAgent {
        let id = job.id.clone();
        let known = self.done.get(id.as_str()).cloned();
        let result = known.unwrap_or_else(|| {
            let nobody = || Err(failure("answering a job", &format!("no answer is scripted for {}", job.kind)));
            let result = self.answers.get_mut(&job.kind).map_or_else(nobody, |answer| answer(&job));
            self.done.insert(id.as_str().to_owned(), result.clone());
            self.jobs.push(job);
            result
        });
        match result {
            Ok(output) => FromAgent::JobDone { id, output },
            Err(failure) => FromAgent::JobFailed { id, failure },
        }
    }
}

/// A failure as an agent makes it.
pub fn failure(doing: &str, cause: &str) -> JobFailure {
    let (doing, chain) = (doing.to_owned(), vec![cause.to_owned()]);
    JobFailure { class: JobFailureClass::Permanent, code: "PU0701".into(), doing, chain }
}
