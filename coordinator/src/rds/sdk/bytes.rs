//! What the client makes of answers that are not AWS's, or torn: an error or a value, in the end, never a panic. The answers that
//! are taken apart are the lab's, which fit AWS's own models. CloudWatch's client reads the same bytes.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use crate::cloudwatch::{CloudWatch, Metric};

/// Gives every request the same answer: what is in the mutex, as a status and a body.
fn listen(answer: Arc<Mutex<(u16, Vec<u8>)>>) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut read = [0; 16 * 1024];
            // A request is small, and comes in one piece on loopback; what is left of it is of no interest.
            if stream.read(&mut read).is_err() {
                continue;
            }
            let (status, body) = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let kind =
                if body.starts_with(b"<") { "text/xml" } else { "application/cbor\r\nsmithy-protocol: rpc-v2-cbor" };
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

#[test]
fn any_bytes_of_aws_are_an_error_or_a_value() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = Arc::new(Mutex::new((200, Vec::new())));
    let address = listen(answer.clone());
    let place = Place {
        region: Some("us-east-1".into()),
        endpoint_url: Some(format!("http://{address}")),
        keys: Some(("AKIDEXAMPLE".into(), "secret".into())),
    };
    let options = Options { read_attempts: 1, ..Options::default() };
    let config = runtime.block_on(shared_config(place));
    let sdk = Sdk::new(&config, &options);
    let clock = runtime::clock::Clock::system();
    let metrics = crate::cloudwatch::sdk::Sdk::new(&config, &options, clock);
    let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "rds-answers")
        .words(&["<member>", "</member>", "<Marker>m</Marker>", "AVAILABLE", "SWITCHOVER_COMPLETED", "2026-11-23T00:00:00Z"])
        .words(&["arn:aws:rds:us-east-1:123456789012:db:orders-1", "&#x0;", "<![CDATA[", "xsi:nil=\"true\""])
        // {"MetricDataResults": [{"Id": "newest", "Timestamps": [1.7e9], "Values": [9.5]}]} in CBOR.
        .seed(*b"\xa1\x71MetricDataResults\x81\xa3\x62Id\x66newest\x6aTimestamps\x81\xc1\xfb\x41\xda\x6c\xc5\x2c\0\0\0\x66Values\x81\xfb\x40\x23\0\0\0\0\0\0");
    target.run(|bytes| {
        *answer.lock().unwrap_or_else(PoisonError::into_inner) = (200, bytes.to_vec());
        runtime.block_on(read(&sdk, &metrics, bytes))
    });
}

/// The call whose answer this is most likely meant to be.
async fn read(sdk: &Sdk, metrics: &impl CloudWatch, bytes: &[u8]) -> String {
    fn told<T>(what: &str, answer: Result<T, Error>) -> String {
        match answer {
            Ok(_) => format!("{what} read"),
            Err(error) => format!("{what} {:?} {}", error.class, error.code),
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let is = |name: &str| text.contains(name);
    let (orders, one, deployment) = ("orders".into(), "orders-1".into(), "bgd-0123456789abcdef".into());
    let query = EventQuery { source_type: None, source: None, since: jiff::Timestamp::UNIX_EPOCH };
    match () {
        () if !is("<") => {
            told("metrics", metrics.newest(Metric::FreeLocalStorage, &one, jiff::Timestamp::UNIX_EPOCH).await)
        }
        () if is("DBInstances") => told("instance", sdk.instance(&one).await),
        () if is("BlueGreenDeployment") => told("deployment", sdk.deployment(&deployment).await),
        () if is("Events") => told("events", sdk.events(&query).await),
        () if is("Snapshot") => told("snapshot", sdk.snapshot(&"s".into()).await),
        () if is("LogFiles") => told("logs", sdk.log_files(&one, "p").await),
        () if is("EngineVersions") => told("versions", sdk.engine_versions("aurora-postgresql", None).await),
        () if is("Parameters") => told("parameters", sdk.parameters(GroupScope::Cluster, &"g".into(), None).await),
        () if is("ParameterGroups") => told("group", sdk.parameter_group(GroupScope::Cluster, &"g".into()).await),
        () if is("Maintenance") => told("maintenance", sdk.proxies().await),
        () if is("Global") => told("global", sdk.global_clusters().await),
        () => told("cluster", sdk.cluster(&orders).await),
    }
}
