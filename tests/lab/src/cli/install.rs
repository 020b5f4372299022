//! `pilot-lab install`.

use std::process::ExitCode;

use clap::Args;
use lab::install;

/// What to fetch.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Majors, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = super::major, default_value = "14,16")]
    majors: Vec<u32>,
}

/// Installs and prints where.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let trees = install::ensure(&arguments.majors, &super::say).await?;
    install::ensure_names(&super::say).await?;
    for major in arguments.majors {
        println!("{major} {}", trees.tree(major).display());
    }
    Ok(ExitCode::SUCCESS)
}
