//! Converges the ingestion systems to what the wish, as the stance lets it stand, asks for: pauses and holds, releases, sends
//! clients to the serving side, enforces the caps, and says when a wish is settled.
//!
//! Releasing never waits: not for the disk, not for a look. What hurts is written down before it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use proto::{
    epoch::{Epoch, Generation},
    intent::{GateWish, IngestionWish, Intent, Refusal},
    report::{Event, HoldKind, IngestionState, Outcome},
    side::Side,
};
use runtime::{
    clock::{Clock, Mono},
    shutdown::Stop,
    supervision::{Ready, Task, TaskError, chain},
};

use crate::{
    helm,
    ingestion::{BoxFuture, IngestionController, Marks, PAUSE_WITHIN, PauseMark, Serving},
    spool::Key,
    stance::{Since, Stance},
    state::{Effective, Settled, Shared, effective, millis},
};

/// A release that is not done by then is begun anew.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);
/// Between tries to release what could not be released.
const RELEASE_AGAIN: Duration = Duration::from_millis(100);
/// A system that was released before it had answered to its pause is looked at for this long: the pause may come after all.
const DOUBTED_FOR: Duration = Duration::from_secs(30);
/// Between such looks, and for one.
const DOUBTED_EVERY: Duration = Duration::from_secs(1);
/// Caps are looked at this often.
const CAPS_EVERY: Duration = Duration::from_millis(20);
/// The production name must lead to green for this long before clients are sent back to it.
const NAME_GOOD_FOR: Duration = Duration::from_secs(10);

/// What was last done to a system by this process, or by the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Not paused by us.
    Free,
    /// Paused by us, or maybe.
    Paused,
}

/// What is to be true of all systems.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Goal {
    epoch: Epoch,
    generation: Generation,
    hold: bool,
    pause: bool,
    /// The pause reached its cap: ingestion that does not hold clients runs, whatever else is held.
    pause_over: bool,
    serving: Side,
    /// The wish is not obeyed as it is, and why.
    refused: Option<Refusal>,
}

/// See the module.
pub struct Gate {
    shared: Shared,
    controllers: Vec<Arc<dyn IngestionController>>,
    marks: Marks,
    known: BTreeMap<String, Known>,
    /// Asked to pause, and not known to have done it.
    unanswered: BTreeSet<String>,
    /// Released while unanswered, and looked at until then; their marks stay.
    doubted: BTreeMap<String, Mono>,
    /// The pause reached its cap; it stays over until ingestion is wished to run.
    pause_over: bool,
    /// A wish whose pause failed; it is not tried again.
    failed: Option<(Epoch, Generation, String)>,
    told: Told,
    reached: Option<Goal>,
    name_good_since: Option<Mono>,
}

/// Alarms that were given for the current hold and pause.
#[derive(Debug, Default)]
struct Told {
    hold_80: bool,
    pause_80: bool,
    release_failed: bool,
}

impl Gate {
    /// Takes over from the marks what an earlier process paused.
    pub fn new(shared: Shared, controllers: Vec<Arc<dyn IngestionController>>, marks: Marks) -> Gate {
        let known = controllers.iter().map(|controller| {
            let name = controller.name().to_owned();
            let known = match marks.read(&name) {
                Ok(None) => Known::Free,
                Ok(Some(_)) => Known::Paused,
                Err(error) => {
                    tracing::error!(system = name, %error, "a pause mark cannot be read, taking the system for paused");
                    Known::Paused
                }
            };
            (name, known)
        });
        let known: BTreeMap<String, Known> = known.collect();
        // Nothing is known of how far the earlier process came.
        let unanswered = known.iter().filter(|(_, known)| **known == Known::Paused).map(|(name, _)| name.clone());
        let unanswered = unanswered.collect();
        Gate {
            shared,
            controllers,
            marks,
            known,
            unanswered,
            doubted: BTreeMap::new(),
            pause_over: false,
            failed: None,
            told: Told::default(),
            reached: None,
            name_good_since: None,
        }
    }

