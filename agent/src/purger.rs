//! Ends transactions that hold slot creation up, while the wish says so (field rule 3). Lead only, and never without a lease.
//!
//! Idle in transaction is ended after the grace; active is waited for and then named, and ended only once that was approved;
//! prepared is named, never rolled back. What is ended is what was seen: the statement that ends it checks that.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use proto::{
    intent::PurgePolicy,
    report::{Event, Session},
    side::SideIdentity,
};
use runtime::{
    clock::Mono,
    shutdown::Stop,
    supervision::{Ready, Task, TaskError, chain},
};
use tokio_postgres::Row;

use crate::{
    pg::{Conn, catalog::watchers as sql},
    state::Shared,
};

const ROUND_EVERY: Duration = Duration::from_millis(200);
const ROUND_WITHIN: Duration = Duration::from_secs(3);
/// What was named already is remembered up to this many.
const NAMED_MAX: usize = 10_000;

/// See the module.
pub struct Purger {
    pub shared: Shared,
}

/// A session that may be in the way.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    session: Session,
    idle: Duration,
    /// The slot that waits for exactly this one, just now.
    waited_on: Option<String>,
}

/// What is to be done with a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    Spare,
    End,
    /// Name it for a person.
    Name(&'static str),
}

/// One candidate under the policy. `by_age` when no waiting slot could be recognised for so long that age alone decides;
/// `waiting` when a slot is being made just now.
fn judge(candidate: &Candidate, policy: &PurgePolicy, waiting: bool, by_age: bool) -> Judgement {
    let session = &candidate.session;
    if policy.allow_applications.contains(&session.application) {
        return if candidate.waited_on.is_some() {
            Judgement::Name("its application is on the allow-list")
        } else {
            Judgement::Spare
        };
    }
    // Also those that begin while a slot is being made hold it up: any transaction with an id counts then.
    if !waiting && !by_age {
        return Judgement::Spare;
    }
    let idle = session.state.starts_with("idle in transaction");
    let old = Duration::from_millis(session.age_ms);
    if idle {
        let grace = Duration::from_millis(policy.idle_grace_ms);
        return if candidate.idle >= grace { Judgement::End } else { Judgement::Spare };
    }
    if old < Duration::from_millis(policy.active_wait_ms) {
        Judgement::Spare
    } else if policy.end_active {
        Judgement::End
    } else {
        Judgement::Name("it is active past its limit; ending it needs approval")
    }
}

/// What a switched-on purger remembers.
struct Duty {
    on_since: Mono,
    last_waiting: Option<Mono>,
    line: Option<Conn>,
    named: HashSet<String>,
}

impl Duty {
    fn new(now: Mono) -> Duty {
        Duty { on_since: now, last_waiting: None, line: None, named: HashSet::new() }
    }

    /// True the first time.
    fn name(&mut self, what: &str) -> bool {
        if self.named.len() >= NAMED_MAX {
            self.named.clear();
        }
        self.named.insert(what.to_owned())
    }
}

impl Purger {
    /// The policy, when this agent is to purge right now.
    fn policy(&self) -> Option<(PurgePolicy, SideIdentity)> {
        if !self.shared.is_lead() {
            return None;
        }
        let (intent, effective) = self.shared.effective()?;
        Some((effective.purge?, intent.targets.blue.clone()))
    }

