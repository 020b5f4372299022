//! The one place that reads the system clock. Everything else is given a [`Clock`] and asks it.
//!
//! It must not decide anything: it tells the wall time (for people and journals), a monotonic time (for leases,
//! deadlines and intervals), and it sleeps.
#![allow(clippy::disallowed_methods)] // this file is the exception that the ban in clippy.toml is about

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

/// A source of time. Cheap to clone; clones agree with each other.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    System { start: Instant },
    Tokio { start: tokio::time::Instant, wall: Timestamp },
    Told { passed: Box<dyn Fn() -> Duration + Send + Sync>, wall: Timestamp },
}

/// Time since the clock was made, on a clock that never goes back. Not comparable between two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

/// The time allowed for something has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done within {} ms", .0.as_millis())]
pub struct Elapsed(pub Duration);

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Clock {
        Clock(Arc::new(Source::System { start: Instant::now() }))
    }

    /// Follows tokio's clock, which a test may pause and advance; the wall time is derived from it, starting at the
    /// machine's time of this call. Must be called within a runtime.
    pub fn tokio() -> Clock {
        let wall = wall_now();
        Clock(Arc::new(Source::Tokio { start: tokio::time::Instant::now(), wall }))
    }

    /// As [`Clock::tokio`], with the wall time to start from.
    pub fn tokio_at(wall: Timestamp) -> Clock {
        Clock(Arc::new(Source::Tokio { start: tokio::time::Instant::now(), wall }))
    }

    /// Follows whoever keeps time for several runtimes at once: `passed` tells how much has passed since `wall`, and never
    /// goes back. Sleeps are still tokio's.
    pub fn told(wall: Timestamp, passed: impl Fn() -> Duration + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(Source::Told { passed: Box::new(passed), wall }))
    }

    /// The wall time, for journals and people. May jump; never measure an interval with it.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System { .. } => wall_now(),
            Source::Tokio { start, wall } => wall.saturating_add(start.elapsed()).unwrap_or(Timestamp::MAX),
            Source::Told { passed, wall } => wall.saturating_add(passed()).unwrap_or(Timestamp::MAX),
        }
    }

    /// Monotonic time since this clock was made.
    pub fn mono(&self) -> Mono {
        match &*self.0 {
            Source::System { start } => Mono(start.elapsed()),
            Source::Tokio { start, .. } => Mono(start.elapsed()),
            Source::Told { passed, .. } => Mono(passed()),
        }
    }

    /// Returns after `duration`. Needs a tokio runtime with time enabled.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Returns when [`Clock::mono`] has reached `until`; at once if it already has.
    pub async fn sleep_until(&self, until: Mono) {
        tokio::time::sleep(until.since(self.mono())).await;
    }

    /// Gives `future` at most `limit`; past it the future is dropped.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await.map_err(|_| Elapsed(limit))
    }
}

fn wall_now() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Source::System { .. } => f.write_str("Clock(system)"),
            Source::Tokio { .. } => f.write_str("Clock(tokio)"),
            Source::Told { .. } => f.write_str("Clock(told)"),
        }
    }
}

impl Mono {
    /// The start of the clock.
    pub const ZERO: Mono = Mono(Duration::ZERO);

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, by: Duration) -> Mono {
        Mono(self.0.saturating_add(by))
    }
}

impl AddAssign<Duration> for Mono {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, by: Duration) -> Mono {
        Mono(self.0.saturating_sub(by))
    }
}

impl Sub for Mono {
    type Output = Duration;
    fn sub(self, earlier: Mono) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time_in_both_scales() {
        let clock = Clock::tokio_at(Timestamp::UNIX_EPOCH);
        let began = clock.mono();
        clock.sleep(Duration::from_secs(90)).await;
        assert_eq!(clock.mono() - began, Duration::from_secs(90));
        assert_eq!(clock.now(), Timestamp::from_second(90).unwrap());
    }

    #[test]
    fn a_clock_that_is_told_the_time_tells_it_in_both_scales() {
        let clock = Clock::told(Timestamp::UNIX_EPOCH, || Duration::from_secs(7));
        assert_eq!((clock.mono(), clock.now().as_second()), (Mono(Duration::from_secs(7)), 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_says_how_long_was_allowed() {
        let clock = Clock::tokio();
        let limit = Duration::from_millis(250);
        assert_eq!(clock.timeout(limit, std::future::pending::<()>()).await, Err(Elapsed(limit)));
        assert_eq!(clock.timeout(limit, async { 7 }).await, Ok(7));
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let clock = Clock::system();
        let first = clock.mono();
        assert!(clock.mono() >= first);
        assert_eq!(Mono::ZERO - Mono(Duration::from_secs(1)), Duration::ZERO);
    }
}
