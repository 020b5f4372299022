//! The store against the engine's contract, and what only this store promises.

use std::path::PathBuf;
use std::time::Duration;

use engine::testing::journal_contract;
use engine::{Append, Holder, Journal, JournalError, JournalRead, RunFilter, RunId, Seq, Subject};
use jiff::Timestamp;
use proto::epoch::Epoch;
use proto::ids::UpgradeId;
use runtime::clock::Clock;
use serde_json::json;

use super::*;
use crate::link::WishKeeper;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("pilot-store-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(format!("{}.sqlite", uuid::Uuid::now_v7()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_engines_contract() {
    let (folder, clock) = (Folder::new(), Clock::tokio());
    journal_contract(async || SqliteStore::open(&folder.file(), clock.clone()).unwrap(), clock.clone()).await;
}

#[tokio::test]
async fn a_second_coordinator_is_refused_and_the_next_one_finds_everything() {
    let (folder, clock) = (Folder::new(), Clock::system());
    let file = folder.file();
    let store = SqliteStore::open(&file, clock.clone()).unwrap();
    let second = SqliteStore::open(&file, clock.clone()).err().map(|error| error.to_string());
    assert!(second.as_deref().is_some_and(|text| text.contains("in use")), "{second:?}");

    let (subject, run) = (Subject::from("c"), RunId::from("up-0001"));
    let about = About { roster: vec!["agent-1".parse().unwrap()], from_version: "14.9".into(), ..About::default() };
    store.prepare(&run, &about).await.unwrap();
    store.create(&subject, &run, Timestamp::UNIX_EPOCH, &json!({ "kind": "created" })).await.unwrap();
    let holder = Holder { id: "one".into(), address: "a".into() };
    let first = store.acquire(&subject, &holder, Duration::from_secs(600)).await.unwrap();
    let id = store.id().clone();
    drop(store);

    let store = reopened(&file, &clock).await;
    assert_eq!(*store.id(), id);
    assert_eq!(store.about(&run).await.unwrap(), (about, None));
    assert_eq!(store.list(&RunFilter { active_only: true, ..RunFilter::default() }).await.unwrap().len(), 1);
    // The holder of before is gone, so its lease does not keep anybody waiting; its epoch is never used again.
    let other = Holder { id: "two".into(), address: "b".into() };
    assert!(store.acquire(&subject, &other, Duration::from_secs(600)).await.unwrap() > first);
}

/// The file is unlocked when the thread of the former store has ended, which is a moment after its last handle went.
async fn reopened(file: &std::path::Path, clock: &Clock) -> SqliteStore {
    let open = async {
        loop {
            match SqliteStore::open(file, clock.clone()) {
                Ok(store) => return store,
                Err(OpenError::InUse { .. }) => clock.sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{}", runtime::supervision::chain(&error)),
            }
        }
    };
    clock.timeout(Duration::from_secs(5), open).await.expect("the store is unlocked within 5 s")
}

#[tokio::test]
async fn the_newest_wish_outlives_the_process() {
    let (folder, clock) = (Folder::new(), Clock::system());
    let store = SqliteStore::open(&folder.file(), clock).unwrap();
    let run = RunId::from("up-0001");
    let upgrade: UpgradeId = run.as_str().parse().unwrap();
    let wish = crate::link::tests::wish(true);
    assert!(store.keep(&upgrade, Epoch(5), &wish).await.is_err(), "a wish of no run was kept");
    store.prepare(&run, &About::default()).await.unwrap();
    store.keep(&upgrade, Epoch(5), &wish).await.unwrap();
    assert_eq!(store.about(&run).await.unwrap().1, Some(wish));
    assert!(
        store.keep(&upgrade, Epoch(4), &crate::link::tests::wish(false)).await.is_err(),
        "a deposed one's wish was kept"
    );
}

#[tokio::test]
async fn a_bookmark_only_goes_forward_until_it_is_dropped() {
    let (folder, clock) = (Folder::new(), Clock::system());
    let store = SqliteStore::open(&folder.file(), clock).unwrap();
    let mark = |hook: &str, next| Bookmark { run: RunId::from("up-0001"), hook: hook.into(), next: Seq(next) };
    for mark in [mark("a", 5), mark("b", 0), mark("a", 3)] {
        store.keep_bookmark(&mark).await.unwrap();
    }
    assert_eq!(store.bookmarks().await.unwrap(), [mark("a", 5), mark("b", 0)]);
    store.drop_bookmark(&RunId::from("up-0001"), "a").await.unwrap();
    store.drop_bookmark(&RunId::from("up-0002"), "b").await.unwrap();
    assert_eq!(store.bookmarks().await.unwrap(), [mark("b", 0)]);
}

