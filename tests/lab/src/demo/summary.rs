//! What the demo tells in the end: one object for programs, one page for people. It shows what was measured and judged
//! and never judges itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::judge::Verdict;
use super::pilot::StepSeen;
use super::tally::{Felt, Tally};

/// Failed statements of clients that connect directly, and of those behind the pooler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Direct clients.
    pub direct: u64,
    /// Clients behind the pooler.
    pub held: u64,
}

/// The one object that `--json` prints. Times are what the demo's own clients felt, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `succeeded`, `unwound`, `refused` or `stopped`.
    pub outcome: String,
    /// The server's version before.
    pub from_version: String,
    /// The server's version behind the production endpoint afterwards.
    pub to_version: String,
    /// The steps with their durations and named waits.
    pub steps: Vec<StepSeen>,
    /// Longest gap of the direct writing probe around the switchover.
    pub write_unavailable_ms: u64,
    /// Longest gap of the direct reading probe around the switchover.
    pub read_unavailable_ms: u64,
    /// Longest gap of the writing probe behind the pooler around the switchover.
    pub held_ms: u64,
    /// Longest time that any service was paused, all its pauses together.
    pub ingestion_paused_ms: u64,
    /// Longest gap of the direct writing probe around the reboot.
    pub reboot_unavailable_ms: u64,
    /// Longest gap between two acknowledged writes of any client in the whole run, held and paused ones included.
    pub max_write_gap_ms: u64,
    /// The same, client by client.
    pub max_write_gap_ms_by_client: BTreeMap<String, u64>,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Rows missing, changed or not proven.
    pub lost: u64,
    /// Rows, numbers or effects there too often.
    pub duplicated: u64,
    /// Statements that failed.
    pub failed_statements: Failed,
    /// Sessions that the purger ended.
    pub purged: u64,
    /// Sessions ended for the cut.
    pub ended: u64,
    /// Statements resubmitted.
    pub resubmitted: u64,
}

impl Report {
    /// Whether the demo is a success.
    pub fn good(&self) -> bool {
        self.outcome == "succeeded" && self.lost == 0 && self.duplicated == 0
    }
}

/// What only people want to know.
#[derive(Clone, Debug, Default)]
pub struct Aside {
    /// What the judge found and compared.
    pub verdict: Verdict,
    /// From the first line to the last.
    pub wall: Duration,
    /// From `pilot upgrade` to its end.
    pub upgrade: Duration,
    /// Size of the source, in bytes.
    pub source_bytes: u64,
    /// Peak resident memory of each agent, in bytes.
    pub agents: Vec<(String, Option<u64>)>,
    /// Idle transactions made, and ended from outside.
    pub consoles: (u32, u32),
    /// Refused resubmissions, with the pilot's reason.
    pub refused: Vec<String>,
    /// Extensions that were raised and tried on the new side, by the pilot's word.
    pub extensions: Vec<String>,
    /// Failed statements by client and SQLSTATE.
    pub failures: BTreeMap<String, BTreeMap<String, u64>>,
    /// Failed attempts to connect by client and reason.
    pub unconnected: BTreeMap<String, BTreeMap<String, u64>>,
    /// The largest backlog of a service.
    pub backlog_peak: u64,
    /// Why it was not upgraded, in the pilot's words.
    pub failure: Option<String>,
    /// The same downtimes by the word of the pilot's own agents, in milliseconds.
    pub by_agents: BTreeMap<String, u64>,
    /// The row that was planted.
    pub sabotage: Option<String>,
}

/// Milliseconds, rounded up: no stall is rounded away.
pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Sums what failed over clients.
pub fn failed<'a>(tallies: impl Iterator<Item = (&'a Tally, &'a Felt)>) -> Failed {
    let mut failed = Failed::default();
    for (tally, felt) in tallies {
        let side = if tally.held { &mut failed.held } else { &mut failed.direct };
        *side += felt.failures();
    }
    failed
}

/// The page for a person.
pub fn page(report: &Report, aside: &Aside) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail; the one result of the page says so once.
    let _ = write_page(&mut page, report, aside);
    page
}

fn write_page(page: &mut String, report: &Report, aside: &Aside) -> std::fmt::Result {
    let line = "─".repeat(72);
    writeln!(page, "\n{line}")?;
    let mark = if report.good() { "✔" } else { "✘" };
    writeln!(page, " {mark} {} → {}: {}", report.from_version, report.to_version, sentence(report))?;
    writeln!(page, "{line}\n")?;
    steps(page, report, aside)?;
    downtime(page, report)?;
    if !aside.by_agents.is_empty() {
        let told: Vec<String> = aside.by_agents.iter().map(|(what, ms)| format!("{what} {ms}")).collect();
        writeln!(page, " by the pilot's own agents: {}\n", told.join(", "))?;
    }
    if let Some(failure) = &aside.failure {
        writeln!(page, " why: {failure}\n")?;
    }
    proof(page, report, aside)?;
    if let Some(planted) = &aside.sabotage {
        writeln!(page, "\n planted on purpose: {planted}")?;
    }
    writeln!(page, "{line}")
}

fn sentence(report: &Report) -> String {
    match (report.good(), report.outcome.as_str()) {
        (true, _) => format!(
            "upgraded under load, {} acknowledged writes, none lost, none doubled",
            thousands(report.acknowledged)
        ),
        (false, "succeeded") => format!("upgraded, but {} lost and {} duplicated", report.lost, report.duplicated),
        (false, outcome) => format!("not upgraded: {outcome}"),
    }
}

