//! What the lead keeps measuring while it is wished: the marker's delay, whether the catalogues differ, who still uses the old
//! side, how far the partitions reach. Ends clients of the old side; changes nothing else but its own marker row.

use std::{collections::HashMap, collections::HashSet, time::Duration};

use jiff::Timestamp;
use proto::{
    ids::JobId,
    intent::Intent,
    job::{Expected, JobFailure},
    report::{ClientSeen, Event, MarkerDelay, OldSide, Partitions, SchemaWatch},
    side::{Side, SideIdentity},
};
use runtime::{
    clock::{Clock, Mono},
    shutdown::Stop,
    supervision::{Ready, Task, TaskError, chain},
};

use crate::{
    jobs::{
        JobCx, fingerprint, marker, partman,
        servers::{self, Role},
    },
    link::runner::Runner,
    pg::{Conn, catalog::watchers as sql},
    state::{Shared, millis},
};

const MARKER_EVERY: Duration = Duration::from_secs(1);
/// A marker that takes longer is reported as pending meanwhile and given up then.
const MARKER_WITHIN: Duration = Duration::from_secs(30);
const SCHEMA_EVERY: Duration = Duration::from_secs(30);
const SCHEMA_WITHIN: Duration = Duration::from_secs(60);
const OLD_SIDE_EVERY: Duration = Duration::from_secs(1);
const OLD_SIDE_WITHIN: Duration = Duration::from_secs(10);
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
const PARTITIONS_WITHIN: Duration = Duration::from_secs(60);
/// How soon a watcher that is not wanted looks again whether it is.
const IDLE: Duration = Duration::from_millis(250);
/// Counters of rows come later than the commit: a server writes them down up to half a second after it (`PGSTAT_STAT_INTERVAL` up
/// to 14, sessions' own pending counters when they end). For this long after the first look they may speak of the time before the cut.
const COUNTERS_SETTLE: Duration = Duration::from_secs(2);
/// How often is looked meanwhile, so that no client's visit is missed.
const SETTLING_EVERY: Duration = Duration::from_millis(100);
/// Clients of the old side that are told apart.
const CLIENTS_MAX: usize = 256;

/// See the module.
pub struct Watch {
    pub shared: Shared,
    pub runner: Runner,
}

impl Watch {
    /// The wish, when this agent leads and `wanted` is in it.
    fn wish(&self, wanted: impl Fn(&Intent) -> bool) -> Option<std::sync::Arc<Intent>> {
        let intent = self.shared.intent.borrow().clone()?;
        (self.shared.is_lead() && wanted(&intent)).then_some(intent)
    }

    fn cx(&self, name: &str, intent: &Intent, side: Side, within: Duration) -> Result<JobCx, TaskError> {
        let id: JobId = format!("watch/{name}").parse()?;
        let on = Expected {
            side,
            production: intent.targets.production.clone(),
            blue: intent.targets.blue.clone(),
            green: intent.targets.green.clone(),
        };
        Ok(self.runner.own(id, on, within))
    }

    async fn markers(&self) -> Result<(), TaskError> {
        let clock = &self.shared.clock;
        let mut n = 0_u64;
        loop {
            let began = clock.mono();
            let Some(intent) = self.wish(|intent| intent.watch.marker && intent.targets.green.is_some()) else {
                self.shared.picture(|pictures| pictures.marker = None);
                clock.sleep(IDLE).await;
                continue;
            };
            n += 1;
            let cx = self.cx("marker", &intent, Side::Blue, MARKER_WITHIN)?;
            let (key, mark) = (format!("{}/watch", cx.agent), format!("{} {n}", clock.now()));
            let round = marker::round(&cx, &key, &mark);
            match self.pending(began, round).await {
                Ok(databases) => {
                    let max_ms = databases.iter().map(|(_, ms)| *ms).max();
                    let delay = MarkerDelay { age_ms: 0, max_ms, pending_ms: None, databases };
                    self.shared.picture(|pictures| pictures.marker = Some((clock.mono(), delay)));
                }
                Err(failure) => tracing::debug!(code = failure.code, chain = ?failure.chain, "a marker did not arrive"),
            }
            clock.sleep_until(began + MARKER_EVERY).await;
        }
    }

