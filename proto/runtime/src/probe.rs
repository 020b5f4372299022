//! Asks a process of ours on this machine whether it is ready: for health checks of containers that hold no other program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;
use crate::tls;

/// For the whole of it: whoever asks has a limit of its own, a few seconds.
const WITHIN: Duration = Duration::from_secs(2);
/// More of an answer is not read.
const ANSWER_BYTES_MAX: u64 = 4096;

/// What `/readyz` of the admin endpoint at `listen` says. `certificate` is the file of the process's own certificate where it
/// speaks TLS: only who has its key is believed.
///
/// # Errors
/// What it waits for, or why it could not be asked.
pub async fn ready(listen: SocketAddr, certificate: Option<&Path>, clock: &Clock) -> Result<String, String> {
    let address = reachable(listen);
    let asked = clock.timeout(WITHIN, ask(address, certificate)).await;
    let answer = asked.map_err(|_| format!("{address} did not answer within {} s", WITHIN.as_secs()))??;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim()).to_owned();
    match answer.split(' ').nth(1) {
        Some("200") => Ok(body),
        Some("503") => Err(body),
        _ => Err(format!("{address} is no admin endpoint of ours")),
    }
}

/// Where an address that is listened on can be dialled from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(address: SocketAddr, certificate: Option<&Path>) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    let Some(certificate) = certificate else { return request(stream).await.map_err(failed) };
    let connector = TlsConnector::from(Arc::new(tls::only_oneself(certificate)?));
    let stream = connector.connect(ServerName::from(address.ip()), stream).await.map_err(failed)?;
    request(stream).await.map_err(failed)
}

async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`, or never.
    async fn endpoint(answer: Option<&'static str>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 256];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        (address, serving)
    }

    async fn asked(answer: Option<&'static str>, clock: &Clock) -> Result<String, String> {
        let (address, serving) = endpoint(answer).await;
        let said = ready(address, None, clock).await;
        serving.abort();
        said
    }

    #[tokio::test]
    async fn ready_waiting_and_something_else_are_told_apart() {
        let clock = Clock::system();
        assert_eq!(asked(Some("HTTP/1.1 200 OK\r\n\r\nready\n"), &clock).await, Ok("ready".into()));
        let waiting = asked(Some("HTTP/1.1 503 Service Unavailable\r\n\r\nwaiting for link\n"), &clock).await;
        assert_eq!(waiting, Err("waiting for link".into()));
        assert!(asked(Some("220 mail.example\r\n"), &clock).await.unwrap_err().contains("no admin endpoint"));
        assert!(ready(([127, 0, 0, 1], 1).into(), None, &clock).await.unwrap_err().contains("127.0.0.1:1"));
    }

    #[tokio::test]
    async fn who_does_not_answer_is_given_up_after_two_seconds() {
        let clock = Clock::system();
        assert!(asked(None, &clock).await.unwrap_err().contains("within 2 s"));
    }

    #[test]
    fn every_address_is_asked_at_this_machines_own() {
        assert_eq!(reachable("0.0.0.0:7401".parse().unwrap()), "127.0.0.1:7401".parse().unwrap());
        assert_eq!(reachable("[::]:7401".parse().unwrap()), "[::1]:7401".parse().unwrap());
        assert_eq!(reachable("10.0.0.7:7401".parse().unwrap()), "10.0.0.7:7401".parse().unwrap());
    }
}
