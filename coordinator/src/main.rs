//! The `pilot` binary: the crypto provider first, then the command of its arguments. Nothing else happens here.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    runtime::crypto::install();
    ExitCode::from(coordinator::cli::run().await as u8)
}
