//! Live pages: a stream of server-sent events, each with the sections that changed since the one before, the facts that came, and
//! the newest values for the charts. A stream ends before its connection's life does; the browser opens another by itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use engine::Seq;
use futures_util::{Stream, StreamExt as _, stream};
use runtime::clock::Mono;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::charts::{Point, point};
use super::door::Visitor;
use super::one::{One, Section, say};
use super::{Asked, May, Site, all, assets, journal, may, stands_by, status_of};
use crate::codes;
use crate::operator::{Operator, Refusal};

/// At most one event in this time, however fast facts come.
const EVERY: Duration = Duration::from_millis(200);
/// An event at least this often, so that progress without facts is seen.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Between two looks at all upgrades.
const ALL_EVERY: Duration = Duration::from_secs(2);
/// A connection of the admin endpoint lives for 60 s.
const LIFE: Duration = Duration::from_secs(50);
/// What the browser waits before it opens the next stream.
const RETRY: Duration = Duration::from_millis(500);
/// Facts of one event; more come with the next one.
const FACTS_MAX: usize = 200;

/// One event.
#[derive(Serialize)]
struct Update {
    /// Of the files that a page loads: another one is another program's page.
    version: &'static str,
    say: String,
    sections: BTreeMap<&'static str, String>,
    /// Rows of the journal, newest first.
    facts: String,
    point: Option<Point>,
    /// It has ended, and nothing changes any more.
    over: bool,
}

/// From where on a page wants facts.
#[derive(Deserialize)]
pub(super) struct Wanted {
    from: Option<u64>,
}

/// `GET /upgrades/{id}/live`.
pub(super) async fn one(
    State(site): State<Site>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Query(Wanted { from }): Query<Wanted>,
    Asked(port): Asked,
    headers: HeaderMap,
) -> Response {
    let Ok(place) = Arc::clone(&site.live).try_acquire_owned() else { return full() };
    let newest = match site.operator.status(&id).await {
        Ok(view) => view.next_seq,
        Err(refusal) => return (status_of(&refusal), refusal.to_string()).into_response(),
    };
    // What the browser saw last, when it comes again by itself.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let next = Seq(last.or(from).unwrap_or(newest).min(newest));
    let changes = site.operator.changes(&id);
    let follower = Follower { id, next, may: may(&visitor), changes, behind: false };
    answer(Watcher::new(site.operator, port, place), follower, visitor)
}

/// `GET /live`.
pub(super) async fn all(
    State(site): State<Site>,
    Extension(visitor): Extension<Visitor>,
    Asked(port): Asked,
) -> Response {
    let Ok(place) = Arc::clone(&site.live).try_acquire_owned() else { return full() };
    answer(Watcher::new(site.operator, port, place), Everything, visitor)
}

fn full() -> Response {
    let why = format!("{}: as many pages are kept up to date as may be (limits.live_max)\n", codes::TOO_MANY_PAGES);
    let again = [(RETRY_AFTER, HeaderValue::from_static("10"))];
    (StatusCode::SERVICE_UNAVAILABLE, again, why).into_response()
}

/// Until its time is over, what the visitor showed is good no longer, this coordinator stops, or the browser goes.
fn answer<S: Subject>(watcher: Watcher, subject: S, visitor: Visitor) -> Response {
    let operator = watcher.operator.clone();
    let over = async move {
        tokio::select! {
            _why = visitor.guard.over(&visitor.caller) => {}
            () = operator.stopping() => {}
        }
    };
    let events = events(watcher, subject).take_until(Box::pin(over));
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))).into_response()
}

/// One open stream.
struct Watcher {
    operator: Operator,
    port: u16,
    sent: BTreeMap<&'static str, String>,
    ends: Mono,
    first: bool,
    over: bool,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    fn new(operator: Operator, port: u16, place: OwnedSemaphorePermit) -> Watcher {
        let ends = operator.clock().mono() + LIFE;
        Watcher { operator, port, sent: BTreeMap::new(), ends, first: true, over: false, _place: place }
    }

    /// Those that are not as they were sent last.
    fn changed(&mut self, sections: Vec<Section>) -> BTreeMap<&'static str, String> {
        let news = sections.into_iter().filter(|(id, html)| self.sent.get(id) != Some(html));
        let news: BTreeMap<&'static str, String> = news.collect();
        self.sent.extend(news.iter().map(|(id, html)| (*id, html.clone())));
        news
    }
}

