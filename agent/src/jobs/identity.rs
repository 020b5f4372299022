//! Job `set_replica_identity`: gives tables without a key the identity that the operator approved, and takes it back. Before green
//! exists and after it is gone only. What a table had is saved first and restored exactly.

use proto::{
    job::JobFailure,
    jobs::{SetReplicaIdentity, Table},
};

use super::{
    JobCx,
    servers::{Session, ddl, sql, writer},
};
use crate::pg::catalog;

/// Gives the tables that were changed.
///
/// # Errors
/// `LOCKED` when a table's lock was never to be had, `RIGHTS` when the agent's role is not a member of its owner.
pub async fn run(cx: JobCx, body: SetReplicaIdentity) -> Result<Vec<Table>, JobFailure> {
    let mut changed = Vec::new();
    for table in &body.full {
        let session = writer(&cx, &table.database).await?;
        if set_full(&cx, &session, table).await? {
            changed.push(table.clone());
        }
    }
    for table in &body.restore {
        let session = writer(&cx, &table.database).await?;
        if restore(&cx, &session, table).await? {
            changed.push(table.clone());
        }
    }
    Ok(changed)
}

async fn set_full(cx: &JobCx, session: &Session, table: &Table) -> Result<bool, JobFailure> {
    let doing = format!("setting the replica identity of {table}");
    let row = session.query_opt(catalog::TABLE_IDENTITY, &[&table.schema, &table.name]).await.map_err(sql(&doing))?;
    let Some(row) = row else { return Ok(false) };
    let (identity, index): (String, Option<String>) = (row.get(0), row.get(1));
    if identity == "f" {
        return Ok(false);
    }
    let saved = [&table.schema, &table.name, &identity];
    session.execute(catalog::SAVE_IDENTITY, &[saved[0], saved[1], saved[2], &index]).await.map_err(sql(&doing))?;
    alter(cx, session, table, "full", &doing).await?;
    Ok(true)
}

async fn restore(cx: &JobCx, session: &Session, table: &Table) -> Result<bool, JobFailure> {
    let doing = format!("restoring the replica identity of {table}");
    let row = session.query_opt(catalog::TABLE_IDENTITY, &[&table.schema, &table.name]).await.map_err(sql(&doing))?;
    let Some(now) = row.map(|row| row.get::<_, String>(0)) else { return Ok(false) };
    // Without our schema nothing was saved, and so nothing was changed.
    if super::schema::state(session).await?.is_none() {
        return Ok(false);
    }
    let saved = session.query_opt(catalog::SAVED_IDENTITY, &[&table.schema, &table.name]).await.map_err(sql(&doing))?;
    let Some(saved) = saved else { return Ok(false) };
    let (identity, index): (String, Option<String>) = (saved.get(0), saved.get(1));
    if now != identity {
        let clause = match (identity.as_str(), index) {
            ("i", Some(index)) => format!("using index {}", catalog::ident(&index)),
            ("n", _) => "nothing".to_owned(),
            ("f", _) => "full".to_owned(),
            _ => "default".to_owned(),
        };
        alter(cx, session, table, &clause, &doing).await?;
    }
    session.execute(catalog::FORGET_IDENTITY, &[&table.schema, &table.name]).await.map_err(sql(&doing))?;
    Ok(now != identity)
}

async fn alter(cx: &JobCx, session: &Session, table: &Table, clause: &str, doing: &str) -> Result<(), JobFailure> {
    let name = catalog::qualified(&table.schema, &table.name);
    ddl(cx, session, &catalog::set_identity(&name, clause), doing).await
}
