//! `pilot status`.

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::{Common, Exit, Fault, Output, print, render};
use crate::operator::view::Brief;

const EXAMPLES: &str = "\
Examples:
  pilot status
  pilot status up-0193f3a1c2
  pilot status up-0193f3a1c2 --output json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    /// The upgrade; without it, all of them, newest first
    id: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Status {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let mut client = Client::connect(&self.common).await?;
        let view: Value = client.status(self.id.as_deref().unwrap_or_default()).await?;
        match (self.common.output, &self.id) {
            (Output::Json, _) => print(&view.to_string()),
            (Output::Text, Some(_)) => print(&render::status(&render::read(view)?)),
            (Output::Text, None) => print(&render::briefs(&render::read::<Vec<Brief>>(view["upgrades"].clone())?)),
        }
        Ok(Exit::Done)
    }
}
