//! `pilot-agent --config FILE`. Only the order of the start: core dumps off, cryptography, flags, configuration, logs, metrics, then the agent.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use agent::{
    check,
    config::Config,
    metrics,
    spool::Spool,
    supervisor::{Agent, VERSION},
};
use anyhow::Context;
use clap::Parser;
use runtime::{clock::Clock, crypto, dumps, effective, notify, probe, recorder, shutdown, telemetry};

/// Bad usage or a bad configuration.
const EX_USAGE: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  pilot-agent --config agent.toml
  pilot-agent --config agent.toml --coordinator https://pilot.example.com:7400
  pilot-agent --config agent.toml --rebind

Exit codes: 0 stopped by a signal, 1 failed, 64 bad usage or a configuration that cannot be used.
Its certificate comes from `pilot agents enrol`; what it says as PUxxxx is explained by `pilot explain PUxxxx`.";

/// Watches, pauses, holds and verifies beside the application, as the coordinator wishes.
#[derive(Debug, Parser)]
#[command(name = "pilot-agent", version, max_term_width = 100, after_help = EXAMPLES)]
struct Flags {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The coordinator, instead of the one in the file.
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
    /// The state file, instead of the one in the file.
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
    /// Forget which coordinator was obeyed, then go on: the next one may be of another store.
    #[arg(long)]
    rebind: bool,
    /// Say what would be done and show the configuration as it takes effect, without secrets; exit 64 if it cannot be used.
    #[arg(long, conflicts_with = "probe")]
    check: bool,
    /// Ask the agent that runs here with this configuration whether it is ready; exit 1 if not. For health checks.
    #[arg(long)]
    probe: bool,
}

fn main() -> ExitCode {
    if let Err(error) = dumps::off() {
        eprintln!("pilot-agent: core dumps cannot be switched off: {error}");
    }
    crypto::install();
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version are no errors; what cannot be printed has no reader.
            let _unprinted = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let mut over = Vec::new();
    over.extend(flags.coordinator.iter().map(|value| ("coordinator", value.clone())));
    over.extend(flags.state_file.iter().map(|value| ("state_file", value.display().to_string())));
    let config = match Config::load(&flags.config, &over) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}: {}", flags.config.display(), runtime::supervision::chain(&error));
            return ExitCode::from(EX_USAGE);
        }
    };
    let done = match (flags.check, flags.probe) {
        (true, _) => return checked(&config),
        (_, true) => probed(&config),
        _ => run(config, flags.rebind),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pilot-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What would be done to stderr, the configuration as it takes effect to stdout.
fn checked(config: &Config) -> ExitCode {
    let found = check::check(config, &Clock::system());
    eprint!("{}", found.text());
    match toml::to_string(&effective::shown(config)) {
        Ok(shown) => print!("{shown}"),
        Err(error) => eprintln!("pilot-agent: {error}"),
    }
    if found.wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("pilot-agent: the configuration cannot be used here");
    ExitCode::from(EX_USAGE)
}

fn probed(config: &Config) -> anyhow::Result<()> {
    let address = check::admin_address(config).map_err(anyhow::Error::msg)?;
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let said = threads.block_on(probe::ready(address, None, &Clock::system())).map_err(anyhow::Error::msg)?;
    println!("{said}");
    Ok(())
}

fn run(config: Config, rebind: bool) -> anyhow::Result<()> {
    telemetry::init(config.log.format, &config.log.filter)?;
    // Two threads: one is free to release clients while the other is busy.
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
        .context("starting the runtime")?;
    // The name is the last part of the ARN, as the coordinator's metrics have it.
    let arn = config.cluster.to_string();
    let cluster = arn.rsplit(':').next().unwrap_or(&arn).to_owned();
    let recorder = recorder::install(&[("cluster", cluster), ("agent", config.agent_id.to_string())])?;
    metrics::describe();
    if config.insecure.core_dumps {
        dumps::on().context("switching core dumps on")?;
        tracing::warn!("core dumps are on, as insecure.core_dumps says: they hold every secret of this process");
    }
    threads.block_on(async {
        let (clock, stop) = (Clock::system(), shutdown::Stop::new());
        if rebind {
            Spool::open(&config.state_file)?.rebind().await.context("forgetting the coordinator")?;
        }
        let agent = Agent::new(config, clock, recorder).await.map_err(|error| anyhow::anyhow!(error))?;
        tracing::info!(version = VERSION, admin = %agent.admin_address()?, "started");
        let running = tokio::spawn(agent.run(stop.clone()));
        notify::ready();
        if let Some(signal) = shutdown::on_signal(&stop).await? {
            tracing::info!(signal, "stopping");
        }
        notify::stopping();
        if !running.await.context("the agent died")? {
            tracing::warn!("some tasks did not stop in time");
        }
        Ok(())
    })
}
