//! Jobs `fingerprint` and `compare_schema`: a digest per catalogue object, the same on every major when the schema is the same.
//! Read-only; a digest never gives a value away. Also used by the schema watch, every 30 s.

use std::collections::BTreeMap;

use proto::{
    job::JobFailure,
    jobs::{CompareSchema, Fingerprint, SchemaDifferences},
    side::{Side, SideIdentity},
};
use tokio_postgres::Row;

use super::{
    JobCx, cron,
    memory::{keep, warm},
    partman,
    servers::{Role, Session, databases, each, identity, side_of, sql},
};
use crate::pg::catalog;

/// Databases looked at at once, on each side.
const WIDTH: usize = 2;

/// # Errors
/// When a side cannot be asked: unknown is never "equal".
pub async fn compare(cx: JobCx, _body: CompareSchema) -> Result<SchemaDifferences, JobFailure> {
    sides(&cx).await
}

/// Compares the catalogues of blue and green.
///
/// # Errors
/// When a side cannot be asked.
pub async fn sides(cx: &JobCx) -> Result<SchemaDifferences, JobFailure> {
    let (blue, green) = (identity(cx, Side::Blue)?, identity(cx, Side::Green)?);
    let (on_blue, on_green) = tokio::try_join!(objects(cx, blue), objects(cx, green))?;
    let (ext_blue, ext_green) = tokio::try_join!(extensions(cx, blue), extensions(cx, green))?;
    let (set_blue, set_green) = tokio::try_join!(settings(cx, blue), settings(cx, green))?;
    Ok(SchemaDifferences {
        objects: on_blue.len() as u64,
        differences: differences(&on_blue, &on_green),
        extensions: shown(&ext_blue, &ext_green),
        settings: setting_differences(&set_blue, &set_green),
    })
}

/// The digest of everything that `world as before` compares on one side: catalogue, cluster-wide objects, cron jobs, partition sets, and
/// whether schema `upgrade_pilot` is there.
///
/// # Errors
/// When the side cannot be asked.
pub async fn run(cx: JobCx, _body: Fingerprint) -> Result<BTreeMap<String, String>, JobFailure> {
    let side = side_of(&cx)?;
    let mut all = objects(&cx, side).await?;
    for name in databases(&cx, side).await? {
        let session = warm(&cx, side, &name, Role::Writer).await?;
        for (name, version) in
            session.query(catalog::EXTENSION_VERSIONS, &[]).await.map_err(sql(READING))?.iter().map(pair)
        {
            all.insert(format!("{}: extension {name}", session.database), version);
        }
        if session.query_one(catalog::SCHEMA_EXISTS, &[]).await.map_err(sql(READING))?.get(0) {
            all.insert(format!("{}: schema upgrade_pilot", session.database), "present".into());
        }
        all.extend(cron::fingerprint(&session).await?);
        all.extend(partman::fingerprint(&session).await?);
        keep(&cx, side, Role::Writer, session);
    }
    Ok(all)
}

const READING: &str = "reading the catalogue";

/// Every object of a side by `database: kind name`, with its digest.
async fn objects(cx: &JobCx, side: &SideIdentity) -> Result<BTreeMap<String, String>, JobFailure> {
    let names = databases(cx, side).await?;
    let maintenance = cx.dial.maintenance_database();
    let parts = each(names, WIDTH, |name| async move {
        let session = warm(cx, side, &name, Role::Writer).await?;
        let mut found = BTreeMap::new();
        collect(&session, catalog::SCHEMA_OBJECTS, &name, &mut found).await?;
        if name == maintenance {
            collect(&session, catalog::CLUSTER_OBJECTS, "cluster", &mut found).await?;
        }
        keep(cx, side, Role::Writer, session);
        Ok(found)
    });
    Ok(parts.await?.into_iter().flatten().collect())
}

async fn collect(
    session: &Session,
    text: &str,
    place: &str,
    found: &mut BTreeMap<String, String>,
) -> Result<(), JobFailure> {
    for row in session.query(text, &[]).await.map_err(sql(READING))? {
        let (kind, name, digest): (&str, &str, String) = (row.get(0), row.get(1), row.get(2));
        found.insert(format!("{place}: {kind} {name}"), digest);
    }
    Ok(())
}

