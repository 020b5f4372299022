//! One plain HTTP exchange, for the lab's form API and for `/metrics`. No redirects, no compression, loopback only.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Asks `http://ADDRESS/path` with the given method and form body; the answer's body.
///
/// # Errors
/// When nothing answers, or the status is not 200.
pub async fn ask(base: &str, method: &str, path: &str, form: &str) -> anyhow::Result<String> {
    let address = base.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200"), "{method} {base}{path}: {status}\n{body}");
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return unchunked(body);
    }
    Ok(body.to_owned())
}

fn unchunked(mut body: &str) -> anyhow::Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("the size of a chunk")?;
        if size == 0 {
            return Ok(whole);
        }
        let Some(chunk) = rest.get(..size) else { bail!("a chunk is cut off") };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
}
