//! Connections for jobs: dialled by address, then *identified* in SQL before anything else is sent (field rules 1.1, 1.2).
//!
//! A [`Session`] exists only for a server whose own address is a recorded member of the expected side and whose major version is
//! the side's. SQL meant for blue therefore never runs on green, whatever name or forwarder the connection went through. Nothing here
//! knows credentials or certificates: that is the dialler's.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::{
    job::{JobFailure, JobFailureClass},
    report::Session as Seen,
    side::{ServerSaid, Side, SideIdentity},
};
use tokio_postgres::{Row, error::SqlState};

use super::{
    JobCx, codes, failure,
    memory::{keep, warm},
    statement,
};
use crate::pg::{Conn, ConnectError, catalog, connect::Limits};

/// A connection to an identified server of the expected side, with the settings under which our SQL means the same everywhere.
/// Dropping it closes the socket at once, also in the middle of a statement; the server then stops that statement by itself.
pub struct Session {
    conn: Conn,
    pub database: String,
    /// A statement on it was given up: it is to be closed, never used again.
    given_up: AtomicBool,
}

impl Session {
    /// Nobody waits for its statement any more.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// May another job use it?
    pub fn is_reusable(&self) -> bool {
        !self.given_up.load(Ordering::Relaxed) && !self.conn.is_closed()
    }
}

impl Deref for Session {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// Which member of a side is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The member that is not in recovery, whichever it is now.
    Writer,
    /// A member in recovery; the writer where there is none.
    Reader,
}

/// The side that the job acts on.
///
/// # Errors
/// `NO_GREEN` when it is green and the job was not told of one.
pub fn side_of(cx: &JobCx) -> Result<&SideIdentity, JobFailure> {
    identity(cx, cx.on.side)
}

/// The recorded identity of a side.
///
/// # Errors
/// `NO_GREEN` when it is green and the job was not told of one.
pub fn identity(cx: &JobCx, side: Side) -> Result<&SideIdentity, JobFailure> {
    match side {
        Side::Blue => Ok(&cx.on.blue),
        Side::Green => cx.on.green.as_ref().ok_or_else(|| {
            failure(JobFailureClass::Permanent, codes::NO_GREEN, "finding green", ["the job names no green side"])
        }),
    }
}

/// Opens a session on the side that the job acts on: its writer.
///
/// # Errors
/// As [`open`].
pub async fn writer(cx: &JobCx, database: &str) -> Result<Session, JobFailure> {
    open(cx, side_of(cx)?, database, Role::Writer).await
}

/// Opens a session on a side, in the wanted role. A failover may have moved the role since the side was recorded.
///
/// # Errors
/// `UNREACHABLE` when none answers in that role, `WRONG_SERVER` when one answers that is not of the side.
pub async fn open(cx: &JobCx, side: &SideIdentity, database: &str, role: Role) -> Result<Session, JobFailure> {
    let doing = format!("opening database {database} on {:?}", side.side);
    cx.still_wanted(&doing)?;
    if role == Role::Reader
        && let Some(conn) = cx.dial.open_reader(side, database).await
    {
        return settle(conn, database).await;
    }
    settle(cx.dial.open(side, database).await.map_err(unreached(&doing))?, database).await
}

/// Opens a session through the production endpoint, whoever answers; no side is expected.
///
/// # Errors
/// When nothing answers.
pub async fn open_production(cx: &JobCx, database: &str) -> Result<Session, JobFailure> {
    let doing = format!("opening database {database} through the production endpoint");
    cx.still_wanted(&doing)?;
    let limits = Limits { connect: Duration::from_secs(2).min(cx.remaining()), ..Limits::default() };
    let opened = cx.dial.open_production_within(&cx.on.production, database, limits).await;
    settle(opened.map_err(unreached(&doing))?, database).await
}

async fn settle(conn: Conn, database: &str) -> Result<Session, JobFailure> {
    conn.batch_execute(catalog::SESSION_SETTINGS).await.map_err(sql("preparing a session"))?;
    Ok(Session { conn, database: database.to_owned(), given_up: AtomicBool::new(false) })
}

/// The addresses of a side's members as SQL compares them, for statements that check the server by themselves. Members that were never
/// resolved are left out: nothing matches them.
pub fn address_list(cx: &JobCx, side: &SideIdentity) -> Vec<String> {
    side.members.iter().filter_map(|member| cx.dial.known_address(member)).map(|address| address.to_string()).collect()
}

