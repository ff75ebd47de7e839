//! Arguments of `gatepost cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputFormat;

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Print cached lookup results, the last to expire first.
    Show {
        #[command(flatten)]
        args: CacheArgs,
        /// Output format: a table, or JSON with one object per line.
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: OutputFormat,
    },
    /// Delete cached lookup results from memory, from the cache file and from Redis.
    Purge {
        #[command(flatten)]
        args: CacheArgs,
    },
}

#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Text to match in the columns KIND and ABOUT, such as `greet`, `example.org` or 2001:db8:: [default: all].
    pub pattern: Option<String>,
    /// Configuration file of the gateway; names its control socket and, if it is not running, its cache file.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Control socket of the running gateway [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
}
