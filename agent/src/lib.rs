//! The agent: everything of an upgrade that touches a database or an ingestion service. It is told what should be true
//! and does one-off work; it never calls AWS, and what it cannot be told it asks the database.
#![forbid(unsafe_code)]

pub mod check;
pub mod config;
pub mod gate;
pub mod helm;
pub mod ingestion;
pub mod jobs;
pub mod link;
pub mod meeting;
pub mod metrics;
pub mod pg;
pub mod probe;
pub mod purger;
pub mod slots;
pub mod spool;
pub mod stance;
pub mod state;
pub mod status;
pub mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;
