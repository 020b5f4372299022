//! The driver's hand on the journal: the only code that appends, renews the lease, and turns requests into facts.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Mono;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cx::{Lease, Mail, Shared, Signal};
use crate::driver::Options;
use crate::fact::{Entry, Fact, Request};
use crate::failure::{Failure, codes};
use crate::ids::{AskId, StepId, Subject};
use crate::journal::{Append, AskRow, Journal, JournalError};
use crate::state::{IllegalFact, State};
use crate::step::Domain;

/// Why a fact is not in the journal.
pub(crate) enum Refused {
    /// The lease is lost; the signal says so too.
    Lost,
    /// The fold refuses it.
    Illegal(IllegalFact),
}

pub(crate) struct Writer<D: Domain> {
    pub(crate) options: Options<D>,
    shared: Arc<Shared<D>>,
    subject: Subject,
    journal: Arc<dyn Journal>,
    state: watch::Sender<Arc<State<D>>>,
    signal: watch::Sender<Signal>,
    lease: watch::Sender<Lease>,
    mail: mpsc::Receiver<Mail<D>>,
    stop: CancellationToken,
    changes: watch::Receiver<u64>,
    changes_end: bool,
    renew_at: Mono,
    inbox_at: Mono,
    /// Rows of the inbox that are not requests; each is reported once.
    unreadable: BTreeSet<AskId>,
}

impl<D: Domain> Writer<D> {
    #[expect(clippy::too_many_arguments, reason = "called once, by name, where all of these are made")]
    pub(crate) fn new(
        shared: Arc<Shared<D>>,
        subject: Subject,
        journal: Arc<dyn Journal>,
        options: Options<D>,
        state: watch::Sender<Arc<State<D>>>,
        signal: watch::Sender<Signal>,
        lease: watch::Sender<Lease>,
        mail: mpsc::Receiver<Mail<D>>,
        stop: CancellationToken,
    ) -> Writer<D> {
        let changes = journal.watch(&shared.run_id);
        let now = shared.clock.mono();
        let renew_at = now + options.lease_ttl / 3;
        let unreadable = BTreeSet::new();
        let (inbox_at, changes_end) = (now, false);
        Writer {
            options,
            shared,
            subject,
            journal,
            state,
            signal,
            lease,
            mail,
            stop,
            changes,
            changes_end,
            renew_at,
            inbox_at,
            unreadable,
        }
    }

    pub(crate) fn state(&self) -> Arc<State<D>> {
        self.state.borrow().clone()
    }

    pub(crate) fn signal(&self) -> Signal {
        *self.signal.borrow()
    }

    /// Drives `work` while serving everything else. `None` if it was asked to come back, by the process or (for work
    /// of `step`) by the fold, and has not within the grace: it is dropped then, but never while the pivot is armed.
    pub(crate) async fn attend<T>(&mut self, step: Option<StepId>, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut drop_at: Option<Mono> = None;
        let clock = self.shared.clock.clone();
        loop {
            let state = self.state();
            let unwanted = step.is_some_and(|step| state.interruption(step).is_some());
            let wanted_back = !state.armed() && (unwanted || self.signal() != Signal::None);
            drop_at = wanted_back.then(|| drop_at.unwrap_or(clock.mono() + self.options.interrupt_grace));
            if drop_at.is_some_and(|drop_at| clock.mono() >= drop_at) {
                return None;
            }
            // Who is to stop reads no inbox any more: what is due there must not keep the work from its turn.
            let inbox_at = (self.signal() == Signal::None).then_some(self.inbox_at);
            let wake_at = [Some(self.renew_at), inbox_at, drop_at].into_iter().flatten().min();
            let fenced = self.signal() == Signal::Fenced;
            tokio::select! {
                biased;
                () = clock.sleep_until(wake_at.unwrap_or_default()), if !fenced || drop_at.is_some() => self.tick().await,
                () = self.stop.cancelled(), if self.signal() == Signal::None => self.call(Signal::Stop),
                Some(mail) = self.mail.recv() => self.serve(mail).await,
                changed = self.changes.changed(), if !self.changes_end => match changed {
                    Ok(()) => self.read_inbox().await,
                    Err(_) => self.changes_end = true,
                },
                done = &mut work => return Some(done),
            }
        }
    }

    fn call(&self, signal: Signal) {
        self.signal.send_replace(signal);
    }

    fn fence(&self) {
        self.lease.send_modify(|lease| lease.lost = true);
        self.call(Signal::Fenced);
    }

    async fn tick(&mut self) {
        let now = self.shared.clock.mono();
        let ttl = self.options.lease_ttl;
        if self.signal() == Signal::Fenced {
            // Nothing is renewed or read any more; only the work at hand is waited for.
            (self.renew_at, self.inbox_at) = (now + ttl, now + ttl);
            return;
        }
        if now >= self.renew_at {
            self.renew(now).await;
        }
        if now >= self.inbox_at && self.signal() == Signal::None {
            self.read_inbox().await;
        }
    }

