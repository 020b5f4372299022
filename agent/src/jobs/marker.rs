//! Job `marker`: a row committed on blue in every database and read on green. It is what zero lag means inside the hold
//! (field rule 7.2), so it is quick: warm connections, all databases at once, a look every few milliseconds.

use std::time::Duration;

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{Marker, MarkerSeen},
    side::{Side, SideIdentity},
};

use super::{
    JobCx, codes, failure,
    memory::{keep, warm},
    servers::{self, Role, Session, address_list, each, identity, sql},
};
use crate::pg::catalog;

const LOOK_EVERY: Duration = Duration::from_millis(2);
/// After this long the looks come slower: the way is long, not busy.
const HASTE: Duration = Duration::from_millis(500);
const LOOK_LATER: Duration = Duration::from_millis(10);

/// # Errors
/// `MARKER_LATE` when a database's marker did not arrive before the deadline; `WRONG_SERVER` when blue is not blue any more.
pub async fn run(cx: JobCx, body: Marker) -> Result<MarkerSeen, JobFailure> {
    // Never the mark of an earlier run of this job, which may have arrived long ago.
    let mark = format!("{} {} {}", body.key, cx.id, cx.clock.now());
    Ok(MarkerSeen { databases: round(&cx, &format!("{}/job/{}", cx.agent, body.key), &mark).await? })
}

/// One marker through every database of blue. `key` names the row, which is written again and again (by one at a time: a mark that is
/// overwritten may never be seen); `mark` distinguishes this time.
/// Gives the milliseconds from the commit on blue to the sight on green.
///
/// # Errors
/// As [`run`].
pub async fn round(cx: &JobCx, key: &str, mark: &str) -> Result<Vec<(String, u64)>, JobFailure> {
    let (blue, green) = (identity(cx, Side::Blue)?, identity(cx, Side::Green)?);
    let names = servers::databases(cx, blue).await?;
    let width = names.len();
    each(names, width, |name| async move {
        let ms = through(cx, blue, green, &name, key, mark).await?;
        Ok((name, ms))
    })
    .await
}

/// One marker through one database.
///
/// # Errors
/// As [`run`].
pub async fn through(
    cx: &JobCx,
    blue: &SideIdentity,
    green: &SideIdentity,
    database: &str,
    key: &str,
    mark: &str,
) -> Result<u64, JobFailure> {
    // Green's connection is opened first, so that opening it is no part of the time measured.
    let session = warm(cx, green, database, Role::Writer).await?;
    let written = write(cx, blue, database, key, mark).await?;
    arrive(cx, &session, key, mark).await?;
    let ms = cx.clock.mono().since(written).as_millis();
    keep(cx, green, Role::Writer, session);
    Ok(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// Commits a marker on blue. A warm connection that turns out to be dead is replaced once: writing the same mark twice is the same.
async fn write(
    cx: &JobCx,
    blue: &SideIdentity,
    database: &str,
    key: &str,
    mark: &str,
) -> Result<runtime::clock::Mono, JobFailure> {
    let doing = format!("writing a marker on blue in database {database}");
    let (members, major) = (address_list(cx, blue), i32::try_from(blue.major).unwrap_or(0));
    for last in [false, true] {
        let session = warm(cx, blue, database, Role::Writer).await?;
        match session.execute(catalog::WRITE_MARKER, &[&key, &mark, &cx.agent, &members, &major]).await {
            Ok(1) => {
                let at = cx.clock.mono();
                keep(cx, blue, Role::Writer, session);
                return Ok(at);
            }
            Ok(_) => {
                let what = ["the server that the marker reached is not blue: it wrote nothing"];
                return Err(failure(JobFailureClass::Permanent, codes::WRONG_SERVER, &doing, what));
            }
            Err(error) if !last && error.is_closed() => {}
            Err(error) => return Err(sql(&doing)(error)),
        }
    }
    Err(failure(JobFailureClass::Transient, codes::UNREACHABLE, &doing, ["the connection was lost"]))
}

/// Waits until a mark is read on a server that receives it.
///
/// # Errors
/// `MARKER_LATE` at the deadline.
pub async fn arrive(cx: &JobCx, session: &Session, key: &str, mark: &str) -> Result<(), JobFailure> {
    let doing = format!("reading a marker on {} in database {}", session.said().address, session.database);
    let look = session.prepare(catalog::READ_MARKER).await.map_err(sql(&doing))?;
    let began = cx.clock.mono();
    loop {
        let row = session.query_opt(&look, &[&key]).await.map_err(sql(&doing))?;
        let seen: Option<String> = row.map(|row| row.get(0));
        if seen.as_deref() == Some(mark) {
            return Ok(());
        }
        let pause = if cx.clock.mono().since(began) < HASTE { LOOK_EVERY } else { LOOK_LATER };
        if cx.remaining() <= pause + Duration::from_millis(5) {
            let what =
                format!("it had not arrived {} ms after it was committed", cx.clock.mono().since(began).as_millis());
            return Err(failure(JobFailureClass::Transient, codes::MARKER_LATE, &doing, [&what]));
        }
        cx.pause(pause, &doing).await?;
    }
}
