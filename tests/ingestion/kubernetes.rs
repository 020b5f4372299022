//! Workloads of Kubernetes. There is no API server to be had here, so a stand-in speaks its documented API; the real kubectl judges the
//! stand-in, and sees what our controller did.

use std::{sync::Arc, time::Duration};

use agent::ingestion::IngestionController;
use lab::{
    install,
    kubernetes::{Pace, Rule, Server},
};
use proto::{intent::IngestionWish, report::IngestionState};
use runtime::clock::Clock;
use serde_json::{Value, json};

use super::{
    Folder, Life, PAUSED,
    contract::{Doing, Subject, a_successor_undoes_it, configured, keeps_the_contract},
    mark, until, until_state,
};

/// Pods that need a moment to end.
const PACE: Pace =
    Pace { start: Duration::from_millis(100), end: Duration::from_millis(400), notice: Duration::from_millis(50) };
const NOTE: &str = "{.metadata.annotations.upgrade-pilot/pause}";

/// The stand-in with three workloads, and the real kubectl for it.
struct Cluster {
    server: Server,
    folder: Folder,
    kubectl: std::path::PathBuf,
}

impl Cluster {
    async fn start(name: &str) -> Cluster {
        let kubectl = install::ensure_kubectl(&|line| println!("{line}")).await.expect("kubectl");
        let (server, folder) = (Server::start(PACE, Clock::system()).await.expect("a stand-in"), Folder::new(name));
        server.add_workload("ingest", "deployments", "writer", 3);
        server.add_workload("ingest", "statefulsets", "loader", 2);
        server.add_workload("ingest", "deployments", "reader", 4);
        server.add_scaled_object("ingest", "reader", "reader");
        let cluster = Cluster { server, folder, kubectl };
        cluster.write_kubeconfig("admin", "{}");
        cluster
    }

