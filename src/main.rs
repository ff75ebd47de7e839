//! The `gatepost` command.

use std::process::ExitCode;

use clap::Parser as _;
use gatepost::app;
use gatepost::cli::Cli;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let failure = app::failure_code(&command);
    match app::run(command) {
        Ok(code) => code,
        Err(error) => {
            // `#` appends the causes.
            eprintln!("gatepost: {error:#}");
            ExitCode::from(failure)
        }
    }
}
