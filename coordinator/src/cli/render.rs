//! Views as text for people. Pure; colour and icons are not needed to understand it.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Fault, Output, paint, print};
use crate::operator::PlanView;
use crate::operator::facts::fate;
use crate::operator::view::{Brief, FactView, SettingView, SettingsView, StatusView};
use crate::preflight::Finding;

/// A view as one JSON line.
pub(super) fn json(view: &impl Serialize) -> String {
    serde_json::to_string(view).unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()))
}

/// A typed view from its JSON.
pub(super) fn read<T: DeserializeOwned>(view: Value) -> Result<T, Fault> {
    serde_json::from_value(view).map_err(|error| {
        Fault::failed(format!("the coordinator's answer cannot be read ({error}); is it of another version?"))
    })
}

/// Prints what became of a wish.
pub(super) fn answer(output: Output, what: &str, answer: &Value) {
    let upgrade = answer["upgrade"].as_str().unwrap_or_default();
    match (output, answer["taken"].as_bool()) {
        (Output::Json, _) => print(&answer.to_string()),
        (Output::Text, Some(true)) => print(&format!("{what} is in the journal of {upgrade}")),
        (Output::Text, _) => print(&format!("{what} is in the inbox of {upgrade}; its driver has not read it yet")),
    }
}

/// Seconds as a person says them.
pub(super) fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, rest) => format!("{minutes} min {rest:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// Bytes as a person says them.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} B"),
    }
}

macro_rules! put {
    ($text:expr, $($arg:tt)*) => {{
        let _ = writeln!($text, $($arg)*);
    }};
}

/// A plan, before anything is touched.
pub(super) fn plan(plan: &PlanView) -> String {
    let mut text = String::new();
    put!(text, "upgrade of {} from {} to {}", plan.cluster, plan.from_version, plan.to_version);
    put!(text, "\nsteps:");
    for (n, step) in plan.steps.iter().enumerate() {
        let mark = match step.reversal.as_str() {
            "pivot" => " (after this there is no way back)",
            _ => "",
        };
        put!(text, "  {}. {}{mark}", n + 1, step.title);
        step.waits.iter().for_each(|wait| put!(text, "     waits for {wait}"));
    }
    put!(text, "\nthe application will feel:");
    for cause in &plan.causes {
        let limit = cause.seconds_max.map(|max| format!(", at most {}", seconds(max as f64))).unwrap_or_default();
        put!(text, "  {}: {}{limit}", cause.kind, cause.what);
    }
    if !plan.approvals.is_empty() {
        put!(text, "\nit will ask to approve: {}", plan.approvals.join(", "));
    }
    let roster = if plan.roster.is_empty() { "none is connected".to_owned() } else { plan.roster.join(", ") };
    put!(text, "agents: {roster}");
    put_findings(&mut text, &plan.findings);
    text
}

fn put_findings(text: &mut String, findings: &[Finding]) {
    if findings.is_empty() {
        put!(text, "preflight found nothing");
        return;
    }
    put!(text, "\npreflight found:");
    findings.iter().for_each(|finding| put!(text, "  {}", finding.line()));
}

/// What preflight found.
pub(super) fn preflight(found: &Value) -> Result<String, Fault> {
    let findings: Vec<Finding> = read(found["findings"].clone())?;
    let to = found["to_version"].as_str().unwrap_or("a version that cannot be reached");
    let mut text = String::new();
    put!(
        text,
        "{} from {} to {to}",
        found["cluster"].as_str().unwrap_or("?"),
        found["from_version"].as_str().unwrap_or("?")
    );
    put_findings(&mut text, &findings);
    put!(
        text,
        "{}",
        if found["blocked"] == Value::Bool(true) { "the upgrade cannot begin" } else { "the upgrade can begin" }
    );
    Ok(text)
}

/// One line an upgrade.
pub(super) fn briefs(briefs: &[Brief]) -> String {
    if briefs.is_empty() {
        return "there has been no upgrade yet".to_owned();
    }
    let mut text = String::new();
    for brief in briefs {
        let state = match &brief.outcome {
            Some(outcome) => paint::state(outcome, outcome),
            None => format!("in {} ({})", brief.phase, paint::state(&brief.health, &brief.health)),
        };
        put!(
            text,
            "{}  {}  {} -> {}  {state}  {}",
            brief.id,
            brief.cluster,
            brief.from_version,
            brief.to_version,
            seconds(brief.seconds)
        );
    }
    text
}

