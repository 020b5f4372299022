//! Before green is made and after the cut: what preflight refuses, when blue is rebooted, what an earlier upgrade left, what people
//! allow, and what cleanup never deletes.

use engine::{Fact, FailureClass, Outcome, testing};
use proto::report::Sessions;

use super::super::testing::{CLUSTER, Stage, clock, cluster_of, spec};
use super::{ended, failures};
use crate::{
    rds::fake::{Creation, NewCluster},
    rds::{DeploymentId, Names, NewDeployment, Rds, Tag},
    steps::codes,
    world::Upgrade,
};

#[tokio::test(start_paused = true)]
async fn preflight_that_blocks_refuses_before_anything_is_touched() {
    let stage = Stage::new(clock());
    let mut impossible = spec();
    impossible.to = "13".into();
    let played = testing::play(stage.scene(impossible)).await;
    ended(&played, Outcome::Refused);
    assert!(stage.aws.calls().is_empty(), "{:?}", stage.aws.calls());
}

/// A cluster with a deployment that stands: somebody made it and went away. Green is protected as blue is.
async fn with_a_deployment(name: crate::rds::DeploymentName, tags: Vec<Tag>) -> (Stage, DeploymentId) {
    let mut cluster = NewCluster::named(CLUSTER, "14.12");
    cluster.cluster_parameters.push(("rds.logical_replication".into(), "1".into()));
    let stage = Stage::with(clock(), cluster);
    let source = cluster_of(&stage.aws, CLUSTER).await.expect("blue").arn;
    let new = NewDeployment {
        name,
        source,
        target_version: "16.4".into(),
        target_cluster_group: "default.aurora-postgresql16".into(),
        target_instance_group: "default.aurora-postgresql16".into(),
        tags,
    };
    let made = stage.aws.create_deployment(&new).await.expect("a deployment");
    stage.clock.sleep(std::time::Duration::from_secs(60)).await;
    (stage, made.id)
}

async fn left_by_an_earlier_upgrade() -> (Stage, DeploymentId) {
    let earlier = Names::of("up-earlier");
    with_a_deployment(earlier.deployment(2), vec![earlier.tag()]).await
}

/// When the first reboot was asked for, and when the upgrade was created.
fn rebooted(stage: &Stage, facts: &[engine::Entry<Upgrade>]) -> (jiff::Timestamp, jiff::Timestamp) {
    let calls = stage.aws.calls();
    let reboot = calls.iter().find(|call| call.operation == "RebootDBInstance").expect("a reboot");
    (reboot.at, facts[0].at)
}

#[tokio::test(start_paused = true)]
async fn the_reboot_waits_for_its_window_and_nothing_is_quieted_before() {
    // The clock of the stage begins on a Monday, at midnight.
    let stage = Stage::new(clock());
    let mut patient = spec();
    patient.reboot.window = Some("mon:02:00-mon:03:00".into());
    patient.reboot.policy = crate::spec::RebootPolicy::Approve;
    let played = testing::play(stage.scene(patient)).await;
    ended(&played, Outcome::Succeeded);
    let (at, began) = rebooted(&stage, &played.facts);
    let waited = at.duration_since(began).as_secs();
    assert!((7200..7260).contains(&waited), "rebooted after {waited} s");
    let quiet =
        played.facts.iter().find(|entry| matches!(&entry.fact, Fact::EffectPlanned { key, .. } if key == "quiesce"));
    assert!(quiet.expect("extensions were quieted").at.duration_since(began).as_secs() >= 7200);
    let asked = played.facts.iter().any(|entry| matches!(entry.fact, Fact::ApprovalAsked { .. }));
    assert!(!asked, "the window is the permission");
}

