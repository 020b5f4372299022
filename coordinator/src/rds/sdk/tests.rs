//! The real client against a scripted listener: what it sends, how often, and what becomes of answers that are refused, cut off
//! or never come. The lab holds it to the whole contract; here are the cases that need a wire to be cut.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What the listener does with one request.
enum Reply {
    Xml(u16, String),
    /// Takes the request and closes.
    Cut,
    /// Takes the request and says nothing.
    Silence,
}

struct Listener {
    address: std::net::SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Answers the first request by the first reply and so on; whatever comes after them is cut.
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let seen = bodies.clone();
        let task = tokio::spawn(async move {
            let mut replies = replies.into_iter();
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(body) = request(&mut stream).await else { continue };
                seen.lock().expect("no panic inside").push(body);
                match replies.next() {
                    Some(Reply::Xml(status, xml)) => {
                        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: text/xml\r\nconnection: close\r\n");
                        let all = format!("{head}content-length: {}\r\n\r\n{xml}", xml.len());
                        let _ = stream.write_all(all.as_bytes()).await;
                        let _ = stream.shutdown().await;
                    }
                    Some(Reply::Silence) => silent.push(stream),
                    Some(Reply::Cut) | None => drop(stream),
                }
            }
        });
        Self { address, bodies, task }
    }

    async fn sdk(&self) -> Sdk {
        sdk_at(self.address).await
    }

    fn requests(&self) -> Vec<String> {
        self.bodies.lock().expect("no panic inside").clone()
    }
}

async fn sdk_at(address: std::net::SocketAddr) -> Sdk {
    let config = shared_config(Place {
        region: Some("us-east-1".into()),
        endpoint_url: Some(format!("http://{address}")),
        keys: Some(("AKIDEXAMPLE".into(), "secret".into())),
    });
    let options = Options {
        change_timeout: Duration::from_millis(400),
        read_attempt_timeout: Duration::from_millis(400),
        ..Options::default()
    };
    Sdk::new(&config.await, &options)
}

/// One request's body, by its content length.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let mut some = [0; 4096];
        let n = stream.read(&mut some).await.ok().filter(|n| *n > 0)?;
        read.extend_from_slice(&some[..n]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(body.to_owned());
        }
    }
}

fn answer(operation: &str, result: &str) -> Reply {
    let xml = format!(
        "<{operation}Response xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><{operation}Result>{result}\
         </{operation}Result><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{operation}Response>"
    );
    Reply::Xml(200, xml)
}

