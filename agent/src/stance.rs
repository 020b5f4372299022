//! What to do when the coordinator is gone: one pure, total function. It asks what the probe saw in the database, never
//! the agent's memory of what it was told last. Must do no I/O and read no clock.

use std::{fmt, time::Duration};

use proto::{intent::SwitchoverWindow, side::Side};
use runtime::clock::Mono;

/// Is the lease of the coordinator still running, on this agent's monotonic clock?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    Held,
    Lapsed,
}

/// A moment that may lie before this process began: `before` is what had passed when the clock showed `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    pub from: Mono,
    pub before: Duration,
}

impl Since {
    /// A moment of this process.
    pub fn at(from: Mono) -> Since {
        Since { from, before: Duration::ZERO }
    }

    /// How long ago it was.
    pub fn elapsed(&self, now: Mono) -> Duration {
        self.before.saturating_add(now.since(self.from))
    }
}

/// The switchover window as this agent has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub wish: SwitchoverWindow,
    /// The first moment it was applied with the gate held; `None` until then.
    pub held_since: Option<Since>,
    /// Which side was serving as the coordinator knew it last; green only after the cut was read.
    pub serving: Side,
}

/// Who answered behind the production endpoint just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet, or nothing answered.
    Nothing,
    /// It answered, is not one of the recorded sides.
    Stranger,
    Side {
        side: Side,
        wrote: bool,
    },
}

/// What the probe knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub production: Seen,
    /// Green accepted a write of this agent, now or once since the window opened. Never goes back.
    pub green_took_write: bool,
    /// Blue accepted a plain write through the endpoint, this many times in a row just now.
    pub blue_writes_in_a_row: u32,
}

/// What the agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stance {
    /// The coordinator is there, or nothing was ever wished.
    Obey,
    KeepHolding {
        until: Mono,
    },
    ReleaseToBlue,
    ReleaseToGreen,
    /// The coordinator is there, and green accepted a write while the gate is held: clients are let go there at once; what
    /// the coordinator wishes besides stands.
    FollowToGreen,
    /// Open the gate so that the application sees the database's own errors.
    FailOpen,
}

impl Stance {
    /// The name in reports, events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Stance::Obey => "obey",
            Stance::KeepHolding { .. } => "keep_holding",
            Stance::ReleaseToBlue => "release_to_blue",
            Stance::ReleaseToGreen => "release_to_green",
            Stance::FollowToGreen => "follow_to_green",
            Stance::FailOpen => "fail_open",
        }
    }
}

impl fmt::Display for Stance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Blue must have accepted this many plain writes in a row before it is believed to be alive for good: AWS stops its
/// writes before it drains.
const BLUE_WRITES: u32 = 2;

/// The table of the design, row by row. `Obey` whenever the lease is held, but what green took is followed without asking, and
/// nothing is held beyond `hold_max` even then.
pub fn stance(window: Option<&Window>, lease: LeaseState, probe: &Probe, now: Mono) -> Stance {
    let capped = |window: &Window| {
        let cap = Duration::from_millis(window.wish.hold_max_ms);
        window.held_since.is_some_and(|since| since.elapsed(now) >= cap)
    };
    if lease == LeaseState::Held {
        return match window {
            // The gate itself enforces the cap on what is held; a stance is needed only to say where to release to.
            Some(window) if capped(window) && window.wish.open && window.serving == Side::Blue => past_the_end(probe),
            Some(window) if window.held_since.is_some() && window.wish.open && window.serving == Side::Blue => {
                if green_writes(probe) {
                    Stance::FollowToGreen
                } else {
                    Stance::Obey
                }
            }
            _ => Stance::Obey,
        };
    }
    let Some(window) = window else { return Stance::ReleaseToBlue };
    if green_writes(probe) || window.serving == Side::Green {
        return Stance::ReleaseToGreen;
    }
    let Some(since) = window.held_since.filter(|_| window.wish.open) else { return Stance::ReleaseToBlue };
    let blue_is_alive = matches!(probe.production, Seen::Side { side: Side::Blue, wrote: true });
    if blue_is_alive && probe.blue_writes_in_a_row >= BLUE_WRITES {
        return Stance::ReleaseToBlue;
    }
    let end = Duration::from_millis(window.wish.deadline_ms.saturating_add(window.wish.grace_ms))
        .min(Duration::from_millis(window.wish.hold_max_ms));
    match end.checked_sub(since.elapsed(now)) {
        Some(left) if !left.is_zero() => Stance::KeepHolding { until: now + left },
        _ => Stance::FailOpen,
    }
}

