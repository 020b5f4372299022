//! Who may command, over real sockets: every kind of certificate at every door, and what each may do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Status, Streaming};

use super::tokens::tests::Provider;
use super::*;
use crate::cli::Fault;
use crate::cli::client::Client;
use crate::drivers::Drivers;
use crate::drivers::tests::{Outside, life};
use crate::enrol::{Authority, Subject, Validity, Withdraw};
use crate::link::LinkService;
use crate::link::wire::played::{AgentLinkClient, Hello, Said};
use crate::link::wire::{WireFrom, WireTo};
use crate::operator::{Operator, OperatorService};
use crate::spec::UpgradeSpec;
use crate::store::About;
use runtime::tls::{self, Credentials, Door, Incoming, Way};

mod doors;

const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
const OTHER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:billing";
const SOON: Duration = Duration::from_secs(20);

/// A coordinator behind TLS, with an authority, in a folder of its own.
struct Scene {
    folder: PathBuf,
    authority: Authority,
    guard: Guard,
    clock: Clock,
    url: String,
    page: std::net::SocketAddr,
    operator: Operator,
    drivers: Drivers,
    outside: Outside,
    _serving: tokio::task::JoinSet<()>,
}

async fn scene(name: &str) -> Scene {
    scene_taking(name, |_| None).await
}

