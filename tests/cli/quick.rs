//! How long a person waits: for the program itself, and for `pilot status` of a coordinator that runs, dial and TLS 1.3 included.
//! Figures: `MEASURE=1 cargo nextest run --workspace cli::quick --no-capture`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::demo::tempo::Tempo;
use runtime::clock::Clock;
use tests::stage::pilot::Binaries;

use super::{Folder, program, ran};

const RUNS: usize = 50;

fn measuring() -> bool {
    std::env::var_os("MEASURE").is_some()
}

/// Median and worst of many runs, which must all succeed.
fn timed(what: &str, mut command: impl FnMut() -> Command) -> (Duration, Duration) {
    let clock = Clock::system();
    let runs = if measuring() { RUNS } else { 1 };
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let mut command = command();
            let began = clock.mono();
            let said = ran(&mut command);
            let took = clock.mono().since(began);
            assert!(said.status.success(), "{what}: {}", String::from_utf8_lossy(&said.stderr));
            took
        })
        .collect();
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("{what}: median {:.1} ms, worst {:.1} ms of {runs}", ms(median), ms(worst));
    (median, worst)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn within(what: &str, median: Duration, limit: Duration) {
    assert!(!measuring() || median < limit, "{what} takes {:.1} ms", ms(median));
}

#[test]
fn the_program_starts_within_20_ms() {
    for args in [&["--version"][..], &["explain", "PU0001"]] {
        let what = format!("pilot {}", args.join(" "));
        let (median, _) = timed(&what, || {
            let mut command = program("pilot");
            command.args(args);
            command
        });
        within(&what, median, Duration::from_millis(20));
    }
}

/// A coordinator of its own, without a cluster; gone with the test.
struct Coordinator {
    child: Child,
    url: String,
    folder: Folder,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Coordinator {
    async fn start() -> Coordinator {
        let folder = Folder::new("coordinator");
        let at = |name: &str| folder.path().join(name).display().to_string();
        for (out, whom) in [
            ("own", ["--coordinator-name", "127.0.0.1"].to_vec()),
            ("ann", ["--operator", "ann", "--role", "operate"].to_vec()),
        ] {
            let said = ran(program("pilot").args(["agents", "enrol", "--ca", &at("ca"), "--out", &at(out)]).args(whom));
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        let config = format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\naddress_file = {:?}\nregion = \"us-east-1\"\n\
             [store]\nkind = \"sqlite\"\npath = {:?}\n[tls]\nfolder = {:?}\n",
            at("addresses"),
            at("store.sqlite"),
            at("own")
        );
        fs::write(folder.path().join("pilot.toml"), config).expect("a configuration");
        let mut command = Command::new(Binaries::find().expect("the binaries").pilot);
        command.args(["serve", "--config", &at("pilot.toml")]).stdin(Stdio::null()).stdout(Stdio::null());
        // Nothing is asked of AWS here.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.stderr(fs::File::create(folder.path().join("log")).expect("a log"));
        let child = command.spawn().expect("a coordinator");
        let mut coordinator = Coordinator { child, url: String::new(), folder };
        coordinator.url = coordinator.address().await;
        coordinator
    }

    /// As it writes it down, once it serves.
    async fn address(&mut self) -> String {
        let look = async || {
            let written = fs::read_to_string(self.folder.path().join("addresses")).unwrap_or_default();
            let addresses = serde_json::from_str::<serde_json::Value>(&written);
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            addresses.map_err(|_| log())
        };
        let limit = Duration::from_secs(60);
        let addresses = Tempo::start().until("a coordinator", Duration::from_millis(30), limit, look).await;
        format!("https://{}", addresses.expect("it serves")["grpc"].as_str().expect("an address"))
    }

    fn pilot(&self, args: &[&str]) -> Command {
        let mut command = program("pilot");
        command.args(args).env("PILOT_COORDINATOR", &self.url).env("PILOT_TLS", self.folder.path().join("ann"));
        command
    }
}

#[tokio::test]
async fn the_status_is_there_within_50_ms_and_what_is_unknown_is_told_with_a_cure() {
    let coordinator = Coordinator::start().await;
    let (median, _) = timed("pilot status", || coordinator.pilot(&["status"]));
    within("pilot status", median, Duration::from_millis(50));
    let said = ran(&mut coordinator.pilot(&["status"]));
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "there has been no upgrade yet");
    for args in [
        &["status", "up-none"][..],
        &["watch", "up-none"],
        &["history", "up-none"],
        &["pause", "up-none"],
        &["tune", "up-none"],
        &["tune", "up-none", "switchover.attempts=2"],
        &["postpone", "up-none", "--for", "2h"],
    ] {
        let said = ran(&mut coordinator.pilot(args));
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains("there is no upgrade up-none; `pilot status` shows"), "{args:?}: {text}");
    }
}
