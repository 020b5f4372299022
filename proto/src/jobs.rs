//! Every kind of job, its body and its output. One struct a kind; the agent has one file a kind in `agent/src/jobs/`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    job::JobKind,
    report::{Session, Verdict},
    side::ServerSaid,
};

/// A table by name. `Display` gives `database: schema.table`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Table {
    pub database: String,
    pub schema: String,
    pub name: String,
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}.{}", self.database, self.schema, self.name)
    }
}

impl std::str::FromStr for Table {
    type Err = String;

    /// From `database.schema.table`, as a spec names it.
    fn from_str(text: &str) -> Result<Table, String> {
        match text.split('.').collect::<Vec<_>>()[..] {
            [database, schema, name] if ![database, schema, name].contains(&"") => {
                Ok(Table { database: database.into(), schema: schema.into(), name: name.into() })
            }
            _ => Err(format!("{text:?} does not name a table: write database.schema.table")),
        }
    }
}

macro_rules! job {
    ($body:ident, $kind:literal, $output:ty $(, urgent = $urgent:literal)?) => {
        impl JobKind for $body {
            const KIND: &'static str = $kind;
            $(const URGENT: bool = $urgent;)?
            type Output = $output;
        }
    };
}

// ---- preflight -------------------------------------------------------------------------------------------------

/// Everything preflight asks of a side, read-only, in every connectable database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspect {
    /// Names of the business queries that the spec wants; each must be configured on the agent.
    pub queries: Vec<String>,
}
job!(Inspect, "inspect", Inspection);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    pub said: ServerSaid,
    pub version: String,
    pub databases: Vec<Database>,
    /// Values of the settings that the upgrade depends on (`wal_level`, `max_replication_slots` …).
    pub settings: BTreeMap<String, String>,
    pub tables_without_identity: Vec<Table>,
    pub unlogged_tables: Vec<Table>,
    /// Databases that hold large objects, with how many.
    pub large_objects: Vec<(String, u64)>,
    /// Slots that are not the deployment's: `name (plugin, active)`.
    pub foreign_slots: Vec<String>,
    /// `database: name`.
    pub foreign_publications: Vec<String>,
    pub foreign_subscriptions: Vec<String>,
    /// `gid (database, owner, age)`.
    pub prepared_transactions: Vec<String>,
    /// Roles or databases that set `default_transaction_read_only`.
    pub read_only_overrides: Vec<String>,
    pub materialized_views: Vec<Table>,
    /// Jobs or statements that refresh materialized views: what was found, never a statement's text.
    pub view_refreshers: Vec<String>,
    /// `ENABLE REPLICA`/`ENABLE ALWAYS` triggers and event triggers: they fire on green.
    pub replica_triggers: Vec<String>,
    pub event_triggers: Vec<String>,
    pub sequences: u64,
    /// What the agent's own role may not do and must: each a sentence with the cure.
    pub missing_rights: Vec<String>,
    /// Spec queries that this agent does not have.
    pub missing_queries: Vec<String>,
    /// Transactions with an id that are older than a minute.
    pub old_transactions: Vec<Session>,
    /// `upgrade_pilot` exists already in these databases (a leftover, or ours after a resume).
    pub leftover_schemas: Vec<String>,
    /// Foreign servers that name a host.
    #[serde(default)]
    pub foreign_servers: Vec<ForeignServer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignServer {
    pub database: String,
    pub name: String,
    pub host: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Database {
    pub name: String,
    pub bytes: u64,
    pub tables: u64,
    pub extensions: Vec<Extension>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub installed: String,
    /// The default version that this server offers.
    pub available: Option<String>,
}

// ---- our schema ------------------------------------------------------------------------------------------------

/// Makes schema `upgrade_pilot` (marker, probe, ended statements, ledger, saved state) in every connectable database.
/// Before green exists only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstallSchema {
    pub upgrade: String,
}
job!(InstallSchema, "install_schema", SchemaInstalled);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaInstalled {
    pub databases: Vec<String>,
}

/// Drops schema `upgrade_pilot` everywhere, after the deployment is gone. Leaves the ledger where a verdict is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoveSchema {}
job!(RemoveSchema, "remove_schema", SchemaRemoved);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRemoved {
    pub databases: Vec<String>,
    /// Databases whose ledger stays because a verdict is open, with the reason.
    pub kept: Vec<(String, String)>,
}

/// Gives tables without a key the identity that the operator approved. Undone by `restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetReplicaIdentity {
    /// Tables to set to `FULL`.
    pub full: Vec<Table>,
    /// Tables to set back to their default.
    pub restore: Vec<Table>,
}
job!(SetReplicaIdentity, "set_replica_identity", Vec<Table>);

// ---- extensions ------------------------------------------------------------------------------------------------

