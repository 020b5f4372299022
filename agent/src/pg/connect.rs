//! Connections to managed servers: allowed hosts only, certificates verified in full, and every server asked who it is
//! before anything else is sent. Must not hold SQL text, and must not trust a name for an identity.

use std::{
    collections::HashMap,
    net::IpAddr,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use proto::{
    intent::Targets,
    side::{Endpoint, Member, ServerSaid, Side, SideIdentity},
};
use runtime::{clock::Clock, tls::Group};
use secrecy::ExposeSecret;
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::{Database, HostRule, Tls},
    pg::{catalog::watchers as sql, password::Password},
};

/// What an ordinary connect may take, name, handshake, password and identity included.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Tries of one [`Dialer::open_insistently`] that may hang at once.
const TRIES_MAX: usize = 10;
/// Notices that nobody takes are dropped beyond this many.
const NOTICES_MAX: usize = 4096;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("host {host:?} is not under any of this agent's host_suffixes")]
    HostNotAllowed { host: String },
    #[error("{host:?} is not at loopback addresses only and database.tls is \"disable\"")]
    TlsRequired { host: String },
    #[error("the certificates to trust cannot be loaded: {what}")]
    Certificates { what: String },
    #[error("the password cannot be read: {what}")]
    Password { what: String },
    #[error("host {host:?} cannot be resolved")]
    Resolve { host: String, source: std::io::Error },
    #[error("{host:?}: no answer within {} ms", .limit.as_millis())]
    Timeout { host: String, limit: Duration },
    #[error("{host:?}: the server cannot be used")]
    Server { host: String, source: tokio_postgres::Error },
    #[error("{host:?} did not say who it is: {what}")]
    NoIdentity { host: String, what: String },
    #[error("{host:?} is not {expected:?}: it is {} on PostgreSQL {}", .said.address, .said.major)]
    WrongServer { host: String, expected: Side, said: ServerSaid },
    #[error("no member of {side:?} is a writer: {tried}")]
    NoWriter { side: Side, tried: String },
    #[error("{side:?} is not known yet")]
    NoSide { side: Side },
}

impl ConnectError {
    /// The SQLSTATE, when a server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            ConnectError::Server { source, .. } => source.code().map(|code| code.code()),
            _ => None,
        }
    }

    /// A word from a closed set: `refused`, `timeout`, `shutdown`, `starting`, `auth`, `full`, `missing`, `reset`,
    /// `config`, `resolve`, `wrong_server`, `no_writer`, `error`.
    pub fn kind(&self) -> &'static str {
        match self {
            ConnectError::HostNotAllowed { .. }
            | ConnectError::TlsRequired { .. }
            | ConnectError::Certificates { .. }
            | ConnectError::Password { .. }
            | ConnectError::NoSide { .. } => "config",
            ConnectError::Resolve { .. } => "resolve",
            ConnectError::Timeout { .. } => "timeout",
            ConnectError::Server { source, .. } => sql_kind(source),
            ConnectError::NoIdentity { .. } | ConnectError::WrongServer { .. } => "wrong_server",
            ConnectError::NoWriter { .. } => "no_writer",
        }
    }

    /// Worth another try as it is?
    pub fn is_transient(&self) -> bool {
        !matches!(self.kind(), "config" | "auth" | "missing")
    }
}

/// The kind of an error of a server or of the connection to it, from the same closed set as [`ConnectError::kind`].
pub fn sql_kind(error: &tokio_postgres::Error) -> &'static str {
    let Some(code) = error.code() else {
        let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
        return match io.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::ConnectionRefused) => "refused",
            Some(std::io::ErrorKind::TimedOut) => "timeout",
            Some(_) => "reset",
            None if error.is_closed() => "reset",
            None => "error",
        };
    };
    match code.code() {
        "57P01" | "57P02" => "shutdown",
        "57P03" => "starting",
        "57014" => "timeout",
        "53300" => "full",
        "3D000" => "missing",
        code if code.starts_with("28") => "auth",
        code if code.starts_with("08") => "reset",
        _ => "error",
    }
}

