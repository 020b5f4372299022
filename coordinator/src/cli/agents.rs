//! `pilot agents`: who is connected; `pilot agents enrol` stands in its own file.

use clap::{Args, Subcommand};

use super::client::Client;
use super::enrol::Enrol;
use super::{Common, Exit, Fault, Output, print, render};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
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
}

impl Agents {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        if let Some(What::Enrol(enrol)) = self.what {
            return enrol.run();
        }
        let agents = Client::connect(&self.common).await?.agents().await?;
        match self.common.output {
            Output::Json => print(&agents.to_string()),
            Output::Text => print(&render::agents(&agents)),
        }
        Ok(Exit::Done)
    }
}
