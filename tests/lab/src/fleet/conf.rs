//! A server's configuration files. Three layers, later ones win: what the lab needs, what the parameter groups say, what the
//! mechanics override for a while. Writes files, never talks to a server.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::process;
use crate::status::{self, Identity};

/// All that a server's configuration is made from.
#[derive(Debug, Clone)]
pub(crate) struct Conf {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) sockets: String,
    pub(crate) logs: String,
    pub(crate) fsync: bool,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) overrides: BTreeMap<String, String>,
    pub(crate) identity: Identity,
    pub(crate) smallest: bool,
    /// Certificate and key, when it takes TLS.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// Whether clients are refused at the door (replication and the lab's own sessions are not).
    pub(crate) closed: bool,
}

impl Conf {
    /// Writes all files of a data folder that are the lab's, each by rename.
    pub(crate) fn write(&self, data: &Path) -> io::Result<()> {
        process::replace(&data.join("postgresql.conf"), &self.settings())?;
        process::replace(&data.join("pg_hba.conf"), &self.doors())?;
        self.tell(data)
    }

    /// Writes what the server tells about itself: seen by the next statement of any session, without a reload.
    pub(crate) fn tell(&self, data: &Path) -> io::Result<()> {
        status::write(data, &self.identity)
    }

    fn settings(&self) -> String {
        let mut lines = String::from("# Written by the lab at every change; edits are lost.\n");
        let mut put = |name: &str, value: &str| {
            let value = value.replace('\\', "\\\\").replace('\'', "''").replace('\n', " ");
            lines.push_str(&format!("{name} = '{value}'\n"));
        };
        for (name, value) in BASE {
            put(name, value);
        }
        for (name, value) in if self.smallest { SMALLEST } else { &[] } {
            put(name, value);
        }
        put("listen_addresses", &self.address.to_string());
        put("port", &self.port.to_string());
        put("unix_socket_directories", &self.sockets);
        put("log_directory", &self.logs);
        put("fsync", if self.fsync { "on" } else { "off" });
        if let Some((certificate, key)) = &self.certificate {
            put("ssl", "on");
            put("ssl_cert_file", &certificate.display().to_string());
            put("ssl_key_file", &key.display().to_string());
        }
        put("wal_level", if self.is_logical() { "logical" } else { "replica" });
        for (name, value) in self.parameters.iter().chain(&self.overrides) {
            if name != "rds.logical_replication" {
                put(name, value);
            }
        }
        // Shown as PostgreSQL shows a switch, whatever was written into the group.
        put("rds.logical_replication", if self.is_logical() { "on" } else { "off" });
        put("rds.extensions", self.identity.flavour.extensions());
        lines
    }

    fn is_logical(&self) -> bool {
        let value = self.parameters.get("rds.logical_replication").map(|value| value.to_lowercase());
        matches!(value.as_deref(), Some("1" | "on" | "true"))
    }

    /// Who may come in: the provider's roles by the socket only they can reach, everybody else by password over TCP.
    fn doors(&self) -> String {
        let clients = if self.closed { "reject" } else { "scram-sha-256" };
        // Passwords that were stored as md5 are accepted by `md5` and scram by both, so md5 is the wider door.
        let clients = if clients == "reject" { clients } else { "md5" };
        format!(
            "# Written by the lab at every change; edits are lost.\n\
             local all rdsadmin trust\n\
             local all rdsrepladmin trust\n\
             host replication rdsrepladmin 127.0.0.0/8 scram-sha-256\n\
             host all rdsrepladmin 127.0.0.0/8 scram-sha-256\n\
             host all rdsadmin all reject\n\
             host rdsadmin all all reject\n\
             host all all 127.0.0.0/8 {clients}\n"
        )
    }
}

/// What differs where many servers share a machine.
const SMALLEST: &[(&str, &str)] = &[
    ("max_connections", "60"),
    ("shared_buffers", "12MB"),
    ("min_wal_size", "32MB"),
    ("max_wal_size", "128MB"),
    ("wal_keep_size", "16MB"),
    ("autovacuum_max_workers", "1"),
    ("autovacuum_naptime", "5min"),
    ("max_parallel_workers", "2"),
    ("huge_pages", "off"),
];

/// What the lab sets for every server; parameter groups may change the most of it.
const BASE: &[(&str, &str)] = &[
    ("max_connections", "200"),
    ("shared_buffers", "64MB"),
    ("max_wal_size", "2GB"),
    ("wal_keep_size", "256MB"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("max_worker_processes", "16"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "1s"),
    ("hot_standby", "on"),
    ("logging_collector", "on"),
    ("log_filename", "postgresql.log.%Y-%m-%d-%H"),
    ("log_rotation_age", "60"),
    ("log_rotation_size", "0"),
    ("log_file_mode", "0644"),
    ("log_line_prefix", "%t:%r:%u@%d:[%p]:"),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
    ("lc_messages", "C"),
    ("cron.database_name", "postgres"),
    // Jobs log in without a password on RDS; background workers need none.
    ("cron.use_background_workers", "on"),
];
