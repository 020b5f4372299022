//! One HTTP exchange with an ingestion system: a connection of its own, plain or with TLS, within a time and a length.
//! Nothing is kept open between exchanges, so that a server that was restarted costs no failure of its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap, Method,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
};
use runtime::{
    clock::Clock,
    http::{self, Answer, Client},
    tls,
};
use rustls::ClientConfig;
use serde::Deserialize;

/// One exchange, connection and answer included.
pub(super) const EXCHANGE_WITHIN: Duration = Duration::from_secs(2);
/// A connector's status carries the traces of its failures, an object of Kubernetes who managed which field.
pub(super) const ANSWER_BYTES_MAX: usize = 2 << 20;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Whole, with scheme and host.
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    /// Its content type and itself.
    pub(super) body: Option<(&'static str, String)>,
}

impl Call {
    pub(super) fn new(method: Method, url: String) -> Call {
        Call { method, url, headers: Vec::new(), body: None }
    }
}

/// Asks, and takes any answer for one. `tls` is needed for `https://` and not used for `http://`.
pub(super) async fn exchange(clock: &Clock, tls: Option<Arc<ClientConfig>>, call: Call) -> Result<Answer, String> {
    let client = match tls {
        Some(tls) => Client::over(tls, clock.clone()),
        None => Client::plain(clock.clone()),
    };
    let mut headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
    for (name, value) in call.headers {
        headers.insert(name, value.parse().map_err(|error| format!("{error}"))?);
    }
    let body = call.body.map(|(kind, body)| {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        body
    });
    let asked = http::Call {
        method: call.method,
        url: &call.url,
        headers,
        body: Bytes::from(body.unwrap_or_default()),
        within: EXCHANGE_WITHIN,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let answer = client.call(asked).await.map_err(|error| error.to_string())?;
    if !answer.whole {
        return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
    }
    Ok(answer)
}

/// Whom to trust, read anew for every connection, so that a file that changed is taken.
pub(super) fn trust(url: &str, ca_file: Option<&PathBuf>) -> Result<Option<Arc<ClientConfig>>, String> {
    if !url.starts_with("https://") {
        return Ok(None);
    }
    let config = match ca_file {
        Some(path) => tls::trusting(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => tls::trusting_as_the_system()?,
    };
    Ok(Some(Arc::new(config)))
}

/// The value of `Authorization` for a user and a password.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// A part of a path, whatever stands in it.
pub(super) fn part(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

/// Backlog and rate from somewhere else than the system itself: an address that answers with the JSON of the kind `http`.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) url: String,
    pub(super) clock: Clock,
}

/// What is known of a system's work; what is not measured is none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
pub(super) struct Work {
    pub(super) backlog: Option<u64>,
    pub(super) rate: Option<f64>,
}

impl Figures {
    /// Nothing is known where nobody answers: the state of the system does not depend on it.
    pub(super) async fn look(figures: Option<&Figures>) -> Work {
        let Some(Figures { url, clock }) = figures else { return Work::default() };
        let answer = match trust(url, None) {
            Ok(tls) => exchange(clock, tls, Call::new(Method::GET, url.clone())).await,
            Err(error) => Err(error),
        };
        let read = answer.and_then(|answer| match answer.status.is_success() {
            true => serde_json::from_slice::<Work>(&answer.body).map_err(|error| error.to_string()),
            false => Err(format!("it answered {}", answer.status)),
        });
        read.unwrap_or_else(|error| {
            tracing::debug!(url, error, "backlog and rate are not known");
            Work::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
    };
    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Answers the first request that comes, over TLS where it has a certificate.
    async fn server(tls: Option<TlsAcceptor>, body: String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            match tls {
                None => say(stream, &answer).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => say(stream, &answer).await,
                    Err(_refused) => {}
                },
            }
        });
        port
    }

    async fn say<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str) {
        let _asked = stream.read(&mut [0; 1024]).await;
        let _refused = stream.write_all(answer.as_bytes()).await;
        let _gone = stream.shutdown().await;
    }

    fn get(url: String) -> Call {
        Call::new(Method::GET, url)
    }

    #[tokio::test]
    async fn a_server_is_trusted_by_the_file_that_is_named_and_by_no_other() {
        runtime::crypto::install();
        let made = |file: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let path = std::env::temp_dir().join(format!("web-{file}-{}.pem", std::process::id()));
            std::fs::write(&path, certificate.pem()).unwrap();
            (certificate.der().to_vec(), key.serialize_der(), path)
        };
        let (certificate, key, ours) = made("ours");
        let (_, _, others) = made("others");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate)], PrivateKeyDer::try_from(key).unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let clock = Clock::system();
        for (file, taken) in [(&ours, true), (&others, false)] {
            let url = format!("https://localhost:{}/x", server(Some(acceptor.clone()), "{}".into()).await);
            let tls = trust(&url, Some(file)).unwrap();
            let answer = exchange(&clock, tls, get(url)).await;
            assert_eq!(answer.is_ok(), taken, "{answer:?}");
        }
        assert!(trust("https://localhost", Some(&"/nowhere.pem".into())).unwrap_err().starts_with("/nowhere.pem: "));
        assert!(trust("http://localhost", None).unwrap().is_none());
    }

    #[tokio::test]
    async fn an_exchange_has_a_length_and_a_time() {
        let clock = Clock::system();
        let long = server(None, " ".repeat(ANSWER_BYTES_MAX + 1)).await;
        let error = exchange(&clock, None, get(format!("http://127.0.0.1:{long}/"))).await.unwrap_err();
        assert!(error.contains("its answer is longer than"), "{error}");
        // One that takes the connection and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let began = clock.mono();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        exchange(&clock, None, get(url)).await.unwrap_err();
        let took = clock.mono().since(began);
        assert!((EXCHANGE_WITHIN..EXCHANGE_WITHIN * 5).contains(&took), "it took {took:?}");
    }

    #[test]
    fn whatever_stands_in_a_name_is_one_part_of_a_path() {
        assert_eq!(part("orders-sink_1.2~"), "orders-sink_1.2~");
        assert_eq!(part("a/b ?ü"), "a%2Fb%20%3F%C3%BC");
    }

    #[test]
    fn a_user_and_a_password_are_said_as_the_standard_says() {
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
