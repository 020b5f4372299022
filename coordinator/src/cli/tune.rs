//! `pilot tune`: the thresholds of an upgrade, while it runs. Without `KEY=VALUE` it lists what can be tuned.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::{Common, Exit, Fault, Output, print, render};
use crate::codes::CANNOT_TUNE;
use crate::operator::view::SettingsView;
use crate::spec::tune;

const EXAMPLES: &str = "\
Examples:
  pilot tune up-0193f3a1c2
  pilot tune up-0193f3a1c2 replication.lag_bytes_max=16MiB replication.sustained_seconds=10
  pilot tune up-0193f3a1c2 switchover.timeout_seconds=10m switchover.hold_seconds_max=11m
  pilot tune up-0193f3a1c2 --output json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tune {
    /// The upgrade
    id: String,
    /// What to change, all of it together; without any, what can be changed is listed with value, default and unit
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    common: Common,
}

impl Tune {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        if self.settings.is_empty() {
            return self.list().await;
        }
        let settings: BTreeMap<String, Value> =
            self.settings.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        if settings.len() < self.settings.len() {
            return Err(Fault::usage("a setting is named twice; name each once"));
        }
        // What no upgrade could take is said without asking; whether this one takes it is the coordinator's word.
        tune::read(&settings).map_err(|refused| Fault::refused(format!("{CANNOT_TUNE}: {refused}")))?;
        let request = json!({ "request": "tune", "settings": settings });
        let answer = Client::connect(&self.common).await?.ask(&self.id, &request).await?;
        render::answer(self.common.output, "the change", &answer);
        Ok(Exit::Done)
    }

    async fn list(self) -> Result<Exit, Fault> {
        let view: SettingsView = Client::connect(&self.common).await?.settings(&self.id).await?;
        match self.common.output {
            Output::Json => print(&render::json(&view)),
            Output::Text => print(&render::settings(&view)),
        }
        Ok(Exit::Done)
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as replication.lag_bytes_max=16MiB")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
