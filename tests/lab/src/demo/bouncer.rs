//! A real pgbouncer in front of the demo's cluster: transaction pooling, an admin console, and the `%include`d file of
//! databases that an agent rewrites. It must run as somebody other than root, and it ends with the demo.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use super::session::Login;
use super::tempo::Tempo;
use crate::names::Resolver;

/// The role of the admin console.
pub const ADMIN: &str = "pgbouncer_admin";
/// uid and gid of `nobody`, which servers run as when the demo is root.
const NOBODY: u32 = 65_534;

/// What it is to pool.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub program: PathBuf,
    /// A folder of its own; made if missing.
    pub folder: PathBuf,
    /// Where the databases are.
    pub server: (String, u16),
    /// Through which view of the lab's names it resolves that; `None` when it is an address.
    pub names: Option<Resolver>,
    /// Databases, by the same name on both sides.
    pub databases: Vec<String>,
    /// Its names of databases that it looks for at another host, the reader endpoint for example.
    pub elsewhere: Vec<Elsewhere>,
    /// Roles and passwords of its clients, which are those of the servers too.
    pub users: Vec<(String, String)>,
}

/// A database at another host, under a name of the pooler's own.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// What its clients call it.
    pub name: String,
    /// What the server calls it.
    pub database: String,
    /// Where that is; the port is the servers' one.
    pub host: String,
}

/// A running pgbouncer.
#[derive(Debug)]
pub struct Bouncer {
    child: Child,
    address: SocketAddr,
    databases_file: PathBuf,
    log: PathBuf,
}

impl Bouncer {
    /// Starts it on a loopback port that the system chooses, and waits until it answers.
    pub async fn start(options: &Options, tempo: &Tempo) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&options.folder).with_context(|| format!("making {}", options.folder.display()))?;
        let root = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)?;
        let port = free_port()?;
        let files = Files::of(&options.folder);
        let resolv_conf = match &options.names {
            Some(names) => Some(names.resolv_conf().await.context("starting the pooler's DNS server")?),
            None => None,
        };
        files.write(options, port, resolv_conf.as_deref())?;
        if root {
            std::fs::set_permissions(&options.folder, std::fs::Permissions::from_mode(0o755))?;
            std::os::unix::fs::chown(&options.folder, Some(NOBODY), Some(NOBODY))?;
        }
        let mut command = Command::new(&options.program);
        command.arg("-q").arg(&files.main).current_dir(&options.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).process_group(0);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let child = command.spawn().with_context(|| format!("starting {}", options.program.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut bouncer = Self { child, address, databases_file: files.databases, log: files.log };
        bouncer.answers(tempo).await?;
        Ok(bouncer)
    }

    async fn answers(&mut self, tempo: &Tempo) -> anyhow::Result<()> {
        let console = self.console();
        let look = async || {
            let session = console.open(tempo, Duration::from_secs(1)).await.map_err(|miss| miss.to_string())?;
            session.run(tempo, Duration::from_secs(1), "show version").await.map_err(|miss| miss.to_string())
        };
        let answered = tempo.until("pgbouncer", Duration::from_millis(20), Duration::from_secs(10), look).await;
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        answered.map(drop).with_context(|| format!("pgbouncer does not answer; its log says: {}", log()))
    }

    /// Where clients and the admin console connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file with the `[databases]` section.
    pub fn databases_file(&self) -> &Path {
        &self.databases_file
    }

    /// How a client reaches a database through it.
    pub fn login(&self, user: &str, password: &str, database: &str, application: &str) -> Login {
        Login {
            host: self.address.ip().to_string(),
            names: None,
            port: self.address.port(),
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
            application: application.to_owned(),
        }
    }

    /// Its admin console, which speaks the simple protocol only.
    pub fn console(&self) -> Login {
        self.login(ADMIN, "", "pgbouncer", "demo")
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it.
    pub async fn stop(mut self) {
        // It may have ended by itself; there is nothing else to do about either.
        let _ = self.child.kill().await;
    }
}

/// The `[databases]` section that leads everything to one server.
pub fn databases_section(databases: &[String], host: &str, port: u16) -> String {
    let lines: Vec<String> =
        databases.iter().map(|database| format!("{database} = host={host} port={port} dbname={database}\n")).collect();
    format!("[databases]\n{}", lines.concat())
}

struct Files {
    main: PathBuf,
    databases: PathBuf,
    users: PathBuf,
    log: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            main: file("pgbouncer.ini"),
            databases: file("pgbouncer-databases.ini"),
            users: file("users.txt"),
            log: file("pgbouncer.log"),
        }
    }

    fn write(&self, options: &Options, port: u16, resolv_conf: Option<&Path>) -> anyhow::Result<()> {
        let main = format!(
            "%include {databases}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {users}\nadmin_users = {ADMIN}\npool_mode = transaction\nmax_client_conn = 200\n\
             default_pool_size = 20\nserver_login_retry = 1\nserver_connect_timeout = 5\n\
             ignore_startup_parameters = extra_float_digits\n{resolv}logfile = {log}\npidfile = {log}.pid\n",
            databases = self.databases.display(),
            users = self.users.display(),
            log = self.log.display(),
            resolv = resolv_conf.map_or_else(String::new, |file| format!("resolv_conf = {}\n", file.display())),
        );
        let users: Vec<String> = options
            .users
            .iter()
            .chain([&(ADMIN.to_owned(), String::new())])
            .map(|(user, password)| format!("\"{user}\" \"{password}\"\n"))
            .collect();
        let port = options.server.1;
        let mut databases = databases_section(&options.databases, &options.server.0, port);
        for Elsewhere { name, database, host } in &options.elsewhere {
            databases += &format!("{name} = host={host} port={port} dbname={database}\n");
        }
        for (file, text) in [(&self.main, main), (&self.users, users.concat()), (&self.databases, databases)] {
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

/// A port that is free now. Another process may take it before pgbouncer does; then pgbouncer's log says so.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_included_file_is_one_section() {
        let section = databases_section(&["orders".into(), "billing".into()], "127.9.8.1", 5432);
        assert_eq!(
            section,
            "[databases]\norders = host=127.9.8.1 port=5432 dbname=orders\nbilling = host=127.9.8.1 port=5432 dbname=billing\n"
        );
    }
}
