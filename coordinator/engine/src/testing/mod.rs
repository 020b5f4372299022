//! For the tests of whoever uses the engine: an in-memory journal and the contract every store must pass, the crash
//! matrix, and the conformance suite that every step must pass. A plain module; nothing in production calls it.

mod contract;
mod given;
mod journal;
mod matrix;

pub use contract::journal_contract;
pub use given::Given;
pub use journal::{LossyJournal, MemoryJournal, When};
pub use matrix::{Played, Report, Scene, Verdict, conformance, crash_matrix, play, play_asked};
