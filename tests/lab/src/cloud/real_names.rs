//! Names over real servers: what they lead to before, during and after a switchover, for clients with and without stale
//! answers, custom endpoints among them.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::real_tests::{call, connect, deployed, deployment, lab, source, status_is, switch, until};
use crate::settings::{ClusterSettings, CustomEndpoint, Timings};
use crate::{ClusterHandle, Lab};

async fn described(lab: &Lab, identifier: &str) -> Value {
    call(lab, "DescribeDBClusters", &[("DBClusterIdentifier", identifier)]).await["DBClusters"][0].clone()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Identifier of green's cluster.
async fn green_of(lab: &Lab, id: &str) -> String {
    text(&deployment(lab, id).await, "Target").rsplit(':').next().unwrap_or_default().to_owned()
}

/// A cluster with a reader and three custom endpoints: the reader by name, all but the first, and readers only.
async fn with_endpoints(lab: &Lab) -> ClusterHandle {
    let endpoint = |identifier: &str| CustomEndpoint { identifier: identifier.into(), ..CustomEndpoint::default() };
    let custom_endpoints = vec![
        CustomEndpoint { static_members: vec!["orders-2".into()], ..endpoint("reports") },
        CustomEndpoint { excluded_members: vec!["orders-1".into()], ..endpoint("others") },
    ];
    let settings = ClusterSettings { readers: 1, custom_endpoints, ..source("orders", 14) };
    let cluster = lab.create_cluster(settings).await.expect("the cluster comes up");
    let form = [
        ("DBClusterIdentifier", "orders"),
        ("DBClusterEndpointIdentifier", "readers-only"),
        ("EndpointType", "READER"),
    ];
    let made = call(lab, "CreateDBClusterEndpoint", &form).await;
    assert_eq!((text(&made, "Status"), text(&made, "CustomEndpointType")), ("creating", "READER"));
    until("the endpoint's name", || async {
        let seen = cluster.names.lookup(text(&made, "Endpoint"));
        (seen.is_some(), seen)
    })
    .await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_straight_to_servers_and_move_at_the_switchover_custom_endpoints_too() {
    let delay = Duration::from_secs(30);
    let lab = lab(Timings::zero()).await;
    let cluster = with_endpoints(&lab).await;
    let names = &cluster.names;
    let zone = cluster.endpoint.strip_prefix("orders.cluster-").expect("an RDS-shaped name").to_owned();
    let (id, domain) = zone.split_once('.').expect("a zone");
    assert!(id.len() == 12 && domain == "us-east-1.rds.amazonaws.com", "{zone}");
    let found = described(&lab, "orders").await;
    assert_eq!(
        (text(&found, "Endpoint"), text(&found, "ReaderEndpoint")),
        (&*cluster.endpoint, &*cluster.reader_endpoint)
    );
    let [writer, reader] = [cluster.members[0].1, cluster.members[1].1];
    let custom = |name: &str| format!("{name}.cluster-custom-{zone}");
    let leads = |name: &str| names.lookup(name);
    assert_eq!(leads(&cluster.endpoint), Some(writer));
    assert_eq!(leads(&cluster.reader_endpoint), Some(reader));
    assert_eq!(leads(&lab.instance_endpoint("orders-2")), Some(reader));
    for name in ["reports", "others", "readers-only"] {
        assert_eq!(leads(&custom(name)), Some(reader), "{name}");
    }
    let stale = lab.resolver(delay).expect("a view");

    let id = deployed(&lab, &cluster, 16).await;
    let before = deployment(&lab, &id).await;
    assert!(before["Tasks"].to_string().contains("CREATE_CUSTOM_ENDPOINTS"), "{before}");
    let pairs: Vec<&Value> = before["SwitchoverDetails"].as_array().into_iter().flatten().collect();
    assert_eq!(pairs.iter().filter(|pair| text(pair, "TargetMember").contains(":cluster-endpoint:")).count(), 3);
    let green = green_of(&lab, &id).await;
    let green_endpoint = text(&described(&lab, &green).await, "Endpoint").to_owned();
    let members = lab.members(&green);
    let [green_writer, green_reader] = [members[0].1, members[1].1];
    assert_eq!(leads(&green_endpoint), Some(green_writer));
    let green_reports = pairs.iter().find(|pair| text(pair, "SourceMember").ends_with(":reports")).expect("a pair");
    let green_reports = text(green_reports, "TargetMember").rsplit(':').next().unwrap_or_default().to_owned();
    assert_eq!(leads(&custom(&green_reports)), Some(green_reader));

    switch(&lab, &id).await;
    status_is(&lab, &id, "SWITCHOVER_COMPLETED").await;
    assert_eq!(leads(&cluster.endpoint), Some(green_writer));
    assert_eq!(leads(&cluster.reader_endpoint), Some(green_reader));
    assert_eq!(leads(&lab.instance_endpoint("orders-1")), Some(green_writer));
    for name in ["reports", "others", "readers-only"] {
        assert_eq!(leads(&custom(name)), Some(green_reader), "{name}");
        assert_eq!(leads(&custom(&format!("{name}-old1"))), Some(reader), "{name}");
    }
    assert_eq!(leads(&format!("orders-old1.cluster-{zone}")), Some(writer));
    let gone: Vec<Option<IpAddr>> = [green_endpoint.clone(), custom(&green_reports)].iter().map(|n| leads(n)).collect();
    assert_eq!(gone, [None, None], "green's own names vanish");
    assert_eq!(
        stale.lookup(&cluster.endpoint),
        Some(writer),
        "a client with a stale answer still goes to the old side"
    );
    let session = connect(writer, &cluster, "orders").await.expect("the old side answers at its address");
    assert!(session.batch_execute("create table t ()").await.is_err(), "and takes no writes");
    let ends = deployment(&lab, &id).await["SwitchoverDetails"].to_string();
    assert!(
        ends.contains(":cluster-endpoint:reports-old1\"") && ends.contains(":cluster-endpoint:reports\""),
        "{ends}"
    );
    assert!(!ends.contains("-green-") && !ends.contains("\"AVAILABLE\""), "{ends}");

    let form = [("DBClusterEndpointIdentifier", "reports"), ("StaticMembers.member.1", "orders-1")];
    call(&lab, "ModifyDBClusterEndpoint", &form).await;
    assert_eq!(leads(&custom("reports")), Some(green_writer));
    call(&lab, "DeleteDBClusterEndpoint", &[("DBClusterEndpointIdentifier", "others")]).await;
    until("the deleted endpoint's end", || async {
        let listed = described(&lab, "orders").await["CustomEndpoints"].to_string();
        (leads(&custom("others")).is_none() && !listed.contains("others"), listed)
    })
    .await;
    let listed = described(&lab, "orders").await["CustomEndpoints"].to_string();
    assert!(listed.contains("reports"), "{listed}");
    lab.stop().await;
}