async fn extensions(cx: &JobCx, side: &SideIdentity) -> Result<BTreeMap<String, String>, JobFailure> {
    let parts = each(databases(cx, side).await?, WIDTH, |name| async move {
        let session = warm(cx, side, &name, Role::Writer).await?;
        let rows = session.query(catalog::EXTENSION_VERSIONS, &[]).await.map_err(sql(READING))?;
        keep(cx, side, Role::Writer, session);
        Ok(rows
            .iter()
            .map(pair)
            .map(|(extension, version)| (format!("{name}: {extension}"), version))
            .collect::<Vec<_>>())
    });
    Ok(parts.await?.into_iter().flatten().collect())
}

fn pair(row: &Row) -> (String, String) {
    (row.get(0), row.get(1))
}

/// Setting → value, and whether somebody set it.
async fn settings(cx: &JobCx, side: &SideIdentity) -> Result<BTreeMap<String, (String, bool)>, JobFailure> {
    let session = warm(cx, side, cx.dial.maintenance_database(), Role::Writer).await?;
    let rows = session.query(catalog::SETTINGS_IN_FORCE, &[]).await.map_err(sql("reading the settings"))?;
    keep(cx, side, Role::Writer, session);
    Ok(rows.iter().map(|row| (row.get(0), (row.get::<_, Option<String>>(1).unwrap_or_default(), row.get(2)))).collect())
}

/// What differs, as `database: kind name (what)`.
fn differences(blue: &BTreeMap<String, String>, green: &BTreeMap<String, String>) -> Vec<String> {
    let mut found: Vec<String> = blue
        .iter()
        .filter_map(|(object, digest)| match green.get(object) {
            None => Some(format!("{object} (only on blue)")),
            Some(other) if other != digest => Some(format!("{object} (differs)")),
            Some(_) => None,
        })
        .collect();
    found.extend(
        green.keys().filter(|object| !blue.contains_key(*object)).map(|object| format!("{object} (only on green)")),
    );
    found.sort();
    found
}

/// As [`differences`], with the two values.
fn shown(blue: &BTreeMap<String, String>, green: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = blue.keys().chain(green.keys()).collect();
    let value =
        |side: &BTreeMap<String, String>, name: &String| side.get(name).cloned().unwrap_or_else(|| "none".into());
    names
        .into_iter()
        .filter(|name| blue.get(*name) != green.get(*name))
        .map(|name| format!("{name}: {} on blue, {} on green", value(blue, name), value(green, name)))
        .collect()
}

/// Settings that both majors know, that differ, and that somebody set on at least one side; and set ones that green does not know.
fn setting_differences(
    blue: &BTreeMap<String, (String, bool)>,
    green: &BTreeMap<String, (String, bool)>,
) -> Vec<String> {
    blue.iter()
        .filter_map(|(name, (value, set))| match green.get(name) {
            Some((other, also)) if value != other && (*set || *also) => {
                Some(format!("{name}: {value} on blue, {other} on green"))
            }
            None if *set => Some(format!("{name}: {value} on blue, unknown on green")),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_difference_names_the_object_and_the_side() {
        let blue = map(&[("d: table t", "1"), ("d: column t.a", "1"), ("d: index i", "2")]);
        let green = map(&[("d: table t", "1"), ("d: index i", "3"), ("d: table u", "1")]);
        let expected = ["d: column t.a (only on blue)", "d: index i (differs)", "d: table u (only on green)"];
        assert_eq!(differences(&blue, &green), expected);
        assert!(differences(&blue, &blue).is_empty());
    }

    #[test]
    fn only_settings_that_somebody_set_are_listed() {
        let blue = [("a", "1", true), ("b", "1", false), ("c", "9", true), ("d", "9", false)];
        let green = [("a", "2", false), ("b", "2", false)];
        let map = |all: &[(&str, &str, bool)]| {
            all.iter().map(|(name, value, set)| ((*name).to_owned(), ((*value).to_owned(), *set))).collect()
        };
        let expected = ["a: 1 on blue, 2 on green", "c: 9 on blue, unknown on green"];
        assert_eq!(setting_differences(&map(&blue), &map(&green)), expected);
    }
}
