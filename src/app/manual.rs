//! `gatepost completions SHELL`, `gatepost man DIRECTORY`: both are generated from the command line's definition.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::print;
use crate::cli::Cli;

pub(super) fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    // Not directly to standard output, where the generator panics on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gatepost", &mut script);
    print(&String::from_utf8(script).context("the completions are not UTF-8")?)?;
    Ok(ExitCode::SUCCESS)
}

/// `gatepost.1`, `gatepost-run.1`, `gatepost-config-check.1` and so on.
pub(super) fn pages(directory: &Path) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(Cli::command(), directory).with_context(|| {
        format!("cannot write manual pages to {}; name an existing directory", directory.display())
    })?;
    Ok(ExitCode::SUCCESS)
}
