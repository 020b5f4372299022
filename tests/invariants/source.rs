//! The repository's files as the invariants see them: tracked files, code without comments, string literals. No rule here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("crate tests lies in the root").to_owned()
}

/// Every file that a clone would have, as paths relative to the root: git's list, or a walk where there is no git.
pub(crate) fn files() -> Vec<String> {
    let root = root();
    let listed = Command::new("git").arg("-C").arg(&root).args(["ls-files", "-z"]).output();
    let mut files: Vec<String> = match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).expect("paths are UTF-8");
            text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(&root, &root, &mut found);
            found
        }
    };
    files.retain(|path| root.join(path).is_file());
    assert!(files.len() > 50, "only {} files were found below {}", files.len(), root.display());
    files.sort();
    files
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry of a folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            if !["target", ".git", ".lab"].contains(&name.as_str()) {
                walk(root, &path, found);
            }
        } else if let Some(path) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            found.push(path.to_owned());
        }
    }
}

/// Rust files whose path begins with one of these.
pub(crate) fn rust_under(folders: &[&str]) -> Vec<String> {
    let all: Vec<String> = files()
        .into_iter()
        .filter(|path| path.ends_with(".rs") && folders.iter().any(|folder| path.starts_with(folder)))
        .collect();
    assert!(!all.is_empty(), "no source was found under {folders:?}");
    all
}

/// A file's text; empty for a file that is not text.
pub(crate) fn text(path: &str) -> String {
    let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8(bytes).unwrap_or_default()
}

/// The lines of a source that are code, with their numbers: no comment lines, nothing after `//` that begins a comment.
pub(crate) fn code(path: &str) -> Vec<(usize, String)> {
    let lines = text(path);
    let lines = lines.lines().enumerate().map(|(n, line)| (n + 1, without_comment(line)));
    lines.filter(|(_, line)| !line.trim().is_empty()).collect()
}

/// A `//` begins a comment when an even number of quotes stands before it.
fn without_comment(line: &str) -> String {
    let starts = line.match_indices("//").map(|(at, _)| at);
    let comment = starts.into_iter().find(|at| line[..*at].matches('"').count().is_multiple_of(2));
    line[..comment.unwrap_or(line.len())].to_owned()
}

/// Code up to the tests at the bottom of the file; tests in a file of their own end nothing.
pub(crate) fn code_before_tests(path: &str) -> Vec<(usize, String)> {
    let all = code(path);
    let begins = |pair: &[(usize, String)]| pair[0].1.trim() == "#[cfg(test)]" && pair[1].1.trim_end().ends_with('{');
    let end = all.windows(2).position(begins).unwrap_or(all.len());
    all.into_iter().take(end).collect()
}

/// The words of a line: letters, digits and underscores.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// `path:line: text` for every line that `breaks` finds in these files.
pub(crate) fn breaches(paths: &[String], breaks: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        let lines = code(path).into_iter().filter(|(_, line)| breaks(line));
        found.extend(lines.map(|(n, line)| format!("{path}:{n}: {}", line.trim())));
    }
    found
}

/// Fails with the list when it is not empty.
pub(crate) fn none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}\n  {}", found.join("\n  "));
}

#[test]
fn comments_are_left_out_and_addresses_are_not() {
    assert_eq!(without_comment("let a = 1; // why"), "let a = 1; ");
    assert_eq!(without_comment("let a = \"http://host\";"), "let a = \"http://host\";");
    assert_eq!(words("aws_config::load()").collect::<Vec<_>>(), ["aws_config", "load"]);
}
