//! What a door takes in: handshakes within a time and only so many at once, connections that nobody has taken yet, files of
//! certificates of a length; and how many refusals are remembered as told.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;

use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tracing::span;

use super::*;

/// A listener with TLS that takes in whoever comes.
struct Place {
    folder: PathBuf,
    address: SocketAddr,
    incoming: Incoming,
    refused: mpsc::UnboundedReceiver<Refusal>,
    clock: Clock,
}

/// A folder with a certificate of its own authority.
fn certified(name: &str, clock: &Clock) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("pilot-doors-{name}-{}", uuid::Uuid::now_v7()));
    let authority = Authority::make(clock.now()).unwrap();
    let server = Subject::Coordinator(vec!["localhost".into()]);
    authority.issue(&server, Validity::days(clock.now(), 1)).unwrap().write(&folder).unwrap();
    folder
}

async fn place(name: &str, clock: Clock) -> Place {
    let folder = certified(name, &clock);
    let credentials = Arc::new(Credentials::open(&folder, clock.clone()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, refused) = mpsc::unbounded_channel();
    let told = move |refusal| drop(tell.send(refusal));
    let incoming = Incoming::tls(listener, clock.clone(), Door::Pages, credentials, told).unwrap();
    Place { folder, address, incoming, refused, clock }
}

impl Place {
    /// A handshake, from the other end.
    async fn greet(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.join("ca.crt")).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Long enough for a handshake that is begun, on any machine.
const A_WHILE: Duration = Duration::from_millis(400);

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_done_within_five_seconds_is_cut_and_told_as_slow() {
    let mut place = place("slow", Clock::tokio()).await;
    let mut silent = TcpStream::connect(place.address).await.unwrap();
    let began = place.clock.mono();
    let refusal = place.refused.recv().await.expect("somebody is refused");
    let took = place.clock.mono().since(began);
    assert_eq!((refusal.reason, refusal.address), ("slow", silent.local_addr().unwrap()));
    assert!(took >= Duration::from_millis(4_900) && took < Duration::from_millis(5_100), "cut after {took:?}");
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0, "it is still open");
}

#[tokio::test]
async fn of_256_handshakes_under_way_the_next_waits_until_one_of_them_has_ended() {
    let place = place("handshakes", Clock::system()).await;
    let mut silent = Vec::new();
    for _ in 0..255 {
        silent.push(TcpStream::connect(place.address).await.unwrap());
    }
    let one_more = place.clock.timeout(SOON, place.greet()).await;
    drop(one_more.expect("there is a place").expect("a handshake"));
    silent.push(TcpStream::connect(place.address).await.unwrap());
    let mut greeted = pin!(place.greet());
    assert!(place.clock.timeout(A_WHILE, &mut greeted).await.is_err(), "one more was begun");
    drop(silent.pop());
    place.clock.timeout(SOON, greeted).await.expect("it has its turn").expect("a handshake");
}

#[tokio::test]
async fn connections_that_nobody_takes_keep_their_places_and_more_are_not_taken_in() {
    let mut place = place("ready", Clock::system()).await;
    let mut open = Vec::new();
    // 64 are ready, and as many handshakes as may be under way have ended and wait to be.
    for _ in 0..64 + 256 {
        open.push(place.clock.timeout(SOON, place.greet()).await.expect("there is a place").expect("a handshake"));
    }
    {
        let mut greeted = pin!(place.greet());
        assert!(place.clock.timeout(A_WHILE, &mut greeted).await.is_err(), "one more was taken in");
    }
    // Whoever was let in is there, in spite of all the waiting.
    for n in 0..64 + 256 {
        let taken = place.clock.timeout(SOON, place.incoming.next()).await;
        assert!(taken.is_ok_and(|taken| taken.is_some_and(|it| it.is_ok())), "the {n}th is gone");
    }
    place.clock.timeout(SOON, place.greet()).await.expect("there is a place again").expect("a handshake");
}

#[test]
fn a_certificate_file_of_a_mebibyte_is_read_and_a_longer_one_is_refused_by_name() {
    let clock = Clock::system();
    let folder = certified("long", &clock);
    let mut text = std::fs::read(folder.join("ca.crt")).unwrap();
    text.resize(1 << 20, b'\n');
    std::fs::write(folder.join("ca.crt"), &text).unwrap();
    Credentials::open(&folder, clock.clone()).expect("a mebibyte is read");
    text.push(b'\n');
    std::fs::write(folder.join("ca.crt"), &text).unwrap();
    let refused = Credentials::open(&folder, clock.clone()).expect_err("one byte more is read").to_string();
    assert!(refused.contains("ca.crt: it is longer than 1 MiB"), "{refused}");
    // What has no length beforehand is not read without end either.
    std::fs::remove_file(folder.join("ca.crt")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.join("ca.crt")).unwrap();
    let refused = Credentials::open(&folder, clock).expect_err("an endless file is read").to_string();
    assert!(refused.contains("ca.crt: it is longer than 1 MiB"), "{refused}");
    let _ = std::fs::remove_dir_all(&folder);
}

/// Counts what is logged.
struct Counting(Arc<AtomicUsize>);

impl tracing::Subscriber for Counting {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn of_1024_refusals_each_is_logged_once_and_with_the_next_the_memory_begins_anew() {
    let guard = Guard::new("us-east-1", Clock::system());
    let logged = Arc::new(AtomicUsize::new(0));
    let turn_away = |n: u32| {
        let address = SocketAddr::new(std::net::Ipv4Addr::from(n).into(), 1);
        guard.turned_away(&Refusal { address, reason: "none", what: "no certificate was shown".into() });
        logged.load(Ordering::SeqCst)
    };
    tracing::subscriber::with_default(Counting(logged.clone()), || {
        for n in 1..=1024 {
            assert_eq!(turn_away(n), n as usize, "the first refusal of each is logged");
        }
        for n in [1, 500, 1024, 1] {
            // Known, and 1024 of them: it is not told again.
            assert_eq!(guard.logged.lock().unwrap().len(), 1024);
            assert_eq!(turn_away(n), 1024, "it was logged already");
        }
        assert_eq!(turn_away(1025), 1025);
        assert_eq!(guard.logged.lock().unwrap().len(), 1, "the memory did not begin anew");
        assert_eq!(turn_away(1), 1026, "what was forgotten is told again");
    });
}
