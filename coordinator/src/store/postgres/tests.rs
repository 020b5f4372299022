//! What the store asks of its server, and for how long, against one that is played: a real one stands in `tests/ports/store.rs`.

use futures_util::future::join_all;
use runtime::played::{Asked, Said, Server, Still};

use super::*;

/// A server, what it was asked, and a switch that lets it say nothing more but to new connections.
struct Scene {
    store: PostgresStore,
    server: Server,
    asked: watch::Receiver<Vec<Asked>>,
    silent: watch::Sender<bool>,
}

fn place(port: u16) -> Place {
    Place {
        host: "127.0.0.1".into(),
        port,
        database: "pilot".into(),
        user: "pilot".into(),
        password_file: None,
        tls: Tls::Disable,
        tls_ca_file: None,
    }
}

async fn scene() -> Scene {
    let (tell, asked) = watch::channel(Vec::new());
    let silent = watch::Sender::new(false);
    let says_nothing = silent.subscribe();
    let answer = move |asked: Asked| {
        let begins = asked.text.starts_with("set ");
        tell.send_modify(|all| all.push(asked));
        let said = if *says_nothing.borrow() && !begins { Said::Nothing } else { Said::Done };
        std::future::ready(said)
    };
    let server = Server::start(answer).await.unwrap();
    let dialer = Dialer::new(place(server.port()), Clock::tokio()).unwrap();
    Scene { store: PostgresStore::over(Arc::new(dialer), StoreId("store-1".into())), server, asked, silent }
}

impl Scene {
    /// Begins one write or one read.
    fn begin(&self, writes: bool) -> tokio::task::JoinHandle<Result<(), JournalError>> {
        let store = self.store.clone();
        tokio::spawn(async move {
            match writes {
                true => store.release(&"c".into(), Epoch(1)).await,
                false => store.list(&RunFilter::default()).await.map(drop),
            }
        })
    }
}

#[tokio::test]
async fn a_store_that_takes_a_connection_and_says_nothing_is_given_up_after_two_seconds() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = place(listener.local_addr().unwrap().port());
    let (still, clock) = (Still::stop(), Clock::tokio());
    let opening = tokio::spawn(async move { PostgresStore::open(&place, clock).await });
    still.pass(Duration::ZERO).await;
    still.pass(Duration::from_millis(1999)).await;
    assert!(!opening.is_finished(), "given up before its time");
    still.pass(Duration::from_millis(2)).await;
    assert!(opening.is_finished(), "it still waits");
    let refused = opening.await.unwrap().err().expect("opened by a server that says nothing");
    assert!(chain(&refused).contains("PU0009") && chain(&refused).contains("within 2000 ms"), "{}", chain(&refused));
}

#[tokio::test]
async fn a_write_without_an_answer_is_given_up_after_2500_ms_and_a_read_after_ten_seconds() {
    let mut scene = scene().await;
    for (writes, limit) in [(true, Duration::from_millis(2500)), (false, Duration::from_secs(10))] {
        scene.silent.send_replace(false);
        scene.begin(writes).await.unwrap().unwrap();
        let (connections, heard) = (scene.server.connections(), scene.asked.borrow().len());
        scene.silent.send_replace(true);
        let still = Still::stop();
        let silent = scene.begin(writes);
        scene.asked.wait_for(|asked| asked.len() > heard).await.unwrap();
        still.pass(limit - Duration::from_millis(1)).await;
        assert!(!silent.is_finished(), "given up before {limit:?}");
        still.pass(Duration::from_millis(2)).await;
        assert!(silent.is_finished(), "it still waits after {limit:?}");
        let failed = chain(&silent.await.unwrap().unwrap_err());
        assert!(failed.contains(&format!("no answer within {} ms", limit.as_millis())), "{failed}");
        drop(still);
        // Nothing behind it would be answered either: the next one has a connection of its own.
        scene.silent.send_replace(false);
        scene.begin(writes).await.unwrap().unwrap();
        assert_eq!(scene.server.connections(), connections + 1);
    }
}

/// The server ends by itself what takes too long, also where nobody is left to hang up.
#[tokio::test]
async fn every_connection_begins_with_the_limits_of_its_statements_and_a_second_for_locks() {
    let scene = scene().await;
    for (writes, limit) in [(true, "2500"), (false, "10000")] {
        scene.begin(writes).await.unwrap().unwrap();
        let connection = scene.server.connections();
        let asked = scene.asked.borrow().clone();
        let first = asked.iter().find(|asked| asked.connection == connection).expect("it was asked something");
        for said in ["lock_timeout = 1000;".to_owned(), format!("statement_timeout = {limit};")] {
            assert!(first.text.contains(&said), "{said}: {}", first.text);
        }
    }
}

#[tokio::test]
async fn however_many_ask_at_once_a_coordinator_has_two_connections_to_a_shared_store() {
    let scene = scene().await;
    let all = join_all((0..200).map(|n| scene.begin(n % 2 == 0))).await;
    for done in all {
        done.unwrap().unwrap();
    }
    assert_eq!(scene.server.connections(), 2);
    assert_eq!(scene.asked.borrow().len(), 202, "each was asked, on connections that were begun once");
}
