//! One PostgreSQL server: its folder, its process, its configuration and the provider's own sessions on it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use super::conf::Conf;
use super::process::{self, Child, Program};
use super::{Error, Fleet, LogPosition, log};
use crate::roles;
use crate::status::Identity;

/// How long a server may take to come up, or to go down by itself.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// How long one session of the provider may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, everything is written, standbys get all.
    Fast,
    /// As by a crash.
    Immediate,
}

/// A server. Stopped at once when dropped.
pub struct Server {
    name: String,
    major: u32,
    folder: PathBuf,
    fleet: Fleet,
    conf: Mutex<Conf>,
    running: Mutex<Option<Running>>,
    /// One start, stop or restart at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Running {
    child: std::sync::Arc<Child>,
    presence: Option<JoinHandle<()>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("major", &self.major())
            .field("address", &self.address())
            .finish()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            if let Some(presence) = running.presence {
                presence.abort();
            }
            running.child.signal("QUIT");
        }
    }
}

impl Server {
    pub(super) fn new(name: String, major: u32, folder: PathBuf, fleet: Fleet, conf: Conf) -> Self {
        let (conf, running) = (Mutex::new(conf), Mutex::new(None));
        Self { name, major, folder, fleet, conf, running, turn: tokio::sync::Mutex::new(()) }
    }

