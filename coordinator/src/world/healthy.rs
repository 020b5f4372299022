//! What the agents of a healthy pair say: a small cluster with the databases `orders` and `billing`, on its way from 14 to 16. For
//! tests of steps and for the simulation, which play the rest of the world each in its own way.

use proto::{
    job::JobKind,
    jobs::*,
    lsn::Lsn,
    report::{MarkerDelay, OldSide, SchemaWatch, Slot, Slots},
    side::ServerSaid,
};

/// A kind of job whose answer does not depend on the world, where all is well.
pub trait Healthy: JobKind {
    /// The answer.
    fn healthy() -> Self::Output;
}

macro_rules! healthy {
    ($($kind:ty => $answer:expr;)+) => {
        $(impl Healthy for $kind {
            fn healthy() -> <$kind as JobKind>::Output {
                $answer
            }
        })+
    };
}

healthy! {
    InstallSchema => SchemaInstalled { databases: databases() };
    RemoveSchema => SchemaRemoved { databases: databases(), kept: Vec::new() };
    Quiesce => Quiesced { cron_jobs: 2, partition_sets: 1, partitions_made: 3, covered_until: None };
    Unquiesce => Unquiesced { cron_jobs: 2, partition_sets: 1, rows_in_default: Vec::new() };
    Vacuum => Vacuumed { tables: 4, full: 0, reindexed: 0, slowest: Vec::new() };
    Resubmit => Resubmitted { verdicts: Vec::new() };
    CheckStatistics => StatisticsChecked { tables: 4, without: Vec::new(), extended_without: Vec::new() };
    CompareSchema => SchemaDifferences { objects: 9, differences: Vec::new(), extensions: Vec::new(), settings: Vec::new() };
    Compare => Compared { tables: Vec::new(), queries: Vec::new(), unproven: Vec::new(), rounds: 1 };
    Marker => MarkerSeen { databases: vec![("orders".into(), 12), ("billing".into(), 14)] };
    EndSessions => SessionsEnded { ended: Vec::new(), remaining: Vec::new() };
    CheckSequences => SequencesChecked { sequences: 3, raised: Vec::new() };
    UpdateExtensions => Vec::new();
    TestExtensions => Vec::new();
    LedgerStatus => LedgerState { open_verdicts: 0, rows: 0 };
}

fn databases() -> Vec<String> {
    vec!["orders".into(), "billing".into()]
}

/// What blue is, before the upgrade. `booted` gives the value of a parameter that its writer was started with.
pub fn inspection(said: ServerSaid, booted: impl Fn(&str) -> Option<String>) -> Inspection {
    let logical = booted("rds.logical_replication").as_deref() == Some("1");
    let number = |name: &str, default: &str| (name.to_owned(), booted(name).unwrap_or_else(|| default.to_owned()));
    let settings = [
        ("wal_level".to_owned(), if logical { "logical" } else { "replica" }.to_owned()),
        number("max_replication_slots", "10"),
        number("max_wal_senders", "10"),
        number("max_logical_replication_workers", "4"),
        number("max_worker_processes", "8"),
    ];
    let database = |name: String| Database { name, bytes: 1, tables: 2, extensions: Vec::new() };
    Inspection {
        said,
        version: "14.12".into(),
        databases: databases().into_iter().map(database).collect(),
        settings: settings.into(),
        tables_without_identity: Vec::new(),
        unlogged_tables: Vec::new(),
        large_objects: Vec::new(),
        foreign_slots: Vec::new(),
        foreign_publications: Vec::new(),
        foreign_subscriptions: Vec::new(),
        prepared_transactions: Vec::new(),
        read_only_overrides: Vec::new(),
        materialized_views: Vec::new(),
        view_refreshers: Vec::new(),
        replica_triggers: Vec::new(),
        event_triggers: Vec::new(),
        sequences: 3,
        missing_rights: Vec::new(),
        missing_queries: Vec::new(),
        old_transactions: Vec::new(),
        leftover_schemas: Vec::new(),
        foreign_servers: Vec::new(),
    }
}

/// The slots of the deployment, without lag.
pub fn slots() -> Slots {
    let slot = |name: &str| Slot {
        name: name.into(),
        database: Some(name.into()),
        logical: true,
        active: true,
        of_deployment: true,
        confirmed_flush: Some(Lsn::new(9)),
        lag_bytes: Some(0),
        retained_bytes: Some(100),
        wal_status: Some("reserved".into()),
    };
    let slots = vec![slot("rds_a"), slot("rds_b")];
    Slots { age_ms: 0, current: Lsn::new(99), slots, xmin_age: Some(7), free_bytes: None }
}

/// What a deployment that is there still leaves on blue.
pub fn leftover() -> Leftover {
    Leftover { kind: "slot".into(), name: "rds_1".into(), database: None, retained_bytes: Some(7) }
}

/// A marker that arrives soon.
pub fn marker() -> MarkerDelay {
    MarkerDelay { age_ms: 0, max_ms: Some(8), pending_ms: None, databases: Vec::new() }
}

/// Catalogues that do not differ.
pub fn schema() -> SchemaWatch {
    SchemaWatch { age_ms: 0, differences: Vec::new() }
}

/// A side that nobody uses any more.
pub fn old_side() -> OldSide {
    let clients = Vec::new();
    OldSide { age_ms: 0, read_only: true, clients, last_client_ms: None, watched_ms: 60_000, write_commits: 0 }
}
