//! Job `refresh_views`: materialized views of the new production, those first that others read, and without locking readers out where
//! a unique index allows it.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{RefreshViews, Table},
};
use tokio_postgres::Row;

use super::{
    JobCx, codes, failure,
    servers::{Session, databases, side_of, sql, writer},
};
use crate::pg::catalog;

/// Gives the views in the order in which they were refreshed.
///
/// # Errors
/// When a named view does not exist, or a refresh is refused.
pub async fn run(cx: JobCx, body: RefreshViews) -> Result<Vec<Table>, JobFailure> {
    let mut refreshed = Vec::new();
    for database in databases(&cx, side_of(&cx)?).await? {
        let session = writer(&cx, &database).await?;
        session.batch_execute(catalog::WAIT_FOR_LOCKS).await.map_err(sql("preparing to refresh views"))?;
        refresh(&cx, &session, &body.views, &mut refreshed).await?;
    }
    if let Some(missing) = body.views.iter().find(|view| !refreshed.contains(view)) {
        let what = format!("{missing} is no materialized view of the new production");
        return Err(failure(JobFailureClass::Permanent, codes::SQL, "refreshing materialized views", [&what]));
    }
    Ok(refreshed)
}

async fn refresh(cx: &JobCx, session: &Session, wanted: &[Table], done: &mut Vec<Table>) -> Result<(), JobFailure> {
    let doing = format!("refreshing the materialized views of database {}", session.database);
    let rows = session.query(catalog::MATERIALIZED_VIEWS, &[]).await.map_err(sql(&doing))?;
    let concurrent: BTreeMap<Table, bool> = rows.iter().map(|row| (table(session, row, 0), row.get(2))).collect();
    let rows = session.query(catalog::VIEW_DEPENDENCIES, &[]).await.map_err(sql(&doing))?;
    let reads: Vec<(Table, Table)> = rows.iter().map(|row| (table(session, row, 0), table(session, row, 2))).collect();
    for view in in_order(concurrent.keys().cloned().collect(), &reads) {
        if !wanted.is_empty() && !wanted.contains(&view) {
            continue;
        }
        cx.still_wanted(&doing)?;
        let text = catalog::refresh_view(&view.schema, &view.name, concurrent.get(&view).copied().unwrap_or(false));
        session.batch_execute(&text).await.map_err(sql(&format!("refreshing {view}")))?;
        done.push(view);
    }
    Ok(())
}

fn table(session: &Session, row: &Row, at: usize) -> Table {
    Table { database: session.database.clone(), schema: row.get(at), name: row.get(at + 1) }
}

/// What is read before what reads it; otherwise by name.
fn in_order(mut views: BTreeSet<Table>, reads: &[(Table, Table)]) -> Vec<Table> {
    let mut ordered = Vec::new();
    while let Some(first) = views.iter().next().cloned() {
        let ready = |view: &&Table| {
            !reads.iter().any(|(reader, read)| reader == *view && read != *view && views.contains(read))
        };
        // Views cannot read each other in a circle; were it so, the first by name would go first.
        let next = views.iter().find(ready).cloned().unwrap_or(first);
        views.remove(&next);
        ordered.push(next);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_comes_after_the_views_it_reads() {
        let view = |name: &str| Table { database: "d".into(), schema: "s".into(), name: name.into() };
        let all = ["a", "b", "c", "d"].map(view).into_iter().collect();
        let reads = [(view("a"), view("c")), (view("c"), view("d")), (view("a"), view("d"))];
        let names: Vec<String> = in_order(all, &reads).into_iter().map(|view| view.name).collect();
        assert_eq!(names, ["b", "d", "c", "a"]);
    }
}
