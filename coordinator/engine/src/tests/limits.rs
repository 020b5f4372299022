//! Stores that fail, and texts that come from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::toy::{Act, Spec, Stage, Toy, plan};
use crate::driver::Ended;
use crate::fact::{Entry, Fact, Outcome};
use crate::failure::{Failure, codes};
use crate::ids::{AskId, Code, Operator, RunId, StepId, Subject};
use crate::journal::{
    Append, AskRow, Epoch, Holder, Journal, JournalError, JournalRead, Record, RunFilter, RunInfo, Seq,
};
use crate::state::State;
use crate::testing::MemoryJournal;

type Answer<'a, T> = BoxFuture<'a, Result<T, JournalError>>;

/// Every third append fails before it is made, every fourth after; every other renewal fails.
struct Shaky {
    inner: MemoryJournal,
    calls: AtomicU64,
    dead_after: u64,
}

fn broken(doing: &str) -> JournalError {
    JournalError::Store { doing: doing.to_owned(), source: "the disk is away".into() }
}

impl JournalRead for Shaky {
    fn list<'a>(&'a self, filter: &'a RunFilter) -> Answer<'a, Vec<RunInfo>> {
        self.inner.list(filter)
    }

    fn info<'a>(&'a self, id: &'a RunId) -> Answer<'a, RunInfo> {
        self.inner.info(id)
    }

    fn read_from<'a>(&'a self, id: &'a RunId, from: Seq, limit: usize) -> Answer<'a, Vec<Record>> {
        self.inner.read_from(id, from, limit)
    }

    fn watch(&self, id: &RunId) -> watch::Receiver<u64> {
        self.inner.watch(id)
    }

    fn holder<'a>(&'a self, subject: &'a Subject) -> Answer<'a, Option<(Holder, Epoch)>> {
        self.inner.holder(subject)
    }
}

impl Journal for Shaky {
    fn create<'a>(&'a self, subject: &'a Subject, id: &'a RunId, at: Timestamp, created: &'a Value) -> Answer<'a, ()> {
        self.inner.create(subject, id, at, created)
    }

