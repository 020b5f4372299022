//! What each action needs: which resources it touches and which further actions AWS asks for with it, after the service
//! authorization reference of RDS and the user guide's "Authorizing access to blue/green deployments". It decides nothing.

use std::collections::BTreeMap;

use crate::cloud::params::Params;
use crate::cloud::state::{State, Tags, group_arn};
use crate::iam::policy::{self, Need};

/// What a CloudWatch call needs: its actions know no resource.
pub(crate) fn of_monitoring(action: &str) -> Vec<Need> {
    vec![Need { action: format!("cloudwatch:{action}"), resource: "*".into(), context: BTreeMap::new() }]
}

/// What an RDS call needs, first of all the action itself.
pub(crate) fn of_rds(state: &State, action: &str, params: &Params) -> Vec<Need> {
    let call = Call { state, action, params };
    match action {
        "CreateBlueGreenDeployment" => call.creation(),
        "SwitchoverBlueGreenDeployment" => call.switchover(),
        "DeleteBlueGreenDeployment" => call.deletion(),
        "AddTagsToResource" | "RemoveTagsFromResource" | "ListTagsForResource" => {
            vec![call.itself(params.get("ResourceName").unwrap_or("*"))]
        }
        "CreateDBClusterSnapshot" => {
            let snapshot = call.named("cluster-snapshot", "DBClusterSnapshotIdentifier");
            let mut all = vec![call.itself(&call.named("cluster", "DBClusterIdentifier")), call.itself(&snapshot)];
            all.extend(call.tagging(&snapshot));
            all
        }
        "CreateDBClusterEndpoint" => {
            let endpoint = call.resource();
            let mut all = vec![call.itself(&call.named("cluster", "DBClusterIdentifier")), call.itself(&endpoint)];
            all.extend(call.tagging(&endpoint));
            all
        }
        "CreateDBClusterParameterGroup" | "CreateDBParameterGroup" => {
            let group = call.resource();
            let mut all = vec![call.itself(&group)];
            all.extend(call.tagging(&group));
            all
        }
        "ModifyDBCluster" => call.with_group("cluster-pg", "DBClusterParameterGroupName"),
        "ModifyDBInstance" => call.with_group("pg", "DBParameterGroupName"),
        "DeleteDBCluster" => {
            let mut all = vec![call.itself(&call.resource())];
            if params.get("FinalDBSnapshotIdentifier").is_some() {
                let snapshot = call.named("cluster-snapshot", "FinalDBSnapshotIdentifier");
                all.extend([call.itself(&snapshot), call.need("CreateDBClusterSnapshot", &snapshot)]);
            }
            all
        }
        _ => vec![call.itself(&call.resource())],
    }
}

struct Call<'a> {
    state: &'a State,
    action: &'a str,
    params: &'a Params,
}

impl Call<'_> {
    fn itself(&self, resource: &str) -> Need {
        self.need(self.action, resource)
    }

    fn need(&self, action: &str, resource: &str) -> Need {
        let mut context = BTreeMap::new();
        for (key, value) in tags_of(self.state, resource).into_iter().flatten() {
            context.insert(policy::key(&format!("aws:ResourceTag/{key}")), vec![value.clone()]);
        }
        let asked = self.params.tags();
        for (key, value) in &asked {
            context.insert(policy::key(&format!("aws:RequestTag/{key}")), vec![value.clone()]);
            context.insert(policy::key(&format!("rds:req-tag/{key}")), vec![value.clone()]);
        }
        let keys: Vec<String> = asked.into_keys().chain(self.params.values("TagKeys", "member")).collect();
        if !keys.is_empty() {
            context.insert(policy::key("aws:TagKeys"), keys);
        }
        Need { action: format!("rds:{action}"), resource: resource.to_owned(), context }
    }

    /// Tags that come with a creation are a right of their own.
    fn tagging(&self, resource: &str) -> Option<Need> {
        (!self.params.tags().is_empty()).then(|| self.need("AddTagsToResource", resource))
    }

    fn with_group(&self, kind: &str, parameter: &str) -> Vec<Need> {
        let mut all = vec![self.itself(&self.resource())];
        if self.params.get(parameter).is_some() {
            all.push(self.itself(&self.named(kind, parameter)));
        }
        all
    }

    /// The ARN of what a parameter names; of all of its kind when it names nothing.
    fn named(&self, kind: &str, parameter: &str) -> String {
        match self.params.get(parameter).filter(|value| !value.is_empty()) {
            Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
            Some(name) => group_arn(kind, &name.to_lowercase()),
            None => group_arn(kind, "*"),
        }
    }

    /// The one resource of an action that has one.
    fn resource(&self) -> String {
        let action = self.action;
        let (kind, parameter) = match action {
            "DescribeDBEngineVersions" | "DescribeOrderableDBInstanceOptions" => return "*".to_owned(),
            "DescribeEngineDefaultClusterParameters" | "DescribeEngineDefaultParameters" => return "*".to_owned(),
            "DescribePendingMaintenanceActions" => return "*".to_owned(),
            "DescribeEvents" => ("es", "SourceIdentifier"),
            "DescribeGlobalClusters" => ("global-cluster", "GlobalClusterIdentifier"),
            "DescribeIntegrations" => ("integration", "IntegrationIdentifier"),
            "DescribeDBProxies" | "DescribeDBProxyTargets" => ("db-proxy", "DBProxyName"),
            _ if action.contains("ClusterEndpoint") => ("cluster-endpoint", "DBClusterEndpointIdentifier"),
            "DescribeBlueGreenDeployments" => ("deployment", "BlueGreenDeploymentIdentifier"),
            _ if action.contains("ClusterSnapshot") => ("cluster-snapshot", "DBClusterSnapshotIdentifier"),
            _ if action.contains("ClusterParameter") => ("cluster-pg", "DBClusterParameterGroupName"),
            _ if action.contains("Parameter") => ("pg", "DBParameterGroupName"),
            _ if action.contains("DBCluster") => ("cluster", "DBClusterIdentifier"),
            _ => ("db", "DBInstanceIdentifier"),
        };
        self.named(kind, parameter)
    }

    /// Names of what will be made are not known beforehand, so that only `*` covers them (or a tag's condition).
    fn creation(&self) -> Vec<Need> {
        let deployment = group_arn("deployment", "*");
        let mut all = vec![self.itself(self.params.get("Source").unwrap_or("*")), self.itself(&deployment)];
        for (kind, parameter) in
            [("cluster-pg", "TargetDBClusterParameterGroupName"), ("pg", "TargetDBParameterGroupName")]
        {
            if self.params.get(parameter).is_some() {
                all.push(self.itself(&self.named(kind, parameter)));
            }
        }
        all.extend(self.tagging(&deployment));
        for (action, kind) in MADE_AND_UNMADE {
            all.push(self.need(&format!("Create{action}"), &group_arn(kind, "*")));
        }
        all
    }

    fn switchover(&self) -> Vec<Need> {
        let mut all = vec![self.itself(&self.named("deployment", "BlueGreenDeploymentIdentifier"))];
        let Some((source, target)) = self.sides() else { return all };
        for side in [Some(&source), target.as_ref()].into_iter().flatten() {
            all.push(self.need("ModifyDBCluster", side));
        }
        all.extend(target.map(|green| self.need("PromoteReadReplicaDBCluster", &green)));
        all
    }

    fn deletion(&self) -> Vec<Need> {
        let mut all = vec![self.itself(&self.named("deployment", "BlueGreenDeploymentIdentifier"))];
        let with_target = self.params.get("DeleteTarget") == Some("true");
        let Some((_, Some(green))) = self.sides().filter(|_| with_target) else { return all };
        all.push(self.need("DeleteDBCluster", &green));
        let members = self.state.cluster(&green).map(|c| c.members().cloned().collect::<Vec<_>>()).unwrap_or_default();
        for member in members.iter().filter_map(|id| self.state.instances.get(id)) {
            all.push(self.need("DeleteDBInstance", &member.arn()));
        }
        all.push(self.need("DeleteDBClusterEndpoint", &group_arn("cluster-endpoint", "*")));
        all
    }

    fn sides(&self) -> Option<(String, Option<String>)> {
        let deployment = self.state.deployment(self.params.get("BlueGreenDeploymentIdentifier")?).ok()?;
        Some((deployment.source.clone(), deployment.target.clone()))
    }
}

