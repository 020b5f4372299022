//! pg_cron, as the quieting and testing jobs use it: everybody's jobs, saved, stopped and woken. It decides nothing about when.

use std::{collections::BTreeMap, time::Duration};

use proto::job::{JobFailure, JobFailureClass};

use super::{
    JobCx, codes, failure,
    servers::{Session, count, sql},
};
use crate::pg::catalog;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Is pg_cron installed in this session's database, and in which version?
///
/// # Errors
/// When it cannot be asked.
pub async fn version(session: &Session) -> Result<Option<String>, JobFailure> {
    let row = session.query_opt(catalog::EXTENSION_HOME, &[&"pg_cron"]).await.map_err(sql("looking for pg_cron"))?;
    Ok(row.map(|row| row.get(1)))
}

/// What the agent's role may not do with other users' jobs, as a sentence with the cure.
///
/// # Errors
/// When it cannot be asked.
pub async fn missing_rights(session: &Session) -> Result<Vec<String>, JobFailure> {
    let row = session.query_one(catalog::CRON_RIGHTS, &[]).await.map_err(sql("asking for rights on pg_cron"))?;
    let place = format!("database {}", session.database);
    let sentences: [(bool, &str); 3] = [
        (
            row.get(0),
            "may not see everybody's cron jobs: grant select on cron.job and a policy (or ownership) that shows all rows",
        ),
        (row.get(1), "may not switch cron jobs off: grant update (active) on cron.job"),
        (row.get(2), "may not see running cron jobs: grant select on cron.job_run_details"),
    ];
    Ok(sentences.iter().filter(|(has, _)| !has).map(|(_, text)| format!("{place}: the agent's role {text}")).collect())
}

/// Saves every job, switches all off and waits for those that run. Gives the number that had been active.
///
/// # Errors
/// `RIGHTS` when the role may not, `CRON_RUNNING` when one still runs after the wait (all stay off: waking them is `unquiesce`'s).
pub async fn quiet(cx: &JobCx, session: &Session, wait: Duration) -> Result<u64, JobFailure> {
    let doing = format!("quieting pg_cron in database {}", session.database);
    if let Some(missing) = missing_rights(session).await?.first() {
        return Err(failure(JobFailureClass::NeedsOperator, codes::RIGHTS, &doing, [missing]));
    }
    session.batch_execute(catalog::BEGIN).await.map_err(sql(&doing))?;
    session.execute(catalog::SAVE_CRON, &[]).await.map_err(sql(&doing))?;
    session.execute(catalog::STOP_CRON, &[]).await.map_err(sql(&doing))?;
    session.batch_execute(catalog::COMMIT).await.map_err(sql(&doing))?;
    let row = session.query_one(catalog::SAVED_CRON_ACTIVE, &[]).await.map_err(sql(&doing))?;
    let began = cx.clock.mono();
    loop {
        let running: i64 = session.query_one(catalog::CRON_RUNNING, &[]).await.map_err(sql(&doing))?.get(0);
        if running == 0 {
            return Ok(count(row.get(0)));
        }
        if cx.clock.mono().since(began) >= wait {
            let what = format!("{running} cron jobs still run after {} ms", wait.as_millis());
            return Err(failure(JobFailureClass::Transient, codes::CRON_RUNNING, &doing, [&what]));
        }
        cx.pause(LOOK_EVERY, &doing).await?;
    }
}

/// Wakes the jobs that were active, and forgets what was saved. Gives how many.
///
/// # Errors
/// When the database refuses.
pub async fn wake(session: &Session) -> Result<u64, JobFailure> {
    let doing = format!("waking pg_cron in database {}", session.database);
    session.batch_execute(catalog::BEGIN).await.map_err(sql(&doing))?;
    let woken = session.execute(catalog::WAKE_CRON, &[]).await.map_err(sql(&doing))?;
    session.execute(catalog::FORGET_CRON, &[]).await.map_err(sql(&doing))?;
    session.batch_execute(catalog::COMMIT).await.map_err(sql(&doing))?;
    Ok(woken)
}

/// A digest per job, for `world as before`.
///
/// # Errors
/// When it cannot be asked.
pub async fn fingerprint(session: &Session) -> Result<BTreeMap<String, String>, JobFailure> {
    if version(session).await?.is_none() {
        return Ok(BTreeMap::new());
    }
    let rows = session.query(catalog::CRON_JOBS, &[]).await.map_err(sql("reading the cron jobs"))?;
    let one = |row: &tokio_postgres::Row| {
        let (id, active, digest): (i64, bool, &str) = (row.get(0), row.get(2), row.get(4));
        (format!("{}: cron job {id}", session.database), format!("{digest} {}", if active { "active" } else { "off" }))
    };
    Ok(rows.iter().map(one).collect())
}