/// Makes connections. Cheap to clone; clones share resolved addresses and the password.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    clock: Clock,
    user: String,
    maintenance_database: String,
    hosts: Vec<HostRule>,
    password: Password,
    tls: Option<MakeRustlsConnect>,
    /// Hosts that were dialled. At a switchover names move among the cluster's servers, and certificates follow later.
    names: Group,
    /// Where a recorded member was found first, by its resource id: names move at a switchover, servers do not.
    addresses: Mutex<HashMap<String, IpAddr>>,
}

/// How one connection is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For everything until the server has said who it is.
    pub connect: Duration,
    /// Unacknowledged data older than this ends the connection.
    pub silence: Duration,
    /// Ask for the instance's name too, which is only shown: a round trip more on Aurora.
    pub name: bool,
}

/// When one more try is begun, from the beginning of the newest.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The newest was refused, and an older one hangs.
    pub refused: Duration,
    /// The newest hangs.
    pub hangs: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connect: CONNECT_WITHIN, silence: Duration::from_secs(30), name: true }
    }
}

impl Dialer {
    /// Fails when the certificates to trust cannot be loaded; needs [`runtime::crypto::install`] before.
    pub fn new(database: &Database, hosts: Vec<HostRule>, clock: Clock) -> Result<Dialer, ConnectError> {
        let names = Group::default();
        let tls = match database.tls {
            Tls::Disable => None,
            Tls::VerifyFull => {
                let trust = names.trusting(database.tls_ca_file.as_deref());
                Some(MakeRustlsConnect::new(trust.map_err(|what| ConnectError::Certificates { what })?))
            }
        };
        Ok(Dialer(Arc::new(Inner {
            password: Password::new(database),
            user: database.user.clone(),
            maintenance_database: database.maintenance_database.clone(),
            clock,
            hosts,
            tls,
            names,
            addresses: Mutex::default(),
        })))
    }

