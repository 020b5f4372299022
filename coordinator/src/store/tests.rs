//! The store against the engine's contract, and what only this store promises.

use std::path::PathBuf;
use std::time::Duration;

use engine::testing::journal_contract;
use engine::{Holder, Journal, JournalRead, RunFilter, RunId, Subject};
use jiff::Timestamp;
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
    assert!(store.keep(&upgrade, &wish).await.is_err(), "a wish of no run was kept");
    store.prepare(&run, &About::default()).await.unwrap();
    store.keep(&upgrade, &wish).await.unwrap();
    assert_eq!(store.about(&run).await.unwrap().1, Some(wish));
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
