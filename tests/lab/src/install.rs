//! Fetches complete PostgreSQL trees and their extensions into the cache directory, and Debian packages the lab runs beside
//! them. Changes nothing of the machine's configuration but installed packages, and those only when asked.

use std::path::PathBuf;

/// Where everything that is fetched or prepared is kept: `PILOT_LAB_CACHE`, or `upgrade-pilot` under the user's cache
/// directory; `/var/cache/upgrade-pilot` when that is not reachable for the user that servers run as.
#[must_use]
pub fn cache_dir() -> PathBuf {
    PathBuf::from("/var/cache/upgrade-pilot")
}

/// Why something could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("installing {what}: {reason}")]
pub struct Error {
    /// What was being installed.
    pub what: String,
    /// Why it failed.
    pub reason: String,
}

/// Makes sure that these majors (14 to 18) with their extensions are there. Safe when several processes do it at once.
/// `say` gets a line for each thing that is really installed.
///
/// # Errors
/// When something cannot be fetched or unpacked.
pub async fn ensure(majors: &[u32], say: &(dyn Fn(&str) + Send + Sync)) -> Result<crate::fleet::Trees, Error> {
    let _ = (majors, say);
    Err(Error { what: "postgresql".into(), reason: "not built yet".into() })
}

/// Makes sure that Debian packages are installed on this machine.
///
/// # Errors
/// When they are missing and cannot be installed.
pub async fn ensure_debian(packages: &[&str], say: &(dyn Fn(&str) + Send + Sync)) -> Result<(), Error> {
    let _ = (packages, say);
    Err(Error { what: packages.join(" "), reason: "not built yet".into() })
}

/// Makes sure that pgbouncer is there and says where.
///
/// # Errors
/// When it is missing and cannot be installed.
pub async fn ensure_pgbouncer(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let _ = say;
    Err(Error { what: "pgbouncer".into(), reason: "not built yet".into() })
}

/// Rights on pg_cron's and pg_partman's objects.
pub(crate) const EXTENSION_RIGHTS: &str = "";
