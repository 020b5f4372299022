//! How green is made: publications and a base copy of blue, one logical slot for each database, the copy recovered to
//! exactly the last slot's position, `pg_upgrade --link`, subscriptions that go on from there. Also how all of it is removed.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::NoTls;
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

use super::{Link, Side, Sides, copy, health, replica, upgrade};
use crate::fleet::{Error, Fleet, Server};
use crate::roles::{self, literal, quote};

pub use crate::fleet::Node;

/// A stage of [`build`], in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// `CREATE PUBLICATION … FOR ALL TABLES` in each database.
    Publications,
    /// The base copy of blue.
    Copy,
    /// One logical slot for each database: waits for every transaction that has an id.
    Slots,
    /// The copy recovers to the last slot's position and is promoted.
    Recover,
    /// `pg_upgrade --link`.
    Upgrade,
    /// Green starts, read-only, with its own parameters; the subscriptions go on from the slots' position.
    Subscribe,
    /// Green's readers are copied and follow.
    Readers,
}

/// Told what [`build`] is at: the stage and whether it has ended.
pub type Progress = Arc<dyn Fn(Stage, bool) + Send + Sync>;

/// What green is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The 26 lower-case characters that mark this deployment in the names of slots, publications and subscriptions.
    pub tag: String,
    /// The region as it stands in the names: `us-east-1`.
    pub region: String,
    /// Major version after the upgrade; may equal blue's.
    pub major: u32,
    /// The writer.
    pub writer: Node,
    /// The readers.
    pub readers: Vec<Node>,
    /// Wait for transactions *before* making each slot, so that no waiting slot can be seen (a fault that can be played).
    pub hide_slot_wait: bool,
}

/// Why green could not be made. Everything that was begun has been removed again.
#[derive(Debug, thiserror::Error)]
#[error("green could not be made: {reason}")]
pub struct BuildFailed {
    /// Where it ended.
    pub stage: Stage,
    /// One sentence for a person.
    pub reason: String,
    /// Parameters that make it impossible, if it is that.
    pub parameters: Vec<String>,
    /// What the upgrade wrote, if it was the upgrade.
    pub log: Option<String>,
    /// Whether the caller cancelled it.
    pub cancelled: bool,
    /// Why not everything that was made is gone again: blue may have been restarting. [`clean_up`] ends it.
    pub left_behind: Option<String>,
}

/// How a stage ends early, before the clean-up.
pub(super) enum Trouble {
    Error(Error),
    Parameters(Vec<String>),
    Upgrade { reason: String, log: String },
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// How long replication may take to be seen running after the subscriptions were made.
const RUNNING_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Makes green from the running writer `blue`. On failure or cancellation nothing is left on blue and no process runs.
///
/// # Errors
/// With the stage, the reason and the upgrade's own text.
pub async fn build(
    fleet: &Fleet,
    blue: &Side,
    plan: Plan,
    progress: Progress,
    cancel: &CancellationToken,
) -> Result<Sides, BuildFailed> {
    let mut work = Work {
        fleet,
        blue,
        plan: &plan,
        progress,
        cancel,
        stage: Stage::Publications,
        links: Vec::new(),
        made: Vec::new(),
    };
    let trouble = match work.all().await {
        Ok(sides) => return Ok(sides),
        Err(trouble) => trouble,
    };
    let (stage, made) = (work.stage, std::mem::take(&mut work.made));
    let mut failed = match trouble {
        Trouble::Error(Error::Cancelled) => failure(stage, "cancelled".into()),
        Trouble::Error(error) => failure(stage, error.chain()),
        Trouble::Parameters(parameters) => {
            let reason = format!("incompatible parameter(s): [{}]", parameters.join(", "));
            BuildFailed { parameters, ..failure(stage, reason) }
        }
        Trouble::Upgrade { reason, log } => BuildFailed { log: Some(log), ..failure(stage, reason) },
    };
    failed.cancelled = cancel.is_cancelled();
    failed.left_behind = undo(&blue.writer, &plan.tag, made).await.err().map(|error| error.chain());
    Err(failed)
}

fn failure(stage: Stage, reason: String) -> BuildFailed {
    BuildFailed { stage, reason, parameters: Vec::new(), log: None, cancelled: false, left_behind: None }
}

async fn undo(blue: &Server, tag: &str, made: Vec<Arc<Server>>) -> Result<(), Error> {
    for server in made.iter().rev() {
        // The upgrade starts servers by itself; one may still be there if it was killed.
        crate::fleet::end_server_of(&server.data_dir()).await?;
        server.remove().await?;
    }
    clean_up(blue, tag).await.map(drop)
}

/// The run of [`build`].
struct Work<'a> {
    fleet: &'a Fleet,
    blue: &'a Side,
    plan: &'a Plan,
    progress: Progress,
    cancel: &'a CancellationToken,
    stage: Stage,
    links: Vec<Link>,
    /// What exists so far and has to go on failure.
    made: Vec<Arc<Server>>,
}