    async fn renew(&mut self, asked: Mono) {
        let (ttl, clock) = (self.options.lease_ttl, self.shared.clock.clone());
        let epoch = self.lease.borrow().epoch;
        match clock.timeout(ttl / 3, self.journal.renew(&self.subject, epoch, ttl)).await {
            Ok(Ok(())) => {
                self.lease.send_modify(|lease| lease.until = asked + ttl);
                self.renew_at = asked + ttl / 3;
            }
            Ok(Err(JournalError::Store { .. })) | Err(_) => {
                warn!(run = %self.shared.run_id, "lease not renewed, trying again");
                self.renew_at = clock.mono() + ttl / 10;
                if clock.mono() >= self.lease.borrow().until {
                    self.fence();
                }
            }
            Ok(Err(error)) => {
                debug!(run = %self.shared.run_id, %error, "lease lost");
                self.fence();
            }
        }
    }

    async fn serve(&mut self, mail: Mail<D>) {
        match mail {
            Mail::Append { fact, reply } => {
                let arming = matches!(fact, Fact::PivotArmed { .. });
                let answer = self.append(fact).await.map_err(|refused| self.explain(refused, arming));
                match reply {
                    Some(reply) => drop(reply.send(answer)),
                    None => drop(answer),
                }
            }
            Mail::Observe { source, n, event, reply } => {
                let answer = if n <= self.state().observed(&source) {
                    Ok(())
                } else {
                    self.append(Fact::Observed { source, n, event })
                        .await
                        .map_err(|refused| self.explain(refused, false))
                };
                reply.send(answer).ok();
            }
        }
    }

    fn explain(&self, refused: Refused, arming: bool) -> Failure {
        match refused {
            Refused::Lost => Failure::interrupted("the lease is lost"),
            Refused::Illegal(why) if arming => {
                Failure::transient(codes::CANNOT_ARM, "arming the pivot").caused_by(&why)
            }
            Refused::Illegal(why) => {
                Failure::permanent(codes::JOURNAL_SHAPE, "appending to the journal").caused_by(&why)
            }
        }
    }

    /// Turns rows of the inbox that are not facts yet into facts.
    async fn read_inbox(&mut self) {
        self.inbox_at = self.shared.clock.mono() + self.options.inbox_every;
        // While it is read the lease is not renewed: a store that is slow to read must not cost it.
        let limit = self.options.lease_ttl / 3;
        let rows = match self.shared.clock.timeout(limit, self.journal.asks(&self.shared.run_id)).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                warn!(run = %self.shared.run_id, %error, "inbox not read, trying again");
                return;
            }
            Err(_) => {
                warn!(run = %self.shared.run_id, "inbox not read in time, trying again");
                return;
            }
        };
        for AskRow { ask, by, request, .. } in rows {
            if self.state().has_asked(&ask) || self.unreadable.contains(&ask) {
                continue;
            }
            let appended = match Request::<D>::deserialize(&request) {
                Ok(request) => self.append(Fact::Asked { by, ask, request }).await,
                Err(error) => {
                    let detail = format!("a request of {by} cannot be read and is ignored: {error}");
                    self.unreadable.insert(ask);
                    self.append(Fact::Warned { step: None, code: codes::JOURNAL_SHAPE, detail }).await
                }
            };
            if appended.is_err() {
                return;
            }
        }
    }

    /// Appends one fact: legal first, then durable, then published.
    pub(crate) async fn append(&mut self, fact: Fact<D>) -> Result<(), Refused> {
        if self.signal() == Signal::Fenced {
            return Err(Refused::Lost);
        }
        let state = self.state();
        let at = self.shared.clock.now().max(state.updated_at());
        let entry = Entry { seq: state.next_seq(), epoch: self.lease.borrow().epoch, at, fact };
        let next = State::clone(&state).apply(&entry).map_err(Refused::Illegal)?;
        let value = entry.fact.encode().map_err(|error| {
            let (seq, kind) = (entry.seq.0, entry.fact.kind());
            Refused::Illegal(IllegalFact { seq, kind, reason: format!("it cannot be written: {error}") })
        })?;
        self.persist(&entry, &value, &next).await?;
        debug!(run = %self.shared.run_id, seq = entry.seq.0, fact = entry.fact.kind(), "appended");
        self.state.send_replace(Arc::new(next));
        if let Some(on_fact) = &self.options.on_fact {
            on_fact(&entry);
        }
        Ok(())
    }

    /// Tries until the store has it, or the lease is over. After a failure of the store it may be there already.
    async fn persist(&self, entry: &Entry<D>, value: &Value, next: &State<D>) -> Result<(), Refused> {
        let id = &self.shared.run_id;
        let (seq, epoch, at) = (entry.seq, entry.epoch, entry.at);
        let mut doubtful = false;
        let mut delay = Duration::from_millis(20);
        loop {
            let append = Append { id, epoch, seq, at, fact: value, outcome: next.outcome() };
            match self.journal.append(append).await {
                Ok(()) => return Ok(()),
                Err(JournalError::Store { .. }) if self.shared.clock.mono() < self.lease.borrow().until => {
                    doubtful = true
                }
                Err(_) if doubtful && self.is_there(entry, value).await => return Ok(()),
                Err(error) => {
                    warn!(run = %id, seq = seq.0, %error, "append refused, giving up the run");
                    self.fence();
                    return Err(Refused::Lost);
                }
            }
            self.shared.clock.sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(1));
        }
    }

    async fn is_there(&self, entry: &Entry<D>, value: &Value) -> bool {
        let found = self.journal.read_from(&self.shared.run_id, entry.seq, 1).await;
        let ours = |record: &crate::journal::Record| record.epoch == entry.epoch && record.fact == *value;
        found.is_ok_and(|records| records.first().is_some_and(ours))
    }
}
