//! How fast the agent follows a switchover. Real upgrades with the real `pilot` and `pilot-agent`, prepared some at a time up
//! to the approval of the cut and then cut one after another; for each the distance from the first write that green accepted to
//! the agent's release, to a held client's first write behind PgBouncer, and to a plain client's that waits for its name.
//!
//! Green's first write is the first that anybody gets accepted: the earlier of the agent's own (its answer has come) and that of a
//! client which does nothing but try to write to green by address (by green's clock, while it works on the statement). Green opened
//! when it read the configuration that let this client in: nobody could have been earlier. Release is the moment at which PgBouncer
//! has answered both that it knows green's address and that clients may go. A client's write counts by the server's clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::milliseconds;
use super::spread::Spread;
use super::steps::{self, Steps};
use super::writer::{self, Find, Manner, Writer};
use crate::demo::binaries::{self, Binaries};
use crate::demo::bouncer::{self, Bouncer};
use crate::demo::pilot::{AgentOptions, Coordinator, Ingestion, Journal, Place, Process};
use crate::demo::run::{Say, master};
use crate::demo::session::Login;
use crate::demo::sides;
use crate::demo::tempo::Tempo;
use crate::{ClusterHandle, ClusterSettings, Lab, Settings, Timings, install};

const DATABASE: &str = "bench";
/// Between two looks at the coordinator.
const LOOK: Duration = Duration::from_millis(300);
/// For an upgrade to come to the cut, with others beside it.
const PREPARED_WITHIN: Duration = Duration::from_secs(600);
/// Between tries of the clients, an answer or a refusal to the next. Each refused connection costs the server a process: more often
/// and the clients would take from the servers what is measured.
const DIRECT_EVERY: Duration = Duration::from_millis(10);
const POOLED_EVERY: Duration = Duration::from_millis(2);
const PLAIN_EVERY: Duration = Duration::from_millis(50);
/// For a cut, and for the last client after it, beside the window and the names' delay.
const CUT_WITHIN: Duration = Duration::from_secs(120);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many switchovers.
    pub switchovers: u32,
    /// How long the provider keeps connections cut and writes stopped.
    pub window: Duration,
    /// When names lead to green, after its first write.
    pub names_delay: Duration,
    /// How many upgrades are prepared side by side; their cuts are one after another all the same.
    pub side_by_side: u32,
    /// Majors.
    pub from: u32,
    /// Above `from`.
    pub to: u32,
}

/// What was measured, each from green's first write unless it says otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// Green has accepted the agent's own write.
    pub accepted: Spread,
    /// The agent has let clients go.
    pub released: Spread,
    /// The same, from the moment at which green opened.
    pub released_from_opening: Spread,
    /// A client behind PgBouncer, which was held, has written.
    pub pooled: Spread,
    /// A client that connects to the cluster's name has written.
    pub plain: Spread,
    /// Where the agent's time went, cut by cut.
    pub steps: Vec<Steps>,
}

impl Measured {
    /// The table of the README.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = [
            self.accepted.row("the agent has written too"),
            self.released.row("the agent has let clients go"),
            self.released_from_opening.row("the same, after green opened"),
            self.pooled.row("a held client behind PgBouncer has written"),
            self.plain.row("a plain client behind DNS has written"),
        ];
        let head = "| after green's first write | switchovers | p50 | p99 | worst |\n| --- | --- | --- | --- | --- |";
        format!("{head}\n{}", rows.join("\n"))
    }
}

