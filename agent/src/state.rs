//! What the agent's tasks share: the wish, the lease, the stance, what the probe knows, and the newest picture of each
//! watcher. Values are last-value (`watch`); nothing here acts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use proto::{
    epoch::{Epoch, Generation, Watermark},
    intent::{GateWish, IngestionWish, Intent, PurgePolicy, Refusal},
    report::{self, Event},
    side::{Side, SideIdentity},
};
use runtime::clock::{Clock, Mono};
use tokio::sync::watch;

use crate::{
    pg::Dialer,
    spool::{Memory, Spool},
    stance::{LeaseState, Probe, Seen, Since, Stance},
    status::Chart,
};

/// Refusals remembered as logged; beyond it the memory begins anew.
const REFUSED_MAX: usize = 256;
/// Between two readings of this process's memory.
const RESIDENT_EVERY: Duration = Duration::from_secs(1);

/// What this agent is among the agents of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Helper,
    Lead,
}

/// Until when the coordinator's word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    pub until: Option<Mono>,
}

impl Lease {
    pub fn state(self, now: Mono) -> LeaseState {
        match self.until {
            Some(until) if now < until => LeaseState::Held,
            _ => LeaseState::Lapsed,
        }
    }
}

/// How an intent ended here.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    pub epoch: Epoch,
    pub generation: Generation,
    /// What was observed, or why it was refused.
    pub result: Result<serde_json::Value, Refusal>,
}

/// What the agent does right now: the wish, as the stance lets it stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Stop everything, and hold clients where that is possible.
    pub hold: bool,
    /// Pause ingestion that does not hold clients.
    pub pause: bool,
    pub purge: Option<PurgePolicy>,
    /// Where clients are to be released to.
    pub serving: Side,
}

/// The wish as `stance` lets it stand.
pub fn effective(intent: &Intent, stance: Stance) -> Effective {
    let wished = Effective {
        hold: intent.gate == GateWish::Hold,
        pause: matches!(intent.ingestion, IngestionWish::Paused { .. }),
        purge: intent.purger.clone(),
        serving: intent.targets.serving,
    };
    let open = Effective { hold: false, pause: false, purge: None, serving: wished.serving };
    match stance {
        Stance::Obey => wished,
        Stance::KeepHolding { .. } => Effective { purge: None, ..wished },
        Stance::FailOpen => open,
        // The coordinator is there: what it wishes of ingestion stands.
        Stance::FollowToGreen => Effective { hold: false, purge: None, serving: Side::Green, ..wished },
        // Once the coordinator read the cut, blue is never served again whatever the stance is called.
        Stance::ReleaseToBlue => open,
        Stance::ReleaseToGreen => Effective { serving: Side::Green, ..open },
    }
}

/// What the probe knows, folded; the report and the stance are made of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeState {
    pub production: Option<(Mono, report::Outcome)>,
    pub green: Option<(Mono, report::Outcome)>,
    pub green_took_write: bool,
    pub blue_writes_in_a_row: u32,
    pub write_unavailable: Duration,
    pub read_unavailable: Duration,
    /// Where green last accepted a write: its writer, whatever a failover did.
    pub green_writer: Option<(IpAddr, u16)>,
}

impl ProbeState {
    /// What the stance asks of it.
    pub fn evidence(&self) -> Probe {
        let production = match &self.production {
            Some((_, report::Outcome::Answered { side: Some(side), wrote, .. })) => {
                Seen::Side { side: *side, wrote: *wrote }
            }
            Some((_, report::Outcome::Answered { side: None, .. })) => Seen::Stranger,
            Some((_, report::Outcome::Unreachable { .. })) | None => Seen::Nothing,
        };
        Probe { production, green_took_write: self.green_took_write, blue_writes_in_a_row: self.blue_writes_in_a_row }
    }

    /// The same state but for the times of its looks? Only a change of this kind is worth an early report.
    pub fn says_the_same(&self, other: &ProbeState) -> bool {
        let outcome = |seen: &Option<(Mono, report::Outcome)>| seen.as_ref().map(|(_, outcome)| outcome.clone());
        outcome(&self.production) == outcome(&other.production)
            && outcome(&self.green) == outcome(&other.green)
            && self.green_took_write == other.green_took_write
            && self.blue_writes_in_a_row.min(2) == other.blue_writes_in_a_row.min(2)
    }
}

