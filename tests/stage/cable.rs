//! The connection between a coordinator and its store, or between an agent and its coordinator, which a test can cut: by silence,
//! as a network that has lost its way does, or by a reset, as a firewall does. What was sent into the silence arrives when it ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What a cable does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// Everything, both ways.
    All,
    /// Nothing either way, and nobody is told. It is kept, as a network's ends keep it, and delivered when all passes again.
    Silence,
    /// Nothing: every connection is reset, new ones too.
    Reset,
}

/// A cable; it is taken away with its owner.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    passing: watch::Sender<Passing>,
    late: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Cable {
    /// A cable to `to`, on an address of its own.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn lay(to: SocketAddr) -> io::Result<Cable> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, passing, late) = (listener.local_addr()?, watch::Sender::new(Passing::All), Arc::default());
        let task = tokio::spawn(connect(listener, to, passing.subscribe(), Arc::clone(&late)));
        Ok(Cable { address, passing, late, task })
    }

    /// Where its near end is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it, or makes it whole.
    pub fn passes(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }

    /// How many bytes towards the far end were sent into a silence, and delivered after it.
    #[must_use]
    pub fn late(&self) -> usize {
        self.late.load(Ordering::SeqCst)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(listener: TcpListener, to: SocketAddr, passing: watch::Receiver<Passing>, late: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // One that was not taken in tries again.
                let Ok((near, _)) = accepted else { continue };
                connections.spawn(join(near, to, passing.clone(), Arc::clone(&late)));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Passes bytes until an end is gone or it is reset.
async fn join(mut near: TcpStream, to: SocketAddr, mut passing: watch::Receiver<Passing>, late: Arc<AtomicUsize>) {
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    let (until, passed) = (passing.clone(), passing.clone());
    let both = async {
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        let back = AtomicUsize::new(0);
        // An end that is gone says so to the other; its error is its own.
        let _ended = tokio::join!(pass(from_near, to_far, until, &late), pass(from_far, to_near, passed, &back));
    };
    let reset = tokio::select! {
        () = both => false,
        wanted = passing.wait_for(|passing| *passing == Passing::Reset) => wanted.is_ok(),
    };
    if reset {
        // Without it the connection ends in good order. One that is gone already needs neither.
        let _gone = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// Passes bytes one way until that end is gone, however it went; the other one is told.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passing: watch::Receiver<Passing>,
    late: &AtomicUsize,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut bytes).await.unwrap_or(0);
        if *passing.borrow() != Passing::All {
            late.fetch_add(count, Ordering::SeqCst);
            // The other end of the watch lives as long as the cable, which takes this with it.
            let _whole = passing.wait_for(|passing| *passing == Passing::All).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(bytes.get(..count).unwrap_or_default()).await?;
    }
}
