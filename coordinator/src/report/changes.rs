//! What was changed: before, during, after. What became of it follows from what was done and undone; while the upgrade goes on, or
//! where a person stopped it, it is as it was left.

use jiff::Timestamp;
use proto::jobs::Table;
use serde::de::DeserializeOwned;

use super::known::{CLEANUP, Known, PREREQUISITES, PROVISIONING};
use super::model::Change;
use crate::operator::view::StatusView;

/// How far it came, as far as it decides what is so now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Undone.
    Back,
    /// The new production serves.
    Over,
    /// Neither: as it was left.
    Open,
}

struct Rows<'a> {
    known: &'a Known,
    end: End,
    rows: Vec<Change>,
}

/// Every change that the journal tells of.
pub(super) fn changes(status: &StatusView, known: &Known) -> Vec<Change> {
    let end = match (known.undone.contains_key(&PREREQUISITES), status.switched_over) {
        (true, _) => End::Back,
        (false, true) => End::Over,
        (false, false) => End::Open,
    };
    let mut rows = Rows { known, end, rows: Vec::new() };
    rows.version(status);
    rows.deployments();
    rows.groups();
    rows.settings();
    rows.reboots();
    rows.identities();
    rows.schema();
    rows.jobs();
    rows.extensions();
    rows.old_side();
    rows.rows
}

