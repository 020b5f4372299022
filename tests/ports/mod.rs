//! The contracts that the fakes of the coordinator's ports keep, asked of the real AWS SDK against the lab: so that neither
//! a fake nor the lab can drift from the other.

mod store;

use std::sync::Arc;
use std::time::Duration;

use coordinator::rds::sdk::{Options, Place, Sdk, shared_config};
use coordinator::{cloudwatch, rds};
use lab::{ClusterHandle, ClusterSettings, Lab, Settings, Timings};
use runtime::clock::Clock;

async fn lab_with(settings: ClusterSettings) -> (Lab, ClusterHandle) {
    runtime::crypto::install();
    let lab = Lab::start(Settings { timings: Timings::short(), ..Settings::default() }).await.expect("the lab starts");
    let cluster = lab.create_cluster(settings).await.expect("the cluster is made");
    (lab, cluster)
}

fn place(lab: &Lab) -> Place {
    Place {
        region: Some("us-east-1".into()),
        endpoint_url: Some(lab.endpoint_url()),
        keys: Some(("lab".into(), "lab".into())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_against_the_lab_keeps_the_contract_of_rds() {
    let settings =
        ClusterSettings { readers: 1, databases: vec!["orders".into()], ..ClusterSettings::new("orders", 14) };
    let (lab, _) = lab_with(settings).await;
    let sdk = Sdk::new(&shared_config(place(&lab)).await, &Options::default());
    let fixture = rds::contract::Fixture {
        rds: Arc::new(sdk),
        clock: Clock::system(),
        cluster: "orders".into(),
        target_version: "16.15".into(),
        every: Duration::from_millis(50),
        deadline: Duration::from_secs(120),
    };
    rds::contract::whole(&fixture).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_against_the_lab_keeps_the_contract_of_cloudwatch() {
    let logical = ("rds.logical_replication".to_owned(), "1".to_owned());
    let settings = ClusterSettings { cluster_parameters: vec![logical], ..ClusterSettings::new("orders", 16) };
    let (lab, cluster) = lab_with(settings).await;
    let mut config = tokio_postgres::Config::new();
    let address = cluster.address().expect("the endpoint's name leads somewhere");
    config.host(&cluster.endpoint).hostaddr(address).port(cluster.port).dbname("postgres");
    config.user(&cluster.master.0).password(&cluster.master.1);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("the endpoint takes clients");
    let connection = tokio::spawn(connection);
    client
        .simple_query("select pg_create_logical_replication_slot('lagging', 'pgoutput')")
        .await
        .expect("a slot whose lag is published");
    let clock = Clock::system();
    let sdk = cloudwatch::sdk::Sdk::new(&shared_config(place(&lab)).await, &Options::default(), clock.clone());
    let writer = lab.members("orders").into_iter().find(|(_, _, writer)| *writer).expect("a writer").0;
    let fixture = cloudwatch::contract::Fixture {
        cloudwatch: Arc::new(sdk),
        clock,
        writer: writer.as_str().into(),
        deadline: Duration::from_secs(60),
    };
    cloudwatch::contract::whole(&fixture).await;
    drop(client);
    connection.abort();
    lab.stop().await;
}