/// Runs it. `say` gets a line for each switchover.
///
/// # Errors
/// When an upgrade does not come to its cut, or a client does not come back.
pub async fn run(options: &Options, stop: &CancellationToken, say: Say<'_>) -> anyhow::Result<Measured> {
    let tempo = Tempo::start();
    let binaries = binaries::find(say).await?;
    let pooler = install::ensure_pgbouncer(say).await?;
    install::ensure(&[options.from, options.to], say).await?;
    let mut measured = Measured::default();
    let mut left = options.switchovers;
    let mut number = 0;
    while left > 0 {
        let count = left.min(options.side_by_side.max(1));
        let folder = std::env::temp_dir().join(format!("upgrade-pilot-bench-{}-{number}", std::process::id()));
        let timings = Timings {
            window: options.window,
            // As AWS does: the servers' word comes before connections go.
            drop_delay: Duration::from_millis(200).min(options.window / 2),
            names_delay: options.names_delay,
            // Never within the bench: what follows it would disturb the next cut.
            completed_delay: Duration::from_secs(3600),
            ..Timings::zero()
        };
        let lab = Lab::start(Settings { timings, ..Settings::default() }).await?;
        let mut batch = Batch {
            options,
            tempo: &tempo,
            lab: &lab,
            binaries: &binaries,
            pooler: &pooler,
            folder,
            running: Vec::new(),
        };
        let ended = tokio::select! {
            ended = batch.play(count, &mut measured, say) => ended,
            () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
        };
        let Batch { folder, running, .. } = batch;
        for process in running {
            process.stop().await;
        }
        lab.stop().await;
        ended.with_context(|| format!("the logs are in {}", folder.display()))?;
        // A folder that cannot be removed is only litter.
        let _ = std::fs::remove_dir_all(&folder);
        (left, number) = (left - count, number + 1);
    }
    Ok(measured)
}

/// Some upgrades in one lab, with one coordinator.
struct Batch<'a> {
    options: &'a Options,
    tempo: &'a Tempo,
    lab: &'a Lab,
    binaries: &'a Binaries,
    pooler: &'a PathBuf,
    folder: PathBuf,
    running: Vec<Process>,
}

/// One cluster that is about to be cut.
struct Contestant {
    cluster: ClusterHandle,
    bouncer: Bouncer,
    agent_log: PathBuf,
    upgrade: String,
}

