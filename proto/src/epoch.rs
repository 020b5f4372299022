//! Fencing numbers: who may command, and which command is the newest.

use serde::{Deserialize, Serialize};

/// One acquisition of an upgrade by a driver; rises with every acquisition of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The number of an intent within an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

/// The identity of a coordinator's store; another store's numbers mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub String);

/// The highest command an agent has seen. Anything lower is not its coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    pub store: StoreId,
    pub epoch: Epoch,
    pub generation: Generation,
}

/// What a watermark says of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Newer, or the same again.
    Admitted,
    /// A deposed coordinator or a late message.
    Stale,
    /// Another store: accepted only after an operator rebinds the agent.
    ForeignStore,
}

impl Watermark {
    /// May a command of this store, epoch and generation be obeyed?
    pub fn admits(&self, store: &StoreId, epoch: Epoch, generation: Generation) -> Admission {
        if *store != self.store {
            Admission::ForeignStore
        } else if (epoch, generation) < (self.epoch, self.generation) {
            Admission::Stale
        } else {
            Admission::Admitted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_or_generation_is_stale_and_another_store_is_foreign() {
        let mark = Watermark { store: StoreId("a".into()), epoch: Epoch(4), generation: Generation(7) };
        let admit =
            |store: &str, epoch, generation| mark.admits(&StoreId(store.into()), Epoch(epoch), Generation(generation));
        assert_eq!(admit("a", 4, 7), Admission::Admitted);
        assert_eq!(admit("a", 5, 0), Admission::Admitted);
        assert_eq!(admit("a", 4, 6), Admission::Stale);
        assert_eq!(admit("a", 3, 99), Admission::Stale);
        assert_eq!(admit("b", 9, 9), Admission::ForeignStore);
    }
}
