//! What both long-running binaries need and what knows nothing of upgrades: start-up, logs, the metrics recorder, the
//! admin HTTP endpoint and a probe of it, the word to the service manager, checks of a configuration and how it is shown, core dumps, shutdown,
//! supervision, backoff, TLS and the clock.
#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
pub mod checked;
pub mod clock;
pub mod command;
pub mod crypto;
pub mod dumps;
pub mod effective;
pub mod http;
pub mod notify;
pub mod played;
pub mod probe;
pub mod recorder;
pub mod shutdown;
pub mod supervision;
pub mod telemetry;
pub mod tls;
pub mod traces;
pub mod tried;