    /// Awaits a marker and tells meanwhile how long it has been on its way.
    async fn pending<T>(&self, began: Mono, round: impl Future<Output = T>) -> T {
        let clock = &self.shared.clock;
        tokio::pin!(round);
        loop {
            tokio::select! {
                end = &mut round => return end,
                () = clock.sleep(Duration::from_millis(100)) => {
                    let waited = millis(clock.mono().since(began));
                    self.shared.picture(|pictures| {
                        let none = || {
                            let delay = MarkerDelay { age_ms: 0, max_ms: None, pending_ms: None, databases: Vec::new() };
                            (clock.mono(), delay)
                        };
                        pictures.marker.get_or_insert_with(none).1.pending_ms = Some(waited);
                    });
                }
            }
        }
    }

    async fn schemas(&self) -> Result<(), TaskError> {
        let clock = &self.shared.clock;
        let mut known: Vec<String> = Vec::new();
        loop {
            let Some(intent) = self.wish(|intent| intent.watch.schema && intent.targets.green.is_some()) else {
                known.clear();
                self.shared.picture(|pictures| pictures.schema = None);
                clock.sleep(IDLE).await;
                continue;
            };
            let cx = self.cx("schema", &intent, Side::Blue, SCHEMA_WITHIN)?;
            match within(clock, SCHEMA_WITHIN, fingerprint::sides(&cx)).await {
                Ok(seen) => {
                    let differences = seen.differences;
                    if differences.iter().any(|difference| !known.contains(difference)) {
                        tracing::warn!(count = differences.len(), "the catalogues of blue and green differ");
                        let event = Event::SchemaChanged { at: clock.now(), differences: differences.clone() };
                        self.shared.event(event);
                    }
                    known.clone_from(&differences);
                    let picture = SchemaWatch { age_ms: 0, differences };
                    self.shared.picture(|pictures| pictures.schema = Some((clock.mono(), picture)));
                }
                Err(why) => tracing::debug!(error = why, "the catalogues could not be compared"),
            }
            self.rest(SCHEMA_EVERY, |intent| intent.watch.schema).await;
        }
    }

    /// Until the next look is due, or it is not wanted any more.
    async fn rest(&self, every: Duration, wanted: impl Fn(&Intent) -> bool) {
        let until = self.shared.clock.mono() + every;
        let mut intent = self.shared.intent.subscribe();
        while self.wish(&wanted).is_some() {
            tokio::select! {
                () = self.shared.clock.sleep_until(until) => return,
                _ = intent.changed() => {}
            }
        }
    }

    async fn partitions(&self) -> Result<(), TaskError> {
        let clock = &self.shared.clock;
        loop {
            let Some(intent) = self.wish(|intent| intent.watch.partitions) else {
                self.shared.picture(|pictures| pictures.partitions = None);
                clock.sleep(IDLE).await;
                continue;
            };
            let cx = self.cx("partitions", &intent, intent.targets.serving, PARTITIONS_WITHIN)?;
            match within(clock, PARTITIONS_WITHIN, covered(&cx)).await {
                Ok((covered_until, rows_in_default)) => {
                    let picture = Partitions { age_ms: 0, covered_until, rows_in_default };
                    self.shared.picture(|pictures| pictures.partitions = Some((clock.mono(), picture)));
                }
                Err(why) => tracing::debug!(error = why, "the partitions could not be read"),
            }
            self.rest(PARTITIONS_EVERY, |intent| intent.watch.partitions).await;
        }
    }

