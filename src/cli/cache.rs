//! What `gatepost cache` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Print it, the last to expire first.
    Show {
        #[command(flatten)]
        args: CacheArgs,
        /// How to tell it.
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        format: CacheFormat,
    },
    /// Forget it, also in the file and where gateways share it.
    Purge {
        #[command(flatten)]
        args: CacheArgs,
    },
}

#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Only what has this in the columns KIND and ABOUT, such as `greet`, `example.org` or 2001:db8:: [default: all].
    pub pattern: Option<String>,
    /// The gateway's configuration file, for its control socket and, while it does not run, its file of answers.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The running gateway's control socket [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CacheFormat {
    /// A table.
    #[default]
    Text,
    /// One object a line.
    Json,
}
