//! Every code has a page in `deploy/runbook/`, every page a code, and no code means two things.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{code_before_tests, files, none, rust_under, text, words};

/// Where codes are declared.
const DECLARED_IN: [&str; 3] = ["coordinator/engine/src/", "coordinator/src/", "agent/src/"];

/// `PU` and four digits.
fn is_code(text: &str) -> bool {
    text.len() == 6 && text.starts_with("PU") && text[2..].bytes().all(|byte| byte.is_ascii_digit())
}

/// Every declaration of a code (`NAME = "PU0001"`, `NAME: &str = "PU0001"`, `NAME: Code = Code("PU0001")`), with its place.
fn declarations() -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in rust_under(&DECLARED_IN) {
        for (n, line) in code_before_tests(&path) {
            let Some((left, right)) = line.split_once(" = ") else { continue };
            let value = right.trim().trim_start_matches("Code(").trim_start_matches('"');
            let Some(code) = value.get(..6).filter(|code| is_code(code)) else { continue };
            let left =
                left.trim().trim_start_matches("pub ").trim_start_matches("(crate) ").trim_start_matches("const ");
            let name = left.split(':').next().unwrap_or_default().trim();
            if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
                all.entry(code.to_owned()).or_default().push(format!("{path}:{n}: {name}"));
            }
        }
    }
    assert!(all.len() > 100, "only {} codes were found", all.len());
    all
}

fn pages() -> BTreeSet<String> {
    let pages = files().into_iter().filter_map(|path| {
        // Pages of alerts are in a folder of their own.
        let name = path.strip_prefix("deploy/runbook/")?.strip_suffix(".md").filter(|name| !name.contains('/'))?;
        let name = name.to_owned();
        assert!(is_code(&name), "{path} is not called after a code");
        Some(name)
    });
    pages.collect()
}

#[test]
fn no_code_is_used_twice() {
    let twice = declarations().into_iter().filter(|(_, places)| places.len() > 1);
    let twice: Vec<String> = twice.map(|(code, places)| format!("{code}: {}", places.join(" and "))).collect();
    none("one code means two things", &twice);
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let (codes, pages) = (declarations(), pages());
    let without: Vec<String> = codes
        .iter()
        .filter(|(code, _)| !pages.contains(*code))
        .map(|(code, places)| format!("{code} ({})", places.join(", ")))
        .collect();
    none("a code has no page in deploy/runbook", &without);
    let stray: Vec<String> = pages.into_iter().filter(|page| !codes.contains_key(page)).collect();
    none("a page belongs to no code", &stray);
}

#[test]
fn every_code_is_raised_somewhere() {
    let lines: Vec<(String, String)> = rust_under(&DECLARED_IN)
        .into_iter()
        .flat_map(|path| {
            let lines = code_before_tests(&path).into_iter();
            lines.map(|(n, line)| (format!("{path}:{n}"), line)).collect::<Vec<_>>()
        })
        .collect();
    let mut never = Vec::new();
    for (code, places) in declarations() {
        let (place, name) = places[0].rsplit_once(": ").expect("a place and a name");
        let file = place.split(':').next().unwrap_or_default();
        // A list of all codes stands beside their declarations, one name a line.
        let listed = |at: &str, line: &str| at.starts_with(file) && line.trim().trim_end_matches(',') == name;
        let used =
            |(at, line): &(String, String)| at != place && !listed(at, line) && words(line).any(|word| word == name);
        if !lines.iter().any(used) {
            never.push(format!("{code}: {}", places[0]));
        }
    }
    none("a code is declared, and nothing raises it", &never);
}

#[test]
fn every_page_says_what_it_means_what_was_done_and_what_to_do() {
    const PARTS: [&str; 3] = ["\n## What it means\n", "\n## What the program did\n", "\n## What to do\n"];
    let mut found = Vec::new();
    for code in pages() {
        let page = text(&format!("deploy/runbook/{code}.md"));
        let parts: Vec<Option<usize>> = PARTS.iter().map(|part| page.find(part)).collect();
        if !page.starts_with(&format!("# {code}: ")) || parts.contains(&None) || !parts.is_sorted() {
            found.push(code);
        }
    }
    none("a page is not of the form of the others", &found);
}

#[test]
fn pages_name_only_codes_that_exist() {
    let codes = declarations();
    let mut found = Vec::new();
    for path in files().into_iter().filter(|path| path.ends_with(".md")) {
        let text = text(&path);
        for (at, _) in text.match_indices("PU0") {
            let Some(code) = text.get(at..at + 6).filter(|code| is_code(code)) else { continue };
            if !codes.contains_key(code) {
                found.push(format!("{path}: {code}"));
            }
        }
    }
    none("a document names a code that does not exist", &found);
}
