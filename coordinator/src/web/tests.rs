//! The pages over real sockets: what is refused and how it is told, what a role may, how live pages are counted, and that nothing
//! shown can become markup.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ConnectInfo;
use engine::RunId;
use proto::identity::{Identity, Role};
use runtime::admin::{self, Bounds};
use runtime::clock::Clock;
use runtime::recorder::Recorder;
use runtime::shutdown::Stop;
use runtime::tls::{Certificate, Incoming, Peer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::one::{May, One};
use super::*;
use crate::drivers::Drivers;
use crate::drivers::tests::{Outside, life};
use crate::operator::Asked as AskedFor;
use crate::spec::UpgradeSpec;
use crate::store::About;

const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
const SOON: Duration = Duration::from_secs(20);
const MARKUP: &str = "<script>alert(1)</script>\"'&";

/// A coordinator with an upgrade under way, and its pages.
struct Scene {
    file: PathBuf,
    drivers: Drivers,
    outside: Outside,
    id: RunId,
    page: SocketAddr,
    serving: JoinSet<()>,
}

/// `visitor`: over TLS, an operator of that name with those roles; else over a plain connection.
async fn scene(visitor: Option<(&str, &[Role])>, live_max: usize) -> Scene {
    let file = std::env::temp_dir().join(format!("pilot-web-{}.sqlite", uuid::Uuid::now_v7()));
    let outside = Outside::default();
    let drivers = life(&file, &outside).await;
    let id =
        drivers.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &About::default()).await.unwrap();
    let mut scene = Scene { file, drivers, outside, id, page: ([127, 0, 0, 1], 0).into(), serving: JoinSet::new() };
    scene.page = scene.door(visitor, live_max).await;
    scene.until("the step waits", |view| view.current.as_ref().is_some_and(|it| it.waiting_for.is_some())).await;
    scene
}

