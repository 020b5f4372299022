//! The hearing after the upgrade: reads the new production, holds it against the ledger and against old blue, and lets
//! `judge` decide. Also plants the bad row that a demo with `--sabotage` asks for, to show that the judge is awake.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;

use super::judge::{self, Verdict};
use super::ledger::{Book, Image, TableId};
use super::schema::{self, LINES};
use super::session::{Login, Session, quoted};
use super::sides::{self, Photograph};
use super::tempo::Tempo;

const LIMIT: Duration = Duration::from_secs(60);

/// The bad row that is planted before judging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// An acknowledged row is deleted.
    Lose,
    /// An acknowledged row gets another value.
    Change,
    /// An acknowledged row is there twice.
    Double,
}

/// What the hearing has before it, beside the new production.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The ledger.
    pub book: &'a Book,
    /// Old blue as it was left, or why it could not be read; nothing where there was no switchover.
    pub old_blue: Option<Result<&'a Photograph, String>>,
    /// A moment before writes were stopped, since the demo's start: what was touched later is the ledger's alone.
    pub cut: Duration,
    /// Runs of the nightly statement that were acknowledged, or that the pilot says it resubmitted.
    pub nightly: BTreeSet<u32>,
}

/// Judges the new production, reached by `production` as a role that may read everything.
pub async fn hear(production: &Login, evidence: &Evidence<'_>, tempo: &Tempo) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict { acknowledged: evidence.book.acknowledged, ..Verdict::default() };
    let old = match &evidence.old_blue {
        None => None,
        Some(Ok(old)) => Some(*old),
        Some(Err(why)) => {
            verdict.lose(1, format!("old blue could not be compared: {why}"));
            None
        }
    };
    for database in schema::DATABASES {
        let session = sides::open(&production.database(database), tempo).await?;
        followed(&session, database, evidence, old, &mut verdict, tempo).await?;
        let unbalanced = sides::unbalanced(&session, tempo).await?;
        if unbalanced > 0 {
            verdict.lose(
                unbalanced,
                format!("{database}.accounts: {unbalanced} balances are not the sum of their history"),
            );
        }
        numbers(&session, database, evidence.book, &mut verdict, tempo).await?;
        nightly(&session, database, &evidence.nightly, &mut verdict, tempo).await?;
        if let Some(old) = old {
            still(&session, database, old, &mut verdict, tempo).await?;
        }
    }
    Ok(verdict)
}

async fn followed(
    session: &Session,
    database: &str,
    evidence: &Evidence<'_>,
    old: Option<&Photograph>,
    verdict: &mut Verdict,
    tempo: &Tempo,
) -> anyhow::Result<()> {
    for (id, written) in schema::written(database) {
        let entries = evidence.book.tables.get(&id).cloned().unwrap_or_default();
        if let Some(value) = written.value {
            let found = sides::rows(session, &written, value, tempo).await?;
            judge::against_ledger(&id.to_string(), &entries, &found, verdict);
        }
        let Some(was) = old.and_then(|old| old.written.get(&id)) else { continue };
        let is = sides::rows(session, &written, "md5(t::text)", tempo).await?;
        let touched_after = |key: &str| entries.get(key).is_some_and(|entry| entry.touched >= evidence.cut);
        judge::at_the_cut(&id.to_string(), was, &is, &touched_after, verdict);
    }
    Ok(())
}

async fn still(
    session: &Session,
    database: &str,
    old: &Photograph,
    verdict: &mut Verdict,
    tempo: &Tempo,
) -> anyhow::Result<()> {
    let now = sides::still(session, database, tempo).await?;
    let mut rows = 0;
    for (id, was) in old.still.iter().filter(|(id, _)| id.database == database) {
        judge::still(&id.to_string(), was, now.get(id), verdict);
        rows += was.rows;
    }
    verdict.compared.push(format!("{database}: {rows} still rows equal to old blue's by hash, or told above"));
    Ok(())
}

async fn numbers(
    session: &Session,
    database: &str,
    book: &Book,
    verdict: &mut Verdict,
    tempo: &Tempo,
) -> anyhow::Result<()> {
    let there = sides::sequences(session, tempo).await?;
    let given = |name: &str| book.sequences.get(&TableId::new(database, name)).cloned().unwrap_or_default();
    let names: BTreeSet<String> = book
        .sequences
        .keys()
        .filter(|id| id.database == database)
        .map(|id| id.table.clone())
        .chain(there.keys().cloned())
        .collect();
    for name in &names {
        judge::sequence(&format!("{database}.{name}"), there.get(name), &given(name), verdict);
    }
    verdict.compared.push(format!("{database}: {} sequences ahead of every used value", names.len()));
    Ok(())
}

async fn nightly(
    session: &Session,
    database: &str,
    must: &BTreeSet<u32>,
    verdict: &mut Verdict,
    tempo: &Tempo,
) -> anyhow::Result<()> {
    let must = if database == schema::NIGHTLY { must.clone() } else { BTreeSet::new() };
    let answer = session.run(tempo, LIMIT, "select run, count(*) from nightly_lines group by run").await?;
    let number =
        |row: &[Option<String>], n: usize| row.get(n).cloned().flatten().and_then(|text| text.parse::<u64>().ok());
    let runs: BTreeMap<u32, u64> =
        answer.rows.iter().filter_map(|row| Some((u32::try_from(number(row, 0)?).ok()?, number(row, 1)?))).collect();
    judge::whole_or_nothing(&format!("{database}.nightly_lines run"), &runs, LINES, &must, verdict);
    let halves = "select batch, half, count(*) from month_ends group by 1, 2 having count(*) > 1";
    let doubled = session.run(tempo, LIMIT, halves).await?.rows.len() as u64;
    if doubled > 0 {
        verdict.double(doubled, format!("{database}.month_ends: {doubled} halves are there more than once"));
    }
    Ok(())
}

/// Plants one bad row in the new production; says what it did.
pub async fn sabotage(kind: Sabotage, production: &Login, book: &Book, tempo: &Tempo) -> anyhow::Result<String> {
    let (table, key) = book
        .tables
        .iter()
        .filter(|(id, _)| id.table == "events")
        .flat_map(|(id, rows)| rows.iter().map(move |row| (id, row)))
        .find(|(_, (_, entry))| matches!(entry.acknowledged, Some(Image::Is(_))) && entry.open.is_none())
        .map(|(id, (key, _))| (id, key))
        .context("there is no acknowledged event to spoil")?;
    let (service, n) = key.rsplit_once('/').context("an event without a number")?;
    let row = format!("service = {} and n = {n}", quoted(service));
    let sql = match kind {
        Sabotage::Lose => format!("delete from events where {row}"),
        Sabotage::Change => format!("update events set payload = payload || ' (changed)' where {row}"),
        Sabotage::Double => format!(
            "insert into events (service, n, ticket, countdown, payload, at) \
             select service, n, ticket, countdown, payload, at from events where {row}"
        ),
    };
    let session = production.database(&table.database).open(tempo, LIMIT).await?;
    let answer = session.run(tempo, LIMIT, &sql).await?;
    anyhow::ensure!(answer.affected == 1, "the bad row could not be planted: {} rows", answer.affected);
    Ok(format!("{kind:?}: event {key} in {}", table.database).to_lowercase())
}
