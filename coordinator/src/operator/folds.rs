//! Journals that no driver of this process drives, folded: each is read from where the last reading ended, since facts are never
//! changed. For people's questions only; a driver folds for itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::journal::{FoldError, entries};
use engine::{JournalError, RunId, Seq, State};

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
