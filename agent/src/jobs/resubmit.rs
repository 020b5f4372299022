//! Job `resubmit`: runs what `end_sessions` wrote down, once each, on the side that serves now (field rule 8). Each is one transaction:
//! a row in the ledger with its key, then the statement under its own role, then its verdict. A second try finds the row.
//!
//! A statement runs only when its transaction on blue is *proven* aborted; whatever is not proven is `unknown` and never runs.
//! The role that a policy names is trusted not to leave its role from within the one statement (`set_config` is refused by the classifier).

use std::time::Duration;

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{Resubmit, Resubmitted, StatementVerdict},
    report::{Event, Verdict},
    side::{Side, SideIdentity},
};
use tokio_postgres::Row;

use super::{
    JobCx, codes, failure,
    memory::{keep, warm},
    schema,
    servers::{Role, Session, databases, each, identity, side_of, sql},
    statement,
};
use crate::pg::catalog;

const LOOK_EVERY: Duration = Duration::from_millis(10);

struct Recorded {
    key: String,
    database: String,
    role: String,
    search_path: String,
    text: String,
    xid: String,
    ended: bool,
    proof: Option<String>,
}

/// # Errors
/// `READ_ONLY` while the side takes no writes; unreachable when it cannot be asked. Verdicts given until then are kept in the database.
pub async fn run(cx: JobCx, body: Resubmit) -> Result<Resubmitted, JobFailure> {
    let side = side_of(&cx)?;
    let names = databases(&cx, side).await?;
    let parts = each(names, 8, |name| {
        let (cx, body) = (&cx, &body);
        async move { in_database(cx, side, body, &name).await }
    });
    Ok(Resubmitted { verdicts: parts.await?.into_iter().flatten().collect() })
}

async fn in_database(
    cx: &JobCx,
    side: &SideIdentity,
    body: &Resubmit,
    database: &str,
) -> Result<Vec<StatementVerdict>, JobFailure> {
    let doing = format!("resubmitting the statements of database {database}");
    let mut session = warm(cx, side, database, Role::Writer).await?;
    if !schema::state(&session).await?.is_some_and(|state| state.ours && state.ledger) {
        return Ok(Vec::new());
    }
    let rows = session.query(catalog::LIST_STATEMENTS, &[]).await.map_err(sql(&doing))?;
    if !rows.is_empty() && session.identify().await.is_ok_and(|said| said.read_only) {
        let what = ["the side does not take writes yet"];
        return Err(failure(JobFailureClass::Transient, codes::READ_ONLY, &doing, what));
    }
    let mut verdicts = Vec::new();
    for recorded in rows.iter().map(recorded) {
        cx.still_wanted(&doing)?;
        let verdict = match proof(cx, body, &recorded).await {
            Proof::Aborted => {
                if session.is_closed() {
                    session = warm(cx, side, database, Role::Writer).await?;
                }
                once(cx, side, &session, body, &recorded).await?
            }
            Proof::Not(verdict) => {
                note(&session, &recorded, &verdict).await?;
                verdict
            }
        };
        let one = StatementVerdict { key: recorded.key, database: recorded.database, role: recorded.role, verdict };
        tell(cx, &one);
        verdicts.push(one);
    }
    keep(cx, side, Role::Writer, session);
    Ok(verdicts)
}

fn recorded(row: &Row) -> Recorded {
    Recorded {
        key: row.get(0),
        database: row.get(1),
        role: row.get(2),
        search_path: row.get(3),
        text: row.get(4),
        xid: row.get(5),
        ended: row.get(6),
        proof: row.get(7),
    }
}

fn tell(cx: &JobCx, one: &StatementVerdict) {
    (cx.events)(Event::Resubmission {
        at: cx.clock.now(),
        key: one.key.clone(),
        database: one.database.clone(),
        role: one.role.clone(),
        verdict: one.verdict.clone(),
    });
}

enum Proof {
    Aborted,
    Not(Verdict),
}

