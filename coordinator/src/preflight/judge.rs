//! What preflight's facts mean. A pure function: the loops that gather are in `mod.rs`.

use engine::ids::Code;
use proto::jobs::Inspection;

use super::{
    Facts, Finding, NoTarget, Severity, carried_over, extensions,
    leftovers::{Leftover, Whose, concerning},
};
use crate::{
    rds::{Cluster, DeploymentStatus},
    spec::UpgradeSpec,
    steps::codes,
};

/// Names grow by `-green-` and six characters, and an identifier has at most 63.
const NAME_CHARS_MAX: usize = 50;

/// Every finding, blockers first.
pub fn judge(facts: &Facts, inspection: Option<&Inspection>, spec: &UpgradeSpec) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    target(facts, spec, &mut findings);
    state(facts, &mut findings);
    deployments(facts, spec, &mut findings);
    surroundings(facts, &mut findings);
    parameters(facts, &mut findings);
    match inspection {
        Some(inspection) => database(inspection, facts, spec, &mut findings),
        None => findings.blocker(
            codes::NO_AGENT,
            "no agent of this cluster is connected",
            "start pilot-agent beside the application, bound to this cluster, and see `pilot agents`",
        ),
    }
    let mut findings = findings.0;
    findings.sort_by_key(|finding| finding.severity);
    findings
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, code: Code, what: impl Into<String>, cure: impl Into<String>) {
        self.0.push(Finding { severity, code, what: what.into(), cure: cure.into() });
    }

    fn blocker(&mut self, code: Code, what: impl Into<String>, cure: impl Into<String>) {
        self.add(Severity::Blocker, code, what, cure);
    }

    /// One blocker for a list, when there is anything in it.
    fn blocker_if_any(&mut self, code: Code, items: &[String], what: &str, cure: &str) {
        if !items.is_empty() {
            self.blocker(code, format!("{what}: {}", listed(items)), cure);
        }
    }

    fn if_any(&mut self, severity: Severity, code: Code, items: &[String], what: &str, cure: &str) {
        if !items.is_empty() {
            self.add(severity, code, format!("{what}: {}", listed(items)), cure);
        }
    }
}

/// The first ten of a list, and how many more there are.
fn listed(items: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text += &format!(" and {} more", items.len() - SHOWN);
    }
    text
}

fn target(facts: &Facts, spec: &UpgradeSpec, findings: &mut Findings) {
    let cluster = &facts.cluster;
    if cluster.engine != "aurora-postgresql" {
        findings.blocker(
            codes::NOT_AURORA_POSTGRESQL,
            format!("{} runs {}", cluster.id, cluster.engine),
            "name an Aurora PostgreSQL cluster",
        );
    }
    match &facts.target {
        Ok(_) => {}
        Err(NoTarget::NotHigher { running }) => findings.blocker(
            codes::TARGET_NOT_HIGHER,
            format!("{} is not a higher major version than the running {running}", spec.to),
            "name a higher major version",
        ),
        Err(NoTarget::NoPath { reachable }) => {
            let reachable: Vec<String> = reachable.iter().map(ToString::to_string).collect();
            findings.blocker(
                codes::TARGET_UNREACHABLE,
                format!("AWS has no upgrade from {} to {}", cluster.engine_version, spec.to),
                format!("choose one of: {}", listed(&reachable)),
            );
        }
    }
    findings.blocker_if_any(
        codes::CLASS_NOT_OFFERED,
        &facts.classes_not_offered,
        "instance classes that AWS does not offer for the target version",
        "change the class of these instances first",
    );
    let names = [cluster.id.as_str()].into_iter().chain(facts.instances.iter().map(|instance| instance.id.as_str()));
    let names = names.chain(cluster.custom_endpoints.iter().map(|host| host.split('.').next().unwrap_or_default()));
    let long: Vec<String> = names.filter(|name| name.len() > NAME_CHARS_MAX).map(str::to_owned).collect();
    findings.blocker_if_any(
        codes::NAME_TOO_LONG,
        &long,
        "names of more than 50 characters",
        "rename the cluster, the instance or the custom endpoint: a deployment's names grow by 13 characters, up to 63",
    );
}