    async fn old_sides(&self) -> Result<(), TaskError> {
        let clock = &self.shared.clock;
        let mut watch: Option<OldSideWatch> = None;
        loop {
            // Before the cut nothing is the old side, whatever the wish says.
            let wanted = |intent: &Intent| intent.watch.old_side && intent.targets.serving == Side::Green;
            let Some(intent) = self.wish(wanted) else {
                watch = None;
                self.shared.picture(|pictures| pictures.old_side = None);
                clock.sleep(IDLE).await;
                continue;
            };
            let began = clock.mono();
            let watch = watch.get_or_insert_with(|| OldSideWatch::new(began));
            let look = clock.timeout(OLD_SIDE_WITHIN, watch.look(&self.shared, &intent.targets.blue)).await;
            match look {
                Ok(Ok(picture)) => {
                    self.shared.picture(|pictures| pictures.old_side = Some((clock.mono(), picture)));
                }
                Ok(Err(error)) => {
                    tracing::debug!(error = %chain(error.as_ref()), "the old side could not be looked at")
                }
                Err(elapsed) => tracing::debug!(error = %elapsed, "the old side could not be looked at"),
            }
            let every = if watch.settles(clock.mono()) { SETTLING_EVERY } else { OLD_SIDE_EVERY };
            clock.sleep_until(began + every).await;
        }
    }
}

/// `Err` is what went wrong, for a log line.
async fn within<T>(
    clock: &Clock,
    limit: Duration,
    work: impl Future<Output = Result<T, JobFailure>>,
) -> Result<T, String> {
    match clock.timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(failure)) => Err(format!("{}: {}", failure.doing, failure.chain.join(": "))),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}

/// The earliest end of partitions and the rows in default partitions, over all databases of the serving side.
async fn covered(cx: &JobCx) -> Result<(Option<Timestamp>, u64), JobFailure> {
    let side = servers::side_of(cx)?;
    let (mut until, mut rows) = (None, 0);
    for database in servers::databases(cx, side).await? {
        let session = servers::open(cx, side, &database, Role::Writer).await?;
        let Some(home) = partman::home(&session).await? else { continue };
        until = partman::earlier(until, partman::covered_until(&session).await?);
        rows += partman::rows_in_default(&session, &home).await?.iter().map(|(_, rows)| rows).sum::<u64>();
    }
    Ok((until, rows))
}

/// What is remembered of the old side while it is watched.
struct OldSideWatch {
    began: Mono,
    lines: HashMap<String, Conn>,
    /// Rows written, by database, and the next transaction id, when they were looked at last.
    rows: HashMap<String, i64>,
    next_xid: Option<i64>,
    last_client: Option<Mono>,
    /// Kinds of clients that an event told of.
    told: HashSet<String>,
    write_commits: u64,
}

impl OldSideWatch {
    fn new(began: Mono) -> OldSideWatch {
        OldSideWatch {
            began,
            lines: HashMap::new(),
            rows: HashMap::new(),
            next_xid: None,
            last_client: None,
            told: HashSet::new(),
            write_commits: 0,
        }
    }

    async fn line(&mut self, shared: &Shared, old: &SideIdentity, database: &str) -> Result<&Conn, TaskError> {
        if self.lines.get(database).is_none_or(|conn| conn.is_closed()) {
            let conn = shared.dialer.open(old, database).await?;
            self.lines.insert(database.to_owned(), conn);
        }
        self.lines.get(database).ok_or_else(|| "the connection is gone".into())
    }

    async fn look(&mut self, shared: &Shared, old: &SideIdentity) -> Result<OldSide, TaskError> {
        let now = shared.clock.mono();
        let maintenance = shared.dialer.maintenance_database().to_owned();
        let conn = self.line(shared, old, &maintenance).await?;
        let read_only: bool = conn.query_one_scalar(sql::DEFAULT_READ_ONLY, &[]).await?;
        let databases = conn.connectable_databases().await?;
        let clients = self.clients(shared, old, &maintenance).await?;
        if !clients.is_empty() {
            self.last_client = Some(now);
        }
        let commits = self.write_commits;
        self.writes(shared, old, &maintenance, &databases).await?;
        // A client that comes, writes and goes between two looks was there all the same.
        if self.write_commits > commits {
            self.last_client = Some(now);
        }
        Ok(OldSide {
            age_ms: 0,
            read_only,
            clients,
            last_client_ms: self.last_client.map(|at| millis(now.since(at))),
            watched_ms: millis(now.since(self.began)),
            write_commits: self.write_commits,
        })
    }

