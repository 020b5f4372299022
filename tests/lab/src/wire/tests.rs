//! What a lab answers to input of every kind, over plain sockets: as AWS, never nothing, never a panic.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::iam::{ADMINISTRATOR, Caller, Policy, sign};
use crate::settings::{Settings, Timings};
use crate::{Lab, Outcome};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/x-amz-json-1.0";
const CBOR: &str = "application/cbor";
const CBOR_PATH: &str = "/service/GraniteServiceVersion20100801/operation/ListMetrics";
const TARGET: (&str, &str) = ("X-Amz-Target", "GraniteServiceVersion20100801.ListMetrics");
const CLUSTERS: &[u8] = b"Action=DescribeDBClusters&Version=2014-10-31";

/// A request before it is sent.
#[derive(Clone)]
struct Ask<'a> {
    path: &'a str,
    service: &'a str,
    kind: &'a str,
    keys: Option<(&'a str, &'a str)>,
    more: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
    at: Timestamp,
}

fn now() -> Timestamp {
    runtime::clock::Clock::system().now()
}

fn form(body: &[u8]) -> Ask<'_> {
    let keys = Some(ADMINISTRATOR);
    Ask { path: "/", service: "rds", kind: FORM, keys, more: Vec::new(), body, at: now() }
}

fn monitoring<'a>(path: &'a str, kind: &'a str, body: &'a [u8]) -> Ask<'a> {
    let more = if path == "/" { vec![TARGET] } else { Vec::new() };
    Ask { path, service: "monitoring", kind, more, ..form(body) }
}