/// Makes partitions ahead, saves what was set, then quiets pg_cron and pg_partman and waits for running jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quiesce {
    /// Partitions must reach this far.
    pub premake_until: Timestamp,
    /// How long running cron jobs are waited for.
    pub running_jobs_wait_ms: u64,
}
job!(Quiesce, "quiesce", Quiesced);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesced {
    /// Cron jobs that were active and are saved.
    pub cron_jobs: u64,
    pub partition_sets: u64,
    pub partitions_made: u64,
    pub covered_until: Option<Timestamp>,
}

/// Puts back what `Quiesce` saved, on the living side. Idempotent; does nothing where nothing was saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unquiesce {}
job!(Unquiesce, "unquiesce", Unquiesced);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unquiesced {
    pub cron_jobs: u64,
    pub partition_sets: u64,
    /// Rows found in default partitions, by set: reported before maintenance comes back.
    pub rows_in_default: Vec<(String, u64)>,
}

/// Raises extensions to the version that this server offers, after the cut, when no subscription is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateExtensions {}
job!(UpdateExtensions, "update_extensions", Vec<ExtensionUpdate>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionUpdate {
    pub database: String,
    pub name: String,
    pub from: String,
    pub to: String,
}

/// Tests each extension that was quieted: a cron job really runs, a maintenance really makes a partition, then is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestExtensions {
    pub deadline_ms: u64,
}
job!(TestExtensions, "test_extensions", Vec<ExtensionTest>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionTest {
    pub database: String,
    pub name: String,
    pub version: String,
    /// What was done and seen, in one sentence.
    pub evidence: String,
    pub passed: bool,
}

// ---- green -----------------------------------------------------------------------------------------------------

/// No vacuum opens more connections at once.
pub const VACUUM_CONNECTIONS_MAX: u32 = 32;

/// `VACUUM (ANALYZE)` of every table on green, biggest first, then what the spec asks for. A skipped table fails it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vacuum {
    /// Connections at once, at most [`VACUUM_CONNECTIONS_MAX`].
    pub parallel: u32,
    pub full: Vec<Table>,
    pub reindex: Vec<Table>,
}
job!(Vacuum, "vacuum", Vacuumed);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vacuumed {
    pub tables: u64,
    pub full: u64,
    pub reindexed: u64,
    pub slowest: Vec<(Table, u64)>,
}

/// Are statistics there for every table on the side, made after `since`?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckStatistics {
    pub since: Timestamp,
}
job!(CheckStatistics, "check_statistics", StatisticsChecked);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsChecked {
    pub tables: u64,
    pub without: Vec<Table>,
    pub extended_without: Vec<String>,
}

/// Compares the catalogue fingerprints of blue and green.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareSchema {}
job!(CompareSchema, "compare_schema", SchemaDifferences, urgent = true);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaDifferences {
    pub objects: u64,
    /// Empty when the sides are equal.
    pub differences: Vec<String>,
    /// Installed extension versions that differ, and settings that differ: shown, not refused.
    pub extensions: Vec<String>,
    pub settings: Vec<String>,
}

/// Compares the sides (field rule 6): counts and keyed hashes of every table, and named business queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    pub queries: Vec<String>,
    /// Compare row hashes too, not only counts.
    pub hashes: bool,
    /// A difference that persists this often fails.
    pub rounds: u32,
    /// Inside the hold: only tables written since their last clean comparison, within this budget.
    pub hold_budget_ms: Option<u64>,
    /// Let a blue reader do the reading where there is one.
    pub prefer_reader: bool,
}
job!(Compare, "compare", Compared);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub tables: Vec<TableCompared>,
    pub queries: Vec<QueryCompared>,
    /// What was not proven exactly, by name, with the reason.
    pub unproven: Vec<(Table, String)>,
    pub rounds: u32,
}

impl Compared {
    /// Tables and queries that differ, as sentences; empty when the sides agree.
    pub fn differences(&self) -> Vec<String> {
        let tables = self.tables.iter().filter(|table| !table.equal).map(|table| {
            format!("{} has {} rows on blue and {} on green", table.table, table.blue_rows, table.green_rows)
        });
        let differs = |query: &&QueryCompared| !query.equal && query.unproven.is_none();
        let queries = self.queries.iter().filter(differs).map(|query| format!("query {} differs", query.name));
        tables.chain(queries).collect()
    }