fn state(facts: &Facts, findings: &mut Findings) {
    let cluster = &facts.cluster;
    if !cluster.status.is_available() {
        findings.blocker(
            codes::NOT_AVAILABLE,
            format!("{} is {}", cluster.id, cluster.status),
            "wait until it is available",
        );
    }
    for instance in facts.instances.iter().filter(|instance| !instance.status.is_available()) {
        findings.blocker(
            codes::NOT_AVAILABLE,
            format!("{} is {}", instance.id, instance.status),
            "wait until it is available",
        );
    }
    let pending: Vec<String> = cluster
        .pending
        .iter()
        .map(|change| format!("{}: {change}", cluster.id))
        .chain(facts.instances.iter().flat_map(|i| i.pending.iter().map(move |change| format!("{}: {change}", i.id))))
        .collect();
    findings.if_any(
        Severity::Acceptable,
        codes::PENDING_CHANGES,
        &pending,
        "changes that wait for a reboot or the maintenance window",
        "let them be applied first",
    );
}

fn deployments(facts: &Facts, spec: &UpgradeSpec, findings: &mut Findings) {
    for (deployment, whose) in concerning(facts).filter(|(d, _)| d.status != DeploymentStatus::Deleting) {
        match whose {
            Whose::Ours => {}
            Whose::Foreign => findings.blocker(
                codes::FOREIGN_DEPLOYMENT,
                format!("deployment {} ({}) of this cluster is not ours", deployment.name, deployment.id),
                "finish or delete it first",
            ),
            Whose::Left(leftover) => left(&leftover, spec, findings),
        }
    }
}

fn left(leftover: &Leftover, spec: &UpgradeSpec, findings: &mut Findings) {
    let Leftover { deployment, name, upgrade, status } = leftover;
    let what = format!("upgrade {upgrade} has left deployment {name} ({deployment}), which is {status}");
    match (status, spec.clean_leftovers) {
        (DeploymentStatus::SwitchoverInProgress, _) => {
            findings.blocker(codes::LEFTOVER_DEPLOYMENT, what, "wait until it has switched over or gone back");
        }
        (_, false) => findings.blocker(
            codes::LEFTOVER_DEPLOYMENT,
            what,
            format!(
                "see `pilot status {upgrade}`; to have it deleted first, write --clean-leftovers, or clean_leftovers = true in the spec"
            ),
        ),
        (_, true) => findings.add(
            Severity::Warning,
            codes::LEFTOVER_DEPLOYMENT,
            what,
            format!("the upgrade begins by deleting {}", leftover.deletes()),
        ),
    }
}

fn surroundings(facts: &Facts, findings: &mut Findings) {
    let cluster = &facts.cluster;
    if cluster.master_user_secret.is_some() {
        findings.blocker(
            codes::MANAGED_PASSWORD,
            "the master password is managed by Secrets Manager, which Blue/Green does not support",
            "turn the managed password off first",
        );
    }
    let arn = cluster.arn.as_str();
    let global = facts.global.iter().any(|global| global.members.iter().any(|member| member == arn));
    if cluster.global_cluster.is_some() || global {
        findings.blocker(
            codes::GLOBAL_DATABASE,
            "the cluster belongs to a Global Database",
            "remove it from the Global Database first",
        );
    }
    if cluster.replication_source.is_some() {
        findings.blocker(
            codes::IS_A_REPLICA,
            "the cluster replicates from another one",
            "promote it first, or upgrade its source",
        );
    }
    let integrations: Vec<String> =
        facts.integrations.iter().filter(|i| i.source_arn == arn).map(|i| i.name.clone()).collect();
    findings.blocker_if_any(
        codes::ZERO_ETL,
        &integrations,
        "zero-ETL integrations of this cluster",
        "delete them before the switchover and make them again after it",
    );
    for proxy in &facts.proxies {
        let endpoint = cluster.endpoint.as_deref();
        let tracks = proxy.targets.iter().any(|target| target.tracked_cluster.as_ref() == Some(&cluster.id));
        let names = proxy.targets.iter().any(|target| target.endpoint.as_deref() == endpoint && endpoint.is_some());
        if names && !tracks {
            findings.blocker(
                codes::PROXY_UNREGISTERED,
                format!("proxy {} reaches this cluster without being registered for it", proxy.name),
                "register the cluster as the proxy's target before the deployment is made",
            );
        }
    }
    if cluster.iam_database_authentication {
        findings.add(
            Severity::Acceptable,
            codes::IAM_AUTHENTICATION,
            "IAM database authentication is on: policies that name the resource id fail on green, which has another",
            "make the policies name both resource ids, then accept this finding",
        );
    }
    let maintenance: Vec<String> = facts
        .maintenance
        .iter()
        .filter(|action| concerns(&action.resource, cluster, facts))
        .map(|action| format!("{} on {}", action.action, action.resource))
        .collect();
    findings.if_any(
        Severity::Acceptable,
        codes::MAINTENANCE_DUE,
        &maintenance,
        "maintenance that may reboot a member in the middle",
        "apply or defer it, or accept this finding",
    );
}

