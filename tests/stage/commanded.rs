//! An ingestion system that is controlled by three commands: shell one-liners over a file with its state and a file with
//! what was asked. It ingests nothing.

use std::path::Path;

use anyhow::Context as _;

/// Its section of an agent's configuration.
///
/// # Errors
/// When its file cannot be written.
pub(super) fn config(folder: &Path) -> anyhow::Result<String> {
    let (state, asked) = (folder.join("loader.state"), folder.join("loader.asked"));
    std::fs::write(&state, STATE.replace("WORD", "running")).context("writing the loader's state")?;
    let shell = |script: String| format!("[\"sh\", \"-c\", {}]", toml::Value::String(script));
    let change = |verb: &str, word: &str| {
        let (state, asked, text) = (state.display(), asked.display(), STATE.replace("WORD", word));
        shell(format!("echo {verb} >> {asked}; printf '%s' '{text}' > {state}.new; mv {state}.new {state}"))
    };
    Ok(format!(
        "[[ingestion]]\nname = \"loader\"\nkind = \"command\"\nobserve = {}\npause = {}\nresume = {}\n",
        shell(format!("cat {}", state.display())),
        change("pause", "paused"),
        change("resume", "running"),
    ))
}

const STATE: &str = r#"{"state": "WORD", "backlog": 0, "rate": 1.0}"#;

/// What it was asked, in order.
pub(super) fn asked(folder: &Path) -> anyhow::Result<Vec<String>> {
    let file = folder.join("loader.asked");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}
