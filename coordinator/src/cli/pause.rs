//! `pilot pause`.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Common, Exit, Fault, render};

#[derive(Debug, Args)]
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
