//! Whether green still follows blue, how far behind it is, and what was done on blue that it cannot follow. Only looks.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::{Link, Sides, ddl};
use crate::fleet::{Admin, Error, LogPosition, Server};
use crate::roles::literal;

/// How one database's replication does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHealth {
    /// Which database.
    pub database: String,
    /// Its slot.
    pub slot: String,
    /// Whether the slot is there and a walsender uses it.
    pub slot_active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`; `None` when the slot is gone.
    pub wal_status: Option<String>,
    /// Bytes of WAL that green has not confirmed; `None` when the slot is gone or still being made.
    pub lag_bytes: Option<u64>,
    /// Whether green's apply worker runs.
    pub worker: bool,
    /// Errors of apply since the subscription was made; `None` before version 15, where nothing counts them.
    pub apply_errors: Option<u64>,
}

impl LinkHealth {
    /// Whether rows flow.
    #[must_use]
    pub fn is_replicating(&self) -> bool {
        self.slot_active && self.worker && self.wal_status.as_deref() != Some("lost")
    }
}

/// How every link does, in the order of `sides.links`.
///
/// # Errors
/// When a writer does not answer.
pub async fn links(sides: &Sides) -> Result<Vec<LinkHealth>, Error> {
    const SLOTS: &str = "select slot_name::text, active, wal_status::text, \
        greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint from pg_replication_slots";
    let errors = if sides.green.writer.major() >= 15 {
        "(select e.apply_error_count from pg_stat_subscription_stats e where e.subid = s.oid)"
    } else {
        "null::bigint"
    };
    let workers = format!(
        "select s.subname::text, s.subenabled and exists (select from pg_stat_subscription w where w.subid = s.oid and w.relid is null \
         and w.pid is not null), {errors} from pg_subscription s"
    );
    let (blue, green) = (sides.blue.writer.admin("postgres").await?, sides.green.writer.admin("postgres").await?);
    let slots = blue.query(SLOTS, &[]).await.map_err(Error::sql("reading blue's slots"))?;
    let workers = green.query(&workers, &[]).await.map_err(Error::sql("reading green's subscriptions"))?;
    let judge = |link: &Link| {
        let slot = slots.iter().find(|row| row.get::<_, String>(0) == link.slot);
        let worker = workers.iter().find(|row| row.get::<_, String>(0) == link.subscription);
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        LinkHealth {
            database: link.database.clone(),
            slot: link.slot.clone(),
            slot_active: slot.is_some_and(|row| row.get(1)),
            wal_status: slot.and_then(|row| row.get(2)),
            lag_bytes: slot.and_then(|row| count(row.get(3))),
            worker: worker.is_some_and(|row| row.get(1)),
            apply_errors: worker.and_then(|row| count(row.get(2))),
        }
    };
    Ok(sides.links.iter().map(judge).collect())
}

/// Bytes of WAL that the slot furthest behind has not confirmed, over every slot of the server. `None` without slots.
///
/// # Errors
/// When the server does not answer.
pub async fn oldest_slot_lag(server: &Server) -> Result<Option<u64>, Error> {
    const QUESTION: &str = "select max(greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(confirmed_flush_lsn, restart_lsn)), 0))::bigint \
        from pg_replication_slots";
    let admin = server.admin("postgres").await?;
    let row = admin.query_one(QUESTION, &[]).await.map_err(Error::sql("reading slots"))?;
    Ok(row.get::<_, Option<i64>>(0).and_then(|bytes| u64::try_from(bytes).ok()))
}

/// What blue looked like when replication began; compared later by [`changes_since`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    log: LogPosition,
    /// Server time, as text.
    at: String,
    databases: BTreeMap<String, Fingerprint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint {
    catalog: String,
    views: String,
    large_objects: String,
}

/// A change on blue that logical replication does not carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where; `None` when the log did not say.
    pub database: Option<String>,
    /// What kind.
    pub kind: ChangeKind,
    /// The statement as the log has it, or what the catalogue shows.
    pub what: String,
}

/// Kinds of [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A schema change.
    Ddl,
    /// A materialized view was refreshed.
    Refresh,
    /// A large object was written.
    LargeObject,
}

/// Everything that describes a database's schema, as one hash; refreshes show in the files of materialized views, writes to
/// large objects in their rows' transactions. Temporary objects and the provider's own are left out.
const FINGERPRINT: &str = r"
with spaces as (select oid, nspname from pg_namespace
                 where nspname not in ('pg_catalog', 'information_schema', 'rdsadmin') and nspname !~ '^pg_(toast|temp)'),
relations as (select c.* , s.nspname from pg_class c join spaces s on s.oid = c.relnamespace where c.relpersistence <> 't'),
lines as (
  select 'schema ' || nspname as line from spaces
  union all select format('relation %s.%s %s %s %s', nspname, relname, relkind, relpersistence, pg_get_expr(relpartbound, oid)) from relations
  union all select format('column %s.%s %s %s %s %s', r.nspname, r.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                          pg_get_expr(d.adbin, d.adrelid))
    from relations r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
   where r.relkind <> 'S'
  union all select format('constraint %s.%s %s', r.nspname, r.relname, pg_get_constraintdef(k.oid)) from relations r join pg_constraint k on k.conrelid = r.oid
  union all select format('index %s', pg_get_indexdef(i.indexrelid)) from relations r join pg_index i on i.indexrelid = r.oid
  union all select format('view %s.%s %s', nspname, relname, md5(pg_get_viewdef(oid))) from relations where relkind in ('v', 'm')
  union all select format('function %s %s', p.oid::regprocedure, md5(p.prosrc)) from pg_proc p join spaces s on s.oid = p.pronamespace
  union all select format('trigger %s', pg_get_triggerdef(t.oid)) from relations r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal
  union all select format('enum %s %s %s', e.enumtypid::regtype, e.enumsortorder, e.enumlabel) from pg_enum e
  union all select format('type %s.%s %s', s.nspname, t.typname, t.typtype) from pg_type t join spaces s on s.oid = t.typnamespace
             where t.typrelid = 0 and t.typelem = 0
  union all select format('extension %s %s', extname, extversion) from pg_extension)
select (select coalesce(md5(string_agg(line, E'\n' order by line collate pg_catalog.ucs_basic)), '') from lines),
       (select coalesce(string_agg(oid || ':' || relfilenode, ',' order by oid), '') from relations where relkind = 'm'),
       (select count(*) || ':' || coalesce(max(xmin::text::bigint), 0) from pg_largeobject) || ':' ||
       (select count(*) || ':' || coalesce(max(oid::bigint), 0) from pg_largeobject_metadata)";

async fn fingerprint(admin: &Admin, database: &str) -> Result<Fingerprint, Error> {
    let row =
        admin.query_one(FINGERPRINT, &[]).await.map_err(Error::sql(format!("reading the catalogue of {database}")))?;
    Ok(Fingerprint { catalog: row.get(0), views: row.get(1), large_objects: row.get(2) })
}

/// Takes the baseline of the databases in `links`. Call it when green is complete; it holds for as long as green is there.
///
/// # Errors
/// When the server does not answer.
pub async fn baseline(blue: &Server, links: &[Link]) -> Result<Baseline, Error> {
    let log = blue.log_position()?;
    let admin = blue.admin("postgres").await?;
    let at = admin.query_one("select now()::text", &[]).await.map_err(Error::sql("asking for the time"))?.get(0);
    let databases = try_join_all(links.iter().map(|link| async {
        let admin = blue.admin(&link.database).await?;
        Ok::<_, Error>((link.database.clone(), fingerprint(&admin, &link.database).await?))
    }));
    Ok(Baseline { log, at, databases: databases.await?.into_iter().collect() })
}

/// What happened on blue since the baseline: from its own log (`log_statement = ddl`), from its catalogues, and from
/// pg_cron's record of what it ran (jobs in background workers are not logged).
///
/// # Errors
/// When the server does not answer.
pub async fn changes_since(blue: &Server, baseline: &Baseline) -> Result<Vec<Change>, Error> {
    let mut changes = ddl::in_log(&blue.log_since(&baseline.log)?);
    // Clients are held meanwhile: every database at once, by one session each.
    let found = try_join_all(baseline.databases.iter().map(|(database, before)| async move {
        let admin = blue.admin(database).await?;
        let now = fingerprint(&admin, database).await?;
        Ok::<_, Error>((database, before, now, refreshed_by_jobs(&admin, &baseline.at).await?))
    }));
    for (database, before, now, by_jobs) in found.await? {
        let differs = [
            (before.catalog != now.catalog, ChangeKind::Ddl, "the catalogue differs from what green was made from"),
            (before.views != now.views, ChangeKind::Refresh, "a materialized view has new contents"),
            (before.large_objects != now.large_objects, ChangeKind::LargeObject, "large objects were written"),
        ];
        for (_, kind, what) in differs.into_iter().filter(|(differs, ..)| *differs) {
            let seen = changes.iter().any(|change| change.kind == kind && change.database.as_deref() == Some(database));
            if !seen {
                changes.push(Change { database: Some(database.clone()), kind, what: what.into() });
            }
        }
        changes.extend(by_jobs);
    }
    Ok(changes)
}

async fn refreshed_by_jobs(admin: &Admin, since: &str) -> Result<Vec<Change>, Error> {
    let there = admin.query_one("select to_regclass('cron.job_run_details') is not null", &[]).await;
    if !there.map_err(Error::sql("looking for pg_cron"))?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let question = format!(
        "select database::text, command from cron.job_run_details where command ~* 'refresh\\s+materialized' and start_time > {}::timestamptz",
        literal(since)
    );
    let rows = admin.query(&question, &[]).await.map_err(Error::sql("reading what pg_cron ran"))?;
    Ok(rows.iter().map(|row| Change { database: row.get(0), kind: ChangeKind::Refresh, what: row.get(1) }).collect())
}
