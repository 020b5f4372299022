//! The codes of the coordinator's body: bad input, and trouble with agents and their stream. The steps have theirs in
//! `steps/codes.rs` (from PU0011 on), the engine in `engine::failure::codes` (09xx), the agents beside their jobs.
//!
//! A code is never renamed or reused. Each has a page `deploy/runbook/<code>.md`, compiled in for `pilot explain`; a test
//! checks that it exists.

use engine::Code;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)+) => {
        $($(#[$doc])* pub const $name: Code = Code($code);)+
        /// All of them, for the test that every code has a page.
        pub const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    /// The spec asks for something that cannot be.
    BAD_SPEC = "PU0001";
    /// Another upgrade of this cluster is under way.
    CLUSTER_BUSY = "PU0004";
    /// The plan shown is not the plan any more.
    PLAN_CHANGED = "PU0005";
    /// The journal was written by another version of the program.
    OTHER_VERSION = "PU0006";
    /// The store holds what this program never wrote there.
    STORE_DAMAGED = "PU0007";
    /// The store's tables are of a version that this program does not know.
    STORE_VERSION = "PU0008";
    /// The store cannot be reached, opened or written.
    STORE_UNUSABLE = "PU0009";
    /// Another coordinator drives the upgrades.
    NOT_LEADING = "PU0010";

    /// No agent of the cluster is connected.
    NO_LEAD = "PU0101";
    /// An agent did not settle what it was told in time.
    AGENT_SILENT = "PU0102";
    /// An agent refused what it was told.
    INTENT_REFUSED = "PU0103";
    /// An agent refused a job, or failed it without a code.
    JOB_REFUSED = "PU0104";
    /// An agent did not answer for a job in time.
    JOB_SILENT = "PU0105";
    /// A job's answer is not of the shape it should have.
    JOB_ANSWER = "PU0106";
    /// The newest wish for the agents could not be kept.
    WISH_NOT_KEPT = "PU0107";
    /// A job was asked for before the servers were known.
    NO_TARGETS = "PU0108";
    /// Agents were to be told something outside an upgrade.
    NO_UPGRADE = "PU0109";
    /// An agent claims a cluster that it is not bound to.
    FOREIGN_AGENT = "PU0110";
    /// A certificate is none that is taken here: missing, expired, of another authority, or of nobody known.
    BAD_CERTIFICATE = "PU0111";
    /// An operator asks for what its roles do not allow.
    NOT_ALLOWED = "PU0112";
    /// An abort was asked for after the switchover.
    SWITCHED_OVER = "PU0114";
    /// A token is none that is taken here.
    BAD_TOKEN = "PU0113";
    /// As many agents are attached as the coordinator bears.
    TOO_MANY_AGENTS = "PU0115";
    /// An agent of a version that does not work with this one.
    OTHER_PROTOCOL = "PU0116";

    /// As many pages are kept up to date as the coordinator bears.
    TOO_MANY_PAGES = "PU1101";
    /// A page asked for something on what is not so any more.
    STALE_PAGE = "PU1102";
    /// A browser asks for something from another site's page, or by a foreign name.
    OTHER_SITE = "PU1103";
    /// A hook says no to a step, or says wait for too long.
    HOOK_VETO = "PU1001";
    /// A hook could not be asked before a step.
    HOOK_FAILED = "PU1002";
    /// A hook was not told of something and is not tried again.
    HOOK_NOT_TOLD = "PU1003";
    /// A setting cannot be tuned, or not to that value.
    CANNOT_TUNE = "PU1301";
    /// The switchover is to be postponed, and it is too late for that.
    CANNOT_POSTPONE = "PU1302";

    /// Ingestion does not do what it was told: a monitor sees it, or an agent says so.
    INGESTION_OFF = "PU0604";
}
