//! The stable endpoint of a cluster: a TCP forwarder whose listening address never changes and whose target moves. It holds
//! no connection back and knows nothing of PostgreSQL: a client either gets through or is refused by the system.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a target may take to accept a connection before the client's is closed.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// After how long a port that could not be bound is tried again.
const REBIND: Duration = Duration::from_millis(5);

/// What a forwarder does with new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on to a target.
    Open,
    /// Does not listen: the system refuses them.
    Refuse,
}

/// What a forwarder has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections closed because no target took them.
    pub failed: u64,
}

/// A forwarder. Clones share it; when the last one goes, it stops listening and its connections end.
#[derive(Debug, Clone)]
pub struct Forwarder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    wanted: watch::Sender<Wanted>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug, Clone)]
struct Wanted {
    mode: Mode,
    targets: Vec<SocketAddr>,
    /// Cancelled to end the connections of this generation.
    connections: CancellationToken,
    delay: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    open: AtomicU64,
    failed: AtomicU64,
    turn: AtomicUsize,
    listening: AtomicBool,
    changed: tokio::sync::Notify,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Forwarder {
    /// Listens on `address` and forwards to `targets` in turn (none: connections are refused until one is set).
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, targets: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mode = if targets.is_empty() { Mode::Refuse } else { Mode::Open };
        let first = Wanted { mode, targets, connections: CancellationToken::new(), delay: Duration::ZERO };
        let wanted = watch::Sender::new(first);
        let shared = Arc::new(Shared { listening: AtomicBool::new(true), ..Shared::default() });
        let stop = CancellationToken::new();
        let held = (mode == Mode::Open).then_some(listener);
        shared.listening.store(held.is_some(), Ordering::Release);
        tokio::spawn(serve(address, held, wanted.subscribe(), Arc::clone(&shared), stop.clone()));
        Ok(Self(Arc::new(Inner { address, wanted, shared, stop })))
    }

    /// Where it listens; never changes.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where new connections go. Those already open stay where they are, as they would after a change of DNS.
    pub fn set_targets(&self, targets: Vec<SocketAddr>) {
        self.0.wanted.send_modify(|wanted| wanted.targets = targets);
    }

    /// The present targets.
    #[must_use]
    pub fn targets(&self) -> Vec<SocketAddr> {
        self.0.wanted.borrow().targets.clone()
    }

    /// Opens or refuses; returns when the system really does so.
    pub async fn set_mode(&self, mode: Mode) {
        self.0.wanted.send_modify(|wanted| wanted.mode = mode);
        loop {
            let changed = self.0.shared.changed.notified();
            if self.0.shared.listening.load(Ordering::Acquire) == (mode == Mode::Open) || self.0.stop.is_cancelled() {
                return;
            }
            changed.await;
        }
    }

    /// Ends every open connection.
    pub fn drop_connections(&self) {
        let mut old = None;
        self.0.wanted.send_modify(|wanted| old = Some(std::mem::take(&mut wanted.connections)));
        if let Some(old) = old {
            old.cancel();
        }
    }

    /// Waits this long before each new connection is passed on.
    pub fn set_delay(&self, delay: Duration) {
        self.0.wanted.send_modify(|wanted| wanted.delay = delay);
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.0.shared;
        Counts { accepted: read(&shared.accepted), open: read(&shared.open), failed: read(&shared.failed) }
    }

    /// Stops listening and ends every connection.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }
}

async fn serve(
    address: SocketAddr,
    mut listener: Option<TcpListener>,
    mut wanted: watch::Receiver<Wanted>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let mode = wanted.borrow_and_update().mode;
        settle(address, &mut listener, mode, &shared).await;
        tokio::select! {
            () = tokio::time::sleep(REBIND), if mode == Mode::Open && listener.is_none() => {}
            () = stop.cancelled() => break,
            changed = wanted.changed() => if changed.is_err() { break },
            accepted = accept(listener.as_ref()) => {
                if let Ok((client, _)) = accepted {
                    shared.accepted.fetch_add(1, Ordering::Relaxed);
                    let order = wanted.borrow().clone();
                    connections.spawn(pass(client, order, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
    shared.listening.store(false, Ordering::Release);
    shared.changed.notify_waiters();
}

/// Makes the socket agree with the mode. A port that cannot be bound at this moment is tried again by the next turn.
async fn settle(address: SocketAddr, listener: &mut Option<TcpListener>, mode: Mode, shared: &Shared) {
    match (mode, listener.is_some()) {
        (Mode::Open, false) => match TcpListener::bind(address).await {
            Ok(bound) => *listener = Some(bound),
            Err(error) => {
                tracing::warn!(%address, %error, "the endpoint could not be opened again");
            }
        },
        (Mode::Refuse, true) => *listener = None,
        _ => {}
    }
    shared.listening.store(listener.is_some(), Ordering::Release);
    shared.changed.notify_waiters();
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Carries one connection from its acceptance to its end.
async fn pass(mut client: TcpStream, order: Wanted, shared: Arc<Shared>) {
    let _open = Open::new(&shared);
    let work = async {
        if !order.delay.is_zero() {
            tokio::time::sleep(order.delay).await;
        }
        let Some(mut server) = connect(&order.targets, &shared).await else {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        // Either side may go at any moment; that ends the connection and is no news.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    };
    tokio::select! {
        () = work => {}
        () = order.connections.cancelled() => {}
    }
}

/// Counts a connection as open for as long as it lives, however it ends.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connect(targets: &[SocketAddr], shared: &Shared) -> Option<TcpStream> {
    for _ in 0..targets.len() {
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed) % targets.len();
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(targets[turn])).await {
            return Some(stream);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that answers every connection with its letter and then echoes.
    async fn server(letter: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.write_all(&[letter]).await;
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn greeting(forwarder: &Forwarder) -> (TcpStream, u8) {
        let mut stream = TcpStream::connect(forwarder.address()).await.expect("a connection");
        let letter = stream.read_u8().await.expect("a greeting");
        (stream, letter)
    }

    #[tokio::test]
    async fn new_connections_follow_the_target_and_old_ones_stay() {
        let (a, b) = (server(b'a').await, server(b'b').await);
        let forwarder =
            Forwarder::bind("127.0.0.1:0".parse().expect("an address"), vec![a]).await.expect("a forwarder");
        let (mut old, letter) = greeting(&forwarder).await;
        assert_eq!(letter, b'a');
        forwarder.set_targets(vec![b]);
        assert_eq!(greeting(&forwarder).await.1, b'b');
        old.write_u8(7).await.expect("a write");
        assert_eq!(old.read_u8().await.expect("its echo"), 7);
        forwarder.drop_connections();
        assert!(old.read_u8().await.is_err());
        assert_eq!(greeting(&forwarder).await.1, b'b');
        assert_eq!(forwarder.counts().accepted, 3);
    }

    #[tokio::test]
    async fn a_closed_endpoint_is_refused_by_the_system_and_opens_at_the_same_address() {
        let forwarder = Forwarder::bind("127.0.0.1:0".parse().expect("an address"), vec![server(b'a').await])
            .await
            .expect("a forwarder");
        for _ in 0..20 {
            forwarder.set_mode(Mode::Refuse).await;
            let refused = TcpStream::connect(forwarder.address()).await.expect_err("a refusal");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            forwarder.set_mode(Mode::Open).await;
            assert_eq!(greeting(&forwarder).await.1, b'a');
        }
    }
}
