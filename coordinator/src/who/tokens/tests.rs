//! Tokens of a provider that stands here: with keys of its own, in a file or served over TLS, and every way to be wrong.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::routing::get;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use runtime::tls::{Credentials, Door, Incoming};
use serde_json::json;
use tokio::task::JoinSet;

use super::*;
use crate::config::RoleNames;
use crate::enrol::{Authority, Subject, Validity};

pub(in crate::who) const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "upgrade-pilot";

/// A provider: an issuer and the key that it signs by.
pub(in crate::who) struct Provider {
    folder: PathBuf,
    issuer: String,
    key: EncodingKey,
    jwks: Option<String>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A key on P-256, and what the provider publishes of it.
fn elliptic(id: &str) -> (EncodingKey, Value) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
    jwk["kid"] = id.into();
    (key, jwk)
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: Vec<bool> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    let sign = |six: &[bool]| (0..6).fold(0, |n, bit| n << 1 | usize::from(six.get(bit).copied().unwrap_or_default()));
    bits.chunks(6).map(|six| char::from(SIGNS[sign(six)])).collect()
}

/// Claims that are good, with some of them exchanged; `null` takes one out.
fn claims(issuer: &str, other: &Value) -> Value {
    let now = Clock::system().now().as_second();
    let mut claims =
        json!({ "iss": issuer, "aud": AUDIENCE, "sub": "olga", "exp": now + 300, "roles": ["pilot-view"] });
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn header(algorithm: Algorithm, key: Option<&str>) -> Header {
    Header { kid: key.map(str::to_owned), ..Header::new(algorithm) }
}

impl Provider {
    /// Whose keys are in a file.
    pub(in crate::who) fn file() -> Provider {
        let folder = std::env::temp_dir().join(format!("pilot-provider-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let (key, jwk) = elliptic("one");
        let provider =
            Provider { issuer: ISSUER.into(), key, jwks: Some(folder.join("keys.json").display().to_string()), folder };
        provider.publish(&[jwk]);
        provider
    }

    fn publish(&self, keys: &[Value]) {
        std::fs::write(self.folder.join("keys.json"), json!({ "keys": keys }).to_string()).unwrap();
    }

    pub(in crate::who) fn settings(&self) -> Oidc {
        Oidc {
            issuer: self.issuer.clone(),
            audience: AUDIENCE.into(),
            jwks: self.jwks.clone(),
            ca_file: Some(self.folder.join("tls/ca.crt")),
            role_claim: "roles".into(),
            roles: RoleNames::default(),
        }
    }

    /// A token with its signature; `other` as in [`claims`].
    pub(in crate::who) fn token(&self, other: Value) -> String {
        encode(&header(Algorithm::ES256, Some("one")), &claims(&self.issuer, &other), &self.key).unwrap()
    }

    fn tokens(&self) -> Tokens {
        Tokens::open(&self.settings(), Clock::system()).unwrap()
    }
}

#[tokio::test]
async fn a_token_that_is_wrong_in_anything_is_refused_by_name() {
    let provider = Provider::file();
    let tokens = provider.tokens();
    let now = Clock::system().now().as_second();
    let good = provider.token(json!({}));
    assert_eq!(tokens.judge(&good).await.unwrap().name, "olga of https://id.example");
    let (stranger, _) = elliptic("one");
    let signed = |key: &EncodingKey, header: &Header| encode(header, &claims(ISSUER, &json!({})), key).unwrap();
    let public = std::fs::read(provider.folder.join("keys.json")).unwrap();
    let public: Value = serde_json::from_slice(&public).unwrap();
    let secret = |bytes: &[u8]| signed(&EncodingKey::from_secret(bytes), &header(Algorithm::HS256, Some("one")));
    let parts: Vec<&str> = good.split('.').collect();
    let none = base64(br#"{"alg":"none","kid":"one"}"#);
    let changed = base64(claims(ISSUER, &json!({ "roles": ["pilot-approve"] })).to_string().as_bytes());
    let extended = Header { crit: Some(vec!["exp".into()]), ..header(Algorithm::ES256, Some("one")) };
    for (reason, token) in [
        ("token_issuer", provider.token(json!({ "iss": "https://id.example.evil" }))),
        ("token_issuer", provider.token(json!({ "iss": null }))),
        ("token_audience", provider.token(json!({ "aud": "payroll" }))),
        ("token_audience", provider.token(json!({ "aud": ["payroll", "upgrade-pilot-2"] }))),
        ("token_audience", provider.token(json!({ "aud": null }))),
        ("token_expired", provider.token(json!({ "exp": now - 31 }))),
        ("token_expired", provider.token(json!({ "exp": null }))),
        ("token_expired", provider.token(json!({ "exp": "never" }))),
        ("token_not_yet_valid", provider.token(json!({ "nbf": now + 60 }))),
        ("token_not_yet_valid", provider.token(json!({ "nbf": "now" }))),
        ("token_subject", provider.token(json!({ "sub": "" }))),
        ("token_subject", provider.token(json!({ "sub": "olga\nroot" }))),
        ("token_role", provider.token(json!({ "roles": ["admin"] }))),
        ("token_role", provider.token(json!({ "roles": null }))),
        ("token_signature", signed(&stranger, &header(Algorithm::ES256, Some("one")))),
        ("token_signature", format!("{}.{changed}.{}", parts[0], parts[2])),
        ("token_signature", format!("{}.{}.", parts[0], parts[1])),
        ("token_key", signed(&stranger, &header(Algorithm::ES256, Some("two")))),
        ("token_algorithm", format!("{none}.{}.", parts[1])),
        ("token_algorithm", format!("{none}.{}.{}", parts[1], parts[2])),
        ("token_algorithm", secret(public["keys"][0]["x"].as_str().unwrap().as_bytes())),
        ("token_algorithm", secret(public["keys"][0].to_string().as_bytes())),
        ("token_algorithm", format!("{}.{}.{}", base64(br#"{"alg":"RS256","kid":"one"}"#), parts[1], parts[2])),
        ("token_unreadable", signed(&provider.key, &extended)),
        ("token_unreadable", "x.y.z".to_owned()),
        ("token_unreadable", String::new()),
        ("token_unreadable", "x".repeat(TOKEN_BYTES_MAX + 1)),
    ] {
        let refused = tokens.judge(&token).await.expect_err(reason);
        assert_eq!(refused.reason, reason, "{refused:?} {token}");
        assert!(!refused.why.contains('\n') && refused.why.len() < 300, "{}", refused.why);
        assert!(token.len() < 10 || !refused.why.contains(parts[1]), "a token is repeated: {}", refused.why);
    }
    let late = provider.token(json!({ "exp": now - 10, "nbf": now + 10, "aud": ["payroll", AUDIENCE] }));
    assert!(tokens.judge(&late).await.is_ok(), "clocks may differ a little, and there may be other audiences");
}

#[tokio::test]
async fn roles_come_from_the_claim_and_by_the_names_that_the_configuration_gives() {
    let provider = Provider::file();
    let check = async |claim: &str, claims: Value, expected: &[Role]| {
        let mut settings = provider.settings();
        settings.role_claim = claim.into();
        settings.roles = RoleNames {
            view: vec!["everybody".into()],
            operate: vec!["dba".into(), "sre".into()],
            approve: vec!["lead".into(), "sre".into()],
        };
        let tokens = Tokens::open(&settings, Clock::system()).unwrap();
        let roles = tokens.judge(&provider.token(claims.clone())).await.map(|bearer| bearer.roles);
        assert_eq!(roles.unwrap_or_default(), expected.iter().copied().collect(), "{claim}: {claims}");
    };
    check("groups", json!({ "groups": ["dba", "other"] }), &[Role::Operate]).await;
    check("groups", json!({ "groups": ["sre"] }), &[Role::Operate, Role::Approve]).await;
    check("scope", json!({ "scope": "openid everybody lead" }), &[Role::View, Role::Approve]).await;
    check("realm_access.roles", json!({ "realm_access": { "roles": ["dba"] } }), &[Role::Operate]).await;
    check("https://x.example/roles", json!({ "https://x.example/roles": ["dba"] }), &[Role::Operate]).await;
    check("groups", json!({ "groups": { "dba": true } }), &[]).await;
    check("groups", json!({ "roles": ["dba"] }), &[]).await;
}

#[tokio::test]
async fn keys_of_each_kind_verify_and_a_file_of_them_is_read_again() {
    let provider = Provider::file();
    let mut tokens = provider.tokens();
    tokens.keys.look_every = std::time::Duration::ZERO;
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_der();
    // Of PKCS #8 the key itself, which is what signs here.
    let rsa = EncodingKey::from_rsa_der(&rsa[26..]);
    let mut published = serde_json::to_value(Jwk::from_encoding_key(&rsa, Algorithm::RS256).unwrap()).unwrap();
    published["kid"] = "rsa".into();
    published["alg"] = Value::Null;
    let edwards = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let x = base64(edwards.public_key_raw());
    let edwards = EncodingKey::from_ed_der(&edwards.serialize_der());
    let other = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "ed", "use": "sig" });
    // What is left out: a shared secret, a key for encryption, and one of a kind that nobody knows.
    let secret = json!({ "kty": "oct", "k": base64(b"secret"), "kid": "oct", "alg": "HS256" });
    let mut sealing = published.clone();
    (sealing["kid"], sealing["use"]) = ("enc".into(), "enc".into());
    let unknown = json!({ "kty": "lattice", "kid": "pq" });
    provider.publish(&[secret, sealing, unknown, published, other]);
    let sign = |key: &EncodingKey, header: &Header| encode(header, &claims(ISSUER, &json!({})), key).unwrap();
    for (key, algorithm, id) in
        [(&rsa, Algorithm::RS256, "rsa"), (&rsa, Algorithm::PS512, "rsa"), (&edwards, Algorithm::EdDSA, "ed")]
    {
        let judged = tokens.judge(&sign(key, &header(algorithm, Some(id)))).await;
        assert!(judged.is_ok(), "{algorithm:?}: {judged:?}");
    }
    for (token, reason) in [
        (sign(&rsa, &header(Algorithm::RS256, Some("enc"))), "token_key"),
        (sign(&EncodingKey::from_secret(b"secret"), &header(Algorithm::HS256, Some("oct"))), "token_algorithm"),
        // The provider took it back; and there are several, so one without a name is nobody's.
        (provider.token(json!({})), "token_key"),
        (sign(&rsa, &header(Algorithm::RS256, None)), "token_key"),
    ] {
        assert_eq!(tokens.judge(&token).await.unwrap_err().reason, reason);
    }
    // A file that cannot be read takes nothing away.
    std::fs::write(provider.folder.join("keys.json"), "{").unwrap();
    assert!(tokens.judge(&sign(&edwards, &header(Algorithm::EdDSA, Some("ed")))).await.is_ok());
    assert!(Tokens::open(&provider.settings(), Clock::system()).is_err(), "at the start it is an error");
}

/// A provider over TLS: what it publishes, whether it is there, how often it was asked for its keys.
struct Served {
    provider: Provider,
    keys: Arc<Mutex<Vec<Value>>>,
    away: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

async fn served() -> Served {
    let mut provider = Provider::file();
    let clock = Clock::system();
    let authority = Authority::make(clock.now()).unwrap();
    let subject = Subject::Coordinator(vec!["localhost".into()]);
    authority.issue(&subject, Validity::days(clock.now(), 1)).unwrap().write(&provider.folder.join("tls")).unwrap();
    let credentials = Arc::new(Credentials::open(&provider.folder.join("tls"), clock.clone()).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    provider.issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    provider.jwks = None;
    let (key, jwk) = elliptic("one");
    provider.key = key;
    let keys = Arc::new(Mutex::new(vec![jwk]));
    let (away, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let told = json!({ "issuer": provider.issuer, "jwks_uri": format!("{}/keys", provider.issuer) });
    let (shown, gone, count) = (Arc::clone(&keys), Arc::clone(&away), Arc::clone(&asked));
    let answer = move || {
        count.fetch_add(1, Ordering::SeqCst);
        let away = gone.load(Ordering::SeqCst);
        let keys = json!({ "keys": *shown.lock().unwrap() }).to_string();
        async move { if away { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(keys) } }
    };
    let router = axum::Router::new()
        .route("/.well-known/openid-configuration", get(async move || told.to_string()))
        .route("/keys", get(answer));
    let incoming = Incoming::tls(listener, clock, Door::Pages, credentials, |_| {}).unwrap();
    let mut serving = JoinSet::new();
    let (recorder, stop, bounds) =
        (runtime::recorder::Recorder::detached(), runtime::shutdown::Stop::new(), Default::default());
    serving.spawn(async move {
        runtime::admin::serve(incoming, router, recorder, Clock::system(), stop, bounds).await.unwrap()
    });
    Served { provider, keys, away, asked, _serving: serving }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_asked_for_unknown_keys_seldom_and_its_absence_takes_nothing_away() {
    let Served { mut provider, keys, away, asked, _serving } = served().await;
    let mut tokens = provider.tokens();
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody needed a key yet");
    let one = provider.token(json!({}));
    let many = futures_util::future::join_all((0..20).map(|_| tokens.judge(&one))).await;
    assert!(many.iter().all(Result::is_ok), "{many:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "twenty at once ask once");
    // A new key is found, but strangers' inventions do not make us ask again and again.
    let (key, jwk) = elliptic("two");
    let sign = |key: &EncodingKey, id: &str| {
        encode(&header(Algorithm::ES256, Some(id)), &claims(&provider.issuer, &json!({})), key).unwrap()
    };
    let two = sign(&key, "two");
    keys.lock().unwrap().push(jwk);
    for _ in 0..5 {
        assert_eq!(tokens.judge(&two).await.unwrap_err().reason, "token_key");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    tokens.keys.look_every = std::time::Duration::ZERO;
    tokens.judge(&two).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // Away: what is known goes on, what is not is refused.
    away.store(true, Ordering::SeqCst);
    let (third, _) = elliptic("three");
    assert_eq!(tokens.judge(&sign(&third, "three")).await.unwrap_err().reason, "token_key");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    for token in [&one, &two] {
        assert!(tokens.judge(token).await.is_ok());
    }
    // Whose certificate is of another authority is not believed.
    away.store(false, Ordering::SeqCst);
    let other = Authority::make(Clock::system().now()).unwrap();
    let issued = other.issue(&Subject::Coordinator(vec!["x.example".into()]), Validity::days(Clock::system().now(), 1));
    issued.unwrap().write(&provider.folder.join("other")).unwrap();
    let distrusting = Oidc { ca_file: Some(provider.folder.join("other/ca.crt")), ..provider.settings() };
    let distrusting = Tokens::open(&distrusting, Clock::system()).unwrap();
    assert_eq!(distrusting.judge(&one).await.unwrap_err().reason, "token_key");
    // The keys' own address will do as well; one that tells of another issuer will not.
    provider.jwks = Some(format!("{}/keys", provider.issuer));
    assert!(provider.tokens().judge(&one).await.is_ok());
    let alias = Oidc { issuer: provider.issuer.replace("localhost", "127.0.0.1"), jwks: None, ..provider.settings() };
    assert_eq!(Tokens::open(&alias, Clock::system()).unwrap().judge(&one).await.unwrap_err().reason, "token_key");
}

#[test]
fn any_bytes_of_a_token_and_of_a_providers_keys_are_refused_or_judged() {
    let provider = Provider::file();
    let settings = provider.settings();
    let seed = |name: &str| std::fs::read_to_string(provider.folder.join(name)).unwrap();
    let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "tokens").seed(seed("keys.json"));
    let target = target.seed(claims(ISSUER, &json!({ "nbf": 1.5 })).to_string()).seed(provider.token(json!({})));
    target.words(&["\"kty\":\"RSA\"", "\"oct\"", "Ed25519", "-1e400", "[[", "e30", "."]).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(json) = serde_json::from_slice::<Value>(bytes) {
            let keys = keys::set(&json).map_or_else(|error| error, |keys| format!("{} keys", keys.len()));
            let judged = json.as_object().map(|claims| judged(claims, &settings, Clock::system().now()));
            return format!("{keys}, {:?}", judged.map(|judged| judged.map_or_else(|flaw| flaw.reason, |_| "good")));
        }
        super::header(&text).map_or_else(|flaw| flaw.reason.to_owned(), |_| "a header".to_owned())
    });
}
