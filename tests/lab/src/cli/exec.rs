//! `pilot-lab exec -- CMD`: a command with the environment of the lab that `pilot-lab up` started last.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use lab::install;
use tokio::process::Command;

/// What to run.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Where `up` leaves what there is to export.
pub(super) fn environment_file() -> PathBuf {
    install::cache_dir().join("up.json")
}

/// Runs it and ends as it ended.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = environment_file();
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("no lab is up ({} is not there): start one with pilot-lab up", file.display()))?;
    let environment: Vec<(String, String)> =
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let status = Command::new(program).args(rest).envs(environment).status().await;
    let status = status.with_context(|| format!("starting {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
