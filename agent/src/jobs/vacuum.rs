//! Job `vacuum`: `VACUUM (ANALYZE)` of every table on green, biggest first, on several connections, then the rewrites that the spec asks
//! for. A table that the server skips fails the job (field rule 4.1); green's read-only default is not touched.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{Table, VACUUM_CONNECTIONS_MAX, Vacuum, Vacuumed},
};

use super::{
    JobCx, codes, failure,
    servers::{Role, Session, databases, each, open, side_of, sql},
};
use crate::pg::catalog;

/// How many of the slowest tables are named.
const SLOWEST: usize = 5;

struct Work {
    table: Table,
    partitioned: bool,
    allowed: bool,
    owner: String,
    bytes: i64,
}

struct Progress {
    queue: Mutex<VecDeque<Work>>,
    done: AtomicU64,
    total: u64,
    times: Mutex<Vec<(Table, u64)>>,
}

/// # Errors
/// `RIGHTS` before anything is done when a table is not ours to vacuum, `SKIPPED` when the server skipped one.
pub async fn run(cx: JobCx, body: Vacuum) -> Result<Vacuumed, JobFailure> {
    let work = find(&cx).await?;
    let refused: Vec<String> =
        work.iter().filter(|work| !work.allowed).map(|work| format!("{} (owner {})", work.table, work.owner)).collect();
    if !refused.is_empty() {
        let cure = format!("the agent's role must be a member of the owners of {}", refused.join(", "));
        return Err(failure(JobFailureClass::NeedsOperator, codes::RIGHTS, "vacuuming green", [&cure]));
    }
    let extra = (body.full.len() + body.reindex.len()) as u64;
    let progress = Arc::new(Progress {
        done: AtomicU64::new(0),
        total: work.len() as u64 + extra,
        times: Mutex::default(),
        queue: Mutex::new(work.into()),
    });
    let tables = progress.total - extra;
    let workers: Vec<u32> = (0..body.parallel.clamp(1, VACUUM_CONNECTIONS_MAX)).collect();
    each(workers, VACUUM_CONNECTIONS_MAX as usize, |_| worker(&cx, &progress)).await?;
    for table in &body.full {
        rewrite(&cx, &progress, table, catalog::vacuum_full).await?;
    }
    for table in &body.reindex {
        rewrite(&cx, &progress, table, catalog::reindex).await?;
    }
    let mut slowest = progress.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
    slowest.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
    slowest.truncate(SLOWEST);
    Ok(Vacuumed { tables, full: body.full.len() as u64, reindexed: body.reindex.len() as u64, slowest })
}

/// Every table of every database, biggest first.
async fn find(cx: &JobCx) -> Result<Vec<Work>, JobFailure> {
    let side = side_of(cx)?;
    let mut all = Vec::new();
    for database in databases(cx, side).await? {
        let session = open(cx, side, &database, Role::Writer).await?;
        let rows = session.query(catalog::TABLES_TO_VACUUM, &[]).await.map_err(sql("listing the tables of green"))?;
        all.extend(rows.iter().map(|row| Work {
            table: Table { database: database.clone(), schema: row.get(0), name: row.get(1) },
            partitioned: row.get(2),
            allowed: row.get(3),
            owner: row.get(4),
            bytes: row.get(5),
        }));
    }
    // A partitioned table comes after its partitions: it has no bytes of its own.
    all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.table.cmp(&b.table)));
    Ok(all)
}

/// Takes tables from the queue until it is empty. Keeps its connection while the database stays the same.
async fn worker(cx: &JobCx, progress: &Progress) -> Result<(), JobFailure> {
    let mut session: Option<Session> = None;
    loop {
        let next = progress.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(work) = next else { return Ok(()) };
        let open = match session.take() {
            Some(open) if open.database == work.table.database => open,
            _ => patient(cx, &work.table.database).await?,
        };
        let name = catalog::qualified(&work.table.schema, &work.table.name);
        let text = match work.partitioned {
            true => catalog::analyze(&name),
            false => catalog::vacuum_analyze(&name, open.said().major),
        };
        session = Some(maintain(cx, progress, open, &work.table, &text).await?);
    }
}

async fn rewrite(cx: &JobCx, progress: &Progress, table: &Table, text: fn(&str) -> String) -> Result<(), JobFailure> {
    let session = patient(cx, &table.database).await?;
    let text = text(&catalog::qualified(&table.schema, &table.name));
    maintain(cx, progress, session, table, &text).await.map(drop)
}

async fn patient(cx: &JobCx, database: &str) -> Result<Session, JobFailure> {
    let session = open(cx, side_of(cx)?, database, Role::Writer).await?;
    session.batch_execute(catalog::WAIT_FOR_LOCKS).await.map_err(sql("preparing to vacuum"))?;
    Ok(session)
}

