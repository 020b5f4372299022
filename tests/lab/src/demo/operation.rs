//! The numbered operations of an ingestion service: what operation number `n` is, how it is sent the first time, and how
//! it is sent again when the first answer was lost. Pure: the same `n` in the same state is the same operation.
//!
//! The first sending is *not* guarded, so that anybody else who sends it twice is found out; only the service's own
//! repetition asks first whether the row is there.

use std::collections::HashMap;

use super::ledger::{Image, TableId};
use super::session::quoted;

/// Rows of `items` that one worker owns.
const ITEMS: u64 = 400;

/// A row of `items` as the worker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    value: u64,
    last_n: u64,
    changes: u64,
}

/// What the worker knows of its own rows.
pub type Items = HashMap<u64, Item>;

/// One row that an operation leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Where.
    pub table: TableId,
    /// The writer's key of the row.
    pub key: String,
    /// What it will look like.
    pub image: Image,
}

/// One numbered operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its SQL the first time.
    pub first: String,
    /// Its SQL after a lost answer: changes nothing that is there already.
    pub again: String,
    /// What it leaves behind.
    pub effects: Vec<Effect>,
    /// Whether its rows are numbered by the sequences; the answer then carries id, ticket and countdown.
    pub numbered: bool,
    item: Option<(u64, Option<Item>)>,
}

impl Operation {
    /// Operation number `n` of worker `who` in `database`.
    pub fn number(n: u64, who: &str, database: &str, items: &Items) -> Self {
        let slot = n.wrapping_mul(7_919) % ITEMS;
        let known = items.get(&slot);
        match n % 10 {
            0..=3 => Self::insert(n, who, database),
            6 | 7 if known.is_some() => Self::update(n, slot, known, who, database),
            8 if known.is_some() => Self::both(n, slot, known, who, database),
            9 if known.is_some() => Self::delete(n, slot, who, database),
            _ => Self::upsert(n, slot, known, who, database),
        }
    }

    /// Notes in `items` that it is done.
    pub fn remember(&self, items: &mut Items) {
        match &self.item {
            Some((slot, Some(item))) => {
                items.insert(*slot, item.clone());
            }
            Some((slot, None)) => {
                items.remove(slot);
            }
            None => {}
        }
    }

    fn insert(n: u64, who: &str, database: &str) -> Self {
        let (service, text) = (quoted(who), quoted(&payload(n)));
        let into = "insert into events (service, n, ticket, countdown, payload)";
        let numbers = "nextval('tickets'), nextval('countdown')";
        let back = "returning id, ticket, countdown";
        Self {
            first: format!("{into} values ({service}, {n}, {numbers}, {text}) {back}"),
            again: format!(
                "{into} select {service}, {n}, {numbers}, {text} \
                 where not exists (select 1 from events where service = {service} and n = {n}) {back}"
            ),
            effects: vec![Effect {
                table: TableId::new(database, "events"),
                key: format!("{who}/{n}"),
                image: Image::Is(payload(n)),
            }],
            numbered: true,
            item: None,
        }
    }

    fn upsert(n: u64, slot: u64, known: Option<&Item>, who: &str, database: &str) -> Self {
        let item = next(n, known);
        let service = quoted(who);
        let sql = format!(
            "insert into items (service, key, value, last_n, changes) values ({service}, {slot}, {value}, {n}, 1) \
             on conflict (service, key) do update set value = excluded.value, last_n = excluded.last_n, \
             changes = items.changes + 1",
            value = item.value,
        );
        let again = format!("{sql} where items.last_n < excluded.last_n");
        Self {
            first: sql,
            again,
            effects: vec![effect(&item, slot, who, database)],
            numbered: false,
            item: Some((slot, Some(item))),
        }
    }

    fn update(n: u64, slot: u64, known: Option<&Item>, who: &str, database: &str) -> Self {
        let item = next(n, known);
        let (first, again) = update_sql(n, slot, &item, who);
        Self {
            first,
            again,
            effects: vec![effect(&item, slot, who, database)],
            numbered: false,
            item: Some((slot, Some(item))),
        }
    }

    /// An event and its item in one transaction: both or neither.
    fn both(n: u64, slot: u64, known: Option<&Item>, who: &str, database: &str) -> Self {
        let mut operation = Self::insert(n, who, database);
        let item = next(n, known);
        let (first, again) = update_sql(n, slot, &item, who);
        operation.first = format!("{}; {first}", operation.first);
        operation.again = format!("{}; {again}", operation.again);
        operation.effects.push(effect(&item, slot, who, database));
        operation.item = Some((slot, Some(item)));
        operation
    }

    fn delete(n: u64, slot: u64, who: &str, database: &str) -> Self {
        let sql = format!("delete from items where service = {} and key = {slot} and last_n < {n}", quoted(who));
        let effect =
            Effect { table: TableId::new(database, "items"), key: format!("{who}/{slot}"), image: Image::Gone };
        Self { first: sql.clone(), again: sql, effects: vec![effect], numbered: false, item: Some((slot, None)) }
    }
}

fn payload(n: u64) -> String {
    format!("event {n} {:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn next(n: u64, known: Option<&Item>) -> Item {
    Item { value: n.wrapping_mul(31) % 1_000_003, last_n: n, changes: known.map_or(1, |item| item.changes + 1) }
}

fn effect(item: &Item, slot: u64, who: &str, database: &str) -> Effect {
    Effect {
        table: TableId::new(database, "items"),
        key: format!("{who}/{slot}"),
        image: Image::Is(format!("{}@{}#{}", item.value, item.last_n, item.changes)),
    }
}

fn update_sql(n: u64, slot: u64, item: &Item, who: &str) -> (String, String) {
    let sql = format!(
        "update items set value = {}, last_n = {n}, changes = changes + 1 where service = {} and key = {slot}",
        item.value,
        quoted(who),
    );
    let again = format!("{sql} and last_n < {n}");
    (sql, again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_numbers_cover_insert_upsert_update_delete() {
        let mut items = Items::new();
        let mut verbs = std::collections::BTreeSet::new();
        for n in 1..=20_000 {
            let operation = Operation::number(n, "w", "orders", &items);
            operation.remember(&mut items);
            for verb in ["insert into events", "on conflict", "update items", "delete from"] {
                if operation.first.contains(verb) {
                    verbs.insert(verb);
                }
            }
        }
        assert_eq!(verbs.len(), 4, "{verbs:?}");
    }

    #[test]
    fn only_the_repetition_is_guarded() {
        let operation = Operation::number(1, "w", "orders", &Items::new());
        assert!(!operation.first.contains("not exists"));
        assert!(operation.again.contains("not exists"));
        let upsert = Operation::number(4, "w", "orders", &Items::new());
        assert!(!upsert.first.contains("items.last_n <"));
        assert!(upsert.again.contains("items.last_n <"));
    }
}