/// Is this ARN the cluster or one of its instances?
fn concerns(resource: &str, cluster: &Cluster, facts: &Facts) -> bool {
    resource == cluster.arn.as_str() || facts.instances.iter().any(|instance| instance.arn.as_str() == resource)
}

fn parameters(facts: &Facts, findings: &mut Findings) {
    if facts.target.is_err() {
        return;
    }
    let groups = &facts.groups;
    let (_, mut lost) = carried_over(&groups.cluster_user, &groups.cluster_target);
    lost.extend(carried_over(&groups.instance_user, &groups.instance_target).1);
    let lost: Vec<String> = lost.iter().map(|l| format!("{} = {} ({})", l.name, l.value, l.why)).collect();
    findings.if_any(
        Severity::Acceptable,
        codes::PARAMETERS_LOST,
        &lost,
        "parameters that cannot go along to the target family",
        "decide what replaces each, then accept this finding",
    );
}

fn database(inspection: &Inspection, facts: &Facts, spec: &UpgradeSpec, findings: &mut Findings) {
    rights(inspection, findings);
    replication(inspection, spec, findings);
    surfaces(inspection, facts, findings);
    let name = |tables: &[proto::jobs::Table]| tables.iter().map(ToString::to_string).collect::<Vec<_>>();
    let major = facts.cluster.engine_version.major();
    if Some(inspection.said.major) != major {
        findings.blocker(
            codes::AGENT_SEES_OTHER_SERVER,
            format!(
                "the agent reaches a server of major {} where AWS says {}",
                inspection.said.major, facts.cluster.engine_version
            ),
            "point the agent at this cluster's endpoint",
        );
    }
    findings.if_any(
        Severity::Warning,
        codes::VIEW_REFRESHERS,
        &inspection.view_refreshers,
        "materialized views are refreshed by",
        "stop them: a refresh while green exists breaks replication on Aurora",
    );
    findings.if_any(
        Severity::Note,
        codes::MATERIALIZED_VIEWS,
        &name(&inspection.materialized_views),
        "materialized views stay as they were when green was made",
        "set after.refresh_views = true to refresh them on the new production",
    );
    findings.if_any(
        Severity::Warning,
        codes::TRIGGERS,
        &[inspection.replica_triggers.clone(), inspection.event_triggers.clone()].concat(),
        "triggers that fire while green applies",
        "make sure that they name their objects with a schema and write nothing twice",
    );
    let old: Vec<String> = inspection
        .old_transactions
        .iter()
        .map(|s| format!("pid {} of {} ({} s)", s.pid, s.user.as_deref().unwrap_or("?"), s.age_ms / 1000))
        .collect();
    findings.if_any(
        Severity::Note,
        codes::OLD_TRANSACTIONS,
        &old,
        "transactions that hold an id for over a minute",
        "the purger ends those that are idle while green is made",
    );
}

