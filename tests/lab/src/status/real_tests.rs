//! What servers tell, asked as drivers ask it: by address, on sessions that are dialled again when they are dropped.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_postgres::Client;

use super::{Flavour, Status};
use crate::cloud::real_tests::{connect, deployed, deployment, lab, source, status_is, switch, until};
use crate::faults::Fault;
use crate::settings::{ClusterSettings, Timings};
use crate::{ClusterHandle, Lab};

const AURORA: &str = "select id, endpoint, port, role, status, version, update_stamp::text \
    from pg_catalog.get_blue_green_fast_switchover_metadata('the tests')";
const RDS: &str =
    "select id, endpoint, port, role, status, version, update_stamp::text from rds_tools.show_topology('the tests')";

/// A row as text: `BLUE_GREEN_DEPLOYMENT_SOURCE AVAILABLE endpoint:port`.
async fn rows(session: &Client, query: &str) -> Result<Vec<(String, String, String)>, tokio_postgres::Error> {
    let rows = session.query(query, &[]).await?;
    assert!(rows.iter().all(|row| row.get::<_, &str>("version") == "1.0"));
    Ok(rows.iter().map(|row| (row.get("role"), row.get("status"), row.get("endpoint"))).collect())
}

async fn value(session: &Client, query: &str) -> String {
    session.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// What one server tells, each time that it changes. Stops when dropped.
struct Watcher {
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// `SOURCE+TARGET AVAILABLE`, `TARGET SWITCHOVER_COMPLETED`, `nothing`; with ` rw` as soon as that server takes writes.
    fn start(address: IpAddr, cluster: &ClusterHandle, query: &'static str) -> Self {
        let (seen, cluster) = (Arc::new(Mutex::new(Vec::<String>::new())), cluster.clone());
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                if let Ok(session) = connect(address, &cluster, "orders").await {
                    while let Ok(line) = look(&session, query).await {
                        note(&kept, line);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { seen, task }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("the watcher's lock").clone()
    }

    async fn until(&self, last: &str) -> Vec<String> {
        until(last, || async { (self.seen().last().is_some_and(|line| line == last), self.seen()) }).await
    }
}

fn note(seen: &Mutex<Vec<String>>, line: String) {
    let mut seen = seen.lock().expect("the watcher's lock");
    if seen.last() != Some(&line) {
        seen.push(line);
    }
}

async fn look(session: &Client, query: &str) -> Result<String, tokio_postgres::Error> {
    let rows = rows(session, query).await?;
    let roles: Vec<&str> = rows.iter().filter_map(|(role, ..)| role.rsplit('_').next()).collect();
    let Some((_, status, _)) = rows.first() else { return Ok("nothing".into()) };
    assert!(rows.iter().all(|(_, other, _)| other == status), "{rows:?}");
    let read_only: String = session.query_one("show transaction_read_only", &[]).await?.get(0);
    let writes = if read_only == "off" { " rw" } else { "" };
    Ok(format!("{} {status}{writes}", roles.join("+")))
}

async fn green_of(lab: &Lab, id: &str) -> IpAddr {
    let found = deployment(lab, id).await;
    lab.members(found["Target"].as_str().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default())[0].1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statuses_come_in_order_on_both_sides_and_the_rows_go() {
    let millis = Duration::from_millis;
    let timings = Timings {
        initiated: millis(300),
        drop_delay: millis(300),
        window: millis(900),
        topology_delay: millis(400),
        names_delay: millis(900),
        completed_delay: millis(900),
        rows_stay: millis(900),
        ..Timings::zero()
    };
    let lab = lab(timings).await;
    let cluster = lab.create_cluster(source("orders", 14)).await.expect("the cluster comes up");
    let blue = cluster.members[0].1;
    let session = connect(blue, &cluster, "orders").await.expect("blue answers");
    assert_eq!(
        rows(&session, AURORA).await.expect("the function answers"),
        [],
        "without a deployment there are no rows"
    );
    let id = deployed(&lab, &cluster, 16).await;
    let green = green_of(&lab, &id).await;
    let on_green = connect(green, &cluster, "orders").await.expect("green answers");
    for session in [&session, &on_green] {
        let told = rows(session, AURORA).await.expect("the function answers");
        let roles: Vec<&str> = told.iter().map(|(role, ..)| role.as_str()).collect();
        assert_eq!(roles, ["BLUE_GREEN_DEPLOYMENT_SOURCE", "BLUE_GREEN_DEPLOYMENT_TARGET"], "{told:?}");
        as_drivers_ask(session).await;
    }
    const LOGICAL: &str = "select setting from pg_settings where name = 'rds.logical_replication'";
    assert_eq!((value(&session, LOGICAL).await.as_str(), value(&on_green, LOGICAL).await.as_str()), ("on", "off"));
    assert!(value(&on_green, "select aurora_db_instance_identifier()").await.starts_with("orders-1-green-"));
    let (of_blue, of_green) = (Watcher::start(blue, &cluster, AURORA), Watcher::start(green, &cluster, AURORA));
    of_green.until("SOURCE+TARGET AVAILABLE").await;
    of_blue.until("SOURCE+TARGET AVAILABLE rw").await;
    switch(&lab, &id).await;
    let (of_blue, of_green) = (of_blue.until("nothing").await, of_green.until("nothing").await);
    // Green says that it takes writes only when it does, which may be seen a moment before it is told.
    let of_green: Vec<_> = of_green.into_iter().filter(|l| l != "SOURCE+TARGET SWITCHOVER_IN_PROGRESS rw").collect();
    assert_eq!(
        of_green,
        [
            "SOURCE+TARGET AVAILABLE",
            "SOURCE+TARGET SWITCHOVER_INITIATED",
            "SOURCE+TARGET SWITCHOVER_IN_PROGRESS",
            "SOURCE+TARGET SWITCHOVER_IN_POST_PROCESSING rw",
            "TARGET SWITCHOVER_COMPLETED rw",
            "nothing",
        ]
    );
    // Blue's last moments with stopped writes may be told with the status before.
    let expected = [
        "SOURCE+TARGET AVAILABLE rw",
        "SOURCE+TARGET SWITCHOVER_INITIATED rw",
        "SOURCE+TARGET SWITCHOVER_IN_PROGRESS",
        "SOURCE+TARGET SWITCHOVER_IN_POST_PROCESSING",
        "TARGET SWITCHOVER_COMPLETED",
        "nothing",
    ];
    let of_blue: Vec<_> = of_blue.into_iter().filter(|line| line != "SOURCE+TARGET SWITCHOVER_INITIATED").collect();
    assert_eq!(of_blue, expected);
    let session = connect(green, &cluster, "orders").await.expect("the new writer answers");
    assert_eq!(value(&session, "select aurora_db_instance_identifier()").await, "orders-1");
    status_is(&lab, &id, "SWITCHOVER_COMPLETED").await;
    lab.stop().await;
}

/// The questions of AWS's drivers, word for word where it matters.
async fn as_drivers_ask(session: &Client) {
    for exists in [
        "select 'pg_catalog.get_blue_green_fast_switchover_metadata'::pg_catalog.regproc::text",
        "select 'pg_catalog.aurora_replica_status'::pg_catalog.regproc::text",
        "select count(*)::text from pg_catalog.get_blue_green_fast_switchover_metadata()",
        "select setting from pg_catalog.pg_settings where name operator(pg_catalog.=) 'rds.extensions' \
           and setting operator(pg_catalog.~~) '%aurora_stat_utils%' and setting operator(pg_catalog.!~~) '%rds_tools%'",
        "select server_id from pg_catalog.aurora_replica_status() where session_id operator(pg_catalog.=) 'MASTER_SESSION_ID' \
           and server_id operator(pg_catalog.=) pg_catalog.aurora_db_instance_identifier()",
    ] {
        assert_ne!(value(session, exists).await, "", "{exists}");
    }
    session.batch_execute("begin read only; select * from aurora_replica_status(); rollback").await.expect("a read");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_can_come_late_stop_or_be_absent_and_goes_back_after_a_revert() {
    let lab = lab(Timings { initiated: Duration::from_millis(300), ..Timings::zero() }).await;
    let cluster = lab.create_cluster(source("orders", 14)).await.expect("the cluster comes up");
    lab.faults().plan(Fault::StatusLate { millis: 1500 }, 1);
    let id = deployed(&lab, &cluster, 16).await;
    let green = Watcher::start(green_of(&lab, &id).await, &cluster, AURORA);
    let seen = green.until("SOURCE+TARGET AVAILABLE").await;
    assert_eq!(seen, ["nothing", "SOURCE+TARGET AVAILABLE"], "the rows come later than the API says AVAILABLE");
    lab.faults().clear();

    lab.faults().plan(Fault::SwitchoverFails { reason: "the test wants it".into() }, 1);
    lab.faults().plan(Fault::StatusStuck { status: Status::SwitchoverInitiated }, 1);
    switch(&lab, &id).await;
    status_is(&lab, &id, "SWITCHOVER_FAILED").await;
    let seen = green.until("SOURCE+TARGET AVAILABLE").await;
    assert_eq!(
        seen[2..],
        ["SOURCE+TARGET SWITCHOVER_INITIATED", "SOURCE+TARGET AVAILABLE"],
        "never further than told to"
    );
    lab.faults().clear();

    lab.faults().plan(Fault::StatusAbsent, 1);
    switch(&lab, &id).await;
    status_is(&lab, &id, "SWITCHOVER_COMPLETED").await;
    assert_eq!(green.until("nothing").await[4..], ["nothing"], "nothing is told although it was switched over");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rds_for_postgresql_tells_it_by_an_extension_and_the_old_side_stays_at_what_it_told_last() {
    let timings = Timings { rows_stay: Duration::from_millis(300), ..Timings::zero() };
    let lab = lab(timings).await;
    let settings = ClusterSettings { flavour: Flavour::Rds, ..source("orders", 14) };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    let blue = cluster.members[0].1;
    let session = connect(blue, &cluster, "orders").await.expect("blue answers");
    let none = session.query("select pg_catalog.aurora_db_instance_identifier()", &[]).await;
    assert!(none.is_err(), "Aurora's functions are not RDS's");
    session.batch_execute("create extension rds_tools").await.expect("the master user creates it");
    let known = "select setting from pg_catalog.pg_settings where name = 'rds.extensions' and setting like '%rds_tools%' \
        and setting not like '%aurora_stat_utils%'";
    assert_ne!(value(&session, known).await, "");
    let id = deployed(&lab, &cluster, 16).await;
    let green = green_of(&lab, &id).await;
    let on_green = connect(green, &cluster, "orders").await.expect("green answers");
    for (session, role) in [(&session, "SOURCE"), (&on_green, "TARGET")] {
        assert_ne!(value(session, "select 'rds_tools.show_topology'::pg_catalog.regproc::text").await, "");
        let own = "select role from rds_tools.show_topology() where id = rds_tools.dbi_resource_id()";
        assert!(value(session, own).await.ends_with(role), "a server finds itself in the topology");
    }
    let (of_blue, of_green) = (Watcher::start(blue, &cluster, RDS), Watcher::start(green, &cluster, RDS));
    of_blue.until("SOURCE+TARGET AVAILABLE rw").await;
    switch(&lab, &id).await;
    of_green.until("nothing").await;
    of_blue.until("SOURCE+TARGET SWITCHOVER_IN_POST_PROCESSING").await;
    lab.stop().await;
}
