//! What Grafana and Prometheus show of a real upgrade is what the fold says: every query of `deploy/grafana/upgrade-pilot.json` and of the
//! rules is asked of a real Prometheus that scrapes the stage. `identity.rs` plays the upgrade, over TLS.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::stage::Stage;
use tests::stage::prometheus::{Prometheus, deployed};

const LIMIT: Duration = Duration::from_secs(60);
/// Looks back over the whole upgrade.
const RANGE: &str = "15m";
/// What a good upgrade has none of: by title of the panel and number of the query.
const NOTHING_TO_SHOW: [(&str, usize); 10] = [
    ("Alerts", 0),
    // There is no earlier upgrade to compare with.
    ("Against what such steps took", 1),
    ("DDL changes", 1),
    ("Alarms", 0),
    ("Verdicts on statements", 0),
    ("Tasks that died", 0),
    ("Dials, deaths, drops", 1),
    ("Progress of the step", 0),
    ("Hooks", 0),
    ("Hooks on average", 0),
];

/// One query of a panel.
struct Query {
    panel: String,
    number: usize,
    expression: String,
    instant: bool,
}

/// Every query of the dashboard, of this upgrade.
fn queries(id: &str) -> anyhow::Result<Vec<Query>> {
    let board: Value = serde_json::from_str(&deployed("grafana/upgrade-pilot.json")?)?;
    let mut all = Vec::new();
    for panel in board["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a title")?;
        for (number, target) in panel["targets"].as_array().into_iter().flatten().enumerate() {
            let expression = target["expr"].as_str().with_context(|| format!("{title}: a query"))?;
            let mut expression = expression.to_owned();
            for (name, value) in
                [("$__rate_interval", "30s"), ("$__range", RANGE), ("$upgrade", id), ("$cluster", ".*")]
            {
                expression = expression.replace(name, value);
            }
            ensure!(!expression.contains('$'), "{title}: a variable that is not known: {expression}");
            let instant = target["instant"] == true;
            all.push(Query { panel: title.to_owned(), number, expression, instant });
        }
    }
    ensure!(all.len() > 70, "only {} queries", all.len());
    Ok(all)
}

/// Asks every query; those that have shown something are added to `seen`. None may fail, whatever there is to show.
async fn asked(prometheus: &Prometheus, id: &str, seen: &mut BTreeSet<(String, usize)>) -> anyhow::Result<()> {
    for query in queries(id)? {
        let named = || format!("{} ({})", query.panel, query.number);
        // What Grafana asks for as a range: a value for each step of the time that is shown.
        let expression =
            if query.instant { query.expression.clone() } else { format!("({})[{RANGE}:1s]", query.expression) };
        let (kind, series) = prometheus.query(&expression).await.with_context(named)?;
        let wanted = if query.instant { "vector" } else { "matrix" };
        ensure!(kind == wanted, "{}: {kind} instead of {wanted}: {expression}", named());
        let shows = |one: &Value| {
            let values = one["values"].as_array().cloned().unwrap_or_else(|| vec![one["value"].clone()]);
            values.iter().any(|value| value[1] != "NaN")
        };
        if series.iter().any(shows) {
            seen.insert((query.panel, query.number));
        }
    }
    Ok(())
}

/// A Prometheus that has scraped nothing of this upgrade yet: every panel is empty or tells of processes, and none fails.
pub(super) async fn before_it(stage: &Stage, prometheus: &Prometheus) -> anyhow::Result<()> {
    let look = async || {
        let mut seen = BTreeSet::new();
        asked(prometheus, "up-none", &mut seen).await.map_err(|error| format!("{error:#}"))?;
        let about = |title: &str| seen.iter().any(|(panel, _)| panel == title);
        if about("Leads") && about("Links") { Ok(seen) } else { Err(format!("{seen:?}")) }
    };
    let seen = stage.tempo.until("every process to be shown", Duration::from_millis(300), LIMIT, look).await?;
    let about = |title: &str| seen.iter().any(|(panel, _)| panel == title);
    for panel in ["Current phase", "Replications", "Finished steps", "Total downtime", "Runner configuration"] {
        ensure!(!about(panel), "{panel} shows an upgrade that is not there");
    }
    Ok(())
}

