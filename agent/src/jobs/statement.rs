//! What kind of statement is this text? Decides, from the text alone, whether an interrupted statement could be run again as it stands
//! (field rule 8). Pure. When in doubt it refuses: a statement wrongly refused is reported, one wrongly repeated is damage.

use std::{collections::BTreeSet, fmt};

/// A text that is exactly one statement of a kind that may be run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// `INSERT`, `UPDATE`, `DELETE`, `MERGE` or `SELECT`: the main verb, behind any `WITH`.
    pub verb: &'static str,
    /// Every name and keyword in it, in lower case unless quoted: what temporary tables are looked for in.
    pub words: BTreeSet<String>,
}

/// Why a text is not eligible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Empty,
    CutOff,
    MultiStatement,
    Parameters,
    Utility(String),
    MakesTable,
    TemporaryTable,
    SessionState(String),
    /// A string whose meaning depends on a setting that cannot be seen from outside.
    Ambiguous,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Empty => f.write_str("it holds no statement"),
            Refusal::CutOff => f.write_str("its text is cut off"),
            Refusal::MultiStatement => f.write_str("it is a string of several statements"),
            Refusal::Parameters => f.write_str("its parameters ($n) are not known"),
            Refusal::Utility(word) => write!(f, "it is {word}, not INSERT, UPDATE, DELETE, MERGE or SELECT"),
            Refusal::MakesTable => f.write_str("it makes a table (SELECT INTO)"),
            Refusal::TemporaryTable => f.write_str("it may use a temporary table"),
            Refusal::SessionState(word) => write!(f, "it uses {word}, which depends on or changes the session"),
            Refusal::Ambiguous => {
                f.write_str("a string in it holds a backslash, whose meaning depends on a session setting")
            }
        }
    }
}

/// Reads `text`, which the server kept whole.
///
/// # Errors
/// Why it is not eligible.
pub fn classify(text: &str) -> Result<Statement, Refusal> {
    let tokens = tokens(text)?;
    let end = tokens.iter().position(|token| matches!(token.kind, Kind::Semicolon)).unwrap_or(tokens.len());
    if tokens[end..].iter().any(|token| !matches!(token.kind, Kind::Semicolon)) {
        return Err(Refusal::MultiStatement);
    }
    let tokens = &tokens[..end];
    let verb = main_verb(tokens)?;
    if tokens.iter().any(|token| matches!(token.kind, Kind::Parameter)) {
        return Err(Refusal::Parameters);
    }
    let words: BTreeSet<String> = tokens.iter().filter_map(|token| token.word().map(str::to_owned)).collect();
    let top = |word: &str| tokens.iter().any(|token| token.depth == 0 && token.keyword() == Some(word));
    if verb == "SELECT" && top("into") {
        return Err(Refusal::MakesTable);
    }
    if let Some(word) = words.iter().find(|word| depends_on_session(word)) {
        return Err(Refusal::SessionState(word.clone()));
    }
    if words.iter().any(|word| word == "pg_temp" || word.starts_with("pg_temp_")) {
        return Err(Refusal::TemporaryTable);
    }
    Ok(Statement { verb, words })
}

/// The first keyword of a text, in capitals, for people; never more of it.
pub fn first_word(text: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once(['\n', '\r'])?.1
        } else if rest.starts_with("/*") {
            &rest[skip_comment(rest)?..]
        } else {
            break;
        };
    }
    let word: String = rest.chars().take_while(char::is_ascii_alphabetic).take(20).collect();
    (!word.is_empty()).then(|| word.to_ascii_uppercase())
}

/// Functions that read or change what only the interrupted session had.
fn depends_on_session(word: &str) -> bool {
    ["set_config", "currval", "lastval", "pg_backend_pid", "setseed"].contains(&word)
        || ["dblink", "pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_unlock", "lo_"]
            .iter()
            .any(|start| word.starts_with(start))
}

/// The verb that decides: the first, or behind `WITH` the first that is not the name of a part.
fn main_verb(tokens: &[Token]) -> Result<&'static str, Refusal> {
    let first = tokens.first().ok_or(Refusal::Empty)?;
    let Some(word) = first.keyword() else { return Err(Refusal::Utility("something else".into())) };
    if word != "with" {
        return verb(word).ok_or_else(|| Refusal::Utility(word.to_uppercase()));
    }
    let mut name_expected = true;
    for token in tokens.iter().skip(1).filter(|token| token.depth == 0) {
        match (&token.kind, token.keyword()) {
            (_, Some("recursive")) if name_expected => {}
            (Kind::Word(_) | Kind::Quoted(_), _) if name_expected => name_expected = false,
            (Kind::Comma, _) => name_expected = true,
            (_, Some(word)) if verb(word).is_some() => return Ok(verb(word).unwrap_or_default()),
            (_, Some(word @ ("values" | "table"))) => return Err(Refusal::Utility(word.to_uppercase())),
            _ => {}
        }
    }
    Err(Refusal::Utility("WITH".into()))
}