impl Scene {
    /// One more door to the same coordinator.
    async fn door(&mut self, visitor: Option<(&str, &[Role])>, live_max: usize) -> SocketAddr {
        let clock = Clock::system();
        let operator = Operator::new(self.drivers.clone());
        let mut router = guarded(router(operator, live_max), Guard::new("us-east-1", clock.clone()));
        router = router.route("/metrics", get(async || "metrics"));
        if let Some((name, roles)) = visitor {
            let identity = Identity::Operator { name: name.to_owned(), roles: roles.iter().copied().collect() };
            let certificate = Certificate {
                uris: identity.uris(),
                not_after: clock.now() + jiff::SignedDuration::from_hours(1),
                serial: "01".into(),
                issuer: "a test".into(),
            };
            let address = ([127, 0, 0, 1], 1).into();
            let peer = Peer { address, secured: true, certificate: Some(Arc::new(certificate)) };
            router = router.layer(Extension(ConnectInfo(peer)));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = listener.local_addr().unwrap();
        let incoming = Incoming::plain(listener, clock.clone()).unwrap();
        let (recorder, stop) = (Recorder::detached(), Stop::new());
        self.serving.spawn(async move {
            admin::serve(incoming, router, recorder, clock, stop, Bounds::default()).await.unwrap();
        });
        page
    }

    async fn until(&self, what: &str, wished: impl Fn(&crate::operator::view::StatusView) -> bool) {
        let (operator, clock) = (Operator::new(self.drivers.clone()), Clock::system());
        let began = clock.mono();
        loop {
            let view = operator.status(self.id.as_str()).await.unwrap();
            if wished(&view) {
                return;
            }
            assert!(clock.mono() - began < SOON, "{what}: last seen {view:?}");
            clock.sleep(Duration::from_millis(10)).await;
        }
    }

    async fn send(&self, page: SocketAddr, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(page).await.unwrap();
        let host = if head.contains("\r\nhost:") { String::new() } else { format!("host: {page}\r\n") };
        let request = format!("{head}\r\n{host}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        Clock::system().timeout(SOON, stream.read_to_end(&mut answer)).await.expect("answered in time").unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.send(self.page, &format!("GET {path} HTTP/1.1"), "").await
    }

    async fn own_page(&self) -> String {
        self.get(&format!("/upgrades/{}", self.id)).await
    }

    /// As a browser sends a form of ours.
    async fn ask(&self, form: &[(&str, &str)]) -> String {
        self.ask_from(form, "sec-fetch-site: same-origin").await
    }

    async fn ask_from(&self, form: &[(&str, &str)], lines: &str) -> String {
        let fields: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let head = format!(
            "POST /upgrades/{}/ask HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n{lines}",
            self.id
        );
        self.send(self.page, &head, &fields.join("&")).await
    }

    /// What the page's forms say that was seen.
    async fn seen(&self) -> String {
        let view = Operator::new(self.drivers.clone()).status(self.id.as_str()).await.unwrap();
        super::seen::Seen::of(&view).text()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.drivers.options().stop.trigger();
        let _ = std::fs::remove_file(&self.file);
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn expect(answer: &str, status: u16, words: &[&str]) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
    for word in words {
        assert!(answer.contains(word), "{word:?} is not said: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_does_what_the_role_allows_and_is_not_to_be_pressed_without_it() {
    let mut scene = scene(Some(("vera", &[Role::View])), 8).await;
    let page = scene.own_page().await;
    expect(&page, 200, &["takes the role <code>operate</code>, which you do not have", "disabled"]);
    assert!(!page.contains("Tune a setting") && !page.contains("id=\"confirm\""), "{page}");
    let seen = scene.seen().await;
    let pause = [("act", "pause"), ("seen", seen.as_str())];
    expect(&scene.ask(&pause).await, 403, &["PU0112: operator vera has the role view, this takes operate"]);

    scene.page = scene.door(Some(("olga", &[Role::Operate])), 8).await;
    let approve = [("act", "approve"), ("name", "cleanup"), ("seen", seen.as_str())];
    expect(&scene.ask(&approve).await, 403, &["PU0112: operator olga has the role operate, this takes approve"]);
    let page = scene.own_page().await;
    expect(&page, 200, &["Tune a setting", "type the cluster&rsquo;s name"]);
    expect(&scene.ask(&pause).await, 200, &["Done: pause is in the journal"]);
    let facts = Operator::new(scene.drivers.clone()).history(scene.id.as_str(), engine::Seq(0)).await.unwrap().facts;
    let asked = facts.iter().find(|fact| fact.kind == "asked").expect("a fact");
    assert_eq!(asked.text, "olga asks: pause");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_stale_is_refused_and_told_what_changed() {
    let scene = scene(None, 8).await;
    let page = scene.own_page().await;
    let seen = scene.seen().await;
    assert!(page.contains(&seen.replace('"', "&#34;")), "the page's forms do not say what was seen: {seen}");
    expect(&scene.ask(&[("act", "pause"), ("seen", &seen)]).await, 200, &["Done"]);
    scene.until("the pause", |view| view.paused).await;
    let again = scene.ask(&[("act", "abort"), ("confirm", "orders"), ("seen", &seen)]).await;
    expect(&again, 409, &["PU1102", "it has been paused"]);
    let seen = scene.seen().await;
    let wrong = scene.ask(&[("act", "abort"), ("confirm", "billing"), ("seen", &seen)]).await;
    expect(&wrong, 409, &["is not the cluster of this upgrade"]);
    expect(&scene.ask(&[("act", "abort"), ("seen", &seen)]).await, 409, &["takes the cluster"]);
    expect(&scene.ask(&[("act", "pause"), ("seen", "{}")]).await, 400, &["load it again"]);
    expect(&scene.ask(&[("act", MARKUP), ("seen", &seen)]).await, 400, &["nothing that can be asked for"]);
    let bits = [("act", "postpone"), ("until", "tomorrow"), ("seen", seen.as_str())];
    expect(&scene.ask(&bits).await, 400, &["is not a time"]);
    // By script the answer is a part of the page, else a page.
    let lines = "sec-fetch-site: same-origin\r\nhx-request: true";
    let by_script = scene.ask_from(&[("act", "x"), ("seen", &seen)], lines).await;
    assert!(!by_script.contains("<html"), "{by_script}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_site_sends_is_not_done() {
    let scene = scene(None, 8).await;
    let seen = scene.seen().await;
    let pause = [("act", "pause"), ("seen", seen.as_str())];
    for lines in [
        "sec-fetch-site: cross-site".to_owned(),
        "sec-fetch-site: same-site".to_owned(),
        "origin: https://evil.example".to_owned(),
        "x: y".to_owned(),
        format!("origin: null\r\nhost: {}", scene.page),
    ] {
        expect(&scene.ask_from(&pause, &lines).await, 403, &["PU1103"]);
    }
    let head =
        format!("POST /upgrades/{}/ask HTTP/1.1\r\ncontent-type: text/plain\r\nsec-fetch-site: same-origin", scene.id);
    expect(&scene.send(scene.page, &head, "act=pause").await, 415, &["urlencoded"]);
    let large = "x".repeat(FORM_BYTES_MAX);
    expect(&scene.ask(&[("act", "tune"), ("value", &large)]).await, 413, &[]);
    // A name of somebody else's that leads to this machine.
    let foreign = scene.send(scene.page, "GET / HTTP/1.1\r\nhost: evil.example:7401", "").await;
    expect(&foreign, 403, &["PU1103", "for this machine only"]);
    let page = scene.get("/").await;
    expect(&page, 200, &["content-security-policy: default-src 'none'; script-src 'self'", "nosniff", "no-store"]);
    scene.until("nothing happened", |view| !view.paused).await;
    expect(&scene.ask_from(&pause, &format!("origin: http://{}", scene.page)).await, 200, &["Done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_ended_upgrades_are_told_as_such() {
    let scene = scene(None, 8).await;
    let unknown = scene.get("/upgrades/%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    expect(&unknown, 404, &["there is no upgrade &#60;script&#62;"]);
    expect(&scene.get("/upgrades/none/live").await, 404, &["there is no upgrade none"]);
    expect(&scene.get("/upgrades/none/journal").await, 404, &[]);
    expect(&scene.get("/explain/PU0001").await, 200, &["# PU0001"]);
    expect(&scene.get("/explain/%3Cb%3E").await, 404, &["there is no code &#60;B&#62;"]);
    expect(&scene.get("/assets/x/none").await, 404, &[]);

    let seen = scene.seen().await;
    scene.outside.go.store(true, Ordering::SeqCst);
    scene.until("the end", |view| view.outcome.is_some()).await;
    let late = scene.ask(&[("act", "abort"), ("confirm", "orders"), ("seen", &seen)]).await;
    expect(&late, 409, &["PU1102", "it has ended: succeeded"]);
    let seen = scene.seen().await;
    expect(&scene.ask(&[("act", "pause"), ("seen", &seen)]).await, 409, &["has ended: succeeded"]);
    expect(&scene.own_page().await, 200, &["There is nothing to decide any more", "data-over=\"succeeded\""]);
    expect(&scene.get("/").await, 200, &["succeeded", scene.id.as_str()]);
    // One event tells all, and is the last.
    let live = scene.get(&format!("/upgrades/{}/live?from=0", scene.id)).await;
    expect(&live, 200, &["text/event-stream", "\"over\":true", "upgrade succeeded"]);
    assert_eq!(live.matches("data: ").count(), 1, "{live}");
    let json = scene.get(&format!("/upgrades/{}/status.json", scene.id)).await;
    expect(&json, 200, &["\"outcome\":\"succeeded\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_is_told_every_fact_once_and_what_changed_of_the_page() {
    let scene = scene(None, 8).await;
    let mut stream = BufReader::new(TcpStream::connect(scene.page).await.unwrap());
    let request = format!("GET /upgrades/{}/live?from=0 HTTP/1.1\r\nhost: {}\r\n\r\n", scene.id, scene.page);
    stream.write_all(request.as_bytes()).await.unwrap();
    let seen = scene.seen().await;
    expect(&scene.ask(&[("act", "pause"), ("seen", &seen)]).await, 200, &["Done"]);
    let (mut facts, mut paused, clock) = (Vec::new(), 0, Clock::system());
    let reading = async {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let update: serde_json::Value = serde_json::from_str(data).unwrap();
            let rows = update["facts"].as_str().unwrap().split("data-seq=\"").skip(1);
            let mut new: Vec<u64> = rows.map(|row| row.split('"').next().unwrap().parse().unwrap()).collect();
            new.reverse();
            facts.extend(new);
            let now = update["sections"]["now"].as_str().unwrap_or_default();
            paused += usize::from(now.contains("Paused by a person"));
            // What has not changed is not sent again.
            if facts.len() > 5 && update["sections"]["parameters"].is_null() && paused > 0 {
                return;
            }
            if paused > 0 && facts.is_empty() {
                panic!("no facts");
            }
            if paused > 1 {
                return;
            }
        }
    };
    clock.timeout(SOON, reading).await.expect("told in time");
    let expected: Vec<u64> = (0..facts.len() as u64).collect();
    assert_eq!(facts, expected, "facts are missing or told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_live_pages_one_more_than_may_be_is_told_so_and_metrics_are_answered() {
    let scene = scene(None, 1).await;
    let mut first = TcpStream::connect(scene.page).await.unwrap();
    let live = format!("/upgrades/{}/live", scene.id);
    first.write_all(format!("GET {live} HTTP/1.1\r\nhost: {}\r\n\r\n", scene.page).as_bytes()).await.unwrap();
    let mut some = [0; 15];
    first.read_exact(&mut some).await.unwrap();
    assert_eq!(&some, b"HTTP/1.1 200 OK");
    expect(&scene.get(&live).await, 503, &["PU1101", "limits.live_max", "retry-after: 10"]);
    expect(&scene.get("/live").await, 503, &["PU1101"]);
    expect(&scene.get("/metrics").await, 200, &["metrics"]);
    drop(first);
    let clock = Clock::system();
    let free = async {
        while scene.send(scene.page, "GET /upgrades/none/live HTTP/1.1", "").await.starts_with("HTTP/1.1 503") {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(SOON, free).await.expect("its place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_is_let_go_when_the_coordinator_stops() {
    let scene = scene(None, 8).await;
    let mut pages = Vec::new();
    for live in ["/live".to_owned(), format!("/upgrades/{}/live", scene.id)] {
        let mut page = BufReader::new(TcpStream::connect(scene.page).await.unwrap());
        let request = format!("GET {live} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", scene.page);
        page.write_all(request.as_bytes()).await.unwrap();
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(page.read_line(&mut line).await.unwrap() > 0, "{live} has ended");
        }
        pages.push((live, page));
    }
    scene.drivers.options().stop.trigger();
    for (live, mut page) in pages {
        let mut rest = Vec::new();
        let ended = Clock::system().timeout(SOON, page.read_to_end(&mut rest)).await;
        ended.unwrap_or_else(|_| panic!("{live} goes on")).unwrap();
    }
}

/// Everything that comes from databases, agents, people and AWS.
fn hostile() -> One {
    let mut json = serde_json::to_value(testing::view()).unwrap();
    fn spoil(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) if text.parse::<jiff::Timestamp>().is_err() => *text = MARKUP.to_owned(),
            serde_json::Value::Array(items) => items.iter_mut().for_each(spoil),
            serde_json::Value::Object(fields) => fields.values_mut().for_each(spoil),
            _ => {}
        }
    }
    let at = "2026-11-30T16:00:00Z";
    json["statements"] = serde_json::json!([{"key": "k", "database": "d", "role": "r",
        "verdict": {"verdict": "refused", "reason": "x"}}]);
    json["sessions"] = serde_json::json!([{"at": at, "what": "ended", "agent": "a", "pid": 7, "user": "u",
        "database": "d", "application": "p", "state": "active", "command": "c", "age_ms": 5, "why": "w", "key": "k"}]);
    json["gaps"] = serde_json::json!([{"kind": "write", "from": at, "ms": 5, "agent": "a", "before": null,
        "after": null, "reboot": false}]);
    json["alarms"] = serde_json::json!([{"monitor": "m", "level": "hold", "code": "PU0602", "text": "t",
        "approval": "n"}]);
    json["warnings"] = serde_json::json!([{"at": at, "step": null, "code": "PU0602", "detail": "d"}]);
    json["approvals"] = serde_json::json!([{"name": "n", "step": "s", "why": "w"}]);
    json["ddl"] = serde_json::json!([{"at": at, "what": "create table", "user": "u", "database": "d", "client": "c",
        "harm": null}]);
    json["switchover"] = serde_json::json!([{"at": at, "what": "x", "agent": "a", "side": null, "phase": "x",
        "offset_ms": 0}]);
    // Words of closed sets stay as they are, or the view could not be read.
    let kept: Vec<(&str, serde_json::Value)> = ["statements"].map(|key| (key, json[key].clone())).into();
    spoil(&mut json);
    kept.into_iter().for_each(|(key, value)| json[key] = value);
    json["gaps"][0]["kind"] = "write".into();
    let mut spec = UpgradeSpec::new(MARKUP, "16");
    spec.replica_identity_full = vec![format!("orders.public.{MARKUP}")];
    let tuned = [(MARKUP.to_owned(), serde_json::json!(MARKUP))].into();
    One {
        view: serde_json::from_value(json).unwrap(),
        before: Default::default(),
        asked: AskedFor { spec: Some(spec), tuned },
        may: May { operate: true, approve: true },
    }
}

#[test]
fn a_table_named_script_and_whatever_else_comes_from_outside_is_text() {
    let one = hostile();
    let mut all: Vec<(String, String)> =
        one.sections().unwrap().into_iter().map(|(id, html)| (id.to_owned(), html)).collect();
    let brief = crate::operator::view::Brief::of(&one.view);
    let overview = all::sections(&[brief], &[]).unwrap();
    all.extend(overview.into_iter().map(|(id, html)| (id.to_owned(), html)));
    let fact = crate::operator::view::FactView {
        seq: 1,
        at: one.view.started_at,
        epoch: 1,
        kind: MARKUP.into(),
        text: MARKUP.into(),
        fact: serde_json::Value::Null,
    };
    all.push(("journal".into(), journal::rows_of(vec![fact]).unwrap()));
    let quoted = all.iter().filter(|(_, html)| html.contains("&#60;script&#62;")).count();
    assert!(quoted >= 9, "only {quoted} sections show what came from outside");
    for (id, html) in &all {
        assert!(!html.contains("<script"), "{id}: {html}");
        // A quote would end an attribute.
        assert!(!html.contains("alert(1)</"), "{id}: {html}");
        assert!(!html.contains(" style=") && !html.contains(" onclick="), "{id} has what the rules do not allow");
    }
}
