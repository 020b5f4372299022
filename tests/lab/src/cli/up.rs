//! `pilot-lab up`: a cluster with the demo's databases, until Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use lab::demo::binaries;
use lab::demo::pilot::{self, AgentOptions, Place};
use lab::demo::run::{cluster_settings, exports, master, psql};
use lab::demo::schema::{self, Extensions, Scale};
use lab::demo::tempo::Tempo;
use lab::{ClusterHandle, Lab, Scenario, Settings, Timings, install};

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
    /// A scenario file: delays of the provider, and what goes wrong.
    #[arg(long, value_name = "FILE", conflicts_with = "real_time")]
    scenario: Option<PathBuf>,
    /// Size of its data; 1 is a few hundred MB.
    #[arg(long, default_value = "0.1")]
    scale: f64,
}

/// Starts it, prints what to export, and waits.
pub(super) async fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let scenario = arguments.scenario.as_deref().map(Scenario::read).transpose()?;
    if let Some(scenario) = &scenario {
        arguments.readers = arguments.readers.max(scenario.readers);
        super::say(&lab::scenario::told(scenario));
    }
    install::ensure(&[arguments.from, arguments.to], &super::say).await?;
    let binaries = binaries::find(&super::say).await?;
    let settings = match &scenario {
        Some(scenario) => Settings::from_scenario(scenario),
        None if arguments.real_time => Settings { timings: Timings::real(), ..Settings::default() },
        None => Settings::default(),
    };
    let lab = Lab::start(settings).await?;
    let folder = std::env::temp_dir().join(format!("upgrade-pilot-up-{}", std::process::id()));
    let place = Place { binaries, folder: folder.clone(), environment: lab.environment() };
    let started = tokio::select! {
        started = start(&lab, &place, &arguments) => started,
        _ = super::asked_to_end() => Err(anyhow::anyhow!("interrupted")),
    };
    let waited = match started {
        Ok(()) => super::asked_to_end().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    super::say("stopping");
    // Another lab may have written its own since; then this removes a hint, nothing more.
    let _ = std::fs::remove_file(super::exec::environment_file());
    let _ = std::fs::remove_dir_all(folder);
    lab.stop().await;
    waited.map(|()| ExitCode::SUCCESS)
}

async fn start(lab: &Lab, place: &Place, arguments: &Arguments) -> anyhow::Result<()> {
    let tempo = Tempo::start();
    let extensions = Extensions::of(arguments.from, arguments.to);
    let settings = cluster_settings(&arguments.identifier, arguments.from, arguments.readers, extensions);
    let cluster = lab.create_cluster(settings).await?;
    super::say("filling three databases");
    schema::create(&master(&cluster), Scale(arguments.scale), extensions, &tempo).await?;
    let environment = super::exec::environment(lab, &cluster, arguments.from);
    std::fs::write(super::exec::environment_file(), serde_json::to_vec_pretty(&environment)?)?;

    let ClusterHandle { identifier, endpoint, reader_endpoint, port, .. } = &cluster;
    println!("# cluster {identifier} of PostgreSQL {}", arguments.from);
    println!("# writer endpoint {endpoint}:{port}, reader endpoint {reader_endpoint}:{port}");
    for (name, address) in &cluster.members {
        println!("# member {} at {address}:{port}", lab.instance_endpoint(name));
    }
    println!("# agents log in as {} with password {}", cluster.agent.0, cluster.agent.1);
    for line in exports(lab) {
        println!("{line}");
    }
    for line in commands(place, &cluster, arguments)? {
        println!("{line}");
    }
    println!("# or from any other shell: pilot-lab exec -- psql -c '\\dt+'");
    super::say("up; Ctrl-C ends it");
    Ok(())
}

/// What to try, in this order; each line works as it stands, in a shell that ran the exports.
fn commands(place: &Place, cluster: &ClusterHandle, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let (listen, admin_listen) = (free_address()?, free_address()?);
    let coordinator = format!("http://{listen}");
    let serve = place.write_coordinator(&listen, &admin_listen)?;
    let options = AgentOptions {
        id: "agent-1".to_owned(),
        cluster: cluster.arn.clone(),
        login: cluster.agent.clone(),
        ingestion: Vec::new(),
    };
    let agent = place.write_agent(&coordinator, &options)?;
    let (identifier, to) = (&cluster.identifier, arguments.to);
    let spec = pilot::write_spec(&place.folder, &pilot::spec(identifier, to, schema::BATCH, arguments.real_time))?;
    let background = |program: &str, file: &Path| {
        let log = file.with_extension("log");
        format!("{program} --config {} > {} 2>&1 &", file.display(), log.display())
    };
    Ok(vec![
        format!("export PILOT_COORDINATOR={coordinator}"),
        "# look at the cluster, and at what AWS would say of it (with any AWS client):".to_owned(),
        format!("{} -c '\\dt+'", psql(arguments.from, &master(cluster), &cluster.endpoint)),
        "curl -s --aws-sigv4 aws:amz:us-east-1:rds --user $AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY \
         -d Action=DescribeDBClusters -d Version=2014-10-31 $AWS_ENDPOINT_URL"
            .to_owned(),
        "# a coordinator and an agent, then what they say:".to_owned(),
        background("pilot serve", &serve),
        background("pilot-agent", &agent),
        "until pilot agents 2> /dev/null | grep agent-1; do sleep 1; done".to_owned(),
        format!("pilot preflight --cluster {identifier} --to {to}"),
        format!("pilot upgrade --cluster {identifier} --to {to} --spec {} --yes --until finished", spec.display()),
        format!("# the page: http://{admin_listen}"),
    ])
}

/// A loopback address with a port that is free now.
fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
