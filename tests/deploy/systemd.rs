//! The units, judged by systemd itself. No systemd runs here: they are read, not started.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use super::tools::{Place, binary, debian, ran, run};
use crate::invariants::source::text;

const UNITS: [&str; 2] = ["pilot.service", "pilot-agent@.service"];
/// Out of 100; what is left is the network, which both need.
const EXPOSURE_MAX: u32 = 20;

/// A root with the units, an instance of the template, and the programs that they start.
fn installed() -> Place {
    let place = Place::new("units");
    let units = place.path().join("lib/systemd/system");
    fs::create_dir_all(&units).expect("a folder for units");
    for name in UNITS {
        let text = text(&format!("deploy/systemd/{name}"));
        fs::write(units.join(name.replace('@', "@orders")), text).expect("a unit");
    }
    let programs = place.path().join("usr/bin");
    fs::create_dir_all(&programs).expect("a folder for programs");
    for name in ["pilot", "pilot-agent"] {
        fs::copy(binary(name), programs.join(name)).expect("a program");
    }
    place
}

#[test]
fn systemd_understands_every_line_of_the_units_and_finds_little_exposed() {
    let analyze = debian("systemd-analyze", &["systemd"]);
    let place = installed();
    for name in UNITS.map(|name| name.replace('@', "@orders")) {
        let unit = place.path().join("lib/systemd/system").join(&name);
        let said = ran(Command::new(&analyze).args(["verify", "--recursive-errors=no", "--man=no"]).arg(&unit));
        // Programs are looked for on this machine, where they are not installed.
        let about_ours = said.err.lines().filter(|line| line.contains(&name) && !line.contains("is not executable"));
        let about_ours: Vec<&str> = about_ours.collect();
        assert!(about_ours.is_empty(), "{about_ours:?}");
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        run(Command::new(&analyze).args(["security", "--offline=true", &threshold, "--no-pager"]).arg(&unit));
    }
    let bad = place.path().join("lib/systemd/system/bad.service");
    fs::write(&bad, "[Service]\nExecStart=/bin/true\nProtektSystem=strict\n").expect("a bad unit");
    let said = ran(Command::new(&analyze).args(["verify", "--man=no"]).arg(&bad));
    assert!(said.err.contains("ProtektSystem"), "the judge takes everything: {}", said.err);
}

#[test]
fn units_have_room_for_every_agent_and_leave_no_core() {
    let unit = text("deploy/systemd/pilot.service");
    let files: usize = value(&unit, "LimitNOFILE").parse().expect("a number");
    let config = "region = 'us-east-1'\n[store]\nkind = 'sqlite'\npath = '/s'\n[tls]\nfolder = '/t'\n";
    let config = super::loaded("units", config, super::coordinator_config);
    assert!(files >= config.limits.agents_max + 1000, "{files}");
    for name in UNITS {
        let unit = text(&format!("deploy/systemd/{name}"));
        assert_eq!((value(&unit, "LimitCORE"), value(&unit, "Type")), ("0", "notify"), "{name}");
        assert_eq!(value(&unit, "RestartPreventExitStatus"), "64", "{name}");
        // What a check says and what is started are the same file.
        let checked = value(&unit, "ExecStartPre").strip_suffix(" --check");
        assert_eq!(checked, Some(value(&unit, "ExecStart")), "{name}");
    }
}

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("the unit has no {key}"))
}

#[test]
fn both_programs_tell_their_manager_when_they_are_ready_and_answer_a_probe_then() {
    let place = Place::new("notify");
    let at = |name: &str| place.path().join(name).display().to_string();
    let socket = place.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
    fs::write(place.path().join("password"), "secret\n").expect("a password");
    let pilot = format!(
        "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\naddress_file = '{}'\nregion = 'us-east-1'\n\
         [store]\nkind = 'sqlite'\npath = '{}'\n[insecure]\nloopback_without_tls = true\n",
        at("addresses"),
        at("pilot.sqlite")
    );
    let agent = format!(
        "agent_id = 'a-1'\ncluster = 'arn:aws:rds:us-east-1:123456789012:cluster:orders'\n\
         coordinator = 'http://127.0.0.1:1'\nadmin_address_file = '{}'\nstate_file = '{}'\nhost_suffixes = ['127.0.0.0/8']\n\
         [insecure]\nloopback_without_tls = true\n[database]\nuser = 'upgrade_pilot'\npassword_file = '{}'\n",
        at("admin"),
        at("agent.sqlite"),
        at("password")
    );
    for (program, verb, config) in [("pilot", Some("serve"), pilot), ("pilot-agent", None, agent)] {
        let file = place.path().join(format!("{program}.toml"));
        fs::write(&file, config).expect("a configuration");
        let asked = |flag: Option<&str>| {
            let mut command = Command::new(binary(program));
            command.args(verb).arg("--config").arg(&file).args(flag).env_remove("NOTIFY_SOCKET");
            command
        };
        let checked = run(&mut asked(Some("--check")));
        assert!(checked.contains("loopback_without_tls = true"), "{checked}");
        assert!(!ran(&mut asked(Some("--probe"))).good, "{program} answers before it runs");
        let mut started = asked(None);
        let running = started.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut running = running.expect("it starts");
        assert_eq!(heard(&manager), "READY=1", "{program}");
        let probed = ran(&mut asked(Some("--probe")));
        // An agent without its coordinator says what it waits for.
        let expected = if program == "pilot" { (true, "ready") } else { (false, "waiting for") };
        assert_eq!(probed.good, expected.0, "{program}: {probed:?}");
        assert!((probed.out + &probed.err).contains(expected.1), "{program}");
        run(Command::new("kill").arg(running.id().to_string()));
        assert_eq!(heard(&manager), "STOPPING=1", "{program}");
        assert!(running.wait().expect("it ends").success(), "{program}");
    }
}

#[test]
fn over_tls_only_who_has_the_certificates_key_is_believed() {
    let place = Place::new("probe");
    let at = |name: &str| place.path().join(name).display().to_string();
    for folder in ["own", "other"] {
        let arguments =
            ["agents", "enrol", "--coordinator-name", "pilot.example", "--ca", &at("ca"), "--out", &at(folder)];
        run(Command::new(binary("pilot")).args(arguments));
    }
    let socket = place.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
    let asked = |folder: &str, flag: Option<&str>| {
        let config = format!(
            "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\naddress_file = '{}'\nregion = 'us-east-1'\n\
             [store]\nkind = 'sqlite'\npath = '{}'\n[tls]\nfolder = '{}'\n",
            at("addresses"),
            at("pilot.sqlite"),
            at(folder)
        );
        let file = place.path().join(format!("{folder}.toml"));
        fs::write(&file, config).expect("a configuration");
        let mut command = Command::new(binary("pilot"));
        command.args(["serve", "--config"]).arg(&file).args(flag).env_remove("NOTIFY_SOCKET");
        command
    };
    let mut started = asked("own", None);
    let running = started.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut running = running.expect("it starts");
    assert_eq!(heard(&manager), "READY=1");
    let (own, other) = (ran(&mut asked("own", Some("--probe"))), ran(&mut asked("other", Some("--probe"))));
    run(Command::new("kill").arg(running.id().to_string()));
    assert!(running.wait().expect("it ends").success());
    assert!(own.good && own.out.contains("ready"), "{own:?}");
    assert!(!other.good && other.err.contains("another certificate"), "{other:?}");
}

fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 64];
    let length = manager.recv(&mut bytes).expect("the manager is told within a minute");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
