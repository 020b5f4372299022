//! `pg_upgrade --link` of a stopped copy into a fresh server of another major, and what it wrote when it fails.

use std::ffi::OsString;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::green::Trouble;
use crate::fleet::{self, Error, Fleet, Run, Server};

/// The most text that is kept of a failed upgrade.
const LOG_MAX: usize = 64 << 10;

/// Upgrades `old` into `new`, both stopped. Afterwards `old` may only be removed: they share files.
pub(super) async fn run(fleet: &Fleet, old: &Server, new: &Server, cancel: &CancellationToken) -> Result<(), Trouble> {
    // The upgrade starts both servers itself and keeps what they say in files of its own.
    for (server, name) in [(old, "logging_collector"), (new, "logging_collector")] {
        server.set_override(name, Some("off"))?;
    }
    new.set_override("autovacuum", Some("off"))?;
    old.configure(|_| ())?;
    new.configure(|_| ())?;
    let scratch = new.folder().join("upgrade");
    fleet::make_folder(&scratch, 0o700)?;
    let bin = |major| fleet.trees().tree(major).join("bin");
    let port = new.address().port().to_string();
    let mut arguments: Vec<OsString> = vec!["-b".into(), bin(old.major()).into(), "-B".into(), bin(new.major()).into()];
    arguments.extend(["-d".into(), old.data_dir().into(), "-D".into(), new.data_dir().into()]);
    arguments.extend(["-U", "rdsadmin", "--link", "-j", "2", "-p", &port, "-P", &port, "-s"].map(OsString::from));
    arguments.push(new.sockets().into());
    if !new.fsync() && new.major() >= 15 {
        arguments.push("--no-sync".into());
    }
    let run = Run { major: new.major(), program: "pg_upgrade", arguments, folder: &scratch, environment: vec![] };
    match fleet.run(run, cancel).await {
        Ok(_) => {}
        Err(Error::Program { output, .. }) => {
            let mut log = output.clone();
            for folder in [scratch.clone(), new.data_dir().join("pg_upgrade_output.d")] {
                collect(&folder, &mut log);
            }
            return Err(Trouble::Upgrade { reason: reason(&output), log });
        }
        Err(error) => return Err(error.into()),
    }
    for name in ["logging_collector", "autovacuum"] {
        new.set_override(name, None)?;
    }
    let written = std::fs::read(scratch.join("pg_upgrade.out")).unwrap_or_default();
    // Kept among the server's logs, where it can be downloaded.
    std::fs::write(new.log_dir().join("pg_upgrade.log"), written).map_err(Error::io("keeping the upgrade's log"))?;
    super::copy::remove_folder(&scratch).await?;
    Ok(())
}

/// The last check that failed, as one sentence.
fn reason(output: &str) -> String {
    let fatal = output.lines().rev().find(|line| line.to_lowercase().trim_end().ends_with("fatal"));
    let check = fatal.map(|line| line.trim_end().trim_end_matches("fatal").trim());
    let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("pg_upgrade failed");
    check.map_or_else(|| last.trim().to_owned(), |check| format!("pg_upgrade: {check} failed"))
}

/// Everything that the upgrade wrote under a folder: its findings (`.txt`) before its logs.
fn collect(folder: &Path, log: &mut String) {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let kind = |end: &str| {
        files.iter().filter(move |path| path.extension().is_some_and(|found| found == end)).collect::<Vec<_>>()
    };
    for path in [kind("txt"), kind("log")].concat() {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let room = LOG_MAX.saturating_sub(log.len());
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text: String = text.chars().take(room).collect();
        if !text.trim().is_empty() {
            log.push_str(&format!("\n---- {name}\n{}", text.trim_end()));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_failed_check_is_the_reason() {
        let output = "Checking cluster versions                      ok\nChecking for presence of required libraries    fatal\n\nYour installation references loadable libraries";
        assert_eq!(super::reason(output), "pg_upgrade: Checking for presence of required libraries failed");
    }
}
