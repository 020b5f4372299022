//! The PostgreSQL store on a real server: the engine's contract, and what only this store promises.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use coordinator::enrol::{self, Authority, Validity};
use coordinator::link::Wish;
use coordinator::store::{About, Bookmark, Place, PostgresStore, Sample, Store, Tls};
use engine::testing::journal_contract;
use engine::{Append, Epoch, Holder, Journal, JournalError, JournalRead, RunFilter, RunId, Seq, Subject};
use jiff::Timestamp;
use proto::intent::Targets;
use proto::side::{Endpoint, Side, SideIdentity};
use runtime::clock::Clock;
use runtime::supervision::chain;
use serde_json::json;
use tests::stage::store::StoreServer;

const LEASE: Duration = Duration::from_secs(600);

async fn with_server(body: impl AsyncFnOnce(&StoreServer) -> anyhow::Result<()>) {
    let folder = std::env::temp_dir().join(format!("upgrade-pilot-store-{}", std::process::id()));
    let server = StoreServer::start(&folder).await.expect("the store's server starts");
    let played = body(&server).await;
    server.end().await.expect("the server ends");
    let _ = std::fs::remove_dir_all(&folder);
    played.unwrap_or_else(|error| panic!("{error:#}"));
}

async fn open(place: &Place) -> anyhow::Result<PostgresStore> {
    PostgresStore::open(place, Clock::system()).await.map_err(|error| anyhow::anyhow!(chain(&error)))
}

fn holder(id: &str) -> Holder {
    Holder { id: id.into(), address: format!("http://{id}") }
}

async fn append(store: &PostgresStore, id: &RunId, epoch: Epoch, seq: u64) -> Result<(), JournalError> {
    let fact = json!({ "kind": "warned", "detail": "xxx" });
    store.append(Append { id, epoch, seq: Seq(seq), at: Timestamp::UNIX_EPOCH, fact: &fact, outcome: None }).await
}

