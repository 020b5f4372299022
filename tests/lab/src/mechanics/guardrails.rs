//! The guardrails of a switchover: what the servers must be like before it begins. Only looks.

use tokio_postgres::Client;

use super::switchover::{Limits, Refusal};
use super::{Sides, health};
use crate::fleet::Error;

/// The first guardrail that trips, if any.
pub(super) async fn check(sides: &Sides, limits: &Limits) -> Result<Option<Refusal>, Error> {
    if let Some(refusal) = replication(sides, limits).await? {
        return Ok(Some(refusal));
    }
    let (blue, green) = (sides.blue.writer.admin("postgres").await?, sides.green.writer.admin("postgres").await?);
    const WRITERS: &str = "select pid, coalesce(extract(epoch from clock_timestamp() - xact_start), 0)::bigint from pg_stat_activity \
        where backend_xid is not null and usename not like 'rds%' order by 2 desc limit 1";
    if let Some(row) = first(&green, WRITERS).await? {
        return Ok(Some(Refusal::GreenWrites { pid: row.get(0) }));
    }
    if let Some(refusal) = foreign(&blue, sides).await? {
        return Ok(Some(refusal));
    }
    if let Some(row) = first(&blue, WRITERS).await? {
        let seconds = u64::try_from(row.get::<_, i64>(1)).unwrap_or(0);
        if seconds > limits.write_age_max.as_secs() {
            return Ok(Some(Refusal::LongWrite { pid: row.get(0), seconds }));
        }
    }
    const DDL: &str = "select pid from pg_stat_activity where state = 'active' and usename not like 'rds%' and backend_type = 'client backend' \
        and query ~* '^\\s*(create|alter|drop|refresh|reindex|cluster|vacuum\\s+full)\\y' \
        and clock_timestamp() - query_start > interval '1 second' limit 1";
    let ddl = first(&blue, DDL).await?;
    Ok(ddl.map(|row| Refusal::Ddl { pid: row.get(0) }))
}

async fn replication(sides: &Sides, limits: &Limits) -> Result<Option<Refusal>, Error> {
    for link in health::links(sides).await? {
        let database = link.database.clone();
        match link.lag_bytes {
            Some(lag_bytes) if link.is_replicating() => {
                if lag_bytes > limits.lag_bytes_max {
                    return Ok(Some(Refusal::Lag { database, lag_bytes, limit_bytes: limits.lag_bytes_max }));
                }
            }
            _ => return Ok(Some(Refusal::NotReplicating { database })),
        }
    }
    Ok(None)
}

/// Slots and subscriptions on blue that are not the deployment's.
async fn foreign(blue: &Client, sides: &Sides) -> Result<Option<Refusal>, Error> {
    let own: Vec<&str> = sides.links.iter().map(|link| link.slot.as_str()).collect();
    let slots = "select slot_name::text from pg_replication_slots where slot_name <> all($1) and not temporary limit 1";
    let found = blue.query_opt(slots, &[&own]).await.map_err(Error::sql("reading blue's slots"))?;
    if let Some(row) = found {
        return Ok(Some(Refusal::ForeignSlot { slot: row.get(0) }));
    }
    let subscriptions = "select d.datname::text, s.subname::text from pg_subscription s join pg_database d on d.oid = s.subdbid limit 1";
    let found = first(blue, subscriptions).await?;
    Ok(found.map(|row| Refusal::ForeignSubscription { database: row.get(0), subscription: row.get(1) }))
}

async fn first(client: &Client, question: &str) -> Result<Option<tokio_postgres::Row>, Error> {
    client.query_opt(question, &[]).await.map_err(Error::sql("reading the guardrails"))
}
