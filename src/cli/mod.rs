//! The command line: names, values and help of every command. Layer 5.

mod cache;
mod canary;
mod check;
mod door;
mod network;
mod outbound;
mod postfix;
mod record;
mod replay;
mod value;
mod vantage;
mod watch;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use self::cache::{CacheArgs, CacheCommand};
pub use self::canary::{CanaryCommand, CanaryReceiveArgs, CanarySendArgs, SendDirection};
use self::check::CHECK_EXIT;
pub use self::check::CheckArgs;
pub use self::door::{DoorArgs, DoorMode};
pub use self::network::NetworkArgs;
pub use self::outbound::OutboundArgs;
pub use self::postfix::{ExpireArgs, InstallArgs, PostfixCommand};
pub use self::record::RecordArgs;
use self::replay::REPLAY_EXIT;
pub use self::replay::{PolicyArgs, ReenactArgs, ReenactFamily, ReenactPace, ReplayArgs};
pub use self::vantage::VantageArgs;
use self::watch::WATCH_PRIVILEGES;
pub use self::watch::{WatchArgs, WatchCommand, WatchSource};

const INTERCEPT_CHECK: &str = "Each line begins with pass, warn, fail or unknown. The commands below a line are those that help; \
    they are printed, not run. The last check connects to each server. Exit status: 1 if a check fails or the command cannot run, \
    otherwise 0.";

/// A transparent SMTP gateway for dual-stack mail.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Run the gateway until SIGTERM; SIGHUP reloads the configuration.
    Run {
        /// Configuration file (TOML).
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show SMTP sessions on this host's interfaces without relaying them, until SIGINT, SIGTERM or SIGHUP.
    #[command(after_long_help = WATCH_PRIVILEGES)]
    Watch(Box<WatchArgs>),
    /// Record sessions of a running gateway to a pcapng file, until SIGINT or SIGTERM.
    Record(RecordArgs),
    /// Analyze captures: list SMTP sessions, evaluate a policy, or re-send the sessions to a server.
    #[command(after_long_help = REPLAY_EXIT)]
    Replay(Box<ReplayArgs>),
    /// Check whether a domain's mail is ready for IPv6, as seen from this host, and suggest fixes.
    #[command(after_long_help = CHECK_EXIT)]
    Check(Box<CheckArgs>),
    /// Check configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check a host for transparent mode, and show or remove its kernel rules.
    #[command(subcommand)]
    Intercept(InterceptCommand),
    /// Show or set the state of the door of each address family.
    Door(DoorArgs),
    /// Show what became of our own mail at other hosts, by address family, and where IPv6 is avoided.
    Outbound(OutboundArgs),
    /// Show or purge cached lookup results.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Serve and configure the Postfix of this host.
    #[command(subcommand)]
    Postfix(PostfixCommand),
    /// Compare how mail over IPv6 and IPv4 is treated, by pairs of identical messages.
    #[command(subcommand)]
    Canary(CanaryCommand),
    /// Probe mail servers on behalf of a gateway on another network, until SIGINT or SIGTERM.
    Vantage(VantageArgs),
    /// Print shell completions.
    Completions {
        /// Shell, such as bash, zsh or fish.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one per command.
    Man {
        /// Existing directory to write to.
        directory: PathBuf,
    },
    /// List metrics.
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// Run a demonstration on loopback: an MTA, a DNS zone, the gateway and a few senders.
    Demo {
        /// Exit after the table, with status 0 if every row passed.
        #[arg(long)]
        once: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Report every error in a configuration file, with its line and a remedy.
    Check {
        /// Configuration file (TOML).
        file: PathBuf,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub enum InterceptCommand {
    /// Check whether anything on this host would lose intercepted mail, and print the commands that help; changes nothing.
    #[command(after_long_help = INTERCEPT_CHECK)]
    Check {
        /// Configuration file (TOML).
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
        /// Output format: one line per check, or one JSON object.
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: OutputFormat,
    },
    /// Print gatepost's nftables table, routing rules and routes.
    Show,
    /// Remove gatepost's nftables table, routing rules and routes, and what `watch clean` removes.
    Clean,
}

#[derive(Debug, Subcommand)]
pub enum MetricsCommand {
    /// Print the name, type, labels and help of every metric.
    List {
        /// Substring of the metric name, such as door [default: all metrics].
        #[arg(value_name = "PATTERN")]
        pattern: Option<String>,
        /// Output format.
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: ListFormat,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Aligned text.
    #[default]
    Text,
    /// One array of objects.
    Json,
    /// The table in docs/metrics.md.
    Markdown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    #[default]
    Text,
    Json,
}