    fn write_kubeconfig(&self, user: &str, credentials: &str) -> std::path::PathBuf {
        let file = self.folder.0.join(format!("kubeconfig-{user}"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters:\n- name: lab\n  cluster:\n    server: {}\n\
             contexts:\n- name: lab\n  context: {{cluster: lab, user: {user}, namespace: ingest}}\nusers:\n- name: {user}\n  user: {credentials}\n",
            self.server.url()
        );
        std::fs::write(&file, text).expect("a kubeconfig");
        file
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.folder.0.join("kubeconfig-admin"));
        command.args(arguments).env("HOME", &self.folder.0).kill_on_drop(true);
        let output = command.output().await.expect("kubectl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    async fn kubectl(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        self.run(&arguments).await.unwrap_or_else(|said| panic!("kubectl {line}: {said}"))
    }

    async fn field(&self, object: &str, path: &str) -> String {
        self.kubectl(&format!("get {object} -o jsonpath={path}")).await
    }

    fn section(&self, what: &str, name: &str, user: &str) -> Value {
        json!({"kind": "kubernetes", "name": name.replace('/', "-"), what: name, "pause_seconds_max": 30,
            "kubeconfig": self.folder.0.join(format!("kubeconfig-{user}"))})
    }

    fn controller(&self, what: &str, name: &str, user: &str) -> Arc<dyn IngestionController> {
        configured(&self.section(what, name, user), "cluster agent-1")
    }

    fn writer(&self) -> Arc<dyn IngestionController> {
        self.controller("workload", "deployment/writer", "admin")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_kubectl_takes_the_stand_in_for_a_cluster() {
    let cluster = Cluster::start("judge").await;
    assert_eq!(cluster.field("deployment/writer", "{.spec.replicas}/{.status.readyReplicas}").await, "3/3");
    cluster.kubectl("scale deployment/writer --replicas=5").await;
    cluster.kubectl("rollout status deployment/writer --timeout=20s").await;
    assert_eq!(cluster.kubectl("get pods -l app=writer -o name").await.lines().count(), 5);
    let refused = cluster.run(&["scale", "deployment/writer", "--current-replicas=9", "--replicas=1"]).await;
    assert!(refused.is_err_and(|said| said.contains("Expected replicas to be 9, was 5")));
    cluster.kubectl("annotate statefulset/loader a=b").await;
    cluster.run(&["patch", "statefulset", "loader", "-p", r#"{"spec":{"replicas":1}}"#]).await.expect("a patch");
    let loader = cluster
        .field("statefulset/loader", "{.metadata.annotations.a}{.spec.replicas}{.metadata.annotations.team}")
        .await;
    assert_eq!(loader, "b1orders");
    cluster.kubectl("annotate scaledobject/reader autoscaling.keda.sh/paused-replicas=0").await;
    cluster.kubectl("wait --for=condition=Paused scaledobject/reader --timeout=20s").await;
    until("its pods are to go", || async {
        let pods = cluster.kubectl("get pods -l app=reader -o name").await;
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    })
    .await;
    cluster.kubectl("annotate scaledobject/reader autoscaling.keda.sh/paused-replicas-").await;
    cluster.kubectl("wait --for=jsonpath={.spec.replicas}=2 deployment/reader --timeout=20s").await;
    assert!(cluster.run(&["get", "deployment", "nobody"]).await.is_err_and(|said| said.contains("NotFound")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workloads_and_scaled_objects_keep_the_contract_of_controllers_with_the_documented_rights() {
    let cluster = Cluster::start("contract").await;
    let role = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/ingestion/role.yaml"))
        .expect("the role");
    let role: Value = serde_saphyr::from_str(&role).expect("YAML");
    let mut rules: Vec<Rule> = serde_json::from_value(role["rules"].clone()).expect("rules");
    cluster.server.grant("least", rules.clone());
    cluster.write_kubeconfig("least", "{token: least}");
    // What the role says of StatefulSets in words.
    let sets = json!([{"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": ["loader"], "verbs": ["get", "patch"]},
        {"apiGroups": ["apps"], "resources": ["statefulsets/scale"], "resourceNames": ["loader"], "verbs": ["patch"]}]);
    rules.extend(serde_json::from_value::<Vec<Rule>>(sets).expect("rules"));
    cluster.server.grant("sets", rules);
    cluster.write_kubeconfig("sets", "{token: sets}");
    for (what, name, user, off, on) in [
        (
            "workload",
            "deployment/writer",
            "least",
            "scale deployment/writer --replicas=0",
            "scale deployment/writer --replicas=3",
        ),
        (
            "workload",
            "statefulset/loader",
            "sets",
            "scale statefulset/loader --replicas=0",
            "scale statefulset/loader --replicas=2",
        ),
        (
            "scaled_object",
            "reader",
            "least",
            "annotate scaledobject/reader autoscaling.keda.sh/paused-replicas=0",
            "annotate scaledobject/reader autoscaling.keda.sh/paused-replicas-",
        ),
    ] {
        let controller = || cluster.controller(what, name, user);
        let pauses = || -> Doing<'_> { Box::pin(async { drop(cluster.kubectl(off).await) }) };
        let resumes = || -> Doing<'_> { Box::pin(async { drop(cluster.kubectl(on).await) }) };
        let subject = Subject { controller: &controller, by_hand: Some((&pauses, &resumes)), remembers: true };
        a_successor_undoes_it(&subject, "kubernetes-successor").await;
        keeps_the_contract(subject).await;
    }
    // What KEDA scales is there again a moment after its pause is over.
    until("the reader is to run again", || async {
        let replicas = cluster.field("deployment/reader", "{.spec.replicas}").await;
        if replicas == "0" { Err(replicas) } else { Ok(()) }
    })
    .await;
    // With one right less it is said which.
    let error = cluster
        .controller("workload", "deployment/reader", "least")
        .pause(&mark("up-1"))
        .await
        .expect_err("not allowed");
    assert!(error.to_string().contains("deployments \"reader\" is forbidden"), "{error}");
    let error =
        cluster.controller("workload", "deployment/nobody", "admin").observe().await.expect_err("there is none");
    assert!(error.to_string().contains("deployments.apps \"nobody\" not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_done_when_no_pod_is_left_and_kubectl_sees_what_was_done() {
    let cluster = Cluster::start("pods").await;
    let writer = cluster.writer();
    let clock = Clock::system();
    let began = clock.mono();
    writer.pause(&mark("up-1")).await.expect("a pause");
    let took = clock.mono().since(began);
    assert_eq!(cluster.server.pods("ingest", "writer"), 0, "a pod that is on its way out still writes");
    assert!(took >= PACE.end, "it took {took:?}");
    assert_eq!(cluster.field("deployment/writer", "{.spec.replicas}").await, "0");
    let note: Value = serde_json::from_str(&cluster.field("deployment/writer", NOTE).await).expect("the note");
    assert_eq!(
        (&note["agent"], &note["upgrade"], &note["replicas"]),
        (&json!("cluster agent-1"), &json!("up-1"), &json!(3))
    );
    // It was written down before it was done.
    let changes: Vec<String> = cluster.server.changes().into_iter().map(|(path, _)| path).collect();
    assert_eq!(changes, ["PATCH ingest/deployments/writer", "PATCH ingest/deployments/writer/scale"]);
    writer.resume(&mark("up-1"), None).await.expect("a resume");
    cluster.kubectl("rollout status deployment/writer --timeout=20s").await;
    let after = cluster.field("deployment/writer", "{.spec.replicas}{.metadata.annotations}").await;
    assert_eq!(after, r#"3{"team":"orders"}"#, "exactly what was there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_changes_during_a_pause_stays() {
    let cluster = Cluster::start("person").await;
    let (writer, reader) = (cluster.writer(), cluster.controller("scaled_object", "reader", "admin"));
    // Scaled by somebody: that stays.
    writer.pause(&mark("up-1")).await.expect("a pause");
    cluster.kubectl("scale deployment/writer --replicas=7").await;
    until_state(writer.as_ref(), IngestionState::Running).await;
    writer.resume(&mark("up-1"), None).await.expect("a resume");
    assert_eq!(
        cluster.field("deployment/writer", "{.spec.replicas}{.metadata.annotations}").await,
        r#"7{"team":"orders"}"#
    );
    // Our note taken away: it is theirs now.
    writer.pause(&mark("up-1")).await.expect("a pause");
    cluster.kubectl("annotate deployment/writer upgrade-pilot/pause-").await;
    writer.resume(&mark("up-1"), None).await.expect("nothing to resume");
    assert_eq!(cluster.field("deployment/writer", "{.spec.replicas}").await, "0");
    // What stood in KEDA's annotation comes back.
    cluster.kubectl("annotate scaledobject/reader autoscaling.keda.sh/paused-replicas=1").await;
    reader.pause(&mark("up-1")).await.expect("a pause");
    reader.resume(&mark("up-1"), None).await.expect("a resume");
    assert_eq!(
        cluster.field("scaledobject/reader", "{.metadata.annotations}").await,
        r#"{"autoscaling.keda.sh/paused-replicas":"1"}"#
    );
    cluster.kubectl("annotate --overwrite scaledobject/reader autoscaling.keda.sh/paused=true autoscaling.keda.sh/paused-replicas-").await;
    let error = reader.pause(&mark("up-1")).await.expect_err("KEDA would not start it again").to_string();
    assert!(error.contains("autoscaling.keda.sh/paused"), "{error}");
    // A note of somebody else's pause that is under way.
    let theirs = r#"upgrade-pilot/pause={"agent":"other","upgrade":"up-9","since":"2026-01-01T00:00:00Z","expires_at":"2026-01-01T00:00:00Z","replicas":4}"#;
    cluster.run(&["annotate", "deployment/reader", theirs]).await.expect("an annotation");
    let error =
        cluster.controller("workload", "deployment/reader", "admin").pause(&mark("up-1")).await.expect_err("not ours");
    assert!(error.to_string().contains("other paused it for upgrade up-9"), "{error}");
}

/// Two at once: every change is of what was read, so that neither overwrites the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cross_are_read_again_and_nothing_is_lost() {
    let cluster = Cluster::start("cross").await;
    let writer = cluster.writer();
    let annotate = async {
        for n in 0..6 {
            cluster.kubectl(&format!("annotate --overwrite deployment/writer n={n}")).await;
        }
    };
    let pauses = async {
        for _ in 0..4 {
            writer.pause(&mark("up-1")).await.expect("a pause");
            writer.resume(&mark("up-1"), None).await.expect("a resume");
            until_state(writer.as_ref(), IngestionState::Running).await;
        }
    };
    tokio::join!(annotate, pauses);
    assert_eq!(
        cluster.field("deployment/writer", "{.spec.replicas}{.metadata.annotations}").await,
        r#"3{"n":"5","team":"orders"}"#
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_lost_its_files_finds_its_own_pause_and_no_other() {
    let cluster = Cluster::start("lost").await;
    let (first, second) = (Folder::new("lost-first"), Folder::new("lost-second"));
    let mut life = Life::begin(&first, vec![cluster.writer()]).await;
    life.wish(PAUSED).await.expect("a pause");
    life.end().await;
    let others = configured(&cluster.section("workload", "deployment/writer", "admin"), "cluster agent-2");
    let strangers = Folder::new("lost-stranger");
    let stranger = Life::begin(&strangers, vec![others.clone()]).await;
    stranger.settled().await.expect("nothing to do");
    assert!(others.left().await.expect("asked").is_none());
    assert_eq!(cluster.field("deployment/writer", "{.spec.replicas}").await, "0", "not the stranger's to resume");
    stranger.end().await;
    let mut life = Life::begin(&second, vec![cluster.writer()]).await;
    until_state(cluster.writer().as_ref(), IngestionState::Running).await;
    life.wish(IngestionWish::Running).await.expect("as it is");
    assert_eq!(
        cluster.field("deployment/writer", "{.spec.replicas}{.metadata.annotations}").await,
        r#"3{"team":"orders"}"#
    );
    life.end().await;
}

/// `aws eks get-token` and its like.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_command_is_asked_again_when_its_token_is_not_taken_any_more() {
    let cluster = Cluster::start("exec").await;
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let rules: Vec<Rule> = serde_json::from_value(rules).expect("rules");
    cluster.server.grant("second", rules);
    let (token, asked) = (cluster.folder.0.join("token"), cluster.folder.0.join("asked"));
    std::fs::write(&token, "first").expect("a token");
    let script =
        format!("echo x >> {}; echo '{{\"status\":{{\"token\":\"'$(cat {})'\"}}}}'", asked.display(), token.display());
    let exec =
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script]}});
    // JSON is YAML.
    cluster.write_kubeconfig("exec", &exec.to_string());
    let writer = cluster.controller("workload", "deployment/writer", "exec");
    let error = writer.observe().await.expect_err("nobody knows it").to_string();
    assert!(error.contains("401"), "{error}");
    std::fs::write(&token, "second").expect("a token");
    until("the new token is to be taken", || async {
        writer.observe().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let times = std::fs::read_to_string(&asked).expect("asked").lines().count();
    writer.observe().await.expect("observed");
    assert_eq!(std::fs::read_to_string(&asked).expect("asked").lines().count(), times, "what is good is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_is_not_done_in_its_time_says_what_it_last_saw() {
    let (folder, clock) = (Folder::new("slow"), Clock::system());
    let slow = Pace { end: Duration::from_secs(60), ..PACE };
    let cluster = Cluster {
        server: Server::start(slow, clock.clone()).await.expect("a stand-in"),
        folder,
        kubectl: "none".into(),
    };
    cluster.server.add_workload("ingest", "deployments", "writer", 1);
    cluster.write_kubeconfig("admin", "{}");
    let mut section = cluster.section("workload", "deployment/writer", "admin");
    section["pause_seconds_max"] = 5.into();
    let began = clock.mono();
    let error = configured(&section, "cluster agent-1").pause(&mark("up-1")).await.expect_err("pods are there");
    let took = clock.mono().since(began);
    assert!(error.to_string().ends_with("last seen \"pods that are still there\""), "{error}");
    assert!((Duration::from_secs(4)..Duration::from_secs(15)).contains(&took), "it took {took:?}");
}
