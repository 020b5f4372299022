//! The whole world of the fake as one comparable value, and what differs between two of them. Field rule 9.3 allows a few
//! differences after an unwind; those are told apart and not hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::world::World;

/// What existed at one moment, by kind and identity. Time-dependent fields (restorable time) are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    things: BTreeMap<String, Value>,
}

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `cluster NAME.field`, `snapshot NAME` …
    pub what: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// Allowed after an unwind: a snapshot that is kept, a static parameter that waits for a reboot.
    pub allowed: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |v: &Option<Value>| v.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        write!(f, "{}: {} became {}", self.what, side(&self.before), side(&self.after))
    }
}

impl Picture {
    pub(super) fn of(world: &World) -> Self {
        let mut things = BTreeMap::new();
        let mut add = |kind: &str, name: &str, value: Value| flatten(&mut things, format!("{kind} {name}"), value);
        for (id, cluster) in &world.clusters {
            add("cluster", id.as_str(), json(cluster));
        }
        for (id, instance) in &world.instances {
            add("instance", id.as_str(), json(instance));
        }
        for group in world.groups.values() {
            add("parameter group", group.group.arn.as_str(), json(group));
        }
        for (id, snapshot) in &world.snapshots {
            add("snapshot", id.as_str(), json(snapshot));
        }
        for (id, deployment) in &world.deployments {
            add("deployment", id.as_str(), json(&deployment.shown));
        }
        Self { things }
    }

    /// Everything that is not as it was in `before`, the allowed differences among them.
    pub fn differences_from(&self, before: &Picture) -> Vec<Difference> {
        let all: BTreeSet<&String> = self.things.keys().chain(before.things.keys()).collect();
        let changed = all.into_iter().filter(|k| self.things.get(*k) != before.things.get(*k));
        let difference = |what: &String| {
            let (before, after) = (before.things.get(what).cloned(), self.things.get(what).cloned());
            let allowed = allowed(what, before.as_ref(), after.as_ref());
            Difference { what: what.clone(), before, after, allowed }
        };
        changed.map(difference).collect()
    }

    /// The fields of everything there, each as `kind name.field`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.things.keys().map(String::as_str)
    }

    /// As [`Self::differences_from`], without what field rule 9.3 allows: empty when the world is as it was.
    pub fn disallowed_differences_from(&self, before: &Picture) -> Vec<Difference> {
        self.differences_from(before).into_iter().filter(|d| !d.allowed).collect()
    }
}

fn allowed(what: &str, before: Option<&Value>, after: Option<&Value>) -> bool {
    let kept_snapshot = what.starts_with("snapshot ") && before.is_none();
    let waits = |v: Option<&Value>| {
        v.and_then(Value::as_str).is_some_and(|s| ["in-sync", "applying", "pending-reboot"].contains(&s))
    };
    let status = what.ends_with(".parameter_group_status") || what.ends_with(".apply_status");
    kept_snapshot || (status && waits(before) && waits(after))
}

fn json(thing: &impl serde::Serialize) -> Value {
    serde_json::to_value(thing).expect("our own types serialise")
}

/// One entry for each leaf, so that a difference names the field.
fn flatten(into: &mut BTreeMap<String, Value>, path: String, value: Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.into_iter().for_each(|(name, value)| flatten(into, format!("{path}.{name}"), value));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.into_iter().enumerate().for_each(|(n, value)| flatten(into, format!("{path}[{n}]"), value));
        }
        leaf => {
            into.insert(path, leaf);
        }
    }
}
