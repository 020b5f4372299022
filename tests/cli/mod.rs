//! The command line as people meet it, by the real binaries and without a cluster: what is written in `*.trycmd` here is what is
//! said, the examples of every `--help` run, errors say what to do, and it is quick.

mod quick;
mod written;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::stage::pilot::Binaries;

/// A folder of one test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("upgrade-pilot-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        Folder(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is only litter.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `pilot` or `pilot-agent` with an environment of its own: no coordinator, no colour, nobody's certificate.
fn program(name: &str) -> Command {
    let binaries = Binaries::find().expect("the binaries");
    let path = if name == "pilot-agent" { binaries.agent } else { binaries.pilot };
    let mut command = Command::new(path);
    command.env_clear().env("USER", "tester").env("TERM", "xterm").env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn ran(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// As a shell takes a line apart that has no more than single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        match n % 2 {
            1 => words.push(part.to_owned()),
            _ => words.extend(part.split_whitespace().map(str::to_owned)),
        }
    }
    words
}

/// The commands under "Examples:" in the help of a verb, up to where a shell would take over.
fn examples(verb: &[&str]) -> Vec<String> {
    let said = ran(program("pilot").args(verb).arg("--help"));
    assert!(said.status.success(), "pilot {} --help", verb.join(" "));
    let help = String::from_utf8_lossy(&said.stdout).into_owned();
    let (_, examples) = help.split_once("Examples:").unwrap_or_else(|| panic!("pilot {verb:?} --help has no examples"));
    let mut all: Vec<String> = Vec::new();
    for line in examples.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match (line.strip_prefix("pilot "), all.last_mut()) {
            (Some(example), _) => all.push(example.to_owned()),
            // A long one goes on in the next line.
            (None, Some(last)) => *last = format!("{last} {line}"),
            (None, None) => panic!("{line} is no example"),
        }
    }
    all.iter().map(|line| line.split(['>', '|']).next().unwrap_or(line).trim().to_owned()).collect()
}

#[test]
fn examples_that_need_no_coordinator_run_as_they_are_written() {
    let folder = Folder::new("examples");
    let verbs: [&[&str]; 5] = [&["explain"], &["completions"], &["man"], &["agents", "enrol"], &["agents", "revoke"]];
    for verb in verbs {
        for example in examples(verb) {
            let said = ran(program("pilot").args(words(&example)).current_dir(folder.path()));
            let text = String::from_utf8_lossy(&said.stderr);
            assert_eq!(said.status.code(), Some(0), "pilot {example}: {text}");
            assert!(!said.stdout.is_empty() || !text.is_empty(), "pilot {example} says nothing");
        }
    }
    for page in ["pilot", "pilot-upgrade", "pilot-tune", "pilot-agents-enrol"] {
        let text = std::fs::read_to_string(folder.path().join(format!("man1/{page}.1"))).expect(page);
        assert!(text.contains(&format!(".TH {page} 1")), "{page}: {text}");
        assert!(page == "pilot" || text.contains("Examples:"), "{page} has no examples");
    }
}

/// The shells themselves read what is made for them.
#[test]
fn bash_reads_the_completions_and_offers_every_verb() {
    let script = ran(program("pilot").args(["completions", "bash"]));
    let script = String::from_utf8_lossy(&script.stdout).into_owned();
    let ask = "\nCOMP_WORDS=(pilot po); COMP_CWORD=1; _pilot pilot po pilot; echo \"${COMPREPLY[@]}\"\n\
               COMP_WORDS=(pilot status --o); COMP_CWORD=2; _pilot pilot --o status; echo \"${COMPREPLY[@]}\"\n";
    let said = ran(Command::new("bash").arg("-c").arg(script + ask));
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines, ["postpone", "--output"], "{}", String::from_utf8_lossy(&said.stderr));
}

/// Neither where it is piped to, nor where `NO_COLOR` is set, nor where it is told so.
#[test]
fn colour_is_for_terminals_only_and_can_be_switched_off_and_on() {
    let escape = |said: &Output| said.stdout.contains(&0x1b) || said.stderr.contains(&0x1b);
    assert!(!escape(&ran(program("pilot").arg("--help"))), "piped");
    let on_terminal = |set: (&str, &str), flags: &str| {
        let pilot = Binaries::find().expect("the binaries").pilot;
        let line = format!("{} watch {flags}", pilot.display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env(set.0, set.1).stdin(Stdio::null());
        let said = ran(&mut command);
        assert!(String::from_utf8_lossy(&said.stdout).contains("Usage"), "{said:?}");
        escape(&said)
    };
    assert!(on_terminal(("OTHER", "1"), ""), "on a terminal help is coloured");
    assert!(!on_terminal(("NO_COLOR", "1"), ""), "NO_COLOR");
    assert!(!on_terminal(("OTHER", "1"), "--color never"), "--color never");
    assert!(on_terminal(("NO_COLOR", "1"), "--color always"), "--color always");
}
