//! One run of a command: a program and its arguments, no shell between. It is given a text, an environment of its own and a time; what it
//! prints is kept up to a limit. Whoever does not come back is killed with all that it has started.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::clock::Clock;

/// How long the output of a command that has ended is waited for, when something that it started keeps it open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is run.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// The program, then its arguments.
    pub command: &'a [String],
    /// All that it finds in its environment.
    pub environment: Vec<(String, String)>,
    /// On its standard input.
    pub input: &'a [u8],
    pub within: Duration,
    /// Of each of its outputs; what comes beyond it is read and forgotten.
    pub output_bytes_max: usize,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

/// Why it did not end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("it cannot be started")]
    Start(#[source] std::io::Error),
    #[error("it was not done within {} ms and was killed", .0.as_millis())]
    Late(Duration),
    #[error("it cannot be waited for")]
    Wait(#[source] std::io::Error),
}

/// Runs it to its end. Dropped, it is killed.
///
/// # Errors
/// When it cannot be started, or takes too long.
pub async fn run(run: Run<'_>, clock: &Clock) -> Result<Ran, RunError> {
    let nothing = || RunError::Start(std::io::Error::other("there is no program"));
    let (program, arguments) = run.command.split_first().ok_or_else(nothing)?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(run.environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(RunError::Start)?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let streams = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A command need not read it.
                    stdin.write_all(run.input).await.ok();
                }
            };
            let max = run.output_bytes_max;
            tokio::join!(feed, keep(stdout, &mut out, max), keep(stderr, &mut err, max));
        };
        tokio::pin!(streams);
        let mut read = false;
        let work = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    () = &mut streams, if !read => read = true,
                }
            }
        };
        let status = clock.timeout(run.within, work).await.map_err(|_| RunError::Late(run.within))?;
        if !read {
            clock.timeout(LAST_WORDS, &mut streams).await.ok();
        }
        status.map_err(RunError::Wait)?
    };
    group.0 = None;
    Ok(Ran { code: status.code(), out, err })
}

/// Reads to the end and keeps the beginning.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, max: usize) {
    let Some(mut stream) = stream else { return };
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read.min(max - kept.len())]);
    }
}

/// The processes of a command that has not come back.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, within_ms: u64) -> Result<Ran, RunError> {
        let command = ["sh", "-c", script].map(str::to_owned);
        let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("A".to_owned(), "b".to_owned())];
        let within = Duration::from_millis(within_ms);
        let one = Run { command: &command, environment, input: b"told", within, output_bytes_max: 10 };
        run(one, &Clock::system()).await
    }

    #[tokio::test]
    async fn it_is_told_runs_in_its_own_environment_and_is_heard_up_to_the_limit() {
        let ran = shell("cat; echo $A$HOME; echo no >&2; exit 75", 5000).await.unwrap();
        assert_eq!((ran.code, &ran.out[..], &ran.err[..]), (Some(75), &b"toldb\n"[..], &b"no\n"[..]));
        let ran = shell("yes | head -c 100000; exit 3", 5000).await.unwrap();
        assert_eq!((ran.code, ran.out.len()), (Some(3), 10));
    }

    #[tokio::test]
    async fn what_hangs_or_never_stops_printing_is_killed_with_what_it_started() {
        let file = std::env::temp_dir().join(format!("pilot-command-{}", std::process::id()));
        let script = format!("(sleep 1.5; touch {}) & sleep 60", file.display());
        assert!(matches!(shell(&script, 200).await.unwrap_err(), RunError::Late(_)));
        assert!(matches!(shell("yes", 300).await.unwrap_err(), RunError::Late(_)));
        let clock = Clock::system();
        clock.sleep(Duration::from_millis(1800)).await;
        assert!(!file.exists(), "what it had started went on");
    }

    #[tokio::test]
    async fn one_that_leaves_something_behind_is_over_when_it_ends() {
        let began = Clock::system();
        let ran = shell("sleep 5 & echo done", 4000).await.unwrap();
        assert_eq!((ran.code, &ran.out[..]), (Some(0), &b"done\n"[..]));
        assert!(began.mono().0 < Duration::from_secs(3));
    }

    #[tokio::test]
    async fn what_is_not_there_cannot_be_started() {
        let one = ["/nowhere/hook".to_owned()];
        let none = |command| Run {
            command,
            environment: Vec::new(),
            input: b"",
            within: Duration::from_secs(1),
            output_bytes_max: 1,
        };
        assert!(matches!(run(none(&one), &Clock::system()).await.unwrap_err(), RunError::Start(_)));
        assert!(matches!(run(none(&[]), &Clock::system()).await.unwrap_err(), RunError::Start(_)));
    }
}
