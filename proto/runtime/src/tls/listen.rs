//! Connections taken in, plain or with TLS. Handshakes go on beside each other, each within a time and only so many at once, so
//! that nobody who says nothing keeps others out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use rustls::{CertificateError, Error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::files::Credentials;
use super::names::{Certificate, Peer};
use crate::clock::Clock;

/// A handshake that takes longer is cut.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Handshakes at once, those included whose connection waits to be ready; more wait in the system's queue.
const HANDSHAKES_MAX: usize = 256;
/// Accepted connections that nobody has taken yet.
const READY_MAX: usize = 64;
/// After the system refused a connection (too many open files, say).
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Which of the doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// HTTP/2; nobody without a certificate.
    Callers,
    /// HTTP/2; who shows no certificate is nobody yet, and has to say who it is in another way.
    Anyone,
    /// HTTP/1.1; who shows no certificate is nobody, and comes in as that.
    Pages,
}

/// Somebody was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub address: SocketAddr,
    /// One of `none`, `expired`, `not_yet_valid`, `unknown_authority`, `wrong_purpose`, `withdrawn`, `invalid`, `protocol`, `slow`.
    pub reason: &'static str,
    /// For people.
    pub what: String,
}

/// One taken in.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: Peer,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// The connections of one listener, as they come; dropping it ends the listening.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
    _accepting: JoinSet<()>,
}

/// What is told of those who are not let in.
type Refused = Arc<dyn Fn(Refusal) + Send + Sync>;

impl Incoming {
    /// Without protection.
    ///
    /// # Errors
    /// When the listener is none any more.
    pub fn plain(listener: TcpListener, clock: Clock) -> io::Result<Incoming> {
        Incoming::start(listener, clock, None)
    }

    /// With TLS 1.3; `refused` is told of everybody who is not let in.
    ///
    /// # Errors
    /// When the listener is none any more.
    pub fn tls(
        listener: TcpListener,
        clock: Clock,
        door: Door,
        credentials: Arc<Credentials>,
        refused: impl Fn(Refusal) + Send + Sync + 'static,
    ) -> io::Result<Incoming> {
        Incoming::start(listener, clock, Some((door, credentials, Arc::new(refused))))
    }

    fn start(
        listener: TcpListener,
        clock: Clock,
        tls: Option<(Door, Arc<Credentials>, Refused)>,
    ) -> io::Result<Incoming> {
        listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, clock, tls, sender));
        Ok(Incoming { ready, _accepting: accepting })
    }
}

async fn accept(
    listener: TcpListener,
    clock: Clock,
    tls: Option<(Door, Arc<Credentials>, Refused)>,
    ready: mpsc::Sender<Connection>,
) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while handshakes.try_join_next().is_some() {}
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                clock.sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Only a hint to the system.
        let _ = stream.set_nodelay(true);
        let Some((door, credentials, refused)) = &tls else {
            let peer = Peer { address, secured: false, certificate: None };
            if ready.send(Connection { io: Io::Plain(stream), peer }).await.is_err() {
                return;
            }
            continue;
        };
        let acceptor = TlsAcceptor::from(credentials.current().server(*door));
        let (refused, ready, clock) = (Arc::clone(refused), ready.clone(), clock.clone());
        handshakes.spawn(async move {
            // Kept until the connection is ready to be taken: those that nobody takes are not to pile up.
            let _permit = permit;
            match greet(acceptor, stream, address, &clock).await {
                // Nobody takes it any more: it is closed.
                Ok(Some(connection)) => drop(ready.send(connection).await),
                Ok(None) => {}
                Err(refusal) => refused(refusal),
            }
        });
    }
}

/// `None`: it went away by itself, as a look whether the port is open does.
async fn greet(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    clock: &Clock,
) -> Result<Option<Connection>, Refusal> {
    let refusal = |reason, what: String| Refusal { address, reason, what };
    let greeted = clock.timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await;
    let greeted = greeted.map_err(|elapsed| refusal("slow", format!("the handshake was {elapsed}")))?;
    let stream = match greeted {
        Ok(stream) => stream,
        Err(error) => {
            let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return Ok(None) };
            return Err(refusal(reason(cause), cause.to_string()));
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(Certificate::read).transpose().map_err(|what| refusal("invalid", what))?;
    let peer = Peer { address, secured: true, certificate: certificate.map(Arc::new) };
    Ok(Some(Connection { io: Io::Tls(Box::new(stream)), peer }))
}

fn reason(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "none",
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not_yet_valid",
            // Another authority of the same name signs with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_authority",
            CertificateError::Revoked => "withdrawn",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "wrong_purpose",
            _ => "invalid",
        },
        Error::InvalidCertRevocationList(_) => "invalid",
        _ => "protocol",
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// What tonic puts into the extensions of every request.
impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
