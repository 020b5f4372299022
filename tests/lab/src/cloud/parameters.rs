//! From parameter groups to what a server is told: the user's values of the cluster's group, over them those of the
//! instance's. Pure; who applies them, and when, is in `servers`.

use std::collections::{BTreeMap, BTreeSet};

use crate::cloud::catalogue::{self, Definition};
use crate::cloud::state::{Group, Instance, State};

/// What a member is told by its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Every parameter that a user has set, with its value.
    pub(crate) values: BTreeMap<String, String>,
    /// Those of them that wait for a restart.
    pub(crate) at_restart: BTreeSet<String>,
}

/// What the groups of `instance` say now.
pub(crate) fn wanted(state: &State, instance: &Instance) -> Wanted {
    let Some(cluster) = state.clusters.get(&instance.cluster) else { return Wanted::default() };
    let groups = [state.cluster_group(&cluster.group).ok(), state.instance_group(&instance.group).ok()];
    merged(groups.into_iter().flatten())
}

/// What these two groups say together: the later one wins.
pub(crate) fn merged(groups: impl Iterator<Item = Group>) -> Wanted {
    let mut wanted = Wanted::default();
    for group in groups {
        let Some(family) = catalogue::family(&group.family) else { continue };
        for (name, set) in &group.user {
            let is_static = family.get(name).is_none_or(|definition| definition.is_static);
            if is_static || set.at_reboot {
                wanted.at_restart.insert(name.clone());
            } else {
                wanted.at_restart.remove(name);
            }
            wanted.values.insert(name.clone(), set.value.clone());
        }
    }
    wanted
}

/// What is in force after a restart: all of it.
pub(crate) fn after_restart(wanted: &Wanted) -> BTreeMap<String, String> {
    wanted.values.clone()
}

/// What is in force after a reload: what was, with the dynamic ones as wanted now. A dynamic parameter that no group sets
/// any more goes back to its built-in value.
pub(crate) fn after_reload(
    applied: &BTreeMap<String, String>,
    wanted: &Wanted,
    family: &str,
) -> BTreeMap<String, String> {
    let definitions = catalogue::family(family);
    let is_static = |name: &str| definitions.and_then(|d| d.get(name)).is_some_and(|d| d.is_static);
    let mut result: BTreeMap<String, String> = applied
        .iter()
        .filter(|(name, _)| is_static(name) || wanted.at_restart.contains(*name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in &wanted.values {
        if !is_static(name) && !wanted.at_restart.contains(name) {
            result.insert(name.clone(), value.clone());
        }
    }
    result
}

/// `1`, `on`, `true`.
pub(crate) fn is_on(value: &str) -> bool {
    matches!(value.to_lowercase().as_str(), "1" | "on" | "true")
}

/// Whether the change of this parameter needs a restart.
pub(crate) fn needs_restart(definition: &Definition, at_reboot: bool) -> bool {
    definition.is_static || at_reboot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::state::UserValue;

    fn group(name: &str, values: &[(&str, &str, bool)]) -> Group {
        Group {
            name: name.into(),
            family: "aurora-postgresql16".into(),
            description: String::new(),
            tags: BTreeMap::new(),
            user: values
                .iter()
                .map(|(name, value, at_reboot)| {
                    ((*name).to_owned(), UserValue { value: (*value).to_owned(), at_reboot: *at_reboot })
                })
                .collect(),
        }
    }

    #[test]
    fn the_instance_group_wins() {
        let cluster = group("c", &[("rds.logical_replication", "1", true), ("log_statement", "none", false)]);
        let instance = group("i", &[("log_statement", "ddl", false)]);
        let wanted = merged([cluster, instance].into_iter());
        let all = after_restart(&wanted);
        assert_eq!(all["log_statement"], "ddl");
        assert_eq!(all["rds.logical_replication"], "1");
    }

    #[test]
    fn a_reload_brings_in_dynamic_values_only_and_forgets_what_is_no_longer_set() {
        let before =
            BTreeMap::from([("work_mem".to_owned(), "64".to_owned()), ("max_connections".to_owned(), "50".to_owned())]);
        let wanted =
            merged(std::iter::once(group("c", &[("log_statement", "ddl", false), ("max_connections", "90", true)])));
        let after = after_reload(&before, &wanted, "aurora-postgresql16");
        let expected = [("log_statement", "ddl"), ("max_connections", "50")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(after, BTreeMap::from(expected));
    }
}
