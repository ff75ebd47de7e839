//! `gatepost postfix`: what Postfix starts, and what it needs in its configuration.

mod install;

use std::io::{stdin, stdout};
use std::process::ExitCode;

use super::output::print;
use super::{block_on, outbound};
use crate::cli::PostfixCommand;
use crate::postfix::dsn_filter;
use crate::postfix::socketmap::run_helper;

pub(super) fn run(command: PostfixCommand) -> anyhow::Result<ExitCode> {
    match command {
        PostfixCommand::Install(args) => install::run(&args),
        PostfixCommand::DsnFilter => {
            print(&dsn_filter())?;
            Ok(ExitCode::SUCCESS)
        }
        PostfixCommand::Map { socket } => {
            // spawn(8) connects standard error with Postfix too: a message there would be taken for an answer.
            let ended = run_helper(stdin().lock(), stdout().lock(), &socket);
            Ok(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        PostfixCommand::Expire(args) => block_on(outbound::expire(args)),
    }
}
