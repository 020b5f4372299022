//! The judge: was anything lost, doubled or changed? Pure functions over what was read, so that each of them can be shown
//! a planted bad row. It believes the ledger, not the databases, and a thing that could not be proven counts as lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ledger::{Entry, Image, Numbers};

/// How many findings are told in words; all of them are counted.
const TOLD: usize = 25;

/// What the judge found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged writes that were judged.
    pub acknowledged: u64,
    /// Rows missing, changed or not proven.
    pub lost: u64,
    /// Rows, numbers or effects that are there more often than they should be.
    pub duplicated: u64,
    /// The first of them in words.
    pub findings: Vec<String>,
    /// What was compared, in words.
    pub compared: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0
    }

    /// Counts something that is missing, changed or unproven.
    pub fn lose(&mut self, many: u64, finding: String) {
        self.lost += many;
        self.tell(finding);
    }

    /// Counts something that is there too often.
    pub fn double(&mut self, many: u64, finding: String) {
        self.duplicated += many;
        self.tell(finding);
    }

    fn tell(&mut self, finding: String) {
        if self.findings.len() < TOLD {
            self.findings.push(finding);
        }
    }
}

/// Rows by the writer's key: the values (or hashes) of all rows with that key, in order.
pub type Rows = HashMap<String, Vec<String>>;

/// The count of a table's rows and the sum of their hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Rows.
    pub rows: u64,
    /// The sum, as text.
    pub hash: String,
}

/// Every acknowledged row is there exactly once with its last acknowledged value, and nothing is there that nobody wrote.
pub fn against_ledger(table: &str, entries: &HashMap<String, Entry>, found: &Rows, verdict: &mut Verdict) {
    for (key, entry) in entries {
        let rows = found.get(key).map_or(&[][..], Vec::as_slice);
        one_row(table, key, entry, rows, verdict);
    }
    for key in found.keys().filter(|key| !entries.contains_key(*key)) {
        verdict.double(1, format!("{table}: row {key} is there and nobody wrote it"));
    }
    verdict.compared.push(format!("{table}: {} rows against the ledger", entries.len()));
}

fn one_row(table: &str, key: &str, entry: &Entry, rows: &[String], verdict: &mut Verdict) {
    if rows.len() > 1 {
        return verdict.double(rows.len() as u64 - 1, format!("{table}: row {key} is there {} times", rows.len()));
    }
    let there = rows.first().map_or(Image::Gone, |value| Image::Is(value.clone()));
    let acknowledged = entry.acknowledged.clone().unwrap_or(Image::Gone);
    if there == acknowledged || entry.open.as_ref() == Some(&there) {
        return;
    }
    match (&acknowledged, &there) {
        (Image::Is(_), Image::Gone) => verdict.lose(1, format!("{table}: acknowledged row {key} is missing")),
        (Image::Is(was), Image::Is(is)) => {
            verdict.lose(1, format!("{table}: row {key} was acknowledged as {was} and is {is}"))
        }
        (Image::Gone, _) if entry.acknowledged.is_some() => {
            verdict.lose(1, format!("{table}: row {key} was deleted, acknowledged, and is there again"));
        }
        (Image::Gone, _) => verdict.double(1, format!("{table}: row {key} is there although its write was refused")),
    }
}

/// A table that nobody wrote after it was filled: equal by count and row hash.
pub fn still(table: &str, blue: &Sum, green: Option<&Sum>, verdict: &mut Verdict) {
    match green {
        None => verdict.lose(blue.rows.max(1), format!("{table}: not there on the new production")),
        Some(green) if green == blue => {}
        Some(green) if green.rows > blue.rows => {
            verdict
                .double(green.rows - blue.rows, format!("{table}: {} rows on old blue, {} now", blue.rows, green.rows));
        }
        Some(green) => {
            let many = (blue.rows - green.rows).max(1);
            let words = if green.rows == blue.rows { "as many rows, other hashes" } else { "fewer rows" };
            verdict.lose(many, format!("{table}: {words} than old blue ({} and {})", green.rows, blue.rows));
        }
    }
}