impl Work<'_> {
    async fn all(&mut self) -> Result<Sides, Trouble> {
        let writer = &self.blue.writer;
        self.links = links(&writer.databases().await?, self.plan);
        let incompatible = incompatible(writer, self.plan, self.links.len()).await?;
        if !incompatible.is_empty() {
            return Err(Trouble::Parameters(incompatible));
        }
        self.enter(Stage::Publications)?;
        self.publish().await?;
        self.leave();
        self.enter(Stage::Copy)?;
        let copied = self.copy().await?;
        self.leave();
        self.enter(Stage::Slots)?;
        let from = self.slots().await?;
        self.leave();
        self.enter(Stage::Recover)?;
        recover(writer, &copied, from, self.cancel).await?;
        self.leave();
        self.enter(Stage::Upgrade)?;
        let green = self.upgrade(&copied).await?;
        self.leave();
        self.enter(Stage::Subscribe)?;
        let mut sides = Sides {
            blue: self.blue.clone(),
            green: Side { writer: green, readers: Vec::new() },
            links: self.links.clone(),
        };
        sides.green.writer.set_override("default_transaction_read_only", Some("on"))?;
        sides.green.writer.start().await?;
        roles::after_upgrade(&sides.green.writer).await?;
        restore_extension_owners(&sides).await?;
        subscribe(&sides, from).await?;
        running(&sides, self.cancel).await?;
        self.leave();
        self.enter(Stage::Readers)?;
        for node in &self.plan.readers {
            let reader = replica::follow(self.fleet, &sides.green.writer, node.clone(), self.cancel).await?;
            self.made.push(Arc::clone(&reader));
            reader.set_override("default_transaction_read_only", Some("on"))?;
            sides.green.readers.push(reader);
        }
        self.leave();
        Ok(sides)
    }

    fn enter(&mut self, stage: Stage) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.stage = stage;
        (self.progress)(stage, false);
        Ok(())
    }

    fn leave(&self) {
        (self.progress)(self.stage, true);
    }

    async fn publish(&self) -> Result<(), Error> {
        for link in &self.links {
            let session = self.blue.writer.replication_admin(&link.database).await?;
            let statement = format!("create publication {} for all tables", quote(&link.publication));
            session.batch_execute(&statement).await.map_err(Error::sql(format!("publishing {}", link.database)))?;
        }
        Ok(())
    }

    /// The copy, not started: a slot that was made before its end would lie before its point of consistency.
    async fn copy(&mut self) -> Result<Arc<Server>, Error> {
        let blue = &self.blue.writer;
        let mut node = self.plan.writer.clone();
        node.name = format!("{}-copy", node.name);
        node.parameters = blue.parameters();
        let copied = self.fleet.place(node, blue.major())?;
        self.made.push(Arc::clone(&copied));
        copy::base_copy(blue, &copied.data_dir(), copied.folder(), self.cancel).await?;
        Ok(copied)
    }

    /// One slot for each database; the position from which all of them are complete.
    async fn slots(&self) -> Result<PgLsn, Error> {
        let mut last = PgLsn::from(0);
        for link in &self.links {
            if self.plan.hide_slot_wait {
                wait_for_transactions(&self.blue.writer, self.cancel).await?;
            }
            last = last.max(create_slot(&self.blue.writer, link, self.cancel).await?);
        }
        Ok(last)
    }

    async fn upgrade(&mut self, copied: &Arc<Server>) -> Result<Arc<Server>, Trouble> {
        let blue = self.blue.writer.major();
        let green = if self.plan.major == blue {
            let green = self.fleet.place(self.plan.writer.clone(), blue)?;
            self.made.push(Arc::clone(&green));
            std::fs::rename(copied.data_dir(), green.data_dir()).map_err(Error::io("moving the copy"))?;
            green
        } else {
            let green = self.fleet.create(self.plan.writer.clone(), self.plan.major).await?;
            self.made.push(Arc::clone(&green));
            upgrade::run(self.fleet, copied, &green, self.cancel).await?;
            green
        };
        copied.remove().await?;
        self.made.retain(|server| !Arc::ptr_eq(server, copied));
        Ok(green)
    }
}