fn refusal(status: u16, code: &str, message: &str) -> Reply {
    let xml = format!(
        "<ErrorResponse xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    );
    Reply::Xml(status, xml)
}

const DEPLOYMENT: &str = "<BlueGreenDeploymentIdentifier>bgd-0123456789abcdef</BlueGreenDeploymentIdentifier>\
    <BlueGreenDeploymentName>up</BlueGreenDeploymentName>\
    <Source>arn:aws:rds:us-east-1:123456789012:cluster:orders</Source>\
    <SwitchoverDetails><member><SourceMember>arn:aws:rds:us-east-1:123456789012:cluster:orders</SourceMember>\
    <Status>PROVISIONING</Status></member></SwitchoverDetails>\
    <Tasks><member><Name>CREATING_READ_REPLICA_OF_SOURCE</Name><Status>PENDING</Status></member></Tasks>\
    <Status>SOMETHING_NEW</Status><CreateTime>2026-11-22T20:00:00.123Z</CreateTime>";

fn id() -> DeploymentId {
    "bgd-0123456789abcdef".into()
}

const TIMEOUT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_change_whose_connection_is_cut_is_unknown_and_sent_once() {
    let listener = Listener::start(vec![Reply::Cut]).await;
    let e = listener.sdk().await.switchover(&id(), TIMEOUT).await.expect_err("cut");
    assert_eq!((&e.class, e.code.as_str()), (&Class::Unknown, "DispatchFailure"), "{e}");
    let requests = listener.requests();
    assert_eq!(requests.len(), 1, "sent more than once: {requests:?}");
    assert!(
        requests[0].contains("Action=SwitchoverBlueGreenDeployment") && requests[0].contains("SwitchoverTimeout=300")
    );
}

#[tokio::test]
async fn a_change_without_an_answer_is_unknown_after_its_time_out() {
    let listener = Listener::start(vec![Reply::Silence]).await;
    let e = listener.sdk().await.delete_deployment(&id(), false).await.expect_err("silence");
    assert_eq!((&e.class, e.code.as_str()), (&Class::Unknown, "TimeoutError"), "{e}");
    let requests = listener.requests();
    assert_eq!(requests.len(), 1, "sent more than once: {requests:?}");
    assert!(!requests[0].contains("DeleteTarget"), "not asked for: {requests:?}");
}

#[tokio::test]
async fn a_change_is_not_sent_again_on_500_or_throttling() {
    for (reply, class) in [
        (refusal(500, "InternalFailure", "oops"), Class::Unknown),
        (refusal(400, "Throttling", "Rate exceeded"), Class::Throttled),
        (Reply::Xml(200, "<html>not what was asked".into()), Class::Unknown),
    ] {
        let listener = Listener::start(vec![reply]).await;
        let e = listener.sdk().await.reboot_instance(&"orders-1".into()).await.expect_err("refused");
        assert_eq!(e.class, class, "{e}");
        assert_eq!(listener.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_change_where_nobody_listens_has_surely_not_acted() {
    let closed = TcpListener::bind("127.0.0.1:0").await.and_then(|l| l.local_addr()).expect("a port");
    let e = sdk_at(closed).await.reboot_instance(&"orders-1".into()).await.expect_err("refused");
    assert_eq!(e.class, Class::Transient, "{e}");
}

#[tokio::test]
async fn a_read_is_tried_again_within_its_budget() {
    let found = format!("<BlueGreenDeployments><member>{DEPLOYMENT}</member></BlueGreenDeployments>");
    let replies = vec![refusal(500, "InternalFailure", "oops"), answer("DescribeBlueGreenDeployments", &found)];
    let listener = Listener::start(replies).await;
    let deployment = listener.sdk().await.deployment(&id()).await.expect("the second attempt");
    assert_eq!(deployment.status, DeploymentStatus::Other("SOMETHING_NEW".into()));
    assert_eq!((deployment.target.clone(), deployment.tasks_done()), (None, (0, 1)));
    assert_eq!(deployment.created.map(|t| t.as_millisecond() % 1000), Some(123));
    assert_eq!(listener.requests().len(), 2);
}

#[tokio::test]
async fn refusals_keep_the_words_of_aws() {
    let said = "DB instance orders-1-green-abc123 is not in available state";
    let listener = Listener::start(vec![refusal(400, "InvalidBlueGreenDeploymentStateFault", said)]).await;
    let e = listener.sdk().await.switchover(&id(), TIMEOUT).await.expect_err("refused");
    assert_eq!(
        (&e.class, e.code.as_str(), e.message.as_str()),
        (&Class::InvalidState, "InvalidBlueGreenDeploymentStateFault", said)
    );
    assert_eq!(e.to_string(), format!("SwitchoverBlueGreenDeployment {}: {}: {said}", id(), e.code));
}

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let page = |name: &str, marker: &str| {
        let parameter = format!(
            "<Parameter><ParameterName>{name}</ParameterName><ParameterValue>1</ParameterValue><Source>user</Source>\
             <ApplyType>static</ApplyType><IsModifiable>true</IsModifiable><ApplyMethod>pending-reboot</ApplyMethod></Parameter>"
        );
        let marker = if marker.is_empty() { String::new() } else { format!("<Marker>{marker}</Marker>") };
        answer("DescribeDBClusterParameters", &format!("<Parameters>{parameter}</Parameters>{marker}"))
    };
    let listener = Listener::start(vec![page("one", "m1"), page("two", "m2"), page("three", "")]).await;
    let sdk = listener.sdk().await;
    let all = sdk.parameters(GroupScope::Cluster, &"g".into(), Some(ParameterSource::User)).await.expect("all pages");
    let names: Vec<_> = all.iter().map(|p| (p.name.as_str(), p.is_static, p.source.clone())).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names[2], ("three", true, ParameterSource::User));
    let requests = listener.requests();
    assert!(requests[0].contains("Source=user") && requests[2].contains("Marker=m2"), "{requests:?}");
}

#[tokio::test]
async fn a_list_of_more_than_twenty_thousand_items_is_refused_and_never_cut() {
    let page = |items: usize, marker: &str| {
        let parameters = "<Parameter><ParameterName>p</ParameterName></Parameter>".repeat(items);
        answer("DescribeDBClusterParameters", &format!("<Parameters>{parameters}</Parameters>{marker}"))
    };
    let more = "<Marker>m</Marker>";
    let listener = Listener::start(vec![page(19_999, more), page(1, "")]).await;
    let sdk = listener.sdk().await;
    let all = sdk.parameters(GroupScope::Cluster, &"g".into(), None).await.expect("as many as may be");
    assert_eq!(all.len(), 20_000);
    let listener = Listener::start(vec![page(19_999, more), page(2, more)]).await;
    let sdk = listener.sdk().await;
    let refused = sdk.parameters(GroupScope::Cluster, &"g".into(), None).await.expect_err("one more");
    assert_eq!((&refused.class, refused.code.as_str()), (&Class::Permanent, "ListTooLong"), "{refused}");
    assert_eq!(listener.requests().len(), 2, "and no further page is asked for");
}

#[tokio::test]
async fn parameters_are_set_twenty_to_a_call() {
    let done =
        || answer("ModifyDBClusterParameterGroup", "<DBClusterParameterGroupName>g</DBClusterParameterGroupName>");
    let listener = Listener::start(vec![done(), done(), done()]).await;
    let change =
        |n: usize| ParameterChange { name: format!("p{n}"), value: "1".into(), apply: ApplyMethod::PendingReboot };
    let changes: Vec<_> = (0..45).map(change).collect();
    let sdk = listener.sdk().await;
    sdk.modify_parameter_group(GroupScope::Cluster, &"g".into(), &changes).await.expect("set");
    let sent: Vec<usize> = listener.requests().iter().map(|r| r.matches("ParameterName=p").count()).collect();
    assert_eq!(sent, [20, 20, 5]);
}

#[tokio::test]
async fn a_switchover_time_out_beyond_the_limits_is_never_sent() {
    let listener = Listener::start(Vec::new()).await;
    let sdk = listener.sdk().await;
    for seconds in [0, 29, 3601] {
        let e = sdk.switchover(&id(), Duration::from_secs(seconds)).await.expect_err("refused here");
        assert_eq!(e.class, Class::Permanent);
    }
    assert_eq!(listener.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_without_an_identity_is_refused() {
    let lacking = "<BlueGreenDeployment><BlueGreenDeploymentName>up</BlueGreenDeploymentName></BlueGreenDeployment>";
    let listener = Listener::start(vec![answer("SwitchoverBlueGreenDeployment", lacking)]).await;
    let e = listener.sdk().await.switchover(&id(), TIMEOUT).await.expect_err("no identity");
    assert_eq!((&e.class, e.code.as_str()), (&Class::Unknown, "IncompleteAnswer"), "{e}");
}
