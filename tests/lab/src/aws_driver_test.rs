//! AWS's own driver as a judge: the Advanced Python Wrapper with its blue/green plugin, unmodified, and beside it psycopg alone,
//! both by name and under a load of writes, through a switchover. The virtual environment is made once, in the cache directory.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::by_hand_test::python_with;
use crate::cloud::real_tests::{connect, deployed, lab, source, status_is, switch};
use crate::settings::{MASTER_PASSWORD, MASTER_USER, Timings};
use crate::{ClusterHandle, Lab};

/// Longer than anything here takes: a program that hangs ends by it.
const LIMIT: Duration = Duration::from_secs(150);

/// `aws_driver.py`, running.
struct Driver {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    phases: Vec<String>,
    written: u64,
    /// The plugin has logged its table of events, which it does a while after COMPLETED, when green's names are gone.
    table: bool,
}

impl Driver {
    async fn start(lab: &Lab, cluster: &ClusterHandle, client: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("aws_driver.py");
        let mut command = Command::new(python().await);
        command.arg(script).args([
            "--client",
            client,
            "--host",
            &cluster.endpoint,
            "--port",
            &cluster.port.to_string(),
        ]);
        command.args(["--user", MASTER_USER, "--database", "orders", "--seconds", &LIMIT.as_secs().to_string()]);
        command.envs(lab.environment()).env("PGPASSWORD", MASTER_PASSWORD);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the driver starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines, phases: Vec::new(), written: 0, table: false }
    }

    /// The next report, if that is what comes; notes anything else.
    async fn next(&mut self) -> Option<Value> {
        let line =
            self.lines.next_line().await.expect("the driver's output").expect("the driver ended without a report");
        let mut line: Value = serde_json::from_str(&line).expect("one JSON object a line");
        if let Some(phase) = line["phase"].as_str() {
            self.phases.push(phase.to_owned());
        }
        if let Some(written) = line["written"].as_u64() {
            self.written = written;
        }
        self.table |= line["table"].is_u64();
        line.as_object_mut().and_then(|line| line.remove("report"))
    }

    async fn until(&mut self, what: &str, there: impl Fn(&Self) -> bool) {
        while !there(self) {
            if let Some(report) = self.next().await {
                panic!(
                    "{what}: the driver ended before, last seen {:?} and {} rows: {report}",
                    self.phases, self.written
                );
            }
        }
    }

    async fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        loop {
            if let Some(report) = self.next().await {
                return report;
            }
        }
    }
}

/// Where each event of the plugin's own table begins, in milliseconds from IN_PROGRESS.
fn offset(report: &Value, event: &str) -> i64 {
    let events = report["events"].as_array().expect("the plugin's table");
    let row = events.iter().find(|row| row[0] == event).unwrap_or_else(|| panic!("{event} is not in {report}"));
    row[1].as_i64().expect("an offset")
}

#[tokio::test(flavor = "multi_thread")]
async fn real_aws_python_wrapper_follows_a_switchover_through_every_phase() {
    let millis = Duration::from_millis;
    let timings = Timings {
        initiated: millis(1000),
        drop_delay: millis(300),
        window: millis(1500),
        topology_delay: millis(1000),
        names_delay: millis(1500),
        green_names_delay: millis(2500),
        completed_delay: millis(2500),
        rows_stay: millis(4000),
        ..Timings::zero()
    };
    let lab = lab(timings).await;
    let cluster = lab.create_cluster(source("orders", 14)).await.expect("the cluster comes up");
    let session = connect(cluster.members[0].1, &cluster, "orders").await.expect("blue answers");
    session
        .batch_execute("create table driver_load (client text, n bigint, primary key (client, n))")
        .await
        .expect("the drivers' table");
    let id = deployed(&lab, &cluster, 16).await;
    let mut wrapper = Driver::start(&lab, &cluster, "wrapper").await;
    let mut plain = Driver::start(&lab, &cluster, "plain").await;
    wrapper
        .until("the plugin sees the deployment", |d| d.phases.last().is_some_and(|p| p == "CREATED") && d.written > 100)
        .await;
    plain.until("psycopg writes", |d| d.written > 100).await;
    switch(&lab, &id).await;
    wrapper.until("the plugin says COMPLETED", |d| d.phases.last().is_some_and(|p| p == "COMPLETED")).await;
    wrapper.until("the plugin's table of events", |d| d.table).await;
    let before = wrapper.written;
    wrapper.until("the wrapper goes on", |d| d.written > before + 100).await;
    status_is(&lab, &id, "SWITCHOVER_COMPLETED").await;
    let (wrapper, plain) = (wrapper.end().await, plain.end().await);
    println!("wrapper: {wrapper}\nplain: {plain}");
    // After COMPLETED the plugin begins anew.
    let phases =
        wrapper["phases"].as_array().expect("phases").iter().filter_map(Value::as_str).take(6).collect::<Vec<_>>();
    assert_eq!(phases, ["NOT_CREATED", "CREATED", "PREPARATION", "IN_PROGRESS", "POST", "COMPLETED"], "{wrapper}");
    let order =
        ["PREPARATION", "IN_PROGRESS", "POST", "Green topology changed", "Blue DNS updated", "Green DNS removed"];
    let moments = order.map(|event| offset(&wrapper, event));
    assert!(
        moments[..3].is_sorted() && moments[2] <= moments[3] && offset(&wrapper, "COMPLETED") >= moments[5],
        "{moments:?}"
    );
    let new = lab.members("orders")[0].1;
    let session = connect(new, &cluster, "orders").await.expect("the new writer answers");
    for report in [&wrapper, &plain] {
        let unsure: Vec<i64> = report["unsure"].as_array().expect("a list").iter().filter_map(Value::as_i64).collect();
        let rows: i64 = session
            .query_one(
                "select count(*) from driver_load where client = $1 and n <> all ($2)",
                &[&report["client"].as_str().expect("its name"), &unsure],
            )
            .await
            .expect("an answer")
            .get(0);
        assert_eq!(Some(rows), report["acknowledged"].as_i64(), "rows that were acknowledged and are there: {report}");
    }
    lab.stop().await;
}

/// A python with the wrapper.
async fn python() -> PathBuf {
    python_with("aws-driver", &["aws-advanced-python-wrapper==3.1.0", "psycopg[binary]==3.3.9"]).await
}
