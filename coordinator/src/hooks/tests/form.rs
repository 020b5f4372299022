//! The JSON of a notice, which scripts rely on: its golden form, and the schema that documents it.

use std::collections::BTreeSet;

use engine::Code;
use serde_json::Value;

use crate::hooks::{About, Notice, Point};

const SCHEMA: &str = include_str!("../../../../deploy/hooks/notice.schema.json");
const EXAMPLE: &str = include_str!("../../../../deploy/hooks/notice.example.json");

fn example() -> Notice {
    let about = About {
        upgrade: "up-0192f3a4b5c6d7e8f9".into(),
        cluster_arn: "arn:aws:rds:us-east-1:123456789012:cluster:orders".into(),
        from_version: "14.12".into(),
        to_version: "16.9".into(),
        page_url: Some("https://pilot.example".into()),
    };
    let at = "2026-11-30T16:00:00.123456789Z".parse().unwrap();
    let mut notice = about
        .notice("up-0192f3a4b5c6d7e8f9/57/0/oncall".into(), Point::ALARM, "raised", at)
        .reason(Some(Code("PU0027")), "undoing provisioning is stuck: a slot is left on blue");
    notice.step = Some("provisioning".into());
    (notice.subject, notice.level) = (Some("provisioning".into()), Some("person".into()));
    notice.next_action =
        Some("pilot resume up-0192f3a4b5c6d7e8f9, or: pilot abort up-0192f3a4b5c6d7e8f9 --confirm orders".into());
    notice
}

#[test]
fn the_json_of_a_notice_is_the_one_that_is_documented() {
    let golden: Value = serde_json::from_str(EXAMPLE).unwrap();
    let now: Value = serde_json::from_str(&example().json()).unwrap();
    assert_eq!(now, golden, "scripts read this: add fields, rename none");
}

#[test]
fn the_schema_knows_every_field_every_point_and_every_outcome() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let required = |value: &Value| -> BTreeSet<String> {
        value["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    };
    let properties = &schema["properties"];
    for point in Point::all() {
        let notice = Notice::sample(point, None, "2026-11-30T16:00:00Z".parse().unwrap());
        let json: Value = serde_json::from_str(&notice.json()).unwrap();
        assert_eq!(keys(&json), keys(properties), "{point}");
        assert_eq!(keys(&json), required(&schema), "every field is always there");
        assert_eq!(keys(&json["links"]), keys(&properties["links"]["properties"]));
        for (key, value) in json.as_object().unwrap() {
            let wanted = &properties[key]["type"];
            let is = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "integer",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let wanted = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
            assert!(wanted.contains(&is.into()), "{key} is {is}, the schema has {wanted:?}");
        }
        let known = |key: &str, value: &str| properties[key]["enum"].as_array().unwrap().contains(&value.into());
        assert!(known("point", point.as_str()) && known("outcome", &notice.outcome), "{point}");
    }
    assert_eq!(properties["point"]["enum"].as_array().unwrap().len(), Point::all().count());
    assert_eq!(properties["version"]["const"], 1);
}

#[test]
fn nothing_in_a_notice_is_longer_than_its_limit_or_talks_to_a_terminal() {
    let long = format!("\u{1b}[31m{}\r\nnext", "x".repeat(5000));
    let notice = example().reason(None, &long);
    let reason = notice.reason.unwrap();
    assert!(reason.chars().count() <= 2001 && !reason.contains(['\u{1b}', '\n', '\r']), "{reason}");
}
