//! Slots: lag that does not move, WAL and dead rows that they keep, slots that are lost. Warns, holds the switchover, unwinds
//! (field rule 4.4). While green is still being made its slots stand still and nobody reads them: then only what they keep counts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use engine::{Alarm, Monitor, MonitorId};
use proto::lsn::Lsn;
use proto::report::{Slot, Slots};
use runtime::clock::Mono;

use super::{Context, EVERY, has_slots, hold, note, tell, unwind};
use crate::{spec::Replication, steps::codes, world::Upgrade};

pub(super) struct ReplicationLag;

impl Monitor<Upgrade> for ReplicationLag {
    const ID: MonitorId = MonitorId("replication_lag");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut progress = Progress::default();
        loop {
            if has_slots(&cx) {
                let report = cx.world().agents.lead_report();
                if let Some(slots) = report.as_ref().and_then(|report| report.value.slots.as_ref()) {
                    let still = match replicating(&cx) {
                        true => progress.note(slots, cx.clock().mono()),
                        false => BTreeMap::new(),
                    };
                    let paused = cx.world().agents.reports().iter().any(|(_, report)| {
                        report.as_ref().is_some_and(|report| report.value.ingestion_paused_ms.is_some())
                    });
                    tell(&cx, judge(slots, &cx.spec().replication, &still, paused)).await;
                }
            } else {
                progress = Progress::default();
                cx.clear().await;
            }
            cx.clock().sleep(EVERY).await;
        }
    }
}

/// Green is there and production is still blue.
pub(super) fn replicating(cx: &Context<'_>) -> bool {
    let state = cx.state();
    let done = |name: &str| state.steps().iter().any(|step| step.id.as_str() == name && step.passed());
    done("provisioning") && state.reversible() && !state.committed()
}

/// Since when each slot has not moved although it is behind.
#[derive(Default)]
struct Progress {
    slots: BTreeMap<String, (Option<Lsn>, Mono)>,
}

impl Progress {
    /// How long each slot that is behind has stood still.
    fn note(&mut self, slots: &Slots, now: Mono) -> BTreeMap<String, Duration> {
        let mut still = BTreeMap::new();
        for slot in slots.slots.iter().filter(|slot| slot.of_deployment) {
            let entry = self.slots.entry(slot.name.clone()).or_insert((slot.confirmed_flush, now));
            let behind = slot.lag_bytes.is_none_or(|bytes| bytes > 0);
            if entry.0 != slot.confirmed_flush || !behind {
                *entry = (slot.confirmed_flush, now);
            }
            still.insert(slot.name.clone(), now.since(entry.1));
        }
        still
    }
}

