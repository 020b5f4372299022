//! The project's binaries on the stage: where they are, their configuration files, and the command line as a person uses
//! it. Everything is read through `--output json`; nothing of the coordinator's inside is linked in.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lab::demo::tempo::Tempo;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// How long a verb that only asks may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Where the binaries are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The coordinator and command line.
    pub pilot: PathBuf,
    /// The agent.
    pub agent: PathBuf,
}

impl Binaries {
    /// Beside this test's own target folder: `…/debug/pilot` of `…/debug/deps/all-…`.
    ///
    /// # Errors
    /// When they are not built.
    pub fn find() -> anyhow::Result<Binaries> {
        let own = std::env::current_exe().context("finding this executable")?;
        let folder = own.parent().context("this executable has no folder")?;
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        let binaries = Binaries { pilot: folder.join("pilot"), agent: folder.join("pilot-agent") };
        for binary in [&binaries.pilot, &binaries.agent] {
            ensure!(binary.is_file(), "{} is missing: run cargo build --workspace --bins", binary.display());
        }
        Ok(binaries)
    }
}

/// What a finished command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Data.
    pub out: String,
    /// The rest.
    pub err: String,
}

impl Said {
    /// The data as JSON.
    ///
    /// # Errors
    /// When it is none; says what was printed instead.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(self.out.trim())
            .with_context(|| format!("exit {}, no JSON: {}\n{}", self.code, self.out, self.err))
    }

    /// Fails unless it ended with `code` and said every one of `words` (on either stream).
    ///
    /// # Errors
    /// With everything that it said.
    pub fn expect(&self, code: i32, words: &[&str]) -> anyhow::Result<()> {
        let text = format!("{}\n{}", self.out, self.err);
        ensure!(self.code == code, "exit {} instead of {code}: {text}", self.code);
        match words.iter().find(|word| !text.contains(**word)) {
            None => Ok(()),
            Some(word) => bail!("{word:?} is not said: {text}"),
        }
    }
}

/// The command line against one coordinator.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// The program.
    pub program: PathBuf,
    /// `http://127.0.0.1:PORT`, or `https://`.
    pub coordinator: String,
    /// The certificate it shows.
    pub tls: Option<PathBuf>,
}

impl CommandLine {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("PILOT_COORDINATOR", &self.coordinator).env("USER", "tester");
        command.stdin(Stdio::null()).kill_on_drop(true);
        if let Some(tls) = &self.tls {
            command.env("PILOT_TLS", tls);
        }
        command
    }

    /// The same command line with another certificate.
    #[must_use]
    pub fn shows(&self, tls: PathBuf) -> CommandLine {
        CommandLine { tls: Some(tls), ..self.clone() }
    }

    /// Issues a certificate into `folder/NAME` by `pilot agents enrol`, from the authority in `folder/ca`; `whom` is its flags.
    ///
    /// # Errors
    /// What the command says.
    pub async fn enrol(&self, folder: &Path, name: &str, whom: &[&str], tempo: &Tempo) -> anyhow::Result<PathBuf> {
        let (ca, out) = (folder.join("ca").display().to_string(), folder.join(name));
        let shown = out.display().to_string();
        let args = [&["agents", "enrol", "--ca", &ca, "--out", &shown], whom].concat();
        self.run(&args, tempo).await?.expect(0, &[])?;
        Ok(out)
    }

    /// Runs a verb to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not end in a minute.
    pub async fn run(&self, args: &[&str], tempo: &Tempo) -> anyhow::Result<Said> {
        let output = tempo.within(ANSWER, self.command(args).output()).await;
        let output = output.with_context(|| format!("pilot {} did not end", args.join(" ")))??;
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a verb that follows, with pipes for a person.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follows(&self, args: &[&str], folder: &Path) -> anyhow::Result<Follower> {
        let mut command = self.command(args);
        Follower::start(&mut command, folder.join("follower"), false)
    }

    /// The same on a terminal, by util-linux's `script`; what it draws is all on one stream.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follows_on_terminal(&self, args: &[&str], folder: &Path) -> anyhow::Result<Follower> {
        let line = format!("{} {}", self.program.display(), args.join(" "));
        let terminal = CommandLine { program: "script".into(), ..self.clone() };
        let mut command = terminal.command(&["-qec", &line, "/dev/null"]);
        command.env("TERM", "xterm");
        Follower::start(&mut command, folder.join("follower-on-terminal"), true)
    }

    /// Starts `pilot upgrade` and returns once it has said the upgrade's id. `Err(said)` inside when it ended before.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn upgrade(&self, spec: &Path, tempo: &Tempo) -> anyhow::Result<Result<Upgrade, Said>> {
        let (out, err) = (spec.with_extension("out"), spec.with_extension("err"));
        let file = spec.display().to_string();
        let mut command =
            self.command(&["upgrade", "--spec", &file, "--yes", "--until", "finished", "--output", "json"]);
        command.stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&err)?);
        let child = command.spawn().context("starting pilot upgrade")?;
        let mut upgrade = Upgrade { id: String::new(), child, out, err };
        let look = async || {
            let ended = upgrade.child.try_wait().map_err(|error| error.to_string())?;
            let text = upgrade.text(&upgrade.err);
            let id = text.lines().find_map(|line| line.strip_prefix("started ")?.split(';').next().map(str::to_owned));
            match (id, ended) {
                (Some(id), _) => Ok(Ok(id)),
                (None, Some(status)) => Ok(Err(upgrade.said(status.code()))),
                (None, None) => Err(text),
            }
        };
        let begun = tempo.until("the upgrade's id", Duration::from_millis(30), ANSWER, look).await?;
        Ok(begun.map(|id| {
            upgrade.id = id;
            upgrade
        }))
    }
}