/// What reaches out of the databases: extensions, and foreign servers that lead back here.
fn surfaces(inspection: &Inspection, facts: &Facts, findings: &mut Findings) {
    let to = facts.target.as_ref().ok().and_then(|target| target.version.major());
    let extensions = extensions::troubles(inspection, to);
    findings.blocker_if_any(
        codes::EXTENSION_BLOCKS,
        &extensions.blocks,
        "extensions that keep the upgrade from succeeding",
        "drop them, and what depends on them, first",
    );
    findings.if_any(
        Severity::Acceptable,
        codes::EXTENSION_BEHIND,
        &extensions.behind,
        "extensions that AWS wants at the running server's newest version before a major upgrade",
        "raise them first (ALTER EXTENSION … UPDATE; for PostGIS SELECT postgis_extensions_upgrade()), or accept this finding",
    );
    findings.if_any(
        Severity::Warning,
        codes::EXTENSION_NEEDS_CARE,
        &extensions.care,
        "extensions that need something done by hand",
        "see the page of this code",
    );
    let cluster = &facts.cluster;
    let own: Vec<&str> = [cluster.endpoint.as_deref(), cluster.reader_endpoint.as_deref()]
        .into_iter()
        .flatten()
        .chain(cluster.custom_endpoints.iter().map(String::as_str))
        .chain(facts.instances.iter().filter_map(|instance| Some(instance.endpoint.as_ref()?.host.as_str())))
        .collect();
    let back = inspection.foreign_servers.iter().filter(|server| own.contains(&server.host.as_str()));
    let back: Vec<String> = back.map(|s| format!("{}: {} ({})", s.database, s.name, s.host)).collect();
    findings.if_any(
        Severity::Warning,
        codes::FOREIGN_SERVERS,
        &back,
        "foreign servers that lead to this cluster itself",
        "from green they reach blue until the cut, and the other side after it: see that nothing writes through them meanwhile",
    );
}

fn rights(inspection: &Inspection, findings: &mut Findings) {
    findings.blocker_if_any(
        codes::MISSING_RIGHTS,
        &inspection.missing_rights,
        "the agent's role lacks rights",
        "run deploy/sql/agent_role.sql as the master user",
    );
    findings.blocker_if_any(
        codes::QUERY_UNKNOWN,
        &inspection.missing_queries,
        "business queries that the agent does not know",
        "define them in the agent's configuration",
    );
}

fn replication(inspection: &Inspection, spec: &UpgradeSpec, findings: &mut Findings) {
    let uncured: Vec<String> = inspection
        .tables_without_identity
        .iter()
        .filter(|t| !spec.replica_identity_full.contains(&format!("{}.{}.{}", t.database, t.schema, t.name)))
        .map(ToString::to_string)
        .collect();
    findings.blocker_if_any(
        codes::NO_REPLICA_IDENTITY,
        &uncured,
        "tables without a primary key or replica identity",
        "give them a key, or approve REPLICA IDENTITY FULL by naming them in replica_identity_full: once they are published, \
         the application's own UPDATEs on them fail",
    );
    let copies_unlogged =
        inspection.settings.get("rds.logically_replicate_unlogged_tables").is_some_and(|v| v == "1" || v == "on");
    if !copies_unlogged {
        let unlogged: Vec<String> = inspection.unlogged_tables.iter().map(ToString::to_string).collect();
        findings.if_any(
            Severity::Acceptable,
            codes::UNLOGGED_TABLES,
            &unlogged,
            "unlogged tables, which green will not follow",
            "set rds.logically_replicate_unlogged_tables = 1, or accept that their rows are lost at the cut",
        );
    }
    let large: Vec<String> =
        inspection.large_objects.iter().map(|(database, n)| format!("{n} in {database}")).collect();
    findings.if_any(
        Severity::Acceptable,
        codes::LARGE_OBJECTS,
        &large,
        "large objects: changes to them are not replicated and degrade the deployment",
        "stop their writers for the time of the upgrade, then accept this finding",
    );
    for (items, what) in [
        (&inspection.foreign_slots, "replication slots of others"),
        (&inspection.foreign_publications, "publications of others"),
        (&inspection.foreign_subscriptions, "subscriptions of others"),
    ] {
        findings.blocker_if_any(
            codes::FOREIGN_REPLICATION,
            items,
            what,
            "note what consumes them, drop them, and make them again on the new production",
        );
    }
    findings.blocker_if_any(
        codes::PREPARED_TRANSACTIONS,
        &inspection.prepared_transactions,
        "prepared transactions, which hold slot creation up for ever",
        "commit or roll them back",
    );
    findings.blocker_if_any(
        codes::READ_ONLY_OVERRIDES,
        &inspection.read_only_overrides,
        "roles or databases that set default_transaction_read_only",
        "reset the setting: it lets sessions write to the side that must not be written to",
    );
}