/// Is the statement's transaction on blue proven aborted? Blue is asked by address until it says so or the wait is over.
async fn proof(cx: &JobCx, body: &Resubmit, one: &Recorded) -> Proof {
    if one.ended && one.proof.as_deref() == Some("aborted") {
        return Proof::Aborted;
    }
    let unknown = |reason: &str| Proof::Not(Verdict::Unknown { reason: reason.into() });
    let began = cx.clock.mono();
    let wait = Duration::from_millis(body.proof_wait_ms);
    loop {
        let last = match status_on_blue(cx, one).await {
            Ok(Some(status)) if status == "committed" => return Proof::Not(Verdict::CommittedOnBlue),
            Ok(Some(status)) if status == "aborted" && one.ended => return Proof::Aborted,
            Ok(Some(status)) if status == "aborted" => {
                return unknown("its transaction aborted, but it is not certain that the agent ended it");
            }
            Ok(Some(status)) => format!("its transaction is {status} on blue"),
            Ok(None) => return unknown("blue no longer knows its transaction"),
            Err(error) => format!("blue cannot be asked: {}", error.chain.join(": ")),
        };
        if cx.clock.mono().since(began) >= wait || cx.pause(LOOK_EVERY, "proving an abort").await.is_err() {
            return unknown(&last);
        }
    }
}

async fn status_on_blue(cx: &JobCx, one: &Recorded) -> Result<Option<String>, JobFailure> {
    let blue = identity(cx, Side::Blue)?;
    let session = warm(cx, blue, &one.database, Role::Writer).await?;
    let row =
        session.query_one(catalog::XACT_STATUS, &[&one.xid]).await.map_err(sql("asking for a transaction's fate"))?;
    keep(cx, blue, Role::Writer, session);
    Ok(row.get(0))
}

/// Runs the statement, with the ledger's row in the same transaction. When the answer to the commit is lost, the ledger says what
/// happened.
async fn once(
    cx: &JobCx,
    side: &SideIdentity,
    session: &Session,
    body: &Resubmit,
    one: &Recorded,
) -> Result<Verdict, JobFailure> {
    if let Err(refusal) = statement::classify(&one.text) {
        let verdict = Verdict::Refused { reason: refusal.to_string() };
        note(session, one, &verdict).await?;
        return Ok(verdict);
    }
    let doing = format!("resubmitting statement {}", one.key);
    match attempt(cx, session, body, one).await {
        Ok(verdict) => Ok(verdict),
        Err(error) if session.is_closed() => {
            let again = warm(cx, side, &one.database, Role::Writer).await?;
            let row = again.query_one(catalog::IN_LEDGER, &[&one.key]).await.map_err(sql(&doing))?;
            match row.get(0) {
                true => Ok(Verdict::Resubmitted),
                // Not in the ledger: it did not happen, and a later try of this job may do it.
                false => Err(sql(&doing)(error)),
            }
        }
        Err(error) => {
            session.batch_execute(catalog::ROLLBACK).await.map_err(sql(&doing))?;
            let failed = sql(&doing)(error);
            if failed.class == JobFailureClass::Transient {
                return Err(failed);
            }
            let verdict = Verdict::Refused { reason: failed.chain.join(": ") };
            note(session, one, &verdict).await?;
            Ok(verdict)
        }
    }
}

async fn attempt(
    cx: &JobCx,
    session: &Session,
    body: &Resubmit,
    one: &Recorded,
) -> Result<Verdict, tokio_postgres::Error> {
    session.batch_execute(catalog::BEGIN).await?;
    let claimed = session.execute(catalog::CLAIM_LEDGER, &[&one.key, &cx.agent]).await?;
    let verdict = if claimed == 1 { Verdict::Resubmitted } else { Verdict::AlreadyDone };
    let (name, reason) = named(&verdict);
    session.execute(catalog::SETTLE_STATEMENT, &[&one.key, &name, &reason]).await?;
    if claimed == 1 {
        let path = statement::search_path(&one.search_path);
        session.batch_execute(&catalog::become_role(&one.role, &path, body.statement_timeout_ms)).await?;
        // As one statement of the simple protocol, as it was sent first; the classifier has just seen that it is only one.
        session.batch_execute(&one.text).await?;
    }
    session.batch_execute(catalog::COMMIT).await?;
    Ok(verdict)
}

/// Writes a verdict down that needs no statement to run. An `unknown` stays open for people: it counts as an open verdict.
async fn note(session: &Session, one: &Recorded, verdict: &Verdict) -> Result<(), JobFailure> {
    let (name, reason) = named(verdict);
    let written = session.execute(catalog::SETTLE_STATEMENT, &[&one.key, &name, &reason]).await;
    written.map(drop).map_err(sql("writing a verdict down"))
}

fn named(verdict: &Verdict) -> (&'static str, Option<&str>) {
    match verdict {
        Verdict::Resubmitted => ("resubmitted", None),
        Verdict::AlreadyDone => ("already_done", None),
        Verdict::CommittedOnBlue => ("committed_on_blue", None),
        Verdict::Refused { reason } => ("refused", Some(reason)),
        Verdict::Unknown { reason } => ("unknown", Some(reason)),
    }
}