/// The proof that there is no way back. A status is none.
fn green_writes(probe: &Probe) -> bool {
    probe.green_took_write || probe.production == Seen::Side { side: Side::Green, wrote: true }
}

fn past_the_end(probe: &Probe) -> Stance {
    if green_writes(probe) { Stance::ReleaseToGreen } else { Stance::FailOpen }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Mono = Mono(Duration::from_secs(1000));

    fn window(open: bool, held_ms: Option<u64>) -> Window {
        let wish = SwitchoverWindow { open, deadline_ms: 300_000, grace_ms: 30_000, hold_max_ms: 400_000 };
        let held_since = held_ms.map(|ms| Since { from: NOW, before: Duration::from_millis(ms) });
        Window { wish, held_since, serving: Side::Blue }
    }

    fn every_probe() -> Vec<Probe> {
        let mut all = Vec::new();
        for production in [
            Seen::Nothing,
            Seen::Stranger,
            Seen::Side { side: Side::Blue, wrote: false },
            Seen::Side { side: Side::Blue, wrote: true },
            Seen::Side { side: Side::Green, wrote: false },
            Seen::Side { side: Side::Green, wrote: true },
        ] {
            for green_took_write in [false, true] {
                for blue_writes_in_a_row in [0, 1, 2, 3] {
                    all.push(Probe { production, green_took_write, blue_writes_in_a_row });
                }
            }
        }
        all
    }

    fn writable_green(probe: &Probe) -> bool {
        probe.green_took_write || probe.production == Seen::Side { side: Side::Green, wrote: true }
    }

    #[test]
    fn while_the_lease_is_held_the_coordinator_is_obeyed() {
        for probe in every_probe() {
            for window in [None, Some(window(false, None)), Some(window(false, Some(1))), Some(window(true, None))] {
                assert_eq!(stance(window.as_ref(), LeaseState::Held, &probe, NOW), Stance::Obey, "{probe:?}");
            }
        }
    }

    #[test]
    fn while_held_what_green_took_is_followed_without_asking_the_coordinator() {
        for probe in every_probe() {
            let expected = if writable_green(&probe) { Stance::FollowToGreen } else { Stance::Obey };
            for held in [0, 1, 330_001, 399_999] {
                let window = window(true, Some(held));
                assert_eq!(stance(Some(&window), LeaseState::Held, &probe, NOW), expected, "{probe:?}");
                let read = Window { serving: Side::Green, ..window };
                assert_eq!(stance(Some(&read), LeaseState::Held, &probe, NOW), Stance::Obey, "the cut was read");
            }
        }
    }

    #[test]
    fn without_a_window_everything_is_released_to_blue() {
        for probe in every_probe() {
            assert_eq!(stance(None, LeaseState::Lapsed, &probe, NOW), Stance::ReleaseToBlue, "{probe:?}");
        }
    }

    #[test]
    fn an_announced_window_releases_to_blue_unless_green_writes() {
        for probe in every_probe() {
            let expected = if writable_green(&probe) { Stance::ReleaseToGreen } else { Stance::ReleaseToBlue };
            for window in [window(false, None), window(false, Some(1)), window(true, None)] {
                assert_eq!(stance(Some(&window), LeaseState::Lapsed, &probe, NOW), expected, "{probe:?}");
            }
        }
    }

    #[test]
    fn an_open_window_asks_the_database() {
        for probe in every_probe() {
            let blue = probe.production == Seen::Side { side: Side::Blue, wrote: true };
            let expected = if writable_green(&probe) {
                Stance::ReleaseToGreen
            } else if blue && probe.blue_writes_in_a_row >= 2 {
                Stance::ReleaseToBlue
            } else {
                Stance::KeepHolding { until: NOW + Duration::from_millis(330_000 - 10_000) }
            };
            let window = window(true, Some(10_000));
            assert_eq!(stance(Some(&window), LeaseState::Lapsed, &probe, NOW), expected, "{probe:?}");
        }
    }

    #[test]
    fn past_deadline_and_grace_or_the_cap_it_fails_open_unless_the_database_speaks() {
        for held in [330_000, 330_001, 400_000, 9_000_000] {
            for probe in every_probe() {
                let blue = probe.production == Seen::Side { side: Side::Blue, wrote: true };
                let expected = if writable_green(&probe) {
                    Stance::ReleaseToGreen
                } else if blue && probe.blue_writes_in_a_row >= 2 {
                    Stance::ReleaseToBlue
                } else {
                    Stance::FailOpen
                };
                assert_eq!(stance(Some(&window(true, Some(held))), LeaseState::Lapsed, &probe, NOW), expected);
            }
        }
    }

    #[test]
    fn the_cap_holds_under_a_held_lease_too() {
        for probe in every_probe() {
            let expected = if writable_green(&probe) { Stance::ReleaseToGreen } else { Stance::FailOpen };
            assert_eq!(stance(Some(&window(true, Some(400_000))), LeaseState::Held, &probe, NOW), expected);
        }
    }

    #[test]
    fn after_the_cut_was_read_nothing_releases_to_blue() {
        for probe in every_probe() {
            for (open, held) in [(false, None), (true, None), (true, Some(1)), (true, Some(9_000_000))] {
                let window = Window { serving: Side::Green, ..window(open, held) };
                assert_eq!(stance(Some(&window), LeaseState::Lapsed, &probe, NOW), Stance::ReleaseToGreen);
            }
        }
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            Just(Seen::Nothing),
            Just(Seen::Stranger),
            (prop_oneof![Just(Side::Blue), Just(Side::Green)], any::<bool>())
                .prop_map(|(side, wrote)| Seen::Side { side, wrote }),
        ]
    }

    proptest! {
        /// A run of the probe through a window with lease losses: the folded evidence, as `probe.rs` folds it.
        #[test]
        fn never_to_blue_after_a_writable_green_and_never_held_beyond_the_cap(
            steps in proptest::collection::vec((any_seen(), any::<bool>(), 1_u64..30_000), 1..200)
        ) {
            let mut probe = Probe { production: Seen::Nothing, green_took_write: false, blue_writes_in_a_row: 0 };
            let mut now = NOW;
            let window = Window { held_since: Some(Since::at(NOW)), ..window(true, None) };
            for (seen, lapsed, passed) in steps {
                now += Duration::from_millis(passed);
                probe.production = seen;
                probe.green_took_write |= seen == Seen::Side { side: Side::Green, wrote: true };
                let blue = seen == Seen::Side { side: Side::Blue, wrote: true };
                probe.blue_writes_in_a_row = if blue { probe.blue_writes_in_a_row + 1 } else { 0 };
                let lease = if lapsed { LeaseState::Lapsed } else { LeaseState::Held };
                let got = stance(Some(&window), lease, &probe, now);
                if probe.green_took_write {
                    prop_assert_ne!(got, Stance::ReleaseToBlue);
                    prop_assert!(!matches!(got, Stance::Obey | Stance::KeepHolding { .. }), "held on after the proof");
                } else {
                    prop_assert!(!matches!(got, Stance::FollowToGreen | Stance::ReleaseToGreen), "without a proof");
                }
                let held = now - NOW;
                if held >= Duration::from_millis(400_000) {
                    prop_assert!(!matches!(got, Stance::Obey | Stance::KeepHolding { .. }), "{got:?} after {held:?}");
                }
                if let Stance::KeepHolding { until } = got {
                    prop_assert!(until - NOW <= Duration::from_millis(330_000));
                }
            }
        }
    }
}
