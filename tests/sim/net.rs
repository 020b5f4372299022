//! The simulated network beneath gRPC: a listener for the coordinator's server, a dialler for the agent's client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use agent::link::Network;
use futures_util::Stream;
use hyper_util::rt::TokioIo;
use runtime::tls::Peer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

/// An accepted connection, plain: whoever can dial may do everything.
pub(super) struct Accepted(TcpStream, Peer);

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.1.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Whoever dials this host.
pub(super) async fn listen(port: u16) -> io::Result<impl Stream<Item = io::Result<Accepted>> + Send> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    Ok(futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, address)| {
            let peer = Peer { address, secured: false, certificate: None };
            Accepted(stream, peer)
        });
        Some((accepted, listener))
    }))
}

#[derive(Clone)]
struct Dialler;

impl Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(80));
            Ok(TokioIo::new(TcpStream::connect((host, port)).await?))
        })
    }
}

/// The agent's way out.
pub(super) fn network() -> Network {
    Arc::new(|endpoint| Box::pin(async move { endpoint.connect_with_connector(Dialler).await }))
}
