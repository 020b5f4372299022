//! A fact as one sentence, for the log, the history and the follower. Never values of rows or settings.

use engine::{Fact, Outcome, Request};
use jiff::Timestamp;
use proto::report::{Event, HoldKind, OutageKind, Session, Verdict};

use super::course::said;
use crate::world::Upgrade;

/// One sentence, lower case.
pub fn describe(fact: &Fact<Upgrade>) -> String {
    match fact {
        Fact::Created { spec, .. } => format!("upgrade of {} to {} asked for", spec.cluster, spec.to),
        Fact::StepStarted { step, attempt: 1 } => format!("{step} started"),
        Fact::StepStarted { step, attempt } => format!("{step} started, attempt {attempt}"),
        Fact::EffectPlanned { step, key, .. } => format!("{step}: about to do {key}"),
        Fact::EffectDone { step, key, .. } => format!("{step}: {key} is done"),
        Fact::StepDone { step, .. } => format!("{step} done and verified"),
        Fact::StepSkipped { step, reason } => format!("{step} skipped: {reason}"),
        Fact::StepFailed { step, failure, .. } => format!("{step} failed: {failure} ({})", failure.code),
        Fact::ApprovalAsked { name, why, .. } => format!("approval {name} is needed: {why}"),
        Fact::Warned { code, detail, .. } => format!("warning {code}: {detail}"),
        Fact::AlarmRaised { monitor, alarm } => format!("alarm of {monitor}: {}", alarm.why()),
        Fact::AlarmCleared { monitor } => format!("alarm of {monitor} is over"),
        Fact::Observed { source, event, .. } => format!("{source}: {}", observed(event)),
        Fact::Asked { by, request, .. } => format!("{by} asks: {}", asked(request)),
        Fact::PivotArmed { attempt } => format!("switchover armed, attempt {attempt}"),
        Fact::PivotDisarmed { witness } => format!("not switched over: {}", witness.evidence),
        Fact::PointOfNoReturn { witness } => format!("switched over: {}", witness.evidence),
        Fact::RestartBegun { from, round, why } => format!("going back to {from} for round {round}: {why}"),
        Fact::UndoStarted { step } => format!("undoing {step}"),
        Fact::UndoDone { step } => format!("{step} undone"),
        Fact::Stuck { step, failure } => format!("undoing {step} is stuck: {failure} ({})", failure.code),
        Fact::Finished { outcome } => ended(*outcome).to_owned(),
    }
}

/// How an upgrade ended, in words.
pub fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "upgrade succeeded",
        Outcome::Unwound => "upgrade failed and was unwound; the cluster is as before",
        Outcome::Refused => "upgrade refused; nothing was touched",
        Outcome::Stopped => "upgrade stopped by a person",
    }
}

pub(crate) fn asked(request: &Request<Upgrade>) -> String {
    match request {
        Request::Approve { name: Some(name) } => format!("approve {name}"),
        Request::Approve { name: None } => "approve what is open".to_owned(),
        Request::Pause => "pause".to_owned(),
        Request::Resume => "resume".to_owned(),
        Request::Abort => "abort".to_owned(),
        Request::Postpone { until } if *until == Timestamp::MAX => "postpone the switchover until told".to_owned(),
        Request::Postpone { until } => format!("postpone the switchover until {until}"),
        Request::Tune { settings } => {
            let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("tune {}", settings.join(", "))
        }
        Request::Other { ask } => match *ask {},
    }
}

pub(crate) fn who(session: &Session) -> String {
    let name = |part: &Option<String>| part.clone().unwrap_or_else(|| "?".to_owned());
    format!("session {} of {} in {} ({})", session.pid, name(&session.user), name(&session.database), session.state)
}

pub(crate) fn observed(event: &Event) -> String {
    match event {
        Event::SessionPurged { session, waited_on, .. } => {
            let why = waited_on.as_ref().map(|slot| format!(", it held up {slot}")).unwrap_or_default();
            format!("ended {}{why}", who(session))
        }
        Event::PurgeBlocked { what, reason, .. } => format!("could not end {what}: {reason}"),
        Event::SessionEnded { session, recorded, not_resubmittable, .. } => {
            let fate = match (recorded, not_resubmittable) {
                (Some(key), _) => format!("its statement is recorded as {key}"),
                (None, Some(reason)) => format!("its statement will not run again: {reason}"),
                (None, None) => "it ran no statement".to_owned(),
            };
            format!("ended {}; {fate}", who(session))
        }
        Event::Resubmission { key, database, verdict, .. } => {
            format!("statement {key} in {database}: {}", fate(verdict))
        }
        Event::Outage { ms, kind: OutageKind::Write, .. } => format!("writes failed for {ms} ms"),
        Event::Outage { ms, kind: OutageKind::Read, .. } => format!("reads failed for {ms} ms"),
        Event::SchemaChanged { differences, .. } => format!("the schemas differ: {}", differences.join("; ")),
        Event::OldSideClient { client, ended, .. } => {
            let end = if *ended { "ended" } else { "seen" };
            format!("client {:?} {end} on the old side", client.application)
        }
        Event::OldSideWritten { commits, .. } => format!("data written to the old side in {commits} commits"),
        Event::PauseCap { percent, resumed, .. } => {
            format!("a pause is at {percent} % of its cap{}", if *resumed { "; it was ended" } else { "" })
        }
        Event::SwitchoverPhase { side, phase, offset_ms, .. } => {
            format!("{}{}", said(*side, phase.as_ref()), after(*offset_ms))
        }
        Event::GreenAcceptedWrite { offset_ms, .. } => format!("green accepted a write{}", after(*offset_ms)),
        Event::Stance { stance, .. } => format!("acted alone: {stance}"),
        Event::Held { ms, kind: HoldKind::Gate, .. } => format!("clients were held for {ms} ms"),
        Event::Held { ms, kind: HoldKind::Ingestion, .. } => format!("ingestion was paused for {ms} ms"),
    }
}

/// How long after connections were cut.
fn after(offset_ms: Option<i64>) -> String {
    offset_ms.map(|ms| format!(", {ms:+} ms from the cut of connections")).unwrap_or_default()
}

/// What became of a recorded statement, in words.
pub fn fate(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Resubmitted => "resubmitted".to_owned(),
        Verdict::AlreadyDone => "was resubmitted before".to_owned(),
        Verdict::CommittedOnBlue => "had committed before it was ended".to_owned(),
        Verdict::Refused { reason } => format!("refused: {reason}"),
        Verdict::Unknown { reason } => format!("unknown, never run again: {reason}"),
    }
}