impl Batch<'_> {
    async fn play(&mut self, count: u32, measured: &mut Measured, say: Say<'_>) -> anyhow::Result<()> {
        let folder = self.folder.join("pilot");
        let mut environment = self.lab.environment();
        environment.push(("RUST_LOG".to_owned(), steps::LOG.to_owned()));
        let place = Place { binaries: self.binaries.clone(), folder, environment };
        let Coordinator { process, grpc, .. } = place.coordinator(self.tempo).await?;
        self.running.push(process);
        let mut contestants = Vec::new();
        for number in 1..=count {
            contestants.push(self.enter(&place, &grpc, number).await?);
        }
        for contestant in &mut contestants {
            contestant.upgrade = self.prepared(&place, &grpc, &contestant.cluster.identifier).await?;
        }
        let mut waiting = Vec::new();
        for contestant in &contestants {
            let (cut, plain) = self.cut(&place, &grpc, contestant).await?;
            say(&format!(
                "{} of {}: the agent wrote after {:.1} ms, let clients go after {:.1} ms ({:.1} ms after green opened), a held one wrote after {:.1} ms",
                measured.released.ms.len() + 1,
                self.options.switchovers,
                cut.accepted_ms,
                cut.released_ms,
                cut.released_from_opening_ms,
                cut.pooled_ms
            ));
            measured.accepted.add(cut.accepted_ms);
            measured.released.add(cut.released_ms);
            measured.released_from_opening.add(cut.released_from_opening_ms);
            measured.pooled.add(cut.pooled_ms);
            measured.steps.push(Steps::read(&contestant.agent_log, cut.first)?);
            waiting.push((cut.first, plain));
        }
        for (first, plain) in waiting {
            let back = self.until_written(&plain, first, CUT_WITHIN + self.options.names_delay).await?;
            measured.plain.add(milliseconds(first, back));
            plain.stop().await;
        }
        for contestant in contestants {
            contestant.bouncer.stop().await;
        }
        Ok(())
    }

    /// A cluster with one table, a pooler and an agent, and its upgrade begun.
    async fn enter(&mut self, place: &Place, grpc: &str, number: u32) -> anyhow::Result<Contestant> {
        let name = format!("follow-{number}");
        let mut settings = ClusterSettings::new(&name, self.options.from);
        settings.databases.push(DATABASE.to_owned());
        let cluster = self.lab.create_cluster(settings).await?;
        let production = master(&cluster).database(DATABASE);
        let session = sides::open(&production, self.tempo).await?;
        session.run(self.tempo, CUT_WITHIN, writer::TABLE).await?;
        let bouncer = Bouncer::start(
            &bouncer::Options {
                program: self.pooler.clone(),
                folder: self.folder.join(format!("pgbouncer-{number}")),
                server: (production.host.clone(), production.port),
                names: production.names.clone(),
                databases: vec![DATABASE.to_owned()],
                elsewhere: Vec::new(),
                users: vec![(production.user.clone(), production.password.clone())],
            },
            self.tempo,
        )
        .await?;
        let ingestion = Ingestion::Pgbouncer {
            admin: bouncer.address().to_string(),
            admin_user: bouncer::ADMIN.to_owned(),
            databases: vec![DATABASE.to_owned()],
            config_file: bouncer.databases_file().to_owned(),
        };
        let agent = AgentOptions {
            id: format!("agent-{number}"),
            cluster: cluster.arn.clone(),
            login: cluster.agent.clone(),
            ingestion: vec![ingestion],
        };
        let agent = place.agent_at(grpc, &agent)?;
        let agent_log = agent.log.clone();
        self.running.push(agent);
        place.agents_connected(grpc, number as usize, self.tempo).await?;
        let file = place.folder.join(format!("{name}.toml"));
        std::fs::write(&file, spec(&name, self.options.to))?;
        self.running.push(place.upgrade_aside(grpc, &file, &format!("{name}.log"))?);
        Ok(Contestant { cluster, bouncer, agent_log, upgrade: String::new() })
    }

    /// Waits until the upgrade of a cluster asks for the approval of its cut; its id.
    async fn prepared(&self, place: &Place, grpc: &str, cluster: &str) -> anyhow::Result<String> {
        let look = async || {
            let all = place.read(grpc, &["status"]).await.map_err(|error| format!("{error:#}"))?;
            let ours = find(&all, cluster).ok_or_else(|| format!("no upgrade of {cluster} in {all}"))?;
            let id = ours["id"].as_str().unwrap_or_default().to_owned();
            let status = place.read(grpc, &["status", &id]).await.map_err(|error| format!("{error:#}"))?;
            match (status["approvals"][0]["name"].as_str(), status["outcome"].as_str()) {
                (Some("switchover"), _) => Ok(Ok(id)),
                (_, Some(outcome)) => Ok(Err(format!("{id} {outcome}: {}", status["reason"]))),
                _ => Err(format!("{}: {}", status["phase"], status["current"])),
            }
        };
        let found = self.tempo.until("an upgrade before its cut", LOOK, PREPARED_WITHIN, look).await?;
        found.or_else(|why| bail!("an upgrade ended before its cut: {why}"))
    }

    /// Approves one cut and measures it. The plain client is still waiting for its name when this returns.
    async fn cut(&self, place: &Place, grpc: &str, contestant: &Contestant) -> anyhow::Result<(Cut, Writer)> {
        let id = &contestant.upgrade;
        let green = green(&history(place, grpc, id).await?).context("green's writer in the history")?;
        let production = master(&contestant.cluster).database(DATABASE);
        // By address: green's own names are gone after the cut.
        let address = contestant.cluster.names.lookup(&green.0).context("the address of green's writer")?;
        let green = Login { host: address.to_string(), port: green.1, ..production.clone() };
        let pooled = contestant.bouncer.login(&production.user, &production.password, DATABASE, "bench-pooled");
        let fixed = |login: Login| -> Find { Arc::new(move || Some(login.clone())) };
        let start = |name: &str, login: Login, every: Duration, manner: Manner| {
            Writer::start(name, fixed(login), every, manner, self.tempo.clone())
        };
        let plain = start("plain", production, PLAIN_EVERY, Manner::Follows);
        let pooled = start("pooled", pooled, POOLED_EVERY, Manner::Follows);
        let direct = start("green", green, DIRECT_EVERY, Manner::WaitsForOne);
        place.read(grpc, &["approve", id, "switchover"]).await?;
        let look = async || {
            let journal = history(place, grpc, id).await.map_err(|error| format!("{error:#}"))?;
            let own = moments(&journal, "green_accepted_write").min().ok_or("green has accepted no write")?;
            let beside = direct.first_since(Timestamp::MIN).ok_or("the client beside it has not written")?;
            let first = beside.at.min(own);
            let released = moments(&journal, "held").find(|at| *at >= first).ok_or("nobody was let go")?;
            let held = pooled.first_since(first).ok_or("the held client has not written")?;
            Ok((beside.configured, first, own, released, held.at))
        };
        let within = CUT_WITHIN + self.options.window;
        let (opened, first, own, released, held) = self.tempo.until("the cut", LOOK, within, look).await?;
        pooled.stop().await;
        direct.stop().await;
        let ms = |at| milliseconds(first, at);
        let cut = Cut {
            first,
            accepted_ms: ms(own),
            released_ms: ms(released),
            released_from_opening_ms: milliseconds(opened, released),
            pooled_ms: ms(held),
        };
        Ok((cut, plain))
    }

    async fn until_written(&self, writer: &Writer, since: Timestamp, within: Duration) -> anyhow::Result<Timestamp> {
        let look = async || writer.first_since(since).map(|write| write.at).ok_or_else(|| "no write".to_owned());
        self.tempo.until("the plain client's first write", Duration::from_millis(50), within, look).await
    }
}

