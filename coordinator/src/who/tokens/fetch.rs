//! One GET over TLS, for a provider's keys: within a time and a length, and of that address only. Nothing is sent but the path.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use runtime::clock::Clock;
use runtime::supervision::chain;
use runtime::tls;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One request, answer included.
const WITHIN: Duration = Duration::from_secs(3);
/// No answer is longer.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 10;

pub(super) struct Fetch {
    tls: TlsConnector,
    clock: Clock,
}

impl Fetch {
    /// Trusts the authorities in `ca_file`, or else the system's.
    pub(super) fn new(ca_file: Option<&Path>, clock: Clock) -> Result<Fetch, String> {
        let config = match ca_file {
            Some(path) => tls::trusting(path).map_err(|error| format!("oidc.ca_file: {error}"))?,
            None => tls::trusting_as_the_system()?,
        };
        Ok(Fetch { tls: TlsConnector::from(Arc::new(config)), clock })
    }

    pub(super) async fn get(&self, url: &str) -> Result<Bytes, String> {
        let got = self.clock.timeout(WITHIN, self.ask(url)).await;
        got.map_err(|elapsed| elapsed.to_string()).flatten().map_err(|error| format!("GET {url}: {error}"))
    }

    async fn ask(&self, url: &str) -> Result<Bytes, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let host = tls::host(url);
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return Err("it is not https://HOST".to_owned());
        }
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| chain(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
        let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path).header(header::HOST, authority).header(header::ACCEPT, "application/json");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| chain(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(format!("it answered {status}")) }
        };
        // The connection moves the bytes; it ends with the exchange.
        tokio::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            ended = connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(chain(&error)),
            }
        }
    }
}
