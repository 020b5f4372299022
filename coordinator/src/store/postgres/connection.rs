//! Connections to the store's own server: one to write with, one to read and listen with, each made again when it breaks.
//! Every operation has a limit; one that is not answered in time condemns its connection, because nothing behind it would be.

use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::supervision::chain;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Making a connection, sign-in and settings included.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Data that is not acknowledged for so long ends a connection.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Where the store is. No secret: the password is read from its file at every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// PostgreSQL 14 or later, never a cluster that is upgraded; a failover of it must lose no commit.
    pub host: String,
    /// The port of the server.
    #[serde(default = "default_port")]
    pub port: u16,
    /// A database of its own.
    pub database: String,
    /// Its owner.
    pub user: String,
    /// The password, on the first line; read at every connection.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: Tls,
    /// Certificates (PEM) to trust instead of the system's own.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
}

/// How the connection to the store is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Certificates verified in full, the name included.
    #[default]
    VerifyFull,
    /// Plain; taken for a loopback address only.
    Disable,
}

fn default_port() -> u16 {
    5432
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the certificates to trust cannot be loaded: {0}")]
    Certificates(String),
    #[error("the password file {path} cannot be read")]
    Password { path: PathBuf, source: std::io::Error },
    #[error("the store at {at} cannot be used")]
    Server { at: String, source: tokio_postgres::Error },
    #[error("no answer of the store at {at} within {} ms", .limit.as_millis())]
    Silent { at: String, limit: Duration },
}

/// What an operation met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error("there is no connection")]
    Connect(#[from] ConnectError),
    #[error("the statement failed")]
    Sql(#[from] tokio_postgres::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
}

/// Called with the payload of each notification, and with `None` after a connection was made (some may have been missed).
pub(super) type OnNotice = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// Makes connections of one kind.
pub(super) struct Dialer {
    pub(super) place: Place,
    pub(super) clock: Clock,
    tls: Option<MakeRustlsConnect>,
}

impl Dialer {
    /// Needs [`runtime::crypto::install`] before.
    pub(super) fn new(place: Place, clock: Clock) -> Result<Dialer, ConnectError> {
        let tls = match place.tls {
            Tls::Disable => None,
            Tls::VerifyFull => Some(verifying(place.tls_ca_file.as_deref())?),
        };
        Ok(Dialer { place, clock, tls })
    }

    pub(super) fn at(&self) -> String {
        format!("{}:{}/{}", self.place.host, self.place.port, self.place.database)
    }

    /// Opens a connection and runs `settings` on it.
    pub(super) async fn open(&self, settings: &str, on_notice: Option<OnNotice>) -> Result<Session, ConnectError> {
        let opened = self.clock.timeout(CONNECT_WITHIN, self.dial(settings, on_notice)).await;
        opened.unwrap_or_else(|elapsed| Err(ConnectError::Silent { at: self.at(), limit: elapsed.0 }))
    }

    async fn dial(&self, settings: &str, on_notice: Option<OnNotice>) -> Result<Session, ConnectError> {
        let place = &self.place;
        let mut config = tokio_postgres::Config::new();
        config.host(&place.host).port(place.port).dbname(&place.database).user(&place.user);
        config.application_name("upgrade-pilot").connect_timeout(CONNECT_WITHIN);
        config.keepalives_idle(SILENCE_MAX).keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
        config.tcp_user_timeout(SILENCE_MAX);
        if let Some(path) = &place.password_file {
            config.password(password(path)?.expose_secret());
        }
        let failed = |source| ConnectError::Server { at: self.at(), source };
        let (client, task) = match &self.tls {
            Some(tls) => {
                config.ssl_mode(SslMode::Require);
                let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
                (client, tokio::spawn(pump(connection, on_notice.clone())).abort_handle())
            }
            None => {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                (client, tokio::spawn(pump(connection, on_notice.clone())).abort_handle())
            }
        };
        let session = Session { client, task };
        session.client.batch_execute(settings).await.map_err(failed)?;
        if let Some(on_notice) = on_notice {
            on_notice(None);
        }
        Ok(session)
    }
}

fn password(path: &Path) -> Result<SecretString, ConnectError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConnectError::Password { path: path.to_owned(), source })?;
    Ok(SecretString::from(text.lines().next().unwrap_or_default().to_owned()))
}

fn verifying(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, ConnectError> {
    let failed = ConnectError::Certificates;
    let Some(path) = ca_file else {
        return match MakeRustlsConnect::with_native_certs() {
            Ok((tls, _unreadable)) => Ok(tls),
            Err(errors) => Err(failed(format!("the system has none ({} errors)", errors.len()))),
        };
    };
    runtime::tls::trusting(path).map(MakeRustlsConnect::new).map_err(failed)
}

async fn pump<S, T>(mut connection: Connection<S, T>, on_notice: Option<OnNotice>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        match (message, &on_notice) {
            (Ok(AsyncMessage::Notification(notice)), Some(on_notice)) => on_notice(Some(notice.payload())),
            (Ok(_), _) => {}
            (Err(error), _) => {
                tracing::debug!(error = chain(&error), "a connection to the store ended");
                return;
            }
        }
    }
}

/// An open connection. Closing it is dropping it.
pub(super) struct Session {
    pub(super) client: Client,
    task: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, made again when it breaks. Statements of several callers are on their way at once, answered in order.
pub(super) struct Line {
    dialer: Arc<Dialer>,
    settings: String,
    limit: Duration,
    on_notice: Option<OnNotice>,
    session: Mutex<Option<Arc<Session>>>,
}

impl Line {
    pub(super) fn new(dialer: Arc<Dialer>, settings: String, limit: Duration, on_notice: Option<OnNotice>) -> Line {
        Line { dialer, settings, limit, on_notice, session: Mutex::default() }
    }

    /// Does `work` on the connection, within the limit.
    pub(super) async fn run<T, F>(&self, work: impl FnOnce(Arc<Session>) -> F) -> Result<T, OperationError>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let clock = &self.dialer.clock;
        let began = clock.mono();
        let session = match clock.timeout(self.limit, self.session()).await {
            Ok(session) => session?,
            Err(elapsed) => return Err(OperationError::Silent(elapsed.0)),
        };
        let left = self.limit.saturating_sub(clock.mono() - began);
        match clock.timeout(left, work(Arc::clone(&session))).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                // A server that became a standby keeps its connections, and takes no write on them.
                if error.is_closed() || error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
                    self.condemn(&session).await;
                }
                Err(error.into())
            }
            Err(_) => {
                self.condemn(&session).await;
                Err(OperationError::Silent(self.limit))
            }
        }
    }

    async fn session(&self) -> Result<Arc<Session>, ConnectError> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.as_ref().filter(|session| !session.client.is_closed()) {
            return Ok(Arc::clone(session));
        }
        *current = None;
        let session = Arc::new(self.dialer.open(&self.settings, self.on_notice.clone()).await?);
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Whoever waits on it hears at once that it is gone; the next operation makes another.
    async fn condemn(&self, session: &Arc<Session>) {
        session.task.abort();
        let mut current = self.session.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
        }
    }
}