    /// What was not proven exactly, with the reason; to be proven inside the hold, or shown.
    pub fn unproven(&self) -> Vec<(String, String)> {
        let tables = self.unproven.iter().map(|(table, why)| (table.to_string(), why.clone()));
        let queries = self.queries.iter().filter_map(|q| Some((format!("query {}", q.name), q.unproven.clone()?)));
        tables.chain(queries).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCompared {
    pub table: Table,
    pub equal: bool,
    pub blue_rows: u64,
    pub green_rows: u64,
    /// Rounds it took to agree.
    pub rounds: u32,
}

/// Never the answer itself: a digest of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryCompared {
    pub name: String,
    pub equal: bool,
    pub blue_digest: String,
    pub green_digest: String,
    /// Why the answers could not be compared: what they are about was written to each time.
    #[serde(default)]
    pub unproven: Option<String>,
}

/// Commits a marker on blue in every database and waits until each is read on green.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// Distinguishes this marker from any other.
    pub key: String,
}
job!(Marker, "marker", MarkerSeen, urgent = true);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerSeen {
    /// Milliseconds from the commit on blue to the sight on green, by database.
    pub databases: Vec<(String, u64)>,
}

// ---- the cut ---------------------------------------------------------------------------------------------------

/// Ends the sessions on blue that would delay the cut, and records the statements that the policy may resubmit (field rule 8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndSessions {
    pub policies: Vec<ResubmitPolicy>,
    pub allow_applications: Vec<String>,
    /// Writers and idle transactions older than this are ended; younger ones may finish until the drain limit.
    pub older_than_ms: u64,
    /// How long the others may take to finish by themselves before they are ended too.
    pub drain_ms: u64,
}
job!(EndSessions, "end_sessions", SessionsEnded, urgent = true);

/// One policy entry. The operator asserts with it that the client does not retry by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResubmitPolicy {
    /// The database that the statement ran in.
    pub database: String,
    /// The role that it ran as, and runs as again.
    pub role: String,
    /// The `search_path` that it ran with, and runs with again.
    pub search_path: String,
    /// `true`: the client does not run it again by itself. Written out so that it cannot be forgotten.
    pub client_does_not_retry: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionsEnded {
    pub ended: Vec<EndedSession>,
    /// Sessions that could not be ended, with the reason.
    pub remaining: Vec<(Session, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedSession {
    pub session: Session,
    /// The ledger key under which its statement will be resubmitted.
    pub recorded: Option<String>,
    pub not_resubmittable: Option<String>,
}

/// Runs what was recorded, once each, on the side that serves now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resubmit {
    /// How long a proof of abort may stay `in progress` before the verdict is `unknown`.
    pub proof_wait_ms: u64,
    pub statement_timeout_ms: u64,
}
job!(Resubmit, "resubmit", Resubmitted);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resubmitted {
    pub verdicts: Vec<StatementVerdict>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementVerdict {
    pub key: String,
    pub database: String,
    pub role: String,
    pub verdict: Verdict,
}

// ---- after the cut ---------------------------------------------------------------------------------------------

/// Who answers behind the production endpoint?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identify {}
job!(Identify, "identify", Identified, urgent = true);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identified {
    pub said: ServerSaid,
    pub version: String,
    pub subscriptions_left: u64,
}

/// Checks every sequence against its value on old blue, in its own direction, and against the column it feeds; raises one
/// that is behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckSequences {}
job!(CheckSequences, "check_sequences", SequencesChecked);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequencesChecked {
    pub sequences: u64,
    /// `database: schema.sequence` that were behind and are raised now.
    pub raised: Vec<String>,
}

/// Refreshes materialized views on the new production.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefreshViews {
    /// Empty means every one, in dependency order.
    pub views: Vec<Table>,
}
job!(RefreshViews, "refresh_views", Vec<Table>);

/// What a deployment left behind on a side: slots, publications, subscriptions whose names start with `rds`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindLeftovers {}
job!(FindLeftovers, "find_leftovers", Vec<Leftover>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// `slot`, `publication`, `subscription`.
    pub kind: String,
    pub name: String,
    pub database: Option<String>,
    pub retained_bytes: Option<u64>,
}

/// May the ledger go: no open verdict, no client attached?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerStatus {}
job!(LedgerStatus, "ledger_status", LedgerState);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerState {
    pub open_verdicts: u64,
    pub rows: u64,
}

/// Everything of the database that `world as before` compares: catalogue fingerprint, jobs, parameters that a role or
/// database carries. A digest per object, never a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {}
job!(Fingerprint, "fingerprint", BTreeMap<String, String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_in_three_parts() {
        let table: Table = "orders.public.lines".parse().unwrap();
        assert_eq!(table.to_string(), "orders: public.lines");
        for text in ["lines", "public.lines", "a.b.c.d", "a..c", ""] {
            assert!(text.parse::<Table>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_body_survives_the_wire_form() {
        let body = Marker { key: "k".into() };
        let json = serde_json::to_value(&body).unwrap();
        assert_eq!(serde_json::from_value::<Marker>(json).unwrap(), body);
    }
}
