//! What a take-over takes, told by the shared store itself: triggers write down, on its clock, when a lease changed hands, when the
//! former one ended, and when the first fact of the new driver stood in the journal.

use std::time::Duration;

use anyhow::Context as _;

use super::{START, Stage};

const NOTE: &str = "
create table public.moments (n bigserial, at timestamptz not null, subject text, epoch bigint not null, ended timestamptz);
create function public.note() returns trigger language plpgsql security definer as $$ begin
    if tg_table_name = 'facts' then
        insert into public.moments (at, epoch) values (clock_timestamp(), new.epoch);
    elsif new.epoch <> old.epoch then
        insert into public.moments (at, subject, epoch, ended) values (clock_timestamp(), new.subject, new.epoch, old.expires_at);
    end if;
    return null;
end $$;
create trigger note after update on pilot_store.leases for each row execute function public.note();
create trigger note after insert on pilot_store.facts for each row execute function public.note();";

/// The moment before something happens to a coordinator.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    epoch: f64,
    /// On the store's clock.
    seconds: f64,
}

/// What one take-over took.
#[derive(Clone, Copy, Debug)]
pub struct TakeOver {
    /// From what happened to the first fact of the successor.
    pub whole: Duration,
    /// The part of it after the last lease of the former driver had ended.
    pub after_lease: Duration,
}

impl Stage {
    /// From now on the store writes down who takes over when.
    ///
    /// # Errors
    /// The store's own.
    pub async fn note_take_overs(&self) -> anyhow::Result<()> {
        self.store()?.run(self.store_place()?, NOTE).await
    }

    /// To be asked right before something happens to the coordinator that drives.
    ///
    /// # Errors
    /// The store's own.
    pub async fn before_take_over(&self) -> anyhow::Result<Before> {
        let (store, place) = (self.store()?, self.store_place()?);
        let sql = "select max(epoch)::float8, extract(epoch from clock_timestamp())::float8 from pilot_store.leases";
        let found = store.numbers::<2>(place, sql).await?;
        let [epoch, seconds] = found.context("nobody has a lease")?;
        Ok(Before { epoch, seconds })
    }

    /// Waits for the first fact of the next driver.
    ///
    /// # Errors
    /// When there is none in a minute.
    pub async fn taken_over(&self, before: Before) -> anyhow::Result<TakeOver> {
        let (store, place) = (self.store()?, self.store_place()?);
        let Before { epoch, seconds } = before;
        let sql = format!(
            "select extract(epoch from min(at) filter (where subject is null))::float8,
                extract(epoch from max(nullif(ended, '-infinity')))::float8 from public.moments where epoch > {epoch}"
        );
        let look = async || match store.numbers::<2>(place, &sql).await {
            Ok(found) => found.ok_or_else(|| "no fact of a successor".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        };
        let every = Duration::from_millis(50);
        let [fact, ended] =
            self.tempo.until("a successor's fact", every, START, look).await.with_context(|| self.logs())?;
        let part = |from: f64| Duration::from_secs_f64((fact - from).max(0.0));
        Ok(TakeOver { whole: part(seconds), after_lease: part(ended) })
    }
}
