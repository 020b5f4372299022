//! Monitors: what watches a run from its first step to its end, beside the steps.
//!
//! A monitor raises and clears its own alarm and may warn; it never changes the world.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::cx::Shared;
use crate::fact::{Alarm, Fact};
use crate::ids::{Code, MonitorId, RunId};
use crate::plan::Plan;
use crate::state::State;
use crate::step::Domain;

/// Runs from the first step to the end, supervised; a monitor that dies is itself an alarm, and is started again.
pub trait Monitor<D: Domain>: Send + Sync + 'static {
    /// Names its alarm; never renamed.
    const ID: MonitorId;
    /// Raises and clears through `cx`; reads the world and the fold. Never returns; is dropped when the run ends.
    fn watch(&self, cx: MonitorCx<'_, D>) -> impl Future<Output = Infallible> + Send;
}

/// A set of monitors, for [`Plan::throughout`].
pub struct Monitors<D: Domain>(pub(crate) Vec<(MonitorId, Arc<dyn AnyMonitor<D>>)>);

impl<D: Domain> Monitors<D> {
    /// None yet.
    #[expect(clippy::new_without_default, reason = "an empty set is only the beginning of one")]
    pub fn new() -> Monitors<D> {
        Monitors(Vec::new())
    }

    /// Adds one.
    pub fn and<M: Monitor<D>>(mut self, monitor: M) -> Monitors<D> {
        self.0.push((M::ID, Arc::new(monitor)));
        self
    }
}

/// What a monitor can see and do.
pub struct MonitorCx<'a, D: Domain> {
    pub(crate) shared: &'a Shared<D>,
    pub(crate) id: MonitorId,
}

impl<D: Domain> MonitorCx<'_, D> {
    /// The run.
    pub fn run_id(&self) -> &RunId {
        &self.shared.run_id
    }

    /// What is asked for at this moment, with what people have changed since.
    pub fn spec(&self) -> Arc<D::Spec> {
        self.state().in_force().cloned().expect("nothing is driven before its first fact")
    }

    /// What it may read.
    pub fn world(&self) -> &D::World {
        &self.shared.world
    }

    /// The clock to wait with.
    pub fn clock(&self) -> &runtime::clock::Clock {
        &self.shared.clock
    }

    /// The fold as it stands now.
    pub fn state(&self) -> Arc<State<D>> {
        self.shared.state.borrow().clone()
    }

    /// Waits until the fold has changed since the last call on this receiver; gives the receiver to wait with.
    pub fn states(&self) -> tokio::sync::watch::Receiver<Arc<State<D>>> {
        self.shared.state.clone()
    }

    /// Raises this monitor's alarm, in place of the one it has raised before. Nothing is journaled if it is the same.
    /// Returns when it is in the journal, or the driver is gone.
    pub async fn raise(&self, alarm: Alarm) {
        if self.state().alarms().of(self.id) != Some(&alarm) {
            self.shared.append(Fact::AlarmRaised { monitor: self.id, alarm }).await.ok();
        }
    }

    /// Clears this monitor's alarm, if it has one.
    pub async fn clear(&self) {
        if self.state().alarms().of(self.id).is_some() {
            self.shared.append(Fact::AlarmCleared { monitor: self.id }).await.ok();
        }
    }

    /// Records something worth telling. Not for what repeats.
    pub async fn warn(&self, code: Code, detail: impl std::fmt::Display) {
        self.shared.append(Fact::Warned { step: None, code, detail: detail.to_string() }).await.ok();
    }
}

/// A monitor whose type is erased, as the plan keeps it.
pub(crate) trait AnyMonitor<D: Domain>: Send + Sync {
    fn watch<'a>(&'a self, cx: MonitorCx<'a, D>) -> BoxFuture<'a, Infallible>;
}

impl<D: Domain, M: Monitor<D>> AnyMonitor<D> for M {
    fn watch<'a>(&'a self, cx: MonitorCx<'a, D>) -> BoxFuture<'a, Infallible> {
        Box::pin(Monitor::watch(self, cx))
    }
}

impl<D: Domain> Plan<D> {
    /// The names of the monitors.
    pub fn monitor_ids(&self) -> impl Iterator<Item = MonitorId> + '_ {
        self.monitors.iter().map(|(id, _)| *id)
    }
}
