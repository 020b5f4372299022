//! Which coordinator drives: one lease of the store. Whoever holds it drives every active upgrade and has all the agents; the
//! others stand by, look at it twice a second, and take over when it has run out by the store's clock. A store of one coordinator
//! has the same lease, which nobody else wants.
//!
//! This lease only says who should drive. What keeps two from driving one upgrade is the lease of the upgrade itself.

use engine::{Epoch, JournalError, RunFilter, Subject};
use runtime::clock::Mono;
use runtime::supervision::chain;
use std::time::Duration;

use super::{Drivers, Term};
use crate::link::Standing;
use crate::metrics;

/// Not the name of a cluster: those are ARNs.
pub(super) const SUBJECT: &str = "coordinator";
/// Between two looks of a coordinator that stands by; with this and a look's own time a take-over is well within lease + 2 s.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A coordinator that was deposed waits at most so long for its drivers to stand still before it stands by.
const STAND_STILL: Duration = Duration::from_secs(8);

/// What came of a look.
enum Look {
    Mine(Epoch, Mono),
    Anothers(String),
}

impl Drivers {
    /// Takes the lead if it is free. Says whether this coordinator leads now; its upgrades are driven then.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn stand(&self) -> Result<Option<Lead>, JournalError> {
        match self.look().await? {
            Look::Anothers(address) => {
                self.follow(Some(address));
                Ok(None)
            }
            Look::Mine(epoch, until) => {
                let lead = Lead { term: self.begin(epoch), epoch, until };
                if let Err(error) = self.pick_up(&lead.term).await {
                    self.step_down(&lead).await;
                    return Err(error);
                }
                self.tell_rest(&lead.term);
                self.0.options.hub.open_doors();
                metrics::leading(true);
                tracing::info!(epoch = epoch.0, "this coordinator drives");
                Ok(Some(lead))
            }
        }
    }

    /// Stands by and leads in turn until the process stops.
    pub(super) async fn take_turns(self, mut lead: Option<Lead>) {
        let (stop, clock) = (self.0.options.stop.clone(), self.0.options.clock.clone());
        let mut said = String::new();
        loop {
            if let Some(mut leading) = lead.take() {
                self.keep(&mut leading).await;
                self.step_down(&leading).await;
            }
            if !stop.sleep(&clock, LOOK_EVERY).await {
                return;
            }
            match self.stand().await {
                Ok(standing) => {
                    lead = standing;
                    said.clear();
                }
                Err(error) => {
                    self.follow(None);
                    let why = chain(&error);
                    // The same reason again is no news.
                    if why != said {
                        tracing::warn!(error = why, "the store was not asked who drives, trying again");
                        said = why;
                    }
                }
            }
        }
    }

    async fn look(&self) -> Result<Look, JournalError> {
        let options = &self.0.options;
        let subject = Subject::from(SUBJECT);
        if let Some((holder, _)) = options.store.holder(&subject).await?
            && holder.id != options.holder.id
        {
            return Ok(Look::Anothers(holder.address));
        }
        let asked = options.clock.mono();
        match options.store.acquire(&subject, &options.holder, options.lease).await {
            Ok(epoch) => Ok(Look::Mine(epoch, asked + options.lease)),
            Err(JournalError::Held { holder, .. }) => Ok(Look::Anothers(holder)),
            Err(error) => Err(error),
        }
    }

    fn follow(&self, leader: Option<String>) {
        let standing = Standing::Follows { leader: leader.clone() };
        if self.0.options.hub.standing() != standing {
            tracing::info!(leader = leader.as_deref().unwrap_or("nobody known"), "this coordinator stands by");
            self.0.options.hub.follow(leader);
        }
        metrics::leading(false);
    }

    /// Renews the lease, and drives what was begun elsewhere, until the process stops or the lease is lost.
    async fn keep(&self, lead: &mut Lead) {
        let options = &self.0.options;
        let subject = Subject::from(SUBJECT);
        let mut wait = options.lease / 3;
        while options.stop.sleep(&options.clock, wait).await {
            let asked = options.clock.mono();
            let renewal = options.store.renew(&subject, lead.epoch, options.lease);
            // No later than its own clock says that the lease is over, whatever became of the question.
            let limit = (options.lease / 3).min(lead.until.since(asked));
            match options.clock.timeout(limit, renewal).await {
                Ok(Ok(())) => {
                    lead.until = asked + options.lease;
                    wait = options.lease / 3;
                    if let Err(error) = self.pick_up(&lead.term).await {
                        tracing::warn!(error = chain(&error), "active upgrades were not listed, trying again");
                    }
                }
                Ok(Err(JournalError::Fenced(_))) => {
                    return tracing::warn!("another coordinator may drive: the lead is lost");
                }
                Ok(Err(_)) | Err(_) if options.clock.mono() < lead.until => wait = options.lease / 10,
                Ok(Err(_)) | Err(_) => return tracing::warn!("the store does not answer: the lead is given up"),
            }
        }
    }

    /// Drives every active upgrade that is not driven yet.
    async fn pick_up(&self, term: &Term) -> Result<(), JournalError> {
        let active = RunFilter { active_only: true, ..RunFilter::default() };
        for run in self.0.options.store.list(&active).await? {
            if self.running(&run.id).is_none() {
                tracing::info!(upgrade = %run.id, cluster = %run.subject, "resuming");
                self.drive(term, run.id, &run.subject).await?;
            }
        }
        Ok(())
    }

    /// Sends the agents away, lets the drivers stand still, and gives the lead to whoever comes first.
    async fn step_down(&self, lead: &Lead) {
        let options = &self.0.options;
        // Agents that are to dial elsewhere after a stop are told so when the drivers stand still.
        if !options.stop.is_triggered() {
            self.follow(None);
        }
        self.end(&lead.term);
        if options.clock.timeout(STAND_STILL, lead.term.tasks.wait()).await.is_err() {
            tracing::info!("a driver was left at a call; it is fenced, and looked at by the next one");
        }
        let subject = Subject::from(SUBJECT);
        if let Err(error) = options.store.release(&subject, lead.epoch).await {
            tracing::debug!(error = chain(&error), "the lead was not given back, it ends by itself");
        }
    }
}

/// The lead, while it is held.
pub(super) struct Lead {
    term: Term,
    epoch: Epoch,
    until: Mono,
}
