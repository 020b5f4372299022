//! The codes of this agent's job failures, one constant each. A code is never reused for another meaning; each wants a runbook page.

/// The agent does not have this kind of job.
pub const UNKNOWN_KIND: &str = "PU0700";
/// The job's body does not have the kind's form.
pub const BAD_BODY: &str = "PU0701";
/// The job was cancelled.
pub const CANCELLED: &str = "PU0702";
/// The job's deadline passed.
pub const DEADLINE: &str = "PU0703";
/// The server that answered is not the one the job is meant for.
pub const WRONG_SERVER: &str = "PU0704";
/// No server of the side could be reached, or none takes writes.
pub const UNREACHABLE: &str = "PU0705";
/// The database refused a statement.
pub const SQL: &str = "PU0706";
/// The agent's role lacks a right.
pub const RIGHTS: &str = "PU0707";
/// A lock was not to be had within the retries.
pub const LOCKED: &str = "PU0708";
/// The job needs green and was not told of one.
pub const NO_GREEN: &str = "PU0709";
/// Partitions could not be made as far ahead as asked.
pub const PARTITIONS: &str = "PU0710";
/// Cron jobs were still running when the wait was over.
pub const CRON_RUNNING: &str = "PU0711";
/// A table was skipped by `VACUUM`.
pub const SKIPPED: &str = "PU0712";
/// Extensions may not be touched while a subscription is left.
pub const SUBSCRIBED: &str = "PU0713";
/// The business query is not configured on this agent.
pub const NO_QUERY: &str = "PU0714";
/// A marker did not arrive on green in time.
pub const MARKER_LATE: &str = "PU0715";
/// The server that serves now does not take writes yet.
pub const READ_ONLY: &str = "PU0716";
/// Schema `upgrade_pilot` belongs to another upgrade or to somebody else.
pub const FOREIGN_SCHEMA: &str = "PU0717";
