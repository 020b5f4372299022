//! Journals that no driver of this process drives, folded: each is read from where the last reading ended, since facts are never
//! changed. For people's questions only; a driver folds for itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::journal::{FoldError, entries};
use engine::{JournalError, RunId, Seq, State, StepId};
use jiff::Timestamp;

use super::tally::Tally;
use crate::sampling::recall_waits;
use crate::store::Store;
use crate::world::Upgrade;

/// Folds in memory; those of the oldest upgrades go first.
const FOLDS_MAX: usize = 128;
/// Samples read back for the waits of an upgrade.
const SAMPLES_READ: u32 = 20_000;

/// A journal up to some fact.
#[derive(Clone)]
pub(crate) struct Fold {
    pub(crate) state: State<Upgrade>,
    /// With the waits that the upgrade's samples tell of.
    pub(crate) tally: Tally,
    /// Without them.
    counted: Tally,
}

/// See the top of the file. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Folds(Arc<Mutex<BTreeMap<RunId, Arc<Fold>>>>);

/// Why a journal was not folded.
pub(crate) enum Unread {
    /// This version cannot read it.
    Fold(FoldError),
    Store(JournalError),
}

impl Folds {
    /// The journal as it stands now.
    pub(crate) async fn newest(&self, store: &dyn Store, id: &RunId) -> Result<Arc<Fold>, Unread> {
        let known = self.lock().get(id).cloned();
        // After the last fact none comes.
        if let Some(ended) = known.as_ref().filter(|fold| fold.state.outcome().is_some()) {
            return Ok(Arc::clone(ended));
        }
        let from = known.as_ref().map_or(Seq(0), |fold| fold.state.next_seq());
        let news = entries::<Upgrade>(store, id, from).await.map_err(Unread::Fold)?;
        let (mut state, mut counted) = match known {
            Some(known) if news.is_empty() => return Ok(known),
            Some(known) => (known.state.clone(), known.counted.clone()),
            None => (State::empty(), Tally::default()),
        };
        for entry in &news {
            state = state.apply(entry).map_err(|source| Unread::Fold(FoldError::Illegal { id: id.clone(), source }))?;
            counted.apply(entry);
        }
        let mut tally = counted.clone();
        recall_waits(&store.samples(id, SAMPLES_READ).await.map_err(Unread::Store)?, &mut tally);
        let fold = Arc::new(Fold { state, tally, counted });
        let mut folds = self.lock();
        folds.insert(id.clone(), Arc::clone(&fold));
        if folds.len() > FOLDS_MAX {
            folds.pop_first();
        }
        Ok(fold)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Arc<Fold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step took in earlier upgrades, without what it waited for a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Before {
    pub median_seconds: f64,
    pub least_seconds: f64,
    pub most_seconds: f64,
    pub upgrades: usize,
}

/// Over upgrades whose step was done; none of them, no entry. Pure.
pub(crate) fn before<'a>(earlier: impl Iterator<Item = &'a Fold>) -> BTreeMap<StepId, Before> {
    let mut took: BTreeMap<StepId, Vec<f64>> = BTreeMap::new();
    for fold in earlier {
        let done = fold.state.steps().iter().filter(|step| step.status == engine::Status::Done);
        for step in done {
            let seconds = fold.tally.steps.get(&step.id).and_then(|times| times.worked(Timestamp::MAX));
            took.entry(step.id).or_default().extend(seconds);
        }
    }
    let summed = took.into_iter().filter_map(|(step, mut seconds)| {
        seconds.sort_by(f64::total_cmp);
        let (least_seconds, most_seconds) = (*seconds.first()?, *seconds.last()?);
        let median_seconds = seconds[seconds.len() / 2];
        Some((step, Before { median_seconds, least_seconds, most_seconds, upgrades: seconds.len() }))
    });
    summed.collect()
}
