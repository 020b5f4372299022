//! Leave for a step: every hook that asks at the point before it is asked, one after the other, when the step could begin at once.
//! `go` lets it begin; `wait` is asked again; a no, a wait that lasts too long and a hook that cannot be asked have a policy each.
//!
//! Nothing is kept of a `go`: that the step was started is its record. A no is an approval that a person may give (the step begins
//! in spite of it) or the end of the attempt. After the point of no return a no never undoes; it asks a person.

use std::time::Duration;

use engine::failure::codes::DEADLINE;
use engine::{Code, Cx, Failure, Look, Wait};

use super::notice::{About, Notice};
use super::{Hook, Hooks, OnFailure, OnVeto, Point, Said, Trouble, tame};
use crate::codes;
use crate::metrics;
use crate::world::Upgrade;

/// Tries after the first, of a hook whose configuration says nothing.
const RETRIES: u32 = 2;
/// Between two tries: the first, and the longest.
const RETRY_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Before post-switchover, where production waits for what it still needs, nobody is given more.
const TIMEOUT_AFTER_THE_CUT: Duration = Duration::from_secs(10);
const WAIT_AFTER_THE_CUT: Duration = Duration::from_secs(30);
const RETRIES_AFTER_THE_CUT: u32 = 2;
const REASON_CHARS_MAX: usize = 500;

/// Asks the hooks of one upgrade.
#[derive(Clone)]
pub struct Leave {
    hooks: Hooks,
    about: About,
}

/// How long one hook is borne with.
#[derive(Debug, PartialEq, Eq)]
struct Patience {
    timeout: Duration,
    retries: u32,
    wait_max: Duration,
}

impl Patience {
    fn with(hook: &Hook, point: Point) -> Patience {
        let (timeout, retries, wait_max) = (hook.timeout, hook.retries.unwrap_or(RETRIES), hook.wait_max);
        if point != Point::BEFORE_POST_SWITCHOVER {
            return Patience { timeout, retries, wait_max };
        }
        Patience {
            timeout: timeout.min(TIMEOUT_AFTER_THE_CUT),
            retries: retries.min(RETRIES_AFTER_THE_CUT),
            wait_max: wait_max.min(WAIT_AFTER_THE_CUT),
        }
    }
}

/// What one hook said in the end.
enum Verdict {
    Go,
    Veto(String),
    Failed(String),
}

impl Leave {
    /// Of the upgrade that `about` is of.
    pub fn new(hooks: Hooks, about: About) -> Leave {
        Leave { hooks, about }
    }

    /// Returns once every hook at the point before the step of `cx` has let it begin.
    ///
    /// # Errors
    /// Interrupted while it waits, or until a person has approved; permanent where the policy says so.
    pub async fn ask(&self, cx: &Cx<'_, Upgrade>) -> Result<(), Failure> {
        let Some(point) = Point::before(cx.step()) else { return Ok(()) };
        for hook in self.hooks.all().iter().filter(|hook| hook.asks(point)) {
            let name = format!("hook/{}/{point}/{}", hook.name, cx.attempt());
            if cx.approved(&name) {
                continue;
            }
            let verdict = self.verdict(cx, hook, point).await?;
            self.obey(cx, hook, point, &name, verdict).await?;
        }
        Ok(())
    }

    fn notice(&self, cx: &Cx<'_, Upgrade>, hook: &Hook, point: Point) -> Notice {
        let delivery = format!("{}/{point}/{}/{}", self.about.upgrade, cx.attempt(), hook.name);
        let mut notice = self.about.notice(delivery, point, "begins", cx.clock().now());
        (notice.attempt, notice.switched_over) = (Some(cx.attempt()), cx.state().committed());
        notice
    }

