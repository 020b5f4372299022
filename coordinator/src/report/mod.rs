//! What happened in one upgrade, for a change record and an auditor. `build` makes the model from the facts of the journal and the
//! status that everybody sees; `html`, `markdown` and `terraform` write it down. Pure: no store, no clock, no socket. Every figure
//! is the journal's, and what the journal does not hold is said to be not known.

mod build;
mod changes;
mod chart;
pub mod html;
mod known;
pub mod markdown;
mod model;
pub mod sum;
pub mod terraform;
#[cfg(test)]
mod tests;
mod timeline;
mod told;
mod verification;

pub use build::{Input, build};
pub use model::*;
