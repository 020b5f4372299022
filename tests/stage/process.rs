//! A real process of the project with its log: started, killed without warning, started again, and ended with its owner.
//! It must never touch a process that it did not start.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;

/// A process that is started again with the same arguments, and whose log goes on.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts it; stdout and stderr go to `log`.
    ///
    /// # Errors
    /// When the program or the log cannot be opened.
    pub fn start(
        program: &Path,
        args: &[&str],
        environment: &[(String, String)],
        log: PathBuf,
    ) -> anyhow::Result<Process> {
        let mut process = Process {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            environment: environment.to_vec(),
            log,
            child: None,
        };
        process.again()?;
        Ok(process)
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// When the program or the log cannot be opened.
    pub fn again(&mut self) -> anyhow::Result<()> {
        let out = File::options().create(true).append(true).open(&self.log);
        let out = out.with_context(|| format!("opening {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command.stdout(out.try_clone()?).stderr(out);
        self.child = Some(command.spawn().with_context(|| format!("starting {}", self.program.display()))?);
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already; either way there is nothing left to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal by name (`STOP`, `CONT`, `TERM`).
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the process was killed")?;
        send(name, child.id())
    }

    /// The system's number of it, while it was not killed.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Everything that it has logged, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log, for people.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let text = self.log();
        let all: Vec<&str> = text.lines().collect();
        format!("--- {}\n{}", self.log.display(), all[all.len().saturating_sub(lines)..].join("\n"))
    }
}

/// Sends a signal by name to a process that this one, or the lab in it, has started.
pub(super) fn send(name: &str, pid: u32) -> anyhow::Result<()> {
    let sent = Command::new("/bin/sh").args(["-c", "kill -s \"$0\" -- \"$1\"", name, &pid.to_string()]).status()?;
    anyhow::ensure!(sent.success(), "{name} was not sent to {pid}");
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
