//! A DNS server for one view, over UDP: A records of the lab's names with RDS's TTL, NXDOMAIN for every other name. It answers
//! only what stub resolvers ask, and asks nobody.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use rand::RngExt;
use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::view::View;

/// What RDS's zones have, in seconds.
const TTL: u32 = 5;
const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

/// A running server; ends when dropped.
pub(super) struct Server {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Server {
    /// Binds port 53 of a loopback address that nobody uses. Stub resolvers know no other port.
    pub(super) async fn start(view: Weak<View>) -> io::Result<Self> {
        let socket = bind().await?;
        let address = socket.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => (),
                () = serve(&socket, &view) => (),
            }
        });
        Ok(Self { address, _stop: stop.drop_guard() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn bind() -> io::Result<UdpSocket> {
    let mut last = io::Error::other("no address was tried");
    for _ in 0..16 {
        let block = [rand::rng().random_range(10..=250), rand::rng().random_range(1..=250)];
        let address = IpAddr::V4(Ipv4Addr::new(127, block[0], block[1], 253));
        match UdpSocket::bind(SocketAddr::new(address, 53)).await {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let why = "port 53 needs root or net.ipv4.ip_unprivileged_port_start at most 53";
                return Err(io::Error::new(error.kind(), why));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn serve(socket: &UdpSocket, view: &Weak<View>) {
    let mut buffer = [0_u8; 1500];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(view) = view.upgrade() else { return };
        if let Some(answer) = buffer.get(..length).and_then(|question| reply(question, &view)) {
            // A client that has gone asks again or not.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

fn reply(question: &[u8], view: &Arc<View>) -> Option<Vec<u8>> {
    answer(question, |name| view.next(name))
}

/// The answer to one question; `None` for what is no question.
pub(super) fn answer(message: &[u8], lookup: impl FnOnce(&str) -> Option<IpAddr>) -> Option<Vec<u8>> {
    let header = message.get(..HEADER)?;
    let is_query = header[2] & 0x80 == 0;
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if !is_query || questions != 1 {
        return None;
    }
    let (name, end) = name(message)?;
    let kind = u16::from_be_bytes([*message.get(end)?, *message.get(end + 1)?]);
    let class = u16::from_be_bytes([*message.get(end + 2)?, *message.get(end + 3)?]);
    let found = lookup(&name);
    let record = match found {
        Some(IpAddr::V4(address)) if kind == TYPE_A && class == CLASS_IN => Some(address.octets()),
        _ => None,
    };
    // Response, authoritative, recursion as asked for and to be had; NXDOMAIN when there is no such name at all.
    let flags = [0x84 | (header[2] & 0x01), 0x80 | if found.is_none() { 3 } else { 0 }];
    let mut text = vec![header[0], header[1], flags[0], flags[1], 0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0];
    text.extend_from_slice(message.get(HEADER..end + 4)?);
    if let Some(address) = record {
        // A pointer to the name in the question.
        text.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1]);
        text.extend_from_slice(&TTL.to_be_bytes());
        text.extend_from_slice(&[0, 4]);
        text.extend_from_slice(&address);
    }
    Some(text)
}

/// The name in a question, in lower case, and where it ends.
fn name(message: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Compression has no place in a question.
        if length > 63 {
            return None;
        }
        let label = std::str::from_utf8(message.get(at..at + length)?).ok()?;
        labels.push(label.to_ascii_lowercase());
        at += length;
    }
    Some((labels.join("."), at))
}
