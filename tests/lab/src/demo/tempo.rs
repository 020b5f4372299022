//! Time as the demo tells it: one origin, durations since it, and waits. It is the only file of the demo that knows the
//! shape of `runtime::clock`; it must never be used to decide anything about the upgrade itself.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use runtime::clock::{Clock, Mono};

/// A clock with an origin: the moment the demo began.
#[derive(Clone, Debug)]
pub struct Tempo {
    clock: Clock,
    origin: Mono,
    wall: Timestamp,
}

impl Tempo {
    /// Begins now.
    pub fn start() -> Self {
        let clock = Clock::system();
        let origin = clock.mono();
        let wall = clock.now();
        Self { clock, origin, wall }
    }

    /// How long ago the demo began.
    pub fn at(&self) -> Duration {
        self.clock.mono().since(self.origin)
    }

    /// The wall time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A wall time as time since the demo's start; zero for what was before.
    pub fn at_wall(&self, wall: Timestamp) -> Duration {
        Duration::try_from(wall.duration_since(self.wall)).unwrap_or_default()
    }

    /// Waits.
    pub async fn sleep(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// The value of `work`, or `None` when it took longer than `limit`.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.clock.sleep(limit) => None,
        }
    }

    /// Asks `look` every `every` until it says `Some`, at most for `limit`. The error quotes what was last seen.
    pub async fn until<T>(
        &self,
        what: &str,
        every: Duration,
        limit: Duration,
        mut look: impl AsyncFnMut() -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let deadline = self.at() + limit;
        loop {
            let seen = match look().await {
                Ok(value) => return Ok(value),
                Err(seen) => seen,
            };
            anyhow::ensure!(self.at() < deadline, "{what} did not come within {limit:?}; last seen: {seen}");
            self.sleep(every).await;
        }
    }
}
