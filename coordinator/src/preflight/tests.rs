//! Every finding of preflight, each by the one thing that brings it about, on an account and a database that have none.

use proto::jobs::{Database, Extension, ForeignServer, Table};
use proto::report::Session;

use super::*;
use crate::{
    rds::{DeploymentId, DeploymentStatus, MasterUserSecret, Names, ProxyTarget, ResourceArn},
    steps::testing::{Stage, clock, spec},
};

struct Case {
    facts: Facts,
    inspection: Inspection,
    spec: UpgradeSpec,
}

impl Case {
    /// Nothing is in the way.
    async fn healthy() -> Case {
        let (stage, spec) = (Stage::new(clock()), spec());
        let facts = gather(&stage.aws, &spec, stage.clock.now()).await.expect("the fake answers");
        Case { facts, inspection: stage.inspection(), spec }
    }

    fn found(&self) -> Vec<(Severity, &'static str, String)> {
        let found = judge(&self.facts, Some(&self.inspection), &self.spec);
        found.into_iter().map(|f| (f.severity, f.code.as_str(), f.what)).collect()
    }
}

/// The change brings exactly this finding about, and it says this.
async fn check(severity: Severity, code: Code, said: &str, change: impl FnOnce(&mut Case)) {
    let mut case = Case::healthy().await;
    change(&mut case);
    let found = case.found();
    let [(weight, named, what)] = &found[..] else { panic!("{code}: {found:?}") };
    assert_eq!((*weight, *named), (severity, code.as_str()), "{what}");
    assert!(what.contains(said), "{code}: {what}");
}

fn table(name: &str) -> Table {
    Table { database: "orders".into(), schema: "public".into(), name: name.into() }
}

fn extension(case: &mut Case, name: &str, installed: &str, available: &str) {
    let (name, installed, available) = (name.into(), installed.into(), Some(available.into()));
    let database: &mut Database = &mut case.inspection.databases[0];
    database.extensions.push(Extension { name, installed, available });
}

#[tokio::test(start_paused = true)]
async fn a_healthy_cluster_has_no_finding_and_one_without_an_agent_is_refused() {
    let case = Case::healthy().await;
    assert_eq!(case.found(), []);
    let found = judge(&case.facts, None, &case.spec);
    assert_eq!(found.iter().map(|f| f.code).collect::<Vec<_>>(), [codes::NO_AGENT]);
}

