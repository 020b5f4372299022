//! The hold: the last acts before the call. Settled on every agent, blockers ended under the policy, what was written since its
//! last clean comparison compared again, one marker through every database. Zero lag *means* the marker (field rule 7.2).

use std::time::Duration;

use engine::Failure;
use proto::{
    intent::{GateWish, SwitchoverWindow},
    jobs::{Compare, EndSessions, EndedSession, Marker},
    side::Side,
};
use serde::{Deserialize, Serialize};

use crate::{
    link::AgentSeen,
    spec::UpgradeSpec,
    steps::{
        codes,
        provisioning::replicating_wish,
        replicating_data::DatabaseCompared,
        shared::{Context, fresh_job},
        sides::Sides,
    },
    world::hold_ack_max,
};

/// Extra time before an agent that is on its own fails open.
const GRACE: Duration = Duration::from_secs(30);

/// Between two looks whether an agent is lost.
const LOST_EVERY: Duration = Duration::from_millis(100);

/// What happened between the hold and the call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    pub ended: u64,
    pub recorded: u64,
    /// Sessions whose statement may not be resubmitted, with the reason.
    pub refused: Vec<String>,
    /// Slowest database, from the marker's commit on blue to its sight on green.
    pub marker_ms: u64,
    /// Tables that were not proven exactly inside the hold.
    pub unproven: Vec<String>,
    /// From the first word of the hold to the call, in milliseconds.
    pub prepared_ms: u64,
    /// Milliseconds of the marker, by database.
    #[serde(default)]
    pub markers: Vec<(String, u64)>,
    /// Tables that were compared inside the hold, with their rows, by database; `None` when nothing was compared.
    #[serde(default)]
    pub compared: Option<Vec<DatabaseCompared>>,
}

/// The window as the agents are told it: announced, or open.
pub(super) fn window(spec: &UpgradeSpec, open: bool) -> SwitchoverWindow {
    let cut = &spec.switchover;
    let millis = |seconds: u32| u64::from(seconds) * 1000;
    SwitchoverWindow {
        open,
        deadline_ms: millis(cut.timeout_seconds) + millis(cut.revert_allowance_seconds),
        grace_ms: u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX),
        hold_max_ms: millis(cut.hold_seconds_max),
    }
}

/// Announces the window, holds, and does everything that must be done while held.
pub(super) async fn everything(cx: &Context<'_>, sides: &Sides) -> Result<Held, Failure> {
    let spec = cx.spec();
    let mut wish = replicating_wish(spec, sides.targets(Side::Blue));
    wish.window = Some(window(spec, false));
    settle(cx, wish.clone()).await?;
    let began = cx.clock().mono();
    wish.window = Some(window(spec, true));
    wish.gate = GateWish::Hold;
    settle(cx, wish).await?;
    let acts = async {
        let ended = end_sessions(cx).await?;
        let written = compare_written(cx).await?;
        Ok((ended, written, marker(cx).await?))
    };
    let (ended, written, markers) = tokio::select! {
        done = acts => done?,
        lost = one_is_lost(cx) => return Err(lost),
    };
    all_are_there(cx)?;
    Ok(Held {
        ended: ended.len() as u64,
        recorded: ended.iter().filter(|session| session.recorded.is_some()).count() as u64,
        refused: ended.iter().filter_map(refusal).collect(),
        marker_ms: slowest(&markers).unwrap_or_default(),
        unproven: written.unproven,
        compared: written.compared,
        markers,
        prepared_ms: u64::try_from(cx.clock().mono().since(began).as_millis()).unwrap_or(u64::MAX),
    })
}

/// One refusal, or silence past the limit, fails the attempt: the caller opens all again.
async fn settle(cx: &Context<'_>, wish: crate::link::Wish) -> Result<(), Failure> {
    let agents = &cx.world().agents;
    let generation = agents.publish(wish).await?;
    let settled = agents.await_settled(generation, hold_ack_max(cx.spec()));
    cx.unless_interrupted(settled).await?.map_err(|failure| match failure.code {
        crate::codes::INGESTION_OFF => failure,
        _ => failure.with_code(codes::HOLD_NOT_SETTLED),
    })
}

/// Nobody is held for longer because of an agent that is gone: its silence past the limit fails the attempt too.
async fn one_is_lost(cx: &Context<'_>) -> Failure {
    let limit = hold_ack_max(cx.spec());
    loop {
        let silent = |agent: &AgentSeen| agent.in_roster && Duration::from_millis(agent.silent_ms) > limit;
        if let Some(lost) = cx.world().agents.seen().into_iter().find(silent) {
            let failure = Failure::transient(codes::HOLD_NOT_SETTLED, "holding all clients");
            return failure.because(format!("{} was not heard from for {} ms", lost.agent, lost.silent_ms));
        }
        cx.clock().sleep(LOST_EVERY).await;
    }
}

