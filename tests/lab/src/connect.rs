//! A real Kafka Connect worker with Debezium's PostgreSQL connector, beside a broker that speaks Kafka's protocol and keeps
//! everything in memory. The worker runs as one of a group, as in production: what it was told outlives it. Both end with the handle.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fleet::Error;
use crate::fleet::process::{self, Child, Program};
use crate::install::KafkaConnect;

/// A Java process beside other builds takes its time.
const START_LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(100);

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    parts: KafkaConnect,
    folder: PathBuf,
    ports: (u16, u16),
    broker: Child,
    worker: Child,
    clock: Clock,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.worker.kill_group();
        self.broker.kill_group();
    }
}

impl Worker {
    /// Starts both on loopback ports that the system chooses, and waits until the worker answers.
    ///
    /// # Errors
    /// When one of them does not come up; with the end of its log.
    pub async fn start(parts: KafkaConnect, folder: &Path, clock: Clock) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(Error::io("making the worker's folder"))?;
        process::give(folder).map_err(Error::io("giving the worker's folder away"))?;
        let ports = (free_port()?, free_port()?);
        let broker = spawn(&parts.broker, broker_arguments(ports.0), folder, "broker.log").await?;
        let worker = spawn_worker(&parts, folder, ports).await?;
        let this = Self { parts, folder: folder.to_owned(), ports, broker, worker, clock };
        this.answers().await?;
        Ok(this)
    }

    /// Ends the worker as a crash would and starts another one at the same address, with the same brokers and offsets.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.worker.kill_group();
        self.worker.exited().await;
        self.worker = spawn_worker(&self.parts, &self.folder, self.ports).await?;
        self.answers().await
    }

    async fn answers(&self) -> Result<(), Error> {
        let look = async {
            while self.ask("GET", "/connectors", "").await.is_none_or(|(status, _)| status != 200) {
                if !self.worker.is_running() || !self.broker.is_running() {
                    return;
                }
                self.clock.sleep(POLL).await;
            }
        };
        let came = self.clock.timeout(START_LIMIT, look).await;
        if came.is_ok() && self.worker.is_running() && self.broker.is_running() {
            return Ok(());
        }
        let log = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let (worker, broker) = (log("worker.log"), log("broker.log"));
        let end = |text: &str| text.lines().rev().take(10).collect::<Vec<_>>().join("\n");
        Err(Error::Other(format!("Kafka Connect does not answer: {}\nbroker: {}", end(&worker), end(&broker))))
    }

    /// Where its REST interface is.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.1)
    }

    /// One exchange with its REST interface: status and body; `None` when nobody answers.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.1)).await.ok()?;
        let length = body.len();
        // HTTP/1.0: the answer ends with the connection and comes in no chunks.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// A file of the worker's folder, for connectors that read or write one.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn broker_arguments(port: u16) -> Vec<String> {
    let url = format!("tcp://127.0.0.1:{port}");
    ["broker", "--listener-url", &url, "--advertised-listener-url", &url, "--storage-engine", "memory://tansu/"]
        .map(str::to_owned)
        .to_vec()
}

async fn spawn_worker(parts: &KafkaConnect, folder: &Path, (broker, rest): (u16, u16)) -> Result<Child, Error> {
    let topics = ["config", "offset", "status"]
        .map(|what| format!("{what}.storage.topic=connect-{what}s\n{what}.storage.replication.factor=1\n"));
    let properties = format!(
        "bootstrap.servers=127.0.0.1:{broker}\nlisteners=http://127.0.0.1:{rest}\ngroup.id=connect\n\
         key.converter=org.apache.kafka.connect.json.JsonConverter\nkey.converter.schemas.enable=false\n\
         value.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter.schemas.enable=false\n\
         {}offset.storage.partitions=1\nstatus.storage.partitions=1\noffset.flush.interval.ms=500\n\
         consumer.metadata.max.age.ms=1000\nscheduled.rebalance.max.delay.ms=0\nplugin.discovery=service_load\n",
        topics.concat()
    );
    let file = folder.join("connect.properties");
    process::replace(&file, &properties).map_err(Error::io("writing the worker's properties"))?;
    let libraries = format!("{}/*", parts.libraries.display());
    let main = "org.apache.kafka.connect.cli.ConnectDistributed";
    // One small heap, and no second compiler: it lives for a minute.
    let arguments =
        ["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &libraries, main].map(str::to_owned);
    let arguments = arguments.into_iter().chain([file.display().to_string()]).collect();
    spawn(&parts.java, arguments, folder, "worker.log").await
}

async fn spawn(path: &Path, arguments: Vec<String>, folder: &Path, log: &str) -> Result<Child, Error> {
    let program = Program {
        path: path.to_owned(),
        arguments: arguments.into_iter().map(Into::into).collect(),
        folder: folder.to_owned(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("LC_ALL".into(), "C.UTF-8".into())],
        output: folder.join(log),
        death_signal: "KILL",
    };
    process::spawn(&program).await.map_err(Error::io(format!("starting {}", path.display())))
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("looking for a free port"))?;
    listener.local_addr().map(|address| address.port()).map_err(Error::io("looking for a free port"))
}
