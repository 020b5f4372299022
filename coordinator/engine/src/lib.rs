//! A durable step engine: an append-only journal of facts, a fold of them, a pure decision, and one driver per run.
//!
//! A run *is* its journal. [`state::State`] is a fold of the facts, [`decide::decide`] is a pure function from state to
//! the next move, and only [`driver::Driver`] appends. What runs are about is a [`step::Domain`]; no word of it may
//! appear in this crate.
#![forbid(unsafe_code)]

mod actor;
mod apply;
pub mod cx;
pub mod decide;
pub mod driver;
pub mod fact;
pub mod failure;
pub mod ids;
pub mod journal;
pub mod monitor;
pub mod plan;
pub mod state;
pub mod step;
pub mod testing;
mod writer;

pub use cx::{Count, Cx, Doing, Lease, Progress, WaitStatus};
pub use decide::{Move, decide};
pub use driver::{DriveError, Driver, Ended, Handle, Options, Parts};
pub use fact::{Alarm, Entry, Fact, Outcome, Request};
pub use failure::{Failure, FailureClass};
pub use ids::{AskId, Code, MonitorId, Operator, RunId, Source, StepId, Subject};
pub use journal::{Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Record, RunFilter, RunInfo, Seq};
pub use monitor::{Monitor, MonitorCx, Monitors};
pub use plan::{Plan, PlanShape, Restart, Retry, StepOrder};
pub use state::{Alarms, Mode, Pivot, State, Status, StepState};
pub use step::{Domain, Gate, Look, Reversal, Settled, Step, Unit, Wait, Why};

#[cfg(test)]
mod tests;
