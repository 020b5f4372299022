//! What a hook is given: one JSON object, the same for commands and endpoints. Documented in `deploy/hooks/notice.schema.json`; a field
//! may be added, none is renamed, dropped or changes its meaning without another `version`.

use engine::Code;
use jiff::Timestamp;
use serde::Serialize;

use super::point::Point;

/// Of this form.
pub const VERSION: u32 = 1;
/// No text in it is longer.
const TEXT_CHARS_MAX: usize = 2000;

/// See the top of the file. Every field is there always, without a value as `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notice {
    pub version: u32,
    /// The same for the same news, however often it is delivered.
    pub delivery: String,
    pub point: Point,
    /// A person tries the hook: nothing has happened.
    pub test: bool,
    pub at: Timestamp,
    pub upgrade: String,
    pub cluster: String,
    pub cluster_arn: String,
    pub from_version: String,
    pub to_version: String,
    pub step: Option<String>,
    pub attempt: Option<u32>,
    /// `begins`; `done`, `skipped`, `undone`; `asked`, `answered`, `withdrawn`; `raised`, `cleared`; `passed`;
    /// `succeeded`, `unwound`, `refused`, `stopped`.
    pub outcome: String,
    /// The approval's name, or who raises the alarm.
    pub subject: Option<String>,
    /// Of an alarm: `note`, `hold`, `unwind`, `person`.
    pub level: Option<String>,
    pub code: Option<Code>,
    pub reason: Option<String>,
    /// What a person types next.
    pub next_action: Option<String>,
    /// Is the point of no return behind?
    pub switched_over: bool,
    pub links: Links,
}

/// Where to read on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Links {
    /// The upgrade's page, when the configuration says where people reach it.
    pub page: Option<String>,
    /// The command that shows the page of the code.
    pub explain: Option<String>,
}

/// The upgrade that notices are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    pub upgrade: String,
    pub cluster_arn: String,
    pub from_version: String,
    pub to_version: String,
    /// Where people reach the web page of this coordinator.
    pub page_url: Option<String>,
}

impl About {
    /// The cluster's name, without its account and region.
    pub fn cluster(&self) -> &str {
        self.cluster_arn.rsplit(':').next().unwrap_or_default()
    }

    /// A notice about nothing yet.
    pub fn notice(&self, delivery: String, point: Point, outcome: &str, at: Timestamp) -> Notice {
        let page = self.page_url.as_ref().map(|url| format!("{}/upgrades/{}", url.trim_end_matches('/'), self.upgrade));
        Notice {
            version: VERSION,
            delivery,
            point,
            test: false,
            at,
            upgrade: self.upgrade.clone(),
            cluster: self.cluster().to_owned(),
            cluster_arn: self.cluster_arn.clone(),
            from_version: self.from_version.clone(),
            to_version: self.to_version.clone(),
            step: point.step().map(str::to_owned),
            attempt: None,
            outcome: outcome.to_owned(),
            subject: None,
            level: None,
            code: None,
            reason: None,
            next_action: None,
            switched_over: false,
            links: Links { page, explain: None },
        }
    }
}

impl Notice {
    pub(super) fn reason(mut self, code: Option<Code>, reason: &str) -> Notice {
        self.reason = Some(super::tame(reason, TEXT_CHARS_MAX));
        self.links.explain = code.map(|code| format!("pilot explain {code}"));
        self.code = code;
        self
    }

    /// As it is sent.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// One that a person sends to see whether a hook works: of an upgrade that there is not.
    pub fn sample(point: Point, page_url: Option<String>, at: Timestamp) -> Notice {
        let about = About {
            upgrade: "up-test".to_owned(),
            cluster_arn: "arn:aws:rds:us-east-1:123456789012:cluster:test".to_owned(),
            from_version: "14.9".to_owned(),
            to_version: "16.9".to_owned(),
            page_url,
        };
        let outcome = match point {
            Point::APPROVAL_WANTED => "asked",
            Point::ALARM => "raised",
            Point::POINT_OF_NO_RETURN => "passed",
            Point::FINISHED => "unwound",
            point if point.is_before() => "begins",
            _ => "done",
        };
        let delivery = format!("test/{}", uuid::Uuid::now_v7());
        let mut notice =
            about.notice(delivery, point, outcome, at).reason(None, "this is a test: nothing has happened");
        notice.test = true;
        if point == Point::ALARM || point == Point::APPROVAL_WANTED {
            notice.subject = Some("test".to_owned());
            notice.level = (point == Point::ALARM).then(|| "note".to_owned());
        }
        notice
    }

    /// On one line, for people.
    pub fn headline(&self) -> String {
        let Notice { cluster, from_version: from, to_version: to, outcome, .. } = self;
        let (step, subject) = (self.step.as_deref().unwrap_or("?"), self.subject.as_deref().unwrap_or("?"));
        let test = if self.test { "[test] " } else { "" };
        let said = match (self.point, outcome.as_str()) {
            (Point::APPROVAL_WANTED, "asked") => format!("approval {subject} is wanted"),
            (Point::APPROVAL_WANTED, how) => format!("approval {subject} is {how}"),
            (Point::ALARM, "raised") if self.level.as_deref() == Some("person") => {
                format!("the upgrade stands at {subject} and needs a person")
            }
            (Point::ALARM, "raised") => {
                format!("alarm of {subject} ({})", self.level.as_deref().unwrap_or_default())
            }
            (Point::ALARM, _) => format!("alarm of {subject} is over"),
            (Point::POINT_OF_NO_RETURN, _) => {
                "production has moved to the new version; nothing is undone any more".into()
            }
            (Point::FINISHED, "succeeded") => "the upgrade succeeded".to_owned(),
            (Point::FINISHED, "unwound") => "the upgrade failed and was unwound; the cluster is as before".to_owned(),
            (Point::FINISHED, "refused") => "the upgrade was refused; nothing was touched".to_owned(),
            (Point::FINISHED, how) => format!("the upgrade was {how} by a person"),
            (_, "begins") => format!("{step} begins"),
            (_, how) => format!("{step} is {how}"),
        };
        format!("{test}{cluster} {from} → {to}: {said}")
    }
}