    /// The database that everything not about one database is asked in.
    pub fn maintenance_database(&self) -> &str {
        &self.0.maintenance_database
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The name under which databases are used.
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// Opens the member of `side` that is a writer now (not in recovery), which a failover may have moved, and checks
    /// that it is of the side. Members are asked in turn, the recorded writer first.
    pub async fn open(&self, side: &SideIdentity, database: &str) -> Result<Conn, ConnectError> {
        self.open_within(side, database, Limits::default()).await
    }

    /// As [`Dialer::open`], with limits of its own for each member asked.
    pub async fn open_within(&self, side: &SideIdentity, database: &str, limits: Limits) -> Result<Conn, ConnectError> {
        let mut tried = Vec::new();
        let mut members: Vec<&Member> = side.members.iter().collect();
        members.sort_by_key(|member| !member.writer);
        for member in members {
            match self.open_member(side, member, database, limits).await {
                Ok(conn) if !conn.said().in_recovery => return Ok(conn),
                Ok(_) => tried.push(format!("{} is a reader", member.instance)),
                Err(error) if side.members.len() == 1 => return Err(error),
                Err(error) => {
                    tried.push(format!("{}: {}", member.instance, runtime::supervision::chain(&error)));
                }
            }
        }
        Err(ConnectError::NoWriter { side: side.side, tried: tried.join("; ") })
    }

    /// As [`Dialer::open_within`], to servers that may swallow what is sent to them: while a try hangs others are begun beside it,
    /// so that the one is found that comes right after the server takes connections again. Fails when a try does and none hangs.
    pub async fn open_insistently(
        &self,
        side: &SideIdentity,
        database: &str,
        limits: Limits,
        pace: Pace,
    ) -> Result<Conn, ConnectError> {
        let mut tries = FuturesUnordered::new();
        let mut newest = self.0.clock.mono();
        let mut due = newest;
        loop {
            tokio::select! {
                Some((begun, end)) = tries.next() => match end {
                    Err(_) if !tries.is_empty() => {
                        if begun == newest {
                            due = begun + pace.refused;
                        }
                    }
                    end => return end,
                },
                () = self.0.clock.sleep_until(due), if tries.len() < TRIES_MAX => {
                    let begun = self.0.clock.mono();
                    tries.push(async move { (begun, self.open_within(side, database, limits).await) });
                    (newest, due) = (begun, begun + pace.hangs);
                }
            }
        }
    }

    /// Opens one member, writer or reader, and checks that it is of the side. Where it is found is remembered once it has said so: a
    /// name that moved lately may still lead to another server.
    pub async fn open_member(
        &self,
        side: &SideIdentity,
        member: &Member,
        database: &str,
        limits: Limits,
    ) -> Result<Conn, ConnectError> {
        self.allowed(&member.host)?;
        let known = self.known_address(member);
        let address = match known {
            Some(address) => address,
            None => self.resolve_member(member).await?,
        };
        let conn = self.dial_at(&member.host, address, member.port, database, limits).await?;
        if known.is_none() && (conn.said().address, conn.said().major) == (address, side.major) {
            self.found(member, address);
        }
        self.expect(&conn, side)?;
        Ok(conn)
    }

    /// Opens a reader of the side, `None` when it has none that answers.
    pub async fn open_reader(&self, side: &SideIdentity, database: &str) -> Option<Conn> {
        for member in &side.members {
            let opened = self.open_member(side, member, database, Limits::default()).await;
            if let Ok(conn) = opened
                && conn.said().in_recovery
            {
                return Some(conn);
            }
        }
        None
    }

    /// Opens whatever answers behind the production endpoint; its name is resolved anew each time.
    /// Compare [`Conn::said`] with a side by [`Dialer::side_of`] before acting on it.
    pub async fn open_production(&self, production: &Endpoint, database: &str) -> Result<Conn, ConnectError> {
        self.open_production_within(production, database, Limits::default()).await
    }

    pub async fn open_production_within(
        &self,
        production: &Endpoint,
        database: &str,
        limits: Limits,
    ) -> Result<Conn, ConnectError> {
        self.allowed(&production.host)?;
        let address = self.resolve(&production.host, production.port, limits.connect).await?;
        self.dial_at(&production.host, address, production.port, database, limits).await
    }

    /// Is the server behind `conn` a member of `side`, by address and major version? `WrongServer` when it is not.
    pub fn expect(&self, conn: &Conn, side: &SideIdentity) -> Result<(), ConnectError> {
        if self.is_of(conn.said(), side) {
            return Ok(());
        }
        Err(ConnectError::WrongServer { host: conn.host.clone(), expected: side.side, said: conn.said().clone() })
    }

    /// Is `said` a member of `side`: its address one of the recorded members', its major version the side's?
    pub fn is_of(&self, said: &ServerSaid, side: &SideIdentity) -> bool {
        said.major == side.major && side.members.iter().any(|member| self.known_address(member) == Some(said.address))
    }

    /// Which of the sides `said` is, if any.
    pub fn side_of(&self, said: &ServerSaid, targets: &Targets) -> Option<Side> {
        targets.sides().find(|side| self.is_of(said, side)).map(|side| side.side)
    }

    /// Resolves every member of `side` that is not resolved yet, so that later uses go by address whatever names do.
    pub async fn remember(&self, side: &SideIdentity) -> Result<(), ConnectError> {
        for member in self.unknown(side) {
            self.found(member, self.resolve_member(member).await?);
        }
        Ok(())
    }

    /// As [`Dialer::remember`], after names have moved: only what a server says of itself is believed.
    pub async fn meet(&self, side: &SideIdentity) -> Result<(), ConnectError> {
        for member in self.unknown(side) {
            self.open_member(side, member, self.maintenance_database(), Limits::default()).await?;
        }
        Ok(())
    }

    /// The members of `side` that are not resolved yet.
    fn unknown<'a>(&'a self, side: &'a SideIdentity) -> impl Iterator<Item = &'a Member> {
        side.members.iter().filter(|member| self.known_address(member).is_none())
    }

    /// What is remembered, by resource id, for the spool.
    pub fn addresses(&self) -> HashMap<String, IpAddr> {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what an earlier process remembered.
    pub fn seed(&self, addresses: HashMap<String, IpAddr>) {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner).extend(addresses);
    }

    /// The address of a member's server, as it was when the member was first seen; `None` while it is not resolved.
    pub fn known_address(&self, member: &Member) -> Option<IpAddr> {
        if let Ok(address) = member.host.parse() {
            return Some(address);
        }
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(&member.resource_id).copied()
    }

    async fn resolve_member(&self, member: &Member) -> Result<IpAddr, ConnectError> {
        self.allowed(&member.host)?;
        self.resolve(&member.host, member.port, CONNECT_WITHIN).await
    }

    fn found(&self, member: &Member, address: IpAddr) {
        self.seed(HashMap::from([(member.resource_id.clone(), address)]));
    }

    /// The address that a host name has now. Without TLS every address that it has must be a loopback one, however the name is
    /// spelt: the next connection may be led to any of them.
    async fn resolve(&self, host: &str, port: u16, limit: Duration) -> Result<IpAddr, ConnectError> {
        let found = resolve(&self.0.clock, host, port, limit).await?;
        if self.0.tls.is_none() && !found.iter().all(IpAddr::is_loopback) {
            return Err(ConnectError::TlsRequired { host: host.to_owned() });
        }
        let nothing = || ConnectError::Resolve { host: host.to_owned(), source: std::io::ErrorKind::NotFound.into() };
        found.first().copied().ok_or_else(nothing)
    }

    fn allowed(&self, host: &str) -> Result<(), ConnectError> {
        if self.0.hosts.iter().any(|rule| rule.allows(host)) {
            return Ok(());
        }
        Err(ConnectError::HostNotAllowed { host: host.to_owned() })
    }

    /// Connects to `address`, verifying the certificate against `host` and the other hosts of the cluster that were dialled, and
    /// asks the server who it is.
    async fn dial_at(
        &self,
        host: &str,
        address: IpAddr,
        port: u16,
        database: &str,
        limits: Limits,
    ) -> Result<Conn, ConnectError> {
        if self.0.tls.is_none() && !address.is_loopback() {
            return Err(ConnectError::TlsRequired { host: host.to_owned() });
        }
        self.0.names.add(host);
        let password = self.0.password.get(&self.0.clock, host, port).await?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(host)
            .hostaddr(address)
            .port(port)
            .dbname(database)
            .user(&self.0.user)
            .password(password.expose_secret())
            .application_name("upgrade_pilot")
            .connect_timeout(limits.connect)
            .tcp_user_timeout(limits.silence)
            .keepalives_idle(Duration::from_secs(10))
            .ssl_mode(if self.0.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        let dialled = self.0.clock.timeout(limits.connect, self.connect(host, &config, limits.name)).await;
        let dialled =
            dialled.unwrap_or_else(|_| Err(ConnectError::Timeout { host: host.to_owned(), limit: limits.connect }));
        if let Err(error) = &dialled
            && error.kind() == "auth"
        {
            self.0.password.forget(self.0.clock.mono(), host, port);
        }
        dialled
    }

    async fn connect(&self, host: &str, config: &tokio_postgres::Config, name: bool) -> Result<Conn, ConnectError> {
        let failed = |source| ConnectError::Server { host: host.to_owned(), source };
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let (client, driver) = match &self.0.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
                (client, tokio::spawn(drive(connection, sender)).abort_handle())
            }
            None => {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(failed)?;
                (client, tokio::spawn(drive(connection, sender)).abort_handle())
            }
        };
        let driver = Driver(driver);
        let said = identify(host, &client, name).await?;
        Ok(Conn { client, name, said, notices, host: host.to_owned(), _driver: driver })
    }
}

