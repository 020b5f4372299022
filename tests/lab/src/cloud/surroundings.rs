//! What stands around clusters: global databases, zero-ETL integrations, proxies. There is none unless the fault `looks` says
//! otherwise, and whoever asks for one by name is told so.

use crate::cloud::Cloud;
use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{Cluster, group_arn};
use crate::cloud::versions::ENGINE;
use crate::faults::Feature;
use crate::settings::{ACCOUNT, REGION};
use crate::wire::xml::Element;

/// Name of the one proxy.
const PROXY: &str = "lab-proxy";

/// `DescribeGlobalClusters`, `DescribeIntegrations`, `DescribeDBProxies`, `DescribeDBProxyTargets`: empty unless a fault says otherwise.
pub(crate) fn describe(cloud: &Cloud, action: &str, params: &Params) -> Answer<Option<Element>> {
    let state = cloud.state();
    let with = |feature| state.clusters.values().filter(move |c| cloud.faults().looks(&c.identifier, feature));
    let there = |feature| with(feature).next().is_some();
    named(
        params,
        "GlobalClusterIdentifier",
        there(Feature::GlobalDatabase),
        "lab-global",
        "GlobalClusterNotFoundFault",
    )?;
    named(params, "IntegrationIdentifier", there(Feature::ZeroEtl), "lab", "IntegrationNotFoundFault")?;
    named(params, "DBProxyName", there(Feature::Proxy), PROXY, "DBProxyNotFoundFault")?;
    named(params, "TargetGroupName", true, "default", "DBProxyTargetGroupNotFoundFault")?;
    let (list, all): (_, Vec<Element>) = match action {
        "DescribeGlobalClusters" => ("GlobalClusters", with(Feature::GlobalDatabase).map(global_cluster).collect()),
        "DescribeIntegrations" => ("Integrations", with(Feature::ZeroEtl).map(integration).collect()),
        "DescribeDBProxies" => ("DBProxies", with(Feature::Proxy).take(1).map(|_| proxy()).collect()),
        _ => ("Targets", with(Feature::Proxy).map(target).collect()),
    };
    let (page, marker) = params.page(all, 100)?;
    Ok(Some(Element::new("").maybe("Marker", marker).list(list, page)))
}

fn global_cluster(c: &Cluster) -> Element {
    let member = Element::new("GlobalClusterMember").with("DBClusterArn", c.arn()).with("IsWriter", true);
    Element::new("GlobalClusterMember")
        .with("GlobalClusterIdentifier", "lab-global")
        .with("Status", "available")
        .with("Engine", ENGINE)
        .list("GlobalClusterMembers", [member])
}

fn integration(c: &Cluster) -> Element {
    Element::new("Integration")
        .with("SourceArn", c.arn())
        .with("TargetArn", format!("arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:namespace/lab"))
        .with("IntegrationName", "lab-integration")
        .with("IntegrationArn", group_arn("integration", "lab"))
        .with("Status", "active")
}

fn proxy() -> Element {
    Element::new("member")
        .with("DBProxyName", PROXY)
        .with("DBProxyArn", group_arn("db-proxy", "lab"))
        .with("Status", "available")
        .with("EngineFamily", "POSTGRESQL")
}

fn target(c: &Cluster) -> Element {
    Element::new("member")
        .with("TrackedClusterId", &c.identifier)
        .with("RdsResourceId", &c.identifier)
        .with("Type", "TRACKED_CLUSTER")
}

/// What is asked for by name must be the one that there is.
fn named(params: &Params, parameter: &str, there: bool, name: &str, code: &str) -> Answer<()> {
    match params.get(parameter) {
        Some(asked) if !there || asked != name && !asked.ends_with(&format!(":{name}")) => {
            Err(Refusal::new(code, 404, format!("{asked} not found.")))
        }
        _ => Ok(()),
    }
}
