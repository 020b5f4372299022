//! Step 4: waits until lag is under its thresholds for a sustained time, by slots, marker and CloudWatch, then compares the
//! sides: schema, rows, business queries, statistics. A difference that persists unwinds.

use std::time::Duration;

use engine::{Failure, FailureClass, Gate, Look, Reversal, Step, StepId};
use proto::{
    jobs::{Compare, CompareSchema, Compared, SchemaDifferences, TableCompared},
    side::Side,
};
use serde::{Deserialize, Serialize};

use super::{
    codes,
    lag::{self, Lag, Steady},
    post_provisioning::{PostProvisioning, statistics_are_there_again},
    prerequisites::SHORT_JOB,
    provisioning::{Provisioning, replicating_wish},
    shared::{Context, SETTLE, fresh_job, ids, job, out_of_time, publish, recorded_cluster},
    sides::Sides,
};
use crate::{spec::UpgradeSpec, world::Upgrade};

pub struct ReplicatingData;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// What was measured when the gates had held long enough.
    pub lag: Lag,
    pub tables: u64,
    pub queries: u64,
    pub rounds: u32,
    /// Tables that were not proven exactly, with the reason.
    pub unproven: Vec<(String, String)>,
    /// Objects of both catalogues that were compared.
    #[serde(default)]
    pub objects: Option<u64>,
    /// Every database: its tables, and its rows on blue.
    #[serde(default)]
    pub databases: Vec<DatabaseCompared>,
    /// The tables with most rows, [`TABLES_NAMED_MAX`] at most.
    #[serde(default)]
    pub largest: Vec<TableCompared>,
    /// Business queries that gave the same answer on both sides.
    #[serde(default)]
    pub queries_equal: Vec<String>,
}

/// Tables whose rows the journal keeps; the others are counted by database.
pub const TABLES_NAMED_MAX: usize = 500;

/// What was compared in one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseCompared {
    pub database: String,
    pub tables: u64,
    pub rows: u64,
}

impl DatabaseCompared {
    /// Of each database, by name.
    pub(super) fn of(tables: &[TableCompared]) -> Vec<DatabaseCompared> {
        let mut databases = std::collections::BTreeMap::<&str, (u64, u64)>::new();
        for table in tables {
            let (count, rows) = databases.entry(&table.table.database).or_default();
            (*count, *rows) = (*count + 1, rows.saturating_add(table.blue_rows));
        }
        let all = databases.into_iter();
        all.map(|(database, (tables, rows))| DatabaseCompared { database: database.to_owned(), tables, rows }).collect()
    }
}

impl Step<Upgrade> for ReplicatingData {
    const ID: StepId = ids::REPLICATING_DATA;
    const TITLE: &'static str = "Replicating data";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = Verified;

    async fn check(&self, cx: &Context<'_>) -> Result<Gate, Failure> {
        recorded_cluster(cx, &cx.output::<Provisioning>()?.green).await?;
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Context<'_>) -> Result<Verified, Failure> {
        let seeing = Sides::of(cx)?.targets(Side::Blue);
        publish(cx, replicating_wish(cx.spec(), seeing), SETTLE).await?;
        let lag = until_drained(cx).await?;
        let objects = same_schema(cx).await?.objects;
        let compared = compare(cx).await?;
        let differences = compared.differences();
        if !differences.is_empty() {
            let doing = format!("comparing {} tables and {} queries", compared.tables.len(), compared.queries.len());
            let failure = Failure::permanent(codes::DATA_DIFFERS, doing);
            return Err(differences.into_iter().take(20).fold(failure, Failure::because));
        }
        Ok(Verified {
            lag,
            tables: compared.tables.len() as u64,
            queries: compared.queries.len() as u64,
            rounds: compared.rounds,
            unproven: compared.unproven(),
            objects: Some(objects),
            databases: DatabaseCompared::of(&compared.tables),
            queries_equal: compared
                .queries
                .iter()
                .filter(|query| query.equal)
                .map(|query| query.name.clone())
                .collect(),
            largest: largest(compared.tables),
        })
    }

    async fn verify(&self, cx: &Context<'_>, _: &Verified) -> Result<(), Failure> {
        statistics_are_there_again(cx, cx.output::<PostProvisioning>()?.since).await
    }

