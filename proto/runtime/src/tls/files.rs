//! A folder with `tls.crt`, `tls.key` and `ca.crt`, and a list of withdrawn certificates, read again when they have changed. A set that does not fit together (half
//! written, say) is told of once and not used: the last good one stays.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::listen::Door;
use super::names::{Certificate, Withdrawn};
use crate::clock::{Clock, Mono};

/// The files are looked at when they are needed, at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// None of the files is longer: a bundle of many authorities stays well below.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Certificates that cannot be used. Never repeats what stands in a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {what}", path.display())]
    Wrong { path: PathBuf, what: String },
}

/// One's own certificate and key, and the authorities that others' must come from. Shared by all connections.
#[derive(Debug)]
pub struct Credentials {
    folder: PathBuf,
    crl_file: Option<PathBuf>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked: Mono,
    print: u64,
    trouble: Option<String>,
    loaded: Arc<Loaded>,
}

/// What one set of files gives.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) callers: Arc<ServerConfig>,
    pub(super) anyone: Arc<ServerConfig>,
    pub(super) pages: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    own: Certificate,
    withdrawn: Withdrawn,
}

impl Loaded {
    pub(super) fn server(&self, door: Door) -> Arc<ServerConfig> {
        match door {
            Door::Callers => Arc::clone(&self.callers),
            Door::Anyone => Arc::clone(&self.anyone),
            Door::Pages => Arc::clone(&self.pages),
        }
    }
}

impl Credentials {
    /// Reads the folder.
    ///
    /// # Errors
    /// Names the file that is missing or wrong.
    pub fn open(folder: &Path, clock: Clock) -> Result<Credentials, TlsError> {
        Credentials::open_with(folder, None, clock)
    }

    /// Reads the folder, and a list of certificates that their authorities have withdrawn (PEM, one or several). Others' are
    /// looked up in it when they are shown; what is in no list is good, and a list does not grow old.
    ///
    /// # Errors
    /// Names the file that is missing or wrong.
    pub fn open_with(folder: &Path, crl_file: Option<&Path>, clock: Clock) -> Result<Credentials, TlsError> {
        let files = Files::read(folder, crl_file)?;
        let loaded = Arc::new(files.load(folder)?);
        if loaded.own.not_after <= clock.now() {
            tracing::warn!(folder = %folder.display(), ended = %loaded.own.not_after, "our own certificate has expired");
        }
        let state = State { looked: clock.mono(), print: files.print(), trouble: None, loaded };
        let crl_file = crl_file.map(Path::to_owned);
        Ok(Credentials { folder: folder.to_owned(), crl_file, clock, state: Mutex::new(state) })
    }

    /// The last moment of the certificate in use. Looks at the files first.
    pub fn not_after(&self) -> Timestamp {
        self.current().own.not_after
    }

    /// Has its issuer taken this certificate back? Looks at the files first.
    pub fn is_withdrawn(&self, certificate: &Certificate) -> bool {
        self.crl_file.is_some() && self.current().withdrawn.holds(certificate)
    }

    /// What holds now: the files are looked at again if that was not done lately.
    pub(super) fn current(&self) -> Arc<Loaded> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.mono();
        if now.since(state.looked) < LOOK_EVERY {
            return Arc::clone(&state.loaded);
        }
        state.looked = now;
        let read = Files::read(&self.folder, self.crl_file.as_deref()).and_then(|files| {
            let print = files.print();
            let known = print == state.print;
            state.print = print;
            if known { Ok(None) } else { files.load(&self.folder).map(Some) }
        });
        match read {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                tracing::info!(folder = %self.folder.display(), serial = loaded.own.serial, until = %loaded.own.not_after,
                    "certificates exchanged");
                state.loaded = Arc::new(loaded);
                state.trouble = None;
            }
            Err(error) => {
                if matches!(error, TlsError::Read { .. }) {
                    // The same files count as new once they are back.
                    state.print = 0;
                }
                let trouble = crate::supervision::chain(&error);
                // The same again is no news.
                if state.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(folder = %self.folder.display(), error = trouble,
                        "the new certificates cannot be used, the old ones stay");
                    state.trouble = Some(trouble);
                }
            }
        }
        Arc::clone(&state.loaded)
    }
}

