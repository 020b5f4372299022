//! The base copy of a running server: the beginning of greens, readers and snapshots alike.

use std::ffi::OsString;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::fleet::{self, Error, Server, process};
use crate::roles;

/// Copies `source` into `target`, which must not exist, with all WAL needed to make it consistent.
pub(super) async fn base_copy(
    source: &Server,
    target: &Path,
    scratch: &Path,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let address = source.address();
    let name = format!("host={} port={} user=rdsrepladmin application_name=rds_copy", address.ip(), address.port());
    let mut arguments: Vec<OsString> = vec!["-d".into(), name.into(), "-D".into(), target.into()];
    // Without a slot of its own: nobody shall take it for a foreign one. `wal_keep_size` keeps what it needs meanwhile.
    arguments.extend(["-X", "stream", "-c", "fast", "-w", "--no-slot"].map(OsString::from));
    if !source.fsync() {
        arguments.push("--no-sync".into());
    }
    let copied = source.run_against("pg_basebackup", arguments, scratch, cancel).await;
    if copied.is_err() {
        remove_folder(target).await?;
    }
    copied.map(drop)
}

/// How a server reaches another one for replication. The password stays in a file: settings can be read by clients.
pub(super) fn connection(to: &Server, from: &Server, application: &str) -> Result<String, Error> {
    let file = from.folder().join("pgpass");
    let write = || {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let _ = std::fs::remove_file(&file);
        let mut open = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&file)?;
        writeln!(open, "*:*:*:rdsrepladmin:{}", roles::replication_password())?;
        process::give(&file)
    };
    write().map_err(Error::io("writing a password file"))?;
    let address = to.address();
    let passfile = file.display();
    Ok(format!(
        "host={} port={} user=rdsrepladmin passfile={passfile} application_name={application}",
        address.ip(),
        address.port()
    ))
}

/// Marks a data folder as a standby's.
pub(super) fn mark_standby(data: &Path) -> Result<(), Error> {
    let file = data.join("standby.signal");
    let mark = || {
        std::fs::write(&file, "")?;
        process::give(&file)
    };
    mark().map_err(Error::io("marking a standby"))
}

pub(super) async fn remove_folder(folder: &Path) -> Result<(), Error> {
    let folder = folder.to_owned();
    fleet::blocking("removing a folder", move || match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await
}
