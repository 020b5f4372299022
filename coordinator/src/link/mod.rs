//! The coordinator's side of the agent stream: who is attached, what each was told, what each answered.
//!
//! `Hub` knows every cluster; a cluster's table is level-triggered: a session sends whatever its agent has not been sent
//! yet, so that reconnecting is sending the same again. Generated wire types are named in `wire.rs` only; `fake.rs` of
//! `world` attaches scripted agents to the very same table, without a wire. Nothing here decides about an upgrade.

mod agents;
mod hub;
mod message;
mod server;
mod session;
mod table;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod wire;

pub use agents::{AgentSeen, Agents, Fresh, Heard, Keep, Settled, Wish};
pub use hub::{Hub, HubOptions, Standing, WishKeeper};
pub use message::{FromAgent, Hello, ToAgent, Welcome};
pub use server::LinkService;
pub use session::{Session, SessionEnd};
