//! Job `inspect`: everything that preflight asks of a side, in every connectable database. Read-only, and it never gives a statement's
//! text away. It judges nothing: what a finding means is the coordinator's.

use std::collections::BTreeMap;

use proto::{
    job::JobFailure,
    jobs::{Database, Extension, ForeignServer, Inspect, Inspection, Table},
};
use tokio_postgres::Row;

use super::{
    JobCx, cron, partman,
    servers::{Session, count, in_every_database, seen, sql, writer},
};
use crate::pg::catalog;

const DOING: &str = "inspecting the cluster";

/// # Errors
/// When the side or one of its databases cannot be asked.
pub async fn run(cx: JobCx, body: Inspect) -> Result<Inspection, JobFailure> {
    let session = writer(&cx, cx.dial.maintenance_database()).await?;
    let mut all = server(&session).await?;
    let known = |name: &&String| !cx.queries.iter().any(|query| query.name == **name);
    all.missing_queries = body.queries.iter().filter(known).cloned().collect();
    for part in in_every_database(&cx, database).await? {
        all.databases.push(part.database);
        all.tables_without_identity.extend(part.without_identity);
        all.unlogged_tables.extend(part.unlogged);
        all.large_objects.extend(part.large_objects);
        all.foreign_publications.extend(part.publications);
        all.materialized_views.extend(part.views);
        all.view_refreshers.extend(part.refreshers);
        all.replica_triggers.extend(part.replica_triggers);
        all.event_triggers.extend(part.event_triggers);
        all.missing_rights.extend(part.missing_rights);
        all.foreign_servers.extend(part.foreign_servers);
        all.leftover_schemas.extend(part.leftover);
        all.sequences += part.sequences;
    }
    Ok(all)
}

async fn server(session: &Session) -> Result<Inspection, JobFailure> {
    let rows = session.query(catalog::SETTINGS, &[]).await.map_err(sql(DOING))?;
    let settings: BTreeMap<String, String> =
        rows.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default())).collect();
    let old = session.query(catalog::OLD_TRANSACTIONS, &[]).await.map_err(sql(DOING))?;
    Ok(Inspection {
        said: session.said().clone(),
        version: settings.get("server_version").cloned().unwrap_or_default(),
        settings,
        databases: Vec::new(),
        tables_without_identity: Vec::new(),
        unlogged_tables: Vec::new(),
        large_objects: Vec::new(),
        foreign_slots: texts(session, catalog::FOREIGN_SLOTS).await?,
        foreign_publications: Vec::new(),
        foreign_subscriptions: texts(session, catalog::FOREIGN_SUBSCRIPTIONS).await?,
        prepared_transactions: texts(session, catalog::PREPARED).await?,
        read_only_overrides: texts(session, catalog::READ_ONLY_OVERRIDES).await?,
        materialized_views: Vec::new(),
        view_refreshers: texts(session, catalog::REFRESHING_NOW).await?,
        replica_triggers: Vec::new(),
        event_triggers: Vec::new(),
        sequences: 0,
        missing_rights: texts(session, catalog::MISSING_SERVER_RIGHTS).await?,
        missing_queries: Vec::new(),
        old_transactions: old.iter().map(seen).collect(),
        leftover_schemas: Vec::new(),
        foreign_servers: Vec::new(),
    })
}

struct Part {
    database: Database,
    without_identity: Vec<Table>,
    unlogged: Vec<Table>,
    large_objects: Option<(String, u64)>,
    publications: Vec<String>,
    views: Vec<Table>,
    refreshers: Vec<String>,
    replica_triggers: Vec<String>,
    event_triggers: Vec<String>,
    missing_rights: Vec<String>,
    foreign_servers: Vec<ForeignServer>,
    leftover: Option<String>,
    sequences: u64,
}

