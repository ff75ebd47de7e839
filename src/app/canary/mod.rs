//! `gatepost canary send|receive`: whether IPv6 mail is treated as IPv4 mail is.

mod receive;
mod send;

use std::process::ExitCode;

use super::block_on;
use crate::cli::CanaryCommand;

pub(super) fn run(command: CanaryCommand) -> anyhow::Result<ExitCode> {
    match command {
        CanaryCommand::Send(args) => block_on(send::send(*args)),
        CanaryCommand::Receive(args) => receive::receive(args),
    }
}
