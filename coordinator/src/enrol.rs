//! A small certificate authority for those who have none: a key and a certificate in a folder, and certificates for agents,
//! operators and coordinators from it, written as cert-manager would mount them.
//!
//! What is kept: `ca.crt` and `ca.key` of the authority, and the list of what it took back. Of what was issued nothing is remembered. Keys are written for their
//! owner's eyes only, and never shown.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use proto::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::der::{Decode as _, Encode as _};

/// How the authority is called, before a part of its own.
const CALLED: &str = "Upgrade Pilot CA";
/// How long the authority is good for.
const AUTHORITY_FOR: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// Certificates begin this long ago, for clocks that are behind.
const BEHIND: SignedDuration = SignedDuration::from_mins(5);

/// No certificate came about.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("{what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} is not an authority that `pilot agents enrol` has made: {why}", path.display())]
    Authority { path: PathBuf, why: &'static str },
    #[error("{0:?} cannot stand in a certificate")]
    Name(String),
    #[error("making the certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("{0} is no time that a certificate can have")]
    Time(Timestamp),
    #[error("{}: {why}", path.display())]
    Foreign { path: PathBuf, why: &'static str },
    #[error("{0:?} is no serial number: write it in hexadecimal")]
    Serial(String),
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An agent or an operator: it dials.
    Caller(Identity),
    /// A coordinator, by all names and addresses that it is dialled by.
    Coordinator(Vec<String>),
}

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Validity {
    /// From now on, with some patience for clocks that are behind.
    pub fn days(now: Timestamp, days: u32) -> Validity {
        let until = now.saturating_add(SignedDuration::from_hours(i64::from(days) * 24)).unwrap_or(Timestamp::MAX);
        Validity { from: now.saturating_sub(BEHIND).unwrap_or(now), until }
    }
}

/// A certificate to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withdraw {
    /// The certificate itself (PEM).
    File(PathBuf),
    /// Its serial number, in hexadecimal, as `pilot agents enrol` has said it.
    Serial(String),
}

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate with its key, and the authority to trust.
pub struct Issued {
    serial: String,
    certificate: String,
    key: String,
    authority: String,
}

impl Authority {
    /// The authority in `folder`; made when the folder has none.
    ///
    /// # Errors
    /// When files cannot be read or written, or are another's.
    pub fn open_or_make(folder: &Path, now: Timestamp) -> Result<Authority, EnrolError> {
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        if certificate.exists() || key.exists() {
            return Authority::open(&certificate, &key);
        }
        let made = Authority::make(now)?;
        make_folder(folder)?;
        write(&key, &made.issuer.key().serialize_pem(), 0o600)?;
        write(&certificate, &made.certificate, 0o644)?;
        Ok(made)
    }

