//! A server of PostgreSQL's protocol without a database, played for tests: it says to each text what the test wants said, or nothing,
//! or hangs up. And a time that stands still until the test moves it, and the reading end of HTTP. A plain module that production never calls.
//!
//! It takes everybody in, knows no TLS, and understands no SQL.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// No message of a client is longer.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What a client asks instead of beginning, if it wants TLS.
const TLS_WANTED: u32 = 80_877_103;

/// A text that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which connection, counted from 1.
    pub connection: usize,
    pub text: String,
}

/// What the server says to a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Done, without rows.
    Done,
    /// These rows, of one shape. None of them is [`Said::Done`].
    Rows(Vec<Vec<Value>>),
    /// An error with this SQLSTATE.
    Failed(&'static str),
    /// Nothing, for ever.
    Nothing,
    /// Nothing, and the connection ends.
    Closes,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Bool(bool),
    Int8(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl Value {
    fn oid(&self) -> u32 {
        match self {
            Value::Text(_) => 25,
            Value::Bool(_) => 16,
            Value::Int8(_) => 20,
        }
    }

    fn bytes(&self, binary: bool) -> Vec<u8> {
        match (self, binary) {
            (Value::Text(text), _) => text.clone().into_bytes(),
            (Value::Bool(is), true) => vec![u8::from(*is)],
            (Value::Bool(is), false) => vec![if *is { b't' } else { b'f' }],
            (Value::Int8(number), true) => number.to_be_bytes().to_vec(),
            (Value::Int8(number), false) => number.to_string().into_bytes(),
        }
    }
}

type Answer = Arc<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = Said> + Send>> + Send + Sync>;

/// The server; dropping it ends every connection.
pub struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Server {
    /// Listens on a port of its own and says `answer` to every text.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start<F, A>(answer: F) -> io::Result<Server>
    where
        F: Fn(Asked) -> A + Send + Sync + 'static,
        A: Future<Output = Said> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, connections) = (listener.local_addr()?.port(), Arc::new(AtomicUsize::new(0)));
        let answer: Answer = Arc::new(move |asked| Box::pin(answer(asked)));
        let mut serving = JoinSet::new();
        let count = connections.clone();
        serving.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection = count.fetch_add(1, Ordering::SeqCst) + 1;
                let _only_a_hint = stream.set_nodelay(true);
                let session = Session { stream, connection, answer: answer.clone(), prepared: HashMap::new() };
                sessions.spawn(async move { drop(session.serve().await) });
            }
        });
        Ok(Server { port, connections, _serving: serving })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has taken so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Session {
    stream: TcpStream,
    connection: usize,
    answer: Answer,
    /// What is said to a statement, by the statement's name, and how many parameters it has.
    prepared: HashMap<String, (Said, usize)>,
}

impl Session {
    async fn serve(mut self) -> io::Result<()> {
        loop {
            let head = self.message().await?;
            if head.starts_with(&TLS_WANTED.to_be_bytes()) {
                self.stream.write_all(b"N").await?;
                continue;
            }
            break;
        }
        self.stream.write_all(&[message(b'R', &[0; 4]), ready()].concat()).await?;
        let (mut out, mut bound, mut failed) = (Vec::new(), String::new(), false);
        loop {
            let kind = self.stream.read_u8().await?;
            let body = self.message().await?;
            let mut words = body.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            let mut word = || words.next().unwrap_or_default();
            match kind {
                b'Q' => {
                    let said = self.ask(word()).await?;
                    out.extend(rows(&said, false, true));
                    out.extend(ready());
                }
                b'P' => {
                    let (name, text) = (word(), word());
                    let parameters = (1..100).take_while(|n| text.contains(&format!("${n}"))).count();
                    let said = self.ask(text).await?;
                    failed = matches!(said, Said::Failed(_));
                    out.extend(if failed { rows(&said, true, false) } else { message(b'1', &[]) });
                    self.prepared.insert(name, (said, parameters));
                }
                b'B' if !failed => {
                    (_, bound) = (word(), word());
                    out.extend(message(b'2', &[]));
                }
                b'D' if !failed => {
                    let name = word().get(1..).unwrap_or_default().to_owned();
                    let (said, parameters) = self.prepared.get(&name).cloned().unwrap_or((Said::Done, 0));
                    let mut types = u16::try_from(parameters).unwrap_or_default().to_be_bytes().to_vec();
                    types.extend(25_u32.to_be_bytes().repeat(parameters));
                    out.extend(message(b't', &types));
                    out.extend(shape(&said).unwrap_or_else(|| message(b'n', &[])));
                }
                b'E' if !failed => {
                    let (said, _) = self.prepared.get(&bound).cloned().unwrap_or((Said::Done, 0));
                    out.extend(rows(&said, true, false));
                }
                b'C' if !failed => out.extend(message(b'3', &[])),
                b'S' => {
                    failed = false;
                    out.extend(ready());
                }
                b'X' => return Ok(()),
                _ => {}
            }
            if matches!(kind, b'Q' | b'S' | b'H') {
                self.stream.write_all(&out).await?;
                out.clear();
            }
        }
    }

