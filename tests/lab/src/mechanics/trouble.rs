//! Harm done to real servers on purpose: apply that is slow, slots that are lost, guardrails that trip. Knows neither names
//! of clusters nor an API; whoever asks for harm says when it ends.

use std::sync::Arc;
use std::time::Duration;

use super::Sides;
use super::switchover::Limits;
use crate::faults::Guardrail;
use crate::fleet::{Admin, Error, Server, signal};
use crate::roles::quote;
use crate::settings::{MASTER_PASSWORD, MASTER_USER};

const POLL: Duration = Duration::from_millis(20);

/// Green's apply workers, stopped; they go on when it is dropped.
#[derive(Debug)]
pub struct Paused {
    workers: Vec<String>,
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.workers.iter().for_each(|pid| signal("CONT", pid));
    }
}

/// Really stops green's apply workers where they are.
///
/// # Errors
/// When green does not answer.
pub async fn pause_apply(sides: &Sides) -> Result<Paused, Error> {
    let admin = sides.green.writer.admin("postgres").await?;
    let question = "select pid::text from pg_stat_subscription where pid is not null";
    let rows = admin.query(question, &[]).await.map_err(Error::sql("finding green's apply workers"))?;
    let paused = Paused { workers: rows.iter().map(|row| row.get(0)).collect() };
    paused.workers.iter().for_each(|pid| signal("STOP", pid));
    Ok(paused)
}

/// Has blue throw away the WAL that a slot of the deployment still needs: apply stands still, `max_slot_wal_keep_size` is one
/// megabyte, and segments go by until a slot is lost. Afterwards blue keeps WAL as before.
///
/// # Errors
/// When a server does not answer, or no slot is lost in time.
pub async fn lose_slots(sides: &Sides) -> Result<(), Error> {
    let blue = &sides.blue.writer;
    let _paused = pause_apply(sides).await?;
    keep(blue, Some("1MB")).await?;
    let lost = lost_by_writing(blue, sides).await;
    keep(blue, None).await.and(lost)
}

async fn keep(blue: &Server, wal: Option<&str>) -> Result<(), Error> {
    blue.set_override("max_slot_wal_keep_size", wal)?;
    blue.reload().await
}

async fn lost_by_writing(blue: &Server, sides: &Sides) -> Result<(), Error> {
    let admin = blue.admin("postgres").await?;
    let slots: Vec<&str> = sides.links.iter().map(|link| link.slot.as_str()).collect();
    let question = "select exists (select from pg_replication_slots where slot_name = any($1) and wal_status = 'lost')";
    for _ in 0..60 {
        let segment = "select pg_logical_emit_message(false, 'rds', repeat('x', 1000)), pg_switch_wal(); checkpoint";
        admin.batch_execute(segment).await.map_err(Error::sql("writing WAL"))?;
        if admin.query_one(question, &[&slots]).await.map_err(Error::sql("reading slots"))?.get(0) {
            return Ok(());
        }
    }
    Err(Error::other("no slot was lost although its WAL should be gone"))
}

/// A guardrail that trips; [`Tripped::lift`] ends that.
#[derive(Debug, Default)]
pub struct Tripped {
    /// Open transactions: they end with their sessions.
    sessions: Vec<Admin>,
    paused: Option<Paused>,
    /// What is to be run where afterwards.
    undo: Vec<(Arc<Server>, String, String)>,
}

impl Tripped {
    /// Brings the servers out of the state again.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn lift(mut self) -> Result<(), Error> {
        self.sessions.clear();
        self.paused = None;
        for (server, database, sql) in self.undo.drain(..) {
            let session = server.admin(&database).await?;
            session.batch_execute(&sql).await.map_err(Error::sql("lifting a guardrail"))?;
        }
        Ok(())
    }
}

/// Brings the servers into the state that a guardrail refuses.
///
/// # Errors
/// When a server does not answer.
pub async fn trip(guardrail: Guardrail, sides: &Sides, limits: &mut Limits) -> Result<Tripped, Error> {
    const SLOT: &str = "lab_external";
    let (blue, green) = (&sides.blue.writer, &sides.green.writer);
    let mut tripped = Tripped::default();
    match guardrail {
        Guardrail::ExternalSlot => {
            run(blue, &format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")).await?;
            tripped.undo.push((
                Arc::clone(blue),
                "postgres".into(),
                format!("select pg_drop_replication_slot('{SLOT}')"),
            ));
        }
        Guardrail::ExternalSubscription => {
            let make = format!(
                "create subscription {SLOT} connection 'dbname=none' publication none with (connect = false, slot_name = none)"
            );
            run(blue, &make).await?;
            tripped.undo.push((Arc::clone(blue), "postgres".into(), format!("drop subscription {SLOT}")));
        }
        Guardrail::GreenWrites => tripped.sessions.push(writing(green).await?),
        Guardrail::LongWrite => {
            let session = writing(blue).await?;
            // The guardrail rounds to seconds.
            limits.write_age_max = Duration::ZERO;
            aged(&session).await?;
            tripped.sessions.push(session);
        }
        Guardrail::Lag => {
            limits.lag_bytes_max = 1 << 10;
            tripped.paused = Some(pause_apply(sides).await?);
            run(blue, "select pg_logical_emit_message(false, 'rds', repeat('x', 100000))").await?;
        }
        Guardrail::NotReplicating => {
            let link = sides.links.first().ok_or_else(|| Error::other("nothing is replicated"))?;
            let session = green.replication_admin(&link.database).await?;
            let name = quote(&link.subscription);
            let doing = "disabling a subscription";
            session.batch_execute(&format!("alter subscription {name} disable")).await.map_err(Error::sql(doing))?;
            let enable = format!("alter subscription {name} enable");
            tripped.undo.push((Arc::clone(green), link.database.clone(), enable));
        }
    }
    Ok(tripped)
}

/// A client's open transaction that has an id.
async fn writing(server: &Server) -> Result<Admin, Error> {
    let session = server.client(MASTER_USER, MASTER_PASSWORD, "postgres").await?;
    let begin = "begin; set transaction read write; select pg_current_xact_id()";
    session.batch_execute(begin).await.map_err(Error::sql("beginning a write"))?;
    Ok(session)
}

/// Waits until the transaction of this session is a second old.
async fn aged(session: &Admin) -> Result<(), Error> {
    let question = "select clock_timestamp() - now() > interval '1 second'";
    loop {
        let row = session.query_one(question, &[]).await.map_err(Error::sql("reading the age of a write"))?;
        if row.get(0) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn run(server: &Server, sql: &str) -> Result<(), Error> {
    let admin = server.admin("postgres").await?;
    admin.batch_execute(sql).await.map_err(Error::sql("tripping a guardrail"))
}
