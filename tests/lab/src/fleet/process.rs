//! Starts child processes so that none outlives the lab: as the unprivileged user, in a process group of their own, and with
//! a signal that the kernel sends them when the lab dies. Knows nothing of PostgreSQL.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;

use tokio::sync::{oneshot, watch};

/// The user that servers run as when the lab is root (`nobody`: PostgreSQL wants an entry in passwd).
pub(crate) const UNPRIVILEGED: u32 = 65534;

/// Whether children change to the unprivileged user.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0))
}

/// Gives a file or folder to the user that children run as.
pub(crate) fn give(path: &Path) -> io::Result<()> {
    if is_root() { std::os::unix::fs::chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)) } else { Ok(()) }
}

/// Writes a small file of theirs by rename: a reader sees the old text or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text)?;
    give(&fresh)?;
    std::fs::rename(&fresh, path)
}

/// A program that is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) folder: PathBuf,
    pub(crate) environment: Vec<(String, OsString)>,
    /// Where standard output and standard error go.
    pub(crate) output: PathBuf,
    /// What the kernel sends it when the lab dies: `INT` asks a postmaster to shut down fast.
    pub(crate) death_signal: &'static str,
}

/// A child. Its exit can be awaited by any number of tasks.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    exit: watch::Receiver<Option<Exit>>,
}

/// How a child ended; `None` inside when the system could not say.
type Exit = Option<ExitStatus>;

impl Child {
    /// Waits for its end. Cancel-safe.
    pub(crate) async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.flatten()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.exit.borrow().is_none() && self.exit.has_changed().is_ok()
    }

    /// Sends a signal by name to the child alone. One that has ended is left alone.
    pub(crate) fn signal(&self, name: &str) {
        if self.is_running() {
            send(name, &self.pid.to_string());
        }
    }

    /// Kills the child and everything in its process group.
    pub(crate) fn kill_group(&self) {
        if self.is_running() {
            send("KILL", &format!("-{}", self.pid));
        }
    }
}

/// The shell's own `kill`: the lab has no unsafe code to call the system's.
pub(crate) fn send(signal: &str, target: &str) {
    let _ = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$0\" -- \"$1\" 2>/dev/null", signal, target])
        .stdin(Stdio::null())
        .status();
}

type Order = (Command, oneshot::Sender<io::Result<Child>>);

/// Starts a program. All children are started by one thread that lives as long as the lab: the kernel sends the death
/// signal when the *thread* that started a child ends, and a thread of the runtime may end at any time.
pub(crate) async fn spawn(program: &Program) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let command = build(program)?;
    let orders = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let thread = std::thread::Builder::new().name("lab-spawner".into());
        // Without the thread every order is answered by the closed channel below.
        let _ = thread.spawn(move || {
            for (command, answer) in inbox {
                let _ = answer.send(start(command));
            }
        });
        orders
    });
    let (answer, started) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    orders.send((command, answer)).map_err(|_| gone())?;
    started.await.map_err(|_| gone())?
}

fn start(mut command: Command) -> io::Result<Child> {
    let mut child = command.spawn()?;
    let pid = child.id();
    let (exited, exit) = watch::channel(None);
    std::thread::Builder::new().name(format!("lab-wait-{pid}")).spawn(move || {
        let status = child.wait().ok();
        exited.send_replace(Some(status));
    })?;
    Ok(Child { pid, exit })
}

fn build(program: &Program) -> io::Result<Command> {
    let output = File::options().create(true).append(true).open(&program.output)?;
    give(&program.output)?;
    let mut command = match setpriv() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", program.death_signal]);
            if is_root() {
                let id = UNPRIVILEGED.to_string();
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
            }
            command.arg("--").arg(&program.path);
            command
        }
        None => {
            let mut command = Command::new(&program.path);
            if is_root() {
                command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
            }
            command
        }
    };
    command
        .args(&program.arguments)
        .current_dir(&program.folder)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    Ok(command)
}

/// util-linux's `setpriv`, which can set the death signal; without it children are only stopped by the lab itself.
fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || ["/usr/bin/setpriv", "/bin/setpriv"].map(PathBuf::from).into_iter().find(|path| path.exists());
    FOUND.get_or_init(find).as_deref()
}
