//! One attached agent, from its `Hello` to the end of its stream: what it is told next, and where what it says goes.
//!
//! The same for a stream over the wire and for a scripted agent of a test. It holds no state that is worth keeping: a new
//! session says everything again.

use std::sync::Arc;

use proto::{
    epoch::{Epoch, Generation},
    ids::AgentId,
};
use tokio::sync::watch;

use super::message::{FromAgent, ToAgent, Welcome};
use super::table::Table;

/// Why a session takes no more messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session was replaced by a newer one, or it cannot keep up")]
pub struct SessionEnd;

/// A session; dropping it detaches the agent.
pub struct Session {
    table: Arc<Table>,
    agent: AgentId,
    number: u64,
    down: watch::Receiver<u64>,
    welcome: Option<Welcome>,
    told: Option<(Epoch, Generation)>,
    over: bool,
}

impl Session {
    pub(crate) fn new(table: Arc<Table>, agent: AgentId, number: u64, welcome: Welcome) -> Session {
        let mut down = table.down();
        down.mark_changed();
        Session { table, agent, number, down, welcome: Some(welcome), told: None, over: false }
    }

    /// What to send next; waits until there is something. `None` when the session is over. Cancel-safe.
    pub async fn next(&mut self) -> Option<ToAgent> {
        loop {
            self.down.borrow_and_update();
            if let Some(message) = self.pick() {
                return Some(message);
            }
            if self.over || self.down.changed().await.is_err() {
                return None;
            }
        }
    }

    fn pick(&mut self) -> Option<ToAgent> {
        if let Some(welcome) = self.welcome.take() {
            return Some(ToAgent::Welcome(welcome));
        }
        if self.over {
            return None;
        }
        let mut inner = self.table.lock();
        if inner.agents.get(&self.agent).is_none_or(|agent| agent.session != Some(self.number)) {
            self.over = true;
            return None;
        }
        let message = inner
            .next_for(&self.agent, self.number, self.told)
            .or_else(|| inner.closing.clone().map(|address| ToAgent::Goodbye { address, after_ms: 250 }))?;
        match &message {
            ToAgent::Intent(intent) => self.told = Some((intent.epoch, intent.generation)),
            ToAgent::Goodbye { .. } => self.over = true,
            _ => {}
        }
        Some(message)
    }

    /// Takes in what the agent said.
    ///
    /// # Errors
    /// [`SessionEnd`] when the stream should be cut.
    pub fn hear(&self, message: FromAgent) -> Result<(), SessionEnd> {
        if self.table.hear(&self.agent, self.number, message) { Ok(()) } else { Err(SessionEnd) }
    }

    /// A second handle that only hears, for the task that reads the stream.
    pub(crate) fn ear(&self) -> impl Fn(FromAgent) -> Result<(), SessionEnd> + Send + 'static {
        let (table, agent, number) = (Arc::clone(&self.table), self.agent.clone(), self.number);
        move |message| if table.hear(&agent, number, message) { Ok(()) } else { Err(SessionEnd) }
    }

    /// Whose session it is.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.table.detach(&self.agent, self.number);
    }
}
