//! What Slack's incoming webhooks and PagerDuty's Events API v2 take, made of a notice. Pure.

use serde_json::{Value, json};

use super::notice::Notice;
use super::point::Point;

/// PagerDuty's address where none is given.
pub(super) const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Slack's own limit of a section's text is 3000; escaped, a character may become five.
const SECTION_CHARS_MAX: usize = 480;
/// PagerDuty's own.
const SUMMARY_CHARS_MAX: usize = 1024;
const DEDUP_CHARS_MAX: usize = 255;

/// A message of an incoming webhook: `text` for notifications, `blocks` for the channel.
pub(super) fn slack(notice: &Notice) -> Value {
    let headline = notice.headline();
    let mut lines = vec![format!("*{}*", escaped(&headline))];
    if let Some(reason) = &notice.reason {
        lines.push(escaped(&super::tame(reason, SECTION_CHARS_MAX)));
    }
    if let Some(next) = &notice.next_action {
        lines.push(format!("next: `{}`", escaped(next)));
    }
    let mut beside = vec![escaped(&notice.upgrade)];
    beside.extend(notice.links.page.as_ref().map(|page| format!("<{}|page>", escaped(page))));
    beside.extend(notice.links.explain.as_ref().map(|explain| format!("`{}`", escaped(explain))));
    let section = |text: String| json!({ "type": "mrkdwn", "text": text });
    json!({
        "text": escaped(&headline),
        "blocks": [
            { "type": "section", "text": section(lines.join("\n")) },
            { "type": "context", "elements": [section(beside.join("  "))] },
        ],
    })
}

/// The three characters that Slack gives a meaning to.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The points that make or end an incident; others are none.
pub(super) fn makes_incidents(point: Point) -> bool {
    [Point::ALARM, Point::APPROVAL_WANTED, Point::FINISHED].contains(&point)
}

/// An event, or nothing when a notice neither makes nor ends an incident.
pub(super) fn pagerduty(notice: &Notice, routing_key: &str) -> Option<Value> {
    let (action, severity) = event(notice)?;
    let severity = if notice.test { "info" } else { severity };
    let subject = notice.subject.as_deref().unwrap_or_default();
    let key = super::tame(&format!("{}/{}/{subject}", notice.upgrade, notice.point), DEDUP_CHARS_MAX - 1);
    let mut event = json!({ "routing_key": routing_key, "event_action": action, "dedup_key": key });
    if action == "trigger" {
        event["client"] = "Upgrade Pilot".into();
        event["payload"] = json!({
            "summary": super::tame(&summary(notice), SUMMARY_CHARS_MAX - 1),
            "source": notice.cluster_arn,
            "severity": severity,
            "timestamp": notice.at.to_string(),
            "component": notice.step.clone().unwrap_or_else(|| "upgrade".to_owned()),
            "group": notice.cluster,
            "class": notice.code.map_or_else(|| notice.point.to_string(), |code| code.to_string()),
            "custom_details": notice,
        });
        if let Some(page) = &notice.links.page {
            event["client_url"] = page.as_str().into();
            event["links"] = json!([{ "href": page, "text": "the upgrade's page" }]);
        }
    }
    Some(event)
}

fn summary(notice: &Notice) -> String {
    let reason = notice.reason.as_ref().map(|reason| format!(": {reason}"));
    format!("{}{}", notice.headline(), reason.unwrap_or_default())
}

