//! Colour, where a person looks: on a terminal, unless `NO_COLOR` is set or `--color` says otherwise. Colour says nothing that
//! the words do not.

use std::env;
use std::io::{IsTerminal as _, stderr, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

impl From<When> for clap::ColorChoice {
    fn from(when: When) -> clap::ColorChoice {
        match when {
            When::Auto => clap::ColorChoice::Auto,
            When::Always => clap::ColorChoice::Always,
            When::Never => clap::ColorChoice::Never,
        }
    }
}

/// What `--color` says in arguments that are not parsed yet, or may never be.
pub(super) fn asked_for(arguments: impl Iterator<Item = String>) -> When {
    let arguments: Vec<String> = arguments.collect();
    let apart = arguments.windows(2).find(|pair| pair[0] == "--color").map(|pair| pair[1].as_str());
    let joined = arguments.iter().find_map(|argument| argument.strip_prefix("--color="));
    joined.or(apart).and_then(|when| When::from_str(when, false).ok()).unwrap_or(When::Auto)
}

/// Text goes to stdout; what a verb prints there is coloured or not as a whole.
static ON: AtomicBool = AtomicBool::new(false);

/// Decides once, for the process.
pub(super) fn decide(when: When) {
    ON.store(coloured(when, stdout().is_terminal(), |name| env::var(name).ok()), Ordering::Relaxed);
}

fn coloured(when: When, terminal: bool, set: impl Fn(&str) -> Option<String>) -> bool {
    let no = set("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = set("TERM").is_some_and(|term| term == "dumb");
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => terminal && !no && !dumb,
    }
}

/// Whether a moving line can be drawn on stderr.
pub(super) fn can_move() -> bool {
    stderr().is_terminal() && env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb")
}

fn paint(code: u8, text: &str) -> String {
    if ON.load(Ordering::Relaxed) && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// What went well.
pub(super) fn good(text: &str) -> String {
    paint(32, text)
}

/// What failed.
pub(super) fn bad(text: &str) -> String {
    paint(31, text)
}

/// What a person should look at.
pub(super) fn care(text: &str) -> String {
    paint(33, text)
}

/// What goes on now.
pub(super) fn strong(text: &str) -> String {
    paint(1, text)
}

/// A state of a step, an upgrade or its health, by its word.
pub(super) fn state(word: &str, shown: &str) -> String {
    match word {
        "done" | "succeeded" | "ok" => good(shown),
        "failed" | "stuck" | "unwound" | "stopped" | "trouble" | "refused" => bad(shown),
        "attention" | "person" | "undoing" | "undone" => care(shown),
        "running" => strong(shown),
        _ => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_and_for_who_asks_for_it() {
        let check = |when, terminal, set: &[(&str, &str)], expected: bool| {
            let set = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(coloured(when, terminal, set), expected);
        };
        check(When::Auto, true, &[("TERM", "xterm")], true);
        check(When::Auto, false, &[("TERM", "xterm")], false);
        check(When::Auto, true, &[("NO_COLOR", "1")], false);
        check(When::Auto, true, &[("NO_COLOR", "")], true);
        check(When::Auto, true, &[("TERM", "dumb")], false);
        check(When::Always, false, &[("NO_COLOR", "1")], true);
        check(When::Never, true, &[], false);
    }

    #[test]
    fn what_is_asked_for_is_known_before_anything_is_parsed() {
        let check = |line: &str, expected| {
            assert_eq!(asked_for(line.split(' ').map(str::to_owned)), expected, "{line}");
        };
        check("pilot status --color never", When::Never);
        check("pilot --color=always fly", When::Always);
        check("pilot status --color sometimes", When::Auto);
        check("pilot status --color", When::Auto);
    }

    #[test]
    fn without_colour_a_word_is_the_word() {
        assert_eq!((state("done", "done"), bad("failed")), ("done".to_owned(), "failed".to_owned()));
    }
}
