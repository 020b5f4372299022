//! Follows an upgrade on stderr: every fact that matters as a line, and, on a terminal, one moving line with what goes on
//! now. Dials again when the coordinator is restarted; Ctrl-C detaches and the upgrade goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use runtime::clock::Clock;

use super::client::{Client, Watching};
use super::pace::Pace;
use super::{Common, Exit, Fault, Output, paint, print, render, say};
use crate::operator::view::{StatusView, WatchView};

/// How long a coordinator may be away before following gives up; the upgrade goes on without a follower.
const AWAY_MAX: Duration = Duration::from_secs(300);
const DIAL_AGAIN: Duration = Duration::from_millis(500);
/// Without a terminal, what goes on is said this often.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// When to stop following.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The new production is verified; cleanup may still wait.
    Verified,
    Finished,
}

/// Follows from a fact on, and prints how it stands in the end.
pub(super) async fn follow(
    client: &mut Client,
    common: &Common,
    id: &str,
    from: u64,
    until: Until,
) -> Result<Exit, Fault> {
    let clock = Clock::system();
    let mut screen = Screen::new(clock.clone());
    let work = stream(client, common, id, from, until, &clock, &mut screen);
    let result = tokio::select! {
        result = work => Some(result),
        _ = tokio::signal::ctrl_c() => None,
    };
    screen.clear();
    match result {
        Some(Ok((exit, status))) => {
            print(&match common.output {
                Output::Json => render::json(&status),
                Output::Text => render::summary(&status),
            });
            say(&format!("for the change record: pilot report {id}"));
            if status.switched_over {
                say(&format!("what Terraform needs now that names have moved: pilot report {id} --format terraform"));
            }
            Ok(exit)
        }
        Some(Err(fault)) => Err(fault),
        None => {
            say(&format!("detached; the upgrade goes on. Follow it again: pilot watch {id}"));
            // As it was seen last: nobody who wants to leave waits for an answer.
            if let (Output::Json, Some(status)) = (common.output, &screen.last) {
                print(&render::json(status));
            }
            Ok(Exit::Detached)
        }
    }
}

async fn stream(
    client: &mut Client,
    common: &Common,
    id: &str,
    from: u64,
    until: Until,
    clock: &Clock,
    screen: &mut Screen,
) -> Result<(Exit, StatusView), Fault> {
    let mut next = from;
    let mut watching = client.watch(id, next).await?;
    let mut persons = 0;
    loop {
        match watching.next().await {
            Ok(Some(view)) => {
                next = view.facts.last().map_or(next, |fact| fact.seq + 1);
                screen.show(&view);
                persons = if needs_person(&view.status) { persons + 1 } else { 0 };
                if let Some(exit) = over(&view.status, until, persons) {
                    return Ok((exit, view.status));
                }
            }
            Ok(None) | Err(_) => {
                screen.note("the coordinator is away; the upgrade goes on when it is back");
                (*client, watching) = watch_again(common, id, next, clock).await?;
            }
        }
    }
}

/// Dials until the stream is there: a coordinator that is just starting, or just ending, may take a connection and no call.
async fn watch_again(common: &Common, id: &str, next: u64, clock: &Clock) -> Result<(Client, Watching), Fault> {
    let began = clock.mono();
    loop {
        clock.sleep(DIAL_AGAIN).await;
        let again = async {
            let mut client = Client::connect(common).await?;
            let watching = client.watch(id, next).await?;
            Ok::<_, Fault>((client, watching))
        };
        match again.await {
            Ok(both) => return Ok(both),
            Err(fault) if fault.exit != Exit::Failed || clock.mono() - began > AWAY_MAX => return Err(fault),
            Err(_) => {}
        }
    }
}

/// It stopped for a person, other than for an approval or a pause that a person asked for.
fn needs_person(status: &StatusView) -> bool {
    status.health == "trouble" || (status.health == "person" && status.approvals.is_empty() && !is_paused(status))
}

fn is_paused(status: &StatusView) -> bool {
    let waiting = status.current.as_ref().and_then(|current| current.waiting_for.as_deref());
    waiting.is_some_and(|text| text.contains(engine::failure::codes::PAUSED.as_str()))
}

/// The exit code, once following is over. A person is needed only when that was seen several times in a row.
fn over(status: &StatusView, until: Until, persons: u32) -> Option<Exit> {
    match status.outcome.as_deref() {
        Some("succeeded") => return Some(Exit::Done),
        Some("unwound") => return Some(Exit::Failed),
        Some("refused") => return Some(Exit::Refused),
        Some(_) => return Some(Exit::Person),
        None => {}
    }
    let verified = status.steps.iter().any(|step| step.id == "post_switchover" && step.state == "done");
    if verified && until == Until::Verified {
        return Some(Exit::Done);
    }
    (persons >= 3).then_some(Exit::Person)
}

/// Where the follower writes: lines, and a moving line on a terminal.
struct Screen {
    bar: Option<ProgressBar>,
    pace: Pace,
    last: Option<StatusView>,
    clock: Clock,
    said: runtime::clock::Mono,
    asked: Option<String>,
    noted: bool,
}

impl Screen {
    fn new(clock: Clock) -> Screen {
        let bar = paint::can_move().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let said = clock.mono();
        Screen { bar, pace: Pace::default(), last: None, clock, said, asked: None, noted: false }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    /// Said once until something is seen again.
    fn note(&mut self, text: &str) {
        if !self.noted {
            self.line(text);
        }
        self.noted = true;
    }

    fn show(&mut self, view: &WatchView) {
        self.noted = false;
        for fact in view.facts.iter().filter(|fact| render::worth_a_line(fact)) {
            self.line(&render::fact(fact));
            self.said = self.clock.mono();
        }
        let action = view.status.next_action.clone();
        if action != self.asked {
            if let Some(action) = &action {
                self.line(&format!("waits for a person: {action}"));
            }
            self.asked = action;
        }
        let rate = self.pace.note(self.clock.mono(), view.status.current.as_ref());
        let now = render::now_at(&view.status, rate);
        self.last = Some(view.status.clone());
        match &self.bar {
            Some(bar) => draw(bar, &view.status, now),
            None if self.clock.mono() - self.said >= SAY_EVERY => {
                self.line(&now);
                self.said = self.clock.mono();
            }
            None => {}
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The moving line, with a bar where a work is counted.
fn draw(bar: &ProgressBar, status: &StatusView, now: String) {
    let count = status.current.as_ref().and_then(|current| current.progress.as_ref());
    match count.filter(|count| count.total > 0 && count.unit != engine::Unit::BYTES.0) {
        Some(count) => {
            let style = ProgressStyle::with_template("{spinner} [{bar:20}] {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> "));
            bar.set_length(count.total);
            bar.set_position(count.done.min(count.total));
        }
        None => {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        }
    }
    bar.set_message(now);
}
