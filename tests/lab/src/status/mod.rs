//! What a server tells about itself and about its deployment, as Aurora and RDS for PostgreSQL tell it: functions that read a
//! file in the data folder, which the lab replaces by rename. So a change takes no transaction, no reload and no write right,
//! a session sees it with its next statement, and each standby answers for itself.
//!
//! What is told and when is [`life`]'s business; this file knows neither deployments nor faults.

pub(crate) mod life;
#[cfg(test)]
mod real_tests;

use std::io;
use std::path::Path;

use serde_json::json;
use tokio_postgres::Client;

use crate::fleet::{Error, Server, process};

/// Which of the two services a server plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavour {
    /// Aurora PostgreSQL: functions in `pg_catalog`, there from the beginning.
    #[default]
    Aurora,
    /// RDS for PostgreSQL: the extension `rds_tools`, which the master user creates and grants.
    Rds,
}

impl Flavour {
    /// The value of `rds.extensions`, by which drivers tell the two apart.
    pub(crate) const fn extensions(self) -> &'static str {
        match self {
            Self::Aurora => "apg_plan_mgmt,aurora_stat_utils,aws_commons,pg_cron,pg_partman,pg_stat_statements",
            Self::Rds => "aws_commons,pg_cron,pg_partman,pg_stat_statements,rds_tools",
        }
    }
}

/// What a server answers about itself and its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// `aurora_db_instance_identifier()`.
    pub instance: String,
    /// `rds_tools.dbi_resource_id()`; stays with the machine.
    pub resource: String,
    /// `aurora_replica_status()`: instance identifier and whether it is the writer.
    pub topology: Vec<(String, bool)>,
    /// `get_blue_green_fast_switchover_metadata(text)`, or `rds_tools.show_topology(text)`; empty without a deployment.
    pub blue_green: Vec<MetadataRow>,
    /// Which functions it has.
    pub flavour: Flavour,
}

/// A row about the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataRow {
    /// Resource id of the instance behind the endpoint.
    pub id: String,
    /// Host of an endpoint.
    pub endpoint: String,
    /// Its port.
    pub port: u16,
    /// Whose it is.
    pub role: Role,
    /// How far the deployment is.
    pub status: Status,
    /// When the row was written, as text of a `timestamptz`.
    pub update_stamp: String,
}

/// The side that a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Blue, whatever it is called by now.
    Source,
    /// Green.
    Target,
}

impl Role {
    /// As the row has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Source => "BLUE_GREEN_DEPLOYMENT_SOURCE",
            Self::Target => "BLUE_GREEN_DEPLOYMENT_TARGET",
        }
    }
}

/// How far a deployment is, in order. There are no others: drivers fail on an unknown text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It can be switched over; also after a switchover that was taken back.
    Available,
    /// The guardrails are being read. Everything serves.
    SwitchoverInitiated,
    /// Writes are stopped; connections are dropped and refused.
    SwitchoverInProgress,
    /// Green accepts writes.
    SwitchoverInPostProcessing,
    /// The writer's name leads to green.
    SwitchoverCompleted,
}

impl Status {
    /// As the row has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::SwitchoverInitiated => "SWITCHOVER_INITIATED",
            Self::SwitchoverInProgress => "SWITCHOVER_IN_PROGRESS",
            Self::SwitchoverInPostProcessing => "SWITCHOVER_IN_POST_PROCESSING",
            Self::SwitchoverCompleted => "SWITCHOVER_COMPLETED",
        }
    }
}

/// The file in a data folder that the functions read.
const FILE: &str = "rdslab.json";

/// Writes what the functions of the server with this data folder answer from now on.
pub(crate) fn write(data: &Path, identity: &Identity) -> io::Result<()> {
    let topology: Vec<_> = identity.topology.iter().map(|(id, writer)| json!({"id": id, "writer": writer})).collect();
    let row = |row: &MetadataRow| {
        json!({"id": row.id, "endpoint": row.endpoint, "port": row.port, "role": row.role.text(), "status": row.status.text(),
               "version": "1.0", "update_stamp": row.update_stamp})
    };
    let rows: Vec<_> = identity.blue_green.iter().map(row).collect();
    let text =
        json!({"instance": identity.instance, "resource": identity.resource, "topology": topology, "rows": rows});
    process::replace(&data.join(FILE), &text.to_string())
}

/// Makes what a server of this kind has in `pg_catalog`, in one database. No dump and no upgrade carries it, so it is made
/// again on green.
pub(crate) async fn furnish(session: &Client, flavour: Flavour) -> Result<(), Error> {
    let functions = match flavour {
        Flavour::Aurora => include_str!("aurora.sql"),
        Flavour::Rds => "",
    };
    // A superuser's session of its own: the settings go with the batch.
    let text = format!(
        "set allow_system_table_mods = on; set client_min_messages = warning; {functions} {} reset allow_system_table_mods; \
         reset client_min_messages;",
        include_str!("settings.sql")
    );
    session.batch_execute(&text).await.map_err(Error::sql("making the provider's functions"))
}

/// Puts the extension `rds_tools` into the tree of a server that plays RDS for PostgreSQL, for its users to create.
pub(crate) fn offer_rds_tools(server: &Server) -> Result<(), Error> {
    let folder = server.fleet().trees().tree(server.major()).join("share/extension");
    for (name, text) in [
        ("rds_tools.control", include_str!("rds_tools.control")),
        ("rds_tools--1.7.sql", include_str!("rds_tools--1.7.sql")),
    ] {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        process::replace(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    Ok(())
}
