//! Snapshots: complete base copies of a running server, kept in a folder until they are deleted.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::fleet::{self, Fleet, Server};

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

/// Takes a base copy of `server` under the fleet's work folder.
///
/// # Errors
/// When the copy fails or is cancelled; then nothing is left of it.
pub async fn take(fleet: &Fleet, server: &Server, name: &str, cancel: &CancellationToken) -> Result<Snapshot, fleet::Error> {
    let _ = (fleet, server, name, cancel);
    Err(fleet::Error::other("not built yet"))
}

/// Removes a snapshot. One that is gone already is fine.
///
/// # Errors
/// When the folder cannot be removed.
pub async fn delete(folder: &Path) -> Result<(), fleet::Error> {
    let _ = folder;
    Err(fleet::Error::other("not built yet"))
}
