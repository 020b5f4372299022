//! Job `compare`: are the rows of both sides the same (field rule 6)? Apply cannot be stopped, so each table is read on blue, then a marker
//! goes through, then it is read on green and, where that disagrees, on blue again. Read-only but for the marker's own row.
//!
//! What disagrees is compared again; a difference that persists while blue stood still fails. What was written to each time cannot be
//! proven and is listed by name. An answer of a business query is never given away, only a digest.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{Compare, Compared, QueryCompared, Table, TableCompared},
    side::{Side, SideIdentity},
};
use runtime::clock::Mono;
use sha2::{Digest, Sha256};
use tokio_postgres::{SimpleQueryMessage, error::SqlState};

use super::{
    JobCx, NamedQuery, codes, failure, marker,
    memory::{keep, warm},
    servers::{Role, Session, count, databases, each, identity, sql},
};
use crate::pg::catalog;

/// Tables read between two markers: small ones share one.
const BATCH_BYTES: i64 = 64 << 20;
const BATCH_TABLES: usize = 50;
/// Databases compared at once, and batches at once within one.
const WIDTH: usize = 4;
const BATCHES: usize = 2;
const ROUNDS_MAX: u32 = 20;
/// Inside the hold: what is still written to then is written by somebody who is not held, and will not stand still.
const ROUNDS_HELD: u32 = 2;
/// Before something is compared again.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(250);
const BETWEEN_ROUNDS_HELD: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
enum What {
    Table(Table),
    Query(NamedQuery),
}

#[derive(Debug, Clone)]
struct Item {
    what: What,
    bytes: i64,
    counter: Option<i64>,
    /// A row policy hides rows of it from the agent's role.
    hidden: bool,
}

/// What was read of one thing on one server: rows and a digest. `Err`: why it could not be read.
type Reading = Result<(u64, String), String>;

/// How one comparison of one thing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Equal {
        rows: u64,
        digest: String,
    },
    /// Blue stood still and green differs.
    Differs {
        blue: (u64, String),
        green: (u64, String),
    },
    /// Blue was written to meanwhile.
    Moved,
    Unreadable(String),
}

struct Sides<'a> {
    blue: &'a SideIdentity,
    green: &'a SideIdentity,
    role: Role,
    hashes: bool,
}

/// # Errors
/// When a side cannot be asked, a marker does not arrive, or a named query is not configured. Differences are no error: they are in the
/// output.
pub async fn run(cx: JobCx, body: Compare) -> Result<Compared, JobFailure> {
    let (blue, green) = (identity(&cx, Side::Blue)?, identity(&cx, Side::Green)?);
    let role = if body.prefer_reader { Role::Reader } else { Role::Writer };
    let sides = Sides { blue, green, role, hashes: body.hashes };
    let until = body.hold_budget_ms.map(|ms| cx.clock.mono() + Duration::from_millis(ms));
    let queries = named(&cx, &body.queries)?;
    let rounds = body.rounds.clamp(1, if until.is_some() { ROUNDS_HELD } else { ROUNDS_MAX });
    let parts = each(databases(&cx, blue).await?, WIDTH, |database| {
        let (cx, sides, queries) = (&cx, &sides, &queries);
        async move { in_database(cx, sides, queries, &database, rounds, until).await }
    });
    let mut all = Compared { tables: Vec::new(), queries: Vec::new(), unproven: Vec::new(), rounds: 0 };
    for part in parts.await? {
        all.tables.extend(part.tables);
        all.queries.extend(part.queries);
        all.unproven.extend(part.unproven);
        all.rounds = all.rounds.max(part.rounds);
    }
    Ok(all)
}

fn named(cx: &JobCx, names: &[String]) -> Result<Vec<NamedQuery>, JobFailure> {
    let find = |name: &String| {
        cx.queries.iter().find(|query| query.name == *name).cloned().ok_or_else(|| {
            let what = format!("query {name} is not in this agent's configuration");
            failure(JobFailureClass::Permanent, codes::NO_QUERY, "comparing the sides", [&what])
        })
    };
    names.iter().map(find).collect()
}

