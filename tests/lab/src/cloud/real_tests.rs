//! The account over real servers, without the wire: what a deployment does to them and what the API says meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::clock::Clock;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::cloud::dispatch;
use crate::cloud::errors::Refusal;
use crate::cloud::params::Params;
use crate::faults::Fault;
use crate::settings::{ClusterSettings, Settings, Timings};
use crate::wire::xml::Element;
use crate::{ClusterHandle, Lab};

pub(crate) async fn lab(timings: Timings) -> Lab {
    Lab::start(Settings { timings, ..Settings::default() }).await.expect("the lab starts")
}

pub(crate) fn source(identifier: &str, major: u32) -> ClusterSettings {
    let logical = [("rds.logical_replication", "1"), ("log_statement", "ddl")];
    ClusterSettings {
        databases: vec!["orders".into()],
        cluster_parameters: logical.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        ..ClusterSettings::new(identifier, major)
    }
}

async fn try_call(lab: &Lab, action: &str, form: &[(&str, &str)]) -> Result<Value, Refusal> {
    let params = Params::new(form.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let answer = dispatch::call(&lab.cloud, action, &params).await?;
    Ok(answer.as_ref().map_or(Value::Null, Element::as_json))
}

pub(crate) async fn call(lab: &Lab, action: &str, form: &[(&str, &str)]) -> Value {
    try_call(lab, action, form).await.unwrap_or_else(|refusal| panic!("{action} was refused: {refusal}"))
}

/// Looks until `there`; says what was last seen when it never is.
pub(crate) async fn until<T, F: Future<Output = (bool, T)>>(what: &str, mut look: impl FnMut() -> F) -> T
where
    T: std::fmt::Debug,
{
    let clock = Clock::system();
    loop {
        let (there, seen) = look().await;
        if there {
            return seen;
        }
        assert!(clock.mono().0 < Duration::from_secs(120), "{what}: last seen {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn deployment(lab: &Lab, id: &str) -> Value {
    let answer = call(lab, "DescribeBlueGreenDeployments", &[("BlueGreenDeploymentIdentifier", id)]).await;
    answer["BlueGreenDeployments"][0].clone()
}

pub(crate) async fn status_is(lab: &Lab, id: &str, wanted: &str) -> Value {
    until(wanted, || async {
        let found = deployment(lab, id).await;
        let bad = found["Status"] == "INVALID_CONFIGURATION" && wanted != "INVALID_CONFIGURATION";
        assert!(!bad, "{found}");
        (found["Status"] == wanted, found)
    })
    .await
}

/// Makes a deployment to `major` and returns its identifier once it is AVAILABLE.
pub(crate) async fn deployed(lab: &Lab, cluster: &ClusterHandle, major: u32) -> String {
    let id = begun(lab, cluster, major).await;
    status_is(lab, &id, "AVAILABLE").await;
    id
}

async fn begun(lab: &Lab, cluster: &ClusterHandle, major: u32) -> String {
    let major = major.to_string();
    let form = [("BlueGreenDeploymentName", "upgrade"), ("Source", &cluster.arn), ("TargetEngineVersion", &major)];
    let answer = call(lab, "CreateBlueGreenDeployment", &form).await;
    answer["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"].as_str().expect("an identifier").to_owned()
}

pub(crate) async fn switch(lab: &Lab, id: &str) {
    call(lab, "SwitchoverBlueGreenDeployment", &[("BlueGreenDeploymentIdentifier", id), ("SwitchoverTimeout", "60")])
        .await;
}

pub(crate) async fn connect(
    host: std::net::IpAddr,
    cluster: &ClusterHandle,
    database: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(host.to_string()).port(cluster.port).dbname(database).connect_timeout(Duration::from_secs(5));
    config.user(&cluster.master.0).password(&cluster.master.1);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(super) async fn client(cluster: &ClusterHandle, database: &str) -> Client {
    let address = cluster.address().expect("the endpoint's name leads somewhere");
    connect(address, cluster, database).await.expect("the endpoint takes clients")
}

pub(super) async fn events(lab: &Lab, kind: &str) -> String {
    call(lab, "DescribeEvents", &[("SourceType", kind)]).await.to_string()
}

pub(super) async fn count(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.expect("an answer").get(0)
}

/// Writes numbered rows through the endpoint until it is told to stop; reconnects at every error. Returns what was
/// acknowledged and the longest time between two acknowledgements.
async fn write_on(cluster: ClusterHandle, mut stop: tokio::sync::watch::Receiver<bool>) -> (Vec<i64>, Duration) {
    let clock = Clock::system();
    let (mut acknowledged, mut longest, mut last) = (Vec::new(), Duration::ZERO, clock.mono().0);
    let (mut session, mut number) = (None, 0);
    while !*stop.borrow_and_update() {
        if session.is_none() {
            session = match cluster.address() {
                Some(address) => connect(address, &cluster, "orders").await.ok(),
                None => None,
            };
        }
        let Some(open) = &session else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        number += 1;
        match open.execute("insert into written (id) values ($1)", &[&number]).await {
            Ok(_) => {
                let now = clock.mono().0;
                longest = longest.max(now - last);
                last = now;
                acknowledged.push(number);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(_) => session = None,
        }
    }
    (acknowledged, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_under_writes_loses_nothing_and_stops_them_for_less_than_half_a_second() {
    let lab = lab(Timings::zero()).await;
    let cluster = lab.create_cluster(source("orders", 14)).await.expect("the cluster comes up");
    client(&cluster, "orders")
        .await
        .batch_execute("create table written (id bigint primary key)")
        .await
        .expect("a table");
    let id = deployed(&lab, &cluster, 16).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn(write_on(cluster.clone(), stopped));
    until("some rows", || async {
        let rows = count(&client(&cluster, "orders").await, "select count(*) from written").await;
        (rows > 100, rows)
    })
    .await;
    switch(&lab, &id).await;
    let found = status_is(&lab, &id, "SWITCHOVER_COMPLETED").await;
    assert!(found["Source"].as_str().is_some_and(|arn| arn.ends_with(":cluster:orders-old1")), "{found}");
    assert_eq!(found["Target"], cluster.arn.as_str());
    stop.send_replace(true);
    let (acknowledged, longest) = writer.await.expect("the writer ends");
    let session = client(&cluster, "orders").await;
    let rows = session.query("select id from written", &[]).await.expect("the rows");
    let there: std::collections::BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let lost: Vec<i64> = acknowledged.iter().filter(|id| !there.contains(id)).copied().collect();
    assert_eq!(lost, [] as [i64; 0], "acknowledged rows are on the new production");
    let version: String = session.query_one("show server_version_num", &[]).await.expect("an answer").get(0);
    assert!(version.starts_with("16"), "{version}");
    eprintln!("longest time between two acknowledged writes: {longest:?} over {} rows", acknowledged.len());
    assert!(longest < Duration::from_millis(500), "writes stood still for {longest:?}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_change_refuses_the_switchover_and_deleting_leaves_blue_as_it_was() {
    let lab = lab(Timings::zero()).await;
    let settings = ClusterSettings { deletion_protection: true, ..source("orders", 14) };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    let id = deployed(&lab, &cluster, 16).await;
    client(&cluster, "orders").await.batch_execute("create table late (id int primary key)").await.expect("a table");
    switch(&lab, &id).await;
    let found = status_is(&lab, &id, "AVAILABLE").await;
    assert!(
        found["StatusDetails"].as_str().is_some_and(|text| text.contains("DDL or Large Object changes")),
        "{found}"
    );
    let said = events(&lab, "db-cluster").await;
    assert!(said.contains("was cancelled because there are DDL or Large Object changes"), "{said}");
    let delete = [("BlueGreenDeploymentIdentifier", id.as_str()), ("DeleteTarget", "true")];
    let protected = try_call(&lab, "DeleteBlueGreenDeployment", &delete).await.expect_err("green is protected");
    assert_eq!(protected.code, "InvalidParameterCombination");
    let green = found["Target"].as_str().and_then(|arn| arn.rsplit(':').next()).expect("a green").to_owned();
    call(&lab, "ModifyDBCluster", &[("DBClusterIdentifier", &green), ("DeletionProtection", "false")]).await;
    call(&lab, "DeleteBlueGreenDeployment", &delete).await;
    until("the end of the deployment", || async {
        let answer = try_call(&lab, "DescribeBlueGreenDeployments", &delete[..1]).await;
        (answer.as_ref().is_err_and(|r| r.code == "BlueGreenDeploymentNotFoundFault"), format!("{answer:?}"))
    })
    .await;
    let session = client(&cluster, "orders").await;
    let left = "select (select count(*) from pg_replication_slots) + (select count(*) from pg_publication)";
    assert_eq!(count(&session, left).await, 0, "slots and publications left on blue");
    assert!(try_call(&lab, "DescribeDBClusters", &[("DBClusterIdentifier", &green)]).await.is_err(), "green is gone");
    session.batch_execute("insert into late values (1)").await.expect("blue writes");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_switchover_leaves_blue_serving_and_the_next_one_succeeds_after_a_failover() {
    let completed = Duration::from_secs(2);
    let lab = lab(Timings { completed_delay: completed, names_delay: Duration::from_secs(1), ..Timings::zero() }).await;
    let settings = ClusterSettings { readers: 1, ..source("orders", 14) };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    let setup =
        "create table t (id int primary key); create sequence s; insert into t values (1); select setval('s', 41)";
    client(&cluster, "orders").await.batch_execute(setup).await.expect("a table");
    let id = deployed(&lab, &cluster, 16).await;
    lab.faults().plan(Fault::SwitchoverFails { reason: "the lab wants it so".into() }, 1);
    switch(&lab, &id).await;
    let found = status_is(&lab, &id, "SWITCHOVER_FAILED").await;
    assert!(found["Source"] == cluster.arn.as_str(), "{found}");
    client(&cluster, "orders").await.batch_execute("insert into t values (2)").await.expect("blue writes");
    call(&lab, "FailoverDBCluster", &[("DBClusterIdentifier", "orders")]).await;
    let members = until("a new writer", || async {
        let found = call(&lab, "DescribeDBClusters", &[("DBClusterIdentifier", "orders")]).await;
        let ready = found["DBClusters"][0]["Status"] == "available";
        (ready, lab.members("orders"))
    })
    .await;
    assert!(members.iter().any(|(name, _, writer)| name == "orders-2" && *writer), "{members:?}");
    until("green follows the new writer", || async {
        let _ = client(&cluster, "orders").await.batch_execute("insert into t select max(id) + 1 from t").await;
        let green = lab.members(found["Target"].as_str().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default());
        let session = connect(green[0].1, &cluster, "orders").await.expect("green answers");
        let rows = count(&session, "select count(*) from t").await;
        (rows > 2, rows)
    })
    .await;
    let green = lab.members(found["Target"].as_str().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default())[0].1;
    switch(&lab, &id).await;
    let clock = Clock::system();
    until("green takes writes", || async {
        let Ok(session) = connect(green, &cluster, "orders").await else { return (false, "no session".to_owned()) };
        let answer = session.query_one("show transaction_read_only", &[]).await.map(|row| row.get::<_, String>(0));
        (answer.as_ref().is_ok_and(|v| v == "off"), format!("{answer:?}"))
    })
    .await;
    let (opened, early) = (clock.mono().0, deployment(&lab, &id).await);
    assert_eq!(early["Status"], "SWITCHOVER_IN_PROGRESS", "the API says COMPLETED later than green takes writes");
    status_is(&lab, &id, "SWITCHOVER_COMPLETED").await;
    assert!(clock.mono().0 - opened > Duration::from_secs(1), "COMPLETED came after {:?}", clock.mono().0 - opened);
    let session = client(&cluster, "orders").await;
    assert!(count(&session, "select nextval('s')").await > 41, "sequences are copied");
    let identity: String =
        session.query_one("select aurora_db_instance_identifier()", &[]).await.expect("an answer").get(0);
    assert_eq!(identity, "orders-2", "the writer's twin took over the writer's name");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_green_whose_apply_is_stalled_falls_behind_and_catches_up_afterwards() {
    let lab = lab(Timings { watch: Duration::from_millis(100), ..Timings::zero() }).await;
    let cluster = lab.create_cluster(source("orders", 14)).await.expect("the cluster comes up");
    client(&cluster, "orders").await.batch_execute("create table t (id int primary key)").await.expect("a table");
    let id = deployed(&lab, &cluster, 16).await;
    let target = deployment(&lab, &id).await["Target"]
        .as_str()
        .and_then(|arn| arn.rsplit(':').next())
        .expect("green")
        .to_owned();
    let green = connect(lab.members(&target)[0].1, &cluster, "orders").await.expect("green answers");
    let behind = || async {
        let session = client(&cluster, "orders").await;
        session.batch_execute("insert into t select coalesce(max(id), 0) + 1 from t").await.expect("blue writes");
        tokio::time::sleep(Duration::from_millis(100)).await;
        count(&session, "select count(*) from t").await - count(&green, "select count(*) from t").await
    };
    lab.faults().plan(Fault::ApplyStalls, 1);
    until("green falls behind", || async {
        let rows = behind().await;
        (rows > 5, rows)
    })
    .await;
    lab.faults().clear();
    until("green catches up", || async {
        let rows = count(&client(&cluster, "orders").await, "select count(*) from t").await;
        let there = count(&green, "select count(*) from t").await;
        (rows == there, (rows, there))
    })
    .await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_its_precheck_refuses_ends_as_invalid_configuration_with_its_log() {
    let lab = lab(Timings::zero()).await;
    let settings = ClusterSettings { preload: vec!["pg_cron".into()], ..source("orders", 15) };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    client(&cluster, "postgres").await.batch_execute("create extension pg_cron").await.expect("pg_cron");
    let id = begun(&lab, &cluster, 16).await;
    let found = status_is(&lab, &id, "INVALID_CONFIGURATION").await;
    assert!(found["StatusDetails"].as_str().is_some_and(|text| text.contains("failed")), "{found}");
    assert!(events(&lab, "blue-green-deployment").await.contains("Creation of blue/green deployment failed"));
    let green = found["Target"].as_str().and_then(|arn| arn.rsplit(':').next()).expect("a green").to_owned();
    let answer = call(&lab, "DescribeDBClusters", &[("DBClusterIdentifier", &green)]).await;
    let writer =
        answer["DBClusters"][0]["DBClusterMembers"][0]["DBInstanceIdentifier"].as_str().expect("a writer").to_owned();
    let files = call(&lab, "DescribeDBLogFiles", &[("DBInstanceIdentifier", &writer)]).await;
    let name = files["DescribeDBLogFiles"][0]["LogFileName"].as_str().expect("a log file").to_owned();
    let part = call(
        &lab,
        "DownloadDBLogFilePortion",
        &[("DBInstanceIdentifier", &writer), ("LogFileName", &name), ("Marker", "0")],
    )
    .await;
    assert!(part["LogFileData"].as_str().is_some_and(|text| text.contains("required libraries")), "{part}");
    call(&lab, "DeleteBlueGreenDeployment", &[("BlueGreenDeploymentIdentifier", &id), ("DeleteTarget", "true")]).await;
    until("green's end", || async {
        let answer = try_call(&lab, "DescribeDBClusters", &[("DBClusterIdentifier", &green)]).await;
        (answer.is_err(), format!("{answer:?}"))
    })
    .await;
    assert_eq!(count(&client(&cluster, "orders").await, "select count(*) from pg_replication_slots").await, 0);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_parameters_wait_for_a_real_restart_and_dynamic_ones_do_not() {
    let lab = lab(Timings::zero()).await;
    let settings = ClusterSettings {
        cluster_parameters: vec![("work_mem".into(), "5000".into())],
        ..ClusterSettings::new("orders", 14)
    };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    let shown = |name: &'static str| {
        let cluster = cluster.clone();
        async move {
            let session = connect(cluster.address()?, &cluster, "postgres").await.ok()?;
            session.query_one(&format!("show {name}"), &[]).await.ok().map(|row| row.get::<_, String>(0))
        }
    };
    assert_eq!(shown("work_mem").await.as_deref(), Some("5000kB"));
    let change = |name: &'static str, value: &'static str, method: &'static str| {
        let lab = lab.clone();
        async move {
            let form = [
                ("DBClusterParameterGroupName", "orders-cluster-group"),
                ("Parameters.Parameter.1.ParameterName", name),
                ("Parameters.Parameter.1.ParameterValue", value),
                ("Parameters.Parameter.1.ApplyMethod", method),
            ];
            try_call(&lab, "ModifyDBClusterParameterGroup", &form).await
        }
    };
    change("work_mem", "6000", "immediate").await.expect("dynamic");
    until("work_mem", || async { (shown("work_mem").await.as_deref() == Some("6000kB"), shown("work_mem").await) })
        .await;
    let refusal = change("rds.logical_replication", "1", "immediate").await.expect_err("static");
    assert_eq!(refusal.code, "InvalidParameterCombination");
    change("rds.logical_replication", "1", "pending-reboot").await.expect("static");
    let member = || async {
        let found = call(&lab, "DescribeDBClusters", &[("DBClusterIdentifier", "orders")]).await;
        found["DBClusters"][0]["DBClusterMembers"][0]["DBClusterParameterGroupStatus"].as_str().map(str::to_owned)
    };
    assert_eq!(member().await.as_deref(), Some("pending-reboot"));
    assert_eq!(shown("wal_level").await.as_deref(), Some("replica"));
    let form = [("BlueGreenDeploymentName", "x"), ("Source", cluster.arn.as_str()), ("TargetEngineVersion", "16")];
    let refusal = try_call(&lab, "CreateBlueGreenDeployment", &form).await.expect_err("not in sync");
    assert_eq!(refusal.code, "SourceDatabaseNotSupportedFault");
    call(&lab, "RebootDBInstance", &[("DBInstanceIdentifier", "orders-1")]).await;
    until("in-sync", || async { (member().await.as_deref() == Some("in-sync"), member().await) }).await;
    until("wal_level", || async { (shown("wal_level").await.as_deref() == Some("logical"), shown("wal_level").await) })
        .await;
    lab.stop().await;
}

#[tokio::test]
async fn calls_are_logged_and_faults_of_the_wire_happen_as_often_as_planned() {
    let lab = lab(Timings::zero()).await;
    let post = |action: &'static str| {
        let url = lab.endpoint_url();
        async move {
            let address = url.trim_start_matches("http://").to_owned();
            let body = format!("Action={action}&Version=2014-10-31");
            raw_post(&address, &body).await
        }
    };
    lab.faults().plan(Fault::Throttle { action: "DescribeDBClusters".into() }, 1);
    lab.faults().plan(Fault::DropAnswer { action: "DescribeEvents".into() }, 1);
    assert!(post("DescribeDBClusters").await.contains("<Code>Throttling</Code>"));
    assert!(post("DescribeDBClusters").await.contains("<DescribeDBClustersResult>"));
    assert_eq!(post("DescribeEvents").await, "", "the answer is lost");
    assert!(post("NoSuchThing").await.contains("<Code>InvalidAction</Code>"));
    let outcomes: BTreeMap<String, usize> = lab.requests().iter().fold(BTreeMap::new(), |mut all, r| {
        *all.entry(format!("{} {:?}", r.action, r.outcome).chars().take(32).collect()).or_default() += 1;
        all
    });
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
    lab.stop().await;
}

/// One HTTP request over a plain socket; what came back, if anything did.
async fn raw_post(address: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let now = runtime::clock::Clock::system().now();
    let signed = crate::iam::sign(crate::iam::ADMINISTRATOR, "rds", "lab", "/", body.as_bytes(), now);
    let signed: String = signed.into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the endpoint listens");
    let head = "POST / HTTP/1.1\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let request = format!("{head}{signed}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    // A cut connection may end with an error instead of an end: both mean that nothing came.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}
