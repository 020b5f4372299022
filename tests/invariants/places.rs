//! Which words may stand in which files.

use super::source::{breaches, code, code_before_tests, files, none, rust_under, text, words};

/// What the engine must not know. As whole words, in code and comments: its tests may not need them either.
const DOMAIN: &str =
    "cluster clusters rds aws aurora agent agents postgres postgresql sql grpc blue green switchover slot ingestion";

#[test]
fn the_engine_does_not_know_the_domain() {
    let mut found = Vec::new();
    // The engine's own test of this rule names the words to look for them.
    for path in rust_under(&["coordinator/engine/src/"]).iter().filter(|path| !path.ends_with("/boundary.rs")) {
        for (n, line) in text(path).lines().enumerate() {
            let lower = line.to_lowercase();
            let known = lower
                .split(|c: char| !c.is_ascii_alphanumeric())
                .find(|word| DOMAIN.split(' ').any(|domain| domain == *word));
            found.extend(known.map(|word| format!("{path}:{}: {word}", n + 1)));
        }
    }
    none("the engine names what it is used for", &found);
}

#[test]
fn only_the_sdk_files_and_main_name_an_aws_crate() {
    let sources: Vec<String> = rust_under(&["coordinator/", "agent/", "proto/", "tests/"])
        .into_iter()
        .filter(|path| {
            !["coordinator/src/rds/sdk.rs", "coordinator/src/cloudwatch/sdk.rs", "coordinator/src/main.rs"]
                .contains(&path.as_str())
                && !["coordinator/src/rds/sdk/", "coordinator/src/cloudwatch/sdk/", "tests/invariants/"]
                    .iter()
                    .any(|folder| path.starts_with(folder))
        })
        .collect();
    let crates = ["aws_config", "aws_types", "aws_runtime", "aws_credential_types"];
    let names = |line: &str| {
        words(line)
            .any(|word| crates.contains(&word) || word.starts_with("aws_sdk_") || word.starts_with("aws_smithy_"))
    };
    none("an AWS crate is named outside sdk.rs", &breaches(&sources, names));
}

#[test]
fn the_coordinator_reaches_postgresql_only_from_its_store() {
    let sources: Vec<String> = rust_under(&["coordinator/"]);
    let sources: Vec<String> =
        sources.into_iter().filter(|path| !path.starts_with("coordinator/src/store/postgres")).collect();
    none("tokio_postgres outside store/postgres", &breaches(&sources, |line| line.contains("tokio_postgres")));
}

#[test]
fn generated_wire_types_are_named_only_at_the_edges() {
    const EDGES: [&str; 4] = [
        "coordinator/src/link/wire.rs",
        "coordinator/src/operator/wire.rs",
        "coordinator/src/cli/client.rs",
        "agent/src/link/wire.rs",
    ];
    let sources = rust_under(&["coordinator/src/", "agent/src/", "tests/lab/src/"]);
    let inner: Vec<String> = sources.into_iter().filter(|path| !EDGES.contains(&path.as_str())).collect();
    none(
        "a generated type is named inside",
        &breaches(&inner, |line| line.contains("proto::wire") || line.contains("wire::v1")),
    );
}

/// Does a string literal of this line begin like a statement that a database would take?
fn sends_sql(line: &str) -> bool {
    const VERBS: &str = "select insert update delete with create alter drop grant revoke truncate vacuum analyze reindex \
                         refresh merge call copy begin";
    const SIGNS: [&str; 10] = [" from ", " set ", " into ", " table ", " schema ", " on ", ";", "$1", "()", "{"];
    let literals = line.split('"').skip(1).step_by(2).map(|literal| literal.trim_start().to_lowercase());
    literals.into_iter().any(|literal| {
        let verb = literal.split([' ', ';']).next().unwrap_or_default();
        VERBS.split_whitespace().any(|known| known == verb) && SIGNS.iter().any(|sign| literal.contains(sign))
    })
}

