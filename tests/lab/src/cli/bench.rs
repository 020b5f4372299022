//! `pilot-lab bench`: measurements for a quiet machine. The table goes to stdout, or with `--json` one object.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};
use lab::bench::follow;

/// What is to be measured.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How fast the agent lets clients go once green accepts writes.
    Follow(Follow),
}

#[derive(Debug, Args)]
struct Follow {
    /// How many switchovers.
    #[arg(long, default_value = "50")]
    switchovers: u32,
    /// How long the provider keeps writes stopped: `3s`, `800ms`.
    #[arg(long, value_parser = duration, default_value = "3s")]
    window: Duration,
    /// When names lead to green, after its first write.
    #[arg(long, value_parser = duration, default_value = "15s")]
    names_delay: Duration,
    /// Upgrades that are prepared side by side; they are cut one after another.
    #[arg(long, default_value = "4")]
    side_by_side: u32,
    /// The source's major version.
    #[arg(long, value_parser = super::major, default_value = "14")]
    from: u32,
    /// The target's major version.
    #[arg(long, value_parser = super::major, default_value = "16")]
    to: u32,
    /// Print one JSON object with every measurement instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let What::Follow(follow) = arguments.what;
    ensure!(follow.from < follow.to, "--to must be above --from");
    ensure!((1..=1000).contains(&follow.switchovers), "--switchovers is 1 to 1000");
    ensure!((1..=10).contains(&follow.side_by_side), "--side-by-side is 1 to 10");
    let options = follow::Options {
        switchovers: follow.switchovers,
        window: follow.window,
        names_delay: follow.names_delay,
        side_by_side: follow.side_by_side,
        from: follow.from,
        to: follow.to,
    };
    let (stop, _listening) = super::stop_when_asked();
    let measured = follow::run(&options, &stop, &super::say).await?;
    if follow.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        println!("{}", measured.table());
    }
    Ok(ExitCode::SUCCESS)
}

/// `3s`, `800ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.strip_suffix("ms") {
        Some(number) => number.parse().map(Duration::from_millis).ok(),
        None => text.strip_suffix('s').and_then(|number| number.parse().map(Duration::from_secs).ok()),
    };
    parsed
        .filter(|time| *time <= Duration::from_secs(600))
        .ok_or_else(|| "give it as 3s or 800ms, 600s at most".to_owned())
}