/// The bytes of the files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
    /// The list of withdrawn certificates, and where it lies.
    list: Option<(PathBuf, Vec<u8>)>,
}

impl Files {
    fn read(folder: &Path, crl_file: Option<&Path>) -> Result<Files, TlsError> {
        let read = |path: PathBuf| {
            let mut bytes = Vec::new();
            // By what is read and not by what its length is said to be: a pipe has none.
            let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
            match read {
                Ok(_) if bytes.len() as u64 <= FILE_BYTES_MAX => Ok(bytes),
                Ok(_) => Err(TlsError::Wrong { path, what: "it is longer than 1 MiB".into() }),
                Err(source) => Err(TlsError::Read { path, source }),
            }
        };
        let file = |name: &str| read(folder.join(name));
        let list = crl_file.map(|path| Ok((path.to_owned(), read(path.to_owned())?))).transpose()?;
        Ok(Files { certificate: file("tls.crt")?, key: file("tls.key")?, authorities: file("ca.crt")?, list })
    }

    /// Tells a change; never 0.
    fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key, &self.authorities, &self.list).hash(&mut hasher);
        hasher.finish().max(1)
    }

    fn load(&self, folder: &Path) -> Result<Loaded, TlsError> {
        let wrong = |name: &str, what: String| TlsError::Wrong { path: folder.join(name), what };
        let chain = certificates(&self.certificate).map_err(|what| wrong("tls.crt", what))?;
        let own = Certificate::read(&chain[0]).map_err(|what| wrong("tls.crt", what))?;
        // What a parser says of a key may repeat parts of it.
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| wrong("tls.key", "it holds no private key (PEM)".into()))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authorities).map_err(|what| wrong("ca.crt", what))? {
            roots.add(authority).map_err(|error| wrong("ca.crt", error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let (lists, withdrawn) = self.lists()?;
        let server = |optional: bool, protocol: &[u8]| {
            let verifier = WebPkiClientVerifier::builder(Arc::clone(&roots)).with_crls(lists.clone());
            let verifier = verifier.only_check_end_entity_revocation().allow_unknown_revocation_status();
            let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier
                .build()
                .map_err(|error| wrong("ca.crt or the list of withdrawn certificates", error.to_string()))?;
            let mut config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain.clone(), key.clone_key())
                .map_err(|error| wrong("tls.crt", format!("it does not fit tls.key: {error}")))?;
            config.alpn_protocols = vec![protocol.to_vec()];
            // Nobody resumes: every connection shows its certificate anew.
            config.send_tls13_tickets = 0;
            Ok(Arc::new(config))
        };
        let (callers, anyone, pages) = (server(false, b"h2")?, server(true, b"h2")?, server(true, b"http/1.1")?);
        let mut client = ClientConfig::builder_with_protocol_versions(&[&TLS13])
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|error| wrong("tls.crt", format!("it does not fit tls.key: {error}")))?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Loaded { callers, anyone, pages, client: Arc::new(client), own, withdrawn })
    }

    fn lists(&self) -> Result<(Vec<CertificateRevocationListDer<'static>>, Withdrawn), TlsError> {
        let mut withdrawn = Withdrawn::default();
        let Some((path, pem)) = &self.list else { return Ok((Vec::new(), withdrawn)) };
        let wrong = |what: String| TlsError::Wrong { path: path.clone(), what };
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let lists = lists.map_err(|error| wrong(error.to_string()))?;
        if lists.is_empty() {
            return Err(wrong("it holds no list of withdrawn certificates (PEM)".into()));
        }
        lists.iter().try_for_each(|list| withdrawn.add(list)).map_err(wrong)?;
        Ok((lists, withdrawn))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it holds no certificate (PEM)".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}
