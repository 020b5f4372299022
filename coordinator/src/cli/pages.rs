//! `pilot completions` and `pilot man`: made from the same definitions that parse the command line.

use std::fs;
use std::io::stdout;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Exit, Fault, print, say};

const EXAMPLES_OF_COMPLETIONS: &str = "\
Examples:
  pilot completions bash > /etc/bash_completion.d/pilot
  pilot completions zsh > ~/.zfunc/_pilot
  pilot completions fish > ~/.config/fish/completions/pilot.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES_OF_COMPLETIONS)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<Exit, Fault> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "pilot", &mut script);
        print(&String::from_utf8_lossy(&script));
        Ok(Exit::Done)
    }
}

const EXAMPLES_OF_MAN: &str = "\
Examples:
  pilot man | man -l -
  pilot man --out man1";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES_OF_MAN)]
pub(super) struct Man {
    /// Write a page for every verb into this folder; without it, the page of pilot itself goes to stdout
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<Exit, Fault> {
        let mut command = Cli::command();
        command.build();
        let Some(folder) = self.out else {
            let written = page(&command).and_then(|text| std::io::Write::write_all(&mut stdout().lock(), &text));
            // A closed pipe is not an error of ours.
            return Ok(written.map_or(Exit::Done, |()| Exit::Done));
        };
        let failed = |error: std::io::Error| Fault::failed(format!("writing into {}: {error}", folder.display()));
        fs::create_dir_all(&folder).map_err(failed)?;
        let pages = write(&command, "pilot", &folder).map_err(failed)?;
        say(&format!("{pages} pages in {}", folder.display()));
        Ok(Exit::Done)
    }
}

/// `pilot-agents-enrol.1` for `pilot agents enrol`, as git names its pages.
fn write(command: &Command, name: &str, folder: &Path) -> std::io::Result<usize> {
    let mut pages = 1;
    fs::write(folder.join(format!("{name}.1")), page(command)?)?;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        pages += write(verb, &format!("{name}-{}", verb.get_name()), folder)?;
    }
    Ok(pages)
}

fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}
