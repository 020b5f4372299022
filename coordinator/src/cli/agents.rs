//! `pilot agents`.

use clap::Args;

use super::client::Client;
use super::{Common, Exit, Fault, Output, print, render};

#[derive(Debug, Args)]
pub(super) struct Agents {
    #[command(flatten)]
    common: Common,
}

impl Agents {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let agents = Client::connect(&self.common).await?.agents().await?;
        match self.common.output {
            Output::Json => print(&agents.to_string()),
            Output::Text => print(&render::agents(&agents)),
        }
        Ok(Exit::Done)
    }
}
