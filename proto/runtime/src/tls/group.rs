//! Servers among which names move, as at a switchover: a name leads to another server at once, and that server's certificate
//! follows some time later. Whoever verifies one name alone is shut out meanwhile.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::trust::{roots_of, roots_of_the_system};

/// More names than a cluster has; further ones are verified as they are.
const NAMES_MAX: usize = 256;

/// The names of one group of servers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Group(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    all: BTreeSet<String>,
    /// Those that were dialled last when the certificate there was for another name.
    behind: BTreeSet<String>,
}

impl Group {
    /// One more name of the group: from now on a certificate for it is good for each of its servers.
    pub fn add(&self, name: &str) {
        let all = &mut self.names().all;
        if all.len() < NAMES_MAX && !all.contains(name) {
            all.insert(name.to_owned());
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> Vec<ServerName<'static>> {
        self.names().all.iter().filter_map(|name| ServerName::try_from(name.clone()).ok()).collect()
    }

    /// Says once when a name's certificate is behind, and once when it has followed.
    fn followed(&self, name: &ServerName<'_>, followed: bool) {
        let (name, behind) = (name.to_str(), &mut self.names().behind);
        if followed && behind.remove(&*name) {
            tracing::info!(%name, "the certificate has followed the name");
        } else if !followed && behind.insert(name.clone().into_owned()) {
            tracing::warn!(%name, "the certificate is for another name of the cluster; clients that verify this one are refused there");
        }
    }

    /// Trusts the certificates (PEM) of `path`, or what the system trusts, for the name that is dialled and for the others of the
    /// group. Chain and dates are verified as ever.
    ///
    /// # Errors
    /// What is wrong with the file, or that the system has no certificates.
    pub fn trusting(&self, path: Option<&Path>) -> Result<ClientConfig, String> {
        let roots = path.map_or_else(roots_of_the_system, roots_of)?;
        let builder = ClientConfig::builder();
        let provider = Arc::clone(builder.crypto_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let inner = inner.map_err(|error| error.to_string())?;
        let verifier = Arc::new(OfTheGroup { inner, group: self.clone() });
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

/// Judges as `inner` does; a certificate that is for another name is judged once more for each name of the group.
#[derive(Debug)]
struct OfTheGroup {
    inner: Arc<WebPkiServerVerifier>,
    group: Group,
}

fn is_for_another_name(error: &Error) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(error, Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
}

impl ServerCertVerifier for OfTheGroup {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge =
            |name: &ServerName<'_>| self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        match judge(server_name) {
            Ok(verified) => {
                self.group.followed(server_name, true);
                Ok(verified)
            }
            Err(error) if is_for_another_name(&error) => {
                let verified = self.group.others().iter().find_map(|name| judge(name).ok()).ok_or(error)?;
                self.group.followed(server_name, false);
                Ok(verified)
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Issuer {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Shakes hands with a server that shows a certificate of `issuer` for `shown`, dialled by `name`.
    async fn dialled(trust: ClientConfig, issuer: &Issuer, shown: &str, name: &str) -> Result<(), String> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![shown.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let (client, end) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(trust));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (dialled, _) = tokio::join!(connector.connect(name, client), acceptor.accept(end));
        dialled.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_certificate_is_good_for_any_name_of_the_group_and_for_no_other() {
        crate::crypto::install();
        let (ours, others) = (authority(), authority());
        let file = std::env::temp_dir().join(format!("group-{}.pem", std::process::id()));
        std::fs::write(&file, ours.pem()).unwrap();
        let group = Group::default();
        let trust = || group.trusting(Some(&file)).unwrap();
        group.add("blue.example");
        let refused = dialled(trust(), &ours, "green.example", "blue.example").await.unwrap_err();
        assert!(refused.contains("not valid for name"), "{refused}");
        group.add("green.example");
        dialled(trust(), &ours, "green.example", "blue.example").await.expect("a name of the group");
        assert!(group.names().behind.contains("blue.example"), "it is not known as behind");
        dialled(trust(), &ours, "blue.example", "blue.example").await.expect("its own name");
        assert!(group.names().behind.is_empty(), "it has followed");
        let refused = dialled(trust(), &ours, "foreign.example", "blue.example").await.unwrap_err();
        assert!(refused.contains("not valid for name"), "{refused}");
        let refused = dialled(trust(), &others, "green.example", "blue.example").await.unwrap_err();
        assert!(refused.contains("invalid peer certificate") && !refused.contains("name"), "{refused}");
        std::fs::remove_file(&file).unwrap();
    }
}
