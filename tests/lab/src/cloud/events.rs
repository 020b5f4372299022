//! Events: what `DescribeEvents` tells. The API carries no event id, only text; the texts are AWS's where they are known.

use jiff::{SignedDuration, Timestamp};

use crate::cloud::Cloud;
use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{Event, State, cluster_arn, deployment_arn, instance_arn};
use crate::wire::xml::Element;

/// How long events are kept: two weeks, as the service keeps them.
const KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);

impl State {
    pub(crate) fn cluster_event(
        &mut self,
        at: Timestamp,
        identifier: &str,
        category: &'static str,
        message: impl Into<String>,
    ) {
        let arn = cluster_arn(identifier);
        self.event(Event {
            at,
            source_type: "db-cluster",
            source: identifier.into(),
            arn,
            message: message.into(),
            categories: vec![category],
        });
    }

    pub(crate) fn instance_event(
        &mut self,
        at: Timestamp,
        identifier: &str,
        category: &'static str,
        message: impl Into<String>,
    ) {
        let arn = instance_arn(identifier);
        self.event(Event {
            at,
            source_type: "db-instance",
            source: identifier.into(),
            arn,
            message: message.into(),
            categories: vec![category],
        });
    }

    pub(crate) fn deployment_event(
        &mut self,
        at: Timestamp,
        identifier: &str,
        category: &'static str,
        message: impl Into<String>,
    ) {
        let arn = deployment_arn(identifier);
        let (source_type, source) = ("blue-green-deployment", identifier.to_owned());
        self.event(Event { at, source_type, source, arn, message: message.into(), categories: vec![category] });
    }

    fn event(&mut self, event: Event) {
        self.events.retain(|old| event.at.duration_since(old.at) <= KEPT);
        tracing::debug!(source = %event.source, message = %event.message, "event");
        self.events.push(event);
    }
}

pub(crate) fn describe(cloud: &Cloud, params: &Params) -> Answer<Option<Element>> {
    let source_type = params.get("SourceType");
    let source = params.get("SourceIdentifier").map(str::to_lowercase);
    if source.is_some() && source_type.is_none() {
        return Err(Refusal::combination("SourceType must be supplied when SourceIdentifier is supplied"));
    }
    let (from, to) = span(cloud, params)?;
    let categories = params.values("EventCategories", "EventCategory");
    let state = cloud.state();
    let wanted: Vec<&Event> = state
        .events
        .iter()
        .filter(|e| e.at >= from && e.at <= to)
        .filter(|e| source_type.is_none_or(|wanted| e.source_type == wanted))
        .filter(|e| source.as_ref().is_none_or(|wanted| e.source == *wanted))
        .filter(|e| categories.is_empty() || categories.iter().any(|c| e.categories.contains(&c.as_str())))
        .collect();
    let (page, marker) = params.page(wanted, 100)?;
    Ok(Some(Element::new("").maybe("Marker", marker).list("Events", page.into_iter().map(element))))
}

/// The span of time asked for: `Duration` minutes back, one hour if nothing is said.
fn span(cloud: &Cloud, params: &Params) -> Answer<(Timestamp, Timestamp)> {
    let moment = |name: &str| {
        params
            .get(name)
            .map(|text| {
                text.parse::<Timestamp>().map_err(|_| Refusal::value(format!("{name} is not a timestamp: {text}")))
            })
            .transpose()
    };
    let now = cloud.clock().now();
    let minutes = params.number("Duration")?.unwrap_or(60);
    if !(1..=14 * 24 * 60).contains(&minutes) {
        return Err(Refusal::value(format!("Duration must be between 1 and 20160 minutes, not {minutes}")));
    }
    let back = SignedDuration::from_secs(minutes * 60);
    let to = moment("EndTime")?.unwrap_or(now);
    let from = moment("StartTime")?.unwrap_or_else(|| to.checked_sub(back).unwrap_or(Timestamp::MIN));
    if from > to {
        return Err(Refusal::combination("The start time must be before the end time"));
    }
    Ok((from, to))
}

fn element(event: &Event) -> Element {
    Element::new("Event")
        .with("SourceIdentifier", &event.source)
        .with("SourceType", event.source_type)
        .with("Message", &event.message)
        .list("EventCategories", event.categories.iter().map(|c| Element::text("EventCategory", c)))
        .at("Date", event.at)
        .with("SourceArn", &event.arn)
}
