//! A store that is a server. Two coordinators that share it: which one drives, and what can happen to each of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use coordinator::store::Place;
use lab::iam::{Caller, Policy};

use super::cable::Cable;
use super::opening::find;
use super::pilot::CommandLine;
use super::process::Process;
use super::store::{self, StoreServer};
use super::trap::Trap;
use super::{EVERY, START, Stage, pilot};

/// What a stage says that has not what is asked for.
const ONE: &str = "there is one coordinator";
const FILE: &str = "the store is a file";
/// For a coordinator to end by itself: less than it would wait for those who do not let go of it.
const STOPPED: Duration = Duration::from_secs(8);
/// What a coordinator logs when it takes the lead, and when it has lost it or never had it.
const LEADS: &str = "this coordinator drives";
const FOLLOWS: [&str; 4] =
    ["this coordinator stands by", "the lead is lost", "the lead is given up", "stopping; upgrades go on"];

/// A store that is a server, and the second coordinator if there are two.
pub struct Several {
    pub(super) standby: Option<Process>,
    pub(super) store: StoreServer,
    pub(super) place: Place,
    /// Where there are two, each reaches the store over a cable of its own.
    cables: Vec<Cable>,
}

/// A coordinator as a caller of AWS: each of two has keys of its own, so that the lab's log tells which of them asked.
pub(super) fn caller(number: usize) -> Caller {
    Caller::new(&format!("coordinator{number}"), Policy::administrator())
}

impl Several {
    /// Starts the server, and lays as many cables to its store.
    pub(super) async fn start(folder: &Path, cables: usize) -> anyhow::Result<Several> {
        let store = StoreServer::start(folder).await?;
        let place = store.database().await?;
        let mut several = Several { standby: None, store, place, cables: Vec::new() };
        let at = SocketAddr::new(several.place.host.parse()?, several.place.port);
        for _ in 0..cables {
            several.cables.push(Cable::lay(at).await?);
        }
        Ok(several)
    }

    /// The section of a coordinator's configuration; `number` is 0 or 1.
    pub(super) fn section(&self, number: usize) -> String {
        let port = self.cables.get(number).map_or(self.place.port, |cable| cable.address().port());
        store::section(&Place { port, ..self.place.clone() })
    }

    /// Everything is ended, the store last.
    pub(super) async fn end(self) {
        drop(self.standby);
        // It is ended with the fleet at the latest.
        let _ = self.store.end().await;
    }
}

impl Stage {
    /// Starts the second coordinator on the same store; whoever is told of coordinators from now on is told of both.
    pub(super) async fn start_standby(&mut self, environment: &[(String, String)]) -> anyhow::Result<()> {
        let config = self.folder.join("standby.toml");
        let own = self.several.as_ref().context(ONE)?.section(1);
        let write = |grpc: &str, admin: &str| {
            let text = pilot::coordinator_config(&self.folder, "standby", (grpc, admin), &own, self.lease, None);
            std::fs::write(&config, text)
        };
        write("127.0.0.1:0", "127.0.0.1:0")?;
        let args = ["serve", "--config", &config.display().to_string()];
        let log = self.folder.join("standby.log");
        let environment = [environment, &caller(1).environment()].concat();
        self.lab.add_caller(caller(1));
        let mut standby = Process::start(&self.binaries.pilot, &args, &environment, log)?;
        let (grpc, admin) = find(&self.tempo, &mut standby, &self.folder.join("standby.addr")).await?;
        write(&grpc, &admin)?;
        self.cli.coordinator = format!("{},http://{grpc}", self.cli.coordinator);
        self.several.as_mut().context(ONE)?.standby = Some(standby);
        Ok(())
    }

    /// One of the two coordinators, 0 or 1.
    ///
    /// # Errors
    /// When there is only one.
    pub fn one_of_two(&mut self, number: usize) -> anyhow::Result<&mut Process> {
        let standby = self.several.as_mut().and_then(|several| several.standby.as_mut()).context(ONE)?;
        Ok(if number == 0 { &mut self.coordinator } else { standby })
    }

    /// The command line of somebody who knows only one of the two coordinators (0 or 1).
    #[must_use]
    pub fn told_only(&self, number: usize) -> CommandLine {
        let one = self.cli.coordinator.split(',').nth(number).unwrap_or_default();
        CommandLine { coordinator: one.to_owned(), ..self.cli.clone() }
    }