async fn in_database(
    cx: &JobCx,
    sides: &Sides<'_>,
    queries: &[NamedQuery],
    database: &str,
    rounds: u32,
    until: Option<Mono>,
) -> Result<Compared, JobFailure> {
    let mut items = tables(cx, sides, database, until.is_some()).await?;
    let own = queries.iter().filter(|query| query.database == database);
    items.extend(own.map(|query| Item { what: What::Query(query.clone()), bytes: 0, counter: None, hidden: false }));
    let mut result = Compared { tables: Vec::new(), queries: Vec::new(), unproven: Vec::new(), rounds: 0 };
    let hidden = items.extract_if(.., |item| item.hidden).filter_map(|item| match item.what {
        What::Table(table) => Some((table, "a row policy hides rows of it from the agent's role".to_owned())),
        What::Query(_) => None,
    });
    result.unproven.extend(hidden);
    let mut last: HashMap<String, Outcome> = HashMap::new();
    for round in 1..=rounds {
        if items.is_empty() || past(cx, until) {
            break;
        }
        result.rounds = round;
        let outcomes = each(batches(items).into_iter().enumerate().collect(), BATCHES, |(n, batch)| {
            // Batches that are under way together have marker rows of their own.
            compare_batch(cx, sides, database, n % BATCHES, batch, until)
        })
        .await?;
        items = Vec::new();
        for (item, outcome) in outcomes.into_iter().flatten() {
            match &outcome {
                Outcome::Equal { .. } => settle(cx, &mut result, &item, &outcome, round, until.is_some()),
                _ => {
                    last.insert(item.name(), outcome);
                    items.push(item);
                }
            }
        }
        cx.advance(result.tables.len() as u64, (result.tables.len() + items.len()) as u64, "tables", database);
        if !items.is_empty() && round < rounds {
            let pause = if until.is_some() { BETWEEN_ROUNDS_HELD } else { BETWEEN_ROUNDS };
            cx.pause(pause, "comparing the sides").await?;
        }
    }
    for item in &items {
        let outcome = last.remove(&item.name());
        let outcome =
            outcome.unwrap_or_else(|| Outcome::Unreadable("the hold's budget was spent before it was read".into()));
        let round = result.rounds;
        settle(cx, &mut result, item, &outcome, round, until.is_some());
    }
    Ok(result)
}

fn past(cx: &JobCx, until: Option<Mono>) -> bool {
    until.is_some_and(|until| cx.clock.mono() >= until)
}

impl Item {
    fn name(&self) -> String {
        match &self.what {
            What::Table(table) => table.to_string(),
            What::Query(query) => format!("query {}", query.name),
        }
    }
}

/// Puts an outcome where it belongs in the result, and into the memory of clean comparisons.
fn settle(cx: &JobCx, result: &mut Compared, item: &Item, outcome: &Outcome, rounds: u32, held: bool) {
    match (&item.what, outcome) {
        (What::Table(table), Outcome::Equal { rows, .. }) => {
            item.counter.inspect(|counter| cx.memory.set_clean(table, *counter));
            let (blue_rows, green_rows) = (*rows, *rows);
            result.tables.push(TableCompared { table: table.clone(), equal: true, blue_rows, green_rows, rounds });
        }
        (What::Table(table), Outcome::Differs { blue, green }) => {
            cx.memory.set_unclean(table);
            let (blue_rows, green_rows) = (blue.0, green.0);
            result.tables.push(TableCompared { table: table.clone(), equal: false, blue_rows, green_rows, rounds });
        }
        (What::Table(table), Outcome::Moved) => {
            cx.memory.set_unclean(table);
            result.unproven.push((table.clone(), "it was written to each time it was compared".into()));
        }
        (What::Table(table), Outcome::Unreadable(reason)) => {
            cx.memory.set_unclean(table);
            result.unproven.push((table.clone(), reason.clone()));
        }
        (What::Query(query), outcome) => result.queries.push(query_compared(query, outcome, held)),
    }
}

fn query_compared(query: &NamedQuery, outcome: &Outcome, held: bool) -> QueryCompared {
    let (equal, blue, green) = match outcome {
        Outcome::Equal { digest, .. } => (true, digest.as_str(), digest.as_str()),
        Outcome::Differs { blue, green } => (false, blue.1.as_str(), green.1.as_str()),
        Outcome::Moved => (false, "", ""),
        Outcome::Unreadable(reason) => (false, reason.as_str(), reason.as_str()),
    };
    let unproven = match outcome {
        Outcome::Moved => Some("its answer changed each time it was compared".to_owned()),
        // Inside the hold the budget decides what is read; outside it, what cannot be read differs.
        Outcome::Unreadable(reason) if held => Some(reason.clone()),
        _ => None,
    };
    QueryCompared { name: query.name.clone(), equal, blue_digest: blue.into(), green_digest: green.into(), unproven }
}

