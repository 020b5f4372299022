//! `pilot-lab`: the lab's command line. Parses, starts the runtime, runs the verb, and turns its end into an exit code.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// A scenario file that asks for what cannot be.
const REFUSED: u8 = 2;
/// Bad usage, as the other binaries of this project say it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to stdout; a closed pipe is nobody's concern.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pilot-lab: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pilot-lab: {error:#}");
            if error.is::<lab::scenario::Refused>() { ExitCode::from(REFUSED) } else { ExitCode::FAILURE }
        }
    }
}
