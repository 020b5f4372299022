//! Readers: physical copies that follow their writer, and the failover between the two.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Side;
use crate::fleet::{self, Fleet, Node, Server};

/// Copies the running `writer` into a new server that follows it, and starts that.
///
/// # Errors
/// When the copy or the start fails, or on cancellation; then nothing is left of it.
pub async fn follow(fleet: &Fleet, writer: &Server, node: Node, cancel: &CancellationToken) -> Result<Arc<Server>, fleet::Error> {
    let _ = (fleet, writer, node, cancel);
    Err(fleet::Error::other("not built yet"))
}

/// Makes `reader` (an index into `side.readers`) the writer and the writer a reader. As with shared storage nothing is
/// lost: slots, subscriptions and every row stay with the writer's role. All members restart. Returns the new side.
///
/// # Errors
/// When a server does not stop or start.
pub async fn failover(side: &Side, reader: usize) -> Result<Side, fleet::Error> {
    let _ = (side, reader);
    Err(fleet::Error::other("not built yet"))
}
