//! Everything that needs more than one crate: real binaries on the lab, and the invariants of the repository.
#![forbid(unsafe_code)]

mod cli;
mod e2e;
mod ingestion;
mod invariants;
mod sim;