async fn begin(store: &PostgresStore, run: &RunId, subject: &Subject) -> anyhow::Result<Epoch> {
    store.prepare(run, &About::default()).await?;
    store.create(subject, run, Timestamp::UNIX_EPOCH, &json!({ "kind": "created" })).await?;
    Ok(store.acquire(subject, &holder("one"), LEASE).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_store_keeps_the_engines_contract() {
    with_server(async |server| {
        let make = async || {
            let place = server.database().await.expect("a database");
            open(&place).await.expect("a store")
        };
        journal_contract(make, Clock::system()).await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_coordinators_share_a_store_and_the_one_that_is_late_is_fenced() {
    with_server(async |server| {
        let place = server.database().await?;
        // Both at once find no tables.
        let (one, two) = tokio::try_join!(open(&place), open(&place))?;
        ensure!(one.id() == two.id(), "one database, two stores");
        let (run, subject) = (RunId::from("up-0001"), Subject::from("c"));
        let mut news = two.watch(&run);
        ensure!(two.list(&RunFilter::default()).await?.is_empty());
        let first = begin(&one, &run, &subject).await?;
        append(&one, &run, first, 1).await?;
        let heard = Clock::system().timeout(Duration::from_secs(10), news.changed()).await;
        ensure!(heard.is_ok(), "an append elsewhere was not heard of");
        let held = two.acquire(&subject, &holder("two"), LEASE).await;
        ensure!(matches!(&held, Err(JournalError::Held { holder, .. }) if holder == "http://one"), "{held:?}");

        // The holder is silent past its lease, by the server's clock; another takes it; the first comes back.
        one.renew(&subject, first, Duration::from_millis(1)).await?;
        let second = taken(&two, &subject).await?;
        ensure!(second > first);
        let late = append(&one, &run, first, 2).await;
        ensure!(matches!(late, Err(JournalError::Fenced(_))), "{late:?}");
        ensure!(matches!(one.renew(&subject, first, LEASE).await, Err(JournalError::Fenced(_))));
        append(&two, &run, second, 2).await?;
        one.release(&subject, first).await?;
        append(&two, &run, second, 3).await?;
        ensure!(one.read_from(&run, Seq(0), 10).await?.len() == 4);

        // Many at once, of both: every place is used once, and only by the holder.
        let race = |store: PostgresStore, epoch: Epoch| {
            let run = run.clone();
            async move {
                let mut done = 0;
                for seq in 4..60 {
                    done += u32::from(append(&store, &run, epoch, seq).await.is_ok());
                }
                done
            }
        };
        let (a, b, c) = tokio::join!(race(one.clone(), first), race(two.clone(), second), race(one.clone(), second));
        ensure!(a == 0 && b + c == 56, "{a} of the deposed, {b} and {c} of the holder");
        let samples = vec![Sample { at_ms: 1, name: "lag_bytes".into(), value: 1.5 }];
        one.add_samples(&run, samples.clone()).await?;
        ensure!(two.samples(&run, 10).await? == samples);
        let more = (2..5).map(|at_ms| Sample { at_ms, ..samples[0].clone() }).collect();
        one.clone().keeping(2).add_samples(&run, more).await?;
        let kept: Vec<i64> = two.samples(&run, 10).await?.iter().map(|sample| sample.at_ms).collect();
        ensure!(kept == [3, 4], "{kept:?} of two that may be kept");
        let mark = |next| Bookmark { run: run.clone(), hook: "channel".into(), next: Seq(next) };
        one.keep_bookmark(&mark(7)).await?;
        two.keep_bookmark(&mark(3)).await?;
        ensure!(two.bookmarks().await? == [mark(7)], "who is behind took something back");
        two.drop_bookmark(&run, "channel").await?;
        ensure!(one.bookmarks().await?.is_empty());
        Ok(())
    })
    .await;
}

/// Takes a lease as soon as it is free.
async fn taken(store: &PostgresStore, subject: &Subject) -> anyhow::Result<Epoch> {
    let clock = Clock::system();
    let take = async {
        loop {
            match store.acquire(subject, &holder("two"), LEASE).await {
                Err(JournalError::Held { .. }) => clock.sleep(Duration::from_millis(5)).await,
                other => return other,
            }
        }
    };
    Ok(clock.timeout(Duration::from_secs(20), take).await.context("the lease is free in time")??)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_store_that_is_lost_comes_back_and_a_damaged_one_is_refused_by_name() {
    with_server(async |server| {
        let place = server.database().await?;
        let store = open(&place).await?;
        let (run, subject) = (RunId::from("up-0001"), Subject::from("c"));
        let epoch = begin(&store, &run, &subject).await?;
        server.crash().await?;
        let lost = append(&store, &run, epoch, 1).await;
        ensure!(matches!(lost, Err(JournalError::Store { .. })), "{lost:?}");
        let refused = open(&place).await.err().context("opened without a server")?.to_string();
        ensure!(refused.contains("PU0009"), "{refused}");
        server.again().await?;
        // The lease was not over, and is not forgotten.
        append(&store, &run, epoch, 1).await?;
        ensure!(store.read_from(&run, Seq(0), 10).await?.len() == 2);

        server.run(&place, "update pilot_store.facts set fact = replace(fact, 'xxx', 'xyx') where seq = 1").await?;
        let damaged = store.read_from(&run, Seq(0), 10).await;
        ensure!(matches!(&damaged, Err(JournalError::Damaged(what)) if what.contains("place 1")), "{damaged:?}");

        let newer = "insert into pilot_store.refinery_schema_history values (99, 'later', '2030-01-01T00:00:00Z', '1')";
        server.run(&place, newer).await?;
        let refused = open(&place).await.err().context("a newer store was opened")?.to_string();
        ensure!(refused.contains("PU0008"), "{refused}");
        drop(store);
        Ok(())
    })
    .await;
}

fn wish(port: u16) -> Wish {
    let blue =
        SideIdentity { side: Side::Blue, cluster_resource_id: "cluster-B".into(), major: 14, members: Vec::new() };
    let production = Endpoint { host: "127.0.0.1".into(), port };
    Wish::calm(Targets { production, serving: Side::Blue, blue, green: None })
}

/// The trait is what everything else of the coordinator knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_wish_of_a_shared_store_is_the_newest_coordinators() {
    with_server(async |server| {
        let store: Arc<dyn Store> = Arc::new(open(&server.database().await?).await?);
        let run = RunId::from("up-0001");
        let about = About { asked_by: "ann".into(), ..About::default() };
        store.prepare(&run, &about).await?;
        ensure!(store.prepare(&run, &about).await.is_err(), "fixed twice");
        ensure!(store.about(&run).await? == (about, None));
        ensure!(matches!(store.about(&RunId::from("none")).await, Err(JournalError::NoSuchRun(_))));
        let upgrade = run.as_str().parse()?;
        let (old, new) = (proto::epoch::Epoch(4), proto::epoch::Epoch(5));
        store.keep(&upgrade, new, &wish(5433)).await.map_err(anyhow::Error::msg)?;
        ensure!(store.keep(&upgrade, old, &wish(5432)).await.is_err(), "a deposed coordinator's wish was kept");
        ensure!(store.about(&run).await?.1 == Some(wish(5433)));
        Ok(())
    })
    .await;
}

/// Gives the server a certificate and turns TLS on. Its key is for the server's own user only.
async fn secure(server: &StoreServer, place: &Place, folder: &std::path::Path) -> anyhow::Result<()> {
    for file in ["tls.crt", "tls.key"] {
        let text = std::fs::read_to_string(folder.join(file))?;
        let lines: Vec<&str> = text.lines().collect();
        let lines = lines.join(",");
        let put = format!("copy (select unnest(string_to_array('{lines}', ','))) to program 'umask 077; cat > {file}'");
        server.run(place, &put).await?;
    }
    for setting in ["ssl_cert_file = 'tls.crt'", "ssl_key_file = 'tls.key'", "ssl = on"] {
        server.run(place, &format!("alter system set {setting}")).await?;
    }
    server.run(place, "select pg_reload_conf()").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_store_over_tls_is_the_one_that_its_certificate_names() {
    runtime::crypto::install();
    with_server(async |server| {
        let (clock, plain) = (Clock::system(), server.database().await?);
        let folder = std::env::temp_dir().join(format!("upgrade-pilot-store-tls-{}", std::process::id()));
        let issued = |name: &str, subfolder: &str| {
            let (authority, folder) = (Authority::make(clock.now())?, folder.join(subfolder));
            let subject = enrol::Subject::Coordinator(vec![name.to_owned()]);
            authority.issue(&subject, Validity::days(clock.now(), 1))?.write(&folder)?;
            anyhow::Ok(folder)
        };
        let (own, other) = (issued("127.0.0.1", "own")?, issued("127.0.0.1", "other")?);
        secure(server, &plain, &own).await?;
        let trusting = |folder: &std::path::Path, host: &str| Place {
            host: host.to_owned(),
            tls: Tls::VerifyFull,
            tls_ca_file: Some(folder.join("ca.crt")),
            ..plain.clone()
        };
        let mut last = String::new();
        let serves = async {
            loop {
                match open(&trusting(&own, "127.0.0.1")).await {
                    Ok(store) => return store,
                    Err(error) => last = error.to_string(),
                }
                clock.sleep(Duration::from_millis(50)).await;
            }
        };
        let store = clock.timeout(Duration::from_secs(30), serves).await;
        let store = store.map_err(|_| anyhow::anyhow!("not opened over TLS: {last}"))?;
        ensure!(store.list(&RunFilter::default()).await?.is_empty());

        for (place, why) in [(trusting(&other, "127.0.0.1"), "UnknownIssuer"), (trusting(&own, "localhost"), "name")] {
            let refused = open(&place).await.err().with_context(|| format!("opened in spite of {why}"))?.to_string();
            ensure!(refused.contains("PU0009") && refused.contains(why), "{why}: {refused}");
        }
        let _litter = std::fs::remove_dir_all(&folder);
        Ok(())
    })
    .await;
}
