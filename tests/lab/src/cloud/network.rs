//! The addresses of one cluster and of what is made from it: one port for all and a block 127.A.B.0/24 of the loopback
//! network, one address for each node. An address is never given twice.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use rand::RngExt;
use tokio::net::TcpListener;

/// A block of addresses with one port.
#[derive(Debug)]
pub(crate) struct Network {
    block: [u8; 2],
    next: AtomicU8,
    pub(crate) port: u16,
}

impl Network {
    /// A block and a port that nobody uses at the moment.
    pub(crate) async fn find() -> io::Result<Self> {
        let mut last = None;
        for _ in 0..64 {
            let block = [rand::rng().random_range(10..=250), rand::rng().random_range(1..=250)];
            let first = IpAddr::V4(Ipv4Addr::new(127, block[0], block[1], 1));
            match TcpListener::bind(SocketAddr::new(first, 0)).await {
                Ok(listener) => {
                    let port = listener.local_addr()?.port();
                    // Every address of the block must have it free; the first ones are tried.
                    if port >= 1024 {
                        return Ok(Self { block, next: AtomicU8::new(10), port });
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no free loopback block was found")))
    }

    /// An address that was not given before.
    pub(crate) fn address(&self) -> io::Result<IpAddr> {
        let last = self.next.fetch_add(1, Ordering::Relaxed);
        if last == u8::MAX {
            return Err(io::Error::other("the cluster has used up its addresses"));
        }
        Ok(IpAddr::V4(Ipv4Addr::new(127, self.block[0], self.block[1], last)))
    }
}
