//! What watches the program: scrape configuration, rules, their runbook pages and the dashboard. Prometheus's own tool judges the first
//! two, Grafana's own SDK the last; here too, that all of it names metrics and labels that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;

use lab::install;
use serde_json::Value;
use tokio::process::Command;

use super::source::{files, none, root, text};

const RULES: [&str; 2] = ["deploy/prometheus/recording.yaml", "deploy/prometheus/alerts.yaml"];
const DASHBOARD: &str = "deploy/grafana/upgrade-pilot.json";

/// Name and text of each alert.
fn alerts() -> BTreeMap<String, String> {
    let rules = text(RULES[1]);
    let all = rules.split("- alert: ").skip(1);
    let all: BTreeMap<String, String> =
        all.map(|alert| (alert.lines().next().unwrap_or_default().to_owned(), alert.to_owned())).collect();
    assert!(all.len() > 20, "only {} alerts were found", all.len());
    all
}

/// The dashboard's panels, without the rows.
fn panels() -> Vec<Value> {
    let board: Value = serde_json::from_str(&text(DASHBOARD)).expect("the dashboard is JSON");
    let all = board["panels"].as_array().expect("panels").clone();
    all.into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// Every query of the dashboard, annotations and variables too.
fn queries() -> Vec<String> {
    fn within(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str().filter(|_| ["expr", "query"].contains(&name.as_str())) {
                        Some(query) => found.push(query.to_owned()),
                        None => within(value, found),
                    }
                }
            }
            Value::Array(all) => all.iter().for_each(|value| within(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    within(&serde_json::from_str(&text(DASHBOARD)).expect("the dashboard is JSON"), &mut found);
    assert!(found.len() > 70, "only {} queries were found", found.len());
    found
}

#[test]
fn alerts_rules_and_dashboard_name_metrics_that_there_are() {
    let sources = text("coordinator/src/metrics.rs") + &text("agent/src/metrics.rs");
    let mut asked = queries();
    asked.extend(RULES.map(text));
    asked.push(text("deploy/prometheus/tests.yaml"));
    let named: BTreeSet<String> = asked
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("pilot_"))
        .map(str::to_owned)
        .collect();
    assert!(named.len() > 50, "{named:?}");
    // A recording rule has the metric that it is made of in its name; `under_way` is one of its own.
    let known = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let metric = |name: &str| sources.contains(&format!("\"{name}\""));
        metric(name) || histogram.is_some_and(metric) || name == "pilot_upgrade_under_way"
    };
    none("no metric is called so", &named.into_iter().filter(|name| !known(name)).collect::<Vec<_>>());
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let all = queries().join("\n");
    let mut missing = Vec::new();
    for path in ["coordinator/src/metrics.rs", "agent/src/metrics.rs"] {
        let source = text(path);
        let names = source.lines().filter_map(|line| line.split_once(": &str = \"")?.1.split('"').next());
        missing.extend(names.filter(|name| !all.contains(*name)).map(str::to_owned));
    }
    none("a metric is on no panel", &missing);
}

