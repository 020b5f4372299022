//! Jobs `find_leftovers` and `identify`: what a deployment left on a side, and who answers behind the production endpoint. Read-only.

use proto::{
    job::JobFailure,
    jobs::{FindLeftovers, Identified, Identify, Leftover},
};

use super::{
    JobCx,
    servers::{count, in_every_database, open_production, sql, writer},
};
use crate::pg::catalog;

/// # Errors
/// When the side cannot be asked: unknown is never "nothing is left".
pub async fn run(cx: JobCx, _body: FindLeftovers) -> Result<Vec<Leftover>, JobFailure> {
    let doing = "looking for what a deployment left";
    let session = writer(&cx, cx.dial.maintenance_database()).await?;
    let slots = session.query(catalog::LEFTOVER_SLOTS, &[]).await.map_err(sql(doing))?;
    let mut found: Vec<Leftover> = slots
        .iter()
        .map(|row| Leftover {
            kind: "slot".into(),
            name: row.get(0),
            database: row.get(1),
            retained_bytes: row.get::<_, Option<i64>>(2).map(count),
        })
        .collect();
    let subscriptions = session.query(catalog::LEFTOVER_SUBSCRIPTIONS, &[]).await.map_err(sql(doing))?;
    found.extend(subscriptions.iter().map(|row| Leftover {
        kind: "subscription".into(),
        name: row.get(0),
        database: Some(row.get(1)),
        retained_bytes: None,
    }));
    let publications = in_every_database(&cx, |session| async move {
        let rows = session.query(catalog::LEFTOVER_PUBLICATIONS, &[]).await.map_err(sql(doing))?;
        let name = |row: &tokio_postgres::Row| Leftover {
            kind: "publication".into(),
            name: row.get(0),
            database: Some(session.database.clone()),
            retained_bytes: None,
        };
        Ok(rows.iter().map(name).collect::<Vec<_>>())
    });
    found.extend(publications.await?.into_iter().flatten());
    Ok(found)
}

/// # Errors
/// When nothing answers behind the endpoint.
pub async fn identify(cx: JobCx, _body: Identify) -> Result<Identified, JobFailure> {
    let session = open_production(&cx, cx.dial.maintenance_database()).await?;
    let row = session.query_one(catalog::SUBSCRIPTIONS_LEFT, &[]).await.map_err(sql("counting subscriptions"))?;
    let version = session.query_one(catalog::SERVER_VERSION, &[]).await.map_err(sql("asking for the version"))?;
    Ok(Identified { said: session.said().clone(), version: version.get(0), subscriptions_left: count(row.get(0)) })
}
