//! Ingestion systems with a memory of their own: what they were told stays true while their agent is away. They judge every
//! release as it happens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::ingestion::{BoxFuture, ControlError, IngestionController, Observation, PauseMark, Serving};
use proto::report::IngestionState;

use super::world::{AGENTS, World, locked};

/// One system.
#[derive(Debug)]
pub(super) struct System {
    agent: usize,
    name: &'static str,
    /// It holds clients, and can be told another address.
    holds: bool,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Since when it is paused.
    pub(super) paused: Option<Duration>,
    /// Its clients are sent to green by address; else they follow the production name.
    pub(super) on_green: bool,
    /// Every request fails.
    pub(super) broken: bool,
}

impl System {
    pub(super) fn new(agent: usize, name: &'static str, holds: bool) -> System {
        System { agent, name, holds, state: Mutex::default() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    pub(super) fn state(&self) -> State {
        locked(&self.state).clone()
    }

    pub(super) fn set_broken(&self, broken: bool) {
        locked(&self.state).broken = broken;
    }
}

/// The way from an agent to one of its systems.
pub(super) struct Controller {
    pub(super) world: Arc<World>,
    pub(super) system: Arc<System>,
}

impl Controller {
    async fn reached(&self) -> Result<(), ControlError> {
        let latency = if self.world.dice.percent(3) { 1..400 } else { 1..15 };
        tokio::time::sleep(self.world.dice.millis(latency)).await;
        match self.system.state().broken {
            true => Err(ControlError::Failed { doing: format!("asking {}", self.system.name), what: "broken".into() }),
            false => Ok(()),
        }
    }

    fn tell(&self, what: &str) {
        self.world.tell(format!("{} {} {what}", AGENTS[self.system.agent], self.system.name));
    }

    /// Clients go where they must not.
    fn judge(&self, to_green: bool) {
        let World { lives, .. } = &*self.world;
        let life = locked(lives)[self.system.agent].clone();
        let Some(life) = life else { return };
        let seen = life.probe.borrow().green_took_write;
        let stance = *life.stance.borrow();
        if to_green && !self.world.cut().switched {
            self.world.violated(format!("{} released to green before it took writes ({stance})", self.system.name));
        }
        if !to_green && seen {
            self.world.violated(format!("{} released to blue after a writable green ({stance})", self.system.name));
        }
    }
}

impl IngestionController for Controller {
    fn name(&self) -> &str {
        self.system.name
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>> {
        Box::pin(async {
            self.reached().await?;
            let paused = self.system.state().paused.is_some();
            let state = if paused { IngestionState::Paused } else { IngestionState::Running };
            Ok(Observation { state, backlog: Some(0), rate: Some(5.0) })
        })
    }

    fn pause<'a>(&'a self, _: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async {
            self.reached().await?;
            let now = self.world.now();
            locked(&self.system.state).paused.get_or_insert(now);
            self.tell("paused");
            // It may answer late, when it is paused already.
            self.reached().await
        })
    }

    fn resume<'a>(&'a self, _: &'a PauseMark, to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            self.reached().await?;
            let on_green = to.is_some();
            let was = {
                let mut state = locked(&self.system.state);
                state.on_green |= on_green && self.system.holds;
                state.paused.take()
            };
            if was.is_some() {
                self.tell(if on_green { "released to green" } else { "released to blue" });
                self.judge(on_green);
            }
            Ok(())
        })
    }

    fn holds(&self) -> bool {
        self.system.holds
    }

    fn retarget(&self, _: Serving) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async {
            self.reached().await?;
            locked(&self.system.state).on_green = true;
            Ok(())
        })
    }

    fn restore_target(&self) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async {
            locked(&self.system.state).on_green = false;
            Ok(true)
        })
    }
}
