//! Telling: one hook is told the news of one upgrade, one after the other, as the journal has them. Every piece of news is tried until
//! it is delivered or its tries are used up; then the bookmark moves on. A process that dies in between leaves the bookmark where it
//! was, so the next one tells the same news again, under the same delivery id. The driver knows nothing of it.

use std::sync::Arc;
use std::time::Duration;

use engine::journal::{FoldError, entries};
use engine::{JournalError, PlanShape, RunId, Seq, State};
use runtime::supervision::chain;

use super::news::{Standing, news};
use super::notice::{About, Notice};
use super::{Hook, Hooks, Said};
use crate::codes;
use crate::metrics;
use crate::store::{Bookmark, Store};
use crate::world::Upgrade;

/// Tries after the first, of a hook whose configuration says nothing: together they take more than three minutes.
const RETRIES: u32 = 8;
/// Between two tries: the first, and the longest.
const RETRY_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The journal is looked at so often even if nobody says that it has changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Between two tries of a store that fails.
const STORE_WAIT: Duration = Duration::from_secs(2);

/// Says that a hook was given up, to those who look at the upgrade.
pub type OnGivenUp = Arc<dyn Fn(String) -> futures_util::future::BoxFuture<'static, ()> + Send + Sync>;

/// What one telling is made of.
pub struct Telling {
    pub hooks: Hooks,
    pub hook: Arc<Hook>,
    pub store: Arc<dyn Store>,
    pub run: RunId,
    pub about: About,
    pub shape: PlanShape,
    /// From where on; `None` when the hook was not there when the upgrade began: then from now on.
    pub from: Option<Seq>,
    pub on_given_up: OnGivenUp,
}

impl Telling {
    /// Tells until the upgrade has ended and its last news are told. May be dropped at any time.
    pub async fn run(mut self) {
        let mut changes = self.store.watch(&self.run);
        let (mut state, mut standing) = (State::<Upgrade>::empty(), Standing::default());
        loop {
            changes.mark_unchanged();
            match entries::<Upgrade>(&*self.store, &self.run, state.next_seq()).await {
                Ok(all) => {
                    let end = all.last().map_or(state.next_seq(), |last| Seq(last.seq.0 + 1));
                    let from = match self.from {
                        Some(from) => from,
                        None => self.begin_at(end).await,
                    };
                    for entry in &all {
                        state = match state.apply(entry) {
                            Ok(state) => state,
                            Err(error) => return self.lost(&chain(&error)),
                        };
                        let after = Standing::of(&self.shape, &state);
                        if entry.seq >= from {
                            let told = news(&self.about, &self.hook.name, &standing, entry, &after);
                            self.tell(told, Seq(entry.seq.0 + 1)).await;
                        }
                        standing = after;
                    }
                }
                Err(FoldError::Journal { source: error @ JournalError::Store { .. }, .. }) => {
                    tracing::debug!(upgrade = %self.run, error = chain(&error), "news wait for the store");
                    self.hooks.0.clock.sleep(STORE_WAIT).await;
                    continue;
                }
                Err(error) => return self.lost(&chain(&error)),
            }
            if state.outcome().is_some() {
                return self.end().await;
            }
            self.hooks.0.clock.timeout(LOOK_EVERY, changes.changed()).await.ok();
        }
    }

    async fn begin_at(&mut self, end: Seq) -> Seq {
        self.from = Some(end);
        self.mark(end).await;
        end
    }

    /// The news of one fact, then the bookmark behind it.
    async fn tell(&self, told: Vec<Notice>, next: Seq) {
        let mut any = false;
        for notice in told.into_iter().filter(|notice| self.hook.tells(notice.point)) {
            self.deliver(&notice).await;
            any = true;
        }
        if any {
            self.mark(next).await;
        }
    }

    async fn deliver(&self, notice: &Notice) {
        let clock = &self.hooks.0.clock;
        let mut left = self.hook.retries.unwrap_or(RETRIES);
        let mut pause = RETRY_WAITS.0;
        loop {
            let began = clock.mono();
            let said = self.hooks.once(&self.hook, notice, self.hook.timeout).await;
            let took = clock.mono().since(began);
            let trouble = match said {
                Ok(Said::Go | Said::Wait(_) | Said::Veto(_)) => {
                    return metrics::hook(notice.point, "told", took);
                }
                Err(trouble) => trouble,
            };
            metrics::hook(notice.point, "failed", took);
            if left == 0 || !trouble.again {
                return self.give_up(notice, &trouble.text).await;
            }
            left -= 1;
            clock.sleep(trouble.after.unwrap_or(pause)).await;
            pause = (pause * 2).min(RETRY_WAITS.1);
        }
    }

    async fn give_up(&self, notice: &Notice, error: &str) {
        metrics::hook(notice.point, "given_up", Duration::ZERO);
        let (hook, point) = (&self.hook.name, notice.point);
        tracing::warn!(upgrade = %self.run, hook, %point, error, "a hook was not told and is not tried again");
        let detail = format!("hook {hook} was not told of {point} ({}): {error}", notice.delivery);
        (self.on_given_up)(detail).await;
    }

    async fn mark(&self, next: Seq) {
        let mark = Bookmark { run: self.run.clone(), hook: self.hook.name.clone(), next };
        if let Err(error) = self.store.keep_bookmark(&mark).await {
            // Told again after a restart, under the same id.
            tracing::debug!(upgrade = %self.run, hook = self.hook.name, error = chain(&error), "a bookmark was not kept");
        }
    }

    async fn end(&self) {
        while let Err(error) = self.store.drop_bookmark(&self.run, &self.hook.name).await {
            tracing::debug!(upgrade = %self.run, error = chain(&error), "a bookmark was not dropped, trying again");
            self.hooks.0.clock.sleep(STORE_WAIT).await;
        }
    }

    fn lost(&self, why: &str) {
        let code = codes::HOOK_NOT_TOLD;
        tracing::warn!(upgrade = %self.run, hook = self.hook.name, %code, error = why, "a hook hears no more of an upgrade");
    }
}
