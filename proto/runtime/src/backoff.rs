//! Waits between tries: growing, bounded, jittered, for ever. Never decides whether to try again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The waits between tries of one thing. [`Backoff::reset`] after a success.
#[derive(Debug)]
pub struct Backoff {
    shape: ExponentialBuilder,
    waits: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Doubles from `first` up to `longest`, each with up to its own length of jitter, then stays.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        let shape = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(longest)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        Backoff { waits: shape.build(), shape, longest }
    }

    /// How long to wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        self.waits.next().unwrap_or(self.longest)
    }

    /// Starts again from the shortest wait.
    pub fn reset(&mut self) {
        self.waits = self.shape.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_start_again() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, longest);
        let waits: Vec<Duration> = (0..50).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= first && waits[0] <= 2 * first, "{:?}", waits[0]);
        assert!(waits.iter().all(|wait| *wait <= 2 * longest), "{waits:?}");
        assert!(waits[49] >= longest);
        backoff.reset();
        assert!(backoff.next_wait() <= 2 * first);
    }
}
