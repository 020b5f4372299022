//! What is known of extensions and major upgrades on Aurora: which keep one from succeeding, which must be raised first, which
//! need something done by hand. Pure; what AWS does not tell by its API stands here as words.

use proto::jobs::{Extension, Inspection};

/// What stands in the way, by weight, each as `database: extension (why)`.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    pub(super) blocks: Vec<String>,
    pub(super) behind: Vec<String>,
    pub(super) care: Vec<String>,
}

/// Replicate by themselves, which Blue/Green does not allow.
const REPLICATE: [&str; 2] = ["pglogical", "pgactive"];
/// Dropped by PostgreSQL: the first major without them.
const GONE: [(&str, u32); 2] = [("adminpack", 17), ("old_snapshot", 17)];
/// AWS's upgrade checks refuse these unless they are at the newest version of the running server.
const MUST_BE_NEWEST: [&str; 8] = [
    "address_standardizer",
    "address_standardizer_data_us",
    "postgis",
    "postgis_raster",
    "postgis_sfcgal",
    "postgis_tiger_geocoder",
    "postgis_topology",
    "pgrouting",
];
const CARE: [(&str, &str); 5] = [
    ("apg_plan_mgmt", "turn capturing of plans off until the upgrade has ended"),
    ("aws_lambda", "green needs the cluster's IAM role as well"),
    ("aws_ml", "green needs the cluster's IAM role as well"),
    ("aws_s3", "green needs the cluster's IAM role as well"),
    ("babelfishpg_tsql", "green's parameters must equal blue's, and not every target version has it"),
];

/// Looks through every database. `to` is the major that the upgrade goes to, where that is known.
pub(super) fn troubles(inspection: &Inspection, to: Option<u32>) -> Troubles {
    let mut found = Troubles::default();
    for database in &inspection.databases {
        for extension in &database.extensions {
            let name = extension.name.as_str();
            let said = |why: &str| format!("{}: {name} ({why})", database.name);
            if REPLICATE.contains(&name) {
                found.blocks.push(said("it replicates by itself"));
            }
            if let Some((_, major)) =
                GONE.iter().find(|(gone, major)| *gone == name && to.is_some_and(|to| to >= *major))
            {
                found.blocks.push(said(&format!("PostgreSQL {major} has dropped it")));
            }
            if let Some(available) = newer(extension).filter(|_| MUST_BE_NEWEST.contains(&name)) {
                found.behind.push(said(&format!("{} of {available}", extension.installed)));
            }
            if let Some((_, why)) = CARE.iter().find(|(known, _)| *known == name) {
                found.care.push(said(why));
            }
        }
    }
    found
}

/// The version that the running server offers, if it is another one.
fn newer(extension: &Extension) -> Option<&str> {
    extension.available.as_deref().filter(|available| *available != extension.installed)
}
