//! How far a slot is behind in time: how long ago the oldest WAL that its subscriber has not confirmed was first seen. The servers
//! count bytes only. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proto::lsn::Lsn;
use proto::report::Report;
use runtime::clock::Mono;

/// Ends of the WAL that are remembered; beyond it every second one is forgotten, so that it reaches back further.
const SEEN_MAX: usize = 4096;

/// When the WAL of the serving side was seen to reach how far.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    seen: VecDeque<(Mono, Lsn)>,
}

impl Ages {
    /// Takes in a report that was made then.
    pub(crate) fn see(&mut self, report: &Report, made: Mono) {
        let Some(slots) = &report.slots else { return };
        let at = made - Duration::from_millis(slots.age_ms);
        match self.seen.back() {
            Some((_, newest)) if *newest == slots.current => return,
            // Another server serves, with a WAL of its own.
            Some((_, newest)) if *newest > slots.current => self.seen.clear(),
            _ => {}
        }
        if self.seen.len() == SEEN_MAX {
            let mut odd = false;
            self.seen.retain(|_| {
                odd = !odd;
                odd
            });
        }
        self.seen.push_back((at, slots.current));
    }

    /// Milliseconds by slot of the deployment.
    pub(crate) fn of(&self, report: &Report, now: Mono) -> BTreeMap<String, u64> {
        let slots = report.slots.iter().flat_map(|slots| &slots.slots).filter(|slot| slot.of_deployment);
        slots.filter_map(|slot| Some((slot.name.clone(), self.behind(slot.confirmed_flush?, now)))).collect()
    }

    fn behind(&self, confirmed: Lsn, now: Mono) -> u64 {
        let next = self.seen.partition_point(|(_, end)| *end <= confirmed);
        let since = self.seen.get(next).map(|(at, _)| now.since(*at)).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proto::report::{Slot, Slots};
    use runtime::clock::Clock;

    use super::*;

    fn report(current: u64, confirmed: u64) -> Report {
        let slot = Slot {
            name: "rds_a".into(),
            database: None,
            logical: true,
            active: true,
            of_deployment: true,
            confirmed_flush: Some(Lsn::new(confirmed)),
            lag_bytes: None,
            retained_bytes: None,
            wal_status: None,
        };
        let slots =
            Slots { age_ms: 0, current: Lsn::new(current), slots: vec![slot], xmin_age: None, free_bytes: None };
        Report { slots: Some(slots), ..Report::default() }
    }

    #[test]
    fn a_slot_is_as_far_behind_as_the_oldest_wal_that_it_has_not_confirmed() {
        let began = Clock::system().mono();
        let at = |second: u64| began + Duration::from_secs(second);
        let mut ages = Ages::default();
        for second in 0..10 {
            ages.see(&report(100 * (second + 1), 0), at(second));
        }
        let behind = |ages: &Ages, confirmed| ages.of(&report(1000, confirmed), at(10))["rds_a"];
        // 400 was the end from second 3 on; what came after was first seen at second 4.
        assert_eq!([behind(&ages, 1000), behind(&ages, 400), behind(&ages, 0)], [0, 6000, 10_000]);
        // After a fail-over the new server's WAL may end before the old one's did.
        ages.see(&report(500, 400), at(11));
        assert_eq!(ages.of(&report(500, 400), at(12))["rds_a"], 1000);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_reaches_far_back() {
        let began = Clock::system().mono();
        let mut ages = Ages::default();
        for second in 0..20_000 {
            ages.see(&report(second + 1, 0), began + Duration::from_secs(second));
            assert!(ages.seen.len() <= SEEN_MAX);
        }
        let behind = ages.of(&report(20_000, 0), began + Duration::from_secs(20_000))["rds_a"];
        assert_eq!(behind, 20_000_000);
    }
}