/// While it waits for an approval: phase, steps, counts, lag and configuration are those of `pilot status`.
pub(super) async fn while_it_waits(
    stage: &Stage,
    prometheus: &Prometheus,
    id: &str,
    seen: &mut BTreeSet<(String, usize)>,
) -> anyhow::Result<()> {
    let cloudwatch = async || {
        let status = stage.status(id).await.map_err(|error| format!("{error:#}"))?;
        if status["lag"]["cloudwatch_bytes"].is_u64() { Ok(()) } else { Err(status["lag"].to_string()) }
    };
    stage.tempo.until("CloudWatch's figure", Duration::from_millis(500), LIMIT, cloudwatch).await?;
    says_what_the_fold_says(stage, prometheus, id).await?;
    let of = format!("upgrade=\"{id}\"");
    for query in [
        format!("pilot_replication_lag_bytes{{{of}}}"),
        format!("pilot_slot_retained_bytes{{{of}}}"),
        format!("pilot_cloudwatch_lag_bytes{{{of}}}"),
        format!("pilot_marker_delay_seconds{{{of}}}"),
        format!("pilot_ingestion_backlog{{{of}}}"),
        format!("pilot_ingestion_rate{{{of}}}"),
        format!("pilot_approvals_waiting{{{of},step=\"switchover\",approval=\"switchover\"}} == 1"),
        "upgrade:pilot_replication_lag_bytes:max".to_owned(),
        "upgrade:pilot_upgrade_under_way".to_owned(),
        "cluster:pilot_agent_probe_writable:max == 1".to_owned(),
        "sum(pilot_agent_links) == 1".to_owned(),
        "pilot_agent_link_up{cluster=\"orders\",agent=\"agent-1\"} == 1".to_owned(),
    ] {
        ensure!(!prometheus.query(&query).await?.1.is_empty(), "{query} shows nothing");
    }
    asked(prometheus, id, seen).await
}

/// After its end: downtime and durations are those of the fold, nothing of it goes on, every panel has shown something, and every rule is
/// sound.
pub(super) async fn after_the_end(
    stage: &Stage,
    prometheus: &Prometheus,
    id: &str,
    mut seen: BTreeSet<(String, usize)>,
) -> anyhow::Result<()> {
    says_what_the_fold_says(stage, prometheus, id).await?;
    let over = format!("pilot_upgrade_outcome{{upgrade=\"{id}\",outcome=\"succeeded\"}}");
    ensure!(prometheus.value(&over).await? == Some(1.0), "it is not told that it has succeeded");
    for query in [
        format!("pilot_replication_lag_bytes{{upgrade=\"{id}\"}}"),
        format!("pilot_phase{{upgrade=\"{id}\"}} == 1"),
        format!("pilot_approvals_waiting{{upgrade=\"{id}\"}}"),
        format!("upgrade:pilot_upgrade_under_way{{upgrade=\"{id}\"}}"),
    ] {
        // Rules are evaluated after what they ask for was scraped.
        let look = async || match prometheus.query(&query).await {
            Ok((_, shown)) if shown.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        };
        let what = format!("{query} to show nothing any more");
        stage.tempo.until(&what, Duration::from_millis(300), LIMIT, look).await?;
    }
    let nothing = |query: &Query| NOTHING_TO_SHOW.contains(&(query.panel.as_str(), query.number));
    let all = queries(id)?;
    let look = async || {
        asked(prometheus, id, &mut seen).await.map_err(|error| format!("{error:#}"))?;
        let empty = all.iter().filter(|query| !nothing(query) && !seen.contains(&(query.panel.clone(), query.number)));
        let empty: Vec<String> =
            empty.map(|query| format!("{} ({}): {}", query.panel, query.number, query.expression)).collect();
        if empty.is_empty() { Ok(()) } else { Err(empty.join("\n")) }
    };
    stage.tempo.until("every panel to have shown something", Duration::from_millis(500), LIMIT, look).await?;
    rules(prometheus).await
}

