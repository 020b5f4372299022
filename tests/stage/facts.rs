//! The journal of an upgrade as `pilot history --output json` prints it, with questions that tests ask of it.

use anyhow::Context as _;
use serde_json::Value;

/// All facts, oldest first, each with `seq`, `epoch`, `kind`, `text` and `fact`.
#[derive(Clone, Debug)]
pub struct Facts(pub Vec<Value>);

impl Facts {
    /// Reads the document.
    ///
    /// # Errors
    /// When it has no facts.
    pub fn of(document: &Value) -> anyhow::Result<Facts> {
        Ok(Facts(document["facts"].as_array().context("a history without facts")?.clone()))
    }

    /// The facts of one kind, and of one step where one is named.
    pub fn of_kind<'a>(&'a self, kind: &'a str, step: Option<&'a str>) -> impl DoubleEndedIterator<Item = &'a Value> {
        self.0.iter().filter(move |seen| seen["kind"] == kind && step.is_none_or(|step| seen["fact"]["step"] == step))
    }

    /// How many facts of one kind there are.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.of_kind(kind, None).count()
    }

    /// The epoch of the first fact of a kind and step: it rises with every life of the coordinator.
    #[must_use]
    pub fn epoch(&self, kind: &str, step: Option<&str>) -> Option<u64> {
        self.of_kind(kind, step).next()?["epoch"].as_u64()
    }

    /// How often an event of agents was observed.
    #[must_use]
    pub fn events(&self, name: &str) -> usize {
        self.of_kind("observed", None).filter(|seen| seen["fact"]["event"]["event"] == name).count()
    }

    /// One line for each fact, for people.
    #[must_use]
    pub fn story(&self) -> String {
        let line = |seen: &Value| format!("{} {} {}", seen["seq"], seen["epoch"], seen["text"].as_str().unwrap_or("?"));
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
