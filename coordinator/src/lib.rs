//! The coordinator: drives an upgrade through RDS, CloudWatch and the agents, and is asked by people through the CLI and
//! the web page. The server and the `pilot` command are one binary; this library is its body.
#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod cloudwatch;
pub mod codes;
pub mod config;
pub mod drivers;
pub mod enrol;
pub mod hooks;
pub mod link;
pub mod metrics;
pub mod monitors;
pub mod operator;
pub mod preflight;
pub mod rds;
mod redact;
pub mod report;
mod sampling;
pub(crate) mod scrape;
pub mod spec;
pub mod steps;
pub mod store;
pub mod topology;
pub mod web;
pub mod who;
pub mod world;