fn links(databases: &[(String, u32)], plan: &Plan) -> Vec<Link> {
    let region = plan.region.replace('-', "_");
    let link = |(database, oid): &(String, u32)| Link {
        database: database.clone(),
        oid: *oid,
        slot: format!("rds_{region}_{}_{oid}", plan.tag),
        publication: format!("rds_pub_{}", plan.tag),
        subscription: format!("rds_sub_{}_{oid}", plan.tag),
    };
    databases.iter().map(link).collect()
}

/// Parameters that cannot carry the deployment: the ones that AWS names in such a case.
async fn incompatible(blue: &Server, plan: &Plan, databases: usize) -> Result<Vec<String>, Error> {
    let admin = blue.admin("postgres").await?;
    const QUESTION: &str = "select current_setting('wal_level') = 'logical',
        current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots)::int,
        current_setting('max_wal_senders')::int - (select count(*) from pg_stat_replication)::int";
    let row = admin.query_one(QUESTION, &[]).await.map_err(Error::sql("reading parameters of blue"))?;
    let needed = i32::try_from(databases).unwrap_or(i32::MAX);
    let of_green = |name: &str, otherwise: i32| {
        plan.writer.parameters.get(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    };
    let workers = of_green("max_logical_replication_workers", 4);
    let checks = [
        ("rds.logical_replication", row.get::<_, bool>(0)),
        ("max_replication_slots", row.get::<_, i32>(1) >= needed && of_green("max_replication_slots", 20) >= needed),
        // One more for the base copy and one for its WAL.
        ("max_wal_senders", row.get::<_, i32>(2) >= needed.max(2)),
        ("max_logical_replication_workers", workers >= needed),
        ("max_worker_processes", of_green("max_worker_processes", 16) > needed),
    ];
    Ok(checks.into_iter().filter(|(_, fits)| !fits).map(|(name, _)| name.to_owned()).collect())
}

/// Waits until no transaction that has an id is older than this look, leaving no trace that could be seen. Looks again after
/// every wait: what began meanwhile would hold up a slot just the same.
async fn wait_for_transactions(blue: &Server, cancel: &CancellationToken) -> Result<(), Error> {
    let admin = blue.admin("postgres").await?;
    loop {
        let row = admin.query_one("select pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await;
        let limit: String = row.map_err(Error::sql("reading the snapshot"))?.get(0);
        let mut waited = false;
        loop {
            let row =
                admin.query_one("select pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8", &[&limit]).await;
            if row.map_err(Error::sql("reading the snapshot"))?.get(0) {
                break;
            }
            waited = true;
            tokio::select! {
                () = cancel.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(POLL) => {}
            }
        }
        if !waited {
            return Ok(());
        }
    }
}

/// Makes a slot; really waits for transactions. Cancelling ends the wait and leaves no slot.
async fn create_slot(blue: &Server, link: &Link, cancel: &CancellationToken) -> Result<PgLsn, Error> {
    let session = blue.replication_admin(&link.database).await?;
    let stop = session.cancel_token();
    let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&link.slot];
    let creation = session.query_one("select lsn from pg_create_logical_replication_slot($1, 'pgoutput')", &arguments);
    tokio::pin!(creation);
    tokio::select! {
        made = &mut creation => Ok(made.map_err(Error::sql(format!("making slot {}", link.slot)))?.get(0)),
        () = cancel.cancelled() => {
            let _ = stop.cancel_query(NoTls).await;
            let _ = creation.await;
            Err(Error::Cancelled)
        }
    }
}