    fn append<'a>(&'a self, append: Append<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let n = self.calls.fetch_add(1, Ordering::SeqCst);
            if n % 3 == 1 || n >= self.dead_after {
                return Err(broken("appending"));
            }
            self.inner.append(append).await?;
            if n % 4 == 3 { Err(broken("appending")) } else { Ok(()) }
        })
    }

    fn acquire<'a>(&'a self, subject: &'a Subject, holder: &'a Holder, ttl: Duration) -> Answer<'a, Epoch> {
        self.inner.acquire(subject, holder, ttl)
    }

    fn renew<'a>(&'a self, subject: &'a Subject, epoch: Epoch, ttl: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.calls.fetch_add(1, Ordering::SeqCst) {
                n if n % 2 == 0 || n >= self.dead_after => Err(broken("renewing")),
                _ => self.inner.renew(subject, epoch, ttl).await,
            }
        })
    }

    fn release<'a>(&'a self, subject: &'a Subject, epoch: Epoch) -> Answer<'a, ()> {
        self.inner.release(subject, epoch)
    }

    fn ask<'a>(&'a self, id: &'a RunId, row: &'a AskRow) -> Answer<'a, ()> {
        self.inner.ask(id, row)
    }

    fn asks<'a>(&'a self, id: &'a RunId) -> Answer<'a, Vec<AskRow>> {
        self.inner.asks(id)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_loses_and_doubles_nothing() {
    let stage = Stage::new(plan()).await;
    stage.world.on("b.run", Act::Until("door", Duration::from_secs(600)));
    let shaky = Shaky { inner: stage.journal.clone(), calls: AtomicU64::new(0), dead_after: u64::MAX };
    let (driver, handle) = stage.driver_on("one", Arc::new(shaky));
    let going = tokio::spawn(driver.run(CancellationToken::new()));
    stage.clock.sleep(Duration::from_secs(300)).await;
    assert!(!handle.lease().borrow().lost);
    stage.world.set("door", "open");
    assert_eq!(going.await.unwrap().unwrap(), Ended::Finished(Outcome::Succeeded));
    let good = Stage::new(plan()).await;
    good.end().await;
    assert_eq!(stage.story().await, good.story().await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_ends_the_driver_when_its_lease_is_over() {
    let stage = Stage::new(plan()).await;
    let shaky = Shaky { inner: stage.journal.clone(), calls: AtomicU64::new(0), dead_after: 8 };
    let (driver, handle) = stage.driver_on("one", Arc::new(shaky));
    let began = stage.clock.mono();
    assert_eq!(driver.run(CancellationToken::new()).await.unwrap(), Ended::Fenced);
    assert!(handle.lease().borrow().lost);
    assert!(stage.clock.mono() - began <= stage.options.lease_ttl + Duration::from_secs(2));
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded), "another one goes on");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_read_is_told_and_ignored() {
    let stage = Stage::new(plan()).await;
    let request = json!({ "request": "levitate" });
    let row = AskRow { ask: AskId::from("1"), by: Operator::from("ann"), at: stage.clock.now(), request };
    stage.journal.ask(&stage.id, &row).await.unwrap();
    assert_eq!(stage.end().await, Ended::Finished(Outcome::Succeeded));
    let warned = stage.facts().await.into_iter().filter(|entry| matches!(entry.fact, Fact::Warned { .. })).count();
    assert_eq!(warned, 1);
}

#[test]
fn of_warnings_the_newest_two_hundred_are_kept_in_the_fold() {
    let fact = |n: u64, fact| Entry { seq: Seq(n), epoch: Epoch(1), at: Timestamp::UNIX_EPOCH, fact };
    let created = Fact::Created { spec: Spec { wish: "w".into() }, plan: plan().shape().ids() };
    let mut state = State::<Toy>::empty().apply(&fact(0, created)).unwrap();
    for n in 1..=201 {
        if n == 201 {
            assert_eq!(state.warnings().count(), 200, "two hundred were not kept");
        }
        let warned = Fact::Warned { step: None, code: Code("TEST"), detail: format!("warning {n}") };
        state = state.apply(&fact(n, warned)).unwrap();
    }
    let kept: Vec<&str> = state.warnings().map(|warning| warning.detail.as_str()).collect();
    assert_eq!((kept.len(), kept[0], kept[199]), (200, "warning 2", "warning 201"));
}

#[test]
fn facts_are_stored_as_tagged_json_and_unknown_shapes_are_named() {
    let fact = Fact::<Toy>::StepStarted { step: StepId("a"), attempt: 2 };
    let stored = json!({ "kind": "step_started", "format": 1, "step": "a", "attempt": 2 });
    assert_eq!(fact.encode().unwrap(), stored);
    let read = |fact: Value| {
        Entry::<Toy>::decode(&Record { seq: Seq(4), epoch: Epoch(1), at: Timestamp::UNIX_EPOCH, fact })
            .map(|entry| entry.fact.kind())
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(stored), Ok("step_started"));
    assert!(read(json!({ "kind": "sung", "format": 3 })).unwrap_err().contains("reads format 3"));
    assert_eq!(read(json!({ "kind": "step_started" })).unwrap_err(), "fact 4 of kind \"step_started\" cannot be read");
    assert!(read(json!("nonsense")).is_err());
    let endless = json!({ "kind": "step_started", "step": "x".repeat(100), "attempt": 1 });
    assert!(read(endless).is_err(), "a name from outside is bounded");
}

#[test]
fn a_failure_keeps_its_chain_as_text() {
    let error = std::io::Error::other(broken("reading"));
    let failure = Failure::transient(Code("TEST"), "opening the door").caused_by(&error).because("it is late");
    let text = "opening the door: the store failed while reading: the disk is away: it is late";
    assert_eq!(failure.to_string(), text);
    let kept: Failure = serde_json::from_value(serde_json::to_value(&failure).unwrap()).unwrap();
    assert_eq!(kept, failure);
    let all: std::collections::BTreeSet<_> = codes::ALL.iter().collect();
    assert_eq!(all.len(), codes::ALL.len(), "every code once");
}
