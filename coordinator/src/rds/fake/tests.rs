//! The fake's own tests: it passes the contract, and every trouble that can be ordered is really made.

use super::*;
use crate::rds::contract::{self, Fixture};

const TIMEOUT: Duration = Duration::from_secs(300);

fn fake(timings: Timings) -> Fake {
    let fake = Fake::new(Clock::tokio(), timings);
    fake.add_cluster(NewCluster::named("orders", "14.12"));
    fake
}

fn orders() -> ClusterId {
    "orders".into()
}

/// A fake whose cluster runs with logical replication, and the deployment that can be asked of it.
async fn ready(timings: Timings) -> (Fake, NewDeployment) {
    let fake = Fake::new(Clock::tokio(), timings);
    let mut blue = NewCluster::named("orders", "14.12");
    blue.cluster_parameters.push(("rds.logical_replication".into(), "1".into()));
    let blue = fake.add_cluster(blue);
    for scope in [GroupScope::Cluster, GroupScope::Instance] {
        let new = NewParameterGroup {
            scope,
            name: "green".into(),
            family: "aurora-postgresql16".into(),
            description: "green".into(),
            tags: Vec::new(),
        };
        fake.create_parameter_group(&new).await.expect("a group");
    }
    let new = NewDeployment {
        name: "up".into(),
        source: blue.arn,
        target_version: "16.4".into(),
        target_cluster_group: "green".into(),
        target_instance_group: "green".into(),
        tags: Vec::new(),
    };
    (fake, new)
}

/// As [`ready`], with the deployment AVAILABLE in every part.
async fn available_deployment() -> (Fake, Deployment) {
    let (fake, new) = ready(Timings::default()).await;
    let made = fake.create_deployment(&new).await.expect("a deployment");
    fake.advance(Duration::from_secs(600));
    let deployment = fake.deployment(&made.id).await.expect("the deployment");
    assert!(deployment.is_all_available(), "{deployment:#?}");
    (fake, deployment)
}

async fn status(fake: &Fake, id: &DeploymentId) -> DeploymentStatus {
    fake.deployment(id).await.expect("the deployment").status
}

async fn meets_the_contract(timings: Timings, custom_endpoints: &[&str], readers: usize) {
    let fake = Fake::new(Clock::tokio(), timings);
    let mut new = NewCluster::named("orders", "14.12");
    new.custom_endpoints = custom_endpoints.iter().map(|e| (*e).to_owned()).collect();
    new.readers = readers;
    fake.add_cluster(new);
    let fixture = Fixture {
        rds: Arc::new(fake.clone()),
        clock: Clock::tokio(),
        cluster: orders(),
        target_version: "16.4".into(),
        every: Duration::from_secs(1),
        deadline: Duration::from_secs(3600),
    };
    contract::whole(&fixture).await;
}

