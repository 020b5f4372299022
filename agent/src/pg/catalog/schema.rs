//! SQL of our own schema: what it is made of, how it is known as ours, how it goes.

/// Makes schema `upgrade_pilot`. Every table has a primary key, which is also its replica identity; there is no sequence, so that
/// every row reaches green like any other. Rights stay with the owner, our own role.
pub const INSTALL_SCHEMA: &str = "
    create schema if not exists upgrade_pilot;
    create table if not exists upgrade_pilot.marker (key text primary key, mark text not null, at timestamptz not null, agent text not null);
    create table if not exists upgrade_pilot.probe (agent text, server inet, n bigint not null, at timestamptz not null, primary key (agent, server));
    create table if not exists upgrade_pilot.ended_statements (key text primary key, database text not null, role text not null,
        search_path text not null, statement text not null, xid text not null, pid int not null, server inet not null,
        recorded_at timestamptz not null, ended boolean not null default false, proof text, verdict text, reason text, settled_at timestamptz);
    create table if not exists upgrade_pilot.ledger (key text primary key, at timestamptz not null, agent text not null);
    create table if not exists upgrade_pilot.saved_cron (jobid bigint primary key, username text not null, active boolean not null, saved_at timestamptz not null);
    create table if not exists upgrade_pilot.saved_partman (parent text primary key, automatic_maintenance text not null, premake int not null,
        saved_at timestamptz not null);
    create table if not exists upgrade_pilot.saved_identity (schema text, name text, identity text not null, index_name text, saved_at timestamptz not null,
        primary key (schema, name));
    create table if not exists upgrade_pilot.upgrade (id text primary key, at timestamptz not null)";

/// Signs the schema with the upgrade that made it.
pub const SIGN_SCHEMA: &str =
    "insert into upgrade_pilot.upgrade (id, at) values ($1, clock_timestamp()) on conflict (id) do nothing";

/// Is the schema there, is it ours to touch, and does it have the signature table?
pub const SCHEMA_STATE: &str = "select pg_has_role(n.nspowner, 'USAGE'),
      to_regclass('upgrade_pilot.upgrade') is not null, to_regclass('upgrade_pilot.ended_statements') is not null,
      to_regclass('upgrade_pilot.ledger') is not null, to_regclass('upgrade_pilot.marker') is not null
      from pg_namespace n where n.nspname = 'upgrade_pilot'";

/// Upgrades that signed the schema, other than this one.
pub const OTHER_SIGNATURES: &str = "select id from upgrade_pilot.upgrade where id <> $1";

/// Statements whose fate is not settled, and rows of the ledger.
pub const LEDGER_STATE: &str =
    "select (select count(*) from upgrade_pilot.ended_statements where verdict is null or verdict = 'unknown'),
      (select count(*) from upgrade_pilot.ledger)";

/// Drops everything of ours.
pub const DROP_SCHEMA: &str = "drop schema if exists upgrade_pilot cascade";

/// Drops everything of ours but the ledger and the statements whose verdict is open.
pub const DROP_ALL_BUT_LEDGER: &str =
    "drop table if exists upgrade_pilot.marker, upgrade_pilot.probe, upgrade_pilot.saved_cron,
      upgrade_pilot.saved_partman, upgrade_pilot.saved_identity, upgrade_pilot.upgrade";

// ---- replica identity ------------------------------------------------------------------------------------------

/// A table's identity now: kind, and the index it uses.
pub const TABLE_IDENTITY: &str =
    "select c.relreplident::text, (select i.relname::text from pg_index x join pg_class i on i.oid = x.indexrelid
      where x.indrelid = c.oid and x.indisreplident)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2";

/// Remembers a table's identity before it is changed; the first one stays.
pub const SAVE_IDENTITY: &str =
    "insert into upgrade_pilot.saved_identity (schema, name, identity, index_name, saved_at)
      values ($1, $2, $3, $4, clock_timestamp()) on conflict do nothing";

/// What was remembered.
pub const SAVED_IDENTITY: &str =
    "select identity, index_name from upgrade_pilot.saved_identity where schema = $1 and name = $2";

/// It is back as it was.
pub const FORGET_IDENTITY: &str = "delete from upgrade_pilot.saved_identity where schema = $1 and name = $2";

/// Gives a table a replica identity: `full`, `default`, `nothing` or `using index "…"`.
pub fn set_identity(table: &str, identity: &str) -> String {
    format!("alter table {table} replica identity {identity}")
}
