//! Finds schema changes in a server's log: lines of `log_statement = ddl` behind RDS's prefix. Pure text work.

use super::health::{Change, ChangeKind};

/// Every statement of a client that changes a schema or refreshes a materialized view.
pub(super) fn in_log(log: &str) -> Vec<Change> {
    log.lines().filter_map(line).flatten().collect()
}

/// `2026-11-23 00:35:05 UTC:127.0.0.1(4242):postgres@orders:[123]:LOG:  statement: create table t(id int)`
fn line(line: &str) -> Option<Vec<Change>> {
    let (prefix, text) = line.split_once("]:LOG:  ")?;
    let statement = text
        .strip_prefix("statement: ")
        .or_else(|| text.strip_prefix("execute ").and_then(|rest| Some(rest.split_once(": ")?.1)))?;
    let who = prefix.rsplit_once(":[")?.0.rsplit(':').next()?;
    let (user, database) = who.split_once('@')?;
    if user.starts_with("rds") {
        return None;
    }
    let change = |kind, what: &str| Change { database: Some(database.to_owned()), kind, what: what.trim().to_owned() };
    Some(statement.split(';').filter_map(|part| Some(change(classify(part)?, part))).collect())
}

/// What a statement does, by its first words. Rights, roles, databases and temporary objects are no schema changes.
fn classify(statement: &str) -> Option<ChangeKind> {
    let words: Vec<String> = uncommented(statement).split_whitespace().take(4).map(str::to_lowercase).collect();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let other = ["role", "user", "group", "system", "database", "tablespace", "publication", "subscription", "default"];
    match word(0) {
        "refresh" => Some(ChangeKind::Refresh),
        "create" | "alter" | "drop" if other.contains(&word(1)) => None,
        "create" if ["temp", "temporary", "local", "global"].contains(&word(1)) => None,
        "create" if word(1) == "or" && word(2) == "replace" && word(3).starts_with("temp") => None,
        "create" | "alter" | "drop" | "reindex" | "cluster" => Some(ChangeKind::Ddl),
        "import" if word(1) == "foreign" => Some(ChangeKind::Ddl),
        _ => None,
    }
}

/// The statement without the comments before it.
fn uncommented(mut statement: &str) -> &str {
    loop {
        statement = statement.trim_start();
        statement = match statement.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
            Some((_, rest)) => rest,
            None => return statement,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statement: &str, expected: Option<ChangeKind>) {
        let log = format!("2026-11-23 00:35:05 UTC:127.0.0.1(4242):app@orders:[12]:LOG:  {statement}\n");
        let found = in_log(&log);
        assert_eq!(found.first().map(|change| change.kind), expected, "{statement}");
        assert!(found.iter().all(|change| change.database.as_deref() == Some("orders")));
    }

    #[test]
    fn statements_are_told_apart() {
        check("statement: create table t(id int)", Some(ChangeKind::Ddl));
        check("execute <unnamed>: ALTER TABLE t ADD COLUMN a int", Some(ChangeKind::Ddl));
        check("statement: select 1; drop index i", Some(ChangeKind::Ddl));
        check("statement: /* job */ refresh materialized view concurrently v", Some(ChangeKind::Refresh));
        check("statement: create temp table x(i int)", None);
        check("statement: grant select on t to app", None);
        check("statement: alter role app password 'x'", None);
        check("duration: 3 ms", None);
    }

    #[test]
    fn the_providers_own_statements_do_not_count() {
        assert_eq!(
            in_log("2026-11-23 00:35:05 UTC:[local]:rdsadmin@orders:[12]:LOG:  statement: create table t()"),
            []
        );
    }
}