/// Everything about one upgrade.
pub(super) fn status(view: &StatusView) -> String {
    let mut text = String::new();
    let state = match &view.outcome {
        Some(outcome) => paint::state(outcome, outcome),
        None => format!("{}, {}", view.direction, paint::state(&view.health, &view.health)),
    };
    put!(
        text,
        "{}: {} from {} to {}: {state}, {}",
        view.id,
        view.cluster,
        view.from_version,
        view.to_version,
        seconds(view.seconds)
    );
    if let Some(reason) = &view.reason {
        put!(text, "reason: {reason}");
    }
    put_steps(&mut text, view);
    if view.outcome.is_none() {
        put!(text, "now: {}", now(view));
    }
    put_lag(&mut text, view);
    put_counts(&mut text, view);
    view.switchover.iter().for_each(|moment| put!(text, "switchover {}", moment.line()));
    view.alarms
        .iter()
        .for_each(|alarm| put!(text, "alarm ({}, {}): {} ({})", alarm.monitor, alarm.level, alarm.text, alarm.code));
    view.warnings.iter().for_each(|warning| put!(text, "warning: {} ({})", warning.detail, warning.code));
    view.approvals.iter().for_each(|approval| put!(text, "asks to approve {}: {}", approval.name, approval.why));
    if let Some(until) = view.postponed_until {
        let until = if until == jiff::Timestamp::MAX { "told otherwise".to_owned() } else { until.to_string() };
        put!(text, "postponed: no switchover until {until} (`pilot postpone {} --off` ends it)", view.id);
    }
    if let Some(action) = &view.next_action {
        put!(text, "next: {}", paint::strong(action));
    }
    text
}

fn put_steps(text: &mut String, view: &StatusView) {
    for step in &view.steps {
        let time = step.seconds.map(seconds).unwrap_or_default();
        let again = if step.attempt > 1 { format!(" (attempt {})", step.attempt) } else { String::new() };
        let state = paint::state(&step.state, &format!("{:<10}", step.state));
        let usual = step.expected_seconds.filter(|_| matches!(step.state.as_str(), "pending" | "running"));
        let usual = usual.map(|usual| format!("  (took {} before)", seconds(usual))).unwrap_or_default();
        put!(text, "  {state} {}{again}  {time}{usual}", step.title);
        if let Some(failure) = step.failure.as_ref().filter(|_| step.state == "failed" || step.state == "stuck") {
            put!(text, "             {failure}");
        }
    }
}

fn put_lag(text: &mut String, view: &StatusView) {
    for slot in &view.lag.slots {
        let lag = slot.bytes.map_or("unknown".to_owned(), bytes);
        put!(text, "lag of {} ({}): {lag}", slot.name, slot.database.as_deref().unwrap_or("?"));
    }
    for slot in &view.lag.other_slots {
        let kept = slot.retained_bytes.map_or("unknown".to_owned(), bytes);
        let read = if slot.active { "read" } else { "read by nobody" };
        put!(
            text,
            "other slot {} ({}): keeps {kept} of WAL, {read}",
            slot.name,
            slot.database.as_deref().unwrap_or("physical")
        );
    }
    if let Some(lag) = view.lag.cloudwatch_bytes {
        put!(text, "lag by CloudWatch: {}", bytes(lag));
    }
    if let Some(ms) = view.lag.marker_ms {
        put!(text, "marker delay: {ms} ms");
    }
    for controller in &view.ingestion.controllers {
        let rate = controller.rate.map(|rate| format!(", {rate:.1}/s")).unwrap_or_default();
        let backlog = controller.backlog.map(|backlog| format!(", backlog {backlog}")).unwrap_or_default();
        put!(text, "ingestion {} ({}): {}{rate}{backlog}", controller.name, controller.kind, controller.state);
    }
}

