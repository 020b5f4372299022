//! Real PostgreSQL servers: one folder, one address, one process each. Makes, starts, stops, configures and removes them,
//! and sees to it that none outlives the lab. Knows neither clusters nor replication.

pub(crate) mod conf;
pub(crate) mod log;
pub(crate) mod process;
mod server;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::sync::CancellationToken;

pub use self::log::LogPosition;
pub(crate) use self::process::send as signal;
pub(crate) use self::server::reload;
pub use self::server::{Admin, Server, Stop};

use self::conf::Conf;
use self::process::Program;
use crate::status::Identity;

/// What can go wrong with servers.
#[expect(clippy::error_impl_error, reason = "types do not repeat their module")]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A server answered with an error, or not at all.
    #[error("{doing}")]
    Sql {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A program failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A server did not start or stop.
    #[error("server {server}: {reason}")]
    Server {
        /// Which.
        server: String,
        /// What happened, with the end of its log.
        reason: String,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Something else, said in one sentence.
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn other(reason: impl Into<String>) -> Self {
        Self::Other(reason.into())
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn sql(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Sql { doing, source }
    }

    /// The error with all its sources in one line, for a person.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// The installed PostgreSQL majors.
#[derive(Debug, Clone)]
pub struct Trees {
    root: PathBuf,
}

impl Trees {
    /// The trees in a folder that has one sub-folder for each major (see [`crate::install::ensure`]).
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of one major.
    #[must_use]
    pub fn tree(&self, major: u32) -> PathBuf {
        self.root.join(major.to_string())
    }

    /// A program of one major.
    #[must_use]
    pub fn program(&self, major: u32, name: &str) -> PathBuf {
        self.tree(major).join("bin").join(name)
    }

    /// The shared libraries of one major. Must be first in `LD_LIBRARY_PATH`: else the system's older libpq is picked up
    /// and standbys never stream.
    #[must_use]
    pub fn libraries(&self, major: u32) -> PathBuf {
        self.tree(major).join("lib")
    }

    /// The environment that any program of a tree needs.
    #[must_use]
    pub fn environment(&self, major: u32) -> Vec<(String, OsString)> {
        vec![
            ("LD_LIBRARY_PATH".into(), self.libraries(major).into_os_string()),
            ("LC_ALL".into(), "C".into()),
            ("TZ".into(), "UTC".into()),
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("HOME".into(), "/".into()),
        ]
    }

    /// The version of one major's server, `16.15` for example.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn version(&self, major: u32) -> Result<String, Error> {
        let stamp = std::fs::read_to_string(self.tree(major).join(".version"))
            .map_err(Error::io(format!("PostgreSQL {major} is not installed")))?;
        let mut parts = stamp.trim().split('.');
        Ok(format!("{}.{}", parts.next().unwrap_or("?"), parts.next().unwrap_or("?")))
    }
}

/// A server that is to be made.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in the fleet: a folder name, unique in the fleet and never changed.
    pub name: String,
    /// The address it listens on.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Parameters of its groups. `rds.logical_replication` becomes `wal_level`.
    pub parameters: BTreeMap<String, String>,
    /// What it answers about itself.
    pub identity: Identity,
    /// The least memory and disk that it runs with.
    pub smallest: bool,
}

/// All servers of one lab. Clones share them. Those still running when the last clone and the last server go are ended.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    work: PathBuf,
    sockets: PathBuf,
    trees: Trees,
    fsync: bool,
    counter: AtomicU32,
    servers: Mutex<Vec<Weak<Server>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.sockets);
    }
}

impl Fleet {
    /// A fleet whose servers live under `work`. Ends servers that an earlier lab left running there.
    ///
    /// # Errors
    /// When the folders cannot be made, or the servers' user cannot reach them.
    pub async fn open(work: &Path, trees: Trees, fsync: bool) -> Result<Self, Error> {
        std::fs::create_dir_all(work).map_err(Error::io(format!("making {}", work.display())))?;
        let work = work.canonicalize().map_err(Error::io(format!("resolving {}", work.display())))?;
        open_up(&work)?;
        end_orphans(&work).await?;
        let sockets = std::env::temp_dir().join(format!("pilot-lab-{:08x}", rand::random::<u32>()));
        std::fs::create_dir(&sockets).map_err(Error::io("making the folder of the sockets"))?;
        std::fs::set_permissions(&sockets, PermissionsExt::from_mode(0o711))
            .map_err(Error::io("opening the folder of the sockets"))?;
        let (counter, servers) = (AtomicU32::new(1), Mutex::new(Vec::new()));
        Ok(Self(Arc::new(Inner { work, sockets, trees, fsync, counter, servers })))
    }