/// Is this the server that is meant?
///
/// # Errors
/// `WRONG_SERVER` when it is not.
pub fn check_identity(cx: &JobCx, said: &ServerSaid, side: &SideIdentity) -> Result<(), JobFailure> {
    if cx.dial.is_of(said, side) {
        return Ok(());
    }
    Err(wrong_server(said, side))
}

fn wrong_server(said: &ServerSaid, side: &SideIdentity) -> JobFailure {
    let found = format!("{} with major version {} answered", said.address, said.major);
    let wanted = format!(
        "a member of {:?} ({}) with major version {} is meant",
        side.side, side.cluster_resource_id, side.major
    );
    let doing = format!("checking that a server is {:?}", side.side);
    failure(JobFailureClass::Permanent, codes::WRONG_SERVER, &doing, [&found, &wanted])
}

fn unreached(doing: &str) -> impl FnOnce(ConnectError) -> JobFailure + use<> {
    let doing = doing.to_owned();
    move |error| {
        let (class, code) = match &error {
            ConnectError::WrongServer { .. } => (JobFailureClass::Permanent, codes::WRONG_SERVER),
            error if error.is_transient() => (JobFailureClass::Transient, codes::UNREACHABLE),
            _ => (JobFailureClass::Permanent, codes::UNREACHABLE),
        };
        failure(class, code, &doing, [&runtime::supervision::chain(&error)])
    }
}

/// Every database of the side that takes connections from clients, in order of name.
///
/// # Errors
/// When it cannot be asked.
pub async fn databases(cx: &JobCx, side: &SideIdentity) -> Result<Vec<String>, JobFailure> {
    let session = warm(cx, side, cx.dial.maintenance_database(), Role::Writer).await?;
    let names = session.connectable_databases().await.map_err(sql("listing databases"))?;
    keep(cx, side, Role::Writer, session);
    Ok(names)
}

/// A count of the server's, which is never negative.
pub fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A session, as `CANDIDATE_SESSIONS` and `OLD_TRANSACTIONS` begin to tell of it: who, and never what.
pub fn seen(row: &Row) -> Seen {
    Seen {
        pid: row.get(0),
        database: row.get(1),
        user: row.get(2),
        application: row.get(3),
        client: row.get(4),
        state: row.get(5),
        backend_start: row.get(6),
        xact_start: row.get(7),
        age_ms: count(row.get::<_, Option<i64>>(9).unwrap_or(0)),
        command: statement::first_word(row.get(8)),
    }
}

/// Turns a driver's error into a failure, by its SQLSTATE.
pub fn sql(doing: &str) -> impl FnOnce(tokio_postgres::Error) -> JobFailure + use<> {
    let doing = doing.to_owned();
    move |error| {
        let state = error.code().cloned();
        let (class, code) = classify(state.as_ref());
        let mut chain = Vec::new();
        match error.as_db_error() {
            // The detail of a database error may hold data: it stays out.
            Some(db) => chain.push(format!("{} (SQLSTATE {})", db.message(), db.code().code())),
            None => chain.push(error.to_string()),
        }
        JobFailure { class, code: code.into(), doing, chain }
    }
}

fn classify(state: Option<&SqlState>) -> (JobFailureClass, &'static str) {
    use JobFailureClass::{Permanent, Transient};
    let Some(state) = state else { return (Transient, codes::UNREACHABLE) };
    match state.code() {
        "42501" => (Permanent, codes::RIGHTS),
        "55P03" => (Transient, codes::LOCKED),
        "25006" => (Transient, codes::READ_ONLY),
        // Connection, resources, operator intervention, serialization, snapshots: all may pass.
        code if ["08", "53", "57", "40", "58"].iter().any(|class| code.starts_with(class)) => {
            (Transient, codes::UNREACHABLE)
        }
        _ => (Permanent, codes::SQL),
    }
}

