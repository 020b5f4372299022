//! A folder of `tests/scenarios`: what goes wrong (`scenario.toml`, read by the lab) and what the program must do and say
//! (`expect.toml`). Cases of one stage and run share an upgrade.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lab::Scenario;
use serde::Deserialize;

/// What must come of it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::e2e) enum Outcome {
    /// Production is of the new version and nothing is lost.
    Succeeded,
    /// The world is as before.
    Unwound,
}

/// `expect.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::e2e) struct Expect {
    /// Which test plays it.
    pub(in crate::e2e) stage: String,
    /// Which upgrade of that stage, counted from 1.
    pub(in crate::e2e) run: u32,
    /// Only under `TEST_DEPTH=full`.
    #[serde(default)]
    pub(in crate::e2e) full: bool,
    /// What must come of it.
    pub(in crate::e2e) outcome: Outcome,
    /// What must be said in the facts or the reason.
    #[serde(default)]
    pub(in crate::e2e) says: Vec<String>,
    /// How often AWS must have been asked, by action.
    #[serde(default)]
    pub(in crate::e2e) asked: BTreeMap<String, usize>,
    /// What the spec says beyond that of a test in a hurry.
    #[serde(default)]
    pub(in crate::e2e) spec: toml::Table,
}

/// A folder.
#[derive(Clone, Debug)]
pub(in crate::e2e) struct Case {
    /// Its name.
    pub(in crate::e2e) name: String,
    /// What goes wrong.
    pub(in crate::e2e) scenario: Scenario,
    /// What must come of it.
    pub(in crate::e2e) expect: Expect,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// Every folder, by name.
pub(in crate::e2e) fn all() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(root()).context("reading tests/scenarios")? {
        let folder = entry?.path();
        if folder.is_dir() {
            cases.push(read(&folder).with_context(|| folder.display().to_string())?);
        }
    }
    cases.sort_by(|a: &Case, b| a.name.cmp(&b.name));
    Ok(cases)
}

fn read(folder: &Path) -> anyhow::Result<Case> {
    let name = folder.file_name().and_then(|name| name.to_str()).context("a folder without a name")?.to_owned();
    let expect = std::fs::read_to_string(folder.join("expect.toml")).context("reading expect.toml")?;
    let expect: Expect = toml::from_str(&expect).context("expect.toml")?;
    Ok(Case { name, scenario: Scenario::read(&folder.join("scenario.toml"))?, expect })
}

/// The runs of a stage in order, each with the cases that share its upgrade. Those of full depth only where that is asked for.
pub(in crate::e2e) fn runs(stage: &str, full: bool) -> anyhow::Result<Vec<Vec<Case>>> {
    let mut runs: BTreeMap<u32, Vec<Case>> = BTreeMap::new();
    for case in all()?.into_iter().filter(|case| case.expect.stage == stage && (full || !case.expect.full)) {
        runs.entry(case.expect.run).or_default().push(case);
    }
    Ok(runs.into_values().collect())
}

/// Lays `over` on `spec`, table by table.
pub(in crate::e2e) fn merged(mut spec: toml::Table, over: &toml::Table) -> toml::Table {
    for (key, value) in over {
        let laid = match (spec.get(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
                toml::Value::Table(merged(below.clone(), above))
            }
            _ => value.clone(),
        };
        spec.insert(key.clone(), laid);
    }
    spec
}
