//! Whom to trust when dialling a server that is not one of ours, PostgreSQL say: a file of certificates. Shows no certificate.

use std::path::Path;

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};

/// Trusts the certificates (PEM) of `path` and no others.
///
/// # Errors
/// What is wrong with the file: unreadable, not PEM, not a certificate, or without any.
pub fn trusting(path: &Path) -> Result<ClientConfig, String> {
    Ok(ClientConfig::builder().with_root_certificates(roots_of(path)?).with_no_client_auth())
}

/// Trusts what the system trusts.
///
/// # Errors
/// When the system has no certificates.
pub fn trusting_as_the_system() -> Result<ClientConfig, String> {
    Ok(ClientConfig::builder().with_root_certificates(roots_of_the_system()?).with_no_client_auth())
}

pub(super) fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err(format!("{} holds none", path.display()));
    }
    Ok(roots)
}

pub(super) fn roots_of_the_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or("it has none".to_owned(), ToString::to_string);
        return Err(format!("the system's certificates cannot be read: {why}"));
    }
    Ok(roots)
}
