//! What may not live where (ARCHITECTURE.md), held by tests over the sources, the dependency graph and the runbook. They
//! need no server and no build of the other binaries; they must not test behaviour.

mod graph;
mod monitoring;
mod places;
mod repository;
mod runbook;
pub(crate) mod source;