    /// The cable between a coordinator (0 or 1) and the store.
    ///
    /// # Errors
    /// When there is only one coordinator.
    pub fn cable(&self, number: usize) -> anyhow::Result<&Cable> {
        self.several.as_ref().and_then(|several| several.cables.get(number)).context(ONE)
    }

    /// How often this coordinator (0 or 1) has asked AWS for a change, whatever came of it.
    #[must_use]
    pub fn changes_asked_by(&self, number: usize) -> usize {
        let name = caller(number).name;
        self.lab.requests().iter().filter(|call| call.caller == name && super::changes(&call.action)).count()
    }

    /// The server of the store.
    ///
    /// # Errors
    /// When the store is a file.
    pub fn store(&self) -> anyhow::Result<&StoreServer> {
        Ok(&self.several.as_ref().context(FILE)?.store)
    }

    /// Where the store is.
    ///
    /// # Errors
    /// When it is a file.
    pub fn store_place(&self) -> anyhow::Result<&Place> {
        Ok(&self.several.as_ref().context(FILE)?.place)
    }

    /// A trap in the store, which lets everything pass until it is armed.
    ///
    /// # Errors
    /// When the store is a file, or its server refuses.
    pub async fn trap(&self) -> anyhow::Result<Trap> {
        Trap::set(self.store()?, self.store_place()?).await
    }

    fn standby(&self) -> Option<&Process> {
        self.several.as_ref()?.standby.as_ref()
    }

    fn process(&self, number: usize) -> Option<&Process> {
        if number == 0 { Some(&self.coordinator) } else { self.standby() }
    }

    /// Whether a coordinator (0 or 1) drives, by what it has said last.
    #[must_use]
    pub fn leads(&self, number: usize) -> bool {
        let log = self.process(number).map(Process::log).unwrap_or_default();
        let said = log.lines().rev().find_map(|line| {
            let follows = FOLLOWS.iter().any(|text| line.contains(text));
            (follows || line.contains(LEADS)).then_some(!follows)
        });
        said == Some(true)
    }

    async fn until_it(&self, number: usize, leads: bool) -> anyhow::Result<Duration> {
        let begun = self.tempo.at();
        let what = if leads { "its lead" } else { "its standing by" };
        let look = async || if self.leads(number) == leads { Ok(()) } else { Err(format!("coordinator {number}")) };
        let found = self.tempo.until(what, Duration::from_millis(20), START, look).await;
        found.with_context(|| self.logs())?;
        Ok(self.tempo.at() - begun)
    }

    /// Waits until this coordinator (0 or 1) drives; how long that took.
    ///
    /// # Errors
    /// When it does not in a minute.
    pub async fn until_leads(&self, number: usize) -> anyhow::Result<Duration> {
        self.until_it(number, true).await
    }

    /// Waits until the process of this coordinator (0 or 1) has ended by itself.
    ///
    /// # Errors
    /// When it has not within eight seconds, though it is followed, or says that it failed.
    pub async fn until_ended(&mut self, number: usize) -> anyhow::Result<()> {
        let (tempo, logs) = (self.tempo.clone(), self.logs());
        let process = self.one_of_two(number)?;
        let look = async || process.ended().ok_or_else(|| "it runs".to_owned());
        let status =
            tempo.until("its end", Duration::from_millis(20), STOPPED, look).await.with_context(|| logs.clone())?;
        anyhow::ensure!(status.success(), "it ended with {status}\n{logs}");
        Ok(())
    }

    /// Waits until this coordinator (0 or 1) knows that it does not drive.
    ///
    /// # Errors
    /// When it does not in a minute.
    pub async fn until_stands_by(&self, number: usize) -> anyhow::Result<()> {
        self.until_it(number, false).await.map(drop)
    }

    /// Waits until either coordinator drives.
    ///
    /// # Errors
    /// When none does in a minute.
    pub async fn until_somebody_leads(&self) -> anyhow::Result<usize> {
        let look = async || (0..2).find(|number| self.leads(*number)).ok_or_else(|| self.logs());
        self.tempo.until("a lead", EVERY, START, look).await
    }

    /// Waits until either coordinator has logged a line with `text`.
    ///
    /// # Errors
    /// When neither has within `limit`.
    pub async fn until_either_logged(&self, text: &str, limit: Duration) -> anyhow::Result<()> {
        let look = async || {
            let standby = self.standby().map(Process::log).unwrap_or_default();
            if self.coordinator.log().contains(text) || standby.contains(text) { Ok(()) } else { Err(self.logs()) }
        };
        self.tempo.until(text, Duration::from_millis(5), limit, look).await
    }
}