/// Lets the copy read blue's WAL up to `position`, not including what begins there, and promotes it.
async fn recover(blue: &Server, copied: &Server, position: PgLsn, cancel: &CancellationToken) -> Result<(), Error> {
    let primary = copy::connection(blue, copied, "rds_copy")?;
    let position = position.to_string();
    let settings = [
        ("primary_conninfo", primary.as_str()),
        ("recovery_target_lsn", position.as_str()),
        ("recovery_target_inclusive", "false"),
        ("recovery_target_action", "promote"),
        ("recovery_target_timeline", "latest"),
        // Nothing may run on it by itself: no jobs, no replication, no maintenance.
        ("shared_preload_libraries", ""),
        ("max_logical_replication_workers", "0"),
        ("autovacuum", "off"),
        ("default_transaction_read_only", "off"),
        ("log_statement", "none"),
    ];
    for (name, value) in settings {
        copied.set_override(name, Some(value))?;
    }
    copy::mark_standby(&copied.data_dir())?;
    copied.start_quietly().await?;
    let admin = copied.admin("postgres").await?;
    loop {
        let row =
            admin.query_one("select pg_is_in_recovery()", &[]).await.map_err(Error::sql("watching the recovery"))?;
        if !row.get::<_, bool>(0) {
            break;
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::Cancelled),
            () = tokio::time::sleep(POLL) => {}
        }
    }
    drop(admin);
    copied.stop(crate::fleet::Stop::Fast).await?;
    for name in [
        "primary_conninfo",
        "recovery_target_lsn",
        "recovery_target_inclusive",
        "recovery_target_action",
        "recovery_target_timeline",
    ] {
        copied.set_override(name, None)?;
    }
    Ok(())
}

/// An upgrade gives every extension to the superuser; afterwards its owner could no longer update it.
async fn restore_extension_owners(sides: &Sides) -> Result<(), Error> {
    const OWNERS: &str = "select e.extname::text, r.rolname::text from pg_extension e join pg_roles r on r.oid = e.extowner where not r.rolsuper";
    const RESTORE: &str =
        "update pg_extension set extowner = (select oid from pg_roles where rolname = $2) where extname = $1";
    for link in &sides.links {
        let doing = || format!("giving the extensions of {} back", link.database);
        let blue = sides.blue.writer.admin(&link.database).await?;
        let green = sides.green.writer.admin(&link.database).await?;
        for row in blue.query(OWNERS, &[]).await.map_err(Error::sql(doing()))? {
            let (extension, owner): (String, String) = (row.get(0), row.get(1));
            green.execute(RESTORE, &[&extension, &owner]).await.map_err(Error::sql(doing()))?;
        }
    }
    Ok(())
}

async fn subscribe(sides: &Sides, from: PgLsn) -> Result<(), Error> {
    let (blue, green) = (&sides.blue.writer, &sides.green.writer);
    for link in &sides.links {
        let doing = || format!("subscribing to {}", link.database);
        let session = green.replication_admin(&link.database).await?;
        let connection = source(blue, green, link)?;
        let name = quote(&link.subscription);
        let make = format!(
            "drop publication if exists {publication};
             create subscription {name} connection {connection} publication {publication}
               with (create_slot = false, slot_name = {slot}, enabled = false, copy_data = false)",
            publication = quote(&link.publication),
            connection = literal(&connection),
            slot = literal(&link.slot),
        );
        // What the slots give before that position is in the copy already; the origin makes apply skip it.
        let advance = "select pg_replication_origin_advance('pg_' || oid, $2) from pg_subscription where subname = $1";
        session.batch_execute(&make).await.map_err(Error::sql(doing()))?;
        session.query_one(advance, &[&link.subscription, &from]).await.map_err(Error::sql(doing()))?;
        session.batch_execute(&format!("alter subscription {name} enable")).await.map_err(Error::sql(doing()))?;
    }
    Ok(())
}

fn source(blue: &Server, green: &Server, link: &Link) -> Result<String, Error> {
    let database = link.database.replace('\\', "\\\\").replace('\'', "\\'");
    Ok(format!("{} dbname='{database}'", copy::connection(blue, green, &link.slot)?))
}