/// A table that is written all the time: what old blue has is what the new production has, but for rows that a writer
/// touched after the cut (those are the ledger's to judge).
pub fn at_the_cut(table: &str, blue: &Rows, green: &Rows, touched_after: &dyn Fn(&str) -> bool, verdict: &mut Verdict) {
    let mut equal = 0_u64;
    let keys: BTreeSet<&String> = blue.keys().chain(green.keys()).collect();
    for key in keys {
        let (was, is) = (blue.get(key), green.get(key));
        if was == is {
            equal += 1;
            continue;
        }
        if touched_after(key) {
            continue;
        }
        let count = |rows: Option<&Vec<String>>| rows.map_or(0, Vec::len) as u64;
        let (was, is) = (count(was), count(is));
        if is > was {
            verdict.double(
                is - was,
                format!("{table}: row {key} is {was} times on old blue and {is} times now, untouched since"),
            );
        } else {
            verdict
                .lose((was - is).max(1), format!("{table}: row {key} is not what it was on old blue, untouched since"));
        }
    }
    verdict.compared.push(format!("{table}: {equal} rows equal to old blue's by hash"));
}

/// What the new production's catalogue says of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Its step; negative for a descending one.
    pub increment: i64,
    /// The last value it gave; none when it never gave one.
    pub last: Option<i64>,
    /// The furthest value, in its own direction, of the column that it feeds.
    pub column: Option<i64>,
}

/// The sequence is ahead of every value that was used, in its own direction, and gave none twice.
pub fn sequence(name: &str, there: Option<&Sequence>, given: &Numbers, verdict: &mut Verdict) {
    for (value, times) in given.given.iter().filter(|(_, times)| **times > 1) {
        verdict.double(u64::from(times - 1), format!("sequence {name} gave {value} {times} times"));
    }
    let Some(there) = there else {
        return verdict.lose(1, format!("sequence {name} is not there on the new production"));
    };
    let up = there.increment > 0;
    let furthest = if up { given.given.keys().next_back() } else { given.given.keys().next() };
    let used: Vec<i64> = [furthest.copied(), there.column].into_iter().flatten().collect();
    let Some(used) = (if up { used.iter().max() } else { used.iter().min() }) else { return };
    let ahead = there.last.is_some_and(|last| if up { last >= *used } else { last <= *used });
    if !ahead {
        verdict.double(1, format!("sequence {name} stands at {:?}, behind {used}, which is used", there.last));
    }
}

