//! Everything that needs more than one crate: real binaries on the lab, what `deploy/` gives to people, and the invariants of the
//! repository.
#![forbid(unsafe_code)]

mod cli;
mod deploy;
mod e2e;
mod ingestion;
mod invariants;
mod sim;