/// The status and the whole answer.
async fn ask(lab: &Lab, ask: &Ask<'_>) -> (u16, String) {
    let host = lab.endpoint_url().trim_start_matches("http://").to_owned();
    let mut head = format!("POST {} HTTP/1.1\r\nConnection: close\r\nContent-Type: {}\r\n", ask.path, ask.kind);
    let signed = ask.keys.map(|keys| sign(keys, ask.service, &host, ask.path, ask.body, ask.at));
    let headers = signed.unwrap_or_else(|| vec![("Host".to_owned(), host.clone())]);
    let more = ask.more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    for (name, value) in headers.into_iter().chain(more) {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", ask.body.len());
    raw(&host, &[head.as_bytes(), ask.body].concat()).await
}

async fn raw(host: &str, bytes: &[u8]) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(host).await.expect("the lab listens");
        // A body that is too large is refused before all of it is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), exchange).await.expect("an answer within a minute");
    (answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
}

async fn lab() -> Lab {
    let settings = Settings { timings: Timings::zero(), ..Settings::default() };
    Lab::start(settings).await.expect("the lab starts")
}

/// Refused with this status and code, and still alive.
async fn refused(lab: &Lab, what: &str, asked: &Ask<'_>, status: u16, code: &str) -> String {
    let (got, answer) = ask(lab, asked).await;
    assert_eq!(got, status, "{what}: {answer}");
    assert!(answer.contains(code), "{what}: {code} is not in {answer}");
    answer
}

#[tokio::test]
async fn every_flaw_of_a_signature_is_answered_as_aws_in_every_protocol() {
    let lab = lab().await;
    let minutes = SignedDuration::from_mins;
    let mut asks = vec![(form(CLUSTERS), "<Code>")];
    asks.push((monitoring("/", JSON, b"{}"), "\"__type\":\""));
    asks.push((monitoring(CBOR_PATH, CBOR, b""), "x-amzn-query-error: "));
    for (good, before) in asks {
        let (status, answer) = ask(&lab, &good).await;
        assert_eq!(status, 200, "{answer}");
        let with = |keys| Ask { keys, ..good.clone() };
        let flawed = [
            (with(None), 403, "MissingAuthenticationToken"),
            (with(Some(("nobody", "x"))), 403, "InvalidClientTokenId"),
            (with(Some(("lab", "wrong"))), 403, "SignatureDoesNotMatch"),
            (Ask { at: good.at - minutes(16), ..good.clone() }, 403, "SignatureDoesNotMatch"),
            (Ask { at: good.at + minutes(6), ..good.clone() }, 403, "SignatureDoesNotMatch"),
            (Ask { service: "ec2", ..good.clone() }, 403, "SignatureDoesNotMatch"),
        ];
        for (asked, status, code) in flawed {
            refused(&lab, code, &asked, status, &format!("{before}{code}")).await;
        }
        let mut half = with(None);
        half.more.push(("Authorization", "AWS4-HMAC-SHA256 Credential=lab"));
        refused(&lab, "half a header", &half, 400, &format!("{before}IncompleteSignature")).await;
        let mut undated = with(None);
        let claim =
            "AWS4-HMAC-SHA256 Credential=lab/20261123/us-east-1/rds/aws4_request, SignedHeaders=host, Signature=00";
        undated.more.extend([("Authorization", claim), ("X-Amz-Date", "yesterday")]);
        let said = refused(&lab, "a date that is none", &undated, 400, &format!("{before}IncompleteSignature")).await;
        assert!(
            said.contains("Date must be in ISO-8601 &apos;basic format&apos;") || said.contains("'basic format'"),
            "{said}"
        );
    }
    assert!(lab.requests().iter().filter(|r| r.outcome != Outcome::Done).all(|r| r.caller.is_empty()));
    lab.stop().await;
}

#[tokio::test]
async fn a_session_token_has_to_come_along_and_ends() {
    let lab = lab().await;
    let mut caller = Caller::new("guest", Policy::administrator());
    caller.session_token = Some("the-token".into());
    caller.expires = Some(now() + SignedDuration::from_mins(10));
    lab.add_caller(caller.clone());
    let (key, secret) = (caller.access_key.clone(), caller.secret_key.clone());
    let without = Ask { keys: Some((&key, &secret)), ..form(CLUSTERS) };
    refused(&lab, "without its token", &without, 403, "InvalidClientTokenId").await;
    let with = Ask { more: vec![("X-Amz-Security-Token", "the-token")], ..without.clone() };
    assert_eq!(ask(&lab, &with).await.0, 200);
    let other = Ask { more: vec![("X-Amz-Security-Token", "another")], ..without };
    refused(&lab, "with another token", &other, 403, "InvalidClientTokenId").await;
    caller.expires = Some(now() - SignedDuration::from_mins(1));
    lab.add_caller(caller);
    refused(&lab, "past its end", &with, 403, "ExpiredToken").await;
    lab.stop().await;
}

#[tokio::test]
async fn what_no_policy_allows_is_denied_with_the_action_that_is_missing() {
    let lab = lab().await;
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "rds:Describe*", "Resource": "*" },
        { "Effect": "Deny", "Action": "rds:DescribeEvents", "Resource": "*" },
    ] });
    let caller = serde_json::json!({ "name": "reader", "access_key": "R", "secret_key": "S", "policies": [policy] });
    let host = lab.endpoint_url().trim_start_matches("http://").to_owned();
    let post = |body: String| {
        let head =
            "POST /_lab/callers HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Type: application/json\r\n";
        let (host, bytes) = (host.clone(), format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes());
        async move { raw(&host, &bytes).await }
    };
    assert_eq!(post(caller.to_string()).await.0, 204);
    let bad = caller.to_string().replace("\"Deny\"", "\"Perhaps\"");
    let (status, said) = post(bad).await;
    assert!(status == 422 && said.contains("Effect must be Allow or Deny"), "{said}");

    let as_reader = |body| Ask { keys: Some(("R", "S")), ..form(body) };
    assert_eq!(ask(&lab, &as_reader(CLUSTERS)).await.0, 200);
    let reboot = as_reader(b"Action=RebootDBInstance&Version=2014-10-31&DBInstanceIdentifier=orders-1");
    let said = refused(&lab, "a reboot", &reboot, 403, "<Code>AccessDenied</Code>").await;
    let expected = "User: arn:aws:iam::123456789012:user/reader is not authorized to perform: rds:RebootDBInstance on \
                    resource: arn:aws:rds:us-east-1:123456789012:db:orders-1 because no identity-based policy allows the \
                    rds:RebootDBInstance action";
    assert!(said.contains(expected), "{said}");
    let events = as_reader(b"Action=DescribeEvents&Version=2014-10-31");
    refused(&lab, "events", &events, 403, "with an explicit deny in an identity-based policy").await;
    let metrics = Ask { keys: Some(("R", "S")), ..monitoring("/", JSON, b"{}") };
    refused(&lab, "metrics", &metrics, 403, "not authorized to perform: cloudwatch:ListMetrics because no").await;
    lab.stop().await;
}

