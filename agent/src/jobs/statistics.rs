//! Job `check_statistics`: has every table of the side been analysed since the upgrade, and do extended statistics hold data?
//! Reads only; whether that is enough is the coordinator's to say.

use std::time::Duration;

use jiff::Timestamp;
use proto::{
    job::JobFailure,
    jobs::{CheckStatistics, StatisticsChecked, Table},
};

use super::{
    JobCx,
    servers::{Session, in_every_database, sql},
};
use crate::pg::catalog;

/// The server counts with a delay (14 longest): a table that looks unanalysed is looked at again for this long.
const SETTLE: Duration = Duration::from_millis(2_500);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// # Errors
/// When a database cannot be asked.
pub async fn run(cx: JobCx, body: CheckStatistics) -> Result<StatisticsChecked, JobFailure> {
    let parts = in_every_database(&cx, |session| check(&cx, session, body.since));
    let mut all = StatisticsChecked { tables: 0, without: Vec::new(), extended_without: Vec::new() };
    for part in parts.await? {
        all.tables += part.tables;
        all.without.extend(part.without);
        all.extended_without.extend(part.extended_without);
    }
    Ok(all)
}

async fn check(cx: &JobCx, session: Session, since: Timestamp) -> Result<StatisticsChecked, JobFailure> {
    let doing = format!("reading the statistics of database {}", session.database);
    let began = cx.clock.mono();
    let (tables, without) = loop {
        let rows = session.query(catalog::STATISTICS_TIMES, &[]).await.map_err(sql(&doing))?;
        let without: Vec<Table> = rows
            .iter()
            .filter(|row| row.get::<_, Option<Timestamp>>(2).is_none_or(|at| at < since))
            .map(|row| Table { database: session.database.clone(), schema: row.get(0), name: row.get(1) })
            .collect();
        if without.is_empty() || cx.clock.mono().since(began) > SETTLE {
            break (rows.len() as u64, without);
        }
        cx.pause(LOOK_EVERY, &doing).await?;
    };
    let extended = session.query(catalog::EXTENDED_WITHOUT_DATA, &[]).await.map_err(sql(&doing))?;
    let name = |row: &tokio_postgres::Row| format!("{}: {}", session.database, row.get::<_, &str>(0));
    Ok(StatisticsChecked { tables, without, extended_without: extended.iter().map(name).collect() })
}
