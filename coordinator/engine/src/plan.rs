//! The order of steps, and the budgets that go with it. A plan in an impossible order cannot be built.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{MonitorId, StepId};
use crate::monitor::{AnyMonitor, Monitor};
use crate::step::{AnyStep, Domain, Reversal, Step};

/// Steps in order, monitors, budgets. Built once at start-up.
pub struct Plan<D: Domain> {
    pub(crate) steps: Vec<Arc<dyn AnyStep<D>>>,
    pub(crate) monitors: Vec<(MonitorId, Arc<dyn AnyMonitor<D>>)>,
    shape: PlanShape,
}

/// What [`crate::decide::decide`] needs to know of a plan: no code, only data.
#[derive(Clone, Debug, Default)]
pub struct PlanShape {
    /// In order.
    pub steps: Vec<StepShape>,
    /// Where a restart begins, and how often one is allowed.
    pub restart: Option<Restart>,
}

/// One step of a [`PlanShape`].
#[derive(Clone, Debug)]
pub struct StepShape {
    /// Its name in the journal.
    pub id: StepId,
    /// For people.
    pub title: &'static str,
    /// Whether it can be undone.
    pub reversal: Reversal,
    /// What it may spend on transient failures.
    pub retry: Retry,
}

/// How often, and how far apart, a step is tried again after transient failures. Undo uses the delays only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first, over the whole step.
    pub retries_max: u32,
    /// Delay before the first further attempt; doubles each time.
    pub delay_min: Duration,
    /// The longest delay.
    pub delay_max: Duration,
}

impl Default for Retry {
    /// Five retries, 1 s to 60 s apart.
    fn default() -> Retry {
        Retry { retries_max: 5, delay_min: Duration::from_secs(1), delay_max: Duration::from_secs(60) }
    }
}

/// A permanent failure (or an alarm to unwind) at or after step `from` undoes back to and including `from` and then
/// starts again there, as long as the budget lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The step that is begun again.
    pub from: StepId,
    /// How many restarts are allowed.
    pub restarts_max: u32,
}

impl<D: Domain> Plan<D> {
    /// An empty plan.
    #[expect(clippy::new_without_default, reason = "an empty plan is not a useful default")]
    pub fn new() -> Plan<D> {
        Plan { steps: Vec::new(), monitors: Vec::new(), shape: PlanShape::default() }
    }

    /// Adds a step.
    ///
    /// # Panics
    /// If the order is impossible (a plan is reversible steps, then at most one pivot, then forward-only steps) or the
    /// id is taken: a mistake in the program, found when it starts.
    pub fn then<S: Step<D>>(mut self, step: S) -> Plan<D> {
        let last = self.shape.steps.last().map(|step| step.reversal);
        let fits = match S::REVERSAL {
            Reversal::Reversible | Reversal::Pivot => matches!(last, None | Some(Reversal::Reversible)),
            Reversal::ForwardOnly => matches!(last, Some(Reversal::Pivot | Reversal::ForwardOnly)),
        };
        assert!(fits, "step {} ({:?}) cannot follow {last:?}", S::ID, S::REVERSAL);
        assert!(self.shape.index(S::ID).is_none(), "two steps are called {}", S::ID);
        self.shape.steps.push(StepShape { id: S::ID, title: S::TITLE, reversal: S::REVERSAL, retry: Retry::default() });
        self.steps.push(Arc::new(step));
        self
    }

    /// Sets the retry budget of the step added last.
    ///
    /// # Panics
    /// If there is no step yet.
    pub fn retry(mut self, retry: Retry) -> Plan<D> {
        self.shape.steps.last_mut().expect("a step to set the budget of").retry = retry;
        self
    }

    /// Sets the retry budget of a step by id.
    ///
    /// # Panics
    /// If the plan has no such step.
    pub fn retry_of(mut self, id: StepId, retry: Retry) -> Plan<D> {
        let index = self.shape.index(id).expect("a step of the plan");
        self.shape.steps[index].retry = retry;
        self
    }

    /// Adds a monitor that runs from the first step to the end.
    pub fn watched_by<M: Monitor<D>>(mut self, monitor: M) -> Plan<D> {
        self.monitors.push((M::ID, Arc::new(monitor)));
        self
    }

    /// Adds a set of monitors, as made by [`crate::monitor::Monitors`].
    pub fn throughout(mut self, monitors: crate::monitor::Monitors<D>) -> Plan<D> {
        self.monitors.extend(monitors.0);
        self
    }

    /// Allows restarts; see [`Restart`].
    ///
    /// # Panics
    /// If `from` is not a reversible step of the plan.
    pub fn restart_from(mut self, from: StepId, restarts_max: u32) -> Plan<D> {
        let index = self.shape.index(from).expect("a step of the plan");
        assert!(self.shape.steps[index].reversal == Reversal::Reversible, "{from} is not reversible");
        self.shape.restart = Some(Restart { from, restarts_max });
        self
    }

    /// The plan as data.
    pub fn shape(&self) -> &PlanShape {
        &self.shape
    }
}

/// The part of a plan that is in the journal: a program whose own differs must not drive the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOrder {
    /// All steps in order.
    pub steps: Vec<StepId>,
    /// Which of them is the pivot: what comes after it is never undone.
    pub pivot: Option<StepId>,
}

/// The steps in order.
impl std::ops::Deref for StepOrder {
    type Target = [StepId];
    fn deref(&self) -> &[StepId] {
        &self.steps
    }
}

impl PlanShape {
    /// The steps' names in order, as `Created` records them.
    pub fn ids(&self) -> StepOrder {
        StepOrder { steps: self.steps.iter().map(|step| step.id).collect(), pivot: self.pivot() }
    }

    /// The pivot, if there is one.
    pub fn pivot(&self) -> Option<StepId> {
        self.steps.iter().find(|step| step.reversal == Reversal::Pivot).map(|step| step.id)
    }

    /// Where in the order a step is.
    pub fn index(&self, id: StepId) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }
}
