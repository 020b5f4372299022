//! The source of the demo: three databases as a small shop would have them, made through the cluster endpoint by roles
//! that are no superusers. It knows which tables the demo writes and how the judge reads them; it must never touch
//! schema `upgrade_pilot`.

use std::time::Duration;

use anyhow::Context as _;

use super::ledger::TableId;
use super::session::{Login, Session};
use super::tempo::Tempo;

/// The demo's databases.
pub const DATABASES: [&str; 3] = ["orders", "billing", "telemetry"];
/// The agent's role, which must be a member of every owner.
const AGENT: &str = "upgrade_pilot";
/// The role whose statements may be resubmitted, and the one whose may not be.
pub const BATCH: &str = "batch_runner";
/// The database of the nightly statement.
pub const NIGHTLY: &str = "orders";
/// Lines that one nightly statement writes.
pub const LINES: u64 = 400;
/// The password of every role that the demo makes.
pub const PASSWORD: &str = "demo-service";
/// Seeding is slow on a busy machine; nothing waits longer than this for one statement.
const LIMIT: Duration = Duration::from_secs(300);

/// The owner of everything in a database.
pub fn owner(database: &str) -> String {
    format!("{database}_owner")
}

/// A table that is written while the upgrade runs: how the judge reads it.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Its name.
    pub table: &'static str,
    /// The writer's key of a row, in SQL.
    pub key: &'static str,
    /// The part of the row that the ledger knows, in SQL; none where the ledger only knows that it was touched.
    pub value: Option<&'static str>,
}

/// The tables written in every database.
pub const WRITTEN: [Written; 5] = [
    Written { table: "events", key: "service || '/' || n", value: Some("payload") },
    Written { table: "items", key: "service || '/' || key", value: Some("value || '@' || last_n || '#' || changes") },
    Written { table: "history", key: "client || '/' || n", value: Some("account || ':' || delta") },
    Written { table: "accounts", key: "id::text", value: None },
    Written { table: "probe_writes", key: "client || '/' || n", value: Some("n::text") },
];

/// Tables whose rows come from the database's own jobs, or from trouble that is judged by itself.
pub const UNFOLLOWED: [&str; 4] = ["cron_beats", "console_notes", "nightly_lines", "month_ends"];

/// Which extensions the pair of majors can carry on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// `pg_cron` is to be had for both.
    pub cron: bool,
    /// `pg_partman` is to be had for both.
    pub partman: bool,
}

impl Extensions {
    /// What is to be had: pg_cron for 15, 17 and 18; pg_partman for all.
    pub fn of(from: u32, to: u32) -> Self {
        let has_cron = |major: u32| matches!(major, 15 | 17 | 18);
        Self { cron: has_cron(from) && has_cron(to), partman: true }
    }
}

/// How large the source is. 1.0 is a few hundred MB.
#[derive(Clone, Copy, Debug)]
pub struct Scale(pub f64);

impl Scale {
    fn rows(self, full: u64) -> u64 {
        ((full as f64 * self.0) as u64).max(50)
    }

    /// Rows of `accounts` in each database.
    pub fn accounts(self) -> u64 {
        self.rows(20_000)
    }
}

/// Makes roles, databases, tables and rows. `master` is the master user at the cluster endpoint, database `postgres`.
pub async fn create(master: &Login, scale: Scale, extensions: Extensions, tempo: &Tempo) -> anyhow::Result<()> {
    let session = open(master, tempo).await?;
    roles_and_databases(&session, tempo).await?;
    if extensions.cron {
        cron(&session, tempo).await.context("making the cron jobs")?;
    }
    drop(session);
    let one = |database: &'static str| async move {
        let owner = master.database(database).role(&owner(database), PASSWORD, "demo-schema");
        let session = open(&owner, tempo).await?;
        run(&session, tempo, COMMON).await.with_context(|| format!("making the tables of {database}"))?;
        run(&session, tempo, &common_rows(scale)).await?;
        let own = match database {
            "orders" => orders(scale),
            "billing" => billing(scale),
            _ => telemetry(scale),
        };
        run(&session, tempo, &own).await.with_context(|| format!("filling {database}"))
    };
    let (orders, billing, telemetry) = tokio::join!(one("orders"), one("billing"), one("telemetry"));
    orders.and(billing).and(telemetry)?;
    if extensions.partman {
        partman(master, tempo).await.context("making the table that pg_partman manages")?;
    }
    Ok(())
}

async fn open(login: &Login, tempo: &Tempo) -> anyhow::Result<Session> {
    let limit = Duration::from_secs(20);
    login
        .open(tempo, limit)
        .await
        .with_context(|| format!("connecting to database {} as {}", login.database, login.user))
}

