//! Provider time: what the modelled delays wait on and what every timestamp in an answer is. It may run with the machine's
//! clock or be stepped by a test. The real servers' own work never waits on it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use tokio::sync::watch;

use crate::settings::ClockMode;

/// A handle on the lab's time. Cheap to clone.
#[derive(Clone)]
pub struct LabClock {
    machine: Clock,
    stepped: Option<Arc<watch::Sender<Timestamp>>>,
}

impl LabClock {
    /// A clock of the given kind. A stepped one starts at the machine's present.
    #[must_use]
    pub fn new(mode: ClockMode) -> Self {
        let machine = Clock::system();
        let stepped = match mode {
            ClockMode::Auto => None,
            ClockMode::Explicit => Some(Arc::new(watch::Sender::new(machine.now()))),
        };
        Self { machine, stepped }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.stepped {
            None => self.machine.now(),
            Some(at) => *at.borrow(),
        }
    }

    /// The machine's present, also on a clock that is stepped: what clients sign by.
    #[must_use]
    pub fn machine(&self) -> Timestamp {
        self.machine.now()
    }

    /// Gives `work` at most `limit` of the machine's time; `None` past it.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.machine.timeout(limit, work).await.ok()
    }

    /// Returns once `delay` has gone by.
    pub async fn sleep(&self, delay: Duration) {
        if delay.is_zero() {
            return;
        }
        match &self.stepped {
            None => tokio::time::sleep(delay).await,
            Some(at) => {
                let until = *at.borrow() + signed(delay);
                // The sender lives in `self`, so this only ends by the time having come.
                let _ = at.subscribe().wait_for(|now| *now >= until).await;
            }
        }
    }

    /// Machine time since the clock was made: for measuring real work.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.machine.mono().0
    }

    /// Lets `step` go by at once. Does nothing on a clock that runs by itself.
    pub fn advance(&self, step: Duration) {
        if let Some(at) = &self.stepped {
            at.send_modify(|now| *now += signed(step));
        }
    }
}

fn signed(delay: Duration) -> SignedDuration {
    SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stepped_time_stands_still_until_it_is_told_to_go() {
        let clock = LabClock::new(ClockMode::Explicit);
        let start = clock.now();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(30)).await;
                clock.now()
            }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(29));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        let woke = sleeper.await.expect("the sleeper ends");
        assert_eq!(woke.duration_since(start), SignedDuration::from_secs(30));
    }
}
