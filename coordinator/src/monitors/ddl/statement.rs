//! Schema changes in RDS's server log: `time:client:user@database:[pid]:LOG:  statement: …`. They are shown redacted.

use std::fmt;

use jiff::Timestamp;

use crate::operator::tally::Harm;
use crate::redact;

/// One statement that changes the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ddl {
    pub(crate) at: Option<Timestamp>,
    pub(crate) client: String,
    pub(crate) user: String,
    pub(crate) database: String,
    /// Without literals, at most 200 characters.
    pub(crate) statement: String,
}

impl Ddl {
    /// What [`fmt::Display`] wrote: as a warning in the journal says it.
    pub(crate) fn of_warning(text: &str) -> Option<Ddl> {
        let (rest, at) = text.rsplit_once(", ")?;
        let (rest, client) = rest.rsplit_once(" from ")?;
        let (rest, database) = rest.rsplit_once(" in ")?;
        let (statement, user) = rest.rsplit_once(" by ")?;
        let [client, user, database, statement] = [client, user, database, statement].map(str::to_owned);
        Some(Ddl { at: at.parse().ok(), client, user, database, statement })
    }

    /// Judged by its first words alone: what it does exactly, only the databases know.
    pub(crate) fn harm(&self) -> Harm {
        let words: Vec<String> = self.statement.split_whitespace().take(3).map(str::to_ascii_uppercase).collect();
        let word = |n: usize| words.get(n).map_or("", |word| word.trim_end_matches(';'));
        let shape =
            ["TABLE", "TYPE", "DOMAIN", "SCHEMA", "EXTENSION", "DATABASE", "FOREIGN", "UNLOGGED", "PUBLICATION"];
        match (word(0), word(1)) {
            ("REFRESH", _) => Harm::Degrades,
            ("IMPORT", _) => Harm::Breaks,
            ("CREATE" | "ALTER" | "DROP", object) if shape.contains(&object) => Harm::Breaks,
            _ => Harm::Lacks,
        }
    }
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
pub(crate) fn in_line(line: &str) -> Option<Ddl> {
    let (prefix, rest) = line.split_once(":LOG:")?;
    let text = ["statement: ", "execute "].iter().find_map(|mark| rest.trim_start().strip_prefix(mark))?;
    // `execute name: …` of the extended protocol.
    let text = match rest.trim_start().starts_with("execute ") {
        true => text.split_once(": ")?.1,
        false => text,
    };
    let text = redact::without_leading_comments(text);
    let first = text.split_whitespace().next()?.to_ascii_uppercase();
    if !WORDS.contains(&first.trim_end_matches(';')) || is_temporary(text) {
        return None;
    }
    let (at, client, user, database) = whose(prefix)?;
    Some(Ddl { at, client, user, database, statement: shown(text) })
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

/// Redacted first, cut then.
fn shown(text: &str) -> String {
    redact::statement(text).chars().take(STATEMENT_CHARS_MAX).collect()
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
    fn what_the_journal_says_of_a_schema_change_is_read_again_and_judged_by_its_harm() {
        for (statement, harm) in [
            ("ALTER TABLE lines ADD COLUMN extra int", Harm::Breaks),
            ("create table <script> by in from, x (a int)", Harm::Breaks),
            ("refresh materialized view totals", Harm::Degrades),
            ("CREATE INDEX CONCURRENTLY i ON lines (id)", Harm::Lacks),
            ("GRANT SELECT ON lines TO app", Harm::Lacks),
        ] {
            let ddl = in_line(&format!("{HEAD}statement: {statement}")).unwrap();
            assert_eq!(ddl.harm(), harm, "{statement}");
            assert_eq!(Ddl::of_warning(&ddl.to_string()), Some(ddl));
        }
        assert_eq!(Ddl::of_warning("something else"), None);
    }

    #[test]
    fn passwords_and_bodies_never_show() {
        for (statement, shown) in [
            ("CREATE ROLE bob PASSWORD 'hunter2' LOGIN", "CREATE ROLE bob PASSWORD '…' LOGIN"),
            ("/* app's */ ALTER ROLE bob PASSWORD 'cut off", "ALTER ROLE bob PASSWORD '…'"),
        ] {
            assert_eq!(in_line(&format!("{HEAD}statement: {statement}")).unwrap().statement, shown);
        }
        let long = format!("COMMENT ON TABLE {} IS 'x'", "t".repeat(500));
        assert_eq!(in_line(&format!("{HEAD}statement: {long}")).unwrap().statement.chars().count(), 200);
    }

    #[test]
    fn any_bytes_in_a_log_line_are_read_or_passed_over() {
        let line = |statement: &str| format!("{HEAD}{statement}");
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "log-lines")
            .words(&["LOG:  ", "statement: ", "execute <unnamed>: ", " UTC:", "@", ":[", "]", "CREATE TEMP ", "ALTER "])
            .seed(line("statement: ALTER TABLE lines ADD COLUMN extra int DEFAULT 'x'"))
            .seed(line("execute s1: refresh materialized view totals"))
            .seed(line("statement: CREATE ROLE bob PASSWORD $$x$$"));
        target.run(|bytes| match in_line(&String::from_utf8_lossy(bytes)) {
            None => "no change".into(),
            Some(ddl) => {
                assert!(ddl.statement.chars().count() <= STATEMENT_CHARS_MAX);
                assert!(!ddl.to_string().is_empty());
                let word = ddl.statement.split_whitespace().next().unwrap_or_default();
                format!("{word} {}", ddl.at.is_some())
            }
        });
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