#[tokio::test(start_paused = true)]
async fn an_approval_does_not_wait_for_the_window_of_the_reboot() {
    let stage = Stage::new(clock());
    let mut patient = spec();
    patient.reboot.window = Some("sun:02:00-sun:03:00".into());
    let approved = engine::Request::Approve { name: Some("reboot".into()) };
    let played = testing::play_asked(stage.scene(patient), approved).await;
    ended(&played, Outcome::Succeeded);
    let (at, began) = rebooted(&stage, &played.facts);
    assert!(at.duration_since(began).as_secs() < 600, "rebooted at {at}");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_upgrade_left_is_refused_by_name_until_its_deletion_is_asked_for() {
    let (stage, left) = left_by_an_earlier_upgrade().await;
    let began = stage.aws.calls().len();
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Refused);
    let (_, failure) = failures(&played.facts).pop().expect("a failure");
    for said in ["PU0043", "upgrade up-earlier has left", left.as_str(), "--clean-leftovers"] {
        assert!(failure.to_string().contains(said), "{said}: {failure}");
    }
    assert_eq!(stage.aws.calls().len(), began, "nothing was touched");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_upgrade_left_is_deleted_first_with_its_green_and_nothing_else() {
    let (stage, left) = left_by_an_earlier_upgrade().await;
    let green = stage.aws.deployment(&left).await.expect("it stands").target_cluster().expect("a green").cluster_id();
    let began = stage.aws.calls().len();
    let mut cleaning = spec();
    cleaning.clean_leftovers = true;
    let played = testing::play(stage.scene(cleaning)).await;
    ended(&played, Outcome::Succeeded);
    assert!(cluster_of(&stage.aws, green.as_str()).await.is_none(), "{green} is still there");
    let calls: Vec<_> = stage.aws.calls().split_off(began).into_iter().filter(|call| call.acted).collect();
    let of = |operation: &str| -> Vec<(usize, &str)> {
        let calls = calls.iter().enumerate().filter(|(_, call)| call.operation == operation);
        calls.map(|(at, call)| (at, call.target.as_str())).collect()
    };
    assert_eq!(of("DeleteBlueGreenDeployment")[0], (1, left.as_str()), "{calls:?}");
    assert_eq!(of("ModifyDBCluster")[0], (0, green.as_str()), "protection goes off on its green only: {calls:?}");
    assert!(of("CreateDBClusterSnapshot")[0].0 > 1, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_of_somebody_else_is_never_deleted() {
    // A tag alone does not make it ours: its name must be derived from the upgrade that the tag names.
    for tags in [Vec::new(), vec![Names::of("up-earlier").tag()]] {
        let (stage, theirs) = with_a_deployment("theirs".into(), tags).await;
        let mut cleaning = spec();
        cleaning.clean_leftovers = true;
        let played = testing::play(stage.scene(cleaning)).await;
        ended(&played, Outcome::Refused);
        assert!(failures(&played.facts)[0].1.to_string().contains("PU0015"));
        stage.aws.deployment(&theirs).await.expect("it still stands");
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_what_was_left_passes_the_crash_matrix() {
    let make = async || {
        let (stage, _) = left_by_an_earlier_upgrade().await;
        let mut cleaning = spec();
        cleaning.clean_leftovers = true;
        let mut scene = stage.scene(cleaning);
        // Of the whole plan the step that deletes; the leftover itself does not come back.
        scene.plan = engine::Plan::new().then(super::super::prerequisites::Prerequisites);
        let (before, after) = (stage.clone(), stage);
        let serving = |stage: &Stage| match stage.aws.serving(&CLUSTER.into()) == Some(stage.blue.clone()) {
            true => Ok(()),
            false => Err("production is not blue".to_owned()),
        };
        scene.as_before = Box::new(move |_| serving(&before));
        scene.complete = Box::new(move |_| {
            let left = after.aws.snapshot_of_world().names().any(|name| name.starts_with("deployment "));
            if left { Err("the deployment is still there".to_owned()) } else { serving(&after) }
        });
        scene
    };
    testing::crash_matrix(make).await;
}

#[tokio::test(start_paused = true)]
async fn active_transactions_that_block_slots_are_ended_only_after_approval() {
    let stage = Stage::new(clock());
    stage.aws.creation(Creation::NeverReady);
    let (agents, aws) = (stage.agents.clone(), stage.aws.clone());
    *stage.tamper.lock().unwrap() = Some(Box::new(move |report| {
        // Somebody's long transaction holds the slots up until the purger may end it.
        let may_end = agents.last_intent().and_then(|intent| intent.purger).is_some_and(|purger| purger.end_active);
        let blockers = if may_end { 0 } else { 1 };
        if may_end {
            aws.creation(Creation::Succeeds);
        }
        report.sessions = Some(Sessions { waiting_slots: blockers, blockers, ..Sessions::default() });
    }));
    let played = testing::play(stage.scene(spec())).await;
    ended(&played, Outcome::Succeeded);
    let asked = played
        .facts
        .iter()
        .any(|entry| matches!(&entry.fact, Fact::ApprovalAsked { name, .. } if name == "purge-active"));
    assert!(asked, "a person is asked before an active transaction is ended");
}

/// Something that makes old blue look like another, or right again.
type Disguise = fn(&Stage, right: bool);

#[tokio::test(start_paused = true)]
async fn cleanup_deletes_nothing_whose_resource_id_is_not_old_blues() {
    let disguises: [(&str, Disguise); 4] = [
        ("-STRANGER, not green", |stage, right| {
            stage.aws.edit_cluster(&CLUSTER.into(), |cluster| {
                cluster.resource_id = strange(cluster.resource_id.as_str(), right).as_str().into();
            });
        }),
        ("its name archive does not end in -old and a number", |stage, right| {
            let (from, to) = if right { ("archive", "orders-old1") } else { ("orders-old1", "archive") };
            stage.aws.edit_cluster(&from.into(), |cluster| cluster.id = to.into());
        }),
        ("the deployment names arn:aws:rds:us-east-1:123456789012:cluster:other as its source", |stage, right| {
            let name = if right { "orders-old1" } else { "other" };
            let arn = format!("arn:aws:rds:us-east-1:123456789012:cluster:{name}");
            stage.aws.edit_deployment_of(&stage.blue, |deployment| deployment.source = arn.parse().expect("an ARN"));
        }),
        ("this instance was not of blue when it was recorded", |stage, right| {
            // The reader of old blue, which goes first: another of the same name in its place.
            stage.aws.edit_instance(&"orders-2-old1".into(), |reader| {
                reader.resource_id = strange(reader.resource_id.as_str(), right).as_str().into();
            });
        }),
    ];
    for (words, disguise) in disguises {
        let stage = Stage::new(clock());
        let mut stranger = NewCluster::named("orders-old2", "14.12");
        stranger.deletion_protection = false;
        let stranger = stage.aws.add_cluster(stranger);
        let (seen, since) = (stage.clone(), std::sync::Mutex::new(None));
        *stage.tamper.lock().unwrap() = Some(Box::new(move |_| {
            // From the new production's snapshot on, which is what cleanup begins with, for half a minute.
            let snapshots = seen.aws.calls().iter().filter(|call| call.operation == "CreateDBClusterSnapshot").count();
            let mut since = since.lock().unwrap();
            match *since {
                None if snapshots == 2 => {
                    disguise(&seen, false);
                    *since = Some((seen.clock.mono(), false));
                }
                Some((from, false)) if seen.clock.mono().since(from) > std::time::Duration::from_secs(30) => {
                    assert_eq!(deleted(&seen), [""; 0], "while {words}");
                    disguise(&seen, true);
                    *since = Some((from, true));
                }
                _ => {}
            }
        }));
        let played = testing::play(stage.scene(spec())).await;
        ended(&played, Outcome::Succeeded);
        let refused = failures(&played.facts).into_iter().find(|(_, failure)| failure.code == codes::OLD_BLUE_WRONG);
        let (_, failure) = refused.unwrap_or_else(|| panic!("nothing was refused while {words}"));
        assert!(failure.class == FailureClass::NeedsOperator && failure.to_string().contains(words), "{failure}");
        assert_eq!(deleted(&stage), ["orders-2-old1", "orders-1-old1", "orders-old1"]);
        let left = cluster_of(&stage.aws, "orders-old2").await.expect("the stranger's cluster stands");
        assert_eq!((left.resource_id, left.members.len()), (stranger.resource_id, 2));
    }
}

/// An identity that is another's, or the right one again.
fn strange(id: &str, right: bool) -> String {
    let own = id.trim_end_matches("-STRANGER");
    if right { own.to_owned() } else { format!("{own}-STRANGER") }
}

/// What AWS was asked to delete of clusters and instances, and did, in order.
fn deleted(stage: &Stage) -> Vec<String> {
    let calls = stage.aws.calls().into_iter().filter(|call| call.acted);
    calls
        .filter(|call| ["DeleteDBCluster", "DeleteDBInstance"].contains(&call.operation))
        .map(|call| call.target)
        .collect()
}