async fn run(session: &Session, tempo: &Tempo, sql: &str) -> anyhow::Result<()> {
    session.run(tempo, LIMIT, sql).await.map(drop).with_context(|| {
        let start: String = sql.chars().take(80).collect();
        format!("running: {start}")
    })
}

async fn roles_and_databases(session: &Session, tempo: &Tempo) -> anyhow::Result<()> {
    // In an unoptimised build a SCRAM handshake costs a client 200 ms of work; that would be measured as downtime of the server.
    run(session, tempo, "set password_encryption = 'md5'").await?;
    for database in DATABASES {
        let owner = owner(database);
        run(session, tempo, &format!("create role {owner} login password '{PASSWORD}'")).await?;
        run(session, tempo, &format!("grant {owner} to postgres")).await?;
        run(session, tempo, &format!("grant {owner} to {AGENT}")).await?;
        run(session, tempo, &format!("create database {database} owner {owner}")).await?;
    }
    run(session, tempo, &format!("create role {BATCH} login password '{PASSWORD}'")).await?;
    run(session, tempo, &format!("grant {BATCH} to {AGENT}")).await
}

async fn cron(session: &Session, tempo: &Tempo) -> anyhow::Result<()> {
    run(session, tempo, "create extension if not exists pg_cron").await?;
    run(session, tempo, "create table cron_beats (at timestamptz primary key default clock_timestamp())").await?;
    run(session, tempo, &format!("grant all on cron_beats to {AGENT}")).await?;
    run(session, tempo, "select cron.schedule('beat', '* * * * *', 'insert into cron_beats default values')").await?;
    run(
        session,
        tempo,
        "select cron.schedule('sweep', '30 3 * * *', $$delete from cron_beats where at < now() - interval '1 day'$$)",
    )
    .await
}

/// Both sides of a foreign key, a partitioned table, a view, a materialized view, extended statistics, an enum, jsonb.
fn orders(scale: Scale) -> String {
    format!(
        r"
create type order_state as enum ('new', 'paid', 'packed', 'sent', 'returned');
create table customers (id bigint generated always as identity primary key, name text not null, country text not null,
  profile jsonb not null default '{{}}');
insert into customers (name, country, profile)
  select 'customer ' || g, (array['de','fr','il','us','jp'])[1 + g % 5], jsonb_build_object('tier', g % 3, 'tag', md5(g::text))
    from generate_series(1, {customers}) g;
create table orders (id bigserial primary key, customer_id bigint not null references customers, state order_state not null,
  amount numeric(12,2) not null, placed date not null, note text not null);
insert into orders (customer_id, state, amount, placed, note)
  select 1 + g % {customers}, (enum_range(null::order_state))[1 + g % 5], (g % 100000) / 100.0,
         date '2026-01-01' + (g % 300)::int, md5(g::text) || md5((g * 7)::text)
    from generate_series(1, {orders}) g;
create index orders_by_customer on orders (customer_id);
create statistics orders_state_by_day (dependencies, ndistinct) on state, placed from orders;
create view open_orders as select * from orders where state in ('new', 'paid');
create materialized view sales_by_day as select placed, count(*) as n, sum(amount) as total from orders group by placed;
create unique index sales_by_day_placed on sales_by_day (placed);
create sequence ticket_rolls increment by 10 cache 50 owned by none;
select setval('ticket_rolls', 5000);
",
        customers = scale.rows(40_000),
        orders = scale.rows(700_000),
    )
}

fn billing(scale: Scale) -> String {
    format!(
        r"
create table invoices (id int generated by default as identity (start with 1000) primary key, account bigint not null,
  issued date not null, total numeric(14,4) not null, lines jsonb not null);
insert into invoices (account, issued, total, lines)
  select g % 5000, date '2026-01-01' + (g % 300)::int, g * 1.25, jsonb_build_object('a', g, 'b', md5(g::text))
    from generate_series(1, {invoices}) g;
create table ledger (day date not null, entry bigint not null, side char(1) not null, amount numeric(14,4) not null,
  primary key (day, entry)) partition by range (day);
create table ledger_q1 partition of ledger for values from ('2026-01-01') to ('2026-04-01');
create table ledger_q2 partition of ledger for values from ('2026-04-01') to ('2026-07-01');
create table ledger_rest partition of ledger default;
insert into ledger select date '2026-01-01' + (g % 300)::int, g, (array['d','c'])[1 + g % 2], g / 8.0
    from generate_series(1, {entries}) g;
create statistics ledger_side_by_day (mcv) on day, side from ledger;
create sequence refund_numbers start with -1 increment by -1;
select nextval('refund_numbers') from generate_series(1, 40);
create procedure month_end(batch int, seconds int) language plpgsql as $$
begin
  insert into month_ends (batch, half) values (month_end.batch, 1);
  commit;
  perform pg_sleep(seconds);
  insert into month_ends (batch, half) values (month_end.batch, 2);
end $$;
",
        invoices = scale.rows(400_000),
        entries = scale.rows(400_000),
    )
}

