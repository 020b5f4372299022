//! `[[hooks]]` of the coordinator's configuration, and what is wrong with them. Validated once, when the coordinator starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::clock::Clock;
use runtime::http::Client;
use runtime::tls;
use serde::{Deserialize, Serialize};

use super::point::Point;
use super::{Endpoint, Hook, OnFailure, OnVeto, Target, Url, preset};

/// Hooks of one coordinator.
pub const HOOKS_MAX: usize = 32;
const NAME_CHARS_MAX: usize = 40;
const HEADERS_MAX: usize = 20;
const TIMEOUT_SECONDS_MAX: u64 = 60;
const RETRIES_MAX: u32 = 20;
const WAIT_SECONDS_MAX: u64 = 86_400;
const ASK_AGAIN_SECONDS_MAX: u64 = 3600;

/// One hook as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSettings {
    /// Small letters, digits and `-`; in approvals, metrics and delivery ids.
    pub name: String,
    /// How it is asked and told.
    pub kind: Kind,
    /// Names of points, or `all`: every point that is no `before_…`.
    pub points: Vec<String>,
    /// `command`: the program and its arguments; no shell.
    #[serde(default)]
    pub command: Vec<String>,
    /// `http`, `slack`: the address; `https://`, or `http://` to this machine.
    #[serde(default)]
    pub url: Option<String>,
    /// In place of `url`: the file that holds it.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// Headers that are sent along.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Headers that are sent along, from files.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// `http`: bodies are signed (HMAC-SHA256) with the secret in it.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// `pagerduty`: the integration's key.
    #[serde(default)]
    pub routing_key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust in place of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Plain `http://` to other machines is meant.
    #[serde(default)]
    pub plain_http: bool,
    /// Of one try; 60 at most.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// Further tries, 20 at most; 2 where it is asked and 8 where it is told, unless given.
    #[serde(default)]
    pub retries: Option<u32>,
    /// What comes of a hook before a step that cannot be asked.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What comes of a no before a step.
    #[serde(default)]
    pub on_veto: OnVeto,
    /// How long it may say wait.
    #[serde(default = "default_wait")]
    pub wait_seconds_max: u64,
    /// Between two questions while it says wait.
    #[serde(default = "default_ask_again")]
    pub ask_again_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program on this machine.
    Command,
    /// An endpoint.
    Http,
    /// An incoming webhook of Slack, or of what takes the same.
    Slack,
    /// Events of PagerDuty.
    Pagerduty,
}

fn default_timeout() -> u64 {
    10
}

fn default_wait() -> u64 {
    3600
}

fn default_ask_again() -> u64 {
    30
}

/// What is wrong with all of them together, or with one.
///
/// # Errors
/// Names the hook and the key.
pub fn validate(hooks: &[HookSettings]) -> Result<(), String> {
    if hooks.len() > HOOKS_MAX {
        return Err(format!("there are {} hooks, {HOOKS_MAX} is the most", hooks.len()));
    }
    let mut names = BTreeSet::new();
    for hook in hooks {
        if !names.insert(&hook.name) {
            return Err(format!("two hooks are called {:?}", hook.name));
        }
        hook.read(&Clock::system()).map_err(|error| format!("{:?}: {error}", hook.name))?;
    }
    Ok(())
}

/// May this address be asked?
pub(super) fn allowed(url: &str, plain_http: bool) -> Result<(), String> {
    if tls::host(url).is_empty() || url.split("://").nth(1).is_some_and(|rest| authority(rest).contains('@')) {
        return Err("the address is no https://HOST without a user's name".to_owned());
    }
    match url.split("://").next() {
        Some("https") => Ok(()),
        Some("http") if plain_http || tls::is_loopback_url(url) => Ok(()),
        Some("http") => {
            Err("http:// leads to another machine without protection; write https://, or plain_http = true \
                             if the way there is protected"
                .to_owned())
        }
        _ => Err("the address begins neither with https:// nor with http://".to_owned()),
    }
}

fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn within(key: &str, value: u64, from: u64, to: u64) -> Result<(), String> {
    if (from..=to).contains(&value) { Ok(()) } else { Err(format!("{key} is {value}; write {from} to {to}")) }
}

impl HookSettings {
    /// The hook, validated.
    ///
    /// # Errors
    /// Names the key that is wrong, and what to write.
    pub fn read(&self, clock: &Clock) -> Result<Hook, String> {
        self.named()?;
        self.bounded()?;
        let points = self.points()?;
        self.only_its_own_keys()?;
        Ok(Hook {
            name: self.name.clone(),
            points,
            target: self.target(clock)?,
            timeout: Duration::from_secs(self.timeout_seconds),
            retries: self.retries,
            on_failure: self.on_failure,
            on_veto: self.on_veto,
            wait_max: Duration::from_secs(self.wait_seconds_max),
            ask_again: Duration::from_secs(self.ask_again_seconds),
        })
    }

