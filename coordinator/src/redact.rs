//! Text of servers' logs made fit to be shown: whatever a statement holds between quotes, and every comment, is taken out, for
//! `log_statement = ddl` writes passwords of role DDL in plain text. It reads as PostgreSQL's lexer does; where it cannot know how
//! a server reads, or the text ends inside, everything from there on is taken out. Pure.

/// What stands where something was taken out.
const TAKEN_OUT: &str = "'…'";

/// A statement without string constants, dollar quotes and comments; names in double quotes stay.
pub(crate) fn statement(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '"', '$', '-', '/']) {
        let (before, from) = rest.split_at(at);
        shown += before;
        let part = part(&shown, from);
        match part {
            Part::Plain(bytes) => shown += &from[..bytes],
            Part::Comment(_) => shown.push(' '),
            Part::Constant(_) => shown += TAKEN_OUT,
            Part::Endless => return shown + TAKEN_OUT,
        }
        match part {
            Part::Plain(bytes) | Part::Comment(bytes) | Part::Constant(bytes) => rest = &from[bytes..],
            Part::Endless => {}
        }
    }
    shown + rest
}

/// A log that is prose with names in it, and statements: what stands behind `Command was:` up to an empty line, and in every other
/// line what stands behind the first word that begins a statement or names a password.
pub(crate) fn log(text: &str) -> String {
    const COMMAND: &str = "Command was:";
    let mut parts = text.split(COMMAND);
    let mut shown = prose(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find("\n\n").unwrap_or(part.len());
        shown = shown + COMMAND + &statement(&part[..end]) + &prose(&part[end..]);
    }
    shown
}