/// A verb that follows an upgrade, until it is interrupted.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    on_terminal: bool,
}

impl Follower {
    fn start(command: &mut Command, file: PathBuf, on_terminal: bool) -> anyhow::Result<Follower> {
        let (out, err) = (file.with_extension("out"), file.with_extension("err"));
        command.stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&err)?);
        if on_terminal {
            command.stdin(Stdio::piped());
        }
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Follower { child, out, err, on_terminal })
    }

    fn said(&self, code: i32) -> Said {
        let text = |file: &Path| String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
        Said { code, out: text(&self.out), err: text(&self.err) }
    }

    /// Types Ctrl-C once it has said `text`, and waits for its end.
    ///
    /// # Errors
    /// When it does not say that, or does not end.
    pub async fn interrupted(mut self, text: &str, tempo: &Tempo) -> anyhow::Result<Said> {
        let look = async || {
            let said = self.said(0);
            let all = format!("{}{}", said.out, said.err);
            if all.contains(text) { Ok(()) } else { Err(all) }
        };
        tempo.until("what the follower says", Duration::from_millis(30), ANSWER, look).await?;
        let pid = self.child.id();
        match (self.on_terminal, self.child.stdin.as_mut(), pid) {
            (true, Some(keys), _) => keys.write_all(b"\x03").await.context("typing Ctrl-C")?,
            (_, _, Some(pid)) => super::process::send("INT", pid)?,
            _ => bail!("the follower is gone: {:?}", self.said(-1)),
        }
        let ended = tempo.within(ANSWER, self.child.wait()).await;
        let ended = ended.with_context(|| format!("Ctrl-C does not end it: {:?}", self.said(-1)))??;
        Ok(self.said(ended.code().unwrap_or(-1)))
    }
}

