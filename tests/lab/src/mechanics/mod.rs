//! What a blue/green deployment really does to PostgreSQL servers, stage by stage: copies, slots, upgrade, replication,
//! switchover. Pure machinery: it knows neither names of clusters nor an API, and it decides nothing that a caller could.
//!
//! The order of use: [`green::build`] → [`health`] while it replicates → [`switchover::run`], or [`green::clean_up`].
//! [`snapshot`] and [`replica`] stand on their own.

mod catch_up;
mod copy;
mod ddl;
pub mod green;
mod guardrails;
pub mod health;
pub mod replica;
pub mod snapshot;
pub mod switchover;
pub mod trouble;
mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::fleet::Server;

/// One replicated database: its slot on blue, its subscription on green.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The database's name.
    pub database: String,
    /// Its object id on blue, the last part of the slot's name.
    pub oid: u32,
    /// `rds_<region>_<26 characters>_<oid>`: the slot, and the application name of its walsender.
    pub slot: String,
    /// The publication on blue.
    pub publication: String,
    /// The subscription on green.
    pub subscription: String,
}

/// The two sides of a deployment. The writer of a side is its first server.
#[derive(Debug, Clone)]
pub struct Sides {
    /// The servers that serve.
    pub blue: Side,
    /// Their upgraded copies.
    pub green: Side,
    /// One for each replicated database.
    pub links: Vec<Link>,
}

/// A writer and its readers.
#[derive(Debug, Clone)]
pub struct Side {
    /// Takes the writes.
    pub writer: Arc<Server>,
    /// Follow it.
    pub readers: Vec<Arc<Server>>,
}

impl Side {
    /// The writer first, then the readers.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Server>> {
        std::iter::once(&self.writer).chain(&self.readers).map(Arc::clone).collect()
    }
}
