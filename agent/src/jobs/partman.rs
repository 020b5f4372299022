//! pg_partman 4 and 5, as the quieting and testing jobs use it: sets, how far they reach, premaking, maintenance on and off.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::job::{JobFailure, JobFailureClass};

use super::{
    JobCx, codes, failure,
    servers::{Session, count, sql},
};
use crate::pg::catalog;

/// Premaking is tried this often; each time asks for what was still missing.
const TRIES: u32 = 6;
/// No set is given more partitions ahead than this.
const PREMAKE_MAX: i64 = 10_000;

/// Where pg_partman is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub schema: String,
    pub version: String,
}

impl Home {
    /// 4 or 5.
    pub fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// A partition set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub parent: String,
    pub automatic: String,
    pub premake: i32,
    pub interval: String,
    digest: String,
}

/// Is pg_partman installed in this session's database?
///
/// # Errors
/// When it cannot be asked.
pub async fn home(session: &Session) -> Result<Option<Home>, JobFailure> {
    let row = session.query_opt(catalog::EXTENSION_HOME, &[&"pg_partman"]).await;
    Ok(row.map_err(sql("looking for pg_partman"))?.map(|row| Home { schema: row.get(0), version: row.get(1) }))
}

/// The sets of this database.
///
/// # Errors
/// When it cannot be asked.
pub async fn sets(session: &Session, home: &Home) -> Result<Vec<Set>, JobFailure> {
    let rows = session.query(&catalog::partman_sets(&home.schema), &[]).await;
    let rows = rows.map_err(sql("reading the partition sets"))?;
    let set = |row: &tokio_postgres::Row| Set {
        parent: row.get(0),
        automatic: row.get(1),
        premake: row.get(2),
        interval: row.get(3),
        digest: row.get(4),
    };
    Ok(rows.iter().map(set).collect())
}

/// What the agent's role may not do with pg_partman, as a sentence with the cure.
///
/// # Errors
/// When it cannot be asked.
pub async fn missing_rights(session: &Session) -> Result<Vec<String>, JobFailure> {
    let Some(home) = home(session).await? else { return Ok(Vec::new()) };
    let doing = "asking for rights on pg_partman";
    let Some(row) = session.query_opt(catalog::PARTMAN_RIGHTS, &[&home.schema]).await.map_err(sql(doing))? else {
        return Ok(Vec::new());
    };
    let (database, schema) = (&session.database, &home.schema);
    let sentences = [
        (row.get(0), format!("may not use schema {schema} of pg_partman: grant usage on schema {schema}")),
        (
            row.get(1),
            format!("may not change partition sets: grant select, insert, update, delete on {schema}.part_config"),
        ),
    ];
    let missing = sentences.into_iter().filter(|(has, _): &(bool, _)| !has);
    Ok(missing.map(|(_, text)| format!("database {database}: the agent's role {text}")).collect())
}