#[tokio::test]
async fn bad_input_is_answered_as_aws_and_the_lab_lives_on() {
    let lab = lab().await;
    let deep = format!("Action=GetMetricData&Version=2010-08-01&{}=1", ["a"; 100_000].join("."));
    let large = vec![b'x'; (1 << 20) + 1];
    let nested = [&[0x81; 4000][..], b"\x01"].concat();
    let reset = b"Action=ResetDBParameterGroup&Version=2014-10-31&DBParameterGroupName=..%2F..%2Fx";
    let path =
        b"Action=CreateDBClusterSnapshot&Version=2014-10-31&DBClusterIdentifier=o&DBClusterSnapshotIdentifier=..%2Fx";
    let cases: [(&str, Ask<'_>, u16, &str); 24] = [
        ("nothing", form(b""), 400, "<Code>MissingAction</Code>"),
        ("no action", form(b"Version=2014-10-31"), 400, "<Code>MissingAction</Code>"),
        ("an unknown action", form(b"Action=Fly&Version=2014-10-31"), 400, "<Code>InvalidAction</Code>"),
        (
            "an unknown version",
            form(b"Action=DescribeDBClusters&Version=1999-01-01"),
            400,
            "<Code>InvalidAction</Code>",
        ),
        ("no version", form(b"Action=DescribeDBClusters"), 400, "NO_VERSION_SPECIFIED"),
        ("another's action", form(b"Action=ListMetrics&Version=2014-10-31"), 400, "<Code>InvalidAction</Code>"),
        ("a form as text", Ask { kind: "text/plain", ..form(CLUSTERS) }, 400, "<Code>MissingAction</Code>"),
        ("another path", Ask { path: "/elsewhere", ..form(CLUSTERS) }, 404, "UnknownOperationException"),
        ("half an escape", form(b"Action=DescribeDBClusters&Version=2014-10-31&A=%4"), 404, "MalformedQueryString"),
        ("no UTF-8", form(b"Action=DescribeDBClusters&Version=2014-10-31&A=\xff\xfe"), 404, "MalformedQueryString"),
        ("a deep name", form(deep.as_bytes()), 404, "MalformedQueryString"),
        ("a large body", form(&large), 413, "RequestEntityTooLarge"),
        ("a folder as a snapshot", form(path), 400, "InvalidParameterValue"),
        ("a folder as a group", form(reset), 404, "DBParameterGroupNotFound"),
        ("no JSON", monitoring("/", JSON, b"{\"a\":"), 400, "SerializationException"),
        ("a list", monitoring("/", JSON, b"[]"), 400, "SerializationException"),
        ("JSON of bytes", monitoring("/", JSON, b"{\"a\":\"\xff\"}"), 400, "SerializationException"),
        ("JSON as text", monitoring("/", "text/plain", b"{}"), 415, "UnsupportedMediaType"),
        ("no CBOR", monitoring(CBOR_PATH, CBOR, b"{}"), 400, "SerializationException"),
        ("half CBOR", monitoring(CBOR_PATH, CBOR, b"\xa1\x61a"), 400, "SerializationException"),
        ("deep CBOR", monitoring(CBOR_PATH, CBOR, &nested), 400, "SerializationException"),
        ("more than CBOR", monitoring(CBOR_PATH, CBOR, b"\xa0\xa0"), 400, "SerializationException"),
        ("CBOR as JSON", monitoring(CBOR_PATH, JSON, b"{}"), 415, "UnsupportedMediaType"),
        (
            "a huge length",
            monitoring(CBOR_PATH, CBOR, b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
            400,
            "SerializationException",
        ),
    ];
    for (what, asked, status, code) in &cases {
        refused(&lab, what, asked, *status, code).await;
        assert_eq!(ask(&lab, &form(CLUSTERS)).await.0, 200, "the lab lives on after {what}");
    }
    let unknown = monitoring("/service/GraniteServiceVersion20100801/operation/Fly", CBOR, b"");
    refused(&lab, "an unknown operation", &unknown, 400, "InvalidAction").await;
    lab.stop().await;
}

#[tokio::test]
async fn half_a_request_holds_up_nobody() {
    let lab = lab().await;
    let host = lab.endpoint_url().trim_start_matches("http://").to_owned();
    let mut halves = Vec::new();
    for half in
        ["POST / HT", "POST / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nAct"]
    {
        let mut stream = TcpStream::connect(&host).await.expect("the lab listens");
        stream.write_all(half.as_bytes()).await.expect("sent");
        halves.push(stream);
    }
    assert_eq!(ask(&lab, &form(CLUSTERS)).await.0, 200);
    let (status, answer) = raw(&host, b"\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert_eq!(status, 400, "{answer}");
    // A body that never comes ends with an answer; a head that never comes, with the connection.
    for (mut waiting, body) in halves.into_iter().zip([false, false, true]) {
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(60), waiting.read_to_string(&mut answer)).await;
        let fits = if body { answer.contains(" 408 ") } else { answer.is_empty() };
        assert!(matches!(read, Ok(Ok(_))) && fits, "{read:?}: {answer:?}");
    }
    lab.stop().await;
}

#[test]
fn no_bytes_are_left_without_an_answer() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let lab = threads.block_on(lab());
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let operations: Vec<&str> = crate::cloud::dispatch::SERVED.to_vec();
    let part = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "[A-Za-z0-9.=&%+:-]{0,60}".prop_map(String::into_bytes),
        "(DBClusterIdentifier|MaxRecords|Marker|Filters.Filter.1.Name|Tags.Tag.1.Key|Parameters.Parameter.1.ParameterName)=[ -~]{0,20}"
            .prop_map(String::into_bytes),
    ];
    let all = (0..4_u8, 0..operations.len(), proptest::collection::vec(part, 0..4));
    let outcome = runner.run(&all, |(protocol, operation, parts)| {
        let mut body = if protocol == 0 {
            format!("Action={}&Version=2014-10-31&", operations[operation]).into_bytes()
        } else {
            Vec::new()
        };
        body.extend(parts.join(&b"&"[..]));
        let asked = match protocol {
            0 | 1 => form(&body),
            2 => monitoring("/", JSON, &body),
            _ => monitoring(CBOR_PATH, CBOR, &body),
        };
        let (status, answer) = threads.block_on(ask(&lab, &asked));
        prop_assert!((200..500).contains(&status), "{status}: {answer}");
        Ok(())
    });
    let alive = threads.block_on(ask(&lab, &form(CLUSTERS)));
    threads.block_on(lab.stop());
    outcome.expect("an answer to everything");
    assert_eq!(alive.0, 200);
}
