//! The command line of the lab. A verb parses, calls the library, and prints: data to stdout, everything else to stderr.

mod bench;
mod demo;
mod exec;
mod install;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Real PostgreSQL behind an endpoint that speaks the RDS and CloudWatch APIs.
#[derive(Debug, Parser)]
#[command(name = "pilot-lab", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch PostgreSQL majors and extensions into the cache.
    Install(install::Arguments),
    /// Start a cluster of a source major and print how to reach it; runs until Ctrl-C.
    Up(up::Arguments),
    /// Upgrade a cluster under load, from nothing to a judged result.
    Demo(demo::Arguments),
    /// Measure, on a quiet machine.
    Bench(bench::Arguments),
    /// Run a command with the environment of the lab that `up` started.
    Exec(exec::Arguments),
}

impl Cli {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Install(arguments) => install::run(arguments).await,
            Verb::Up(arguments) => up::run(arguments).await,
            Verb::Demo(arguments) => demo::run(arguments).await,
            Verb::Bench(arguments) => bench::run(arguments).await,
            Verb::Exec(arguments) => exec::run(arguments).await,
        }
    }
}

/// Returns when somebody wants this process to end: Ctrl-C, or SIGTERM.
async fn asked_to_end() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended,
        _ = terminate.recv() => Ok(()),
    }
}

/// A token that is cancelled when somebody wants this process to end, as long as the second value lives.
fn stop_when_asked() -> (CancellationToken, AbortOnDropHandle<()>) {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let listening = tokio::spawn(async move {
        // Without a signal handler Ctrl-C ends the process at once, which is the same wish.
        if asked_to_end().await.is_ok() {
            say("stopping");
            asked.cancel();
        }
    });
    (stop, AbortOnDropHandle::new(listening))
}

/// A line for the person who waits.
fn say(line: &str) {
    eprintln!("pilot-lab: {line}");
}

/// A major version that the lab can run.
fn major(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(major @ 14..=18) => Ok(major),
        _ => Err("the lab has PostgreSQL 14 to 18".to_owned()),
    }
}