/// The newest picture of each watcher, with the moment it was made.
#[derive(Debug, Clone, Default)]
pub struct Pictures {
    pub slots: Option<(Mono, report::Slots)>,
    pub sessions: Option<report::Sessions>,
    pub controllers: BTreeMap<String, (Mono, report::Controller)>,
    pub marker: Option<(Mono, report::MarkerDelay)>,
    pub schema: Option<(Mono, report::SchemaWatch)>,
    pub old_side: Option<(Mono, report::OldSide)>,
    pub partitions: Option<(Mono, report::Partitions)>,
    pub purged_total: u64,
    pub ended_total: u64,
    pub resubmitted_total: u64,
}

/// Moments that caps are counted from. They survive a restart by wall time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moments {
    pub window_held: Option<Since>,
    pub held: Option<Since>,
    pub paused: Option<Since>,
}

/// Everything shared. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

pub struct Inner {
    pub clock: Clock,
    pub spool: Spool,
    pub dialer: Dialer,
    pub intent: watch::Sender<Option<Arc<Intent>>>,
    pub watermark: watch::Sender<Option<Watermark>>,
    pub lease: watch::Sender<Lease>,
    pub role: watch::Sender<Role>,
    pub stance: watch::Sender<Stance>,
    pub settled: watch::Sender<Option<Settled>>,
    pub probe: watch::Sender<ProbeState>,
    /// What the servers say of the switchover; a change of what they say is a change of this.
    pub status: watch::Sender<Chart>,
    pub moments: watch::Sender<Moments>,
    /// Held by the purger around each round, so that "off" can be awaited.
    pub purging: tokio::sync::Mutex<()>,
    /// Commands that were refused and logged: why, what, and of which coordinator's epoch.
    refused: Mutex<BTreeSet<(&'static str, &'static str, u64)>>,
    pictures: Mutex<Pictures>,
    /// Resident memory, and when it was read: a report every 25 ms needs no fresh one.
    resident: Mutex<Option<(Mono, Option<u64>)>>,
}

impl std::ops::Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Shared {
    /// A command of this epoch is not obeyed: counted, and logged once for why, what and epoch.
    pub fn refused(&self, reason: &'static str, what: &'static str, epoch: Epoch) {
        crate::metrics::refused(reason);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let line = (reason, what, epoch.0);
        if !refused.contains(&line) {
            if refused.len() >= REFUSED_MAX {
                refused.clear();
            }
            refused.insert(line);
            tracing::warn!(reason, what, epoch = epoch.0, "a command was refused");
        }
    }

