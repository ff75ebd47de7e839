//! Arguments of `gatepost postfix`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::OutboundConfig;

#[derive(Debug, Subcommand)]
pub enum PostfixCommand {
    /// Print the commands by which Postfix uses gatepost, for the family of outbound mail and for policy: the lines of main.cf
    /// and master.cf.
    Install(InstallArgs),
    /// Print a table for Postfix's smtp_delivery_status_filter, by which refusals for reasons of IPv6 policy are retried.
    DsnFilter,
    /// Answer one connection of Postfix's smtp_dns_reply_filter on standard input and output; spawn(8) starts it.
    Map {
        /// Socket of the running gateway, as `map` in `[outbound]`.
        #[arg(long, value_name = "PATH", default_value = OutboundConfig::MAP)]
        socket: PathBuf,
    },
    /// Return messages that are refused over IPv6 again and again to their senders; as root, from cron(8) or a timer.
    Expire(ExpireArgs),
}

#[derive(Debug, Args)]
pub struct ExpireArgs {
    /// Configuration file of the running gateway; names its control socket.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// Control socket of the running gateway [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration directory of Postfix [default: Postfix's own].
    #[arg(long, value_name = "DIR")]
    pub config_directory: Option<PathBuf>,
    /// Print the queue ids only.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Print the commands; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Configuration file of the gateway: its sections `[outbound]` and `[postfix]` decide what Postfix uses [default: none, as
    /// with an empty `[outbound]`].
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of main.cf [default: postconf(1)'s own].
    #[arg(long, value_name = "DIR")]
    pub postfix_config: Option<PathBuf>,
}