/// Whoever holds clients must be there to let them go: nobody is called while the stream of an agent is down.
fn all_are_there(cx: &Context<'_>) -> Result<(), Failure> {
    let away = |agent: &AgentSeen| agent.in_roster && !agent.connected;
    match cx.world().agents.seen().into_iter().find(away) {
        None => Ok(()),
        Some(away) => Err(Failure::transient(codes::HOLD_NOT_SETTLED, "holding all clients")
            .because(format!("the stream of {} is down", away.agent))),
    }
}

async fn end_sessions(cx: &Context<'_>) -> Result<Vec<EndedSession>, Failure> {
    let cut = &cx.spec().switchover;
    let body = EndSessions {
        policies: cut.resubmit.clone(),
        allow_applications: cx.spec().purge.allow_applications.clone(),
        older_than_ms: cut.long_transaction_ms,
        drain_ms: cut.drain_ms,
    };
    let deadline = Duration::from_millis(cut.drain_ms) + Duration::from_secs(10);
    let ended = fresh_job(cx, "end-sessions", Side::Blue, &body, deadline).await?;
    if ended.remaining.is_empty() {
        return Ok(ended.ended);
    }
    let failure = Failure::transient(codes::BLOCKERS_LEFT, "ending the sessions that would delay the cut");
    Err(ended.remaining.into_iter().fold(failure, |failure, (session, why)| {
        failure.because(format!("pid {} of {}: {why}", session.pid, session.user.as_deref().unwrap_or("?")))
    }))
}

fn refusal(session: &EndedSession) -> Option<String> {
    let why = session.not_resubmittable.as_ref()?;
    Some(format!("pid {} of {}: {why}", session.session.pid, session.session.user.as_deref().unwrap_or("?")))
}

/// What was written since its last clean comparison, compared again.
struct Written {
    compared: Option<Vec<DatabaseCompared>>,
    unproven: Vec<String>,
}

async fn compare_written(cx: &Context<'_>) -> Result<Written, Failure> {
    let spec = &cx.spec().verify;
    if spec.hold_budget_ms == 0 {
        let unproven = vec!["nothing was compared inside the hold: verify.hold_budget_ms is 0".into()];
        return Ok(Written { compared: None, unproven });
    }
    let body = Compare {
        queries: spec.queries.clone(),
        hashes: spec.hashes,
        rounds: spec.rounds,
        hold_budget_ms: Some(spec.hold_budget_ms),
        prefer_reader: false,
    };
    let deadline = Duration::from_millis(spec.hold_budget_ms) + Duration::from_secs(5);
    let compared = fresh_job(cx, "compare-held", Side::Blue, &body, deadline).await?;
    let differences = compared.differences();
    if !differences.is_empty() {
        let failure = Failure::permanent(codes::DATA_DIFFERS, "comparing what was written, inside the hold");
        return Err(differences.into_iter().take(20).fold(failure, Failure::because));
    }
    let unproven: Vec<String> = compared.unproven.iter().map(|(table, why)| format!("{table} ({why})")).collect();
    if !unproven.is_empty() {
        cx.warn(codes::UNPROVEN, format!("not proven exactly inside the hold: {}", unproven.join(", ")));
    }
    Ok(Written { compared: Some(DatabaseCompared::of(&compared.tables)), unproven })
}

fn slowest(markers: &[(String, u64)]) -> Option<u64> {
    markers.iter().map(|(_, ms)| *ms).max()
}

async fn marker(cx: &Context<'_>) -> Result<Vec<(String, u64)>, Failure> {
    let key = format!("cut-{}", uuid::Uuid::now_v7().simple());
    let deadline = Duration::from_millis(cx.spec().switchover.marker_ms_max);
    let seen = fresh_job(cx, "marker", Side::Blue, &Marker { key }, deadline)
        .await
        .map_err(|failure| failure.with_code(codes::GATE_MISSED))?;
    let databases = cx.output::<crate::steps::prerequisites::Prerequisites>()?.databases;
    match slowest(&seen.databases) {
        Some(_) if seen.databases.len() as u64 >= databases => Ok(seen.databases),
        _ => Err(Failure::transient(codes::NOT_MEASURED, "sending a marker through every database")
            .because(format!("it passed {} databases", seen.databases.len()))),
    }
}
