//! No secret stands in anything that the project's processes wrote: logs, journal, the agents' memory, what the command line
//! printed, metrics. Looked for at the end of every play. Configuration and password files are the stage's own.

use std::path::Path;

use anyhow::{Context as _, ensure};
use lab::demo::schema;

use super::role;

/// What a test puts where only a secret stands, in a statement of a user's, say: it is looked for like any password.
pub const CANARY: &str = "canary-of-a-secret";
/// The files that processes write.
const WRITTEN: [&str; 6] = ["log", "sqlite", "sqlite-wal", "sqlite-shm", "out", "err"];

/// Fails when a secret stands in a file of `folder`, or in one of `texts`, each with what it is.
///
/// # Errors
/// With the file and the secret, or when a file cannot be read.
pub fn none_written(folder: &Path, texts: &[(&str, String)]) -> anyhow::Result<()> {
    let mut read = 0;
    for file in std::fs::read_dir(folder)?.flatten().map(|file| file.path()) {
        let written = file.extension().and_then(|kind| kind.to_str()).is_some_and(|kind| WRITTEN.contains(&kind));
        if written && file.is_file() {
            let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            read += bytes.len();
            none_in(&file.display().to_string(), &String::from_utf8_lossy(&bytes))?;
        }
    }
    ensure!(read > 0, "nothing was written in {}", folder.display());
    texts.iter().try_for_each(|(what, text)| none_in(what, text))
}

fn none_in(what: &str, text: &str) -> anyhow::Result<()> {
    for secret in [CANARY, role::PASSWORD, schema::PASSWORD] {
        let Some((before, _)) = text.split_once(secret) else { continue };
        let start = before.char_indices().rev().nth(200).map_or(0, |(at, _)| at);
        anyhow::bail!("{what} holds the secret {secret:?} behind: {}", &before[start..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_was_written_is_found_in_files_and_texts() {
        let folder = std::env::temp_dir().join(format!("upgrade-pilot-secrets-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let look = |log: &str, text: &str| {
            std::fs::write(folder.join("agent-1.log"), log).expect("a log");
            none_written(&folder, &[("metrics", text.to_owned())]).map_err(|error| error.to_string())
        };
        assert_eq!(look("all is well", "up 1"), Ok(()));
        assert!(look(&format!("logged in with {}", role::PASSWORD), "up 1").unwrap_err().contains("agent-1.log"));
        assert!(look("all is well", &format!("up{{of=\"{CANARY}\"}} 1")).unwrap_err().starts_with("metrics"));
        std::fs::remove_dir_all(&folder).expect("it can go");
    }
}
