//! `pilot-lab up`: a cluster with the demo's databases, until Ctrl-C.

use std::process::ExitCode;

use clap::Args;
use lab::demo::run::{cluster_settings, master};
use lab::demo::schema::{self, Extensions, Scale};
use lab::demo::tempo::Tempo;
use lab::{Lab, Settings, Timings, install};

/// What to start.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Major version of the cluster.
    #[arg(long, value_parser = super::major, default_value = "14")]
    from: u32,
    /// Major version that it will be upgraded to: decides which extensions it gets, and is installed too.
    #[arg(long, value_parser = super::major, default_value = "16")]
    to: u32,
    /// Readers beside the writer.
    #[arg(long, default_value = "0")]
    readers: usize,
    /// Identifier of the cluster.
    #[arg(long, default_value = "orders")]
    identifier: String,
    /// AWS's real delays instead of short ones.
    #[arg(long)]
    real_time: bool,
    /// Size of its data; 1 is a few hundred MB.
    #[arg(long, default_value = "0.1")]
    scale: f64,
}

/// Starts it, prints what to export, and waits.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    install::ensure(&[arguments.from, arguments.to], &super::say).await?;
    let timings = if arguments.real_time { Timings::real() } else { Timings::short() };
    let lab = Lab::start(Settings { timings, ..Settings::default() }).await?;
    let started = tokio::select! {
        started = start(&lab, &arguments) => started,
        _ = super::asked_to_end() => Err(anyhow::anyhow!("interrupted")),
    };
    let waited = match started {
        Ok(()) => super::asked_to_end().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    super::say("stopping");
    // Another lab may have written its own since; then this removes a hint, nothing more.
    let _ = std::fs::remove_file(super::exec::environment_file());
    lab.stop().await;
    waited.map(|()| ExitCode::SUCCESS)
}

async fn start(lab: &Lab, arguments: &Arguments) -> anyhow::Result<()> {
    let tempo = Tempo::start();
    let extensions = Extensions::of(arguments.from, arguments.to);
    let settings = cluster_settings(&arguments.identifier, arguments.from, arguments.readers, extensions);
    let cluster = lab.create_cluster(settings).await?;
    super::say("filling three databases");
    schema::create(&master(&cluster), Scale(arguments.scale), extensions, &tempo).await?;
    let environment = lab.environment();
    std::fs::write(super::exec::environment_file(), serde_json::to_vec_pretty(&environment)?)?;

    let (user, password) = &cluster.master;
    println!("# cluster {} of PostgreSQL {}", cluster.identifier, arguments.from);
    println!(
        "# writer endpoint {}:{}, reader endpoint {}:{}",
        cluster.endpoint, cluster.port, cluster.reader_endpoint, cluster.port
    );
    for (name, address) in &cluster.members {
        println!("# member {name} {address}:{}", cluster.port);
    }
    println!("# agents log in as {} with password {}", cluster.agent.0, cluster.agent.1);
    for (name, value) in &environment {
        println!("export {name}={value}");
    }
    println!("# try:");
    println!("PGPASSWORD={password} psql -h {} -p {} -U {user} orders", cluster.endpoint, cluster.port);
    println!("pilot-lab exec -- aws rds describe-db-clusters");
    println!("pilot preflight --cluster {} --to {}", cluster.identifier, arguments.to);
    super::say("up; Ctrl-C ends it");
    Ok(())
}
