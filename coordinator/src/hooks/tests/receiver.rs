//! A real HTTP server on loopback that takes what hooks send and answers as the test wants: well, badly, slowly, never, without end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use runtime::clock::Clock;
use runtime::played::http_request;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Took {
    pub(super) head: String,
    pub(super) body: String,
}

impl Took {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What it says to one request.
#[derive(Debug, Clone)]
pub(super) enum Says {
    /// A status line without `HTTP/1.1`, further headers, and a body.
    Answer(&'static str, &'static str),
    /// These bytes, and no more.
    Bytes(&'static str),
    /// A good head, and a body that does not end.
    Endless,
    /// A byte now and then.
    Slowly,
    /// Nothing, for ever.
    Nothing,
}

pub(super) struct Receiver {
    pub(super) url: String,
    took: Arc<Mutex<Vec<Took>>>,
    says: Arc<Mutex<VecDeque<Says>>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub(super) async fn plain() -> Receiver {
        Receiver::start(None).await
    }

    pub(super) async fn start(tls: Option<TlsAcceptor>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/services/T0/B0/secret-path", listener.local_addr().unwrap());
        let (took, says) = (Arc::<Mutex<Vec<Took>>>::default(), Arc::<Mutex<VecDeque<Says>>>::default());
        let (taken, said) = (took.clone(), says.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (taken, said, tls) = (taken.clone(), said.clone(), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => serve(stream, &taken, &said).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &taken, &said).await;
                            }
                        }
                    }
                });
            }
        });
        Receiver { url, took, says, _tasks: tasks }
    }

    /// The next requests are answered so, one after the other; others with 200.
    pub(super) fn says(&self, says: impl IntoIterator<Item = Says>) {
        self.says.lock().unwrap().extend(says);
    }

    pub(super) fn took(&self) -> Vec<Took> {
        self.took.lock().unwrap().clone()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, took: &Mutex<Vec<Took>>, says: &Mutex<VecDeque<Says>>) {
    let Some((head, body)) = http_request(&mut stream).await else { return };
    took.lock().unwrap().push(Took { head, body });
    let says = says.lock().unwrap().pop_front().unwrap_or(Says::Answer("200 OK\r\n", ""));
    let clock = Clock::system();
    match says {
        Says::Answer(head, body) => {
            let answer = format!("HTTP/1.1 {head}content-length: {}\r\n\r\n{body}", body.len());
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
        Says::Bytes(bytes) => {
            let _gone = stream.write_all(bytes.as_bytes()).await;
        }
        Says::Endless => {
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
        Says::Slowly => {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" {
                clock.sleep(std::time::Duration::from_millis(200)).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        }
        Says::Nothing => std::future::pending().await,
    }
    let _gone = stream.shutdown().await;
}
