//! Schema changes in RDS's server log: `time:client:user@database:[pid]:LOG:  statement: …`. Literals are taken out, because
//! `log_statement = ddl` writes passwords of role DDL in plain text.

use std::fmt;

use jiff::Timestamp;

/// One statement that changes the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ddl {
    pub(super) at: Option<Timestamp>,
    pub(super) client: String,
    pub(super) user: String,
    pub(super) database: String,
    /// Without literals, at most 200 characters.
    pub(super) statement: String,
}

impl fmt::Display for Ddl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.map(|at| at.to_string()).unwrap_or_else(|| "at an unknown time".to_owned());
        write!(f, "{} by {} in {} from {}, {at}", self.statement, self.user, self.database, self.client)
    }
}

const STATEMENT_CHARS_MAX: usize = 200;

/// First words of statements that change a schema or what Aurora's replication cannot follow.
const WORDS: &[&str] =
    &["CREATE", "ALTER", "DROP", "REFRESH", "IMPORT", "COMMENT", "SECURITY", "REINDEX", "GRANT", "REVOKE", "CLUSTER"];

/// The schema change that a log line tells of, if it does.
pub(super) fn in_line(line: &str) -> Option<Ddl> {
    let (prefix, rest) = line.split_once(":LOG:")?;
    let text = ["statement: ", "execute "].iter().find_map(|mark| rest.trim_start().strip_prefix(mark))?;
    // `execute name: …` of the extended protocol.
    let text = match rest.trim_start().starts_with("execute ") {
        true => text.split_once(": ")?.1,
        false => text,
    };
    let first = text.split_whitespace().next()?.to_ascii_uppercase();
    if !WORDS.contains(&first.trim_end_matches(';')) || is_temporary(text) {
        return None;
    }
    let (at, client, user, database) = whose(prefix)?;
    Some(Ddl { at, client, user, database, statement: redacted(text) })
}

/// `CREATE TEMP TABLE` changes nothing that is replicated.
fn is_temporary(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().take(4).map(str::to_ascii_uppercase).collect();
    words.first().is_some_and(|word| word == "CREATE") && words.iter().any(|word| word == "TEMP" || word == "TEMPORARY")
}

/// `2026-11-23 00:00:00 UTC:10.0.0.1(5432):app@orders:[123]`
fn whose(prefix: &str) -> Option<(Option<Timestamp>, String, String, String)> {
    let (head, pid) = prefix.rsplit_once(":[")?;
    pid.strip_suffix(']')?;
    let (head, who) = head.rsplit_once(':')?;
    let (user, database) = who.split_once('@')?;
    let (time, client) = head.split_once(" UTC:")?;
    let at = time.replacen(' ', "T", 1) + "Z";
    Some((at.parse().ok(), client.to_owned(), user.to_owned(), database.to_owned()))
}

/// Every quoted literal becomes `'…'`, and the text is cut.
fn redacted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(['\'', '$']) {
        let (before, quoted) = rest.split_at(start);
        out += before;
        let after = match quoted.starts_with('\'') {
            true => end_of_quote(&quoted[1..]),
            false => end_of_dollars(quoted),
        };
        match after {
            Some(after) => {
                out += "'…'";
                rest = after;
            }
            // A literal that does not end in this line: the rest is all literal. A lone dollar is not one.
            None if quoted.starts_with('\'') => {
                out += "'…'";
                rest = "";
            }
            None => {
                out += "$";
                rest = &quoted[1..];
            }
        }
    }
    out += rest;
    out.chars().take(STATEMENT_CHARS_MAX).collect()
}

fn end_of_quote(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let end = rest.find('\'')?;
        rest = &rest[end + 1..];
        // Two in a row are one inside the literal.
        match rest.strip_prefix('\'') {
            Some(more) => rest = more,
            None => return Some(rest),
        }
    }
}

fn end_of_dollars(text: &str) -> Option<&str> {
    let tag_end = text[1..].find('$')? + 2;
    let tag = &text[..tag_end];
    let is_tag = tag[1..tag_end - 1].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_tag {
        return None;
    }
    let end = text[tag_end..].find(tag)?;
    Some(&text[tag_end + end + tag.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "2026-11-23 01:02:03 UTC:127.0.0.9(4711):app@orders:[77]:LOG:  ";

    #[test]
    fn a_schema_change_is_named_with_who_where_and_when() {
        let ddl = in_line(&format!("{HEAD}statement: ALTER TABLE lines ADD COLUMN extra int")).unwrap();
        assert_eq!(
            ddl.to_string(),
            "ALTER TABLE lines ADD COLUMN extra int by app in orders from 127.0.0.9(4711), 2026-11-23T01:02:03Z"
        );
        let ddl = in_line(&format!("{HEAD}execute <unnamed>: refresh materialized view totals")).unwrap();
        assert_eq!(ddl.statement, "refresh materialized view totals");
    }

    #[test]
    fn passwords_and_bodies_never_show() {
        for (statement, shown) in [
            ("CREATE ROLE bob PASSWORD 'hunter2' LOGIN", "CREATE ROLE bob PASSWORD '…' LOGIN"),
            ("ALTER ROLE bob PASSWORD 'it''s'", "ALTER ROLE bob PASSWORD '…'"),
            ("ALTER ROLE bob PASSWORD 'cut off", "ALTER ROLE bob PASSWORD '…'"),
            (
                "CREATE FUNCTION f() RETURNS int AS $b$ select 'x' $b$ LANGUAGE sql",
                "CREATE FUNCTION f() RETURNS int AS '…' LANGUAGE sql",
            ),
        ] {
            assert_eq!(in_line(&format!("{HEAD}statement: {statement}")).unwrap().statement, shown);
        }
    }

    #[test]
    fn other_lines_are_not_schema_changes() {
        for line in [
            "statement: SELECT 1",
            "statement: CREATE TEMP TABLE t (id int)",
            "duration: 3 ms",
            "checkpoint starting: time",
        ] {
            assert_eq!(in_line(&format!("{HEAD}{line}")), None, "{line}");
        }
        assert_eq!(in_line("torn line"), None);
    }
}
