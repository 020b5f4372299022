//! What is in the field is read by this version, and what this version says has all that the field reads.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::*;
use crate::{intent::Intent, job::Expected, job::JobKind, jobs::*, report::Event, report::Report};

const RECORDED: &str = include_str!("../../wire/v1.fields");
const NOW: &str = include_str!(concat!(env!("OUT_DIR"), "/v1.fields"));

#[test]
fn the_messages_of_the_wire_are_those_that_were_recorded() {
    let (recorded, now): (BTreeSet<&str>, BTreeSet<&str>) = (RECORDED.lines().collect(), NOW.lines().collect());
    let gone: Vec<_> = recorded.difference(&now).collect();
    assert!(gone.is_empty(), "versions in the field say and read these; raise protocol::OLDEST: {gone:#?}");
    let new: Vec<_> = now.difference(&recorded).collect();
    assert!(new.is_empty(), "write these into wire/v1.fields, and think of those who do not know them: {new:#?}");
}

/// Everything that was recorded is still said.
fn holds(said: &Value, recorded: &Value, at: &str) {
    match (said, recorded) {
        (Value::Object(said), Value::Object(recorded)) => {
            for (key, value) in recorded {
                let now = said.get(key).unwrap_or_else(|| panic!("{at}.{key} is not said any more"));
                holds(now, value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(said), Value::Array(recorded)) => {
            assert_eq!(said.len(), recorded.len(), "{at}");
            for (n, (said, recorded)) in said.iter().zip(recorded).enumerate() {
                holds(said, recorded, &format!("{at}[{n}]"));
            }
        }
        _ => assert_eq!(said, recorded, "{at}"),
    }
}

fn again<T: DeserializeOwned + Serialize>(recorded: &Value, what: &str) -> T {
    let read: T = serde_json::from_value(recorded.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    holds(&serde_json::to_value(&read).unwrap(), recorded, what);
    read
}

fn recorded(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_an_agent_of_the_field_reports_is_read_and_nothing_is_missing_in_what_this_one_reports() {
    again::<Report>(&recorded(include_str!("../../wire/v1.bodies/report.json")), "report");
    let events = recorded(include_str!("../../wire/v1.bodies/events.json"));
    let events: Vec<Event> = again(&events, "events");
    let kinds: BTreeSet<usize> = events.iter().map(kind).collect();
    assert_eq!(kinds, (0..EVENTS).collect(), "an event of each kind is recorded");
}

const EVENTS: usize = 13;

/// A new kind of event stops the build here, so that it is recorded too.
fn kind(event: &Event) -> usize {
    match event {
        Event::SessionPurged { .. } => 0,
        Event::PurgeBlocked { .. } => 1,
        Event::SessionEnded { .. } => 2,
        Event::Resubmission { .. } => 3,
        Event::Outage { .. } => 4,
        Event::SchemaChanged { .. } => 5,
        Event::OldSideClient { .. } => 6,
        Event::OldSideWritten { .. } => 7,
        Event::PauseCap { .. } => 8,
        Event::Stance { .. } => 9,
        Event::Held { .. } => 10,
        Event::SwitchoverPhase { .. } => 11,
        Event::GreenAcceptedWrite { .. } => 12,
    }
}

#[test]
fn a_wish_is_said_as_it_was_because_an_agent_of_the_field_obeys_it_whole_or_refuses_it() {
    let wish = recorded(include_str!("../../wire/v1.bodies/intent.json"));
    let read: Intent = again(&wish, "intent");
    let cure = "a wish that agents of the field do not know: raise protocol::SPOKEN and record it";
    assert_eq!(serde_json::to_value(&read).unwrap(), wish, "{cure}");
    again::<Expected>(&recorded(include_str!("../../wire/v1.bodies/expected.json")), "expected");
}

/// Body and output of a kind as they were recorded.
fn job<J: JobKind>(recorded: &mut BTreeMap<String, Value>) {
    let it = recorded.remove(J::KIND).unwrap_or_else(|| panic!("{} is not recorded", J::KIND));
    again::<J>(&it["body"], J::KIND);
    again::<J::Output>(&it["output"], J::KIND);
}

#[test]
fn bodies_and_answers_of_jobs_are_read_and_said_as_they_were_recorded() {
    let jobs = recorded(include_str!("../../wire/v1.bodies/jobs.json"));
    let mut jobs: BTreeMap<String, Value> = serde_json::from_value(jobs).unwrap();
    for job in [
        job::<Inspect>,
        job::<InstallSchema>,
        job::<RemoveSchema>,
        job::<SetReplicaIdentity>,
        job::<Quiesce>,
        job::<Unquiesce>,
        job::<UpdateExtensions>,
        job::<TestExtensions>,
        job::<Vacuum>,
        job::<CheckStatistics>,
        job::<CompareSchema>,
        job::<Compare>,
        job::<Marker>,
        job::<EndSessions>,
        job::<Resubmit>,
        job::<Identify>,
        job::<CheckSequences>,
        job::<RefreshViews>,
        job::<FindLeftovers>,
        job::<LedgerStatus>,
        job::<Fingerprint>,
    ] {
        job(&mut jobs);
    }
    assert!(jobs.is_empty(), "kinds that are gone: {:?}", jobs.keys());
}

#[test]
fn who_says_no_number_is_understood_and_who_is_too_new_or_too_old_is_not() {
    assert_eq!(understood(0), Ok(()));
    assert_eq!(understood(SPOKEN), Ok(()));
    assert_eq!(understood(OLDEST), Ok(()));
    assert_eq!(understood(SPOKEN + 1), Err(Misfit { theirs: SPOKEN + 1 }));
    assert!(understood(u32::MAX).unwrap_err().to_string().contains("understands 1 to 1"));
}
