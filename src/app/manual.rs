//! `gatepost completions SHELL`, `gatepost man DIRECTORY`: both are made of the command line's own description.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::print::print;
use crate::cli::Cli;

pub(super) fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    // Not onto the terminal itself: what is generated there panics when nobody reads it to the end.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gatepost", &mut script);
    print(&String::from_utf8(script).context("the completions")?)?;
    Ok(ExitCode::SUCCESS)
}

/// `gatepost.1`, `gatepost-run.1`, `gatepost-config-check.1` and so on.
pub(super) fn pages(directory: &Path) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(Cli::command(), directory).with_context(|| {
        format!(
            "cannot write manual pages to {}; name a directory that is there",
            directory.display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
