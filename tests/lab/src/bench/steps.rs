//! What an agent did around one cut, moment by moment, read from its own log (`trace` of probe and ingestion). Says where the
//! time went; nothing of it is in the table.

use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;

/// What the agent's log is to tell beside the usual.
pub const LOG: &str = "info,agent::probe=trace,agent::ingestion=trace";

/// Milliseconds from green's first write; below zero is before it. `None`: the log does not tell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Steps {
    /// The dial of green that came through began.
    pub dialling_ms: Option<f64>,
    /// Green has said who it is, on that connection.
    pub dialled_ms: Option<f64>,
    /// The agent has its write's answer.
    pub accepted_ms: Option<f64>,
    /// PgBouncer has green's address.
    pub sent_ms: Option<f64>,
    /// Clients go.
    pub released_ms: Option<f64>,
}

impl Steps {
    /// Reads an agent's log.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(log: &Path, first: Timestamp) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
        Ok(Self::of(&text, first))
    }

    fn of(text: &str, first: Timestamp) -> Self {
        let lines: Vec<(Timestamp, &str)> = text.lines().filter_map(moment).collect();
        let Some(accepted) = lines.iter().position(|(_, line)| line.contains("green accepted a write")) else {
            return Self::default();
        };
        let (before, after) = lines.split_at(accepted);
        let ms = |found: Option<&(Timestamp, &str)>| found.map(|(at, _)| super::milliseconds(first, *at));
        let last = |what: &str| ms(before.iter().rev().find(|(_, line)| line.contains(what)));
        let next = |what: &str| ms(after.iter().find(|(_, line)| line.contains(what)));
        Self {
            dialling_ms: last("dialling green"),
            dialled_ms: last("green was dialled refused=false"),
            accepted_ms: next("green accepted a write"),
            sent_ms: next("clients are sent elsewhere"),
            released_ms: next("released kind=Gate"),
        }
    }
}

fn moment(line: &str) -> Option<(Timestamp, &str)> {
    let (at, rest) = line.split_once(' ')?;
    Some((at.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dial_that_came_through_is_the_last_one_before_the_write() {
        let text = "2026-01-01T00:00:00.000Z TRACE agent::probe: dialling green\n\
                    2026-01-01T00:00:00.002Z TRACE agent::probe: green was dialled refused=true\n\
                    2026-01-01T00:00:00.010Z TRACE agent::probe: dialling green\n\
                    no line of the log\n\
                    2026-01-01T00:00:00.016Z TRACE agent::probe: green was dialled refused=false\n\
                    2026-01-01T00:00:00.018Z  INFO agent::probe: green accepted a write server=127.0.0.1\n\
                    2026-01-01T00:00:00.020Z TRACE agent::ingestion::pgbouncer: clients are sent elsewhere system=\"b\"\n\
                    2026-01-01T00:00:00.021Z  INFO agent::gate: released kind=Gate ms=3\n";
        let steps = Steps::of(text, "2026-01-01T00:00:00.014Z".parse().unwrap());
        let told = [steps.dialling_ms, steps.dialled_ms, steps.accepted_ms, steps.sent_ms, steps.released_ms]
            .map(Option::unwrap);
        assert_eq!(told.map(f64::round), [-4.0, 2.0, 4.0, 6.0, 7.0]);
        assert_eq!(Steps::of("", Timestamp::UNIX_EPOCH).accepted_ms, None);
    }
}