    async fn round(&self, duty: &mut Duty, policy: &PurgePolicy, blue: &SideIdentity) -> Result<(), TaskError> {
        let dialer = &self.shared.dialer;
        let same = |conn: &Conn| !conn.is_closed() && dialer.is_of(conn.said(), blue);
        let conn = match duty.line.take().filter(same) {
            Some(conn) => conn,
            None => dialer.open(blue, dialer.maintenance_database()).await?,
        };
        let now = self.shared.clock.mono();
        let waiting: i64 = conn.query_one_scalar(sql::WAITING_SLOTS, &[]).await?;
        if waiting > 0 {
            duty.last_waiting = Some(now);
        }
        let since = duty.last_waiting.unwrap_or(duty.on_since);
        let by_age = now.since(since) >= Duration::from_millis(policy.age_fallback_after_ms);
        for row in conn.query(sql::PURGE_CANDIDATES, &[]).await? {
            let candidate = candidate(&row)?;
            match judge(&candidate, policy, waiting > 0, by_age) {
                Judgement::Spare => {}
                Judgement::Name(reason) => self.named(duty, &candidate, reason),
                Judgement::End => {
                    // The wish may have ended in between; it is asked again before every end.
                    if self.policy().is_none() {
                        return Ok(());
                    }
                    self.end(&conn, duty, candidate, policy).await;
                }
            }
        }
        self.name_prepared(&conn, duty, policy).await?;
        duty.line = Some(conn);
        Ok(())
    }

    async fn end(&self, conn: &Conn, duty: &mut Duty, candidate: Candidate, policy: &PurgePolicy) {
        let session = &candidate.session;
        let states: &[&str] =
            if policy.end_active { &["idle in transaction", "active"] } else { &["idle in transaction"] };
        let ended = conn
            .query_opt(sql::END_SEEN_SESSION, &[&session.pid, &session.backend_start, &session.xact_start, &states])
            .await;
        match ended {
            // It is another one by now, or it has gone.
            Ok(None) => {}
            Ok(Some(row)) if row.try_get::<_, bool>(0).unwrap_or(false) => {
                tracing::info!(
                    pid = session.pid,
                    application = session.application,
                    age_ms = session.age_ms,
                    "ended a transaction that holds slot creation up"
                );
                let Candidate { session, waited_on, .. } = candidate;
                self.shared.event(Event::SessionPurged { at: self.shared.clock.now(), session, waited_on });
            }
            Ok(Some(_)) => self.named(duty, &candidate, "the server did not end it"),
            // One refusal never stops the loop.
            Err(error) => {
                tracing::warn!(pid = session.pid, error = %chain(&error), "a session could not be ended");
                self.named(duty, &candidate, "the server refused to end it");
            }
        }
    }

    fn named(&self, duty: &mut Duty, candidate: &Candidate, reason: &str) {
        let session = &candidate.session;
        let start = session.xact_start.map(|at| at.to_string()).unwrap_or_default();
        if duty.name(&format!("{} {start} {reason}", session.pid)) {
            let database = session.database.as_deref().unwrap_or("-");
            let user = session.user.as_deref().unwrap_or("-");
            let what =
                format!("session {} ({user}, {database}, {}), {} ms old", session.pid, session.state, session.age_ms);
            self.blocked(what, reason);
        }
    }

    async fn name_prepared(&self, conn: &Conn, duty: &mut Duty, policy: &PurgePolicy) -> Result<(), TaskError> {
        for row in conn.query(sql::PREPARED, &[]).await? {
            let (gid, owner, database): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let age_ms = u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or(0);
            if age_ms >= policy.idle_grace_ms && duty.name(&format!("prepared {gid}")) {
                let what = format!("prepared transaction {gid:?} ({owner}, {database}), {age_ms} ms old");
                self.blocked(what, "prepared transactions are never rolled back by this program");
            }
        }
        Ok(())
    }

    fn blocked(&self, what: String, reason: &str) {
        tracing::warn!(what, reason, "something holds slot creation up and may not be ended");
        self.shared.event(Event::PurgeBlocked { at: self.shared.clock.now(), what, reason: reason.to_owned() });
    }
}

fn candidate(row: &Row) -> Result<Candidate, tokio_postgres::Error> {
    let ms = |at: usize| row.try_get::<_, Option<i64>>(at).map(|ms| u64::try_from(ms.unwrap_or(0)).unwrap_or(0));
    Ok(Candidate {
        session: Session {
            pid: row.try_get(0)?,
            database: row.try_get(1)?,
            user: row.try_get(2)?,
            application: row.try_get::<_, Option<String>>(3)?.unwrap_or_default(),
            client: row.try_get(4)?,
            state: row.try_get(5)?,
            backend_start: row.try_get::<_, Option<Timestamp>>(6)?,
            xact_start: row.try_get::<_, Option<Timestamp>>(7)?,
            age_ms: ms(9)?,
            command: row.try_get(10)?,
        },
        idle: Duration::from_millis(ms(8)?),
        waited_on: row.try_get(11)?,
    })
}

