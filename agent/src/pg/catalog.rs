//! Every SQL text that the agent can send, as named constants and small builders; nowhere else in this crate stands SQL (a test
//! looks for it). One section a topic: a file under `catalog/`; the watchers' constants keep their module's name.
//!
//! Must not: hold logic, or quote by hand. Names go through [`ident`], values are `$n` parameters.
//!
//! What may run on blue while green exists is listed in [`ON_BLUE_WHILE_GREEN_EXISTS`]: it contains no DDL and no DCL (field rule 2.1).

mod after;
mod compare;
mod extensions;
mod fingerprint;
mod green;
mod inspect;
mod schema;
mod sessions;
pub mod watchers;

pub use self::{after::*, compare::*, extensions::*, fingerprint::*, green::*, inspect::*, schema::*, sessions::*};

/// A name, quoted.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."name"`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A function of an extension that may live in any schema, called with arguments.
fn call(home: &str, function: &str, arguments: &str) -> String {
    format!("{}({arguments})", qualified(home, function))
}

// ---- every session ---------------------------------------------------------------------------------------------

/// Makes our SQL mean the same on every server: names resolve to the system catalogue only, texts of values do not depend on a role's
/// settings, nothing of ours waits long for a lock, and a statement ends when we hang up.
pub const SESSION_SETTINGS: &str = "select set_config(name, value, false) from (values
      ('application_name', 'upgrade-pilot'), ('search_path', 'pg_catalog, pg_temp'), ('timezone', 'UTC'), ('datestyle', 'ISO, MDY'),
      ('intervalstyle', 'postgres'), ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('lc_monetary', 'C'), ('xmlbinary', 'base64'),
      ('row_security', 'on'), ('lock_timeout', '5s'), ('statement_timeout', '0'),
      ('idle_in_transaction_session_timeout', '0'), ('client_connection_check_interval', '500ms'),
      ('quote_all_identifiers', 'off'), ('standard_conforming_strings', 'on')) as wanted(name, value)";

/// The full version.
pub const SERVER_VERSION: &str = "select current_setting('server_version')";

/// Leaves a failed transaction.
pub const ROLLBACK: &str = "rollback";

/// Begins an ordinary transaction.
pub const BEGIN: &str = "begin";

/// Begins a transaction of ours that takes locks: it waits at most a second for any (field rule 9.4).
pub const BEGIN_WITH_LOCK_TIMEOUT: &str = "begin; set local lock_timeout = '1s'";

/// Ends it.
pub const COMMIT: &str = "commit";

/// Subscriptions of this server, all databases.
pub const SUBSCRIPTIONS_LEFT: &str = "select count(*) from pg_subscription";

/// One transaction of ours that changes structures: it waits at most a second for any lock (field rule 9.4).
pub fn with_lock_timeout(script: &str) -> String {
    format!("begin; set local lock_timeout = '1s'; {script}; commit")
}

// ---- what the rule about blue is checked against ---------------------------------------------------------------

/// All texts that may run on blue from the creation of green until the deployment object is gone.
pub const ON_BLUE_WHILE_GREEN_EXISTS: &[&str] = &[
    watchers::IDENTIFY,
    watchers::INSTANCE,
    watchers::CONNECTABLE_DATABASES,
    SESSION_SETTINGS,
    SERVER_VERSION,
    ROLLBACK,
    BEGIN,
    BEGIN_WITH_LOCK_TIMEOUT,
    COMMIT,
    SUBSCRIPTIONS_LEFT,
    WRITE_MARKER,
    READ_MARKER,
    TABLES_TO_COMPARE,
    WRITE_COUNTERS,
    BEGIN_READ_ONLY,
    USUAL_SEARCH_PATH,
    SCHEMA_OBJECTS,
    CLUSTER_OBJECTS,
    EXTENSION_VERSIONS,
    SETTINGS_IN_FORCE,
    CANDIDATE_SESSIONS,
    ACTIVITY_QUERY_SIZE,
    NEXT_XID,
    ROLE_SETTINGS,
    TEMPORARY_RELATIONS,
    RECORD_STATEMENT,
    END_SESSION,
    STILL_THERE,
    XACT_STATUS,
    RECORDED_STATUS,
    STATEMENT_THERE,
    PROVE_ABORT,
    FORGET_STATEMENT,
    LIST_STATEMENTS,
    SETTLE_STATEMENT,
    LEFTOVER_SLOTS,
    LEFTOVER_PUBLICATIONS,
    LEFTOVER_SUBSCRIPTIONS,
    SEQUENCES,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(qualified("a\"b", "C d"), "\"a\"\"b\".\"C d\"");
    }

    #[test]
    fn what_runs_on_blue_while_green_exists_changes_no_structure_and_no_rights() {
        let banned = [
            "create", "alter", "drop", "grant", "revoke", "truncate", "comment", "reindex", "cluster", "refresh",
            "vacuum", "analyze", "do", "call", "copy", "import", "reassign", "security",
        ];
        for text in ON_BLUE_WHILE_GREEN_EXISTS {
            for statement in text.split(';') {
                let first = statement.split_whitespace().next().unwrap_or("").to_lowercase();
                assert!(!banned.contains(&first.as_str()), "{text}");
            }
            assert!(!text.to_lowercase().contains("into temp"), "{text}");
        }
    }

    #[test]
    fn what_the_watchers_send_changes_no_structure_either() {
        let source = std::fs::read_to_string(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pg/catalog/watchers.rs"),
        );
        for text in source.unwrap().lines().flat_map(|line| line.split('"').skip(1).step_by(2)) {
            let first = text.split_whitespace().next().unwrap_or("").to_lowercase();
            let banned =
                ["create", "alter", "drop", "grant", "revoke", "truncate", "reindex", "refresh", "vacuum", "do"];
            assert!(!banned.contains(&first.as_str()), "{text}");
        }
    }

    /// The texts of a source file's string literals that look like SQL.
    fn sql_in(source: &str) -> Vec<String> {
        let code = source.split("#[cfg(test)]").next().unwrap_or("");
        let verbs = [
            "select ",
            "insert ",
            "update ",
            "delete ",
            "with ",
            "create ",
            "alter ",
            "drop ",
            "grant ",
            "revoke ",
            "truncate ",
            "vacuum ",
            "analyze ",
            "reindex ",
            "refresh ",
            "set local",
            "begin;",
            "merge ",
        ];
        code.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .filter(|text| verbs.iter().any(|verb| text.trim_start().to_lowercase().starts_with(verb)))
            .filter(|text| {
                [" from ", " set ", " into ", " table ", " schema ", ";", "{", "$1", "()"]
                    .iter()
                    .any(|sign| text.contains(sign))
            })
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn no_sql_stands_outside_this_module() {
        fn visit(folder: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    if !path.ends_with("pg/catalog") {
                        visit(&path, found);
                    }
                } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("pg/catalog.rs") {
                    let source = std::fs::read_to_string(&path).unwrap();
                    // The spool's own SQLite file is no managed database.
                    if !path.ends_with("spool.rs") {
                        found.extend(sql_in(&source).into_iter().map(|text| format!("{}: {text}", path.display())));
                    }
                }
            }
        }
        let mut found = Vec::new();
        visit(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.is_empty(), "{found:#?}");
        assert_eq!(sql_in("let x = \"select a from b\";").len(), 1);
    }
}
