//! The upgrade by hand: `by_hand.py` with unmodified boto3 against a lab with real servers. The virtual environment is made
//! once, in the cache directory.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::settings::{ClusterSettings, Settings, Timings};
use crate::{Lab, fleet, install};

/// A python with boto3.
pub(crate) async fn python() -> PathBuf {
    python_with("boto3", &["boto3"]).await
}

/// A python with these packages, in a virtual environment that is made once, in a folder of the cache directory.
pub(crate) async fn python_with(folder: &str, packages: &[&str]) -> PathBuf {
    let folder = install::cache_dir().join(folder);
    std::fs::create_dir_all(&folder).expect("the cache folder");
    let _lock = fleet::lock(&folder.join("lock")).await.expect("the cache's lock");
    let venv = folder.join("venv");
    let stamp = venv.join("complete");
    if !stamp.exists() {
        let _ = std::fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).await;
        let mut install = Command::new(venv.join("bin/pip"));
        run(install.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages)).await;
        std::fs::write(&stamp, "").expect("the stamp");
    }
    venv.join("bin/python")
}

async fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
    eprintln!("{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `by_hand.py` against a lab and reads its report.
pub(crate) async fn by_hand(lab: &Lab, arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("by_hand.py");
    let mut command = Command::new(python().await);
    command.arg(script).args(arguments).env_remove("AWS_PROFILE").envs(lab.environment());
    serde_json::from_str(&run(&mut command).await).expect("one JSON object")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_by_hand_with_unmodified_boto3() {
    let lab = Lab::start(Settings { timings: Timings::short(), ..Settings::default() }).await.expect("the lab starts");
    let settings = ClusterSettings {
        readers: 1,
        databases: vec!["orders".into(), "billing".into()],
        cluster_parameters: vec![("work_mem".into(), "8192".into())],
        ..ClusterSettings::new("orders", 14)
    };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    let report = by_hand(&lab, &["--cluster", &cluster.identifier, "--to", "16"]).await;
    assert_eq!(report["to"].as_str().and_then(|v| v.split('.').next()), Some("16"), "{report}");
    let version = server_version(&cluster).await;
    assert!(version.starts_with("16"), "the production endpoint answers with {version}");
    assert!(lab.members("orders-old1").is_empty() && lab.members("orders").len() == 2);
    lab.stop().await;
}

/// What the production endpoint answers to the master user.
async fn server_version(cluster: &crate::ClusterHandle) -> String {
    let mut config = tokio_postgres::Config::new();
    let address = cluster.address().expect("the endpoint's name leads somewhere");
    config.host(&cluster.endpoint).hostaddr(address).port(cluster.port).dbname("orders");
    config.user(&cluster.master.0).password(&cluster.master.1);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("the endpoint takes clients");
    let connection = tokio::spawn(connection);
    let row = client.query_one("show server_version_num", &[]).await.expect("an answer");
    drop(client);
    let _ = connection.await;
    row.get(0)
}
