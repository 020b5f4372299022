//! One plain HTTP exchange, for the lab's form API and for `/metrics`. No redirects, no compression, loopback only.

use anyhow::{Context as _, bail, ensure};
use lab::demo::tempo::Tempo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Asks the lab's API with a form, signed as its administrator; the answer's body.
///
/// # Errors
/// When nothing answers, or the status is not 200.
pub async fn ask_lab(base: &str, form: &str, tempo: &Tempo) -> anyhow::Result<String> {
    let host = base.trim_start_matches("http://").trim_end_matches('/');
    let headers = lab::iam::sign(lab::iam::ADMINISTRATOR, "rds", host, "/", form.as_bytes(), tempo.now());
    exchange(base, ("POST", "/"), &headers, form).await
}

/// Asks `http://ADDRESS/path` with the given method and form body; the answer's body.
///
/// # Errors
/// When nothing answers, or the status is not 200.
pub async fn ask(base: &str, method: &str, path: &str, form: &str) -> anyhow::Result<String> {
    let host = base.trim_start_matches("http://").trim_end_matches('/').to_owned();
    exchange(base, (method, path), &[("Host".to_owned(), host)], form).await
}

async fn exchange(
    base: &str,
    (method, path): (&str, &str),
    headers: &[(String, String)],
    form: &str,
) -> anyhow::Result<String> {
    let address = base.trim_start_matches("http://").trim_end_matches('/');
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\
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