/// An open connection to a server that has said who it is. Closing it is dropping it.
pub struct Conn {
    client: Client,
    name: bool,
    said: ServerSaid,
    notices: mpsc::Receiver<String>,
    host: String,
    _driver: Driver,
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Conn {
    /// Who the server said it is when the connection was made. Its address and version cannot change under it.
    pub fn said(&self) -> &ServerSaid {
        &self.said
    }

    /// Asks again, for what can change: recovery, read-only, the instance's name. One round trip, or two on Aurora.
    pub async fn identify(&self) -> Result<ServerSaid, ConnectError> {
        identify(&self.host, &self.client, self.name).await
    }

    /// The host as it was dialled.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where the server itself is.
    pub fn address(&self) -> IpAddr {
        self.said.address
    }

    /// Notices and warnings (`WARNING: …`) that came since the last call, oldest first.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).collect()
    }

    /// The databases that may be connected to, by name, without templates and `rdsadmin`.
    pub async fn connectable_databases(&self) -> Result<Vec<String>, tokio_postgres::Error> {
        let rows = self.client.query(sql::CONNECTABLE_DATABASES, &[]).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }
}

impl Deref for Conn {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, notices: mpsc::Sender<String>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                // Full means that nobody takes them; the newest are dropped, the connection goes on.
                let _dropped = notices.try_send(format!("{}: {}", notice.severity(), notice.message()));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = %runtime::supervision::chain(&error), "connection ended");
                return;
            }
        }
    }
}

