//! Everything that speaks to PostgreSQL. Connections are made in `connect`; every SQL text is in `catalog`.

pub mod catalog;
pub mod connect;
mod password;

pub use connect::{Conn, ConnectError, Dialer};
