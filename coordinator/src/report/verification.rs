//! What was proven: the sides equal, green with statistics, the last marker, sequences. Names and counts, never a value.

use super::known::Known;
use super::model::{Compared, Query, Statistics, Verification};
use crate::spec::UpgradeSpec;
use crate::steps::replicating_data::DatabaseCompared;

pub(super) fn verification(known: &Known, spec: Option<&UpgradeSpec>) -> Verification {
    let held = known.switched.as_ref().and_then(|switched| switched.held.as_ref());
    let lag = known.switched.as_ref().and_then(|switched| switched.lag.as_ref());
    let moved = known.moved.as_ref();
    let mut says = Verification {
        says: "the sides have not been compared".to_owned(),
        sequences: moved.map(|moved| moved.sequences),
        sequences_raised: moved.map(|moved| moved.sequences_raised.clone()).unwrap_or_default(),
        ..Verification::default()
    };
    if let Some(verified) = &known.verified {
        let rows = verified.databases.iter().fold(0u64, |rows, database| rows.saturating_add(database.rows));
        says.says = match verified.unproven.len() {
            0 => "compared, and equal".to_owned(),
            n => format!("compared, and nothing differs; {n} not proven exactly"),
        };
        says.objects = verified.objects;
        says.tables = Some(verified.tables);
        says.rows = Some(rows).filter(|_| !verified.databases.is_empty());
        says.hashes = spec.map(|spec| spec.verify.hashes);
        says.rounds = Some(verified.rounds);
        says.databases = verified.databases.iter().map(compared).collect();
        says.largest = verified.largest.clone();
        says.unproven = verified.unproven.iter().map(|(what, why)| format!("{what} ({why})")).collect();
        let equal = verified.queries_equal.iter();
        says.queries = equal.map(|name| Query { name: name.clone(), result: "equal".to_owned() }).collect();
        let unproven = verified.unproven.iter().filter_map(|(what, why)| Some((what.strip_prefix("query ")?, why)));
        says.queries.extend(unproven.map(|(name, why)| Query { name: name.to_owned(), result: why.clone() }));
        says.lag_bytes = verified.lag.slot_bytes;
        says.lag_cloudwatch_bytes = verified.lag.cloudwatch_bytes;
    }
    if let Some(held) = held {
        says.in_hold = held.compared.iter().flatten().map(compared).collect();
        says.unproven_in_hold = held.unproven.clone();
        says.markers = held.markers.clone();
        says.marker_ms = Some(held.marker_ms);
    }
    if let Some(lag) = lag {
        says.lag_bytes = lag.slot_bytes;
        says.lag_cloudwatch_bytes = lag.cloudwatch_bytes;
    }
    says
}

fn compared(database: &DatabaseCompared) -> Compared {
    Compared { database: database.database.clone(), tables: database.tables, rows: database.rows }
}

pub(super) fn statistics(known: &Known) -> Statistics {
    let Some(optimised) = &known.optimised else {
        return Statistics { says: "Green was not vacuumed".to_owned(), ..Statistics::default() };
    };
    let done = &optimised.vacuumed;
    // The step that vacuums, and later the one that compares, fail where a table has none.
    let says = "Every table of green has statistics that are newer than its upgrade";
    Statistics {
        says: says.to_owned(),
        vacuumed: Some(done.tables),
        full: Some(done.full),
        reindexed: Some(done.reindexed),
        newer_than: Some(optimised.since),
        slowest: done.slowest.iter().map(|(table, ms)| (table.to_string(), *ms)).collect(),
        views_refreshed: known.moved.as_ref().map(|moved| moved.views),
    }
}
