//! What a certificate says of its holder: its URIs, its end, its serial number. Nothing is decided here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The URIs among its subject's alternative names.
    pub uris: Vec<String>,
    /// Its last moment.
    pub not_after: Timestamp,
    /// In hexadecimal, as tools show it.
    pub serial: String,
    /// Who issued it.
    pub issuer: String,
}

/// Certificates that their issuers have taken back, by issuer and serial number.
#[derive(Debug, Default)]
pub(super) struct Withdrawn(BTreeSet<(String, String)>);

impl Withdrawn {
    /// Adds what stands in a revocation list.
    pub(super) fn add(&mut self, list: &[u8]) -> Result<(), String> {
        let failed = |error: x509_cert::der::Error| format!("the list cannot be read: {error}");
        let list = x509_cert::crl::CertificateList::from_der(list).map_err(failed)?.tbs_cert_list;
        let issuer = list.issuer.to_string();
        let entries = list.revoked_certificates.into_iter().flatten();
        self.0.extend(entries.map(|entry| (issuer.clone(), hexadecimal(entry.serial_number.as_bytes()))));
        Ok(())
    }

    pub(super) fn holds(&self, certificate: &Certificate) -> bool {
        !self.0.is_empty() && self.0.contains(&(certificate.issuer.clone(), certificate.serial.clone()))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub(super) fn read(der: &CertificateDer<'_>) -> Result<Certificate, String> {
        let failed = |error: x509_cert::der::Error| format!("the certificate cannot be read: {error}");
        let parsed = x509_cert::Certificate::from_der(der).map_err(failed)?.tbs_certificate;
        let names = parsed.get::<SubjectAltName>().map_err(failed)?;
        let uris = names.iter().flat_map(|(_, names)| &names.0).filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
            _ => None,
        });
        let end = parsed.validity.not_after.to_unix_duration().as_secs();
        let end = i64::try_from(end).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let serial = hexadecimal(parsed.serial_number.as_bytes());
        let issuer = parsed.issuer.to_string();
        Ok(Certificate { uris: uris.collect(), not_after: end.unwrap_or(Timestamp::MAX), serial, issuer })
    }
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Is the connection protected?
    pub secured: bool,
    /// What it showed; `None` on a plain connection, and where showing one is optional.
    pub certificate: Option<Arc<Certificate>>,
}
