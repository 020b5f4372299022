//! Connections that can be cut: a listener whose connections carry a switch, so that an answer can be lost on its way. One that
//! does not finish the head of a request within a limit is closed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use runtime::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// How long the head of a request may take, the wait for its first byte included.
const HEAD_WAIT: Duration = Duration::from_secs(20);
/// Between two tries to take a connection when the system has no more of something.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Cuts the connection it belongs to: nothing more is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<AtomicBool>);

impl Switch {
    /// From now on every write fails, and so the connection closes.
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A loopback listener.
#[derive(Debug)]
pub(crate) struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds a loopback port that the system chooses.
    pub(crate) async fn bind() -> io::Result<Self> {
        let inner = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = inner.local_addr()?;
        Ok(Self { inner, address })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. What keeps one from being taken is waited out.
    pub(crate) async fn accept(&self) -> Connection {
        loop {
            match self.inner.accept().await {
                Ok((stream, _)) => {
                    // Only slower without it.
                    let _ = stream.set_nodelay(true);
                    return Connection { stream, switch: Switch::default() };
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    Clock::system().sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

/// A connection with its switch.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    switch: Switch,
}

impl Connection {
    /// Answers its requests until it ends.
    pub(crate) async fn serve(self, router: Router) {
        let router = router.layer(Extension(ConnectInfo(self.switch.clone())));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
        let served = http.serve_connection(TokioIo::new(self), TowerToHyperService::new(router)).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.switch.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
