//! Plays the files `tests/cli/*.trycmd`: blocks of ` ```console `, in them `$ command`, `? exit code` where it is not 0, and what is
//! said on both streams. `[..]` stands for anything within a line, a line `...` for any lines. `OVERWRITE=1` writes down what is said.
//!
//! The form is trycmd's. Its crates are not used: they change the features of what everything else is built with, and a whole
//! build again costs more than these lines.

use std::fs;
use std::path::Path;

use super::{Folder, program, ran, words};

#[test]
fn what_the_command_line_says_is_as_it_is_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cli");
    let overwrite = std::env::var_os("OVERWRITE").is_some();
    let mut wrong = Vec::new();
    let mut commands = 0;
    for file in fs::read_dir(&folder).expect("the folder of the files").filter_map(Result::ok) {
        let path = file.path();
        if path.extension().is_none_or(|extension| extension != "trycmd") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a file");
        let name = file.file_name().to_string_lossy().into_owned();
        let played = play(&name, &text, &mut wrong);
        commands += played.1;
        if overwrite {
            fs::write(&path, played.0).expect("to write what is said");
        }
    }
    assert!(commands > 10, "{commands} commands are written down");
    assert!(overwrite || wrong.is_empty(), "{}\nOVERWRITE=1 writes down what is said", wrong.join("\n"));
}

/// The file with what is said now, and the number of its commands.
fn play(name: &str, text: &str, wrong: &mut Vec<String>) -> (String, usize) {
    let place = Folder::new(name);
    let (mut now, mut commands) = (String::new(), 0);
    let mut lines = text.lines().peekable();
    let mut inside = false;
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            inside = line == "```console";
        }
        now.push_str(line);
        now.push('\n');
        let Some(command) = line.strip_prefix("$ ").filter(|_| inside) else { continue };
        commands += 1;
        let mut written = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("```") && !line.starts_with("$ ")) {
            written.push(line.trim_end().to_owned());
        }
        while written.last().is_some_and(String::is_empty) {
            written.pop();
        }
        let said = said(command, place.path());
        let same = matches(&written, &said);
        if !same {
            wrong.push(format!(
                "{name}: $ {command}\n-- written:\n{}\n-- said:\n{}",
                written.join("\n"),
                said.join("\n")
            ));
        }
        for line in if same { &written } else { &said } {
            now.push_str(line);
            now.push('\n');
        }
        if lines.peek().is_some_and(|line| line.starts_with("$ ")) {
            now.push('\n');
        }
    }
    (now, commands)
}

/// `? code` first, where it is not 0; then the data, then the rest.
fn said(command: &str, place: &Path) -> Vec<String> {
    let mut words = words(command);
    let name = words.remove(0);
    let output = ran(program(&name).args(words).current_dir(place));
    let mut said = Vec::new();
    match output.status.code() {
        Some(0) => {}
        Some(code) => said.push(format!("? {code}")),
        None => said.push("? ended by a signal".to_owned()),
    }
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    said.extend(text.lines().map(|line| line.trim_end().to_owned()));
    while said.last().is_some_and(String::is_empty) {
        said.pop();
    }
    said
}

fn matches(written: &[String], said: &[String]) -> bool {
    match written.split_first() {
        None => said.is_empty(),
        Some((line, rest)) if line == "..." => (0..=said.len()).any(|skipped| matches(rest, &said[skipped..])),
        Some((line, rest)) => said.split_first().is_some_and(|(first, more)| fits(line, first) && matches(rest, more)),
    }
}

fn fits(written: &str, said: &str) -> bool {
    let Some((head, tail)) = written.split_once("[..]") else { return written == said };
    let Some(rest) = said.strip_prefix(head) else { return false };
    (0..=rest.len()).any(|skipped| rest.is_char_boundary(skipped) && fits(tail, &rest[skipped..]))
}

#[test]
fn a_line_that_differs_is_seen_and_what_is_left_open_is_not() {
    let lines = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let check = |written: &str, said: &str, expected: bool| {
        assert_eq!(matches(&lines(written), &lines(said)), expected, "{written} and {said}");
    };
    check("a/b", "a/b", true);
    check("a/b", "a/c", false);
    check("a", "a/b", false);
    check("a/...", "a/b/c", true);
    check("a/.../c", "a/b", false);
    check("port [..] is", "port 7400 is", true);
    check("port [..] is", "port 7400 was", false);
}
