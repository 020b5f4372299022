//! The zone and its views without any server: what is seen when, in process, through the C library and over DNS.

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn address(last: u8) -> IpAddr {
    IpAddr::from([127, 9, 8, last])
}

async fn zone() -> (tempfolder::Folder, Zone) {
    let folder = tempfolder::Folder::new();
    let preload = crate::install::ensure_names(&|_| {}).await.expect("nss_wrapper");
    let zone = Zone::new(folder.path(), preload).expect("a zone");
    (folder, zone)
}

mod tempfolder {
    use std::path::{Path, PathBuf};

    /// A folder that goes with its test.
    pub(super) struct Folder(PathBuf);

    impl Folder {
        pub(super) fn new() -> Self {
            let path = std::env::temp_dir().join(format!("pilot-names-{:016x}", rand::random::<u64>()));
            std::fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        pub(super) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn publish(zone: &Zone, names: &[(&str, &[u8])]) {
    let names = names.iter().map(|(name, to)| ((*name).to_owned(), to.iter().map(|last| address(*last)).collect()));
    zone.publish(BTreeMap::from([("cluster-A".to_owned(), Some(names.collect()))]));
}

/// What the C library of another process is told.
async fn getent(resolver: &Resolver, name: &str) -> Option<IpAddr> {
    let mut command = tokio::process::Command::new("getent");
    let output = command.args(["ahostsv4", name]).envs(resolver.environment()).output().await.expect("getent");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().and_then(|text| text.parse().ok())
}

#[tokio::test]
async fn a_view_with_a_delay_keeps_stale_answers_and_learns_new_names_at_once() {
    let (_folder, zone) = zone().await;
    let (quick, slow) =
        (zone.resolver(Duration::ZERO).expect("a view"), zone.resolver(Duration::from_millis(700)).expect("a view"));
    publish(&zone, &[("orders", &[1]), ("green", &[2])]);
    for view in [&quick, &slow] {
        assert_eq!(view.lookup("orders"), Some(address(1)), "a name that nobody has asked for yet is not stale");
        assert_eq!(getent(view, "orders").await, Some(address(1)));
        assert_eq!(view.lookup("unknown"), None);
        assert_eq!(getent(view, "unknown").await, None);
    }
    let moved = zone.0.clock.mono();
    publish(&zone, &[("orders", &[2]), ("orders-old1", &[1])]);
    assert_eq!(quick.lookup("orders"), Some(address(2)));
    assert_eq!(quick.lookup("green"), None);
    assert_eq!(getent(&quick, "orders").await, Some(address(2)));
    assert_eq!(getent(&quick, "green").await, None);
    assert_eq!(slow.lookup("orders-old1"), Some(address(1)));
    if zone.0.clock.mono().since(moved) < Duration::from_millis(600) {
        assert_eq!((slow.lookup("orders"), slow.lookup("green")), (Some(address(1)), Some(address(2))));
    }
    let give_up = zone.0.clock.mono();
    loop {
        let seen =
            (slow.lookup("orders"), slow.lookup("green"), getent(&slow, "orders").await, getent(&slow, "green").await);
        if seen == (Some(address(2)), None, Some(address(2)), None) {
            break;
        }
        assert!(zone.0.clock.mono().since(give_up) < LIMIT, "the slow view still sees {seen:?}");
        zone.0.clock.sleep(Duration::from_millis(20)).await;
    }
    assert!(zone.0.clock.mono().since(moved) >= Duration::from_millis(700));
}

/// Eight threads of one process that ask for a name which is always there, until they are told to stop.
const ASKERS: &str = "
import socket, sys, threading
stop = threading.Event()
lost = []
def ask():
    while not stop.is_set():
        try:
            socket.getaddrinfo('orders', 5432)
        except OSError as error:
            lost.append(error)
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
print('asking', flush=True)
sys.stdin.readline()
stop.set()
for thread in threads: thread.join()
sys.exit(f'{len(lost)} look-ups failed: {lost[0]}' if lost else 0)";

#[tokio::test]
async fn threads_that_look_up_while_the_names_change_are_told_and_do_not_crash() {
    use tokio::io::AsyncReadExt as _;
    let (_folder, zone) = zone().await;
    let view = zone.resolver(Duration::ZERO).expect("a view");
    publish(&zone, &[("orders", &[1])]);
    let mut python = tokio::process::Command::new("python3");
    python.args(["-c", ASKERS]).envs(view.environment()).kill_on_drop(true);
    let pipe = std::process::Stdio::piped;
    let mut python = python.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("python3");
    let mut word = [0; 6];
    python.stdout.as_mut().expect("its output").read_exact(&mut word).await.expect("it asks");
    for change in 0..250_u8 {
        publish(&zone, &[("orders", &[1 + change % 2]), (&format!("other-{change}"), &[9])]);
        // Beside the look-ups, which take as long.
        tokio::task::yield_now().await;
    }
    drop(python.stdin.take());
    let ended = python.wait_with_output().await.expect("it ends");
    assert!(ended.status.success(), "{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr));
}

#[tokio::test]
async fn a_frozen_cluster_keeps_its_names_while_others_change() {
    let (_folder, zone) = zone().await;
    let view = zone.resolver(Duration::ZERO).expect("a view");
    let names = |name: &str, last| Some(Names::from([(name.to_owned(), vec![address(last)])]));
    zone.publish(BTreeMap::from([("A".to_owned(), names("orders", 1)), ("B".to_owned(), names("parts", 5))]));
    zone.publish(BTreeMap::from([("A".to_owned(), None), ("B".to_owned(), names("parts", 6))]));
    assert_eq!((view.lookup("orders"), view.lookup("parts")), (Some(address(1)), Some(address(6))));
    zone.publish(BTreeMap::from([("B".to_owned(), None)]));
    assert_eq!((view.lookup("orders"), view.lookup("parts")), (None, Some(address(6))));
}

#[tokio::test]
async fn several_addresses_are_answered_one_at_a_time_in_turn() {
    let (_folder, zone) = zone().await;
    let view = zone.resolver(Duration::ZERO).expect("a view");
    publish(&zone, &[("readers", &[1, 2, 3])]);
    let seen: std::collections::BTreeSet<_> = (0..3).filter_map(|_| view.lookup("readers")).collect();
    assert_eq!(seen, [1, 2, 3].map(address).into_iter().collect());
}

#[test]
fn dns_answers_questions_about_addresses_and_nothing_else() {
    let question = |kind: u8| {
        let mut text = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        text.extend_from_slice(b"\x06Orders\x03lab\x00");
        text.extend_from_slice(&[0, kind, 0, 1]);
        text
    };
    let known = |name: &str| (name == "orders.lab").then(|| address(4));
    let found = dns::answer(&question(1), known).expect("an answer");
    assert_eq!((found[0], found[1], found[3] & 0x0F, found[7]), (7, 8, 0, 1));
    assert_eq!(found[found.len() - 4..], [127, 9, 8, 4]);
    let other_kind = dns::answer(&question(28), known).expect("an answer");
    assert_eq!((other_kind[3] & 0x0F, other_kind[7]), (0, 0), "no AAAA record, and yet the name exists");
    let unknown = dns::answer(&question(1), |_| None).expect("an answer");
    assert_eq!((unknown[3] & 0x0F, unknown[7]), (3, 0));
    for length in 0..question(1).len() {
        assert!(dns::answer(&question(1)[..length], known).is_none(), "cut at {length}");
    }
    assert!(dns::answer(&found, known).is_none(), "an answer is no question");
}
