//! `pilot-lab demo`: the main job, seen from a shell. With `--json` exactly one object goes to stdout.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;
use lab::Scenario;
use lab::demo::court::Sabotage;
use lab::demo::{run, summary};

/// What the demo is to do.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The source's major version.
    #[arg(long, value_parser = super::major, default_value = "14")]
    from: u32,
    /// The target's major version.
    #[arg(long, value_parser = super::major, default_value = "16")]
    to: u32,
    /// Readers beside the writer.
    #[arg(long, default_value = "0")]
    readers: usize,
    /// Size of the source; 1 is a few hundred MB.
    #[arg(long, default_value = "1")]
    scale: f64,
    /// AWS's real delays instead of none.
    #[arg(long)]
    real_time: bool,
    /// A scenario file: delays of the provider, and what goes wrong.
    #[arg(long, value_name = "FILE", conflicts_with = "real_time")]
    scenario: Option<PathBuf>,
    /// Print one JSON object on stdout instead of the page.
    #[arg(long)]
    json: bool,
    /// Leave everything running at the end and print how to look at it.
    #[arg(long)]
    keep: bool,
    /// Plant one bad row before judging; the demo must then fail.
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

/// Runs it; 0 only when the upgrade succeeded and nothing was lost or doubled.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    ensure!(arguments.from < arguments.to, "--to must be above --from");
    ensure!(arguments.scale > 0.0 && arguments.scale <= 100.0, "--scale is above 0 and at most 100");
    let scenario = arguments.scenario.as_deref().map(Scenario::read).transpose()?;
    let readers = scenario.as_ref().map_or(0, |scenario| scenario.readers).max(arguments.readers);
    let options = run::Options {
        from: arguments.from,
        to: arguments.to,
        readers,
        scale: arguments.scale,
        real_time: arguments.real_time,
        scenario,
        keep: arguments.keep,
        sabotage: arguments.sabotage,
    };
    let (stop, _listening) = super::stop_when_asked();
    let ended = run::run(&options, &stop, &super::say).await?;
    let page = summary::page(&ended.report, &ended.aside);
    if arguments.json {
        eprintln!("{page}");
        println!("{}", serde_json::to_string_pretty(&ended.report)?);
    } else {
        println!("{page}");
    }
    let code = if ended.report.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if let Some(kept) = ended.kept {
        // Without this program's name before it, so that it can be pasted.
        for line in &kept.how {
            eprintln!("{line}");
        }
        super::say("everything is left running; Ctrl-C ends it");
        super::asked_to_end().await?;
        kept.stop().await;
    }
    Ok(code)
}
