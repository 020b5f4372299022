//! An ingestion system that is driven by three commands: `observe` prints its state, `pause` and `resume` change it.

use std::{process::Stdio, time::Duration};

use proto::report::IngestionState;
use runtime::clock::Clock;
use tokio::io::AsyncReadExt;

use super::{BoxFuture, ControlError, IngestionController, Observation, PauseMark, Serving, failed, read_state};

/// One run of a command; past it the command is killed.
const RUN_WITHIN: Duration = Duration::from_secs(30);
const OUTPUT_MAX: u64 = 64 * 1024;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module. Each command is a program and its arguments; no shell is between.
pub struct Command {
    pub name: String,
    pub observe: Vec<String>,
    pub pause: Vec<String>,
    pub resume: Vec<String>,
    pub clock: Clock,
}

impl Command {
    async fn run(&self, what: &str, command: &[String]) -> Result<Vec<u8>, ControlError> {
        let doing = || format!("running the {what} command of {}", self.name);
        let Some((program, arguments)) = command.split_first() else {
            return Err(failed(doing(), "it is empty"));
        };
        let work = async {
            let mut child = tokio::process::Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| failed(doing(), error))?;
            let mut output = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(OUTPUT_MAX).read_to_end(&mut output).await.map_err(|error| failed(doing(), error))?;
            }
            let status = child.wait().await.map_err(|error| failed(doing(), error))?;
            if status.success() { Ok(output) } else { Err(failed(doing(), status)) }
        };
        self.clock.timeout(RUN_WITHIN, work).await.map_err(|elapsed| failed(doing(), elapsed))?
    }

    async fn reach(&self, what: &str, command: &[String], wanted: IngestionState) -> Result<(), ControlError> {
        let ask = || -> BoxFuture<'_, _> { Box::pin(async { self.run(what, command).await.map(drop) }) };
        super::reach(self, ask, wanted, LOOK_EVERY, &self.clock).await
    }
}

impl IngestionController for Command {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>> {
        Box::pin(async move {
            let output = self.run("observe", &self.observe).await?;
            read_state(&format!("reading what the observe command of {} printed", self.name), &output)
        })
    }

    fn pause<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.reach("pause", &self.pause, IngestionState::Paused))
    }

    fn resume<'a>(&'a self, _mark: &'a PauseMark, _to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.reach("resume", &self.resume, IngestionState::Running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: String) -> Vec<String> {
        vec!["sh".into(), "-c".into(), script]
    }

    fn mark() -> PauseMark {
        let at = jiff::Timestamp::UNIX_EPOCH;
        PauseMark { upgrade: "up-1".into(), since: at, expires_at: at, found: None }
    }

    #[tokio::test]
    async fn a_system_is_driven_by_its_commands() {
        let file = std::env::temp_dir().join(format!("command-{}", std::process::id()));
        let at = file.display();
        let command = Command {
            name: "loader".into(),
            observe: shell(format!("if [ -e {at} ]; then s=paused; else s=running; fi; echo '{{\"state\":\"'$s'\"}}'")),
            pause: shell(format!("touch {at}")),
            resume: shell(format!("rm -f {at}")),
            clock: Clock::system(),
        };
        command.pause(&mark()).await.unwrap();
        assert_eq!(command.observe().await.unwrap().state, IngestionState::Paused);
        command.resume(&mark(), None).await.unwrap();
        assert_eq!(command.observe().await.unwrap().state, IngestionState::Running);
    }

    #[tokio::test]
    async fn a_command_that_fails_is_named() {
        let none = || shell("exit 3".into());
        let clock = Clock::system();
        let command = Command { name: "loader".into(), observe: none(), pause: none(), resume: none(), clock };
        let error = command.pause(&mark()).await.unwrap_err().to_string();
        assert_eq!(error, "running the pause command of loader: exit status: 3");
    }
}
