//! One file or folder per subcommand.
//!
//! Layer 5. Joins the modules of layer 4, which do not import each other; rules belong in the layers below.

mod cache;
mod canary;
mod check;
mod config_check;
mod control_client;
mod demo;
mod door;
mod host_addresses;
mod host_checks;
mod hostname;
mod intercept;
mod manual;
mod metrics;
mod metrics_endpoint;
mod outbound;
mod output;
mod pipeline;
mod postfix;
mod record;
mod replay;
mod run;
mod signals;
mod upstream_names;
mod upstream_tls;
mod vantage;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::{CliCommand, ConfigCommand, MetricsCommand};

/// The exit status of a command that cannot run: none that its result may have.
pub const fn failure_code(command: &CliCommand) -> u8 {
    match command {
        CliCommand::Check(_) | CliCommand::Canary(_) => 2,
        _ => 1,
    }
}

/// Runs a command.
///
/// # Errors
/// What failed and its remedy, in one sentence.
pub fn run(command: CliCommand) -> anyhow::Result<ExitCode> {
    match command {
        CliCommand::Run { config } => block_on(run::run(&config)),
        CliCommand::Watch(args) => block_on(watch::watch(&args)),
        CliCommand::Replay(args) => block_on(replay::replay(&args)),
        CliCommand::Check(args) => block_on(check::run(&args)),
        CliCommand::Config(ConfigCommand::Check { file }) => config_check::run(&file),
        CliCommand::Intercept(command) => block_on(intercept::intercept(command)),
        CliCommand::Record(args) => block_on(record::record(args)),
        CliCommand::Door(args) => block_on(door::door(args)),
        CliCommand::Outbound(args) => block_on(outbound::outbound(args)),
        CliCommand::Cache(command) => block_on(cache::cache(command)),
        CliCommand::Postfix(command) => postfix::run(command),
        CliCommand::Vantage(args) => block_on(vantage::vantage(args)),
        CliCommand::Canary(command) => canary::run(command),
        CliCommand::Completions { shell } => manual::completions(shell),
        CliCommand::Man { directory } => manual::pages(&directory),
        CliCommand::Metrics(MetricsCommand::List { pattern, format }) => {
            metrics::list(pattern.as_deref(), format)
        }
        CliCommand::Demo { once } => block_on(demo::run(once)),
    }
}

/// Runs everything but the relay's workers (signals, HTTP, netlink) on the main thread.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(task)
}