#[test]
fn every_alert_has_a_severity_tests_and_a_page_of_the_form_of_the_others() {
    const PARTS: [&str; 3] = ["\n## What it means\n", "\n## What the program did\n", "\n## What to do\n"];
    let (alerts, tests) = (alerts(), text("deploy/prometheus/tests.yaml"));
    let mut found = Vec::new();
    for (name, alert) in &alerts {
        let severity = ["page", "notice"].iter().any(|it| alert.contains(&format!("severity: {it}")));
        let page = format!("deploy/runbook/alerts/{name}.md");
        if !severity || !alert.contains("summary: ") || !alert.contains(&format!("runbook: {page}")) {
            found.push(format!("{name}: no severity, summary or runbook"));
        }
        let of_it = tests.split("  - name: ").filter(|test| test.starts_with(&format!("{name}\n")));
        let of_it: String = of_it.collect();
        let fires = of_it.contains("exp_labels:") && of_it.contains("exp_annotations:");
        if !fires || !of_it.contains("exp_alerts: []") {
            found.push(format!("{name}: no test that it fires, or none that it does not"));
        }
        let page = if root().join(&page).is_file() { text(&page) } else { String::new() };
        let parts: Vec<Option<usize>> = PARTS.iter().map(|part| page.find(part)).collect();
        if !page.starts_with(&format!("# {name}\n")) || parts.contains(&None) || !parts.is_sorted() {
            found.push(format!("{name}: no page of the form of the others"));
        }
    }
    let pages = files()
        .into_iter()
        .filter_map(|path| Some(path.strip_prefix("deploy/runbook/alerts/")?.strip_suffix(".md")?.to_owned()));
    found.extend(pages.filter(|page| !alerts.contains_key(page)).map(|page| format!("{page}: a page of no alert")));
    none("an alert is not complete", &found);
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_what_it_means_when_there_is_nothing() {
    let mut found = Vec::new();
    for panel in panels() {
        let title = panel["title"].as_str().unwrap_or_default();
        let words = |value: &Value| value.as_str().map_or(0, |text| text.split_whitespace().count());
        let defaults = &panel["fieldConfig"]["defaults"];
        if words(&panel["description"]) < 3 || words(&defaults["noValue"]) < 2 || !defaults["unit"].is_string() {
            found.push(format!("{title}: no description, unit or word for nothing"));
        }
        let source = |of: &Value| of["datasource"]["uid"] == "${datasource}";
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        if targets.is_empty() || !source(&panel) || !targets.iter().all(source) {
            found.push(format!("{title}: not of the chosen Prometheus"));
        }
    }
    none("a panel is not complete", &found);
    let board: Value = serde_json::from_str(&text(DASHBOARD)).expect("the dashboard is JSON");
    let variables = board["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "cluster", "upgrade"]);
}

/// Runs a tool in the folder and says what it said, unless it is content.
fn judged(what: &str, said: &Output) {
    let text = [said.stdout.clone(), said.stderr.clone()].concat();
    assert!(said.status.success(), "{what}: {}", String::from_utf8_lossy(&text));
}

#[tokio::test]
async fn promtool_accepts_configuration_and_rules_and_every_alert_fires_when_it_should_and_not_otherwise() {
    let tool = install::ensure_promtool(&|_| {}).await.expect("promtool");
    let folder = root().join("deploy/prometheus");
    for args in [
        &["check", "config", "--syntax-only", "prometheus.yml"][..],
        &["check", "rules", "recording.yaml", "alerts.yaml"],
        &["test", "rules", "tests.yaml"],
    ] {
        let said = Command::new(&tool).args(args).current_dir(&folder).output().await.expect("promtool runs");
        judged(&args.join(" "), &said);
    }
}

#[tokio::test]
async fn the_dashboard_is_what_its_script_builds_and_grafanas_own_schema_allows() {
    let folder = root().join("deploy/grafana");
    let python = install::ensure_grafana_sdk(&folder.join("requirements.txt")).await.expect("Grafana's SDK");
    let build = async |args: &[&str]| {
        let mut script = Command::new(&python);
        script.arg("build.py").args(args).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&folder);
        script.output().await.expect("the script runs")
    };
    let built = build(&[]).await;
    judged("build.py", &built);
    let there = text(DASHBOARD);
    let same = there.trim_end() == String::from_utf8_lossy(&built.stdout).trim_end();
    assert!(same, "{DASHBOARD} is not what build.py builds: python build.py > upgrade-pilot.json");
    judged("build.py --check", &build(&["--check", "upgrade-pilot.json"]).await);
    // The check is one: a field that is not known, a type and a word that are wrong, each is found.
    for (from, to) in [
        ("\"noValue\":", "\"novalue\":"),
        ("\"graphTooltip\": 1", "\"graphTooltip\": \"yes\""),
        ("\"lineInterpolation\": \"linear\"", "\"lineInterpolation\": \"straight\""),
    ] {
        assert!(there.contains(from), "nothing to spoil: {from}");
        let file = std::env::temp_dir().join(format!("upgrade-pilot-spoiled-{}.json", std::process::id()));
        std::fs::write(&file, there.replace(from, to)).expect("a file");
        let said = build(&["--check", &file.display().to_string()]).await;
        std::fs::remove_file(&file).expect("the file goes");
        assert!(!said.status.success(), "{to} was not found");
    }
    assert!(!Path::new(&folder).join("__pycache__").exists(), "the script left something behind");
}