/// Waits until every link is seen running.
async fn running(sides: &Sides, cancel: &CancellationToken) -> Result<(), Error> {
    let look = async {
        loop {
            let links = health::links(sides).await?;
            if links.iter().all(|link| link.slot_active && link.worker) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Err(Error::Cancelled),
        seen = tokio::time::timeout(RUNNING_LIMIT, look) => match seen {
            Ok(seen) => seen,
            Err(_) => Err(Error::other(format!("replication was not seen running, last: {:?}", health::links(sides).await?))),
        }
    }
}

/// What [`clean_up`] removed from blue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanedUp {
    /// Slots dropped.
    pub slots: Vec<String>,
    /// Publications dropped, as `database.publication`.
    pub publications: Vec<String>,
}

/// Removes every slot and publication of the deployment `tag` from blue. Stop or delete green first, or its walsenders are
/// ended here. Idempotent.
///
/// # Errors
/// When blue does not answer or something is still there afterwards.
pub async fn clean_up(blue: &Server, tag: &str) -> Result<CleanedUp, Error> {
    let mut done = CleanedUp::default();
    let admin = blue.admin("postgres").await?;
    let pattern = format!("rds\\_%\\_{tag}\\_%");
    for row in admin
        .query("select slot_name::text from pg_replication_slots where slot_name like $1", &[&pattern])
        .await
        .map_err(Error::sql("listing slots"))?
    {
        let slot: String = row.get(0);
        drop_slot(&admin, &slot).await?;
        done.slots.push(slot);
    }
    for (database, _) in blue.databases().await? {
        let session = blue.admin(&database).await?;
        let publication = format!("rds_pub_{tag}");
        let found = session.query_opt("select 1 from pg_publication where pubname = $1", &[&publication]).await;
        if found.map_err(Error::sql("listing publications"))?.is_some() {
            let statement = format!("drop publication {}", quote(&publication));
            session
                .batch_execute(&statement)
                .await
                .map_err(Error::sql(format!("dropping {publication} of {database}")))?;
            done.publications.push(format!("{database}.{publication}"));
        }
    }
    Ok(done)
}

/// Drops a slot, ending whoever uses it. Its user may come back once or twice before it is dropped.
async fn drop_slot(admin: &tokio_postgres::Client, slot: &str) -> Result<(), Error> {
    let mut last = String::from("never tried");
    for _ in 0..500 {
        let end = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active_pid is not null";
        admin.query(end, &[&slot]).await.map_err(Error::sql("ending a walsender"))?;
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        match admin.query(drop, &[&slot]).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Error::sql("dropping a slot")(error).chain(),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Error::other(format!("slot {slot} could not be dropped, last: {last}")))
}

/// Ends replication on green's side: drops its subscriptions without touching blue (`PromoteReadReplicaDBCluster`, and
/// before green is deleted).
///
/// # Errors
/// When green does not answer.
pub async fn detach(sides: &Sides) -> Result<(), Error> {
    let drops = sides.links.iter().map(|link| async {
        let session = sides.green.writer.replication_admin(&link.database).await?;
        let found = session.query_opt("select 1 from pg_subscription where subname = $1", &[&link.subscription]).await;
        if found.map_err(Error::sql("listing subscriptions"))?.is_none() {
            return Ok(());
        }
        let name = quote(&link.subscription);
        for statement in [
            format!("alter subscription {name} disable"),
            format!("alter subscription {name} set (slot_name = none)"),
            format!("drop subscription {name}"),
        ] {
            session
                .batch_execute(&statement)
                .await
                .map_err(Error::sql(format!("dropping subscription {}", link.subscription)))?;
        }
        Ok(())
    });
    futures_util::future::try_join_all(drops).await.map(drop)
}

/// Points green's subscriptions at blue's present writer, after a failover of blue.
///
/// # Errors
/// When green does not answer.
pub async fn repoint(sides: &Sides) -> Result<(), Error> {
    for link in &sides.links {
        let session = sides.green.writer.replication_admin(&link.database).await?;
        let connection = source(&sides.blue.writer, &sides.green.writer, link)?;
        let statement = format!("alter subscription {} connection {}", quote(&link.subscription), literal(&connection));
        session
            .batch_execute(&statement)
            .await
            .map_err(Error::sql(format!("pointing {} elsewhere", link.subscription)))?;
    }
    Ok(())
}