    fn goal(&self) -> Option<(Arc<Intent>, Effective, Goal)> {
        let intent = self.shared.intent.borrow().clone()?;
        let stance = helm::steer(&self.shared);
        let mut stands = effective(&intent, stance);
        let mut refused = None;
        if stands.hold && !intent.window.is_some_and(|window| window.open) {
            refused = Some("a hold without an open window has no cap".to_owned().into());
            stands.hold = false;
        }
        if stands.pause && self.pause_over {
            refused = Some(Refusal { reason: "the ingestion pause reached its cap".to_owned(), pause_over: true });
            stands.pause = false;
        }
        if let Some((epoch, generation, why)) = &self.failed
            && (*epoch, *generation) == (intent.epoch, intent.generation)
        {
            refused = Some(why.clone().into());
            (stands.hold, stands.pause) = (false, false);
        }
        let with_the_coordinator = matches!(stance, Stance::Obey | Stance::KeepHolding { .. } | Stance::FollowToGreen);
        if intent.is_harmful() && !with_the_coordinator {
            refused.get_or_insert(format!("this agent acts alone: {stance}").into());
        }
        let goal = Goal {
            epoch: intent.epoch,
            generation: intent.generation,
            hold: stands.hold,
            pause: stands.pause,
            pause_over: self.pause_over,
            serving: stands.serving,
            refused,
        };
        Some((intent, stands, goal))
    }

    fn wants_paused(goal: &Goal, controller: &dyn IngestionController) -> bool {
        match controller.holds() {
            true => goal.hold,
            false => (goal.hold || goal.pause) && !goal.pause_over,
        }
    }

    /// Makes `goal` true. `Err` says why a pause did not happen; a release is tried until it happens.
    async fn converge(&mut self, intent: &Intent, goal: &Goal) -> Result<(), String> {
        self.release(goal).await;
        self.closed_moments(intent, goal);
        let harmful = self.controllers.iter().any(|controller| {
            Gate::wants_paused(goal, controller.as_ref()) && self.known[controller.name()] == Known::Free
        });
        if harmful || goal.hold {
            self.pause(intent, goal).await?;
        }
        if intent.purger.is_none() {
            // Whoever holds it is in the middle of a round that began under an earlier wish.
            drop(self.shared.purging.lock().await);
        }
        Ok(())
    }

    async fn release(&mut self, goal: &Goal) {
        loop {
            let free: Vec<_> = self
                .controllers
                .iter()
                .filter(|controller| !Gate::wants_paused(goal, controller.as_ref()))
                .filter(|controller| self.known[controller.name()] == Known::Paused)
                .cloned()
                .collect();
            if free.is_empty() {
                return;
            }
            let to = (goal.serving == Side::Green).then(|| self.green());
            let fail_open = *self.shared.stance.borrow() == Stance::FailOpen;
            let (marks, clock) = (&self.marks, &self.shared.clock);
            let released = join_all(free.iter().map(|controller| async move {
                let release = release_one(controller.as_ref(), marks, to, fail_open);
                let end = clock.timeout(RELEASE_WITHIN, release).await;
                (controller.name().to_owned(), end.unwrap_or_else(|elapsed| Err(format!("resuming is {elapsed}"))))
            }))
            .await;
            let mut stuck = false;
            for (name, end) in released {
                match end {
                    Ok(()) => {
                        if self.unanswered.remove(&name) {
                            self.doubted.insert(name.clone(), self.shared.clock.mono() + DOUBTED_FOR);
                        }
                        self.known.insert(name, Known::Free);
                    }
                    Err(error) => {
                        stuck = true;
                        if !std::mem::replace(&mut self.told.release_failed, true) {
                            tracing::error!(system = name, %error, "cannot release, trying again");
                        }
                    }
                }
            }
            if !stuck {
                self.told.release_failed = false;
                self.drop_marks();
                return;
            }
            self.shared.clock.sleep(RELEASE_AGAIN).await;
        }
    }

    /// After the release, off its way.
    fn drop_marks(&self) {
        for (name, known) in &self.known {
            if *known == Known::Free
                && !self.doubted.contains_key(name)
                && let Err(error) = self.marks.remove(name)
            {
                tracing::warn!(system = name, %error, "a pause mark cannot be removed");
            }
        }
    }