fn event(notice: &Notice) -> Option<(&'static str, &'static str)> {
    Some(match (notice.point, notice.outcome.as_str(), notice.level.as_deref()) {
        (Point::ALARM, "raised", Some("person")) => ("trigger", "critical"),
        (Point::ALARM, "raised", Some("unwind")) => ("trigger", "error"),
        (Point::ALARM, "raised", Some("note")) => ("trigger", "info"),
        (Point::ALARM, "raised", _) | (Point::APPROVAL_WANTED, "asked", _) => ("trigger", "warning"),
        (Point::ALARM | Point::APPROVAL_WANTED, ..) => ("resolve", "info"),
        (Point::FINISHED, "stopped", _) => ("trigger", "critical"),
        (Point::FINISHED, "unwound", _) => ("trigger", "error"),
        (Point::FINISHED, "refused", _) => ("trigger", "warning"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn notice(point: Point, outcome: &str, level: Option<&str>) -> Notice {
        let mut notice = Notice::sample(point, Some("https://pilot.example".into()), Timestamp::UNIX_EPOCH);
        notice.test = false;
        (notice.outcome, notice.level) = (outcome.to_owned(), level.map(str::to_owned));
        notice
    }

    /// <https://api.slack.com/reference/messaging/payload>, and the limits of Block Kit.
    #[test]
    fn a_message_for_slack_has_the_form_that_incoming_webhooks_take() {
        let mut one = notice(Point::APPROVAL_WANTED, "asked", None);
        one.subject = Some("reboot".into());
        one.next_action = Some("pilot approve up-test reboot".into());
        one.reason = Some(format!("<!channel> <script>& more{}", "<".repeat(5000)));
        let message = slack(&one);
        let keys: Vec<&String> = message.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["blocks", "text"]);
        assert_eq!(message["text"], "test 14.9 → 16.9: approval reboot is wanted");
        let section = &message["blocks"][0];
        assert_eq!((&section["type"], &section["text"]["type"]), (&"section".into(), &"mrkdwn".into()));
        let text = section["text"]["text"].as_str().unwrap();
        assert!(
            text.starts_with("*test 14.9 → 16.9: approval reboot is wanted*\n&lt;!channel&gt; &lt;script&gt;&amp;")
        );
        assert!(text.ends_with("next: `pilot approve up-test reboot`") && text.chars().count() <= 3000, "{text}");
        let context = &message["blocks"][1];
        assert_eq!((&context["type"], context["elements"].as_array().unwrap().len()), (&"context".into(), 1));
        let text = context["elements"][0]["text"].as_str().unwrap();
        assert_eq!(text, "up-test  <https://pilot.example/upgrades/up-test|page>");
    }

    /// <https://developer.pagerduty.com/docs/send-alert-event>: the fields, which are required, and what they may hold.
    #[test]
    fn an_event_for_pagerduty_has_the_form_of_its_events_api_v2() {
        let mut one = notice(Point::ALARM, "raised", Some("unwind"));
        one.reason = Some("x".repeat(5000));
        let event = pagerduty(&one, "0123456789abcdef0123456789abcdef").unwrap();
        let known = ["routing_key", "event_action", "dedup_key", "payload", "links", "images", "client", "client_url"];
        assert!(event.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{event}");
        assert_eq!(event["routing_key"].as_str().unwrap().len(), 32);
        assert_eq!((&event["event_action"], &event["dedup_key"]), (&"trigger".into(), &"up-test/alarm/test".into()));
        let payload = event["payload"].as_object().unwrap();
        let known = ["summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"];
        assert!(payload.keys().all(|key| known.contains(&key.as_str())), "{event}");
        assert!(payload["summary"].as_str().unwrap().chars().count() <= 1024);
        assert!(payload["source"].as_str().unwrap().starts_with("arn:aws:rds:"));
        assert_eq!((&payload["severity"], &payload["timestamp"]), (&"error".into(), &"1970-01-01T00:00:00Z".into()));
        assert_eq!(payload["custom_details"]["upgrade"], "up-test");
        assert_eq!(event["links"][0]["href"], "https://pilot.example/upgrades/up-test");
        one.subject = Some("y".repeat(400));
        assert!(pagerduty(&one, "k").unwrap()["dedup_key"].as_str().unwrap().chars().count() <= 255);
    }

    #[test]
    fn an_incident_is_made_by_what_needs_people_and_ends_with_it() {
        let check = |point, outcome: &str, level, expected: Option<(&str, &str)>| {
            let event = pagerduty(&notice(point, outcome, level), "k");
            let seen = event.as_ref().map(|event| {
                let severity = event["payload"]["severity"].as_str().unwrap_or("-").to_owned();
                (event["event_action"].as_str().unwrap().to_owned(), severity)
            });
            let expected = expected.map(|(action, severity)| (action.to_owned(), severity.to_owned()));
            assert_eq!(seen, expected, "{point} {outcome} {level:?}");
        };
        check(Point::ALARM, "raised", Some("note"), Some(("trigger", "info")));
        check(Point::ALARM, "raised", Some("hold"), Some(("trigger", "warning")));
        check(Point::ALARM, "raised", Some("unwind"), Some(("trigger", "error")));
        check(Point::ALARM, "raised", Some("person"), Some(("trigger", "critical")));
        check(Point::ALARM, "cleared", Some("hold"), Some(("resolve", "-")));
        check(Point::APPROVAL_WANTED, "asked", None, Some(("trigger", "warning")));
        check(Point::APPROVAL_WANTED, "answered", None, Some(("resolve", "-")));
        check(Point::APPROVAL_WANTED, "withdrawn", None, Some(("resolve", "-")));
        check(Point::FINISHED, "succeeded", None, None);
        check(Point::FINISHED, "unwound", None, Some(("trigger", "error")));
        check(Point::FINISHED, "refused", None, Some(("trigger", "warning")));
        check(Point::FINISHED, "stopped", None, Some(("trigger", "critical")));
        check(Point::POINT_OF_NO_RETURN, "passed", None, None);
    }
}
