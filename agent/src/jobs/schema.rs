//! Jobs `install_schema`, `remove_schema` and `ledger_status`: the schema of our own, made before green exists and dropped after the
//! deployment is gone. Must never drop a ledger whose statements wait for a verdict, nor a schema that is not ours.

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{InstallSchema, LedgerState, LedgerStatus, RemoveSchema, SchemaInstalled, SchemaRemoved},
};

use super::{
    JobCx, codes, failure,
    servers::{Session, count, ddl, in_every_database, sql},
};
use crate::pg::catalog;

/// # Errors
/// `FOREIGN_SCHEMA` when a schema of that name is another's, or another upgrade's with open verdicts; `RIGHTS` without the right to make it.
pub async fn install(cx: JobCx, body: InstallSchema) -> Result<SchemaInstalled, JobFailure> {
    let made = in_every_database(&cx, |session| {
        let (cx, upgrade) = (&cx, &body.upgrade);
        async move {
            install_in(cx, &session, upgrade).await?;
            Ok(session.database.clone())
        }
    });
    Ok(SchemaInstalled { databases: made.await? })
}

async fn install_in(cx: &JobCx, session: &Session, upgrade: &str) -> Result<(), JobFailure> {
    let doing = format!("making schema upgrade_pilot in database {}", session.database);
    if let Some(state) = state(session).await? {
        if !state.ours {
            let what = ["a schema of that name exists and its owner is somebody else: rename or drop it"];
            return Err(failure(JobFailureClass::Permanent, codes::FOREIGN_SCHEMA, &doing, what));
        }
        if state.signed {
            let others = session.query(catalog::OTHER_SIGNATURES, &[&upgrade]).await.map_err(sql(&doing))?;
            if !others.is_empty() {
                clear_leftover(cx, session, &state, &doing).await?;
            }
        }
    }
    ddl(cx, session, catalog::INSTALL_SCHEMA, &doing).await?;
    session.execute(catalog::SIGN_SCHEMA, &[&upgrade]).await.map_err(sql(&doing))?;
    Ok(())
}

/// An earlier upgrade left its schema: it goes, unless it still holds something that nobody may lose.
async fn clear_leftover(cx: &JobCx, session: &Session, state: &State, doing: &str) -> Result<(), JobFailure> {
    if state.ledger && ledger(session).await?.open_verdicts > 0 {
        let what = ["an earlier upgrade left statements without a verdict here: settle them, then remove the schema"];
        return Err(failure(JobFailureClass::NeedsOperator, codes::FOREIGN_SCHEMA, doing, what));
    }
    ddl(cx, session, catalog::DROP_SCHEMA, doing).await
}

/// # Errors
/// When a database cannot be reached or refuses; those that are done stay done.
pub async fn remove(cx: JobCx, _body: RemoveSchema) -> Result<SchemaRemoved, JobFailure> {
    let done = in_every_database(&cx, |session| {
        let cx = &cx;
        async move { Ok((session.database.clone(), remove_in(cx, &session).await?)) }
    });
    let mut removed = SchemaRemoved { databases: Vec::new(), kept: Vec::new() };
    for (database, kept) in done.await? {
        match kept {
            Some(reason) => removed.kept.push((database, reason)),
            None => removed.databases.push(database),
        }
    }
    cx.memory.cool();
    Ok(removed)
}

async fn remove_in(cx: &JobCx, session: &Session) -> Result<Option<String>, JobFailure> {
    let doing = format!("removing schema upgrade_pilot from database {}", session.database);
    let Some(state) = state(session).await? else { return Ok(None) };
    if !state.ours {
        return Ok(Some("the schema's owner is somebody else".into()));
    }
    if state.ledger {
        let open = ledger(session).await?.open_verdicts;
        if open > 0 {
            ddl(cx, session, catalog::DROP_ALL_BUT_LEDGER, &doing).await?;
            return Ok(Some(format!("{open} statements have no final verdict")));
        }
    }
    ddl(cx, session, catalog::DROP_SCHEMA, &doing).await?;
    Ok(None)
}

/// # Errors
/// When a database cannot be reached.
pub async fn ledger_status(cx: JobCx, _body: LedgerStatus) -> Result<LedgerState, JobFailure> {
    let states = in_every_database(&cx, |session| async move {
        match state(&session).await? {
            Some(state) if state.ledger => ledger(&session).await,
            _ => Ok(LedgerState { open_verdicts: 0, rows: 0 }),
        }
    });
    let sum = |total: LedgerState, one: LedgerState| LedgerState {
        open_verdicts: total.open_verdicts + one.open_verdicts,
        rows: total.rows + one.rows,
    };
    Ok(states.await?.into_iter().fold(LedgerState { open_verdicts: 0, rows: 0 }, sum))
}

/// What is there of our schema in one database.
pub(super) struct State {
    pub(super) ours: bool,
    signed: bool,
    /// Both the statements and the ledger are there.
    pub(super) ledger: bool,
}

/// `None` when there is no such schema.
pub(super) async fn state(session: &Session) -> Result<Option<State>, JobFailure> {
    let doing = format!("looking for schema upgrade_pilot in database {}", session.database);
    let row = session.query_opt(catalog::SCHEMA_STATE, &[]).await.map_err(sql(&doing))?;
    Ok(row.map(|row| State {
        ours: row.get(0),
        signed: row.get(1),
        ledger: row.get::<_, bool>(2) && row.get::<_, bool>(3),
    }))
}

async fn ledger(session: &Session) -> Result<LedgerState, JobFailure> {
    let row = session.query_one(catalog::LEDGER_STATE, &[]).await.map_err(sql("reading the ledger"))?;
    Ok(LedgerState { open_verdicts: count(row.get(0)), rows: count(row.get(1)) })
}
