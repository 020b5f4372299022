//! What both long-running binaries need and what knows nothing of upgrades: start-up, logs, the metrics recorder, the
//! admin HTTP endpoint, core dumps, shutdown, supervision, backoff, TLS and the clock.
#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod command;
pub mod crypto;
pub mod dumps;
pub mod http;
pub mod played;
pub mod recorder;
pub mod shutdown;
pub mod supervision;
pub mod telemetry;
pub mod tls;
pub mod traces;
pub mod tried;