#[test]
fn all_sql_of_the_agent_stands_in_its_catalog() {
    let mut found = Vec::new();
    for path in rust_under(&["agent/src/"]) {
        // The spool's statements go to the agent's own SQLite file, which is no managed database.
        if path.starts_with("agent/src/pg/catalog") || path == "agent/src/spool.rs" {
            continue;
        }
        let lines = code_before_tests(&path).into_iter().filter(|(_, line)| sends_sql(line));
        found.extend(lines.map(|(n, line)| format!("{path}:{n}: {}", line.trim())));
    }
    none("SQL outside agent/src/pg/catalog.rs", &found);
    assert!(sends_sql("client.query(\"select 1 from x\")"));
    assert!(!sends_sql("info!(\"select a cluster\")"));
}

#[test]
fn metrics_are_named_only_in_metrics_rs() {
    let sources = rust_under(&["coordinator/", "agent/", "proto/"]);
    let others: Vec<String> = sources.into_iter().filter(|path| !path.ends_with("/metrics.rs")).collect();
    let macros = ["counter", "gauge", "histogram", "describe_counter", "describe_gauge", "describe_histogram"];
    let names = |line: &str| macros.iter().any(|name| line.contains(&format!("{name}!(")));
    none("a metric outside metrics.rs", &breaches(&others, names));
}

#[test]
fn every_metric_has_its_binary_in_its_name_and_a_description() {
    for (path, prefix) in [("coordinator/src/metrics.rs", "pilot_"), ("agent/src/metrics.rs", "pilot_agent_")] {
        let text = text(path);
        let mut seen = 0;
        for (_, line) in code(path) {
            let Some((name, value)) =
                line.trim().strip_prefix("const ").and_then(|rest| rest.split_once(": &str = \""))
            else {
                continue;
            };
            seen += 1;
            assert!(value.starts_with(prefix), "{path}: {value}");
            let described = ["counter", "gauge", "histogram"].iter().any(|kind| {
                [format!("describe_{kind}!({name},"), format!("describe_{kind}!(\n        {name},")]
                    .iter()
                    .any(|call| text.contains(call))
            });
            assert!(described, "{path}: {name} is not described");
        }
        assert!(seen > 10, "{path}: only {seen} metrics were found");
    }
}

#[test]
fn the_clock_is_read_in_one_place() {
    let sources: Vec<String> = files()
        .into_iter()
        .filter(|path| {
            path.ends_with(".rs") && path != "proto/runtime/src/clock.rs" && !path.starts_with("tests/invariants/")
        })
        .collect();
    let reads =
        |line: &str| ["Instant::now", "SystemTime::now", "Timestamp::now"].iter().any(|call| line.contains(call));
    none("the system clock is read outside runtime::clock", &breaches(&sources, reads));
}

#[test]
fn a_file_is_read_in_one_sitting() {
    const LINES_MAX: usize = 800;
    let long = files().into_iter().filter(|path| path.ends_with(".rs")).filter_map(|path| {
        let lines = text(&path).lines().count();
        (lines >= LINES_MAX).then(|| format!("{path}: {lines} lines"))
    });
    none("a file is too long to be read in one sitting", &long.collect::<Vec<_>>());
}

#[test]
fn only_the_driver_and_the_stores_know_how_to_append() {
    let sources = rust_under(&["coordinator/src/", "agent/src/"]);
    let others: Vec<String> = sources.into_iter().filter(|path| !path.starts_with("coordinator/src/store/")).collect();
    none("a fact is appended outside the driver", &breaches(&others, |line| words(line).any(|word| word == "Append")));
}

#[test]
fn stances_and_judgements_are_pure() {
    const PURE: [&str; 8] = [
        "agent/src/stance.rs",
        "agent/src/jobs/statement.rs",
        "coordinator/engine/src/decide.rs",
        "coordinator/engine/src/apply.rs",
        "coordinator/src/preflight/judge.rs",
        "coordinator/src/preflight/parameters.rs",
        "coordinator/src/topology.rs",
        "tests/lab/src/demo/judge.rs",
    ];
    let acts = |line: &str| {
        [".await", "async ", "std::fs", "std::net", "tokio::", "clock."].iter().any(|sign| line.contains(sign))
    };
    let mut found = Vec::new();
    for path in PURE {
        let lines = code_before_tests(path).into_iter().filter(|(_, line)| acts(line));
        found.extend(lines.map(|(n, line)| format!("{path}:{n}: {}", line.trim())));
    }
    none("a pure function acts", &found);
}
