//! Readers: physical copies that follow their writer, and the failover between the two.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Side, copy};
use crate::fleet::{self, Error, Fleet, Node, Server, Stop};

/// Copies the running `writer` into a new server that follows it, and starts that.
///
/// # Errors
/// When the copy or the start fails, or on cancellation; then nothing is left of it.
pub async fn follow(
    fleet: &Fleet,
    writer: &Server,
    node: Node,
    cancel: &CancellationToken,
) -> Result<Arc<Server>, Error> {
    let reader = fleet.place(node, writer.major())?;
    let made = async {
        copy::base_copy(writer, &reader.data_dir(), reader.folder(), cancel).await?;
        copy::mark_standby(&reader.data_dir())?;
        point(&reader, writer)?;
        reader.start().await
    };
    match made.await {
        Ok(()) => Ok(reader),
        Err(error) => {
            reader.remove().await?;
            Err(error)
        }
    }
}

/// Makes a standby follow this writer from its next start or reload on.
fn point(reader: &Server, writer: &Server) -> Result<(), Error> {
    let connection = copy::connection(writer, reader, reader.name())?;
    reader.set_override("primary_conninfo", Some(&connection))
}

/// Makes `reader` (an index into `side.readers`) the writer and the writer a reader. As with shared storage nothing is
/// lost: the two machines exchange their data, so slots, subscriptions and every row stay with the writer's role. All
/// members restart. Returns the new side; a subscriber to the old writer must be pointed at the new one
/// ([`super::green::repoint`]).
///
/// # Errors
/// When there is no such reader, or a server does not stop or start.
pub async fn failover(side: &Side, reader: usize) -> Result<Side, Error> {
    let (old, new) = (&side.writer, side.readers.get(reader).ok_or_else(|| Error::other("there is no such reader"))?);
    // The writer goes first: a fast shutdown waits until its standbys have everything.
    old.stop(Stop::Fast).await?;
    for reader in &side.readers {
        reader.stop(Stop::Fast).await?;
    }
    let (ours, theirs, spare) = (old.data_dir(), new.data_dir(), old.folder().join("data.moving"));
    let exchange = move || {
        std::fs::rename(&ours, &spare)?;
        std::fs::rename(&theirs, &ours)?;
        std::fs::rename(&spare, &theirs)
    };
    fleet::blocking("exchanging data folders", exchange).await?;
    new.set_override("primary_conninfo", None)?;
    new.start().await?;
    let mut readers = side.readers.clone();
    readers[reader] = Arc::clone(old);
    for follower in &readers {
        point(follower, new)?;
        follower.start().await?;
    }
    Ok(Side { writer: Arc::clone(new), readers })
}

/// Promotes a reader that is to stand alone.
///
/// # Errors
/// When it does not answer or is no standby.
pub async fn promote(reader: &Server) -> Result<(), Error> {
    let admin = reader.admin("postgres").await?;
    let promoted = admin.query_one("select pg_promote(true, 60)", &[]).await.map_err(Error::sql("promoting"))?;
    if !promoted.get::<_, bool>(0) {
        return Err(Error::other("the standby was not promoted within a minute"));
    }
    reader.set_override("primary_conninfo", None)
}