/// One cut.
struct Cut {
    first: Timestamp,
    accepted_ms: f64,
    released_ms: f64,
    released_from_opening_ms: f64,
    pooled_ms: f64,
}

async fn history(place: &Place, grpc: &str, id: &str) -> anyhow::Result<Journal> {
    Ok(Journal::parse(id, &place.read(grpc, &["history", id]).await?))
}

/// The entry of a cluster in what `pilot status` printed.
fn find<'a>(all: &'a Value, cluster: &str) -> Option<&'a Value> {
    let list = all.as_array().or_else(|| all.get("upgrades")?.as_array())?;
    list.iter().find(|entry| entry["cluster"] == cluster)
}

/// When events of a kind happened.
fn moments<'a>(journal: &'a Journal, event: &str) -> impl Iterator<Item = Timestamp> + 'a {
    let events = journal.events(event).into_iter();
    let events = events.filter(|event| event["kind"].is_null() || event["kind"] == "gate");
    events.filter_map(|event| event["at"].as_str()?.parse().ok())
}

/// Host and port of green's writer, as provisioning recorded it.
fn green(journal: &Journal) -> Option<(String, u16)> {
    let done =
        journal.facts.iter().rev().find(|fact| fact.kind == "step_done" && fact.fact["step"] == "provisioning")?;
    let members = done.fact["output"]["green"]["identity"]["members"].as_array()?;
    let writer = members.iter().find(|member| member["writer"] == true)?;
    Some((writer["host"].as_str()?.to_owned(), u16::try_from(writer["port"].as_u64()?).ok()?))
}

/// A spec that hurries to the cut, asks there, and never cleans up.
fn spec(cluster: &str, to: u32) -> String {
    format!(
        r#"cluster = "{cluster}"
to = "{to}"
[reboot]
policy = "allow"
[purge]
idle_grace_seconds = 1.0
age_fallback_after_seconds = 10.0
[provisioning]
poll_seconds = 0.3
stable_reads = 2
[replication]
sustained_seconds = 1.0
[verify]
hold_budget_ms = 250
[switchover]
approve = true
drain_ms = 200
"#
    )
}