/// The tables to compare; inside the hold only those written since they were last seen equal. The counters are the server's own
/// statistics, which it writes down up to a second (on 14: until its next statement) after a session's last commit.
async fn tables(cx: &JobCx, sides: &Sides<'_>, database: &str, only_written: bool) -> Result<Vec<Item>, JobFailure> {
    let doing = format!("listing the tables of database {database}");
    let session = warm(cx, sides.blue, database, Role::Writer).await?;
    let rows = session.query(catalog::WRITE_COUNTERS, &[]).await.map_err(sql(&doing))?;
    let counters: BTreeMap<(String, String), i64> =
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get::<_, Option<i64>>(2).unwrap_or(0))).collect();
    let rows = session.query(catalog::TABLES_TO_COMPARE, &[]).await.map_err(sql(&doing))?;
    keep(cx, sides.blue, Role::Writer, session);
    let item = |row: &tokio_postgres::Row| {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let counter = counters.get(&(schema.clone(), name.clone())).copied();
        let table = Table { database: database.to_owned(), schema, name };
        Item {
            what: What::Table(table),
            bytes: row.get::<_, Option<i64>>(2).unwrap_or(0),
            counter,
            hidden: !row.get::<_, bool>(3),
        }
    };
    let written = |item: &Item| match &item.what {
        What::Table(table) => !only_written || item.counter.is_none() || cx.memory.clean_at(table) != item.counter,
        What::Query(_) => true,
    };
    let mut items: Vec<Item> = rows.iter().map(item).filter(written).collect();
    if only_written {
        // The smallest first: the budget proves the most tables so.
        items.reverse();
    }
    Ok(items)
}

/// Neighbours that share a marker.
fn batches(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut all: Vec<Vec<Item>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += item.bytes;
        match all.last_mut() {
            Some(batch) if batch.len() < BATCH_TABLES && bytes <= BATCH_BYTES => batch.push(item),
            _ => {
                bytes = item.bytes;
                all.push(vec![item]);
            }
        }
    }
    all
}

/// Blue, marker, green; then blue again for what disagreed.
async fn compare_batch(
    cx: &JobCx,
    sides: &Sides<'_>,
    database: &str,
    slot: usize,
    batch: Vec<Item>,
    until: Option<Mono>,
) -> Result<Vec<(Item, Outcome)>, JobFailure> {
    let doing = format!("comparing database {database}");
    if past(cx, until) {
        let spent = || Outcome::Unreadable("the hold's budget was spent before it was read".to_owned());
        return Ok(batch.into_iter().map(|item| (item, spent())).collect());
    }
    let blue = warm(cx, sides.blue, database, sides.role).await?;
    let before = read_all(cx, &blue, sides, &batch, until).await?;
    let (key, mark) = (format!("{}/compare/{slot}", cx.agent), mark(cx, database, &batch));
    marker::through(cx, sides.blue, sides.green, database, &key, &mark).await?;
    let green = warm(cx, sides.green, database, Role::Writer).await?;
    let there = read_all(cx, &green, sides, &batch, until).await?;
    keep(cx, sides.green, Role::Writer, green);
    let mut outcomes = Vec::new();
    if sides.role == Role::Reader && before.iter().zip(&there).any(|(a, b)| a != b) {
        // A reader may be behind its writer: it must have seen the marker too before its second answer counts.
        marker::arrive(cx, &blue, &key, &mark).await?;
    }
    for ((item, before), there) in batch.into_iter().zip(before).zip(there) {
        cx.still_wanted(&doing)?;
        let after = if before == there { before.clone() } else { read(cx, &blue, sides, &item, until).await? };
        let outcome = judge(before, there, after);
        outcomes.push((item, outcome));
    }
    keep(cx, sides.blue, sides.role, blue);
    Ok(outcomes)
}

fn mark(cx: &JobCx, database: &str, batch: &[Item]) -> String {
    let first = batch.first().map(Item::name).unwrap_or_default();
    format!("{} {database} {first} {} {}", cx.id, cx.clock.now(), cx.clock.mono().0.as_nanos())
}

/// What three readings say: green agrees with one of blue's, or blue stood still and green differs, or blue moved.
fn judge(before: Reading, there: Reading, after: Reading) -> Outcome {
    match (before, there, after) {
        (Err(reason), _, _) | (_, Err(reason), _) | (_, _, Err(reason)) => Outcome::Unreadable(reason),
        (Ok(before), Ok(there), Ok(after)) if before == there || after == there => {
            Outcome::Equal { rows: there.0, digest: there.1 }
        }
        (Ok(before), Ok(there), Ok(after)) if before == after => Outcome::Differs { blue: before, green: there },
        _ => Outcome::Moved,
    }
}

async fn read_all(
    cx: &JobCx,
    session: &Session,
    sides: &Sides<'_>,
    batch: &[Item],
    until: Option<Mono>,
) -> Result<Vec<Reading>, JobFailure> {
    let mut readings = Vec::with_capacity(batch.len());
    for item in batch {
        cx.still_wanted("comparing the sides")?;
        readings.push(read(cx, session, sides, item, until).await?);
    }
    Ok(readings)
}