/// Rows of `nightly_lines` by run, of a statement that was resubmitted or acknowledged: there whole and once, or not at all.
pub fn whole_or_nothing(what: &str, runs: &BTreeMap<u32, u64>, size: u64, must: &BTreeSet<u32>, verdict: &mut Verdict) {
    for (run, rows) in runs {
        if *rows > size {
            verdict.double(rows - size, format!("{what} {run} is there with {rows} rows, {size} are one time"));
        } else if *rows != size {
            verdict.lose(size - rows, format!("{what} {run} is there in part: {rows} rows of {size}"));
        }
    }
    for run in must.iter().filter(|run| !runs.contains_key(run)) {
        verdict.lose(size, format!("{what} {run} is missing"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(acknowledged: Option<Image>, open: Option<Image>) -> Entry {
        Entry { acknowledged, open, touched: Duration::ZERO }
    }

    fn is(value: &str) -> Option<Image> {
        Some(Image::Is(value.to_owned()))
    }

    /// Lost and duplicated for one entry and the rows found under its key.
    fn ledger(entry: Entry, rows: &[&str]) -> (u64, u64) {
        let mut verdict = Verdict::default();
        let entries = HashMap::from([("k".to_owned(), entry)]);
        let mut found = Rows::new();
        if !rows.is_empty() {
            found.insert("k".to_owned(), rows.iter().map(|&row| row.to_owned()).collect());
        }
        against_ledger("events", &entries, &found, &mut verdict);
        (verdict.lost, verdict.duplicated)
    }

    #[test]
    fn the_ledger_finds_what_is_missing_changed_doubled_or_back() {
        assert_eq!(ledger(entry(is("a"), None), &["a"]), (0, 0));
        assert_eq!(ledger(entry(is("a"), None), &[]), (1, 0), "missing");
        assert_eq!(ledger(entry(is("a"), None), &["b"]), (1, 0), "changed");
        assert_eq!(ledger(entry(is("a"), None), &["a", "a"]), (0, 1), "doubled");
        assert_eq!(ledger(entry(Some(Image::Gone), None), &["a"]), (1, 0), "a delete undone");
        assert_eq!(ledger(entry(None, None), &["a"]), (0, 1), "a refused write is there");
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not_but_only_once() {
        assert_eq!(ledger(entry(None, is("a")), &[]), (0, 0));
        assert_eq!(ledger(entry(None, is("a")), &["a"]), (0, 0));
        assert_eq!(ledger(entry(None, is("a")), &["a", "a"]), (0, 1));
        assert_eq!(ledger(entry(is("old"), is("new")), &["old"]), (0, 0));
        assert_eq!(ledger(entry(is("old"), is("new")), &["new"]), (0, 0));
        assert_eq!(ledger(entry(is("old"), is("new")), &[]), (1, 0));
        assert_eq!(ledger(entry(is("old"), Some(Image::Gone)), &[]), (0, 0));
    }

    #[test]
    fn a_row_that_nobody_wrote_is_found() {
        let mut verdict = Verdict::default();
        let found = Rows::from([("x".to_owned(), vec!["1".to_owned()])]);
        against_ledger("events", &HashMap::new(), &found, &mut verdict);
        assert_eq!((verdict.lost, verdict.duplicated), (0, 1));
    }

    #[test]
    fn a_still_table_is_compared_by_count_and_hash() {
        let sum = |rows, hash: &str| Sum { rows, hash: hash.to_owned() };
        let check = |green: Option<Sum>| {
            let mut verdict = Verdict::default();
            still("orders", &sum(10, "7"), green.as_ref(), &mut verdict);
            (verdict.lost, verdict.duplicated)
        };
        assert_eq!(check(Some(sum(10, "7"))), (0, 0));
        assert_eq!(check(Some(sum(9, "6"))), (1, 0));
        assert_eq!(check(Some(sum(10, "8"))), (1, 0));
        assert_eq!(check(Some(sum(11, "9"))), (0, 1));
        assert_eq!(check(None), (10, 0));
    }

    #[test]
    fn at_the_cut_only_a_row_touched_since_may_differ() {
        let rows = |pairs: &[(&str, &str)]| -> Rows {
            let mut rows = Rows::new();
            for (key, hash) in pairs {
                rows.entry((*key).to_owned()).or_default().push((*hash).to_owned());
            }
            rows
        };
        let check = |blue: &[(&str, &str)], green: &[(&str, &str)]| {
            let mut verdict = Verdict::default();
            at_the_cut("items", &rows(blue), &rows(green), &|key| key == "touched", &mut verdict);
            (verdict.lost, verdict.duplicated)
        };
        assert_eq!(check(&[("a", "1"), ("touched", "1")], &[("a", "1"), ("touched", "2")]), (0, 0));
        assert_eq!(check(&[("a", "1")], &[("a", "2")]), (1, 0));
        assert_eq!(check(&[("a", "1")], &[]), (1, 0));
        assert_eq!(check(&[], &[("a", "1")]), (0, 1));
        assert_eq!(check(&[("a", "1")], &[("a", "1"), ("a", "1")]), (0, 1));
        assert_eq!(check(&[("touched", "1")], &[]), (0, 0));
    }

    #[test]
    fn a_sequence_must_be_ahead_in_its_own_direction() {
        let check = |increment, last, column, given: &[(i64, u32)]| {
            let mut verdict = Verdict::default();
            let numbers = Numbers { given: given.iter().copied().collect() };
            sequence("s", Some(&Sequence { increment, last, column }), &numbers, &mut verdict);
            verdict.duplicated
        };
        assert_eq!(check(1, Some(10), Some(9), &[(10, 1)]), 0);
        assert_eq!(check(1, Some(9), None, &[(10, 1)]), 1);
        assert_eq!(check(1, Some(9), Some(10), &[]), 1);
        assert_eq!(check(-1, Some(90), Some(91), &[(90, 1), (95, 1)]), 0);
        assert_eq!(check(-1, Some(91), None, &[(90, 1)]), 1);
        assert_eq!(check(1, None, Some(1), &[]), 1);
        assert_eq!(check(1, None, None, &[]), 0);
        assert_eq!(check(1, Some(10), None, &[(4, 2)]), 1, "given twice");
    }

    #[test]
    fn a_resubmitted_effect_is_there_whole_and_once() {
        let check = |rows: &[(u32, u64)], must: &[u32]| {
            let mut verdict = Verdict::default();
            whole_or_nothing(
                "run",
                &rows.iter().copied().collect(),
                100,
                &must.iter().copied().collect(),
                &mut verdict,
            );
            (verdict.lost, verdict.duplicated)
        };
        assert_eq!(check(&[(1, 100)], &[1]), (0, 0));
        assert_eq!(check(&[(1, 200)], &[1]), (0, 100));
        assert_eq!(check(&[(1, 60)], &[]), (40, 0));
        assert_eq!(check(&[], &[1]), (100, 0));
        assert_eq!(check(&[], &[]), (0, 0));
    }
}
