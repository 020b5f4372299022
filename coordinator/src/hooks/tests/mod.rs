//! Hooks: real commands and endpoints, leave asked over the whole plan, telling across lives, the form of the JSON.

mod form;
mod plan;
mod real;
mod receiver;
mod told;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use runtime::clock::Clock;
use runtime::http::Client;

use super::{Carrier, Endpoint, Heard, Hook, Notice, OnFailure, OnVeto, Point, Target, Trouble, Url};

/// A command hook of these points that is patient: it asks where it can.
pub(crate) fn hook(name: &str, points: &[&str]) -> Hook {
    Hook {
        name: name.to_owned(),
        points: points.iter().map(|name| Point::parse(name).expect("a point")).collect::<BTreeSet<_>>(),
        target: Target::Command(vec!["true".to_owned()]),
        timeout: Duration::from_secs(10),
        retries: None,
        on_failure: OnFailure::Stop,
        on_veto: OnVeto::Stop,
        wait_max: Duration::from_secs(3600),
        ask_again: Duration::from_secs(30),
    }
}

/// Asks before every step.
pub(crate) fn asking(name: &str) -> Hook {
    Hook { points: Point::all().filter(|point| point.is_before()).collect(), ..hook(name, &[]) }
}

/// Is told of everything.
pub(super) fn telling(name: &str) -> Hook {
    let endpoint = Endpoint {
        url: Url::Given("http://127.0.0.1:1/".to_owned()),
        headers: Vec::new(),
        header_files: Vec::new(),
        secret_file: None,
        plain_http: false,
        client: Client::plain(Clock::system()),
    };
    Hook { points: Point::all().collect(), target: Target::Slack(endpoint), ..hook(name, &[]) }
}

/// What a played hook does with the n-th call, counted from 0.
pub(crate) enum Does {
    Says(i32, &'static str),
    Fails(Trouble),
    Hangs,
}

type Script = Box<dyn Fn(&Notice, usize) -> Does + Send + Sync>;

/// In place of commands and endpoints: answers as the test wants, and notes what it was asked and told.
pub(crate) struct Played {
    script: Script,
    calls: Mutex<Vec<(String, Notice)>>,
}

impl Played {
    pub(crate) fn new(script: impl Fn(&Notice, usize) -> Does + Send + Sync + 'static) -> Arc<Played> {
        Arc::new(Played { script: Box::new(script), calls: Mutex::default() })
    }

    /// What this hook was given, oldest first.
    pub(crate) fn calls(&self, hook: &str) -> Vec<Notice> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(name, _)| name == hook).map(|(_, notice)| notice.clone()).collect()
    }
}

impl Carrier for Played {
    fn carry<'a>(
        &'a self,
        hook: &'a Hook,
        notice: &'a Notice,
        within: Duration,
    ) -> BoxFuture<'a, Result<Heard, Trouble>> {
        Box::pin(async move {
            let n = self.calls(&hook.name).len();
            self.calls.lock().unwrap().push((hook.name.clone(), notice.clone()));
            match (self.script)(notice, n) {
                Does::Says(code, said) => Ok(Heard::Exit { code: Some(code), out: said.into(), err: String::new() }),
                Does::Fails(trouble) => Err(trouble),
                Does::Hangs => {
                    Clock::tokio().sleep(within).await;
                    Err(Trouble::passing("there was no answer in time"))
                }
            }
        })
    }
}
