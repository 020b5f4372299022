//! A report in Markdown: the same parts in the same order as the HTML, without its pictures. Every text that is not ours is escaped,
//! so that a name of a table can be neither a tag nor a cell nor a link.

use std::fmt::Write as _;

use super::html::{at, count, seconds};
use super::model::Report;
use crate::operator::facts::fate;

macro_rules! put {
    ($text:expr) => { $text.push('\n') };
    ($text:expr, $($arg:tt)*) => {{
        let _ = writeln!($text, $($arg)*);
    }};
}

/// Text that is shown as it is: nothing in it is markup.
fn md(text: impl std::fmt::Display) -> String {
    let mut shown = String::new();
    for c in text.to_string().chars() {
        match c {
            '&' => shown += "&amp;",
            '<' => shown += "&lt;",
            '>' => shown += "&gt;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' | '$' => shown.extend(['\\', c]),
            c if c.is_control() => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

/// A table, or a sentence where it would be empty. Cells are escaped.
fn table(text: &mut String, heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    put!(text, "\n| {} |", heads.join(" | "));
    put!(text, "|{}", " --- |".repeat(heads.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(md).collect();
        put!(text, "| {} |", cells.join(" | "));
    }
    put!(text);
}

fn code(text: &mut String, language: &str, code: &str) {
    // A fence longer than any run of backticks inside.
    let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    put!(text, "\n{fence}{language}\n{}\n{fence}\n", code.trim_end());
}

fn or(value: &Option<impl ToString>, none: &str) -> String {
    value.as_ref().map_or_else(|| none.to_owned(), ToString::to_string)
}

/// The whole document.
pub fn page(report: &Report) -> String {
    let mut text = String::new();
    head(&mut text, report);
    timeline(&mut text, report);
    downtime(&mut text, report);
    verification(&mut text, report);
    changes(&mut text, report);
    sessions(&mut text, report);
    people(&mut text, report);
    plan(&mut text, report);
    who(&mut text, report);
    terraform(&mut text, report);
    journal(&mut text, report);
    text
}

fn head(text: &mut String, r: &Report) {
    put!(text, "# Upgrade of {}: PostgreSQL {} to {}\n", md(&r.cluster.name), md(&r.versions.from), md(&r.versions.to));
    put!(
        text,
        "Upgrade {}, asked for by {}. Report made {}. All times are UTC.\n",
        md(&r.id),
        md(&r.asked_by),
        at(r.made_at)
    );
    put!(text, "**{}**: {}\n", md(r.verdict.outcome.as_deref().unwrap_or("NOT ENDED")), md(&r.verdict.sentence));
    if let Some(reason) = &r.verdict.reason {
        put!(text, "Reason: {}\n", md(reason));
    }
    let down = &r.downtime;
    let figures = [
        ("writes unavailable", down.write_unavailable_ms),
        ("reads unavailable", down.read_unavailable_ms),
        ("clients held, longest", down.held_ms),
        ("ingestion paused", down.ingestion_paused_ms),
        ("the one reboot", down.reboot_unavailable_ms),
    ];
    let rows = figures.map(|(what, ms)| vec![what.to_owned(), format!("{} ms", count(ms))]);
    table(text, &["Figure", ""], rows.into_iter().chain([vec!["whole upgrade".to_owned(), seconds(r.seconds)]]));
}

fn timeline(text: &mut String, r: &Report) {
    put!(text, "## Timeline");
    let rows = r.steps.iter().flat_map(|step| {
        step.spans.iter().map(|span| {
            let attempt = if span.attempt == 0 { "undoing".to_owned() } else { span.attempt.to_string() };
            let failure = span.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
            let to = span.to.map_or("not ended".to_owned(), at);
            vec![step.title.clone(), attempt, at(span.from), to, format!("{}{failure}", span.end)]
        })
    });
    table(text, &["Step", "Attempt", "Began", "Ended", "How"], rows);
    let rows = r.steps.iter().map(|step| {
        let waits = step.waits.iter().map(|wait| format!("{} for {}", seconds(wait.seconds), wait.what));
        let time = step.seconds.map(seconds).unwrap_or_default();
        vec![step.title.clone(), step.state.clone(), time, waits.collect::<Vec<_>>().join("; ")]
    });
    table(text, &["Step", "State", "Whole", "Waits"], rows);
    put!(text, "## The cut, moment by moment\n");
    if r.cut.attempts.is_empty() {
        put!(text, "The switchover was never called.\n");
    } else {
        let rows = r.cut.attempts.iter().map(|one| {
            let status =
                one.deployment_status.as_ref().map(|status| format!(" (AWS said {status})")).unwrap_or_default();
            let evidence = format!("{}{status}", one.evidence.as_deref().unwrap_or_default());
            let settled = one.settled_at.map_or("not read yet".to_owned(), at);
            vec![one.attempt.to_string(), at(one.armed_at), settled, or(&one.outcome, "not known"), evidence]
        });
        table(text, &["Attempt", "Allowed", "Outcome read", "Outcome", "Evidence"], rows);
    }
    if !r.cut.moments.is_empty() {
        let rows = r.cut.moments.iter().map(|moment| {
            let offset = moment.offset_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
            vec![at(moment.at), offset, moment.what_in_words(), moment.agent.clone()]
        });
        table(text, &["When", "From the cut of connections", "What", "Seen by"], rows);
    }
}

fn downtime(text: &mut String, r: &Report) {
    put!(text, "## Downtime\n");
    put!(text, "As the agents' probes measured it. Of agents that saw the same, the one who saw most counts.");
    let rows = r.outages.rows.iter().map(|one| {
        let counts = if one.counts { "yes" } else { "no" };
        let (what, ms) = (one.kind_in_words().to_owned(), format!("{} ms", count(one.ms)));
        vec![what, one.during.clone(), at(one.from), at(one.to), ms, one.agent.clone(), counts.to_owned()]
    });
    table(text, &["What", "During", "From", "To", "Length", "Measured by", "Counts"], rows);
    put!(text, "{}", r.outages.rest());
}

fn verification(text: &mut String, r: &Report) {
    let v = &r.verification;
    put!(text, "## Verification\n\nBlue and green: {}.", md(&v.says));
    if v.tables.is_some() {
        let ms = |ms: &Option<u64>| ms.map_or("none".to_owned(), |ms| format!("{} ms", count(ms)));
        let sequences =
            v.sequences.map_or("not yet".to_owned(), |n| format!("{n}, {} raised", v.sequences_raised.len()));
        let rows = [
            ("objects of both catalogues", or(&v.objects, "not known")),
            ("tables", or(&v.tables, "not known")),
            ("rows on blue when they were compared", v.rows.map_or("not known".to_owned(), count)),
            ("how rows were compared", v.how().to_owned()),
            ("rounds of comparing", or(&v.rounds, "not known")),
            ("slot lag before the hold, bytes", or(&v.lag_bytes, "not known")),
            ("last marker before the call, slowest database", ms(&v.marker_ms)),
            ("sequences checked after the cut", sequences),
        ];
        table(text, &["Figure", ""], rows.map(|(what, figure)| vec![what.to_owned(), figure]));
    }
    if !v.databases.is_empty() {
        let rows = v.databases.iter().map(|one| {
            let held = v.in_hold.iter().find(|held| held.database == one.database);
            let held = held.map(|held| format!("{} tables", held.tables)).unwrap_or_default();
            let marker = v.markers.iter().find(|marker| marker.0 == one.database);
            let marker = marker.map(|marker| format!("{} ms", marker.1)).unwrap_or_default();
            vec![one.database.clone(), count(one.tables), count(one.rows), held, marker]
        });
        table(text, &["Database", "Tables", "Rows", "Compared again in the hold", "Marker"], rows);
    }
    if !v.queries.is_empty() {
        table(
            text,
            &["Business query", "Result"],
            v.queries.iter().map(|one| vec![one.name.clone(), one.result.clone()]),
        );
    }
    if !v.largest.is_empty() {
        let rows = v.largest.iter().map(|one| {
            let equal = if one.equal { "yes" } else { "no" };
            vec![
                one.table.to_string(),
                count(one.blue_rows),
                count(one.green_rows),
                one.rounds.to_string(),
                equal.to_owned(),
            ]
        });
        table(text, &["Table", "Rows on blue", "Rows on green", "Rounds", "Equal"], rows);
    }
    let lists = [
        ("Not proven exactly before the hold", &v.unproven),
        ("Not proven exactly in the hold", &v.unproven_in_hold),
        ("Sequences that were behind, and were raised", &v.sequences_raised),
    ];
    for (title, items) in lists.into_iter().filter(|(_, items)| !items.is_empty()) {
        put!(text, "{title}:\n");
        items.iter().for_each(|item| put!(text, "- {}", md(item)));
        put!(text);
    }
    let s = &r.statistics;
    let since = s.newer_than.map(|since| format!(" ({})", at(since))).unwrap_or_default();
    put!(text, "## Statistics\n\n{}{since}.", md(&s.says));
    let rows = [
        ("VACUUM (ANALYZE), tables", or(&s.vacuumed, "none")),
        ("VACUUM FULL, tables", or(&s.full, "none")),
        ("REINDEX, tables", or(&s.reindexed, "none")),
        ("materialized views refreshed", or(&s.views_refreshed, "not yet")),
    ];
    let slowest = s.slowest.iter().map(|(name, ms)| vec![format!("slow: {name}"), format!("{} ms", count(ms))]);
    table(text, &["What", ""], rows.map(|(what, n)| vec![what.to_owned(), n]).into_iter().chain(slowest));
}

fn changes(text: &mut String, r: &Report) {
    put!(text, "## What was changed and restored");
    let rows = r.changes.iter().map(|one| {
        let when = one.at.map(|when| format!(" ({})", at(when))).unwrap_or_default();
        vec![one.what.clone(), one.before.clone(), one.during.clone(), format!("{}{when}", one.after)]
    });
    table(text, &["What", "Before", "During", "After"], rows);
    put!(text, "### Snapshots that stay");
    table(text, &["Snapshot", "Of"], r.snapshots.iter().map(|one| vec![one.id.clone(), one.of.clone()]));
    put!(text, "## Schema changes while green existed\n");
    if r.ddl.is_empty() {
        put!(text, "None was seen.\n");
        return;
    }
    let rows = r.ddl.rows.iter().map(|one| {
        let by = one.seen_by.as_ref().map(|agent| format!(", {agent}")).unwrap_or_default();
        let source = format!("{}{by}", one.source);
        vec![at(one.at), one.what.clone(), source, format!("{}: {}", one.breaks(), one.because)]
    });
    table(text, &["Seen", "What, by whom, when", "Source", "Breaks replication"], rows);
    put!(text, "{}", r.ddl.rest());
}

fn sessions(text: &mut String, r: &Report) {
    let counts = &r.counts;
    put!(
        text,
        "## Sessions and statements\n\nPurged {}, ended for the cut {}; statements resubmitted {}, not resubmitted {}.",
        counts.purged,
        counts.ended,
        counts.resubmitted,
        counts.not_resubmitted
    );
    if !r.ended.is_empty() {
        let rows = r.ended.rows.iter().map(|one| {
            let (command, key) = (or(&one.command, ""), or(&one.key, ""));
            let age = format!("{} ms", count(one.age_ms));
            vec![at(one.at), one.session.clone(), one.application.clone(), command, age, key, one.verdict.clone()]
        });
        table(text, &["Ended", "Session", "Application", "Statement", "Age", "Key", "Verdict"], rows);
        put!(text, "{}", r.ended.rest());
    }
    if !r.statements.is_empty() {
        let row = |one: &crate::operator::tally::Statement| {
            vec![one.key.clone(), one.role.clone(), one.database.clone(), fate(&one.verdict)]
        };
        table(text, &["Key", "Role", "Database", "Verdict"], r.statements.rows.iter().map(row));
        put!(text, "{}", r.statements.rest());
    }
    if !r.purged.is_empty() {
        let rows = r.purged.rows.iter().map(|one| {
            let age = format!("{} ms", count(one.age_ms));
            vec![at(one.at), one.session.clone(), one.application.clone(), age, or(&one.waited_on, "")]
        });
        table(text, &["Purged", "Session", "Application", "Age", "Held up"], rows);
        put!(text, "{}", r.purged.rest());
    }
}

fn people(text: &mut String, r: &Report) {
    put!(text, "## Who asked and approved what");
    let rows = r.people.rows.iter().map(|one| vec![at(one.at), or(&one.by, "the program"), one.what.clone()]);
    table(text, &["When", "Who", "What"], rows);
    put!(text, "{}", r.people.rest());
    put!(text, "## Alarms, warnings, notes");
    let alarms = r.alarms.rows.iter().map(|one| ("alarm, ", one));
    let warnings = r.warnings.rows.iter().map(|one| ("warning, ", one));
    let all = alarms.chain(warnings).chain(r.notes.rows.iter().map(|one| ("", one)));
    let rows =
        all.map(|(kind, one)| vec![at(one.at), format!("{kind}{}", one.of), or(&one.code, ""), one.text.clone()]);
    table(text, &["When", "Of", "Code", "What"], rows);
    [r.alarms.rest(), r.warnings.rest(), r.notes.rest()].iter().for_each(|rest| put!(text, "{rest}"));
}

fn plan(text: &mut String, r: &Report) {
    put!(
        text,
        "## The plan\n\nDigest (SHA-256 over plan and spec): `{}`. {}",
        md(&r.plan_digest),
        r.plan_as_named_in_words()
    );
    let Some(plan) = &r.plan else { return };
    let rows = plan.steps.iter().map(|step| vec![step.title.clone(), step.reversal.clone(), step.waits.join("; ")]);
    table(text, &["Step", "Kind", "Waits for"], rows);
    let rows = plan.causes.iter().map(|cause| {
        let max = cause.seconds_max.map(|max| format!("at most {max} s")).unwrap_or_default();
        vec![cause.step.clone(), cause.kind.clone(), cause.what.clone(), max]
    });
    table(text, &["Step", "Kind", "What the application was told that it would feel", "Limit"], rows);
    let approvals = if plan.approvals.is_empty() { "none".to_owned() } else { plan.approvals.join(", ") };
    put!(text, "Approvals it was to ask for: {}.", md(approvals));
    let rows = plan.findings.iter().map(|finding| {
        let accepted = if r.findings_accepted.contains(finding) { "accepted by the spec" } else { "" };
        vec![finding.code.to_string(), finding.weight().to_owned(), finding.what.clone(), accepted.to_owned()]
    });
    table(text, &["Code", "Weight", "Finding of preflight", "Accepted"], rows);
}

fn who(text: &mut String, r: &Report) {
    put!(text, "## Versions and identities");
    let v = &r.versions;
    let agents = match v.agents.is_empty() {
        true => format!("{} (versions not kept)", v.roster.join(", ")),
        false => v.agents.iter().map(|one| format!("{} {}", one.agent, one.version)).collect::<Vec<_>>().join(", "),
    };
    let began = if v.program_began.is_empty() { "not kept" } else { &v.program_began };
    let mut rows = vec![
        vec!["cluster".to_owned(), r.cluster.arn.clone()],
        vec!["PostgreSQL before".to_owned(), v.from.clone()],
        vec!["asked for".to_owned(), v.to.clone()],
        vec!["answered after".to_owned(), or(&v.production_said, "not read")],
        vec!["program that began it, that reports".to_owned(), format!("{began}, {}", v.program_reports)],
        vec!["agents".to_owned(), agents],
    ];
    for (name, side) in [("blue", &r.cluster.blue), ("green, as it was named before the cut", &r.cluster.green)] {
        let Some(side) = side else { continue };
        rows.push(vec![name.to_owned(), format!("{} {}", side.cluster, side.resource_id)]);
        let instance = |one: &super::model::Instance| {
            let writer = if one.writer { ", writer" } else { "" };
            vec![String::new(), format!("{} {}{writer}", one.name, one.resource_id)]
        };
        rows.extend(side.instances.iter().map(instance));
    }
    rows.extend(r.cluster.deployments.iter().map(|id| vec!["deployment".to_owned(), id.clone()]));
    table(text, &["What", ""], rows);
}

fn terraform(text: &mut String, r: &Report) {
    let t = &r.terraform;
    put!(text, "## Terraform and CloudFormation\n\n{}", md(&t.says));
    if !t.moved.is_empty() {
        let row = |one: &super::terraform::Attribute| {
            vec![one.address.clone(), one.name.clone(), one.before.clone(), one.after.clone()]
        };
        table(text, &["Address", "Attribute", "Before", "After"], t.moved.iter().map(row));
    }
    for (n, step) in t.steps.iter().enumerate() {
        put!(text, "### {}. {}\n\n{}", n + 1, md(&step.title), md(&step.text));
        if let Some(given) = &step.code {
            code(text, step.language.as_deref().unwrap_or_default(), given);
        }
    }
    put!(text, "\n{}", md(&t.cloudformation));
}

fn journal(text: &mut String, r: &Report) {
    let j = &r.journal;
    put!(text, "## The journal\n\n{} facts; SHA-256 `{}`.", count(j.facts), md(&j.sha256));
    put!(
        text,
        "It is over one line a fact, in order: the JSON of its at, epoch, fact and seq, with sorted keys and no blanks, and a line feed."
    );
    code(text, "shell", &j.how);
    if r.ended_at.is_none() {
        put!(text, "The upgrade has NOT ENDED: facts will be added. The hash of the first {} facts stays.", j.facts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_is_markup() {
        for (name, shown) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("a|b\n# c", "a\\|b \\# c"),
            (
                "[x](http://y) ![z] `q` *w* _e_ ~r~ \\",
                "\\[x\\](http://y) \\!\\[z\\] \\`q\\` \\*w\\* \\_e\\_ \\~r\\~ \\\\",
            ),
        ] {
            assert_eq!(md(name), shown);
        }
        let mut text = String::new();
        code(&mut text, "sh", "a ``` b");
        assert_eq!(text, "\n````sh\na ``` b\n````\n\n");
    }
}
