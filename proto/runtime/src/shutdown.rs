//! Asking everything to stop, once: by a signal, or by whoever holds the [`Stop`].

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Elapsed};

/// A wish to stop that everyone can hear. Clones hear the same wish.
#[derive(Debug, Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    pub fn new() -> Stop {
        Stop::default()
    }

    /// A `Stop` that this one triggers, and that can be triggered alone.
    pub fn child(&self) -> Stop {
        Stop(self.0.child_token())
    }

    /// Asks everyone who holds this `Stop` or a child of it to stop.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns when it is triggered.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }

    /// Sleeps, unless it is triggered: `true` when the whole time has passed.
    pub async fn sleep(&self, clock: &Clock, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.triggered() => false,
            () = clock.sleep(duration) => true,
        }
    }

    /// Runs `future` until it ends or this is triggered (`None`).
    pub async fn unless<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.triggered() => None,
            output = future => Some(output),
        }
    }

    /// Waits at most `limit` for `future` (a drain, a join) after the stop was asked.
    pub async fn drain<F: Future>(&self, clock: &Clock, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        self.triggered().await;
        clock.timeout(limit, future).await
    }
}

/// Triggers `stop` at SIGTERM or SIGINT and returns the signal's name. Returns `None` when `stop` was triggered otherwise.
pub async fn on_signal(stop: &Stop) -> std::io::Result<Option<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => Some("SIGTERM"),
        _ = interrupt.recv() => Some("SIGINT"),
        () = stop.triggered() => None,
    };
    stop.trigger();
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way_round() {
        let parent = Stop::new();
        let (one, other) = (parent.child(), parent.child());
        one.trigger();
        assert!(one.is_triggered() && !parent.is_triggered() && !other.is_triggered());
        parent.trigger();
        other.triggered().await;
        assert_eq!(other.unless(std::future::pending::<()>()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_is_cut_by_the_stop() {
        let (stop, clock) = (Stop::new(), Clock::tokio());
        assert!(stop.sleep(&clock, Duration::from_secs(1)).await);
        stop.trigger();
        assert!(!stop.sleep(&clock, Duration::from_secs(1)).await);
    }
}