impl Rows<'_> {
    fn add(&mut self, what: &str, before: &str, during: &str, after: &str, at: Option<Timestamp>) {
        let (what, before, during, after) = (what.into(), before.into(), during.into(), after.into());
        self.rows.push(Change { what, before, during, after, at });
    }

    /// What is so at the end, by where it ended.
    fn after<'t>(&self, back: &'t str, over: &'t str) -> &'t str {
        match self.end {
            End::Back => back,
            End::Over => over,
            End::Open => "as during",
        }
    }

    fn version(&mut self, status: &StatusView) {
        let (from, to) = (status.from_version.clone(), status.to_version.clone());
        let during = if self.known.provisioned.is_some() { format!("{from}; green {to}") } else { from.clone() };
        let after = if status.switched_over { &to } else { &from };
        self.add("version of production", &from, &during, after, self.known.committed_at);
    }

    fn deployments(&mut self) {
        let gone = self.known.done.get(&CLEANUP).or(self.known.undone.get(&PROVISIONING)).copied();
        for (n, id) in self.known.deployments.iter().enumerate() {
            let earlier = n + 1 < self.known.deployments.len();
            let after = match (gone, self.known.retired.is_some()) {
                _ if earlier => "deleted with its green",
                (Some(_), true) => "deleted; green is production",
                (Some(_), false) => "deleted with its green",
                (None, _) => "there",
            };
            self.add("blue/green deployment", "none", id, after, gone);
        }
        for (id, effect) in self.known.effects(PREREQUISITES, "leftover-") {
            let after = if effect.done_at.is_some() { "deleted with its green" } else { "being deleted" };
            self.rows.push(Change {
                what: "deployment that an earlier upgrade had left".to_owned(),
                before: id.to_owned(),
                during: "deleted first, as asked".to_owned(),
                after: after.to_owned(),
                at: effect.done_at,
            });
        }
    }

    fn groups(&mut self) {
        let Some(start) = &self.known.start else { return };
        let Some(used) = self.known.effect(PREREQUISITES, "use-group") else { return };
        // The id is in every name that we gave.
        let groups = crate::rds::Names::of(&self.known.run);
        let (ours, green) = (groups.blue_cluster_group().to_string(), groups.green_cluster_group().to_string());
        let (users, instance) = (start.users.cluster.to_string(), start.users.instance.to_string());
        let at = used.done_at;
        let over = match self.known.retired.is_some() {
            true => format!("{green}; {ours} deleted"),
            false => format!("{green}; the old side keeps {ours}"),
        };
        let back = format!("{users}; ours deleted");
        let after = self.after(&back, &over).to_owned();
        self.add("cluster parameter group of production", &users, &format!("{ours}; green {green}"), &after, at);
        let (on_green, back) = (groups.green_instance_group().to_string(), format!("{instance}; ours deleted"));
        let after = self.after(&back, &on_green).to_owned();
        let during = format!("{instance}; green {on_green}");
        self.add("instance parameter group of production", &instance, &during, &after, at);
    }

    fn settings(&mut self) {
        let Some(prepared) = &self.known.prepared else { return };
        for setting in &prepared.settings {
            let before = setting.before.clone().unwrap_or_else(|| "not read".to_owned());
            let over = match setting.on_green {
                true => setting.value.clone(),
                false => "as the user's group has it".to_owned(),
            };
            let after =
                self.after("the user's group is back; static values from the next restart on", &over).to_owned();
            self.add(&format!("setting {}", setting.name), &before, &setting.value, &after, None);
        }
    }

    fn reboots(&mut self) {
        let known = self.known;
        let name = |resource: &str| {
            let all = known.start.iter().flat_map(|start| &start.blue.instances);
            let found = all.into_iter().find(|instance| instance.resource_id.as_str() == resource);
            found.map_or(resource.to_owned(), |instance| instance.id.to_string())
        };
        let ms = known.prepared.as_ref().and_then(|prepared| prepared.reboot_unavailable_ms);
        let felt = ms.map(|ms| format!(", writes unavailable {ms} ms in all")).unwrap_or_default();
        for (resource, effect) in known.effects(PREREQUISITES, "reboot-") {
            let after = if effect.done_at.is_some() { "in sync" } else { "not known to be in sync" };
            let during = format!("rebooted once{felt}");
            self.add(
                &format!("instance {}", name(resource)),
                "static parameters pending",
                &during,
                after,
                effect.done_at,
            );
        }
    }

    fn identities(&mut self) {
        let Some(effect) = self.known.effect(PREREQUISITES, "replica-identity") else { return };
        let (tables, at): (Vec<Table>, _) = (read(&effect.before).unwrap_or_default(), effect.done_at);
        for table in tables {
            let after = self.after("as before", "FULL").to_owned();
            self.add(&format!("replica identity of {table}"), "no key", "FULL, as approved", &after, at);
        }
    }

    fn schema(&mut self) {
        let Some(prepared) = &self.known.prepared else { return };
        let during = match prepared.schema_in.is_empty() {
            true => format!("in {} databases", prepared.databases),
            false => format!("in {}", prepared.schema_in.join(", ")),
        };
        let kept = self.known.retired.as_ref().map(|retired| &retired.ledger_kept);
        let over = match kept {
            None => "there; cleanup removes it".to_owned(),
            Some(kept) if kept.is_empty() => "removed".to_owned(),
            Some(kept) => {
                let kept: Vec<String> = kept.iter().map(|(database, why)| format!("{database} ({why})")).collect();
                format!("removed; the ledger stays in {}", kept.join(", "))
            }
        };
        let after = self.after("removed", &over).to_owned();
        self.add("schema upgrade_pilot", "none", &during, &after, None);
    }

    fn jobs(&mut self) {
        let Some(effect) = self.known.effect(PREREQUISITES, "quiesce") else { return };
        let Some(quiet) = effect.output.as_ref().and_then(read::<proto::jobs::Quiesced>) else { return };
        let loud = self.known.moved.as_ref().map(|moved| &moved.unquiesced);
        let back = |count: Option<u64>| match (self.end, count) {
            (End::Back, _) => "on again".to_owned(),
            (End::Over, Some(count)) => format!("{count} on again"),
            (End::Over | End::Open, _) => "as during".to_owned(),
        };
        let (jobs, sets) = (back(loud.map(|loud| loud.cron_jobs)), back(loud.map(|loud| loud.partition_sets)));
        let (cron, partman) = (format!("{} active", quiet.cron_jobs), format!("{} maintained", quiet.partition_sets));
        if quiet.cron_jobs > 0 {
            self.add("jobs of pg_cron", &cron, "off", &jobs, effect.done_at);
        }
        if quiet.partition_sets > 0 {
            let until = quiet.covered_until.map(|until| format!(" up to {until:.0}")).unwrap_or_default();
            let during = format!("off; {} partitions made ahead{until}", quiet.partitions_made);
            self.add("partition sets of pg_partman", &partman, &during, &sets, effect.done_at);
        }
    }

    fn extensions(&mut self) {
        let Some(moved) = &self.known.moved else { return };
        for update in &moved.extensions {
            let test = moved.tests.iter().find(|test| test.name == update.name && test.database == update.database);
            let tried = test.map_or(String::new(), |test| {
                format!("; {}: {}", if test.passed { "tried" } else { "failed" }, test.evidence)
            });
            let what = format!("extension {} in {}", update.name, update.database);
            self.add(&what, &update.from, &update.from, &format!("{}{tried}", update.to), Some(moved.at));
        }
        let raised = |test: &&proto::jobs::ExtensionTest| {
            moved.extensions.iter().any(|update| update.name == test.name && update.database == test.database)
        };
        for test in moved.tests.iter().filter(|test| !raised(test)) {
            let what = format!("extension {} in {}", test.name, test.database);
            let tried = if test.passed { "tried" } else { "failed" };
            let after = format!("{}; {tried}: {}", test.version, test.evidence);
            self.add(&what, &test.version, "quiet", &after, Some(moved.at));
        }
    }

    fn old_side(&mut self) {
        let Some(blue) = self.known.start.as_ref().map(|start| &start.blue) else { return };
        if self.end != End::Over {
            return;
        }
        let resource = blue.resource_id.to_string();
        let old = self.known.retired.as_ref().and_then(|retired| retired.old_cluster.clone());
        let at = self.known.done.get(&CLEANUP).copied().filter(|_| self.known.retired.is_some());
        let during = old.unwrap_or_else(|| format!("{}-old1, or the next number that was free", blue.cluster));
        let after = if self.known.retired.is_some() { "deleted" } else { "there, read-only" };
        self.add(&format!("old cluster {resource}"), blue.cluster.as_ref(), &during, after, at);
        let Some(effect) = self.known.effect(CLEANUP, "old-protection") else { return };
        let was = if effect.before == serde_json::Value::Bool(true) { "on" } else { "off" };
        let during = if was == "on" { "off, to delete it" } else { "off" };
        self.add(&format!("deletion protection of {resource}"), was, during, "deleted with it", effect.done_at);
    }
}

fn read<T: DeserializeOwned>(value: &serde_json::Value) -> Option<T> {
    T::deserialize(value).ok()
}
