//! `pilot agents`: who is connected; `pilot agents enrol` and `revoke` stand in their own file.

use clap::{Args, Subcommand};

use super::client::Client;
use super::enrol::{Enrol, Revoke};
use super::{Common, Exit, Fault, Output, print, render};

const EXAMPLES: &str = "\
Examples:
  pilot agents
  pilot agents --output json";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(super) struct Agents {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Issues a certificate for an agent, an operator or a coordinator, from an authority of your own
    Enrol(Enrol),
    /// Takes certificates of that authority back, by the list that coordinators read
    Revoke(Revoke),
}

impl Agents {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        match self.what {
            Some(What::Enrol(enrol)) => return enrol.run(),
            Some(What::Revoke(revoke)) => return revoke.run(),
            None => {}
        }
        let agents = Client::connect(&self.common).await?.agents().await?;
        match self.common.output {
            Output::Json => print(&agents.to_string()),
            Output::Text => print(&render::agents(&agents)),
        }
        Ok(Exit::Done)
    }
}
