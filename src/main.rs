//! The `gatepost` command.

use std::process::ExitCode;

use clap::Parser as _;
use gatepost::app;
use gatepost::cli::Cli;

fn main() -> ExitCode {
    match app::run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // `#` appends the causes.
            eprintln!("gatepost: {error:#}");
            ExitCode::FAILURE
        }
    }
}