async fn identify(host: &str, client: &Client, name: bool) -> Result<ServerSaid, ConnectError> {
    let failed = |source| ConnectError::Server { host: host.to_owned(), source };
    let row = first_row(client.simple_query(sql::IDENTIFY).await.map_err(failed)?);
    let said = row.as_deref().and_then(parse_identity);
    let Some((mut said, has_instance)) = said else {
        return Err(ConnectError::NoIdentity { host: host.to_owned(), what: format!("it answered {row:?}") });
    };
    if has_instance && name {
        let row = first_row(client.simple_query(sql::INSTANCE).await.map_err(failed)?);
        said.instance = row.and_then(|row| row.into_iter().next().flatten());
    }
    Ok(said)
}

fn first_row(messages: Vec<SimpleQueryMessage>) -> Option<Vec<Option<String>>> {
    messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    })
}

/// Address, version number, recovery, read-only, and whether the server knows its instance's name.
fn parse_identity(row: &[Option<String>]) -> Option<(ServerSaid, bool)> {
    let [address, version, recovery, read_only, instance] = row else { return None };
    let said = ServerSaid {
        address: address.as_deref()?.parse().ok()?,
        major: version.as_deref()?.parse::<u32>().ok()? / 10_000,
        instance: None,
        in_recovery: recovery.as_deref()? == "t",
        read_only: read_only.as_deref()? == "on",
    };
    Some((said, instance.as_deref()? == "t"))
}

async fn resolve(clock: &Clock, host: &str, port: u16, limit: Duration) -> Result<Vec<IpAddr>, ConnectError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let failed = |source| ConnectError::Resolve { host: host.to_owned(), source };
    let found = clock.timeout(limit, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| ConnectError::Timeout { host: host.to_owned(), limit })?;
    Ok(found.map_err(failed)?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use proto::side::Member;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_swallows_what_is_sent_is_tried_again_before_the_first_try_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let file = std::env::temp_dir().join(format!("insistent-{}", std::process::id()));
        std::fs::write(&file, "secret\n").unwrap();
        let database = Database {
            user: "upgrade_pilot".into(),
            password_file: Some(file.clone()),
            password_command: None,
            maintenance_database: "postgres".into(),
            tls: Tls::Disable,
            tls_ca_file: None,
        };
        let dialer = Dialer::new(&database, vec!["127.0.0.0/8".parse().unwrap()], Clock::system()).unwrap();
        let (resource_id, instance, host) = ("db-1".into(), "green-1".into(), "127.0.0.1".into());
        let members = vec![Member { resource_id, instance, host, port, writer: true }];
        let side = SideIdentity { side: Side::Green, cluster_resource_id: "cluster-1".into(), major: 16, members };
        let limits = Limits { connect: Duration::from_secs(2), silence: Duration::from_secs(2), name: false };
        let pace = Pace { refused: Duration::from_millis(5), hangs: Duration::from_millis(10) };
        // It accepts and never answers: all stay open until the third has come.
        let third = async {
            let mut open = Vec::new();
            while open.len() < 3 {
                open.push(listener.accept().await.unwrap());
            }
        };
        tokio::select! {
            ended = dialer.open_insistently(&side, "postgres", limits, pace) => {
                panic!("it gave up before the third try: {:?}", ended.err().map(|error| error.to_string()));
            }
            () = third => {}
        }
        std::fs::remove_file(file).unwrap();
    }
}