fn verb(word: &str) -> Option<&'static str> {
    ["INSERT", "UPDATE", "DELETE", "MERGE", "SELECT"].into_iter().find(|verb| verb.eq_ignore_ascii_case(word))
}

// ---- tokens ----------------------------------------------------------------------------------------------------

struct Token {
    kind: Kind,
    /// How many parentheses are open around it.
    depth: usize,
}

enum Kind {
    /// A bare word, in lower case.
    Word(String),
    /// A quoted name, unquoted.
    Quoted(String),
    Parameter,
    Semicolon,
    Comma,
    Other,
}

impl Token {
    /// The keyword, if it is a bare word.
    fn keyword(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// The word or name.
    fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) | Kind::Quoted(word) => Some(word),
            _ => None,
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, Refusal> {
    let (mut found, mut depth, mut at) = (Vec::new(), 0_usize, 0);
    // The server's own text ends at a NUL.
    if text.contains('\0') {
        return Err(Refusal::CutOff);
    }
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (kind, length) = match first {
            // To the server any other space is a letter, and a comment ends at a carriage return too.
            _ if first.is_ascii_whitespace() || first == '\x0b' => (None, 1),
            '-' if rest.starts_with("--") => (None, rest.find(['\n', '\r']).map_or(rest.len(), |end| end + 1)),
            '/' if rest.starts_with("/*") => (None, skip_comment(rest).ok_or(Refusal::CutOff)?),
            '\'' => (Some(Kind::Other), plain_string(rest)?),
            '"' => {
                let length = quoted(rest, '"').ok_or(Refusal::CutOff)?;
                (Some(Kind::Quoted(rest[1..length - 1].replace("\"\"", "\""))), length)
            }
            '$' => dollar(rest)?,
            ';' => (Some(Kind::Semicolon), 1),
            ',' => (Some(Kind::Comma), 1),
            '(' => {
                depth += 1;
                (Some(Kind::Other), 1)
            }
            ')' => {
                depth = depth.checked_sub(1).ok_or(Refusal::CutOff)?;
                (Some(Kind::Other), 1)
            }
            _ if starts_word(first) => word(rest)?,
            // A digit begins a number; letters that stick to it belong to it.
            _ if first.is_ascii_digit() => {
                (Some(Kind::Other), run(rest, |c| c.is_ascii_alphanumeric() || c == '.' || c == '_'))
            }
            _ => (Some(Kind::Other), first.len_utf8()),
        };
        // A semicolon inside parentheses (a rule's or a function's body) is never a plain statement.
        if depth > 0 && matches!(kind, Some(Kind::Semicolon)) {
            return Err(Refusal::MultiStatement);
        }
        found.extend(kind.map(|kind| Token { kind, depth }));
        at += length;
    }
    if depth == 0 { Ok(found) } else { Err(Refusal::CutOff) }
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn run(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

/// A word, or a string with a letter before its quote (`E'…'`, `B'…'`, `U&'…'`).
fn word(text: &str) -> Result<(Option<Kind>, usize), Refusal> {
    let length = run(text, |c| starts_word(c) || c.is_ascii_digit() || c == '$');
    let (word, rest) = (text[..length].to_lowercase(), &text[length..]);
    if rest.starts_with('\'') && word == "e" {
        return Ok((Some(Kind::Other), length + escape_string(rest).ok_or(Refusal::CutOff)?));
    }
    if rest.starts_with('\'') && ["b", "x", "n"].contains(&word.as_str()) {
        return Ok((Some(Kind::Other), length + plain_string(rest)?));
    }
    // Unicode escapes hide names and depend on a clause behind them.
    if word == "u" && (rest.starts_with("&'") || rest.starts_with("&\"")) {
        return Err(Refusal::Ambiguous);
    }
    Ok((Some(Kind::Word(word)), length))
}

/// A parameter `$1`, a dollar-quoted string, or a stray sign.
fn dollar(text: &str) -> Result<(Option<Kind>, usize), Refusal> {
    let inner = &text[1..];
    if inner.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok((Some(Kind::Parameter), 1 + run(inner, |c| c.is_ascii_digit())));
    }
    let tag = run(inner, |c| starts_word(c) || c.is_ascii_digit());
    if !inner[tag..].starts_with('$') {
        return Ok((Some(Kind::Other), 1));
    }
    let quote = &text[..tag + 2];
    let body = &text[quote.len()..];
    let end = body.find(quote).ok_or(Refusal::CutOff)?;
    Ok((Some(Kind::Other), quote.len() + end + quote.len()))
}

/// The length of a text in quotes, where a doubled quote stands for one; `None` when it does not end.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == quote as u8 {
            if bytes.get(at + 1) != Some(&(quote as u8)) {
                return Some(at + 1);
            }
            at += 1;
        }
        at += 1;
    }
    None
}

