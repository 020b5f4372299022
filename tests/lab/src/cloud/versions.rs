//! Engine versions and instance classes: what may be upgraded to what. The versions are those of the real majors.

use crate::cloud::catalogue;
use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::params::Params;
use crate::cloud::state::{family, major_of};
use crate::settings::REGION;
use crate::wire::xml::Element;

pub(crate) const ENGINE: &str = "aurora-postgresql";
const CLASSES: [&str; 6] =
    ["db.r6g.large", "db.r6g.xlarge", "db.r6g.2xlarge", "db.r6g.4xlarge", "db.r7g.large", "db.serverless"];

pub(crate) fn describe(params: &Params) -> Answer<Option<Element>> {
    let engine = params.get("Engine").unwrap_or(ENGINE);
    let wanted = params.get("EngineVersion");
    let of_family = params.get("DBParameterGroupFamily");
    let filters =
        params.filters(&["db-parameter-group-family", "engine", "engine-mode", "engine-version", "status"])?;
    let fits = |major: u32, version: &str| {
        filters.iter().all(|(name, values)| {
            let has = |one: &str| values.iter().any(|value| value == one);
            match name.as_str() {
                "db-parameter-group-family" => has(&family(major)),
                "engine" => has(ENGINE),
                "engine-mode" => has("provisioned"),
                "engine-version" => has(version),
                _ => has("available"),
            }
        })
    };
    let all: Vec<Element> = catalogue::majors()
        .filter(|_| engine == ENGINE)
        .filter(|&major| of_family.is_none_or(|name| name == family(major)))
        .filter_map(|major| Some((major, catalogue::version(major)?)))
        .filter(|(major, version)| wanted.is_none_or(|w| w == *version || w == major.to_string()))
        .filter(|(major, version)| fits(*major, version))
        .map(|(major, version)| element(major, version))
        .collect();
    let (page, marker) = params.page(all, 100)?;
    Ok(Some(Element::new("").maybe("Marker", marker).list("DBEngineVersions", page)))
}

pub(crate) fn orderable(params: &Params) -> Answer<Option<Element>> {
    let engine = params.require("Engine")?;
    let version = params.get("EngineVersion");
    let class = params.get("DBInstanceClass");
    let mut all = Vec::new();
    if engine == ENGINE {
        for known in catalogue::majors().filter_map(catalogue::version) {
            if version.is_none_or(|v| v == known || v == major_of(known).to_string()) {
                all.extend(
                    CLASSES.iter().filter(|c| class.is_none_or(|wanted| wanted == **c)).map(|c| option(known, c)),
                );
            }
        }
    }
    let (page, marker) = params.page(all, 1000)?;
    Ok(Some(Element::new("").list("OrderableDBInstanceOptions", page).maybe("Marker", marker)))
}

/// The version that a request means: `16` is the newest 16, `16.15` itself.
pub(crate) fn resolve(asked: &str) -> Answer<&'static str> {
    catalogue::version(major_of(asked))
        .filter(|known| *known == asked || asked == major_of(known).to_string())
        .ok_or_else(|| {
            Refusal::new("InvalidParameterCombination", 400, format!("Cannot find version {asked} for {ENGINE}"))
        })
}

/// Whether a cluster of `from` may go to `to`: itself or anything newer.
pub(crate) fn is_target(from: &str, to: &str) -> bool {
    catalogue::version(major_of(to)) == Some(to) && major_of(to) >= major_of(from)
}

pub(crate) fn has_class(class: &str) -> bool {
    CLASSES.contains(&class)
}

fn element(major: u32, version: &str) -> Element {
    let targets = catalogue::majors().filter(|m| *m > major).filter_map(catalogue::version).map(|target| {
        Element::new("UpgradeTarget")
            .with("Engine", ENGINE)
            .with("EngineVersion", target)
            .with("Description", format!("Aurora PostgreSQL (Compatible with PostgreSQL {target})"))
            .with("AutoUpgrade", false)
            .with("IsMajorVersionUpgrade", true)
            .list("SupportedEngineModes", [Element::text("member", "provisioned")])
            .with("SupportsBabelfish", false)
    });
    Element::new("DBEngineVersion")
        .with("Engine", ENGINE)
        .with("MajorEngineVersion", major)
        .with("EngineVersion", version)
        .with("DBParameterGroupFamily", family(major))
        .with("DBEngineDescription", "Aurora PostgreSQL")
        .with("DBEngineVersionArn", format!("arn:aws:rds:{REGION}::engine-version:{ENGINE}/{version}"))
        .with("DBEngineVersionDescription", format!("Aurora PostgreSQL (Compatible with PostgreSQL {version})"))
        .list("ValidUpgradeTarget", targets)
        .list("ExportableLogTypes", [Element::text("member", "postgresql")])
        .with("SupportsLogExportsToCloudwatchLogs", true)
        .with("SupportsReadReplica", false)
        .list("SupportedEngineModes", [Element::text("member", "provisioned")])
        .with("Status", "available")
        .with("SupportsParallelQuery", false)
        .with("SupportsGlobalDatabases", true)
        .with("SupportsBabelfish", false)
}

fn option(version: &str, class: &str) -> Element {
    Element::new("OrderableDBInstanceOption")
        .with("Engine", ENGINE)
        .with("EngineVersion", version)
        .with("DBInstanceClass", class)
        .with("LicenseModel", "postgresql-license")
        .list("AvailabilityZones", [Element::new("AvailabilityZone").with("Name", format!("{REGION}a"))])
        .with("MultiAZCapable", false)
        .with("ReadReplicaCapable", false)
        .with("Vpc", true)
        .with("SupportsStorageEncryption", true)
        .with("StorageType", "aurora")
        .with("SupportsIops", false)
        .with("SupportsIAMDatabaseAuthentication", true)
        .with("SupportsPerformanceInsights", true)
        .list("SupportedEngineModes", [Element::text("member", "provisioned")])
        .with("SupportsClusters", true)
}
