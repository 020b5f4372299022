//! For tests of the machinery alone, which have servers and no names: a TCP forwarder with a stable address whose target moves.
//! Clusters have none: their names lead straight to servers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A forwarder. Clones share it; when the last one goes, it stops listening and its connections end.
#[derive(Debug, Clone)]
pub(crate) struct Forwarder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Forwarder {
    /// Listens on `address` and forwards to `target`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let (target, targets) = watch::channel(target);
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(listener, targets, stop.clone())));
        let guard = stop.clone().drop_guard();
        Ok(Self(Arc::new(Inner { address, target, stop, _guard: guard })))
    }

    /// Where it listens; never changes.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where new connections go. Those already open stay where they are.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.0.target.send_replace(target);
    }

    /// Stops listening and ends every connection.
    pub(crate) fn stop(&self) {
        self.0.stop.cancel();
    }
}

async fn serve(listener: TcpListener, targets: watch::Receiver<SocketAddr>, stop: CancellationToken) {
    while let Ok((client, _)) = listener.accept().await {
        let target = *targets.borrow();
        tokio::spawn(stop.clone().run_until_cancelled_owned(pass(client, target)));
    }
}

/// Carries one connection to its end; a target that refuses ends it at once.
async fn pass(mut client: TcpStream, target: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    // Either side may go at any moment; that ends the connection and is no news.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
