//! Where the servers themselves say that a switchover stands: AWS's in-database status, its phases in order, and when each was
//! seen. A sign, never a proof: it may be late, absent or stuck.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::side::Side;

/// A phase, by AWS's own word. The order is that of a switchover; a status that is none of them stands after all and is kept
/// as it was said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum SwitchoverPhase {
    /// The deployment is ready.
    Available,
    /// Guardrails are read; everything serves.
    Initiated,
    /// No connections and no writes; it may still be taken back.
    InProgress,
    /// Green accepts writes, names are still moving.
    PostProcessing,
    /// Names have moved.
    Completed,
    Unknown(String),
}

impl SwitchoverPhase {
    /// The text as the servers say it.
    pub fn as_str(&self) -> &str {
        match self {
            SwitchoverPhase::Available => "AVAILABLE",
            SwitchoverPhase::Initiated => "SWITCHOVER_INITIATED",
            SwitchoverPhase::InProgress => "SWITCHOVER_IN_PROGRESS",
            SwitchoverPhase::PostProcessing => "SWITCHOVER_IN_POST_PROCESSING",
            SwitchoverPhase::Completed => "SWITCHOVER_COMPLETED",
            SwitchoverPhase::Unknown(text) => text,
        }
    }

    /// The label in metrics, from a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            SwitchoverPhase::Available => "available",
            SwitchoverPhase::Initiated => "initiated",
            SwitchoverPhase::InProgress => "in_progress",
            SwitchoverPhase::PostProcessing => "post_processing",
            SwitchoverPhase::Completed => "completed",
            SwitchoverPhase::Unknown(_) => "unknown",
        }
    }

    /// Does it say that green accepts writes?
    pub fn says_green(&self) -> bool {
        matches!(self, SwitchoverPhase::PostProcessing | SwitchoverPhase::Completed)
    }

    /// Does it say that blue still accepts writes?
    pub fn says_blue(&self) -> bool {
        matches!(self, SwitchoverPhase::Available | SwitchoverPhase::Initiated)
    }
}

impl From<String> for SwitchoverPhase {
    fn from(text: String) -> SwitchoverPhase {
        use SwitchoverPhase as P;
        let known = [P::Available, P::Initiated, P::InProgress, P::PostProcessing, P::Completed];
        known.into_iter().find(|phase| phase.as_str() == text).unwrap_or(P::Unknown(text))
    }
}

impl From<SwitchoverPhase> for String {
    fn from(phase: SwitchoverPhase) -> String {
        phase.as_str().to_owned()
    }
}

impl fmt::Display for SwitchoverPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which function a server has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusSource {
    /// `get_blue_green_fast_switchover_metadata`, on Aurora.
    FastSwitchoverMetadata,
    /// `rds_tools.show_topology`, on RDS for PostgreSQL.
    ShowTopology,
}

/// What the servers of both sides say, asked by address while a switchover is announced or going on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SwitchoverStatus {
    pub blue: Option<SideStatus>,
    pub green: Option<SideStatus>,
    /// Every change since the window was announced, oldest first, at most [`CHANGES_MAX`].
    pub changes: Vec<PhaseChange>,
}

/// Changes that a report carries at most: a status that flaps must not grow it.
pub const CHANGES_MAX: usize = 32;

/// What the writer of a side said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideStatus {
    pub age_ms: u64,
    /// `None`: it has no such function, and there is no status.
    pub source: Option<StatusSource>,
    /// `None`: it has no row.
    pub phase: Option<SwitchoverPhase>,
}

/// A side's server began to say something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseChange {
    pub at: Timestamp,
    pub side: Side,
    /// `None`: the rows went.
    pub phase: Option<SwitchoverPhase>,
    /// Milliseconds from the first sight of `SWITCHOVER_IN_PROGRESS` on either side; negative before it, `None` while it was not
    /// seen.
    pub offset_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_the_order_of_a_switchover_and_an_unknown_word_is_kept() {
        let words = ["AVAILABLE", "SWITCHOVER_INITIATED", "SWITCHOVER_IN_PROGRESS", "SWITCHOVER_IN_POST_PROCESSING"];
        let words: Vec<&str> = words.into_iter().chain(["SWITCHOVER_COMPLETED", "SOMETHING_NEW"]).collect();
        let phases: Vec<SwitchoverPhase> = words.iter().map(|word| (*word).to_owned().into()).collect();
        assert!(phases.is_sorted());
        for (phase, word) in phases.iter().zip(&words) {
            assert_eq!(serde_json::to_value(phase).unwrap(), serde_json::json!(word));
            assert_eq!(serde_json::from_value::<SwitchoverPhase>(serde_json::json!(word)).unwrap(), *phase);
        }
        assert_eq!(phases[5], SwitchoverPhase::Unknown("SOMETHING_NEW".into()));
    }

    #[test]
    fn no_phase_speaks_for_both_sides() {
        for word in ["AVAILABLE", "SWITCHOVER_INITIATED", "SWITCHOVER_IN_PROGRESS", "SWITCHOVER_COMPLETED", "", "x"] {
            let phase = SwitchoverPhase::from(word.to_owned());
            assert!(!(phase.says_blue() && phase.says_green()), "{phase}");
        }
    }
}
