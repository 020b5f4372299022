//! `pilot pause`.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Common, Exit, Fault, render};

const EXAMPLES: &str = "\
Examples:
  pilot pause up-0193f3a1c2";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Pause {
    /// The upgrade
    id: String,
    #[command(flatten)]
    common: Common,
}

impl Pause {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let answer = Client::connect(&self.common).await?.ask(&self.id, &json!({ "request": "pause" })).await?;
        render::answer(self.common.output, "pause", &answer);
        Ok(Exit::Done)
    }
}
