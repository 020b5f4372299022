//! Switchovers under writes.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::bench::{Bench, TAG, Writer, master, side, until, value};
use crate::fleet::Server;
use crate::mechanics::switchover::{self, Limits, NotSwitched, Phase, Refusal};
use crate::mechanics::{Sides, health};

fn quiet() -> switchover::Progress {
    Arc::new(|_| ())
}

const MINUTE: Duration = Duration::from_secs(60);

/// Every acknowledged number is on green exactly once.
async fn lost_or_doubled(green: &Server, acknowledged: &[i64]) -> usize {
    let session = master(green, "orders").await;
    let rows =
        session.query("select n, count(*) from item where n > 0 group by n", &[]).await.expect("reading the rows");
    let found: std::collections::BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    acknowledged.iter().filter(|number| found.get(number) != Some(&1)).count()
        + found.values().filter(|count| **count != 1).count()
}

/// Nothing of the deployment is left on either side.
async fn nothing_left(sides: &Sides) {
    let blue = sides.blue.writer.admin("orders").await.expect("blue");
    let green = sides.green.writer.admin("orders").await.expect("green");
    assert_eq!(value(&blue, "select count(*) from pg_replication_slots").await, "0");
    assert_eq!(value(&blue, "select count(*) from pg_publication").await, "0");
    assert_eq!(value(&green, "select count(*) from pg_subscription").await, "0");
    assert_eq!(value(&green, "select count(*) from pg_publication").await, "0");
    assert_eq!(value(&green, "select count(*) from pg_replication_origin").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_14_to_16_under_writes_nothing_is_lost() {
    let bench = Bench::new(&[14, 16]).await;
    let blue = bench.blue(14, &[]).await;
    let endpoint = bench.endpoint(5, &blue).await;
    let writer = Writer::start(endpoint.address(), bench.clock.clone());
    writer.more(100).await;
    let none = CancellationToken::new();
    let sides = bench.build(&side(&blue), bench.plan(16, &[], 1), &none).await.expect("green");
    let green = Arc::clone(&sides.green.writer);
    assert_eq!(value(&master(&green, "orders").await, "show transaction_read_only").await, "on");
    let names = value(
        &blue.admin("postgres").await.expect("blue"),
        "select slot_name from pg_replication_slots order by 1 limit 1",
    )
    .await;
    assert!(names.starts_with(&format!("rds_us_east_1_{TAG}_")), "{names}");
    let baseline = health::baseline(&blue, &sides.links).await.expect("baseline");
    writer.more(300).await;
    let lag = health::links(&sides).await.expect("health");
    assert!(lag.iter().all(|link| link.is_replicating() && link.lag_bytes.is_some()), "{lag:?}");
    assert_eq!(health::changes_since(&blue, &baseline).await.expect("changes"), []);
    let moved = || async {
        green.set_identity(blue.identity()).map_err(|error| error.to_string())?;
        endpoint.lead_to(green.address());
        Ok(())
    };
    let report =
        switchover::run(&sides, &Limits::for_timeout(MINUTE), quiet(), &none, moved).await.expect("switchover");
    println!("{report:#?}");
    assert_eq!(report.left_behind, Vec::<String>::new());
    writer.more(200).await;
    let (acknowledged, gap) = writer.end().await;
    println!(
        "{} rows acknowledged, longest gap {} ms, stopped {} ms",
        acknowledged.len(),
        gap.as_millis(),
        report.writes_stopped.as_millis()
    );
    assert_eq!(lost_or_doubled(&green, &acknowledged).await, 0);
    nothing_left(&sides).await;
    let session = master(&green, "billing").await;
    assert_eq!(value(&session, "select aurora_db_instance_identifier()").await, "orders-1");
    assert_eq!(value(&session, "select nextval('down')").await, "999990");
    assert_eq!(value(&session, "select nextval('never_called')").await, "1");
    assert_eq!(value(&master(&blue, "orders").await, "show transaction_read_only").await, "on");
    // Green's reader follows.
    session.batch_execute("create table after_the_cut (id int)").await.expect("a table");
    let reader = master(&sides.green.readers[0], "billing").await;
    until(&reader, "select coalesce(to_regclass('after_the_cut')::text, 'not yet')", "after_the_cut").await;
    drop((session, reader, sides, green, blue));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_puts_everything_back() {
    let bench = Bench::new(&[16, 17]).await;
    let blue = bench.blue(16, &[]).await;
    let endpoint = bench.endpoint(5, &blue).await;
    let writer = Writer::start(endpoint.address(), bench.clock.clone());
    let none = CancellationToken::new();
    let sides = bench.build(&side(&blue), bench.plan(17, &[], 0), &none).await.expect("green");
    // Apply stands still as long as somebody holds the table it has to write.
    let holder = sides.green.writer.admin("orders").await.expect("green");
    holder.batch_execute("begin; lock table item in share mode").await.expect("the lock");
    writer.more(50).await;
    let limits = Limits { timeout: Duration::from_secs(1), lag_bytes_max: u64::MAX, ..Limits::for_timeout(MINUTE) };
    let never = || async { Err("must not be reached".to_owned()) };
    let outcome = switchover::run(&sides, &limits, quiet(), &none, never).await;
    match outcome {
        Err(NotSwitched::TimedOut { phase: Phase::CatchUp, last, .. }) => assert!(last.contains("orders"), "{last}"),
        other => panic!("expected a time-out, saw {other:?}"),
    }
    writer.more(100).await;
    holder.batch_execute("rollback").await.expect("the end of the lock");
    drop(holder);
    // Replication goes on, and the second attempt gets through; a move that fails is put back as well.
    let failing = || async { Err("the names are stuck".to_owned()) };
    let outcome = switchover::run(&sides, &Limits::for_timeout(MINUTE), quiet(), &none, failing).await;
    assert!(matches!(&outcome, Err(NotSwitched::Cancelled(reason)) if reason == "the names are stuck"), "{outcome:?}");
    writer.more(100).await;
    let green = Arc::clone(&sides.green.writer);
    let moved = || async {
        endpoint.lead_to(green.address());
        Ok(())
    };
    let report =
        switchover::run(&sides, &Limits::for_timeout(MINUTE), quiet(), &none, moved).await.expect("switchover");
    writer.more(50).await;
    let (acknowledged, gap) = writer.end().await;
    println!("longest gap {} ms, stopped {} ms", gap.as_millis(), report.writes_stopped.as_millis());
    assert_eq!(lost_or_doubled(&green, &acknowledged).await, 0);
    nothing_left(&sides).await;
    drop((sides, green, blue));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guardrails_look_at_the_servers_and_changes_are_seen() {
    let bench = Bench::new(&[16]).await;
    let blue = bench.blue(16, &[]).await;
    let none = CancellationToken::new();
    let sides = bench.build(&side(&blue), bench.plan(16, &[], 0), &none).await.expect("green of the same major");
    let limits = Limits { write_age_max: Duration::ZERO, ..Limits::for_timeout(MINUTE) };
    let refusal = async || match switchover::guardrails(&sides, &limits).await {
        Err(NotSwitched::Refused(refusal)) => Some(refusal),
        Ok(()) => None,
        Err(other) => panic!("the guardrails could not be read: {other:?}"),
    };
    assert_eq!(refusal().await, None);
    let session = master(&sides.green.writer, "orders").await;
    session
        .batch_execute("begin; set transaction read write; insert into item (n) values (7)")
        .await
        .expect("a write on green");
    assert!(matches!(refusal().await, Some(Refusal::GreenWrites { .. })));
    session.batch_execute("rollback").await.expect("its end");
    let session = master(&blue, "orders").await;
    session.batch_execute("begin; insert into item (n) values (8)").await.expect("a write on blue");
    session.batch_execute("select pg_sleep(1.1)").await.expect("some age");
    assert!(matches!(refusal().await, Some(Refusal::LongWrite { .. })));
    session
        .batch_execute("rollback; select pg_create_logical_replication_slot('cdc', 'pgoutput')")
        .await
        .expect("a foreign slot");
    assert_eq!(refusal().await, Some(Refusal::ForeignSlot { slot: "cdc".into() }));
    session.batch_execute("select pg_drop_replication_slot('cdc')").await.expect("dropping it");
    let baseline = health::baseline(&blue, &sides.links).await.expect("baseline");
    session
        .batch_execute("create temp table t (id int); insert into item (n) values (9)")
        .await
        .expect("what is allowed");
    assert_eq!(health::changes_since(&blue, &baseline).await.expect("changes"), []);
    // Inside a function no log tells; the catalogue does.
    session
        .batch_execute("do $$begin execute 'create table hidden (id int primary key)'; end$$")
        .await
        .expect("hidden DDL");
    session.batch_execute("refresh materialized view totals").await.expect("a refresh");
    session.batch_execute("select lo_from_bytea(0, 'x')").await.expect("a large object");
    let changes = health::changes_since(&blue, &baseline).await.expect("changes");
    for kind in [health::ChangeKind::Ddl, health::ChangeKind::Refresh, health::ChangeKind::LargeObject] {
        assert!(changes.iter().any(|change| change.kind == kind), "{kind:?} in {changes:?}");
    }
    drop((session, sides, blue));
    bench.end().await;
}
