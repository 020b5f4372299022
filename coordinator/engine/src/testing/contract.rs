//! What every [`Journal`] must do, as one test function that each store calls on itself.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use runtime::clock::Clock;
use serde_json::{Value, json};

use crate::fact::Outcome;
use crate::ids::{AskId, RunId, Subject};
use crate::journal::{Append, AskRow, Epoch, Holder, Journal, JournalError, RunFilter, Seq};

/// Short enough for a store on the machine's own clock, long enough for a slow disk.
const TTL: Duration = Duration::from_millis(1500);

/// Runs the whole contract. `make` gives an empty journal; `clock` is one on which its leases run out (the contract
/// sleeps on it for a few seconds in all).
///
/// # Panics
/// If the journal breaks the contract.
pub async fn journal_contract<J: Journal>(make: impl AsyncFn() -> J, clock: Clock) {
    creation(&make().await).await;
    appends(&make().await).await;
    leases(&make().await, &clock).await;
    inbox_and_watch(&make().await).await;
    listing(&make().await).await;
}

fn holder(id: &str) -> Holder {
    Holder { id: id.to_owned(), address: format!("http://{id}") }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number")
}

fn fact(kind: &str) -> Value {
    json!({ "kind": kind, "format": 1, "text": "ä \u{1F600} \" \\ '", "number": 9_007_199_254_740_993_u64, "none": null })
}

async fn add(
    journal: &impl Journal,
    id: &RunId,
    epoch: Epoch,
    seq: u64,
    end: Option<Outcome>,
) -> Result<(), JournalError> {
    let fact = fact(&format!("fact{seq}"));
    journal.append(Append { id, epoch, seq: Seq(seq), at: at(seq as i64), fact: &fact, outcome: end }).await
}

async fn creation(journal: &impl Journal) {
    let (a, b) = (RunId::from("a"), RunId::from("b"));
    let (one, two) = (Subject::from("one"), Subject::from("two"));
    journal.create(&one, &a, at(1), &fact("created")).await.expect("the first run of a subject");
    let exists = journal.create(&two, &a, at(2), &fact("created")).await;
    assert!(matches!(exists, Err(JournalError::Exists(id)) if id == a), "an id is used once");
    let busy = journal.create(&one, &b, at(2), &fact("created")).await;
    assert!(matches!(busy, Err(JournalError::SubjectBusy { by, .. }) if by == a), "one active run per subject");
    journal.create(&two, &b, at(2), &fact("created")).await.expect("another subject is free");

    let records = journal.read_from(&a, Seq(0), 10).await.expect("to read it");
    assert_eq!(records.len(), 1);
    let first = (records[0].seq, records[0].epoch, records[0].at, &records[0].fact);
    assert_eq!(first, (Seq(0), Epoch(0), at(1), &fact("created")), "what was written is read");

    let epoch = journal.acquire(&one, &holder("h"), TTL).await.expect("a free lease");
    add(journal, &a, epoch, 1, Some(Outcome::Unwound)).await.expect("to end the run");
    assert_eq!(journal.info(&a).await.expect("a run").outcome, Some(Outcome::Unwound));
    assert!(add(journal, &a, epoch, 2, None).await.is_err(), "nothing follows the end");
    journal.create(&one, &RunId::from("c"), at(3), &fact("created")).await.expect("the subject is free again");
}

async fn appends(journal: &impl Journal) {
    let (id, subject) = (RunId::from("a"), Subject::from("one"));
    journal.create(&subject, &id, at(0), &fact("created")).await.expect("to create");
    let early = add(journal, &id, Epoch(0), 1, None).await;
    assert!(matches!(early, Err(JournalError::Fenced(_))), "the creator holds no lease");
    let epoch = journal.acquire(&subject, &holder("h"), TTL * 20).await.expect("a free lease");
    assert!(matches!(add(journal, &id, epoch, 0, None).await, Err(JournalError::Taken(Seq(0)))), "a place used");
    assert!(matches!(add(journal, &id, epoch, 2, None).await, Err(JournalError::Taken(Seq(2)))), "a gap");
    for seq in 1..=25 {
        add(journal, &id, epoch, seq, None).await.expect("the next place");
    }
    assert!(matches!(add(journal, &id, epoch, 25, None).await, Err(JournalError::Taken(_))), "appended twice");
    let wrong = Epoch(epoch.0 + 1);
    assert!(matches!(add(journal, &id, wrong, 26, None).await, Err(JournalError::Fenced(_))), "not the holder");
    let page = journal.read_from(&id, Seq(20), 3).await.expect("a page");
    let places: Vec<u64> = page.iter().map(|record| record.seq.0).collect();
    assert_eq!(places, [20, 21, 22]);
    assert!(page.iter().all(|record| record.epoch == epoch && record.fact == fact(&format!("fact{}", record.seq))));
    let missing = RunId::from("none");
    assert!(add(journal, &missing, epoch, 1, None).await.is_err());
    assert!(matches!(journal.info(&missing).await, Err(JournalError::NoSuchRun(_))));
}