    /// What was logged as refused.
    #[cfg(test)]
    pub(crate) fn refusals(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// As it was when the last process of this agent ended.
    pub fn new(clock: Clock, spool: Spool, dialer: Dialer, memory: Memory) -> Shared {
        let (now, wall) = (clock.mono(), clock.now());
        let since = |at: Option<Timestamp>| at.map(|at| Since { from: now, before: between(at, wall) });
        let moments = Moments {
            window_held: since(memory.window_held_since),
            held: since(memory.held_since),
            paused: since(memory.paused_since),
        };
        let upgrade = memory.intent.as_ref().map(|intent| intent.upgrade.to_string());
        let green_took_write = memory.green_took_write.is_some() && memory.green_took_write == upgrade;
        dialer.seed(memory.addresses.into_iter().collect());
        Shared(Arc::new(Inner {
            clock,
            spool,
            dialer,
            intent: watch::Sender::new(memory.intent.map(Arc::new)),
            watermark: watch::Sender::new(memory.watermark),
            lease: watch::Sender::new(Lease::default()),
            role: watch::Sender::new(Role::Helper),
            stance: watch::Sender::new(Stance::Obey),
            settled: watch::Sender::new(None),
            probe: watch::Sender::new(ProbeState { green_took_write, ..ProbeState::default() }),
            status: watch::Sender::new(Chart::default()),
            moments: watch::Sender::new(moments),
            purging: tokio::sync::Mutex::new(()),
            refused: Mutex::default(),
            pictures: Mutex::default(),
            resident: Mutex::default(),
        }))
    }

    /// The wish and what stands of it; `None` before the first intent.
    pub fn effective(&self) -> Option<(Arc<Intent>, Effective)> {
        let intent = self.intent.borrow().clone()?;
        let effective = effective(&intent, *self.stance.borrow());
        Some((intent, effective))
    }

    pub fn is_lead(&self) -> bool {
        *self.role.borrow() == Role::Lead
    }

    /// Is the cut going on: a window is open, or something is held?
    pub fn in_window(&self) -> bool {
        let open = |intent: &Intent| intent.window.is_some_and(|window| window.open) || intent.gate == GateWish::Hold;
        self.intent.borrow().as_deref().is_some_and(open)
    }

    /// The side that serves, as far as this agent knows, with the wish it is part of.
    pub fn serving(&self) -> Option<(Arc<Intent>, SideIdentity)> {
        let (intent, effective) = self.effective()?;
        let side = intent.targets.side(effective.serving)?.clone();
        Some((intent, side))
    }

    /// Takes over a watcher's picture.
    pub fn picture(&self, change: impl FnOnce(&mut Pictures)) {
        change(&mut self.pictures.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn pictures(&self) -> Pictures {
        self.pictures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands an event over to the spool, which keeps it until the coordinator has it.
    pub fn event(&self, event: Event) {
        self.picture(|pictures| match &event {
            Event::SessionPurged { .. } => pictures.purged_total += 1,
            Event::SessionEnded { .. } => pictures.ended_total += 1,
            Event::Resubmission { verdict: report::Verdict::Resubmitted, .. } => pictures.resubmitted_total += 1,
            _ => {}
        });
        crate::metrics::event(&event);
        self.spool.append(&event);
    }

    /// The newest picture of everything, ages counted now.
    pub fn report(&self) -> report::Report {
        let now = self.clock.mono();
        let age = |at: Mono| millis(now.since(at));
        let pictures = self.pictures();
        let (probe, moments) = (self.probe.borrow().clone(), *self.moments.borrow());
        let seen =
            |look: Option<(Mono, report::Outcome)>| look.map(|(at, outcome)| report::Seen { age_ms: age(at), outcome });
        let sessions = pictures.sessions.map(|sessions| report::Sessions {
            purged_total: pictures.purged_total,
            ended_total: pictures.ended_total,
            resubmitted_total: pictures.resubmitted_total,
            ..sessions
        });
        report::Report {
            slots: pictures.slots.map(|(at, slots)| report::Slots { age_ms: age(at), ..slots }),
            sessions,
            ingestion: pictures
                .controllers
                .into_values()
                .map(|(at, controller)| report::Controller { age_ms: age(at), ..controller })
                .collect(),
            probe: report::Probe {
                production: seen(probe.production),
                green: seen(probe.green),
                green_took_write: probe.green_took_write,
                blue_writes_in_a_row: probe.blue_writes_in_a_row,
                write_unavailable_ms: millis(probe.write_unavailable),
                read_unavailable_ms: millis(probe.read_unavailable),
            },
            switchover: self.status.borrow().status(now),
            marker: pictures.marker.map(|(at, marker)| report::MarkerDelay { age_ms: age(at), ..marker }),
            schema: pictures.schema.map(|(at, schema)| report::SchemaWatch { age_ms: age(at), ..schema }),
            old_side: pictures.old_side.map(|(at, old)| report::OldSide { age_ms: age(at), ..old }),
            partitions: pictures.partitions.map(|(at, p)| report::Partitions { age_ms: age(at), ..p }),
            stance: self.stance.borrow().name().to_owned(),
            held_ms: moments.held.map(|since| millis(since.elapsed(now))),
            ingestion_paused_ms: moments.paused.map(|since| millis(since.elapsed(now))),
            resident_bytes: self.resident(now),
        }
    }

    fn resident(&self, now: Mono) -> Option<u64> {
        let mut read = self.resident.lock().unwrap_or_else(PoisonError::into_inner);
        match *read {
            Some((at, bytes)) if now.since(at) < RESIDENT_EVERY => bytes,
            _ => read.insert((now, resident_bytes())).1,
        }
    }
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// From `earlier` to `later` on the wall clock; zero when it went back.
fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

/// Resident memory of this process, where the system tells.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use crate::testing::Pair;

    use super::*;

    #[tokio::test]
    async fn of_256_refused_commands_each_is_logged_once_and_with_the_next_the_memory_begins_anew() {
        let pair = Pair::start("refusals", |_, _| async { runtime::played::Said::Done }).await;
        let refuse = |epoch| pair.shared.refused("stale", "intent", Epoch(epoch));
        (1..=256).for_each(refuse);
        refuse(256);
        assert_eq!(pair.shared.refusals().len(), 256, "one that is known made the others forgotten");
        refuse(257);
        assert_eq!(pair.shared.refusals(), [("stale", "intent", 257)]);
    }
}