    /// Where green is: its writer, and a reader of it that is not the writer by now.
    fn green(&self) -> Option<Serving> {
        let writer = self.green_writer()?;
        let intent = self.shared.intent.borrow().clone()?;
        let members = &intent.targets.green.as_ref()?.members;
        let addresses = members
            .iter()
            .filter_map(|member| Some(SocketAddr::new(self.shared.dialer.known_address(member)?, member.port)));
        Some(Serving { writer, reader: addresses.into_iter().find(|address| *address != writer) })
    }

    /// Where green takes writes: where the probe saw it, else its recorded writer.
    fn green_writer(&self) -> Option<SocketAddr> {
        if let Some((address, port)) = self.shared.probe.borrow().green_writer {
            return Some(SocketAddr::new(address, port));
        }
        let intent = self.shared.intent.borrow().clone()?;
        let writer = intent.targets.green.as_ref()?.writer()?;
        Some(SocketAddr::new(self.shared.dialer.known_address(writer)?, writer.port))
    }

    async fn pause(&mut self, intent: &Intent, goal: &Goal) -> Result<(), String> {
        let began = self.opened_moments(goal).await?;
        let cap = self.cap(intent, goal);
        let since = self.shared.clock.now();
        let expires_at = since.checked_add(cap).unwrap_or(since);
        let mark = PauseMark { upgrade: intent.upgrade.to_string(), since, expires_at, found: None };
        let wanted: Vec<_> = self
            .controllers
            .iter()
            .filter(|c| Gate::wants_paused(goal, c.as_ref()) && self.known[c.name()] == Known::Free)
            .cloned()
            .collect();
        let marks = self.mark(&wanted, &mark).await?;
        let (clock, cap) = (&self.shared.clock, cap.max(PAUSE_WITHIN));
        let paused = join_all(wanted.iter().zip(&marks).map(|(controller, mark)| async move {
            // Clients that are held wait for no system that takes longer.
            let within = if goal.hold { PAUSE_WITHIN } else { controller.pause_within().min(cap) };
            let end = clock.timeout(within, controller.pause(mark)).await;
            let end = end.map_err(|elapsed| format!("pausing is {elapsed}"));
            let end = end.and_then(|end| end.map_err(|error| chain(&error)));
            (controller.name(), end)
        }))
        .await;
        let mut failures = Vec::new();
        for (name, end) in paused {
            match end {
                Ok(()) => drop(self.unanswered.remove(name)),
                Err(why) => failures.push(format!("{name}: {why}")),
            }
        }
        let took = self.shared.clock.mono().since(began);
        if failures.is_empty() {
            tracing::info!(hold = goal.hold, pause = goal.pause, took_ms = millis(took), "paused");
            return Ok(());
        }
        Err(failures.join("; "))
    }

    /// Writes down who pauses these systems and what they were like, before they are paused.
    async fn mark(
        &mut self,
        wanted: &[Arc<dyn IngestionController>],
        mark: &PauseMark,
    ) -> Result<Vec<PauseMark>, String> {
        let clock = &self.shared.clock;
        let surveys = wanted.iter().map(|controller| clock.timeout(PAUSE_WITHIN, controller.survey()));
        let mut marks = Vec::new();
        for (controller, survey) in wanted.iter().zip(join_all(surveys).await) {
            let name = controller.name();
            let found = match survey {
                Ok(found) => found.map_err(|error| format!("{name}: {}", chain(&error)))?,
                Err(elapsed) => return Err(format!("{name}: looking at it is {elapsed}")),
            };
            let mark = PauseMark { found, ..mark.clone() };
            let written = self.marks.write(name, &mark);
            written.map_err(|error| format!("the pause mark of {name} cannot be written: {error}"))?;
            self.known.insert(name.to_owned(), Known::Paused);
            self.unanswered.insert(name.to_owned());
            self.doubted.remove(name);
            marks.push(mark);
        }
        Ok(marks)
    }