async fn leases(journal: &impl Journal, clock: &Clock) {
    let (one, two, id) = (Subject::from("one"), Subject::from("two"), RunId::from("a"));
    journal.create(&one, &id, at(0), &fact("created")).await.expect("to create");
    let mine = journal.acquire(&one, &holder("mine"), TTL).await.expect("a free lease");
    match journal.acquire(&one, &holder("other"), TTL).await {
        Err(JournalError::Held { holder, remaining }) => assert!(holder.contains("mine") && remaining <= TTL),
        other => panic!("a held lease is not given away: {other:?}"),
    }
    let seen = journal.holder(&one).await.expect("to look");
    assert_eq!(seen, Some((holder("mine"), mine)), "everyone can see the holder");
    let elsewhere = journal.acquire(&two, &holder("other"), TTL).await.expect("another subject's lease");
    assert!(elsewhere > mine, "epochs rise over the whole store");
    let again = journal.acquire(&one, &holder("mine"), TTL).await.expect("one's own lease");
    assert!(again > elsewhere, "always a new epoch");
    assert!(matches!(journal.renew(&one, mine, TTL).await, Err(JournalError::Fenced(_))), "an old epoch is fenced");
    assert!(matches!(add(journal, &id, mine, 1, None).await, Err(JournalError::Fenced(_))));
    journal.release(&one, mine).await.expect("releasing an old epoch is nothing");
    assert!(journal.holder(&one).await.expect("to look").is_some());

    for _ in 0..3 {
        clock.sleep(TTL / 2).await;
        journal.renew(&one, again, TTL).await.expect("a renewed lease lives on");
    }
    add(journal, &id, again, 1, None).await.expect("and appends");
    clock.sleep(TTL + TTL / 5).await;
    assert!(matches!(add(journal, &id, again, 2, None).await, Err(JournalError::Fenced(_))), "expired is fenced");
    assert!(matches!(journal.renew(&one, again, TTL).await, Err(JournalError::Fenced(_))), "and not revived");
    assert_eq!(journal.holder(&one).await.expect("to look"), None);
    let taken = journal.acquire(&one, &holder("other"), TTL).await.expect("an expired lease is free");
    assert!(taken > again);
    add(journal, &id, taken, 2, None).await.expect("the new holder appends");
    journal.release(&one, taken).await.expect("to release");
    let free = journal.acquire(&one, &holder("mine"), TTL).await.expect("a released lease is free");
    assert!(free > taken);
}

async fn inbox_and_watch(journal: &impl Journal) {
    let (id, subject) = (RunId::from("a"), Subject::from("one"));
    journal.create(&subject, &id, at(0), &fact("created")).await.expect("to create");
    let mut watch = journal.watch(&id);
    watch.borrow_and_update();
    let row = |ask: &str, by: &str| AskRow { ask: AskId::from(ask), by: by.into(), at: at(5), request: fact(ask) };
    for row in [row("2", "ann"), row("1", "bob"), row("2", "carl")] {
        journal.ask(&id, &row).await.expect("to ask");
    }
    assert!(watch.has_changed().expect("the watch lives"), "asking is seen");
    assert_eq!(journal.asks(&id).await.expect("the inbox"), [row("2", "ann"), row("1", "bob")], "once, oldest first");
    assert!(journal.ask(&RunId::from("none"), &row("3", "ann")).await.is_err(), "no inbox without a run");
    watch.borrow_and_update();
    let epoch = journal.acquire(&subject, &holder("h"), TTL * 20).await.expect("a free lease");
    add(journal, &id, epoch, 1, None).await.expect("to append");
    assert!(watch.has_changed().expect("the watch lives"), "appending is seen");
}

async fn listing(journal: &impl Journal) {
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let subject = Subject::from(format!("subject-{name}"));
        journal.create(&subject, &RunId::from(name), at(n as i64), &fact("created")).await.expect("to create");
    }
    let subject = Subject::from("subject-b");
    let epoch = journal.acquire(&subject, &holder("h"), TTL * 20).await.expect("a free lease");
    add(journal, &RunId::from("b"), epoch, 1, Some(Outcome::Succeeded)).await.expect("to end b");
    let ids = async |filter: RunFilter| {
        let listed = journal.list(&filter).await.expect("a list");
        listed.into_iter().map(|info| info.id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(RunFilter::default()).await, ["c", "b", "a"], "newest first");
    assert_eq!(ids(RunFilter { active_only: true, ..RunFilter::default() }).await, ["c", "a"]);
    assert_eq!(ids(RunFilter { subject: Some(subject), ..RunFilter::default() }).await, ["b"]);
    let limited = ids(RunFilter { limit: Some(1), ..RunFilter::default() }).await;
    assert_eq!(BTreeSet::from_iter(limited), BTreeSet::from(["c".to_owned()]));
}
