//! The statements of the PostgreSQL store. Each operation is one statement, and so one transaction: there is nothing to leave
//! half done, and no lock is held between two messages.

/// Everything lives in this schema.
pub(super) const SCHEMA: &str = "pilot_store";
/// Notifications go by this name; the payload is the run.
pub(super) const CHANNEL: &str = "pilot_store";

/// Held while tables are made or brought up to date.
pub(super) const LOCK_FOR_MIGRATION: &str = "select pg_advisory_lock(hashtextextended('upgrade-pilot store', 0))";
pub(super) const HAS_SCHEMA: &str = "select to_regnamespace('pilot_store') is not null";
pub(super) const MAKE_SCHEMA: &str = "create schema pilot_store";
pub(super) const IDENTITY: &str = "select id from store";

pub(super) const LIST: &str = "select id, subject, created_at, outcome from runs
    where (outcome is null or not $1) and ($2::text is null or subject = $2) order by number desc limit $3";
pub(super) const RUN: &str = "select id, subject, created_at, outcome from runs where id = $1";
pub(super) const FACTS: &str =
    "select seq, epoch, at, fact, sum from facts where run = $1 and seq >= $2 order by seq limit $3";
pub(super) const ASKS: &str = "select ask, by, at, request from asks where run = $1 order by n";

pub(super) const CREATE: &str =
    "with made as (insert into runs (id, subject, created_at) values ($1, $2, $3) returning id)
    insert into facts (run, seq, epoch, at, fact, sum) select id, 0, 0, $3, $4, $5 from made";
pub(super) const BUSY_WITH: &str = "select id from runs where subject = $1 and outcome is null";

/// The lease's row is locked until this is committed: whoever takes the lease next waits for it, and then reads this fact.
pub(super) const APPEND: &str = "with held as (
        select 1 from leases where subject = (select subject from runs where id = $1)
        and epoch = $2 and expires_at > clock_timestamp() for share),
    added as (
        insert into facts (run, seq, epoch, at, fact, sum) select $1, $3, $2, $4, $5, $6 from held
        where $3 = (select coalesce(max(seq) + 1, 0) from facts where run = $1)
        and exists (select 1 from runs where id = $1 and outcome is null)
        returning run),
    ended as (update runs set outcome = $7 where $7 is not null and id = (select run from added))
    select pg_notify('pilot_store', run) from added";

pub(super) const ACQUIRE: &str = "insert into leases as mine (subject, epoch, holder, address, expires_at)
    values ($1, nextval('epochs'), $2, $3, clock_timestamp() + $4 * interval '1 millisecond')
    on conflict (subject) do update set epoch = excluded.epoch, holder = excluded.holder, address = excluded.address,
        expires_at = clock_timestamp() + $4 * interval '1 millisecond'
    where (mine.holder = excluded.holder or mine.expires_at <= clock_timestamp()) and mine.epoch < excluded.epoch
    returning epoch";
pub(super) const RENEW: &str = "update leases set expires_at = clock_timestamp() + $3 * interval '1 millisecond'
    where subject = $1 and epoch = $2 and expires_at > clock_timestamp() returning epoch";
pub(super) const RELEASE: &str = "update leases set expires_at = '-infinity' where subject = $1 and epoch = $2";
/// Who holds a lease, and for how many milliseconds yet.
pub(super) const HOLDER: &str = "select epoch, holder, address,
    (extract(epoch from expires_at - clock_timestamp()) * 1000)::bigint from leases
    where subject = $1 and expires_at > clock_timestamp()";

pub(super) const ASK: &str = "with put as (
        insert into asks (run, ask, by, at, request) select id, $2, $3, $4, $5 from runs where id = $1
        on conflict do nothing returning run)
    select pg_notify('pilot_store', run) from put";

pub(super) const PREPARE: &str = "insert into beside (run, about) values ($1, $2)";
pub(super) const ABOUT: &str = "select about, wish from beside where run = $1";
/// An older epoch's wish does not replace a newer one's.
pub(super) const KEEP_WISH: &str =
    "update beside set wish = $2, wish_epoch = $3 where run = $1 and wish_epoch <= $3 returning run";

pub(super) const ADD_SAMPLES: &str = "insert into samples (run, at_ms, name, value)
    select $1, * from unnest($2::bigint[], $3::text[], $4::double precision[])";
pub(super) const TRIM_SAMPLES: &str =
    "delete from samples where run = $1 and n <= (select max(n) from samples where run = $1) - $2";
pub(super) const SAMPLES: &str = "select at_ms, name, value from (
    select n, at_ms, name, value from samples where run = $1 order by n desc limit $2) newest order by n";

pub(super) const BOOKMARKS: &str = "select run, hook, next from bookmarks order by run, hook";
/// Of two who tell, during a take-over, the one that is behind takes nothing back.
pub(super) const KEEP_BOOKMARK: &str = "insert into bookmarks as mine (run, hook, next) values ($1, $2, $3)
    on conflict (run, hook) do update set next = greatest(mine.next, excluded.next)";
pub(super) const DROP_BOOKMARK: &str = "delete from bookmarks where run = $1 and hook = $2";
