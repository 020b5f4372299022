use std::sync::Arc;

use runtime::recorder::Recorder;

use super::*;
use crate::operator::view::{AlarmView, ApprovalView, ControllerView, SlotView, StepView};

fn spec(toml: &str) -> UpgradeSpec {
    toml::from_str(toml).unwrap()
}

fn status(id: &str) -> StatusView {
    let info = RunInfo {
        id: RunId::from(id),
        subject: Subject("arn:aws:rds:us-east-1:123456789012:cluster:orders".into()),
        created_at: Timestamp::from_second(1_700_000_000).unwrap(),
        outcome: None,
    };
    let about = crate::store::About {
        from_version: "14.15".into(),
        to_version: "16.9".into(),
        asked_by: "somebody".into(),
        ..crate::store::About::default()
    };
    let mut status = standing::unreadable(&info, &about, "", Timestamp::from_second(1_700_000_060).unwrap());
    status.health = "person".into();
    status.phase = "switchover".into();
    let step = |id: &str, state: &str, seconds| StepView {
        id: id.into(),
        title: String::new(),
        state: state.into(),
        seconds,
        worked_seconds: seconds,
        expected_seconds: None,
        attempt: 1,
        waits: Vec::new(),
        failure: None,
    };
    status.steps = vec![
        step("provisioning", "done", Some(12.5)),
        step("switchover", "running", Some(3.0)),
        step("cleanup", "pending", None),
    ];
    status
}

fn rendered(scrape: impl Fn() -> Scrape + Send + Sync + 'static) -> String {
    Recorder::detached().showing(move || crate::metrics::scraped(&scrape())).render()
}

fn shown(status: StatusView, spec: &UpgradeSpec) -> Shown {
    Shown { status, settings: settings(spec), agents_missing: 1 }
}

#[test]
fn a_scrape_tells_of_each_upgrade_what_its_status_says_and_nothing_that_was_not_measured() {
    let text = rendered(|| {
        let mut status = status("up-1");
        let slot = |name: &str, bytes, retained_bytes| SlotView {
            name: name.into(),
            database: None,
            bytes,
            retained_bytes,
            behind_ms: None,
        };
        status.lag.slots = vec![slot("rds_1", Some(42), Some(4200)), slot("rds_2", None, None)];
        status.ingestion.state = Some("paused".into());
        status.ingestion.controllers = Vec::<ControllerView>::new();
        let approval = |name: &str| ApprovalView { name: name.into(), step: "switchover".into(), why: String::new() };
        status.approvals = vec![approval("switchover"), approval("schema-0a1b2c")];
        let (monitor, level) = ("storage".to_owned(), "hold".to_owned());
        let (code, text) = ("PU0604".into(), "<script>".into());
        status.alarms = vec![AlarmView { monitor, level, code, text, approval: None }];
        status.counts.purged = 3;
        status.downtime.write_unavailable_ms = 1250;
        let spec = spec("cluster = \"orders\"\nto = \"16\"");
        Scrape { upgrades: vec![shown(status, &spec)], links: vec![("orders".into(), 2)] }
    });
    let of = "upgrade=\"up-1\",cluster=\"orders\"";
    for line in [
        "pilot_agent_links{cluster=\"orders\"} 2".to_owned(),
        format!("pilot_upgrade_info{{{of},from=\"14.15\",to=\"16.9\"}} 1"),
        format!("pilot_upgrade_seconds{{{of}}} 60"),
        format!("pilot_upgrade_started_timestamp_seconds{{{of}}} 1700000000"),
        format!("pilot_upgrade_health{{{of},health=\"person\"}} 1"),
        format!("pilot_upgrade_health{{{of},health=\"ok\"}} 0"),
        format!("pilot_upgrade_agents_missing{{{of}}} 1"),
        format!("pilot_upgrade_outcome{{{of},outcome=\"stopped\"}} 0"),
        format!("pilot_phase{{{of},step=\"switchover\"}} 1"),
        format!("pilot_phase{{{of},step=\"provisioning\"}} 0"),
        format!("pilot_upgrade_step_seconds{{{of},step=\"provisioning\"}} 12.5"),
        format!("pilot_upgrade_step_state{{{of},step=\"provisioning\",state=\"done\"}} 1"),
        format!("pilot_upgrade_step_state{{{of},step=\"switchover\",state=\"done\"}} 0"),
        format!("pilot_approvals_waiting{{{of},step=\"switchover\",approval=\"switchover\"}} 1"),
        format!("pilot_approvals_waiting{{{of},step=\"switchover\",approval=\"schema\"}} 1"),
        format!("pilot_alarms{{{of},level=\"hold\"}} 1"),
        format!("pilot_alarms{{{of},level=\"unwind\"}} 0"),
        format!("pilot_alarm{{{of},monitor=\"storage\",level=\"hold\",code=\"PU0604\"}} 1"),
        format!("pilot_replication_lag_bytes{{{of},slot=\"rds_1\"}} 42"),
        format!("pilot_slot_retained_bytes{{{of},slot=\"rds_1\"}} 4200"),
        format!("pilot_ingestion_state{{{of},state=\"paused\"}} 1"),
        format!("pilot_sessions_purged_total{{{of}}} 3"),
        format!("pilot_schema_changes_total{{{of}}} 0"),
        format!("pilot_downtime_seconds{{{of},kind=\"write\"}} 1.25"),
        format!("pilot_downtime_seconds{{{of},kind=\"held\"}} 0"),
        format!("pilot_upgrade_setting{{{of},key=\"switchover.approve\",value=\"false\"}} 1"),
        format!("pilot_upgrade_limit{{{of},key=\"switchover.hold_seconds_max\"}} 420"),
    ] {
        assert!(text.lines().any(|said| said == line), "{line} is not said:\n{text}");
    }
    for absent in [
        "rds_2",
        "pilot_cloudwatch_lag_bytes{",
        "pilot_marker_delay_seconds{",
        "step_seconds{upgrade=\"up-1\",cluster=\"orders\",step=\"cleanup\"",
        "<script>",
    ] {
        assert!(!text.contains(absent), "{absent} is said:\n{text}");
    }
}

