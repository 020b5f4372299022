//! Jobs `quiesce` and `unquiesce`: partitions made ahead, then pg_partman and pg_cron switched off, and back on the living side. What was
//! set is saved in the database itself, so that it reaches green and any later agent. Both may be run again at any point.

use std::time::Duration;

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{Quiesce, Quiesced, Unquiesce, Unquiesced},
};

use super::{
    JobCx, codes, cron, failure, partman, schema,
    servers::{Session, in_every_database, writer},
};

/// # Errors
/// `RIGHTS` when jobs of others cannot be seen or changed, `PARTITIONS` when partitions cannot be made far enough, `CRON_RUNNING` when a job
/// runs on.
pub async fn quiesce(cx: JobCx, body: Quiesce) -> Result<Quiesced, JobFailure> {
    let sets = in_every_database(&cx, |session| quiet_partman(&cx, session, &body));
    let mut all = Quiesced { cron_jobs: 0, partition_sets: 0, partitions_made: 0, covered_until: None };
    for part in sets.await? {
        all.partition_sets += part.partition_sets;
        all.partitions_made += part.partitions_made;
        all.covered_until = partman::earlier(all.covered_until, part.covered_until);
    }
    let wait = Duration::from_millis(body.running_jobs_wait_ms);
    let jobs = in_every_database(&cx, |session| quiet_cron(&cx, session, wait));
    all.cron_jobs = jobs.await?.iter().sum();
    Ok(all)
}

async fn quiet_partman(cx: &JobCx, session: Session, body: &Quiesce) -> Result<Quiesced, JobFailure> {
    let mut done = Quiesced { cron_jobs: 0, partition_sets: 0, partitions_made: 0, covered_until: None };
    let Some(home) = partman::home(&session).await? else { return Ok(done) };
    need_schema(&session).await?;
    partman::save(&session, &home).await?;
    for set in partman::sets(&session, &home).await? {
        let (made, end) = partman::premake(cx, &session, &home, &set, body.premake_until).await?;
        done.partition_sets += 1;
        done.partitions_made += made;
        done.covered_until = partman::earlier(done.covered_until, end);
    }
    partman::stop(&session, &home).await?;
    Ok(done)
}

async fn quiet_cron(cx: &JobCx, session: Session, wait: Duration) -> Result<u64, JobFailure> {
    if cron::version(&session).await?.is_none() {
        return Ok(0);
    }
    need_schema(&session).await?;
    cron::quiet(cx, &session, wait).await
}

async fn need_schema(session: &Session) -> Result<(), JobFailure> {
    if schema::state(session).await?.is_some_and(|state| state.ours) {
        return Ok(());
    }
    let doing = format!("saving what is quieted in database {}", session.database);
    let what = ["schema upgrade_pilot is not installed: there is no place to save to"];
    Err(failure(JobFailureClass::Permanent, codes::SQL, &doing, what))
}

/// # Errors
/// When a database cannot be reached or refuses.
pub async fn unquiesce(cx: JobCx, _body: Unquiesce) -> Result<Unquiesced, JobFailure> {
    // One pass to report what lies in default partitions before any maintenance comes back, one to wake.
    let reported = in_every_database(&cx, |session| async move {
        match partman::home(&session).await? {
            Some(home) if saved(&session).await? => partman::rows_in_default(&session, &home).await,
            _ => Ok(Vec::new()),
        }
    });
    let rows_in_default = reported.await?.into_iter().flatten().collect();
    let names = super::servers::databases(&cx, super::servers::side_of(&cx)?).await?;
    let mut done = Unquiesced { cron_jobs: 0, partition_sets: 0, rows_in_default };
    for database in names {
        let session = writer(&cx, &database).await?;
        if !saved(&session).await? {
            continue;
        }
        if let Some(home) = partman::home(&session).await? {
            done.partition_sets += partman::wake(&session, &home).await?;
        }
        if cron::version(&session).await?.is_some() {
            done.cron_jobs += cron::wake(&session).await?;
        }
    }
    Ok(done)
}

async fn saved(session: &Session) -> Result<bool, JobFailure> {
    Ok(schema::state(session).await?.is_some_and(|state| state.ours))
}
