//! Asks the databases themselves, again and again: who answers behind the production name, does it read, does it write; and
//! in the window, has green begun to accept writes. Never overrides read-only, and believes no name.

use std::time::Duration;

use jiff::Timestamp;
use proto::{
    intent::Intent,
    report::{Event, OutageKind, Outcome},
    side::{ServerSaid, Side},
};
use runtime::{
    clock::Mono,
    shutdown::Stop,
    supervision::{Ready, Task, TaskError},
};
use tokio_postgres::types::Type;

use crate::{
    helm,
    pg::{
        Conn, ConnectError,
        catalog::watchers as sql,
        connect::{Limits, Pace},
    },
    spool::Key,
    state::{ProbeState, Shared},
};

/// Between looks, outside and inside the window.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(20));
/// Between dials of the production name while it leads to a side that is over: each is a whole login there.
const STALE_EVERY: Duration = Duration::from_millis(100);
/// Between dials of the production name while it answers nobody: each costs the server a process just when it must catch up,
/// and clients are let go by what green says by its address.
const REFUSED_EVERY: Duration = Duration::from_millis(50);
/// Between looks at green while clients are held for it, from the beginning of one to that of the next. Every dial that is
/// refused costs green a process, for every agent, while it catches up: no more often than this.
const GREEN_EVERY: Duration = Duration::from_millis(10);
/// Beside a dial of green that hangs.
const INSISTENCE: Pace = Pace { refused: GREEN_EVERY, hangs: Duration::from_millis(50) };
/// For a connect, and for each look, outside and inside the window.
const WITHIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(500));
/// A write that green took by address this long ago still says that writes are possible: two looks and some.
const GREEN_FRESH: Duration = Duration::from_millis(600);

/// See the module.
pub struct ProbeTask {
    pub shared: Shared,
    /// This agent's name: the key of its row.
    pub agent: String,
}

/// An identified connection.
struct Line {
    conn: Conn,
    /// Our table was seen there.
    table: bool,
}

/// What one look found.
pub enum Look {
    /// It answered; `wrote` is `None` when a write could not be judged (our table is not there).
    Answered {
        said: ServerSaid,
        wrote: Option<bool>,
    },
    Failed {
        kind: String,
        sqlstate: Option<String>,
    },
}

/// Since when something fails, and since when it last worked.
#[derive(Debug, Default)]
struct Outage {
    last: Option<(Mono, Timestamp, Option<Side>)>,
    failing: bool,
    /// Of outages that are over.
    total: Duration,
}

impl Outage {
    /// It worked: gives the outage that this ends.
    fn worked(&mut self, now: Mono, wall: Timestamp, side: Option<Side>) -> Option<Over> {
        let before = self.last.replace((now, wall, side));
        if !std::mem::take(&mut self.failing) {
            return None;
        }
        let (began, from, before) = before?;
        let length = now.since(began);
        self.total += length;
        Some(Over { from, length, before })
    }

    /// It did not. Counts only what worked before.
    fn failed(&mut self) {
        self.failing = self.last.is_some();
    }

    /// Outages so far, the present one included.
    fn so_far(&self, now: Mono) -> Duration {
        match self.last {
            Some((began, ..)) if self.failing => self.total + now.since(began),
            _ => self.total,
        }
    }
}

struct Over {
    from: Timestamp,
    length: Duration,
    before: Option<Side>,
}

/// The two ways of looking share what they learn.
pub struct Book<'a> {
    shared: &'a Shared,
    writes: Outage,
    reads: Outage,
    /// Green by address took a write then.
    green_wrote: Option<Mono>,
    /// Green was seen read-only since the window was announced: a later write there is the cut, not a loose green.
    green_was_read_only: bool,
}

