//! The upgrade by hand: `by_hand.py` with unmodified boto3 against a lab with real servers. The virtual environment is made
//! once, in the cache directory.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::cloud::{dispatch, metrics};
use crate::settings::{ClusterSettings, Settings, Timings};
use crate::{Lab, fleet, install};

/// AWS's own clients, pinned: the tests hold the lab against the models that come with botocore.
const CLIENTS: [&str; 3] = ["boto3==1.44.5", "botocore==1.44.8", "awscli==1.46.3"];

/// How long a change or a deletion shows.
const SHOWN: Duration = Duration::from_millis(400);

/// A python with boto3, and `aws` beside it.
pub(crate) async fn python() -> PathBuf {
    python_with("aws-clients", &CLIENTS).await
}

/// A python with these packages, in a virtual environment that is made once, and anew for other packages, in a folder of the cache
/// directory.
pub(crate) async fn python_with(folder: &str, packages: &[&str]) -> PathBuf {
    let folder = install::cache_dir().join(folder);
    std::fs::create_dir_all(&folder).expect("the cache folder");
    let _lock = fleet::lock(&folder.join("lock")).await.expect("the cache's lock");
    let venv = folder.join("venv");
    let (stamp, made_of) = (venv.join("complete"), packages.join(" "));
    if !std::fs::read_to_string(&stamp).is_ok_and(|there| there == made_of) {
        let _ = std::fs::remove_dir_all(&venv);
        run(program("python3").args(["-m", "venv"]).arg(&venv)).await;
        let mut install = program(venv.join("bin/pip"));
        run(install.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages)).await;
        std::fs::write(&stamp, made_of).expect("the stamp");
    }
    venv.join("bin/python")
}

/// A program that reads nothing.
fn program(path: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

async fn run(command: &mut Command) -> String {
    let output = command.kill_on_drop(true).output().await.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
    eprintln!("{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs `by_hand.py` against a lab and reads its report.
pub(crate) async fn by_hand(lab: &Lab, arguments: &[&str]) -> Value {
    let mut command = program(python().await);
    command.arg(script("by_hand.py")).args(arguments).env_remove("AWS_PROFILE").envs(lab.environment());
    serde_json::from_str(&run(&mut command).await).expect("one JSON object")
}

/// Runs `by_model.py` against the lab that `by_hand.py` left behind, with that one's report.
async fn by_model(lab: &Lab, report: &Value) -> Value {
    let file = lab.cloud.work_dir().join("report.json");
    std::fs::write(&file, report.to_string()).expect("a file in the work folder");
    let mut command = program(python().await);
    command.arg(script("by_model.py")).env_remove("AWS_PROFILE").envs(lab.environment());
    command.stdin(std::fs::File::open(&file).expect("the report"));
    serde_json::from_str(&run(&mut command).await).expect("one JSON object")
}

/// Every operation that is served was asked and its answers fit the models; so do all its errors and limits.
fn judged(by_hand: &Value, by_model: &Value) {
    let checked = |name: &str| [by_hand, by_model].iter().any(|report| report["checked"][name].is_number());
    let served = dispatch::SERVED.iter().chain(&metrics::SERVED);
    let unasked: Vec<&&str> = served.filter(|name| !checked(name)).collect();
    assert!(unasked.is_empty(), "answers that were not held against the model: {unasked:?}");
    let number = |name: &str| by_model[name].as_u64().expect("a number");
    let played = by_model["played"].as_array().expect("a list");
    let excused = |played: &&Value| {
        let code = played.as_str().and_then(|text| text.split_whitespace().nth(1)).unwrap_or("?");
        include_str!("../README.md").contains(&format!("`{code}`"))
    };
    let silent: Vec<&Value> = played.iter().filter(|one| !excused(one)).collect();
    assert!(silent.is_empty(), "the README does not say why these are only played: {silent:?}");
    let played = played.len();
    let (limits, errors) = (number("limits"), number("errors"));
    eprintln!("{limits} limits; {errors} errors, {played} of them played");
    assert!(limits > 450 && errors > 170 && played < 40, "{by_model}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_by_hand_with_unmodified_boto3() {
    // What a call refuses while something changes or goes must still be so when the call comes.
    let timings = Timings { modify: SHOWN, delete: SHOWN, ..Timings::short() };
    let lab = Lab::start(Settings { timings, ..Settings::default() }).await.expect("the lab starts");
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
    judged(&report, &by_model(&lab, &report).await);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_by_hand_with_the_unmodified_aws_cli() {
    let lab = Lab::start(Settings { timings: Timings::short(), ..Settings::default() }).await.expect("the lab starts");
    let settings = ClusterSettings {
        databases: vec!["orders".into()],
        deletion_protection: true,
        ..ClusterSettings::new("orders", 15)
    };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    let python = python().await;
    let programs = python.parent().expect("the folder of programs").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))).expect("a path");
    let mut command = program("bash");
    command.arg(script("by_cli.sh")).args([cluster.identifier.as_str(), "16.15"]);
    run(command.env_remove("AWS_PROFILE").env("PATH", path).envs(lab.environment())).await;
    let version = server_version(&cluster).await;
    assert!(version.starts_with("16"), "the production endpoint answers with {version}");
    assert!(lab.members("orders-old1").is_empty() && lab.members("orders").len() == 1);
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
