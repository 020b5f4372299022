//! The report from its parts: verdict, who is who, versions, what stays, and the hash of the journal.

use engine::{Entry, Fact, Record};
use jiff::Timestamp;

use super::known::{CLEANUP, Known, PREREQUISITES};
use super::model::{Cluster, Instance, Journal, Report, Side, Snapshot, Verdict, Versions};
use super::told::Told;
use super::{changes, sum, terraform, timeline, verification};
use crate::operator::plan;
use crate::operator::view::StatusView;
use crate::spec::UpgradeSpec;
use crate::steps::Recorded;
use crate::store::About;
use crate::world::Upgrade;

/// What a report is made of.
pub struct Input<'a> {
    pub status: &'a StatusView,
    pub about: &'a About,
    /// The journal as it is stored, whole.
    pub records: &'a [Record],
    /// The same, read.
    pub entries: &'a [Entry<Upgrade>],
    pub now: Timestamp,
}

/// The report of one upgrade, whether it has ended or not.
pub fn build(input: &Input<'_>) -> Report {
    let Input { status, about, records, entries, now } = input;
    let known = Known::of(&status.id, entries);
    let spec = entries.iter().find_map(|entry| match &entry.fact {
        Fact::Created { spec, .. } => Some(spec),
        _ => None,
    });
    let told = Told::of(&about.asked_by, entries);
    let cluster = cluster(status, &known);
    let verdict = verdict(status, &known);
    Report {
        id: status.id.clone(),
        made_at: *now,
        terraform: terraform::follow_up(&terraform::Moved::of(status, &known, &cluster)),
        verdict,
        cluster,
        versions: versions(about, status, &known),
        asked_by: about.asked_by.clone(),
        started_at: status.started_at,
        ended_at: status.outcome.as_ref().map(|_| status.updated_at),
        seconds: status.seconds,
        steps: timeline::steps(status, entries),
        cut: timeline::cut(status, &known, entries),
        downtime: status.downtime,
        outages: timeline::outages(entries),
        verification: verification::verification(&known, spec),
        statistics: verification::statistics(&known),
        changes: changes::changes(status, &known),
        ddl: told.ddl,
        counts: status.counts,
        purged: told.purged,
        ended: told.ended,
        statements: told.statements,
        people: told.people,
        alarms: told.alarms,
        warnings: told.warnings,
        notes: told.notes,
        plan_as_named: about.plan.as_ref().zip(spec).map(|(kept, spec)| plan::is_as_named(kept, spec)),
        findings_accepted: accepted(about, spec),
        plan: about.plan.clone(),
        plan_digest: about.plan_digest.clone(),
        snapshots: snapshots(&known),
        journal: journal(&status.id, records),
    }
}

fn verdict(status: &StatusView, known: &Known) -> Verdict {
    let StatusView { cluster, from_version: from, to_version: to, .. } = status;
    let since = known.committed_at.map(|at| format!(" since {at:.0}")).unwrap_or_default();
    let moved = || {
        let ms = status.downtime.write_unavailable_ms;
        format!("{cluster} runs {to}{since}, after {from}; writes were unavailable for {ms} ms")
    };
    let sentence = match status.outcome.as_deref() {
        Some("succeeded") => format!("{}. The old side is gone but for its snapshots.", moved()),
        Some("unwound") => format!("The upgrade failed and was unwound: {cluster} is as it was, on {from}."),
        Some("refused") => format!("The upgrade was refused: nothing was touched, {cluster} runs {from}."),
        Some(_) if status.switched_over => {
            format!("A person stopped it where it stood, after the switchover: {}.", moved())
        }
        Some(_) => {
            format!("A person stopped it where it stood: {cluster} runs {from}, and what is listed below is left.")
        }
        None if status.switched_over => format!("It has NOT ENDED: {}; it is at {}.", moved(), status.phase),
        None => format!("It has NOT ENDED: {cluster} runs {from}; it is at {} ({}).", status.phase, status.direction),
    };
    let reason = status.reason.clone().filter(|_| status.outcome.as_deref() != Some("succeeded"));
    Verdict { outcome: status.outcome.clone(), sentence, reason, switched_over: status.switched_over }
}

fn cluster(status: &StatusView, known: &Known) -> Cluster {
    // arn:aws:rds:REGION:ACCOUNT:cluster:NAME
    let part = |n: usize| status.cluster_arn.split(':').nth(n).unwrap_or_default().to_owned();
    Cluster {
        name: status.cluster.clone(),
        arn: status.cluster_arn.clone(),
        region: part(3),
        account: part(4),
        blue: known.start.as_ref().map(|start| side(&start.blue)),
        green: known.provisioned.as_ref().map(|provisioned| side(&provisioned.green)),
        deployments: known.deployments.clone(),
    }
}

fn side(recorded: &Recorded) -> Side {
    let instances = recorded.instances.iter().map(|instance| Instance {
        name: instance.id.to_string(),
        resource_id: instance.resource_id.to_string(),
        writer: instance.writer,
    });
    Side {
        cluster: recorded.cluster.to_string(),
        resource_id: recorded.resource_id.to_string(),
        instances: instances.collect(),
    }
}

fn versions(about: &About, status: &StatusView, known: &Known) -> Versions {
    Versions {
        from: status.from_version.clone(),
        to: status.to_version.clone(),
        production_said: known.moved.as_ref().map(|moved| moved.production.version.clone()),
        program_began: about.program.clone(),
        program_reports: env!("CARGO_PKG_VERSION").to_owned(),
        agents: about.agents.clone(),
        roster: about.roster.iter().map(ToString::to_string).collect(),
    }
}

/// What preflight found and the spec accepts.
fn accepted(about: &About, spec: Option<&UpgradeSpec>) -> Vec<crate::preflight::Finding> {
    let accept = spec.map(|spec| spec.accept.as_slice()).unwrap_or_default();
    let found = about.plan.iter().flat_map(|plan| &plan.findings);
    found.filter(|finding| accept.iter().any(|code| code == finding.code.as_str())).cloned().collect()
}

/// Snapshots are never deleted by the program.
fn snapshots(known: &Known) -> Vec<Snapshot> {
    let made = |step, key, of: &str| {
        let effect = known.effect(step, key)?;
        let id = effect.output.as_ref()?.as_str()?.to_owned();
        Some(Snapshot { id, of: of.to_owned() })
    };
    let last = known.retired.as_ref().and_then(|retired| retired.final_snapshot.as_ref());
    let last = last.map(|id| Snapshot { id: id.to_string(), of: "the old side, as it was deleted".to_owned() });
    let before = made(PREREQUISITES, "snapshot", "the cluster, before anything was changed");
    let after = made(CLEANUP, "after-snapshot", "the new production, before the old side was deleted");
    before.into_iter().chain(after).chain(last).collect()
}

fn journal(id: &str, records: &[Record]) -> Journal {
    Journal {
        facts: records.len() as u64,
        first_at: records.first().map(|record| record.at),
        last_at: records.last().map(|record| record.at),
        sha256: sum::of(records),
        how: format!("pilot history {id} --output json | python3 -c '{}'", sum::COMMAND),
    }
}
