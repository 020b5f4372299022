//! Hooks: real commands and endpoints, leave asked over the whole plan, telling across lives, the form of the JSON.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Hook, OnFailure, OnVeto, Point, Target};

/// A command hook of these points that is patient.
pub(crate) fn hook(name: &str, points: &[&str]) -> Hook {
    Hook {
        name: name.to_owned(),
        points: points.iter().map(|name| Point::parse(name).expect("a point")).collect::<BTreeSet<_>>(),
        target: Target::Command(vec!["true".to_owned()]),
        timeout: Duration::from_secs(10),
        retries: None,
        on_failure: OnFailure::Stop,
        on_veto: OnVeto::Stop,
        wait_max: Duration::from_secs(3600),
        ask_again: Duration::from_secs(30),
    }
}
