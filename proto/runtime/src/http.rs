//! One HTTP/1.1 request and its answer, as a client: protected by TLS or plain, within a time, a head and a body of bounded size, and
//! of the address that was given only: a redirect is an answer like any other. Errors never name the address, which may be a secret.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;
use crate::supervision::chain;
use crate::tls;

/// No answer has more headers, or a longer head.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Asks servers. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    trust: Trust,
    clock: Clock,
}

#[derive(Clone)]
enum Trust {
    Nobody,
    These(TlsConnector),
    /// Read when it is first needed.
    TheSystems(Arc<OnceLock<Result<TlsConnector, String>>>),
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// For everything, from the look-up of the name to the end of the answer.
    pub within: Duration,
    pub answer_bytes_max: usize,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most as much as was allowed.
    pub body: Bytes,
    /// Is that all of it?
    pub whole: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It can never work.
    #[error("the address is none that can be asked: {0}")]
    Address(String),
    #[error("nobody could be reached: {0}")]
    Unreached(String),
    #[error("there was no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("the answer is not HTTP, or ends in the middle: {0}")]
    Broken(String),
}

impl Client {
    /// Trusts the authorities in `ca_file`, or else the system's, which are read with the first call.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn new(ca_file: Option<&Path>, clock: Clock) -> Result<Client, String> {
        let trust = match ca_file {
            Some(path) => Trust::These(TlsConnector::from(Arc::new(tls::trusting(path)?))),
            None => Trust::TheSystems(Arc::default()),
        };
        Ok(Client { trust, clock })
    }

    /// Trusts, and says who it is, as `config` has it.
    pub fn over(config: Arc<ClientConfig>, clock: Clock) -> Client {
        Client { trust: Trust::These(TlsConnector::from(config)), clock }
    }

    /// For `http://` only.
    pub fn plain(clock: Clock) -> Client {
        Client { trust: Trust::Nobody, clock }
    }

    /// Asks, once.
    ///
    /// # Errors
    /// When there is no answer; one with a bad status is an answer.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, CallError> {
        let within = call.within;
        self.clock.timeout(within, self.dial(call)).await.map_err(|_| CallError::Late(within))?
    }

    async fn dial(&self, call: Call<'_>) -> Result<Answer, CallError> {
        let address = |why: String| CallError::Address(why);
        let uri: Uri = call.url.parse().map_err(|_| address("it is no URL".to_owned()))?;
        let host = tls::host(call.url);
        let (protected, port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(address("it begins neither with https:// nor with http://".to_owned())),
        };
        if host.is_empty() {
            return Err(address("it has no host".to_owned()));
        }
        let unreached = |error: &dyn std::error::Error| CallError::Unreached(chain(error));
        let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(port))).await;
        let stream = stream.map_err(|error| unreached(&error))?;
        stream.set_nodelay(true).map_err(|error| unreached(&error))?;
        if !protected {
            return exchange(stream, &uri, call).await;
        }
        let systems = || tls::trusting_as_the_system().map(|config| TlsConnector::from(Arc::new(config)));
        let tls = match &self.trust {
            Trust::Nobody => return Err(address("it is not http://".to_owned())),
            Trust::These(tls) => tls,
            Trust::TheSystems(read) => read.get_or_init(systems).as_ref().map_err(|why| address(why.clone()))?,
        };
        let name = ServerName::try_from(host).map_err(|error| address(error.to_string()))?;
        let stream = tls.connect(name, stream).await.map_err(|error| unreached(&error))?;
        exchange(stream, &uri, call).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    uri: &Uri,
    call: Call<'_>,
) -> Result<Answer, CallError> {
    let broken = |error: &dyn std::error::Error| CallError::Broken(chain(error));
    let mut shape = http1::Builder::new();
    shape.max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = shape.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(call.method).uri(path);
    let authority = uri.authority().map(|it| it.as_str().rsplit('@').next().unwrap_or_default());
    let authority = HeaderValue::from_str(authority.unwrap_or_default());
    let authority = authority.map_err(|error| CallError::Address(error.to_string()))?;
    if let Some(headers) = request.headers_mut() {
        headers.insert(header::HOST, authority);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.extend(call.headers);
    }
    let request = request.body(Full::new(call.body)).map_err(|error| CallError::Address(error.to_string()))?;
    let limit = call.answer_bytes_max;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let (mut body, mut read, mut whole) = (answer.into_body(), Vec::new(), true);
        while whole && let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            if let Ok(data) = frame.into_data() {
                let room = limit - read.len();
                whole = data.len() <= room;
                read.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok(Answer { status, headers, body: read.into(), whole })
    };
    // The connection moves the bytes; it ends with the exchange.
    tokio::pin!(asking);
    tokio::select! {
        done = &mut asking => done,
        ended = connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(broken(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// Answers the first caller with these bytes, again and again if so wished, and then says nothing more.
    async fn server(said: Vec<u8>, times: usize) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/path?x=1", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 2048];
            let _asked = stream.read(&mut head).await;
            for _ in 0..times {
                if stream.write_all(&said).await.is_err() {
                    return;
                }
            }
            std::future::pending().await
        });
        (base, tasks)
    }

    async fn asked(said: &str, times: usize) -> Result<Answer, CallError> {
        let (base, _server) = server(said.into(), times).await;
        let headers = HeaderMap::new();
        let within = Duration::from_millis(700);
        let call = Call { method: Method::POST, url: &base, headers, body: "{}".into(), within, answer_bytes_max: 100 };
        Client::plain(Clock::system()).call(call).await
    }

    #[tokio::test]
    async fn an_answer_is_read_whatever_its_status_and_a_redirect_is_not_followed() {
        let answer = asked("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 1).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..], answer.whole), (200, &b"ok"[..], true));
        let answer = asked("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 1).await;
        assert_eq!(answer.unwrap().status.as_u16(), 302);
    }

    #[tokio::test]
    async fn silence_slowness_and_garbage_end_in_time_and_say_so() {
        let late = CallError::Late(Duration::from_millis(700));
        assert_eq!(asked("", 0).await.unwrap_err(), late);
        assert_eq!(asked("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", 1).await.unwrap_err(), late);
        assert!(matches!(asked("SSH-2.0-OpenSSH\r\n\r\n", 1).await.unwrap_err(), CallError::Broken(_)));
        let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "y".repeat(70_000));
        assert!(matches!(asked(&head, 1).await.unwrap_err(), CallError::Broken(_)));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(100));
        assert!(matches!(asked(&many, 1).await.unwrap_err(), CallError::Broken(_)));
    }

    #[tokio::test]
    async fn a_body_without_end_is_cut_at_its_limit() {
        let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{}", "x".repeat(5000));
        let answer = asked(&endless, 1).await.unwrap();
        assert_eq!((answer.body.len(), answer.whole), (100, false));
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_said_without_the_address() {
        let client = Client::plain(Clock::system());
        for url in ["ftp://secret.example/", "https://secret.example/", "secret", "http:///secret"] {
            let within = Duration::from_secs(1);
            let call = Call {
                method: Method::GET,
                url,
                headers: HeaderMap::new(),
                body: Bytes::new(),
                within,
                answer_bytes_max: 1,
            };
            let error = client.call(call).await.unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