/// Every rule was evaluated without an error, and its query has an answer; what a good upgrade must not fire has not.
async fn rules(prometheus: &Prometheus) -> anyhow::Result<()> {
    let groups = prometheus.api("rules", "").await?;
    let mut names = BTreeSet::new();
    for rule in groups["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array()).flatten()
    {
        let name = rule["name"].as_str().context("a name")?;
        ensure!(rule["health"] == "ok", "{name}: {rule}");
        let query = rule["query"].as_str().context("a query")?;
        let (kind, _) = prometheus.query(query).await.context("a rule's query")?;
        ensure!(kind == "vector", "{name} answers {kind}");
        names.insert(name.to_owned());
    }
    let written = deployed("prometheus/alerts.yaml")? + &deployed("prometheus/recording.yaml")?;
    let written = written.matches("- alert: ").count() + written.matches("- record: ").count();
    ensure!(names.len() == written, "{} of {written} rules are there: {names:?}", names.len());
    let pages = format!("ALERTS{{severity=\"page\",alertstate=\"firing\"}}[{RANGE}]");
    let (_, fired) = prometheus.query(&pages).await?;
    let fired: Vec<&Value> = fired.iter().map(|one| &one["metric"]["alertname"]).collect();
    ensure!(fired.is_empty(), "a good upgrade has paged somebody: {fired:?}");
    Ok(())
}

/// What can be compared number by number, once Prometheus has scraped what the status says.
async fn says_what_the_fold_says(stage: &Stage, prometheus: &Prometheus, id: &str) -> anyhow::Result<()> {
    let look = async || {
        let said = async || -> anyhow::Result<Vec<String>> {
            let status = stage.status(id).await?;
            differences(prometheus, id, &status).await
        };
        match said().await {
            Ok(found) if found.is_empty() => Ok(()),
            Ok(found) => Err(found.join("; ")),
            Err(error) => Err(format!("{error:#}")),
        }
    };
    stage.tempo.until("Prometheus to say what the fold says", Duration::from_millis(300), LIMIT, look).await?;
    configured(stage, prometheus, id).await
}

async fn differences(prometheus: &Prometheus, id: &str, status: &Value) -> anyhow::Result<Vec<String>> {
    let mut wanted: Vec<(String, f64)> = Vec::new();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let health = status["health"].as_str().context("health")?;
    wanted.push((format!("pilot_upgrade_health{{upgrade=\"ID\",health=\"{health}\"}}"), 1.0));
    let (from, to) = (status["from_version"].as_str(), status["to_version"].as_str());
    let versions = format!("from=\"{}\",to=\"{}\"", from.context("from")?, to.context("to")?);
    wanted.push((format!("pilot_upgrade_info{{upgrade=\"ID\",cluster=\"orders\",{versions}}}"), 1.0));
    let over = status["outcome"].is_string();
    for step in status["steps"].as_array().context("steps")? {
        let (name, state) = (step["id"].as_str().context("id")?, step["state"].as_str().context("state")?);
        let at_work = status["phase"] == name && !over;
        wanted.push((format!("pilot_phase{{upgrade=\"ID\",step=\"{name}\"}}"), f64::from(u8::from(at_work))));
        wanted.push((format!("pilot_upgrade_step_state{{upgrade=\"ID\",step=\"{name}\",state=\"{state}\"}}"), 1.0));
        wanted
            .push((format!("pilot_upgrade_step_attempts{{upgrade=\"ID\",step=\"{name}\"}}"), number(&step["attempt"])));
        if state == "done" {
            wanted.push((
                format!("pilot_upgrade_step_seconds{{upgrade=\"ID\",step=\"{name}\"}}"),
                number(&step["seconds"]),
            ));
        }
    }
    for (kind, field) in [
        ("write", "write_unavailable_ms"),
        ("read", "read_unavailable_ms"),
        ("held", "held_ms"),
        ("ingestion_paused", "ingestion_paused_ms"),
        ("reboot", "reboot_unavailable_ms"),
    ] {
        let ms = number(&status["downtime"][field]);
        wanted.push((format!("pilot_downtime_seconds{{upgrade=\"ID\",kind=\"{kind}\"}}"), ms / 1000.0));
    }
    for (metric, field) in [
        ("pilot_sessions_purged_total", "purged"),
        ("pilot_sessions_ended_total", "ended"),
        ("pilot_statements_resubmitted_total", "resubmitted"),
        ("pilot_statements_not_resubmitted_total", "not_resubmitted"),
        ("pilot_schema_changes_total", "schema_changes"),
    ] {
        wanted.push((format!("{metric}{{upgrade=\"ID\"}}"), number(&status["counts"][field])));
    }
    let warnings = status["warnings"].as_array().map_or(0, Vec::len) as f64;
    wanted.push(("pilot_upgrade_warnings{upgrade=\"ID\"}".to_owned(), warnings));
    let slots = status["lag"]["slots"].as_array().map_or(0, Vec::len) as f64;
    wanted.push(("count(pilot_replication_lag_bytes{upgrade=\"ID\"}) or vector(0)".to_owned(), slots));
    if over {
        wanted.push(("pilot_upgrade_seconds{upgrade=\"ID\"}".to_owned(), number(&status["seconds"])));
    }
    let mut found = Vec::new();
    for (query, value) in wanted {
        let query = query.replace("ID", id);
        let said = prometheus.value(&query).await?;
        if !said.is_some_and(|said| (said - value).abs() < 0.002) {
            found.push(format!("{query} is {said:?}, the status says {value}"));
        }
    }
    Ok(found)
}

/// Every field of the spec in the journal is a setting with this value, and there is no other.
async fn configured(stage: &Stage, prometheus: &Prometheus, id: &str) -> anyhow::Result<()> {
    let facts = stage.history(id).await?;
    let created = facts.of_kind("created", None).next().context("no upgrade was created")?;
    let spec = created["fact"]["spec"].as_object().context("a spec")?.clone();
    let mut fields = Vec::new();
    for (part, value) in spec {
        match value {
            Value::Object(inner) => {
                fields.extend(inner.into_iter().map(|(name, value)| (format!("{part}.{name}"), value)))
            }
            value => fields.push((part, value)),
        }
    }
    let (_, series) = prometheus.query(&format!("pilot_upgrade_setting{{upgrade=\"{id}\"}} == 1")).await?;
    let told = |key: &str| {
        let one = series.iter().find(|one| one["metric"]["key"] == key);
        one.and_then(|one| one["metric"]["value"].as_str())
    };
    for (key, value) in &fields {
        let said = told(key).with_context(|| format!("{key} is not shown"))?;
        let same = match value {
            Value::String(text) => said == text,
            Value::Bool(is) => said == if *is { "true" } else { "false" },
            Value::Number(number) => said == number.to_string(),
            Value::Null => said == "none",
            Value::Array(all) if all.is_empty() => said == "none",
            _ => true,
        };
        ensure!(same, "{key} is shown as {said}, and is {value}");
    }
    ensure!(series.len() == fields.len(), "{} settings of {} fields", series.len(), fields.len());
    Ok(())
}