    fn named(&self) -> Result<(), String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = !self.name.is_empty() && self.name.len() <= NAME_CHARS_MAX && self.name.bytes().all(fits);
        if good { Ok(()) } else { Err(format!("name: write 1 to {NAME_CHARS_MAX} of a-z, 0-9 and -")) }
    }

    fn bounded(&self) -> Result<(), String> {
        within("timeout_seconds", self.timeout_seconds, 1, TIMEOUT_SECONDS_MAX)?;
        within("retries", u64::from(self.retries.unwrap_or(0)), 0, u64::from(RETRIES_MAX))?;
        within("wait_seconds_max", self.wait_seconds_max, 0, WAIT_SECONDS_MAX)?;
        within("ask_again_seconds", self.ask_again_seconds, 1, ASK_AGAIN_SECONDS_MAX)?;
        within("headers", (self.headers.len() + self.header_files.len()) as u64, 0, HEADERS_MAX as u64)
    }

    fn points(&self) -> Result<BTreeSet<Point>, String> {
        let mut points = BTreeSet::new();
        for name in &self.points {
            match Point::parse(name) {
                Some(point) => drop(points.insert(point)),
                None if name == "all" => points.extend(Point::all().filter(|point| !point.is_before())),
                None => {
                    let known: Vec<&str> = Point::all().map(Point::as_str).collect();
                    return Err(format!("points: {name:?} is none; they are all, {}", known.join(", ")));
                }
            }
        }
        if self.kind == Kind::Pagerduty {
            let all = self.points.iter().any(|name| name == "all");
            if let Some(point) = points.iter().find(|point| !preset::makes_incidents(**point)).filter(|_| !all) {
                return Err(format!("points: {point} is no incident; write alarm, approval_wanted, finished, or all"));
            }
            points.retain(|point| preset::makes_incidents(*point));
        }
        if points.is_empty() { Err("points: there is none".to_owned()) } else { Ok(points) }
    }

    /// A key that means nothing to this kind is a mistake that would be found too late.
    fn only_its_own_keys(&self) -> Result<(), String> {
        use Kind::{Command, Http, Pagerduty};
        let web = self.url.is_some()
            || self.url_file.is_some()
            || self.ca_file.is_some()
            || self.plain_http
            || !self.headers.is_empty()
            || !self.header_files.is_empty();
        let wrong = [
            (!self.command.is_empty() && self.kind != Command, "command"),
            (web && self.kind == Command, "an address, a header or a certificate"),
            (self.secret_file.is_some() && self.kind != Http, "secret_file"),
            (self.routing_key_file.is_some() && self.kind != Pagerduty, "routing_key_file"),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, key)) => Err(format!("{key} is not for a hook of this kind")),
            None => Ok(()),
        }
    }

    fn target(&self, clock: &Clock) -> Result<Target, String> {
        Ok(match self.kind {
            Kind::Command => {
                let program = self.command.first().ok_or("command: write the program and its arguments, as a list")?;
                if program.contains('/') {
                    readable("command", Path::new(program))?;
                }
                Target::Command(self.command.clone())
            }
            Kind::Http => Target::Http(self.endpoint(None, clock)?),
            Kind::Slack => Target::Slack(self.endpoint(None, clock)?),
            Kind::Pagerduty => {
                let key =
                    self.routing_key_file.clone().ok_or("routing_key_file: write the file of the integration's key")?;
                readable("routing_key_file", &key)?;
                Target::Pagerduty {
                    endpoint: self.endpoint(Some(preset::PAGERDUTY_URL), clock)?,
                    routing_key_file: key,
                }
            }
        })
    }

    fn endpoint(&self, default: Option<&str>, clock: &Clock) -> Result<Endpoint, String> {
        let given = self.url.as_deref().or(default.filter(|_| self.url_file.is_none()));
        let url = match (given, &self.url_file) {
            (Some(url), None) => {
                allowed(url, self.plain_http).map_err(|error| format!("url: {error}"))?;
                Url::Given(url.to_owned())
            }
            (None, Some(path)) => {
                readable("url_file", path)?;
                Url::InFile(path.clone())
            }
            _ => return Err("write url or url_file, one of the two".to_owned()),
        };
        for (name, path) in &self.header_files {
            readable(&format!("header_files.{name}"), path)?;
        }
        if let Some(path) = &self.secret_file {
            readable("secret_file", path)?;
        }
        for name in self.headers.keys().chain(self.header_files.keys()) {
            if axum::http::HeaderName::try_from(name.as_str()).is_err() {
                return Err(format!("headers: {name:?} is no name of a header"));
            }
        }
        let plain = matches!(&url, Url::Given(url) if url.starts_with("http://"));
        let client = match plain && self.ca_file.is_none() {
            true => Client::plain(clock.clone()),
            false => {
                Client::new(self.ca_file.as_deref(), clock.clone()).map_err(|error| format!("ca_file: {error}"))?
            }
        };
        Ok(Endpoint {
            url,
            headers: self.headers.clone().into_iter().collect(),
            header_files: self.header_files.clone().into_iter().collect(),
            secret_file: self.secret_file.clone(),
            plain_http: self.plain_http,
            client,
        })
    }
}

fn readable(key: &str, path: &Path) -> Result<(), String> {
    if path.is_file() { Ok(()) } else { Err(format!("{key}: there is no file {}", path.display())) }
}
