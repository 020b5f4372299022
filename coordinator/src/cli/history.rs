//! `pilot history`.

use clap::Args;

use super::client::Client;
use super::{Common, Exit, Fault, Output, print, render};
use crate::operator::view::HistoryView;

const EXAMPLES: &str = "\
Examples:
  pilot history up-0193f3a1c2
  pilot history up-0193f3a1c2 --output json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct History {
    /// The upgrade
    id: String,
    #[command(flatten)]
    common: Common,
}

impl History {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let history: HistoryView = Client::connect(&self.common).await?.history(&self.id).await?;
        match self.common.output {
            Output::Json => print(&render::json(&history)),
            Output::Text => history.facts.iter().for_each(|fact| print(&render::fact(fact))),
        }
        Ok(Exit::Done)
    }
}
