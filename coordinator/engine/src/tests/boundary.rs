//! The engine knows no word of what it is used for.

use std::path::Path;

/// Assembled, so that this file does not hold them.
fn words() -> Vec<String> {
    let halves = [("clus", "ter"), ("r", "ds"), ("a", "gent"), ("post", "gre"), ("auro", "ra"), ("data", "base")];
    halves.iter().map(|(a, b)| format!("{a}{b}")).chain(["aws", "sql", "dba"].map(str::to_owned)).collect()
}

fn visit(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, found);
        } else if !path.ends_with("tests/boundary.rs") {
            let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
            let mut parts = text.split(|c: char| !c.is_ascii_alphanumeric());
            let hit = parts.find(|part| {
                words()
                    .iter()
                    .any(|w| part == w || *part == format!("{w}s") || (w.len() > 5 && part.contains(w.as_str())))
            });
            found.extend(hit.map(|word| format!("{}: {word}", path.display())));
        }
    }
}

#[test]
fn no_domain_word_is_in_the_sources_or_the_dependencies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    visit(&root.join("src"), &mut found);
    assert_eq!(found, Vec::<String>::new());
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for dependency in ["aws", "tonic", "tokio-postgres", "rusqlite", "proto.workspace", "axum", "hyper"] {
        assert!(!manifest.contains(dependency), "the engine must not depend on {dependency}");
    }
}

#[test]
fn files_are_read_in_one_sitting() {
    fn measure(folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                measure(&path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.lines().count() < 700, "{} is too long", path.display());
                assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
            }
        }
    }
    measure(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
}
