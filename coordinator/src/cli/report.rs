//! `pilot report`. HTML goes into a file `ID.html` where stdout is a terminal, and to stdout where it is not; everything else goes to
//! stdout. `--out` names a file, `-` is stdout.

use std::io::{IsTerminal as _, stdout};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::client::Client;
use super::{Common, Exit, Fault, Output, print, render, say};
use crate::report::{self, html, markdown, terraform};

const EXAMPLES: &str = "\
Examples:
  pilot report up-0193f3a1c2
  pilot report up-0193f3a1c2 --out orders.html
  pilot report up-0193f3a1c2 --format md > orders.md
  pilot report up-0193f3a1c2 --format terraform";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Report {
    /// The upgrade; it need not have ended
    id: String,
    /// How it is written; `terraform` is only the follow-up for Terraform
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Where to; `-` is stdout. Without it HTML is written to ID.html when stdout is a terminal, and all else to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Html,
    Md,
    Json,
    Terraform,
}

impl Report {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let format = self.format.unwrap_or(match self.common.output {
            Output::Json => Format::Json,
            Output::Text => Format::Html,
        });
        let report: report::Report = Client::connect(&self.common).await?.report(&self.id).await?;
        let text = match format {
            Format::Html => {
                html::page(&report).map_err(|error| Fault::failed(format!("writing the report: {error}")))?
            }
            Format::Md => markdown::page(&report),
            Format::Json => render::json(&report),
            Format::Terraform => terraform::text(&report.id, &report.terraform),
        };
        let file = match self.out {
            None if format == Format::Html && stdout().is_terminal() => {
                Some(PathBuf::from(format!("{}.html", file_name(&report.id))))
            }
            None => None,
            Some(file) => Some(file).filter(|file| file != Path::new("-")),
        };
        match file {
            None => print(&text),
            Some(file) => {
                std::fs::write(&file, text)
                    .map_err(|error| Fault::failed(format!("{} cannot be written: {error}", file.display())))?;
                say(&format!("the report of {} is in {}", report.id, file.display()));
            }
        }
        if report.ended_at.is_none() {
            say("the upgrade has not ended: this is how it stands");
        }
        Ok(Exit::Done)
    }
}

/// An id as the name of a file: it comes from a coordinator.
fn file_name(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}
