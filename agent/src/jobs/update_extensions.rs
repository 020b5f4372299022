//! Job `update_extensions`: raises every extension to what the server offers, after the cut and only when no subscription is left
//! (field rule 4.2): an extension altered while changes are applied would be a schema difference.

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{ExtensionUpdate, UpdateExtensions},
};

use super::{
    JobCx, codes, failure,
    servers::{Session, ddl, in_every_database, sql, writer},
};
use crate::pg::catalog;

/// # Errors
/// `SUBSCRIBED` while a subscription is left; the server's reason when an extension has no path.
pub async fn run(cx: JobCx, _body: UpdateExtensions) -> Result<Vec<ExtensionUpdate>, JobFailure> {
    let doing = "updating extensions";
    let session = writer(&cx, cx.dial.maintenance_database()).await?;
    let left: i64 = session.query_one(catalog::SUBSCRIPTIONS_LEFT, &[]).await.map_err(sql(doing))?.get(0);
    if left > 0 {
        let what = format!("{left} subscriptions are left on this side");
        return Err(failure(JobFailureClass::Transient, codes::SUBSCRIBED, doing, [&what]));
    }
    let parts = in_every_database(&cx, |session| update(&cx, session));
    Ok(parts.await?.into_iter().flatten().collect())
}

async fn update(cx: &JobCx, session: Session) -> Result<Vec<ExtensionUpdate>, JobFailure> {
    let doing = format!("updating the extensions of database {}", session.database);
    let rows = session.query(catalog::EXTENSION_UPDATES, &[]).await.map_err(sql(&doing))?;
    let mut updated = Vec::new();
    for row in rows {
        cx.still_wanted(&doing)?;
        let (name, from, to): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let doing = format!("updating extension {name} of database {} from {from} to {to}", session.database);
        ddl(cx, &session, &catalog::update_extension(&name, row.get(3)), &doing).await?;
        updated.push(ExtensionUpdate { database: session.database.clone(), name, from, to });
    }
    Ok(updated)
}
