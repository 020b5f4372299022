//! One upgrade with the trouble of real life in it: a console left open inside a transaction, clients behind a pooler, long
//! statements at the cut, and a client that clings to the old side. Meanwhile every change of structure on blue is counted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::demo::schema::{self, LINES};
use lab::demo::session::{Login, Session};
use lab::fleet::LogPosition;
use serde_json::Value;
use tests::stage::facts::Facts;
use tests::stage::pilot::with;
use tests::stage::{CLUSTER, Setting, Stage, play, role};

const LIMIT: Duration = Duration::from_secs(150);
/// The old side must be without clients for so long before it may go.
const QUIET: Duration = Duration::from_secs(5);

/// Says in the server's log who changed what, whatever hides it from statement logging. It belongs to the provider's role, so
/// nobody takes it for a schema difference.
const COUNT_STRUCTURE_CHANGES: &str = "
create function public.count_structure_change() returns event_trigger language plpgsql as
  $$ begin raise log 'structure change % by %', tg_tag, session_user; end $$;
create event trigger count_structure_changes on ddl_command_end execute function public.count_structure_change();
create event trigger count_structure_drops on sql_drop execute function public.count_structure_change();";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_through_the_trouble_of_real_life_changes_no_structure_and_runs_each_statement_once() {
    play(Setting { pooled: true, ..Setting::default() }, async |stage| {
        stage.expects(&["a client is on the side that does not serve any more", "data written to the old side"]);
        let blue = stage.lab.writer(CLUSTER).context("blue has no writer")?;
        for database in [&["postgres"][..], &schema::DATABASES[..]].concat() {
            blue.admin(database).await?.batch_execute(COUNT_STRUCTURE_CHANGES).await.context(database)?;
        }
        let mut upgrade = stage.upgrade(&spec(stage)).await?;
        let id = upgrade.id.clone();
        purged(stage, &id).await.context("the console")?;
        let created = creation(stage).await?;

        let asks = |name: &'static str| move |status: &Value| status["approvals"][0]["name"] == name;
        stage.wait_until(&id, "the switchover's approval", LIMIT, asks("switchover")).await?;
        let interrupted = [nightly(stage).await?, month_end(stage).await?];
        let begun = stage.tempo.at();
        stage.pilot(&["approve", &id, "switchover"]).await?.expect(0, &[])?;
        stage.wait_until(&id, "the cleanup's approval", LIMIT, asks("cleanup")).await?;
        drop(interrupted);
        once_each(stage, &stage.history(&id).await?).await.context("what was interrupted")?;
        held(stage, &id, begun).await.context("the held client")?;

        let old = Login { host: stage.cluster.members[0].1.to_string(), ..stage.master.clone() };
        clings(stage, &id, &old).await.context("the client on the old side")?;
        stage.pilot(&["approve", &id, "cleanup"]).await?.expect(0, &[])?;
        let last_seen = refused_while_seen(stage, &id, &old).await.context("cleanup")?;
        let mut log = String::new();
        while stage.status(&id).await?["outcome"].is_null() {
            log = blue.log_since(&LogPosition::default()).unwrap_or(log);
        }
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded", "data written to the old side"])?;
        super::report::of_the_trouble_of_real_life(stage, &id).await.context("the report")?;
        let first = deletions(stage).into_iter().min().context("nothing was deleted")?;
        ensure!(
            first + Duration::from_secs(1) >= last_seen + QUIET,
            "deleted at {first:?}, a client was there at {last_seen:?}"
        );
        no_structure_change(&log, &created)?;
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// With both batch jobs in the policy, and an approval before the cut.
pub(super) fn resubmitting(stage: &Stage) -> toml::Table {
    let entry = |database: &str| {
        let mut entry = toml::Table::new();
        entry.insert("database".into(), database.into());
        entry.insert("role".into(), schema::BATCH.into());
        entry.insert("search_path".into(), "\"$user\", public".into());
        entry.insert("client_does_not_retry".into(), true.into());
        toml::Value::Table(entry)
    };
    let entries = toml::Value::Array(vec![entry("orders"), entry("billing")]);
    with(with(stage.spec(16), "switchover.resubmit", entries), "switchover.approve", true)
}

fn spec(stage: &Stage) -> toml::Table {
    let spec = resubmitting(stage);
    let spec = with(with(spec, "cleanup.policy", "approve"), "cleanup.quiet_seconds", QUIET.as_secs() as i64);
    // Nothing but a slot that is seen to wait lets the purger act.
    with(spec, "purge.age_fallback_after_seconds", 600.0)
}

async fn as_role(stage: &Stage, place: &Login, database: &str, role: &str, name: &str) -> anyhow::Result<Session> {
    let login = place.database(database).role(role, schema::PASSWORD, name);
    Ok(login.open(&stage.tempo, Duration::from_secs(5)).await?)
}

/// A console is left open inside a transaction when slots are about to be made: it is ended and recorded, with its slot.
async fn purged(stage: &Stage, id: &str) -> anyhow::Result<()> {
    stage.until_logged("provisioning started", LIMIT).await?;
    let console = as_role(stage, &stage.master, "billing", &schema::owner("billing"), "console").await?;
    let open = "begin; update console_notes set note = 'back in a minute' where id = 1";
    console.run(&stage.tempo, LIMIT, open).await?;
    let ended = async || if console.is_closed() { Ok(()) } else { Err("it is still there".to_owned()) };
    stage.tempo.until("the console's end", Duration::from_millis(50), LIMIT, ended).await?;
    let recorded = async || {
        let facts = stage.history(id).await.map_err(|error| format!("{error:#}"))?;
        let seen: Vec<Value> = events(&facts, "session_purged");
        match seen.iter().any(|event| event["session"]["application"] == "console" && event["waited_on"].is_string()) {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    };
    stage.tempo.until("the console's record", Duration::from_millis(50), LIMIT, recorded).await
}

pub(super) fn events(facts: &Facts, name: &str) -> Vec<Value> {
    let all = facts.of_kind("observed", None).map(|seen| seen["fact"]["event"].clone());
    all.filter(|event| event["event"] == name).collect()
}

/// When AWS was asked for the deployment, as a server's log writes it.
async fn creation(stage: &Stage) -> anyhow::Result<String> {
    let look = async || {
        let asked = stage.lab.requests().into_iter().find(|call| call.action == "CreateBlueGreenDeployment");
        asked.map(|call| call.at.strftime("%Y-%m-%d %H:%M:%S").to_string()).ok_or("not asked yet".to_owned())
    };
    stage.tempo.until("the creation", Duration::from_millis(50), LIMIT, look).await
}

/// Sends a statement that takes long on blue and waits until it runs there. Its client never retries.
pub(super) async fn long_statement(
    stage: &Stage,
    database: &str,
    name: &str,
    sql: String,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let session = as_role(stage, &stage.master, database, schema::BATCH, name).await?;
    let tempo = stage.tempo.clone();
    let sent = tokio::spawn(async move {
        // It is interrupted by the cut; what became of it is for the pilot to say.
        let _ = session.run(&tempo, LIMIT, &sql).await;
    });
    let runs =
        format!("select count(*) from pg_stat_activity where application_name = '{name}' and wait_event = 'PgSleep'");
    let look = async || match stage.sql("postgres", &runs).await {
        Ok(Some(count)) if count == "1" => Ok(()),
        seen => Err(format!("{seen:?}")),
    };
    stage.tempo.until(name, Duration::from_millis(20), LIMIT, look).await?;
    Ok(sent)
}

async fn nightly(stage: &Stage) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let sql = format!(
        "insert into nightly_lines (run, line, amount) select 1, g, g * 10 from generate_series(1, {LINES}) g where \
         pg_sleep(case when current_setting('server_version_num')::int / 10000 = 14 then 0.3 else 0.001 end)::text = ''"
    );
    long_statement(stage, "orders", "nightly-batch", sql).await
}

async fn month_end(stage: &Stage) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    long_statement(stage, "billing", "month-end", "call month_end(1, 120)".into()).await
}

/// The INSERT ran exactly once on the new production, the CALL was refused by name and its second half never ran.
async fn once_each(stage: &Stage, facts: &Facts) -> anyhow::Result<()> {
    let verdicts = events(facts, "resubmission");
    ensure!(verdicts.len() == 1 && verdicts[0]["verdict"]["verdict"] == "resubmitted", "{verdicts:?}");
    ensure!(verdicts[0]["database"] == "orders" && verdicts[0]["role"] == schema::BATCH, "{verdicts:?}");
    let ended = events(facts, "session_ended");
    let call =
        ended.iter().find(|event| event["session"]["application"] == "month-end").context("no end of the CALL")?;
    ensure!(call["recorded"].is_null() && call["session"]["command"] == "CALL", "{call}");
    ensure!(call["not_resubmittable"].is_string(), "{call}");
    let lines = stage.sql("orders", "select count(*) || ' ' || count(distinct line) from nightly_lines").await?;
    ensure!(lines == Some(format!("{LINES} {LINES}")), "lines and different ones: {lines:?}");
    let halves = stage.sql("billing", "select string_agg(half::text, ',') from month_ends").await?;
    ensure!(halves.as_deref() == Some("1"), "halves of the month's end: {halves:?}");
    Ok(())
}

/// Clients behind the pooler waited through the cut, no statement failed, and the hold is told.
async fn held(stage: &Stage, id: &str, since: Duration) -> anyhow::Result<()> {
    let failed = stage.failed_statements("held-writes");
    ensure!(failed == 0, "{failed} statements of the held client failed");
    let status = stage.status(id).await?;
    let told = Duration::from_millis(status["downtime"]["held_ms"].as_u64().context("no held_ms")?);
    let felt = stage.longest_gap("held-writes", since);
    ensure!(told > Duration::ZERO && felt + Duration::from_millis(500) > told, "{told:?} told, {felt:?} felt");
    ensure!(felt < Duration::from_secs(30), "the held client waited {felt:?}");
    Ok(())
}

/// Writes on the old side by address, as a pool does that clings to it and overrides read-only.
async fn write_on_old_side(stage: &Stage, old: &Login) -> anyhow::Result<Session> {
    let session = as_role(stage, old, "billing", &schema::owner("billing"), "stale-pool").await?;
    let write = "set default_transaction_read_only = off; begin read write; \
        update console_notes set note = 'written to the old side' where id = 1; commit";
    session.run(&stage.tempo, LIMIT, write).await?;
    Ok(session)
}

/// The client is listed and ended, and what it wrote is an alarm.
async fn clings(stage: &Stage, id: &str, old: &Login) -> anyhow::Result<()> {
    let session = write_on_old_side(stage, old).await?;
    let ended = async || if session.is_closed() { Ok(()) } else { Err("it is still there".to_owned()) };
    stage.tempo.until("its end", Duration::from_millis(50), LIMIT, ended).await?;
    let alarm = |status: &Value| status["alarms"].to_string().contains("data written to the old side");
    let look = async || {
        // Counters come late, and one session may be ended before it has written: a pool comes back.
        drop(write_on_old_side(stage, old).await);
        let status = stage.status(id).await.map_err(|error| format!("{error:#}"))?;
        if alarm(&status) { Ok(()) } else { Err(status["alarms"].to_string()) }
    };
    stage.tempo.until("the alarm", Duration::from_millis(300), LIMIT, look).await?;
    let seen = events(&stage.history(id).await?, "old_side_client");
    let listed = seen.iter().find(|event| event["client"]["application"] == "stale-pool");
    let listed = listed.with_context(|| format!("it is not listed: {seen:?}"))?;
    ensure!(listed["ended"] == true && listed["client"]["user"] == "billing_owner", "{listed}");
    Ok(())
}

/// Approved, cleanup waits as long as the client comes back, says why, and deletes nothing. Returns when it was there last.
async fn refused_while_seen(stage: &Stage, id: &str, old: &Login) -> anyhow::Result<Duration> {
    let mut last = stage.tempo.at();
    let look = async || {
        if write_on_old_side(stage, old).await.is_ok() {
            last = stage.tempo.at();
        }
        let status = stage.status(id).await.map_err(|error| format!("{error:#}"))?;
        let waits = status["current"]["waiting_for"].to_string();
        if waits.contains("a client was seen there") { Ok(()) } else { Err(status["current"].to_string()) }
    };
    stage.tempo.until("cleanup to wait for the client", Duration::from_millis(200), LIMIT, look).await?;
    // For longer than the quiet time it goes on coming back.
    let until = stage.tempo.at() + QUIET + Duration::from_secs(1);
    let stays = async || {
        if write_on_old_side(stage, old).await.is_ok() {
            last = stage.tempo.at();
        }
        if stage.tempo.at() >= until { Ok(()) } else { Err("it is there".to_owned()) }
    };
    stage.tempo.until("the client to stay", Duration::from_millis(300), LIMIT, stays).await?;
    let deleted = deletions(stage);
    ensure!(deleted.is_empty(), "something was deleted under the client");
    Ok(last)
}

/// When AWS was asked to delete something of the old side.
fn deletions(stage: &Stage) -> Vec<Duration> {
    let deletes = ["DeleteBlueGreenDeployment", "DeleteDBInstance", "DeleteDBCluster"];
    let all = stage.lab.requests().into_iter().filter(|call| deletes.contains(&call.action.as_str()));
    all.map(|call| stage.tempo.at_wall(call.at)).collect()
}

/// From the creation on nobody but the provider changed structures or rights on blue; before it our own schema was counted.
/// The log tells whole seconds: our schema may have been made in the very second of the creation.
fn no_structure_change(log: &str, created: &str) -> anyhow::Result<()> {
    let ours = |line: &&str| {
        let counted = line.contains("structure change ") && !line.contains(" by rds");
        // Rights on roles pass event triggers by; statement logging has them.
        counted || (line.contains(&format!(":{}@", role::NAME)) && line.contains("LOG:  statement:"))
    };
    let (before, after): (Vec<&str>, Vec<&str>) =
        log.lines().filter(ours).partition(|line| line.get(..19) <= Some(created));
    ensure!(
        before.iter().any(|line| line.contains(&format!("CREATE SCHEMA by {}", role::NAME))),
        "nothing was counted: {before:?}"
    );
    ensure!(after.is_empty(), "since {created}: {after:#?}");
    Ok(())
}
