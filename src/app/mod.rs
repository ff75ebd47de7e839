//! One file or folder per subcommand.
//!
//! Layer 5. Joins the modules of layer 4, which do not import each other; rules belong in the layers below.

mod cache;
mod check;
mod config_check;
mod control_client;
mod demo;
mod door;
mod hostname;
mod intercept;
mod manual;
mod metrics;
mod metrics_endpoint;
mod output;
mod pipeline;
mod record;
mod replay;
mod run;
mod signals;
mod vantage;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::{Command, ConfigCommand, MetricsCommand};

/// Runs a command.
///
/// # Errors
/// What failed and its remedy, in one sentence.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config } => block_on(run::run(&config)),
        Command::Watch(asked) => block_on(watch::watch(&asked)),
        Command::Replay(asked) => block_on(replay::replay(&asked)),
        Command::Check(asked) => block_on(check::run(&asked)),
        Command::Config(ConfigCommand::Check { file }) => config_check::run(&file),
        Command::Intercept(command) => block_on(intercept::intercept(command)),
        Command::Record(wanted) => block_on(record::record(wanted)),
        Command::Door(wanted) => block_on(door::door(wanted)),
        Command::Cache(command) => block_on(cache::cache(command)),
        Command::Vantage(asked) => block_on(vantage::vantage(asked)),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::pages(&directory),
        Command::Metrics(MetricsCommand::List { pattern, format }) => {
            metrics::list(pattern.as_deref(), format)
        }
        Command::Demo { once } => block_on(demo::run(once)),
    }
}

/// Runs everything but the relay's workers (signals, HTTP, netlink) on the main thread.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(task)
}
