//! Hooks: what else is to be told, or asked, at named points of an upgrade: commands, HTTP endpoints, Slack, PagerDuty.
//!
//! Two things that have little in common but their configuration (`settings.rs`) and their way out (`wires.rs`):
//! - *Asked* (`leave.rs`): a command or endpoint at a `before_…` point may say go, wait or no before the step begins. The engine
//!   asks for leave at the one moment when nothing of the step is at work; nothing is asked inside the hold.
//! - *Told* (`telling.rs`): everything else is news that is made of the journal's facts (`news.rs`), at least once, in order, and
//!   never in the driver's way. The journal is the queue; a bookmark for each hook, beside the journal, says how far it was told.
//!
//! The JSON is `notice.rs`; `deploy/hooks/README.md` is the protocol for those who write hooks.

mod answer;
pub mod leave;
pub mod news;
pub mod notice;
pub mod point;
mod preset;
pub mod settings;
pub mod telling;
#[cfg(test)]
pub(crate) mod tests;
mod wires;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use runtime::clock::Clock;
use runtime::http::Client;

pub use answer::{Heard, Said, Trouble, judge};
pub use leave::Leave;
pub use notice::{About, Notice};
pub use point::Point;
pub use settings::HookSettings;

/// All hooks of this coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    all: Vec<Arc<Hook>>,
    carrier: Arc<dyn Carrier>,
    page_url: Option<String>,
    clock: Clock,
}

/// One hook, validated.
#[derive(Clone)]
pub struct Hook {
    pub name: String,
    pub points: BTreeSet<Point>,
    pub target: Target,
    /// One try, answer included.
    pub timeout: Duration,
    /// Further tries after one that came to nothing, where they are given.
    pub retries: Option<u32>,
    pub on_failure: OnFailure,
    pub on_veto: OnVeto,
    /// How long it may say wait.
    pub wait_max: Duration,
    /// Between two questions to one that says wait.
    pub ask_again: Duration,
}

/// Where a hook leads.
#[derive(Clone)]
pub enum Target {
    /// The program, then its arguments.
    Command(Vec<String>),
    Http(Endpoint),
    Slack(Endpoint),
    Pagerduty {
        endpoint: Endpoint,
        routing_key_file: PathBuf,
    },
}

/// An address, and what is sent along. Files are read at every call, so that what is in them may change.
#[derive(Clone)]
pub struct Endpoint {
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub header_files: Vec<(String, PathBuf)>,
    /// Holds the secret that bodies are signed with.
    pub secret_file: Option<PathBuf>,
    /// Plain `http://` to other machines.
    pub plain_http: bool,
    pub client: Client,
}

/// An address that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    Given(String),
    InFile(PathBuf),
}

/// What becomes of a step whose hook could not be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It begins; a warning says so.
    Ignore,
    /// A person is asked.
    #[default]
    Stop,
    /// It counts as failed: before the switchover the upgrade goes back. After it a person is asked.
    Unwind,
}

/// What becomes of a step whose hook says no, or says wait for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnVeto {
    /// A person is asked.
    #[default]
    Stop,
    /// As [`OnFailure::Unwind`].
    Unwind,
}

/// The way to the endpoints and commands; tests have another.
pub trait Carrier: Send + Sync {
    /// One try.
    fn carry<'a>(
        &'a self,
        hook: &'a Hook,
        notice: &'a Notice,
        within: Duration,
    ) -> BoxFuture<'a, Result<Heard, Trouble>>;
}

impl Hook {
    /// Is it asked at this point, and not only told?
    pub fn asks(&self, point: Point) -> bool {
        point.is_before() && self.points.contains(&point) && matches!(self.target, Target::Command(_) | Target::Http(_))
    }

    /// Is it told of what happened at this point?
    pub fn tells(&self, point: Point) -> bool {
        self.points.contains(&point) && !self.asks(point)
    }

    /// Where it leads, without what may be a secret.
    pub fn shown(&self) -> String {
        let of = |endpoint: &Endpoint| match &endpoint.url {
            Url::Given(url) => redacted(url),
            Url::InFile(path) => format!("the address in {}", path.display()),
        };
        match &self.target {
            Target::Command(command) => format!("command {}", command.first().map_or("", String::as_str)),
            Target::Http(endpoint) => format!("http {}", of(endpoint)),
            Target::Slack(endpoint) => format!("slack {}", of(endpoint)),
            Target::Pagerduty { endpoint, .. } => format!("pagerduty {}", of(endpoint)),
        }
    }
}

/// Of an address only what leads to its server: paths and queries of webhooks are secrets.
fn redacted(url: &str) -> String {
    let scheme = url.split("://").next().unwrap_or_default();
    let authority = url.split("://").nth(1).unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}/…", authority.rsplit('@').next().unwrap_or_default())
}

impl Hooks {
    /// None.
    pub fn none(clock: Clock) -> Hooks {
        Hooks::over(Vec::new(), Arc::new(wires::Wires::new(clock.clone())), None, clock)
    }

    /// As they are configured.
    ///
    /// # Errors
    /// Names the hook and what is wrong with it.
    pub fn open(settings: &[HookSettings], page_url: Option<String>, clock: Clock) -> Result<Hooks, String> {
        let all = settings.iter().map(|hook| hook.read(&clock).map_err(|error| format!("{}: {error}", hook.name)));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        Ok(Hooks::over(all, Arc::new(wires::Wires::new(clock.clone())), page_url, clock))
    }

    /// With another way out.
    pub fn over(all: Vec<Hook>, carrier: Arc<dyn Carrier>, page_url: Option<String>, clock: Clock) -> Hooks {
        Hooks(Arc::new(Inner { all: all.into_iter().map(Arc::new).collect(), carrier, page_url, clock }))
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Hook>] {
        &self.0.all
    }

    /// Where people reach the web page.
    pub fn page_url(&self) -> Option<&str> {
        self.0.page_url.as_deref()
    }

    /// One try, judged.
    async fn once(&self, hook: &Hook, notice: &Notice, within: Duration) -> Result<Said, Trouble> {
        let asked = hook.asks(notice.point);
        let heard = self.0.carrier.carry(hook, notice, within).await?;
        judge(asked, &heard)
    }

    /// One try with what came back, for a person who tests a hook.
    ///
    /// # Errors
    /// When nothing came back.
    pub async fn try_out(&self, hook: &Hook, notice: &Notice) -> Result<(Heard, Result<Said, Trouble>), Trouble> {
        let heard = self.0.carrier.carry(hook, notice, hook.timeout).await?;
        let judged = judge(hook.asks(notice.point), &heard);
        Ok((heard, judged))
    }
}

/// A text of somebody else on one line of bounded length, without characters that a terminal would obey.
pub(crate) fn tame(text: &str, chars_max: usize) -> String {
    let mut tamed: String = text
        .trim()
        .chars()
        .map(|char| if char.is_control() || ('\u{202a}'..='\u{202e}').contains(&char) { ' ' } else { char })
        .take(chars_max)
        .collect();
    if text.trim().chars().nth(chars_max).is_some() {
        tamed.push('…');
    }
    tamed
}