fn prose(text: &str) -> String {
    const WORDS: [&str; 7] = ["password", "create ", "alter ", "insert ", "copy ", "update ", "statement:"];
    let line = |line: &str| {
        let lower = line.to_ascii_lowercase();
        match WORDS.iter().filter_map(|word| lower.find(word)).min() {
            Some(at) => format!("{}{}", &line[..at], statement(&line[at..])),
            None => line.to_owned(),
        }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A statement without the comments that stand before it.
pub(crate) fn without_leading_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with("--") || rest.starts_with("/*") {
        match comment(rest) {
            Some(bytes) => rest = rest[bytes..].trim_start(),
            None => return "",
        }
    }
    rest
}

/// What begins here, with its length in bytes.
#[derive(Clone, Copy)]
enum Part {
    Plain(usize),
    Comment(usize),
    Constant(usize),
    /// It does not end in this text, or nobody can tell where.
    Endless,
}

/// `from` begins with one of the bytes that may begin something; `before` is what was shown so far.
fn part(before: &str, from: &str) -> Part {
    let ends = |end: Option<usize>| end.map_or(Part::Endless, Part::Constant);
    match from.as_bytes()[0] {
        b'\'' => ends(constant(from, is_escaped(before))),
        b'"' => closed(from, '"').map_or(Part::Endless, Part::Plain),
        b'$' if !before.ends_with(in_name) => dollars(from),
        b'-' if from.starts_with("--") => comment(from).map_or(Part::Endless, Part::Comment),
        b'/' if from.starts_with("/*") => comment(from).map_or(Part::Endless, Part::Comment),
        _ => Part::Plain(1),
    }
}

/// To the server every sign that is not ASCII is a letter.
fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// Is it `E'…'`, with the letter a word of its own?
fn is_escaped(before: &str) -> bool {
    let mut last = before.chars().rev();
    matches!(last.next(), Some('e' | 'E')) && !last.next().is_some_and(in_name)
}

/// The length of a constant in single quotes. A backslash right before a quote outside of `E'…'` means one thing or another by a
/// setting of the session: nobody can tell where that one ends.
fn constant(from: &str, escaped: bool) -> Option<usize> {
    let bytes = from.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escaped => at += 2,
            b'\\' if bytes.get(at + 1) == Some(&b'\'') => return None,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// The length of what stands between two of `quote`, doubled ones inside.
fn closed(from: &str, quote: char) -> Option<usize> {
    let mut at = 1;
    loop {
        at += from[at..].find(quote)? + 1;
        if !from[at..].starts_with(quote) {
            return Some(at);
        }
        at += 1;
    }
}

/// `$tag$ … $tag$`; a dollar that begins no tag is a parameter's or nobody's.
fn dollars(from: &str) -> Part {
    let is_tag = |c: char| in_name(c) && c != '$';
    let Some(end) = from[1..].find(|c| !is_tag(c)).map(|n| n + 1) else { return Part::Plain(1) };
    let numbered = from[1..].starts_with(|c: char| c.is_ascii_digit());
    if numbered || !from[end..].starts_with('$') {
        return Part::Plain(1);
    }
    let tag = &from[..=end];
    from[end + 1..].find(tag).map_or(Part::Endless, |n| Part::Constant(end + 1 + n + tag.len()))
}

/// The length of a comment: to the end of its line, or nested between `/*` and `*/`.
fn comment(from: &str) -> Option<usize> {
    if from.starts_with("--") {
        return Some(from.find(['\n', '\r']).unwrap_or(from.len()));
    }
    let (mut depth, mut at) = (0, 0);
    loop {
        let next = from[at..].find(['/', '*'])? + at;
        at = next + 1;
        if from[next..].starts_with("/*") {
            depth += 1;
            at = next + 2;
        } else if from[next..].starts_with("*/") {
            depth -= 1;
            at = next + 2;
            if depth == 0 {
                return Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_bodies_and_comments_never_show() {
        for (text, shown) in [
            ("CREATE ROLE bob PASSWORD 'hunter2' LOGIN", "CREATE ROLE bob PASSWORD '…' LOGIN"),
            ("ALTER ROLE bob PASSWORD 'it''s'", "ALTER ROLE bob PASSWORD '…'"),
            ("ALTER ROLE bob PASSWORD 'cut off", "ALTER ROLE bob PASSWORD '…'"),
            (r"ALTER ROLE bob PASSWORD E'it\'s' VALID", "ALTER ROLE bob PASSWORD E'…' VALID"),
            (r"ALTER ROLE bob PASSWORD 'a\' VALID UNTIL 'hunter2'", "ALTER ROLE bob PASSWORD '…'"),
            (r#"ALTER ROLE "it's" PASSWORD 'hunter2'"#, r#"ALTER ROLE "it's" PASSWORD '…'"#),
            ("ALTER /* it's */ ROLE bob PASSWORD 'hunter2'", "ALTER   ROLE bob PASSWORD '…'"),
            ("ALTER ROLE bob /* a /* b */ hunter2 */ LOGIN", "ALTER ROLE bob   LOGIN"),
            ("DROP TABLE t -- hunter2", "DROP TABLE t  "),
            ("DO $b$ select 'x' $b$", "DO '…'"),
            ("CREATE FUNCTION f() AS $b$ select hunter2", "CREATE FUNCTION f() AS '…'"),
            ("CREATE VIEW v AS SELECT $1, a$b$c FROM t$x", "CREATE VIEW v AS SELECT $1, a$b$c FROM t$x"),
            ("COMMENT ON TABLE t IS U&'hunter2'", "COMMENT ON TABLE t IS U&'…'"),
            ("ALTER TABLE t ADD c int DEFAULT 4 - 3 / 2", "ALTER TABLE t ADD c int DEFAULT 4 - 3 / 2"),
        ] {
            assert_eq!(statement(text), shown);
        }
    }

    #[test]
    fn statements_inside_of_a_log_are_redacted_and_prose_is_not() {
        assert_eq!(log("Your installation holds the user's types"), "Your installation holds the user's types");
        assert_eq!(
            log(
                "could not execute query: ERROR: no\nCommand was: CREATE FUNCTION f() AS $$\n'hunter2'\n$$;\n\nIt's over"
            ),
            "could not execute query: ERROR: no\nCommand was: CREATE FUNCTION f() AS '…';\n\nIt's over"
        );
        assert_eq!(
            log("then ALTER ROLE bob WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:x$y:z';"),
            "then ALTER ROLE bob WITH LOGIN PASSWORD '…';"
        );
    }

    const PARTS: [&str; 18] = [
        "$ü→$ ☠ ' $ü→$",
        "-- ☠ ' \r'☠'",
        "ALTER ROLE bob PASSWORD",
        "e",
        "\"it's ☠-less\"",
        "\"a\"\"b\"",
        "$1",
        "a$b$c",
        "4-3/2*1",
        ",",
        ";",
        "\n",
        "'it''s ☠'",
        r"E'it\'s ☠ \\'",
        "$$ ☠ ' $t$ $$",
        "$t$ ☠ $$ $t$",
        "/* ☠ ' /* \" */ ☠ */",
        "-- ☠ ' $$ \"\n",
    ];

    proptest::proptest! {
        /// The secrets are the skulls; the one in a name is none.
        #[test]
        fn no_secret_shows_wherever_a_statement_is_cut(parts in proptest::collection::vec(0..PARTS.len(), 1..8), cut in 0..200usize) {
            let whole: Vec<&str> = parts.iter().map(|part| PARTS[*part]).collect();
            let whole: String = whole.join(" ").chars().take(cut).collect();
            let shown = statement(&whole).replace("☠-less", "");
            proptest::prop_assert!(!shown.contains('☠'), "{} is shown as {}", whole, shown);
        }
    }

    #[test]
    fn any_bytes_are_redacted_without_harm() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "redacted")
            .words(&["$$", "$t$", "--", "/*", "*/", "E'", "''", "PASSWORD ", "$1", "U&'"])
            .seed(*b"ALTER ROLE bob PASSWORD 'x' -- y")
            .seed(*b"CREATE FUNCTION f() AS $b$ select E'\\'' $b$ /* /* */ */");
        target.run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let shown = statement(&text);
            let (log, led) = (log(&text), without_leading_comments(&text));
            format!("{} {} {}", shown == text, log == text, led == text)
        });
    }
}
