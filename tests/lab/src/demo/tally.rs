//! What a client felt: the gaps between its acknowledged statements, and the statements that failed. Nobody's stall is
//! hidden: gaps are kept for every client, those whose statements were held included.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Gaps shorter than this are ordinary.
const NOTABLE: Duration = Duration::from_millis(20);
/// The longest list of gaps that is kept; beyond it only longer ones replace shorter ones.
const KEPT: usize = 4_096;

/// A stretch without an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last acknowledgement before it, since the demo's start.
    pub from: Duration,
    /// The first after it.
    pub to: Duration,
}

impl Gap {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

/// What one client felt so far.
#[derive(Clone, Debug, Default)]
pub struct Felt {
    /// Notable gaps, in order of time.
    pub gaps: Vec<Gap>,
    /// The longest gap.
    pub longest: Duration,
    /// Acknowledged statements.
    pub done: u64,
    /// Failed statements by SQLSTATE (failed connections are not statements).
    pub failed: BTreeMap<String, u64>,
    /// Attempts to connect that failed, by SQLSTATE or a word of ours.
    pub unconnected: BTreeMap<String, u64>,
    last: Option<Duration>,
}

impl Felt {
    /// The longest gap that overlaps the stretch from `from` to `to`.
    pub fn longest_within(&self, from: Duration, to: Duration) -> Duration {
        // A client that has not come back by the end of the stretch has its gap there.
        let open = self.last.map(|last| Gap { from: last, to }).filter(|gap| gap.length() > Duration::from_secs(1));
        let closed = self.gaps.iter().filter(|gap| gap.to > from && gap.from < to).copied();
        closed.chain(open).map(|gap| gap.length()).max().unwrap_or_default()
    }

    /// All failed statements.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// The tally of one client.
#[derive(Debug)]
pub struct Tally {
    /// The client's name in the summary.
    pub name: String,
    /// Whether its statements go through the pooler, which can hold them.
    pub held: bool,
    /// Whether it writes.
    pub writes: bool,
    felt: Mutex<Felt>,
}

impl Tally {
    /// An empty one.
    pub fn new(name: &str, held: bool, writes: bool) -> Self {
        Self { name: name.to_owned(), held, writes, felt: Mutex::default() }
    }

    fn felt(&self) -> MutexGuard<'_, Felt> {
        self.felt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement was acknowledged at this time.
    pub fn done(&self, at: Duration) {
        let mut felt = self.felt();
        if let Some(from) = felt.last {
            let gap = Gap { from, to: at };
            felt.longest = felt.longest.max(gap.length());
            if gap.length() >= NOTABLE {
                keep(&mut felt.gaps, gap);
            }
        }
        felt.last = Some(at);
        felt.done += 1;
    }

    /// The client has nothing to do for a while: what follows is not a gap.
    pub fn idle(&self) {
        self.felt().last = None;
    }

    /// A statement failed.
    pub fn failed(&self, code: &str) {
        *self.felt().failed.entry(code.to_owned()).or_insert(0) += 1;
    }

    /// An attempt to connect failed.
    pub fn unconnected(&self, code: &str) {
        *self.felt().unconnected.entry(code.to_owned()).or_insert(0) += 1;
    }

    /// A copy of what was felt.
    pub fn snapshot(&self) -> Felt {
        self.felt().clone()
    }
}

fn keep(gaps: &mut Vec<Gap>, gap: Gap) {
    if gaps.len() >= KEPT {
        let shortest = gaps.iter().enumerate().min_by_key(|(_, gap)| gap.length()).map(|(n, gap)| (n, gap.length()));
        match shortest {
            Some((n, length)) if length < gap.length() => {
                gaps.remove(n);
            }
            _ => return,
        }
    }
    gaps.push(gap);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_longest_gap_is_found_in_the_stretch_that_it_overlaps() {
        let tally = Tally::new("direct", false, true);
        for at in [0, 5, 1_005, 1_010, 1_110, 1_115] {
            tally.done(ms(at));
        }
        let felt = tally.snapshot();
        assert_eq!(felt.longest, ms(1_000));
        assert_eq!(felt.longest_within(ms(1_010), ms(2_000)), ms(100));
        assert_eq!(felt.longest_within(ms(0), ms(900)), ms(1_000));
        assert_eq!(felt.done, 6);
    }

    #[test]
    fn an_idle_client_has_no_gap() {
        let tally = Tally::new("direct", false, true);
        tally.done(ms(0));
        tally.idle();
        tally.done(ms(5_000));
        assert_eq!(tally.snapshot().longest, ms(0));
    }
}
