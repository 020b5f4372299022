//! `pilot-agent --check`: whether a configuration can be used and what an agent would do with it. Files are read; nothing is
//! opened for writing, no command is run and nobody is asked.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use runtime::checked::Checked;
use runtime::clock::Clock;

use crate::config::{Config, Ingestion};

/// Checks what stands behind a configuration that was read.
pub fn check(config: &Config, clock: &Clock) -> Checked {
    let mut checked = Checked::default();
    checked.say(format!("agent {} of {} dials {}", config.agent_id, config.cluster, config.coordinator));
    match &config.tls {
        Some(tls) => checked.certificates(&tls.folder, None, clock),
        None => checked.say("the connection to the coordinator is plain, on this machine only"),
    }
    memory(&mut checked, &config.state_file);
    login(&mut checked, config);
    for system in &config.ingestion {
        ingestion(&mut checked, system);
    }
    if config.ingestion.is_empty() {
        checked.say("no ingestion is paused and no client is held: there is no [[ingestion]]");
    }
    let names: Vec<&str> = config.query.iter().map(|query| query.name.as_str()).collect();
    if !names.is_empty() {
        checked.say(format!("a spec may name the queries {}", names.join(", ")));
    }
    checked
}

/// Where `--probe` asks: the configured address, or the bound one where the system chose the port.
///
/// # Errors
/// Why it is not known.
pub fn admin_address(config: &Config) -> Result<SocketAddr, String> {
    if config.admin_listen.port() != 0 {
        return Ok(config.admin_listen);
    }
    let Some(path) = &config.admin_address_file else {
        return Err("the system chooses the port of admin_listen, and no admin_address_file tells it".to_owned());
    };
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim().parse().map_err(|_| format!("{} has no address", path.display()))
}

fn memory(checked: &mut Checked, file: &Path) {
    let above = file.ancestors().skip(1).find(|folder| !folder.as_os_str().is_empty() && folder.exists());
    match above {
        Some(folder) if !folder.is_dir() => checked.fault("state_file", format!("{} is no folder", folder.display())),
        _ if file.is_dir() => checked.fault("state_file", format!("{} is a folder", file.display())),
        _ => checked.say(format!("it remembers in {}; keep the file over restarts", file.display())),
    }
}

fn login(checked: &mut Checked, config: &Config) {
    let (database, hosts) = (&config.database, config.host_suffixes.len());
    checked.say(format!("it logs in as {}, to hosts that one of {hosts} rules allows", database.user));
    checked.readable("database.password_file", database.password_file.as_deref());
    checked.readable("database.tls_ca_file", database.tls_ca_file.as_deref());
    checked.program("database.password_command", database.password_command.as_deref().unwrap_or_default());
}

fn ingestion(checked: &mut Checked, system: &Ingestion) {
    let name = system.name();
    checked.say(format!("it pauses and resumes {name}"));
    match system {
        Ingestion::Command { observe, pause, resume, .. } => {
            for (key, command) in [("observe", observe), ("pause", pause), ("resume", resume)] {
                checked.program(&format!("ingestion {name}: {key}"), command);
            }
        }
        Ingestion::Pgbouncer { admin_password_file, config_file, .. } => {
            checked.readable(&format!("ingestion {name}: admin_password_file"), admin_password_file.as_deref());
            checked.readable(&format!("ingestion {name}: config_file"), Some(config_file));
        }
        Ingestion::KafkaConnect { password_file, ca_file, .. } => {
            checked.readable(&format!("ingestion {name}: password_file"), password_file.as_deref());
            checked.readable(&format!("ingestion {name}: ca_file"), ca_file.as_deref());
        }
        Ingestion::Kubernetes(workload) => {
            checked.readable(&format!("ingestion {name}: kubeconfig"), workload.kubeconfig.as_deref());
        }
        Ingestion::Http { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, text: &str) -> Checked {
        let path = std::env::temp_dir().join(format!("agent-check-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        let config = Config::load(&path, &[]).unwrap();
        fs::remove_file(&path).unwrap();
        check(&config, &Clock::system())
    }

    #[test]
    fn what_would_be_done_is_said_and_what_is_missing_is_named_by_key() {
        let text = "agent_id = 'a-1'\ncluster = 'arn:aws:rds:us-east-1:123456789012:cluster:orders'\n\
                    coordinator = 'http://127.0.0.1:7400'\nstate_file = '/tmp/agent.sqlite'\n\
                    host_suffixes = ['rds.amazonaws.com']\n[insecure]\nloopback_without_tls = true\n\
                    [database]\nuser = 'upgrade_pilot'\npassword_command = ['sh', '-c', 'true']\n\
                    [[ingestion]]\nname = 'batch'\nkind = 'command'\nobserve = ['sh']\npause = ['sh']\nresume = ['sh']\n";
        let good = checked("good", text);
        assert!(good.wrong.is_empty(), "{:?}", good.wrong);
        assert!(good.told.iter().any(|line| line.contains("pauses and resumes batch")), "{:?}", good.told);
        let bad = text
            .replace("password_command = ['sh', '-c', 'true']", "password_file = '/nowhere/password'")
            .replace("pause = ['sh']", "pause = ['no-such-program']")
            .replace("http://127.0.0.1", "https://pilot.example")
            .replace("[insecure]\nloopback_without_tls = true", "[tls]\nfolder = '/nowhere/tls'");
        let wrong = checked("bad", &bad).wrong.join("\n");
        for key in
            ["tls: /nowhere/tls/", "database.password_file: /nowhere/password", "batch: pause: there is no program"]
        {
            assert!(wrong.contains(key), "{key} is not in {wrong}");
        }
    }
}