fn telemetry(scale: Scale) -> String {
    format!(
        r"
create table devices (id int primary key, model text not null, labels jsonb not null);
insert into devices select g, 'model-' || g % 17, jsonb_build_object('rack', g % 40) from generate_series(1, {devices}) g;
create table readings (device int not null references devices, at timestamptz not null, metric smallint not null,
  value double precision not null, primary key (device, at, metric)) partition by hash (device);
create table readings_0 partition of readings for values with (modulus 2, remainder 0);
create table readings_1 partition of readings for values with (modulus 2, remainder 1);
insert into readings select 1 + g % {devices}, timestamptz '2026-01-01 00:00Z' + (g / {devices}) * interval '1 minute', g % 4, sin(g)
    from generate_series(0, {readings}) g;
create view latest as select device, max(at) as at from readings group by device;
",
        devices = scale.rows(2_000),
        readings = scale.rows(900_000),
    )
}

/// The tables that services, load, probes and trouble write, in every database.
const COMMON: &str = "
create table accounts (id bigint primary key, balance bigint not null default 0, changes bigint not null default 0);
create table history (client int not null, n bigint not null, account bigint not null references accounts, delta int not null,
  at timestamptz not null default clock_timestamp(), primary key (client, n));
create sequence tickets cache 20;
create sequence countdown increment by -1 minvalue 1 maxvalue 100000000 start with 100000000;
create table events (id bigint generated by default as identity primary key, service text not null, n bigint not null,
  ticket bigint not null, countdown bigint not null, payload text not null, at timestamptz not null default clock_timestamp());
create index events_by_number on events (service, n);
create table items (service text not null, key bigint not null, value bigint not null, last_n bigint not null,
  changes bigint not null, primary key (service, key));
create table probe_writes (client text not null, n bigint not null, at timestamptz not null default clock_timestamp(),
  primary key (client, n));
create table console_notes (id int primary key, note text not null);
insert into console_notes values (1, 'nothing yet');
create table nightly_lines (id bigint generated always as identity primary key, run int not null, line int not null, amount int not null);
create table month_ends (id bigint generated always as identity primary key, batch int not null, half int not null);
grant select, insert on nightly_lines, month_ends to batch_runner;
grant select on accounts to batch_runner;
";

fn common_rows(scale: Scale) -> String {
    format!("insert into accounts (id) select g from generate_series(1, {}) g", scale.accounts())
}

/// A time-partitioned table kept by pg_partman, in `telemetry`. Both generations of its interface are known.
async fn partman(master: &Login, tempo: &Tempo) -> anyhow::Result<()> {
    let session = open(&master.database("telemetry"), tempo).await?;
    run(&session, tempo, "create schema if not exists partman authorization telemetry_owner").await?;
    run(&session, tempo, "create extension if not exists pg_partman schema partman").await?;
    let version = session.run(tempo, LIMIT, "select extversion from pg_extension where extname = 'pg_partman'").await?;
    let interval = if version.first(0).is_some_and(|v| v.starts_with('4')) {
        "p_type := 'native', p_interval := 'daily'"
    } else {
        "p_interval := '1 day'"
    };
    let table = "set role telemetry_owner;
create table alerts (id bigint not null, raised timestamptz not null, text text not null, primary key (id, raised))
  partition by range (raised); reset role";
    run(&session, tempo, table).await?;
    let create = format!(
        "select partman.create_parent(p_parent_table := 'public.alerts', p_control := 'raised', {interval}, p_premake := 3)"
    );
    run(&session, tempo, &create).await?;
    let rows = "set role telemetry_owner;
insert into alerts select g, now() + (g % 48 - 24) * interval '1 hour', 'alert ' || g from generate_series(1, 500) g; reset role";
    run(&session, tempo, rows).await
}

/// The tables that the ledger follows in `database`.
pub fn written(database: &str) -> Vec<(TableId, Written)> {
    WRITTEN.iter().map(|written| (TableId::new(database, written.table), *written)).collect()
}
