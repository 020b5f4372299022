//! The dependency graph: what may depend on what, and what may be there once only. Asked of cargo, without the network:
//! `metadata` for the crates of the workspace, `tree` for what is really linked (it knows which optional crates are off).

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

use serde_json::Value;

use super::source::{none, root, text};

const OURS: [&str; 7] = ["proto", "runtime", "engine", "coordinator", "agent", "lab", "tests"];

fn cargo(arguments: &[&str]) -> String {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).current_dir(root()).args(arguments).output().expect("cargo can be run");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// Name and versions of every package that a selection is built of, at any depth.
fn tree(selection: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let text = cargo(&[&["tree", "--offline", "--prefix", "none", "--format", "{p}"], selection].concat());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            all.entry(name.to_owned()).or_default().insert(version.trim_start_matches('v').to_owned());
        }
    }
    all
}

/// What a crate of ours is linked with; its tests and build scripts left out.
fn linked(name: &str) -> BTreeSet<String> {
    tree(&["-p", name, "-e", "normal"]).into_keys().collect()
}

/// What a crate of ours names in its manifest; its tests and build scripts left out.
fn direct(name: &str) -> BTreeSet<String> {
    let mut direct: BTreeSet<String> = tree(&["-p", name, "-e", "normal", "--depth", "1"]).into_keys().collect();
    direct.remove(name);
    direct
}

/// Crate roots (libraries, binaries, test binaries) of the workspace, relative to its root, by package.
fn crate_roots() -> BTreeMap<String, Vec<String>> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--offline", "--no-deps", "--format-version", "1"])).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let word = |value: &Value| value.as_str().expect("a text").to_owned();
    let prefix = format!("{}/", word(&metadata["workspace_root"]));
    let packages = list(&metadata["packages"]).into_iter().map(|package| {
        let targets = list(&package["targets"]).into_iter();
        let targets = targets.filter(|target| !list(&target["kind"]).contains(&"custom-build".into()));
        let paths = targets.map(|target| word(&target["src_path"]).trim_start_matches(&prefix).to_owned());
        (word(&package["name"]), paths.collect())
    });
    packages.collect()
}

fn is_aws_client(name: &str) -> bool {
    name.starts_with("aws-") && !name.starts_with("aws-lc-")
}

#[test]
fn internal_crates_depend_in_one_direction() {
    let allowed: [(&str, &[&str]); 6] = [
        ("proto", &[]),
        ("runtime", &[]),
        ("engine", &["runtime"]),
        ("coordinator", &["engine", "proto", "runtime"]),
        ("agent", &["proto", "runtime"]),
        ("lab", &["runtime"]),
    ];
    let mut wrong = Vec::new();
    for (name, may) in allowed {
        let direct = direct(name);
        let others = OURS.iter().filter(|other| direct.contains(**other) && !may.contains(other));
        wrong.extend(others.map(|other| format!("{name} → {other}")));
    }
    none("a crate depends on one that it may not know", &wrong);
    let known: BTreeSet<String> = OURS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(crate_roots().into_keys().collect::<BTreeSet<_>>(), known, "a new crate needs a reason");
}

#[test]
fn the_engine_depends_on_neither_cloud_nor_database_nor_wire() {
    let forbidden = "proto tonic prost rusqlite tokio-postgres hyper axum rustls clap";
    let bad = |name: &String| forbidden.split(' ').any(|bad| bad == name) || is_aws_client(name);
    none("the engine depends on", &direct("engine").into_iter().filter(bad).collect::<Vec<_>>());
}

#[test]
fn only_the_coordinator_has_an_aws_client() {
    none("the agent links", &linked("agent").into_iter().filter(|name| is_aws_client(name)).collect::<Vec<_>>());
    for name in ["proto", "runtime", "engine", "lab"] {
        none(
            "an AWS client outside the coordinator",
            &linked(name).into_iter().filter(|name| is_aws_client(name)).collect::<Vec<_>>(),
        );
    }
}

#[test]
fn what_must_be_there_once_is_there_once() {
    let all = tree(&["--workspace", "-e", "normal,build,dev"]);
    for name in "tokio hyper rustls tonic prost aws-sdk-rds aws-sdk-cloudwatch aws-lc-rs rusqlite".split(' ') {
        let versions = all.get(name).unwrap_or_else(|| panic!("{name} is not in the tree"));
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
    assert!(all["hyper"].iter().all(|version| version.starts_with("1.")), "hyper: {:?}", all["hyper"]);
}

#[test]
fn there_is_one_tls_stack() {
    let all = tree(&["--workspace", "-e", "normal,build,dev"]);
    let others = ["ring", "openssl", "openssl-sys", "native-tls"].iter().filter(|name| all.contains_key(**name));
    none("another TLS stack or provider is linked", &others.map(|name| (*name).to_owned()).collect::<Vec<_>>());
}

#[test]
fn every_crate_root_forbids_unsafe_code() {
    let roots = crate_roots().into_values().flatten();
    let without = roots.filter(|path| !text(path).contains("#![forbid(unsafe_code)]"));
    none("a crate root does not forbid unsafe code", &without.collect::<Vec<_>>());
}