    /// Its name in the fleet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Where it listens; never changes.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let conf = self.conf();
        SocketAddr::new(conf.address, conf.port)
    }

    /// Its address without the port.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address().ip()
    }

    /// Everything of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its data folder.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its log files, named `postgresql.log.YYYY-MM-DD-HH`, and what an upgrade wrote (`pg_upgrade….log`).
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The fleet it belongs to.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    pub(crate) fn fsync(&self) -> bool {
        self.conf().fsync
    }

    pub(crate) fn sockets(&self) -> String {
        self.conf().sockets.clone()
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().filter(|running| running.child.is_running()).map(|running| running.child.pid)
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    // ---- configuration ---------------------------------------------------------------------------------------------

    fn conf(&self) -> std::sync::MutexGuard<'_, Conf> {
        self.conf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parameters of its groups as they stand in its configuration (static ones may wait for a restart).
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        self.conf().parameters.clone()
    }

    /// Replaces the parameters of its groups. Written at once; effective by [`Server::reload`] or [`Server::restart`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_parameters(&self, parameters: BTreeMap<String, String>) -> Result<(), Error> {
        self.configure(|conf| conf.parameters = parameters)
    }

    /// Sets what the mechanics need over the groups' parameters, or gives it back (`None`).
    pub(crate) fn set_override(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        self.configure(|conf| match value {
            Some(value) => drop(conf.overrides.insert(name.to_owned(), value.to_owned())),
            None => drop(conf.overrides.remove(name)),
        })
    }

    /// Gives it a certificate with its key (PEM), which it shows after [`Server::reload`]. Until the first it takes no TLS.
    pub(crate) fn certify(&self, certificate: &str, key: &str) -> Result<(), Error> {
        // Each in files of its own: whoever reads the configuration meanwhile finds a pair.
        let number = rand::random::<u32>();
        let file = |kind: &str| self.folder.join(format!("tls-{number:08x}.{kind}"));
        let (shown, secret) = (file("crt"), file("key"));
        let write = || {
            process::replace(&shown, certificate)?;
            process::replace(&secret, key)?;
            std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600))
        };
        write().map_err(Error::io(format!("writing the certificate of {}", self.name)))?;
        self.configure(|conf| conf.certificate = Some((shown, secret)))
    }

    /// Changes what the server tells about itself. Sessions see it with their next statement once this returns, whatever the
    /// server is busy with; one that does not run tells it when it starts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        let mut conf = self.conf();
        if conf.identity == identity {
            return Ok(());
        }
        conf.identity = identity;
        let data = self.data_dir();
        if !data.join("PG_VERSION").exists() {
            return Ok(());
        }
        conf.tell(&data).map_err(Error::io(format!("writing what {} tells", self.name)))
    }

    /// What it answers about itself.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.conf().identity.clone()
    }

    pub(crate) fn configure(&self, change: impl FnOnce(&mut Conf)) -> Result<(), Error> {
        let mut conf = self.conf();
        change(&mut conf);
        let data = self.data_dir();
        // A server that has no data yet gets its configuration when it starts.
        if !data.join("PG_VERSION").exists() {
            return Ok(());
        }
        conf.write(&data).map_err(Error::io(format!("writing the configuration of {}", self.name)))
    }

    /// Makes the server read its configuration again; returns when a session has seen it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn reload(&self) -> Result<(), Error> {
        let admin = self.admin("postgres").await?;
        reload(&admin).await
    }

    // ---- process ---------------------------------------------------------------------------------------------------

    /// Starts it and waits until it takes sessions. Does nothing when it runs.
    ///
    /// # Errors
    /// When it ends instead or does not come up in two minutes; with the end of its log.
    pub async fn start(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.start_now(&[], true).await
    }

    /// Starts it for the mechanics: reachable by the socket only, without the provider's own session.
    pub(crate) async fn start_quietly(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.start_now(&["-c", "listen_addresses=", "-c", "logging_collector=off"], false).await
    }

    async fn start_now(&self, arguments: &[&str], presence: bool) -> Result<(), Error> {
        if self.is_running() {
            return Ok(());
        }
        self.configure(|_| ())?;
        let data = self.data_dir();
        let mut all: Vec<std::ffi::OsString> = vec!["-D".into(), data.clone().into()];
        all.extend(arguments.iter().map(std::ffi::OsString::from));
        let program = Program {
            path: self.fleet.trees().program(self.major(), "postgres"),
            arguments: all,
            folder: self.folder.clone(),
            environment: self.fleet.trees().environment(self.major()),
            output: self.folder.join("startup.log"),
            death_signal: "INT",
        };
        let _ = std::fs::remove_file(&program.output);
        let child = process::spawn(&program).await.map_err(Error::io(format!("starting {}", self.name)))?;
        let child = std::sync::Arc::new(child);
        // Noted before the wait, so that a caller who gives up leaves a server that is known and stopped.
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Running { child: child.clone(), presence: None });
        self.fleet.note();
        let last = self.wait_until_up(&child).await;
        if let Err(reason) = last {
            child.signal("QUIT");
            if tokio::time::timeout(STOP_LIMIT, child.exited()).await.is_err() {
                child.kill_group();
                child.exited().await;
            }
            let startup = std::fs::read_to_string(&program.output).unwrap_or_default();
            let reason = format!("{reason}: {}{}", startup.trim(), log::tail(&self.log_dir(), 2000).trim());
            return Err(Error::Server { server: self.name.clone(), reason });
        }
        if presence {
            let presence = tokio::spawn(roles::presence(self.config("postgres", "rdsadmin")));
            if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                running.presence = Some(presence);
            }
        }
        Ok(())
    }

    async fn wait_until_up(&self, child: &Child) -> Result<(), String> {
        let mut last = String::from("no attempt was made");
        let up = async {
            loop {
                // Asked only when it says that it is ready: every attempt before would stand in its log.
                match self.says_ready() {
                    true => match self.admin("postgres").await {
                        Ok(_) => return,
                        Err(error) => last = error.chain(),
                    },
                    false => last = "it has not said that it is ready".into(),
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            up = tokio::time::timeout(START_LIMIT, up) => up.map_err(|_| format!("it did not come up in time, last seen: {last}")),
            _ = child.exited() => Err("it ended while starting".into()),
        }
    }

    /// What the postmaster notes in the eighth line of its file.
    fn says_ready(&self) -> bool {
        let noted = std::fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let own = noted.lines().next().and_then(|line| line.trim().parse().ok()) == self.pid();
        own && noted.lines().nth(7).is_some_and(|status| matches!(status.trim(), "ready" | "standby"))
    }

    /// Stops it and waits until its process has gone. Does nothing when it does not run.
    ///
    /// # Errors
    /// When even killing does not end it.
    pub async fn stop(&self, how: Stop) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.stop_now(how).await
    }

    async fn stop_now(&self, how: Stop) -> Result<(), Error> {
        let (child, presence) = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(running) = running.as_mut() else { return Ok(()) };
            (running.child.clone(), running.presence.take())
        };
        if let Some(presence) = presence {
            presence.abort();
        }
        let first = if how == Stop::Fast { "INT" } else { "QUIT" };
        for (signal, limit) in
            [(first, STOP_LIMIT), ("QUIT", Duration::from_secs(10)), ("KILL", Duration::from_secs(10))]
        {
            child.signal(signal);
            if tokio::time::timeout(limit, child.exited()).await.is_ok() {
                *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.fleet.note();
                return Ok(());
            }
        }
        Err(Error::Server { server: self.name.clone(), reason: "it does not end".into() })
    }

    /// Stops it fast and starts it again: static parameters take effect.
    ///
    /// # Errors
    /// As [`Server::start`] and [`Server::stop`].
    pub async fn restart(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.stop_now(Stop::Fast).await?;
        self.start_now(&[], true).await
    }

    /// Stops it and removes everything of it.
    ///
    /// # Errors
    /// When it does not end or its folder cannot be removed.
    pub async fn remove(&self) -> Result<(), Error> {
        self.stop(Stop::Immediate).await?;
        let (folder, sockets) = (self.folder.clone(), PathBuf::from(self.sockets()));
        super::blocking("removing a server", move || {
            let _ = std::fs::remove_dir_all(sockets);
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }

    // ---- sessions --------------------------------------------------------------------------------------------------

    /// How a role of the provider reaches a database: over the socket, unlogged, able to write on a read-only side.
    pub(crate) fn config(&self, database: &str, role: &str) -> tokio_postgres::Config {
        let conf = self.conf();
        let mut config = tokio_postgres::Config::new();
        config.host_path(&conf.sockets).port(conf.port).user(role).dbname(database).application_name(role);
        config.connect_timeout(CONNECT_LIMIT);
        config.options("-c log_statement=none -c default_transaction_read_only=off -c log_min_duration_statement=-1");
        config
    }

    /// A session of the provider's superuser. For the lab only; never handed to clients.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn admin(&self, database: &str) -> Result<Admin, Error> {
        self.session(self.config(database, "rdsadmin"), "rdsadmin", database).await
    }

    /// A session of the provider's replication role.
    pub(crate) async fn replication_admin(&self, database: &str) -> Result<Admin, Error> {
        self.session(self.config(database, "rdsrepladmin"), "rdsrepladmin", database).await
    }

    /// A client's session over TCP.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn client(&self, user: &str, password: &str, database: &str) -> Result<Admin, Error> {
        let mut config = tokio_postgres::Config::new();
        let address = self.address();
        config.host(address.ip().to_string()).port(address.port()).user(user).password(password).dbname(database);
        config.connect_timeout(CONNECT_LIMIT);
        self.session(config, user, database).await
    }

    async fn session(&self, config: tokio_postgres::Config, role: &str, database: &str) -> Result<Admin, Error> {
        let doing = || format!("connecting to {} as {role} in {database}", self.name);
        let attempt = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls)).await;
        let attempt = attempt.map_err(|_| Error::other(format!("{}: no answer", doing())))?;
        let (client, connection) = attempt.map_err(Error::sql(doing()))?;
        // Its task ends by itself once the client has gone and the server has been told.
        tokio::spawn(async move {
            // The end of a connection shows in the client's next call.
            let _ = connection.await;
        });
        Ok(Admin { client })
    }

    /// Databases that take connections, templates and the provider's own left out, with their object ids.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn databases(&self) -> Result<Vec<(String, u32)>, Error> {
        let admin = self.admin("postgres").await?;
        let rows = admin
            .query("select datname::text, oid from pg_database where datallowconn and not datistemplate and datname <> 'rdsadmin' order by 1", &[])
            .await
            .map_err(Error::sql("listing databases"))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    // ---- log -------------------------------------------------------------------------------------------------------

    /// How far its log has been written.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn log_position(&self) -> Result<LogPosition, Error> {
        log::position(&self.log_dir()).map_err(Error::io("reading the log folder"))
    }

    /// What its log says since a position.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn log_since(&self, position: &LogPosition) -> Result<String, Error> {
        log::since(&self.log_dir(), position).map_err(Error::io("reading the log"))
    }

    /// Runs a program of its tree against it, with the replication role's password in the environment.
    pub(crate) async fn run_against(
        &self,
        program: &str,
        arguments: Vec<std::ffi::OsString>,
        folder: &Path,
        cancel: &CancellationToken,
    ) -> Result<String, Error> {
        let environment = vec![("PGPASSWORD".to_owned(), roles::replication_password().into())];
        let run = super::Run { major: self.major(), program, arguments, folder, environment };
        self.fleet.run(run, cancel).await
    }
}

/// A session that ends when it is dropped. Use it as a [`Client`].
pub struct Admin {
    client: Client,
}

impl Deref for Admin {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

/// Reloads through an open session and waits until that session, and so the postmaster before it, has read the files.
pub(crate) async fn reload(admin: &Client) -> Result<(), Error> {
    let before: std::time::SystemTime = load_time(admin).await?;
    admin.batch_execute("select pg_reload_conf()").await.map_err(Error::sql("reloading"))?;
    for _ in 0..5000 {
        if load_time(admin).await? != before {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(Error::other("the configuration was not read again within five seconds"))
}

async fn load_time(admin: &Client) -> Result<std::time::SystemTime, Error> {
    let row = admin
        .query_one("select pg_conf_load_time()", &[])
        .await
        .map_err(Error::sql("asking for the configuration's age"))?;
    Ok(row.get(0))
}
