//! `pilot hooks test`: one try of one hook, as the coordinator would make it, with a sample that is marked as a test. It asks no
//! coordinator: it reads the same configuration, and runs where it is started.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use runtime::clock::Clock;
use runtime::supervision::chain;
use serde_json::{Value, json};

use super::{Exit, Fault, Output, print};
use crate::config::{Config, Overrides};
use crate::hooks::{Heard, Hook, Hooks as All, Notice, Point, Said, Trouble};

#[derive(Debug, Args)]
pub(super) struct Hooks {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Sends a sample, marked as a test, to one hook and shows what came back
    ///
    /// Runs on the machine and as the user it is started by: as the coordinator's, to see what the coordinator sees.
    /// Exit 0 when the hook was told or says go, 3 when it says wait or no, 1 when it failed.
    Test(Test),
}

const EXAMPLES: &str = "\
Examples:
  pilot hooks test --config pilot.toml change-freeze
  pilot hooks test --config pilot.toml team-channel --point finished --output json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Test {
    /// The coordinator's configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The hook's name
    name: String,
    /// The point that the sample is of; the hook's first where it is not given
    #[arg(long, value_name = "POINT")]
    point: Option<String>,
    /// How data is printed to stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Hooks {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let Verb::Test(test) = self.verb;
        test.run().await
    }
}

impl Test {
    async fn run(self) -> Result<Exit, Fault> {
        let config = Config::load(&self.config, &Overrides::default()).map_err(|error| Fault::usage(chain(&error)))?;
        let clock = Clock::system();
        let hooks = All::open(&config.hooks, config.page_url.clone(), clock.clone()).map_err(Fault::usage)?;
        let hook = hooks.all().iter().find(|hook| hook.name == self.name).cloned().ok_or_else(|| {
            let known: Vec<&str> = hooks.all().iter().map(|hook| hook.name.as_str()).collect();
            Fault::refused(format!("there is no hook {:?}; configured are: {}", self.name, known.join(", ")))
        })?;
        let point = self.point(&hook)?;
        let notice = Notice::sample(point, config.page_url.clone(), clock.now());
        let outcome = hooks.try_out(&hook, &notice).await;
        match self.output {
            Output::Text => print(&text(&hook, &notice, &outcome)),
            Output::Json => print(&value(&hook, &notice, &outcome).to_string()),
        }
        Ok(match outcome.and_then(|(_, judged)| judged) {
            Ok(Said::Go) => Exit::Done,
            Ok(Said::Wait(_) | Said::Veto(_)) => Exit::Person,
            Err(_) => Exit::Failed,
        })
    }

    fn point(&self, hook: &Hook) -> Result<Point, Fault> {
        let Some(name) = &self.point else {
            return hook.points.first().copied().ok_or_else(|| Fault::refused("the hook has no point"));
        };
        let point = Point::parse(name);
        let point = point.ok_or_else(|| {
            let known: Vec<&str> = Point::all().map(Point::as_str).collect();
            Fault::usage(format!("there is no point {name:?}; they are {}", known.join(", ")))
        })?;
        if !hook.points.contains(&point) {
            super::say(&format!("{} is not configured for {point}; it is tried all the same", hook.name));
        }
        Ok(point)
    }
}

type Outcome = Result<(Heard, Result<Said, Trouble>), Trouble>;

fn text(hook: &Hook, notice: &Notice, outcome: &Outcome) -> String {
    let mut lines = vec![format!("{} ({}), told of {} as a test", hook.name, hook.shown(), notice.point)];
    if let Ok((heard, _)) = outcome {
        lines.push(match heard {
            Heard::Exit { code, out, err } => {
                let code = code.map_or("by a signal".to_owned(), |code| format!("with {code}"));
                format!("it ended {code}\nstdout: {}\nstderr: {}", shown(out), shown(err))
            }
            Heard::Http { status, body, .. } => format!("it answered {status}: {}", shown(body)),
            Heard::Nothing => "nothing is sent to it for this".to_owned(),
        });
    }
    lines.push(match said(outcome) {
        ("go", _) if hook.asks(notice.point) => "it says go".to_owned(),
        ("go", _) => "it was told".to_owned(),
        ("failed", reason) => format!("it FAILED: {reason}"),
        (decision, reason) => format!("it says {decision}: {reason}"),
    });
    lines.join("\n")
}

fn shown(text: &str) -> String {
    crate::hooks::tame(text, 500)
}

fn value(hook: &Hook, notice: &Notice, outcome: &Outcome) -> Value {
    let heard = match outcome {
        Ok((Heard::Exit { code, out, err }, _)) => json!({ "exit": code, "stdout": shown(out), "stderr": shown(err) }),
        Ok((Heard::Http { status, body, .. }, _)) => json!({ "status": status, "body": shown(body) }),
        Ok((Heard::Nothing, _)) | Err(_) => Value::Null,
    };
    let (decision, reason) = said(outcome);
    json!({ "hook": hook.name, "to": hook.shown(), "sent": notice, "heard": heard, "outcome": decision, "reason": reason })
}

fn said(outcome: &Outcome) -> (&'static str, String) {
    match outcome.as_ref().map(|(_, judged)| judged) {
        Ok(Ok(Said::Go)) => ("go", String::new()),
        Ok(Ok(Said::Wait(reason))) => ("wait", reason.clone()),
        Ok(Ok(Said::Veto(reason))) => ("veto", reason.clone()),
        Ok(Err(trouble)) | Err(trouble) => ("failed", trouble.text.clone()),
    }
}
