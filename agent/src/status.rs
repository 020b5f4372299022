//! Asks the writers of both sides, by address, where the switchover stands: from the moment the window is announced, every few
//! milliseconds, on sessions of its own that are dialled again as soon as they are dropped. What it hears is a sign: it wakes
//! the probe and is reported. It never decides; the probe's write does.

use std::time::Duration;

use jiff::Timestamp;
use proto::{
    phase::{CHANGES_MAX, PhaseChange, SideStatus, StatusSource, SwitchoverPhase, SwitchoverStatus},
    report::Event,
    side::{Side, SideIdentity},
};
use runtime::{
    clock::Mono,
    shutdown::Stop,
    supervision::{Ready, Task, TaskError},
};
use tokio_postgres::SimpleQueryMessage;

use crate::{
    pg::{Conn, catalog::watchers as sql, connect::Limits},
    state::{Shared, millis},
};

/// Between looks until the cut was read, and after it.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// Between dials of a side that takes nobody: the probe, which lets clients go, dials before this one.
const DIAL_EVERY: Duration = Duration::from_millis(100);
/// While nothing is announced, and where a server has no such function.
const IDLE: Duration = Duration::from_secs(1);
/// For a dial, and for a look.
const WITHIN: Duration = Duration::from_millis(500);

/// What one side's writer said last.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    at: Mono,
    source: Option<StatusSource>,
    phase: Option<SwitchoverPhase>,
}

/// What both said, folded, since the window was announced.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chart {
    blue: Option<Told>,
    green: Option<Told>,
    changes: Vec<(Mono, Timestamp, Side, Option<SwitchoverPhase>)>,
    /// First sight of `SWITCHOVER_IN_PROGRESS` on either side, since blue last said that it serves.
    in_progress: Option<Mono>,
}

impl Chart {
    /// Takes what a side said just now; gives the change, if it is one.
    fn tell(
        &mut self,
        (now, wall): (Mono, Timestamp),
        side: Side,
        source: Option<StatusSource>,
        phase: Option<SwitchoverPhase>,
    ) -> Option<PhaseChange> {
        let told = match side {
            Side::Blue => &mut self.blue,
            Side::Green => &mut self.green,
        };
        let before = told.replace(Told { at: now, source, phase: phase.clone() });
        if before.and_then(|told| told.phase) == phase {
            return None;
        }
        match &phase {
            Some(SwitchoverPhase::InProgress) => self.in_progress = self.in_progress.or(Some(now)),
            // It begins, or it was taken back: what follows is counted anew.
            Some(phase) if phase.says_blue() => self.in_progress = None,
            _ => {}
        }
        if self.changes.len() == CHANGES_MAX {
            self.changes.remove(0);
        }
        self.changes.push((now, wall, side, phase.clone()));
        Some(PhaseChange { at: wall, side, phase, offset_ms: self.offset_ms(now) })
    }

    /// Milliseconds from the beginning of `SWITCHOVER_IN_PROGRESS` to `at`; `None` while it was not seen.
    pub fn offset_ms(&self, at: Mono) -> Option<i64> {
        let began = self.in_progress?;
        let distance = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Some(if at >= began { distance(millis(at.since(began))) } else { -distance(millis(began.since(at))) })
    }

    fn phases(&self) -> impl Iterator<Item = &SwitchoverPhase> {
        [&self.blue, &self.green].into_iter().flatten().filter_map(|told| told.phase.as_ref())
    }

    /// One side says that green accepts writes. A sign to look, no proof.
    pub fn says_green(&self) -> bool {
        self.phases().any(SwitchoverPhase::says_green)
    }

    /// A side says that blue still serves, and none says otherwise.
    pub fn says_blue(&self) -> bool {
        self.phases().any(SwitchoverPhase::says_blue) && self.phases().all(SwitchoverPhase::says_blue)
    }

    /// For the report: ages and offsets counted now. `None` when nothing was ever heard.
    pub fn status(&self, now: Mono) -> Option<SwitchoverStatus> {
        let side = |told: &Option<Told>| {
            let Told { at, source, phase } = told.clone()?;
            Some(SideStatus { age_ms: millis(now.since(at)), source, phase })
        };
        let changes = self.changes.iter().map(|(mono, at, side, phase)| PhaseChange {
            at: *at,
            side: *side,
            phase: phase.clone(),
            offset_ms: self.offset_ms(*mono),
        });
        let status = SwitchoverStatus { blue: side(&self.blue), green: side(&self.green), changes: changes.collect() };
        (status.blue.is_some() || status.green.is_some()).then_some(status)
    }
}

