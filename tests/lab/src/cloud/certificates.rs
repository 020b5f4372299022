//! Certificates of servers, as RDS has them: of one authority, for every name that leads to the server. When names move, the
//! certificates follow some time later. Only for a lab whose settings ask for TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::cloud::Cloud;
use crate::cloud::state::State;
use crate::fleet::Server;

/// How long a server may take to show a certificate: it may be about to start.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(50);

/// The authority of one lab, and what it has issued.
pub(crate) struct Certificates {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Where clients find the authority's own certificate.
    pub(crate) file: PathBuf,
    /// How much later than its names a server's certificate changes.
    delay: Duration,
    /// The names that each server's certificate has or will have, by the server's name.
    due: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Certificates {
    /// An authority, whose certificate is put into `folder`.
    pub(crate) fn open(folder: &Path, delay: Duration) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the lab's authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let file = folder.join("ca.pem");
        std::fs::write(&file, issuer.pem()).with_context(|| format!("writing {}", file.display()))?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644))?;
        Ok(Self { issuer, file, delay, due: Mutex::default() })
    }

    /// A certificate for these names with its key, as PEM.
    fn issue(&self, names: &BTreeSet<String>) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// Notes what a server's certificate is to be for: `None` when it is so already, else how soon.
    fn due(&self, server: &str, names: &BTreeSet<String>) -> Option<Duration> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        match due.insert(server.to_owned(), names.clone()) {
            None => Some(Duration::ZERO),
            Some(before) => (before != *names).then_some(self.delay),
        }
    }
}

impl Cloud {
    /// Lets the servers' certificates follow their names.
    pub(crate) fn certify(&self, state: &State) {
        if self.certificates().is_none() {
            return;
        }
        for instance in state.instances.values() {
            let names = self.zone().names_of(instance.address);
            if let Some(server) = instance.server.as_ref().filter(|_| !names.is_empty()) {
                self.certify_one(server, names);
            }
        }
    }

    fn certify_one(&self, server: &Arc<Server>, names: BTreeSet<String>) {
        let wait = self.certificates().and_then(|certificates| certificates.due(server.name(), &names));
        let Some(wait) = wait else { return };
        let (task, server) = (self.clone(), Arc::downgrade(server));
        self.spawn(async move {
            task.clock().sleep(wait).await;
            let Some((certificates, server)) = task.certificates().zip(server.upgrade()) else { return };
            let shown = async {
                let (certificate, key) = certificates.issue(&names)?;
                server.certify(&certificate, &key)?;
                // It may be starting, or be upgraded.
                while server.reload().await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
                anyhow::Ok(())
            };
            match tokio::time::timeout(SHOWN_WITHIN, shown).await {
                Ok(Ok(())) => tracing::debug!(server = server.name(), ?names, "a certificate was exchanged"),
                Ok(Err(error)) => tracing::error!(error = format!("{error:#}"), "a certificate was not exchanged"),
                Err(late) => tracing::warn!(server = server.name(), %late, "a certificate waits for the next start"),
            }
        });
    }
}
