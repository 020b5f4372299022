//! What both processes must agree on: identifiers, intents, jobs, reports and the wire they travel on.
//!
//! Pure: no I/O, no clock. Generated types (`wire`) are named at the edges only (`link/wire.rs`, `operator/wire.rs`,
//! `cli/client.rs`); everything else uses the domain types of this crate.
#![forbid(unsafe_code)]

pub mod epoch;
pub mod identity;
pub mod ids;
pub mod intent;
pub mod job;
pub mod jobs;
pub mod lsn;
pub mod phase;
pub mod protocol;
pub mod report;
pub mod side;

/// Generated from `wire/v1/*.proto`; for the edges only.
#[allow(unreachable_pub, clippy::all)]
pub mod wire {
    tonic::include_proto!("upgrade_pilot.v1");
}