/// Reads one thing on one server. What the server refuses for this thing alone is a reading too; a lost server is an error. Past the
/// hold's budget the reading is given up and its connection with it.
async fn read(
    cx: &JobCx,
    session: &Session,
    sides: &Sides<'_>,
    item: &Item,
    until: Option<Mono>,
) -> Result<Reading, JobFailure> {
    let work = async {
        match &item.what {
            What::Table(table) => read_table(session, sides.hashes, table).await,
            What::Query(query) => read_query(session, query).await,
        }
    };
    let limit = until.map_or(cx.remaining(), |until| until.since(cx.clock.mono()).min(cx.remaining()));
    let Ok(read) = cx.clock.timeout(limit, work).await else {
        session.give_up();
        return Ok(Err("the time for comparing was over".into()));
    };
    match read {
        Ok(reading) => Ok(Ok(reading)),
        Err(error) if session.is_closed() || error.code().is_none() => Err(sql("comparing the sides")(error)),
        Err(error) => {
            session.batch_execute(catalog::ROLLBACK).await.map_err(sql("comparing the sides"))?;
            Ok(Err(reason(&error)))
        }
    }
}

fn reason(error: &tokio_postgres::Error) -> String {
    match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => "the agent's role may not read it whole".into(),
        Some(code) if *code == SqlState::UNDEFINED_TABLE => "it is not on both sides".into(),
        Some(code) => format!("it could not be read (SQLSTATE {})", code.code()),
        None => "it could not be read".into(),
    }
}

async fn read_table(session: &Session, hashes: bool, table: &Table) -> Result<(u64, String), tokio_postgres::Error> {
    let text = match hashes {
        true => catalog::table_hash(&table.schema, &table.name),
        false => catalog::table_count(&table.schema, &table.name),
    };
    let row = session.query_one(&text, &[]).await?;
    Ok((count(row.get(0)), row.get(1)))
}

/// The digest of a business query's answer, whatever the order of its rows. It runs in a transaction that can only read.
async fn read_query(session: &Session, query: &NamedQuery) -> Result<(u64, String), tokio_postgres::Error> {
    session.batch_execute(catalog::BEGIN_READ_ONLY).await?;
    session.batch_execute(catalog::USUAL_SEARCH_PATH).await?;
    let messages = session.simple_query(&query.sql).await?;
    session.batch_execute(catalog::ROLLBACK).await?;
    let mut rows: Vec<[u8; 32]> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .map(|row| {
            let mut digest = Sha256::new();
            for column in 0..row.len() {
                let value = row.get(column);
                digest.update([u8::from(value.is_some())]);
                digest.update((value.map_or(0, str::len) as u64).to_be_bytes());
                digest.update(value.unwrap_or("").as_bytes());
            }
            digest.finalize().into()
        })
        .collect();
    rows.sort_unstable();
    let digest = rows.iter().fold(Sha256::new(), |digest, row| digest.chain_update(row)).finalize();
    Ok((rows.len() as u64, digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_readings_tell_a_difference_from_a_table_that_moves() {
        let reading = |rows: u64| Ok((rows, rows.to_string()));
        let equal = |rows: u64| Outcome::Equal { rows, digest: rows.to_string() };
        assert_eq!(judge(reading(1), reading(1), reading(1)), equal(1));
        assert_eq!(judge(reading(1), reading(2), reading(2)), equal(2));
        assert_eq!(judge(reading(1), reading(2), reading(3)), Outcome::Moved);
        let differs = Outcome::Differs { blue: (1, "1".into()), green: (2, "2".into()) };
        assert_eq!(judge(reading(1), reading(2), reading(1)), differs);
        assert_eq!(judge(reading(1), Err("no".into()), reading(1)), Outcome::Unreadable("no".into()));
    }

    #[test]
    fn small_tables_share_a_marker_and_big_ones_do_not() {
        let item = |bytes| Item {
            what: What::Table(Table { database: "d".into(), schema: "s".into(), name: bytes_name(bytes) }),
            bytes,
            counter: None,
            hidden: false,
        };
        fn bytes_name(bytes: i64) -> String {
            format!("t{bytes}")
        }
        let sizes = |batches: Vec<Vec<Item>>| batches.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(batches(vec![item(1 << 30), item(10), item(20), item(30)])), [1, 3]);
        assert_eq!(sizes(batches((0..120).map(|_| item(1)).collect())), [50, 50, 20]);
        assert!(batches(Vec::new()).is_empty());
    }
}