    /// Takes over what an earlier life of this agent paused and left no mark of.
    fn adopt(&mut self, left: Vec<(String, PauseMark)>) {
        for (name, mark) in left {
            if self.known.get(&name) != Some(&Known::Free) {
                continue;
            }
            tracing::warn!(system = name, upgrade = mark.upgrade, "a pause of this agent was found, taking it over");
            if let Err(error) = self.marks.write(&name, &mark) {
                tracing::warn!(system = name, %error, "its mark cannot be written");
            }
            self.known.insert(name, Known::Paused);
            self.reached = None;
        }
    }

    /// Looks at the doubted systems once, later: which of them do not run? Never, where there are none.
    fn late_pauses(&self) -> BoxFuture<'static, Vec<String>> {
        let doubted = self.controllers.iter().filter(|controller| self.doubted.contains_key(controller.name()));
        let (doubted, clock): (Vec<_>, _) = (doubted.cloned().collect(), self.shared.clock.clone());
        Box::pin(async move {
            if doubted.is_empty() {
                return std::future::pending().await;
            }
            clock.sleep(DOUBTED_EVERY).await;
            let looks = doubted.iter().map(|controller| clock.timeout(DOUBTED_EVERY, controller.observe()));
            let seen = join_all(looks).await.into_iter().zip(&doubted);
            let late = seen.filter(|(seen, _)| matches!(seen, Ok(Ok(seen)) if seen.state != IngestionState::Running));
            late.map(|(_, controller)| controller.name().to_owned()).collect()
        })
    }

    /// Releases again what was paused after its release, and ends the doubts whose time is over.
    fn settle_doubts(&mut self, late: Vec<String>) {
        for name in late {
            tracing::warn!(
                system = name,
                "it was paused after its release, by what was asked before: releasing it again"
            );
            self.doubted.remove(&name);
            self.unanswered.insert(name.clone());
            self.known.insert(name, Known::Paused);
            self.reached = None;
        }
        let now = self.shared.clock.mono();
        self.doubted.retain(|_, until| *until > now);
        self.drop_marks();
    }

    fn cap(&self, intent: &Intent, goal: &Goal) -> Duration {
        let hold = intent.window.filter(|_| goal.hold).map(|window| window.hold_max_ms);
        let pause = match intent.ingestion {
            IngestionWish::Paused { max_pause_ms } if goal.pause => Some(max_pause_ms),
            _ => None,
        };
        Duration::from_millis(hold.into_iter().chain(pause).max().unwrap_or(0))
    }

    /// Writes down since when things are held and paused, before they are.
    async fn opened_moments(&self, goal: &Goal) -> Result<Mono, String> {
        let (now, wall) = (self.shared.clock.mono(), self.shared.clock.now());
        let mut moments = *self.shared.moments.borrow();
        let mut new = Vec::new();
        if goal.hold && moments.window_held.is_none() {
            moments.window_held = Some(Since::at(now));
            new.push(Key::WindowHeldSince);
        }
        if goal.hold && moments.held.is_none() {
            moments.held = Some(Since::at(now));
            new.push(Key::HeldSince);
        }
        let pauses = self.controllers.iter().any(|c| !c.holds() && Gate::wants_paused(goal, c.as_ref()));
        if pauses && moments.paused.is_none() {
            moments.paused = Some(Since::at(now));
            new.push(Key::PausedSince);
        }
        for key in new {
            let written = self.shared.spool.put(key, &wall).await;
            written.map_err(|error| format!("the moment cannot be written: {}", chain(&error)))?;
        }
        self.shared.moments.send_replace(moments);
        Ok(now)
    }

    /// Closes the moments of what is not held or paused any more, and tells how long it was.
    fn closed_moments(&mut self, intent: &Intent, goal: &Goal) {
        let now = self.shared.clock.mono();
        let mut moments = *self.shared.moments.borrow();
        let mut over = Vec::new();
        let pauses = self.controllers.iter().any(|c| !c.holds() && Gate::wants_paused(goal, c.as_ref()));
        if !goal.hold
            && let Some(since) = moments.held.take()
        {
            over.push((Key::HeldSince, Some((HoldKind::Gate, since.elapsed(now)))));
            self.told.hold_80 = false;
            let cap = intent.window.map(|window| Duration::from_millis(window.hold_max_ms));
            let counted = moments.window_held.unwrap_or(since);
            if intent.gate == GateWish::Hold && cap.is_some_and(|cap| counted.elapsed(now) >= cap) {
                self.alarm(100, true, "hold");
            }
        }
        if !pauses && let Some(since) = moments.paused.take() {
            over.push((Key::PausedSince, Some((HoldKind::Ingestion, since.elapsed(now)))));
            self.told.pause_80 = false;
        }
        if intent.gate == GateWish::Open && moments.window_held.take().is_some() {
            over.push((Key::WindowHeldSince, None));
        }
        self.shared.moments.send_replace(moments);
        for (key, held) in over {
            if let Some((kind, length)) = held {
                let ms = millis(length);
                tracing::info!(?kind, ms, "released");
                self.shared.event(Event::Held { at: self.shared.clock.now(), ms, kind });
            }
            self.shared.spool.forget_soon(key);
        }
        if intent.ingestion == IngestionWish::Running {
            self.pause_over = false;
        }
    }

    /// Gives the alarms at 80 % and enforces `max_pause`; `hold_max` is the stance's.
    fn watch_caps(&mut self) {
        let Some(intent) = self.shared.intent.borrow().clone() else { return };
        let (now, moments) = (self.shared.clock.mono(), *self.shared.moments.borrow());
        let share = |since: Since, cap_ms: u64| since.elapsed(now).as_millis() * 100 / u128::from(cap_ms.max(1));
        if let (Some(window), Some(since)) = (intent.window, moments.window_held.filter(|_| moments.held.is_some())) {
            let percent = share(since, window.hold_max_ms);
            if percent >= 80 && !std::mem::replace(&mut self.told.hold_80, true) {
                self.alarm(80, false, "hold");
            }
        }
        if let (IngestionWish::Paused { max_pause_ms }, Some(since)) = (intent.ingestion, moments.paused) {
            let percent = share(since, max_pause_ms);
            if percent >= 80 && !std::mem::replace(&mut self.told.pause_80, true) {
                self.alarm(80, false, "ingestion pause");
            }
            if percent >= 100 && !std::mem::replace(&mut self.pause_over, true) {
                self.alarm(100, true, "ingestion pause");
            }
        }
    }

    fn alarm(&self, percent: u8, resumed: bool, what: &'static str) {
        tracing::error!(percent, resumed, what, "a cap is near or reached");
        self.shared.event(Event::PauseCap { at: self.shared.clock.now(), percent, resumed });
    }

    /// Clients were sent to green by address. Once the production name leads there for good, they go by the name again,
    /// which follows failovers.
    async fn settle_names(&mut self, goal: &Goal) {
        let now = self.shared.clock.mono();
        let good = goal.serving == Side::Green
            && !goal.hold
            && matches!(
                self.shared.probe.borrow().production,
                // Our table, and so our write, may be gone by now: cleanup removes it.
                Some((_, Outcome::Answered { side: Some(Side::Green), ref said, .. })) if !said.read_only && !said.in_recovery
            );
        if !good {
            self.name_good_since = None;
            return;
        }
        let since = *self.name_good_since.get_or_insert(now);
        if now.since(since) < NAME_GOOD_FOR {
            return;
        }
        for controller in &self.controllers {
            match controller.restore_target().await {
                Ok(true) => {}
                Ok(false) => self.name_good_since = Some(now),
                Err(error) => {
                    tracing::warn!(system = controller.name(), error = %chain(&error), "cannot go back to the name yet");
                    self.name_good_since = Some(now);
                }
            }
        }
    }

    fn settled(&self, goal: &Goal) {
        let result = match &goal.refused {
            Some(why) => Err(why.clone()),
            None => Ok(serde_json::json!({
                "hold": goal.hold,
                "pause": goal.pause,
                "serving": goal.serving,
                "controllers": self.controllers.len(),
            })),
        };
        let settled = Settled { epoch: goal.epoch, generation: goal.generation, result };
        self.shared.settled.send_replace(Some(settled));
    }

    /// Converges to `goal`; a wish whose pause fails is opened again at the next turn and refused.
    async fn turn(&mut self, intent: &Intent, goal: Goal) {
        match self.converge(intent, &goal).await {
            Ok(()) => {
                self.settled(&goal);
                self.reached = Some(goal);
            }
            Err(why) => {
                tracing::warn!(reason = why, "a pause failed, opening everything again");
                self.failed = Some((goal.epoch, goal.generation, why));
            }
        }
    }
}

