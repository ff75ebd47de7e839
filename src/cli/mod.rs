//! The command line. Layer 5: what was typed, nothing of what it means.

mod cache;
mod check;
mod door;
mod record;
mod replay;
mod value;
mod vantage;
mod watch;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use self::cache::{CacheArgs, CacheCommand, CacheFormat};
use self::check::CHECK_EXIT;
pub use self::check::{Check, CheckFormat};
pub use self::door::{Door, DoorFormat, DoorMode};
pub use self::record::Record;
use self::replay::REPLAY_EXIT;
pub use self::replay::{Act, ActFamily, ActPace, Judge, Replay, ReplayFormat};
pub use self::vantage::Vantage;
use self::watch::WATCH_RIGHTS;
pub use self::watch::{Watch, WatchFormat, WatchSource};

/// A transparent SMTP gateway for dual-stack mail.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Relay mail as a configuration file says, until SIGTERM; SIGHUP reads the file again.
    Run {
        /// The configuration file (TOML).
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show the SMTP that passes this host's interfaces, without touching it, until SIGINT or SIGTERM.
    #[command(after_long_help = WATCH_RIGHTS)]
    Watch(Box<Watch>),
    /// Write sessions that pass a running gateway as pcapng, until SIGINT or SIGTERM.
    Record(Record),
    /// Read captures and tell what happened on each SMTP session, what a policy would say of it, or say it again.
    #[command(after_long_help = REPLAY_EXIT)]
    Replay(Box<Replay>),
    /// Tell whether a domain's mail is ready for IPv6, seen from this host, and what to do where it is not.
    #[command(after_long_help = CHECK_EXIT)]
    Check(Box<Check>),
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at or remove what transparent mode installed in the kernel.
    #[command(subcommand)]
    Intercept(InterceptCommand),
    /// Tell of each family whether new sessions of it are let in and why, or open or close its door.
    Door(Door),
    /// Look at or forget what a gateway has learnt of others.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Call mail servers for a gateway on another network that asks whether it can be reached, until SIGINT or SIGTERM.
    Vantage(Vantage),
    /// Print what a shell completes gatepost's commands by.
    Completions {
        /// bash, zsh or fish, for instance.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command, to a directory.
    Man {
        /// It must be there.
        directory: PathBuf,
    },
    /// Look at what is counted.
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// Show what gatepost does: an MTA, a DNS zone, the gateway and a handful of senders, all on loopback.
    Demo {
        /// Exit after the table: 0 if everything went as it claims.
        #[arg(long)]
        once: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell every mistake in a file, or that there is none.
    Check {
        /// The configuration file (TOML).
        file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum InterceptCommand {
    /// Print gatepost's nftables table, routing rules and routes.
    Show,
    /// Remove all of them.
    Clean,
}

#[derive(Debug, Subcommand)]
pub enum MetricsCommand {
    /// Print the name, type, labels and meaning of every metric.
    List {
        /// Only those with this in their name, such as door.
        #[arg(value_name = "PART")]
        part: Option<String>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        format: ListFormat,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For reading in a terminal.
    #[default]
    Text,
    /// One array of objects.
    Json,
    /// The table of docs/metrics.md.
    Markdown,
}