/// The gravest of what the slots show. The WAL that slots of others keep counts too: it fills the same disk. Unwinding helps against it
/// only while ingestion is `paused` by us: then a source that we stopped goes on.
fn judge(slots: &Slots, limits: &Replication, still: &BTreeMap<String, Duration>, paused: bool) -> Option<Alarm> {
    let ours = || slots.slots.iter().filter(|slot| slot.of_deployment);
    if let Some(slot) = ours().find(|slot| slot.wal_status.as_deref() == Some("lost")) {
        return Some(unwind(codes::SLOT_TROUBLE, format!("slot {} is lost", slot.name)));
    }
    let all = |max: u64| slots.slots.iter().filter(move |slot| slot.retained_bytes.is_some_and(|bytes| bytes > max));
    let retained = |max: u64| all(max).next();
    let keeps = |slot: &Slot| {
        let whose = if slot.of_deployment { "slot" } else { "another's slot" };
        format!("{whose} {} keeps {} bytes of WAL", slot.name, slot.retained_bytes.unwrap_or(0))
    };
    if let Some(slot) = all(limits.retained_bytes_unwind).find(|slot| slot.of_deployment || paused) {
        return Some(unwind(codes::SLOT_TROUBLE, keeps(slot)));
    }
    let held_back = |max: u64| slots.xmin_age.filter(|age| *age > max);
    let xmin = |age: u64| format!("slots keep dead rows of the last {age} transactions from being vacuumed");
    if let Some(age) = held_back(limits.xmin_age_unwind) {
        return Some(unwind(codes::XMIN_HELD, xmin(age)));
    }
    let stalled = Duration::from_secs(limits.stalled_seconds_max);
    if let Some((name, time)) = still.iter().find(|(_, time)| **time > stalled) {
        return Some(unwind(codes::SLOT_TROUBLE, format!("slot {name} has not moved for {} s", time.as_secs())));
    }
    if let Some(slot) = retained(limits.retained_bytes_hold) {
        return Some(hold(codes::SLOT_TROUBLE, keeps(slot)));
    }
    if let Some(slot) = ours().find(|slot| slot.wal_status.as_deref() == Some("unreserved")) {
        return Some(hold(
            codes::SLOT_TROUBLE,
            format!("slot {} is about to be lost: its WAL is unreserved", slot.name),
        ));
    }
    if let Some(age) = held_back(limits.xmin_age_hold) {
        return Some(hold(codes::XMIN_HELD, xmin(age)));
    }
    let idle = || ours().find(|slot| !slot.active && still.get(&slot.name).is_some_and(|time| time.as_secs() >= 5));
    if let Some(slot) = idle() {
        return Some(hold(codes::SLOT_TROUBLE, format!("nobody reads slot {}", slot.name)));
    }
    if let Some(slot) = retained(limits.retained_bytes_warn) {
        return Some(note(codes::SLOT_TROUBLE, keeps(slot)));
    }
    held_back(limits.xmin_age_warn).map(|age| note(codes::XMIN_HELD, xmin(age)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::UpgradeSpec;

    fn slots(change: impl FnOnce(&mut Slot)) -> Slots {
        let mut slot = Slot {
            name: "rds_1".into(),
            database: Some("orders".into()),
            logical: true,
            active: true,
            of_deployment: true,
            confirmed_flush: Some(Lsn::new(1)),
            lag_bytes: Some(10),
            retained_bytes: Some(0),
            wal_status: Some("reserved".into()),
        };
        change(&mut slot);
        Slots { age_ms: 0, current: Lsn::new(11), slots: vec![slot], xmin_age: None, free_bytes: None }
    }

    fn check(slots: &Slots, still_seconds: u64) -> Option<Alarm> {
        let limits = UpgradeSpec::new("orders", "16").replication;
        judge(slots, &limits, &BTreeMap::from([("rds_1".to_owned(), Duration::from_secs(still_seconds))]), false)
    }

    #[test]
    fn a_healthy_slot_raises_nothing() {
        assert_eq!(check(&slots(|_| {}), 0), None);
    }

    #[test]
    fn a_lost_or_stalled_slot_unwinds_and_an_unread_one_holds() {
        assert!(matches!(check(&slots(|slot| slot.wal_status = Some("lost".into())), 0), Some(Alarm::Unwind(_))));
        assert!(matches!(check(&slots(|_| {}), 901), Some(Alarm::Unwind(_))));
        assert!(matches!(check(&slots(|slot| slot.active = false), 6), Some(Alarm::Hold(_))));
    }

    #[test]
    fn kept_wal_warns_then_holds_then_unwinds() {
        let kept = |gib: u64| check(&slots(|slot| slot.retained_bytes = Some(gib << 30)), 0);
        assert!(matches!(kept(21), Some(Alarm::Note(_))));
        assert!(matches!(kept(51), Some(Alarm::Hold(_))));
        assert!(matches!(kept(201), Some(Alarm::Unwind(_))));
    }

    #[test]
    fn wal_that_another_s_slot_keeps_warns_and_holds_and_unwinds_only_what_we_paused() {
        let limits = UpgradeSpec::new("orders", "16").replication;
        let kept = |gib: u64, paused: bool| {
            let others = slots(|slot| {
                (slot.name, slot.of_deployment) = ("debezium".into(), false);
                slot.retained_bytes = Some(gib << 30);
            });
            judge(&others, &limits, &BTreeMap::new(), paused)
        };
        assert_eq!(kept(20, true), None);
        assert!(
            matches!(kept(21, false), Some(Alarm::Note(why)) if why.to_string().contains("another's slot debezium keeps"))
        );
        assert!(matches!(kept(51, false), Some(Alarm::Hold(_))));
        assert!(matches!(kept(201, false), Some(Alarm::Hold(_))), "unwinding would not free it");
        assert!(matches!(kept(201, true), Some(Alarm::Unwind(_))));
    }

    #[test]
    fn an_old_xmin_warns_then_holds_then_unwinds_and_a_missing_one_does_nothing() {
        let aged = |millions: u64| {
            let mut slots = slots(|_| {});
            slots.xmin_age = Some(millions * 1_000_000);
            check(&slots, 0)
        };
        assert!(matches!(aged(51), Some(Alarm::Note(why)) if why.code == codes::XMIN_HELD));
        assert!(matches!(aged(201), Some(Alarm::Hold(why)) if why.code == codes::XMIN_HELD));
        assert!(matches!(aged(501), Some(Alarm::Unwind(why)) if why.code == codes::XMIN_HELD));
        assert_eq!(aged(49), None);
    }

    #[test]
    fn a_slot_whose_wal_is_unreserved_holds() {
        let status = |text: &str| check(&slots(|slot| slot.wal_status = Some(text.into())), 0);
        assert!(matches!(status("unreserved"), Some(Alarm::Hold(_))));
        assert_eq!(status("extended"), None);
    }

    #[test]
    fn while_green_is_made_only_what_slots_keep_counts() {
        let limits = UpgradeSpec::new("orders", "16").replication;
        let making = |change: fn(&mut Slot)| judge(&slots(change), &limits, &BTreeMap::new(), false);
        assert_eq!(making(|slot| slot.active = false), None);
        assert!(matches!(making(|slot| slot.retained_bytes = Some(201 << 30)), Some(Alarm::Unwind(_))));
    }

    #[test]
    fn a_slot_that_moves_is_not_stalled() {
        let mut progress = Progress::default();
        let at = |seconds| Mono(Duration::from_secs(seconds));
        progress.note(&slots(|_| {}), at(0));
        assert_eq!(progress.note(&slots(|_| {}), at(9))["rds_1"], Duration::from_secs(9));
        let moved = slots(|slot| slot.confirmed_flush = Some(Lsn::new(5)));
        assert_eq!(progress.note(&moved, at(10))["rds_1"], Duration::ZERO);
        let level = slots(|slot| slot.lag_bytes = Some(0));
        assert_eq!(progress.note(&level, at(99))["rds_1"], Duration::ZERO);
    }
}
