//! What RDS does to rights: a master who is no superuser, stand-ins for RDS's own roles, and what the agents' role may do.
//! Never hands out a superuser.

use std::sync::OnceLock;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::fleet::{Error, Server};
use crate::status::{self, Flavour};

/// The master user of every cluster.
pub const MASTER: &str = "postgres";
/// Its password.
pub const MASTER_PASSWORD: &str = "lab-master";
/// The agents' role.
pub const AGENT: &str = "upgrade_pilot";
/// Its password.
pub const AGENT_PASSWORD: &str = "lab-agent";

/// How often the provider's own session takes a transaction id, and how long it keeps one.
const PRESENCE_EVERY: Duration = Duration::from_secs(2);
const PRESENCE_HOLDS: Duration = Duration::from_millis(15);

/// The password of the replication role: made anew by every lab process and stored nowhere but in the servers. Servers
/// outlive a process only as orphans, which are ended.
pub(crate) fn replication_password() -> &'static str {
    static PASSWORD: OnceLock<String> = OnceLock::new();
    PASSWORD.get_or_init(|| format!("{:032x}", rand::random::<u128>()))
}

/// Makes every role, right and function of a new writer, and database `rdsadmin`.
///
/// # Errors
/// When the server does not answer or refuses.
pub async fn establish(server: &Server) -> Result<(), Error> {
    if server.identity().flavour == Flavour::Rds {
        status::offer_rds_tools(server)?;
    }
    let admin = server.admin("postgres").await?;
    let repl = replication_password();
    let text = format!(
        "create role rds_superuser nologin nosuperuser;
         create role rds_replication nologin;
         create role rds_password nologin;
         create role rdsrepladmin login superuser replication password '{repl}';
         create role {MASTER} login nosuperuser createdb createrole replication inherit password '{MASTER_PASSWORD}';
         create role {AGENT} login nosuperuser inherit password '{AGENT_PASSWORD}';
         grant rds_superuser, rds_replication, rds_password to {MASTER} with admin option;
         grant rds_superuser, {MASTER} to {AGENT};
         create database rdsadmin;
         revoke connect, temporary on database rdsadmin from public;
         alter database postgres owner to {MASTER};
         alter database template1 owner to {MASTER};"
    );
    // `create database` wants a statement of its own.
    for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        admin
            .batch_execute(statement)
            .await
            .map_err(Error::sql(format!("making roles: {}", first_words(statement))))?;
    }
    predefined_roles(&admin).await?;
    admin
        .batch_execute("alter database template0 with allow_connections true")
        .await
        .map_err(Error::sql("opening template0"))?;
    for database in ["template0", "template1", "postgres", "rdsadmin"] {
        let session = server.admin(database).await?;
        furnish(server, &session).await?;
        session.batch_execute(HEARTBEAT).await.map_err(Error::sql("making the heartbeat's table"))?;
    }
    admin
        .batch_execute("alter database template0 with allow_connections false")
        .await
        .map_err(Error::sql("closing template0"))
}

/// Makes again what an upgrade loses: the functions of `pg_catalog` in every database, new predefined roles.
///
/// # Errors
/// When the server does not answer or refuses.
pub async fn after_upgrade(server: &Server) -> Result<(), Error> {
    let admin = server.admin("postgres").await?;
    predefined_roles(&admin).await?;
    let rows = admin.query("select datname::text from pg_database where datallowconn", &[]).await;
    for row in rows.map_err(Error::sql("listing databases"))? {
        let session = server.admin(row.get(0)).await?;
        furnish(server, &session).await?;
        session
            .batch_execute(crate::install::EXTENSION_RIGHTS)
            .await
            .map_err(Error::sql("granting rights on extensions"))?;
    }
    Ok(())
}

