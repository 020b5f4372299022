//! A real Prometheus beside the stage, with the project's own configuration and rules from `deploy/prometheus/`: only the addresses, the
//! folder of the certificate and the times are the stage's. It ends with its owner.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::demo::tempo::Tempo;
use lab::install;
use serde_json::Value;

use super::process::Process;
use super::{Stage, http};

/// For it to listen, and to have read everything once.
const READY: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(200);

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: String,
    tempo: Tempo,
}

/// A file of `deploy/`.
///
/// # Errors
/// When it cannot be read.
pub fn deployed(path: &str) -> anyhow::Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
}

impl Prometheus {
    /// Starts it, scraping the stage's coordinator and agents once a second, and waits until it has reached all of them.
    ///
    /// # Errors
    /// When it does not come up, or a target refuses it.
    pub async fn start(stage: &Stage) -> anyhow::Result<Prometheus> {
        let folder = stage.folder.join("prometheus");
        std::fs::create_dir_all(&folder)?;
        for rules in ["recording.yaml", "alerts.yaml"] {
            std::fs::write(folder.join(rules), deployed(&format!("prometheus/{rules}"))?)?;
        }
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, configuration(stage).await?)?;
        let program = install::ensure_prometheus(&|_| {}).await?;
        let (config, data) = (config.display().to_string(), folder.join("data").display().to_string());
        let args = [
            format!("--config.file={config}"),
            format!("--storage.tsdb.path={data}"),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut process = Process::start(&program, &args, &[], folder.join("prometheus.log"))?;
        let look = async || {
            if let Some(status) = process.ended() {
                return Ok(Err(format!("it ended at once, {status}: {}", process.tail(5))));
            }
            let log = process.log();
            let line = log.lines().find(|line| line.contains("msg=\"Listening on\""));
            let address = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next());
            address.map(|address| Ok(address.to_owned())).ok_or_else(|| process.tail(3))
        };
        let address = stage.tempo.until("Prometheus to listen", EVERY, READY, look).await?;
        let address = address.map_err(|said| anyhow::anyhow!(said))?;
        let prometheus = Prometheus { process, address: format!("http://{address}"), tempo: stage.tempo.clone() };
        prometheus.reaches(1 + stage.agents.len()).await?;
        Ok(prometheus)
    }

    async fn reaches(&self, count: usize) -> anyhow::Result<()> {
        let look = async || {
            let targets = self.api("targets", "").await.map_err(|error| format!("{error:#}"))?;
            let targets = targets["activeTargets"].as_array().cloned().unwrap_or_default();
            let up = targets.iter().filter(|target| target["health"] == "up").count();
            if up == count && targets.len() == count { Ok(()) } else { Err(format!("{up} are up of {targets:?}")) }
        };
        self.tempo.until("Prometheus to reach its targets", EVERY, READY, look).await
    }

    /// Its HTTP API: `data` of the answer.
    ///
    /// # Errors
    /// When it refuses; says why.
    pub async fn api(&self, what: &str, form: &str) -> anyhow::Result<Value> {
        let method = if form.is_empty() { "GET" } else { "POST" };
        let answer = http::ask(&self.address, method, &format!("/api/v1/{what}"), form).await?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))?;
        ensure!(answer["status"] == "success", "{what} {form}: {answer}");
        Ok(answer["data"].clone())
    }

    /// A query's answer as of now: the kind (`vector`, `matrix`, `scalar`), and the series.
    ///
    /// # Errors
    /// When Prometheus refuses the query.
    pub async fn query(&self, expression: &str) -> anyhow::Result<(String, Vec<Value>)> {
        let form = format!("query={}", escaped(expression));
        let data = self.api("query", &form).await.with_context(|| expression.to_owned())?;
        let kind = data["resultType"].as_str().unwrap_or_default().to_owned();
        Ok((kind, data["result"].as_array().cloned().unwrap_or_default()))
    }

    /// The one value of a query; `None` when it has none.
    ///
    /// # Errors
    /// When it has several, or is refused.
    pub async fn value(&self, expression: &str) -> anyhow::Result<Option<f64>> {
        let (_, series) = self.query(expression).await?;
        ensure!(series.len() < 2, "{expression} has {} values", series.len());
        Ok(series.first().and_then(|one| one["value"][1].as_str()?.parse().ok()))
    }

    /// Its log's end, for people.
    #[must_use]
    pub fn tail(&self) -> String {
        self.process.tail(10)
    }
}

/// `deploy/prometheus/prometheus.yml` for this stage.
async fn configuration(stage: &Stage) -> anyhow::Result<String> {
    let mut agents = Vec::new();
    for number in 1..=stage.agents.len() {
        let file = stage.folder.join(format!("agent-{number}.admin"));
        let look = async || match std::fs::read_to_string(&file) {
            Ok(address) => Ok(format!("\"{}\"", address.trim())),
            Err(error) => Err(error.to_string()),
        };
        agents.push(stage.tempo.until("the address of an agent's metrics", EVERY, READY, look).await?);
    }
    let coordinator = stage.admin.split("://").nth(1).unwrap_or_default();
    let tls = stage.tls.as_deref().context("the stage has no TLS, and the configuration shows a certificate")?;
    let shown = ["--operator", "prometheus", "--role", "view"];
    let certificate: PathBuf = stage.cli.enrol(tls, "prometheus", &shown, &stage.tempo).await?;
    let certificate = format!("{}/", certificate.display());
    changed(
        deployed("prometheus/prometheus.yml")?,
        &[
            ("\"pilot-a.internal:7401\", \"pilot-b.internal:7401\"", &format!("\"{coordinator}\"")),
            ("\"agent-1.internal:7402\", \"agent-2.internal:7402\"", &agents.join(", ")),
            ("_file: tls/", &format!("_file: {certificate}")),
            ("_interval: 5s", "_interval: 1s"),
            ("_timeout: 4s", "_timeout: 1s"),
        ],
    )
}

fn changed(mut text: String, changes: &[(&str, &str)]) -> anyhow::Result<String> {
    for (from, to) in changes {
        ensure!(text.contains(from), "prometheus.yml does not have {from:?} any more");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// As a value of a form.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