/// Runs DDL of ours under its own lock time-out of one second, again and again until it is done or the deadline nears
/// (field rule 9.4). `script` is one transaction.
///
/// # Errors
/// `LOCKED` when the lock was never to be had.
pub async fn ddl(cx: &JobCx, session: &Session, script: &str, doing: &str) -> Result<(), JobFailure> {
    let script = catalog::with_lock_timeout(script);
    let mut wait = Duration::from_millis(100);
    loop {
        let Err(error) = session.batch_execute(&script).await else { return Ok(()) };
        let failed = sql(doing)(error);
        if !session.is_closed() {
            session.batch_execute(catalog::ROLLBACK).await.map_err(sql(doing))?;
        }
        if failed.code != codes::LOCKED {
            return Err(failed);
        }
        if cx.remaining() < wait + Duration::from_secs(2) {
            return Err(failed);
        }
        cx.pause(wait, doing).await?;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}

/// Runs `work` for every item, at most `width` at once, and gives the results in the items' order.
///
/// # Errors
/// The first failure; the others are abandoned.
pub async fn each<I, T, F, R>(items: Vec<I>, width: usize, work: F) -> Result<Vec<T>, JobFailure>
where
    F: Fn(I) -> R,
    R: Future<Output = Result<T, JobFailure>>,
{
    use futures_util::{StreamExt, TryStreamExt};
    futures_util::stream::iter(items.into_iter().map(work)).buffered(width.max(1)).try_collect().await
}

/// Runs a job part on every database of the side that it acts on, one session each, in parallel.
///
/// # Errors
/// The first failure.
pub async fn in_every_database<T, F, R>(cx: &JobCx, work: F) -> Result<Vec<T>, JobFailure>
where
    F: Fn(Session) -> R,
    R: Future<Output = Result<T, JobFailure>>,
{
    let side = Arc::new(side_of(cx)?.clone());
    let names = databases(cx, &side).await?;
    each(names, 4, |name| {
        let (side, work) = (side.clone(), &work);
        async move { work(open(cx, &side, &name, Role::Writer).await?).await }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use runtime::played::{Asked, Said};

    use super::*;
    use crate::testing::Pair;

    #[test]
    fn a_failure_is_classed_by_its_sqlstate() {
        let cases = [
            ("42501", JobFailureClass::Permanent, codes::RIGHTS),
            ("55P03", JobFailureClass::Transient, codes::LOCKED),
            ("25006", JobFailureClass::Transient, codes::READ_ONLY),
            ("57P01", JobFailureClass::Transient, codes::UNREACHABLE),
            ("42P01", JobFailureClass::Permanent, codes::SQL),
        ];
        for (state, class, code) in cases {
            assert_eq!(classify(Some(&SqlState::from_code(state))), (class, code), "{state}");
        }
        assert_eq!(classify(None), (JobFailureClass::Transient, codes::UNREACHABLE));
    }

    /// A session on blue whose first `busy` attempts at our DDL find the lock taken.
    async fn locked(name: &str, busy: usize) -> (Pair, Session, JobCx) {
        let tried = Arc::new(AtomicUsize::new(0));
        let answer = move |_, asked: Asked| {
            let taken = asked.text.starts_with("begin") && tried.fetch_add(1, Ordering::SeqCst) < busy;
            async move { if taken { Said::Failed("55P03") } else { Said::Done } }
        };
        let pair = Pair::start(name, answer).await;
        let cx = pair.cx(Side::Blue, Duration::from_secs(10));
        let session = writer(&cx, "postgres").await.unwrap();
        (pair, session, cx)
    }

    const OURS: &str = "create schema upgrade_pilot";

    #[tokio::test]
    async fn our_ddl_waits_a_second_for_a_lock_is_rolled_back_and_tried_again_until_it_has_it() {
        let (pair, session, cx) = locked("ddl", 2).await;
        tokio::time::pause();
        ddl(&cx, &session, OURS, "installing").await.unwrap();
        let once = format!("begin; set local lock_timeout = '1s'; {OURS}; commit");
        let mut texts = pair.texts(Side::Blue);
        texts.retain(|text| text != catalog::SESSION_SETTINGS);
        assert_eq!(texts, [&once, catalog::ROLLBACK, &once, catalog::ROLLBACK, &once]);
        let took = cx.clock.mono().since(cx.deadline - Duration::from_secs(10));
        assert!(took >= Duration::from_millis(300), "tried again at once: {took:?}");
    }

    #[tokio::test]
    async fn a_lock_that_is_never_to_be_had_fails_our_ddl_before_the_deadline_and_not_for_good() {
        let (pair, session, cx) = locked("ddl-never", usize::MAX).await;
        tokio::time::pause();
        let failed = ddl(&cx, &session, OURS, "installing").await.unwrap_err();
        assert_eq!((failed.class, failed.code.as_str()), (JobFailureClass::Transient, codes::LOCKED), "{failed:?}");
        let left = cx.remaining();
        // The last try, which may wait for a second, still has its time.
        assert!(left >= Duration::from_secs(2) && left <= Duration::from_secs(5), "{left:?} were left");
        assert_eq!(pair.texts(Side::Blue).last().map(String::as_str), Some(catalog::ROLLBACK));
    }
}
