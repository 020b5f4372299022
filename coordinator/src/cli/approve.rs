//! `pilot approve`.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Common, Exit, Fault, render};

const EXAMPLES: &str = "\
Examples:
  pilot approve up-0193f3a1c2 reboot
  pilot approve up-0193f3a1c2 switchover
  pilot approve up-0193f3a1c2";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Approve {
    /// The upgrade
    id: String,
    /// What is approved, as the upgrade names it; without it, everything that it asks for now
    name: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Approve {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let request = json!({ "request": "approve", "name": self.name });
        let answer = Client::connect(&self.common).await?.ask(&self.id, &request).await?;
        render::answer(self.common.output, "approval", &answer);
        Ok(Exit::Done)
    }
}