/// Sends clients to `to` where the system can (`None`: they stay where they are; `Some(None)`: to green, whose address is not
/// known), then lets them go.
async fn release_one(
    controller: &dyn IngestionController,
    marks: &Marks,
    to: Option<Option<Serving>>,
    fail_open: bool,
) -> Result<(), String> {
    if controller.holds()
        && let Some(to) = to
    {
        let sent = match to {
            Some(to) => controller.retarget(to).await.map_err(|error| chain(&error)),
            None => Err("green's writer is not known".to_owned()),
        };
        // Letting clients go to a side that does not serve is worse than a longer hold, unless the hold's time is over.
        match sent {
            Err(error) if fail_open => {
                tracing::error!(system = controller.name(), error, "released without the new address");
            }
            other => other?,
        }
    }
    let name = controller.name();
    let unknown = PauseMark {
        upgrade: String::new(),
        since: jiff::Timestamp::UNIX_EPOCH,
        expires_at: jiff::Timestamp::UNIX_EPOCH,
        found: None,
    };
    let mark = marks.read(name).ok().flatten().unwrap_or(unknown);
    controller.resume(&mark, to.flatten()).await.map_err(|error| chain(&error))
}

/// Asks the systems without a mark whether they remember a pause of this agent, until each has answered. Off the way of every
/// release.
async fn left(controllers: Vec<Arc<dyn IngestionController>>, clock: Clock) -> Vec<(String, PauseMark)> {
    let asked = controllers.iter().map(async |controller| {
        loop {
            match clock.timeout(PAUSE_WITHIN, controller.left()).await {
                Ok(Ok(left)) => return left.map(|mark| (controller.name().to_owned(), mark)),
                Ok(Err(error)) => tracing::debug!(system = controller.name(), error = %chain(&error), "not asked yet"),
                Err(elapsed) => tracing::debug!(system = controller.name(), error = %elapsed, "not asked yet"),
            }
            clock.sleep(PAUSE_WITHIN).await;
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

impl Task for Gate {
    const NAME: &'static str = "gate";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let mut intent = self.shared.intent.subscribe();
        let mut stance = self.shared.stance.subscribe();
        let unmarked = self.controllers.iter().filter(|controller| self.known[controller.name()] == Known::Free);
        let mut asking: BoxFuture<'static, _> = Box::pin(left(unmarked.cloned().collect(), self.shared.clock.clone()));
        let mut asked = false;
        let mut doubting = self.late_pauses();
        let longest = self.controllers.iter().map(|controller| controller.pause_within()).max().unwrap_or_default();
        ready.set(true);
        while !stop.is_triggered() {
            intent.borrow_and_update();
            stance.borrow_and_update();
            if let Some((wish, _, goal)) = self.goal()
                && self.reached.as_ref() != Some(&goal)
            {
                let clock = self.shared.clock.clone();
                // A newer wish, or a stance, interrupts: whatever was begun is known as paused and will be released.
                tokio::select! {
                    biased;
                    () = self.turn(&wish, goal) => {}
                    changed = intent.changed() => changed?,
                    changed = stance.changed() => changed?,
                    () = stop.triggered() => {}
                    () = clock.sleep(longest + RELEASE_WITHIN * 2) => {}
                }
                doubting = self.late_pauses();
                continue;
            }
            self.watch_caps();
            if let Some(goal) = self.reached.clone() {
                self.settle_names(&goal).await;
            }
            tokio::select! {
                changed = intent.changed() => changed?,
                changed = stance.changed() => changed?,
                () = stop.triggered() => {}
                left = &mut asking, if !asked => {
                    asked = true;
                    self.adopt(left);
                }
                late = &mut doubting => {
                    self.settle_doubts(late);
                    doubting = self.late_pauses();
                }
                () = self.shared.clock.sleep(CAPS_EVERY) => {}
            }
        }
        Ok(())
    }
}
