//! The codes of what steps, preflight and monitors say. Each has a page in `deploy/runbook/`; a test holds it.

use engine::ids::Code;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)+) => {
        $($(#[$doc])* pub const $name: Code = Code($code);)+

        /// All of them, for the test that every code has a page.
        pub const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    // --- preflight ---
    /// There is no such cluster.
    CLUSTER_UNKNOWN = "PU0011";
    /// The engine is not Aurora PostgreSQL.
    NOT_AURORA_POSTGRESQL = "PU0012";
    /// The target is not a higher major version.
    TARGET_NOT_HIGHER = "PU0013";
    /// AWS has no path to the target.
    TARGET_UNREACHABLE = "PU0014";
    /// Somebody else's deployment has this cluster as its source.
    FOREIGN_DEPLOYMENT = "PU0015";
    /// The cluster or a member is not available.
    NOT_AVAILABLE = "PU0016";
    /// An instance class is not offered for the target.
    CLASS_NOT_OFFERED = "PU0017";
    /// The name is too long for green's.
    NAME_TOO_LONG = "PU0018";
    /// Changes wait to be applied.
    PENDING_CHANGES = "PU0019";
    /// No agent of the cluster is connected.
    NO_AGENT = "PU0020";
    /// The agent reaches another server than AWS describes.
    AGENT_SEES_OTHER_SERVER = "PU0021";
    /// The agent's role lacks rights.
    MISSING_RIGHTS = "PU0022";
    /// A business query is not configured.
    QUERY_UNKNOWN = "PU0023";
    /// A table has no replica identity.
    NO_REPLICA_IDENTITY = "PU0024";
    /// Unlogged tables would be lost.
    UNLOGGED_TABLES = "PU0025";
    /// Large objects are not replicated.
    LARGE_OBJECTS = "PU0026";
    /// Slots, publications or subscriptions of others.
    FOREIGN_REPLICATION = "PU0027";
    /// Prepared transactions.
    PREPARED_TRANSACTIONS = "PU0028";
    /// Settings that let sessions write to a read-only side.
    READ_ONLY_OVERRIDES = "PU0029";
    /// The master password is managed.
    MANAGED_PASSWORD = "PU0030";
    /// A Global Database.
    GLOBAL_DATABASE = "PU0031";
    /// The cluster is a replica.
    IS_A_REPLICA = "PU0032";
    /// Zero-ETL integrations.
    ZERO_ETL = "PU0033";
    /// A proxy that is not registered.
    PROXY_UNREGISTERED = "PU0034";
    /// IAM authentication bound to a resource id.
    IAM_AUTHENTICATION = "PU0035";
    /// Maintenance is due.
    MAINTENANCE_DUE = "PU0036";
    /// Parameters that the target family cannot hold.
    PARAMETERS_LOST = "PU0037";
    /// Something refreshes materialized views.
    VIEW_REFRESHERS = "PU0038";
    /// Materialized views exist.
    MATERIALIZED_VIEWS = "PU0039";
    /// Triggers fire on green.
    TRIGGERS = "PU0040";
    /// Old transactions.
    OLD_TRANSACTIONS = "PU0041";
    /// Preflight found what keeps the upgrade from beginning.
    PREFLIGHT_BLOCKED = "PU0042";
    /// An earlier upgrade of ours has left its deployment.
    LEFTOVER_DEPLOYMENT = "PU0043";
    /// An extension that keeps the upgrade from succeeding.
    EXTENSION_BLOCKS = "PU0044";
    /// An extension that AWS wants raised before the upgrade.
    EXTENSION_BEHIND = "PU0045";
    /// An extension that needs something done by hand.
    EXTENSION_NEEDS_CARE = "PU0046";
    /// A foreign server leads to the cluster itself.
    FOREIGN_SERVERS = "PU0047";

    // --- AWS ---
    /// AWS was busy or did not answer a read.
    AWS_TRANSIENT = "PU0200";
    /// A changing call's answer was lost.
    AWS_UNKNOWN = "PU0201";
    /// AWS refuses the call in this state.
    AWS_INVALID_STATE = "PU0202";
    /// The coordinator's role lacks an action.
    AWS_ACCESS_DENIED = "PU0203";
    /// AWS refuses the call.
    AWS_REFUSED = "PU0204";
    /// AWS left out what is needed.
    AWS_INCOMPLETE = "PU0205";
    /// A name belongs to another object than the one recorded.
    IDENTITY_CHANGED = "PU0206";
    /// An object with our derived name is not ours.
    NOT_OURS = "PU0207";

    // --- prerequisites ---
    /// The snapshot did not become available.
    SNAPSHOT_FAILED = "PU0301";
    /// Parameters are not in sync.
    NOT_IN_SYNC = "PU0302";
    /// Parameters are set back as pending-reboot.
    PENDING_REBOOT_LEFT = "PU0305";

    // --- provisioning ---
    /// The deployment could not be made.
    DEPLOYMENT_INVALID = "PU0321";
    /// Green is not what was asked for.
    GREEN_WRONG = "PU0322";
    /// A slot, publication or subscription of the deployment is left on blue.
    SLOT_LEFT = "PU0323";
    /// The deployment is gone.
    DEPLOYMENT_GONE = "PU0324";

    // --- green and replication ---
    /// Statistics are missing on green.
    STATISTICS_MISSING = "PU0341";
    /// The sides differ.
    DATA_DIFFERS = "PU0342";
    /// The schemas differ.
    SCHEMA_DIFFERS = "PU0343";
    /// Lag does not drain.
    LAG_NEVER_DRAINS = "PU0344";
    /// A measurement is missing.
    NOT_MEASURED = "PU0345";
    /// Settings or extensions differ between the sides.
    SETTINGS_DIFFER = "PU0346";
    /// Tables were not proven exactly inside the hold.
    UNPROVEN = "PU0347";

    // --- switchover ---
    /// The hold was not settled by every agent.
    HOLD_NOT_SETTLED = "PU0401";
    /// A gate of the switchover did not hold.
    GATE_MISSED = "PU0402";
    /// Sessions that cannot be ended stand in the way.
    BLOCKERS_LEFT = "PU0403";
    /// AWS did not switch over.
    NOT_SWITCHED = "PU0404";
    /// Whether AWS switched over cannot be told.
    OUTCOME_UNREADABLE = "PU0405";
    /// Clients are held until near, or at, the cap.
    HELD_TOO_LONG = "PU0407";

    // --- after the cut ---
    /// Production is not what it should be.
    PRODUCTION_WRONG = "PU0501";
    /// AWS did not say that the switchover is completed.
    NEVER_COMPLETED = "PU0502";
    /// An extension failed its test.
    EXTENSION_FAILED = "PU0503";
    /// A statement was refused or is unknown.
    NOT_RESUBMITTED = "PU0504";
    /// Ingestion did not come back.
    INGESTION_NOT_RUNNING = "PU0505";
    /// Sequences were behind.
    SEQUENCES_RAISED = "PU0506";

    // --- cleanup ---
    /// A client is still seen on the old side.
    OLD_SIDE_IN_USE = "PU0522";
    /// The new production has no backup yet.
    NO_NEW_BACKUP = "PU0523";
    /// What was recorded as old blue is not what stands there.
    OLD_BLUE_WRONG = "PU0524";
    /// The ledger stays.
    LEDGER_KEPT = "PU0525";

    // --- monitors ---
    /// Replication lag is over a limit, or a slot is stalled or lost.
    SLOT_TROUBLE = "PU0601";
    /// The schema changed while green exists.
    SCHEMA_CHANGED = "PU0602";
    /// An agent's link is down.
    LINK_DOWN = "PU0603";
    /// Data was written to the old side.
    OLD_SIDE_WRITTEN = "PU0605";
    /// Production does not answer.
    PRODUCTION_DOWN = "PU0606";
    /// Slots keep old rows from being vacuumed for too many transactions.
    XMIN_HELD = "PU0607";
    /// The writer's local storage runs out.
    STORAGE_LOW = "PU0608";
}
