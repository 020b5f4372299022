//! Keeps the stance up to date: gathers window, lease and probe, asks `stance`, publishes. Decides nothing itself.

use std::time::Duration;

use proto::{intent::Intent, report::Event};
use runtime::{
    shutdown::Stop,
    supervision::{Ready, Task, TaskError},
};

use crate::{
    stance::{Stance, Window, stance},
    state::Shared,
};

/// Between looks while something could hurt the application, and while nothing can.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// The stance as it is right now; published when it changed. Called by whoever changed one of its inputs, so that a wish is
/// never judged by an old stance.
pub fn steer(shared: &Shared) -> Stance {
    let intent = shared.intent.borrow().clone();
    let Some(intent) = intent else { return Stance::Obey };
    let now = shared.clock.mono();
    let window = intent.window.map(|wish| Window {
        wish,
        held_since: shared.moments.borrow().window_held,
        serving: intent.targets.serving,
    });
    let lease = shared.lease.borrow().state(now);
    let new = stance(window.as_ref(), lease, &shared.probe.borrow().evidence(), now);
    let old = *shared.stance.borrow();
    if old.name() != new.name() {
        shared.stance.send_replace(new);
        tell(shared, &intent, old, new);
    }
    new
}

fn tell(shared: &Shared, intent: &Intent, old: Stance, new: Stance) {
    let hurts = intent.is_harmful() || intent.window.is_some_and(|window| window.open);
    match new {
        _ if !hurts => tracing::info!(stance = %new, before = %old, "stance changed, nothing is held"),
        Stance::FollowToGreen => {
            // No act of its own: the coordinator wishes it as soon as it has heard.
            tracing::info!(stance = %new, before = %old, "green accepts writes, letting clients go there");
            return;
        }
        Stance::Obey if old == Stance::FollowToGreen => tracing::info!("the coordinator has read the cut"),
        Stance::Obey => tracing::info!(stance = %new, before = %old, "the coordinator is back"),
        Stance::FailOpen => {
            tracing::error!(stance = %new, before = %old, "the hold's time is over, letting the application go");
        }
        _ => tracing::warn!(stance = %new, before = %old, "the coordinator is gone, acting alone"),
    }
    if hurts && new != Stance::Obey {
        shared.event(Event::Stance { at: shared.clock.now(), stance: new.name().to_owned() });
    }
}

/// See the module.
pub struct Helm {
    pub shared: Shared,
}

impl Task for Helm {
    const NAME: &'static str = "helm";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let mut probe = self.shared.probe.subscribe();
        let mut intent = self.shared.intent.subscribe();
        ready.set(true);
        while !stop.is_triggered() {
            steer(&self.shared);
            let harmful = self.shared.intent.borrow().as_deref().is_some_and(Intent::is_harmful);
            let wait = if harmful { LOOK_EVERY.0 } else { LOOK_EVERY.1 };
            tokio::select! {
                () = stop.triggered() => {}
                changed = probe.changed() => changed?,
                changed = intent.changed() => changed?,
                () = self.shared.clock.sleep(wait) => {}
            }
        }
        Ok(())
    }
}
