//! Job `check_sequences`: after the cut, every sequence of the new production against its value on old blue (by address), in its own
//! direction, and against the column it feeds. One that is behind is raised; none is ever moved back.

use std::collections::HashMap;

use proto::{
    job::{JobFailure, JobFailureClass},
    jobs::{CheckSequences, SequencesChecked},
    side::{Side, SideIdentity},
};
use tokio_postgres::error::SqlState;

use super::{
    JobCx, codes, failure,
    servers::{Role, Session, databases, each, identity, open, sql},
};
use crate::pg::catalog;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sequence {
    schema: String,
    name: String,
    last: Option<i64>,
    increment: i64,
    min: i64,
    max: i64,
    cycles: bool,
    /// Schema, table and column that it feeds.
    feeds: Option<(String, String, String)>,
}

/// # Errors
/// `READ_ONLY` while the new production takes no writes; unreachable when old blue does not answer: a sequence is never taken for right
/// unseen.
pub async fn run(cx: JobCx, _body: CheckSequences) -> Result<SequencesChecked, JobFailure> {
    let (blue, green) = (identity(&cx, Side::Blue)?, identity(&cx, Side::Green)?);
    let names = databases(&cx, green).await?;
    let parts = each(names, 4, |name| {
        let cx = &cx;
        async move { check(cx, blue, green, &name).await }
    });
    let mut all = SequencesChecked { sequences: 0, raised: Vec::new() };
    for (sequences, raised) in parts.await? {
        all.sequences += sequences;
        all.raised.extend(raised);
    }
    Ok(all)
}

async fn check(
    cx: &JobCx,
    blue: &SideIdentity,
    green: &SideIdentity,
    database: &str,
) -> Result<(u64, Vec<String>), JobFailure> {
    let doing = format!("checking the sequences of database {database}");
    let new = open(cx, green, database, Role::Writer).await?;
    if new.said().read_only {
        let what = ["the new production does not take writes yet"];
        return Err(failure(JobFailureClass::Transient, codes::READ_ONLY, &doing, what));
    }
    let old = open(cx, blue, database, Role::Writer).await?;
    let before: HashMap<(String, String), Option<i64>> =
        list(&old, &doing).await?.into_iter().map(|one| ((one.schema, one.name), one.last)).collect();
    let sequences = list(&new, &doing).await?;
    let mut raised = Vec::new();
    for sequence in &sequences {
        cx.still_wanted(&doing)?;
        let key = (sequence.schema.clone(), sequence.name.clone());
        let mut needed = vec![before.get(&key).copied().flatten()];
        if !sequence.cycles {
            needed.push(furthest(&new, sequence, &doing).await?);
        }
        let Some(target) = target(sequence, needed.into_iter().flatten()) else { continue };
        let rising = sequence.increment > 0;
        let done =
            new.query(catalog::RAISE_SEQUENCE, &[&key.0, &key.1, &target, &rising]).await.map_err(sql(&doing))?;
        if !done.is_empty() {
            raised.push(format!("{database}: {}.{}", key.0, key.1));
        }
    }
    Ok((sequences.len() as u64, raised))
}

async fn list(session: &Session, doing: &str) -> Result<Vec<Sequence>, JobFailure> {
    let rows = session.query(catalog::SEQUENCES, &[]).await.map_err(sql(doing))?;
    let sequence = |row: &tokio_postgres::Row| Sequence {
        schema: row.get(0),
        name: row.get(1),
        last: row.get(2),
        increment: row.get(3),
        min: row.get(4),
        max: row.get(5),
        cycles: row.get(6),
        feeds: match (row.get(7), row.get(8), row.get(9)) {
            (Some(schema), Some(table), Some(column)) => Some((schema, table, column)),
            _ => None,
        },
    };
    Ok(rows.iter().map(sequence).collect())
}

/// The furthest value in the fed column. A column that is no number has none.
async fn furthest(session: &Session, sequence: &Sequence, doing: &str) -> Result<Option<i64>, JobFailure> {
    let Some((schema, table, column)) = &sequence.feeds else { return Ok(None) };
    let text = catalog::furthest_value(schema, table, column, sequence.increment > 0);
    match session.query_one(&text, &[&sequence.min, &sequence.max]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) if [Some(&SqlState::UNDEFINED_FUNCTION), Some(&SqlState::CANNOT_COERCE)].contains(&error.code()) => {
            Ok(None)
        }
        Err(error) => Err(sql(doing)(error)),
    }
}

/// The value a sequence must be raised to; nothing when it is far enough. What lies outside its bounds does not count.
fn target(sequence: &Sequence, needed: impl Iterator<Item = i64>) -> Option<i64> {
    let needed = needed.filter(|value| (sequence.min..=sequence.max).contains(value));
    let rising = sequence.increment > 0;
    let furthest = if rising { needed.max() } else { needed.min() }?;
    match sequence.last {
        Some(last) if (rising && last >= furthest) || (!rising && last <= furthest) => None,
        _ => Some(furthest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last: Option<i64>, increment: i64) -> Sequence {
        Sequence {
            schema: "s".into(),
            name: "q".into(),
            last,
            increment,
            min: if increment > 0 { 1 } else { -1000 },
            max: if increment > 0 { 1000 } else { -1 },
            cycles: false,
            feeds: None,
        }
    }

    #[test]
    fn a_sequence_is_raised_in_its_own_direction_and_never_back() {
        let cases = [
            (Some(10), 1, vec![12], Some(12)),
            (Some(12), 1, vec![12], None),
            (Some(13), 1, vec![12], None),
            (Some(10), 5, vec![12, 40], Some(40)),
            (None, 1, vec![], None),
            (None, 1, vec![7], Some(7)),
            (Some(-10), -1, vec![-12], Some(-12)),
            (Some(-13), -1, vec![-12], None),
            (Some(10), 1, vec![5000], None),
        ];
        for (last, increment, needed, expected) in cases {
            let found = target(&sequence(last, increment), needed.clone().into_iter());
            assert_eq!(found, expected, "{last:?} {increment} {needed:?}");
        }
    }
}
