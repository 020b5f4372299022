//! `pilot-lab exec -- CMD`: a command with the environment of the lab that `pilot-lab up` started last. `psql` and every libpq
//! program finds the cluster by itself, and the lab's own psql comes before the machine's.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use lab::install;
use lab::{ClusterHandle, Lab};
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

/// What there is to export: names and values; that of `PATH` goes before the one that is there.
pub(super) fn environment(lab: &Lab, cluster: &ClusterHandle, major: u32) -> Vec<(String, String)> {
    let tree = install::trees().program(major, "psql");
    let own = std::env::current_exe().ok();
    let folders = [Some(tree), own].into_iter().flatten().filter_map(|program| Some(program.parent()?.to_owned()));
    let path = std::env::join_paths(folders).unwrap_or_default().to_string_lossy().into_owned();
    let (user, password) = &cluster.master;
    let port = cluster.port.to_string();
    let libpq = [
        ("PATH", path.as_str()),
        ("PGHOST", &cluster.endpoint),
        ("PGPORT", &port),
        ("PGUSER", user),
        ("PGPASSWORD", password),
        ("PGDATABASE", "orders"),
    ];
    let libpq = libpq.map(|(name, value)| (name.to_owned(), value.to_owned()));
    lab.environment().into_iter().chain(libpq).collect()
}

/// The lab's folders of programs come before those that are there.
fn put_before(environment: &mut [(String, String)], there: &str) {
    for (_, folders) in environment.iter_mut().filter(|(name, _)| name == "PATH") {
        *folders = [folders.as_str(), there].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":");
    }
}

/// Runs it and ends as it ended.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = environment_file();
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("no lab is up: start one with pilot-lab up")
        }
        text => text.with_context(|| format!("reading {}", file.display()))?,
    };
    let mut environment: Vec<(String, String)> =
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    put_before(&mut environment, &std::env::var("PATH").unwrap_or_default());
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let status = Command::new(program).args(rest).envs(environment).status().await;
    let status = status.with_context(|| format!("starting {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_programs_are_found_before_the_machines() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = [pair("PGPORT", "5432"), pair("PATH", "/lab/bin")];
        put_before(&mut environment, "/usr/bin:/bin");
        assert_eq!(environment, [pair("PGPORT", "5432"), pair("PATH", "/lab/bin:/usr/bin:/bin")]);
        let mut alone = [pair("PATH", "/lab/bin")];
        put_before(&mut alone, "");
        assert_eq!(alone, [pair("PATH", "/lab/bin")]);
    }
}