#[cfg(test)]
impl Chart {
    /// Green's server says so.
    pub fn saying(text: &str) -> Chart {
        let mut chart = Chart::default();
        let now = (Mono(Duration::ZERO), Timestamp::UNIX_EPOCH);
        chart.tell(now, Side::Green, Some(StatusSource::ShowTopology), Some(text.to_owned().into()));
        chart
    }
}

/// See the module.
pub struct StatusTask {
    pub shared: Shared,
}

/// A session on a side's writer, and what may be asked there.
struct Line {
    conn: Conn,
    source: Option<StatusSource>,
}

impl StatusTask {
    /// The side to ask, and how often; `None` while no switchover is announced.
    fn wanted(&self, side: Side) -> Option<(SideIdentity, Duration)> {
        let intent = self.shared.intent.borrow().clone()?;
        intent.window?;
        intent.targets.green.as_ref()?;
        let every = if intent.targets.serving == Side::Blue { LOOK_EVERY.0 } else { LOOK_EVERY.1 };
        Some((intent.targets.side(side)?.clone(), every))
    }

    async fn watch(&self, side: Side) {
        let mut line = None;
        loop {
            let began = self.shared.clock.mono();
            let rest = match self.wanted(side) {
                Some((identity, every)) => {
                    let look = self.look(&mut line, &identity);
                    let heard = self.shared.clock.timeout(WITHIN, look).await;
                    // What was begun and not answered cannot be told from what is asked next.
                    if heard.is_err() {
                        line = None;
                    }
                    match &line {
                        None => every.max(DIAL_EVERY),
                        Some(line) if line.source.is_none() => IDLE,
                        Some(_) => every,
                    }
                }
                None => {
                    line = None;
                    self.shared.status.send_if_modified(|chart| std::mem::take(chart) != Chart::default());
                    IDLE
                }
            };
            self.rest(began, rest).await;
        }
    }

    /// Asks once, on the session that is there or a new one. What cannot be asked now is not told: its age says so.
    async fn look(&self, line: &mut Option<Line>, identity: &SideIdentity) {
        let open = match line.take() {
            Some(open) if !open.conn.is_closed() => open,
            _ => {
                let limits = Limits { connect: WITHIN, silence: WITHIN, name: false };
                let database = self.shared.dialer.maintenance_database();
                match self.shared.dialer.open_within(identity, database, limits).await {
                    Ok(conn) => Line { conn, source: None },
                    Err(error) => {
                        tracing::debug!(side = ?identity.side, kind = error.kind(), "no session to ask the status on");
                        return;
                    }
                }
            }
        };
        let source = match open.source {
            None => match find(&open.conn).await {
                Ok(source) => source,
                Err(_unanswered) => return,
            },
            known => known,
        };
        let phase = match source {
            None => None,
            Some(source) => match ask(&open.conn, source).await {
                Ok(phase) => phase,
                // It ended in the middle: dialled again at the next look.
                Err(error) if !is_answer(&error) => return,
                // "There is no deployment", or the function went: no row either way.
                Err(error) => {
                    let error = runtime::supervision::chain(&error);
                    tracing::debug!(side = ?identity.side, error, "the status was not told");
                    None
                }
            },
        };
        if !open.conn.is_closed() {
            self.told(identity.side, source, phase);
            *line = Some(Line { source, ..open });
        }
    }

    fn told(&self, side: Side, source: Option<StatusSource>, phase: Option<SwitchoverPhase>) {
        let now = (self.shared.clock.mono(), self.shared.clock.now());
        let mut change = None;
        self.shared.status.send_if_modified(|chart| {
            change = chart.tell(now, side, source, phase);
            change.is_some()
        });
        let Some(PhaseChange { at, side, phase, offset_ms }) = change else { return };
        tracing::info!(?side, phase = phase.as_ref().map(SwitchoverPhase::as_str), offset_ms, "switchover status");
        // Every agent looks for itself; one tells the story.
        if self.shared.is_lead() {
            self.shared.event(Event::SwitchoverPhase { at, side, phase, offset_ms });
        }
    }

    async fn rest(&self, began: Mono, every: Duration) {
        let mut intent = self.shared.intent.subscribe();
        tokio::select! {
            () = self.shared.clock.sleep_until(began + every) => {}
            _ = intent.changed() => {}
        }
    }
}

/// Did the server refuse what was asked? What an end of the session, or of the server (class 57), cuts off says nothing of the
/// switchover, and comes before the connection is known to be closed.
fn is_answer(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| !code.code().starts_with("57"))
}