fn put_counts(text: &mut String, view: &StatusView) {
    let (counts, down) = (&view.counts, &view.downtime);
    if view.switched_over {
        put!(
            text,
            "writes unavailable {} ms, reads {} ms, clients held at most {} ms, ingestion paused {} ms",
            down.write_unavailable_ms,
            down.read_unavailable_ms,
            down.held_ms,
            down.ingestion_paused_ms
        );
    }
    if down.reboot_unavailable_ms > 0 {
        put!(text, "unavailable in the reboot: {} ms", down.reboot_unavailable_ms);
    }
    put!(
        text,
        "sessions purged {}, ended {}; statements resubmitted {}, not resubmitted {}; schema changes {}",
        counts.purged,
        counts.ended,
        counts.resubmitted,
        counts.not_resubmitted,
        counts.schema_changes
    );
    for statement in &view.statements {
        put!(
            text,
            "  statement {} of {} in {}: {}",
            statement.key,
            statement.role,
            statement.database,
            fate(&statement.verdict)
        );
    }
}

/// The end of an upgrade, as a person enjoys reading it.
pub(super) fn summary(view: &StatusView) -> String {
    let mut text = String::new();
    let end = match view.outcome.as_deref() {
        Some("succeeded") => format!("{} runs {}", view.cluster, view.to_version),
        Some("unwound") => format!("{} is as it was before, on {}", view.cluster, view.from_version),
        Some("refused") => "nothing was touched".to_owned(),
        Some(_) => "stopped by a person where it stood".to_owned(),
        None if view.switched_over => format!("{} runs {}; cleanup is still to be done", view.cluster, view.to_version),
        None => "still under way".to_owned(),
    };
    put!(text, "{end} ({} after {})", view.id, seconds(view.seconds));
    if let Some(reason) = view.reason.as_ref().filter(|_| view.outcome.as_deref() != Some("succeeded")) {
        put!(text, "reason: {reason}");
    }
    put_steps(&mut text, view);
    put_counts(&mut text, view);
    view.warnings.iter().for_each(|warning| put!(text, "warning: {} ({})", warning.detail, warning.code));
    if let Some(action) = &view.next_action {
        put!(text, "next: {action}");
    }
    text
}

/// A fact on one line.
pub(super) fn fact(fact: &FactView) -> String {
    let at = fact.at.strftime("%H:%M:%S%.3f");
    format!("{at} {:>4} {}", fact.seq, fact.text)
}

/// Intents before acts and their records are for the history, not for a follower.
pub(super) fn worth_a_line(fact: &FactView) -> bool {
    !matches!(fact.kind.as_str(), "effect_planned")
}

/// What goes on now, on one line.
pub(super) fn now(view: &StatusView) -> String {
    now_at(view, None)
}

/// The same, with the rate that a follower has seen.
pub(super) fn now_at(view: &StatusView, rate: Option<f64>) -> String {
    let mut text = view.phase.clone();
    if let Some(place) = view.steps.iter().position(|step| step.id == view.phase) {
        let _ = write!(text, " ({} of {})", place + 1, view.steps.len());
    }
    if let Some(current) = &view.current {
        let _ = write!(text, ": {}", current.doing);
        if let Some(progress) = &current.progress {
            let _ = write!(text, ", {}/{} {}", progress.done, progress.total, progress.unit);
        }
        if let Some(rate) = rate {
            let _ = write!(text, " ({rate:.1}/s)");
        }
        if let Some(left) = left(view, rate) {
            let _ = write!(text, ", about {} left", seconds(left));
        }
        if let Some(waiting) = &current.waiting_for {
            let _ = write!(text, ", waits for {waiting}");
        }
    }
    if let Some(lag) = view.lag.slots.iter().filter_map(|slot| slot.bytes).max() {
        let _ = write!(text, ", lag {}", bytes(lag));
    }
    if let Some(rate) = view.ingestion.rate {
        let _ = write!(text, ", ingestion {rate:.0}/s");
    }
    if let Some(backlog) = view.ingestion.backlog {
        let _ = write!(text, ", backlog {backlog}");
    }
    text
}