/// What a stream is about.
trait Subject: Send + 'static {
    /// Waits until it is worth to look again.
    fn wait(&mut self, operator: &Operator) -> impl Future<Output = ()> + Send;
    /// How it stands; with the number of the next fact, where there are facts.
    fn look(&mut self, operator: &Operator) -> impl Future<Output = Result<Look, Refusal>> + Send;
}

struct Look {
    say: String,
    sections: askama::Result<Vec<Section>>,
    facts: askama::Result<String>,
    next: Option<Seq>,
    point: Option<Point>,
    over: bool,
}

fn events<S: Subject>(watcher: Watcher, subject: S) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((watcher, subject), async |(mut watcher, mut subject)| {
        let event = next(&mut watcher, &mut subject).await?;
        Some((Ok(event), (watcher, subject)))
    })
}

async fn next<S: Subject>(watcher: &mut Watcher, subject: &mut S) -> Option<Event> {
    loop {
        if watcher.over || watcher.operator.clock().mono() >= watcher.ends {
            return None;
        }
        if !std::mem::take(&mut watcher.first) {
            subject.wait(&watcher.operator).await;
        }
        // A store that is away for a moment: the page shows what it has, and says how old it is.
        let Ok(look) = subject.look(&watcher.operator).await else { continue };
        watcher.over = look.over;
        return Some(event(watcher, look));
    }
}

fn event(watcher: &mut Watcher, look: Look) -> Event {
    let (say, over, point) = (look.say, look.over, look.point);
    let sections = look.sections.and_then(|mut sections| {
        sections.push(("stands-by", stands_by(&watcher.operator, watcher.port)?));
        Ok(sections)
    });
    let made = sections.and_then(|sections| Ok((sections, look.facts?)));
    let event = match made {
        Ok((sections, facts)) => {
            let sections = watcher.changed(sections);
            Event::default().json_data(Update { version: &assets::VERSION, say, sections, facts, point, over })
        }
        Err(error) => Ok(Event::default().comment(error.to_string().replace(['\r', '\n'], " "))),
    };
    let event = event.unwrap_or_default().retry(RETRY);
    match look.next {
        Some(next) => event.id(next.to_string()),
        None => event,
    }
}

/// One upgrade.
struct Follower {
    id: String,
    next: Seq,
    may: May,
    changes: watch::Receiver<u64>,
    /// There are facts that no event has told yet.
    behind: bool,
}

impl Subject for Follower {
    async fn wait(&mut self, operator: &Operator) {
        operator.clock().sleep(EVERY).await;
        if !self.behind {
            let _ = operator.clock().timeout(AT_LEAST - EVERY, self.changes.changed()).await;
        }
    }

    async fn look(&mut self, operator: &Operator) -> Result<Look, Refusal> {
        self.changes.borrow_and_update();
        // The status first, so that every fact it tells of is among the facts.
        let (view, before) = operator.status_beside(&self.id).await?;
        let facts = operator.some_history(&self.id, self.next, FACTS_MAX).await?;
        let asked = operator.spec(&self.id).await?;
        self.next = facts.last().map_or(self.next, |fact| Seq(fact.seq + 1));
        self.behind = self.next.0 < view.next_seq;
        let (say, over) = (say(&view), view.outcome.is_some() && !self.behind);
        let point = Some(point(&view, operator.clock().now()));
        let one = One { view, before, asked, may: self.may };
        let (sections, facts) = (one.sections(), journal::rows_of(facts));
        Ok(Look { say, sections, facts, next: Some(self.next), point, over })
    }
}

/// All of them.
struct Everything;

impl Subject for Everything {
    async fn wait(&mut self, operator: &Operator) {
        operator.clock().sleep(ALL_EVERY).await;
    }

    async fn look(&mut self, operator: &Operator) -> Result<Look, Refusal> {
        let upgrades = operator.list().await?;
        let sections = all::sections(&upgrades, &operator.agents());
        let (say, facts) = (all::say(&upgrades), Ok(String::new()));
        Ok(Look { say, sections, facts, next: None, point: None, over: false })
    }
}
