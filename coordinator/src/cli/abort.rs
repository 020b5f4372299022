//! `pilot abort`.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Common, Exit, Fault, render};

const EXAMPLES: &str = "\
Examples:
  pilot abort up-0193f3a1c2 --confirm orders";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Abort {
    /// The upgrade
    id: String,
    /// The cluster's name, so that an abort is never a slip
    #[arg(long, value_name = "CLUSTER")]
    confirm: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Abort {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let request = json!({ "request": "abort", "confirm": self.confirm });
        let answer = Client::connect(&self.common).await?.ask(&self.id, &request).await?;
        render::answer(self.common.output, "abort", &answer);
        Ok(Exit::Done)
    }
}
