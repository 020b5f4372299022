//! Dials a gRPC server, plain or with TLS 1.3. The server's certificate is verified in full, against the host that is dialled
//! or the name that was configured for all.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::files::Credentials;
use super::trust::trusting;

/// How a server is dialled.
#[derive(Debug, Clone)]
pub enum Way {
    /// `http://`, without protection: for loopback, where it was asked for.
    Plain,
    /// `https://`: both show certificates, the server's must be for `name`, or for the host that is dialled.
    Tls { credentials: Arc<Credentials>, name: Option<String> },
    /// `https://`: only the server shows a certificate, for the host that is dialled.
    Unnamed { trust: Arc<ClientConfig> },
}

/// The dialling failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{url} is not an address: write {scheme}://HOST:PORT")]
    Address { url: String, scheme: &'static str },
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

impl Way {
    /// The scheme of its addresses.
    pub fn scheme(&self) -> &'static str {
        match self {
            Way::Plain => "http",
            Way::Tls { .. } | Way::Unnamed { .. } => "https",
        }
    }

    /// Shows no certificate, and trusts the authorities of `path` (PEM).
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn unnamed(path: &Path) -> Result<Way, String> {
        let mut trust = trusting(path)?;
        trust.alpn_protocols = vec![b"h2".to_vec()];
        trust.resumption = rustls::client::Resumption::disabled();
        Ok(Way::Unnamed { trust: Arc::new(trust) })
    }
}

/// Dials `url`; `tune` sets time-outs and the like.
///
/// # Errors
/// When the address is none of this way, nobody answers, or the server is not who it should be.
pub async fn connect(url: &str, way: &Way, tune: impl FnOnce(Endpoint) -> Endpoint) -> Result<Channel, DialError> {
    let wrong = || DialError::Address { url: url.to_owned(), scheme: way.scheme() };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some(way.scheme()) || uri.host().is_none() {
        return Err(wrong());
    }
    match way {
        Way::Plain => Ok(tune(Endpoint::from(uri)).connect().await?),
        Way::Tls { credentials, name } => {
            let name = name.clone().unwrap_or_else(|| host(url));
            protected(url, uri, credentials.current().client.clone(), name, tune).await
        }
        Way::Unnamed { trust } => protected(url, uri, Arc::clone(trust), host(url), tune).await,
    }
}

async fn protected(
    url: &str,
    uri: Uri,
    config: Arc<ClientConfig>,
    name: String,
    tune: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, DialError> {
    let wrong = |_| DialError::Address { url: url.to_owned(), scheme: "https" };
    let connector = Connector { tls: TlsConnector::from(config), name: ServerName::try_from(name).map_err(wrong)? };
    // The connector protects the connection; to the client beneath it is plain.
    let beneath = url.replacen("https://", "http://", 1);
    let endpoint = tune(Endpoint::from_shared(beneath)?).origin(uri);
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// The host of a URL, a name or an address; empty when there is none.
pub fn host(url: &str) -> String {
    let uri = url.parse::<Uri>().unwrap_or_default();
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Does the URL lead to this machine, by address or as `localhost`?
pub fn is_loopback_url(url: &str) -> bool {
    let host = host(url);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What the other side said when it did not accept our certificate, if that is why something failed.
pub fn refused_by_peer(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(format!("{alert:?}"));
        }
        next = error.source();
    }
    None
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { tls, name } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            let mut stream = tls.connect(name, stream).await?;
            // In TLS 1.3 a client has finished before the server has judged its certificate. A server of HTTP/2 speaks first,
            // so its first words, or its refusal, are waited for: the refusal would be lost among requests under way.
            if stream.fill_buf().await?.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection unasked"));
            }
            Ok(TokioIo::new(stream))
        })
    }
}