/// An upgrade that a `pilot upgrade` follows.
#[derive(Debug)]
pub struct Upgrade {
    /// Its id.
    pub id: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Upgrade {
    fn text(&self, file: &Path) -> String {
        std::fs::read_to_string(file).unwrap_or_default()
    }

    fn said(&self, code: Option<i32>) -> Said {
        Said { code: code.unwrap_or(-1), out: self.text(&self.out), err: self.text(&self.err) }
    }

    /// Whether `pilot upgrade` has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits until `pilot upgrade` has ended.
    ///
    /// # Errors
    /// When it has not within `limit`; says what it printed last.
    pub async fn ended(&mut self, limit: Duration, tempo: &Tempo) -> anyhow::Result<Said> {
        match tempo.within(limit, self.child.wait()).await {
            Some(status) => Ok(self.said(status?.code())),
            None => bail!("{} has not ended within {limit:?}; it said: {}", self.id, self.text(&self.err)),
        }
    }
}

/// The section for a store in a file, of one coordinator.
#[must_use]
pub fn file_store(folder: &Path) -> String {
    format!("[store]\nkind = \"sqlite\"\npath = {}\n", quoted(&folder.join("pilot.sqlite")))
}

/// A coordinator's configuration, by its name and the section of its store. Leases are driver, agent and call, in seconds.
#[must_use]
pub fn coordinator_config(
    folder: &Path,
    name: &str,
    (listen, admin): (&str, &str),
    store: &str,
    lease: (u64, u64, u64),
    tls: Option<&Path>,
) -> String {
    format!(
        "listen = \"{listen}\"\nadmin_listen = \"{admin}\"\naddress_file = {}\nregion = \"us-east-1\"\n\
         {store}{}[lease]\ndriver_seconds = {}\nagent_seconds = {}\ncall_seconds = {}\n",
        quoted(&folder.join(format!("{name}.addr"))),
        protection(tls),
        lease.0,
        lease.1,
        lease.2,
    )
}

/// The section that says how connections are protected.
fn protection(tls: Option<&Path>) -> String {
    match tls {
        Some(folder) => format!("[tls]\nfolder = {}\n", quoted(folder)),
        None => "[insecure]\nloopback_without_tls = true\n".to_owned(),
    }
}

/// One agent's configuration, without its ingestion systems. `trusted`: the authority of the databases, which take TLS then.
#[must_use]
pub fn agent_config(
    folder: &Path,
    id: &str,
    cluster: &str,
    coordinator: &str,
    user: &str,
    tls: Option<&Path>,
    trusted: Option<&Path>,
) -> String {
    let databases = match trusted {
        Some(file) => format!("tls_ca_file = {}", quoted(file)),
        None => "tls = \"disable\"".to_owned(),
    };
    let own = |suffix: &str| quoted(&folder.join(format!("{id}.{suffix}")));
    format!(
        "agent_id = \"{id}\"\ncluster = \"{cluster}\"\ncoordinator = \"{coordinator}\"\nstate_file = {}\n\
         admin_listen = \"127.0.0.1:0\"\nadmin_address_file = {}\nhost_suffixes = [\"127.0.0.0/8\", \".rds.amazonaws.com\"]\n{}\
         [database]\nuser = \"{user}\"\npassword_file = {}\n{databases}\n\
         [[query]]\nname = \"orders_total\"\ndatabase = \"orders\"\nsql = \"select count(*), sum(amount) from public.orders\"\n",
        own("sqlite"),
        own("admin"),
        protection(tls),
        own("password"),
    )
}

/// A path as a TOML string.
#[must_use]
pub fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// A spec that waits for nobody and is in a hurry: what a test begins from.
///
/// # Panics
/// Never: the text is TOML.
#[must_use]
pub fn hasty_spec(cluster: &str, to: u32) -> toml::Table {
    let text = format!(
        r#"cluster = "{cluster}"
to = "{to}"
[reboot]
policy = "allow"
seconds_max = 60
[purge]
idle_grace_seconds = 1.0
active_wait_seconds = 20.0
age_fallback_after_seconds = 10.0
[provisioning]
poll_seconds = 0.2
stable_reads = 2
premake_hours = 24
seconds_max = 240
[vacuum]
parallel = 2
[replication]
sustained_seconds = 1.0
[verify]
queries = ["orders_total"]
[switchover]
drain_ms = 300
long_transaction_ms = 1000
retry_after_seconds = 1.0
[cleanup]
policy = "after_retention"
retention_seconds = 0
quiet_seconds = 1
"#
    );
    text.parse().expect("the text above is TOML")
}

/// Sets `key` (as `switchover.approve`) in a spec.
///
/// # Panics
/// When a part of the key is a value already: a mistake of the test.
#[must_use]
pub fn with(mut spec: toml::Table, key: &str, value: impl Into<toml::Value>) -> toml::Table {
    let mut table = &mut spec;
    let (parts, last) =
        key.rsplit_once('.').map_or((Vec::new(), key), |(path, last)| (path.split('.').collect(), last));
    for part in parts {
        let inner = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = inner.as_table_mut().expect("a section of the spec");
    }
    table.insert(last.to_owned(), value.into());
    spec
}