async fn database(session: Session) -> Result<Part, JobFailure> {
    let name = session.database.clone();
    let here = |texts: Vec<String>| texts.into_iter().map(|text| format!("{name}: {text}")).collect::<Vec<_>>();
    let size = session.query_one(catalog::DATABASE_SIZE, &[]).await.map_err(sql(DOING))?;
    let objects: i64 = session.query_one(catalog::LARGE_OBJECTS, &[]).await.map_err(sql(DOING))?.get(0);
    let sequences: i64 = session.query_one(catalog::SEQUENCE_COUNT, &[]).await.map_err(sql(DOING))?.get(0);
    let leftover: bool = session.query_one(catalog::SCHEMA_EXISTS, &[]).await.map_err(sql(DOING))?.get(0);
    let mut missing_rights = texts(&session, catalog::MISSING_RIGHTS).await?;
    let mut refreshers = here(texts(&session, catalog::REFRESHING_FUNCTIONS).await?);
    if cron::version(&session).await?.is_some() {
        let missing = cron::missing_rights(&session).await?;
        if missing.is_empty() {
            refreshers.extend(texts(&session, catalog::CRON_REFRESHERS).await?);
        }
        missing_rights.extend(missing);
    }
    missing_rights.extend(partman::missing_rights(&session).await?);
    Ok(Part {
        without_identity: without_identity(&session).await?,
        unlogged: tables(&session, catalog::UNLOGGED).await?,
        large_objects: (objects > 0).then(|| (name.clone(), count(objects))),
        publications: here(texts(&session, catalog::FOREIGN_PUBLICATIONS).await?),
        views: tables(&session, catalog::MATERIALIZED_VIEWS).await?,
        refreshers,
        replica_triggers: here(texts(&session, catalog::REPLICA_TRIGGERS).await?),
        event_triggers: here(texts(&session, catalog::EVENT_TRIGGERS).await?),
        missing_rights,
        foreign_servers: foreign_servers(&session).await?,
        leftover: leftover.then(|| name.clone()),
        sequences: count(sequences),
        database: Database {
            bytes: count(size.get(0)),
            tables: count(size.get(1)),
            extensions: extensions(&session).await?,
            name: name.clone(),
        },
    })
}

/// Tables whose updates and deletes cannot be replicated. pg_partman's templates are left out: they have no key by design, and no row is
/// ever written to them, so publishing them makes nothing fail.
async fn without_identity(session: &Session) -> Result<Vec<Table>, JobFailure> {
    let mut found = tables(session, catalog::WITHOUT_IDENTITY).await?;
    if !found.is_empty() {
        let templates = partman::templates(session).await?;
        found.retain(|table| !templates.iter().any(|(schema, name)| (schema, name) == (&table.schema, &table.name)));
    }
    Ok(found)
}

async fn foreign_servers(session: &Session) -> Result<Vec<ForeignServer>, JobFailure> {
    let rows = session.query(catalog::FOREIGN_SERVERS, &[]).await.map_err(sql(DOING))?;
    let one = |row: &Row| ForeignServer { database: session.database.clone(), name: row.get(0), host: row.get(1) };
    Ok(rows.iter().map(one).collect())
}

async fn extensions(session: &Session) -> Result<Vec<Extension>, JobFailure> {
    let rows = session.query(catalog::EXTENSIONS, &[]).await.map_err(sql(DOING))?;
    let one = |row: &Row| Extension { name: row.get(0), installed: row.get(1), available: row.get(2) };
    Ok(rows.iter().map(one).collect())
}

async fn texts(session: &Session, text: &str) -> Result<Vec<String>, JobFailure> {
    let rows = session.query(text, &[]).await.map_err(sql(DOING))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn tables(session: &Session, text: &str) -> Result<Vec<Table>, JobFailure> {
    let rows = session.query(text, &[]).await.map_err(sql(DOING))?;
    let one = |row: &Row| Table { database: session.database.clone(), schema: row.get(0), name: row.get(1) };
    Ok(rows.iter().map(one).collect())
}
