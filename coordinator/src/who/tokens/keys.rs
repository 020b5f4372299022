//! The keys by which a provider signs: from a file that is read again when it changes, or from its address, asked when a token
//! names a key that is not known, and now and then, but never often. A provider that is away takes nothing from what is known.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use runtime::clock::{Clock, Mono};
use serde_json::Value;
use tokio::sync::Mutex as Turn;

use super::fetch::{ANSWER_BYTES_MAX, Fetch};
use crate::config::Oidc;

/// No provider has more keys; the others are left out.
const KEYS_MAX: usize = 64;
/// A file is looked at when it is needed, at most this often.
const FILE_EVERY: Duration = Duration::from_secs(1);
/// A provider is asked for an unknown key at most this often.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Keys that are older are asked for again, so that those that were taken back are forgotten.
const FRESH_FOR: Duration = Duration::from_secs(3600);
/// While that fails, it is tried again at most this often.
const STALE_EVERY: Duration = Duration::from_secs(60);

/// One key.
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

enum Source {
    File(PathBuf),
    Address { fetch: Fetch, known: Known },
}

/// What the configuration says of the address.
enum Known {
    /// The keys' own.
    Keys(String),
    /// The issuer's, who tells where they are.
    Issuer(String),
}

pub(super) struct Keys {
    source: Source,
    clock: Clock,
    state: Mutex<State>,
    /// One asks, the others wait for what it hears.
    turn: Turn<()>,
    /// For a key that is not known, and for a file, whichever this is.
    pub(super) look_every: Duration,
}

struct State {
    keys: Arc<Vec<Arc<Key>>>,
    /// When they were read.
    read: Option<Mono>,
    tried: Option<Mono>,
    trouble: Option<String>,
}

impl Keys {
    pub(super) fn open(settings: &Oidc, clock: Clock) -> Result<Keys, String> {
        let address = |known| {
            Ok::<_, String>(Source::Address { fetch: Fetch::new(settings.ca_file.as_deref(), clock.clone())?, known })
        };
        let (source, keys) = match &settings.jwks {
            Some(place) if place.starts_with("https://") => (address(Known::Keys(place.clone()))?, Vec::new()),
            Some(place) => (Source::File(place.into()), read_file(Path::new(place))?),
            None => (address(Known::Issuer(settings.issuer.clone()))?, Vec::new()),
        };
        let file = matches!(source, Source::File(_));
        let (look_every, read) = (if file { FILE_EVERY } else { ASK_EVERY }, file.then(|| clock.mono()));
        let state = State { keys: Arc::new(keys), read, tried: read, trouble: None };
        Ok(Keys { source, clock, state: Mutex::new(state), turn: Turn::new(()), look_every })
    }

    /// The key of this id; without an id the only one. Looks for news first, if it is time.
    pub(super) async fn find(&self, id: Option<&str>) -> Option<Arc<Key>> {
        let known = self.known(id);
        if self.is_due(known.is_some()) {
            // Who has a key does not wait for somebody else's question.
            let turn = if known.is_some() { self.turn.try_lock().ok() } else { Some(self.turn.lock().await) };
            if turn.is_some() && self.is_due(self.known(id).is_some()) {
                self.refresh().await;
            }
        } else if known.is_none() {
            // Somebody may be asking at this moment.
            drop(self.turn.lock().await);
        }
        self.known(id)
    }

    fn known(&self, id: Option<&str>) -> Option<Arc<Key>> {
        let keys = Arc::clone(&self.lock().keys);
        match id {
            Some(id) => keys.iter().find(|key| key.id.as_deref() == Some(id)).cloned(),
            None => keys.first().filter(|_| keys.len() == 1).cloned(),
        }
    }

    fn is_due(&self, known: bool) -> bool {
        let (now, state) = (self.clock.mono(), self.lock());
        let since = |then: Option<Mono>| then.map_or(Duration::MAX, |then| now.since(then));
        match self.source {
            Source::File(_) => since(state.tried) >= self.look_every,
            Source::Address { .. } if known => since(state.read) >= FRESH_FOR && since(state.tried) >= STALE_EVERY,
            Source::Address { .. } => since(state.tried) >= self.look_every,
        }
    }

    async fn refresh(&self) {
        self.lock().tried = Some(self.clock.mono());
        let news = match &self.source {
            Source::File(path) => read_file(path),
            Source::Address { fetch, known } => ask(fetch, known).await,
        };
        let mut state = self.lock();
        match news {
            Ok(keys) => {
                if state.trouble.take().is_some() {
                    tracing::info!(keys = keys.len(), "the keys of the tokens' provider are there again");
                }
                state.keys = Arc::new(keys);
                state.read = Some(self.clock.mono());
            }
            Err(error) => {
                // The same again is no news.
                if state.trouble.as_ref() != Some(&error) {
                    tracing::warn!(error, "the keys of the tokens' provider cannot be read, the old ones stay");
                    state.trouble = Some(error);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(fetch: &Fetch, known: &Known) -> Result<Vec<Arc<Key>>, String> {
    let address = match known {
        Known::Keys(address) => address.clone(),
        Known::Issuer(issuer) => {
            let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let told: Value = json(&place, &fetch.get(&place).await?)?;
            if told["issuer"].as_str() != Some(issuer) {
                return Err(format!("{place} is of another issuer"));
            }
            told["jwks_uri"].as_str().ok_or_else(|| format!("{place} names no jwks_uri"))?.to_owned()
        }
    };
    set(&json(&address, &fetch.get(&address).await?)?).map_err(|error| format!("{address}: {error}"))
}

fn read_file(path: &Path) -> Result<Vec<Arc<Key>>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > ANSWER_BYTES_MAX as u64 {
        return Err(format!("{} is longer than {ANSWER_BYTES_MAX} bytes", path.display()));
    }
    let place = path.display().to_string();
    set(&json(&place, &std::fs::read(path).map_err(failed)?)?).map_err(|error| format!("{place}: {error}"))
}

fn json(place: &str, bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{place} is no JSON: {error}"))
}

/// The usable keys of a JWK set. Shared secrets, keys for encryption and kinds that are not known are left out.
pub(super) fn set(json: &Value) -> Result<Vec<Arc<Key>>, String> {
    let keys = json["keys"].as_array().ok_or("it has no list of keys")?;
    let keys: Vec<Arc<Key>> = keys.iter().filter_map(key).map(Arc::new).take(KEYS_MAX).collect();
    if keys.is_empty() { Err("it has no key to verify tokens by".to_owned()) } else { Ok(keys) }
}

fn key(json: &Value) -> Option<Key> {
    use Algorithm as A;
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    if matches!(&jwk.common.public_key_use, Some(other) if *other != PublicKeyUse::Signature) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![A::ES256],
            EllipticCurve::P384 => vec![A::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![A::EdDSA],
        _ => return None,
    };
    if let Some(only) = jwk.common.key_algorithm {
        let only = only.to_string().parse::<Algorithm>().ok()?;
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { id: jwk.common.key_id, algorithms, decoding })
}
