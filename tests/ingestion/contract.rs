//! What every controller keeps, whatever its system is.

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent::{
    config::Ingestion,
    ingestion::{IngestionController, PAUSE_WITHIN, PauseMark, controllers},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use lab::demo::{
    bouncer::{Bouncer, Options},
    tempo::Tempo,
};
use proto::{intent::IngestionWish, report::IngestionState};
use runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Folder, Life, PAUSED, mark, until, until_state};

pub(super) type Doing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Something that can be done again and again.
type Act<'a> = &'a (dyn Fn() -> Doing<'a> + Sync);

/// A system with its controllers: each is the controller of another life of the agent.
pub(super) struct Subject<'a> {
    pub(super) controller: &'a (dyn Fn() -> Arc<dyn IngestionController> + Sync),
    /// How somebody else pauses and resumes it, where the system can tell whose pause it is.
    pub(super) by_hand: Option<(Act<'a>, Act<'a>)>,
    /// The system itself remembers our pause.
    pub(super) remembers: bool,
}

/// One `[[ingestion]]` section, as a controller.
pub(super) fn configured(section: &Value, agent: &str) -> Arc<dyn IngestionController> {
    let system: Ingestion = serde_json::from_value(section.clone()).expect("a section of the configuration");
    controllers(&[system], agent, &Clock::system()).pop().expect("a controller")
}

/// The gate asks for the survey first and keeps it in the mark.
async fn pause(controller: &dyn IngestionController, upgrade: &str) -> PauseMark {
    let found = controller.survey().await.expect("the survey");
    let mark = PauseMark { found, ..mark(upgrade) };
    let paused = Clock::system().timeout(controller.pause_within(), controller.pause(&mark)).await;
    paused.expect("a pause in time").expect("a pause");
    mark
}

pub(super) async fn keeps_the_contract(subject: Subject<'_>) {
    let first = (subject.controller)();
    until_state(first.as_ref(), IngestionState::Running).await;
    assert!(first.left().await.expect("asked").is_none(), "nothing is left of a pause that never was");

    // Paused when it returns, twice or once.
    let mark = pause(first.as_ref(), "up-1").await;
    assert_eq!(first.observe().await.expect("observed").state, IngestionState::Paused);
    first.pause(&mark).await.expect("a second pause");
    assert_eq!(first.observe().await.expect("observed").state, IngestionState::Paused);

    // Another life of the agent resumes it, twice or once.
    let second = (subject.controller)();
    let left = second.left().await.expect("asked").map(|left| left.upgrade);
    assert_eq!(left, subject.remembers.then(|| "up-1".to_owned()), "what the system remembers of it");
    second.resume(&mark, None).await.expect("a resume");
    until_state(second.as_ref(), IngestionState::Running).await;
    second.resume(&mark, None).await.expect("a second resume");
    until_state(first.as_ref(), IngestionState::Running).await;
    assert!(second.left().await.expect("asked").is_none(), "nothing is left of a pause that is over");

    // Whoever gives up in the middle leaves something that a resume puts right.
    let begun = Clock::system().timeout(Duration::from_millis(1), first.pause(&mark)).await;
    drop(begun);
    first.resume(&mark, None).await.expect("a resume after half a pause");
    until_state(first.as_ref(), IngestionState::Running).await;

    // Somebody else's pause is neither paused again nor ended.
    if let Some((pauses, resumes)) = subject.by_hand {
        pauses().await;
        until_state(first.as_ref(), IngestionState::Paused).await;
        let mark = pause(first.as_ref(), "up-2").await;
        first.resume(&mark, None).await.expect("a resume of nothing");
        assert_eq!(first.observe().await.expect("observed").state, IngestionState::Paused, "the other's pause stands");
        assert!(first.left().await.expect("asked").is_none(), "a pause of somebody else is not ours");
        resumes().await;
        until_state(first.as_ref(), IngestionState::Running).await;
    }
}

