//! Green caught up with a blue that takes no more writes: a token written last in every database of blue is seen on green,
//! and every sequence has blue's value. Knows nothing of why.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};

use super::switchover::{NotSwitched, Phase};
use super::{Link, Sides};
use crate::fleet::{Admin, Error};
use crate::roles::{literal, quote};

/// Each look takes from the servers what they need to catch up.
const POLL: Duration = Duration::from_millis(4);
/// Sequences in one statement.
const BATCH: usize = 500;

/// A database on both sides.
pub(super) struct Pair {
    database: String,
    blue: Admin,
    green: Admin,
    /// Follows the token, while `green` copies sequences.
    watch: Admin,
}

impl Pair {
    pub(super) async fn open(sides: &Sides, link: &Link) -> Result<Self, Error> {
        let database = link.database.clone();
        let (blue, green) = (sides.blue.writer.admin(&database).await?, sides.green.writer.admin(&database).await?);
        let watch = sides.green.writer.admin(&database).await?;
        Ok(Self { database, blue, green, watch })
    }

    async fn catch_up(&self, last: &Mutex<String>) -> Result<u64, NotSwitched> {
        let token =
            async { self.token(last).await.map_err(|source| NotSwitched::Failed { phase: Phase::CatchUp, source }) };
        let sequences = async { self.sequences().await.map_err(NotSwitched::Sequences) };
        try_join(token, sequences).await.map(|((), copied)| copied)
    }

    /// Apply works in the order of commits: once the token shows, everything before it is there.
    async fn token(&self, last: &Mutex<String>) -> Result<(), Error> {
        let token = format!("{:032x}", rand::random::<u128>());
        let doing = || format!("following the token of {}", self.database);
        let write =
            "insert into rdsadmin.rds_heartbeat values (1, $1) on conflict (id) do update set token = excluded.token";
        self.blue.execute(write, &[&token]).await.map_err(Error::sql(doing()))?;
        loop {
            let read = self
                .watch
                .query_opt("select 1 from rdsadmin.rds_heartbeat where id = 1 and token = $1", &[&token])
                .await;
            if read.map_err(Error::sql(doing()))?.is_some() {
                return Ok(());
            }
            *last.lock().unwrap_or_else(PoisonError::into_inner) =
                format!("green has not caught up in database {}", self.database);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Copies every sequence's value. Returns how many.
    async fn sequences(&self) -> Result<u64, Error> {
        const LIST: &str = "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
            where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema')";
        let doing = |what: &str| format!("{what} sequences of {}", self.database);
        let found = self.blue.query(LIST, &[]).await.map_err(Error::sql(doing("listing")))?;
        for batch in found.chunks(BATCH) {
            let names: Vec<String> =
                batch.iter().map(|row| format!("{}.{}", quote(row.get(0)), quote(row.get(1)))).collect();
            let read: Vec<_> = names
                .iter()
                .map(|name| format!("select {}::text, last_value, is_called from {name}", literal(name)))
                .collect();
            let values = self.blue.query(&read.join(" union all "), &[]).await.map_err(Error::sql(doing("reading")))?;
            let one = |row: &tokio_postgres::Row| {
                let (name, value, called): (String, i64, bool) = (row.get(0), row.get(1), row.get(2));
                format!("pg_catalog.setval({}::regclass, {value}, {called})", literal(&name))
            };
            let write: Vec<_> = values.iter().map(|row| format!("select {}", one(row))).collect();
            self.green.batch_execute(&write.join(" union all ")).await.map_err(Error::sql(doing("copying")))?;
        }
        Ok(found.len() as u64)
    }
}

/// Catches up every database at once; what was last seen is kept in `last`. Returns how many sequences were copied.
pub(super) async fn all(databases: &[Pair], last: &Mutex<String>) -> Result<u64, NotSwitched> {
    let copied = try_join_all(databases.iter().map(|pair| pair.catch_up(last))).await?;
    Ok(copied.into_iter().sum())
}

/// Waits until the readers (all but the first) have what the writer (the first) has now.
pub(super) async fn readers(sessions: &[&Admin], last: &Mutex<String>) -> Result<(), Error> {
    let Some((writer, readers)) = sessions.split_first().filter(|(_, readers)| !readers.is_empty()) else {
        return Ok(());
    };
    // What was applied without waiting for the disk is not sent to standbys before it has been flushed.
    let flush =
        "select pg_current_wal_insert_lsn()::text from (select pg_logical_emit_message(true, 'rds', '')) as flushed";
    writer.query_one(flush, &[]).await.map_err(Error::sql("asking the writer's position"))?;
    let row = writer
        .query_one("select pg_current_wal_flush_lsn()::text", &[])
        .await
        .map_err(Error::sql("asking the writer's position"))?;
    let position: String = row.get(0);
    for reader in readers {
        loop {
            let there = reader.query_one("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&position]).await;
            if there.map_err(Error::sql("asking a reader's position"))?.get(0) {
                break;
            }
            *last.lock().unwrap_or_else(PoisonError::into_inner) = "a reader of green has not caught up".into();
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
