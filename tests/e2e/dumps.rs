//! Secrets and core dumps: what both binaries allow the system to write when they die.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use lab::demo::tempo::Tempo;
use tests::stage::pilot::{self, Binaries};
use tests::stage::process::Process;

const LIMIT: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(50);

/// Both binaries, each alone: neither needs the other to be there.
fn start(folder: &Path, also: &str) -> anyhow::Result<[Process; 2]> {
    let binaries = Binaries::find()?;
    let anywhere = ("127.0.0.1:0", "127.0.0.1:0");
    let also = format!("[insecure]\n{also}");
    let store = pilot::file_store(folder);
    let coordinator = pilot::coordinator_config(folder, "coordinator", anywhere, &store, (9, 4, 3), None);
    let arn = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
    let agent = pilot::agent_config(folder, "agent-1", arn, "http://127.0.0.1:1", "nobody", None, None);
    std::fs::write(folder.join("agent-1.password"), "x")?;
    let run = |program: &Path, verb: &[&str], name: &str, config: String| {
        let file = folder.join(format!("{name}.toml"));
        std::fs::write(&file, config.replace("[insecure]\n", &also))?;
        let config = file.display().to_string();
        Process::start(program, &[verb, &["--config", &config]].concat(), &[], folder.join(format!("{name}.log")))
    };
    Ok([run(&binaries.pilot, &["serve"], "coordinator", coordinator)?, run(&binaries.agent, &[], "agent-1", agent)?])
}

/// Soft and hard limit of a core dump.
fn limits(process: &Process) -> anyhow::Result<(String, String)> {
    let pid = process.id().ok_or_else(|| anyhow::anyhow!("it has ended"))?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap_or_default();
    let mut words = line.split_whitespace().map(str::to_owned);
    Ok((words.next().unwrap_or_default(), words.next().unwrap_or_default()))
}

#[tokio::test]
async fn no_core_dump_is_left_unless_it_is_asked_for_in_so_many_words() -> anyhow::Result<()> {
    let tempo = Tempo::start();
    for asked in [false, true] {
        let folder = std::env::temp_dir().join(format!("upgrade-pilot-dumps-{}-{asked}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        for mut process in start(&folder, if asked { "core_dumps = true\n" } else { "" })? {
            let up = async || match process.log() {
                log if log.contains("serving") || log.contains("started") => Ok(()),
                log => Err(log),
            };
            tempo.until("the start", EVERY, LIMIT, up).await?;
            let (soft, hard) = limits(&process)?;
            let expected = if asked { hard.as_str() } else { "0" };
            ensure!(soft == expected, "core dumps up to {soft} of {hard}, asked for: {asked}\n{}", process.tail(5));
            ensure!(process.log().contains("core dumps are on") == asked, "{}", process.tail(5));
            if asked {
                continue;
            }
            let died = async || {
                // The first one is taken by the handler for stacks that run over, which then steps aside.
                let _ = process.signal("SEGV");
                process.ended().ok_or_else(|| "it lives".to_owned())
            };
            let status = tempo.until("its death", EVERY, LIMIT, died).await?;
            ensure!(status.signal() == Some(11), "{status}");
            ensure!(!status.core_dumped(), "a core dump was left");
        }
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}
