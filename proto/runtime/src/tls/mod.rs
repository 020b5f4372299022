//! TLS 1.3 on both sides of every connection that we own: certificates from a folder as cert-manager mounts it, exchanged
//! without a restart when the files change; connections accepted and dialled with them.
//!
//! It knows whose certificate a peer showed, and nothing of what that peer may do.

mod dial;
mod files;
mod group;
mod listen;
mod names;
mod oneself;
mod trust;

pub use dial::{DialError, Way, connect, host, is_loopback_url, refused_by_peer};
pub use files::{Credentials, TlsError};
pub use group::Group;
pub use listen::{Connection, Door, Incoming, Refusal};
pub use names::{Certificate, Peer};
pub use oneself::only_oneself;
pub use trust::{trusting, trusting_as_the_system};