    /// A new one, kept nowhere.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn make(now: Timestamp) -> Result<Authority, EnrolError> {
        let key = KeyPair::generate()?;
        let until = now.saturating_add(AUTHORITY_FOR).unwrap_or(Timestamp::MAX);
        // A part of its own, so that one authority is never taken for another.
        let called = format!("{CALLED} {}", uuid::Uuid::now_v7().simple());
        let params = authority(&called, Validity { from: now.saturating_sub(BEHIND).unwrap_or(now), until })?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    fn open(certificate: &Path, key: &Path) -> Result<Authority, EnrolError> {
        let other = |why| EnrolError::Authority { path: certificate.to_owned(), why };
        let pem = read(certificate)?;
        // What a parser says of a key may repeat parts of it.
        let pair = KeyPair::from_pem(&read(key)?).map_err(|_| other("ca.key is no private key"))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| other("ca.crt is no certificate"))?;
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|_| other("ca.crt is no certificate"))?;
        let parsed = parsed.tbs_certificate;
        let public = parsed.subject_public_key_info.to_der().map_err(|_| other("ca.crt has no public key"))?;
        if public != pair.subject_public_key_info() {
            return Err(other("ca.key does not belong to ca.crt"));
        }
        let called = parsed.subject.to_string();
        let called =
            called.strip_prefix("CN=").filter(|name| name.starts_with(CALLED) && !name.contains(['+', ',', '\\']));
        let called = called.ok_or_else(|| other("its subject is another"))?;
        let any = Validity { from: Timestamp::UNIX_EPOCH, until: Timestamp::UNIX_EPOCH };
        Ok(Authority { issuer: Issuer::new(authority(called, any)?, pair), certificate: pem })
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate, or no key can be made.
    pub fn issue(&self, subject: &Subject, validity: Validity) -> Result<Issued, EnrolError> {
        let key = KeyPair::generate()?;
        let mut params = dated(validity)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (called, names, purpose) = match subject {
            Subject::Caller(identity) => {
                let uris: Result<Vec<_>, _> = identity.uris().into_iter().map(uri).collect();
                ("upgrade-pilot caller".to_owned(), uris?, Purpose::ClientAuth)
            }
            Subject::Coordinator(hosts) => {
                let names: Result<Vec<_>, _> = hosts.iter().map(|host| server_name(host)).collect();
                ("upgrade-pilot coordinator".to_owned(), names?, Purpose::ServerAuth)
            }
        };
        params.distinguished_name.push(DnType::CommonName, called);
        params.subject_alt_names = names;
        params.extended_key_usages = vec![purpose];
        let serial = serial();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let serial = hexadecimal(&serial);
        Ok(Issued { serial, certificate, key: key.serialize_pem(), authority: self.certificate.clone() })
    }

    /// Puts certificates on the list in `file`, which is made when it is not there, and whole at every moment. Returns how many
    /// stand on it now.
    ///
    /// # Errors
    /// When a certificate or the list is another authority's, or a file cannot be read or written.
    pub fn withdraw(&self, file: &Path, certificates: &[Withdraw], now: Timestamp) -> Result<usize, EnrolError> {
        let mut listed = if file.exists() { self.listed(file)? } else { BTreeMap::new() };
        for certificate in certificates {
            let serial = match certificate {
                Withdraw::File(path) => self.serial_of(path)?,
                Withdraw::Serial(text) => bytes(text).ok_or_else(|| EnrolError::Serial(text.clone()))?,
            };
            listed.entry(serial).or_insert(now.as_second());
        }
        let time = |at: i64| time::OffsetDateTime::from_unix_timestamp(at).map_err(|_| EnrolError::Time(now));
        let revoked = listed.iter().map(|(serial, at)| {
            let serial_number = SerialNumber::from_slice(serial);
            Ok(RevokedCertParams {
                serial_number,
                revocation_time: time(*at)?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: time(now.as_second())?,
            next_update: time(now.saturating_add(AUTHORITY_FOR).unwrap_or(Timestamp::MAX).as_second())?,
            crl_number: SerialNumber::from(now.as_second().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_, EnrolError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        write(file, &list.signed_by(&self.issuer)?.pem()?, 0o644)?;
        Ok(listed.len())
    }

    /// What stands on our list, with when it came there.
    fn listed(&self, file: &Path) -> Result<BTreeMap<Vec<u8>, i64>, EnrolError> {
        let foreign = |why| EnrolError::Foreign { path: file.to_owned(), why };
        let pem = read(file)?;
        let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| foreign("it is no list of withdrawn certificates"))?;
        let list = x509_cert::crl::CertificateList::from_der(&der);
        let list = list.map_err(|_| foreign("it is no list of withdrawn certificates"))?.tbs_cert_list;
        if list.issuer.to_string() != self.called()? {
            return Err(foreign("it is the list of another authority"));
        }
        let entries = list.revoked_certificates.into_iter().flatten();
        let entry = |entry: x509_cert::crl::RevokedCert| {
            let at = entry.revocation_date.to_unix_duration().as_secs();
            (entry.serial_number.as_bytes().to_vec(), i64::try_from(at).unwrap_or_default())
        };
        Ok(entries.map(entry).collect())
    }

    fn serial_of(&self, path: &Path) -> Result<Vec<u8>, EnrolError> {
        let foreign = |why| EnrolError::Foreign { path: path.to_owned(), why };
        let pem = read(path)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| foreign("it is no certificate"))?;
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|_| foreign("it is no certificate"))?;
        let parsed = parsed.tbs_certificate;
        if parsed.issuer.to_string() != self.called()? {
            return Err(foreign("it is of another authority"));
        }
        Ok(parsed.serial_number.as_bytes().to_vec())
    }

    /// The authority's own subject.
    fn called(&self) -> Result<String, EnrolError> {
        let other = || EnrolError::Authority { path: "ca.crt".into(), why: "ca.crt is no certificate" };
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|_| other())?;
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|_| other())?;
        Ok(parsed.tbs_certificate.subject.to_string())
    }
}

/// A serial number that no certificate had, and that is positive.
fn serial() -> [u8; 16] {
    let mut serial = uuid::Uuid::now_v7().into_bytes();
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of hexadecimal digits, with or without colons between them, without leading zeros.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    if digits.is_empty() || digits.len() > 40 || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = digits.chunks(2).map(pair).collect::<Option<_>>()?;
    Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect()).filter(|bytes: &Vec<u8>| !bytes.is_empty())
}

impl Issued {
    /// Its number, in hexadecimal, by which it can be taken back.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Writes `ca.crt`, `tls.key` and `tls.crt`, each whole. Whoever reads between the last two waits for them to fit.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), EnrolError> {
        make_folder(folder)?;
        write(&folder.join("ca.crt"), &self.authority, 0o644)?;
        write(&folder.join("tls.key"), &self.key, 0o600)?;
        write(&folder.join("tls.crt"), &self.certificate, 0o644)
    }
}

