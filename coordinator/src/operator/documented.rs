//! Holds `deploy/json.md` against what is printed: every example there is read and written again by the types, and every field of
//! it stands in its table. A field that is renamed or dropped, or one that nobody has described, fails.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::view::{Answer, Brief, ClusterAgents, HistoryView, SettingsView, StatusView};
use crate::preflight::Finding;

const PAGE: &str = include_str!("../../../deploy/json.md");

/// As `service.rs` answers `Status` without an id.
#[derive(Serialize, Deserialize)]
struct All {
    upgrades: Vec<Brief>,
}

/// As `service.rs` answers `Agents`.
#[derive(Serialize, Deserialize)]
struct Seen {
    clusters: Vec<ClusterAgents>,
}

/// As `service.rs` answers `Preflight`.
#[derive(Serialize, Deserialize)]
struct Looked {
    cluster: String,
    from_version: String,
    to_version: Option<String>,
    findings: Vec<Finding>,
    blocked: bool,
}

#[test]
fn every_field_of_the_json_is_described_and_every_described_field_is_there() {
    let sections: Vec<&str> = PAGE.split("\n## ").skip(1).collect();
    let rewrite: [fn(Value) -> Value; 7] = [
        again::<StatusView>,
        again::<All>,
        again::<HistoryView>,
        again::<Answer>,
        again::<SettingsView>,
        again::<Looked>,
        again::<Seen>,
    ];
    assert_eq!(sections.len(), rewrite.len());
    for (section, rewrite) in sections.iter().zip(rewrite) {
        let title = section.lines().next().unwrap_or_default();
        let example = section.lines().find(|line| line.starts_with('{')).expect("an example");
        let example: Value = serde_json::from_str(example).expect("JSON");
        let printed = fields(&rewrite(example));
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let described: BTreeSet<String> = rows.map(str::to_owned).collect();
        let missing: Vec<_> = printed.difference(&described).collect();
        assert!(missing.is_empty(), "{title}: not described in deploy/json.md: {missing:?}");
        let gone: Vec<_> = described.difference(&printed).collect();
        assert!(gone.is_empty(), "{title}: described in deploy/json.md and not printed: {gone:?}");
    }
}

/// As the program prints what it has read.
fn again<T: DeserializeOwned + Serialize>(example: Value) -> Value {
    let read: T = serde_json::from_value(example).expect("an example with every field");
    serde_json::to_value(read).expect("JSON")
}

/// The path of every value, as `steps[].waits[].seconds`.
fn fields(value: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    collect(value, "", &mut all);
    all
}

fn collect(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        // A fact is as it is stored: its fields depend on its kind.
        Value::Object(fields) if path != "facts[].fact" => {
            let dot = if path.is_empty() { "" } else { "." };
            fields.iter().for_each(|(key, value)| collect(value, &format!("{path}{dot}{key}"), all));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, &format!("{path}[]"), all)),
        _ => drop(all.insert(path.to_owned())),
    }
}
