//! SQL of connections, probe and watchers. Reads, except the probe's row, the markers and ending a session; never DDL.

/// Who answers: address, version number, recovery, read-only, and whether it can say its instance's name.
pub const IDENTIFY: &str = "select host(pg_catalog.inet_server_addr()), \
     pg_catalog.current_setting('server_version_num'), \
     pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('transaction_read_only'), \
     pg_catalog.to_regprocedure('pg_catalog.aurora_db_instance_identifier()') is not null";

/// The instance's current name, where the server has the function.
pub const INSTANCE: &str = "select pg_catalog.aurora_db_instance_identifier()";

/// Databases that may be connected to. `rdsadmin` belongs to RDS and refuses.
pub const CONNECTABLE_DATABASES: &str = "select datname::text from pg_catalog.pg_database \
     where datallowconn and not datistemplate and datname <> 'rdsadmin' order by 1";