    /// Lists the clients, ends each, and tells of each kind once.
    async fn clients(
        &mut self,
        shared: &Shared,
        old: &SideIdentity,
        maintenance: &str,
    ) -> Result<Vec<ClientSeen>, TaskError> {
        let conn = self.line(shared, old, maintenance).await?;
        let mut seen = Vec::new();
        for row in conn.query(sql::OLD_SIDE_CLIENTS, &[]).await? {
            let (pid, start): (i32, Timestamp) = (row.try_get(0)?, row.try_get(1)?);
            let ended = conn.query_opt(sql::END_OLD_SIDE_CLIENT, &[&pid, &start]).await;
            let ended = matches!(ended, Ok(Some(row)) if row.try_get::<_, bool>(0).unwrap_or(false));
            let client = ClientSeen {
                database: row.try_get(2)?,
                user: row.try_get(3)?,
                application: row.try_get::<_, Option<String>>(4)?.unwrap_or_default(),
                client: row.try_get(5)?,
            };
            seen.push((client, ended));
        }
        for (client, ended) in &seen {
            let kind = format!("{client:?}");
            if self.told.len() < CLIENTS_MAX && self.told.insert(kind) {
                tracing::warn!(
                    database = client.database,
                    user = client.user,
                    application = client.application,
                    ended,
                    "a client is on the side that does not serve any more"
                );
                shared.event(Event::OldSideClient { at: shared.clock.now(), client: client.clone(), ended: *ended });
            }
        }
        Ok(seen.into_iter().map(|(client, _)| client).take(CLIENTS_MAX).collect())
    }

    /// May counters of rows still speak of the time before the cut?
    fn settles(&self, now: Mono) -> bool {
        now.since(self.began) < COUNTERS_SETTLE
    }

    /// Transactions that wrote: counted by transaction ids, and only while rows of users' tables were written, because
    /// maintenance of the server takes ids too. The first look is the baseline.
    async fn writes(
        &mut self,
        shared: &Shared,
        old: &SideIdentity,
        maintenance: &str,
        databases: &[String],
    ) -> Result<(), TaskError> {
        let mut written = false;
        for database in databases {
            let rows: i64 = self.line(shared, old, database).await?.query_one_scalar(sql::ROWS_WRITTEN, &[]).await?;
            let before = self.rows.insert(database.clone(), rows);
            written |= before.is_some_and(|before| rows > before);
        }
        let conn = self.line(shared, old, maintenance).await?;
        let next: i64 = conn.query_one_scalar(sql::NEXT_XID, &[]).await?;
        let Some(before) = self.next_xid else {
            self.next_xid = Some(next);
            return Ok(());
        };
        let late = self.settles(shared.clock.mono()) && self.last_client.is_none();
        let Some(commits) = written_by_clients(next - before, written, late) else { return Ok(()) };
        self.next_xid = Some(next);
        self.write_commits += commits;
        tracing::error!(commits, "data written to the old side");
        shared.event(Event::OldSideWritten { at: shared.clock.now(), commits });
        Ok(())
    }
}

/// How many transactions of clients wrote, of `ids` that were given out: none while no rows were, and none while rows are `late`, when
/// their counters may speak of the time before the cut. Ids that are not counted now are counted with the rows that belong to them.
fn written_by_clients(ids: i64, rows: bool, late: bool) -> Option<u64> {
    u64::try_from(ids).ok().filter(|ids| *ids > 0 && rows && !late)
}

impl Task for Watch {
    const NAME: &'static str = "watch";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        ready.set(true);
        tokio::select! {
            () = stop.triggered() => Ok(()),
            end = self.markers() => end,
            end = self.schemas() => end,
            end = self.partitions() => end,
            end = self.old_sides() => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_with_transaction_ids_count_as_written_and_not_while_their_counters_are_late() {
        assert_eq!(written_by_clients(3, true, false), Some(3));
        assert_eq!(written_by_clients(2, false, false), None, "the provider drops its publications");
        assert_eq!(written_by_clients(0, true, false), None, "counters of what was written before the cut");
        assert_eq!(written_by_clients(2, true, true), None, "both, and no client was there");
    }
}