fn steps(page: &mut String, report: &Report, aside: &Aside) -> std::fmt::Result {
    let longest = report.steps.iter().map(|step| step.seconds).fold(0.1, f64::max);
    for step in &report.steps {
        let bar = "█".repeat(((step.seconds / longest) * 30.0).ceil() as usize);
        let again = if step.attempts > 1 { format!("  ({} attempts)", step.attempts) } else { String::new() };
        writeln!(page, " {:<18} {:>7.1} s  {bar}{again}", step.id, step.seconds)?;
    }
    let all: f64 = report.steps.iter().map(|step| step.seconds).sum();
    let own: f64 = report.steps.iter().map(StepSeen::own_seconds).sum();
    let share = own / all.max(0.1) * 100.0;
    writeln!(page, " {:<18} {own:>7.1} s  {share:.0} % of the steps; the rest are waits with a name", "orchestration")?;
    let mib = aside.source_bytes as f64 / 1_048_576.0;
    writeln!(
        page,
        " {:<18} {:>7.1} s  for {mib:.0} MiB; the whole demo {:.1} s\n",
        "upgrade",
        seconds(aside.upgrade),
        seconds(aside.wall)
    )
}

fn downtime(page: &mut String, report: &Report) -> std::fmt::Result {
    let rows = [
        ("writes unavailable, direct client", report.write_unavailable_ms),
        ("reads unavailable, direct client", report.read_unavailable_ms),
        ("longest hold behind the pooler", report.held_ms),
        ("ingestion paused by its hook", report.ingestion_paused_ms),
        ("the one reboot, before", report.reboot_unavailable_ms),
    ];
    for (what, ms) in rows {
        writeln!(page, " {what:<36} {:>9} ms", thousands(ms))?;
    }
    let clients: Vec<String> =
        report.max_write_gap_ms_by_client.iter().map(|(name, ms)| format!("{name} {ms}")).collect();
    writeln!(
        page,
        " {:<36} {:>9} ms  ({})",
        "longest write gap of all",
        thousands(report.max_write_gap_ms),
        clients.join(", ")
    )?;
    let failed = report.failed_statements;
    writeln!(page, " {:<36} {:>9} direct, {} held\n", "failed statements", failed.direct, failed.held)
}

fn proof(page: &mut String, report: &Report, aside: &Aside) -> std::fmt::Result {
    writeln!(page, " {:<36} {:>9}", "acknowledged writes", thousands(report.acknowledged))?;
    writeln!(page, " {:<36} {:>9}", "lost", report.lost)?;
    writeln!(page, " {:<36} {:>9}", "duplicated", report.duplicated)?;
    let (made, gone) = aside.consoles;
    writeln!(page, " {:<36} {:>9}  ({made} idle transactions opened, {gone} ended)", "purged", report.purged)?;
    writeln!(page, " {:<36} {:>9}  ended for the cut", "sessions", report.ended)?;
    writeln!(page, " {:<36} {:>9}  ({} refused)", "statements resubmitted", report.resubmitted, aside.refused.len())?;
    for refused in &aside.refused {
        writeln!(page, "     refused: {refused}")?;
    }
    for (n, extension) in aside.extensions.iter().enumerate() {
        writeln!(page, " {:<36} {extension}", if n == 0 { "extensions" } else { "" })?;
    }
    writeln!(page, " {:<36} {:>9}", "largest backlog of a service", thousands(aside.backlog_peak))?;
    for (agent, peak) in &aside.agents {
        let mib = peak.map_or("unknown".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0));
        writeln!(page, " {:<36} {mib:>9}  at most resident", agent)?;
    }
    for (what, by_client) in [("failed", &aside.failures), ("not connected", &aside.unconnected)] {
        for (client, codes) in by_client.iter().filter(|(_, codes)| !codes.is_empty()) {
            let codes: Vec<String> = codes.iter().map(|(code, n)| format!("{code} ×{n}")).collect();
            writeln!(page, "     {what}, {client}: {}", codes.join(", "))?;
        }
    }
    for finding in &aside.verdict.findings {
        writeln!(page, "   ✘ {finding}")?;
    }
    writeln!(page, " {:<36} {:>9}  comparisons with ledger and old side", "judged by", aside.verdict.compared.len())
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lost: u64) -> Report {
        Report {
            outcome: "succeeded".into(),
            from_version: "14.23".into(),
            to_version: "16.15".into(),
            steps: Vec::new(),
            write_unavailable_ms: 80,
            read_unavailable_ms: 20,
            held_ms: 300,
            ingestion_paused_ms: 900,
            reboot_unavailable_ms: 1_500,
            max_write_gap_ms: 1_500,
            max_write_gap_ms_by_client: BTreeMap::new(),
            acknowledged: 1_234_567,
            lost,
            duplicated: 0,
            failed_statements: Failed::default(),
            purged: 1,
            ended: 2,
            resubmitted: 1,
        }
    }

    #[test]
    fn the_object_has_the_keys_that_scripts_rely_on() {
        let value = serde_json::to_value(report(0)).unwrap();
        for key in [
            "outcome",
            "from_version",
            "to_version",
            "steps",
            "write_unavailable_ms",
            "read_unavailable_ms",
            "held_ms",
            "ingestion_paused_ms",
            "reboot_unavailable_ms",
            "max_write_gap_ms",
            "acknowledged",
            "lost",
            "duplicated",
            "failed_statements",
            "purged",
            "ended",
            "resubmitted",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!(value["failed_statements"], serde_json::json!({"direct": 0, "held": 0}));
    }

    #[test]
    fn one_lost_row_is_no_success() {
        assert!(report(0).good());
        assert!(!report(1).good());
        assert!(page(&report(1), &Aside::default()).contains("but 1 lost"));
        assert!(page(&report(0), &Aside::default()).contains("1 234 567 acknowledged"));
    }
}
