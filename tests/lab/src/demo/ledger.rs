//! The ledger: what the demo's writers were told is safe. It lives in memory, away from every database, and the judge
//! believes it more than any server.
//!
//! Each row that a writer touches is an entry with what was last acknowledged and, while a write is under way or its
//! outcome is unknown, what else may be there. It must never learn anything by reading the database.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A table that the demo writes during the upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// The database it is in.
    pub database: String,
    /// Its name in schema `public`.
    pub table: String,
}

impl TableId {
    /// Names a table.
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Self {
        Self { database: database.into(), table: table.into() }
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// What a row should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// There, once, with this value.
    Is(String),
    /// Not there.
    Gone,
}

/// One row's account.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The last acknowledged image; none before the first acknowledgement.
    pub acknowledged: Option<Image>,
    /// A write whose outcome is not known (yet).
    pub open: Option<Image>,
    /// When the last attempt on it ended (or began, while one is under way), since the demo's start.
    pub touched: Duration,
}

/// The numbers a sequence gave out.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// How often each was acknowledged to a writer.
    pub given: BTreeMap<i64, u32>,
}

/// Everything in the ledger.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Rows by table and by the writer's own key.
    pub tables: HashMap<TableId, HashMap<String, Entry>>,
    /// Sequences, by database and name.
    pub sequences: HashMap<TableId, Numbers>,
    /// How many writes were acknowledged in all.
    pub acknowledged: u64,
}

/// The shared ledger of all writers of one demo.
#[derive(Debug, Default)]
pub struct Ledger {
    book: Mutex<Book>,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write is about to be sent.
    pub fn attempt(&self, table: &TableId, key: &str, image: Image, at: Duration) {
        let mut book = self.book();
        let entry = entry(&mut book, table, key);
        entry.open = Some(image);
        entry.touched = at;
    }

    /// The write that was open is acknowledged.
    pub fn acknowledged(&self, table: &TableId, key: &str, at: Duration) {
        let mut book = self.book();
        let entry = entry(&mut book, table, key);
        if let Some(image) = entry.open.take() {
            entry.acknowledged = Some(image);
        }
        entry.touched = at;
        book.acknowledged += 1;
    }

    /// The write that was open has certainly not happened.
    pub fn refused(&self, table: &TableId, key: &str, at: Duration) {
        let mut book = self.book();
        let entry = entry(&mut book, table, key);
        entry.open = None;
        entry.touched = at;
    }

    /// The write that was open may have happened.
    pub fn unknown(&self, table: &TableId, key: &str, at: Duration) {
        entry(&mut self.book(), table, key).touched = at;
    }

    /// A row whose content the ledger does not follow was written (or may have been).
    pub fn touched(&self, table: &TableId, key: &str, at: Duration) {
        entry(&mut self.book(), table, key).touched = at;
    }

    /// A sequence gave this number and the write that carries it is acknowledged.
    pub fn number(&self, sequence: &TableId, value: i64) {
        *self.book().sequences.entry(sequence.clone()).or_default().given.entry(value).or_insert(0) += 1;
    }

    /// How many writes were acknowledged so far.
    pub fn count(&self) -> u64 {
        self.book().acknowledged
    }

    /// A copy for the judge.
    pub fn snapshot(&self) -> Book {
        self.book().clone()
    }
}

fn entry<'a>(book: &'a mut Book, table: &TableId, key: &str) -> &'a mut Entry {
    if !book.tables.contains_key(table) {
        book.tables.insert(table.clone(), HashMap::new());
    }
    let rows = book.tables.entry(table.clone()).or_default();
    rows.entry(key.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retried_write_is_acknowledged_once_with_its_last_image() {
        let ledger = Ledger::new();
        let table = TableId::new("orders", "events");
        ledger.attempt(&table, "a/1", Image::Is("x".into()), Duration::from_millis(1));
        ledger.unknown(&table, "a/1", Duration::from_millis(2));
        ledger.attempt(&table, "a/1", Image::Is("x".into()), Duration::from_millis(3));
        ledger.acknowledged(&table, "a/1", Duration::from_millis(4));
        let book = ledger.snapshot();
        let entry = &book.tables[&table]["a/1"];
        assert_eq!(entry.acknowledged, Some(Image::Is("x".into())));
        assert_eq!(entry.open, None);
        assert_eq!(entry.touched, Duration::from_millis(4));
        assert_eq!(book.acknowledged, 1);
    }

    #[test]
    fn a_refused_write_leaves_the_acknowledged_image() {
        let ledger = Ledger::new();
        let table = TableId::new("orders", "items");
        ledger.attempt(&table, "1", Image::Is("old".into()), Duration::ZERO);
        ledger.acknowledged(&table, "1", Duration::ZERO);
        ledger.attempt(&table, "1", Image::Gone, Duration::ZERO);
        ledger.refused(&table, "1", Duration::ZERO);
        let entry = ledger.snapshot().tables[&table]["1"].clone();
        assert_eq!(entry.acknowledged, Some(Image::Is("old".into())));
        assert_eq!(entry.open, None);
    }
}