    async fn verdict(&self, cx: &Cx<'_, Upgrade>, hook: &Hook, point: Point) -> Result<Verdict, Failure> {
        let patience = Patience::with(hook, point);
        let notice = self.notice(cx, hook, point);
        let last = std::sync::Mutex::new(String::new());
        let wait = Wait { every: hook.ask_again, deadline: patience.wait_max, what: "leave of a hook" };
        let said = cx.until(wait, || async {
            Ok(match self.tried(cx, hook, &notice, &patience).await? {
                Ok(Said::Go) => Look::There(Verdict::Go),
                Ok(Said::Veto(reason)) => Look::There(Verdict::Veto(reason)),
                Err(trouble) => Look::There(Verdict::Failed(trouble.text)),
                Ok(Said::Wait(reason)) => {
                    last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone_from(&reason);
                    Look::NotYet(format!("{} says wait: {reason}", hook.name))
                }
            })
        });
        match said.await {
            Err(failure) if failure.code == DEADLINE => {
                let last = last.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
                let seconds = patience.wait_max.as_secs();
                Ok(Verdict::Veto(format!("it still says wait after {seconds} s: {last}")))
            }
            said => said,
        }
    }

    /// One question, tried again while that may help. Comes back at once when the step should.
    async fn tried(
        &self,
        cx: &Cx<'_, Upgrade>,
        hook: &Hook,
        notice: &Notice,
        patience: &Patience,
    ) -> Result<Result<Said, Trouble>, Failure> {
        let mut pause = RETRY_WAITS.0;
        let mut left = patience.retries;
        loop {
            let within = patience.timeout;
            let asking = cx.waiting_for("the answer of a hook", within, self.hooks.once(hook, notice, within));
            let began = cx.clock().mono();
            let said = cx.unless_interrupted(asking).await?;
            metrics::hook(notice.point, outcome(&said), cx.clock().mono().since(began));
            match said {
                Err(trouble) if trouble.again && left > 0 => {
                    tracing::debug!(upgrade = %cx.run_id(), hook = hook.name, error = trouble.text, "asking a hook again");
                    cx.pause(trouble.after.unwrap_or(pause).min(RETRY_WAITS.1)).await?;
                    (pause, left) = (pause * 2, left - 1);
                }
                said => return Ok(said),
            }
        }
    }

    async fn obey(
        &self,
        cx: &Cx<'_, Upgrade>,
        hook: &Hook,
        point: Point,
        approval: &str,
        verdict: Verdict,
    ) -> Result<(), Failure> {
        let name = &hook.name;
        let (code, why, back): (Code, String, bool) = match verdict {
            Verdict::Go => {
                tracing::info!(upgrade = %cx.run_id(), hook = name, %point, "a hook lets the step begin");
                return Ok(());
            }
            Verdict::Veto(reason) => {
                let why = format!("hook {name} says no {point}: {reason}");
                (codes::HOOK_VETO, why, hook.on_veto == OnVeto::Unwind)
            }
            Verdict::Failed(error) => {
                let why = format!("hook {name} could not be asked {point}: {error}");
                if hook.on_failure == OnFailure::Ignore {
                    cx.warn(codes::HOOK_FAILED, format!("{why}; the step begins all the same"));
                    return Ok(());
                }
                (codes::HOOK_FAILED, why, hook.on_failure == OnFailure::Unwind)
            }
        };
        let why = tame(&why, REASON_CHARS_MAX);
        if back && cx.state().reversible() {
            return Err(Failure::permanent(code, why));
        }
        cx.approval(approval, format!("{why} ({code})")).await
    }
}

fn outcome(said: &Result<Said, Trouble>) -> &'static str {
    match said {
        Ok(Said::Go) => "go",
        Ok(Said::Wait(_)) => "wait",
        Ok(Said::Veto(_)) => "veto",
        Err(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_cut_no_hook_is_borne_with_for_long() {
        let mut hook = crate::hooks::tests::hook("a", &["before_post_switchover", "before_cleanup"]);
        (hook.timeout, hook.retries, hook.wait_max) = (Duration::from_secs(60), Some(20), Duration::from_secs(86_400));
        let patience = Patience::with(&hook, Point::BEFORE_POST_SWITCHOVER);
        let tries = patience.timeout * (patience.retries + 1) + RETRY_WAITS.1 * patience.retries;
        assert!(tries + patience.wait_max <= Duration::from_secs(80), "{patience:?}");
        let patience = Patience::with(&hook, Point::parse("before_cleanup").unwrap());
        assert_eq!(patience.wait_max, Duration::from_secs(86_400));
    }
}
