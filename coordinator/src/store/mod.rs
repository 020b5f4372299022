//! Where runs are kept. `sqlite.rs` is the store of a single coordinator; what is in it, and why, is said at its top.

mod samples;
mod sqlite;
#[cfg(test)]
mod tests;
mod worker;

pub use samples::{About, Sample};
pub use sqlite::{OpenError, SqliteStore};