/// What a deployment makes beside itself, and its deletion with the target unmakes.
const MADE_AND_UNMADE: [(&str, &str); 3] =
    [("DBCluster", "cluster"), ("DBInstance", "db"), ("DBClusterEndpoint", "cluster-endpoint")];

fn tags_of<'a>(state: &'a State, arn: &str) -> Option<&'a Tags> {
    let mut parts = arn.splitn(7, ':').skip(5);
    let (kind, name) = (parts.next()?, parts.next()?);
    match kind {
        "cluster" => Some(&state.cluster(name).ok()?.tags),
        "db" => Some(&state.instance(name).ok()?.tags),
        "cluster-pg" => state.cluster_groups.get(name).map(|group| &group.tags),
        "pg" => state.instance_groups.get(name).map(|group| &group.tags),
        "cluster-snapshot" => state.snapshots.get(name).map(|snapshot| &snapshot.tags),
        "deployment" => Some(&state.deployment(name).ok()?.tags),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(action: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let params = Params::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let needs = of_rds(&State::default(), action, &params);
        needs
            .into_iter()
            .map(|need| format!("{} {}", need.action, need.resource.replace("arn:aws:rds:us-east-1:123456789012:", "")))
            .collect()
    }

    #[test]
    fn a_creation_needs_what_the_user_guide_says() {
        let asked = [("Source", "arn:aws:rds:us-east-1:123456789012:cluster:orders"), ("Tags.Tag.1.Key", "a")];
        let expected = [
            "rds:CreateBlueGreenDeployment cluster:orders",
            "rds:CreateBlueGreenDeployment deployment:*",
            "rds:AddTagsToResource deployment:*",
            "rds:CreateDBCluster cluster:*",
            "rds:CreateDBInstance db:*",
            "rds:CreateDBClusterEndpoint cluster-endpoint:*",
        ];
        assert_eq!(of("CreateBlueGreenDeployment", &asked), expected);
    }

    #[test]
    fn each_action_is_about_its_own_kind_of_thing() {
        for (action, parameter, resource) in [
            ("RebootDBInstance", "DBInstanceIdentifier", "db:x"),
            ("FailoverDBCluster", "DBClusterIdentifier", "cluster:x"),
            ("ModifyDBClusterParameterGroup", "DBClusterParameterGroupName", "cluster-pg:x"),
            ("DescribeDBParameters", "DBParameterGroupName", "pg:x"),
            ("DeleteDBClusterSnapshot", "DBClusterSnapshotIdentifier", "cluster-snapshot:x"),
            ("DownloadDBLogFilePortion", "DBInstanceIdentifier", "db:x"),
            ("DescribeBlueGreenDeployments", "BlueGreenDeploymentIdentifier", "deployment:x"),
        ] {
            assert_eq!(of(action, &[(parameter, "X")]), [format!("rds:{action} {resource}")]);
        }
        assert_eq!(of("DescribeDBClusters", &[]), ["rds:DescribeDBClusters cluster:*"]);
    }
}
