//! Looking at one side: what is in its tables, and where its sequences stand. Reads only, and on old blue only by its own
//! address; it must never decide whether what it saw is right.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

use super::judge::{Rows, Sequence, Sum};
use super::ledger::TableId;
use super::schema::{self, Written};
use super::session::{Login, Session, quoted};
use super::tempo::Tempo;

const LIMIT: Duration = Duration::from_secs(180);
const CONNECT: Duration = Duration::from_secs(10);

/// Everything in a side's tables at one moment, by hash.
#[derive(Clone, Debug, Default)]
pub struct Photograph {
    /// Tables that nobody writes during the upgrade.
    pub still: BTreeMap<TableId, Sum>,
    /// Tables that the demo writes: the hash of each row under the writer's key.
    pub written: BTreeMap<TableId, Rows>,
}

/// Reads the tables of every demo database that `login` leads to: first those that are written, then the still ones.
pub async fn photograph(login: &Login, tempo: &Tempo) -> anyhow::Result<Photograph> {
    let mut photograph = Photograph::default();
    for database in schema::DATABASES {
        let session = open(&login.database(database), tempo).await?;
        for (id, written) in schema::written(database) {
            let rows = rows(&session, &written, "md5(t::text)", tempo).await?;
            photograph.written.insert(id, rows);
        }
    }
    for database in schema::DATABASES {
        let session = open(&login.database(database), tempo).await?;
        photograph.still.extend(still(&session, database, tempo).await?);
    }
    Ok(photograph)
}

/// The still tables of one database.
pub async fn still(session: &Session, database: &str, tempo: &Tempo) -> anyhow::Result<BTreeMap<TableId, Sum>> {
    let unfollowed = schema::UNFOLLOWED.iter().chain(schema::WRITTEN.iter().map(|written| &written.table));
    let names: Vec<String> = unfollowed.map(|table| quoted(table)).collect();
    let list = format!(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname not in ('information_schema', 'upgrade_pilot', 'cron', 'partman') \
         and n.nspname !~ '^(pg_|rds|aurora)' and c.relname not in ({}) order by 1, 2",
        names.join(", ")
    );
    let tables = session.run(tempo, LIMIT, &list).await?.rows;
    let mut sums = BTreeMap::new();
    for row in &tables {
        let [Some(namespace), Some(table)] = row.as_slice() else { continue };
        let name = format!("\"{namespace}\".\"{table}\"");
        let sql = format!("select count(*), coalesce(sum(hashtextextended(t::text, 42)), 0) from {name} t");
        let answer = session.run(tempo, LIMIT, &sql).await.with_context(|| format!("hashing {database}.{name}"))?;
        let rows = answer.first(0).and_then(|n| n.parse().ok()).context("a count that is no number")?;
        let hash = answer.first(1).unwrap_or_default().to_owned();
        let id =
            TableId::new(database, if namespace == "public" { table.clone() } else { format!("{namespace}.{table}") });
        sums.insert(id, Sum { rows, hash });
    }
    Ok(sums)
}

/// One written table: `value` (in SQL, over alias `t`) of every row, under the writer's key.
pub async fn rows(session: &Session, written: &Written, value: &str, tempo: &Tempo) -> anyhow::Result<Rows> {
    let sql = format!("select {}, {value} from {} t order by 1, 2", written.key, written.table);
    let answer = session.run(tempo, LIMIT, &sql).await.with_context(|| format!("reading {}", written.table))?;
    let mut rows = Rows::new();
    for mut row in answer.rows {
        let value = row.pop().flatten().unwrap_or_default();
        let key = row.pop().flatten().unwrap_or_default();
        rows.entry(key).or_default().push(value);
    }
    Ok(rows)
}

/// Every sequence of schema `public` with where it stands and the furthest value of the column that it feeds.
pub async fn sequences(session: &Session, tempo: &Tempo) -> anyhow::Result<BTreeMap<String, Sequence>> {
    let list = "select s.sequencename, s.increment_by, s.last_value, t.relname, a.attname \
        from pg_sequences s \
        join pg_class c on c.relname = s.sequencename and c.relnamespace = 'public'::regnamespace \
        left join pg_depend d on d.objid = c.oid and d.classid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i') \
        left join pg_class t on t.oid = d.refobjid \
        left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
        where s.schemaname = 'public'";
    let found = session.run(tempo, LIMIT, list).await?.rows;
    let mut sequences = BTreeMap::new();
    for row in &found {
        let cell = |n: usize| row.get(n).cloned().flatten();
        let number = |n: usize| cell(n).and_then(|text| text.parse::<i64>().ok());
        let (Some(name), Some(increment)) = (cell(0), number(1)) else { continue };
        let feeds = match (name.as_str(), cell(3), cell(4)) {
            ("tickets", _, _) => Some(("events".to_owned(), "ticket".to_owned())),
            ("countdown", _, _) => Some(("events".to_owned(), name.clone())),
            (_, Some(table), Some(column)) => Some((table, column)),
            _ => None,
        };
        let column = match feeds {
            Some((table, column)) => {
                let furthest = if increment > 0 { "max" } else { "min" };
                let sql = format!("select {furthest}(\"{column}\") from \"{table}\"");
                session.run(tempo, LIMIT, &sql).await?.first(0).and_then(|text| text.parse().ok())
            }
            None => None,
        };
        sequences.insert(name, Sequence { increment, last: number(2), column });
    }
    Ok(sequences)
}

/// Accounts whose balance is not the sum of their history: none, if transactions arrived whole.
pub async fn unbalanced(session: &Session, tempo: &Tempo) -> anyhow::Result<u64> {
    let sql = "select count(*) from accounts a left join \
        (select account, sum(delta) as sum, count(*) as n from history group by 1) h on h.account = a.id \
        where a.balance <> coalesce(h.sum, 0) or a.changes <> coalesce(h.n, 0)";
    let answer = session.run(tempo, LIMIT, sql).await?;
    answer.first(0).and_then(|n| n.parse().ok()).context("a count that is no number")
}

/// Connects for reading, in the one rendering that both sides share.
pub async fn open(login: &Login, tempo: &Tempo) -> anyhow::Result<Session> {
    let session =
        login.open(tempo, CONNECT).await.with_context(|| format!("connecting to {}/{}", login.host, login.database))?;
    let same = "set search_path = public; set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; \
        set extra_float_digits = 1; set bytea_output = 'hex'";
    session.run(tempo, LIMIT, same).await?;
    Ok(session)
}
