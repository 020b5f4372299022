//! `pilot upgrade`: the single command. Shows the plan, asks for the cluster's name, starts, follows.

use std::io::{BufRead as _, IsTerminal as _, stdin};

use clap::{Args, ValueEnum};

use super::client::Client;
use super::follow::{Until, follow};
use super::{Common, Exit, Fault, SpecArgs, render, say};
use crate::operator::PlanView;

const EXAMPLES: &str = "\
Examples:
  pilot upgrade --cluster orders --to 16
  pilot upgrade --cluster orders --to 16 --spec orders.toml --yes --until finished
  pilot upgrade --cluster orders --to 16 --retries 1 --clean-leftovers";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Upgrade {
    #[command(flatten)]
    spec: SpecArgs,
    /// Start without asking for the cluster's name
    #[arg(long)]
    yes: bool,
    /// Follow until the new production is verified, or until cleanup is finished too
    #[arg(long, value_enum, default_value_t = FollowUntil::Verified)]
    until: FollowUntil,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FollowUntil {
    Verified,
    Finished,
}

impl Upgrade {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let spec = self.spec.read()?;
        let mut client = Client::connect(&self.common).await?;
        let plan: PlanView = client.plan(&spec).await?;
        say(&render::plan(&plan));
        if plan.blocked {
            return Err(Fault::refused("the upgrade cannot begin: see the findings above; nothing was touched"));
        }
        if !self.yes {
            confirm(&plan)?;
        }
        let id = client.start(&spec, &plan.digest).await?;
        say(&format!("started {id}; Ctrl-C detaches, the upgrade goes on"));
        let until = match self.until {
            FollowUntil::Verified => Until::Verified,
            FollowUntil::Finished => Until::Finished,
        };
        follow(&mut client, &self.common, &id, 0, until).await
    }
}

/// Anything destructive takes the name of what it is done to.
fn confirm(plan: &PlanView) -> Result<(), Fault> {
    if !stdin().is_terminal() {
        return Err(Fault::usage("nobody can be asked here: write --yes to start without asking"));
    }
    say(&format!("type the cluster's name ({}) to start:", plan.cluster));
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|error| Fault::failed(format!("reading the answer: {error}")))?;
    if line.trim() == plan.cluster {
        return Ok(());
    }
    Err(Fault::refused("that is not the cluster's name; nothing was started"))
}