#[tokio::test(start_paused = true)]
async fn the_fake_meets_the_contract_in_time_and_at_once() {
    meets_the_contract(Timings::default(), &[], 1).await;
    meets_the_contract(Timings::zero(), &[], 0).await;
    meets_the_contract(Timings::default(), &["reports.cluster-custom-fake.us-east-1.rds.amazonaws.com"], 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_has_acted_and_a_lost_request_has_not() {
    let fake = fake(Timings::default());
    let (kept, lost) = (SnapshotId::from("kept"), SnapshotId::from("lost"));
    fake.fail_once("CreateDBClusterSnapshot", Fault::LostReply);
    let e = fake.create_snapshot(&kept, &orders(), &[]).await.expect_err("the reply is lost");
    assert!(e.may_have_acted(), "{e}");
    assert!(fake.snapshot(&kept).await.is_ok());
    fake.fail_once("CreateDBClusterSnapshot", Fault::LostRequest);
    let e = fake.create_snapshot(&lost, &orders(), &[]).await.expect_err("the request is lost");
    assert!(e.may_have_acted(), "{e}");
    assert!(fake.snapshot(&lost).await.is_err_and(|e| e.is_not_found()));
    let acted: Vec<bool> = fake.calls().iter().map(|c| c.acted).collect();
    assert_eq!(acted, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn throttling_denial_and_500s_change_nothing() {
    let fake = fake(Timings::default());
    let before = fake.snapshot_of_world();
    let id = InstanceId::from("orders-1");
    for (fault, class) in [
        (Fault::Throttle, Class::Throttled),
        (Fault::Denied, Class::AccessDenied { action: "rds:RebootDBInstance".into() }),
        (Fault::Broken, Class::Unknown),
    ] {
        fake.fail_once("RebootDBInstance", fault);
        assert_eq!(fake.reboot_instance(&id).await.expect_err("a fault").class, class);
    }
    fake.fail_always("DescribeDBClusters", Some(Fault::Broken));
    for _ in 0..2 {
        assert_eq!(fake.cluster(&orders()).await.expect_err("a fault").class, Class::Transient);
    }
    fake.fail_always("DescribeDBClusters", None);
    assert!(fake.cluster(&orders()).await.is_ok());
    assert_eq!(fake.snapshot_of_world().differences_from(&before), Vec::new());
}

#[tokio::test(start_paused = true)]
async fn details_lag_behind_the_deployment() {
    let (fake, new) = ready(Timings::default()).await;
    let id = fake.create_deployment(&new).await.expect("a deployment").id;
    fake.advance(Duration::from_secs(60));
    let seen = fake.deployment(&id).await.expect("the deployment");
    assert_eq!(seen.tasks_done(), (1, 3));
    assert!(seen.target.is_some() && seen.members[0].target.is_some() && seen.members[1].target.is_none());
    fake.advance(Duration::from_secs(121));
    let seen = fake.deployment(&id).await.expect("the deployment");
    assert_eq!(seen.status, DeploymentStatus::Available);
    assert!(!seen.is_all_available(), "members become available later");
    fake.advance(Duration::from_secs(10));
    assert!(fake.deployment(&id).await.expect("the deployment").is_all_available());
    fake.flap(1);
    assert_eq!(status(&fake, &id).await, DeploymentStatus::Provisioning);
    assert_eq!(status(&fake, &id).await, DeploymentStatus::Available);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_configuration_gives_its_reason_and_green_can_be_deleted() {
    let (fake, new) = ready(Timings::default()).await;
    let before = fake.snapshot_of_world();
    fake.creation(Creation::Invalid { reason: "pg_upgrade found reg* columns".into() });
    let id = fake.create_deployment(&new).await.expect("a deployment").id;
    let since = fake.clock.now();
    fake.advance(Duration::from_secs(600));
    assert_eq!(status(&fake, &id).await, DeploymentStatus::InvalidConfiguration);
    let query = EventQuery { source_type: Some(SourceType::BlueGreenDeployment), source: Some(id.to_string()), since };
    let events = fake.events(&query).await.expect("events");
    assert!(events.iter().any(|e| e.message.contains("reg* columns")), "{events:#?}");
    let green = fake.deployment(&id).await.expect("it").target_cluster().expect("green").cluster_id();
    let e = fake.delete_deployment(&id, true).await.expect_err("green is protected");
    assert_eq!(e.code, "InvalidParameterCombination");
    let change = ClusterChange { deletion_protection: Some(false), ..Default::default() };
    // Green was caught before it became available.
    fake.edit_cluster(&green, |c| c.status = Status("available".into()));
    fake.modify_cluster(&green, &change).await.expect("protection off");
    fake.delete_deployment(&id, true).await.expect("deleting");
    fake.advance(Duration::from_secs(60));
    assert_eq!(fake.snapshot_of_world().differences_from(&before), Vec::new());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_slot_keeps_it_provisioning_until_released() {
    let (fake, new) = ready(Timings::default()).await;
    fake.creation(Creation::NeverReady);
    let id = fake.create_deployment(&new).await.expect("a deployment").id;
    fake.advance(Duration::from_secs(36_000));
    assert_eq!(status(&fake, &id).await, DeploymentStatus::Provisioning);
    let e = fake.delete_deployment(&id, true).await.expect_err("not while provisioning");
    assert!(e.is_invalid_state(), "{e}");
    fake.creation(Creation::Succeeds);
    fake.advance(Duration::from_secs(60));
    assert_eq!(status(&fake, &id).await, DeploymentStatus::Available);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_not_available_holds_the_switchover_up() {
    let (fake, new) = ready(Timings::default()).await;
    fake.members_late(Duration::from_secs(300));
    let id = fake.create_deployment(&new).await.expect("a deployment").id;
    fake.advance(Duration::from_secs(200));
    let e = fake.switchover(&id, TIMEOUT).await.expect_err("too early");
    assert!(e.is_invalid_state() && e.message.ends_with("is not in available state"), "{e}");
    fake.advance(Duration::from_secs(300));
    assert!(fake.switchover(&id, TIMEOUT).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_switchover_that_times_out_or_is_canceled_leaves_blue_serving() {
    for (switching, after, expected) in [
        (Switching::TimesOut, 301, DeploymentStatus::SwitchoverFailed),
        (Switching::Reverts { reason: "replica lag".into() }, 30, DeploymentStatus::Available),
    ] {
        let (fake, deployment) = available_deployment().await;
        let blue = fake.serving(&orders());
        fake.switching(switching);
        fake.switchover(&deployment.id, TIMEOUT).await.expect("accepted");
        let busy = fake.switchover(&deployment.id, TIMEOUT).await.expect_err("one is running");
        assert!(busy.is_invalid_state(), "{busy}");
        fake.advance(Duration::from_secs(after));
        let seen = fake.deployment(&deployment.id).await.expect("it");
        assert_eq!((&seen.status, &seen.source), (&expected, &deployment.source));
        assert_eq!(fake.serving(&orders()), blue);
        fake.switching(Switching::Succeeds);
        fake.switchover(&deployment.id, TIMEOUT).await.expect("tried again");
        fake.advance(Duration::from_secs(100));
        assert_ne!(fake.serving(&orders()), blue);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_the_switchover_is_found_out_by_looking() {
    let (fake, deployment) = available_deployment().await;
    fake.fail_once("SwitchoverBlueGreenDeployment", Fault::LostReply);
    let e = fake.switchover(&deployment.id, TIMEOUT).await.expect_err("the reply is lost");
    assert!(e.may_have_acted(), "{e}");
    assert_eq!(status(&fake, &deployment.id).await, DeploymentStatus::SwitchoverInProgress);
}

#[tokio::test(start_paused = true)]
async fn green_serves_before_completed_is_told() {
    let (fake, deployment) = available_deployment().await;
    let blue = fake.serving(&orders()).expect("blue");
    fake.switchover(&deployment.id, TIMEOUT).await.expect("accepted");
    fake.advance(Duration::from_secs(21));
    assert_ne!(fake.serving(&orders()), Some(blue.clone()));
    assert_eq!(status(&fake, &deployment.id).await, DeploymentStatus::SwitchoverInProgress);
    fake.advance(Duration::from_secs(40));
    assert_eq!(status(&fake, &deployment.id).await, DeploymentStatus::SwitchoverCompleted);
    let recorded = same_cluster(&fake, &orders(), &blue).await.expect_err("another cluster has the name");
    assert_eq!(recorded.code, IDENTITY_CHANGED);
    let old = fake.cluster_by_resource(&blue).await.expect("old blue").expect("old blue");
    assert_eq!(old.id, ClusterId::from("orders-old1"));
    assert_eq!(fake.instances(&old.id).await.expect("its instances").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn contradicting_evidence_can_be_played() {
    let (fake, deployment) = available_deployment().await;
    let blue = fake.serving(&orders());
    fake.switching(Switching::SwitchesAndFails);
    fake.switchover(&deployment.id, TIMEOUT).await.expect("accepted");
    fake.advance(Duration::from_secs(100));
    assert_eq!(status(&fake, &deployment.id).await, DeploymentStatus::SwitchoverFailed);
    assert_ne!(fake.serving(&orders()), blue);
}

#[tokio::test(start_paused = true)]
async fn a_static_parameter_lives_only_after_the_reboot() {
    let fake = fake(Timings::default());
    let before = fake.snapshot_of_world();
    let (group, writer) = (ParameterGroupName::from("orders-cluster"), InstanceId::from("orders-1"));
    let on = |value: &str| ParameterChange {
        name: "rds.logical_replication".into(),
        value: value.into(),
        apply: ApplyMethod::PendingReboot,
    };
    fake.modify_parameter_group(GroupScope::Cluster, &group, &[on("1")]).await.expect("set");
    assert_eq!(fake.booted_with(&writer, "rds.logical_replication").as_deref(), Some("0"));
    fake.reboot_instance(&writer).await.expect("rebooting");
    assert!(fake.reboot_instance(&writer).await.is_err_and(|e| e.is_invalid_state()));
    fake.advance(Duration::from_secs(20));
    assert_eq!(fake.booted_with(&writer, "rds.logical_replication").as_deref(), Some("1"));
    let cluster = fake.cluster(&orders()).await.expect("the cluster");
    let states: Vec<bool> = cluster.members.iter().map(Member::in_sync).collect();
    assert_eq!(states, [true, false], "only the writer was rebooted");
    let set = fake.snapshot_of_world().disallowed_differences_from(&before);
    assert!(!set.is_empty() && set.iter().all(|d| d.what.contains("rds.logical_replication")), "{set:#?}");
}

#[tokio::test(start_paused = true)]
async fn logs_are_read_by_portion_and_by_tail() {
    let fake = fake(Timings::default());
    let writer = InstanceId::from("orders-1");
    fake.write_log(&writer, "error/postgresql.log", "one\ntwo\nthree\n");
    let files = fake.log_files(&writer, "postgresql").await.expect("files");
    assert_eq!((files.len(), files[0].size), (1, 14));
    let first = fake.log_portion(&writer, &files[0].name, &LogFrom::Start).await.expect("a portion");
    assert_eq!((first.text.as_str(), first.more), ("one\ntwo\nthree\n", false));
    fake.write_log(&writer, "error/postgresql.log", "four\n");
    let from = LogFrom::Marker(first.marker.expect("a marker"));
    assert_eq!(fake.log_portion(&writer, &files[0].name, &from).await.expect("a portion").text, "four\n");
    let tail = LogFrom::Tail { lines: 2 };
    assert_eq!(fake.log_portion(&writer, &files[0].name, &tail).await.expect("a tail").text, "three\nfour\n");
    let e = fake.log_portion(&writer, "none", &LogFrom::Start).await.expect_err("no such file");
    assert_eq!(e.code, "DBLogFileNotFoundFault");
}