/// The same, which takes the tokens of the provider that is given.
async fn scene_taking(name: &str, provider: impl FnOnce(&Clock) -> Option<Tokens>) -> Scene {
    let folder = std::env::temp_dir().join(format!("pilot-who-{name}-{}", uuid::Uuid::now_v7()));
    let (clock, outside) = (Clock::system(), Outside::default());
    let authority = Authority::make(clock.now()).unwrap();
    let server = Subject::Coordinator(vec!["localhost".into(), "127.0.0.1".into()]);
    authority.issue(&server, Validity::days(clock.now(), 1)).unwrap().write(&folder.join("server")).unwrap();
    let list = folder.join("ca.crl");
    authority.withdraw(&list, &[], clock.now()).unwrap();
    let credentials = Credentials::open_with(&folder.join("server"), Some(list.as_path()), clock.clone());
    let credentials = Arc::new(credentials.unwrap());
    let guard = Guard::new("us-east-1", clock.clone()).asking(credentials.clone());
    let (guard, callers) = match provider(&clock) {
        None => (guard, Door::Callers),
        Some(tokens) => (guard.taking(tokens), Door::Anyone),
    };
    let drivers = life(&folder.join("pilot.sqlite"), &outside).await;
    let operator = Operator::new(drivers.clone());
    let mut serving = tokio::task::JoinSet::new();
    let open = |door, listener| {
        let guard = guard.clone();
        Incoming::tls(listener, clock.clone(), door, credentials.clone(), move |refusal| guard.turned_away(&refusal))
            .unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let router = Server::builder()
        .add_service(LinkService::server(drivers.options().hub.clone(), guard.clone()))
        .add_service(OperatorService::server(operator.clone(), guard.clone()));
    let callers = open(callers, listener);
    serving.spawn(async move { router.serve_with_incoming(callers).await.unwrap() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let page = listener.local_addr().unwrap();
    let pages = crate::web::guarded(crate::web::router(operator.clone(), 8), guard.clone());
    let pages = pages.route("/livez", axum::routing::get(async || "alive"));
    let (visitors, recorder) = (open(Door::Pages, listener), runtime::recorder::Recorder::detached());
    let (ticks, stop) = (clock.clone(), runtime::shutdown::Stop::new());
    serving.spawn(async move {
        runtime::admin::serve(visitors, pages, recorder, ticks, stop, Default::default()).await.unwrap()
    });
    Scene { folder, authority, guard, clock, url, page, operator, drivers, outside, _serving: serving }
}

fn operator(name: &str, roles: &[Role]) -> Subject {
    Subject::Caller(Identity::Operator { name: name.into(), roles: roles.iter().copied().collect() })
}

fn agent(cluster: &str, id: Option<&str>) -> Subject {
    let agent = id.map(|id| id.parse().unwrap());
    Subject::Caller(Identity::Agent { cluster: cluster.parse().unwrap(), agent })
}

impl Scene {
    fn today(&self) -> Validity {
        Validity::days(self.clock.now(), 1)
    }

    /// A folder with a certificate of the scene's authority.
    fn enrol(&self, name: &str, subject: &Subject, validity: Validity) -> PathBuf {
        self.enrol_by(&self.authority, name, subject, validity)
    }

    /// A folder with a certificate of any authority, which trusts the scene's.
    fn enrol_by(&self, authority: &Authority, name: &str, subject: &Subject, validity: Validity) -> PathBuf {
        let folder = self.folder.join(name);
        authority.issue(subject, validity).unwrap().write(&folder).unwrap();
        std::fs::copy(self.folder.join("server/ca.crt"), folder.join("ca.crt")).unwrap();
        folder
    }

    /// The command line's own client with this certificate.
    async fn pilot(&self, tls: &Path) -> Result<Client, Fault> {
        self.pilot_bearing(tls, None).await
    }

    /// The same with a token as well, in a file.
    async fn pilot_bearing(&self, tls: &Path, token: Option<&Path>) -> Result<Client, Fault> {
        let common = crate::cli::Common {
            coordinator: self.url.clone(),
            tls: Some(tls.to_owned()),
            token_file: token.map(Path::to_owned),
            output: crate::cli::Output::Json,
        };
        Client::connect(&common).await
    }

    /// Asks for the agents, as anybody who may look does.
    async fn look(&self, tls: &Path) -> Result<Value, Fault> {
        self.pilot(tls).await?.agents().await
    }

    /// Attaches an agent with this certificate; its first answer was read.
    async fn attach(&self, tls: &Path, agent: &str, cluster: &str) -> Result<Attached, Status> {
        let credentials = Arc::new(Credentials::open(tls, self.clock.clone()).unwrap());
        let way = Way::Tls { credentials, name: Some("localhost".into()) };
        let channel = tls::connect(&self.url, &way, |endpoint| endpoint).await;
        let channel = channel.map_err(|error| {
            Status::unauthenticated(tls::refused_by_peer(&error).unwrap_or_else(|| runtime::supervision::chain(&error)))
        })?;
        let (say, said) = mpsc::channel(16);
        let hello = Hello { agent_id: agent.into(), cluster_arn: cluster.into(), ..Hello::default() };
        say.send(WireFrom { message: Some(Said::Hello(hello)) }).await.unwrap();
        let mut told = AgentLinkClient::new(channel).attach(ReceiverStream::new(said)).await?.into_inner();
        self.clock.timeout(SOON, told.message()).await.expect("welcomed in time")?;
        Ok(Attached { told, _say: say })
    }

    /// How often somebody was logged as refused for this.
    fn logged(&self, reason: &str) -> usize {
        let logged = self.guard.logged.lock().unwrap();
        logged.iter().filter(|line| line.starts_with(&format!("{reason} "))).count()
    }

    /// One GET of the page; its status line and body. `tls`: with this certificate, or with none.
    async fn get(&self, tls: Option<&Path>, path: &str) -> std::io::Result<String> {
        self.get_with(tls, path, "").await
    }

    /// The same with lines of header.
    async fn get_with(&self, tls: Option<&Path>, path: &str, lines: &str) -> std::io::Result<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.join("server/ca.crt")).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match tls {
            None => config.with_no_client_auth(),
            Some(folder) => {
                let chain = vec![CertificateDer::from_pem_file(folder.join("tls.crt")).unwrap()];
                config
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(folder.join("tls.key")).unwrap())
                    .unwrap()
            }
        };
        let stream = tokio::net::TcpStream::connect(self.page).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Attached {
    told: Streaming<WireTo>,
    _say: mpsc::Sender<WireFrom>,
}

fn text(fault: Fault) -> String {
    assert_eq!(fault.exit, crate::cli::Exit::Refused, "{}", fault.text);
    fault.text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_bound_to_the_cluster_and_the_id_of_its_certificate() {
    let scene = scene("bound").await;
    let mine = scene.enrol("a-1", &agent(CLUSTER, Some("a-1")), scene.today());
    let any = scene.enrol("any", &agent(CLUSTER, None), scene.today());
    scene.attach(&mine, "a-1", CLUSTER).await.unwrap();
    scene.attach(&any, "a-2", CLUSTER).await.unwrap();
    let alice = scene.enrol("alice", &operator("alice", &Role::ALL), scene.today());
    for (tls, id, cluster, code, said) in [
        (
            &mine,
            "a-2",
            CLUSTER,
            "PU0110",
            "agent a-2 of arn:aws:rds:us-east-1:123456789012:cluster:orders shows the certificate of a-1",
        ),
        (&mine, "a-1", OTHER, "PU0110", "agent a-1 claims arn:aws:rds:us-east-1:123456789012:cluster:billing"),
        (&any, "a-2", OTHER, "PU0110", "its certificate is for arn:aws:rds:us-east-1:123456789012:cluster:orders"),
        (&alice, "a-1", CLUSTER, "PU0111", "operator alice is no agent"),
    ] {
        // Twice: logged once.
        for _ in 0..2 {
            let refused = scene.attach(tls, id, cluster).await.err().expect(said);
            assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
            assert!(refused.message().starts_with(code) && refused.message().contains(said), "{}", refused.message());
        }
    }
    assert_eq!((scene.logged("agent"), scene.logged("cluster"), scene.logged("kind")), (1, 2, 1));
    let seen = scene.operator.agents();
    assert_eq!(seen.len(), 1, "an agent that was refused is known: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_expired_foreign_self_signed_or_missing_certificate_is_refused_by_name() {
    let recorder = runtime::recorder::install(&[]).unwrap();
    let scene = scene("wrong").await;
    let (now, alice) = (scene.clock.now(), operator("alice", &Role::ALL));
    let hours = |hours| now + jiff::SignedDuration::from_hours(hours);
    let good = scene.enrol("good", &alice, scene.today());
    scene.look(&good).await.map_err(text).unwrap();
    let foreign = Authority::make(now).unwrap();
    let itself = scene.folder.join("itself");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI("pilot://operator/alice/approve".try_into().unwrap())];
    let alone = params.self_signed(&key).unwrap().pem();
    std::fs::create_dir(&itself).unwrap();
    std::fs::write(itself.join("tls.crt"), alone).unwrap();
    std::fs::write(itself.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::copy(good.join("ca.crt"), itself.join("ca.crt")).unwrap();
    let server = Subject::Coordinator(vec!["localhost".into()]);
    for (tls, reason, alert) in [
        (scene.enrol("old", &alice, Validity { from: hours(-2), until: hours(-1) }), "expired", "CertificateExpired"),
        (scene.enrol("new", &alice, Validity { from: hours(1), until: hours(2) }), "not_yet_valid", "Certificate"),
        (scene.enrol_by(&foreign, "foreign", &alice, scene.today()), "unknown_authority", "UnknownC"),
        (itself, "unknown_authority", "UnknownC"),
        (scene.enrol("server-s", &server, scene.today()), "wrong_purpose", "Certificate"),
    ] {
        for _ in 0..2 {
            let refused = text(scene.look(&tls).await.expect_err(reason));
            assert!(refused.starts_with("PU0111: ") && refused.contains(alert), "{reason}: {refused}");
        }
        assert_eq!(scene.logged(reason), 1, "{reason} is logged once");
        assert!(
            recorder.render().contains(&format!("pilot_refused_total{{reason=\"{reason}\"}}")),
            "{}",
            recorder.render()
        );
    }
    let stranger = scene.get(None, "/").await.unwrap();
    assert!(stranger.starts_with("HTTP/1.1 403") && stranger.contains("PU0111"), "{stranger}");
    assert_eq!(scene.logged("none"), 1);
    // Without TLS nothing is answered at all.
    let plain = tls::connect(&scene.url.replace("https", "http"), &Way::Plain, |endpoint| endpoint).await;
    let answered = match plain {
        Err(_) => false,
        Ok(channel) => AgentLinkClient::new(channel).attach(ReceiverStream::new(mpsc::channel(1).1)).await.is_ok(),
    };
    assert!(!answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_coordinator_is_not_told_anything() {
    let scene = scene("impostor").await;
    let alice = operator("alice", &Role::ALL);
    // The coordinator's certificate is of another authority than the one trusted here.
    let own = Authority::make(scene.clock.now()).unwrap();
    let folder = scene.folder.join("alice");
    own.issue(&alice, scene.today()).unwrap().write(&folder).unwrap();
    let fault = scene.look(&folder).await.expect_err("refused");
    assert!(fault.text.contains("invalid peer certificate: UnknownIssuer"), "{}", fault.text);
    // It is of the right one, for another name.
    let folder = scene.enrol("alice-2", &alice, scene.today());
    let credentials = Arc::new(Credentials::open(&folder, scene.clock.clone()).unwrap());
    let way = Way::Tls { credentials, name: Some("pilot.example.com".into()) };
    let error = tls::connect(&scene.url, &way, |endpoint| endpoint).await.expect_err("refused");
    let chain = runtime::supervision::chain(&error);
    assert!(chain.contains("not valid for name"), "{chain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_does_what_its_roles_allow_and_each_wish_names_who_asked() {
    let scene = scene("roles").await;
    let about = About::default();
    let drivers = &scene.drivers;
    let id = drivers.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &about).await.unwrap();
    let id = id.as_str();
    let of = |name: &str, roles: &[Role]| scene.enrol(name, &operator(name, roles), scene.today());
    let (vera, olga, anna) = (of("vera", &[Role::View]), of("olga", &[Role::Operate]), of("anna", &[Role::Approve]));
    let agent = scene.enrol("a-1", &agent(CLUSTER, None), scene.today());
    let (pause, approve) = (json!({ "request": "pause" }), json!({ "request": "approve", "name": "cleanup" }));
    let spec = json!({ "cluster": CLUSTER, "to": "16" });
    for (tls, request, said) in [
        (&vera, &pause, "PU0112: operator vera has the role view, this takes operate"),
        (&vera, &approve, "PU0112: operator vera has the role view, this takes approve"),
        (&olga, &approve, "PU0112: operator olga has the role operate, this takes approve"),
        (&anna, &pause, "PU0112: operator anna has the role approve, this takes operate"),
        (&agent, &pause, "PU0111: an agent of arn:aws:rds:us-east-1:123456789012:cluster:orders is no operator"),
    ] {
        let refused = text(scene.pilot(tls).await.unwrap().ask(id, request).await.expect_err(said));
        assert_eq!(refused, said);
    }
    let refused = text(scene.pilot(&vera).await.unwrap().start(&spec, "").await.expect_err("refused"));
    assert!(refused.starts_with("PU0112"), "{refused}");
    for tls in [&vera, &olga, &anna] {
        scene.pilot(tls).await.unwrap().status::<Value>(id).await.map_err(text).unwrap();
    }
    let history: Value = scene.pilot(&vera).await.unwrap().history(id).await.map_err(text).unwrap();
    assert!(!history.to_string().contains("\"kind\":\"asked\""), "a refused wish is in the journal: {history}");

    scene.pilot(&olga).await.unwrap().ask(id, &pause).await.map_err(text).unwrap();
    scene.pilot(&anna).await.unwrap().ask(id, &approve).await.map_err(text).unwrap();
    let history = scene.clock.timeout(SOON, async {
        loop {
            let history: Value = scene.pilot(&vera).await.unwrap().history(id).await.map_err(text).unwrap();
            if ["olga asks: ", "anna asks: "].iter().all(|said| history.to_string().contains(said)) {
                return history;
            }
            scene.clock.sleep(Duration::from_millis(20)).await;
        }
    });
    history.await.expect("both wishes become facts, with who asked");
    scene.outside.go.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_itself_only_to_those_who_may_look() {
    let scene = scene("page").await;
    let vera = scene.enrol("vera", &operator("vera", &[Role::View]), scene.today());
    let agent = scene.enrol("a-1", &agent(CLUSTER, None), scene.today());
    for (tls, path, status) in [
        (Some(vera.as_path()), "/", "200"),
        (Some(vera.as_path()), "/upgrades/none/status.json", "404"),
        (Some(agent.as_path()), "/", "403"),
        (Some(agent.as_path()), "/upgrades/none/status.json", "403"),
        (None, "/", "403"),
        (None, "/metrics", "403"),
        (None, "/livez/../metrics", "403"),
        (None, "/livez", "200"),
    ] {
        let answer = scene.get(tls, path).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_coordinator_that_stands_by_says_who_drives_with_a_link() {
    let scene = scene("stands-by").await;
    let vera = scene.enrol("vera", &operator("vera", &[Role::View]), scene.today());
    let hub = scene.drivers.options().hub.clone();
    let page = async || scene.get(Some(&vera), "/").await.unwrap();
    assert!(!page().await.contains("stands by"));
    hub.follow(Some("pilot-1.example.com:7400".into()));
    let shown = page().await;
    let link = r#"<a href="//pilot-1.example.com:443/">"#;
    assert!(shown.starts_with("HTTP/1.1 200") && shown.contains("pilot-1.example.com:7400</code> drives"), "{shown}");
    assert!(shown.contains(link), "{shown}");
    assert!(scene.get(None, "/").await.unwrap().starts_with("HTTP/1.1 403"), "the same identity is asked for");
    hub.follow(None);
    assert!(page().await.contains("Nobody is known to drive"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_without_a_restart() {
    let scene = scene("exchange").await;
    let alice = operator("alice", &Role::ALL);
    let before = scene.enrol("before", &alice, scene.today());
    let mut attached =
        scene.attach(&scene.enrol("a-1", &agent(CLUSTER, None), scene.today()), "a-1", CLUSTER).await.unwrap();
    scene.look(&before).await.map_err(text).unwrap();
    let own = scene.folder.join("server");
    // Half of an exchange: the new key beside the old certificate. The old pair goes on.
    let next = Authority::make(scene.clock.now()).unwrap();
    let issued = |folder: &Path, subject: &Subject| next.issue(subject, scene.today()).unwrap().write(folder).unwrap();
    let prepared = scene.folder.join("prepared");
    issued(&prepared, &Subject::Coordinator(vec!["localhost".into(), "127.0.0.1".into()]));
    std::fs::copy(prepared.join("tls.key"), own.join("tls.key")).unwrap();
    let half = scene.clock.mono();
    while scene.clock.mono() - half < Duration::from_millis(1500) {
        scene.look(&before).await.map_err(|fault| fault.text).expect("the old certificates still serve");
        scene.clock.sleep(Duration::from_millis(100)).await;
    }
    // The rest of it, of another authority altogether.
    std::fs::copy(prepared.join("tls.crt"), own.join("tls.crt")).unwrap();
    std::fs::copy(prepared.join("ca.crt"), own.join("ca.crt")).unwrap();
    let after = scene.folder.join("after");
    issued(&after, &alice);
    let exchanged = async {
        while scene.look(&after).await.is_err() {
            scene.clock.sleep(Duration::from_millis(50)).await;
        }
    };
    scene.clock.timeout(SOON, exchanged).await.expect("the new certificates serve in time");
    assert!(scene.look(&before).await.is_err(), "a certificate of the authority that is gone still opens the door");
    // Streams that were open stay.
    let ended = scene.clock.timeout(Duration::from_millis(200), attached.told.message()).await;
    assert!(ended.is_err(), "an open stream was cut: {ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_certificate() {
    let scene = scene("ends").await;
    let soon = scene.clock.now() + jiff::SignedDuration::from_secs(3);
    let short = scene.enrol("short", &agent(CLUSTER, None), Validity { until: soon, ..scene.today() });
    let mut attached = scene.attach(&short, "a-1", CLUSTER).await.unwrap();
    let ended = async { while let Ok(Some(_)) = attached.told.message().await {} };
    scene.clock.timeout(SOON, ended).await.expect("the stream ends");
    assert!(scene.clock.now() >= jiff::Timestamp::from_second(soon.as_second()).unwrap(), "it ended early");
    let refused = scene.attach(&short, "a-1", CLUSTER).await.err().expect("expired");
    // In the very second of its end the handshake still takes it, and the guard does not.
    let said = refused.message();
    assert!(said == "CertificateExpired" || said.starts_with("PU0111: the certificate expired"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_a_token_needs_no_certificate_and_an_agent_always_does() {
    let recorder = runtime::recorder::install(&[]).unwrap();
    let provider = Provider::file();
    let scene = scene_taking("token", |clock| Some(Tokens::open(&provider.settings(), clock.clone()).unwrap())).await;
    let about = About::default();
    let id = scene.drivers.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &about).await.unwrap();
    // Of a certificate there is only whom to trust.
    let trust = scene.folder.join("trust");
    std::fs::create_dir(&trust).unwrap();
    std::fs::copy(scene.folder.join("server/ca.crt"), trust.join("ca.crt")).unwrap();
    let file = |name: &str, token: String| {
        let path = scene.folder.join(name);
        std::fs::write(&path, token + "\n").unwrap();
        path
    };
    let olga = file("olga", provider.token(json!({ "sub": "olga", "roles": ["pilot-operate"] })));
    let pause = json!({ "request": "pause" });
    let approve = json!({ "request": "approve", "name": "cleanup" });
    let mut pilot = scene.pilot_bearing(&trust, Some(&olga)).await.map_err(text).unwrap();
    pilot.ask(id.as_str(), &pause).await.map_err(text).unwrap();
    let refused = text(pilot.ask(id.as_str(), &approve).await.expect_err("a role is missing"));
    let issuer = crate::who::tokens::tests::ISSUER;
    assert_eq!(refused, format!("PU0112: operator olga of {issuer} has the role operate, this takes approve"));
    let asked = async {
        loop {
            let history: Value = pilot.history(id.as_str()).await.map_err(text).unwrap();
            if history.to_string().contains(&format!("olga of {issuer} asks: ")) {
                return;
            }
            scene.clock.sleep(Duration::from_millis(20)).await;
        }
    };
    scene.clock.timeout(SOON, asked).await.expect("the wish is recorded with subject and issuer");
    scene.outside.go.store(true, Ordering::SeqCst);

    // A bad one is refused by name, counted, and logged once; a good certificate beside it does not help.
    let old = file("old", provider.token(json!({ "sub": "olga", "roles": ["pilot-operate"], "exp": 1 })));
    let alice = scene.enrol("alice", &operator("alice", &Role::ALL), scene.today());
    for tls in [&trust, &alice] {
        let refused = text(scene.pilot_bearing(tls, Some(&old)).await.unwrap().agents().await.expect_err("expired"));
        assert!(refused.starts_with("PU0113: the token expired"), "{refused}");
    }
    assert_eq!(scene.logged("token_expired"), 1);
    assert!(recorder.render().contains("pilot_refused_total{reason=\"token_expired\"} 2"), "{}", recorder.render());
    // Neither: refused by both doors; nor is a token enough for an agent.
    let nothing = file("nothing", String::new());
    let fault = scene.pilot_bearing(&trust, Some(&nothing)).await.err().expect("no token");
    assert!(fault.text.contains("holds no token"), "{}", fault.text);
    let way = Way::unnamed(&trust.join("ca.crt")).unwrap();
    let channel = tls::connect(&scene.url.replace("127.0.0.1", "localhost"), &way, |endpoint| endpoint).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(mpsc::channel(1).1));
    let token = std::fs::read_to_string(&olga).unwrap();
    request.metadata_mut().insert("authorization", format!("Bearer {}", token.trim()).parse().unwrap());
    let refused = AgentLinkClient::new(channel).attach(request).await.expect_err("no certificate");
    assert_eq!(refused.message(), "PU0111: neither a certificate nor a token was shown");
    // The page, by the same rules.
    for (lines, status) in [
        (format!("authorization: Bearer {}\r\n", token.trim()), "200"),
        ("authorization: Bearer x.y.z\r\n".to_owned(), "403"),
        (String::new(), "403"),
    ] {
        let answer = scene.get_with(None, "/", &lines).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    // A certificate alone is as good as ever.
    scene.look(&alice).await.map_err(text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_without_a_provider_takes_no_token() {
    let scene = scene("no-provider").await;
    let alice = scene.enrol("alice", &operator("alice", &Role::ALL), scene.today());
    let file = scene.folder.join("token");
    std::fs::write(&file, Provider::file().token(json!({ "sub": "olga", "roles": ["pilot-operate"] }))).unwrap();
    let refused = text(scene.pilot_bearing(&alice, Some(&file)).await.unwrap().agents().await.expect_err("a token"));
    assert_eq!(refused, "PU0113: this coordinator takes no tokens (oidc)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_withdrawn_opens_no_door_and_its_open_streams_end() {
    let recorder = runtime::recorder::install(&[]).unwrap();
    let scene = scene("withdrawn").await;
    let alice = operator("alice", &Role::ALL);
    let (lost, kept) = (scene.enrol("lost", &alice, scene.today()), scene.enrol("kept", &alice, scene.today()));
    let (stolen, other) = (agent(CLUSTER, None), agent(CLUSTER, None));
    let (stolen, other) = (scene.enrol("stolen", &stolen, scene.today()), scene.enrol("other", &other, scene.today()));
    let mut ends = scene.attach(&stolen, "a-1", CLUSTER).await.unwrap();
    let mut stays = scene.attach(&other, "a-2", CLUSTER).await.unwrap();
    let mut open = scene.pilot(&lost).await.unwrap();
    open.agents().await.map_err(text).unwrap();
    let which = [Withdraw::File(lost.join("tls.crt")), Withdraw::File(stolen.join("tls.crt"))];
    scene.authority.withdraw(&scene.folder.join("ca.crl"), &which, scene.clock.now()).unwrap();
    // The stream that was open ends; the one beside it does not.
    let ended = async { while let Ok(Some(_)) = ends.told.message().await {} };
    scene.clock.timeout(SOON, ended).await.expect("the stream ends");
    // A connection that is open still serves nobody, and no new one is made.
    let refused = text(open.agents().await.expect_err("withdrawn"));
    assert!(refused.starts_with("PU0111: the certificate ") && refused.ends_with(" was withdrawn"), "{refused}");
    for _ in 0..2 {
        let refused = text(scene.look(&lost).await.expect_err("withdrawn"));
        assert!(refused.contains("CertificateRevoked"), "{refused}");
        let refused = scene.attach(&stolen, "a-1", CLUSTER).await.err().expect("withdrawn");
        assert_eq!(refused.message(), "CertificateRevoked");
    }
    scene.look(&kept).await.map_err(text).unwrap();
    let silent = scene.clock.timeout(Duration::from_millis(1500), stays.told.message()).await;
    assert!(silent.is_err(), "a stream whose certificate is good was cut: {silent:?}");
    // Once for the agent's stream, once for the address.
    assert_eq!(scene.logged("withdrawn"), 2);
    assert!(recorder.render().contains("pilot_refused_total{reason=\"withdrawn\"} 6"), "{}", recorder.render());
    // A list that cannot be read takes nothing back that was withdrawn.
    std::fs::write(scene.folder.join("ca.crl"), "nothing").unwrap();
    let wait = scene.clock.mono();
    while scene.clock.mono() - wait < Duration::from_millis(1500) {
        assert!(scene.look(&lost).await.is_err(), "a broken list gave a withdrawn certificate back");
        scene.clock.sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn nothing_known_of_a_connection_opens_no_door() {
    let guard = Guard::new("us-east-1", Clock::system());
    let holder = async |peer: Option<&Peer>, role| guard.holder(&Shown::new(peer, None), role).await;
    assert_eq!(holder(None, Role::View).await.unwrap_err().code, codes::BAD_CERTIFICATE);
    let address = ([127, 0, 0, 1], 1).into();
    let shown = Peer { address, secured: true, certificate: None };
    assert_eq!(holder(Some(&shown), Role::View).await.unwrap_err().reason, "none");
    let plain = Peer { address, secured: false, certificate: None };
    assert_eq!(holder(Some(&plain), Role::Approve).await.unwrap().name("tester"), "tester");
    let mut plain_request = Request::new(());
    assert!(guard.agent(&plain_request).is_err());
    plain_request.extensions_mut().insert(plain);
    let caller = guard.agent(&plain_request).unwrap();
    assert!(guard.attach(&caller, &"a-1".parse().unwrap(), &CLUSTER.parse().unwrap()).is_ok());
}
