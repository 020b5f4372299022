//! The demo: one real upgrade of a real cluster under load, from nothing to a judged result. It uses the lab for the
//! cloud and the servers, and the project's own binaries for everything else; it must never help the upgrade along.

pub mod binaries;
pub mod bouncer;
pub mod clients;
pub mod court;
pub mod judge;
pub mod ledger;
pub mod load;
pub mod operation;
pub mod pilot;
pub mod probe;
pub mod run;
pub mod schema;
pub mod service;
pub mod session;
pub mod sides;
pub mod summary;
pub mod tally;
pub mod tempo;
pub mod trouble;

#[cfg(test)]
mod tests;