/// What is left: by the rate that was seen, else what the coordinator expects.
fn left(view: &StatusView, rate: Option<f64>) -> Option<f64> {
    let current = view.current.as_ref()?;
    let progress = current.progress.as_ref();
    let by_rate = progress.zip(rate).map(|(count, rate)| count.total.saturating_sub(count.done) as f64 / rate);
    by_rate.filter(|left| *left > 0.0).or(current.left_seconds)
}

/// What can be tuned, a line each; what a person has changed is marked.
pub(super) fn settings(view: &SettingsView) -> String {
    let mut text = String::new();
    put!(text, "settings of {} (`pilot tune {} KEY=VALUE`); * was changed since it was started", view.id, view.id);
    for setting in &view.settings {
        let (mark, value) = match setting.value == setting.started_with {
            true => (" ", said(setting, &setting.value)),
            false => ("*", format!("{} (was {})", said(setting, &setting.value), said(setting, &setting.started_with))),
        };
        let default = match setting.value == setting.default {
            true => String::new(),
            false => format!(", default {}", said(setting, &setting.default)),
        };
        let from = if setting.applies == "now" { "" } else { "; from the next attempt" };
        let value = if mark == "*" { paint::strong(&value) } else { value };
        put!(text, "{mark} {:<40} {value}{default}  {}{from}", setting.key, setting.what);
    }
    text
}

/// A value with its unit, and as people say it where that is shorter.
fn said(setting: &SettingView, value: &Value) -> String {
    let plain = format!("{value} {}", setting.unit);
    match (setting.unit.as_str(), value.as_u64(), value.as_f64()) {
        ("bytes", Some(count), _) if count >= 1024 => format!("{plain} = {}", bytes(count)),
        ("seconds", _, Some(time)) if time >= 60.0 => format!("{plain} = {}", seconds(time)),
        _ => plain,
    }
}

/// The agents, by cluster.
pub(super) fn agents(agents: &Value) -> String {
    let mut text = String::new();
    let none = Vec::new();
    let clusters = agents["clusters"].as_array().unwrap_or(&none);
    if clusters.is_empty() {
        return "no agent has been seen".to_owned();
    }
    for cluster in clusters {
        put!(text, "{}", cluster["cluster"].as_str().unwrap_or("?"));
        for agent in cluster["agents"].as_array().unwrap_or(&none) {
            let flag =
                |key: &str, yes: &'static str, no: &'static str| if agent[key] == Value::Bool(true) { yes } else { no };
            let age =
                agent["report_age_ms"].as_u64().map_or("no report yet".to_owned(), |ms| format!("report {ms} ms ago"));
            put!(
                text,
                "  {}  {}  {}  {}  {age}",
                agent["agent"].as_str().unwrap_or("?"),
                agent["version"].as_str().unwrap_or("?"),
                flag("connected", "connected", "away"),
                flag("lead", "lead", "helper")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_said_as_people_say_them() {
        let check = |given: f64, expected: &str| assert_eq!(seconds(given), expected);
        check(0.25, "0.2 s");
        check(75.0, "1 min 15 s");
        check(7325.0, "2 h 02 min");
        assert_eq!((bytes(900), bytes(4 << 20)), ("900 B".to_owned(), "4.0 MiB".to_owned()));
    }

    /// What a coordinator of another version, or something else behind its address, answers.
    #[test]
    fn any_bytes_of_a_coordinator_are_rendered_or_refused() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "cli-answers");
        target.words(&["\"seconds\":", "\"outcome\":", "\"steps\":", "-1e300"]).run(|bytes| {
            let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return "no JSON".into() };
            let status = read::<StatusView>(value.clone()).map(|view| status(&view) + &summary(&view) + &now(&view));
            let facts = read::<crate::operator::view::HistoryView>(value.clone());
            let facts =
                facts.map(|history| history.facts.iter().filter(|f| worth_a_line(f)).map(fact).collect::<String>());
            let briefs = read::<Vec<Brief>>(value["upgrades"].clone()).map(|all| briefs(&all));
            let lines = |text: String| text.lines().count().min(9);
            let found = [preflight(&value).ok(), Some(agents(&value)), briefs.ok(), status.ok(), facts.ok()];
            format!("{:?}", found.map(|text| text.map(lines)))
        });
    }
}