/// What one life of an agent paused, the next one undoes, by the real gate.
pub(super) async fn a_successor_undoes_it(subject: &Subject<'_>, name: &str) {
    let folder = Folder::new(name);
    let mut life = Life::begin(&folder, vec![(subject.controller)()]).await;
    life.wish(PAUSED).await.expect("a pause");
    until_state((subject.controller)().as_ref(), IngestionState::Paused).await;
    life.end().await;
    until_state((subject.controller)().as_ref(), IngestionState::Paused).await;
    let life = Life::begin(&folder, vec![(subject.controller)()]).await;
    life.settled().await.expect("a release");
    until_state((subject.controller)().as_ref(), IngestionState::Running).await;
    life.end().await;
}

/// Answers by these routes until the test's runtime ends.
async fn serve(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// A service with the three routes of the kind `http`.
async fn service() -> (SocketAddr, Arc<AtomicBool>) {
    type Paused = State<Arc<AtomicBool>>;
    let paused = Arc::new(AtomicBool::new(false));
    let state = |State(paused): Paused| async move {
        let state = if paused.load(Ordering::SeqCst) { "paused" } else { "running" };
        Json(json!({"state": state, "backlog": 12, "rate": 3.5}))
    };
    let pause = |State(paused): Paused| async move { paused.store(true, Ordering::SeqCst) };
    let resume = |State(paused): Paused| async move { paused.store(false, Ordering::SeqCst) };
    let routes = Router::new().route("/state", get(state)).route("/pause", post(pause)).route("/resume", post(resume));
    (serve(routes.with_state(Arc::clone(&paused))).await, paused)
}

/// Backlog and rate for a system that does not know them, as a program beside it would tell them.
pub(super) async fn figures(answer: Arc<Mutex<Value>>) -> String {
    let told = |State(answer): State<Arc<Mutex<Value>>>| async move { Json(answer.lock().expect("no panic").clone()) };
    let address = serve(Router::new().route("/figures", get(told)).with_state(answer)).await;
    format!("http://{address}/figures")
}

fn by_files(folder: &Path) -> Value {
    let at = folder.join("paused").display().to_string();
    let shell = |script: String| json!(["sh", "-c", script]);
    json!({"kind": "command", "name": "loader",
        "observe": shell(format!("if [ -e {at} ]; then s=paused; else s=running; fi; echo '{{\"state\":\"'$s'\"}}'")),
        "pause": shell(format!("touch {at}")), "resume": shell(format!("rm -f {at}"))})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_and_command_keep_the_contract_of_controllers() {
    let folder = Folder::new("plain");
    let (address, _paused) = service().await;
    let http = json!({"kind": "http", "name": "orders", "base_url": format!("http://{address}")});
    for (section, name) in [(http, "http"), (by_files(&folder.0), "command")] {
        let controller = || configured(&section, "agent");
        let subject = Subject { controller: &controller, by_hand: None, remembers: false };
        a_successor_undoes_it(&subject, name).await;
        keeps_the_contract(subject).await;
    }
}

/// It is sent to green by address, which no certificate names.
async fn refuses_to_hold_what_verifies_names(bouncer: &Bouncer, controller: &dyn IngestionController) {
    let (tempo, soon) = (Tempo::start(), Duration::from_secs(5));
    let console = bouncer.console().open(&tempo, soon).await.expect("its console");
    let mark = mark("up-3");
    for (mode, taken) in [("verify-full", false), ("verify-ca", true)] {
        console.run(&tempo, soon, &format!("set server_tls_sslmode = '{mode}'")).await.expect("it is set");
        let seen = controller.observe().await.map(drop);
        let held = controller.pause(&mark).await;
        for said in [seen, held] {
            match said {
                Ok(()) => assert!(taken, "{mode} is taken"),
                Err(error) => {
                    assert!(!taken && error.to_string().contains("write server_tls_sslmode = verify-ca"), "{error}")
                }
            }
        }
    }
    controller.resume(&mark, None).await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_pgbouncer_keeps_the_contract_of_controllers() {
    let program = lab::install::ensure_pgbouncer(&|line| println!("{line}")).await.expect("pgbouncer");
    let folder = Folder::new("bouncer");
    // What it leads to is not dialled: nobody asks for a connection.
    let options = Options {
        program,
        folder: folder.0.join("bouncer"),
        server: ("127.0.0.1".into(), 1),
        names: None,
        databases: vec!["orders".into()],
        elsewhere: Vec::new(),
        users: vec![("app".into(), "secret".into())],
    };
    let bouncer = Bouncer::start(&options, &Tempo::start()).await.expect("a pgbouncer");
    let section = json!({"kind": "pgbouncer", "name": "bouncer", "admin": bouncer.address(), "admin_user": "pgbouncer_admin",
        "databases": ["orders"], "config_file": bouncer.databases_file()});
    let controller = || configured(&section, "agent");
    keeps_the_contract(Subject { controller: &controller, by_hand: None, remembers: false }).await;
    refuses_to_hold_what_verifies_names(&bouncer, &*controller()).await;
    bouncer.stop().await;
}

/// A pause that never comes about ends in time, and everything is opened again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_that_never_pauses_is_refused_in_time_and_opened_again() {
    let folder = Folder::new("never");
    let at = folder.0.join("asked").display().to_string();
    let shell = |script: String| json!(["sh", "-c", script]);
    let section = json!({"kind": "command", "name": "deaf", "observe": shell("echo '{\"state\":\"running\"}'".into()),
        "pause": shell(format!("touch {at}")), "resume": shell(format!("rm -f {at}"))});
    let clock = Clock::system();
    let mut life = Life::begin(&folder, vec![configured(&section, "agent")]).await;
    life.settled().await.expect("nothing was wished");
    let began = clock.mono();
    let refused = life.wish(PAUSED).await.expect_err("it cannot");
    assert!(refused.reason.contains("deaf: pausing is"), "{}", refused.reason);
    assert!(clock.mono().since(began) < PAUSE_WITHIN * 3, "it took {:?}", clock.mono().since(began));
    assert!(!folder.0.join("asked").exists(), "it was resumed");
    life.end().await;
}

/// A service that loses every request for a pause, and does what it asked for when it is let.
async fn belated() -> (SocketAddr, Arc<AtomicBool>, [Arc<Semaphore>; 2]) {
    let paused = Arc::new(AtomicBool::new(false));
    let (let_go, came) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (late, gate, tell) = (Arc::clone(&paused), Arc::clone(&let_go), Arc::clone(&came));
    let pause = move || async move {
        tokio::spawn(async move {
            gate.acquire().await.expect("it stays open").forget();
            late.store(true, Ordering::SeqCst);
            tell.add_permits(1);
        });
        std::future::pending::<()>().await;
    };
    let (running, seen) = (Arc::clone(&paused), Arc::clone(&paused));
    let resume = move || async move { running.store(false, Ordering::SeqCst) };
    let state =
        move || async move { Json(json!({"state": if seen.load(Ordering::SeqCst) { "paused" } else { "running" }})) };
    let routes = Router::new().route("/state", get(state)).route("/pause", post(pause)).route("/resume", post(resume));
    (serve(routes).await, paused, [let_go, came])
}

/// What was asked of a system and never answered may still be done, after everybody has given it up and released the system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_comes_after_its_release_is_released_again() {
    let folder = Folder::new("belated");
    let (address, paused, [let_go, came]) = belated().await;
    let section = json!({"kind": "http", "name": "orders", "base_url": format!("http://{address}")});
    let mut life = Life::begin(&folder, vec![configured(&section, "agent")]).await;
    life.settled().await.expect("nothing was wished");
    let refused = life.wish(PAUSED).await.expect_err("nobody answered");
    assert!(refused.reason.contains("there was no answer within 2000 ms"), "{}", refused.reason);
    let mark = folder.0.join("marks").join("orders.json");
    assert!(mark.exists(), "whoever comes after this process releases it, too");
    let_go.add_permits(1);
    came.acquire().await.expect("it stays open").forget();
    until("it is undone", || async { (!paused.load(Ordering::SeqCst)).then_some(()).ok_or("paused".to_owned()) }).await;
    life.wish(IngestionWish::Running).await.expect("it runs");
    life.end().await;
}
