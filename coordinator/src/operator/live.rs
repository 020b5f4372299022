//! What people change of an upgrade that runs: its settings, the postponement of its switchover. The server decides what may be
//! changed; the command line and the web page only ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::{RunId, RunInfo, State};
use jiff::Timestamp;
use serde_json::Value;

use super::view::{SettingView, SettingsView, StatusView};
use super::{Operator, Refusal, store};
use crate::codes;
use crate::spec::{UpgradeSpec, tune};
use crate::world::Upgrade;
use runtime::supervision::chain;

/// Upgrades that have ended and stay in memory as they are shown: they change no more.
const ENDED_MAX: usize = 256;

/// The views of ended upgrades, so that a list does not fold every journal of the store each time.
#[derive(Clone, Default)]
pub(super) struct Ended(Arc<Mutex<BTreeMap<String, StatusView>>>);

impl Ended {
    fn get(&self, id: &RunId) -> Option<StatusView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id.as_str()).cloned()
    }

    fn keep(&self, view: &StatusView) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Ids made later sort later: the oldest goes.
        if all.len() == ENDED_MAX {
            all.pop_first();
        }
        all.insert(view.id.clone(), view.clone());
    }
}

impl Operator {
    pub(super) async fn status_of_ended(&self, info: RunInfo) -> Result<StatusView, Refusal> {
        if let Some(view) = self.ended.get(&info.id) {
            return Ok(view);
        }
        let view = self.status_from_journal(info).await?;
        // One that cannot be read says so each time: another program may read it meanwhile.
        if view.health != "trouble" {
            self.ended.keep(&view);
        }
        Ok(view)
    }

    /// What can be tuned, as it stands.
    pub async fn settings(&self, id: &str) -> Result<SettingsView, Refusal> {
        let state = self.folded(&RunId::from(id)).await?;
        let (asked, now) = specs(id, &state)?;
        let default = UpgradeSpec::new("", &asked.to);
        let view = |setting: &tune::Setting| SettingView {
            key: setting.key.to_owned(),
            value: tune::value(now, setting),
            started_with: tune::value(asked, setting),
            default: tune::value(&default, setting),
            unit: setting.unit.as_str().to_owned(),
            min: setting.bounds.0,
            max: setting.bounds.1,
            applies: setting.applies.as_str().to_owned(),
            what: setting.what.to_owned(),
        };
        Ok(SettingsView { id: id.to_owned(), settings: tune::SETTINGS.iter().map(view).collect() })
    }

    /// The settings as the spec's numbers, if the whole spec stands with them.
    pub(super) async fn may_tune(
        &self,
        run: &RunId,
        settings: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, Refusal> {
        let refused = |why: &dyn std::fmt::Display| Refusal::Refused(format!("{}: {why}", codes::CANNOT_TUNE));
        if settings.is_empty() {
            return Err(refused(&format!("nothing is to be tuned; see what can be: pilot tune {run}")));
        }
        let state = self.folded(run).await?;
        let (_, now) = specs(run.as_str(), &state)?;
        tune::tuned(now, settings).map_err(|why| refused(&why))?;
        tune::read(settings).map_err(|why| refused(&why))
    }

    /// Of two wishes at once the later one may not go with the earlier one; then the fold has left it out.
    pub(super) async fn was_tuned(&self, run: &RunId, settings: &BTreeMap<String, Value>) -> Result<(), Refusal> {
        let state = self.folded(run).await?;
        let (_, now) = specs(run.as_str(), &state)?;
        match tune::tuned(now, settings) {
            Ok(same) if same == *now => Ok(()),
            _ => Err(Refusal::Refused(format!(
                "{}: another change came first, and this one does not go with it; look again: pilot tune {run}",
                codes::CANNOT_TUNE
            ))),
        }
    }

    /// A switchover that is under way, or behind, cannot be postponed.
    pub(super) async fn may_postpone(&self, run: &RunId, until: Timestamp) -> Result<(), Refusal> {
        let (state, now) = (self.folded(run).await?, self.clock().now());
        let code = codes::CANNOT_POSTPONE;
        if state.armed() || state.committed() {
            let what = if state.armed() { "AWS has been told to switch over" } else { "it has switched over" };
            return Err(Refusal::Refused(format!("{code}: {what}; follow it with `pilot watch {run}`")));
        }
        if until <= now && state.postponed(now).is_none() {
            return Err(Refusal::Refused(format!(
                "{code}: {until} is past, and the switchover of {run} is not postponed; write --for 2h, or --until a later time"
            )));
        }
        Ok(())
    }

    /// The fold, of the driver where it is driven here.
    async fn folded(&self, run: &RunId) -> Result<Arc<State<Upgrade>>, Refusal> {
        // Whether there is such an upgrade at all.
        self.drivers.options().store.info(run).await.map_err(store)?;
        let handle = self.drivers.running(run).and_then(|running| running.handle);
        if let Some(state) = handle.map(|handle| handle.state()).filter(|state| state.spec().is_some()) {
            return Ok(state);
        }
        let folded = engine::journal::fold::<Upgrade>(&*self.drivers.options().store, run).await;
        folded.map(Arc::new).map_err(|error| Refusal::Failed(chain(&error)))
    }
}

/// What was asked for, and what is in force.
fn specs<'a>(run: &str, state: &'a State<Upgrade>) -> Result<(&'a UpgradeSpec, &'a UpgradeSpec), Refusal> {
    match (state.spec(), state.in_force()) {
        (Some(asked), Some(now)) => Ok((asked, now)),
        _ => Err(Refusal::Failed(format!("upgrade {run} has no first fact yet"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ended_upgrades_256_stay_in_memory_and_the_oldest_goes() {
        let page = include_str!("../../../deploy/json.md");
        let example = page.lines().find(|line| line.starts_with('{')).expect("a status");
        let view: StatusView = serde_json::from_str(example).expect("a status");
        let ended = Ended::default();
        let id = |n: usize| format!("up-{n:04}");
        (0..=ENDED_MAX).for_each(|n| ended.keep(&StatusView { id: id(n), ..view.clone() }));
        assert!(ended.get(&RunId(id(0))).is_none() && ended.get(&RunId(id(1))).is_some());
        assert_eq!(ended.get(&RunId(id(ENDED_MAX))).map(|view| view.id), Some(id(ENDED_MAX)));
    }
}