fn authority(called: &str, validity: Validity) -> Result<CertificateParams, EnrolError> {
    let mut params = dated(validity)?;
    params.distinguished_name.push(DnType::CommonName, called);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn dated(validity: Validity) -> Result<CertificateParams, EnrolError> {
    let time =
        |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| EnrolError::Time(at));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = time(validity.from)?;
    params.not_after = time(validity.until)?;
    Ok(params)
}

fn uri(uri: String) -> Result<SanType, EnrolError> {
    Ok(SanType::URI(uri.as_str().try_into().map_err(|_| EnrolError::Name(uri.clone()))?))
}

fn server_name(host: &str) -> Result<SanType, EnrolError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || EnrolError::Name(host.to_owned());
    rustls::pki_types::DnsName::try_from(host).map_err(|_| wrong())?;
    Ok(SanType::DnsName(host.try_into().map_err(|_| wrong())?))
}

fn read(path: &Path) -> Result<String, EnrolError> {
    std::fs::read_to_string(path).map_err(|source| EnrolError::File { what: "reading", path: path.to_owned(), source })
}

fn make_folder(path: &Path) -> Result<(), EnrolError> {
    std::fs::create_dir_all(path).map_err(|source| EnrolError::File { what: "making", path: path.to_owned(), source })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), EnrolError> {
    let failed = |source| EnrolError::File { what: "writing", path: path.to_owned(), source };
    let beside = path.with_added_extension("new");
    // A rest of an attempt that was cut off may have other rights.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = std::fs::File::options().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_its_keys_are_for_its_owner_only() {
        let folder = std::env::temp_dir().join(format!("pilot-enrol-{}", uuid::Uuid::now_v7()));
        let now = runtime::clock::Clock::system().now();
        let first = Authority::open_or_make(&folder.join("ca"), now).unwrap();
        let again = Authority::open_or_make(&folder.join("ca"), now).unwrap();
        assert_eq!(first.certificate, again.certificate);
        let operator = Identity::Operator { name: "alice".into(), roles: [proto::identity::Role::View].into() };
        again.issue(&Subject::Caller(operator), Validity::days(now, 1)).unwrap().write(&folder.join("alice")).unwrap();
        for key in ["ca/ca.key", "alice/tls.key"] {
            let mode = std::fs::metadata(folder.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        // The key of another authority beside the certificate is found out before anything is issued.
        let other = Authority::make(now).unwrap();
        std::fs::write(folder.join("ca/ca.key"), other.issuer.key().serialize_pem()).unwrap();
        let error = Authority::open_or_make(&folder.join("ca"), now).err().unwrap().to_string();
        assert!(error.contains("ca.key does not belong to ca.crt"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_list_of_what_was_withdrawn_grows_and_takes_only_its_own() {
        let folder = std::env::temp_dir().join(format!("pilot-revoke-{}", uuid::Uuid::now_v7()));
        let now = runtime::clock::Clock::system().now();
        let (ours, other) = (Authority::make(now).unwrap(), Authority::make(now).unwrap());
        let issue = |authority: &Authority, name: &str| {
            let issued = authority.issue(&Subject::Coordinator(vec!["localhost".into()]), Validity::days(now, 1));
            let issued = issued.unwrap();
            issued.write(&folder.join(name)).unwrap();
            (Withdraw::File(folder.join(name).join("tls.crt")), Withdraw::Serial(issued.serial().to_owned()))
        };
        let list = folder.join("ca.crl");
        let ((file, number), (_, second)) = (issue(&ours, "one"), issue(&ours, "two"));
        assert_eq!(ours.withdraw(&list, std::slice::from_ref(&file), now).unwrap(), 1);
        assert_eq!(ours.withdraw(&list, &[number, file, second], now).unwrap(), 2, "the same again is one");
        let (foreign, _) = issue(&other, "foreign");
        assert!(matches!(ours.withdraw(&list, &[foreign], now), Err(EnrolError::Foreign { .. })));
        assert!(matches!(other.withdraw(&list, &[], now), Err(EnrolError::Foreign { .. })));
        for wrong in ["", "0", "00", "xy", "é"] {
            let refused = ours.withdraw(&list, &[Withdraw::Serial(wrong.into())], now);
            assert!(matches!(refused, Err(EnrolError::Serial(_))), "{wrong}: {refused:?}");
        }
        assert_eq!(ours.withdraw(&list, &[], now).unwrap(), 2);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_stand_in_a_certificate_is_refused() {
        let now = runtime::clock::Clock::system().now();
        let authority = Authority::make(now).unwrap();
        for host in ["", "two words", "höst"] {
            let issued = authority.issue(&Subject::Coordinator(vec![host.to_owned()]), Validity::days(now, 1));
            assert!(matches!(issued, Err(EnrolError::Name(_))), "{host}");
        }
    }
}
