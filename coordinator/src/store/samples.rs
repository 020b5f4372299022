//! What is kept beside the journals: what was fixed about a run and the newest wish of it, the bounded samples that charts read, and
//! how far hooks were told. Nothing decides on any of it but the restart of a driver, which says the newest wish again, and of the
//! tellers, which go on where the bookmark is.

use engine::{JournalError, RunId, Seq};
use futures_util::future::BoxFuture;
use proto::epoch::{Epoch, StoreId};
use proto::ids::{AgentId, UpgradeId};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::rows::{signed, unsigned};
use super::sqlite::{Refusal, SqliteStore};
use super::{Bookmark, Store};
use crate::link::{Wish, WishKeeper};
use crate::operator::PlanView;

/// Samples kept of one run unless the store is told another number; the oldest go first.
pub const SAMPLES_MAX: u32 = 20_000;

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    pub at_ms: i64,
    /// `lag_bytes`, `marker_ms`, `backlog`, `ingestion_rate` …
    pub name: String,
    pub value: f64,
}

/// What was fixed when a run was created and is no fact of the engine's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The agents that must settle every intent.
    pub roster: Vec<AgentId>,
    pub from_version: String,
    pub to_version: String,
    pub asked_by: String,
    /// Of the plan that was shown.
    pub plan_digest: String,
    /// The plan itself, with what preflight found.
    pub plan: Option<PlanView>,
    /// The version of the coordinator that began it.
    pub program: String,
    /// The agents' versions then.
    pub agents: Vec<AgentVersion>,
}

/// Which version of the program an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentVersion {
    pub agent: AgentId,
    pub version: String,
}

impl Store for SqliteStore {
    fn id(&self) -> &StoreId {
        &self.id
    }

    fn prepare<'a>(&'a self, id: &'a RunId, about: &'a About) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let (key, about) = (id.clone(), serde_json::to_string(about).map_err(unreadable)?);
            self.tx("keeping what is fixed about a run", move |tx| {
                tx.execute("insert into beside (run, about) values (?1, ?2)", params![key.as_str(), about])?;
                Ok(())
            })
            .await
        })
    }

    fn about<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<(About, Option<Wish>), JournalError>> {
        let key = id.clone();
        let read = move |tx: &rusqlite::Transaction<'_>| {
            let row = tx
                .query_row("select about, wish from beside where run = ?1", [key.as_str()], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))
                })
                .optional()?;
            row.ok_or_else(|| Refusal::Journal(JournalError::NoSuchRun(key)))
        };
        Box::pin(async move {
            let (about, wish) = self.tx("reading about a run", read).await?;
            let about = serde_json::from_str(&about).map_err(unreadable)?;
            let wish = wish.map(|wish| serde_json::from_str(&wish)).transpose().map_err(unreadable)?;
            Ok((about, wish))
        })
    }

    fn add_samples<'a>(&'a self, id: &'a RunId, samples: Vec<Sample>) -> BoxFuture<'a, Result<(), JournalError>> {
        let (id, most) = (id.clone(), self.samples_max);
        Box::pin(self.tx("keeping samples", move |tx| {
            let mut insert =
                tx.prepare_cached("insert into samples (run, at_ms, name, value) values (?1, ?2, ?3, ?4)")?;
            for sample in &samples {
                insert.execute(params![id.as_str(), sample.at_ms, sample.name, sample.value])?;
            }
            tx.prepare_cached(
                "delete from samples where run = ?1 and n <= (select max(n) from samples where run = ?1) - ?2",
            )?
            .execute(params![id.as_str(), most])?;
            Ok(())
        }))
    }

    fn samples<'a>(&'a self, id: &'a RunId, limit: u32) -> BoxFuture<'a, Result<Vec<Sample>, JournalError>> {
        let id = id.clone();
        Box::pin(self.tx("reading samples", move |tx| {
            let mut statement = tx.prepare_cached(
                "select at_ms, name, value from (select n, at_ms, name, value from samples where run = ?1 \
                 order by n desc limit ?2) order by n",
            )?;
            let sample =
                |row: &rusqlite::Row<'_>| Ok(Sample { at_ms: row.get(0)?, name: row.get(1)?, value: row.get(2)? });
            Ok(statement.query_map(params![id.as_str(), limit], sample)?.collect::<Result<Vec<_>, _>>()?)
        }))
    }

    fn bookmarks(&self) -> BoxFuture<'_, Result<Vec<Bookmark>, JournalError>> {
        Box::pin(self.tx("reading bookmarks", |tx| {
            let mut statement = tx.prepare_cached("select run, hook, next from bookmarks order by run, hook")?;
            let mark = |row: &rusqlite::Row<'_>| {
                let (run, hook) = (RunId(row.get(0)?), row.get(1)?);
                Ok(Bookmark { run, hook, next: Seq(unsigned(row.get(2)?)) })
            };
            Ok(statement.query_map([], mark)?.collect::<Result<Vec<_>, _>>()?)
        }))
    }

    fn keep_bookmark<'a>(&'a self, mark: &'a Bookmark) -> BoxFuture<'a, Result<(), JournalError>> {
        let Bookmark { run, hook, next } = mark.clone();
        Box::pin(self.tx("keeping a bookmark", move |tx| {
            let upsert = "insert into bookmarks (run, hook, next) values (?1, ?2, ?3) \
                          on conflict do update set next = max(next, excluded.next)";
            tx.prepare_cached(upsert)?.execute(params![run.as_str(), hook, signed(next.0)?])?;
            Ok(())
        }))
    }

    fn drop_bookmark<'a>(&'a self, run: &'a RunId, hook: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        let (run, hook) = (run.clone(), hook.to_owned());
        Box::pin(self.tx("dropping a bookmark", move |tx| {
            tx.execute("delete from bookmarks where run = ?1 and hook = ?2", params![run.as_str(), hook])?;
            Ok(())
        }))
    }
}

pub(super) fn unreadable(error: serde_json::Error) -> JournalError {
    JournalError::Damaged(format!("what is kept about a run cannot be read: {error}"))
}

impl WishKeeper for SqliteStore {
    fn keep<'a>(&'a self, upgrade: &'a UpgradeId, epoch: Epoch, wish: &'a Wish) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let (key, text) = (upgrade.to_string(), serde_json::to_string(wish).map_err(|error| error.to_string())?);
            let update = move |tx: &rusqlite::Transaction<'_>| {
                let update = "update beside set wish = ?2, wish_epoch = ?3 where run = ?1 and wish_epoch <= ?3";
                Ok(tx.execute(update, params![key, text, signed(epoch.0)?])?)
            };
            match self.tx("keeping a wish", update).await {
                Ok(1) => Ok(()),
                Ok(_) => {
                    Err(format!("there is no run {upgrade}, or a newer coordinator has told its agents something"))
                }
                Err(error) => Err(runtime::supervision::chain(&error)),
            }
        })
    }
}