#[test]
fn every_part_of_a_spec_is_shown_or_left_out_on_purpose_and_long_values_are_cut() {
    // Addresses and commands that may hold a secret.
    const LEFT_OUT: [&str; 3] = ["hooks", "notices", "hook"];
    let mut spec = spec("cluster = \"orders\"\nto = \"16\"");
    let Value::Object(parts) = serde_json::to_value(&spec).unwrap() else { panic!("a spec is a table") };
    let unknown: Vec<_> =
        parts.keys().filter(|part| !PARTS.contains(&part.as_str()) && !LEFT_OUT.contains(&part.as_str())).collect();
    assert!(unknown.is_empty(), "neither shown nor left out: {unknown:?}");
    spec.purge.allow_applications = vec!["a".repeat(100), "b".repeat(100)];
    let all = settings(&spec);
    let value = |key: &str| all.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(value("purge.allow_applications").value.chars().count(), VALUE_CHARS_MAX);
    assert_eq!(value("verify.queries").value, "none");
    assert_eq!(value("reboot.window").value, "none");
    assert_eq!(value("reboot.policy").value, "approve");
    let limits = all.iter().filter(|setting| setting.limit.is_some()).count();
    assert_eq!(limits, LIMITS.len(), "a limit is no number, or has another name");
}

#[test]
fn two_hundred_upgrades_are_told_in_one_scrape_and_each_has_a_bounded_number_of_series() {
    let spec = Arc::new(spec("cluster = \"orders\"\nto = \"16\""));
    let text = rendered(move || {
        let upgrades = (0..200).map(|n| shown(status(&format!("up-{n}")), &spec)).collect();
        Scrape { upgrades, links: Vec::new() }
    });
    let series = text.lines().filter(|line| line.contains("upgrade=\"up-7\"")).count();
    assert!((100..300).contains(&series), "{series} series of one upgrade");
    assert_eq!(text.matches("# TYPE pilot_upgrade_info gauge").count(), 1);
}
