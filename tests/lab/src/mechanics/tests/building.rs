//! Greens that are made, wait, fail and are cancelled; readers and failovers.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::bench::{Bench, master, side, until, value};
use crate::mechanics::green::{self, Stage};
use crate::mechanics::switchover::{self, Limits};
use crate::mechanics::{Side, health, replica, snapshot};
use crate::roles::{AGENT, AGENT_PASSWORD, MASTER, MASTER_PASSWORD};

const CRON: &[(&str, &str)] = &[("shared_preload_libraries", "pg_cron")];
const EXTENSIONS: &str = "select string_agg(extname || ' ' || extversion, ', ' order by extname) from pg_extension where extname ~ 'cron|partman'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_15_to_17_with_pg_cron_and_pg_partman() {
    let bench = Bench::new(&[15, 17]).await;
    let blue = bench.blue(15, CRON).await;
    // As on RDS no superuser is needed for any of this.
    let session = master(&blue, "postgres").await;
    session
        .batch_execute("create extension pg_cron; create schema partman; create extension pg_partman schema partman")
        .await
        .expect("extensions");
    session.batch_execute("select cron.schedule('tidy', '0 3 * * *', 'select 1')").await.expect("a job");
    let agent = blue.client(AGENT, AGENT_PASSWORD, "postgres").await.expect("the agents' role");
    assert_eq!(value(&agent, "update cron.job set active = false returning jobname").await, "tidy");
    assert_eq!(value(&agent, EXTENSIONS).await, "pg_cron 1.4-1, pg_partman 4.7.2");
    let none = CancellationToken::new();
    let sides = bench.build(&side(&blue), bench.plan(17, CRON, 0), &none).await.expect("green");
    let green = Arc::clone(&sides.green.writer);
    let report =
        switchover::run(&sides, &Limits::for_timeout(Duration::from_secs(60)), Arc::new(|_| ()), &none, || async {
            Ok(())
        })
        .await;
    println!("{:?}", report.expect("switchover").writes_stopped);
    let agent = green.client(AGENT, AGENT_PASSWORD, "postgres").await.expect("the agents' role on green");
    agent
        .batch_execute("alter extension pg_cron update; alter extension pg_partman update")
        .await
        .expect("updating extensions");
    assert_eq!(value(&agent, EXTENSIONS).await, "pg_cron 1.6, pg_partman 5.2.4");
    assert_eq!(value(&agent, "update cron.job set active = true returning jobname").await, "tidy");
    agent.batch_execute("vacuum (analyze) cron.job").await.expect("maintenance by pg_maintain");
    // Jobs really run, as their owner.
    let owner = master(&green, "postgres").await;
    owner.batch_execute("create table ticks (at timestamptz default now())").await.expect("a table");
    owner
        .batch_execute("select cron.schedule('tick', '1 second', 'insert into ticks default values')")
        .await
        .expect("a job");
    const RUN: &str = "select coalesce((select status || ': ' || return_message from cron.job_run_details where command like '%ticks%' and status <> 'starting' order by runid limit 1), (select 'no run: ' || count(*) from cron.job_run_details))";
    until(&agent, RUN, "succeeded: INSERT 0 1").await;
    drop((session, agent, owner, sides, green, blue));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_waits_for_an_idle_transaction_until_it_is_terminated() {
    let bench = Bench::new(&[14, 18]).await;
    let blue = bench.blue(14, &[]).await;
    let blocker = master(&blue, "billing").await;
    blocker.batch_execute("begin; insert into item (n) values (1)").await.expect("a transaction with an id");
    let agent = blue.client(AGENT, AGENT_PASSWORD, "postgres").await.expect("the agents' role");
    let blue_side = side(&blue);
    // Cancelled while it waits: nothing is left.
    let cancel = CancellationToken::new();
    const WAITING: &str = "select count(*) from pg_replication_slots s join pg_locks l on l.pid = s.active_pid \
        where s.confirmed_flush_lsn is null and l.locktype = 'transactionid' and not l.granted";
    let build = bench.build(&blue_side, bench.plan(18, &[], 0), &cancel);
    let cancelled = async {
        until(&agent, WAITING, "1").await;
        cancel.cancel();
    };
    let (outcome, ()) = futures_util::future::join(build, cancelled).await;
    let failed = outcome.expect_err("a cancelled build");
    assert!(failed.cancelled && failed.stage == Stage::Slots, "{failed:?}");
    assert_eq!(value(&agent, "select count(*) from pg_replication_slots").await, "0");
    assert_eq!(value(&agent, "select count(*) from pg_publication").await, "0");
    // With the wait hidden there is no slot to be seen while it waits.
    let hidden = CancellationToken::new();
    let plan = green::Plan { hide_slot_wait: true, ..bench.plan(18, &[], 0) };
    let (slots, begun) = (Arc::new(tokio::sync::Notify::new()), bench.stages());
    let seen = Arc::clone(&slots);
    let progress: green::Progress = Arc::new(move |stage, ended| {
        begun(stage, ended);
        if (stage, ended) == (Stage::Slots, false) {
            seen.notify_one();
        }
    });
    let build = green::build(&bench.fleet, &blue_side, plan, progress, &hidden);
    let looked = async {
        slots.notified().await;
        for _ in 0..10 {
            assert_eq!(value(&agent, "select count(*) from pg_replication_slots").await, "0");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        hidden.cancel();
    };
    let (outcome, ()) = futures_util::future::join(build, looked).await;
    assert!(outcome.expect_err("a cancelled build").cancelled);
    // Terminated while it waits: it goes on.
    let none = CancellationToken::new();
    let build = bench.build(&blue_side, bench.plan(18, &[], 0), &none);
    let terminated = async {
        until(&agent, WAITING, "1").await;
        let purge = "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction' and backend_xid is not null and usename = 'postgres'";
        assert_eq!(value(&agent, purge).await, "t");
    };
    let (outcome, ()) = futures_util::future::join(build, terminated).await;
    let sides = outcome.expect("green");
    // Deleting it leaves blue as it was.
    green::detach(&sides).await.expect("detaching");
    let tag = super::bench::TAG;
    let removed = green::clean_up(&blue, tag).await.expect("cleaning up");
    assert_eq!((removed.slots.len(), removed.publications.len()), (3, 3));
    assert_eq!(green::clean_up(&blue, tag).await.expect("again"), green::CleanedUp::default());
    drop((blocker, agent, sides, blue_side, blue));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_cannot_be_says_why_and_leaves_nothing() {
    let bench = Bench::new(&[15, 16]).await;
    let blue = bench.blue(15, CRON).await;
    let session = master(&blue, "postgres").await;
    session.batch_execute("create extension pg_cron").await.expect("pg_cron");
    let none = CancellationToken::new();
    let failed =
        bench.build(&side(&blue), bench.plan(16, &[], 0), &none).await.expect_err("there is no pg_cron for 16");
    let log = failed.log.clone().unwrap_or_default();
    assert!(failed.stage == Stage::Upgrade && log.contains("pg_cron"), "{failed:?}");
    println!("{}", failed.reason);
    assert_eq!(value(&session, "select count(*) from pg_replication_slots").await, "0");
    assert_eq!(value(&session, "select count(*) from pg_publication").await, "0");
    let few = [("max_logical_replication_workers", "2")];
    let failed = bench.build(&side(&blue), bench.plan(16, &few, 0), &none).await.expect_err("too few workers");
    assert_eq!(failed.parameters, ["max_logical_replication_workers"]);
    drop((session, blue));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_keeps_rows_slots_and_replication() {
    let bench = Bench::new(&[16, 17]).await;
    let blue = bench.blue(16, &[]).await;
    let none = CancellationToken::new();
    let reader = replica::follow(&bench.fleet, &blue, bench.node("orders-2", 12, &[]), &none).await.expect("a reader");
    assert_eq!(value(&master(&reader, "orders").await, "select aurora_db_instance_identifier()").await, "orders-2");
    let kept = snapshot::take(&bench.fleet, &blue, "before", &none).await.expect("a snapshot");
    assert!(kept.bytes > 1 << 20 && kept.folder.join("data/backup_manifest").exists());
    snapshot::delete(&kept.folder).await.expect("deleting it");
    let blue_side = Side { writer: Arc::clone(&blue), readers: vec![Arc::clone(&reader)] };
    let mut sides = bench.build(&blue_side, bench.plan(17, &[], 0), &none).await.expect("green");
    sides.blue = replica::failover(&blue_side, 0).await.expect("failover");
    assert_eq!(sides.blue.writer.name(), "orders-2");
    green::repoint(&sides).await.expect("repointing");
    let session = master(&sides.blue.writer, "orders").await;
    session.batch_execute("insert into item (n) values (4711)").await.expect("a write");
    for server in [&sides.green.writer, &blue] {
        until(&master(server, "orders").await, "select count(*) from item where n = 4711", "1").await;
    }
    // Each database's worker comes back in its own time.
    let mut links = health::links(&sides).await.expect("health");
    for _ in 0..6000 {
        if links.iter().all(health::LinkHealth::is_replicating) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        links = health::links(&sides).await.expect("health");
    }
    assert!(links.iter().all(health::LinkHealth::is_replicating), "{links:?}");
    drop((session, sides, blue_side, reader, blue));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_have_the_rights_that_rds_gives() {
    let bench = Bench::new(&[16]).await;
    let blue = bench.blue(16, &[]).await;
    let session = master(&blue, "orders").await;
    assert_eq!(value(&session, "select count(*) from pg_roles where rolsuper and rolname not like 'rds%'").await, "0");
    for refused in [
        "alter system set work_mem = '8MB'",
        "delete from pg_class where false",
        "set role rdsadmin",
        "create role x superuser",
    ] {
        assert!(session.batch_execute(refused).await.is_err(), "{refused}");
    }
    for (user, password, database) in
        [("rdsadmin", "x", "postgres"), (MASTER, MASTER_PASSWORD, "rdsadmin"), ("rdsrepladmin", "x", "orders")]
    {
        assert!(blue.client(user, password, database).await.is_err(), "{user} in {database}");
    }
    until(
        &session,
        "select count(*) from pg_stat_activity where usename = 'rdsadmin' and application_name = 'rdsadmin'",
        "1",
    )
    .await;
    let agent = blue.client(AGENT, AGENT_PASSWORD, "orders").await.expect("the agents' role");
    agent
        .batch_execute(
            "create schema upgrade_pilot; create table upgrade_pilot.marker (id int primary key); analyze item",
        )
        .await
        .expect("its own things");
    session
        .batch_execute("create publication mine for table item; drop publication mine")
        .await
        .expect("a publication");
    // What needs a restart waits for it; a reload works all the same.
    let mut parameters = blue.parameters();
    parameters.extend([("max_connections".to_owned(), "150".to_owned()), ("work_mem".to_owned(), "9MB".to_owned())]);
    blue.set_parameters(parameters).expect("parameters");
    blue.reload().await.expect("a reload");
    assert_eq!(
        value(&session, "select current_setting('max_connections') || current_setting('work_mem')").await,
        "2009MB"
    );
    assert_eq!(value(&session, "select count(*) from pg_settings where pending_restart").await, "1");
    blue.restart().await.expect("a restart");
    assert_eq!(value(&master(&blue, "orders").await, "show max_connections").await, "150");
    assert_eq!(value(&master(&blue, "orders").await, "select version() like '%16.%'").await, "t");
    drop((session, agent, blue));
    bench.end().await;
}