impl<'a> Book<'a> {
    /// Nothing was learnt yet.
    pub fn new(shared: &'a Shared) -> Book<'a> {
        let (writes, reads) = (Outage::default(), Outage::default());
        Book { shared, writes, reads, green_wrote: None, green_was_read_only: false }
    }

    fn end(&self, over: Option<Over>, kind: OutageKind, to: Timestamp, after: Option<Side>) {
        let Some(over) = over else { return };
        let ms = crate::state::millis(over.length);
        tracing::info!(?kind, ms, before = ?over.before, ?after, "outage is over");
        self.shared.event(Event::Outage { from: over.from, to, ms, kind, before: over.before, after });
    }

    /// Takes in a look at whoever answers behind the production name.
    pub fn production(&mut self, look: Look, intent: &Intent) {
        let (now, wall) = (self.shared.clock.mono(), self.shared.clock.now());
        let outcome = match look {
            Look::Failed { kind, sqlstate } => {
                self.reads.failed();
                self.production_write_failed(now);
                Outcome::Unreachable { kind, sqlstate }
            }
            Look::Answered { said, wrote } => {
                let side = self.shared.dialer.side_of(&said, &intent.targets);
                let over = self.reads.worked(now, wall, side);
                self.end(over, OutageKind::Read, wall, side);
                match wrote {
                    Some(true) => self.wrote(now, wall, side),
                    Some(false) => self.production_write_failed(now),
                    None => {}
                }
                Outcome::Answered { side, said, wrote: wrote == Some(true) }
            }
        };
        let took = matches!(&outcome, Outcome::Answered { side: Some(Side::Green), wrote: true, .. });
        let blue = matches!(&outcome, Outcome::Answered { side: Some(Side::Blue), wrote: true, .. });
        if took {
            self.green_took_write(&outcome, intent);
        }
        self.update(|probe| {
            probe.production = Some((now, outcome));
            probe.blue_writes_in_a_row = if blue { probe.blue_writes_in_a_row.saturating_add(1) } else { 0 };
        });
    }

    /// Takes in a look at green, by address.
    pub fn green(&mut self, look: Look, intent: &Intent) {
        let now = self.shared.clock.mono();
        let outcome = match look {
            Look::Failed { kind, sqlstate } => Outcome::Unreachable { kind, sqlstate },
            Look::Answered { said, wrote } => {
                self.green_was_read_only |= said.read_only;
                if wrote == Some(true) {
                    // Clients can be sent there by address: writes are possible from here on, whatever the name does.
                    self.wrote(now, self.shared.clock.now(), Some(Side::Green));
                    self.green_wrote = Some(now);
                }
                Outcome::Answered { side: Some(Side::Green), said, wrote: wrote == Some(true) }
            }
        };
        if matches!(outcome, Outcome::Answered { wrote: true, .. }) {
            self.green_took_write(&outcome, intent);
        }
        self.update(|probe| probe.green = Some((now, outcome)));
    }

    /// While green takes writes by address, a name that still leads to the old side is no outage.
    fn production_write_failed(&mut self, now: Mono) {
        if self.green_wrote.is_none_or(|at| now.since(at) >= GREEN_FRESH) {
            self.writes.failed();
        }
    }

    fn wrote(&mut self, now: Mono, wall: Timestamp, side: Option<Side>) {
        let over = self.writes.worked(now, wall, side);
        self.end(over, OutageKind::Write, wall, side);
    }

    /// The proof. It is published at once and written down behind it.
    fn green_took_write(&self, outcome: &Outcome, intent: &Intent) {
        let Outcome::Answered { said, .. } = outcome else { return };
        let port = intent.targets.green.as_ref().and_then(|green| {
            let mut members = green.members.iter();
            members.find(|member| self.shared.dialer.known_address(member) == Some(said.address)).map(|it| it.port)
        });
        let counts = intent.window.is_some_and(|window| window.open) || intent.targets.serving == Side::Green;
        let (now, wall) = (self.shared.clock.mono(), self.shared.clock.now());
        let mut first = false;
        self.shared.probe.send_if_modified(|probe| {
            let writer = port.map(|port| (said.address, port));
            first = counts && !probe.green_took_write;
            let new = first || probe.green_writer != writer;
            probe.green_writer = writer;
            probe.green_took_write |= counts;
            new
        });
        if first {
            // Clients first, then the disk and the story.
            helm::steer(self.shared);
            self.shared.spool.put_soon(Key::GreenTookWrite, &intent.upgrade);
            let offset_ms = self.shared.status.borrow().offset_ms(now);
            tracing::info!(server = %said.address, offset_ms, "green accepted a write");
            self.shared.event(Event::GreenAcceptedWrite { at: wall, offset_ms });
        }
    }

    fn update(&self, change: impl FnOnce(&mut ProbeState)) {
        let now = self.shared.clock.mono();
        self.shared.probe.send_modify(|probe| {
            change(probe);
            probe.write_unavailable = self.writes.so_far(now);
            probe.read_unavailable = self.reads.so_far(now);
        });
    }
}

impl ProbeTask {
    /// One read and, where the server is not read-only by itself, one plain write. A session that was just opened has been
    /// read already. Writes are not judged before our table is there: it comes with the schema job.
    async fn look(&self, line: &mut Line, new: bool, may_write: bool) -> Result<Look, ConnectError> {
        let failed = |source| ConnectError::Server { host: line.conn.host().to_owned(), source };
        let said = if new { line.conn.said().clone() } else { line.conn.identify().await? };
        let writable = !said.read_only && !said.in_recovery;
        if may_write && writable && !line.table {
            line.table = line.conn.query_one_scalar::<bool, _>(sql::PROBE_IS_THERE, &[]).await.map_err(failed)?;
        }
        let wrote = match line.table {
            _ if !writable => Some(false),
            true if may_write => match line.conn.execute_typed(sql::PROBE_WRITE, &[(&self.agent, Type::TEXT)]).await {
                Ok(_) => Some(true),
                Err(error) => match error.code().map(|code| code.code()) {
                    Some("42P01" | "3F000" | "42501") => None,
                    // Read-only from one statement to the next: it answered all the same.
                    Some("25006") => Some(false),
                    _ => return Err(ConnectError::Server { host: line.conn.host().to_owned(), source: error }),
                },
            },
            _ => None,
        };
        Ok(Look::Answered { said, wrote })
    }