    async fn ask(&self, text: String) -> io::Result<Said> {
        match (self.answer)(Asked { connection: self.connection, text }).await {
            Said::Nothing => std::future::pending().await,
            Said::Closes => Err(io::ErrorKind::ConnectionReset.into()),
            said => Ok(said),
        }
    }

    /// The rest of a message, by its length.
    async fn message(&mut self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.stream.read_u32().await?).unwrap_or(usize::MAX);
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// The description of rows, if there are any.
fn shape(said: &Said) -> Option<Vec<u8>> {
    let Said::Rows(rows) = said else { return None };
    let first = rows.first()?;
    let mut body = u16::try_from(first.len()).unwrap_or_default().to_be_bytes().to_vec();
    for value in first {
        // A name, no table, no column of one, the type, its size unknown, no modifier, as text.
        body.extend(b"value\0");
        body.extend([0; 6]);
        body.extend(value.oid().to_be_bytes());
        body.extend((-1_i16).to_be_bytes());
        body.extend((-1_i32).to_be_bytes());
        body.extend([0; 2]);
    }
    Some(message(b'T', &body))
}

/// Rows and the end of the statement, or its error.
fn rows(said: &Said, binary: bool, described: bool) -> Vec<u8> {
    if let Said::Failed(state) = said {
        let body = format!("SERROR\0VERROR\0C{state}\0Mplayed\0\0");
        return message(b'E', body.as_bytes());
    }
    let mut out = if described { shape(said).unwrap_or_default() } else { Vec::new() };
    if let Said::Rows(rows) = said {
        for row in rows {
            let mut body = u16::try_from(row.len()).unwrap_or_default().to_be_bytes().to_vec();
            for value in row {
                let bytes = value.bytes(binary);
                body.extend(u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
                body.extend(bytes);
            }
            out.extend(message(b'D', &body));
        }
    }
    out.extend(message(b'C', b"SELECT 1\0"));
    out
}

/// Tokio's time, standing still for as long as this lives: it goes on by `tokio::time::advance` alone. A time that is only paused
/// goes on whenever nobody has anything to do, also while an answer is on its way through a socket.
pub struct Still {
    _held: mpsc::Sender<()>,
}

impl Still {
    /// Stops the time of this runtime, which must be one of a single thread.
    ///
    /// # Panics
    /// When the time stands still already, or the runtime has several threads.
    pub fn stop() -> Still {
        let (held, released) = mpsc::channel();
        tokio::time::pause();
        // While a thread is at work for the runtime, the time does not go on by itself.
        drop(tokio::task::spawn_blocking(move || released.recv().is_err()));
        Still { _held: held }
    }

    /// Lets so much time pass, and everything happen that is due then. What waits for a moment comes up to a millisecond after it.
    pub async fn pass(&self, time: std::time::Duration) {
        tokio::time::advance(time).await;
        settle().await;
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// Lets what is on its way through sockets arrive, and what it wakes answer.
pub async fn settle() {
    let Ok((mut one, mut other)) = UnixStream::pair() else { return };
    for _ in 0..32 {
        if one.write_all(b"x").await.is_err() || other.read_u8().await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The head and the body of the one HTTP request that comes; `None` when the connection ends before it is whole.
pub async fn http_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&piece[..read]),
            _ => return None,
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}