/// A plain string. With a backslash its end depends on `standard_conforming_strings`, which cannot be seen.
fn plain_string(text: &str) -> Result<usize, Refusal> {
    let length = quoted(text, '\'').ok_or(Refusal::CutOff)?;
    if text[..length].contains('\\') { Err(Refusal::Ambiguous) } else { Ok(length) }
}

/// A string in which a backslash hides the next character.
fn escape_string(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 1,
            b'\'' => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of a comment, which may hold others.
fn skip_comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    None
}

/// The names of a search path as it is written in a setting; quoted ones keep their case.
pub fn search_path(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let length = if rest.starts_with('"') {
            let length = quoted(rest, '"').unwrap_or(rest.len());
            names.push(rest[1..length].trim_end_matches('"').replace("\"\"", "\""));
            length
        } else {
            let length = rest.find(',').unwrap_or(rest.len());
            names.push(rest[..length].trim().to_lowercase());
            length
        };
        rest = rest[length..].trim_start().trim_start_matches(',').trim_start();
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A transaction id of 32 bits, widened: it is one of the four thousand million around `next`.
pub fn widen(xid: u32, next: u64) -> Option<u64> {
    // Truncating and wrapping on purpose: the distance of two 32-bit ids is small and signed.
    let distance = i64::from(xid.wrapping_sub(next as u32) as i32);
    next.checked_add_signed(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, Refusal>) {
        assert_eq!(classify(text).map(|statement| statement.verb), expected, "{text}");
    }

    #[test]
    fn one_plain_statement_is_known_by_its_verb() {
        for (text, verb) in [
            ("insert into t values (1)", "INSERT"),
            ("  UPDATE t SET a = 1 WHERE b = 2 ; ", "UPDATE"),
            ("/* why /* nested */ */ delete from t -- all; of it\n", "DELETE"),
            ("merge into t using s on t.a = s.a when matched then update set b = 1", "MERGE"),
            ("select f(1)", "SELECT"),
            ("with x as (select 1) update t set a = 2", "UPDATE"),
            (
                "with recursive update as (select 1), \"insert\" (a, b) as not materialized (select 1) select 1",
                "SELECT",
            ),
            ("with x as (insert into t values (1) returning a) delete from u using x where u.a = x.a", "DELETE"),
            ("insert into t values ('a;b', E'it\\'s; ''fine''', $$;$$, $q$ $$;$$ ' $q$, B'01')", "INSERT"),
            ("insert into \"a;b\" select * from \"c\"\"d\"", "INSERT"),
            ("update t set a$1 = 3", "UPDATE"),
            ("update t set a = '' where b = 'x''y'", "UPDATE"),
        ] {
            check(text, Ok(verb));
        }
    }

    #[test]
    fn what_cannot_be_run_again_is_refused_by_name() {
        for (text, refusal) in [
            ("", Refusal::Empty),
            ("-- nothing", Refusal::Empty),
            ("call p(1)", Refusal::Utility("CALL".into())),
            ("do $$begin null; end$$", Refusal::Utility("DO".into())),
            ("copy t from stdin", Refusal::Utility("COPY".into())),
            ("vacuum t", Refusal::Utility("VACUUM".into())),
            ("begin", Refusal::Utility("BEGIN".into())),
            ("values (1)", Refusal::Utility("VALUES".into())),
            ("explain analyze update t set a = 1", Refusal::Utility("EXPLAIN".into())),
            ("execute plan(1)", Refusal::Utility("EXECUTE".into())),
            ("(select 1)", Refusal::Utility("something else".into())),
            ("with x as (select 1) table x", Refusal::Utility("TABLE".into())),
            ("update t set a = 1; update t set b = 1", Refusal::MultiStatement),
            ("; update t set a = 1", Refusal::MultiStatement),
            ("update t set a = 1 -- why\r; delete from t", Refusal::MultiStatement),
            ("update t set a = 1 \0", Refusal::CutOff),
            ("begin; update t set a = 1; commit", Refusal::MultiStatement),
            ("update t set a = $1", Refusal::Parameters),
            ("select * into u from t", Refusal::MakesTable),
            ("insert into pg_temp.t values (1)", Refusal::TemporaryTable),
            ("select set_config('role', 'none', false)", Refusal::SessionState("set_config".into())),
            ("insert into t values (currval('s'))", Refusal::SessionState("currval".into())),
            ("select pg_advisory_lock(1)", Refusal::SessionState("pg_advisory_lock".into())),
            ("update t set a = 'x", Refusal::CutOff),
            ("update t set a = $$x", Refusal::CutOff),
            ("update t set a = (1", Refusal::CutOff),
            ("update t /* set", Refusal::CutOff),
            ("update \"t", Refusal::CutOff),
            ("update t set a = 'c:\\'", Refusal::Ambiguous),
            ("update t set a = U&'x'", Refusal::Ambiguous),
        ] {
            check(text, Err(refusal));
        }
    }

    #[test]
    fn names_are_found_for_the_search_of_temporary_tables() {
        let words = classify("insert into Tmp_A select * from \"Tmp B\", s.c where d = 'tmp_e'").unwrap().words;
        for name in ["tmp_a", "Tmp B", "c"] {
            assert!(words.contains(name), "{name}");
        }
        assert!(!words.contains("tmp_e"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        for text in ["é", "'é\\", "$é$ x $é$", "/*é", "\"", "e'\\", "$", "$$", "1e5;", "ünïcode = 'ß'", "--é"]
        {
            classify(text).ok();
            first_word(text);
            search_path(text);
        }
        let whole = "with é as (select 'ü', $t$;$t$, E'\\'' /* * */) insert into \"x\" select $1; --";
        for end in (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            classify(&whole[..end]).ok();
        }
    }

    #[test]
    fn the_first_word_skips_comments() {
        assert_eq!(first_word("/* a */ -- b\n update t"), Some("UPDATE".into()));
        assert_eq!(first_word("-- only"), None);
        assert_eq!(first_word(""), None);
    }

    #[test]
    fn a_search_path_is_compared_by_its_names() {
        assert_eq!(search_path("\"$user\", Public"), ["$user", "public"]);
        assert_eq!(search_path("\"A, b\",c"), ["A, b", "c"]);
        assert!(search_path("").is_empty());
    }

    #[test]
    fn an_id_is_widened_across_an_epoch() {
        assert_eq!(widen(100, 105), Some(100));
        assert_eq!(widen(110, 105), Some(110));
        assert_eq!(widen(u32::MAX, (1 << 32) + 5), Some((1 << 32) - 1));
        assert_eq!(widen(3, (1 << 32) - 2), Some((1 << 32) + 3));
        assert_eq!(widen(7, (3 << 32) + 9), Some((3 << 32) + 7));
    }

    /// The text of anybody's session. What is found eligible is one statement whose verb stands in it.
    #[test]
    fn any_bytes_of_a_session_are_classified() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "statements")
            .words(&[
                "with x as (",
                "insert into ",
                "/*",
                "*/",
                "--",
                "$$",
                "E'",
                "U&\"",
                ";",
                "::",
                "$1",
                "into",
                "pg_temp.",
            ])
            .seed(*b"insert into t (a, b) select 1, 'it''s' from x where y = E'\\'' -- why\n;")
            .seed(*b"with recursive a as (select 1), \"b\" as (values (2)) update t set a = $t$x$t$")
            .seed(*b"merge into t using s on t.a = s.a when matched then update set b = 1");
        target.run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let word = first_word(&text);
            match classify(&text) {
                Ok(statement) => {
                    assert!(text.to_ascii_uppercase().contains(statement.verb), "{}", statement.verb);
                    assert!(word.is_some() && !text.contains('\0'), "{word:?}");
                    statement.verb.into()
                }
                Err(refusal) => format!("{refusal:?}").chars().take(14).collect(),
            }
        });
    }
}
