//! `pilot preflight`.

use clap::Args;

use super::client::Client;
use super::{Common, Exit, Fault, Output, SpecArgs, print, render};

const EXAMPLES: &str = "\
Examples:
  pilot preflight --cluster orders --to 16
  pilot preflight --spec orders.toml --output json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Preflight {
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    common: Common,
}

impl Preflight {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let spec = self.spec.read()?;
        let found = Client::connect(&self.common).await?.preflight(&spec).await?;
        let blocked = found["blocked"].as_bool().unwrap_or(true);
        match self.common.output {
            Output::Json => print(&found.to_string()),
            Output::Text => print(&render::preflight(&found)?),
        }
        Ok(if blocked { Exit::Refused } else { Exit::Done })
    }
}