/// Schema and name of the sets' template tables, which nothing writes to.
///
/// # Errors
/// When they cannot be asked for.
pub async fn templates(session: &Session) -> Result<Vec<(String, String)>, JobFailure> {
    let Some(home) = home(session).await? else { return Ok(Vec::new()) };
    if !missing_rights(session).await?.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session.query(&catalog::partman_templates(&home.schema), &[]).await;
    let rows = rows.map_err(sql("reading the templates of partition sets"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The end of a set's last partition (`None` when it is not by time), and how many it has.
///
/// # Errors
/// When it cannot be asked.
pub async fn cover(session: &Session, home: &Home, set: &Set) -> Result<(Option<Timestamp>, u64), JobFailure> {
    let doing = format!("reading how far the partitions of {} reach", set.parent);
    let row = session.query_one(&catalog::partman_cover(&home.schema), &[&set.parent]).await.map_err(sql(&doing))?;
    // An end that is no instant (infinity) reaches further than anything.
    let end = row.try_get::<_, Option<Timestamp>>(0).unwrap_or(Some(Timestamp::MAX));
    Ok((end, count(row.get(1))))
}

/// The earliest end over all sets by time in this database; `None` when there is none.
///
/// # Errors
/// When it cannot be asked.
pub async fn covered_until(session: &Session) -> Result<Option<Timestamp>, JobFailure> {
    let Some(home) = home(session).await? else { return Ok(None) };
    let mut earliest = None;
    for set in sets(session, &home).await? {
        earliest = earlier(earliest, cover(session, &home, &set).await?.0);
    }
    Ok(earliest)
}

/// The earlier of two instants, where a missing one does not count.
pub fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

/// Rows that lie in default partitions of this database, by set.
///
/// # Errors
/// When it cannot be asked.
pub async fn rows_in_default(session: &Session, home: &Home) -> Result<Vec<(String, u64)>, JobFailure> {
    let rows = session.query(&catalog::rows_in_default(&home.schema), &[]).await;
    let rows = rows.map_err(sql("counting rows in default partitions"))?;
    let one =
        |row: &tokio_postgres::Row| (format!("{}: {}", session.database, row.get::<_, &str>(0)), count(row.get(1)));
    Ok(rows.iter().map(one).filter(|(_, rows)| *rows > 0).collect())
}

/// Saves what every set carries now; what was saved first stays.
///
/// # Errors
/// When the database refuses.
pub async fn save(session: &Session, home: &Home) -> Result<(), JobFailure> {
    let saved = session.execute(&catalog::save_partman(&home.schema), &[]).await;
    saved.map(drop).map_err(sql("saving the state of pg_partman"))
}

/// Makes partitions of a set until they reach `until`. Gives how many were made and how far they reach.
///
/// # Errors
/// `PARTITIONS` when they do not reach that far in the end: for instance a set without any row, for which pg_partman makes nothing.
pub async fn premake(
    cx: &JobCx,
    session: &Session,
    home: &Home,
    set: &Set,
    until: Timestamp,
) -> Result<(u64, Option<Timestamp>), JobFailure> {
    let doing = format!("making partitions of {} ahead", set.parent);
    let (first, before) = cover(session, home, set).await?;
    let row = session.query_one(catalog::INTERVAL_SECONDS, &[&set.interval]).await.map_err(sql(&doing))?;
    let (Some(mut end), Some(seconds)) = (first, row.get::<_, Option<i64>>(0)) else { return Ok((0, None)) };
    let mut premake = i64::from(set.premake);
    for _ in 0..TRIES {
        if end >= until {
            break;
        }
        cx.still_wanted(&doing)?;
        let missing = until.duration_since(end).as_secs() / seconds.max(1) + 1;
        premake = premake.saturating_add(missing).min(PREMAKE_MAX);
        let wanted = i32::try_from(premake).unwrap_or(i32::MAX);
        session.execute(&catalog::raise_premake(&home.schema), &[&set.parent, &wanted]).await.map_err(sql(&doing))?;
        maintain(cx, session, home, &set.parent, &doing).await?;
        end = cover(session, home, set).await?.0.unwrap_or(end);
    }
    let (end, after) = cover(session, home, set).await?;
    match end {
        Some(end) if end < until => {
            let what = format!("they reach {end}, asked was {until}");
            Err(failure(JobFailureClass::NeedsOperator, codes::PARTITIONS, &doing, [&what]))
        }
        end => Ok((after.saturating_sub(before), end)),
    }
}

/// Runs the maintenance of one set, with our short lock time-out and retries.
///
/// # Errors
/// `LOCKED` when its locks were never to be had.
pub async fn maintain(cx: &JobCx, session: &Session, home: &Home, parent: &str, doing: &str) -> Result<(), JobFailure> {
    let text = catalog::run_maintenance(&home.schema);
    let mut wait = std::time::Duration::from_millis(100);
    loop {
        session.batch_execute(catalog::BEGIN_WITH_LOCK_TIMEOUT).await.map_err(sql(doing))?;
        let ran = session.query(&text, &[&parent]).await.map_err(sql(doing));
        let end = if ran.is_ok() { catalog::COMMIT } else { catalog::ROLLBACK };
        session.batch_execute(end).await.map_err(sql(doing))?;
        match ran {
            Ok(_) => return Ok(()),
            Err(error) if error.code == codes::LOCKED && cx.remaining() > wait * 2 => cx.pause(wait, doing).await?,
            Err(error) => return Err(error),
        }
        wait = (wait * 2).min(std::time::Duration::from_secs(2));
    }
}

/// Switches every set's automatic maintenance off.
///
/// # Errors
/// When the database refuses.
pub async fn stop(session: &Session, home: &Home) -> Result<(), JobFailure> {
    let stopped = session.execute(&catalog::stop_partman(&home.schema), &[]).await;
    stopped.map(drop).map_err(sql("quieting pg_partman"))
}

/// Puts maintenance and premake back as they were saved, and forgets them. Gives how many sets.
///
/// # Errors
/// When the database refuses.
pub async fn wake(session: &Session, home: &Home) -> Result<u64, JobFailure> {
    let doing = format!("waking pg_partman in database {}", session.database);
    session.batch_execute(catalog::BEGIN).await.map_err(sql(&doing))?;
    let sets = session.execute(&catalog::wake_partman(&home.schema), &[]).await.map_err(sql(&doing))?;
    session.execute(catalog::FORGET_PARTMAN, &[]).await.map_err(sql(&doing))?;
    session.batch_execute(catalog::COMMIT).await.map_err(sql(&doing))?;
    Ok(sets)
}

/// A digest per set, for `world as before`.
///
/// # Errors
/// When it cannot be asked.
pub async fn fingerprint(session: &Session) -> Result<BTreeMap<String, String>, JobFailure> {
    let Some(home) = home(session).await? else { return Ok(BTreeMap::new()) };
    let sets = sets(session, &home).await?;
    Ok(sets
        .into_iter()
        .map(|set| (format!("{}: partition set {}", session.database, set.parent), set.digest))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_of_an_extension_is_its_first_number() {
        let home = |version: &str| Home { schema: "p".into(), version: version.into() };
        assert_eq!([home("4.7.2").major(), home("5.2.4").major(), home("odd").major()], [4, 5, 0]);
    }
}