#[tokio::test]
async fn samples_come_back_in_order() {
    let (folder, clock) = (Folder::new(), Clock::system());
    let store = SqliteStore::open(&folder.file(), clock).unwrap();
    let run = RunId::from("up-0001");
    for at_ms in 0..5 {
        let sample = Sample { at_ms, name: "lag_bytes".into(), value: 1.5 };
        store.add_samples(&run, vec![sample]).await.unwrap();
    }
    let newest = store.samples(&run, 2).await.unwrap();
    assert_eq!(newest.iter().map(|sample| sample.at_ms).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test]
async fn of_samples_the_newest_twenty_thousand_of_each_upgrade_are_kept() {
    let (folder, clock) = (Folder::new(), Clock::system());
    let store = SqliteStore::open(&folder.file(), clock).unwrap();
    let (run, other) = (RunId::from("up-0001"), RunId::from("up-0002"));
    let sample = |at_ms| Sample { at_ms, name: "lag_bytes".into(), value: 1.5 };
    store.add_samples(&other, vec![sample(-1)]).await.unwrap();
    store.add_samples(&run, (0..20_000).map(sample).collect()).await.unwrap();
    assert_eq!(store.samples(&run, u32::MAX).await.unwrap().len(), 20_000, "as many as may be are not all there");
    store.add_samples(&run, (20_000..20_003).map(sample).collect()).await.unwrap();
    let kept = store.samples(&run, u32::MAX).await.unwrap();
    assert_eq!((kept.len(), kept[0].at_ms, kept[19_999].at_ms), (20_000, 3, 20_002));
    assert_eq!(store.samples(&other, 10).await.unwrap().len(), 1, "another upgrade's samples went");
    store.clone().keeping(2).add_samples(&run, vec![sample(20_003)]).await.unwrap();
    let kept: Vec<i64> = store.samples(&run, u32::MAX).await.unwrap().iter().map(|sample| sample.at_ms).collect();
    assert_eq!(kept, [20_002, 20_003], "another number was asked for");
}

/// Questions beyond the limit wait with whoever asks: one who goes away then has asked nothing.
#[tokio::test]
async fn two_hundred_and_fifty_six_questions_wait_for_the_store_and_the_others_with_those_who_ask() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.file(), Clock::system()).unwrap();
    let (begun, busy) = tokio::sync::oneshot::channel();
    let (free, door) = std::sync::mpsc::channel::<()>();
    let worker = store.worker.clone();
    let first = tokio::spawn(async move {
        let wait = move |_: &mut rusqlite::Connection| {
            begun.send(()).expect("the test waits");
            door.recv().expect("the test opens");
        };
        worker.run(wait).await.map_err(|gone| gone.to_string())
    });
    busy.await.expect("the thread is at work");
    let done = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut asked: Vec<_> = (0..300)
        .map(|_| {
            let done = done.clone();
            let add = move |_: &mut rusqlite::Connection| done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Box::pin(tokio::task::unconstrained(store.worker.run(add)))
        })
        .collect();
    let mut looking = std::task::Context::from_waker(std::task::Waker::noop());
    for question in &mut asked {
        assert!(question.as_mut().poll(&mut looking).is_pending(), "answered by a thread that is at work");
    }
    drop(asked);
    free.send(()).unwrap();
    first.await.unwrap().unwrap();
    // Whatever was sent before this is done before it.
    store.worker.run(|_| ()).await.map_err(|gone| gone.to_string()).unwrap();
    assert_eq!(done.load(std::sync::atomic::Ordering::SeqCst), 256);
}

/// A store with one run, and its lease.
async fn with_a_run(file: &std::path::Path) -> (SqliteStore, RunId, engine::Epoch) {
    let store = reopened(file, &Clock::system()).await;
    let (subject, run) = (Subject::from("c"), RunId::from("up-0001"));
    store.prepare(&run, &About::default()).await.unwrap();
    store.create(&subject, &run, Timestamp::UNIX_EPOCH, &json!({ "kind": "created" })).await.unwrap();
    let holder = Holder { id: "one".into(), address: "a".into() };
    let epoch = store.acquire(&subject, &holder, Duration::from_secs(600)).await.unwrap();
    (store, run, epoch)
}