/// One statement on one table; a warning that it was skipped is a failure.
async fn maintain(
    cx: &JobCx,
    progress: &Progress,
    mut session: Session,
    table: &Table,
    text: &str,
) -> Result<Session, JobFailure> {
    let doing = format!("vacuuming {table}");
    cx.still_wanted(&doing)?;
    let began = cx.clock.mono();
    session.take_notices();
    if let Err(error) = session.batch_execute(text).await {
        // Dropped since it was listed: there is nothing to do.
        if error.code() != Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE) {
            return Err(sql(&doing)(error));
        }
    }
    if let Some(notice) = session.take_notices().into_iter().find(|notice| is_skip(notice)) {
        return Err(failure(JobFailureClass::NeedsOperator, codes::SKIPPED, &doing, [&notice]));
    }
    let ms = u64::try_from(cx.clock.mono().since(began).as_millis()).unwrap_or(u64::MAX);
    progress.times.lock().unwrap_or_else(PoisonError::into_inner).push((table.clone(), ms));
    let done = progress.done.fetch_add(1, Ordering::Relaxed) + 1;
    cx.advance(done, progress.total, "tables", table.to_string());
    Ok(session)
}

/// Says this notice that a table was left out? 14 and 15: `skipping "t" --- only table or database owner can vacuum it`; 16 and later:
/// `permission denied to vacuum "t", skipping it`.
fn is_skip(notice: &str) -> bool {
    notice.starts_with("WARNING") && (notice.contains("skipping") || notice.contains("permission denied"))
}

#[cfg(test)]
mod tests {
    use proto::side::Side;
    use runtime::played::{Asked, Said, Value};

    use super::*;
    use crate::testing::{Pair, Peak};

    #[test]
    fn a_skipped_table_is_told_from_other_warnings() {
        let skips = [
            "WARNING: skipping \"t\" --- only table or database owner can vacuum it",
            "WARNING: permission denied to vacuum \"t\", skipping it",
            "WARNING: permission denied to analyze \"t\", skipping it",
        ];
        assert!(skips.iter().all(|text| is_skip(text)));
        assert!(!is_skip("WARNING: oldest xmin is far in the past"));
        assert!(!is_skip("INFO: vacuuming \"t\""));
    }

    /// A hundred tables of green. Vacuums end when `enough` of them are under way at once, and all at once after that.
    async fn vacuumed(name: &str, parallel: u32, enough: usize) -> (usize, usize) {
        let (peak, open) = (Peak::default(), Arc::new(tokio::sync::watch::Sender::new(false)));
        let most = peak.clone();
        let answer = move |_, asked: Asked| {
            let (peak, open) = (peak.clone(), open.clone());
            async move {
                match asked.text.as_str() {
                    catalog::watchers::CONNECTABLE_DATABASES => Said::Rows(vec![vec!["orders".into()]]),
                    catalog::TABLES_TO_VACUUM => Said::Rows((0..100).map(table).collect()),
                    text if text.starts_with("vacuum") => {
                        if peak.up() >= enough {
                            // Whoever else comes has the time to.
                            for _ in 0..1000 {
                                tokio::task::yield_now().await;
                            }
                            open.send_replace(true);
                        }
                        let mut opened = open.subscribe();
                        let _there = opened.wait_for(|open| *open).await;
                        peak.down();
                        Said::Done
                    }
                    _ => Said::Done,
                }
            }
        };
        let pair = Pair::start(name, answer).await;
        let cx = pair.cx(Side::Green, std::time::Duration::from_secs(30));
        let body = Vacuum { parallel, full: Vec::new(), reindex: Vec::new() };
        assert_eq!(run(cx, body).await.unwrap().tables, 100);
        (most.most(), pair.servers[1].connections())
    }

    fn table(n: usize) -> Vec<Value> {
        let name = format!("t{n}");
        vec![
            "public".into(),
            name.as_str().into(),
            Value::Bool(false),
            Value::Bool(true),
            "app".into(),
            Value::Int8(8192),
        ]
    }

    #[tokio::test]
    async fn a_vacuum_opens_thirty_two_connections_at_most_however_many_are_asked_for() {
        let (at_once, connections) = vacuumed("vacuum-many", 1000, 32).await;
        // Two more have looked for databases and tables before.
        assert_eq!((at_once, connections), (32, 34));
        assert_eq!(vacuumed("vacuum-few", 3, 3).await, (3, 5));
        assert_eq!(vacuumed("vacuum-none", 0, 1).await, (1, 3), "one there is always");
    }
}
