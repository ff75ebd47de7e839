//! The command line. Layer 5: what was typed, nothing of what it means.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at or remove what transparent mode installed in the kernel.
    #[command(subcommand)]
    Intercept(InterceptCommand),
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
