//! The project's other binaries: builds them with the same cargo and profile as this one, finds them beside it, and
//! refuses any that does not answer with this workspace's version.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

/// What every binary of the workspace answers to `--version`, after its name.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the binaries are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The coordinator and command line.
    pub pilot: PathBuf,
    /// The agent.
    pub agent: PathBuf,
}

/// Builds `pilot` and `pilot-agent` (unless they cannot be built here but are there) and checks who they are.
pub async fn find(say: super::run::Say<'_>) -> anyhow::Result<Binaries> {
    let own = std::env::current_exe().context("finding this executable")?;
    let folder = bin_folder(&own)?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if workspace.join("Cargo.toml").is_file() {
        build(&workspace, &folder, say).await?;
    }
    let binaries = Binaries { pilot: folder.join("pilot"), agent: folder.join("pilot-agent") };
    handshake(&binaries.pilot, "pilot").await?;
    handshake(&binaries.agent, "pilot-agent").await?;
    Ok(binaries)
}

/// The folder of the binaries; a test executable lives one below it.
fn bin_folder(own: &Path) -> anyhow::Result<PathBuf> {
    let folder = own.parent().context("this executable has no folder")?;
    let above = folder.parent().filter(|_| folder.ends_with("deps"));
    Ok(above.unwrap_or(folder).to_owned())
}

async fn build(workspace: &Path, folder: &Path, say: super::run::Say<'_>) -> anyhow::Result<()> {
    say("building pilot and pilot-agent (cargo build --workspace --bins)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--bins", "--quiet"]).current_dir(workspace);
    if let (Some(target), Some(profile)) = (folder.parent(), folder.file_name()) {
        command.arg("--target-dir").arg(target);
        if profile == "release" {
            command.arg("--release");
        }
    }
    // Only data goes to this program's stdout; cargo speaks on stderr.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).status().await;
    let status = status.context("starting cargo")?;
    ensure!(status.success(), "cargo build failed: {status}");
    Ok(())
}

async fn handshake(program: &Path, name: &str) -> anyhow::Result<()> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().await;
    let output = output.with_context(|| {
        format!("{} does not start; build it with cargo build --workspace --bins", program.display())
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = format!("{name} {VERSION}");
    if said.trim() != expected {
        bail!(
            "{} answers {:?} instead of {expected:?}: build all binaries from one tree",
            program.display(),
            said.trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binaries_are_beside_this_one_also_for_a_test() {
        let check = |own: &str| bin_folder(Path::new(own)).unwrap().display().to_string();
        assert_eq!(check("/t/debug/pilot-lab"), "/t/debug");
        assert_eq!(check("/t/debug/deps/lab-0123"), "/t/debug");
    }
}
