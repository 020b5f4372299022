//! A trap in the store of a coordinator: the append of a fact stands still inside the store's server for as long as the test
//! wants, and with it whoever appends. So a process can be killed exactly before or after a fact, and the program knows nothing.
//!
//! The trap is a trigger on the journal's table that waits for an advisory lock, which the trap's own session holds. What stands is
//! read from the server's view of its sessions. A point is told apart by what its fact is about, not by its number: every life of
//! a coordinator adds facts of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use coordinator::store::Place;
use lab::demo::tempo::Tempo;
use lab::fleet::Admin;

use super::store::StoreServer;

/// The trigger's wait has no limit of its own; the statement around it has the coordinator's.
const MAKE: &str = "
create schema trap;
create sequence trap.points;
create table trap.plan (from_point bigint not null, points text not null);
insert into trap.plan values (1000000, '');
create table trap.spared (point text primary key);
create function trap.point(fact jsonb) returns text immutable language sql as $$
    select left(regexp_replace(regexp_replace(concat_ws(' ', fact->>'kind', fact->>'step', fact->>'key', fact->>'from', fact->'event'->>'event',
        fact->>'monitor', fact->'request'->>'request', fact->>'code', fact->>'name', fact->>'outcome'), '[^ -~]', '?', 'g'), '(up|db)-[0-9a-fA-Z]{16,}', '\\1', 'g'), 60) $$;
create function trap.stand() returns trigger language plpgsql security definer set lock_timeout = 0 as $$
declare
    here text := trap.point(new.fact::jsonb);
begin
    -- The first fact is met only where it is asked for: who arms the trap for all waits for it.
    if (new.seq > 0 or (select points from trap.plan) = '^created') and nextval('trap.points') >= (select from_point from trap.plan)
        and here ~ (select points from trap.plan)
        and not exists (select from trap.spared where point = here)
    then
        perform set_config('application_name', here, true);
        perform pg_advisory_xact_lock_shared(4711);
    end if;
    return new;
end $$;
create trigger stand before insert on pilot_store.facts for each row execute function trap.stand();
select pg_advisory_lock(4711);";

const STANDING: &str = "select a.pid, a.application_name from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.objid = 4711 and not l.granted";

/// The trap. It lets go of everything when it is dropped.
#[derive(Debug)]
pub struct Trap {
    admin: Admin,
}

/// An append that stands still.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What its fact is about: `effect_done prerequisites snapshot`.
    pub point: String,
    session: i32,
}

impl Trap {
    pub(super) async fn set(server: &StoreServer, place: &Place) -> anyhow::Result<Trap> {
        let admin = server.session(&place.database).await?;
        admin.batch_execute(MAKE).await.context("setting the trap")?;
        Ok(Trap { admin })
    }

    /// From now on the points stand that match `only` (a regular expression), but not those of `spared`, after `skipped` others.
    ///
    /// # Errors
    /// The server's own.
    pub async fn arm(&self, only: &str, skipped: i64, spared: &BTreeSet<String>) -> anyhow::Result<()> {
        let spared: Vec<&String> = spared.iter().collect();
        let sql = "with kept as (delete from trap.spared where point <> all ($1)),
            more as (insert into trap.spared select unnest($1::text[]) on conflict do nothing)
            update trap.plan set from_point = (select case when is_called then last_value + 1 else 1 end from trap.points) + $2, points = $3";
        self.admin.execute(sql, &[&spared, &skipped, &only]).await.context("arming the trap")?;
        Ok(())
    }

    /// What stands now.
    ///
    /// # Errors
    /// The server's own.
    pub async fn standing(&self) -> anyhow::Result<Option<Standing>> {
        let found = self.admin.query_opt(STANDING, &[]).await.context("looking into the trap")?;
        Ok(found.map(|row| Standing { session: row.get(0), point: row.get(1) }))
    }

    /// Lets everything go that stands; it is committed when this returns, whether its process lives or not.
    ///
    /// # Errors
    /// The server's own.
    pub async fn let_go(&self) -> anyhow::Result<()> {
        // Whoever waits has the lock before it can be had again.
        let sql = "select pg_advisory_unlock(4711); select pg_advisory_lock(4711)";
        self.admin.batch_execute(sql).await.context("opening the trap")
    }

    /// Ends the session of an append that stands: it never happened.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn lose(&self, standing: &Standing, tempo: &Tempo) -> anyhow::Result<()> {
        let session = [&standing.session as &(dyn tokio_postgres::types::ToSql + Sync)];
        self.admin.execute("select pg_terminate_backend($1)", &session).await?;
        let look = async || {
            let left = "select state from pg_stat_activity where pid = $1";
            match self.admin.query_opt(left, &session).await {
                Ok(None) => Ok(()),
                left => Err(format!("{left:?}")),
            }
        };
        tempo.until("the end of the store's session", Duration::from_millis(2), Duration::from_secs(10), look).await
    }

    /// Every lease has run out, as after a while in which nobody lived to renew it.
    ///
    /// # Errors
    /// The server's own.
    pub async fn leases_run_out(&self) -> anyhow::Result<()> {
        let changed = self.admin.execute("update pilot_store.leases set expires_at = '-infinity'", &[]).await?;
        ensure!(changed > 0, "there was no lease");
        Ok(())
    }

    /// How many facts an upgrade has.
    ///
    /// # Errors
    /// The server's own.
    pub async fn length(&self, upgrade: &str) -> anyhow::Result<i64> {
        Ok(self.admin.query_one("select count(*) from pilot_store.facts where run = $1", &[&upgrade]).await?.get(0))
    }

    /// Every point of an upgrade's journal from the fact `first` on, in the order in which each came first.
    ///
    /// # Errors
    /// The server's own.
    pub async fn points(&self, upgrade: &str, first: i64) -> anyhow::Result<Vec<String>> {
        let sql = "select trap.point(fact::jsonb) from pilot_store.facts where run = $1 and seq >= $2 group by 1 order by min(seq)";
        let rows = self.admin.query(sql, &[&upgrade, &first]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
