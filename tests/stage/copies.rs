//! Copies of the coordinator's store, as a backup has them: taken, and put in the place of the newer one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::Stage;

/// The store's file, and what SQLite keeps beside it.
const STORE: &str = "pilot.sqlite";
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];

/// A copy of a store in a file.
#[derive(Debug)]
pub struct Copy(PathBuf);

impl Stage {
    /// The coordinator is killed, a copy of its store is taken and, where another copy is given, that one is put in its place; then
    /// it is started again.
    ///
    /// # Errors
    /// When files cannot be copied, or the coordinator does not come back.
    pub async fn copy_store(&mut self, name: &str, put_back: Option<&Copy>) -> anyhow::Result<Copy> {
        self.coordinator.kill();
        let copy = Copy(self.folder.join(name));
        std::fs::create_dir_all(&copy.0)?;
        copy_to(&self.folder, &copy.0)?;
        copy_to(put_back.map_or(&copy.0, |older| &older.0), &self.folder)?;
        std::fs::remove_file(self.folder.join("coordinator.addr"))?;
        self.coordinator.again()?;
        self.find_coordinator().await?;
        Ok(copy)
    }
}

/// What stands in `to` is replaced as a whole: a log that belongs to another file would be read into this one.
fn copy_to(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(from.join(STORE).is_file(), "{} has no store", from.display());
    for end in BESIDE {
        let (from, to) = (from.join(format!("{STORE}{end}")), to.join(format!("{STORE}{end}")));
        if to.exists() {
            std::fs::remove_file(&to)?;
        }
        if from.exists() {
            std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        }
    }
    Ok(())
}
