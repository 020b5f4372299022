//! `pilot watch`.

use clap::Args;

use super::client::Client;
use super::follow::{Until, follow};
use super::{Common, Exit, Fault};

const EXAMPLES: &str = "\
Examples:
  pilot watch up-0193f3a1c2
  pilot watch up-0193f3a1c2 --output json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Watch {
    /// The upgrade
    id: String,
    #[command(flatten)]
    common: Common,
}

impl Watch {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let mut client = Client::connect(&self.common).await?;
        follow(&mut client, &self.common, &self.id, 0, Until::Finished).await
    }
}