impl Task for Purger {
    const NAME: &'static str = "purger";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let mut intent = self.shared.intent.subscribe();
        let mut duty: Option<Duty> = None;
        ready.set(true);
        while !stop.is_triggered() {
            let wait = match self.policy() {
                None => {
                    duty = None;
                    Duration::from_secs(1)
                }
                Some((policy, blue)) => {
                    let duty = duty.get_or_insert_with(|| Duty::new(self.shared.clock.mono()));
                    let round = async {
                        let _at_work = self.shared.purging.lock().await;
                        // "Off" may have been wished, and waited for, while this waited.
                        if self.policy().is_some() { self.round(duty, &policy, &blue).await } else { Ok(()) }
                    };
                    match self.shared.clock.timeout(ROUND_WITHIN, round).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(error = %chain(error.as_ref()), "a round of the purger failed")
                        }
                        Err(elapsed) => tracing::warn!(error = %elapsed, "a round of the purger failed"),
                    }
                    ROUND_EVERY
                }
            };
            tokio::select! {
                () = stop.triggered() => {}
                changed = intent.changed() => changed?,
                () = self.shared.clock.sleep(wait) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PurgePolicy {
        PurgePolicy {
            idle_grace_ms: 1_000,
            active_wait_ms: 10_000,
            age_fallback_after_ms: 30_000,
            allow_applications: vec!["payroll".into()],
            end_active: false,
        }
    }

    fn candidate(state: &str, idle_ms: u64, age_ms: u64) -> Candidate {
        let session = Session {
            pid: 7,
            database: Some("orders".into()),
            user: Some("app".into()),
            application: "shop".into(),
            client: None,
            state: state.into(),
            backend_start: None,
            xact_start: None,
            age_ms,
            command: None,
        };
        Candidate { session, idle: Duration::from_millis(idle_ms), waited_on: None }
    }

    #[test]
    fn idle_transactions_are_ended_after_the_grace_while_a_slot_waits() {
        let (waiting, by_age) = (true, false);
        let judged = |idle| judge(&candidate("idle in transaction", idle, 60_000), &policy(), waiting, by_age);
        assert_eq!(judged(999), Judgement::Spare);
        assert_eq!(judged(1_000), Judgement::End);
    }

    #[test]
    fn without_a_waiting_slot_only_the_fallback_by_age_ends() {
        let old = candidate("idle in transaction", 60_000, 60_000);
        assert_eq!(judge(&old, &policy(), false, false), Judgement::Spare);
        assert_eq!(judge(&old, &policy(), false, true), Judgement::End);
    }

    #[test]
    fn active_transactions_are_waited_for_then_named_and_ended_only_when_approved() {
        let judged = |age, policy: &PurgePolicy| judge(&candidate("active", 0, age), policy, true, false);
        assert_eq!(judged(9_999, &policy()), Judgement::Spare);
        assert!(matches!(judged(10_000, &policy()), Judgement::Name(_)));
        let approved = PurgePolicy { end_active: true, ..policy() };
        assert_eq!(judged(10_000, &approved), Judgement::End);
        assert_eq!(judged(9_999, &approved), Judgement::Spare);
    }

    #[test]
    fn an_allowed_application_is_named_when_it_is_in_the_way_and_never_ended() {
        let mut payroll = candidate("idle in transaction", 60_000, 60_000);
        payroll.session.application = "payroll".into();
        for (waiting, by_age) in [(true, true), (true, false), (false, true)] {
            assert_eq!(judge(&payroll, &policy(), waiting, by_age), Judgement::Spare);
        }
        payroll.waited_on = Some("rds_a".into());
        assert!(matches!(judge(&payroll, &policy(), true, true), Judgement::Name(_)));
    }
}