#[tokio::test(start_paused = true)]
async fn what_aws_says_is_judged_by_name() {
    use Severity::{Acceptable, Blocker};
    check(Blocker, codes::NOT_AURORA_POSTGRESQL, "aurora-mysql", |c| c.facts.cluster.engine = "aurora-mysql".into())
        .await;
    check(Blocker, codes::CLASS_NOT_OFFERED, "db.r4", |c| c.facts.classes_not_offered = vec!["db.r4.large".into()])
        .await;
    check(Blocker, codes::NOT_AVAILABLE, "orders is backing-up", |c| {
        c.facts.cluster.status = rds::Status("backing-up".into());
    })
    .await;
    check(Acceptable, codes::PENDING_CHANGES, "orders: port", |c| c.facts.cluster.pending = vec!["port".into()]).await;
    check(Blocker, codes::NAME_TOO_LONG, "xxxx", |c| c.facts.instances[0].id = "x".repeat(51).as_str().into()).await;
    check(Blocker, codes::MANAGED_PASSWORD, "Secrets Manager", |c| {
        c.facts.cluster.master_user_secret =
            Some(MasterUserSecret { arn: "arn:aws:secretsmanager".into(), status: None });
    })
    .await;
    check(Blocker, codes::GLOBAL_DATABASE, "Global Database", |c| {
        let members = vec![c.facts.cluster.arn.to_string()];
        c.facts.global.push(GlobalCluster { id: "world".into(), members });
    })
    .await;
    check(Blocker, codes::IS_A_REPLICA, "replicates from", |c| {
        c.facts.cluster.replication_source = Some("arn:aws:rds:eu-west-1:123456789012:cluster:orders".into());
    })
    .await;
    check(Blocker, codes::ZERO_ETL, "to-redshift", |c| {
        let (source_arn, target_arn) = (c.facts.cluster.arn.to_string(), "arn:aws:redshift".into());
        let status = "active".into();
        c.facts.integrations.push(Integration { name: "to-redshift".into(), source_arn, target_arn, status });
    })
    .await;
    check(Acceptable, codes::IAM_AUTHENTICATION, "resource id", |c| c.facts.cluster.iam_database_authentication = true)
        .await;
    check(Acceptable, codes::MAINTENANCE_DUE, "system-update", |c| {
        let (resource, action) = (c.facts.instances[0].arn.to_string(), "system-update".to_owned());
        let (auto_applied_after, forced_apply, current_apply) = (None, None, None);
        let description = None;
        c.facts.maintenance.push(MaintenanceAction {
            resource,
            action,
            description,
            auto_applied_after,
            forced_apply,
            current_apply,
        });
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_refused_unless_the_cluster_is_registered_with_it() {
    let proxy = |c: &Case, tracked: bool| Proxy {
        name: "pool".into(),
        arn: None,
        status: None,
        endpoint: None,
        targets: vec![ProxyTarget {
            kind: None,
            tracked_cluster: tracked.then(|| c.facts.cluster.id.clone()),
            resource: None,
            endpoint: c.facts.cluster.endpoint.clone(),
            port: None,
        }],
    };
    check(Severity::Blocker, codes::PROXY_UNREGISTERED, "pool", |c| c.facts.proxies.push(proxy(c, false))).await;
    let mut case = Case::healthy().await;
    case.facts.proxies.push(proxy(&case, true));
    assert_eq!(case.found(), []);
}

/// A deployment whose source is the cluster.
fn deployment(case: &Case, name: rds::DeploymentName, tags: Vec<rds::Tag>) -> Deployment {
    Deployment {
        id: DeploymentId::new("bgd-0123456789abcdef"),
        name,
        source: case.facts.cluster.arn.clone().into(),
        target: None,
        status: DeploymentStatus::Available,
        status_details: None,
        members: Vec::new(),
        tasks: Vec::new(),
        created: None,
        deleted: None,
        tags,
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_ours_an_earlier_upgrades_or_somebody_elses() {
    let earlier = Names::of("up-earlier");
    let add = |c: &mut Case| c.facts.deployments.push(deployment(c, earlier.deployment(1), vec![earlier.tag()]));
    let strange = |c: &mut Case| c.facts.deployments.push(deployment(c, "theirs".into(), Vec::new()));
    check(Severity::Blocker, codes::FOREIGN_DEPLOYMENT, "theirs", strange).await;
    check(Severity::Blocker, codes::LEFTOVER_DEPLOYMENT, "up-earlier has left", add).await;
    check(Severity::Warning, codes::LEFTOVER_DEPLOYMENT, "up-earlier has left", |c| {
        c.spec.clean_leftovers = true;
        add(c);
    })
    .await;
    check(Severity::Blocker, codes::LEFTOVER_DEPLOYMENT, "SWITCHOVER_IN_PROGRESS", |c| {
        c.spec.clean_leftovers = true;
        add(c);
        c.facts.deployments[0].status = DeploymentStatus::SwitchoverInProgress;
    })
    .await;
    // One that moved the name here and was never deleted: its object alone is left.
    let mut case = Case::healthy().await;
    let production: ResourceArn = case.facts.cluster.arn.clone().into();
    let old: rds::ClusterArn = "arn:aws:rds:us-east-1:123456789012:cluster:orders-old1".parse().expect("an ARN");
    let mut done = deployment(&case, earlier.deployment(1), vec![earlier.tag()]);
    (done.source, done.target) = (old.into(), Some(production));
    done.status = DeploymentStatus::SwitchoverCompleted;
    case.facts.deployments.push(done);
    assert!(leftovers(&case.facts)[0].deletes().contains("only the object"));
    // The upgrade that asks has made it itself.
    case.facts.run = Some("up-earlier".into());
    assert_eq!((case.found(), leftovers(&case.facts)), (Vec::new(), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_sees_is_judged_by_name() {
    use Severity::{Acceptable, Blocker, Note, Warning};
    check(Blocker, codes::AGENT_SEES_OTHER_SERVER, "major 15", |c| c.inspection.said.major = 15).await;
    check(Blocker, codes::MISSING_RIGHTS, "may not", |c| c.inspection.missing_rights = vec!["may not".into()]).await;
    check(Blocker, codes::QUERY_UNKNOWN, "totals", |c| c.inspection.missing_queries = vec!["totals".into()]).await;
    check(Blocker, codes::NO_REPLICA_IDENTITY, "public.log", |c| {
        c.inspection.tables_without_identity = vec![table("log")];
    })
    .await;
    check(Acceptable, codes::UNLOGGED_TABLES, "public.log", |c| c.inspection.unlogged_tables = vec![table("log")])
        .await;
    check(Acceptable, codes::LARGE_OBJECTS, "3 in orders", |c| {
        c.inspection.large_objects = vec![("orders".into(), 3)];
    })
    .await;
    check(Blocker, codes::FOREIGN_REPLICATION, "slots of others: dms", |c| {
        c.inspection.foreign_slots = vec!["dms".into()];
    })
    .await;
    check(Blocker, codes::FOREIGN_REPLICATION, "publications of others: p", |c| {
        c.inspection.foreign_publications = vec!["p".into()];
    })
    .await;
    check(Blocker, codes::FOREIGN_REPLICATION, "subscriptions of others: s", |c| {
        c.inspection.foreign_subscriptions = vec!["s".into()];
    })
    .await;
    check(Blocker, codes::PREPARED_TRANSACTIONS, "tx", |c| c.inspection.prepared_transactions = vec!["tx".into()])
        .await;
    check(Blocker, codes::READ_ONLY_OVERRIDES, "role batch", |c| {
        c.inspection.read_only_overrides = vec!["role batch".into()];
    })
    .await;
    check(Warning, codes::VIEW_REFRESHERS, "job 3", |c| c.inspection.view_refreshers = vec!["job 3".into()]).await;
    check(Note, codes::MATERIALIZED_VIEWS, "totals", |c| c.inspection.materialized_views = vec![table("totals")]).await;
    check(Warning, codes::TRIGGERS, "guard", |c| c.inspection.event_triggers = vec!["guard".into()]).await;
    check(Warning, codes::TRIGGERS, "audit", |c| c.inspection.replica_triggers = vec!["audit".into()]).await;
    check(Note, codes::OLD_TRANSACTIONS, "pid 7", |c| {
        let at = c.facts.now;
        let text = String::new;
        c.inspection.old_transactions = vec![Session {
            pid: 7,
            database: None,
            user: None,
            application: text(),
            client: None,
            state: text(),
            backend_start: Some(at),
            xact_start: Some(at),
            age_ms: 90_000,
            command: None,
        }];
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cure_that_the_spec_or_the_parameters_give_is_no_finding() {
    let mut case = Case::healthy().await;
    case.inspection.tables_without_identity = vec![table("log")];
    case.spec.replica_identity_full = vec!["orders.public.log".into()];
    case.inspection.unlogged_tables = vec![table("cache")];
    case.inspection.settings.insert("rds.logically_replicate_unlogged_tables".into(), "1".into());
    assert_eq!(case.found(), []);
}

#[tokio::test(start_paused = true)]
async fn extensions_block_want_raising_or_want_care() {
    check(Severity::Blocker, codes::EXTENSION_BLOCKS, "orders: pglogical", |c| extension(c, "pglogical", "2.4", "2.4"))
        .await;
    check(Severity::Acceptable, codes::EXTENSION_BEHIND, "postgis (3.1.9 of 3.4.0)", |c| {
        extension(c, "postgis", "3.1.9", "3.4.0");
    })
    .await;
    check(Severity::Warning, codes::EXTENSION_NEEDS_CARE, "aws_s3", |c| extension(c, "aws_s3", "1.1", "1.1")).await;
    // What is only behind is raised after the cut; what 17 has dropped goes to 16.
    let mut case = Case::healthy().await;
    extension(&mut case, "pg_stat_statements", "1.9", "1.10");
    extension(&mut case, "adminpack", "2.1", "2.1");
    assert_eq!(case.found(), []);
    let target = case.facts.target.as_mut().expect("a target");
    target.version = "17.2".into();
    assert!(case.found()[0].2.contains("PostgreSQL 17 has dropped it"), "{:?}", case.found());
}

#[tokio::test(start_paused = true)]
async fn a_foreign_server_that_leads_back_here_is_named_and_another_is_not() {
    let server = |host: String| ForeignServer { database: "orders".into(), name: "loop".into(), host };
    check(Severity::Warning, codes::FOREIGN_SERVERS, "orders: loop", |c| {
        let own = c.facts.cluster.reader_endpoint.clone().expect("a reader endpoint");
        c.inspection.foreign_servers = vec![server(own), server("elsewhere.example".into())];
    })
    .await;
    let mut case = Case::healthy().await;
    case.inspection.foreign_servers = vec![server("elsewhere.example".into())];
    assert_eq!(case.found(), []);
}