    /// Where everything of this fleet is.
    #[must_use]
    pub fn work(&self) -> &Path {
        &self.0.work
    }

    /// The installed majors.
    #[must_use]
    pub fn trees(&self) -> &Trees {
        &self.0.trees
    }

    /// Makes a new empty server (initdb, from a template kept in the cache) without starting it.
    ///
    /// # Errors
    /// When the major is not installed or the folder exists.
    pub async fn create(&self, node: Node, major: u32) -> Result<Arc<Server>, Error> {
        let server = self.place(node, major)?;
        let template = self.template(major).await?;
        copy_folder(&template, &server.data_dir()).await?;
        Ok(server)
    }

    /// Makes the folders of a server whose data will come from elsewhere (a base copy).
    ///
    /// # Errors
    /// When its folder exists.
    pub fn place(&self, node: Node, major: u32) -> Result<Arc<Server>, Error> {
        let folder = self.0.work.join(&node.name);
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        let sockets = self.0.sockets.join(number.to_string());
        for (path, mode) in [(&folder, 0o755), (&folder.join("log"), 0o755), (&sockets, 0o700)] {
            make_folder(path, mode)?;
        }
        let conf = Conf {
            address: node.address,
            port: node.port,
            sockets: sockets.display().to_string(),
            logs: folder.join("log").display().to_string(),
            fsync: self.0.fsync,
            parameters: node.parameters,
            overrides: BTreeMap::new(),
            identity: node.identity,
            smallest: node.smallest,
            certificate: None,
            closed: false,
        };
        let server = Arc::new(Server::new(node.name, major, folder, self.clone(), conf));
        let mut servers = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|server| server.strong_count() > 0);
        servers.push(Arc::downgrade(&server));
        Ok(server)
    }

    /// Stops every server at once, by the given way.
    pub async fn stop_all(&self, how: Stop) {
        let servers: Vec<_> =
            self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let stops = servers.iter().map(|server| server.stop(how));
        for (server, stopped) in servers.iter().zip(futures_util::future::join_all(stops).await) {
            if let Err(error) = stopped {
                tracing::warn!(server = server.name(), error = error.chain(), "a server did not stop");
            }
        }
    }

    /// Notes which processes run, so that a later lab in the same folder can end them.
    pub(crate) fn note(&self) {
        let servers = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: String = (servers.iter().filter_map(Weak::upgrade))
            .filter_map(|server| server.pid().map(|pid| format!("{pid} {}\n", server.data_dir().display())))
            .collect();
        let _ = std::fs::write(self.0.work.join("lab.pids"), lines);
    }

    /// Runs a program of a tree to its end, in `folder`.
    ///
    /// # Errors
    /// [`Error::Program`] with the end of its output when it fails; [`Error::Cancelled`], when it has been killed with its
    /// children.
    pub(crate) async fn run(&self, run: Run<'_>, cancel: &CancellationToken) -> Result<String, Error> {
        let output = run.folder.join(format!("{}.out", run.program));
        let _ = std::fs::remove_file(&output);
        let mut environment = self.trees().environment(run.major);
        environment.extend(run.environment);
        let program = Program {
            path: self.trees().program(run.major, run.program),
            arguments: run.arguments,
            folder: run.folder.to_owned(),
            environment,
            output: output.clone(),
            death_signal: "KILL",
        };
        let child = process::spawn(&program).await.map_err(Error::io(format!("starting {}", run.program)))?;
        let guard = KillOnDrop(child);
        let exit = tokio::select! {
            exit = guard.0.exited() => exit,
            () = cancel.cancelled() => {
                guard.0.kill_group();
                guard.0.exited().await;
                return Err(Error::Cancelled);
            }
        };
        let text = std::fs::read_to_string(&output).unwrap_or_default();
        if exit.is_some_and(|status| status.success()) {
            return Ok(text);
        }
        let from = text.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
        Err(Error::Program { program: run.program.to_owned(), output: text[from..].trim().to_owned() })
    }

    /// The folder of a freshly initialised server of a major, made once and kept in the cache.
    async fn template(&self, major: u32) -> Result<PathBuf, Error> {
        let version = self.trees().version(major)?;
        let root = self.trees().root.with_file_name("templates");
        make_folder(&root, 0o755).or_else(|error| if root.is_dir() { Ok(()) } else { Err(error) })?;
        let folder = root.join(&version);
        let lock = lock(&root.join(format!("{version}.lock"))).await?;
        if !folder.join("PG_VERSION").exists() {
            let _ = std::fs::remove_dir_all(&folder);
            let fresh = root.join(format!("{version}.fresh"));
            let _ = std::fs::remove_dir_all(&fresh);
            make_folder(&fresh, 0o755)?;
            let data = fresh.join("data");
            let mut arguments: Vec<OsString> = vec!["-D".into(), data.clone().into()];
            arguments.extend(INITDB.iter().map(OsString::from));
            if major >= 18 {
                // pg_upgrade wants equal checksum settings on both sides, and earlier majors have none by default.
                arguments.push("--no-data-checksums".into());
            }
            let run = Run { major, program: "initdb", arguments, folder: &fresh, environment: vec![] };
            self.run(run, &CancellationToken::new()).await?;
            std::fs::rename(&data, &folder).map_err(Error::io("keeping the template"))?;
            let _ = std::fs::remove_dir_all(&fresh);
        }
        drop(lock);
        Ok(folder)
    }
}

