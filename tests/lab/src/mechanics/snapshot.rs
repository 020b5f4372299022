//! Snapshots: complete base copies of a running server, kept in a folder until they are deleted.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::copy;
use crate::fleet::{self, Error, Fleet, Server};

/// A base copy on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its folder.
    pub folder: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Major version of the server it was taken from.
    pub major: u32,
}

/// Takes a base copy of `server` as `snapshots/NAME` under the fleet's work folder.
///
/// # Errors
/// When the name is taken, or the copy fails or is cancelled; then nothing is left of it.
pub async fn take(fleet: &Fleet, server: &Server, name: &str, cancel: &CancellationToken) -> Result<Snapshot, Error> {
    let root = fleet.work().join("snapshots");
    if !root.is_dir() {
        fleet::make_folder(&root, 0o755)?;
    }
    let folder = root.join(name);
    fleet::make_folder(&folder, 0o755)?;
    let copied = copy::base_copy(server, &folder.join("data"), &folder, cancel).await;
    if let Err(error) = copied {
        delete(&folder).await?;
        return Err(error);
    }
    let measured = folder.clone();
    let bytes = fleet::blocking("measuring a snapshot", move || size(&measured)).await?;
    Ok(Snapshot { folder, bytes, major: server.major() })
}

/// Removes a snapshot. One that is gone already is fine.
///
/// # Errors
/// When the folder cannot be removed.
pub async fn delete(folder: &Path) -> Result<(), Error> {
    copy::remove_folder(folder).await
}

fn size(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += found.len();
            }
        }
    }
    Ok(bytes)
}
