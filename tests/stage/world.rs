//! The whole world of a cluster in lines that can be compared: what the API describes, and what stands in every database.
//! Reads only. What always moves (times, request ids) is left out.

use std::collections::BTreeMap;

use lab::demo::session::Login;
use lab::demo::sides;
use lab::demo::tempo::Tempo;

use super::http;

/// What may be described of an account.
const ACTIONS: [&str; 6] = [
    "DescribeDBClusters",
    "DescribeDBInstances",
    "DescribeBlueGreenDeployments",
    "DescribeDBClusterParameterGroups",
    "DescribeDBParameterGroups",
    "DescribeDBClusterSnapshots",
];
/// Elements that move by themselves.
const MOVING: [&str; 3] = ["LatestRestorableTime", "RequestId", "EarliestRestorableTime"];

/// Everything that a user could have of his own in a database, and what a deployment could leave there.
const CATALOGUE: &str = "
select 'database ' || datname || ' of ' || pg_get_userbyid(datdba) from pg_database
union all select 'schema ' || nspname from pg_namespace where nspname !~ '^pg_(toast_)?temp'
union all select 'relation ' || c.oid::regclass || ' ' || relkind::text || ' identity ' || relreplident::text || ' ' || coalesce(reloptions::text, '')
  from pg_class c join pg_namespace n on n.oid = relnamespace where nspname !~ '^(pg_|information_schema)'
union all select 'trigger ' || tgname || ' on ' || tgrelid::regclass from pg_trigger where not tgisinternal
union all select 'event trigger ' || evtname from pg_event_trigger
union all select 'function ' || p.oid::regprocedure from pg_proc p join pg_namespace n on n.oid = pronamespace
  where nspname !~ '^(pg_|information_schema)'
union all select 'extension ' || extname || ' ' || extversion from pg_extension
union all select 'publication ' || pubname from pg_publication
union all select 'subscription ' || subname from pg_subscription
union all select 'slot ' || slot_name from pg_replication_slots
union all select 'prepared ' || gid from pg_prepared_xacts
union all select 'setting of ' || setdatabase || ' ' || setrole || ' ' || setconfig::text from pg_db_role_setting
union all select 'member ' || roleid::regrole || ' has ' || member::regrole from pg_auth_members
union all select 'runs with ' || name || ' = ' || setting from pg_settings
  where name in ('wal_level', 'log_statement', 'max_replication_slots', 'max_wal_senders', 'max_worker_processes',
    'max_logical_replication_workers', 'default_transaction_read_only', 'shared_preload_libraries')";

/// The world at one moment: lines, and how often each stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World(BTreeMap<String, u32>);

impl World {
    /// Looks at everything that the lab's API describes and at every database behind `master`.
    ///
    /// # Errors
    /// When the API or a database does not answer.
    pub async fn look(api: &str, master: &Login, databases: &[&str], tempo: &Tempo) -> anyhow::Result<World> {
        let mut world = World::default();
        for action in ACTIONS {
            let answer = http::ask_lab(api, &format!("Action={action}&Version=2014-10-31"), tempo).await?;
            for line in elements(&answer) {
                world.add(format!("{action}: {line}"));
            }
        }
        for database in databases {
            let session = sides::open(&master.database(database), tempo).await?;
            for row in session.run(tempo, std::time::Duration::from_secs(20), CATALOGUE).await?.rows {
                world.add(format!("{database}: {}", row.into_iter().flatten().collect::<String>()));
            }
        }
        Ok(world)
    }

    fn add(&mut self, line: String) {
        *self.0.entry(line).or_insert(0) += 1;
    }

    /// What is there in `self` and was not in `before` (`+ …`), and the reverse (`- …`).
    #[must_use]
    pub fn since(&self, before: &World) -> Vec<String> {
        let more = |this: &World, that: &World, sign: char| {
            let new = this.0.iter().filter(|(line, n)| that.0.get(*line).is_none_or(|m| m < *n));
            new.map(|(line, _)| format!("{sign} {line}")).collect::<Vec<_>>()
        };
        [more(before, self, '-'), more(self, before, '+')].concat()
    }
}

/// Every element with a text, as `Outer/Inner=text`.
fn elements(xml: &str) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for part in xml.split('<').skip(1) {
        let Some((tag, text)) = part.split_once('>') else { continue };
        if tag.starts_with('/') {
            path.pop();
        } else if !tag.starts_with('?') && !tag.ends_with('/') {
            path.push(tag.split_whitespace().next().unwrap_or(tag));
            let inner = path.last().copied().unwrap_or_default();
            if !text.trim().is_empty() && !MOVING.contains(&inner) {
                let outer = path.iter().rev().nth(1).copied().unwrap_or_default();
                found.push(format!("{outer}/{inner}={}", text.trim()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(xml: &str) -> World {
        let mut world = World::default();
        elements(xml).into_iter().for_each(|line| world.add(line));
        world
    }

    #[test]
    fn what_came_and_what_went_is_told_and_what_moves_is_not() {
        let before = world("<?xml?><A><B><C>1</C><LatestRestorableTime>x</LatestRestorableTime></B><E/></A>");
        let after = world("<A x='1'><B><C>1</C><C>2</C><LatestRestorableTime>y</LatestRestorableTime></B></A>");
        assert_eq!(after.since(&before), ["+ B/C=2"]);
        assert_eq!(before.since(&after), ["- B/C=2"]);
        assert_eq!(before.since(&before), Vec::<String>::new());
    }
}
