//! The `pilot` binary: core dumps off and the crypto provider first, then the command of its arguments. Nothing else happens here.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = runtime::dumps::off() {
        eprintln!("pilot: core dumps cannot be switched off: {error}");
    }
    runtime::crypto::install();
    ExitCode::from(coordinator::cli::run().await as u8)
}