/// Rights of the stand-in for `rds_superuser`, as far as this major has them.
async fn predefined_roles(admin: &Client) -> Result<(), Error> {
    const WANTED: &[&str] = &[
        "pg_monitor",
        "pg_signal_backend",
        "pg_read_all_settings",
        "pg_read_all_data",
        "pg_checkpoint",
        "pg_create_subscription",
        "pg_use_reserved_connections",
        "pg_maintain",
    ];
    let rows = admin.query("select rolname::text from pg_roles where rolname = any($1)", &[&WANTED]).await;
    for row in rows.map_err(Error::sql("listing roles"))? {
        let role: String = row.get(0);
        let grant = format!("grant {role} to rds_superuser with admin option");
        admin.batch_execute(&grant).await.map_err(Error::sql(format!("granting {role}")))?;
    }
    Ok(())
}

/// The provider's functions and views of `pg_catalog`, in one database.
async fn furnish(server: &Server, session: &Client) -> Result<(), Error> {
    status::furnish(session, server.identity().flavour).await?;
    let grant = "grant execute on function pg_catalog.pg_show_replication_origin_status() to rds_superuser";
    session.batch_execute(grant).await.map_err(Error::sql("granting a look at replication origins"))
}

/// The provider's own table in every database, there from the beginning: green's completeness is read from it.
const HEARTBEAT: &str = "
set client_min_messages = warning;
create schema if not exists rdsadmin;
create table if not exists rdsadmin.rds_heartbeat (id int primary key, token text not null);
revoke all on schema rdsadmin from public;
";

/// Creates a database owned by the master user, with what the agents' role needs in it.
///
/// # Errors
/// When the server does not answer or refuses.
pub async fn create_database(server: &Server, name: &str) -> Result<(), Error> {
    let admin = server.admin("postgres").await?;
    let statement = format!("create database {} owner {MASTER}", quote(name));
    admin.batch_execute(&statement).await.map_err(Error::sql(format!("creating database {name}")))
}

/// Makes the agents' role a member of every owner of user tables in every database, and lets it create schemas there.
///
/// # Errors
/// When the server does not answer or refuses.
pub async fn join_owners(server: &Server) -> Result<(), Error> {
    const OWNERS: &str = "
        select distinct r.rolname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
         where not r.rolsuper and r.rolname <> $1 and n.nspname not like 'pg\\_%'
        union select r.rolname::text from pg_extension e join pg_roles r on r.oid = e.extowner where not r.rolsuper and r.rolname <> $1
        union select r.rolname::text from pg_database d join pg_roles r on r.oid = d.datdba where not r.rolsuper and r.rolname <> $1";
    for (database, _) in server.databases().await? {
        let session = server.admin(&database).await?;
        for row in session.query(OWNERS, &[&AGENT]).await.map_err(Error::sql("listing owners"))? {
            let owner: String = row.get(0);
            let grant = format!("grant {} to {AGENT}", quote(&owner));
            session.batch_execute(&grant).await.map_err(Error::sql(format!("granting {owner}")))?;
        }
        let grant = format!("grant create, connect on database {} to {AGENT}", quote(&database));
        session.batch_execute(&grant).await.map_err(Error::sql(format!("granting create on {database}")))?;
    }
    Ok(())
}

/// The provider's own session, there as long as the server runs: it holds a transaction id for moments.
pub(crate) async fn presence(config: tokio_postgres::Config) {
    loop {
        if let Ok((client, connection)) = config.connect(NoTls).await {
            tokio::select! {
                _ = connection => {}
                _ = attend(&client) => {}
            }
        }
        tokio::time::sleep(PRESENCE_EVERY).await;
    }
}

async fn attend(client: &Client) -> Result<(), tokio_postgres::Error> {
    loop {
        let row = client.query_one("select pg_is_in_recovery()", &[]).await?;
        if !row.get::<_, bool>(0) {
            client.batch_execute("begin; select pg_current_xact_id()").await?;
            tokio::time::sleep(PRESENCE_HOLDS).await;
            client.batch_execute("commit").await?;
        }
        tokio::time::sleep(PRESENCE_EVERY).await;
    }
}

/// An identifier in SQL.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text constant in SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn first_words(statement: &str) -> String {
    // Never more than the first three words: what follows may be a password.
    statement.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
