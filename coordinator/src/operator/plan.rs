//! What an upgrade would do, before it does it: the steps, every reboot, pause and hold it will cause, who must agree, and
//! what preflight found. Its digest names it, so that what is started is what was shown. Pure.

use engine::{PlanShape, Reversal};
use proto::ids::AgentId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::preflight::{self, Facts, Finding, Preflight};
use crate::spec::{CleanupPolicy, PauseFor, RebootPolicy, UpgradeSpec};

/// A plan as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    pub cluster: String,
    pub cluster_arn: String,
    pub from_version: String,
    pub to_version: String,
    pub steps: Vec<PlanStep>,
    /// Everything that the application will feel, in order.
    pub causes: Vec<Cause>,
    /// Approvals that it will ask for on the way.
    pub approvals: Vec<String>,
    /// Agents that must settle every instruction.
    pub roster: Vec<String>,
    pub findings: Vec<Finding>,
    /// Findings that keep it from beginning.
    pub blocked: bool,
    /// SHA-256 over all of the above but the findings.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    pub id: String,
    pub title: String,
    /// `reversible`, `pivot`, `forward_only`.
    pub reversal: String,
    /// What it will wait for, in words.
    pub waits: Vec<String>,
}

/// One thing that the application will feel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub step: String,
    /// `deletion`, `reboot`, `pause`, `hold`, `sessions`.
    pub kind: String,
    pub what: String,
    /// The longest it may last.
    pub seconds_max: Option<u64>,
}

/// The plan of an upgrade.
pub(crate) fn plan_view(
    spec: &UpgradeSpec,
    facts: &Facts,
    found: &Preflight,
    shape: &PlanShape,
    roster: &[AgentId],
) -> PlanView {
    let mut view = PlanView {
        cluster: facts.cluster.id.to_string(),
        cluster_arn: facts.cluster.arn.to_string(),
        from_version: found.from_version.clone(),
        to_version: found.to_version.clone().unwrap_or_else(|| spec.to.clone()),
        steps: shape.steps.iter().map(|step| plan_step(spec, step)).collect(),
        causes: causes(spec, facts),
        approvals: approvals(spec),
        roster: roster.iter().map(ToString::to_string).collect(),
        findings: Vec::new(),
        blocked: false,
        digest: String::new(),
    };
    view.digest = digest(&view, spec);
    view.findings = found.findings.clone();
    view.blocked = found.blocking(spec).next().is_some();
    view
}

/// Over the plan without findings, which change by themselves, and over the whole spec.
fn digest(view: &PlanView, spec: &UpgradeSpec) -> String {
    let spec = UpgradeSpec { cluster: view.cluster_arn.clone(), ..spec.clone() };
    let text = serde_json::json!({ "plan": view, "spec": spec }).to_string();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Is a plan that was kept the one that its digest names?
pub(crate) fn is_as_named(kept: &PlanView, spec: &UpgradeSpec) -> bool {
    let bare = PlanView { findings: Vec::new(), blocked: false, digest: String::new(), ..kept.clone() };
    digest(&bare, spec) == kept.digest
}

fn plan_step(spec: &UpgradeSpec, step: &engine::plan::StepShape) -> PlanStep {
    let reversal = match step.reversal {
        Reversal::Reversible => "reversible",
        Reversal::Pivot => "pivot",
        Reversal::ForwardOnly => "forward_only",
    };
    let waits = waits(spec, step.id.as_str());
    PlanStep { id: step.id.to_string(), title: step.title.to_owned(), reversal: reversal.to_owned(), waits }
}

fn waits(spec: &UpgradeSpec, step: &str) -> Vec<String> {
    match step {
        "prerequisites" => {
            let snapshot = format!("the cluster snapshot, up to {} s", spec.provisioning.snapshot_seconds_max);
            let window = spec.reboot.window.as_ref();
            let window = window.map(|window| format!("the window of the reboot, {window} UTC, or its approval"));
            let in_sync = format!("every member in sync after the reboot, up to {} s", spec.reboot.seconds_max);
            [Some(snapshot), window, Some(in_sync)].into_iter().flatten().collect()
        }
        "provisioning" => vec![format!("AWS building green, up to {} s", spec.provisioning.seconds_max)],
        "post_provisioning" => vec![format!("vacuum and statistics on green, up to {} s", spec.vacuum.seconds_max)],
        "replicating_data" => vec![
            format!(
                "lag below {} bytes for {} s, up to {} s",
                spec.replication.lag_bytes_max, spec.replication.sustained_seconds, spec.replication.drain_seconds_max
            ),
            format!("the comparisons, up to {} s", spec.verify.seconds_max),
        ],
        "switchover" => vec![format!(
            "AWS switching over, up to {} s an attempt, {} attempts",
            spec.switchover.timeout_seconds, spec.switchover.attempts
        )],
        "post_switchover" => vec![format!("AWS saying completed, up to {} s", spec.after.completed_seconds_max)],
        "cleanup" => vec![format!("the retention of the old side, {} s", spec.cleanup.retention_seconds)],
        _ => Vec::new(),
    }
}

fn causes(spec: &UpgradeSpec, facts: &Facts) -> Vec<Cause> {
    let cause = |step: &str, kind: &str, what: String, seconds_max| Cause {
        step: step.to_owned(),
        kind: kind.to_owned(),
        what,
        seconds_max,
    };
    let mut causes = Vec::new();
    for leftover in preflight::leftovers(facts).iter().filter(|_| spec.clean_leftovers) {
        let what = format!("{} is deleted first; an unwinding does not bring it back", leftover.deletes());
        causes.push(cause("prerequisites", "deletion", what, None));
    }
    let members = facts.cluster.writer().into_iter().chain(facts.cluster.readers());
    for member in members {
        let role = if member.is_writer { "writer" } else { "reader" };
        let what = format!("{role} {} is rebooted once for static parameters; its sessions end", member.instance);
        causes.push(cause("prerequisites", "reboot", what, Some(spec.reboot.seconds_max)));
    }
    let pause = spec.ingestion.max_pause_seconds;
    causes.push(cause("prerequisites", "pause", "ingestion is paused around the reboot".to_owned(), Some(pause)));
    let purge = format!(
        "sessions idle in a transaction for {} s that hold slot creation up are ended",
        spec.purge.idle_grace_seconds
    );
    causes.push(cause("provisioning", "sessions", purge, None));
    if spec.ingestion.pause == PauseFor::Replication {
        let what = "ingestion is paused from the end of provisioning to the switchover".to_owned();
        causes.push(cause("replicating_data", "pause", what, Some(pause)));
    }
    let cut = &spec.switchover;
    let sessions = format!(
        "transactions older than {} ms are ended; {} policies may resubmit",
        cut.long_transaction_ms,
        cut.resubmit.len()
    );
    causes.push(cause("switchover", "sessions", sessions, None));
    let hold =
        "clients are held (or ingestion is paused) until green accepts writes, commonly below a few seconds".to_owned();
    causes.push(cause("switchover", "hold", hold, Some(u64::from(cut.hold_seconds_max))));
    causes
}

fn approvals(spec: &UpgradeSpec) -> Vec<String> {
    let mut names = Vec::new();
    if spec.reboot.policy == RebootPolicy::Approve && spec.reboot.window.is_none() {
        names.push("reboot".to_owned());
    }
    if spec.switchover.approve {
        names.push("switchover".to_owned());
    }
    if spec.cleanup.policy == CleanupPolicy::Approve {
        names.push("cleanup".to_owned());
    }
    names
}
