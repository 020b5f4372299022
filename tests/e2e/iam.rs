//! Upgrades under the policy in `deploy/iam`: it is enough for everything that the coordinator does, nothing in it is too much,
//! and an action that is missing is named.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::faults::Feature;
use lab::iam::{Need, Policy, Verdict, decide};
use lab::{ClusterSettings, Fault, Outcome};
use tests::stage::pilot::with;
use tests::stage::{CLUSTER, COORDINATOR, Setting, Stage, play};

use super::unwind::{until_replicating, unwound};

const POLICY: &str = include_str!("../../deploy/iam/coordinator.json");
const LIMIT: Duration = Duration::from_secs(240);

pub(super) fn policy() -> Policy {
    serde_json::from_str(POLICY).expect("the policy that is shipped can be read")
}

pub(super) fn setting(policy: Policy) -> Setting {
    let shape = |settings| ClusterSettings {
        tags: vec![("upgrade-pilot-allowed".into(), "true".into())],
        instance_parameters: vec![("log_min_duration_statement".into(), "5000".into())],
        ..settings
    };
    Setting { agents: 1, policy: Some(policy), shape, ..Setting::default() }
}

/// The policy that is shipped without one of its actions.
pub(super) fn less(action: &str) -> Policy {
    let whole = policy();
    let (statement, ..) = whole.actions().into_iter().find(|(.., name)| name == action).expect("in the policy");
    whole.without(statement, action)
}

/// What the coordinator needed, call by call.
fn needed(stage: &Stage) -> Vec<Vec<Need>> {
    let calls = stage.lab.requests().into_iter().filter(|call| call.caller == COORDINATOR);
    calls.map(|call| call.needs).collect()
}

fn nothing_was_denied(stage: &Stage) -> anyhow::Result<()> {
    let denied = stage.lab.requests().into_iter().filter_map(|call| match call.outcome {
        Outcome::Refused { code, message } if code == "AccessDenied" => Some(message),
        _ => None,
    });
    let denied: BTreeSet<String> = denied.collect();
    ensure!(denied.is_empty(), "denied: {denied:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_and_its_undoing_need_the_whole_policy_in_deploy_iam_and_no_more() {
    play(setting(policy()), async |stage| {
        let before = stage.world().await?;
        stage.lab.faults().plan(Fault::Looks { cluster: CLUSTER.into(), feature: Feature::Proxy }, 1);
        stage.pilot(&["preflight", "--cluster", CLUSTER, "--to", "16"]).await?;
        stage.lab.faults().clear();
        let reason = "the instance class is not supported in this lab";
        stage.lab.faults().plan(Fault::InvalidConfiguration { reason: reason.into() }, 1);
        let mut failing = stage.upgrade(&stage.spec(16)).await?;
        let said = failing.ended(LIMIT, &stage.tempo).await?;
        nothing_was_denied(stage)?;
        said.expect(1, &["unwound", reason])?;
        unwound(stage, &failing.id, &before, &[reason]).await.context("a green that cannot be built")?;

        let spec = with(stage.spec(16), "replication.sustained_seconds", 60.0);
        let mut given_up = stage.upgrade(&spec).await?;
        until_replicating(stage, &given_up.id).await?;
        // Blue's log is read every few seconds, which the other two upgrades are too short for.
        let read = async || match stage.asked_of_aws("DownloadDBLogFilePortion") {
            0 => Err("no portion of a log was asked for".to_owned()),
            _ => Ok(()),
        };
        stage.tempo.until("a look into blue's log", Duration::from_millis(50), LIMIT, read).await?;
        stage.pilot(&["abort", &given_up.id, "--confirm", CLUSTER]).await?.expect(0, &[])?;
        let said = given_up.ended(LIMIT, &stage.tempo).await?;
        nothing_was_denied(stage)?;
        said.expect(1, &["unwound"])?;
        unwound(stage, &given_up.id, &before, &[]).await.context("an upgrade that is given up")?;

        let mut second = stage.upgrade(&stage.spec(16)).await?;
        let said = second.ended(LIMIT, &stage.tempo).await?;
        nothing_was_denied(stage)?;
        said.expect(0, &["succeeded"])?;
        ensure!(stage.asked_of_aws("CreateBlueGreenDeployment") == 3, "three upgrades came as far as a deployment");
        every_action_is_missed(stage)
    })
    .await;
}

/// Each action of each statement taken away: at least one call of the two upgrades would have been denied.
fn every_action_is_missed(stage: &Stage) -> anyhow::Result<()> {
    let (whole, calls) = (policy(), needed(stage));
    ensure!(calls.len() > 100, "only {} calls were recorded", calls.len());
    let denied = |policy: &Policy| calls.iter().flatten().any(|need| decide([policy], need) != Verdict::Allowed);
    ensure!(!denied(&whole), "the recorded calls are not those of this policy");
    let spare: Vec<String> = whole
        .actions()
        .into_iter()
        .filter(|(statement, _, action)| !denied(&whole.without(*statement, action)))
        .map(|(_, sid, action)| format!("{sid}: {action}"))
        .collect();
    ensure!(spare.is_empty(), "nothing misses these actions: {spare:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_is_missing_is_named_before_the_start_where_it_can_be_known_and_unwinds_where_not() {
    play(setting(less("rds:DescribeDBProxies")), async |stage| {
        let refused = stage.try_upgrade(&stage.spec(16)).await?;
        let said = refused.err().context("the upgrade was started without the right to look")?;
        said.expect(2, &["PU0203", "rds:DescribeDBProxies"])
    })
    .await;
    play(setting(less("rds:CreateDBInstance")), async |stage| {
        let before = stage.world().await?;
        let spec = with(stage.spec(16), "provisioning.seconds_max", 60);
        let mut upgrade = stage.upgrade(&spec).await?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound", "rds:CreateDBInstance"])?;
        unwound(stage, &upgrade.id, &before, &["PU0203", "rds:CreateDBInstance"]).await.map(drop)
    })
    .await;
}