    async fn undo(&self, _: &Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The tables with most rows first.
fn largest(mut tables: Vec<TableCompared>) -> Vec<TableCompared> {
    tables.sort_by(|a, b| b.blue_rows.cmp(&a.blue_rows).then_with(|| a.table.cmp(&b.table)));
    tables.truncate(TABLES_NAMED_MAX);
    tables
}

/// Waits until every gate has held for the sustained time; lag that never drains fails for good.
async fn until_drained(cx: &Context<'_>) -> Result<Lag, Failure> {
    let steady = Steady::new();
    let limit = |spec: &UpgradeSpec| Duration::from_secs(spec.replication.drain_seconds_max);
    let cloudwatch = lag::CloudWatchReader::new();
    let what = "replication lag to stay under its thresholds";
    let drained = cx.until_in_force(lag::EVERY, what, limit, || async {
        let lag = lag::measure(cx, &cloudwatch).await?;
        lag::show(cx, &lag);
        let limits = &cx.spec_now().replication;
        let missed = lag.misses(limits);
        let needed = crate::spec::seconds(limits.sustained_seconds);
        Ok(match steady.held(cx.clock().mono(), needed, missed.is_empty()) {
            true => Look::There(lag),
            false if missed.is_empty() => Look::NotYet("under the thresholds, not long enough yet".into()),
            false => Look::NotYet(missed.join(", ")),
        })
    });
    drained.await.map_err(out_of_time(codes::LAG_NEVER_DRAINS, FailureClass::Permanent, None))
}

/// Settings that must differ while green follows: AWS keeps green read-only, and statements are logged on blue for the schema watch.
const OUR_SETTINGS: [&str; 2] = ["default_transaction_read_only", "log_statement"];

/// The catalogues of both sides are equal; what may differ (extension versions, settings) is listed.
pub(super) async fn same_schema(cx: &Context<'_>) -> Result<SchemaDifferences, Failure> {
    let seen = fresh_job(cx, "schema", Side::Blue, &CompareSchema {}, SHORT_JOB).await?;
    let is_ours = |item: &&String| OUR_SETTINGS.iter().any(|name| item.split(':').next() == Some(name));
    let settings: Vec<String> = seen.settings.iter().filter(|item| !is_ours(item)).cloned().collect();
    for (what, items) in [("extensions", &seen.extensions), ("settings", &settings)] {
        if !items.is_empty() {
            cx.warn(codes::SETTINGS_DIFFER, format!("{what} differ between the sides: {}", items.join(", ")));
        }
    }
    if seen.differences.is_empty() {
        return Ok(seen);
    }
    let failure =
        Failure::permanent(codes::SCHEMA_DIFFERS, format!("comparing {} objects of both sides", seen.objects));
    Err(seen.differences.into_iter().take(20).fold(failure, Failure::because))
}

async fn compare(cx: &Context<'_>) -> Result<Compared, Failure> {
    let spec = &cx.spec().verify;
    let body = Compare {
        queries: spec.queries.clone(),
        hashes: spec.hashes,
        rounds: spec.rounds,
        hold_budget_ms: None,
        prefer_reader: true,
    };
    job(cx, "compare", Side::Blue, &body, Duration::from_secs(spec.seconds_max)).await
}

#[cfg(test)]
mod tests {
    use proto::jobs::Table;

    use super::*;

    #[test]
    fn of_tables_the_five_hundred_with_most_rows_are_named_and_all_are_counted_by_database() {
        let table = |n: u64| TableCompared {
            table: Table { database: format!("d{}", n % 2), schema: "public".into(), name: format!("t{n}") },
            equal: true,
            blue_rows: n,
            green_rows: n,
            rounds: 1,
        };
        let tables: Vec<TableCompared> = (0..502).map(table).collect();
        let databases = DatabaseCompared::of(&tables);
        let counted: Vec<_> = databases.iter().map(|one| (one.database.as_str(), one.tables, one.rows)).collect();
        assert_eq!(counted, [("d0", 251, 62_750), ("d1", 251, 63_001)]);
        let named: Vec<u64> = largest(tables).iter().map(|one| one.blue_rows).collect();
        assert_eq!((named.len(), named[0], named[499]), (TABLES_NAMED_MAX, 501, 2));
    }
}
