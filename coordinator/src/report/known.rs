//! What the facts say that later parts of a report ask for: the newest output of every step, what was there before an effect, when
//! a step was undone. An output that this version cannot read is none.

use std::collections::BTreeMap;

use engine::{Entry, Fact, StepId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::steps::cleanup::Retired;
use crate::steps::post_provisioning::Optimised;
use crate::steps::post_switchover::Moved;
use crate::steps::prerequisites::{Prepared, Start};
use crate::steps::provisioning::Provisioned;
use crate::steps::replicating_data::Verified;
use crate::steps::switchover::Switched;
use crate::world::Upgrade;

pub(super) const PREREQUISITES: StepId = StepId("prerequisites");
pub(super) const PROVISIONING: StepId = StepId("provisioning");
const POST_PROVISIONING: StepId = StepId("post_provisioning");
const REPLICATING_DATA: StepId = StepId("replicating_data");
const SWITCHOVER: StepId = StepId("switchover");
const POST_SWITCHOVER: StepId = StepId("post_switchover");
pub(super) const CLEANUP: StepId = StepId("cleanup");

/// See the top of the file.
#[derive(Default)]
pub(super) struct Known {
    /// The upgrade.
    pub(super) run: String,
    pub(super) start: Option<Start>,
    pub(super) prepared: Option<Prepared>,
    pub(super) provisioned: Option<Provisioned>,
    pub(super) optimised: Option<Optimised>,
    pub(super) verified: Option<Verified>,
    pub(super) switched: Option<Switched>,
    pub(super) moved: Option<Moved>,
    pub(super) retired: Option<Retired>,
    /// When a step was done.
    pub(super) done: BTreeMap<StepId, Timestamp>,
    /// When a step was undone, if it was not begun again since.
    pub(super) undone: BTreeMap<StepId, Timestamp>,
    pub(super) deployments: Vec<String>,
    pub(super) committed_at: Option<Timestamp>,
    effects: BTreeMap<(StepId, String), Effect>,
}

/// One change of the world, as it was last planned and done.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    /// Before the first time.
    pub(super) before: Value,
    pub(super) output: Option<Value>,
    pub(super) done_at: Option<Timestamp>,
}

impl Known {
    pub(super) fn of(run: &str, entries: &[Entry<Upgrade>]) -> Known {
        let mut known = Known { run: run.to_owned(), ..Known::default() };
        for entry in entries {
            known.take(entry);
        }
        known.start = known.effect(PREREQUISITES, "start").and_then(|start| read(start.output.as_ref()?));
        known
    }

    fn take(&mut self, entry: &Entry<Upgrade>) {
        let at = entry.at;
        match &entry.fact {
            Fact::EffectPlanned { step, key, before, .. } => {
                let fresh = Effect { before: before.clone(), output: None, done_at: None };
                self.effects.entry((*step, key.clone())).or_insert(fresh);
            }
            Fact::EffectDone { step, key, output, .. } => {
                if let Some(effect) = self.effects.get_mut(&(*step, key.clone())) {
                    (effect.output, effect.done_at) = (Some(output.clone()), Some(at));
                }
                if (*step, key.as_str()) == (PROVISIONING, "create") {
                    self.deployment(output);
                }
            }
            Fact::StepStarted { step, .. } => drop(self.undone.remove(step)),
            Fact::StepDone { step, output } => {
                self.done.insert(*step, at);
                self.output(*step, output);
            }
            Fact::UndoDone { step } => drop(self.undone.insert(*step, at)),
            Fact::PointOfNoReturn { .. } => self.committed_at = Some(at),
            _ => {}
        }
    }

    fn output(&mut self, step: StepId, output: &Value) {
        match step {
            PREREQUISITES => self.prepared = read(output),
            PROVISIONING => {
                self.deployment(output);
                self.provisioned = read(output);
            }
            POST_PROVISIONING => self.optimised = read(output),
            REPLICATING_DATA => self.verified = read(output),
            SWITCHOVER => self.switched = read(output),
            POST_SWITCHOVER => self.moved = read(output),
            CLEANUP => self.retired = read(output),
            _ => {}
        }
    }

    fn deployment(&mut self, output: &Value) {
        let Some(id) = output["deployment"].as_str() else { return };
        if !self.deployments.iter().any(|known| known == id) {
            self.deployments.push(id.to_owned());
        }
    }

    pub(super) fn effect(&self, step: StepId, key: &str) -> Option<&Effect> {
        self.effects.get(&(step, key.to_owned()))
    }

    /// The effects of a step whose key begins so.
    pub(super) fn effects<'a>(&'a self, step: StepId, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Effect)> {
        let of_step = self.effects.iter().filter(move |((of, _), _)| *of == step);
        of_step.filter_map(move |((_, key), effect)| Some((key.strip_prefix(prefix)?, effect)))
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}
