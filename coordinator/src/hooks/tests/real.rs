//! Real commands and a real server: what is sent, and what becomes of answers that are late, bad, long or none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use runtime::clock::Clock;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::receiver::{Receiver, Says};
use crate::hooks::settings::{HookSettings, validate};
use crate::hooks::{Heard, Hook, Hooks, Notice, Point, Said};

const QUICK: Duration = Duration::from_millis(600);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("pilot-hooks-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.0.join(name), text).unwrap();
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(text: &str) -> HookSettings {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn read(text: &str) -> Hook {
    settings(text).read(&Clock::system()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn sample(point: &str) -> Notice {
    let at = "2026-11-30T16:00:00Z".parse().unwrap();
    Notice::sample(Point::parse(point).unwrap(), Some("https://pilot.example/".into()), at)
}

async fn once(hook: &Hook, notice: &Notice) -> Result<Said, super::super::Trouble> {
    Hooks::none(Clock::system()).once(hook, notice, hook.timeout).await
}

fn http(receiver: &Receiver, points: &str, more: &str) -> Hook {
    let url = &receiver.url;
    let mut hook = read(&format!("name = 'a'\nkind = 'http'\npoints = ['{points}']\nurl = '{url}'\n{more}"));
    hook.timeout = QUICK;
    hook
}

#[tokio::test]
async fn an_endpoint_is_sent_the_notice_with_its_headers_and_a_signature() {
    let (receiver, folder) = (Receiver::plain().await, Folder::new());
    let (token, secret) = (folder.file("token", "Bearer t0ken\n"), folder.file("secret", "topsecret\n"));
    let more = format!(
        "headers = {{ x-team = 'dba' }}\nheader_files = {{ authorization = '{}' }}\nsecret_file = '{}'\n",
        token.display(),
        secret.display()
    );
    let (hook, notice) = (http(&receiver, "finished", &more), sample("finished"));
    assert_eq!(once(&hook, &notice).await, Ok(Said::Go));
    // Secrets are exchanged while it runs.
    folder.file("token", "Bearer other");
    assert_eq!(once(&hook, &notice).await, Ok(Said::Go));
    let took = receiver.took();
    let one = &took[0];
    assert!(one.head.starts_with("POST /services/T0/B0/secret-path HTTP/1.1"), "{one:?}");
    assert_eq!(one.body, notice.json());
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", "upgrade-pilot"),
        ("x-team", "dba"),
        ("authorization", "Bearer t0ken"),
        ("x-pilot-delivery", notice.delivery.as_str()),
        ("idempotency-key", notice.delivery.as_str()),
        ("x-pilot-point", "finished"),
    ] {
        assert_eq!(one.header(name), Some(value), "{name}: {one:?}");
    }
    let at = one.header("x-pilot-timestamp").unwrap();
    let signed = super::super::wires::signature("topsecret", at, &one.body);
    assert_eq!(one.header("x-pilot-signature"), Some(signed.as_str()));
    assert_eq!(took[1].header("authorization"), Some("Bearer other"));
}

/// As `printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac topsecret` says.
#[test]
fn a_signature_is_the_one_that_anybody_computes() {
    let signature = super::super::wires::signature("topsecret", "1700000000", "{\"a\":1}");
    assert_eq!(signature, format!("sha256={}", EXPECTED_SIGNATURE));
}

const EXPECTED_SIGNATURE: &str = "6a939b0c71853d606167625a15168ee9188c6a511c773ef4f42d307f3849e50f";

#[tokio::test]
async fn an_endpoint_that_hangs_or_lies_is_bounded_and_said_clearly() {
    let receiver = Receiver::plain().await;
    let hook = http(&receiver, "before_cleanup", "");
    let notice = sample("before_cleanup");
    let clock = Clock::system();
    for (says, again, words) in [
        (Says::Nothing, true, "no answer within 600 ms"),
        (Says::Slowly, true, "no answer within 600 ms"),
        (Says::Bytes("SSH-2.0-OpenSSH_9.2\r\n"), true, "not HTTP"),
        (Says::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"), true, "ends in the middle"),
        (Says::Endless, true, "longer than is read"),
        (Says::Answer("200 OK\r\n", "<html>login</html>"), true, "<html>login</html>"),
        (Says::Answer("302 Found\r\nlocation: http://127.0.0.1:1/\r\n", ""), false, "redirects are not followed"),
        (Says::Answer("401 Unauthorized\r\n", "who are you"), false, "401: who are you"),
        (Says::Answer("503 Service Unavailable\r\nretry-after: 7\r\n", ""), true, "503"),
    ] {
        receiver.says([says.clone()]);
        let began = clock.mono();
        let trouble = once(&hook, &notice).await.unwrap_err();
        assert!(trouble.again == again && trouble.text.contains(words), "{says:?}: {trouble:?}");
        assert!(!trouble.text.contains("secret-path"), "the address may be a secret: {trouble:?}");
        assert!(clock.mono() - began < QUICK * 3, "{says:?}");
    }
    receiver.says([Says::Answer("200 OK\r\n", r#"{"decision":"veto","reason":"freeze"}"#)]);
    assert_eq!(once(&hook, &notice).await, Ok(Said::Veto("freeze".into())));
    assert_eq!(receiver.took().len(), 10, "one request each, and no redirect was followed");
    let gone = receiver.url.clone();
    drop(receiver);
    let hook = read(&format!("name = 'a'\nkind = 'http'\npoints = ['finished']\nurl = '{gone}'"));
    let mut trouble = once(&hook, &notice).await;
    while trouble.is_ok() {
        trouble = once(&hook, &notice).await;
    }
    assert!(trouble.unwrap_err().text.contains("nobody could be reached"));
}

#[tokio::test]
async fn over_tls_an_endpoint_is_asked_only_when_its_authority_is_trusted() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ca = folder.file("ca.crt", &certificate.pem());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    runtime::crypto::install();
    let receiver = Receiver::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let with = |more: &str| http(&receiver, "finished", more);
    let notice = sample("finished");
    assert_eq!(once(&with(&format!("ca_file = '{}'", ca.display())), &notice).await, Ok(Said::Go));
    let stranger = KeyPair::generate().unwrap();
    let stranger = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&stranger).unwrap();
    let other = folder.file("other.crt", &stranger.pem());
    let trouble = once(&with(&format!("ca_file = '{}'", other.display())), &notice).await.unwrap_err();
    assert!(trouble.text.contains("nobody could be reached") && trouble.text.contains("certificate"), "{trouble:?}");
    assert_eq!(receiver.took().len(), 1);
}

#[tokio::test]
async fn presets_send_their_own_form_with_secrets_from_files() {
    let (receiver, folder) = (Receiver::plain().await, Folder::new());
    let address = folder.file("slack", &format!("{}\n", receiver.url));
    let slack = format!("name = 's'\nkind = 'slack'\npoints = ['all']\nurl_file = '{}'", address.display());
    let slack = read(&slack);
    assert_eq!(once(&slack, &sample("alarm")).await, Ok(Said::Go));
    assert!(slack.shown().contains(&address.display().to_string()) && !slack.shown().contains("secret-path"));
    let key = folder.file("key", "0123456789abcdef0123456789abcdef");
    let pager = format!(
        "name = 'p'\nkind = 'pagerduty'\npoints = ['alarm', 'finished']\nrouting_key_file = '{}'\nurl = '{}'",
        key.display(),
        receiver.url
    );
    let pager = read(&pager);
    receiver.says([Says::Answer("202 Accepted\r\n", r#"{"status":"success","dedup_key":"x"}"#)]);
    assert_eq!(once(&pager, &sample("alarm")).await, Ok(Said::Go));
    let mut over = sample("finished");
    over.outcome = "succeeded".into();
    assert_eq!(once(&pager, &over).await, Ok(Said::Go), "nothing is to be sent");
    let took = receiver.took();
    assert_eq!(took.len(), 2);
    let message: serde_json::Value = serde_json::from_str(&took[0].body).unwrap();
    assert_eq!(message["text"], "[test] test 14.9 → 16.9: alarm of test (note)");
    let event: serde_json::Value = serde_json::from_str(&took[1].body).unwrap();
    assert_eq!(event["routing_key"], "0123456789abcdef0123456789abcdef");
    assert_eq!(event["payload"]["severity"], "info");
    std::fs::remove_file(&key).unwrap();
    assert!(once(&pager, &sample("alarm")).await.unwrap_err().text.contains("cannot be read"));
    assert!(pager.shown().starts_with("pagerduty http://127.0.0.1:") && !pager.shown().contains("secret-path"));
}

/// A command hook that runs this shell script.
fn shell(folder: &Folder, script: &str) -> Hook {
    let file = folder.file(&format!("{}.sh", uuid::Uuid::now_v7()), script);
    let text =
        format!("name = 'c'\nkind = 'command'\npoints = ['before_cleanup']\ncommand = ['sh', '{}']", file.display());
    let mut hook = read(&text);
    hook.timeout = QUICK * 3;
    hook
}

#[tokio::test]
async fn a_command_is_told_by_its_input_and_its_environment_and_says_by_its_exit_code() {
    let folder = Folder::new();
    let out = folder.0.join("out");
    let script = format!("cat > {0}; echo >> {0}; env >> {0}", out.display());
    let notice = sample("before_cleanup");
    assert_eq!(once(&shell(&folder, &script), &notice).await, Ok(Said::Go));
    let told = std::fs::read_to_string(&out).unwrap();
    assert!(told.starts_with(&notice.json()), "{told}");
    let names: Vec<&str> = told.lines().skip(1).filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    for name in ["PILOT_POINT", "PILOT_DELIVERY", "PILOT_UPGRADE", "PILOT_CLUSTER", "PILOT_TEST", "PATH"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let other = |name: &&&str| {
        !name.starts_with("PILOT_") && !["PATH", "HOME", "LANG", "TZ", "PWD", "OLDPWD", "_", "SHLVL"].contains(*name)
    };
    let others: Vec<&&str> = names.iter().filter(other).collect();
    assert_eq!(others, Vec::<&&str>::new(), "the coordinator's environment is not the hook's");

    let said = async |script: &str| once(&shell(&folder, script), &notice).await;
    assert_eq!(said("echo 'until 8'; exit 75").await, Ok(Said::Wait("until 8".into())));
    assert_eq!(said("echo freeze >&2; exit 77").await, Ok(Said::Veto("freeze".into())));
    let trouble = said("echo broken >&2; exit 1").await.unwrap_err();
    assert!(trouble.again && trouble.text == "it exited with 1: broken", "{trouble:?}");
    assert!(said("kill -9 $$").await.unwrap_err().text.contains("by a signal"));
    assert!(said("sleep 60").await.unwrap_err().text.contains("was killed"));
    assert!(said("yes").await.unwrap_err().text.contains("was killed"));
}

#[test]
fn what_is_wrong_with_a_hook_is_named() {
    let folder = Folder::new();
    let file = folder.file("there", "x");
    let check = |text: &str, words: &str| {
        let hooks: Result<HookSettings, _> = toml::from_str(text);
        let error = match hooks {
            Ok(hook) => validate(&[hook]).expect_err(text),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(words), "{text}: {error}");
    };
    let command = "name = 'a'\nkind = 'command'\npoints = ['alarm']\ncommand = ['true']\n";
    assert_eq!(validate(&[settings(command)]), Ok(()));
    check(&command.replace("'a'", "'A b'"), "name: write");
    check(&command.replace("alarm", "alarms"), "\"alarms\" is none; they are all, before_prerequisites");
    check(&command.replace("['alarm']", "[]"), "points: there is none");
    check(&command.replace("['true']", "[]"), "command: write the program");
    check(&command.replace("'true'", "'/nowhere/hook'"), "there is no file /nowhere/hook");
    check(&format!("{command}timeout_seconds = 61\n"), "timeout_seconds is 61; write 1 to 60");
    check(&format!("{command}timeout_seconds = 0\n"), "timeout_seconds is 0");
    check(&format!("{command}retries = 21\n"), "retries is 21");
    check(&format!("{command}wait_seconds_max = 86401\n"), "wait_seconds_max");
    check(&format!("{command}ask_again_seconds = 0\n"), "ask_again_seconds");
    check(&format!("{command}url = 'https://a.example'\n"), "not for a hook of this kind");
    check(&format!("{command}colour = 'red'\n"), "colour");
    check(&format!("{command}on_failure = 'cry'\n"), "on_failure");
    let http = "name = 'a'\nkind = 'http'\npoints = ['alarm']\n";
    check(http, "url or url_file, one of the two");
    check(&format!("{http}url = 'http://hooks.example/'\n"), "without protection");
    check(&format!("{http}url = 'ftp://hooks.example/'\n"), "neither with https://");
    check(&format!("{http}url = 'https://user:word@hooks.example/'\n"), "without a user's name");
    check(&format!("{http}url = 'https://a.example'\nsecret_file = '/nowhere'\n"), "secret_file: there is no file");
    check(&format!("{http}url = 'https://a.example'\nheader_files = {{ a = '/nowhere' }}\n"), "header_files.a");
    check(&format!("{http}url = 'https://a.example'\nheaders = {{ 'a b' = 'c' }}\n"), "no name of a header");
    check(&format!("{http}url = 'https://a.example'\nca_file = '{}'\n", file.display()), "ca_file");
    assert_eq!(validate(&[settings(&format!("{http}url = 'http://a.example'\nplain_http = true\n"))]), Ok(()));
    let pager = format!("name = 'a'\nkind = 'pagerduty'\nrouting_key_file = '{}'\n", file.display());
    check(&format!("{pager}points = ['after_cleanup']\n"), "is no incident");
    check("name = 'a'\nkind = 'pagerduty'\npoints = ['alarm']\n", "routing_key_file");
    let twice = [settings(command), settings(command)];
    assert!(validate(&twice).unwrap_err().contains("two hooks are called"));
    let many: Vec<HookSettings> = (0..33).map(|n| settings(&command.replace("'a'", &format!("'a{n}'")))).collect();
    assert!(validate(&many).unwrap_err().contains("33 hooks, 32 is the most"));
}

#[tokio::test]
async fn one_try_of_a_person_shows_what_came_back() {
    let folder = Folder::new();
    let hook = shell(&folder, "echo frozen; exit 77");
    let hooks = Hooks::none(Clock::system());
    let (heard, judged) = hooks.try_out(&hook, &sample("before_cleanup")).await.unwrap();
    assert_eq!(heard, Heard::Exit { code: Some(77), out: "frozen\n".into(), err: String::new() });
    assert_eq!(judged, Ok(Said::Veto("frozen".into())));
}

#[test]
fn the_examples_in_deploy_can_be_used() {
    let folder = Folder::new();
    let text = include_str!("../../../../deploy/hooks/hooks.toml");
    let files = ["slack-url", "pagerduty-key", "hook-secret", "hook-token", "change-freeze"];
    let mut text = text.to_owned();
    for name in files {
        let file = folder.file(name, "https://hooks.slack.com/services/T0/B0/x");
        text = text.replace(&format!("/etc/upgrade-pilot/{name}"), &file.display().to_string());
    }
    assert!(!text.contains("/etc/upgrade-pilot/"), "{text}");
    #[derive(serde::Deserialize)]
    struct Whole {
        hooks: Vec<HookSettings>,
    }
    let whole: Whole = toml::from_str(&text).unwrap();
    assert_eq!(validate(&whole.hooks), Ok(()));
    assert!(whole.hooks.len() >= 4);
}
