//! What a stranger finds in a fresh clone: the two commands, and nothing of the machine that it was written on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::source::{files, none, root, rust_under, text};

#[test]
fn the_two_commands_of_the_readme_exist() {
    let readme = text("README.md");
    for command in ["cargo run -p lab -- demo", "tests/run"] {
        assert!(
            readme.lines().any(|line| line.trim() == command),
            "README.md does not have the command {command:?} on a line"
        );
    }
    for script in ["tests/run", ".ci/run"] {
        let mode =
            fs::metadata(root().join(script)).unwrap_or_else(|error| panic!("{script}: {error}")).permissions().mode();
        assert!(mode & 0o111 != 0, "{script} cannot be executed");
    }
    assert!(text(".ci/run").contains("tests/run"), ".ci/run does not call tests/run");
    let lab = text("tests/lab/Cargo.toml");
    assert_eq!(lab.matches("[[bin]]").count(), 1, "cargo run -p lab needs one binary");
    assert!(files().iter().any(|path| path == "tests/lab/src/cli/demo.rs"), "the lab has no verb demo");
}

#[test]
fn the_documents_are_there_and_their_links_lead_somewhere() {
    let tracked = files();
    for document in
        "README.md ARCHITECTURE.md SPECIFICATION.md STYLE.md CONTRIBUTING.md CHANGELOG.md LICENSE".split(' ')
    {
        assert!(tracked.iter().any(|path| path == document), "{document} is missing");
    }
    let mut found = Vec::new();
    for path in tracked.iter().filter(|path| path.ends_with(".md")) {
        let folder = root().join(path).parent().expect("a file lies in a folder").to_owned();
        let text = text(path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                found.push(format!("{path}: {link}"));
            }
        }
    }
    none("a link leads nowhere", &found);
}

/// Texts that would tell of one machine. Put together here, so that this file does not contain them.
fn machine_marks() -> Vec<String> {
    let halves = [
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/home/", "runner"),
        ("/Us", "ers/"),
        (".cargo/reg", "istry"),
        ("index.crates", ".io/"),
    ];
    halves.iter().map(|(a, b)| format!("{a}{b}")).collect()
}

#[test]
fn no_file_tells_of_the_machine_it_was_written_on() {
    let marks = machine_marks();
    let mut found = Vec::new();
    for path in files() {
        for (n, line) in text(&path).lines().enumerate() {
            let known = marks.iter().find(|mark| line.contains(mark.as_str()));
            found.extend(known.map(|mark| format!("{path}:{}: {mark}", n + 1)));
        }
    }
    none("a path of a build machine", &found);
}

fn only_env(settings: toml::Table) -> bool {
    settings.keys().eq(["env"])
}

#[test]
fn crates_come_from_the_public_registry_and_nothing_names_another() {
    let lock = text("Cargo.lock");
    let public = "registry+https://github.com/rust-lang/crates.io-index";
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = \""));
    let foreign: Vec<String> =
        sources.map(|source| source.trim_end_matches('"').to_owned()).filter(|source| source != public).collect();
    none("a crate from elsewhere", &foreign);
    let settings: Vec<String> = files()
        .into_iter()
        .filter(|path| path.starts_with(".cargo/") || path.contains("/.cargo/"))
        .filter(|path| path != ".cargo/config.toml" || !text(path).parse::<toml::Table>().is_ok_and(only_env))
        .collect();
    none("cargo is configured in the repository, by more than variables of build scripts", &settings);
    let mut found = Vec::new();
    for path in files().into_iter().filter(|path| !path.starts_with("tests/invariants/") && path != "Cargo.lock") {
        for (n, line) in text(&path).lines().enumerate() {
            let names = [
                "--index-url",
                "--extra-index-url",
                "index-url =",
                "replace-with",
                "PIP_INDEX_URL",
                "CARGO_REGISTRIES",
            ];
            let known = names.iter().find(|name| line.contains(**name));
            found.extend(known.map(|name| format!("{path}:{}: {name}", n + 1)));
        }
    }
    none("a package registry is named", &found);
}

#[test]
fn tests_that_the_documents_name_exist() {
    let known: BTreeSet<String> = rust_under(&["proto/", "coordinator/", "agent/", "tests/"])
        .iter()
        .flat_map(|path| text(path).lines().filter_map(test_name).collect::<Vec<_>>())
        .collect();
    let mut found = Vec::new();
    let mut named = 0;
    for document in ["SPECIFICATION.md", "ARCHITECTURE.md"] {
        for word in text(document).split('`').skip(1).step_by(2) {
            // A test says its scenario in its name: nothing else in these documents has so many words.
            let is_name = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if is_name && word.matches('_').count() >= 3 {
                named += 1;
                if !known.contains(word) && !text("coordinator/src/spec.rs").contains(&format!("pub {word}:")) {
                    found.push(format!("{document}: {word}"));
                }
            }
        }
    }
    none("a document names a test that does not exist", &found);
    assert!(named > 80, "only {named} names of tests were found");
}

/// `fn name(` of a line, async or not.
fn test_name(line: &str) -> Option<String> {
    let rest = line.trim().trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn ")?;
    Some(rest.split('(').next()?.to_owned())
}

#[test]
fn the_readme_names_every_metric() {
    let readme = text("README.md");
    let mut missing = Vec::new();
    for path in ["coordinator/src/metrics.rs", "agent/src/metrics.rs"] {
        let names = text(path);
        let names = names.lines().filter_map(|line| line.split_once(": &str = \"")?.1.split('"').next());
        missing
            .extend(names.filter(|name| !readme.contains(&format!("`{name}`"))).map(|name| format!("{path}: {name}")));
    }
    none("README.md does not name", &missing);
}
