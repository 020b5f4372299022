//! Job `test_extensions`: each extension that was quieted is tried on the new production: a cron job really runs, a maintenance really
//! makes a partition. Whatever was made for the test is taken away again, also when the test fails.

use std::time::Duration;

use proto::{
    job::JobFailure,
    jobs::{ExtensionTest, TestExtensions},
};

use super::{
    JobCx, cron, partman,
    partman::Home,
    servers::{Session, databases, ddl, side_of, sql, writer},
};
use crate::pg::catalog;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A test that does not pass is an answer, not an error.
///
/// # Errors
/// When a database cannot be reached.
pub async fn run(cx: JobCx, body: TestExtensions) -> Result<Vec<ExtensionTest>, JobFailure> {
    let mut tests = Vec::new();
    for database in databases(&cx, side_of(&cx)?).await? {
        let session = writer(&cx, &database).await?;
        if let Some(version) = cron::version(&session).await? {
            let limit = Duration::from_millis(body.deadline_ms).min(cx.remaining());
            let seen = test_cron(&cx, &session, &version, limit).await;
            tests.push(verdict(&session, "pg_cron", version, seen));
        }
        if let Some(home) = partman::home(&session).await? {
            let seen = test_partman(&cx, &session, &home).await;
            tests.push(verdict(&session, "pg_partman", home.version, seen));
        }
    }
    Ok(tests)
}

fn verdict(session: &Session, name: &str, version: String, seen: Result<(bool, String), JobFailure>) -> ExtensionTest {
    let (passed, evidence) =
        seen.unwrap_or_else(|error| (false, format!("{}: {}", error.doing, error.chain.join(": "))));
    ExtensionTest { database: session.database.clone(), name: name.into(), version, evidence, passed }
}

/// Schedules a job that leaves a mark, waits until pg_cron says that it succeeded *and* the mark is there, unschedules it.
async fn test_cron(
    cx: &JobCx,
    session: &Session,
    version: &str,
    limit: Duration,
) -> Result<(bool, String), JobFailure> {
    let doing = format!("testing pg_cron in database {}", session.database);
    let schedule = if knows_seconds(version) { "1 seconds" } else { "* * * * *" };
    let mark = format!("{}", cx.id);
    let command = catalog::cron_test_command(&mark);
    let row = session.query_one(catalog::SCHEDULE_TEST, &[&schedule, &command]).await.map_err(sql(&doing))?;
    let job: i64 = row.get(0);
    let seen = wait_for_run(cx, session, job, &mark, limit, &doing).await;
    session.query(catalog::UNSCHEDULE_TEST, &[]).await.map_err(sql(&doing))?;
    session.execute(catalog::FORGET_CRON_MARK, &[]).await.map_err(sql(&doing))?;
    seen
}

async fn wait_for_run(
    cx: &JobCx,
    session: &Session,
    job: i64,
    mark: &str,
    limit: Duration,
    doing: &str,
) -> Result<(bool, String), JobFailure> {
    let began = cx.clock.mono();
    let mut last = String::from("no run was seen");
    loop {
        let runs = session.query(catalog::TEST_RUNS, &[&job]).await.map_err(sql(doing))?;
        let marked = session.query_opt(catalog::READ_MARKER, &[&"cron-test"]).await.map_err(sql(doing))?;
        let marked = marked.is_some_and(|row| row.get::<_, &str>(0) == mark);
        let took = cx.clock.mono().since(began).as_millis();
        if marked && runs.iter().any(|run| run.get::<_, &str>(0) == "succeeded") {
            return Ok((true, format!("job {job} ran, succeeded and left its row after {took} ms")));
        }
        if let Some(run) = runs.first() {
            last = format!("the last run of job {job} is {}: {}", run.get::<_, &str>(0), run.get::<_, &str>(1));
        }
        if cx.clock.mono().since(began) >= limit {
            return Ok((false, format!("{last}, after {took} ms")));
        }
        cx.pause(LOOK_EVERY, doing).await?;
    }
}

/// pg_cron 1.5 and later have schedules in seconds.
fn knows_seconds(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 5)
}

/// Makes a small partitioned table of our own, has pg_partman maintain it, counts its partitions, drops it.
async fn test_partman(cx: &JobCx, session: &Session, home: &Home) -> Result<(bool, String), JobFailure> {
    let doing = format!("testing pg_partman in database {}", session.database);
    ddl(cx, session, &catalog::drop_test_parent(&home.schema), &doing).await?;
    let seen = try_partman(cx, session, home, &doing).await;
    ddl(cx, session, &catalog::drop_test_parent(&home.schema), &doing).await?;
    seen
}

async fn try_partman(cx: &JobCx, session: &Session, home: &Home, doing: &str) -> Result<(bool, String), JobFailure> {
    ddl(cx, session, catalog::MAKE_TEST_PARENT, doing).await?;
    ddl(cx, session, &catalog::register_test_parent(&home.schema, home.major()), doing).await?;
    session.execute(catalog::FILL_TEST_PARENT, &[]).await.map_err(sql(doing))?;
    let before: i64 = session.query_one(catalog::TEST_PARTITIONS, &[]).await.map_err(sql(doing))?.get(0);
    let parent = "upgrade_pilot.partition_test";
    session.execute(&catalog::raise_premake(&home.schema), &[&parent, &4_i32]).await.map_err(sql(doing))?;
    partman::maintain(cx, session, home, parent, doing).await?;
    let after: i64 = session.query_one(catalog::TEST_PARTITIONS, &[]).await.map_err(sql(doing))?.get(0);
    let evidence = format!("maintenance of a test table took it from {before} to {after} partitions");
    Ok((after > before, evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_in_seconds_came_with_pg_cron_1_5() {
        let known = ["1.4", "1.4-1", "1.5", "1.6", "2.0"].map(knows_seconds);
        assert_eq!(known, [false, false, true, true, true]);
    }
}