/// All servers are born alike: the bootstrap superuser is the provider's, and no ICU (the packages have none).
const INITDB: &[&str] = &["-U", "rdsadmin", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];

/// A program that [`Fleet::run`] is to run.
pub(crate) struct Run<'a> {
    pub(crate) major: u32,
    pub(crate) program: &'a str,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) folder: &'a Path,
    pub(crate) environment: Vec<(String, OsString)>,
}

struct KillOnDrop(process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill_group();
    }
}

/// Takes a file lock, waiting for another process that holds it.
pub(crate) async fn lock(path: &Path) -> Result<std::fs::File, Error> {
    let path = path.to_owned();
    let take = move || {
        let file = std::fs::File::options().create(true).append(true).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    blocking("taking a lock", take).await
}

/// Runs file work off the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Error::other(format!("{doing}: {error}")))?;
    done.map_err(Error::io(doing))
}

/// Makes one folder for the servers' user.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    let make = || {
        std::fs::create_dir(path)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
        process::give(path)
    };
    make().map_err(Error::io(format!("making {}", path.display())))
}

/// Copies a folder with owners and modes; shares blocks where the file system can.
pub(crate) async fn copy_folder(from: &Path, to: &Path) -> Result<(), Error> {
    let (source, target) = (from.to_owned(), to.to_owned());
    let copy = move || std::process::Command::new("cp").args(["-a", "--reflink=auto"]).arg(source).arg(target).output();
    let output = blocking("copying a folder", copy).await?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Program { program: "cp".into(), output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// Makes a work folder reachable for the servers' user, or says which folder above it is not.
fn open_up(work: &Path) -> Result<(), Error> {
    if !process::is_root() {
        return Ok(());
    }
    std::fs::set_permissions(work, PermissionsExt::from_mode(0o755)).map_err(Error::io("opening the work folder"))?;
    for folder in work.ancestors() {
        let mode = std::fs::metadata(folder).map_err(Error::io("looking at the work folder"))?.permissions().mode();
        if mode & 0o001 == 0 {
            let reason = format!(
                "{} cannot be entered by the user that servers run as; choose another work folder",
                folder.display()
            );
            return Err(Error::Other(reason));
        }
    }
    Ok(())
}

/// Ends servers that still run on a data folder of this work folder, by the folders' own notes and by `lab.pids`.
async fn end_orphans(work: &Path) -> Result<(), Error> {
    let noted = std::fs::read_to_string(work.join("lab.pids")).unwrap_or_default();
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        end_server_of(&entry.path().join("data")).await?;
    }
    for line in noted.lines() {
        if let Some((pid, data)) = line.split_once(' ').and_then(|(pid, data)| Some((pid.parse::<u32>().ok()?, data))) {
            end_postmaster(pid, Path::new(data)).await?;
        }
    }
    Ok(())
}

/// Ends whatever server runs on a data folder, by the folder's own note of it.
pub(crate) async fn end_server_of(data: &Path) -> Result<(), Error> {
    let noted = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    match noted.lines().next().and_then(|line| line.trim().parse().ok()) {
        Some(pid) => end_postmaster(pid, data).await,
        None => Ok(()),
    }
}

/// Ends a postmaster by id, if that process really is one on this data folder, and waits until it has gone.
pub(crate) async fn end_postmaster(pid: u32, data: &Path) -> Result<(), Error> {
    let data = data.display().to_string();
    let runs = || {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|argument| argument == data)
    };
    for attempt in 0..1000 {
        if !runs() {
            return Ok(());
        }
        if attempt % 500 == 0 {
            process::send(if attempt == 0 { "QUIT" } else { "KILL" }, &pid.to_string());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Err(Error::other(format!("process {pid} on {data} does not end")))
}
