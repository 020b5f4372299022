//! Logs: to stderr, filtered by an environment variable, as text or as one JSON object a line. Stdout belongs to data.

use std::str::FromStr;

use crate::traces::{self, Traces, TracesError};
use tracing_subscriber::{EnvFilter, Registry, fmt::time::SystemTime, layer::SubscriberExt, util::SubscriberInitExt};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(format!("{text:?} is not a log format: write text or json")),
        }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("the log filter {filter:?} cannot be read")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("a log subscriber is already installed")]
    AlreadyInstalled,
    #[error(transparent)]
    Traces(#[from] TracesError),
}

/// Sends logs to stderr. `filter` is used as `tracing` directives (`info,engine=debug`); the environment variable
/// `RUST_LOG` wins over it when it is set.
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    install(format, filter, None)
}

/// The same, and traces go to a collector where the environment names one, in the name of `service`, until what is returned is
/// dropped. To be called within a runtime. For the centre: what sends traces is half a megabyte of code, too much beside applications.
pub fn init_traced(format: Format, filter: &str, service: &'static str) -> Result<Traces, InitError> {
    let (layer, traces) = match traces::endpoint() {
        Some(endpoint) => traces::send(&endpoint, service).map(|(layer, traces)| (Some(layer), traces))?,
        None => (None, Traces::default()),
    };
    install(format, filter, layer)?;
    Ok(traces)
}

fn install(format: Format, filter: &str, layer: Option<traces::Sending<Registry>>) -> Result<(), InitError> {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|source| InitError::Filter { filter: wanted, source })?;
    let registry = tracing_subscriber::registry().with(layer).with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_timer(SystemTime).with_ansi(false);
    match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(|_| InitError::AlreadyInstalled)
}