/// Which function the server has. One that may not be looked at is none.
async fn find(conn: &Conn) -> Result<Option<StatusSource>, tokio_postgres::Error> {
    for (source, text) in [
        (StatusSource::FastSwitchoverMetadata, sql::HAS_FAST_SWITCHOVER_METADATA),
        (StatusSource::ShowTopology, sql::HAS_SHOW_TOPOLOGY),
    ] {
        match conn.query_one_scalar::<bool, _>(text, &[]).await {
            Ok(true) => return Ok(Some(source)),
            Ok(false) => {}
            Err(error) if is_answer(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The furthest phase of the server's rows; `None` without a row.
async fn ask(conn: &Conn, source: StatusSource) -> Result<Option<SwitchoverPhase>, tokio_postgres::Error> {
    let text = match source {
        StatusSource::FastSwitchoverMetadata => sql::FAST_SWITCHOVER_METADATA,
        StatusSource::ShowTopology => sql::SHOW_TOPOLOGY,
    };
    let rows = conn.simple_query(text).await?.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).filter(|text| !text.is_empty()).map(str::to_owned),
        _ => None,
    });
    let phases = rows.map(SwitchoverPhase::from);
    Ok(phases.max_by_key(|phase| (phase.says_green(), phase.clone())))
}

impl Task for StatusTask {
    const NAME: &'static str = "status";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        ready.set(true);
        tokio::select! {
            () = stop.triggered() => {}
            () = self.watch(Side::Blue) => {}
            () = self.watch(Side::Green) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use SwitchoverPhase as P;
    use runtime::played::{Asked, Said, Still, Value};

    use super::*;
    use crate::testing::Pair;

    const SOURCE: Option<StatusSource> = Some(StatusSource::FastSwitchoverMetadata);

    fn at(ms: u64) -> (Mono, Timestamp) {
        let wall = Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
        (Mono(Duration::from_millis(ms)), wall)
    }

    #[test]
    fn each_change_is_told_once_with_its_offset_from_in_progress() {
        let mut chart = Chart::default();
        let mut told = |ms, side, phase: P| chart.tell(at(ms), side, SOURCE, Some(phase)).map(|it| it.offset_ms);
        assert_eq!(told(0, Side::Blue, P::Available), Some(None));
        assert_eq!(told(10, Side::Blue, P::Available), None, "the same again is no change");
        assert_eq!(told(900, Side::Blue, P::Initiated), Some(None));
        assert_eq!(told(1000, Side::Blue, P::InProgress), Some(Some(0)));
        assert_eq!(told(1010, Side::Green, P::InProgress), Some(Some(10)));
        assert_eq!(told(4000, Side::Green, P::PostProcessing), Some(Some(3000)));
        let status = chart.status(at(4100).0).unwrap();
        let offsets: Vec<_> = status.changes.iter().map(|change| change.offset_ms).collect();
        assert_eq!(offsets, [Some(-1000), Some(-100), Some(0), Some(10), Some(3000)]);
        assert_eq!(status.blue.unwrap().age_ms, 3100, "blue was not heard from since");
    }

    #[test]
    fn a_switchover_that_was_taken_back_is_counted_anew() {
        let mut chart = Chart::default();
        for (ms, phase) in [(0, P::InProgress), (500, P::Available), (9000, P::InProgress), (9500, P::PostProcessing)] {
            chart.tell(at(ms), Side::Green, SOURCE, Some(phase));
        }
        assert_eq!(chart.offset_ms(at(9600).0), Some(600));
    }

    #[test]
    fn one_side_is_enough_to_look_and_both_must_speak_for_blue() {
        let mut chart = Chart::default();
        assert!(!chart.says_green() && !chart.says_blue(), "nothing was said");
        chart.tell(at(0), Side::Blue, SOURCE, Some(P::Available));
        assert!(chart.says_blue());
        chart.tell(at(1), Side::Green, SOURCE, Some(P::PostProcessing));
        assert!(chart.says_green() && !chart.says_blue());
        chart.tell(at(2), Side::Green, SOURCE, Some(P::Unknown("HALF_WAY".into())));
        assert!(!chart.says_green() && !chart.says_blue());
        chart.tell(at(3), Side::Green, None, None);
        assert!(chart.says_blue(), "a side without a status says nothing");
    }

    #[test]
    fn a_status_that_flaps_does_not_grow_the_report() {
        let mut chart = Chart::default();
        for n in 0..1000 {
            chart.tell(at(n), Side::Green, SOURCE, Some(if n % 2 == 0 { P::Available } else { P::Initiated }));
        }
        let status = chart.status(at(1000).0).unwrap();
        assert_eq!(status.changes.len(), CHANGES_MAX);
        assert_eq!(status.changes.last().unwrap().phase, Some(P::Initiated), "the newest stay");
    }

    /// Says that the function is there and what it tells, but for what `told` says otherwise.
    async fn pair(name: &str, told: impl Fn(Side) -> Said + Clone + Send + Sync + 'static) -> Pair {
        let answer = move |side, asked: Asked| {
            let told = told.clone();
            async move {
                match asked.text.as_str() {
                    sql::HAS_FAST_SWITCHOVER_METADATA => Said::Rows(vec![vec![Value::Bool(true)]]),
                    _ => told(side),
                }
            }
        };
        Pair::start(name, answer).await
    }

    fn available() -> Said {
        Said::Rows(vec![vec!["AVAILABLE".into()]])
    }

    fn watching(pair: &Pair) -> tokio::task::JoinHandle<Result<(), TaskError>> {
        let mut task = StatusTask { shared: pair.shared.clone() };
        tokio::spawn(async move { task.run(Stop::new(), Ready::unwatched()).await })
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[tokio::test]
    async fn the_status_is_asked_every_20_ms_until_the_cut_was_read_and_every_250_ms_after_it() {
        let pair = pair("status-pace", |_| available()).await;
        let still = Still::stop();
        pair.shared.intent.send_replace(Some(pair.in_window(Side::Blue).into()));
        let task = watching(&pair);
        for (serving, every) in [(Side::Blue, MS(20)), (Side::Green, MS(250))] {
            let mut seen = pair.times(Side::Green, sql::FAST_SWITCHOVER_METADATA);
            pair.shared.intent.send_replace(Some(pair.in_window(serving).into()));
            // The wish wakes the look.
            pair.asked(Side::Green, sql::FAST_SWITCHOVER_METADATA, seen + 1).await;
            still.pass(MS(0)).await;
            seen = pair.times(Side::Green, sql::FAST_SWITCHOVER_METADATA);
            for n in 0..3 {
                still.pass(every - MS(1)).await;
                assert_eq!(pair.times(Side::Green, sql::FAST_SWITCHOVER_METADATA), seen + n, "earlier than {every:?}");
                still.pass(MS(2)).await;
                pair.asked(Side::Green, sql::FAST_SWITCHOVER_METADATA, seen + n + 1).await;
            }
        }
        assert_eq!(pair.servers[1].connections(), 1, "a session that answers is kept");
        task.abort();
    }

    #[tokio::test]
    async fn a_status_that_is_not_told_within_500_ms_is_asked_on_a_new_session() {
        let pair = pair("status-silent", |_| Said::Nothing).await;
        let still = Still::stop();
        pair.shared.intent.send_replace(Some(pair.in_window(Side::Blue).into()));
        let task = watching(&pair);
        pair.asked(Side::Blue, sql::FAST_SWITCHOVER_METADATA, 1).await;
        for n in 1..4 {
            still.pass(MS(499)).await;
            assert_eq!(pair.servers[0].connections(), n, "given up before its time");
            still.pass(MS(2)).await;
            // It has rested for long enough, and dials at the next moment.
            still.pass(MS(1)).await;
            pair.asked(Side::Blue, sql::FAST_SWITCHOVER_METADATA, n + 1).await;
            assert_eq!(pair.servers[0].connections(), n + 1);
        }
        task.abort();
    }

    #[tokio::test]
    async fn a_side_that_hangs_up_is_dialled_every_100_ms_and_the_other_is_asked_as_before() {
        let told = |side| if side == Side::Blue { Said::Closes } else { available() };
        let pair = pair("status-dials", told).await;
        let still = Still::stop();
        pair.shared.intent.send_replace(Some(pair.in_window(Side::Blue).into()));
        let task = watching(&pair);
        pair.asked(Side::Blue, sql::FAST_SWITCHOVER_METADATA, 1).await;
        still.pass(MS(0)).await;
        for n in 1..4 {
            still.pass(MS(99)).await;
            assert_eq!(pair.servers[0].connections(), n, "dialled again too early");
            still.pass(MS(2)).await;
            pair.asked(Side::Blue, sql::FAST_SWITCHOVER_METADATA, n + 1).await;
        }
        assert!(pair.times(Side::Green, sql::FAST_SWITCHOVER_METADATA) > 3, "green waited for blue");
        task.abort();
    }
}
