//! `pilot watch`.

use clap::Args;

use super::client::Client;
use super::follow::{Until, follow};
use super::{Common, Exit, Fault, Output, print, render};

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// The upgrade
    id: String,
    #[command(flatten)]
    common: Common,
}

impl Watch {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let mut client = Client::connect(&self.common).await?;
        let (exit, status) = follow(&mut client, &self.common, &self.id, 0, Until::Finished).await?;
        match self.common.output {
            Output::Json => print(&render::json(&status)),
            Output::Text => print(&render::summary(&status)),
        }
        Ok(exit)
    }
}