async fn append(store: &SqliteStore, id: &RunId, epoch: engine::Epoch, seq: u64) -> Result<(), JournalError> {
    let fact = json!({ "kind": "warned", "detail": "x".repeat(3000) });
    store.append(Append { id, epoch, seq: Seq(seq), at: Timestamp::UNIX_EPOCH, fact: &fact, outcome: None }).await
}

#[tokio::test]
async fn a_full_disk_is_named_nothing_is_half_written_and_it_goes_on_with_room() {
    let (folder, file) = (Folder::new(), "full.sqlite");
    let (store, run, epoch) = with_a_run(&folder.0.join(file)).await;
    // What SQLite says of a full disk, it says of its own limit too.
    let limit = |pages: u32| {
        store
            .worker
            .run(move |connection| connection.query_row(&format!("pragma max_page_count = {pages}"), [], |_| Ok(())))
    };
    limit(1).await.unwrap().unwrap();
    let mut seq = 1;
    let error = loop {
        match append(&store, &run, epoch, seq).await {
            Ok(()) => seq += 1,
            Err(error) => break runtime::supervision::chain(&error),
        }
    };
    assert!(error.contains("PU0009") && error.contains("disk of the store is full"), "{error}");
    assert_eq!(store.read_from(&run, Seq(0), 1000).await.unwrap().len() as u64, seq, "half of a fact was written");
    limit(100_000).await.unwrap().unwrap();
    append(&store, &run, epoch, seq).await.unwrap();
    assert_eq!(store.read_from(&run, Seq(seq), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_torn_file_and_one_of_another_version_are_refused_by_name_and_left_alone() {
    let (folder, clock) = (Folder::new(), Clock::system());
    let file = folder.0.join("torn.sqlite");
    let (store, run, epoch) = with_a_run(&file).await;
    for seq in 1..30 {
        append(&store, &run, epoch, seq).await.unwrap();
    }
    let newer = "insert into refinery_schema_history values (99, 'later', '2030-01-01T00:00:00Z', '1')";
    store.worker.run(|connection| connection.execute_batch("pragma wal_checkpoint(truncate)")).await.unwrap().unwrap();
    drop(store);
    drop(reopened(&file, &clock).await);
    let whole = std::fs::read(&file).unwrap();
    let refused = async |bytes: &[u8]| {
        let file = folder.file();
        std::fs::write(&file, bytes).unwrap();
        let error = SqliteStore::open(&file, clock.clone()).err().expect("a damaged file was opened");
        assert!(std::fs::read(&file).unwrap() == bytes, "a damaged file was written to");
        runtime::supervision::chain(&error)
    };
    for torn in [&whole[..whole.len() / 2], &b"this was never a database, but something else of the same name"[..]] {
        let error = refused(torn).await;
        assert!(error.contains("PU0007") && error.contains("damaged"), "{error}");
    }
    let store = reopened(&file, &clock).await;
    store.worker.run(move |connection| connection.execute_batch(newer)).await.unwrap().unwrap();
    drop(store);
    let error = reopening_fails(&file, &clock).await;
    assert!(error.contains("PU0008"), "{error}");
}

/// Why a file that nobody has open any more is refused.
async fn reopening_fails(file: &std::path::Path, clock: &Clock) -> String {
    let open = async {
        loop {
            match SqliteStore::open(file, clock.clone()) {
                Ok(_) => panic!("it was opened"),
                Err(OpenError::InUse { .. }) => clock.sleep(Duration::from_millis(5)).await,
                Err(error) => return runtime::supervision::chain(&error),
            }
        }
    };
    clock.timeout(Duration::from_secs(5), open).await.expect("the store is unlocked within 5 s")
}

#[tokio::test]
async fn a_flipped_bit_of_a_fact_is_refused_by_its_place() {
    let folder = Folder::new();
    let (store, run, epoch) = with_a_run(&folder.file()).await;
    append(&store, &run, epoch, 1).await.unwrap();
    let flip = "update facts set fact = replace(fact, 'xxx', 'xyx') where seq = 1";
    store.worker.run(move |connection| connection.execute(flip, [])).await.unwrap().unwrap();
    let error = store.read_from(&run, Seq(0), 10).await.unwrap_err();
    assert!(matches!(&error, JournalError::Damaged(what) if what.contains("place 1")), "{error}");
    assert_eq!(store.read_from(&run, Seq(0), 1).await.unwrap().len(), 1, "what is before it can be read");
}
