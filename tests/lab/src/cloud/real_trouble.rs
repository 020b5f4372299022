//! Faults over real servers: what was planned happens to the machines, the API says why, and afterwards all is as before.

use std::time::Duration;

use super::real_tests::{
    call, client, connect, count, deployed, deployment, events, lab, source, status_is, switch, until,
};
use crate::faults::{Fault, Guardrail, Moment};
use crate::settings::{ClusterSettings, Timings};

fn quick() -> Timings {
    Timings { watch: Duration::from_millis(100), ..Timings::zero() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_guardrail_refuses_for_its_own_reason_and_the_next_switchover_goes_through() {
    let lab = lab(quick()).await;
    let cluster = lab.create_cluster(source("orders", 14)).await.expect("the cluster comes up");
    client(&cluster, "orders").await.batch_execute("create table t (id int primary key)").await.expect("a table");
    let id = deployed(&lab, &cluster, 16).await;
    for (guardrail, words) in [
        (Guardrail::ExternalSlot, "has the external replication slot lab_external"),
        (Guardrail::ExternalSubscription, "has the subscription lab_external in database postgres"),
        (Guardrail::GreenWrites, "active writes on the green environment"),
        (Guardrail::LongWrite, "a long-running write on the blue environment"),
        (Guardrail::Lag, "is above the limit of 1024"),
        (Guardrail::NotReplicating, "replication is not running for database"),
    ] {
        lab.faults().plan(Fault::Guardrail { guardrail }, 1);
        refused(&lab, &id, words).await;
    }
    lab.faults().plan(Fault::SwitchoverReverts { reason: "the storage was busy".into() }, 1);
    refused(&lab, &id, "the storage was busy").await;
    lab.faults().plan(Fault::SequencesDoNotSync, 1);
    refused(&lab, &id, "sequences could not be synchronized").await;
    assert!(events(&lab, "db-cluster").await.contains("cancelled because sequences could not be synchronized"));
    client(&cluster, "orders").await.batch_execute("insert into t values (1)").await.expect("blue writes");
    switch(&lab, &id).await;
    status_is(&lab, &id, "SWITCHOVER_COMPLETED").await;
    assert_eq!(count(&client(&cluster, "orders").await, "select count(*) from t").await, 1);
    lab.stop().await;
}

/// Asks for a switchover that comes to nothing for this reason.
async fn refused(lab: &crate::Lab, id: &str, words: &str) {
    switch(lab, id).await;
    until(words, || async {
        let found = deployment(lab, id).await;
        assert!(found["Status"] != "SWITCHOVER_FAILED" && found["Status"] != "SWITCHOVER_COMPLETED", "{found}");
        let said = found["StatusDetails"].as_str().is_some_and(|text| text.contains(words));
        (found["Status"] == "AVAILABLE" && said, found)
    })
    .await;
    assert!(lab.faults().outstanding().is_empty(), "{:?}", lab.faults().outstanding());
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_really_lost_and_a_deployment_that_flaps_fails_over_and_is_slow_does_so_when_it_is_due() {
    let lab = lab(quick()).await;
    let settings = ClusterSettings { readers: 1, ..source("orders", 14) };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    client(&cluster, "orders").await.batch_execute("create table t (id int primary key)").await.expect("a table");
    lab.faults().plan_at(Fault::Failover { cluster: "green".into() }, 1, Some(Moment::Replicating));
    let id = deployed(&lab, &cluster, 16).await;
    let green = deployment(&lab, &id).await["Target"]
        .as_str()
        .and_then(|arn| arn.rsplit(':').next())
        .unwrap_or_default()
        .to_owned();
    let writer = until("a failover of green", || async {
        let found = call(&lab, "DescribeDBClusters", &[("DBClusterIdentifier", &green)]).await;
        let members = lab.members(&green);
        let moved = members.first().is_some_and(|(name, ..)| name.starts_with("orders-2-green-"));
        (moved && found["DBClusters"][0]["Status"] == "available", members)
    })
    .await[0]
        .1;

    lab.faults().plan(Fault::Flaps, 4);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(deployment(&lab, &id).await["Status"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(seen, ["PROVISIONING", "AVAILABLE", "PROVISIONING", "AVAILABLE", "AVAILABLE"]);
    let instance = lab.members(&green)[0].0.clone();
    let optimizing =
        Fault::MemberStatus { instance: "green".into(), status: "storage-optimization".into(), millis: 300 };
    lab.faults().plan(optimizing, 1);
    let found = call(&lab, "DescribeDBInstances", &[("DBInstanceIdentifier", &instance)]).await;
    assert_eq!(found["DBInstances"][0]["DBInstanceStatus"], "storage-optimization", "{found}");

    let (blue, green) =
        (client(&cluster, "orders").await, connect(writer, &cluster, "orders").await.expect("green answers"));
    lab.faults().plan(Fault::ApplySlow { percent: 10 }, 1);
    until("apply that takes a while", || async {
        let at = lab.clock().elapsed();
        blue.batch_execute("insert into t select coalesce(max(id), 0) + 1 from t").await.expect("blue writes");
        let wanted = count(&blue, "select count(*) from t").await;
        until("a row on green", || async {
            let there = count(&green, "select count(*) from t").await;
            (there == wanted, there)
        })
        .await;
        let took = lab.clock().elapsed() - at;
        (took > Duration::from_millis(150), took)
    })
    .await;
    lab.faults().clear();

    lab.faults().plan(Fault::SlotLost, 1);
    until("a lost slot", || async {
        let lost = count(&blue, "select count(*) from pg_replication_slots where wal_status = 'lost'").await;
        (lost > 0, lost)
    })
    .await;
    until("the limit being lifted", || async {
        let keeps = count(&blue, "select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'").await;
        (keeps == -1, keeps)
    })
    .await;
    let form = [("BlueGreenDeploymentIdentifier", id.as_str()), ("DeleteTarget", "true")];
    call(&lab, "DeleteBlueGreenDeployment", &form).await;
    until("no slot left", || async {
        let left = count(&blue, "select count(*) from pg_replication_slots").await;
        (left == 0, left)
    })
    .await;
    lab.stop().await;
}