    /// Looks within the time, on a connection that is there or a new one. A connection to a server
    /// that is read-only is not used again for a name: what answers behind it may be another server by now.
    async fn look_at<F>(&self, line: &mut Option<Line>, within: Duration, dial: F, may_write: bool, keep: Keep) -> Look
    where
        F: Future<Output = Result<Conn, ConnectError>>,
    {
        let shown = self.shared.clock.timeout(within, async {
            let (mut taken, new) = match line.take() {
                Some(line) if !line.conn.is_closed() => (line, false),
                // Everything of ours that is on blue is on green: in the window no look is spent on it.
                _ => (Line { conn: dial.await?, table: keep == Keep::Always }, true),
            };
            let look = self.look(&mut taken, new, may_write).await?;
            Ok::<_, ConnectError>((taken, look))
        });
        match shown.await {
            Ok(Ok((taken, look))) => {
                let read_only = matches!(look, Look::Answered { wrote: Some(false), .. });
                if !read_only || keep == Keep::Always {
                    *line = Some(taken);
                }
                look
            }
            Ok(Err(error)) => {
                Look::Failed { kind: error.kind().to_owned(), sqlstate: error.sqlstate().map(str::to_owned) }
            }
            Err(_) => Look::Failed { kind: "timeout".to_owned(), sqlstate: None },
        }
    }

    fn pace(&self) -> (Duration, Limits) {
        let window = self.shared.in_window();
        let (every, within) = if window { (LOOK_EVERY.1, WITHIN.1) } else { (LOOK_EVERY.0, WITHIN.0) };
        // In the window every round trip is a client's wait.
        (every, Limits { connect: within, silence: within, name: !window })
    }

    async fn watch_production(&self, book: &std::sync::Mutex<Book<'_>>, ready: &Ready) {
        let mut line = None;
        loop {
            let began = self.shared.clock.mono();
            let (every, limits) = self.pace();
            let intent = self.shared.intent.borrow().clone();
            if let Some(intent) = &intent {
                let database = self.shared.dialer.maintenance_database();
                let dial = self.shared.dialer.open_production_within(&intent.targets.production, database, limits);
                let look = self.look_at(&mut line, limits.connect, dial, true, Keep::UnlessReadOnly).await;
                lock(book).production(look, intent);
            }
            ready.set(true);
            self.rest(began, every.max(self.patience())).await;
        }
    }

    /// No less than this lies between two looks at the production name.
    fn patience(&self) -> Duration {
        let probe = self.shared.probe.borrow();
        match &probe.production {
            Some((_, Outcome::Answered { wrote: false, .. })) if probe.green_took_write => STALE_EVERY,
            Some((_, Outcome::Unreachable { .. })) => REFUSED_EVERY,
            _ => Duration::ZERO,
        }
    }

    async fn watch_green(&self, book: &std::sync::Mutex<Book<'_>>) {
        let mut line = None;
        loop {
            let began = self.shared.clock.mono();
            let (every, limits) = self.pace();
            let intent = self.shared.intent.borrow().clone();
            let announced = intent.as_ref().is_some_and(|intent| intent.window.is_some());
            if let Some(intent) = intent.filter(|_| announced)
                && let Some(green) = &intent.targets.green
            {
                let may_write = self.may_write_on_green(&intent, &lock(book));
                let database = self.shared.dialer.maintenance_database();
                let dial = async {
                    tracing::trace!("dialling green");
                    let dialled = self.shared.dialer.open_insistently(green, database, limits, INSISTENCE).await;
                    tracing::trace!(refused = dialled.is_err(), "green was dialled");
                    dialled
                };
                // A try that is about to succeed is not cut off by one that hung before it.
                let look = self.look_at(&mut line, limits.connect * 2, dial, may_write, Keep::Always).await;
                lock(book).green(look, &intent);
            } else {
                line = None;
                lock(book).green_was_read_only = false;
            }
            let every = if announced && self.shared.in_window() { GREEN_EVERY } else { every };
            self.rest(began, every).await;
        }
    }

    /// Only in the open window; and where green never was seen read-only, only while blue takes no writes and no status says
    /// that it still should: such a write would be taken for the cut.
    pub fn may_write_on_green(&self, intent: &Intent, book: &Book<'_>) -> bool {
        let open = intent.window.is_some_and(|window| window.open) || intent.targets.serving == Side::Green;
        let blue_writes = matches!(
            &self.shared.probe.borrow().production,
            Some((_, Outcome::Answered { side: Some(Side::Blue), wrote: true, .. }))
        );
        let status = self.shared.status.borrow();
        open && (book.green_was_read_only || status.says_green() || (!blue_writes && !status.says_blue()))
    }

    /// Until the next look is due; a new wish, or a server that says something else, may make it due earlier.
    async fn rest(&self, began: Mono, every: Duration) {
        let (mut intent, mut status) = (self.shared.intent.subscribe(), self.shared.status.subscribe());
        tokio::select! {
            () = self.shared.clock.sleep_until(began + every) => {}
            _ = intent.changed() => {}
            _ = status.changed() => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    UnlessReadOnly,
    Always,
}

fn lock<'a, 'b>(book: &'a std::sync::Mutex<Book<'b>>) -> std::sync::MutexGuard<'a, Book<'b>> {
    book.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Task for ProbeTask {
    const NAME: &'static str = "probe";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let book = std::sync::Mutex::new(Book::new(&self.shared));
        tokio::select! {
            () = stop.triggered() => {}
            () = self.watch_production(&book, &ready) => {}
            () = self.watch_green(&book) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> (Mono, Timestamp) {
        let wall = Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
        (Mono(Duration::from_millis(ms)), wall)
    }

    #[test]
    fn an_outage_is_from_the_last_success_to_the_next() {
        let mut outage = Outage::default();
        outage.failed();
        assert!(outage.worked(at(100).0, at(100).1, Some(Side::Blue)).is_none(), "nothing worked before");
        assert!(outage.worked(at(120).0, at(120).1, Some(Side::Blue)).is_none());
        outage.failed();
        outage.failed();
        assert_eq!(outage.so_far(at(150).0), Duration::from_millis(30));
        let over = outage.worked(at(170).0, at(170).1, Some(Side::Green)).expect("an outage is over");
        assert_eq!((over.length, over.before, over.from), (Duration::from_millis(50), Some(Side::Blue), at(120).1));
        assert_eq!(outage.so_far(at(900).0), Duration::from_millis(50));
    }
}
